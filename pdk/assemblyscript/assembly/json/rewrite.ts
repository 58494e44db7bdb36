import { Answer } from "../answer";
import * as buffer from "../buffer";
import { Writer } from "../emit";
import * as failure from "../failure";
import * as utf8 from "../utf8";
import { Names } from "./names";
import { Obj } from "./object";
import { Span } from "./scan";
import { Value, unescape } from "./value";
import { appendJson, quoted } from "./write";

// What is left to write of the member that was read last.
const UNTOUCHED: u8 = 0; // all of it
const BEGUN: u8 = 1; // the key is written or in the run, and so is a part of the value
const DONE: u8 = 2; // nothing

// There is one record under way at a time, so its state is the module's: globals
// cost less than memory.
let writer: Writer = changetype<Writer>(<usize>0);
let object: Obj = changetype<Obj>(<usize>0);
let nextSpan: usize = 0;
let lastSpan: usize = 0;
let key: usize = 0; // the member that was read last
let keyEnd: usize = 0;
let valueAt: usize = 0;
let valueEnd: usize = 0;
let special: bool = false;
let keyLength: usize = 0; // in UTF-16 units
let keyText: string = ""; // of a special object
// Untouched text that waits to be copied.
let run: usize = 0;
let runEnd: usize = 0;
let state: u8 = DONE;
// A member is written, or in the run.
let kept: bool = false;

/**
 * A changed copy of an object under way into the answer. What is not touched is
 * copied byte for byte, in the same order, without the white space between
 * members; whole runs of untouched members are one copy.
 */
@unmanaged
@final
export class Rewrite {
  // @ts-ignore: decorator
  @inline
  static begin(to: Writer, from: Obj): Rewrite {
    writer = to;
    object = from;
    nextSpan = from.spans;
    lastSpan = from.spansEnd;
    special = from.special;
    state = DONE;
    kept = false;
    const at = from.at;
    buffer.room(from.end - at + 16);
    if (at < from.end && load<u8>(at) == 0x7b) {
      run = at;
      runEnd = at + 1;
    } else {
      buffer.push(0x7b);
      nowhere();
    }
    return REWRITE;
  }

  /**
   * Reads the next member, which is kept unless remove, rename, set or splice
   * say otherwise; false behind the last. A fault of the text fails the record,
   * behind the members that stand before it.
   */
  next(): bool {
    settle();
    const at = nextSpan;
    if (at == lastSpan) {
      state = DONE;
      if (object.isBroken) broken(object);
      return false;
    }
    const span = changetype<Span>(at);
    key = span.key;
    keyEnd = span.keyEnd;
    valueAt = span.value;
    valueEnd = span.valueEnd;
    keyLength = keyEnd - key;
    if (special) decode();
    nextSpan = at + offsetof<Span>();
    state = UNTOUCHED;
    return true;
  }

  /** Whether this is the member's name. */
  // @ts-ignore: decorator
  @inline
  is(name: string): bool {
    return keyLength == utf8.units(changetype<usize>(name)) && matches(changetype<usize>(name));
  }

  /** Which of the names is the member's, by its place among them; -1 for none. */
  // @ts-ignore: decorator
  @inline
  find(names: Names): i32 {
    return special ? findSpecial(names) : names.find(key, keyLength);
  }

  /** The member's name, decoded. */
  get name(): string {
    return unescape(key, keyEnd);
  }

  /** The member's value. */
  // @ts-ignore: decorator
  @inline
  get value(): Value {
    return Value.make(valueAt, valueEnd, special);
  }

  /** Leaves the member out. */
  // @ts-ignore: decorator
  @inline
  remove(): void {
    if (state == UNTOUCHED) state = DONE;
  }

  /** Gives the member another name. It comes before set and splice. */
  // @ts-ignore: decorator
  @inline
  rename(name: string): void {
    if (state == UNTOUCHED) {
      comma();
      quoted(name);
      renamed();
    }
  }

  /** Gives the member another value, written as toJson makes it. */
  set<T>(value: T): void {
    if (state == DONE) return;
    replace();
    appendJson<T>(value);
  }

  /**
   * Gives the member another value, written as JSON already. That it is valid
   * is the caller's affair.
   */
  setRaw(json: string): void {
    if (state == DONE) return;
    replace();
    buffer.text(json);
  }

