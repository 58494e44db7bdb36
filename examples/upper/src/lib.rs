//! The smallest stage: makes the ASCII letters of every value upper case.
//! All of the stage/1 ABI that a stage needs stands in this file.

use std::convert::TryInto;
use std::ptr::addr_of_mut;

#[cfg_attr(target_arch = "wasm32", link_section = "stage.manifest")]
#[used]
pub static MANIFEST: [u8; 121] =
    *br#"{"abi":1,"name":"upper","version":"1.0.0","mode":"call","sample":[{"value":"hello"}],"memory_mb":16,"deterministic":true}"#;

const BATCH: usize = 32; // header of a frame
const RECORD: usize = 72; // header of a record
const EMIT: u8 = 0;
const SAME_KEY: u8 = 1;
const SAME_VALUE: u8 = 2;
const SAME_HEADERS: u8 = 4;
const SAME_TIMESTAMP: u8 = 8;

// Words, so that both begin at a multiple of 8.
static mut REQUEST: Vec<u64> = Vec::new();
static mut RESULT: Vec<u64> = Vec::new();

#[no_mangle]
pub extern "C" fn stage_abi_1() {}

/// # Safety
/// The host makes one call at a time.
#[no_mangle]
pub unsafe extern "C" fn stage_alloc(size: u32) -> *mut u8 {
    room(&mut *addr_of_mut!(REQUEST), size as usize).as_mut_ptr()
}

/// # Safety
/// As `stage_alloc`; `ptr` and `len` name a request frame in this memory.
#[no_mangle]
pub unsafe extern "C" fn stage_batch(ptr: *const u8, len: u32) -> u64 {
    let request = std::slice::from_raw_parts(ptr, len as usize);
    // An answer is never longer than what it answers.
    let result = room(&mut *addr_of_mut!(RESULT), request.len());
    match upper(request, result) {
        Some(n) => (result.as_ptr() as u64) << 32 | n as u64,
        None => 0,
    }
}

/// Makes room for `n` bytes.
fn room(words: &mut Vec<u64>, n: usize) -> &mut [u8] {
    if words.len() * 8 < n {
        words.resize((n + 7) / 8, 0);
    }
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr() as *mut u8, words.len() * 8) }
}

fn u32_at(b: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// Answers every record and returns the length of the result frame.
fn upper(request: &[u8], result: &mut [u8]) -> Option<usize> {
    let mut at = BATCH + u32_at(request, 12)?; // behind the topic table
    let mut end = BATCH;
    for _ in 0..u32_at(request, 8)? {
        let record = request.get(at..at + u32_at(request, at)?)?;
        at += record.len();
        let value_at = RECORD + u32_at(record, 48)? + u32_at(record, 40)?; // behind headers and key
        let value = record.get(value_at..value_at + u32_at(record, 44)?)?;

        let length = (RECORD + value.len() + 7) / 8 * 8;
        let answer = result.get_mut(end..end + length)?;
        end += length;
        answer.fill(0);
        answer[..4].copy_from_slice(&(length as u32).to_le_bytes());
        answer[4..8].copy_from_slice(&record[4..8]); // the id
        answer[8] = EMIT;
        answer[9] = SAME_KEY | SAME_HEADERS | SAME_TIMESTAMP;
        answer[32..36].copy_from_slice(&(-1i32).to_le_bytes()); // partition by key
        if value.is_empty() {
            answer[9] |= SAME_VALUE; // a null stays null
        }
        answer[44..48].copy_from_slice(&(value.len() as u32).to_le_bytes());
        for (to, from) in answer[RECORD..].iter_mut().zip(value) {
            *to = from.to_ascii_uppercase();
        }
    }
    result[..BATCH].copy_from_slice(&request[..BATCH]); // with the batch id
    result[..4].copy_from_slice(&(end as u32).to_le_bytes());
    result[6] = 2; // kind: result
    result[12..16].fill(0); // no topic table
    Some(end)
}
