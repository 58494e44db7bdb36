//! A guest that breaks every rule of stage/1 on demand. The README lists the
//! behaviours.

#[allow(dead_code)]
#[path = "../../common/frame.rs"]
mod frame;

use frame::*;
use std::hint::black_box;
use std::ptr::addr_of_mut;

const MANIFEST_JSON: &[u8] = include_bytes!("../manifest.json");

#[cfg_attr(target_arch = "wasm32", link_section = "stage.manifest")]
#[used]
pub static MANIFEST: [u8; MANIFEST_JSON.len()] = *include_bytes!("../manifest.json");

/// Levels of the import `stage.log`: 0 debug, 1 info, 2 warn, 3 error.
const INFO: i32 = 1;
const ERROR: i32 = 3;

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

fn count(name: &str, delta: f64) {
    unsafe { host::count(name.as_ptr(), name.len(), delta) }
}

struct Stage {
    request: Buffer,
    result: Buffer,
    /// From the config; empty: each record's value selects.
    behaviour: String,
    /// Records answered with the behaviour `state` since the image.
    state: u64,
    kept: Vec<Vec<u8>>,
}

static mut STAGE: Stage = Stage {
    request: Buffer::new(),
    result: Buffer::new(),
    behaviour: String::new(),
    state: 0,
    kept: Vec::new(),
};

#[no_mangle]
pub extern "C" fn stage_abi_1() {}

/// # Safety
/// The host makes one call at a time.
#[no_mangle]
pub unsafe extern "C" fn stage_init(ptr: *const u8, len: u32) -> i32 {
    let stage = &mut *addr_of_mut!(STAGE);
    let config =
        String::from_utf8_lossy(std::slice::from_raw_parts(ptr, len as usize)).into_owned();
    stage.behaviour = text_of(&config, "behaviour");
    match stage.behaviour.as_str() {
        "init-fail" => {
            log(ERROR, "init-fail: the config is not acceptable");
            3
        }
        "init-trap" => trap("init-trap: trapping in stage_init"),
        "init-echo" => {
            log(INFO, &config);
            0
        }
        _ => 0,
    }
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
    let stage = &mut *addr_of_mut!(STAGE);
    match stage.behaviour.as_str() {
        "alloc0" => std::ptr::null_mut(),
        "alloc-outside" => 0xffff_ff00usize as *mut u8,
        _ => stage.request.alloc(size as usize),
    }
}

/// # Safety
/// As `stage_init`; `ptr` and `len` name a request frame in this memory.
#[no_mangle]
pub unsafe extern "C" fn stage_batch(ptr: *const u8, len: u32) -> u64 {
    let stage = &mut *addr_of_mut!(STAGE);
    let frame = std::slice::from_raw_parts(ptr, len as usize);
    let mut whole = Whole::Good;
    stage.result.begin(frame);
    for record in records(frame) {
        let behaviour = if stage.behaviour.is_empty() {
            String::from_utf8_lossy(record.value).into_owned()
        } else {
            stage.behaviour.clone()
        };
        whole = whole.or(stage.answer(&behaviour, record.id));
    }
    stage.result.end();
    whole.spoil(&mut stage.result)
}

/// What is wrong with the frame as a whole; the first record that asks wins.
#[derive(Clone, Copy, PartialEq)]
enum Whole {
    Good,
    BadKind,
    BadVersion,
    BadBatchId,
    BadFrameLength,
    BadOffset,
    Empty,
    Short,
    Zero,
}

impl Whole {
    fn or(self, other: Whole) -> Whole {
        if self == Whole::Good {
            other
        } else {
            self
        }
    }

    fn spoil(self, out: &mut Buffer) -> u64 {
        let len = out.len() as u32;
        match self {
            Whole::Good => {}
            Whole::BadKind => out.set_u16(6, 1),
            Whole::BadVersion => out.set_u16(4, 0),
            Whole::BadBatchId => out.set_u64(16, 0xdead_beef),
            Whole::BadFrameLength => out.set_u32(0, len + 4096),
            Whole::BadOffset => return 0xffff_0000 << 32 | 4096,
            Whole::Empty => return out.result() >> 32 << 32,
            Whole::Short => return (out.result() >> 32 << 32) | 16,
            Whole::Zero => return 0,
        }
        out.result()
    }
}

