//! The record and the answers, as a stage's author meets them.

use millrace_pdk::testing::{Answer, Batch, Input};
use millrace_pdk::*;
use std::time::Duration;

#[test]
fn a_record_shows_what_came_in() {
    let stage = |r: &Record, out: &mut Out| -> Result {
        assert_eq!(r.key(), Some(&b"k"[..]));
        assert_eq!(r.text()?, "v");
        assert_eq!((r.topic(), r.partition(), r.offset()), ("orders", 3, 77));
        assert_eq!((r.timestamp(), r.now()), (5, 6));
        assert_eq!((r.attempt(), r.redelivered()), (2, true));
        assert_eq!(r.trace_id(), Some([9; 16]));
        assert_eq!(r.header("h"), Some(&b"2"[..]), "the last one");
        assert_eq!(r.header("x"), None);
        let headers: Vec<_> = r.headers().map(|h| (h.name, h.value)).collect();
        assert_eq!(headers, [(&b"h"[..], &b"1"[..]), (b"", b""), (b"h", b"2")]);
        out.pass()
    };
    let input = Input::value("v")
        .key("k")
        .header("h", "1")
        .header("", "")
        .header("h", "2")
        .from("orders", 3, 77)
        .timestamp(5)
        .attempt(2)
        .redelivered()
        .trace_id([9; 16]);
    let answers = Batch::new()
        .add(Input::value("other").from("another", 0, 0).key("k"))
        .add(input)
        .now(6)
        .run(|r, out| {
            if r.topic() == "another" {
                out.drop()
            } else {
                stage(r, out)
            }
        });
    let e = answers.emitted(1)[0];
    assert_eq!(e.same, [true; 4]);
    assert_eq!(e.partition, None);
    assert_eq!((e.output, e.headers.len()), (Output::DEFAULT, 3));
}

#[test]
fn null_and_empty_differ() {
    let stage = |r: &Record, out: &mut Out| -> Result {
        out.emit(&format!("{:?} {:?}", r.key(), r.value()))
    };
    let answers = Batch::new()
        .add(Input::tombstone())
        .add(Input::value("").key(""))
        .run(stage);
    assert_eq!(answers.value(0), Some("None None"));
    assert_eq!(answers.value(1), Some("Some([]) Some([])"));
    for (input, want) in [(Input::tombstone(), None), (Input::value(""), Some(vec![]))] {
        let answers = Batch::new().add(input.clone()).run(|_, out| out.pass());
        assert_eq!(answers.emitted(0)[0].value, want);
        let answers = Batch::new().add(input).run(|r, out| out.emit(r.bytes()));
        assert_eq!(
            answers.emitted(0)[0].value,
            Some(vec![]),
            "emit makes a value"
        );
    }
}

#[test]
fn what_is_the_inputs_own_is_not_sent() {
    let input = Input::value("value")
        .key("key")
        .header("h", "v")
        .timestamp(1);
    let same = |stage: &dyn Fn(&Record, &mut Out) -> Result| {
        Batch::new().add(input.clone()).run(stage).emitted(0)[0].clone()
    };
    let e = same(&|r, out| out.emit(r.bytes()));
    assert_eq!(e.same, [true; 4]);
    let e = same(&|r, out| out.record().key(r.key().unwrap()).emit("new"));
    assert_eq!(e.same, [true, false, true, true]);
    let e = same(&|_, out| out.record().key("key").timestamp(1).pass());
    assert_eq!(e.same, [false, true, true, false]);
    let e = same(&|_, out| out.record().header("x", "y").pass());
    assert_eq!(e.same, [true, true, false, true]);
    assert_eq!(
        e.headers,
        [
            ("h".to_owned(), b"v".to_vec()),
            ("x".to_owned(), b"y".to_vec())
        ]
    );
    let e = same(&|_, out| out.record().no_headers().no_key().emit_null());
    assert_eq!((e.key, e.value, e.headers.len()), (None, None, 0));
}

