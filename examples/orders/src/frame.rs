//! The stage/1 frame: a batch header, then records; an answer is the record's
//! own header with the outcome filled in. Little endian, 8-byte alignment.

use std::convert::TryInto;

pub const BATCH: usize = 32;
pub const RECORD: usize = 72;

const KIND_REQUEST: u16 = 1;
const VERSION: u64 = 1;
const RESULT_HEAD: u64 = VERSION << 32 | 2 << 48; // kind 2: result

const EMIT: u64 = 0;
const DROP: u64 = 1;
const FAIL: u64 = 3;
const SAME_KEY: u64 = 1;
const SAME_HEADERS: u64 = 4;
const SAME_TIMESTAMP: u64 = 8;

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

pub struct Request<'a> {
    frame: &'a [u8],
    pub count: u32,
    id: u64,
    now: u64,
    /// Where the first record begins.
    pub first: usize,
}

pub struct Record<'a> {
    pub id: u32,
    pub value_len: usize,
    /// The frame from the value on: the bytes behind the value are other
    /// records, which may be read but mean nothing.
    pub tail: &'a [u8],
    /// Where the next record begins.
    pub end: usize,
}

impl<'a> Request<'a> {
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let topics = u32_at(frame, 12)? as usize;
        if u16_at(frame, 6)? != KIND_REQUEST {
            return None;
        }
        Some(Request {
            frame,
            count: u32_at(frame, 8)?,
            id: u64_at(frame, 16)?,
            now: u64_at(frame, 24)?,
            first: BATCH.checked_add(topics)?,
        })
    }

    pub fn record(&self, at: usize) -> Option<Record<'a>> {
        let end = at.checked_add(u32_at(self.frame, at)? as usize)?;
        let bytes = self.frame.get(at..end)?;
        let head: &[u8; RECORD] = bytes.get(..RECORD)?.try_into().ok()?;
        let key_len = u32_at(head, 40)? as usize;
        let value_len = u32_at(head, 44)? as usize;
        let headers_len = u32_at(head, 48)? as usize;
        let value = RECORD.checked_add(headers_len)?.checked_add(key_len)?;
        if value.checked_add(value_len)? > bytes.len() {
            return None;
        }
        Some(Record {
            id: u32_at(head, 4)?,
            value_len,
            tail: self.frame.get(at + value..)?,
            end,
        })
    }
}

#[cfg(not(any(test, target_feature = "simd128")))]
impl<'a> Record<'a> {
    pub fn value(&self) -> &'a [u8] {
        &self.tail[..self.value_len]
    }
}

/// A growing run of bytes that begins at a multiple of 8. Room is made ahead
/// (`room`), so that writing never moves it.
pub struct Buffer {
    words: Vec<u64>,
    len: usize,
}

