//! Numbers.

/// The text of a number; None if the value is no number.
pub(super) fn text(raw: &[u8]) -> Option<&str> {
    match raw.first() {
        Some(b'-' | b'0'..=b'9') => std::str::from_utf8(raw).ok(),
        _ => None,
    }
}

/// Powers of ten that a double holds exactly.
const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// The number nearest to `raw`; None if it is no number. Up to 15 digits
/// without an exponent are one exact integer over one exact power: the
/// division rounds once.
#[inline]
pub(super) fn f64(raw: &[u8]) -> Option<f64> {
    let (negative, digits) = match raw {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, raw),
    };
    if digits.len() > 16 {
        return slow(raw);
    }
    let (mut v, mut n, mut decimals, mut point) = (0u64, 0usize, 0usize, false);
    for &c in digits {
        match c {
            b'0'..=b'9' => {
                v = v * 10 + u64::from(c - b'0');
                n += 1;
                decimals += usize::from(point);
            }
            b'.' => point = true,
            _ => return slow(raw),
        }
    }
    if n > 15 || n == 0 {
        return slow(raw);
    }
    let v = v as f64 / POWERS[decimals];
    Some(if negative { -v } else { v })
}

#[cold]
fn slow(raw: &[u8]) -> Option<f64> {
    text(raw)?.parse().ok()
}
