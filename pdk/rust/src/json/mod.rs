//! JSON for the hot path: finds the members of an object without building a
//! tree, and validates what it passes over.
//!
//! [`Object`] is a list of places in the record's own bytes. An object without
//! white space between its tokens, as programs write them, is read 64 bytes at
//! a time (with simd128 where the build has it); any other one by a plain
//! scanner that accepts exactly the same: RFC 8259 with valid UTF-8, nested
//! at most [`MAX_DEPTH`] deep. A lone surrogate escape is accepted and read as
//! U+FFFD.
//!
//! For whole structs take serde_json: `serde_json::from_slice(r.bytes())?`
//! works in a stage as it is.

mod index;
mod number;
mod plain;
mod rewrite;
#[cfg(test)]
pub(crate) mod tests;
mod write;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

pub use rewrite::Rewrite;
pub use write::ToJson;

/// How deep values may be nested.
pub const MAX_DEPTH: usize = 128;

/// Why a text is not JSON, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    what: &'static str,
    at: usize,
}

impl Fault {
    pub(crate) fn new(what: &'static str, at: usize) -> Self {
        Fault { what, at }
    }

    /// The byte, from 0; the length of the text if it ends too early.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Fault {}

/// Places of a member in the text: the key without its quotes, the value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub key: u32,
    pub key_end: u32,
    pub value: u32,
    pub value_end: u32,
}

thread_local! {
    /// The list of the last object, so that a record allocates nothing.
    static SPARE: Cell<Vec<Span>> = const { Cell::new(Vec::new()) };
}

/// A JSON object: where its members lie in the text. Members of objects inside
/// of it are validated and not listed; `value.object()` opens them.
pub struct Object<'a> {
    /// The object's text and what may be read behind it.
    text: &'a [u8],
    spans: Vec<Span>,
    fault: Option<Fault>,
    escapes: bool,
    /// It begins with the text, and has no white space between its tokens.
    tight: bool,
}

impl<'a> Object<'a> {
    /// Reads a text that is one JSON object.
    pub fn read(text: &'a [u8]) -> Result<Self, Fault> {
        let object = Self::scan(text);
        match object.fault {
            None => Ok(object),
            Some(fault) => Err(fault),
        }
    }

    /// Reads as far as the text is an object: the members before a fault are
    /// there, and `members` ends with the fault.
    pub fn scan(text: &'a [u8]) -> Self {
        Self::scan_prefix(text, text.len())
    }

    /// As scan for the first `len` bytes; what is behind them may be anything.
    #[inline]
    pub(crate) fn scan_prefix(text: &'a [u8], len: usize) -> Self {
        let mut spans = SPARE.with(|s| s.take());
        spans.clear();
        let (escapes, fault, tight) = match index::fill(text, len, &mut spans) {
            Some(escapes) => (escapes, None, true),
            None => {
                spans.clear();
                let (escapes, fault) = plain::fill(&text[..len], &mut spans);
                (escapes, fault, false)
            }
        };
        Object {
            text,
            spans,
            fault,
            escapes,
            tight,
        }
    }

    /// Why the text is no object; None for what `read` returned.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The number of members, those of the same name counted each.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The value of the last member of that name.
    #[inline]
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        (0..self.spans.len())
            .rev()
            .map(|i| self.member(i))
            .find(|m| m.is(name))
            .map(|m| m.value())
    }

    /// The members in order, then the fault if there is one.
    pub fn members(&self) -> impl Iterator<Item = Result<Member<'a>, Fault>> + '_ {
        (0..self.spans.len())
            .map(move |i| Ok(self.member(i)))
            .chain(self.fault.into_iter().map(Err))
    }

    #[inline(always)]
    fn member(&self, i: usize) -> Member<'a> {
        member(self.text, self.spans[i], self.escapes)
    }
}

#[inline(always)]
fn member(text: &[u8], span: Span, escapes: bool) -> Member<'_> {
    let part = |from: u32, to: u32| {
        debug_assert!(from <= to && to as usize <= text.len());
        // The spans are places in the text: only index and plain make them.
        unsafe { text.get_unchecked(from as usize..to as usize) }
    };
    Member {
        name: part(span.key, span.key_end),
        value: part(span.value, span.value_end),
        escapes,
    }
}

impl Drop for Object<'_> {
    #[inline]
    fn drop(&mut self) {
        let spans = std::mem::take(&mut self.spans);
        // A thread that ends has no use for it.
        let _ = SPARE.try_with(|s| s.set(spans));
    }
}

impl fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members()).finish()
    }
}

/// A member of an object.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// As it is written, without its quotes.
    name: &'a [u8],
    value: &'a [u8],
    escapes: bool,
}

impl<'a> Member<'a> {
    /// Whether this is its name. With a literal this is a comparison of words.
    #[inline(always)]
    pub fn is(&self, name: &str) -> bool {
        if self.escapes {
            return unescape(self.name) == name;
        }
        same(self.name, name.as_bytes())
    }

    /// Its name.
    pub fn name(&self) -> Cow<'a, str> {
        unescape(self.name)
    }

    /// Its value.
    #[inline(always)]
    pub fn value(&self) -> Value<'a> {
        Value {
            raw: self.value,
            escapes: self.escapes,
        }
    }
}

