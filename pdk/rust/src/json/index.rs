//! The members of an object by a structural index: 64 bytes at a time become
//! bit masks (quotes, brackets, commas and colons), and only those bytes are
//! looked at one by one. It answers for valid objects whose every token stands
//! right beside a bracket, comma or colon, as compact JSON does, and leaves all
//! others to `plain`.

use super::{plain, Span};
use std::convert::TryInto;

const BLOCK: usize = 64;

/// The kinds of the containers that are open are bits of a u64.
const DEPTH: u32 = 64;

/// Masks of one block: bit n is byte n.
struct Masks {
    quote: u64,
    open: u64,      // { [
    close: u64,     // } ]
    separator: u64, // , :
    /// There is a backslash, a control character, or a byte beyond ASCII.
    special: bool,
}

struct Specials {
    backslash: u64,
    control: u64,
    beyond: u64,
}

#[cfg(target_feature = "simd128")]
mod blocks {
    use super::{Masks, Specials, BLOCK};
    use std::arch::wasm32::*;

    #[inline(always)]
    pub(super) fn masks(block: &[u8; BLOCK]) -> Masks {
        let mut m = Masks {
            quote: 0,
            open: 0,
            close: 0,
            separator: 0,
            special: false,
        };
        let mut special = u8x16_splat(0);
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
            // As signed numbers what is beyond ASCII is below every control character.
            special = v128_or(special, i8x16_lt(v, i8x16_splat(0x20)));
            special = v128_or(special, u8x16_eq(v, u8x16_splat(b'\\')));
            k += 16;
        }
        m.special = v128_any_true(special);
        m
    }

    pub(super) fn specials(block: &[u8; BLOCK]) -> Specials {
        let mut s = Specials {
            backslash: 0,
            control: 0,
            beyond: 0,
        };
        let mut k = 0;
        while k < BLOCK {
            // k + 16 <= BLOCK
            let v = unsafe { v128_load(block.as_ptr().add(k) as *const v128) };
            s.backslash |= u64::from(u8x16_bitmask(u8x16_eq(v, u8x16_splat(b'\\')))) << k;
            s.control |= u64::from(u8x16_bitmask(u8x16_lt(v, u8x16_splat(0x20)))) << k;
            s.beyond |= u64::from(u8x16_bitmask(v)) << k;
            k += 16;
        }
        s
    }
}

#[cfg(not(target_feature = "simd128"))]
mod blocks {
    use super::{Masks, Specials, BLOCK};

    pub(super) fn masks(block: &[u8; BLOCK]) -> Masks {
        Masks {
            quote: mask(block, |c| c == b'"'),
            open: mask(block, |c| c | 0x20 == b'{'),
            close: mask(block, |c| c | 0x20 == b'}'),
            separator: mask(block, |c| c == b',' || c == b':'),
            special: block
                .iter()
                .any(|&c| !(0x20..0x80).contains(&c) || c == b'\\'),
        }
    }

    pub(super) fn specials(block: &[u8; BLOCK]) -> Specials {
        Specials {
            backslash: mask(block, |c| c == b'\\'),
            control: mask(block, |c| c < 0x20),
            beyond: mask(block, |c| c >= 0x80),
        }
    }

    #[inline(always)]
    fn mask(block: &[u8; BLOCK], is: impl Fn(u8) -> bool) -> u64 {
        block
            .iter()
            .enumerate()
            .fold(0, |m, (k, &c)| m | u64::from(is(c)) << k)
    }
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

/// The bytes of the block at `i` that stand behind an odd backslash; `carry`
/// goes from block to block. None if an escape is not valid.
fn escaped(text: &[u8], i: usize, mut backslash: u64, carry: &mut bool) -> Option<u64> {
    let mut found = 0;
    if *carry {
        found = 1;
        backslash &= !1;
    }
    *carry = false;
    while backslash != 0 {
        let k = backslash.trailing_zeros();
        plain::escape(text, i + k as usize).ok()?;
        if k == 63 {
            *carry = true;
            break;
        }
        found |= 2 << k;
        backslash &= !(3 << k);
    }
    Some(found)
}

/// Whether `b[from..to]`, which has neither quote nor bracket nor separator,
/// is a number, true, false or null.
#[inline(always)]
fn scalar(b: &[u8], from: usize, to: usize) -> bool {
    match b.get(from..from + 8) {
        Some(word) if to - from <= 8 && short_number(word, to - from) => true,
        _ => scalar_slow(&b[from..to]),
    }
}

/// Whether the first `n` of eight bytes, 1 to 8, are a number without a sign
/// and exponent. No loop: a turn costs fuel.
#[inline(always)]
fn short_number(word: &[u8], n: usize) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = u64::from_le_bytes([b'0'; 8]);
    let digits = word.try_into().map_or(0, u64::from_le_bytes) ^ zero; // digits are 0 to 9
    let others = ((digits & !HIGH) + 0x7676_7676_7676_7676 | digits) & HIGH & (!0 >> (64 - 8 * n));
    let point = others.trailing_zeros() as usize / 8; // 8: there is none
    let whole = point.min(n);
    if others & others.wrapping_sub(1) != 0 || word[0] == b'0' && whole > 1 {
        return false;
    }
    others == 0 || word[point] == b'.' && point > 0 && point + 1 < n
}

