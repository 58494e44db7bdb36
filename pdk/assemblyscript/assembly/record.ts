import * as arena from "./arena";
import * as failure from "./failure";
import { Obj } from "./json/object";
import { View } from "./view";

export const BATCH: usize = 32;
export const RECORD: usize = 72;

const KEY_NULL: u16 = 1;
const VALUE_NULL: u16 = 2;
const REDELIVERED: u16 = 4;

let frame: usize = 0;

/** The frame whose records follow. */
export function enter(at: usize): void {
  frame = at;
}

/** A header of a record. It lives as long as the record. */
@unmanaged
@final
export class Header {
  /** Its name, as a rule UTF-8. */
  readonly name: View;
  /** Its value; null is empty. */
  readonly value: View;

  static of(name: View, value: View): Header {
    const p = arena.alloc(offsetof<Header>());
    store<usize>(p, changetype<usize>(name), offsetof<Header>("name"));
    store<usize>(p, changetype<usize>(value), offsetof<Header>("value"));
    return changetype<Header>(p);
  }
}

/**
 * A record of the batch: the host's bytes where they lie. What it hands out
 * lives until the stage has answered it.
 */
@unmanaged
@final
export class Record {
  // The header as the host writes it.
  private size: u32;
  /** Its number in the batch. */
  readonly id: u32;
  private outcome: u8;
  private same: u8;
  private flags: u16;
  private topicIndex: u16;
  private headerCount: u16;
  /** Its offset in the partition. */
  readonly offset: i64;
  /** Its time in Unix milliseconds. */
  readonly timestamp: i64;
  /** The partition it was read from. */
  readonly partition: i32;
  /** How often it is tried, from 1. */
  readonly attempt: u32;
  private keyLength: u32;
  private valueLength: u32;
  private headersLength: u32;
  private reserved: u32;
  private trace: u64;
  private traceEnd: u64;

  // @ts-ignore: decorator
  @inline
  private get keyAt(): usize {
    return changetype<usize>(this) + RECORD + this.headersLength;
  }

  // @ts-ignore: decorator
  @inline
  private get valueAt(): usize {
    return this.keyAt + this.keyLength;
  }

  /** The key; null if there is none. */
  key(): View | null {
    return this.flags & KEY_NULL ? null : View.of(this.keyAt, this.valueAt);
  }

  /** The value; null if there is none: a tombstone. */
  value(): View | null {
    return this.flags & VALUE_NULL ? null : this.bytes();
  }

  /** The value, empty for a tombstone. */
  bytes(): View {
    return View.of(this.valueAt, this.valueAt + this.valueLength);
  }

  /**
   * The value as text. A tombstone, and a value that is no UTF-8, is "" and
   * fails the record with code 1, whatever the stage answers.
   */
  text(): string {
    const value = this.value();
    if (value == null) {
      failure.set(1, TOMBSTONE);
      return "";
    }
    if (!value.isText()) {
      failure.set(1, "the value is no text: it is not UTF-8");
      return "";
    }
    return value.text();
  }

  /**
   * The value as a JSON object, valid as a whole. Anything else is an empty
   * object and fails the record with code 1 and the place of the fault,
   * whatever the stage answers.
   */
  json(): Obj {
    if (this.flags & VALUE_NULL) failure.set(1, TOMBSTONE);
    const object = this.scan();
    const fault = object.fault;
    if (fault != null) {
      failure.set(1, fault);
      object.clear();
    }
    return object;
  }

  /**
   * The value as a JSON object that is read member by member: a fault fails the
   * record only behind the members before it. For stages that decide early.
   */
  // @ts-ignore: decorator
  @inline
  scan(): Obj {
    return Obj.scan(this.valueAt, this.valueAt + this.valueLength);
  }

  /** The headers in order; a name may occur several times. */
  headers(): Header[] {
    const all = new Array<Header>(this.headerCount);
    let p = changetype<usize>(this) + RECORD;
    for (let i = 0; i < all.length; i++) {
      const name = p + 6;
      const value = name + load<u16>(p);
      const end = value + load<u32>(p, 2);
      all[i] = Header.of(View.of(name, value), View.of(value, end));
      p = end;
    }
    return all;
  }

  /** The value of the last header of that name; null if there is none. */
  header(name: string): View | null {
    let found: View | null = null;
    let p = changetype<usize>(this) + RECORD;
    for (let i: u16 = 0; i < this.headerCount; i++) {
      const value = p + 6 + load<u16>(p);
      const end = value + load<u32>(p, 2);
      if (View.of(p + 6, value).is(name)) found = View.of(value, end);
      p = end;
    }
    return found;
  }

  /** The topic it was read from. */
  get topic(): string {
    let p = frame + BATCH;
    for (let i = this.topicIndex; i > 0; i--) p += 2 + <usize>load<u16>(p);
    return View.of(p + 2, p + 2 + load<u16>(p)).text();
  }

  /** Whether an earlier run may have processed it already. */
  get redelivered(): bool {
    return (this.flags & REDELIVERED) != 0;
  }

  /** The trace that it belongs to, in 32 hexadecimal digits; null if none. */
  get traceId(): string | null {
    if ((this.trace | this.traceEnd) == 0) return null;
    let text = "";
    for (let i: usize = 0; i < 16; i++) {
      const b = load<u8>(changetype<usize>(this) + offsetof<Record>("trace") + i);
      text += (b >> 4).toString(16) + (b & 15).toString(16);
    }
    return text;
  }

  /**
   * The time of the batch in Unix milliseconds: the only clock of a stage. A
   * replay sees the same.
   */
  get now(): i64 {
    return load<i64>(frame, 24);
  }

  /**
   * Identifies the call, not the record: after a failure a record may come
   * again in another call.
   */
  get batchId(): u64 {
    return load<u64>(frame, 16);
  }
}

const TOMBSTONE: string = "the record has no value (a tombstone)";
