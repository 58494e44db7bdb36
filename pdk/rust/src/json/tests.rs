//! Three readers of JSON that share no code must agree: the index, the plain
//! scanner, and the grammar of `manifest::is_json`.

use super::{index, plain, Object, Span, Value};
use crate::manifest::is_json;
use crate::testing::Batch;
use crate::{Out, Record};

const EVENT: &str = r#"{"order_id":"o-000000","customer_id":"c-36404","email":"jane.doe248@example.com","card":"4111000448434750","status":"paid","currency":"EUR","amount":125.05,"created_at":"2024-05-01T12:34:00Z","internal_note":"checked by ops","items":[{"sku":"A-345","qty":2,"price":19.99}],"address":{"city":"Berlin"}}"#;

pub(crate) fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as usize
}

#[derive(Default)]
struct Readers {
    by_index: Vec<Span>,
    by_plain: Vec<Span>,
    indexed: u32,
    valid: u32,
}

impl Readers {
    fn check(&mut self, text: &[u8], behind: &[u8]) {
        self.by_index.clear();
        self.by_plain.clear();
        let mut all = text.to_vec();
        all.extend_from_slice(behind);
        let shown = || String::from_utf8_lossy(text).into_owned();
        let (escapes, fault) = plain::fill(text, &mut self.by_plain);
        let object = text.iter().find(|c| !c.is_ascii_whitespace()) == Some(&b'{');
        let valid = object && is_json(text) && std::str::from_utf8(text).is_ok();
        assert_eq!(
            fault.is_none(),
            valid,
            "{}: plain says {:?}",
            shown(),
            fault
        );
        if let Some(fault) = fault {
            assert!(fault.at() <= text.len(), "{}: {}", shown(), fault);
        }
        self.valid += u32::from(valid);
        if let Some(found) = index::fill(&all, text.len(), &mut self.by_index) {
            self.indexed += 1;
            assert!(valid, "{}: the index takes what plain refuses", shown());
            assert_eq!(found, escapes, "{}: backslashes", shown());
            assert_eq!(self.by_index, self.by_plain, "{}", shown());
        } else if valid && !shown().contains([' ', '\t', '\r', '\n'].as_slice()) {
            let depth = text.iter().filter(|c| matches!(c, b'{' | b'[')).count();
            assert!(depth > 64, "{}: the index should take this", shown());
        }
    }
}

#[test]
fn every_cut_of_an_event() {
    let mut readers = Readers::default();
    let event = EVENT.as_bytes();
    for n in 0..=event.len() {
        readers.check(&event[..n], b"");
        readers.check(&event[..n], &event[n..]);
    }
    assert_eq!((readers.valid, readers.indexed), (2, 2));
}

#[test]
fn one_byte_changed() {
    let mut readers = Readers::default();
    let event = EVENT.as_bytes();
    for at in 0..event.len() {
        for &c in b"{}[]\",:\\ \n\x00\x7f5x-.e\x80\xc3" {
            let mut b = event.to_vec();
            b[at] = c;
            readers.check(&b, b"");
            b.insert(at, event[at]);
            readers.check(&b, event);
            b.remove(at);
            b.remove(at);
            readers.check(&b, b"");
        }
    }
    assert!(readers.indexed > 3000, "{} indexed", readers.indexed);
}