impl Buffer {
    pub const fn new() -> Self {
        Buffer {
            words: Vec::new(),
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.words.as_mut_ptr() as *mut u8
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `n` more bytes; false if memory ran out.
    pub fn room(&mut self, n: usize) -> bool {
        let words = (self.len + n + 7) / 8;
        words <= self.words.len() || self.grow(words)
    }

    #[cold]
    fn grow(&mut self, words: usize) -> bool {
        let words = words.max(self.words.len() + self.words.len() / 2);
        if self
            .words
            .try_reserve_exact(words - self.words.len())
            .is_err()
        {
            return false;
        }
        self.words.resize(words, 0);
        true
    }

    fn bytes(&mut self) -> &mut [u8] {
        // Any eight bytes are a u64 and the reverse.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.words.len() * 8) }
    }

    #[cfg(test)]
    pub fn written(&mut self) -> &[u8] {
        let len = self.len;
        &self.bytes()[..len]
    }

    fn word(&mut self, at: usize, w: u64) {
        self.bytes()[at..at + 8].copy_from_slice(&w.to_le_bytes());
    }

    pub fn push(&mut self, c: u8) {
        let len = self.len;
        self.bytes()[len] = c;
        self.len += 1;
    }

    pub fn text(&mut self, s: &[u8]) {
        let len = self.len;
        self.bytes()[len..len + s.len()].copy_from_slice(s);
        self.len += s.len();
    }

    /// Appends the first `n` bytes of a text that is filled up to 16.
    #[cfg(any(test, target_feature = "simd128"))]
    pub fn text16(&mut self, s: &[u8; 16], n: usize) {
        self.copy(s, 0, n);
    }

    /// Appends `src[from..to]`. Short copies go by 16 bytes where both sides
    /// have room for it: for a length that is not constant, a call of
    /// memory.copy costs more than the bytes.
    #[cfg(any(test, target_feature = "simd128"))]
    #[inline(always)]
    pub fn copy(&mut self, src: &[u8], from: usize, to: usize) {
        const CHUNK: usize = 16;
        const SHORT: usize = 192;
        let n = to - from;
        let len = self.len;
        let dst = self.bytes();
        if n <= SHORT && to + CHUNK - 1 <= src.len() && len + n + CHUNK - 1 <= dst.len() {
            let mut done = 0;
            while done < n {
                // Within both slices: done < n, and each has CHUNK - 1 bytes behind n.
                unsafe {
                    let s = src.as_ptr().add(from + done);
                    let d = dst.as_mut_ptr().add(len + done);
                    copy16(s, d);
                }
                done += CHUNK;
            }
        } else {
            dst[len..len + n].copy_from_slice(&src[from..to]);
        }
        self.len += n;
    }

    /// Begins a result frame; `end` completes it.
    pub fn begin(&mut self, request: &Request) {
        self.word(0, RESULT_HEAD);
        self.word(8, u64::from(request.count));
        self.word(16, request.id);
        self.word(24, request.now);
        self.len = BATCH;
    }

    pub fn end(&mut self) {
        let len = self.len as u64;
        self.word(0, RESULT_HEAD | len);
    }
}

#[cfg(target_feature = "simd128")]
#[inline(always)]
unsafe fn copy16(src: *const u8, dst: *mut u8) {
    use std::arch::wasm32::{v128, v128_load, v128_store};
    v128_store(dst as *mut v128, v128_load(src as *const v128));
}

#[cfg(all(test, not(target_feature = "simd128")))]
unsafe fn copy16(src: *const u8, dst: *mut u8) {
    std::ptr::copy_nonoverlapping(src, dst, 16);
}

/// An answer under way: its header's place is kept free, its body follows.
pub struct Answer {
    at: usize,
    id: u32,
}

impl Answer {
    pub fn begin(out: &mut Buffer, record: &Record) -> Self {
        let at = out.len;
        out.len += RECORD;
        Answer { at, id: record.id }
    }

    /// Where the body begins.
    pub fn body(&self) -> usize {
        self.at + RECORD
    }

    /// The body is the new value; key, headers and timestamp stay.
    pub fn emit(self, out: &mut Buffer) {
        let same = SAME_KEY | SAME_HEADERS | SAME_TIMESTAMP;
        self.end(out, EMIT | same << 8, 0);
    }

    pub fn drop(self, out: &mut Buffer) {
        out.truncate(self.body());
        self.end(out, DROP, 0);
    }

    /// The body is the message.
    pub fn fail(self, out: &mut Buffer, code: u32) {
        self.end(out, FAIL, code);
    }

    fn end(self, out: &mut Buffer, outcome: u64, code: u32) {
        let value_len = (out.len - self.body()) as u64;
        let unpadded = out.len;
        out.len = (out.len + 7) & !7;
        let pad = out.len;
        out.bytes()[unpadded..pad].iter_mut().for_each(|c| *c = 0);
        let at = self.at;
        let length = (out.len - at) as u64;
        out.word(at, length | u64::from(self.id) << 32);
        out.word(at + 8, outcome);
        out.word(at + 16, 0);
        out.word(at + 24, 0);
        out.word(at + 32, u64::from(u32::MAX) | u64::from(code) << 32); // partition -1: by key
        out.word(at + 40, value_len << 32);
        out.word(at + 48, 0);
        out.word(at + 56, 0);
        out.word(at + 64, 0);
    }
}
