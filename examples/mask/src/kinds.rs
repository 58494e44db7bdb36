//! How values are masked. What is left never shows more than half of a value's
//! characters; a value that is too short for its kind goes whole.

use crate::hmac::Hmac;
use millrace_pdk::config::{Config, Fault, Schema};
use millrace_pdk::json::Value;

const NAMES: [(&str, Kind); 9] = [
    ("email", Kind::Email),
    ("card", Kind::Card),
    ("phone", Kind::Phone),
    ("name", Kind::Name),
    ("iban", Kind::Iban),
    ("keep_last", Kind::KeepLast),
    ("hash", Kind::Hash),
    ("redact", Kind::Redact),
    ("remove", Kind::Remove),
];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Email,
    Card,
    Phone,
    Name,
    Iban,
    KeepLast,
    Hash,
    Redact,
    Remove,
}

impl Config for Kind {
    const SCHEMA: Schema = Schema::Json(
        r#"{"enum":["email","card","phone","name","iban","keep_last","hash","redact","remove"]}"#,
    );

    fn read(value: &Value<'_>) -> Result<Self, Fault> {
        NAMES
            .iter()
            .find(|(name, _)| value.is(name))
            .map(|(_, kind)| *kind)
            .ok_or_else(|| {
                let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                let given = String::from_utf8_lossy(value.raw());
                Fault::new(format_args!(
                    "{} where one of {} is expected",
                    given,
                    names.join(", ")
                ))
            })
    }
}

impl Kind {
    /// The masked text.
    pub fn mask(self, text: &str, keep: usize, hash: Option<&Hmac>) -> String {
        match self {
            Kind::Email => email(text),
            Kind::Card => stars(text, |c| c.is_ascii_digit(), 0, 4, 12),
            Kind::Phone => stars(text, char::is_numeric, 0, 2, 6),
            Kind::Iban => stars(text, char::is_alphanumeric, 2, 4, 15),
            Kind::Name => text
                .split_whitespace()
                .map(|word| word.chars().take(1).chain("***".chars()).collect())
                .collect::<Vec<String>>()
                .join(" "),
            Kind::KeepLast => stars(text, |_| true, 0, keep, 2 * keep),
            Kind::Hash => hash.map_or_else(|| "***".to_owned(), |h| h.hex(text.as_bytes())),
            Kind::Redact | Kind::Remove => "***".to_owned(),
        }
    }
}

/// First character and domain of an address; of a local part of one character
/// nothing, and of what is no address nothing.
pub fn email(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((local, domain)) => {
            let mut first: String = local.chars().take(2).collect();
            match first.chars().count() {
                2 => first.truncate(first.len() - first.chars().last().map_or(0, char::len_utf8)),
                _ => first.clear(),
            }
            format!("{}***@{}", first, domain)
        }
        None => "***".to_owned(),
    }
}

/// Stars in the place of the characters that `counts`, but for the first and
/// the last ones of them. With fewer than `least` of them all become stars, and
/// where nothing counts all is gone.
pub fn stars(
    text: &str,
    counts: impl Fn(char) -> bool,
    first: usize,
    last: usize,
    least: usize,
) -> String {
    let n = text.chars().filter(|c| counts(*c)).count();
    if n == 0 {
        return "***".to_owned();
    }
    let (first, last) = if n < least { (0, 0) } else { (first, last) };
    let mut i = 0;
    text.chars()
        .map(|c| {
            if !counts(c) {
                // Letters have no place in a card or phone number.
                return if c.is_alphanumeric() { '*' } else { c };
            }
            i += 1;
            if i <= first || i > n - last {
                c
            } else {
                '*'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (kind, keep, text, want) in [
            (Kind::Email, 0, "jane.doe@example.com", "j***@example.com"),
            (Kind::Email, 0, "ä@example.com", "***@example.com"),
            (Kind::Email, 0, "äö@example.com", "ä***@example.com"),
            (Kind::Email, 0, "a@b@example.com", "a***@example.com"),
            (Kind::Email, 0, "not given", "***"),
            (Kind::Email, 0, "", "***"),
            (Kind::Card, 0, "4111111111111111", "************1111"),
            (Kind::Card, 0, "4111 1111 1111 1111", "**** **** **** 1111"),
            (Kind::Card, 0, "12345678901", "***********"),
            (
                Kind::Card,
                0,
                "card 4111111111111111",
                "**** ************1111",
            ),
            (Kind::Card, 0, "none", "***"),
            (Kind::Phone, 0, "+49 30 123456-7", "+** ** *****6-7"),
            (Kind::Phone, 0, "12345", "*****"),
            (Kind::Name, 0, "Jane  Doe", "J*** D***"),
            (Kind::Name, 0, "", ""),
            (
                Kind::Iban,
                0,
                "DE89370400440532013000",
                "DE****************3000",
            ),
            (Kind::Iban, 0, "DE89", "****"),
            (Kind::KeepLast, 4, "12345678", "****5678"),
            (Kind::KeepLast, 4, "1234567", "*******"),
            (Kind::KeepLast, 0, "ab", "**"),
            (Kind::Redact, 0, "x", "***"),
            (Kind::Hash, 0, "x", "***"),
        ] {
            assert_eq!(
                kind.mask(text, keep, None),
                want,
                "{:?} of {:?}",
                kind,
                text
            );
        }
    }
}
