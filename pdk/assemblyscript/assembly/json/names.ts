import * as utf8 from "../utf8";

const LENGTHS: usize = 64;
const ENTRY: usize = 8;

/**
 * A list of names to find members by: `to.find(names)` costs one look, however
 * many they are, where each `to.is(name)` costs one. It is made once, at the top
 * level of the file.
 */
@unmanaged
@final
export class Names {
  // By length in bytes, the last ones together: the first entry of that length,
  // counted from 1, or 0.
  private heads: u64;

  static of(names: string[]): Names {
    if (names.length > 255) throw new RangeError("Names.of: at most 255 names are possible");
    const made = heap.alloc(LENGTHS + <usize>names.length * ENTRY);
    memory.fill(made, 0, LENGTHS);
    for (let i = names.length - 1; i >= 0; i--) {
      const bytes = String.UTF8.encode(names[i]);
      const n = <usize>bytes.byteLength;
      const kept = heap.alloc(n + 16);
      memory.copy(kept, changetype<usize>(bytes), n);
      const entry = made + LENGTHS + <usize>i * ENTRY;
      const head = made + min(n, LENGTHS - 1);
      store<u32>(entry, <u32>kept);
      store<u16>(entry, <u16>n, 4);
      store<u8>(entry, load<u8>(head), 6);
      store<u8>(head, <u8>(i + 1));
    }
    return changetype<Names>(made);
  }

  /** The index of the name that the n bytes at p are; -1 if they are none. */
  // @ts-ignore: decorator
  @inline
  find(p: usize, n: usize): i32 {
    const i = <usize>load<u8>(changetype<usize>(this) + min(n, LENGTHS - 1));
    return i ? this.among(i, p, n) : -1;
  }

  private among(i: usize, p: usize, n: usize): i32 {
    do {
      const entry = changetype<usize>(this) + LENGTHS + (i - 1) * ENTRY;
      if (<usize>load<u16>(entry, 4) == n && utf8.equal(p, load<u32>(entry), n)) return <i32>i - 1;
      i = load<u8>(entry, 6);
    } while (i);
    return -1;
  }
}
