// The scanner: finds where the members of an object lie, validates all that it
// passes, and says of what is not valid the place and the reason. Strings go by
// 16 bytes at a time (8 without --enable simd), the rest byte by byte. Places
// are addresses; 0 is a fault.
//
// It takes RFC 8259 with valid UTF-8, nested at most 128 deep. A lone surrogate
// escape is taken, and read as U+FFFD.

import * as arena from "../arena";
import * as token from "./tokens";
import { fault, skipSpace } from "./tokens";

const MAX_DEPTH: u32 = 128;

/** Places of a member: the key without its quotes, the value. */
@unmanaged
@final
export class Span {
  key: u32;
  keyEnd: u32;
  value: u32;
  valueEnd: u32;
}

let made: usize = 0;
let madeEnd: usize = 0;

/** The members that were listed: the address of the first Span and the one behind the last. */
// @ts-ignore: decorator
@inline
export function listed(): usize {
  return made;
}

// @ts-ignore: decorator
@inline
export function listedEnd(): usize {
  return madeEnd;
}

/** Lists the members of the object that the text is; false for a fault, with those before it. */
export function members(p: usize, end: usize): bool {
  token.begin(p);
  made = arena.open();
  madeEnd = made;
  const whole = list(p, end) != 0;
  arena.close(madeEnd);
  return whole;
}

function list(at: usize, end: usize): usize {
  let p = skipSpace(at, end);
  if (p == end || load<u8>(p) != 0x7b) return fault("not a JSON object: no '{'", p);
  p = skipSpace(p + 1, end);
  if (p < end && load<u8>(p) == 0x7d) return nothing(p + 1, end);
  let span = made;
  let limit = arena.limit();
  while (true) {
    const key = p + 1;
    p = keyEnd(p, end);
    if (!p) return 0;
    const close = p;
    p = valueBegin(p + 1, end);
    if (!p) return 0;
    const from = p;
    p = quick(p, end) || otherValue(p, end, 1);
    if (!p) return 0;
    const to = p;
    p = skipSpace(p, end);
    const c = p < end ? load<u8>(p) : 0;
    // A number or word is whole only if something ends it.
    if (c == 0x2c || c == 0x7d || endsItself(load<u8>(to - 1))) {
      if (span + offsetof<Span>() > limit) {
        const used = span - made;
        made = arena.extend(made, span);
        span = made + used;
        limit = arena.limit();
      }
      const s = changetype<Span>(span);
      s.key = <u32>key;
      s.keyEnd = <u32>close;
      s.value = <u32>from;
      s.valueEnd = <u32>to;
      span += offsetof<Span>();
      madeEnd = span;
    }
    if (c == 0x7d) return nothing(p + 1, end);
    if (c != 0x2c) return separator(p, end);
    p = skipSpace(p + 1, end);
  }
}

function endsItself(last: u8): bool {
  return last == 0x22 || last == 0x7d || last == 0x5d;
}

/** The quote that ends the key that begins at p. */
// @ts-ignore: decorator
@inline
function keyEnd(p: usize, end: usize): usize {
  if (p >= end || load<u8>(p) != 0x22) return noKey(p, end);
  return token.close(p + 1, end);
}

function noKey(p: usize, end: usize): usize {
  return p >= end ? fault("cut off before a key", p) : fault("no key where one should begin", p);
}

/** Where the value begins whose key ended before p. */
// @ts-ignore: decorator
@inline
function valueBegin(p: usize, end: usize): usize {
  return p + 1 < end && load<u16>(p) > 0x203a && load<u8>(p) == 0x3a ? p + 1 : spacedBegin(p, end);
}

function spacedBegin(p: usize, end: usize): usize {
  p = skipSpace(p, end);
  if (p == end) return fault("cut off behind a key", p);
  if (load<u8>(p) != 0x3a) return fault("no ':' behind a key", p);
  return skipSpace(p + 1, end);
}

/** The bounds of the one value that the text is: its end. */
export function whole(p: usize, end: usize): usize {
  token.begin(p);
  const behind = value(skipSpace(p, end), end, 0);
  return behind && nothing(behind, end) ? behind : 0;
}

function nothing(p: usize, end: usize): usize {
  p = skipSpace(p, end);
  return p == end ? p : fault("more behind the end of the JSON value", p);
}

function separator(p: usize, end: usize): usize {
  return p < end ? fault("no ',' behind a value", p) : fault("cut off behind a value", p);
}

/** The place behind the value that begins at p, at that depth. */
function value(p: usize, end: usize, depth: u32): usize {
  return quick(p, end) || otherValue(p, end, depth);
}

/** As value, for strings and most numbers; 0 leaves it to otherValue. */
// @ts-ignore: decorator
@inline
function quick(p: usize, end: usize): usize {
  if (p >= end) return 0;
  const c = load<u8>(p);
  if (c == 0x22) {
    const quote = token.shortClose(p + 1, end);
    return quote ? quote + 1 : 0;
  }
  return c - 0x31 < 9 ? token.digitsFrom(p, end) : 0;
}

/** The place behind the value that begins at p in a valid text. */
export function behind(p: usize, end: usize): usize {
  token.begin(p);
  return value(p, end, 0);
}

function otherValue(p: usize, end: usize, depth: u32): usize {
  if (p >= end) return fault("cut off before a value", p);
  const c = load<u8>(p);
  switch (c) {
    case 0x22: {
      const quote = token.longClose(p + 1, end);
      return quote ? quote + 1 : 0;
    }
    case 0x7b: // {
      return object(p, end, depth);
    case 0x5b: // [
      return array(p, end, depth);
    case 0x74: // t
      return token.literal(p, end, 0x65757274, 4, 0); // true
    case 0x66: // f
      return token.literal(p, end, 0x736c6166, 5, 0x65); // false
    case 0x6e: // n
      return token.literal(p, end, 0x6c6c756e, 4, 0); // null
    case 0x2c: // ,
    case 0x7d: // }
    case 0x5d: // ]
      return fault("an empty value", p);
  }
  if (c == 0x2d || c - 0x30 < 10) return token.number(p, end);
  return fault("no value where one should begin", p);
}

function object(at: usize, end: usize, depth: u32): usize {
  if (depth >= MAX_DEPTH) return fault("nested deeper than 128", at);
  let p = skipSpace(at + 1, end);
  if (p < end && load<u8>(p) == 0x7d) return p + 1;
  while (true) {
    p = keyEnd(p, end);
    if (!p) return 0;
    p = valueBegin(p + 1, end);
    if (!p) return 0;
    p = value(p, end, depth + 1);
    if (!p) return 0;
    p = skipSpace(p, end);
    const c = p < end ? load<u8>(p) : 0;
    if (c == 0x7d) return p + 1;
    if (c != 0x2c) return separator(p, end);
    p = skipSpace(p + 1, end);
  }
}

function array(at: usize, end: usize, depth: u32): usize {
  if (depth >= MAX_DEPTH) return fault("nested deeper than 128", at);
  let p = skipSpace(at + 1, end);
  if (p < end && load<u8>(p) == 0x5d) return p + 1;
  while (true) {
    p = value(p, end, depth + 1);
    if (!p) return 0;
    p = skipSpace(p, end);
    const c = p < end ? load<u8>(p) : 0;
    if (c == 0x5d) return p + 1;
    if (c != 0x2c) return separator(p, end);
    p = skipSpace(p + 1, end);
  }
}
