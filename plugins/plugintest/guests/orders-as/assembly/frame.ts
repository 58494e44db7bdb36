// The stage/1 frame: what a guest reads of a request, and how it writes its
// answers. Addresses are usize; one buffer holds the request, one the result,
// and both are reached by their addresses alone.

export const BATCH: usize = 32;
export const RECORD: usize = 72;

export const EMIT: u8 = 0;
export const DROP: u8 = 1;
export const FAIL: u8 = 3;

export const SAME_KEY: u8 = 1;
export const SAME_HEADERS: u8 = 4;
export const SAME_TIMESTAMP: u8 = 8;

const REQUEST: u16 = 1;
const RESULT: u16 = 2;
const VERSION: u16 = 1;

// Copies may read and write up to SLACK bytes past their ends.
const SLACK: usize = 16;

let request = new StaticArray<u8>(0);
let result = new StaticArray<u8>(0);

/** A buffer for requests of `size` bytes. */
export function requestOf(size: u32): usize {
  if (<usize>request.length < <usize>size + SLACK) {
    request = new StaticArray<u8>(<i32>(<usize>size + SLACK));
  }
  return changetype<usize>(request);
}

/** Makes room for `n` bytes after `at` in the result, and returns where `at` is then. */
// @ts-ignore: decorator
@inline
export function room(at: usize, n: usize): usize {
  const used = at - changetype<usize>(result);
  return used + n + SLACK <= <usize>result.length ? at : grown(used, n);
}

function grown(used: usize, n: usize): usize {
  const old = result;
  const length = max(used + n + SLACK, <usize>old.length + (<usize>old.length >> 1));
  result = new StaticArray<u8>(<i32>length);
  memory.copy(changetype<usize>(result), changetype<usize>(old), used);
  return changetype<usize>(result) + used;
}

export function isRequest(frame: usize): bool {
  return load<u16>(frame, 6) == REQUEST;
}

export function count(frame: usize): u32 {
  return load<u32>(frame, 8);
}

export function firstRecord(frame: usize): usize {
  return frame + BATCH + load<u32>(frame, 12);
}

// @ts-ignore: decorator
@inline
export function nextRecord(r: usize): usize {
  return r + load<u32>(r);
}

// @ts-ignore: decorator
@inline
export function valueOf(r: usize): usize {
  return r + RECORD + load<u32>(r, 48) + load<u32>(r, 40);
}

// @ts-ignore: decorator
@inline
export function valueLength(r: usize): usize {
  return load<u32>(r, 44);
}

/** Writes the result's header; returns where the first answer begins. */
export function begin(frame: usize): usize {
  const out = room(changetype<usize>(result), BATCH);
  store<u16>(out, VERSION, 4);
  store<u16>(out, RESULT, 6);
  store<u32>(out, load<u32>(frame, 8), 8);
  store<u32>(out, 0, 12);
  store<u64>(out, load<u64>(frame, 16), 16);
  store<u64>(out, load<u64>(frame, 24), 24);
  return out + BATCH;
}

/**
 * Completes the answer at `at`, whose value ends at `end`; returns where the
 * next one begins.
 */
// @ts-ignore: decorator
@inline
export function answer(at: usize, end: usize, r: usize, outcome: u8, same: u8, code: u32): usize {
  store<u64>(end, 0); // the padding
  const next = (end + 7) & ~7;
  store<u32>(at, <u32>(next - at));
  store<u32>(at, load<u32>(r, 4), 4);
  store<u64>(at, <u64>outcome | (<u64>same << 8), 8);
  store<u64>(at, 0, 16);
  store<u64>(at, 0, 24);
  store<u64>(at, 0xffffffff | (<u64>code << 32), 32); // partition -1: by key
  store<u64>(at, <u64>(end - at - RECORD) << 32, 40);
  store<u64>(at, 0, 48);
  store<u64>(at, 0, 56);
  store<u64>(at, 0, 64);
  return next;
}

/** Completes the result that ends at `end`. */
export function finish(end: usize): u64 {
  const out = changetype<usize>(result);
  store<u32>(out, <u32>(end - out));
  return (<u64>out << 32) | <u64>(end - out);
}
