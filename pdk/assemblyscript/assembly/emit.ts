import * as arena from "./arena";
import { Answer, Output, completed, current, generationNow, restart } from "./answer";
import * as buffer from "./buffer";
import * as failure from "./failure";
import { appendJson, quoted } from "./json/write";
import { Obj } from "./json/object";
import { Rewrite } from "./json/rewrite";
import { RECORD, Record } from "./record";
import { View } from "./view";

const SAME_KEY: u8 = 1;
const SAME_VALUE: u8 = 2;
const SAME_HEADERS: u8 = 4;
const SAME_TIMESTAMP: u8 = 8;

const KEY_NULL: u8 = 1;
const VALUE_NULL: u8 = 2;

/** Appends the bytes of a string, a Uint8Array, an ArrayBuffer, a View or a Value. */
// @ts-ignore: decorator
@inline
export function appendBytes<T>(value: T): void {
  if (isString<T>()) {
    buffer.text(changetype<string>(value));
  } else if (isManaged<T>()) {
    if (idof<T>() == idof<Uint8Array>()) {
      const bytes = changetype<Uint8Array>(value);
      buffer.copy(bytes.dataStart, bytes.dataStart + bytes.byteLength);
    } else if (idof<T>() == idof<ArrayBuffer>()) {
      const bytes = changetype<usize>(value);
      buffer.copy(bytes, bytes + changetype<ArrayBuffer>(value).byteLength);
    } else {
      ERROR("a value, key or header is a string, a Uint8Array, an ArrayBuffer, a View or a Value");
    }
  } else if (isReference<T>()) {
    const view = changetype<View>(value);
    buffer.copy(view.at, view.end);
  } else {
    ERROR("a value, key or header is a string, a Uint8Array, an ArrayBuffer, a View or a Value");
  }
}

/** The same bytes as a View that stays until the record is answered. */
function viewOf<T>(value: T): View {
  if (isReference<T>() && !isManaged<T>()) return changetype<View>(value); // a Value begins as a View does
  const at = buffer.length();
  appendBytes<T>(value);
  const n = buffer.length() - at;
  const kept = arena.alloc(n);
  memory.copy(kept, buffer.address(at), n);
  buffer.truncate(at);
  return View.of(kept, kept + n);
}

/** A header to add, linked to the one before it. */
@unmanaged
@final
class Added {
  before: Added | null;
  name: View;
  value: View;
}

/**
 * A record to emit. What is not changed is the input's, and what is the
 * input's is not sent again. Nothing is emitted before emit, emitNull or pass.
 */
@unmanaged
@final
export class Emit {
  private output: u16;
  private plain: bool;
  private ownKey: bool;
  private ownHeaders: bool;
  private ownTimestamp: bool;
  private partitionTo: i32;
  private time: i64;
  private newKey: View | null;
  private added: Added | null;
  private count: u32;

  /** The input's record; for Out. */
  // @ts-ignore: decorator
  @inline
  static begin(): Emit {
    const e = EMIT;
    e.plain = true;
    e.output = 0;
    e.partitionTo = -1;
    return e;
  }

  /** Prepares for parts that differ. */
  private change(): void {
    if (!this.plain) return;
    this.plain = false;
    this.ownKey = true;
    this.ownHeaders = true;
    this.ownTimestamp = true;
    this.added = null;
    this.count = 0;
  }

  /** To another output. */
  to(output: Output): Emit {
    this.output = <u16>changetype<usize>(output);
    return this;
  }

  /** Another key: a string, a Uint8Array, an ArrayBuffer, a View or a Value. */
  key<K>(key: K): Emit {
    this.change();
    this.ownKey = false;
    this.newKey = viewOf<K>(key);
    return this;
  }

  /** No key. */
  noKey(): Emit {
    this.change();
    this.ownKey = false;
    this.newKey = null;
    return this;
  }

  /** One header more, behind the others. */
  header<N, V>(name: N, value: V): Emit {
    this.change();
    const h = changetype<Added>(arena.alloc(offsetof<Added>()));
    h.before = this.added;
    h.name = viewOf<N>(name);
    h.value = viewOf<V>(value);
    this.added = h;
    this.count++;
    return this;
  }

