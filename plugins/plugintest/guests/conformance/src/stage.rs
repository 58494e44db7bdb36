//! The conformance protocol: each record is answered as a command says. The
//! README of this folder is its definition.

use crate::frame::*;
use crate::fault;
use std::fmt::Write;
use std::ptr::addr_of_mut;

mod host {
    #[link(wasm_import_module = "stage")]
    extern "C" {
        pub fn log(level: i32, ptr: *const u8, len: usize);
        pub fn count(ptr: *const u8, len: usize, delta: f64);
    }
}

fn log(level: i32, s: &str) {
    unsafe { host::log(level, s.as_ptr(), s.len()) }
}

struct Stage {
    request: Buffer,
    result: Buffer,
    config: String,
    /// The commands for every record.
    commands: String,
    kept: Vec<Vec<u8>>,
}

static mut STAGE: Stage = Stage {
    request: Buffer::new(),
    result: Buffer::new(),
    config: String::new(),
    commands: String::new(),
    kept: Vec::new(),
};

#[no_mangle]
pub extern "C" fn stage_abi_1() {}

/// # Safety
/// The host makes one call at a time.
#[no_mangle]
pub unsafe extern "C" fn stage_init(ptr: *const u8, len: u32) -> i32 {
    let stage = &mut *addr_of_mut!(STAGE);
    let config = std::slice::from_raw_parts(ptr, len as usize);
    stage.config = String::from_utf8_lossy(config).into_owned();
    stage.commands = text_of(&stage.config, "do");
    fault::configure(&text_of(&stage.config, "fault"));
    0
}

/// The string behind `"name":`; empty if there is none. Knows no escapes.
fn text_of(json: &str, name: &str) -> String {
    let mut quoted = json.split('"').skip(1).step_by(2);
    while let Some(s) = quoted.next() {
        if s == name {
            return quoted.next().unwrap_or("").to_string();
        }
    }
    String::new()
}

/// # Safety
/// As `stage_init`.
#[no_mangle]
pub unsafe extern "C" fn stage_alloc(size: u32) -> *mut u8 {
    (*addr_of_mut!(STAGE)).request.alloc(size as usize)
}

/// # Safety
/// As `stage_init`; `ptr` and `len` name a request frame in this memory.
#[no_mangle]
pub unsafe extern "C" fn stage_batch(ptr: *const u8, len: u32) -> u64 {
    let stage = &mut *addr_of_mut!(STAGE);
    let frame = std::slice::from_raw_parts(ptr, len as usize);
    let records = records(frame);
    stage.result.begin(frame);
    for record in &records {
        let commands = match record.headers.iter().find(|(k, _)| k == b"do") {
            Some((_, v)) => String::from_utf8_lossy(v).into_owned(),
            None => stage.commands.clone(),
        };
        let mut answers = Vec::new();
        for command in commands.split("; ") {
            answers.extend(stage.obey(command, record, now(frame)));
        }
        fault::answers(&mut answers, record, records.len(), &mut stage.kept);
        for a in &answers {
            stage.result.answer(a);
        }
    }
    stage.result.end()
}

impl Stage {
    /// The answers of one command.
    fn obey(&mut self, command: &str, r: &Record, now: i64) -> Vec<Answer> {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let mut words = rest.split(' ');
        let mut number = || words.next().and_then(|w| w.parse::<i64>().ok()).unwrap_or(0);
        let pass = Answer::pass(r.id);
        let value = |v: Vec<u8>| Answer {
            same: SAME_ALL - SAME_VALUE,
            value: Some(v),
            ..pass.clone()
        };
        let one = match verb {
            "drop" => Answer {
                outcome: DROP,
                ..pass
            },
            "retry" => Answer {
                outcome: RETRY,
                delay_ms: number(),
                code: number() as u32,
                value: Some(words.collect::<Vec<_>>().join(" ").into_bytes()),
                ..pass
            },
            "fail" => Answer {
                outcome: FAIL,
                code: number() as u32,
                value: Some(words.collect::<Vec<_>>().join(" ").into_bytes()),
                ..pass
            },
            "copy" => Answer {
                same: 0,
                key: r.key.map(<[u8]>::to_vec),
                value: r.value.map(<[u8]>::to_vec),
                headers: r.headers.clone(),
                timestamp: r.timestamp,
                ..pass
            },
            "value" => value(rest.as_bytes().to_vec()),
            "upper" => value(r.value.unwrap_or(b"").to_ascii_uppercase()),
            "size" => value(vec![b'x'; number() as usize]),
            "tombstone" => Answer {
                same: SAME_ALL - SAME_VALUE,
                ..pass
            },
            "key" => Answer {
                same: SAME_ALL - SAME_KEY,
                key: Some(rest.as_bytes().to_vec()),
                ..pass
            },
            "null-key" => Answer {
                same: SAME_ALL - SAME_KEY,
                ..pass
            },
            "time" => Answer {
                same: SAME_ALL - SAME_TIMESTAMP,
                timestamp: number(),
                ..pass
            },
            "header" => {
                let (k, v) = rest.split_once(' ').unwrap_or((rest, ""));
                let mut headers = r.headers.clone();
                headers.push((k.as_bytes().to_vec(), v.as_bytes().to_vec()));
                Answer {
                    same: SAME_ALL - SAME_HEADERS,
                    headers,
                    ..pass
                }
            }
            "headers" => Answer {
                same: SAME_ALL - SAME_HEADERS,
                headers: (0..number())
                    .map(|i| (format!("h{i}").into_bytes(), format!("v{i}").into_bytes()))
                    .collect(),
                ..pass
            },
            "output" => Answer {
                output: number() as u16,
                ..pass
            },
            "partition" => Answer {
                partition: number() as i32,
                ..pass
            },
            "emit" => {
                return (0..number())
                    .map(|i| value(i.to_string().into_bytes()))
                    .collect()
            }
            "facts" => value(facts(r, now).into_bytes()),
            "config" => value(self.config.clone().into_bytes()),
            "grow" => {
                self.kept.push(vec![1; (number() as usize) << 20]);
                pass
            }
            "log" => {
                let (level, line) = rest.split_once(' ').unwrap_or((rest, ""));
                let levels = ["debug", "info", "warn", "error"];
                log(levels.iter().position(|l| *l == level).unwrap_or(1) as i32, line);
                return Vec::new();
            }
            "count" => {
                let (name, delta) = rest.split_once(' ').unwrap_or((rest, "1"));
                unsafe { host::count(name.as_ptr(), name.len(), delta.parse().unwrap_or(1.0)) };
                return Vec::new();
            }
            _ => pass,
        };
        vec![one]
    }
}

/// What the guest sees of the record beside key, value and headers.
fn facts(r: &Record, now: i64) -> String {
    let len = |b: Option<&[u8]>| b.map_or("null".to_string(), |b| b.len().to_string());
    let mut s = format!(
        "topic={} partition={} offset={} timestamp={} attempt={} redelivered={} key={} value={} headers={} now={} trace=",
        String::from_utf8_lossy(r.topic),
        r.partition,
        r.offset,
        r.timestamp,
        r.attempt,
        r.redelivered,
        len(r.key),
        len(r.value),
        r.headers.len(),
        now,
    );
    for b in r.trace {
        let _ = write!(s, "{b:02x}");
    }
    s
}
