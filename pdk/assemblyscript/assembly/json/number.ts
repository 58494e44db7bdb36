// Numbers of valid JSON.

// Powers of ten that a double holds exactly.
const POWERS: usize = memory.data<f64>([1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15]);

// @ts-ignore: decorator
@inline
export function isNumber(p: usize): bool {
  const c = load<u8>(p);
  return c == 0x2d || c - 0x30 < 10;
}

/**
 * The number; NaN if the value is none. Up to 15 digits without an exponent
 * are one exact integer over one exact power: the division rounds once.
 */
export function float(from: usize, to: usize): f64 {
  let p = from;
  const negative = load<u8>(p) == 0x2d;
  if (negative) p++;
  let v: u64 = 0;
  let n: usize = to - p;
  let point: usize = 0;
  if (n > 16) return slow(from, to);
  for (; p < to; p++) {
    const c = load<u8>(p);
    if (c - 0x30 < 10) {
      v = v * 10 + (c - 0x30);
    } else if (c == 0x2e) {
      point = p;
      n--;
    } else {
      return slow(from, to);
    }
  }
  if (n > 15) return slow(from, to);
  const f = <f64>v / load<f64>(POWERS + ((point ? to - point - 1 : 0) << 3));
  return negative ? -f : f;
}

function slow(from: usize, to: usize): f64 {
  return isNumber(from) ? parseFloat(String.UTF8.decodeUnsafe(from, to - from)) : NaN;
}

let fits: bool = false;

/** Whether the last integer was one and fitted. */
export function isInteger(): bool {
  return fits;
}

/** The number that is written as an integer, if it fits in 64 bits with a sign. */
export function integer(from: usize, to: usize): i64 {
  const negative = load<u8>(from) == 0x2d;
  const most: u64 = negative ? 1 << 63 : i64.MAX_VALUE;
  let p = from + usize(negative);
  let v: u64 = 0;
  fits = false;
  if (p == to) return 0;
  for (; p < to; p++) {
    const digit = <u64>load<u8>(p) - 0x30;
    if (digit > 9 || v > (most - digit) / 10) return 0;
    v = v * 10 + digit;
  }
  fits = true;
  return negative ? -(<i64>v) : <i64>v;
}
