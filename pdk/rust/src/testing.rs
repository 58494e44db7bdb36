//! Runs a stage in `cargo test`: a batch in, answers out, through the same
//! frames as on a node, without Wasm.
//!
//! ```
//! use millrace_pdk::testing::{Batch, Input};
//! use millrace_pdk::*;
//!
//! fn stage(r: &Record, out: &mut Out) -> Result {
//!     match r.header("kind") {
//!         Some(b"test") => out.drop(),
//!         _ => out.emit(&r.text()?.to_uppercase()),
//!     }
//! }
//!
//! let answers = Batch::new()
//!     .add(Input::value("a").key("k"))
//!     .add(Input::value("b").header("kind", "test"))
//!     .add(Input::tombstone())
//!     .run(stage);
//! assert_eq!(answers.value(0), Some("A"));
//! assert!(answers.is_dropped(1));
//! assert_eq!(answers.failure(2).unwrap().message(), "the record has no value (a tombstone)");
//! ```

use crate::answer::{Failure, Out, Output, Result};
use crate::config::Config;
use crate::frame::{self, Buffer};
use crate::host::{kept, Level};
use crate::record::Record;
use crate::sign::{Algorithm, Refused};
use std::collections::BTreeMap;
use std::time::Duration;

/// A record for a [`Batch`].
#[derive(Clone, Debug)]
pub struct Input {
    value: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    topic: String,
    partition: i32,
    offset: Option<i64>,
    timestamp: i64,
    attempt: u32,
    redelivered: bool,
    trace_id: [u8; 16],
}

impl Input {
    /// A record of topic `test` without a key, at its first attempt.
    pub fn value(value: impl AsRef<[u8]>) -> Self {
        Input {
            value: Some(value.as_ref().to_vec()),
            ..Input::tombstone()
        }
    }

    /// A record without a value.
    pub fn tombstone() -> Self {
        Input {
            value: None,
            key: None,
            headers: Vec::new(),
            topic: "test".to_owned(),
            partition: 0,
            offset: None,
            timestamp: 0,
            attempt: 1,
            redelivered: false,
            trace_id: [0; 16],
        }
    }

    /// With a key.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// With one header more.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// From there.
    pub fn from(mut self, topic: &str, partition: i32, offset: i64) -> Self {
        self.topic = topic.to_owned();
        self.partition = partition;
        self.offset = Some(offset);
        self
    }

    /// With that time, in Unix milliseconds.
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = millis;
        self
    }

    /// At that attempt, from 1.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Possibly processed before.
    pub fn redelivered(mut self) -> Self {
        self.redelivered = true;
        self
    }

    /// Of that trace.
    pub fn trace_id(mut self, id: [u8; 16]) -> Self {
        self.trace_id = id;
        self
    }
}

/// Records for a stage.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    records: Vec<Input>,
    now: i64,
}

impl Batch {
    /// No records yet; `now` is 0.
    pub fn new() -> Self {
        Batch::default()
    }

    /// One record with this value.
    pub fn of(value: impl AsRef<[u8]>) -> Self {
        Batch::new().add(Input::value(value))
    }

    /// One record more.
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, record: Input) -> Self {
        self.records.push(record);
        self
    }

    /// At that time, in Unix milliseconds.
    pub fn now(mut self, millis: i64) -> Self {
        self.now = millis;
        self
    }

    /// Runs a stage that has no configuration.
    pub fn run(&self, stage: impl Fn(&Record<'_>, &mut Out<'_>) -> Result) -> Answers {
        kept::LOG.with(|l| l.borrow_mut().clear());
        kept::COUNTS.with(|c| c.borrow_mut().clear());
        let frame = self.frame();
        let mut result = Buffer::new();
        crate::rt::process(frame.written(), &mut result, |r, out| stage(r, out))
            .expect("the batch is a frame");
        Answers {
            answers: read(result.written(), &self.records),
            logs: kept::LOG.with(|l| l.borrow_mut().split_off(0)),
            counts: kept::COUNTS.with(|c| std::mem::take(&mut *c.borrow_mut())),
        }
    }

    /// Runs a stage with this configuration.
    pub fn run_with<C>(
        &self,
        config: &C,
        stage: impl Fn(&Record<'_>, &mut Out<'_>, &C) -> Result,
    ) -> Answers {
        self.run(|r, out| stage(r, out, config))
    }

    fn frame(&self) -> Buffer {
        let mut topics: Vec<&str> = self.records.iter().map(|r| r.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        let mut f = Buffer::new();
        f.skip(frame::BATCH);
        for topic in &topics {
            f.extend(&(topic.len() as u16).to_le_bytes());
            f.extend(topic.as_bytes());
        }
        f.pad();
        let table = (f.len() - frame::BATCH) as u64;
        for (i, r) in self.records.iter().enumerate() {
            let topic = topics.iter().position(|t| *t == r.topic).unwrap_or(0);
            r.append(&mut f, i, topic);
        }
        let length = f.len() as u64;
        let kind = u64::from(frame::VERSION) << 32 | u64::from(frame::REQUEST) << 48;
        f.word(0, length | kind);
        f.word(8, self.records.len() as u64 | table << 32);
        f.word(16, 1);
        f.word(24, self.now as u64);
        f
    }
}

