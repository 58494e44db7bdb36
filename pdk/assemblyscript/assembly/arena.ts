// Memory for what lives as long as a record: views, values, lists of members.
// Nothing in it is collected; it is taken back as a whole before the next
// record. What the configuration made stays for ever.

const FIRST: usize = 16 << 10;
const LINK: usize = 16;

let chunk: usize = 0; // the one that stays
let chunkEnd: usize = 0;
let floor: usize = 0; // where the records' part of it begins
let extra: usize = 0; // those that go with the record, each linked to the one before
let top: usize = 0;
let end: usize = 0;

/** `n` bytes, 8-aligned, of any content. */
// @ts-ignore: decorator
@inline
export function alloc(n: usize): usize {
  const size = (n + 7) & ~7;
  if (top + size > end) more(size);
  const p = top;
  top = p + size;
  return p;
}

/** Where a list of unknown length may begin; close ends it. */
// @ts-ignore: decorator
@inline
export function open(): usize {
  return top;
}

/** Where a list that is open must be moved by extend. */
// @ts-ignore: decorator
@inline
export function limit(): usize {
  return end;
}

/** Ends the list that is open, at `to`, a multiple of 8. */
// @ts-ignore: decorator
@inline
export function close(to: usize): void {
  top = to;
}

/** Moves the open list to where twice as much has room; returns its new begin. */
export function extend(from: usize, to: usize): usize {
  const used = to - from;
  more(2 * used + 1024);
  memory.copy(top, from, used);
  return top;
}

function more(n: usize): void {
  const size = max(FIRST, 2 * n + LINK);
  const made = heap.alloc(size);
  if (chunk == 0) {
    chunk = made;
    chunkEnd = made + size;
    floor = made;
    top = made;
  } else {
    store<usize>(made, extra);
    extra = made;
    top = made + LINK;
  }
  end = made + size;
}

/** Takes back everything since keep. */
// @ts-ignore: decorator
@inline
export function reset(): void {
  if (extra) release();
  top = floor;
  end = chunkEnd;
}

function release(): void {
  while (extra) {
    const next = load<usize>(extra);
    heap.free(extra);
    extra = next;
  }
}

/** Makes what there is stay. */
export function keep(): void {
  floor = top;
  chunkEnd = end;
  extra = 0;
}
