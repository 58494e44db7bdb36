import * as arena from "../arena";
import { View } from "../view";
import * as scan from "./scan";
import * as token from "./tokens";
import { Span } from "./scan";
import { Value, same, unescape } from "./value";

/**
 * A JSON object: where its members lie in the text. The whole text was
 * validated; members of objects inside of it are found by `value.object()`.
 */
@unmanaged
@final
export class Obj {
  // The text.
  at: usize;
  end: usize;
  // The list of its members.
  spans: usize;
  spansEnd: usize;
  // There are backslashes, or bytes beyond ASCII.
  special: bool;
  private why: usize;
  private where: u32;

  /** Reads bytes that are one JSON object. What they are not is in `fault`. */
  static read(text: View): Obj {
    const object = Obj.scan(text.at, text.end);
    if (object.why) object.clear();
    return object;
  }

  /** Reads as far as the text is an object: the members before a fault are there. */
  static scan(at: usize, end: usize): Obj {
    const o = changetype<Obj>(arena.alloc(offsetof<Obj>()));
    o.at = at;
    o.end = end;
    o.why = 0;
    if (!scan.members(at, end)) {
      o.why = changetype<usize>(token.reason());
      o.where = token.place();
    }
    o.spans = scan.listed();
    o.spansEnd = scan.listedEnd();
    o.special = token.isSpecial();
    return o;
  }

  /** Why the text is no object and at which byte; null if it is one. */
  get fault(): string | null {
    return this.why ? changetype<string>(this.why) + " at byte " + this.where.toString() : null;
  }

  // @ts-ignore: decorator
  @inline
  get isBroken(): bool {
    return this.why != 0;
  }

  /** Forgets the members. */
  clear(): void {
    this.spansEnd = this.spans;
  }

  /** The number of members, those of the same name counted each. */
  // @ts-ignore: decorator
  @inline
  get length(): i32 {
    return <i32>((this.spansEnd - this.spans) / offsetof<Span>());
  }

  private span(i: i32): Span {
    if (<u32>i >= <u32>this.length) throw new RangeError("member " + i.toString() + " of an object of " + this.length.toString());
    return changetype<Span>(this.spans + <usize>i * offsetof<Span>());
  }

  /** The name of the member at `i`, decoded. */
  name(i: i32): string {
    const span = this.span(i);
    return unescape(span.key, span.keyEnd);
  }

  /** The value of the member at `i`. */
  value(i: i32): Value {
    const span = this.span(i);
    return Value.make(span.value, span.valueEnd, this.special);
  }

  /** The value of the last member of that name; null if there is none. */
  get(name: string): Value | null {
    for (let p = this.spansEnd; p > this.spans; ) {
      p -= offsetof<Span>();
      const span = changetype<Span>(p);
      if (same(span.key, span.keyEnd, name, this.special)) return Value.make(span.value, span.valueEnd, this.special);
    }
    return null;
  }

  /** Whether there is a member of that name. */
  has(name: string): bool {
    return this.get(name) != null;
  }
}
