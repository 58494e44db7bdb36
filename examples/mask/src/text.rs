//! Emails and card numbers in free text.

use crate::kinds;

/// A text and what was masked in it.
#[derive(Debug, PartialEq)]
pub struct Found {
    pub text: String,
    pub emails: u32,
    pub cards: u32,
}

/// The text without the emails and card numbers in it.
pub fn mask(text: &str, emails: bool, cards: bool) -> Found {
    let mut found = Found {
        text: text.to_owned(),
        emails: 0,
        cards: 0,
    };
    if emails && text.contains('@') {
        let (masked, n) = mask_emails(&found.text);
        found.text = masked;
        found.emails = n;
    }
    if cards {
        let (masked, n) = mask_cards(&found.text);
        found.text = masked;
        found.cards = n;
    }
    found
}

fn mask_emails(text: &str) -> (String, u32) {
    let (mut out, mut n, mut done) = (String::new(), 0, 0);
    for (at, _) in text.match_indices('@') {
        if at < done {
            continue;
        }
        let local = text[done..at]
            .chars()
            .rev()
            .take_while(|&c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c))
            .map(char::len_utf8)
            .sum::<usize>();
        let domain = domain(&text[at + 1..]);
        if local == 0 || domain == 0 {
            continue;
        }
        let (from, to) = (at - local, at + 1 + domain);
        out.push_str(&text[done..from]);
        out.push_str(&kinds::email(&text[from..to]));
        n += 1;
        done = to;
    }
    out.push_str(&text[done..]);
    (out, n)
}

/// The length of the domain that the text begins with: at least two labels.
fn domain(text: &str) -> usize {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '-' && c != '.')
        .unwrap_or(text.len());
    let name = text[..end].trim_end_matches(|c| c == '.' || c == '-');
    let labels = name.split('.');
    if labels.clone().count() < 2 || labels.clone().any(str::is_empty) {
        return 0;
    }
    name.len()
}

/// Digits with one space or hyphen between some of them are a candidate; so is
/// each part of it from the beginning of a group to the end of one.
fn mask_cards(text: &str) -> (String, u32) {
    let b = text.as_bytes();
    let mut out = text.as_bytes().to_vec();
    let (mut n, mut i) = (0, 0);
    while i < b.len() {
        let begins = b[i].is_ascii_digit() && (i == 0 || !b[i - 1].is_ascii_digit());
        match if begins { card(b, i) } else { None } {
            Some(end) => {
                let digits = (i..end).filter(|k| b[*k].is_ascii_digit());
                let masked = digits.clone().count() - 4;
                digits.take(masked).for_each(|k| out[k] = b'*');
                n += 1;
                i = end;
            }
            None => i += 1,
        }
    }
    // Only digits became stars.
    (String::from_utf8_lossy(&out).into_owned(), n)
}

/// The end of the longest card number that begins at `from`.
fn card(b: &[u8], from: usize) -> Option<usize> {
    let mut digits = Vec::new();
    let (mut i, mut found) = (from, None);
    while i < b.len() && digits.len() < 20 {
        match b[i] {
            c @ b'0'..=b'9' => digits.push(c - b'0'),
            b' ' | b'-' if b[i - 1].is_ascii_digit() => {}
            _ => break,
        }
        i += 1;
        let group_ends = b[i - 1].is_ascii_digit() && !b.get(i).map_or(false, u8::is_ascii_digit);
        if group_ends && is_card(&digits) {
            found = Some(i);
        }
    }
    found
}

/// 13 to 19 digits that begin as those of the card networks do, with the check
/// digit of Luhn.
fn is_card(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, &d)| match (i % 2, u32::from(d) * 2) {
            (0, _) => u32::from(d),
            (_, twice) => twice / 10 + twice % 10,
        })
        .sum();
    (13..=19).contains(&digits.len()) && (2..=6).contains(&digits[0]) && sum % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails() {
        for (text, want) in [
            ("jane@example.com", "j***@example.com"),
            ("<jane.doe+x@mail.example.com>.", "<j***@mail.example.com>."),
            ("a@b.co,c@d.co", "***@b.co,***@d.co"),
            ("jürgen@bücher.example!", "j***@bücher.example!"),
            ("jane@example.com.", "j***@example.com."),
            (
                "jane@localhost @example.com jane@.com j@a..b",
                "jane@localhost @example.com jane@.com j@a..b",
            ),
            ("jane@@example.com", "jane@@example.com"),
        ] {
            let found = mask(text, true, false);
            assert_eq!(found.text, want);
            assert_eq!(found.emails > 0, text != want);
        }
    }

    #[test]
    fn cards() {
        for (text, want) in [
            ("4111111111111111", "************1111"),
            (
                "paid by 4111 1111 1111 1111.",
                "paid by **** **** **** 1111.",
            ),
            (
                "5500-0000-0000-0004/378282246310005",
                "****-****-****-0004/***********0005",
            ),
            (
                "order 12 4111 1111 1111 1111 77",
                "order 12 **** **** **** 1111 77",
            ),
            ("4111111111111112", "4111111111111112"),
            ("1764547200000", "1764547200000"),
            ("94111111111111111", "94111111111111111"),
            ("4111  1111 1111 1111", "4111  1111 1111 1111"),
            ("é4111111111111111é", "é************1111é"),
            ("", ""),
        ] {
            let found = mask(text, false, true);
            assert_eq!(found.text, want);
            assert_eq!(found.cards > 0, text != want);
        }
    }

    #[test]
    fn both() {
        let found = mask("jane@example.com 4111111111111111", true, true);
        assert_eq!(found.text, "j***@example.com ************1111");
        assert_eq!((found.emails, found.cards), (1, 1));
    }
}
