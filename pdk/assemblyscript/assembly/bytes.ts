/** The place of the first such byte from `from` on, counted from `at`; -1 if there is none. */
export function indexOf(at: usize, end: usize, byte: u8, from: i32): i32 {
  let p = at + max(from, 0);
  if (ASC_FEATURE_SIMD) {
    for (; p + 16 <= <usize>memory.size() << 16; p += 16) {
      const found = i8x16.bitmask(i8x16.eq(v128.load(p), i8x16.splat(byte)));
      if (found || p + 16 >= end) {
        p += <usize>ctz(found);
        return found && p < end ? <i32>(p - at) : -1;
      }
    }
  }
  for (; p < end; p++) {
    if (load<u8>(p) == byte) return <i32>(p - at);
  }
  return -1;
}
