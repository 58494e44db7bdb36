//! The order stage as a stage/1 plugin without any crate.
//!
//! `frame` is the ABI: it reads the host's batch and writes the answers.
//! `scan` is the rule, plainly. `index` is the same rule over a structural
//! index, for builds with simd128; what it does not understand goes to `scan`.

mod frame;
mod scan;

#[cfg(any(test, target_feature = "simd128"))]
mod index;

use frame::{Answer, Buffer, Request};
use scan::Outcome;
use std::ptr::addr_of_mut;

const MANIFEST_JSON: &[u8] = include_bytes!("../manifest.json");

#[cfg_attr(target_arch = "wasm32", link_section = "stage.manifest")]
#[used]
pub static MANIFEST: [u8; MANIFEST_JSON.len()] = *include_bytes!("../manifest.json");

struct Stage {
    request: Buffer,
    result: Buffer,
    #[cfg(any(test, target_feature = "simd128"))]
    index: index::Index,
}

static mut STAGE: Stage = Stage {
    request: Buffer::new(),
    result: Buffer::new(),
    #[cfg(any(test, target_feature = "simd128"))]
    index: index::Index::new(),
};

#[no_mangle]
pub extern "C" fn stage_abi_1() {}

/// # Safety
/// The host makes one call at a time, and never while another one runs.
#[no_mangle]
pub unsafe extern "C" fn stage_alloc(size: u32) -> *mut u8 {
    let stage = &mut *addr_of_mut!(STAGE);
    if stage.request.room(size as usize) {
        stage.request.as_mut_ptr()
    } else {
        std::ptr::null_mut()
    }
}

/// # Safety
/// As `stage_alloc`; `ptr` and `len` name a request frame in this memory.
#[no_mangle]
pub unsafe extern "C" fn stage_batch(ptr: *const u8, len: u32) -> u64 {
    let stage = &mut *addr_of_mut!(STAGE);
    let frame = std::slice::from_raw_parts(ptr, len as usize);
    match stage.batch(frame) {
        Some(()) => (stage.result.as_mut_ptr() as u64) << 32 | stage.result.len() as u64,
        None => 0,
    }
}

impl Stage {
    /// Answers every record of the frame into `result`; None if the frame is
    /// broken or memory ran out.
    fn batch(&mut self, frame: &[u8]) -> Option<()> {
        let request = Request::read(frame)?;
        let out = &mut self.result;
        out.clear();
        if !out.room(frame.len()) {
            return None;
        }
        out.begin(&request);
        let mut at = request.first;
        for _ in 0..request.count {
            let record = request.record(at)?;
            at = record.end;
            // A masked card makes 22 bytes of 9: three times the input is enough.
            if !out.room(frame::RECORD + 3 * record.value_len + 128) {
                return None;
            }
            let answer = Answer::begin(out, &record);
            #[cfg(any(test, target_feature = "simd128"))]
            let outcome = index::order(record.tail, record.value_len, &mut self.index, out);
            #[cfg(not(any(test, target_feature = "simd128")))]
            let outcome = scan::order(record.value(), out);
            match outcome {
                Outcome::Emit => answer.emit(out),
                Outcome::Drop => answer.drop(out),
                Outcome::Fail(fault) => {
                    out.truncate(answer.body());
                    fault.message(out);
                    answer.fail(out, fault.code);
                }
            }
        }
        out.end();
        Some(())
    }
}
