import * as buffer from "./buffer";
import { Emit, Writer } from "./emit";
import * as failure from "./failure";
import { Obj } from "./json/object";
import { Rewrite } from "./json/rewrite";
import { RECORD, Record } from "./record";

/**
 * Says that the record was answered. Only fail, retryAfter and the methods of
 * Out and of what it makes return one.
 */
@unmanaged
@final
export class Answer {
  private constructor() {}
}

export const DONE: Answer = changetype<Answer>(<usize>1);

const DROP: u8 = 1;

let record: Record = changetype<Record>(<usize>0);
let start: usize = 0; // where the record's answers begin
let done: usize = 0; // where the last complete one ends
let answered: bool = false;
let generation: u32 = 0; // of the records begun, so that an older one is noticed

/** The record that is answered. */
// @ts-ignore: decorator
@inline
export function current(): Record {
  return record;
}

// @ts-ignore: decorator
@inline
export function generationNow(): u32 {
  return generation;
}

/** Takes back what is not complete and begins another. */
// @ts-ignore: decorator
@inline
export function restart(): void {
  buffer.truncate(done);
  generation++;
}

/** Says that what is written is a complete answer. */
// @ts-ignore: decorator
@inline
export function completed(): Answer {
  done = buffer.length();
  answered = true;
  generation++;
  return DONE;
}

/** Begins the answers to the record. */
// @ts-ignore: decorator
@inline
export function begin(r: Record): void {
  record = r;
  start = buffer.length();
  done = start;
  answered = false;
}

/** Completes them, as the stage said. */
// @ts-ignore: decorator
@inline
export function finish(): void {
  if (failure.isPending() || !answered) {
    failed();
  } else {
    buffer.truncate(done);
    if (done == start) short(DROP, 0, 0, "");
  }
}

function failed(): void {
  buffer.truncate(start);
  failure.set(1, "the stage returned without an answer to this record");
  short(failure.pendingOutcome(), failure.pendingDelay(), failure.pendingCode(), failure.pendingMessage());
  failure.clear();
}

/** An answer that emits nothing. */
function short(outcome: u8, delay: i64, code: u32, message: string): void {
  const at = buffer.length();
  buffer.skip(RECORD);
  buffer.text(message);
  const length = buffer.length() - at - RECORD;
  buffer.pad();
  const p = buffer.address(at);
  store<u64>(p, <u64>(buffer.length() - at) | (<u64>record.id << 32));
  store<u64>(p, outcome, 8);
  store<i64>(p, delay, 16);
  store<u64>(p, 0, 24);
  store<u64>(p, 0xffffffff | (<u64>code << 32), 32);
  store<u64>(p, <u64>length << 32, 40);
  store<u64>(p, 0, 48);
  store<u64>(p, 0, 56);
  store<u64>(p, 0, 64);
}

/**
 * Fails the record: it goes where the flow's `otherwise` says, with this code
 * and message. Takes back what was emitted for it, and stays, whatever comes
 * after.
 */
export function fail(code: u32, message: string): Answer {
  failure.set(code, message);
  return DONE;
}

/**
 * Asks for the record to be tried again after so many milliseconds and the
 * flow's own backoff. Takes back what was emitted for it.
 */
export function retryAfter(millis: i64, code: u32, message: string): Answer {
  failure.retry(millis, code, message);
  return DONE;
}

/** An output of the plugin, made by `output`. */
@unmanaged
@final
export class Output {
  private constructor() {}
}

/**
 * The answers to one record: any number of records, to any output, or none. A
 * record that is begun and not emitted is given up by the next.
 */
@unmanaged
@final
export class Out {
  /** Emits the record as it is. */
  // @ts-ignore: decorator
  @inline
  pass(): Answer {
    return this.record().pass();
  }

  /** Emits the record with this value: a string, a Uint8Array, an ArrayBuffer, a View or a Value. */
  // @ts-ignore: decorator
  @inline
  emit<V>(value: V): Answer {
    return this.record().emit<V>(value);
  }

  /** Emits the record with a value that is written piece by piece. */
  // @ts-ignore: decorator
  @inline
  write(): Writer {
    return this.record().write();
  }

  /** Emits the record with a changed copy of the object as its value. */
  // @ts-ignore: decorator
  @inline
  rewrite(object: Obj): Rewrite {
    return this.record().rewrite(object);
  }

  /** Begins a record to emit to that output. */
  // @ts-ignore: decorator
  @inline
  to(output: Output): Emit {
    return this.record().to(output);
  }

  /** Begins a record to emit: the input's, of which parts can be changed. */
  // @ts-ignore: decorator
  @inline
  record(): Emit {
    restart();
    return Emit.begin();
  }

  /** Drops the record, and takes back what was emitted for it. */
  // @ts-ignore: decorator
  @inline
  drop(): Answer {
    done = start;
    answered = true;
    return DONE;
  }

  /**
   * Says that all is emitted, for stages that emit in a loop. If nothing was,
   * the record is dropped.
   */
  // @ts-ignore: decorator
  @inline
  end(): Answer {
    answered = true;
    return DONE;
  }
}

/** What stages are given. */
export const OUT: Out = changetype<Out>(<usize>1);