impl Stage {
    fn answer(&mut self, behaviour: &str, id: u32) -> Whole {
        let out = &mut self.result;
        let pass = Answer {
            id,
            outcome: EMIT,
            same: SAME_REST | SAME_VALUE,
            ..Answer::default()
        };
        let emit = |value| Answer {
            id,
            outcome: EMIT,
            same: SAME_REST,
            value,
            ..Answer::default()
        };
        let drop = Answer {
            id,
            outcome: DROP,
            ..Answer::default()
        };
        match behaviour {
            // Answers by the rules.
            "drop" => drop_answer(out, &drop),
            "fail" => {
                out.answer(&Answer {
                    id,
                    outcome: FAIL,
                    code: 9,
                    value: b"not acceptable",
                    ..Answer::default()
                });
            }
            "retry" => {
                let value = b"come back later";
                out.answer(&Answer {
                    id,
                    outcome: RETRY,
                    delay_ms: 50,
                    code: 7,
                    value,
                    ..Answer::default()
                });
            }
            "emit3" => {
                for value in [b"emit3-0", b"emit3-1", b"emit3-2"] {
                    out.answer(&emit(value));
                }
            }
            "output1" => {
                out.answer(&Answer { output: 1, ..pass });
            }
            "state" => {
                self.state += 1;
                out.answer(&emit(self.state.to_string().as_bytes()));
            }
            "stack-address" => {
                let local = black_box(0u32);
                out.answer(&emit(
                    (black_box(&local) as *const u32 as usize)
                        .to_string()
                        .as_bytes(),
                ));
            }
            "count" => {
                count("faulty.records", 1.0);
                out.answer(&pass);
            }
            "log" => {
                log(INFO, "log: hello from faulty");
                out.answer(&pass);
            }
            "log-flood" => {
                for i in 0..10_000 {
                    log(
                        INFO,
                        &format!("log-flood: line {} of 10000 {}", i, "x".repeat(64)),
                    );
                }
                out.answer(&pass);
            }
            "grow" => {
                self.kept.push(vec![1; 4 << 20]);
                out.answer(&pass);
            }

            // Traps.
            "trap" => trap("trap: reached what cannot be reached"),
            "count-trap" => {
                count("faulty.records", 1.0);
                trap("count-trap: trapping after a count")
            }
            "panic" => panic!("panic: nobody hears this without WASI"),
            "stack" => {
                unsafe { recurse() };
                out.answer(&pass);
            }
            "outside" => {
                black_box(unsafe { std::ptr::read_volatile(0xffff_fff0usize as *const u32) });
                out.answer(&pass);
            }
            "hog" => loop {
                self.kept.push(vec![1; 1 << 20]);
            },

            // Answers against the rules.
            "missing" => {}
            "doubled" => {
                drop_answer(out, &drop);
                drop_answer(out, &drop);
            }
            "emit-drop" => {
                out.answer(&pass);
                drop_answer(out, &drop);
            }
            "unknown-id" => {
                out.answer(&Answer {
                    id: id.wrapping_add(1_000_000),
                    ..pass
                });
            }
            "unknown-outcome" => {
                out.answer(&Answer { outcome: 9, ..pass });
            }
            "unknown-output" => {
                out.answer(&Answer { output: 7, ..pass });
            }
            "wrong-length" => {
                let at = out.answer(&pass);
                out.set_u32(at, 1 << 20);
            }
            "short-length" => {
                let at = out.answer(&pass);
                out.set_u32(at, 8);
            }
            "zero-length" => {
                let at = out.answer(&pass);
                out.set_u32(at, 0);
            }
            "odd-length" => {
                let at = out.answer(&pass);
                out.set_u32(at, RECORD as u32 + 1);
            }
            "long-key" => {
                let at = out.answer(&Answer { same: 0, ..pass });
                out.set_u32(at + 40, u32::MAX);
            }
            "long-value" => {
                let at = out.answer(&emit(b""));
                out.set_u32(at + 44, u32::MAX);
            }
            "long-headers" => {
                let at = out.answer(&Answer { same: 0, ..pass });
                out.set_u32(at + 48, u32::MAX);
            }
            "bad-headers" => {
                let at = out.answer(&Answer {
                    same: SAME_KEY,
                    value: &[0xff; 16],
                    ..pass
                });
                out.set_u16(at + 14, 3);
                out.set_u32(at + 44, 0);
                out.set_u32(at + 48, 16);
            }
            "bad-kind" => return passed(out, &pass, Whole::BadKind),
            "bad-version" => return passed(out, &pass, Whole::BadVersion),
            "bad-batch-id" => return passed(out, &pass, Whole::BadBatchId),
            "bad-frame-length" => return passed(out, &pass, Whole::BadFrameLength),
            "bad-offset" => return passed(out, &pass, Whole::BadOffset),
            "empty-result" => return passed(out, &pass, Whole::Empty),
            "short-result" => return passed(out, &pass, Whole::Short),
            "zero-result" => return passed(out, &pass, Whole::Zero),

            _ => {
                out.answer(&pass);
            }
        }
        Whole::Good
    }
}

fn drop_answer(out: &mut Buffer, drop: &Answer) {
    out.answer(drop);
}

fn passed(out: &mut Buffer, pass: &Answer, whole: Whole) -> Whole {
    out.answer(pass);
    whole
}

/// Traps with a frame on the stack, so that the stack pointer, a mutable
/// global, stays where a good call would not leave it.
#[inline(never)]
fn trap(message: &str) -> ! {
    let frame = black_box([1u8; 256]);
    log(ERROR, message);
    if black_box(frame[0]) == 1 {
        #[cfg(target_arch = "wasm32")]
        std::arch::wasm32::unreachable();
    }
    std::process::abort()
}

static mut DEPTH: u32 = 0;

/// Runs out of the engine's stack: a call takes none of the stack in memory,
/// whose end would be an access out of bounds.
#[inline(never)]
unsafe fn recurse() {
    let depth = addr_of_mut!(DEPTH);
    depth.write_volatile(depth.read_volatile() + 1);
    if depth.read_volatile() != 0 {
        recurse();
    }
    depth.write_volatile(depth.read_volatile() - 1);
}
