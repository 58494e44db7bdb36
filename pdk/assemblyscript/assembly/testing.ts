// Runs a stage in `npm test`: a batch in, answers out, through the same frames
// as on a node, with neither. Files in assembly/__tests__ call `test`.

import * as arena from "./arena";
import { Answer, Out } from "./answer";
import { Settings } from "./config";
import { Obj } from "./json/object";
import { outputName } from "./manifest";
import { BATCH, RECORD, Record } from "./record";
import { Runner, process, runnerOf, runnerWith } from "./stage";
import { View } from "./view";

const EMIT: u8 = 0;
const DROP: u8 = 1;
const RETRY: u8 = 2;

/** A record for a Batch: of topic `test`, without a key, at its first attempt. */
export class Input {
  key: string | null = null;
  value: string | null = null;
  headers: string[] = [];
  topic: string = "test";
  partition: i32 = 0;
  offset: i64 = -1;
  timestamp: i64 = 0;
  attempt: u32 = 1;
  redelivered: bool = false;

  /** A record with this value; null is a tombstone. */
  static of(value: string | null): Input {
    const made = new Input();
    made.value = value;
    return made;
  }

  withKey(key: string): Input {
    this.key = key;
    return this;
  }

  withHeader(name: string, value: string): Input {
    this.headers.push(name);
    this.headers.push(value);
    return this;
  }

  from(topic: string, partition: i32, offset: i64): Input {
    this.topic = topic;
    this.partition = partition;
    this.offset = offset;
    return this;
  }
}

/** Records for a stage. */
export class Batch {
  private records: Input[] = [];
  private time: i64 = 0;

  /** One record with this value. */
  static of(value: string | null): Batch {
    return new Batch().add(Input.of(value));
  }

  /** One record more. */
  add(record: Input): Batch {
    this.records.push(record);
    return this;
  }

  /** At that time, in Unix milliseconds. */
  now(millis: i64): Batch {
    this.time = millis;
    return this;
  }

  /** Runs a stage that has no configuration. */
  run(stage: (r: Record, out: Out) => Answer): Answers {
    return this.through(runnerOf(stage));
  }

  /** Runs a stage with this configuration. */
  runWith<C>(config: C, stage: (r: Record, out: Out, config: C) => Answer): Answers {
    return this.through(runnerWith<C>(stage, config));
  }

  private through(runner: Runner): Answers {
    const frame = this.frame();
    const result = process(runner, changetype<usize>(frame), frame.length);
    return new Answers(<usize>(result >> 32), <usize>(result & 0xffffffff), this.records);
  }

  private frame(): StaticArray<u8> {
    const w = new Bytes();
    w.zeros(BATCH);
    for (let i = 0; i < this.records.length; i++) {
      const topic = String.UTF8.encode(this.records[i].topic);
      w.u16(topic.byteLength);
      w.add(topic);
    }
    w.pad();
    const table = w.length - BATCH;
    for (let i = 0; i < this.records.length; i++) w.record(this.records[i], i);
    const frame = StaticArray.fromArray<u8>(w.bytes);
    const at = changetype<usize>(frame);
    store<u32>(at, frame.length);
    store<u16>(at, 1, 4);
    store<u16>(at, 1, 6);
    store<u32>(at, this.records.length, 8);
    store<u32>(at, <u32>table, 12);
    store<u64>(at, 1, 16);
    store<i64>(at, this.time, 24);
    return frame;
  }
}

class Bytes {
  bytes: u8[] = [];

  get length(): usize {
    return this.bytes.length;
  }

  zeros(n: usize): void {
    for (let i: usize = 0; i < n; i++) this.bytes.push(0);
  }

  pad(): void {
    while (this.bytes.length & 7) this.bytes.push(0);
  }

  u16(v: i32): void {
    this.bytes.push(<u8>v);
    this.bytes.push(<u8>(v >> 8));
  }

  u32(v: i32): void {
    this.u16(v);
    this.u16(v >> 16);
  }

  add(b: ArrayBuffer): void {
    const all = Uint8Array.wrap(b);
    for (let i = 0; i < all.length; i++) this.bytes.push(all[i]);
  }

  record(r: Input, i: i32): void {
    const at = this.length;
    this.zeros(RECORD);
    for (let h = 0; h < r.headers.length; h += 2) {
      const name = String.UTF8.encode(r.headers[h]);
      const value = String.UTF8.encode(r.headers[h + 1]);
      this.u16(name.byteLength);
      this.u32(value.byteLength);
      this.add(name);
      this.add(value);
    }
    const headers = this.length - at - RECORD;
    const key = r.key;
    const value = r.value;
    const keyBytes = String.UTF8.encode(key != null ? key : "");
    const valueBytes = String.UTF8.encode(value != null ? value : "");
    this.add(keyBytes);
    this.add(valueBytes);
    this.pad();
    const p = this.bytes.dataStart + at;
    store<u32>(p, <u32>(this.length - at));
    store<u32>(p, i, 4);
    store<u16>(p, <u16>(i32(key == null) | (i32(value == null) << 1) | (i32(r.redelivered) << 2)), 10);
    store<u16>(p, <u16>i, 12);
    store<u16>(p, <u16>(r.headers.length / 2), 14);
    store<i64>(p, r.offset < 0 ? i : r.offset, 16);
    store<i64>(p, r.timestamp, 24);
    store<i32>(p, r.partition, 32);
    store<u32>(p, r.attempt, 36);
    store<u32>(p, keyBytes.byteLength, 40);
    store<u32>(p, valueBytes.byteLength, 44);
    store<u32>(p, <u32>headers, 48);
  }
}

