//! The order rule: one pass over the bytes, the first rule that decides wins.
//! It scans and builds no tree; it is not a JSON validator.

use crate::frame::Buffer;

pub const MIN_AMOUNT: f64 = 5.0;
pub const CANCELLED: &[u8] = b"\"cancelled\"";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Emit,
    Drop,
    Fail(Fault),
}

/// Why a record is no order event, and at which byte of its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    pub code: u32,
    what: &'static str,
    at: usize,
}

impl Fault {
    fn not_an_object(at: usize) -> Outcome {
        Outcome::Fail(Fault {
            code: 1,
            what: "not a JSON object: no '{'",
            at,
        })
    }

    fn cut_off(what: &'static str, at: usize) -> Outcome {
        Outcome::Fail(Fault { code: 2, what, at })
    }

    fn broken(what: &'static str, at: usize) -> Outcome {
        Outcome::Fail(Fault { code: 3, what, at })
    }

    /// Appends the message, such as `cut off inside a value at byte 59`.
    pub fn message(&self, out: &mut Buffer) {
        out.text(self.what.as_bytes());
        out.text(b" at byte ");
        let mut digits = [0u8; 20];
        let mut first = digits.len();
        let mut n = self.at;
        loop {
            first -= 1;
            digits[first] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        out.text(&digits[first..]);
    }
}

/// Appends what becomes of the order event `b`. For any outcome but Emit what
/// was appended means nothing.
pub fn order(b: &[u8], out: &mut Buffer) -> Outcome {
    let mut i = skip_space(b, 0);
    if b.get(i) != Some(&b'{') {
        return Fault::not_an_object(i);
    }
    i += 1;
    out.push(b'{');
    let mut first = true;
    loop {
        i = skip_space(b, i);
        match b.get(i) {
            None => return Fault::cut_off("cut off inside the object", i),
            Some(b'}') => break,
            Some(b',') => {
                i += 1;
                continue;
            }
            Some(b'"') => {}
            Some(_) => return Fault::broken("no key where one should begin", i),
        }
        let key_at = i;
        i = match scan_string(b, i) {
            Some(end) => end,
            None => return Fault::cut_off("cut off inside a key", b.len()),
        };
        let key = &b[key_at + 1..i - 1];
        i = skip_space(b, i);
        match b.get(i) {
            None => return Fault::cut_off("cut off behind a key", i),
            Some(b':') => {}
            Some(_) => return Fault::broken("no ':' behind a key", i),
        }
        i = skip_space(b, i + 1);
        if i >= b.len() {
            return Fault::cut_off("cut off before a value", i);
        }
        let value_at = i;
        i = match scan_value(b, i) {
            Some(end) => end,
            None => return Fault::cut_off("cut off inside a value", b.len()),
        };
        if i == value_at {
            return Fault::broken("an empty value", i);
        }
        let value = &b[value_at..i];
        match key {
            b"internal_note" => continue,
            b"status" if value == CANCELLED => return Outcome::Drop,
            b"amount" if number(value) < MIN_AMOUNT => return Outcome::Drop,
            _ => {}
        }
        if !first {
            out.push(b',');
        }
        first = false;
        out.push(b'"');
        out.text(if key == b"customer_id" {
            b"customer"
        } else {
            key
        });
        out.text(b"\":");
        match key {
            b"email" => {
                out.text(&value[..value.len().min(2)]);
                out.text(b"***");
                out.text(&value[email_tail(value)..]);
            }
            b"card" => {
                out.text(b"\"************");
                out.text(&value[card_tail(value)..]);
            }
            _ => out.text(value),
        }
    }
    out.push(b'}');
    Outcome::Emit
}

/// Where the part of a masked email begins that stays: at its '@'.
pub fn email_tail(value: &[u8]) -> usize {
    value
        .iter()
        .position(|&c| c == b'@')
        .unwrap_or(value.len() - 1)
}

/// Where the part of a masked card begins that stays: four digits and a quote.
pub fn card_tail(value: &[u8]) -> usize {
    value.len().saturating_sub(5).max(1)
}

fn skip_space(b: &[u8], mut i: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = b.get(i) {
        i += 1;
    }
    i
}

/// The index after the string that opens at `i`; None if it never closes.
fn scan_string(b: &[u8], mut i: usize) -> Option<usize> {
    i += 1;
    loop {
        match b.get(i)? {
            b'\\' => i += 2,
            b'"' => return Some(i + 1),
            _ => i += 1,
        }
    }
}

/// The index after the value that begins at `i`; None if the record ends
/// inside it. A bare value needs a delimiter behind it: a number at the end
/// of the bytes may be a part of one.
fn scan_value(b: &[u8], mut i: usize) -> Option<usize> {
    match b[i] {
        b'"' => scan_string(b, i),
        b'{' | b'[' => {
            let mut depth = 0usize;
            loop {
                match b.get(i)? {
                    b'"' => {
                        i = scan_string(b, i)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(i + 1);
                        }
                    }
                    _ => {}
                }
                i += 1;
            }
        }
        _ => loop {
            match b.get(i)? {
                b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r' => return Some(i),
                _ => i += 1,
            }
        },
    }
}

/// The digits of `b` as a decimal number; all but digits, '.' and '-' is
/// passed over.
pub fn number(b: &[u8]) -> f64 {
    let (mut v, mut scale, mut negative) = (0f64, 0f64, false);
    for &c in b {
        match c {
            b'0'..=b'9' => {
                v = v * 10.0 + f64::from(c - b'0');
                scale *= 10.0;
            }
            b'.' => scale = 1.0,
            b'-' => negative = true,
            _ => {}
        }
    }
    if scale > 0.0 {
        v /= scale;
    }
    if negative {
        -v
    } else {
        v
    }
}
