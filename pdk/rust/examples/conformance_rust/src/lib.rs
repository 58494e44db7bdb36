//! The conformance protocol by the PDK: each record is answered as a command
//! says, so that the golden vectors of the PDKs can ask for anything.

use millrace_pdk::*;
use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

stage!(
    obey,
    config: Settings = Settings::read,
    outputs: { AUDIT: "audit" },
    sample: [r#"{"key":"k","value":{"a":1}}"#],
    memory_mb: 64,
    name: "millrace/conformance",
);

struct Settings {
    text: Vec<u8>,
    /// The commands for records that have none.
    commands: String,
}

impl Settings {
    fn read(text: &[u8]) -> std::result::Result<Self, Infallible> {
        let commands = json::Object::scan(text)
            .get("do")
            .and_then(|v| v.as_str().map(|s| s.into_owned()));
        Ok(Settings {
            text: text.to_vec(),
            commands: commands.unwrap_or_default(),
        })
    }
}

fn obey(r: &Record, out: &mut Out, settings: &Settings) -> Result {
    let first = r.headers().find(|h| h.name == b"do");
    let commands = match first {
        Some(h) => String::from_utf8_lossy(h.value),
        None => settings.commands.as_str().into(),
    };
    for command in commands.split("; ") {
        one(command, r, out, settings)?;
    }
    out.end()
}

fn one(command: &str, r: &Record, out: &mut Out, settings: &Settings) -> Result {
    let cut = |s: &'_ str| -> (String, String) {
        let (a, b) = s.split_once(' ').unwrap_or((s, ""));
        (a.to_owned(), b.to_owned())
    };
    let (verb, rest) = cut(command);
    let (word, behind) = cut(&rest);
    let number: i64 = word.parse().unwrap_or(0);
    match verb.as_str() {
        "drop" => out.drop(),
        "retry" => {
            let (code, message) = cut(&behind);
            retry_after(Duration::from_millis(number as u64), code.parse()?, message)
        }
        "fail" => fail(number as u32, behind),
        "copy" => {
            let value = r.value().map(<[u8]>::to_vec);
            let key = r.key().map(<[u8]>::to_vec);
            let headers: Vec<_> = r.headers().collect();
            let mut to = out.record().no_headers().timestamp(r.timestamp());
            for h in &headers {
                to = to.header(h.name, h.value);
            }
            let to = match &key {
                Some(key) => to.key(key),
                None => to.no_key(),
            };
            match &value {
                Some(value) => to.emit(value),
                None => to.emit_null(),
            }
        }
        "value" => out.emit(&rest),
        "upper" => out.emit(&r.bytes().to_ascii_uppercase()),
        "size" => out.emit(&vec![b'x'; number as usize]),
        "tombstone" => out.record().emit_null(),
        "key" => out.record().key(&rest).pass(),
        "null-key" => out.record().no_key().pass(),
        "time" => out.record().timestamp(number).pass(),
        "header" => out.record().header(&word, &behind).pass(),
        "headers" => {
            let made: Vec<_> = (0..number)
                .map(|i| (format!("h{}", i), format!("v{}", i)))
                .collect();
            let mut to = out.record().no_headers();
            for (name, value) in &made {
                to = to.header(name, value);
            }
            to.pass()
        }
        "output" if number == i64::from(AUDIT.index()) => out.to(AUDIT).pass(),
        "partition" => out.record().partition(number as i32).pass(),
        "emit" => {
            for i in 0..number {
                out.emit(&i.to_string())?;
            }
            out.end()
        }
        "facts" => out.emit(&facts(r)),
        "config" => out.emit(&settings.text),
        "grow" => {
            std::mem::forget(vec![1u8; (number as usize) << 20]);
            out.pass()
        }
        "log" => {
            match word.as_str() {
                "debug" => debug!("{}", behind),
                "warn" => warn!("{}", behind),
                "error" => error!("{}", behind),
                _ => info!("{}", behind),
            }
            out.end()
        }
        "count" => {
            count(&word, behind.parse().unwrap_or(1.0));
            out.end()
        }
        _ => out.pass(),
    }
}

/// What the stage sees of the record beside key, value and headers.
fn facts(r: &Record) -> String {
    let length = |b: Option<&[u8]>| b.map_or("null".to_owned(), |b| b.len().to_string());
    let mut text = format!(
        "topic={} partition={} offset={} timestamp={} attempt={} redelivered={} key={} value={} headers={} now={} trace=",
        r.topic(),
        r.partition(),
        r.offset(),
        r.timestamp(),
        r.attempt(),
        r.redelivered(),
        length(r.key()),
        length(r.value()),
        r.headers().count(),
        r.now(),
    );
    for b in r.trace_id().unwrap_or_default() {
        let _ = write!(text, "{:02x}", b);
    }
    text
}
