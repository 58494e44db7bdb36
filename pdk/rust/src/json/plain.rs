//! The plain scanner: any valid JSON, byte by byte, and for what is not valid
//! the place and the reason.

use super::{Fault, Span, MAX_DEPTH};

/// Lists the members of the object that `b` is. Returns whether a backslash
/// was seen, and why `b` is no object; the members before that place are
/// listed.
#[cold]
pub(super) fn fill(b: &[u8], spans: &mut Vec<Span>) -> (bool, Option<Fault>) {
    let fault = members(b, spans).err();
    (b.contains(&b'\\'), fault)
}

fn members(b: &[u8], spans: &mut Vec<Span>) -> Result<(), Fault> {
    let mut i = skip_space(b, 0);
    if b.get(i) != Some(&b'{') {
        return Err(Fault::new("not a JSON object: no '{'", i));
    }
    i = skip_space(b, i + 1);
    if b.get(i) == Some(&b'}') {
        return end(b, i + 1);
    }
    loop {
        let (span, next) = member(b, i, 1)?;
        let delimiter = b.get(next);
        // A number or word is whole only if something ends it.
        let ends_itself = matches!(b[span.value_end as usize - 1], b'"' | b'}' | b']');
        if ends_itself || matches!(delimiter, Some(b',' | b'}')) {
            spans.push(span);
        }
        match delimiter {
            Some(b',') => i = skip_space(b, next + 1),
            Some(b'}') => return end(b, next + 1),
            _ => return Err(separator(b, next)),
        }
    }
}

/// The member that begins at `i` and the place behind it and its white space.
fn member(b: &[u8], i: usize, depth: usize) -> Result<(Span, usize), Fault> {
    match b.get(i) {
        Some(b'"') => {}
        None => return Err(Fault::new("cut off before a key", i)),
        Some(_) => return Err(Fault::new("no key where one should begin", i)),
    }
    let key_end = string(b, i)?;
    let colon = skip_space(b, key_end);
    match b.get(colon) {
        Some(b':') => {}
        None => return Err(Fault::new("cut off behind a key", colon)),
        Some(_) => return Err(Fault::new("no ':' behind a key", colon)),
    }
    let from = skip_space(b, colon + 1);
    let to = value(b, from, depth)?;
    let span = Span {
        key: i as u32 + 1,
        key_end: key_end as u32 - 1,
        value: from as u32,
        value_end: to as u32,
    };
    Ok((span, skip_space(b, to)))
}

/// The bounds of the one value that `b` is.
pub(super) fn whole(b: &[u8]) -> Result<(usize, usize), Fault> {
    let from = skip_space(b, 0);
    let to = value(b, from, 0)?;
    end(b, to)?;
    Ok((from, to))
}

fn end(b: &[u8], i: usize) -> Result<(), Fault> {
    let i = skip_space(b, i);
    if i < b.len() {
        return Err(Fault::new("more behind the end of the JSON value", i));
    }
    Ok(())
}

fn separator(b: &[u8], i: usize) -> Fault {
    if i < b.len() {
        Fault::new("no ',' behind a value", i)
    } else {
        Fault::new("cut off behind a value", i)
    }
}

/// The place behind the value that begins at `i`, at that depth.
pub(super) fn value(b: &[u8], i: usize, depth: usize) -> Result<usize, Fault> {
    match b.get(i) {
        None => Err(Fault::new("cut off before a value", i)),
        Some(b'"') => string(b, i),
        Some(b'{') => object(b, i, depth),
        Some(b'[') => array(b, i, depth),
        Some(b't') => literal(b, i, b"true"),
        Some(b'f') => literal(b, i, b"false"),
        Some(b'n') => literal(b, i, b"null"),
        Some(b'-' | b'0'..=b'9') => number(b, i),
        Some(b',' | b'}' | b']') => Err(Fault::new("an empty value", i)),
        Some(_) => Err(Fault::new("no value where one should begin", i)),
    }
}

fn deeper(i: usize, depth: usize) -> Result<usize, Fault> {
    if depth >= MAX_DEPTH {
        return Err(Fault::new("nested deeper than 128", i));
    }
    Ok(depth + 1)
}