  /**
   * Replaces the bytes of the value's text from `from` up to `to`, quotes
   * counted, by others. Several splices of a value go from left to right. That
   * the value stays valid JSON is the caller's affair. A range that does not lie
   * in the value behind the last splice fails the record.
   */
  // @ts-ignore: decorator
  @inline
  splice(from: i32, to: i32, text: string): void {
    if (cut(from, to)) buffer.text(text);
  }

  /** Adds a member behind those that were read so far. */
  add<T>(name: string, value: T): void {
    settle();
    state = DONE;
    comma();
    quoted(name);
    buffer.push(0x3a);
    appendJson<T>(value);
    nowhere();
  }

  /** Emits the copy. Members that were not read yet are kept. */
  emit(): Answer {
    while (this.next()) {}
    // The run may go on to the bracket that ends the object.
    if (runEnd > 1 && runEnd < object.end && load<u8>(runEnd) == 0x7d) {
      runEnd++;
      flush();
    } else {
      flush();
      buffer.push(0x7d);
    }
    return writer.emit();
  }
}

/** The key of an object with escapes, or with bytes beyond ASCII. */
function decode(): void {
  keyText = unescape(key, keyEnd);
  keyLength = keyText.length;
}

function findSpecial(names: Names): i32 {
  const bytes = String.UTF8.encode(keyText);
  return names.find(changetype<usize>(bytes), bytes.byteLength);
}

/** Whether the key is the text at p, of the same length. */
function matches(p: usize): bool {
  return special ? memory.compare(p, changetype<usize>(keyText), keyLength << 1) == 0 : utf8.isAscii(key, keyLength, p);
}

/** A run that nothing follows. */
// @ts-ignore: decorator
@inline
function nowhere(): void {
  run = 1;
  runEnd = 1;
}

/** Goes on from the colon behind the key. */
function renamed(): void {
  const value: usize = valueAt;
  const tight = value == keyEnd + 2;
  if (!tight) buffer.push(0x3a);
  run = tight ? value - 1 : value;
  runEnd = value;
  state = BEGUN;
}

function replace(): void {
  start();
  flush();
  run = valueEnd;
  runEnd = run;
  state = DONE;
}

/** Writes the value up to `from` and goes on from `to`; false if there is nothing to write. */
function cut(from: i32, to: i32): bool {
  if (state == DONE) return false;
  start();
  const value: usize = valueAt;
  const left = value + from;
  const right = value + to;
  if (from < 0 || to < from || left < runEnd || right > valueEnd) {
    outside(from, to, valueEnd - value);
    return false;
  }
  runEnd = left;
  flush();
  run = right;
  runEnd = right;
  return true;
}

/** Completes the member that was read last. */
// @ts-ignore: decorator
@inline
function settle(): void {
  if (state == UNTOUCHED) start();
  if (state == BEGUN) runEnd = valueEnd;
}

/** Puts the key into the run, unless it is written. */
// @ts-ignore: decorator
@inline
function start(): void {
  if (state != UNTOUCHED) return;
  state = BEGUN;
  const quote: usize = key - 1;
  const colon: usize = keyEnd + 1;
  // Between two members there is one comma, so one byte is that.
  if (quote != runEnd + usize(kept)) {
    comma();
    run = quote;
  }
  kept = true;
  if (valueAt == colon + 1) {
    runEnd = colon + 1;
  } else {
    runEnd = colon;
    flush();
    buffer.push(0x3a);
    run = valueAt;
    runEnd = run;
  }
}

/** Writes what waits and the comma before another member. */
function comma(): void {
  flush();
  if (kept) buffer.push(0x2c);
  kept = true;
}

function flush(): void {
  if (run < runEnd) buffer.copy(run, runEnd);
  run = runEnd;
}

function broken(object: Obj): void {
  const fault = object.fault;
  if (fault != null) failure.set(1, fault);
}

function outside(from: i32, to: i32, length: usize): void {
  failure.set(1, "splice from " + from.toString() + " to " + to.toString() + " of a value of " + length.toString() + " bytes");
}

const REWRITE: Rewrite = changetype<Rewrite>(<usize>1);
