//! The order rule over a structural index: 64 bytes at a time become bit masks
//! (quotes, brackets, commas and colons), the commas and colons of the
//! outermost object become positions, and what no rule touches is copied in
//! runs. It answers only records whose every token stands right beside a
//! bracket, comma or colon, as compact JSON does, and hands all others to
//! `scan`, so that both accept the same records and write the same bytes.

use crate::frame::Buffer;
use crate::scan::{self, Outcome};
use std::convert::TryInto;

const BLOCK: usize = 64;
const POSITIONS: usize = 1024;

/// Positions of the outermost object's colons, commas and closing bracket.
pub struct Index {
    at: [u32; POSITIONS],
}

impl Index {
    pub const fn new() -> Self {
        Index { at: [0; POSITIONS] }
    }
}

/// As `scan::order` for the first `len` bytes of `b`; the bytes behind them
/// may be anything.
pub fn order(b: &[u8], len: usize, index: &mut Index, out: &mut Buffer) -> Outcome {
    let start = out.len();
    match compact(b, len, index, out) {
        Some(outcome) => outcome,
        None => {
            out.truncate(start);
            scan::order(&b[..len], out)
        }
    }
}

/// Masks of one block: bit n is byte n.
struct Masks {
    quote: u64,
    open: u64,      // { [
    close: u64,     // } ]
    separator: u64, // , :
    backslash: bool,
}

#[cfg(target_feature = "simd128")]
#[inline(always)]
fn masks(block: &[u8; BLOCK]) -> Masks {
    use std::arch::wasm32::*;
    let mut m = Masks {
        quote: 0,
        open: 0,
        close: 0,
        separator: 0,
        backslash: false,
    };
    let mut backslash = u8x16_splat(0);
    let mut k = 0;
    while k < BLOCK {
        // k + 16 <= BLOCK
        let v = unsafe { v128_load(block.as_ptr().add(k) as *const v128) };
        let folded = v128_or(v, u8x16_splat(0x20)); // [ becomes {, ] becomes }
        let separator = v128_or(
            u8x16_eq(v, u8x16_splat(b',')),
            u8x16_eq(v, u8x16_splat(b':')),
        );
        m.quote |= u64::from(u8x16_bitmask(u8x16_eq(v, u8x16_splat(b'"')))) << k;
        m.open |= u64::from(u8x16_bitmask(u8x16_eq(folded, u8x16_splat(b'{')))) << k;
        m.close |= u64::from(u8x16_bitmask(u8x16_eq(folded, u8x16_splat(b'}')))) << k;
        m.separator |= u64::from(u8x16_bitmask(separator)) << k;
        backslash = v128_or(backslash, u8x16_eq(v, u8x16_splat(b'\\')));
        k += 16;
    }
    m.backslash = v128_any_true(backslash);
    m
}

#[cfg(not(target_feature = "simd128"))]
fn masks(block: &[u8; BLOCK]) -> Masks {
    Masks {
        quote: mask(block, |c| c == b'"'),
        open: mask(block, |c| c == b'{' || c == b'['),
        close: mask(block, |c| c == b'}' || c == b']'),
        separator: mask(block, |c| c == b',' || c == b':'),
        backslash: block.contains(&b'\\'),
    }
}

fn mask(block: &[u8; BLOCK], is: impl Fn(u8) -> bool) -> u64 {
    block
        .iter()
        .enumerate()
        .fold(0, |m, (k, &c)| m | u64::from(is(c)) << k)
}

/// Bit n is the parity of the bits 0 to n: set from an opening quote to the
/// byte before its closing one.
#[inline(always)]
fn parity(mut x: u64) -> u64 {
    x ^= x << 1;
    x ^= x << 2;
    x ^= x << 4;
    x ^= x << 8;
    x ^= x << 16;
    x ^ x << 32
}

/// The bytes that stand behind an odd backslash; `carry` goes from block to block.
fn escaped(mut backslash: u64, carry: &mut bool) -> u64 {
    let mut found = 0;
    if *carry {
        found = 1;
        backslash &= !1;
    }
    *carry = false;
    while backslash != 0 {
        let k = backslash.trailing_zeros();
        if k == 63 {
            *carry = true;
            break;
        }
        found |= 2 << k;
        backslash &= !(3 << k);
    }
    found
}