/** An emitted record. What the stage left as it was is filled in. */
export class Emitted {
  /** Where it goes: "default", or the name of an output. */
  output: string = "default";
  key: string | null = null;
  value: string | null = null;
  /** Names and values in turn. */
  headers: string[] = [];
  timestamp: i64 = 0;
  /** The partition that the stage chose; -1: by key. */
  partition: i32 = -1;
}

/** A failure, or a wish to be tried again after `delay` milliseconds. */
export class Failed {
  retry: bool = false;
  delay: i64 = 0;
  code: u32 = 0;
  message: string = "";
}

/** What a stage answered to a Batch. */
export class Answers {
  private emits: Emitted[][] = [];
  private failures: (Failed | null)[] = [];
  private drops: bool[] = [];

  constructor(at: usize, length: usize, inputs: Input[]) {
    for (let i = 0; i < inputs.length; i++) {
      this.emits.push([]);
      this.failures.push(null);
      this.drops.push(false);
    }
    for (let p = at + BATCH; p < at + length; p += load<u32>(p)) {
      const id = load<u32>(p, 4);
      const outcome = load<u8>(p, 8);
      if (outcome == EMIT) this.emits[id].push(emitted(p, inputs[id]));
      else if (outcome == DROP) this.drops[id] = true;
      else this.failures[id] = failed(p, outcome == RETRY);
    }
  }

  /** What was emitted for record `i`, in order. */
  emitted(i: i32): Emitted[] {
    return this.emits[i];
  }

  /** The value of the only record emitted for record `i`; null if there is none or several, or it has none. */
  value(i: i32): string | null {
    const all = this.emits[i];
    return all.length == 1 ? all[0].value : null;
  }

  /** Whether record `i` was dropped. */
  isDropped(i: i32): bool {
    return this.drops[i];
  }

  /** Why record `i` failed or is to be tried again; null if it is not. */
  failure(i: i32): Failed | null {
    return this.failures[i];
  }
}

function text(from: usize, to: usize): string {
  return View.of(from, to).text();
}

function failed(p: usize, retry: bool): Failed {
  const f = new Failed();
  f.retry = retry;
  f.delay = load<i64>(p, 16);
  f.code = load<u32>(p, 36);
  f.message = text(p + RECORD, p + RECORD + load<u32>(p, 44));
  return f;
}

function emitted(p: usize, input: Input): Emitted {
  const e = new Emitted();
  const same = load<u8>(p, 9);
  const flags = load<u16>(p, 10);
  const key = p + RECORD + load<u32>(p, 48);
  const value = key + load<u32>(p, 40);
  e.output = outputName(load<u16>(p, 12));
  e.key = same & 1 ? input.key : flags & 1 ? null : text(key, value);
  e.value = same & 2 ? input.value : flags & 2 ? null : text(value, value + load<u32>(p, 44));
  e.timestamp = same & 8 ? input.timestamp : load<i64>(p, 24);
  e.partition = load<i32>(p, 32);
  e.headers = same & 4 ? input.headers : headers(p + RECORD, load<u16>(p, 14));
  return e;
}

function headers(p: usize, count: i32): string[] {
  const all: string[] = [];
  for (let i = 0; i < count; i++) {
    const value = p + 6 + load<u16>(p);
    const end = value + load<u32>(p, 2);
    all.push(text(p + 6, value));
    all.push(text(value, end));
    p = end;
  }
  return all;
}

/** Reads a configuration as the node hands it over; what is wrong with it stops the test. */
export function config<C>(json: string, read: (settings: Settings) => C): C {
  const bytes = String.UTF8.encode(json);
  const n = <usize>bytes.byteLength;
  const kept = heap.alloc(n + 64);
  memory.copy(kept, changetype<usize>(bytes), n);
  const object = Obj.read(View.of(kept, kept + n));
  const fault = object.fault;
  if (fault != null) throw new Error("with: " + fault);
  const settings = new Settings(object, "with");
  const made = read(settings);
  const faults = settings.faults();
  arena.keep();
  if (faults.length > 0) throw new Error(faults.join("\n"));
  return made;
}

/** Stops the test unless both are the same. */
export function equal<T>(got: T, want: T): void {
  if (got == want) return;
  throw new Error("got " + show<T>(got) + "\nwant " + show<T>(want));
}

function show<T>(value: T): string {
  if (isReference<T>()) {
    if (changetype<usize>(value) == 0) return "null";
    return showSet<NonNullable<T>>(changetype<NonNullable<T>>(value));
  }
  return value.toString();
}

function showSet<T>(value: T): string {
  return isString<T>() ? '"' + value.toString() + '"' : value.toString();
}

const names: string[] = [];
const bodies: (() => void)[] = [];
const stops: string[] = [];

/** Declares a test: it passes if the function returns. Each runs in an instance of its own. */
export function test(name: string, body: () => void): void {
  stopsWith(name, "", body);
}

/** Declares a test that passes if the function throws, with a message that holds `part`. */
export function stopsWith(name: string, part: string, body: () => void): void {
  names.push(name);
  stops.push(part);
  bodies.push(body);
}

// For the runner.

export function __tests(): i32 {
  return names.length;
}

export function __name(i: i32): ArrayBuffer {
  return String.UTF8.encode(names[i]);
}

export function __stops(i: i32): ArrayBuffer {
  return String.UTF8.encode(stops[i]);
}

export function __run(i: i32): void {
  bodies[i]();
}
