// The order rule: one pass over the bytes, the first rule that decides wins.
// What no rule touches is copied in runs. It scans and builds no tree; it is
// not a JSON validator.

const QUOTE: u8 = 0x22;
const STAR: u8 = 0x2a;
const COMMA: u8 = 0x2c;
const MINUS: u8 = 0x2d;
const DOT: u8 = 0x2e;
const ZERO: u8 = 0x30;
const NINE: u8 = 0x39;
const COLON: u8 = 0x3a;
const AT: u8 = 0x40;
const OPEN_BRACKET: u8 = 0x5b;
const BACKSLASH: u8 = 0x5c;
const CLOSE_BRACKET: u8 = 0x5d;
const OPEN_BRACE: u8 = 0x7b;
const CLOSE_BRACE: u8 = 0x7d;

const MIN_AMOUNT: f64 = 5;

export const PASS = 0;
export const SKIP = 1;
export const REJECT = 2;

// Why the last record was rejected, and at which of its bytes. `written` is
// where the last one that passed ends.
export let faultCode: u32 = 0;
let faultText: string = "";
let faultAt: usize = 0;
export let written: usize = 0;

/** How many bytes order may write for a value of n: a masked card makes 22 of 9. */
// @ts-ignore: decorator
@inline
export function orderRoom(n: usize): usize {
  return 3 * n + 128;
}

function rejected(code: u32, text: string, at: usize): i32 {
  faultCode = code;
  faultText = text;
  faultAt = at;
  return REJECT;
}

/** Appends the message, such as `cut off inside a value at byte 59`. */
export function putFault(out: usize): usize {
  const text = faultText + " at byte " + faultAt.toString();
  return out + String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, out);
}

// Eight bytes at a time: both sides may be touched up to seven bytes past
// their ends.
// @ts-ignore: decorator
@inline
function put(out: usize, from: usize, to: usize): usize {
  const n = to - from;
  if (n > 256) {
    memory.copy(out, from, n);
  } else {
    for (let i: usize = 0; i < n; i += 8) {
      store<u64>(out + i, load<u64>(from + i));
    }
  }
  return out + n;
}

// @ts-ignore: decorator
@inline
function isSpace(c: u8): bool {
  return c == 0x20 || c == 0x0a || c == 0x09 || c == 0x0d;
}

// @ts-ignore: decorator
@inline
function skipSpace(p: usize, end: usize): usize {
  while (p < end && isSpace(load<u8>(p))) p++;
  return p;
}

// @ts-ignore: decorator
@inline
function each(c: u8): u64 {
  return 0x0101010101010101 * <u64>c;
}

// The high bit of the first zero byte of w is set, and none below it.
// @ts-ignore: decorator
@inline
function zeroBytes(w: u64): u64 {
  return (w - each(1)) & ~w & each(0x80);
}

/**
 * The end of the string that opens at p; 0 if it never closes. It may read up
 * to seven bytes past end.
 */
function scanString(p: usize, end: usize): usize {
  p++;
  while (p < end) {
    const w = load<u64>(p);
    const found = zeroBytes(w ^ each(QUOTE)) | zeroBytes(w ^ each(BACKSLASH));
    if (!found) {
      p += 8;
      continue;
    }
    p += <usize>ctz(found) >> 3;
    if (p >= end) return 0;
    if (load<u8>(p) == QUOTE) return p + 1;
    p += 2;
  }
  return 0;
}

/**
 * The end of the value that begins at p; 0 if the record ends inside it. A bare
 * value needs a delimiter behind it: a number at the end of the bytes may be a
 * part of one.
 */
function scanValue(p: usize, end: usize): usize {
  const c = load<u8>(p);
  if (c == QUOTE) return scanString(p, end);
  if (c != OPEN_BRACE && c != OPEN_BRACKET) {
    for (; p < end; p++) {
      const c = load<u8>(p);
      if (c == COMMA || c == CLOSE_BRACE || c == CLOSE_BRACKET || isSpace(c)) return p;
    }
    return 0;
  }
  let depth: usize = 0;
  for (; p < end; p++) {
    const c = load<u8>(p);
    if (c == QUOTE) {
      p = scanString(p, end);
      if (!p) return 0;
      p--;
    } else if (c == OPEN_BRACE || c == OPEN_BRACKET) {
      depth++;
    } else if (c == CLOSE_BRACE || c == CLOSE_BRACKET) {
      depth--;
      if (!depth) return p + 1;
    }
  }
  return 0;
}

/** The digits as a decimal number; all but digits, '.' and '-' is passed over. */
function number(p: usize, end: usize): f64 {
  let v: f64 = 0;
  let scale: f64 = 0;
  let negative = false;
  for (; p < end; p++) {
    const c = load<u8>(p);
    if (c >= ZERO && c <= NINE) {
      v = v * 10 + <f64>(c - ZERO);
      scale *= 10;
    } else if (c == DOT) {
      scale = 1;
    } else if (c == MINUS) {
      negative = true;
    }
  }
  if (scale > 0) v /= scale;
  return negative ? -v : v;
}

