//! Lines of CSV become JSON objects. The program knows nothing of Millrace: it
//! reads lines, prints lines, and ends with exit code 1 and a message where a
//! line is not what COLUMNS says.

mod fields;

use fields::fields;
use std::io::{self, BufRead, Write};
use std::process::exit;

const DELIMITER: char = ',';

/// The columns in their order. A line that has just these names is the header
/// of a file, and prints nothing.
const COLUMNS: &[(&str, Kind)] = &[
    ("sku", Kind::Text),
    ("name", Kind::Text),
    ("quantity", Kind::Integer),
    ("price", Kind::Number),
    ("in_stock", Kind::Bool),
    ("note", Kind::Text),
];

/// What a column becomes. An empty field is null, but for texts.
enum Kind {
    Text,
    Integer,
    Number,
    Bool,
}

fn main() -> io::Result<()> {
    for line in io::stdin().lock().split(b'\n') {
        match object(&line?) {
            Ok(json) if json.is_empty() => {}
            Ok(json) => writeln!(io::stdout(), "{}", json)?,
            Err(message) => {
                eprintln!("{}", message);
                exit(1);
            }
        }
    }
    Ok(())
}

/// The JSON object of a line, empty for the header; or what is wrong with it.
fn object(line: &[u8]) -> Result<String, String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|e| format!("the line is no UTF-8: {}", e))?;
    let fields = fields(text, DELIMITER)?;
    if fields.len() != COLUMNS.len() {
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "the number of fields is {}, not {}: {}",
            fields.len(),
            COLUMNS.len(),
            names.join(", ")
        ));
    }
    if COLUMNS.iter().zip(&fields).all(|((name, _), f)| f == name) {
        return Ok(String::new());
    }
    let mut out = String::from("{");
    for ((name, kind), field) in COLUMNS.iter().zip(&fields) {
        if out.len() > 1 {
            out.push(',');
        }
        quote(&mut out, name);
        out.push(':');
        kind.append(&mut out, field)
            .map_err(|what| format!("column {}: {:?} is no {}", name, field, what))?;
    }
    out.push('}');
    Ok(out)
}

impl Kind {
    /// Appends the field as JSON; the error is what it is not.
    fn append(&self, out: &mut String, text: &str) -> Result<(), &'static str> {
        match self {
            Kind::Text => quote(out, text),
            _ if text.is_empty() => out.push_str("null"),
            Kind::Integer if is_number(text, false) => out.push_str(text),
            Kind::Integer => return Err("integer"),
            Kind::Number if is_number(text, true) => out.push_str(text),
            Kind::Number => return Err("number"),
            Kind::Bool => match text {
                "true" | "yes" | "1" => out.push_str("true"),
                "false" | "no" | "0" => out.push_str("false"),
                _ => return Err("true, yes, 1, false, no or 0"),
            },
        }
        Ok(())
    }
}

/// Whether JSON takes the text as a number as it is: it is not converted, so
/// that no digit is lost.
fn is_number(text: &str, decimals: bool) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |s: &str| !s.is_empty() && s.bytes().all(|c| c.is_ascii_digit());
    all(whole)
        && all(rest)
        && (whole == "0" || !whole.starts_with('0'))
        && (decimals || !digits.contains('.'))
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, want) in [
            ("A-1,Hammer,3,19.99,true,", r#"{"sku":"A-1","name":"Hammer","quantity":3,"price":19.99,"in_stock":true,"note":""}"#),
            ("A-1,\"Nails, \"\"long\"\"\",-3,0.50,no,a\\b\r", r#"{"sku":"A-1","name":"Nails, \"long\"","quantity":-3,"price":0.50,"in_stock":false,"note":"a\\b"}"#),
            (",,,,,\"\"", r#"{"sku":"","name":"","quantity":null,"price":null,"in_stock":null,"note":""}"#),
            ("007,1e3,12345678901234567890,1,1,\u{1}\t", "{\"sku\":\"007\",\"name\":\"1e3\",\"quantity\":12345678901234567890,\"price\":1,\"in_stock\":true,\"note\":\"\\u0001\\t\"}"),
            ("sku,name,\"quantity\",price,in_stock,note", ""),
        ] {
            assert_eq!(object(line.as_bytes()).as_deref(), Ok(want));
        }
    }

    #[test]
    fn what_is_wrong() {
        for (line, want) in [
            (
                "A-1,Hammer,3",
                "the number of fields is 3, not 6: sku, name, quantity, price, in_stock, note",
            ),
            (
                "",
                "the number of fields is 1, not 6: sku, name, quantity, price, in_stock, note",
            ),
            (
                "A-1,Hammer,3.5,1,1,",
                "column quantity: \"3.5\" is no integer",
            ),
            ("A-1,Hammer,3,1e5,1,", "column price: \"1e5\" is no number"),
            ("A-1,Hammer,3,01,1,", "column price: \"01\" is no number"),
            ("A-1,Hammer,3,1.,1,", "column price: \"1.\" is no number"),
            ("A-1,Hammer,-,1,1,", "column quantity: \"-\" is no integer"),
            (
                "A-1,Hammer,3,1,maybe,",
                "column in_stock: \"maybe\" is no true, yes, 1, false, no or 0",
            ),
            ("A-1,\"Hammer,3", "field 2: its quote is not closed"),
        ] {
            assert_eq!(object(line.as_bytes()), Err(want.to_owned()));
        }
        let err = object(b"\xff").unwrap_err();
        assert!(err.starts_with("the line is no UTF-8: "), "{}", err);
    }
}
