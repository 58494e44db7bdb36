//! Every outcome that a stage can have: the header `do` of a record names what
//! becomes of it. It is a tour of the PDK, and the guest of its tests.

use millrace_pdk::*;
use std::fmt::Write;
use std::time::Duration;

config! {
    /// What the stage is given.
    struct Settings {
        /// Stands before every greeting.
        greeting: String = "hello".to_owned(),
        /// How many copies `copies` emits.
        copies: u32 = 2,
        /// Codes by reason.
        codes: std::collections::BTreeMap<String, u32> = Default::default(),
        suffix: Option<String>,
    }
}

stage!(
    act,
    config: Settings,
    outputs: { AUDIT: "audit", LATE: "late" },
    sample: [
        r#"{"key":"k","value":{"a":1},"headers":[{"key":"do","value":"upper"}]}"#,
        r#"{"key":"k","value":"plain"}"#,
    ],
    memory_mb: 8,
    fuel_per_record: 100_000,
);

fn act(r: &Record, out: &mut Out, settings: &Settings) -> Result {
    match r.header("do").unwrap_or(b"pass") {
        b"pass" => out.pass(),
        b"own" => match r.value() {
            Some(value) => out.emit(value),
            None => out.record().emit_null(),
        },
        b"drop" => out.drop(),
        b"upper" => out.emit(&r.text()?.to_uppercase()),
        b"greet" => {
            let mut to = out.write();
            write!(to, "{} {}", settings.greeting, r.text()?)?;
            if let Some(suffix) = &settings.suffix {
                to.bytes(suffix.as_bytes());
            }
            to.emit()
        }
        b"copies" => {
            for i in 0..settings.copies {
                out.emit(&format!("copy {}", i))?;
            }
            out.end()
        }
        b"fail" => {
            let reason = r.text()?;
            fail(
                *settings.codes.get(reason).unwrap_or(&9),
                format!("refused: {}", reason),
            )
        }
        b"error" => {
            out.emit("taken back")?;
            let n: i32 = r.text()?.parse()?;
            out.emit(&n.to_string())
        }
        b"amount" => {
            let order = r.json()?;
            let amount = order.get("amount").or_fail(21, "no amount")?;
            let cents = amount.as_f64().or_fail(22, "amount is no number")? * 100.0;
            out.emit(&format!("{}", cents as i64))
        }
        b"retry" => retry_after(Duration::from_secs(5), 30, "the rates are not there yet"),
        b"panic" => panic!("no rule for {:?}", r.text()?),
        b"index" => {
            let b = r.bytes();
            out.emit(&b[b.len()..b.len() + r.attempt() as usize])
        }
        b"audit" => {
            out.pass()?;
            out.to(AUDIT)
                .key("audited")
                .header("why", "asked")
                .emit(r.bytes())?;
            out.to(LATE)
                .no_key()
                .no_headers()
                .timestamp(r.now())
                .partition(3)
                .emit("late")
        }
        b"tombstone" => out.record().emit_null(),
        b"unfinished" => {
            let mut to = out.write();
            to.bytes(b"let go");
            out.emit("finished")
        }
        b"log" => {
            info!("seen {}", r.text()?);
            warn!("in attempt {}", r.attempt());
            count("seen", 1.0);
            count("bytes", r.bytes().len() as f64);
            out.pass()
        }
        b"facts" => {
            let mut to = out.write();
            write!(
                to,
                "{}/{}@{} t={} now={} attempt={} redelivered={} key={:?} trace={:x?}",
                r.topic(),
                r.partition(),
                r.offset(),
                r.timestamp(),
                r.now(),
                r.attempt(),
                r.redelivered(),
                r.key().map(String::from_utf8_lossy),
                r.trace_id(),
            )?;
            for h in r.headers() {
                write!(
                    to,
                    " {}={}",
                    String::from_utf8_lossy(h.name),
                    String::from_utf8_lossy(h.value)
                )?;
            }
            to.emit()
        }
        b"members" => match r.json() {
            Ok(object) => out.emit(&object.len().to_string()),
            Err(failure) => out.emit(failure.message()),
        },
        b"large" => out.emit(&vec![b'x'; 1 << 20]),
        other => fail(
            2,
            format!("do: {:?} is unknown", String::from_utf8_lossy(other)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_pdk::testing::{Batch, Input};

    fn settings() -> Settings {
        testing::config(r#"{"copies": 3, "codes": {"country": 7}}"#).unwrap()
    }

    #[test]
    fn copies() {
        let answers = Batch::new()
            .add(Input::value("x").header("do", "copies"))
            .run_with(&settings(), act);
        assert_eq!(answers.emitted(0).len(), 3);
    }

    #[test]
    fn outputs() {
        let answers = Batch::new()
            .add(Input::value("x").key("k").header("do", "audit"))
            .now(77)
            .run_with(&settings(), act);
        let emitted = answers.emitted(0);
        assert_eq!(emitted[1].output, AUDIT);
        assert_eq!(emitted[1].key.as_deref(), Some(&b"audited"[..]));
        assert_eq!(emitted[2].output, LATE);
        assert_eq!((emitted[2].timestamp, emitted[2].partition), (77, Some(3)));
    }

    #[test]
    fn failures() {
        let answers = Batch::new()
            .add(Input::value("country").header("do", "fail"))
            .add(Input::value("seven").header("do", "error"))
            .run_with(&settings(), act);
        assert_eq!(answers.failure(0).unwrap().code(), 7);
        assert_eq!(
            answers.failure(1).unwrap().message(),
            "invalid digit found in string"
        );
    }
}
