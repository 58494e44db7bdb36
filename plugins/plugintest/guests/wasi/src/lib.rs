//! A stage/1 guest that uses what WASI preview 1 offers a stage, and tries
//! what it must not. The README lists the behaviours.

#[allow(dead_code)]
#[path = "../../common/frame.rs"]
mod frame;

use frame::*;
use std::io::Read;
use std::ptr::addr_of_mut;
use std::time::{Duration, Instant, SystemTime};

const MANIFEST_JSON: &[u8] = include_bytes!("../manifest.json");

#[cfg_attr(target_arch = "wasm32", link_section = "stage.manifest")]
#[used]
pub static MANIFEST: [u8; MANIFEST_JSON.len()] = *include_bytes!("../manifest.json");

mod host {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    extern "C" {
        pub fn random_get(buf: *mut u8, len: usize) -> u16;
    }
    extern "C" {
        pub fn __wasm_call_ctors();
    }
}

static mut REQUEST: Buffer = Buffer::new();
static mut RESULT: Buffer = Buffer::new();

/// Without it the linker runs libc's destructors after every call.
///
/// # Safety
/// Called once, before everything else.
#[no_mangle]
pub unsafe extern "C" fn _initialize() {
    host::__wasm_call_ctors();
}

#[no_mangle]
pub extern "C" fn stage_abi_1() {}

/// # Safety
/// The host makes one call at a time.
#[no_mangle]
pub unsafe extern "C" fn stage_alloc(size: u32) -> *mut u8 {
    (*addr_of_mut!(REQUEST)).alloc(size as usize)
}

/// # Safety
/// As `stage_alloc`; `ptr` and `len` name a request frame in this memory.
#[no_mangle]
pub unsafe extern "C" fn stage_batch(ptr: *const u8, len: u32) -> u64 {
    let out = &mut *addr_of_mut!(RESULT);
    let frame = std::slice::from_raw_parts(ptr, len as usize);
    out.begin(frame);
    for record in records(frame) {
        let id = record.id;
        match behave(&String::from_utf8_lossy(record.value)) {
            Ok(text) => out.answer(&Answer {
                id,
                outcome: EMIT,
                same: SAME_REST,
                value: text.as_bytes(),
                ..Answer::default()
            }),
            Err(text) => out.answer(&Answer {
                id,
                outcome: FAIL,
                code: 1,
                value: text.as_bytes(),
                ..Answer::default()
            }),
        };
    }
    out.end();
    out.result()
}

fn behave(behaviour: &str) -> Result<String, String> {
    match behaviour {
        "time" => {
            let t = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_err(|e| e.to_string())?;
            Ok(t.as_micros().to_string())
        }
        "monotonic" => {
            let t = Instant::now();
            Ok(t.elapsed().as_micros().to_string())
        }
        "sleep" => {
            let t = Instant::now();
            std::thread::sleep(Duration::from_millis(250));
            Ok(t.elapsed().as_millis().to_string())
        }
        "random" => {
            let mut b = [0u8; 16];
            match unsafe { host::random_get(b.as_mut_ptr(), b.len()) } {
                0 => Ok(b.iter().map(|c| format!("{:02x}", c)).collect()),
                errno => Err(format!("random_get: errno {}", errno)),
            }
        }
        "stdout" => {
            println!("stdout: hello from wasi");
            Ok(behaviour.to_string())
        }
        "stderr" => {
            eprintln!("stderr: hello from wasi");
            Ok(behaviour.to_string())
        }
        "args" => Ok(std::env::args().collect::<Vec<_>>().join(" ")),
        "env" => Ok(std::env::vars()
            .map(|(k, v)| k + "=" + &v)
            .collect::<Vec<_>>()
            .join(" ")),
        "stdin" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| e.to_string())?;
            Ok(text.len().to_string())
        }
        "open" => match std::fs::File::open("/etc/hostname") {
            Ok(_) => Ok("open: a file outside the sandbox".to_string()),
            Err(e) => Err(e.to_string()),
        },
        "exit" => std::process::exit(3),
        "exit0" => std::process::exit(0),
        "panic" => panic!("panic: told on STDERR"),
        _ => Ok(behaviour.to_string()),
    }
}