  /** Without the input's headers. */
  noHeaders(): Emit {
    this.change();
    this.ownHeaders = false;
    return this;
  }

  /** Another time, in Unix milliseconds. */
  timestamp(millis: i64): Emit {
    this.change();
    this.ownTimestamp = false;
    this.time = millis;
    return this;
  }

  /** To this partition of the sink; otherwise the key decides. */
  partition(partition: i32): Emit {
    this.partitionTo = partition;
    return this;
  }

  /** Emits it with this value. */
  // @ts-ignore: decorator
  @inline
  emit<V>(value: V): Answer {
    if (isReference<V>() && !isManaged<V>()) {
      if (isOwnValue(changetype<View>(value))) return this.pass();
    }
    const w = this.write();
    appendBytes<V>(value);
    return w.emit();
  }

  /** Emits it with the input's own value. */
  pass(): Answer {
    const w = this.write();
    w.same |= SAME_VALUE;
    return w.emit();
  }

  /** Emits it with no value: a tombstone. */
  emitNull(): Answer {
    const w = this.write();
    w.flags |= VALUE_NULL;
    return w.emit();
  }

  /** Emits it with a changed copy of the object as its value. */
  // @ts-ignore: decorator
  @inline
  rewrite(object: Obj): Rewrite {
    return Rewrite.begin(this.write(), object);
  }

  /** Emits it with a value that is written piece by piece. */
  write(): Writer {
    restart();
    const w = WRITER;
    w.at = buffer.length();
    w.generation = generationNow();
    buffer.skip(RECORD);
    w.same = SAME_KEY | SAME_HEADERS | SAME_TIMESTAMP;
    w.flags = 0;
    w.output = this.output;
    w.partition = this.partitionTo;
    store<u64>(changetype<usize>(w), 0);
    store<u64>(changetype<usize>(w), 0, 8);
    store<u64>(changetype<usize>(w), 0, 16);
    if (!this.plain) this.parts(w);
    w.value = buffer.length();
    return w;
  }

  /** Writes what differs in headers, key and time. */
  private parts(w: Writer): void {
    const r = current();
    if (!this.ownHeaders || this.added) {
      w.same &= ~SAME_HEADERS;
      w.headers = this.count;
      if (this.ownHeaders) {
        w.headers += load<u16>(changetype<usize>(r), 14);
        const at = changetype<usize>(r) + RECORD;
        buffer.copy(at, at + load<u32>(changetype<usize>(r), 48));
      }
      if (w.headers > 0xffff) failure.set(1, "emit with " + w.headers.toString() + " headers: at most 65535 are possible");
      this.putAdded();
      w.headersLength = <u32>(buffer.length() - w.at - RECORD);
    }
    if (!this.ownKey && !isOwnKey(r, this.newKey)) {
      w.same &= ~SAME_KEY;
      const key = this.newKey;
      if (key == null) {
        w.flags |= KEY_NULL;
      } else {
        w.keyLength = <u32>key.length;
        buffer.copy(key.at, key.end);
      }
    }
    if (!this.ownTimestamp) {
      w.same &= ~SAME_TIMESTAMP;
      w.time = this.time;
    }
  }

  /** Writes the headers that were added, which are linked backwards. */
  private putAdded(): void {
    const list = arena.alloc(<usize>this.count * sizeof<usize>());
    let h = changetype<usize>(this.added);
    for (let i = this.count; i > 0; h = changetype<usize>(changetype<Added>(h).before)) store<usize>(list + (<usize>--i << alignof<usize>()), h);
    for (let i: u32 = 0; i < this.count; i++) {
      const added = changetype<Added>(load<usize>(list + (<usize>i << alignof<usize>())));
      const name = added.name;
      const value = added.value;
      if (name.length > 0xffff) failure.set(1, "emit with a header name of " + name.length.toString() + " bytes: at most 65535 are possible");
      const at = buffer.length();
      buffer.skip(6);
      store<u16>(buffer.address(at), <u16>name.length);
      store<u32>(buffer.address(at), <u32>value.length, 2);
      buffer.copy(name.at, name.end);
      buffer.copy(value.at, value.end);
    }
  }
}