impl fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.name(), self.value())
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// a number
    Number,
    /// a string
    String,
    /// a list
    Array,
    /// an object
    Object,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Null => "null",
            Kind::Bool => "true or false",
            Kind::Number => "a number",
            Kind::String => "a string",
            Kind::Array => "a list",
            Kind::Object => "an object",
        })
    }
}

/// A valid JSON value, as its own text.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    raw: &'a [u8],
    /// There may be backslashes.
    escapes: bool,
}

impl<'a> Value<'a> {
    /// Reads a text that is one JSON value.
    pub fn read(text: &'a [u8]) -> Result<Self, Fault> {
        let (from, to) = plain::whole(text)?;
        Ok(Value {
            raw: &text[from..to],
            escapes: true,
        })
    }

    /// Its text as it stands in the record: a string with its quotes.
    #[inline(always)]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.raw[0] {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'"' => Kind::String,
            b't' | b'f' => Kind::Bool,
            b'n' => Kind::Null,
            _ => Kind::Number,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.raw[0] == b'n'
    }

    /// Whether it is this string.
    #[inline(always)]
    pub fn is(&self, text: &str) -> bool {
        match self.raw {
            [b'"', inner @ .., b'"'] if self.escapes => unescape(inner) == text,
            [b'"', inner @ .., b'"'] => same(inner, text.as_bytes()),
            _ => false,
        }
    }

    /// The string; None if it is something else. Borrowed unless it has escapes.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        match self.raw {
            [b'"', inner @ .., b'"'] => Some(unescape(inner)),
            _ => None,
        }
    }

    /// The number; None if it is something else. Beyond the range it is infinite.
    #[inline]
    pub fn as_f64(&self) -> Option<f64> {
        number::f64(self.raw)
    }

    /// The number if it is written as an integer and fits.
    pub fn as_i64(&self) -> Option<i64> {
        number::text(self.raw)?.parse().ok()
    }

    /// The number if it is written as an integer and fits.
    pub fn as_u64(&self) -> Option<u64> {
        number::text(self.raw)?.parse().ok()
    }

    /// true or false; None if it is something else.
    pub fn as_bool(&self) -> Option<bool> {
        match self.raw {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// The object; None if it is something else.
    pub fn object(&self) -> Option<Object<'a>> {
        if self.raw[0] != b'{' {
            return None;
        }
        Some(Object::scan(self.raw))
    }

    /// The values of a list; None if it is something else.
    pub fn items(&self) -> Option<Items<'a>> {
        if self.raw[0] != b'[' {
            return None;
        }
        Some(Items {
            text: self.raw,
            at: 1,
        })
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.raw))
    }
}

/// The values of a list.
#[derive(Clone)]
pub struct Items<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let from = plain::skip_space(self.text, self.at);
        if matches!(self.text.get(from), None | Some(b']')) {
            return None;
        }
        // The list is valid: there is a value, then a comma or the end.
        let to = plain::value(self.text, from, 0).ok()?;
        self.at = plain::skip_space(self.text, to) + 1;
        Some(Value {
            raw: &self.text[from..to],
            escapes: true,
        })
    }
}

/// Byte equality by words: with a constant `b` all lengths are known.
#[inline(always)]
fn same(a: &[u8], b: &[u8]) -> bool {
    let n = b.len();
    if a.len() != n {
        return false;
    }
    match n {
        0 => true,
        1..=3 => a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1],
        4..=7 => word4(a, 0) == word4(b, 0) && word4(a, n - 4) == word4(b, n - 4),
        8..=16 => word8(a, 0) == word8(b, 0) && word8(a, n - 8) == word8(b, n - 8),
        _ => a == b,
    }
}

#[inline(always)]
fn word4(b: &[u8], at: usize) -> u32 {
    crate::frame::u32_at(b, at).unwrap_or(0)
}

#[inline(always)]
fn word8(b: &[u8], at: usize) -> u64 {
    crate::frame::u64_at(b, at).unwrap_or(0)
}

/// What stands between the quotes of a valid string, decoded.
fn unescape(inner: &[u8]) -> Cow<'_, str> {
    let first = match inner.iter().position(|&c| c == b'\\') {
        None => return String::from_utf8_lossy(inner),
        Some(first) => first,
    };
    let mut out = inner[..first].to_vec();
    let mut i = first;
    while i < inner.len() {
        if inner[i] != b'\\' {
            out.push(inner[i]);
            i += 1;
            continue;
        }
        let (c, length) = match inner[i + 1] {
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => unicode(inner, i),
            c => (c as char, 2),
        };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        i += length;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The character of the \u escape at `i` and the length of the escape; that of
/// both where two make one character.
fn unicode(b: &[u8], i: usize) -> (char, usize) {
    let high = hex4(b, i);
    let low = if b.get(i + 6..i + 8) == Some(b"\\u") {
        hex4(b, i + 6)
    } else {
        0
    };
    if (0xd800..0xdc00).contains(&high) && (0xdc00..0xe000).contains(&low) {
        let c = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        return (char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (
        char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER),
        6,
    )
}

fn hex4(b: &[u8], i: usize) -> u32 {
    b.get(i + 2..i + 6).map_or(0, |digits| {
        digits
            .iter()
            .fold(0, |v, &c| v << 4 | (c as char).to_digit(16).unwrap_or(0))
    })
}