impl Input {
    fn append(&self, f: &mut Buffer, i: usize, topic: usize) {
        let at = f.len();
        f.skip(frame::RECORD);
        for (name, value) in &self.headers {
            f.extend(&(name.len() as u16).to_le_bytes());
            f.extend(&(value.len() as u32).to_le_bytes());
            f.extend(name.as_bytes());
            f.extend(value);
        }
        let headers = (f.len() - at - frame::RECORD) as u64;
        let key = self.key.as_deref().unwrap_or_default();
        let value = self.value.as_deref().unwrap_or_default();
        f.extend(key);
        f.extend(value);
        f.pad();
        let mut flags = 0;
        if self.key.is_none() {
            flags |= frame::KEY_NULL;
        }
        if self.value.is_none() {
            flags |= frame::VALUE_NULL;
        }
        if self.redelivered {
            flags |= frame::REDELIVERED;
        }
        let trace = u128::from_le_bytes(self.trace_id);
        f.word(at, (f.len() - at) as u64 | (i as u64) << 32);
        f.word(
            at + 8,
            u64::from(flags) << 16 | (topic as u64) << 32 | (self.headers.len() as u64) << 48,
        );
        f.word(at + 16, self.offset.unwrap_or(i as i64) as u64);
        f.word(at + 24, self.timestamp as u64);
        f.word(
            at + 32,
            u64::from(self.partition as u32) | u64::from(self.attempt) << 32,
        );
        f.word(at + 40, key.len() as u64 | (value.len() as u64) << 32);
        f.word(at + 48, headers);
        f.word(at + 56, trace as u64);
        f.word(at + 64, (trace >> 64) as u64);
    }
}

/// An emitted record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Where it goes.
    pub output: Output,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its time in Unix milliseconds.
    pub timestamp: i64,
    /// The partition that the stage chose; None: by key.
    pub partition: Option<i32>,
    /// What was not sent because it is the input's own: key, value, headers,
    /// timestamp.
    pub same: [bool; 4],
}

/// An answer to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A record goes on.
    Emit(Emitted),
    /// The record ends here.
    Drop,
    /// It is tried again, or failed.
    Failed(Failure),
}

/// What a stage answered to a [`Batch`].
#[derive(Clone, Debug)]
pub struct Answers {
    answers: Vec<Vec<Answer>>,
    /// The lines that it logged.
    pub logs: Vec<(Level, String)>,
    /// What it counted.
    pub counts: BTreeMap<String, f64>,
}

impl Answers {
    /// The answers to record `i`, in order.
    pub fn of(&self, i: usize) -> &[Answer] {
        &self.answers[i]
    }

    /// What was emitted for record `i`, in order.
    pub fn emitted(&self, i: usize) -> Vec<&Emitted> {
        self.answers[i]
            .iter()
            .filter_map(|a| match a {
                Answer::Emit(e) => Some(e),
                _ => None,
            })
            .collect()
    }

    /// The value of the only record emitted for record `i`, as text; None if
    /// there is none or several, or it is no text.
    pub fn value(&self, i: usize) -> Option<&str> {
        match self.answers[i].as_slice() {
            [Answer::Emit(e)] => std::str::from_utf8(e.value.as_deref()?).ok(),
            _ => None,
        }
    }