/// A million texts made of tokens; a bad one is shown with its seed.
fn a_million_texts(seed: u64) -> Readers {
    const TOKENS: [&[u8]; 48] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b" ",
        b"\n",
        b"\\\"",
        b"\\u00e4",
        b"\\ud83d\\ude00",
        b"\\x",
        b"\\u12",
        b"\x01",
        b"\xc3\xa4",
        b"\xff",
        b"7",
        b"0",
        b"-1",
        b"1e5",
        b"01",
        b"1.",
        b"-",
        b"+1",
        b"1.5E-3",
        b"true",
        b"false",
        b"null",
        b"nul",
        b"truex",
        b"{}",
        b"[]",
        b"[1]",
        b"{\"a\":1}",
        b"\"\"",
        b"\"b\"",
        b"\"a\":1",
        b"\"b\":\"c\"",
        b"\"c\":[{\"s\":1},2]",
        b"\"d\":{}",
        b"\"long\":\"to go from one block into the next: {[\\\"\"",
        b"\"e\\\\\":\"\\\\\"",
        b"\"f\":[[],{},[null,-0.5]]",
        b"\"g\":\"\xe2\x82\xac\"",
        b"\"h\":12345678901234567890123456789012345678901234567890",
        b"\"i\":false",
    ];
    let mut readers = Readers::default();
    let mut state = seed;
    let mut b = Vec::new();
    for _ in 0..1_000_000 {
        b.clear();
        b.push(b'{');
        let neat = random(&mut state) % 2 == 0;
        for k in 0..random(&mut state) % 10 {
            if neat && k > 0 {
                b.push(b',');
            }
            let from = if neat { 38 } else { 0 };
            b.extend_from_slice(TOKENS[from + random(&mut state) % (TOKENS.len() - from)]);
        }
        if random(&mut state) % 8 != 0 {
            b.push(b'}');
        }
        if random(&mut state) % 16 == 0 {
            let at = random(&mut state) % b.len();
            b[at] = (random(&mut state) % 256) as u8;
        }
        let behind: &[u8] = if random(&mut state) % 2 == 0 {
            EVENT.as_bytes()
        } else {
            b""
        };
        readers.check(&b, behind);
    }
    readers
}

#[test]
fn a_million_texts_from_tokens() {
    let readers = a_million_texts(0x9e37_79b9_7f4a_7c15);
    assert!(
        readers.valid > 200_000 && readers.indexed > 200_000,
        "{} valid, {} indexed",
        readers.valid,
        readers.indexed
    );
}

/// FUZZ_SECONDS=600 cargo test -p millrace-pdk --release -- --ignored
#[test]
#[ignore = "runs for FUZZ_SECONDS, each time with other seeds"]
fn texts_for_a_while() {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(10, |s| s.parse().unwrap());
    let begin = std::time::SystemTime::now();
    let mut seed = begin
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
        | 1;
    while begin.elapsed().unwrap().as_secs() < seconds {
        println!("seed {}", seed);
        a_million_texts(seed);
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(2);
    }
}

#[test]
fn depth() {
    let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
    for n in [1, 62, 63, 64, 65, 126, 127] {
        assert!(Object::read(nested(n).as_bytes()).is_ok(), "{} lists", n);
    }
    let fault = Object::read(nested(128).as_bytes()).unwrap_err();
    assert_eq!(fault.to_string(), "nested deeper than 128 at byte 132");
    assert!(is_json(nested(127).as_bytes()) && !is_json(nested(128).as_bytes()));
}