/** Whether the view is the input's value, not a copy of it. */
function isOwnValue(view: View): bool {
  const own = current().value();
  return own != null && own.at == view.at && own.end == view.end;
}

function isOwnKey(r: Record, key: View | null): bool {
  const own = r.key();
  if (own == null || key == null) return own == key;
  return own.at == key.at && own.end == key.end;
}

/**
 * A value under way straight into the answer. Nothing is emitted before emit.
 * JSON is written by open, list, add, item and close, commas included.
 */
@unmanaged
@final
export class Writer {
  // Emit.write clears the first three words.
  time: i64;
  headers: u32;
  headersLength: u32;
  keyLength: u32;
  depth: u32;
  at: usize;
  value: usize;
  generation: u32;
  same: u8;
  flags: u8;
  output: u16;
  partition: i32;
  kinds: u64; // the open objects and lists, the innermost is bit 0: 1 an object

  /** Appends a byte. */
  push(byte: u8): Writer {
    buffer.push(byte);
    return this;
  }

  /** Appends a string as UTF-8, or bytes. */
  put<T>(bytes: T): Writer {
    appendBytes<T>(bytes);
    return this;
  }

  /** Appends a value as JSON, as toJson makes it. */
  json<T>(value: T): Writer {
    appendJson<T>(value);
    return this;
  }

  /** Opens a JSON object: the value, an item, or the member of that name. */
  open(name: string | null = null): Writer {
    return this.enter(name, 1);
  }

  /** Opens a JSON list: the value, an item, or the member of that name. */
  list(name: string | null = null): Writer {
    return this.enter(name, 0);
  }

  /** Writes a member of the object that is open. */
  add<T>(name: string, value: T): Writer {
    this.member(name);
    appendJson<T>(value);
    return this;
  }

  /** Writes an item of the list that is open. */
  item<T>(value: T): Writer {
    this.comma();
    appendJson<T>(value);
    return this;
  }

  /** Closes the object or list that is open; emit closes those that are left. */
  close(): Writer {
    if (this.depth == 0) throw new Error("close: neither an object nor a list is open");
    buffer.push(this.kinds & 1 ? 0x7d : 0x5d);
    this.kinds >>= 1;
    this.depth--;
    return this;
  }

  private closeAll(): void {
    while (this.depth) this.close();
  }

  private enter(name: string | null, kind: u64): Writer {
    if (this.depth == 64) throw new Error("open: 64 objects and lists are open");
    if (name != null) this.member(name);
    else this.comma();
    buffer.push(kind ? 0x7b : 0x5b);
    this.kinds = (this.kinds << 1) | kind;
    this.depth++;
    return this;
  }

  private member(name: string): void {
    this.comma();
    quoted(name);
    buffer.push(0x3a);
  }

  /** Behind anything but a bracket that opens, or a colon, comes a comma. */
  private comma(): void {
    const n = buffer.length();
    if (n == this.value) return;
    const last = load<u8>(buffer.address(n) - 1);
    if (last != 0x7b && last != 0x5b && last != 0x3a) buffer.push(0x2c);
  }

  /** Emits the record. */
  emit(): Answer {
    if (this.depth) this.closeAll();
    if (this.generation != generationNow()) throw new Error("emit: this record was given up when another one was begun or emitted");
    const at = this.at;
    const length = buffer.length() - this.value;
    buffer.pad();
    const p = buffer.address(at);
    store<u64>(p, <u64>(buffer.length() - at) | (<u64>current().id << 32));
    store<u64>(p, (<u64>this.same << 8) | (<u64>this.flags << 16) | (<u64>this.output << 32) | (<u64>(this.headers & 0xffff) << 48), 8);
    store<u64>(p, 0, 16);
    store<i64>(p, this.time, 24);
    store<i32>(p, this.partition, 32);
    store<u32>(p, 0, 36);
    store<u64>(p, <u64>this.keyLength | (<u64>length << 32), 40);
    store<u64>(p, this.headersLength, 48);
    store<u64>(p, 0, 56);
    store<u64>(p, 0, 64);
    return completed();
  }
}

const EMIT: Emit = changetype<Emit>(memory.data(64, 16));
const WRITER: Writer = changetype<Writer>(memory.data(96, 16));
