// UTF-8 as bytes in memory.

/** The first byte that is not part of valid UTF-8; `end` if there is none. */
export function invalid(p: usize, end: usize): usize {
  while (p < end) {
    const c = <u32>load<u8>(p);
    if (c < 0x80) {
      p++;
      continue;
    }
    let more: usize = 1;
    let low: u32 = 0x80;
    let high: u32 = 0xbf;
    if (c < 0xc2) return p;
    if (c >= 0xe0) {
      more = 2;
      if (c == 0xe0) low = 0xa0;
      if (c == 0xed) high = 0x9f;
      if (c >= 0xf0) {
        more = 3;
        if (c == 0xf0) low = 0x90;
        if (c == 0xf4) high = 0x8f;
        if (c > 0xf4) return p;
      }
    }
    if (p + more >= end) return p;
    const second = <u32>load<u8>(p, 1);
    if (second < low || second > high) return p;
    if (more > 1 && (load<u8>(p, 2) & 0xc0) != 0x80) return p;
    if (more > 2 && (load<u8>(p, 3) & 0xc0) != 0x80) return p;
    p += more + 1;
  }
  return end;
}

/** The text of valid UTF-8; what is not becomes U+FFFD. */
export function decode(p: usize, end: usize): string {
  if (invalid(p, end) == end) return String.UTF8.decodeUnsafe(p, end - p);
  let text = "";
  while (p < end) {
    const bad = invalid(p, end);
    text += String.UTF8.decodeUnsafe(p, bad - p);
    p = bad;
    if (p == end) break;
    text += "\ufffd";
    p++;
    while (p < end && (load<u8>(p) & 0xc0) == 0x80) p++;
  }
  return text;
}

/**
 * The number of UTF-16 units of the text at p, read from the header before it:
 * each use of a text as such tells the collector of it, which costs.
 */
// @ts-ignore: decorator
@inline
export function units(p: usize): usize {
  return <usize>load<u32>(p - 4) >> 1;
}

/**
 * Whether the bytes from p to end are the text, for bytes that hold no escapes.
 * Bytes that are not UTF-8 are no text.
 */
// @ts-ignore: decorator
@inline
export function is(p: usize, end: usize, text: string): bool {
  const n = end - p;
  const length = units(changetype<usize>(text));
  // A text has at least as many bytes as UTF-16 units.
  return n == length ? isAscii(p, n, changetype<usize>(text)) && invalidASCII(p, end) == end : n > length && isLonger(p, end, text);
}

/** The first byte beyond ASCII. */
function invalidASCII(p: usize, end: usize): usize {
  while (p < end && load<i8>(p) >= 0) p++;
  return p;
}

/** As is, for bytes that are ASCII. */
// @ts-ignore: decorator
@inline
export function isShort(p: usize, end: usize, text: string): bool {
  const n = end - p;
  return n == units(changetype<usize>(text)) && isAscii(p, n, changetype<usize>(text));
}

// @ts-ignore: decorator
@inline
function widen(four: u32): u64 {
  let w = <u64>four;
  w = (w | (w << 16)) & 0x0000ffff0000ffff;
  return (w | (w << 8)) & 0x00ff00ff00ff00ff;
}

/** Compares n bytes with n UTF-16 units; reads neither beyond its end. */
export function isAscii(p: usize, n: usize, units: usize): bool {
  if (n >= 8) {
    let i: usize = 0;
    while (true) {
      if (ASC_FEATURE_SIMD) {
        if (v128.any_true(v128.xor(v128.load_ext<u8>(p + i), v128.load(units + (i << 1))))) return false;
      } else {
        if (widen(load<u32>(p + i)) != load<u64>(units + (i << 1))) return false;
        if (widen(load<u32>(p + i, 4)) != load<u64>(units + (i << 1), 8)) return false;
      }
      if (i + 8 == n) break;
      i = min(i + 8, n - 8);
    }
  } else if (n >= 4) {
    if (widen(load<u32>(p)) != load<u64>(units)) return false;
    if (widen(load<u32>(p + n - 4)) != load<u64>(units + (n << 1) - 8)) return false;
  } else {
    for (let i: usize = 0; i < n; i++) {
      if (<u16>load<u8>(p + i) != load<u16>(units + (i << 1))) return false;
    }
  }
  return true;
}

function isLonger(p: usize, end: usize, text: string): bool {
  const buffer = String.UTF8.encode(text);
  const n = <usize>buffer.byteLength;
  return n == end - p && memory.compare(p, changetype<usize>(buffer), n) == 0;
}

/** Whether n bytes are the same; reads neither beyond its end. */
// @ts-ignore: decorator
@inline
export function equal(a: usize, b: usize, n: usize): bool {
  if (n > 16) return memory.compare(a, b, n) == 0;
  if (n >= 8) return ((load<u64>(a) ^ load<u64>(b)) | (load<u64>(a + n - 8) ^ load<u64>(b + n - 8))) == 0;
  if (n >= 4) return ((load<u32>(a) ^ load<u32>(b)) | (load<u32>(a + n - 4) ^ load<u32>(b + n - 4))) == 0;
  if (n == 0) return true;
  return load<u8>(a) == load<u8>(b) && load<u8>(a + (n >> 1)) == load<u8>(b + (n >> 1)) && load<u8>(a + n - 1) == load<u8>(b + n - 1);
}
