// The tokens of JSON: strings, numbers, words and white space. Places are
// addresses; 0 is a fault, whose reason and place are kept.

import * as utf8 from "../utf8";

// Short strings are looked at in one window, which may go beyond the text, but
// not beyond the memory.
const WINDOW: usize = 16;

let base: usize = 0;
let windowEnd: usize = 0; // where no window may begin any more
let special: bool = false; // there is an escape, or a byte beyond ASCII
let what: string = "";
let where: usize = 0;

/** The reason of the last fault; static, so that its address may be kept. */
export function reason(): string {
  return what;
}

/** The byte of the last fault, from 0; the length of the text if it ends too early. */
export function place(): u32 {
  return <u32>(where - base);
}

export function fault(text: string, at: usize): usize {
  what = text;
  where = at;
  return 0;
}

// Eight times the byte.
// @ts-ignore: decorator
@inline
function each(c: u8): u64 {
  return 0x0101010101010101 * <u64>c;
}

// The high bit of the first zero byte of w is set, and none below it.
// @ts-ignore: decorator
@inline
function zeroBytes(w: u64): u64 {
  return (w - each(1)) & ~w & each(0x80);
}

/**
 * How many bytes from p on are neither a quote, a backslash, a control character
 * nor beyond ASCII, up to the length of the window.
 */
// @ts-ignore: decorator
@inline
function ordinary(p: usize): usize {
  if (ASC_FEATURE_SIMD) {
    const v = v128.load(p);
    // As signed numbers what is beyond ASCII is below every control character.
    const stops = v128.or(v128.or(i8x16.eq(v, i8x16.splat(0x22)), i8x16.eq(v, i8x16.splat(0x5c))), i8x16.lt_s(v, i8x16.splat(0x20)));
    return <usize>ctz(i8x16.bitmask(stops) | 0x10000);
  } else {
    const w = load<u64>(p);
    const stops = zeroBytes(w ^ each(0x22)) | zeroBytes(w ^ each(0x5c)) | (((w - each(0x20)) | w) & each(0x80));
    return <usize>ctz(stops) >> 3;
  }
}

/** The quote that ends the string whose bytes begin at p. */
// @ts-ignore: decorator
@inline
export function close(p: usize, end: usize): usize {
  return shortClose(p, end) || longClose(p, end);
}

/** As close, for short strings; 0 leaves it to longClose. */
// @ts-ignore: decorator
@inline
export function shortClose(p: usize, end: usize): usize {
  if (p >= windowEnd) return 0;
  const quote = p + ordinary(p);
  return quote < end && load<u8>(quote) == 0x22 ? quote : 0;
}

export function longClose(at: usize, end: usize): usize {
  let p = at;
  let beyond = false;
  while (true) {
    if (p < windowEnd) p += ordinary(p);
    if (p >= end) return fault("cut off inside a string", end);
    const c = load<u8>(p);
    if (c == 0x22) break;
    if (c == 0x5c) {
      special = true;
      p = escape(p, end);
      if (!p) return 0;
      continue;
    }
    if (c < 0x20) return fault("a control character in a string", p);
    if (c > 0x7f) beyond = true;
    p++;
  }
  if (beyond) {
    special = true;
    const bad = utf8.invalid(at, p);
    if (bad != p) return fault("no UTF-8", bad);
  }
  return p;
}

/** The place behind the escape that begins at p. */
function escape(p: usize, end: usize): usize {
  if (p + 1 >= end) return fault("cut off inside a string", end);
  switch (load<u8>(p, 1)) {
    case 0x22: // "
    case 0x5c: // \
    case 0x2f: // /
    case 0x62: // b
    case 0x66: // f
    case 0x6e: // n
    case 0x72: // r
    case 0x74: // t
      return p + 2;
    case 0x75: // u
      for (let k = p + 2; k < p + 6; k++) {
        if (k >= end) return fault("cut off inside a string", end);
        const c = load<u8>(k);
        if (c - 0x30 >= 10 && (c | 0x20) - 0x61 >= 6) return fault("no hexadecimal digit in an escape", k);
      }
      return p + 6;
  }
  return fault("an unknown escape", p);
}

/** A word of n bytes: the first four as they lie in memory, and the fifth. */
export function literal(p: usize, end: usize, four: u32, n: usize, fifth: u8): usize {
  const rest = min(end - p, n);
  for (let i: usize = 0; i < rest; i++) {
    const want = i < 4 ? <u8>(four >> (<u32>i << 3)) : fifth;
    if (load<u8>(p + i) != want) return fault("no value where one should begin", p);
  }
  return rest == n ? p + n : fault("cut off inside a value", end);
}

function digits(p: usize, end: usize): usize {
  const from = p;
  while (p < end && load<u8>(p) - 0x30 < 10) p++;
  if (p > from) return p;
  return p == end ? fault("cut off inside a number", p) : fault("no digit where a number needs one", p);
}

/** The place behind the number that begins at p, with a digit that is not 0. */
export function digitsFrom(p: usize, end: usize): usize {
  p++;
  while (p < end && load<u8>(p) - 0x30 < 10) p++;
  if (p < end) {
    const c = load<u8>(p);
    if (c == 0x2e || (c | 0x20) == 0x65) return fraction(p, end);
  }
  return p;
}

/** The place behind the number that begins at p. */
export function number(p: usize, end: usize): usize {
  if (p < end && load<u8>(p) == 0x2d) p++;
  p = p < end && load<u8>(p) == 0x30 ? p + 1 : digits(p, end);
  return p ? fraction(p, end) : 0;
}

/** The place behind what follows the integer of a number, which ended before p. */
function fraction(p: usize, end: usize): usize {
  if (p < end && load<u8>(p) == 0x2e) p = digits(p + 1, end);
  if (p && p < end && (load<u8>(p) | 0x20) == 0x65) {
    p++;
    if (p < end && (load<u8>(p) == 0x2b || load<u8>(p) == 0x2d)) p++;
    p = digits(p, end);
  }
  return p;
}

// @ts-ignore: decorator
@inline
export function skipSpace(p: usize, end: usize): usize {
  return p < end && load<u8>(p) <= 0x20 ? space(p, end) : p;
}

function space(p: usize, end: usize): usize {
  while (p < end) {
    const c = load<u8>(p);
    if (c != 0x20 && c != 0x0a && c != 0x09 && c != 0x0d) break;
    p++;
  }
  return p;
}

/** Begins a text, from which faults count. */
export function begin(p: usize): void {
  base = p;
  special = false;
  windowEnd = (<usize>memory.size() << 16) - WINDOW;
}

/** Whether the text has escapes, or bytes beyond ASCII. */
// @ts-ignore: decorator
@inline
export function isSpecial(): bool {
  return special;
}