fn object(b: &[u8], at: usize, depth: usize) -> Result<usize, Fault> {
    let depth = deeper(at, depth)?;
    let mut i = skip_space(b, at + 1);
    if b.get(i) == Some(&b'}') {
        return Ok(i + 1);
    }
    loop {
        let (_, next) = member(b, i, depth)?;
        match b.get(next) {
            Some(b',') => i = skip_space(b, next + 1),
            Some(b'}') => return Ok(next + 1),
            _ => return Err(separator(b, next)),
        }
    }
}

fn array(b: &[u8], at: usize, depth: usize) -> Result<usize, Fault> {
    let depth = deeper(at, depth)?;
    let mut i = skip_space(b, at + 1);
    if b.get(i) == Some(&b']') {
        return Ok(i + 1);
    }
    loop {
        let next = skip_space(b, value(b, i, depth)?);
        match b.get(next) {
            Some(b',') => i = skip_space(b, next + 1),
            Some(b']') => return Ok(next + 1),
            _ => return Err(separator(b, next)),
        }
    }
}

fn string(b: &[u8], at: usize) -> Result<usize, Fault> {
    let mut i = at + 1;
    let mut ascii = true;
    loop {
        match b.get(i) {
            None => return Err(Fault::new("cut off inside a string", b.len())),
            Some(b'"') => break,
            Some(b'\\') => i = escape(b, i)?,
            Some(0..=0x1f) => return Err(Fault::new("a control character in a string", i)),
            Some(&c) => {
                ascii &= c < 0x80;
                i += 1;
            }
        }
    }
    if !ascii {
        if let Err(e) = std::str::from_utf8(&b[at..i]) {
            return Err(Fault::new("no UTF-8", at + e.valid_up_to()));
        }
    }
    Ok(i + 1)
}

/// The place behind the escape that begins at `i`.
pub(super) fn escape(b: &[u8], i: usize) -> Result<usize, Fault> {
    match b.get(i + 1) {
        None => Err(Fault::new("cut off inside a string", b.len())),
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(i + 2),
        Some(b'u') => {
            for k in i + 2..i + 6 {
                match b.get(k) {
                    None => return Err(Fault::new("cut off inside a string", b.len())),
                    Some(c) if c.is_ascii_hexdigit() => {}
                    Some(_) => return Err(Fault::new("no hexadecimal digit in an escape", k)),
                }
            }
            Ok(i + 6)
        }
        Some(_) => Err(Fault::new("an unknown escape", i)),
    }
}

fn literal(b: &[u8], i: usize, word: &[u8]) -> Result<usize, Fault> {
    let rest = &b[i..];
    if rest.starts_with(word) {
        return Ok(i + word.len());
    }
    if word.starts_with(rest) {
        return Err(Fault::new("cut off inside a value", b.len()));
    }
    Err(Fault::new("no value where one should begin", i))
}

fn digits(b: &[u8], mut i: usize) -> Result<usize, Fault> {
    let from = i;
    while let Some(b'0'..=b'9') = b.get(i) {
        i += 1;
    }
    if i > from {
        return Ok(i);
    }
    if i == b.len() {
        return Err(Fault::new("cut off inside a number", i));
    }
    Err(Fault::new("no digit where a number needs one", i))
}

/// The place behind the number that begins at `i`.
pub(super) fn number(b: &[u8], mut i: usize) -> Result<usize, Fault> {
    if b.get(i) == Some(&b'-') {
        i += 1;
    }
    i = if b.get(i) == Some(&b'0') {
        i + 1
    } else {
        digits(b, i)?
    };
    if b.get(i) == Some(&b'.') {
        i = digits(b, i + 1)?;
    }
    if let Some(b'e' | b'E') = b.get(i) {
        i += 1;
        if let Some(b'+' | b'-') = b.get(i) {
            i += 1;
        }
        i = digits(b, i)?;
    }
    Ok(i)
}

pub(super) fn skip_space(b: &[u8], mut i: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = b.get(i) {
        i += 1;
    }
    i
}
