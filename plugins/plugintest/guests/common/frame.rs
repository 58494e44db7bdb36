//! The stage/1 frame for the test guests: short rather than fast.

use std::convert::TryInto;

pub const BATCH: usize = 32;
pub const RECORD: usize = 72;

pub const EMIT: u8 = 0;
pub const DROP: u8 = 1;
pub const RETRY: u8 = 2;
pub const FAIL: u8 = 3;

pub const SAME_KEY: u8 = 1;
pub const SAME_VALUE: u8 = 2;
pub const SAME_HEADERS: u8 = 4;
pub const SAME_TIMESTAMP: u8 = 8;
/// Everything but the value.
pub const SAME_REST: u8 = SAME_KEY | SAME_HEADERS | SAME_TIMESTAMP;

/// A growing run of bytes that begins at a multiple of 8.
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

    /// Makes room for `n` bytes and returns where they begin.
    pub fn alloc(&mut self, n: usize) -> *mut u8 {
        if self.words.len() * 8 < n {
            self.words.resize((n + 7) / 8, 0);
        }
        self.words.as_mut_ptr() as *mut u8
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr() as *mut u8, self.len) }
    }

    /// Appends `n` zero bytes and returns where they begin.
    fn extend(&mut self, n: usize) -> usize {
        let at = self.len;
        self.len += n;
        self.words.resize((self.len + 7) / 8, 0);
        self.bytes()[at..].iter_mut().for_each(|c| *c = 0);
        at
    }

    pub fn set_u16(&mut self, at: usize, v: u16) {
        self.bytes()[at..at + 2].copy_from_slice(&v.to_le_bytes());
    }

    pub fn set_u32(&mut self, at: usize, v: u32) {
        self.bytes()[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }

    pub fn set_u64(&mut self, at: usize, v: u64) {
        self.bytes()[at..at + 8].copy_from_slice(&v.to_le_bytes());
    }

    pub fn result(&mut self) -> u64 {
        (self.words.as_ptr() as u64) << 32 | self.len as u64
    }

    /// Begins a result frame for the request.
    pub fn begin(&mut self, request: &[u8]) {
        self.len = 0;
        self.extend(BATCH);
        self.bytes().copy_from_slice(&request[..BATCH]);
        self.set_u16(6, 2);
        self.set_u32(12, 0);
    }

    pub fn end(&mut self) {
        let len = self.len as u32;
        self.set_u32(0, len);
    }

    /// Appends an answer and returns where it begins.
    pub fn answer(&mut self, a: &Answer) -> usize {
        let at = self.extend((RECORD + a.value.len() + 7) / 8 * 8);
        let len = (self.len - at) as u32;
        self.set_u32(at, len);
        self.set_u32(at + 4, a.id);
        self.bytes()[at + 8] = a.outcome;
        self.bytes()[at + 9] = a.same;
        self.set_u16(at + 12, a.output);
        self.set_u64(at + 16, a.delay_ms);
        self.set_u32(at + 32, u32::MAX); // partition -1: by key
        self.set_u32(at + 36, a.code);
        self.set_u32(at + 44, a.value.len() as u32);
        self.bytes()[at + RECORD..at + RECORD + a.value.len()].copy_from_slice(a.value);
        at
    }
}

#[derive(Clone, Default)]
pub struct Answer<'a> {
    pub id: u32,
    pub outcome: u8,
    pub same: u8,
    pub output: u16,
    pub delay_ms: u64,
    pub code: u32,
    pub value: &'a [u8],
}

pub struct Record<'a> {
    pub id: u32,
    pub value: &'a [u8],
}

fn u32_at(b: &[u8], at: usize) -> usize {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap()) as usize
}

/// The records of a request frame. A broken frame panics.
pub fn records(frame: &[u8]) -> Vec<Record<'_>> {
    let mut at = BATCH + u32_at(frame, 12);
    (0..u32_at(frame, 8))
        .map(|_| {
            let r = &frame[at..at + u32_at(frame, at)];
            at += r.len();
            let value = RECORD + u32_at(r, 48) + u32_at(r, 40);
            Record {
                id: u32_at(r, 4) as u32,
                value: &r[value..value + u32_at(r, 44)],
            }
        })
        .collect()
}