const OTHER = 0;
const AMOUNT = 1;
const CARD = 2;
const CUSTOMER_ID = 3;
const EMAIL = 4;
const INTERNAL_NOTE = 5;
const STATUS = 6;

const NAMES = memory.data<u8>([
  0x61, 0x6d, 0x6f, 0x75, 0x6e, 0x74, // amount
  0x63, 0x61, 0x72, 0x64, // card
  0x63, 0x75, 0x73, 0x74, 0x6f, 0x6d, 0x65, 0x72, 0x5f, 0x69, 0x64, // customer_id
  0x65, 0x6d, 0x61, 0x69, 0x6c, // email
  0x69, 0x6e, 0x74, 0x65, 0x72, 0x6e, 0x61, 0x6c, 0x5f, 0x6e, 0x6f, 0x74, 0x65, // internal_note
  0x73, 0x74, 0x61, 0x74, 0x75, 0x73, // status
  0x22, 0x63, 0x61, 0x6e, 0x63, 0x65, 0x6c, 0x6c, 0x65, 0x64, 0x22, // "cancelled"
]);
const CANCELLED = NAMES + 45;
const CANCELLED_LENGTH = 11;
const CUSTOMER_LENGTH = 8;

// @ts-ignore: decorator
@inline
function is(p: usize, text: usize, n: usize): bool {
  for (let i: usize = 0; i < n; i++) {
    if (load<u8>(p + i) != load<u8>(text + i)) return false;
  }
  return true;
}

function fieldOf(key: usize, n: usize): i32 {
  switch (<i32>n) {
    case 4:
      return is(key, NAMES + 6, 4) ? CARD : OTHER;
    case 5:
      return is(key, NAMES + 21, 5) ? EMAIL : OTHER;
    case 6:
      return is(key, NAMES + 39, 6) ? STATUS : is(key, NAMES, 6) ? AMOUNT : OTHER;
    case 11:
      return is(key, NAMES + 10, 11) ? CUSTOMER_ID : OTHER;
    case 13:
      return is(key, NAMES + 26, 13) ? INTERNAL_NOTE : OTHER;
  }
  return OTHER;
}

/**
 * Writes what becomes of an order event to `out`, which has orderRoom, and
 * leaves in `written` where it ends.
 */
export function order(out: usize, src: usize, n: usize): i32 {
  const end = src + n;
  let p = skipSpace(src, end);
  if (p >= end || load<u8>(p) != OPEN_BRACE) return rejected(1, "not a JSON object: no '{'", p - src);
  p++;
  store<u8>(out++, OPEN_BRACE);
  let run = p; // what is untouched since here waits to be copied
  let kept: usize = 0; // where the last member that stays ends
  for (;;) {
    p = skipSpace(p, end);
    if (p >= end) return rejected(2, "cut off inside the object", p - src);
    const c = load<u8>(p);
    if (c == CLOSE_BRACE) break;
    if (c == COMMA) {
      p++;
      continue;
    }
    if (c != QUOTE) return rejected(3, "no key where one should begin", p - src);
    const key = p;
    const keyEnd = scanString(p, end);
    if (!keyEnd) return rejected(2, "cut off inside a key", n);
    const colon = skipSpace(keyEnd, end);
    if (colon >= end) return rejected(2, "cut off behind a key", colon - src);
    if (load<u8>(colon) != COLON) return rejected(3, "no ':' behind a key", colon - src);
    const value = skipSpace(colon + 1, end);
    if (value >= end) return rejected(2, "cut off before a value", value - src);
    p = scanValue(value, end);
    if (!p) return rejected(2, "cut off inside a value", n);
    if (p == value) return rejected(3, "an empty value", p - src);
    const length = p - value;
    const field = fieldOf(key + 1, keyEnd - key - 2);
    if (field == INTERNAL_NOTE) continue;
    if (field == STATUS && length == CANCELLED_LENGTH && is(value, CANCELLED, CANCELLED_LENGTH)) return SKIP;
    if (field == AMOUNT && number(value, p) < MIN_AMOUNT) return SKIP;
    if (!kept) {
      run = key;
    } else if (key != kept + 1 || load<u8>(kept) != COMMA) {
      out = put(out, run, kept);
      store<u8>(out++, COMMA);
      run = key;
    }
    kept = p;
    if (field == CUSTOMER_ID) {
      out = put(out, run, key + 1 + CUSTOMER_LENGTH);
      run = keyEnd - 1;
    }
    if (value != keyEnd + 1) {
      out = put(out, run, keyEnd);
      store<u8>(out++, COLON);
      run = value;
    }
    if (field == EMAIL) {
      out = put(out, run, value + min<usize>(length, 2));
      for (let i = 0; i < 3; i++) store<u8>(out++, STAR);
      run = value;
      while (run < p && load<u8>(run) != AT) run++;
      if (run == p) run--;
    } else if (field == CARD) {
      out = put(out, run, value);
      store<u8>(out++, QUOTE);
      for (let i = 0; i < 12; i++) store<u8>(out++, STAR);
      run = value + (length > 6 ? length - 5 : 1);
    }
  }
  if (kept) out = put(out, run, kept);
  store<u8>(out++, CLOSE_BRACE);
  written = out;
  return PASS;
}