#[test]
fn outcomes() {
    let stage = |r: &Record, out: &mut Out| -> Result {
        match r.text()? {
            "drop" => out.drop(),
            "emit, then drop" => {
                out.emit("x")?;
                out.drop()
            }
            "nothing" => out.end(),
            "two" => {
                out.emit("1")?;
                out.emit("2")
            }
            "emit, then fail" => {
                out.emit("x")?;
                fail(4, "no")
            }
            "retry" => retry_after(Duration::from_millis(1500), 5, "later"),
            "parse" => out.emit(&"x".parse::<i32>()?.to_string()),
            "own error" => Err("a plain text".into()),
            "context" => {
                let n: i32 = "x".parse().or_fail(6, "the quantity")?;
                out.emit(&n.to_string())
            }
            "missing" => out.emit(None::<&str>.or_retry(Duration::from_secs(1), 7, "no rate")?),
            "let go" => {
                let mut w = out.write();
                w.bytes(b"a value that nobody emits");
                out.emit("kept")
            }
            "too many headers" => {
                let name = "x".repeat(70_000);
                out.record().header(&name, "").pass()
            }
            other => out.emit(other),
        }
    };
    let names = [
        "drop",
        "emit, then drop",
        "nothing",
        "two",
        "emit, then fail",
        "retry",
        "parse",
        "own error",
        "context",
        "missing",
        "let go",
        "too many headers",
        "pass",
    ];
    let batch = names
        .iter()
        .fold(Batch::new(), |b, n| b.add(Input::value(n)));
    let answers = batch.run(stage);
    for (i, name) in names.iter().enumerate().take(3) {
        assert!(answers.is_dropped(i), "{}", name);
    }
    let values: Vec<_> = answers
        .emitted(3)
        .iter()
        .map(|e| e.value.clone().unwrap())
        .collect();
    assert_eq!(values, [b"1", b"2"]);
    for (i, code, message) in [
        (4, 4, "no"),
        (5, 5, "later"),
        (6, 1, "invalid digit found in string"),
        (7, 1, "a plain text"),
        (8, 6, "the quantity: invalid digit found in string"),
        (9, 7, "no rate"),
        (
            11,
            1,
            "emit with a header name of 70000 bytes: at most 65535 are possible",
        ),
    ] {
        let f = answers
            .failure(i)
            .unwrap_or_else(|| panic!("{} did not fail", names[i]));
        assert_eq!((f.code(), f.message()), (code, message), "{}", names[i]);
    }
    assert!(
        matches!(answers.of(5), [Answer::Failed(f)] if *f == retry_after::<()>(Duration::from_millis(1500), 5, "later").unwrap_err())
    );
    assert_eq!(
        (answers.value(10), answers.value(12)),
        (Some("kept"), Some("pass"))
    );
}

#[test]
fn logs_and_counts() {
    let answers = Batch::of("x").run(|r, out| {
        info!("seen {}", r.text()?);
        error!("plain");
        count("seen", 1.0);
        count("seen", 1.5);
        out.drop()
    });
    assert_eq!(
        answers.logs,
        [
            (Level::Info, "seen x".to_owned()),
            (Level::Error, "plain".to_owned())
        ]
    );
    assert_eq!(answers.counts["seen"], 2.5);
}

#[test]
fn large_batches_grow_the_answer() {
    let batch = (0..5000).fold(Batch::new(), |b, i| {
        b.add(Input::value(format!("{:0>300}", i)).key("k"))
    });
    let answers = batch.run(|r, out| out.emit(&r.text()?.repeat(3)));
    for i in 0..5000 {
        assert_eq!(
            answers.value(i),
            Some(format!("{:0>300}", i).repeat(3).as_str())
        );
    }
}

config! {
    /// All kinds of settings.
    pub struct Settings {
        fields: Vec<String>,
        keep: usize = 4,
        rate: f64 = 0.5,
        on: bool = true,
        limit: Option<i64>,
        inner: Option<Inner>,
    }
}

config! {
    pub struct Inner {
        name: String,
    }
}

#[test]
fn settings_are_read() {
    let s: Settings =
        testing::config(r#"{"fields":["a","b"],"limit":-3,"inner":{"name":"x"}}"#).unwrap();
    assert_eq!(
        (s.fields.len(), s.keep, s.rate, s.on, s.limit),
        (2, 4, 0.5, true, Some(-3))
    );
    assert_eq!(s.inner.unwrap().name, "x");
    let s: Settings = testing::config(r#"{"fields":[],"inner":null,"on":false}"#).unwrap();
    assert!(s.inner.is_none() && s.limit.is_none() && !s.on);
}

#[test]
fn wrong_settings_are_named() {
    for (json, want) in [
        ("{}", r#"with: the setting "fields" is missing"#),
        ("[]", "with: [] where an object is expected"),
        ("{", "with: cut off before a key at byte 1"),
        (
            r#"{"fields":["a",7]}"#,
            "with.fields[1]: 7 where a string is expected",
        ),
        (
            r#"{"fields":[],"keep":-1}"#,
            "with.keep: -1 where an integer from 0 on is expected",
        ),
        (
            r#"{"fields":[],"inner":{}}"#,
            r#"with.inner: the setting "name" is missing"#,
        ),
        (
            r#"{"fields":[],"inner":{"name":1}}"#,
            "with.inner.name: 1 where a string is expected",
        ),
        (
            r#"{"fields":[],"kep":1}"#,
            r#"with: there is no setting "kep"; there are ["fields", "keep", "rate", "on", "limit", "inner"]"#,
        ),
    ] {
        assert_eq!(
            testing::config::<Settings>(json).err().as_deref(),
            Some(want),
            "{}",
            json
        );
    }
}

mod plugin {
    use millrace_pdk::*;

    fn parse(json: &[u8]) -> std::result::Result<usize, String> {
        Ok(json.len())
    }

    fn stage(_: &Record, out: &mut Out, _: &usize) -> Result {
        out.to(AUDIT).pass()
    }

    stage!(
        stage,
        config: usize = parse,
        schema: r#"{"type":"object"}"#,
        outputs: { AUDIT: "audit" },
        sample: [r#"{"value":1}"#],
        deterministic: false,
        name: "acme/test-stage",
        version: "2.0.0",
        memory_mb: 8,
        fuel_per_record: 1_000,
    );

    #[test]
    fn outputs_are_constants() {
        let answers = testing::Batch::of("x").run_with(&1, stage);
        assert_eq!(answers.emitted(0)[0].output, AUDIT);
        assert_eq!(AUDIT.index(), 1);
    }
}
