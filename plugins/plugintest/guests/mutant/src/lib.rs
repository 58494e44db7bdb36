//! The conformance guest with one fault, which the config names: what the
//! suite must find. The README lists the faults.

#[path = "../../conformance/src/frame.rs"]
mod frame;
#[path = "../../conformance/src/stage.rs"]
mod stage;

const MANIFEST_JSON: &[u8] = include_bytes!("../manifest.json");

#[cfg_attr(target_arch = "wasm32", link_section = "stage.manifest")]
#[used]
pub static MANIFEST: [u8; MANIFEST_JSON.len()] = *include_bytes!("../manifest.json");

mod fault {
    use crate::frame::*;
    use std::ptr::addr_of_mut;

    static mut FAULT: String = String::new();
    static mut RECORDS: u32 = 0;

    pub fn configure(fault: &str) {
        unsafe { *addr_of_mut!(FAULT) = fault.to_string() }
    }

    fn text(a: &mut Answer, v: String) {
        a.same &= !SAME_VALUE;
        a.value = Some(v.into_bytes());
    }

    pub fn answers(
        answers: &mut Vec<Answer>,
        r: &Record,
        records: usize,
        kept: &mut Vec<Vec<u8>>,
    ) {
        let (fault, seen) = unsafe {
            let seen = &mut *addr_of_mut!(RECORDS);
            *seen += 1;
            (&*addr_of_mut!(FAULT), *seen)
        };
        for a in answers.iter_mut() {
            match fault.as_str() {
                "drops-all" => a.outcome = DROP,
                "emits-all" => *a = Answer::pass(a.id),
                "swaps-drop-and-emit" => a.outcome ^= (a.outcome < RETRY) as u8,
                "fails-instead-of-retry" if a.outcome == RETRY => a.outcome = FAIL,
                "wrong-code" => a.code += 1,
                "wrong-delay" => a.delay_ms *= 1000,
                "no-message" if a.outcome >= RETRY => a.value = None,
                "default-output" => a.output = 0,
                "zero-partition" if a.partition == -1 => a.partition = 0,
                "any-partition" => a.partition = -1,
                "zero-time" => {
                    a.same &= !SAME_TIMESTAMP;
                    a.timestamp = 0;
                }
                "no-key" => {
                    a.same &= !SAME_KEY;
                    a.key = None;
                }
                "empty-for-null" => {
                    if a.same & SAME_KEY == 0 && a.key.is_none() {
                        a.key = Some(Vec::new());
                    }
                    if a.same & SAME_VALUE == 0 && a.value.is_none() {
                        a.value = Some(Vec::new());
                    }
                }
                "null-for-empty" => {
                    a.key = a.key.take().filter(|k| !k.is_empty());
                    a.value = a.value.take().filter(|v| !v.is_empty());
                }
                "text-only" => {
                    for b in [&mut a.key, &mut a.value].into_iter().flatten() {
                        *b = String::from_utf8_lossy(b).into_owned().into_bytes();
                    }
                }
                "ascii-only" => {
                    for b in [&mut a.key, &mut a.value].into_iter().flatten() {
                        b.retain(u8::is_ascii);
                    }
                }
                "no-headers" => {
                    a.same &= !SAME_HEADERS;
                    a.headers.clear();
                }
                "sorted-headers" => a.headers.sort(),
                "header-map" => {
                    let mut seen: Headers = Vec::new();
                    for (k, v) in a.headers.drain(..) {
                        match seen.iter_mut().find(|(s, _)| *s == k) {
                            Some(s) => s.1 = v,
                            None => seen.push((k, v)),
                        }
                    }
                    a.headers = seen;
                }
                "short-headers" => a.headers.truncate(255),
                "short-values" => {
                    for b in [&mut a.key, &mut a.value].into_iter().flatten() {
                        b.truncate(65_535);
                    }
                }
                "one-topic" => {
                    if let Some(v) = &mut a.value {
                        *v = String::from_utf8_lossy(v)
                            .replace("topic=payments", "topic=orders")
                            .into_bytes();
                    }
                }
                "no-trace" => {
                    if let Some(v) = &mut a.value {
                        if let Some(at) = String::from_utf8_lossy(v).find("trace=") {
                            v.truncate(at);
                        }
                    }
                }
                "keeps-memory" => text(a, seen.to_string()),
                "batch-size" => text(a, records.to_string()),
                _ => {}
            }
        }
        match fault.as_str() {
            "forgets-last" if r.id as usize == records - 1 => answers.clear(),
            "answers-twice" => answers.extend(answers.first().cloned()),
            "wrong-id" => answers.iter_mut().for_each(|a| a.id += 1),
            "first-emit-only" => answers.truncate(1),
            "reversed-emits" => answers.reverse(),
            "traps-on-null" if r.value.is_none() || r.key.is_none() => {
                r.value.and(r.key).expect("a key and a value");
            }
            "traps-on-binary" => {
                std::str::from_utf8(r.value.unwrap_or(b"")).expect("UTF-8");
            }
            "traps-on-large" if r.value.map_or(0, <[u8]>::len) > 65_535 => panic!("too long"),
            "leaks" => kept.push(vec![1; 16 << 10]),
            "spins" => {
                for i in 0..2_000_000u32 {
                    std::hint::black_box(i);
                }
            }
            _ => {}
        }
    }
}
