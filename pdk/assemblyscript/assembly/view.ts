import * as arena from "./arena";
import * as bytes from "./bytes";
import * as utf8 from "./utf8";

/**
 * Bytes of the batch where they lie, copied nowhere. A view lives as long as
 * its record: keep `text()` or `bytes()` of it, not the view.
 */
@unmanaged
@final
export class View {
  /** The address of the first byte. */
  readonly at: usize;
  /** The address behind the last one. */
  readonly end: usize;

  /** A view of the bytes between two addresses. */
  static of(at: usize, end: usize): View {
    const p = arena.alloc(offsetof<View>());
    store<usize>(p, at, offsetof<View>("at"));
    store<usize>(p, end, offsetof<View>("end"));
    return changetype<View>(p);
  }

  /** The number of bytes. */
  // @ts-ignore: decorator
  @inline
  get length(): i32 {
    return <i32>(this.end - this.at);
  }

  /** The byte at `i`. */
  @operator("[]")
  get(i: i32): u8 {
    if (<u32>i >= <u32>this.length) throw new RangeError("byte " + i.toString() + " of a view of " + this.length.toString() + " bytes");
    return load<u8>(this.at + i);
  }

  /** The bytes from `from` up to `to`, as far as there are some. */
  slice(from: i32, to: i32 = i32.MAX_VALUE): View {
    const n = this.length;
    const first = min(max(from, 0), n);
    return View.of(this.at + first, this.at + max(min(to, n), first));
  }

  /** The place of the first such byte from `from` on; -1 if there is none. */
  indexOf(byte: u8, from: i32 = 0): i32 {
    return bytes.indexOf(this.at, this.end, byte, from);
  }

  /** Whether these are the bytes of the text. */
  is(text: string): bool {
    return utf8.is(this.at, this.end, text);
  }

  /** Whether both have the same bytes. */
  equals(other: View): bool {
    return this.length == other.length && memory.compare(this.at, other.at, this.length) == 0;
  }

  /** Whether the bytes are UTF-8. */
  isText(): bool {
    return utf8.invalid(this.at, this.end) == this.end;
  }

  /** The bytes as text; what is no UTF-8 becomes U+FFFD. */
  text(): string {
    return utf8.decode(this.at, this.end);
  }

  /** A copy of the bytes. */
  bytes(): Uint8Array {
    const copy = new Uint8Array(this.length);
    memory.copy(copy.dataStart, this.at, this.length);
    return copy;
  }
}