    /// Whether record `i` was dropped.
    pub fn is_dropped(&self, i: usize) -> bool {
        self.answers[i] == [Answer::Drop]
    }

    /// Why record `i` failed or is to be tried again.
    pub fn failure(&self, i: usize) -> Option<&Failure> {
        match self.answers[i].as_slice() {
            [Answer::Failed(f)] => Some(f),
            _ => None,
        }
    }
}

/// Gives the stages of this thread keys: `f` makes the signature for a place, an
/// algorithm and a message, of at most 1024 bytes. Without it a stage has none.
pub fn sign_with(
    f: impl Fn(u32, Algorithm, &[u8]) -> std::result::Result<Vec<u8>, Refused> + 'static,
) {
    crate::sign::keys::SIGNER.with(|s| *s.borrow_mut() = Some(Box::new(f)));
}

/// Reads a configuration as the node hands it over; the error is what the
/// operator sees.
pub fn config<C: Config>(json: &str) -> std::result::Result<C, String> {
    C::from_json(json.as_bytes()).map_err(|e| e.to_string())
}

fn read(result: &[u8], inputs: &[Input]) -> Vec<Vec<Answer>> {
    let u16 = |at| frame::u16_at(result, at).expect("a whole header");
    let u32 = |at| frame::u32_at(result, at).expect("a whole header") as usize;
    let u64 = |at| frame::u64_at(result, at).expect("a whole header");
    let mut answers = vec![Vec::new(); inputs.len()];
    let mut p = frame::BATCH;
    while p < result.len() {
        let id = u32(p + 4);
        let input = &inputs[id];
        let headers_end = p + frame::RECORD + u32(p + 48);
        let key_end = headers_end + u32(p + 40);
        let value = &result[key_end..key_end + u32(p + 44)];
        let same = result[p + 9];
        let flags = u16(p + 10);
        let message = || String::from_utf8_lossy(value).into_owned();
        let code = u32(p + 36) as u32;
        let part = |bit, null, own: &Option<Vec<u8>>, sent: &[u8]| {
            if same & bit != 0 {
                own.clone()
            } else if flags & null != 0 {
                None
            } else {
                Some(sent.to_vec())
            }
        };
        answers[id].push(match result[p + 8] {
            frame::DROP => Answer::Drop,
            frame::RETRY => Answer::Failed(Failure::retry(
                Duration::from_millis(u64(p + 16)),
                code,
                message(),
            )),
            frame::FAIL => Answer::Failed(Failure::fail(code, message())),
            _ => Answer::Emit(Emitted {
                output: Output::at(u16(p + 12)),
                key: part(
                    frame::SAME_KEY,
                    frame::KEY_NULL,
                    &input.key,
                    &result[headers_end..key_end],
                ),
                value: part(frame::SAME_VALUE, frame::VALUE_NULL, &input.value, value),
                headers: if same & frame::SAME_HEADERS != 0 {
                    input.headers.clone()
                } else {
                    headers(&result[p + frame::RECORD..headers_end], u16(p + 14))
                },
                timestamp: if same & frame::SAME_TIMESTAMP != 0 {
                    input.timestamp
                } else {
                    u64(p + 24) as i64
                },
                partition: Some(u32(p + 32) as u32 as i32).filter(|n| *n != frame::BY_KEY),
                same: [
                    same & frame::SAME_KEY != 0,
                    same & frame::SAME_VALUE != 0,
                    same & frame::SAME_HEADERS != 0,
                    same & frame::SAME_TIMESTAMP != 0,
                ],
            }),
        });
        p += u32(p);
    }
    answers
}

fn headers(mut bytes: &[u8], count: u16) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for _ in 0..count {
        let name = frame::u16_at(bytes, 0).expect("a header") as usize;
        let value = frame::u32_at(bytes, 2).expect("a header") as usize;
        let (header, rest) = bytes.split_at(6 + name + value);
        out.push((
            String::from_utf8_lossy(&header[6..6 + name]).into_owned(),
            header[6 + name..].to_vec(),
        ));
        bytes = rest;
    }
    out
}