/// Fills the index and returns how many positions it holds; None if the
/// record is not one compact object.
#[inline(always)]
fn fill(b: &[u8], len: usize, index: &mut Index) -> Option<usize> {
    let mut n = 0;
    let mut depth = 0u32;
    let mut in_string = 0u64; // all ones: the block begins inside a string
    let mut may_begin = 1u64; // bit 0: the block's first byte may begin a token
    let mut must_end = 0u64; // bit 0: the byte before the block ended a token
    let mut escape = false;
    let mut i = 0;
    while i < len {
        let mut last = [0u8; BLOCK];
        let block: &[u8; BLOCK] = match b.get(i..i + BLOCK) {
            Some(block) => block.try_into().ok()?,
            None => {
                last[..len - i].copy_from_slice(&b[i..len]);
                &last
            }
        };
        let mut m = masks(block);
        let valid = if len - i < BLOCK {
            (1u64 << (len - i)) - 1
        } else {
            !0
        };
        let mut backslash = 0;
        if m.backslash || escape {
            backslash = mask(block, |c| c == b'\\') & valid;
            m.quote &= !escaped(backslash, &mut escape);
        }
        let quote = m.quote & valid;
        let inside = parity(quote) ^ in_string;
        in_string = ((inside as i64) >> 63) as u64;
        let outside = !inside & valid;
        let open = m.open & outside;
        let close = m.close & outside;
        let separator = m.separator & outside;

        // Every token begins behind a bracket that opens or a separator, and
        // ends before one that closes or a separator.
        let begins = quote & inside | open;
        let ends = quote & !inside | close;
        let before = open | separator;
        let after = close | separator;
        let stray = begins & !(before << 1 | may_begin)
            | (ends << 1 | must_end) & valid & !after
            | backslash & outside;
        if stray != 0 || n + BLOCK > POSITIONS {
            // Whatever stands behind the object's end is not read.
            return None;
        }
        may_begin = before >> 63;
        must_end = ends >> 63;

        let mut rest = open | close | separator;
        while rest != 0 {
            let bit = rest & rest.wrapping_neg();
            let at = i as u32 + rest.trailing_zeros();
            rest &= rest - 1;
            if bit & separator != 0 {
                index.at[n] = at;
                n += usize::from(depth == 1);
            } else if bit & open != 0 {
                depth += 1;
            } else if depth > 1 {
                depth -= 1;
            } else {
                index.at[n] = at;
                return Some(n + 1);
            }
        }
        i += BLOCK;
    }
    None
}

#[derive(Clone, Copy, PartialEq)]
enum Field {
    Amount,
    Card,
    CustomerId,
    Email,
    InternalNote,
    Status,
    Other,
}

#[inline(always)]
fn word4(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4)
        .map_or(0, |w| u32::from_le_bytes(w.try_into().unwrap_or([0; 4])))
}

#[inline(always)]
fn word8(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8)
        .map_or(0, |w| u64::from_le_bytes(w.try_into().unwrap_or([0; 8])))
}

/// Compares by words: a byte loop over every key is a fifth of the stage.
#[inline(always)]
fn field(key: &[u8]) -> Field {
    const AMOU: u32 = u32::from_le_bytes(*b"amou");
    const OUNT: u32 = u32::from_le_bytes(*b"ount");
    const CARD: u32 = u32::from_le_bytes(*b"card");
    const CUSTOMER: u64 = u64::from_le_bytes(*b"customer");
    const R_ID: u32 = u32::from_le_bytes(*b"r_id");
    const EMAI: u32 = u32::from_le_bytes(*b"emai");
    const MAIL: u32 = u32::from_le_bytes(*b"mail");
    const INTERNAL: u64 = u64::from_le_bytes(*b"internal");
    const NAL_NOTE: u64 = u64::from_le_bytes(*b"nal_note");
    const STAT: u32 = u32::from_le_bytes(*b"stat");
    const ATUS: u32 = u32::from_le_bytes(*b"atus");
    match key.len() {
        4 if word4(key, 0) == CARD => Field::Card,
        5 if word4(key, 0) == EMAI && word4(key, 1) == MAIL => Field::Email,
        6 if word4(key, 0) == STAT && word4(key, 2) == ATUS => Field::Status,
        6 if word4(key, 0) == AMOU && word4(key, 2) == OUNT => Field::Amount,
        11 if word8(key, 0) == CUSTOMER && word4(key, 7) == R_ID => Field::CustomerId,
        13 if word8(key, 0) == INTERNAL && word8(key, 5) == NAL_NOTE => Field::InternalNote,
        _ => Field::Other,
    }
}

