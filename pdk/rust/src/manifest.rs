//! The manifest, put together and checked by the compiler.

use crate::config::{Property, Schema};

/// The most bytes that a manifest can have.
const MOST: usize = 64 << 10;

/// Text that grows while constants are evaluated.
pub struct Text {
    bytes: [u8; MOST],
    len: usize,
}

/// A part of the manifest.
pub enum Piece {
    /// Text that is JSON by itself or in part.
    Text(&'static str),
    /// A JSON value that the author wrote: it is checked.
    Json(&'static str),
    /// A sample record; several stand one after another.
    Sample(&'static str),
    /// A name, to be quoted.
    Quoted(&'static str),
    /// A number.
    Number(u64),
    /// A JSON Schema.
    Schema(&'static Schema),
}

impl Text {
    /// Its length in bytes.
    pub const fn size(&self) -> usize {
        self.len
    }

    /// Its bytes.
    pub const fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        let mut i = 0;
        while i < N {
            out[i] = self.bytes[i];
            i += 1;
        }
        out
    }

    const fn pieces(self, pieces: &[Piece]) -> Self {
        let mut t = self;
        let mut i = 0;
        while i < pieces.len() {
            t = match pieces[i] {
                Piece::Text(text) => t.text(text),
                Piece::Json(text) => t.json(text),
                Piece::Quoted(text) => t.quoted(text),
                Piece::Number(n) => t.number(n),
                Piece::Schema(schema) => t.schema(schema),
                Piece::Sample(text) => {
                    t = t
                        .text(if i == 0 { ",\"sample\":[" } else { "," })
                        .json(text);
                    t.text(if i + 1 == pieces.len() { "]" } else { "" })
                }
            };
            i += 1;
        }
        t
    }

    const fn text(self, text: &str) -> Self {
        let mut t = self;
        let from = text.as_bytes();
        if t.len + from.len() > MOST {
            panic!("stage!: the manifest is larger than 64 KiB: use fewer or smaller samples");
        }
        let mut i = 0;
        while i < from.len() {
            t.bytes[t.len] = from[i];
            t.len += 1;
            i += 1;
        }
        t
    }

    const fn quoted(self, text: &str) -> Self {
        let mut t = self.text("\"");
        let from = text.as_bytes();
        if t.len + 2 * from.len() + 1 > MOST {
            panic!("stage!: the manifest is larger than 64 KiB: use fewer or smaller samples");
        }
        // A doc comment has a space behind its slashes.
        let mut i = if at(from, 0) == b' ' { 1 } else { 0 };
        while i < from.len() {
            match from[i] {
                b'"' | b'\\' => {
                    t.bytes[t.len] = b'\\';
                    t.bytes[t.len + 1] = from[i];
                    t.len += 2;
                }
                0..=0x1f => {
                    t.bytes[t.len] = b' ';
                    t.len += 1;
                }
                c => {
                    t.bytes[t.len] = c;
                    t.len += 1;
                }
            }
            i += 1;
        }
        t.text("\"")
    }

    const fn number(self, n: u64) -> Self {
        let mut t = self;
        let mut power = 1;
        while n / power >= 10 {
            power *= 10;
        }
        while power > 0 {
            t.bytes[t.len] = b'0' + (n / power % 10) as u8;
            t.len += 1;
            power /= 10;
        }
        t
    }

    const fn integer(self, n: i64) -> Self {
        let t = if n < 0 { self.text("-") } else { self };
        t.number(n.unsigned_abs())
    }

    const fn schema(self, schema: &Schema) -> Self {
        match schema {
            Schema::Any => self.text("{}"),
            Schema::Bool => self.text("{\"type\":\"boolean\"}"),
            Schema::Number => self.text("{\"type\":\"number\"}"),
            Schema::String => self.text("{\"type\":\"string\"}"),
            Schema::Integer { min } => self
                .text("{\"type\":\"integer\",\"minimum\":")
                .integer(*min)
                .text("}"),
            Schema::Array(of) => self
                .text("{\"type\":\"array\",\"items\":")
                .schema(of)
                .text("}"),
            Schema::Map(of) => self
                .text("{\"type\":\"object\",\"additionalProperties\":")
                .schema(of)
                .text("}"),
            Schema::Nullable(of) => self
                .text("{\"anyOf\":[{\"type\":\"null\"},")
                .schema(of)
                .text("]}"),
            Schema::Object(properties) => self.object(properties),
            Schema::Json(text) => self.json(text),
        }
    }

    const fn object(self, properties: &[Property]) -> Self {
        let mut t = self.text("{\"type\":\"object\",\"properties\":{");
        let mut i = 0;
        while i < properties.len() {
            if i > 0 {
                t = t.text(",");
            }
            t = t.quoted(properties[i].name).text(":");
            t = t.described(properties[i].description, &properties[i].schema);
            i += 1;
        }
        t = t.text("},\"required\":[");
        let mut first = true;
        i = 0;
        while i < properties.len() {
            if properties[i].required {
                if !first {
                    t = t.text(",");
                }
                t = t.quoted(properties[i].name);
                first = false;
            }
            i += 1;
        }
        t.text("],\"additionalProperties\":false}")
    }

    /// The schema with a description as its first key.
    const fn described(self, description: &str, schema: &Schema) -> Self {
        if description.is_empty() {
            return self.schema(schema);
        }
        let mut t = self.text("{\"description\":").quoted(description);
        let end = t.len;
        t = t.schema(schema);
        // Its bracket becomes a comma, unless it is not an object or empty.
        if t.bytes[end] != b'{' {
            t.len = end;
            return t.text("}");
        }
        if t.bytes[end + 1] == b'}' {
            t.len = end;
            return t.text("}");
        }
        t.bytes[end] = b',';
        t
    }

    const fn json(self, text: &str) -> Self {
        if !is_json(text.as_bytes()) {
            panic!("stage!: a sample or the schema is not JSON");
        }
        self.text(text)
    }
}

/// Puts a manifest together, part by part.
pub const fn manifest(parts: &[&[Piece]]) -> Text {
    let mut t = Text {
        bytes: [0; MOST],
        len: 0,
    };
    let mut k = 0;
    while k < parts.len() {
        t = t.pieces(parts[k]);
        k += 1;
    }
    t
}

/// Refuses, with a reason, what the node would not take as a plugin's name.
pub const fn check_name(name: &str) {
    let b = name.as_bytes();
    let mut part = 0;
    let mut slashes = 0;
    let mut i = 0;
    while i < b.len() {
        match b[i] {
            b'/' => {
                slashes += 1;
                if part == 0 || slashes > 1 {
                    panic!("stage!: the name of a plugin is NAME or NAMESPACE/NAME");
                }
                part = 0;
            }
            b'a'..=b'z' | b'0'..=b'9' => part += 1,
            b'-' | b'_' | b'.' if part > 0 => part += 1,
            _ => panic!("stage!: the name of a plugin has lower-case letters, digits and - _ . and begins with a letter or digit: say name: \"...\""),
        }
        i += 1;
    }
    if part == 0 || part > 64 || !b[b.len() - 1].is_ascii_alphanumeric() {
        panic!("stage!: the name of a plugin has 1 to 64 characters and ends with a letter or digit: say name: \"...\"");
    }
}

/// Whether `b` is one JSON value: a plain recursive reading of the grammar.
pub const fn is_json(b: &[u8]) -> bool {
    let end = value(b, space(b, 0), 0);
    end != BAD && space(b, end) == b.len()
}

const BAD: usize = usize::MAX;

const fn at(b: &[u8], i: usize) -> u8 {
    if i < b.len() {
        b[i]
    } else {
        0
    }
}

const fn space(b: &[u8], from: usize) -> usize {
    let mut i = from;
    while matches!(at(b, i), b' ' | b'\n' | b'\t' | b'\r') {
        i += 1;
    }
    i
}

const fn value(b: &[u8], i: usize, depth: usize) -> usize {
    match at(b, i) {
        b'"' => string(b, i),
        b'{' => list(b, i, b'}', depth + 1),
        b'[' => list(b, i, b']', depth + 1),
        b't' => word(b, i, b"true"),
        b'f' => word(b, i, b"false"),
        b'n' => word(b, i, b"null"),
        _ => number(b, i),
    }
}

/// An object or an array.
const fn list(b: &[u8], from: usize, close: u8, depth: usize) -> usize {
    if depth > crate::json::MAX_DEPTH {
        return BAD;
    }
    let mut i = space(b, from + 1);
    if at(b, i) == close {
        return i + 1;
    }
    loop {
        if close == b'}' {
            if at(b, i) != b'"' {
                return BAD;
            }
            i = string(b, i);
            if i == BAD {
                return BAD;
            }
            i = space(b, i);
            if at(b, i) != b':' {
                return BAD;
            }
            i = space(b, i + 1);
        }
        i = value(b, i, depth);
        if i == BAD {
            return BAD;
        }
        i = space(b, i);
        if at(b, i) == close {
            return i + 1;
        }
        if at(b, i) != b',' {
            return BAD;
        }
        i = space(b, i + 1);
    }
}

const fn string(b: &[u8], from: usize) -> usize {
    let mut i = from + 1;
    while i < b.len() {
        match b[i] {
            b'"' => return i + 1,
            b'\\' => match at(b, i + 1) {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => i += 2,
                b'u' => {
                    let mut k = i + 2;
                    while k < i + 6 {
                        if !at(b, k).is_ascii_hexdigit() {
                            return BAD;
                        }
                        k += 1;
                    }
                    i += 6;
                }
                _ => return BAD,
            },
            0..=0x1f => return BAD,
            _ => i += 1,
        }
    }
    BAD
}

const fn digits(b: &[u8], from: usize) -> usize {
    let mut i = from;
    while at(b, i).is_ascii_digit() {
        i += 1;
    }
    if i == from {
        BAD
    } else {
        i
    }
}

const fn number(b: &[u8], from: usize) -> usize {
    let mut i = from;
    if at(b, i) == b'-' {
        i += 1;
    }
    i = if at(b, i) == b'0' {
        i + 1
    } else {
        digits(b, i)
    };
    if i != BAD && at(b, i) == b'.' {
        i = digits(b, i + 1);
    }
    if i != BAD && matches!(at(b, i), b'e' | b'E') {
        i += 1;
        if matches!(at(b, i), b'+' | b'-') {
            i += 1;
        }
        i = digits(b, i);
    }
    i
}

const fn word(b: &[u8], from: usize, word: &[u8]) -> usize {
    let mut i = 0;
    while i < word.len() {
        if at(b, from + i) != word[i] {
            return BAD;
        }
        i += 1;
    }
    from + word.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    crate::config! {
        struct Settings {
            /// Their "names".
            fields: Vec<String>,
            keep: u8 = 4,
            /// Anything
            raw: Anything,
            codes: std::collections::BTreeMap<String, i64> = Default::default(),
            salt: Option<f64>,
        }
    }

    struct Anything;

    impl Config for Anything {
        const SCHEMA: Schema = Schema::Any;

        fn read(_: &crate::json::Value<'_>) -> Result<Self, crate::config::Fault> {
            Ok(Anything)
        }
    }

    // Texts are constants here as in plugins: by value they are too much for a stack.
    fn text(t: &'static Text) -> &'static str {
        std::str::from_utf8(&t.bytes[..t.len]).unwrap()
    }

    #[test]
    fn a_schema_follows_from_the_struct() {
        let s = Settings::from_json(br#"{"fields":["a"],"raw":1}"#).unwrap();
        assert_eq!(
            (s.fields.len(), s.keep, s.codes.len(), s.salt),
            (1, 4, 0, None)
        );
        let _ = s.raw;
        const TEXT: Text = manifest(&[&[Piece::Schema(&Settings::SCHEMA)]]);
        assert_eq!(
            text(&TEXT),
            concat!(
                r#"{"type":"object","properties":{"fields":{"description":"Their \"names\".","type":"array","items":{"type":"string"}},"#,
                r#""keep":{"type":"integer","minimum":0},"raw":{"description":"Anything"},"#,
                r#""codes":{"type":"object","additionalProperties":{"type":"integer","minimum":-9223372036854775808}},"#,
                r#""salt":{"anyOf":[{"type":"null"},{"type":"number"}]}},"required":["fields","raw"],"additionalProperties":false}"#
            )
        );
    }

    #[test]
    fn samples_stand_in_a_list() {
        const TEXT: Text = manifest(&[
            &[Piece::Text("{"), Piece::Number(0), Piece::Number(1_200_000)],
            &[Piece::Sample("1"), Piece::Sample(r#"{"value":2}"#)],
            &[],
            &[Piece::Quoted("a\"b")],
        ]);
        assert_eq!(text(&TEXT), r#"{01200000,"sample":[1,{"value":2}]"a\"b""#);
    }

    #[test]
    fn names() {
        for name in ["a", "acme/redact-2", "a_b.c", "7"] {
            check_name(name);
        }
        for name in [
            "",
            "A",
            "a/b/c",
            "/a",
            "a/",
            "-a",
            "a-",
            "a b",
            &"x".repeat(65),
        ] {
            let name = name.to_owned();
            assert!(
                std::panic::catch_unwind(|| check_name(&name)).is_err(),
                "{}",
                name
            );
        }
    }
}
