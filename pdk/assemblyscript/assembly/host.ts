import * as buffer from "./buffer";

@external("stage", "log")
declare function stageLog(level: i32, at: usize, length: usize): void;
@external("stage", "count")
declare function stageCount(at: usize, length: usize, delta: f64): void;

// What lines are about: the number of the record in the batch + 1, 0 for none.
let about: i32 = 0;

/** Says which record is handled; none: u32.MAX_VALUE. */
// @ts-ignore: decorator
@inline
export function handle(id: u32): void {
  about = id < 0xffffff - 1 ? <i32>((id + 1) << 8) : 0;
}

function line(level: i32, text: string): void {
  const bytes = String.UTF8.encode(text);
  stageLog(level | about, changetype<usize>(bytes), bytes.byteLength);
}

/** Lines for the node's log, under the name of flow and stage. */
export namespace log {
  /** For whoever debugs the stage. */
  export function debug(text: string): void {
    line(0, text);
  }

  /** What is worth knowing. */
  export function info(text: string): void {
    line(1, text);
  }

  /** What is degraded and will heal. */
  export function warn(text: string): void {
    line(2, text);
  }

  /** What someone must look after. */
  export function error(text: string): void {
    line(3, text);
  }
}

/**
 * Adds to a counter of the stage, visible in `/metrics` of the node as
 * `millrace_guest_count_total{flow, stage, name}`. Up to 64 names of at most
 * 128 bytes count in one call.
 */
export function count(name: string, delta: f64 = 1): void {
  const bytes = String.UTF8.encode(name);
  stageCount(changetype<usize>(bytes), bytes.byteLength, delta);
}

const LONGEST: i32 = 1000;
const scratch: usize = memory.data(3 * 1000 + 3 * 200 + 64);

/** What abort does: a line of log, then a trap. It allocates nothing. */
export function aborted(message: string | null, file: string | null, line: u32, column: u32): void {
  let to = put(scratch, file ? file : "?", 200);
  to = decimal(to, line);
  to = decimal(to, column);
  store<u16>(to, 0x203a); // ": "
  to = put(to + 2, message ? message : "aborted", LONGEST);
  stageLog(3 | about, scratch, to - scratch);
  unreachable();
}

function put(to: usize, text: string, longest: i32): usize {
  for (let i = 0, n = min(text.length, longest); i < n; i++) {
    let c = <u32>text.charCodeAt(i);
    if ((c & 0xfc00) == 0xd800 && i + 1 < n) {
      c = 0x10000 + ((c - 0xd800) << 10) + ((<u32>text.charCodeAt(++i) - 0xdc00) & 0x3ff);
    } else if ((c & 0xf800) == 0xd800) {
      c = 0xfffd;
    }
    to = buffer.character(to, c);
  }
  return to;
}

/** A colon and the number. */
function decimal(to: usize, n: u32): usize {
  store<u8>(to++, 0x3a);
  let digits: u32 = 1;
  for (let rest = n; rest > 9; rest /= 10) digits++;
  for (let i = digits; i > 0; i--, n /= 10) store<u8>(to + i - 1, <u8>(0x30 + (n % 10)));
  return to + digits;
}