#[cold]
#[inline(never)]
fn scalar_slow(word: &[u8]) -> bool {
    matches!(word, b"true" | b"false" | b"null") || plain::number(word, 0) == Ok(word.len())
}

/// Lists the members of the object that the first `len` bytes of `b` are; the
/// bytes behind them may be anything. Returns whether there are backslashes;
/// None leaves the text to `plain`.
#[inline(always)]
pub(super) fn fill(b: &[u8], mut len: usize, spans: &mut Vec<Span>) -> Option<bool> {
    if b.first() != Some(&b'{') || len > u32::MAX as usize {
        return None;
    }
    while len > 0 && b[len - 1] <= b' ' {
        if !matches!(b[len - 1], b' ' | b'\n' | b'\t' | b'\r') {
            return None;
        }
        len -= 1;
    }
    let text = &b[..len];
    let (mut escapes, mut beyond) = (false, false);
    let mut in_string = 0u64; // all ones: the block begins inside a string
    let mut may_begin = 1u64; // bit 0: the block's first byte may begin a token
    let mut must_end = 0u64; // bit 0: the byte before the block ended a token
    let mut escape = false;

    let mut depth = 0u32;
    let mut kinds = 0u64; // the open containers, the innermost is bit 0: 1 an object
    let mut last = b'['; // the structural byte before, and where it was
    let mut last_at = 0usize;
    let (mut key, mut key_end) = (0usize, 0usize);

    let mut i = 0;
    while i < len {
        let mut padded = [b' '; BLOCK];
        let block: &[u8; BLOCK] = match b.get(i..i + BLOCK) {
            Some(block) => block.try_into().ok()?,
            None => {
                padded[..len - i].copy_from_slice(&text[i..]);
                &padded
            }
        };
        let mut m = blocks::masks(block);
        let valid = if len - i < BLOCK {
            (1u64 << (len - i)) - 1
        } else {
            !0
        };
        let mut backslash = 0;
        if m.special || escape {
            let s = blocks::specials(block);
            if s.control & valid != 0 {
                return None;
            }
            beyond |= s.beyond & valid != 0;
            backslash = s.backslash & valid;
            escapes |= backslash != 0;
            m.quote &= !escaped(text, i, backslash, &mut escape)?;
        }
        let quote = m.quote & valid;
        let inside = parity(quote) ^ in_string;
        in_string = ((inside as i64) >> 63) as u64;
        let outside = !inside & valid;
        let open = m.open & outside;
        let close = m.close & outside;
        let separator = m.separator & outside;

        // Every string and container begins behind a bracket that opens or a
        // separator, and ends before one that closes or a separator.
        let begins = quote & inside | open;
        let ends = quote & !inside | close;
        let before = open | separator;
        let after = close | separator;
        let stray = begins & !(before << 1 | may_begin)
            | (ends << 1 | must_end) & valid & !after
            | backslash & outside;
        if stray != 0 {
            return None;
        }
        may_begin = before >> 63;
        must_end = ends >> 63;

        let mut rest = open | close | separator;
        while rest != 0 {
            let at = i + rest.trailing_zeros() as usize;
            rest &= rest - 1;
            // at < len: the masks are cut there.
            let c = unsafe { *text.get_unchecked(at) };
            // The first byte of the token before it, or c if there is none.
            let first = unsafe { *text.get_unchecked((last_at + 1).min(at)) };
            let object = kinds & 1 != 0;
            match c {
                b':' => {
                    // Behind a string, which is the first or follows a comma.
                    if !object || first != b'"' || !matches!(last, b'{' | b',') {
                        return None;
                    }
                    if depth == 1 {
                        key = last_at + 2;
                        key_end = at - 1;
                    }
                }
                b'{' | b'[' => {
                    let place = match last {
                        b':' | b'[' => true,
                        b',' => !object,
                        _ => false,
                    };
                    if !place || depth == DEPTH {
                        return None;
                    }
                    depth += 1;
                    kinds = kinds << 1 | u64::from(c == b'{');
                }
                _ => {
                    let complete = match last {
                        b'}' | b']' => true,
                        b'{' => c == b'}' && at == last_at + 1,
                        _ if at == last_at + 1 => c == b']' && last == b'[',
                        b',' if object => false,
                        _ => first == b'"' || scalar(text, last_at + 1, at),
                    };
                    if !complete || c != b',' && object != (c == b'}') {
                        return None;
                    }
                    if depth == 1 && last != b'{' {
                        spans.push(Span {
                            key: key as u32,
                            key_end: key_end as u32,
                            value: key_end as u32 + 2,
                            value_end: at as u32,
                        });
                    }
                    if c != b',' {
                        depth -= 1;
                        kinds >>= 1;
                        if depth == 0 {
                            if at + 1 != len || beyond && std::str::from_utf8(text).is_err() {
                                return None;
                            }
                            return Some(escapes);
                        }
                    }
                }
            }
            last = c;
            last_at = at;
        }
        i += BLOCK;
    }
    None
}
