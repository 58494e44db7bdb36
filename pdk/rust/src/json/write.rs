//! Rust values as JSON.

use super::Value;
use std::borrow::Cow;
use std::fmt::Write;

/// What can be written as a JSON value.
pub trait ToJson {
    /// Appends the value's text to `out`.
    fn append(&self, out: &mut String);

    /// The value's text.
    fn to_json(&self) -> String {
        let mut out = String::new();
        self.append(&mut out);
        out
    }
}

impl ToJson for str {
    fn append(&self, out: &mut String) {
        out.push('"');
        let mut kept = 0;
        for (i, c) in self.bytes().enumerate() {
            if c >= 0x20 && c != b'"' && c != b'\\' {
                continue;
            }
            out.push_str(&self[kept..i]);
            kept = i + 1;
            match c {
                b'"' => out.push_str("\\\""),
                b'\\' => out.push_str("\\\\"),
                b'\n' => out.push_str("\\n"),
                b'\r' => out.push_str("\\r"),
                b'\t' => out.push_str("\\t"),
                _ => {
                    let _ = write!(out, "\\u{:04x}", c);
                }
            }
        }
        out.push_str(&self[kept..]);
        out.push('"');
    }
}

impl ToJson for String {
    fn append(&self, out: &mut String) {
        self.as_str().append(out);
    }
}

impl ToJson for Cow<'_, str> {
    fn append(&self, out: &mut String) {
        self.as_ref().append(out);
    }
}

impl ToJson for bool {
    fn append(&self, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

macro_rules! numbers {
    ($($t:ty)*) => { $(
        impl ToJson for $t {
            fn append(&self, out: &mut String) {
                let _ = write!(out, "{}", self);
            }
        }
    )* };
}

numbers!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

/// What is not finite is null: JSON has no word for it.
impl ToJson for f64 {
    fn append(&self, out: &mut String) {
        if self.is_finite() {
            let _ = write!(out, "{}", self);
        } else {
            out.push_str("null");
        }
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn append(&self, out: &mut String) {
        match self {
            Some(v) => v.append(out),
            None => out.push_str("null"),
        }
    }
}

impl<T: ToJson> ToJson for [T] {
    fn append(&self, out: &mut String) {
        out.push('[');
        for (i, v) in self.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            v.append(out);
        }
        out.push(']');
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn append(&self, out: &mut String) {
        self.as_slice().append(out);
    }
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn append(&self, out: &mut String) {
        (**self).append(out);
    }
}

impl ToJson for Value<'_> {
    fn append(&self, out: &mut String) {
        out.push_str(&String::from_utf8_lossy(self.raw()));
    }
}
