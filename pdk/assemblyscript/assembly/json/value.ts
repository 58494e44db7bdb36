import * as arena from "../arena";
import * as buffer from "../buffer";
import * as bytes from "../bytes";
import * as utf8 from "../utf8";
import { View } from "../view";
import * as number from "./number";
import { Obj } from "./object";
import * as scan from "./scan";
import * as token from "./tokens";

/** What a JSON value is. */
export enum Kind {
  Null,
  Bool,
  Number,
  String,
  List,
  Object,
}

/** A valid JSON value: its text where it lies, as long as its record lives. */
@unmanaged
@final
export class Value {
  /** The address of the first byte. */
  readonly at: usize;
  /** The address behind the last one. */
  readonly end: usize;
  /** There may be backslashes, or bytes beyond ASCII. */
  private special: bool;

  // @ts-ignore: decorator
  @inline
  static make(at: usize, end: usize, special: bool): Value {
    const p = arena.alloc(offsetof<Value>());
    store<usize>(p, at, offsetof<Value>("at"));
    store<usize>(p, end, offsetof<Value>("end"));
    store<u8>(p, u8(special), offsetof<Value>("special"));
    return changetype<Value>(p);
  }

  /** Reads bytes that are one JSON value; null if they are not. */
  static read(text: View): Value | null {
    const end = scan.whole(text.at, text.end);
    return end ? Value.make(token.skipSpace(text.at, end), end, true) : null;
  }

  /** Its text as it stands in the record: a string with its quotes. */
  get raw(): View {
    return View.of(this.at, this.end);
  }

  /** The number of bytes of its text. */
  // @ts-ignore: decorator
  @inline
  get length(): i32 {
    return <i32>(this.end - this.at);
  }

  /** The place of the first such byte of its text from `from` on; -1 if there is none. */
  indexOf(byte: u8, from: i32 = 0): i32 {
    return bytes.indexOf(this.at, this.end, byte, from);
  }

  /** What it is. */
  get kind(): Kind {
    switch (load<u8>(this.at)) {
      case 0x7b:
        return Kind.Object;
      case 0x5b:
        return Kind.List;
      case 0x22:
        return Kind.String;
      case 0x74:
      case 0x66:
        return Kind.Bool;
      case 0x6e:
        return Kind.Null;
    }
    return Kind.Number;
  }

  // @ts-ignore: decorator
  @inline
  get isNull(): bool {
    return load<u8>(this.at) == 0x6e;
  }

  // @ts-ignore: decorator
  @inline
  get isString(): bool {
    return load<u8>(this.at) == 0x22;
  }

  get isNumber(): bool {
    return number.isNumber(this.at);
  }

  /** Whether it is written as an integer that an i64 can hold. */
  get isInteger(): bool {
    number.integer(this.at, this.end);
    return number.isInteger();
  }

  /** Whether it is this string. */
  // @ts-ignore: decorator
  @inline
  is(text: string): bool {
    return this.isString && same(this.at + 1, this.end - 1, text, this.special);
  }

  /** The string, decoded; "" if it is something else. */
  text(): string {
    return this.isString ? unescape(this.at + 1, this.end - 1) : "";
  }

  /** The number; NaN if it is something else. Beyond the range it is infinite. */
  number(): f64 {
    return number.float(this.at, this.end);
  }

  /** The integer; `other` if it is something else or does not fit. */
  integer(other: i64 = 0): i64 {
    const v = number.integer(this.at, this.end);
    return number.isInteger() ? v : other;
  }

  /** true or false; `other` if it is something else. */
  bool(other: bool = false): bool {
    const c = load<u8>(this.at);
    return c == 0x74 ? true : c == 0x66 ? false : other;
  }

  /** The object; null if it is something else. */
  object(): Obj | null {
    return load<u8>(this.at) == 0x7b ? Obj.scan(this.at, this.end) : null;
  }

  /** The values of a list; none if it is something else. */
  items(): Value[] {
    const all: Value[] = [];
    if (load<u8>(this.at) != 0x5b) return all;
    let p = token.skipSpace(this.at + 1, this.end);
    while (load<u8>(p) != 0x5d) {
      // The list is valid: there is a value, then a comma or the end.
      const to = scan.behind(p, this.end);
      all.push(Value.make(p, to, true));
      p = token.skipSpace(to, this.end);
      if (load<u8>(p) == 0x2c) p = token.skipSpace(p + 1, this.end);
    }
    return all;
  }
}

/** Whether what stands between the quotes of a valid string is the text. */
// @ts-ignore: decorator
@inline
export function same(at: usize, end: usize, text: string, special: bool): bool {
  return special ? sameSlowly(at, end, text) : utf8.isShort(at, end, text);
}

function sameSlowly(at: usize, end: usize, text: string): bool {
  return hasEscape(at, end) ? unescape(at, end) == text : utf8.is(at, end, text);
}

function hasEscape(p: usize, end: usize): bool {
  for (; p < end; p++) {
    if (load<u8>(p) == 0x5c) return true;
  }
  return false;
}

/** What stands between the quotes of a valid string, decoded. */
export function unescape(at: usize, end: usize): string {
  if (!hasEscape(at, end)) return utf8.decode(at, end);
  const decoded = heap.alloc(end - at + 4);
  let to = decoded;
  let p = at;
  while (p < end) {
    let c = <u32>load<u8>(p);
    if (c != 0x5c) {
      store<u8>(to++, <u8>c);
      p++;
      continue;
    }
    c = load<u8>(p, 1);
    p += 2;
    if (c == 0x62) c = 8;
    else if (c == 0x66) c = 12;
    else if (c == 0x6e) c = 10;
    else if (c == 0x72) c = 13;
    else if (c == 0x74) c = 9;
    else if (c == 0x75) {
      c = hex4(p);
      p += 4;
      if ((c & 0xfc00) == 0xd800 && p + 6 <= end && load<u16>(p) == 0x755c && (hex4(p + 2) & 0xfc00) == 0xdc00) {
        c = 0x10000 + ((c - 0xd800) << 10) + (hex4(p + 2) - 0xdc00);
        p += 6;
      } else if ((c & 0xf800) == 0xd800) {
        c = 0xfffd;
      }
    }
    to = buffer.character(to, c);
  }
  const text = utf8.decode(decoded, to);
  heap.free(decoded);
  return text;
}

function hex4(p: usize): u32 {
  let v: u32 = 0;
  for (let i: usize = 0; i < 4; i++) {
    const c = <u32>load<u8>(p + i);
    v = (v << 4) | (c <= 0x39 ? c - 0x30 : (c | 0x20) - 0x57);
  }
  return v;
}
