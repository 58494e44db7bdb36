import * as utf8 from "./utf8";

// The result frame under way: one buffer that grows, and the place where the
// next byte goes. Places that are kept are counted from its begin, since
// growth moves it.

// Copies may read and write up to SLACK bytes past their ends.
const SLACK: usize = 64;

let base: usize = 0;
let limit: usize = 0;
let at: usize = 0;

/** How much is written. */
// @ts-ignore: decorator
@inline
export function length(): usize {
  return at - base;
}

/** The address of the byte at `place`; good until the next room. */
// @ts-ignore: decorator
@inline
export function address(place: usize): usize {
  return base + place;
}

/** Takes back what stands behind `place`. */
// @ts-ignore: decorator
@inline
export function truncate(place: usize): void {
  at = base + place;
}

/** Room for `n` more bytes, and for copies to overshoot. */
// @ts-ignore: decorator
@inline
export function room(n: usize): void {
  if (at + n + SLACK > limit) grow(n);
}

function grow(n: usize): void {
  const used = at - base;
  const size = max(used + n + SLACK, (limit - base) + ((limit - base) >> 1));
  base = base ? heap.realloc(base, size) : heap.alloc(size);
  limit = base + size;
  at = base + used;
}

/** Appends `n` bytes of any content. */
// @ts-ignore: decorator
@inline
export function skip(n: usize): void {
  room(n);
  at += n;
}

// @ts-ignore: decorator
@inline
export function push(c: u8): void {
  room(1);
  store<u8>(at, c);
  at++;
}

/** Appends the bytes from `from` to `to`; some behind them may be read. */
// @ts-ignore: decorator
@inline
export function copy(from: usize, to: usize): void {
  const n = to - from;
  room(n);
  if (n > 256 || to + 32 > <usize>memory.size() << 16) {
    memory.copy(at, from, n);
  } else if (ASC_FEATURE_SIMD) {
    for (let i: usize = 0; i < n; i += 32) {
      v128.store(at + i, v128.load(from + i));
      v128.store(at + i, v128.load(from + i, 16), 16);
    }
  } else {
    for (let i: usize = 0; i < n; i += 8) store<u64>(at + i, load<u64>(from + i));
  }
  at += n;
}

/** Appends the text as UTF-8; a lone surrogate becomes U+FFFD. */
// @ts-ignore: decorator
@inline
export function text(s: string): void {
  // Without a managed value in it a function costs half. Nothing is allocated
  // on the way that could collect the text.
  put(changetype<usize>(s), utf8.units(changetype<usize>(s)));
}

function put(p: usize, n: usize): void {
  room(3 * n);
  let to = at;
  for (let i: usize = 0; i < n; i++) {
    if (ASC_FEATURE_SIMD) {
      while (i + 8 <= n) {
        const v = v128.load(p + (i << 1));
        if (v128.any_true(i16x8.gt_u(v, i16x8.splat(0x7f)))) break;
        v128.store64_lane(to, i8x16.narrow_i16x8_u(v, v), 0);
        i += 8;
        to += 8;
      }
      if (i == n) break;
    }
    const c = <u32>load<u16>(p + (i << 1));
    if (c < 0x80) {
      store<u8>(to++, <u8>c);
      continue;
    }
    const next = i + 1 < n ? <u32>load<u16>(p + (i << 1), 2) : 0;
    if ((c & 0xfc00) == 0xd800 && (next & 0xfc00) == 0xdc00) {
      to = character(to, 0x10000 + ((c - 0xd800) << 10) + (next - 0xdc00));
      i++;
    } else {
      to = character(to, (c & 0xf800) == 0xd800 ? 0xfffd : c);
    }
  }
  at = to;
}

/**
 * Appends a text of ASCII that stands in a JSON string as it is; false, and
 * nothing, for any other. The text is n UTF-16 units at p.
 */
export function plain(p: usize, n: usize): bool {
  room(n);
  const to = at;
  let i: usize = 0;
  if (ASC_FEATURE_SIMD) {
    for (; i + 8 <= n; i += 8) {
      const v = v128.load(p + (i << 1));
      const stops = v128.or(
        i16x8.gt_u(i16x8.sub(v, i16x8.splat(0x20)), i16x8.splat(0x5f)),
        v128.or(i16x8.eq(v, i16x8.splat(0x22)), i16x8.eq(v, i16x8.splat(0x5c))),
      );
      if (v128.any_true(stops)) return false;
      v128.store64_lane(to + i, i8x16.narrow_i16x8_u(v, v), 0);
    }
  }
  for (; i < n; i++) {
    const c = <u32>load<u16>(p + (i << 1));
    if (c - 0x20 > 0x5f || c == 0x22 || c == 0x5c) return false;
    store<u8>(to + i, <u8>c);
  }
  at = to + n;
  return true;
}

/** Writes the character as UTF-8; returns the place behind it. */
export function character(to: usize, c: u32): usize {
  if (c < 0x80) {
    store<u8>(to, <u8>c);
    return to + 1;
  }
  if (c < 0x800) {
    store<u8>(to, <u8>(0xc0 | (c >> 6)));
    store<u8>(to, <u8>(0x80 | (c & 63)), 1);
    return to + 2;
  }
  if (c < 0x10000) {
    store<u8>(to, <u8>(0xe0 | (c >> 12)));
    store<u8>(to, <u8>(0x80 | ((c >> 6) & 63)), 1);
    store<u8>(to, <u8>(0x80 | (c & 63)), 2);
    return to + 3;
  }
  store<u8>(to, <u8>(0xf0 | (c >> 18)));
  store<u8>(to, <u8>(0x80 | ((c >> 12) & 63)), 1);
  store<u8>(to, <u8>(0x80 | ((c >> 6) & 63)), 2);
  store<u8>(to, <u8>(0x80 | (c & 63)), 3);
  return to + 4;
}

/** Appends zeros up to a multiple of 8. */
// @ts-ignore: decorator
@inline
export function pad(): void {
  room(8);
  store<u64>(at, 0);
  at = base + ((at - base + 7) & ~7);
}