#[test]
fn faults() {
    for (text, want) in [
        ("", "not a JSON object: no '{' at byte 0"),
        ("hello", "not a JSON object: no '{' at byte 0"),
        (" [1]", "not a JSON object: no '{' at byte 1"),
        ("{", "cut off before a key at byte 1"),
        (r#"{"ord"#, "cut off inside a string at byte 5"),
        (r#"{"a""#, "cut off behind a key at byte 4"),
        (r#"{"a":"#, "cut off before a value at byte 5"),
        (r#"{"a":1"#, "cut off behind a value at byte 6"),
        (r#"{"a":tru"#, "cut off inside a value at byte 8"),
        (r#"{"a":1."#, "cut off inside a number at byte 7"),
        (r#"{"a":1]"#, "no ',' behind a value at byte 6"),
        (r#"{"a":,"b":1}"#, "an empty value at byte 5"),
        (r#"{"a":[1}]}"#, "no ',' behind a value at byte 7"),
        (r#"{"a":1,}"#, "no key where one should begin at byte 7"),
        (r#"{"a":01}"#, "no ',' behind a value at byte 6"),
        (r#"{"a":"\x"}"#, "an unknown escape at byte 6"),
        (
            r#"{"a":"\u12g4"}"#,
            "no hexadecimal digit in an escape at byte 10",
        ),
        (
            "{\"a\":\"\u{1}\"}",
            "a control character in a string at byte 6",
        ),
        (
            r#"{"a":1}}"#,
            "more behind the end of the JSON value at byte 7",
        ),
    ] {
        let fault = Object::read(text.as_bytes()).err();
        assert_eq!(
            fault.map(|f| f.to_string()).as_deref(),
            Some(want),
            "{}",
            text
        );
    }
    let fault = Object::read(b"{\"a\":\"\xff\"}").unwrap_err();
    assert_eq!(fault.to_string(), "no UTF-8 at byte 6");
}

#[test]
fn a_fault_comes_behind_the_members_before_it() {
    let object = Object::scan(br#"{"a":1,"b":"x","c":2"#);
    let names: Vec<String> = object
        .members()
        .map(|m| m.map_or_else(|f| f.to_string(), |m| m.name().into_owned()))
        .collect();
    assert_eq!(names, ["a", "b", "cut off behind a value at byte 20"]);
}

#[test]
fn values() {
    let text = r#"{ "s": "a\"\u00e4\ud83d\ude00\n", "i": -7, "u": 18446744073709551615, "f": 0.1, "t": true, "n": null, "l": [1, "two", [3]], "o": {"x": 1}, "\u0065": 5, "i": 8 }"#;
    let o = Object::read(text.as_bytes()).unwrap();
    assert_eq!(o.len(), 10);
    assert_eq!(o.get("s").unwrap().as_str().unwrap(), "a\"ä😀\n");
    assert!(o.get("s").unwrap().is("a\"ä😀\n"));
    assert_eq!(o.get("i").unwrap().as_i64(), Some(8), "the last one counts");
    assert_eq!(o.get("u").unwrap().as_u64(), Some(u64::MAX));
    assert_eq!(o.get("u").unwrap().as_i64(), None);
    assert_eq!(o.get("f").unwrap().as_f64(), Some(0.1));
    assert_eq!(o.get("t").unwrap().as_bool(), Some(true));
    assert!(o.get("n").unwrap().is_null());
    assert_eq!(o.get("e").unwrap().as_i64(), Some(5), "an escaped name");
    let items: Vec<String> = o
        .get("l")
        .unwrap()
        .items()
        .unwrap()
        .map(|v| format!("{:?}", v))
        .collect();
    assert_eq!(items, ["1", "\"two\"", "[3]"]);
    assert_eq!(
        o.get("o")
            .unwrap()
            .object()
            .unwrap()
            .get("x")
            .unwrap()
            .as_i64(),
        Some(1)
    );
    assert!(o.get("missing").is_none() && o.get("s").unwrap().as_f64().is_none());
    assert_eq!(
        Value::read(br#""\ud800x""#).unwrap().as_str().unwrap(),
        "\u{fffd}x"
    );
    assert!(Value::read(b"1 2").is_err());

    let o = Object::read(br#"{"a\nb":"c\nd","e":"f"}"#).unwrap();
    let m: Vec<_> = o.members().map(Result::unwrap).collect();
    assert!(m[0].is("a\nb") && !m[0].is("a\\nb") && m[1].is("e"));
    assert!(m[0].value().is("c\nd") && !m[0].value().is("c\\nd") && m[1].value().is("f"));
}

#[test]
fn numbers_are_those_of_the_standard_library() {
    let mut state = 77;
    for _ in 0..200_000 {
        let n = random(&mut state);
        let digits = (n % 10u64.pow(1 + (random(&mut state) % 18) as u32) as usize).to_string();
        let mut text = digits;
        if random(&mut state) % 2 == 0 {
            let at = 1 + random(&mut state) % text.len();
            if at < text.len() {
                text.insert(at, '.');
            }
        }
        if random(&mut state) % 8 == 0 {
            text.push_str("e-7");
        }
        if random(&mut state) % 2 == 0 {
            text.insert(0, '-');
        }
        if let Ok(value) = Value::read(text.as_bytes()) {
            let want: f64 = text.parse().unwrap();
            assert_eq!(
                value.as_f64().map(f64::to_bits),
                Some(want.to_bits()),
                "{}",
                text
            );
        }
    }
}

/// Short numbers are looked at eight bytes at a time, whatever stands behind.
#[test]
fn short_numbers() {
    let mut state = 3;
    let (mut spans, mut numbers) = (Vec::new(), 0);
    for _ in 0..300_000 {
        let n = 1 + random(&mut state) % 9;
        let word: String = (0..n)
            .map(|_| b"0012345678999..-e/;"[random(&mut state) % 19] as char)
            .collect();
        let text = format!("{{\"a\":{}}}", word);
        for behind in ["", "01.23456789"] {
            let all = format!("{}{}", text, behind);
            spans.clear();
            let taken = index::fill(all.as_bytes(), text.len(), &mut spans).is_some();
            assert_eq!(taken, is_json(word.as_bytes()), "{}", word);
            numbers += u32::from(taken);
        }
    }
    assert!(numbers > 50_000, "{} numbers", numbers);
}

#[test]
fn words_compare_as_bytes_do() {
    let mut state = 5;
    for _ in 0..200_000 {
        let a: Vec<u8> = (0..random(&mut state) % 20)
            .map(|_| (random(&mut state) % 2) as u8)
            .collect();
        let mut b = a.clone();
        if !b.is_empty() && random(&mut state) % 2 == 0 {
            let at = random(&mut state) % b.len();
            b[at] ^= 1;
        }
        assert_eq!(super::same(&a, &b), a == b, "{:?} {:?}", a, b);
    }
}

/// What the operations of a rewrite should make, member by member.
fn slowly(text: &str, ops: &[usize]) -> String {
    let object = Object::read(text.as_bytes()).unwrap();
    let mut parts: Vec<String> = (0..ops[15] % 3)
        .map(|i| format!("\"first\":{}", i))
        .collect();
    for (member, op) in object.members().zip(ops) {
        let member = member.unwrap();
        let name = String::from_utf8_lossy(member.name).into_owned();
        let value = String::from_utf8_lossy(member.value().raw()).into_owned();
        match op {
            1 => {}
            2 => parts.push(format!("\"renamed\":{}", value)),
            3 => parts.push(format!("\"{}\":[1]", name)),
            4 => parts.push(format!("\"{}\":{}!{}", name, &value[..1], &value[1..])),
            5 => parts.push(format!("\"{}\":{},\"added\":null", name, value)),
            6 => parts.push(format!("\"renamed\":!{}", value)),
            7 => parts.push(format!("\"\\\"\":{}", value)),
            8 => {}
            9 => parts.push("\"instead\":true".to_owned()),
            _ => parts.push(format!("\"{}\":{}", name, value)),
        }
    }
    format!("{{{}}}", parts.join(","))
}

#[test]
fn rewrites() {
    let texts = [
        EVENT.to_owned(),
        EVENT.replace(',', " ,").replace(':', " : "),
        format!("  {{ {} }}\n", &EVENT[1..EVENT.len() - 1]),
        r#"{"a":1,"b":2,"c":3}"#.to_owned(),
        "{\"a\":1 ,\"b\": 2,\n\"c\" :3 }".to_owned(),
        "{}".to_owned(),
        " { } ".to_owned(),
    ];
    let mut state = 99;
    for round in 0..40_000 {
        let text = &texts[round % texts.len()];
        let ops: Vec<usize> = (0..16)
            .map(|_| random(&mut state) % if round % 2 == 0 { 10 } else { 20 })
            .collect();
        let stage = |r: &Record, out: &mut Out| -> crate::Result {
            let object = r.json()?;
            let mut to = out.rewrite(&object);
            for i in 0..ops[15] % 3 {
                to.add("first", &i);
            }
            let mut k = 0;
            while to.next()?.is_some() {
                match ops[k] {
                    1 => to.remove(),
                    2 => to.rename("renamed"),
                    3 => to.set(&vec![1]),
                    4 => to.splice(1..1, "!"),
                    5 => to.add("added", &None::<bool>),
                    6 => {
                        to.rename("renamed");
                        to.splice(0..0, "!");
                    }
                    7 => to.rename("\""),
                    8 => {
                        to.remove();
                        to.set("too late");
                        to.rename("too late");
                    }
                    9 => {
                        to.remove();
                        to.add("instead", &true);
                        to.remove();
                    }
                    _ => {}
                }
                k += 1;
            }
            to.emit()
        };
        let answers = Batch::of(text).run(stage);
        assert_eq!(
            answers.value(0),
            Some(slowly(text, &ops).as_str()),
            "{} by {:?}",
            text,
            ops
        );
    }
}

#[test]
fn a_rewrite_of_a_broken_object_fails() {
    let stage = |r: &Record, out: &mut Out| out.rewrite(&r.scan()).emit();
    let answers = Batch::of(r#"{"a":1,"b"}"#).run(stage);
    assert_eq!(
        answers.failure(0).unwrap().message(),
        "no ':' behind a key at byte 10"
    );
}