/// None: not compact, or broken; `scan` decides.
#[inline(always)]
fn compact(b: &[u8], len: usize, index: &mut Index, out: &mut Buffer) -> Option<Outcome> {
    if len == 0 || b[0] != b'{' {
        return None;
    }
    let n = fill(b, len, index)?;
    let end_of_object = index.at[n - 1] as usize;
    // Pairs of a colon and what ends its value.
    if n % 2 != 0 || b[end_of_object] != b'}' {
        return None;
    }
    let mut run = 0; // what is untouched since here waits to be copied
    let mut kept = false;
    let mut start = 1;
    for pair in index.at[..n].chunks_exact(2) {
        let (colon, end) = (pair[0] as usize, pair[1] as usize);
        let value_at = colon + 1;
        if b[start] != b'"' || b[colon] != b':' || b[end] == b':' || end == value_at {
            return None;
        }
        let value = &b[value_at..end];
        if !matches!(value[0], b'"' | b'{' | b'[') && value.iter().any(|&c| c <= b' ') {
            return None;
        }
        match field(&b[start + 1..colon - 1]) {
            Field::Other => {}
            Field::Status => {
                if value == scan::CANCELLED {
                    return Some(Outcome::Drop);
                }
            }
            Field::Amount => {
                if scan::number(value) < scan::MIN_AMOUNT {
                    return Some(Outcome::Drop);
                }
            }
            Field::CustomerId => {
                out.copy(b, run, start + 1 + "customer".len());
                run = colon - 1;
            }
            Field::Email => {
                out.copy(b, run, value_at + value.len().min(2));
                out.text16(b"***\0\0\0\0\0\0\0\0\0\0\0\0\0", 3);
                run = value_at + scan::email_tail(value);
            }
            Field::Card => {
                out.copy(b, run, value_at);
                out.text16(b"\"************\0\0\0", 13);
                run = value_at + scan::card_tail(value);
            }
            Field::InternalNote => {
                // One comma goes with it: the one before, or the one behind the first member.
                if kept {
                    out.copy(b, run, start - 1);
                    run = end;
                } else {
                    out.copy(b, run, start);
                    run = if end == end_of_object { end } else { end + 1 };
                }
                start = end + 1;
                continue;
            }
        }
        kept = true;
        start = end + 1;
    }
    out.copy(b, run, end_of_object + 1);
    Some(Outcome::Emit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &[u8] = br#"{"order_id":"o-000000","customer_id":"c-36404","email":"jane.doe248@example.com","card":"4111000448434750","status":"paid","currency":"EUR","amount":125.05,"created_at":"2024-05-01T12:34:00Z","internal_note":"checked by ops","items":[{"sku":"A-345","qty":2,"price":19.99}],"address":{"city":"Berlin"}}"#;

    struct Twins {
        index: Index,
        plain: Buffer,
        indexed: Buffer,
        compact: u32,
    }

    impl Twins {
        fn new() -> Self {
            Twins {
                index: Index::new(),
                plain: Buffer::new(),
                indexed: Buffer::new(),
                compact: 0,
            }
        }

        fn check(&mut self, record: &[u8], behind: &[u8]) {
            for out in [&mut self.plain, &mut self.indexed] {
                out.clear();
                assert!(out.room(3 * record.len() + 128));
            }
            let mut b = record.to_vec();
            b.extend_from_slice(behind);
            let text = String::from_utf8_lossy(record).into_owned();
            let want = scan::order(record, &mut self.plain);
            self.compact +=
                u32::from(compact(&b, record.len(), &mut self.index, &mut self.indexed).is_some());
            self.indexed.clear();
            let got = order(&b, record.len(), &mut self.index, &mut self.indexed);
            assert_eq!(got, want, "{}", text);
            if want == Outcome::Emit {
                let want = self.plain.written();
                assert_eq!(self.indexed.written(), want, "{}", text);
            }
        }
    }

    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) as usize
    }

    #[test]
    fn every_cut_of_an_event() {
        let mut twins = Twins::new();
        for n in 0..=EVENT.len() {
            twins.check(&EVENT[..n], b"");
            twins.check(&EVENT[..n], &EVENT[n..]);
        }
        assert_eq!(twins.compact, 2);
    }

    #[test]
    fn one_byte_changed() {
        let mut twins = Twins::new();
        for at in 0..EVENT.len() {
            for &c in b"{}[]\",:\\ \n5x-." {
                let mut b = EVENT.to_vec();
                b[at] = c;
                twins.check(&b, b"");
                b.insert(at, EVENT[at]);
                twins.check(&b, EVENT);
                b.remove(at);
                b.remove(at);
                twins.check(&b, b"");
            }
        }
    }

    #[test]
    fn random_tokens() {
        const TOKENS: [&[u8]; 30] = [
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\"",
            b"\\",
            b" ",
            b"\\\"",
            b"\"a\":1",
            b"\"b\":\"c\"",
            b",",
            b"7",
            b"4",
            b"true",
            b"\"customer_id\":\"c-1\"",
            b"\"email\":\"jane@x.org\"",
            b"\"email\":\"\"",
            b"\"card\":\"4111000448434750\"",
            b"\"card\":1",
            b"\"status\":\"cancelled\"",
            b"\"status\":\"paid\"",
            b"\"amount\":4",
            b"\"amount\":25.5",
            b"\"internal_note\":\"x, y\"",
            b"\"i\":[{\"s\":1},2]",
            b"\"long\":\"to go from one block into the next: {[\\\"\"",
            b"{}",
            b"[]",
        ];
        let mut twins = Twins::new();
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..200_000 {
            let mut b = b"{".to_vec();
            let neat = random(&mut state) % 2 == 0;
            for k in 0..random(&mut state) % 12 {
                if neat && k > 0 {
                    b.push(b',');
                }
                let (first, end) = if neat { (16, 28) } else { (0, TOKENS.len()) };
                b.extend_from_slice(TOKENS[first + random(&mut state) % (end - first)]);
            }
            if random(&mut state) % 8 != 0 {
                b.push(b'}');
            }
            let behind = if random(&mut state) % 2 == 0 {
                EVENT
            } else {
                b""
            };
            twins.check(&b, behind);
        }
        assert!(
            twins.compact > 50_000,
            "the index answered {} of 200000",
            twins.compact
        );
    }
}
