//! The fields of a line of CSV (RFC 4180).

/// Splits a line; quotes are taken off. An error says which field is wrong,
/// from 1.
pub fn fields(line: &str, delimiter: char) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let wrong = |what| Err(format!("field {}: {}", fields.len() + 1, what));
        let mut text = String::new();
        let mut end = match rest.strip_prefix('"') {
            None => rest.find(delimiter).unwrap_or(rest.len()),
            Some(_) => 0,
        };
        if end > 0 && rest[..end].contains('"') {
            return wrong("a quote in a field that does not begin with one");
        }
        text.push_str(&rest[..end]);
        while rest[end..].starts_with('"') {
            // Behind a part in quotes: a second quote stands for one, and goes on.
            let from = end + 1;
            match rest[from..].find('"') {
                None => return wrong("its quote is not closed"),
                Some(n) => {
                    text.push_str(&rest[from..from + n]);
                    end = from + n + 1;
                }
            }
            if rest[end..].starts_with('"') {
                text.push('"');
            }
        }
        let behind = &rest[end..];
        fields.push(text);
        match behind.strip_prefix(delimiter) {
            Some(next) => rest = next,
            None if behind.is_empty() => return Ok(fields),
            None => {
                return Err(format!(
                    "field {}: text behind its closing quote",
                    fields.len()
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<Vec<String>, String> {
        fields(line, ';')
    }

    #[test]
    fn quotes() {
        for (line, want) in [
            ("", vec![""]),
            (";", vec!["", ""]),
            ("a;b,c", vec!["a", "b,c"]),
            ("\"a;b\";\"\";\"\"\"\"", vec!["a;b", "", "\""]),
            ("\"a\"\"b\"\"\";ü", vec!["a\"b\"", "ü"]),
            (" a ;\" b \"", vec![" a ", " b "]),
        ] {
            let want: Vec<String> = want.into_iter().map(str::to_owned).collect();
            assert_eq!(split(line), Ok(want), "{}", line);
        }
        for (line, want) in [
            ("a;\"b", "field 2: its quote is not closed"),
            ("\"a\"\"", "field 1: its quote is not closed"),
            (
                "a\"b",
                "field 1: a quote in a field that does not begin with one",
            ),
            ("\"a\"b;c", "field 1: text behind its closing quote"),
        ] {
            assert_eq!(split(line), Err(want.to_owned()), "{}", line);
        }
    }
}
