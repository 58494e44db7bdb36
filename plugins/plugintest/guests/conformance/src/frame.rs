//! The stage/1 frame, all of it: short rather than fast.

use std::convert::TryInto;

const BATCH: usize = 32;
const RECORD: usize = 72;

pub const EMIT: u8 = 0;
pub const DROP: u8 = 1;
pub const RETRY: u8 = 2;
pub const FAIL: u8 = 3;

pub const SAME_KEY: u8 = 1;
pub const SAME_VALUE: u8 = 2;
pub const SAME_HEADERS: u8 = 4;
pub const SAME_TIMESTAMP: u8 = 8;
pub const SAME_ALL: u8 = 15;

const KEY_NULL: u16 = 1;
const VALUE_NULL: u16 = 2;
const REDELIVERED: u16 = 4;

pub type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// One record of a request.
pub struct Record<'a> {
    pub id: u32,
    /// `None` is null.
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers,
    pub topic: &'a [u8],
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub attempt: u32,
    pub redelivered: bool,
    pub trace: &'a [u8],
}

/// One answer to a record.
#[derive(Clone)]
pub struct Answer {
    pub id: u32,
    pub outcome: u8,
    /// What is taken from the input; the fields below are not sent then.
    pub same: u8,
    pub output: u16,
    pub key: Option<Vec<u8>>,
    /// Of a retry or fail: the message.
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
    pub timestamp: i64,
    /// Of the output; -1: by key.
    pub partition: i32,
    pub delay_ms: i64,
    pub code: u32,
}

impl Answer {
    /// An emission of the record as it is.
    pub fn pass(id: u32) -> Answer {
        Answer {
            id,
            outcome: EMIT,
            same: SAME_ALL,
            output: 0,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: 0,
            partition: -1,
            delay_ms: 0,
            code: 0,
        }
    }
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().unwrap())
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn i64_at(b: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

/// Cuts `n` bytes off the front.
fn take<'a>(b: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, rest) = b.split_at(n);
    *b = rest;
    head
}

pub fn now(frame: &[u8]) -> i64 {
    i64_at(frame, 24)
}

/// The records of a request frame. A broken frame panics.
pub fn records(frame: &[u8]) -> Vec<Record<'_>> {
    let mut topics = Vec::new();
    let mut table = &frame[BATCH..BATCH + u32_at(frame, 12) as usize];
    // Padding reads as topics without a name, which no record names.
    while table.len() >= 2 {
        let n = u16_at(take(&mut table, 2), 0) as usize;
        topics.push(take(&mut table, n));
    }
    let mut at = BATCH + u32_at(frame, 12) as usize;
    (0..u32_at(frame, 8))
        .map(|_| {
            let r = &frame[at..at + u32_at(frame, at) as usize];
            at += r.len();
            let flags = u16_at(r, 10);
            let mut rest = &r[RECORD..];
            let mut block = take(&mut rest, u32_at(r, 48) as usize);
            let mut headers = Vec::new();
            for _ in 0..u16_at(r, 14) {
                let sizes = take(&mut block, 6);
                let key = take(&mut block, u16_at(sizes, 0) as usize);
                let value = take(&mut block, u32_at(sizes, 2) as usize);
                headers.push((key.to_vec(), value.to_vec()));
            }
            let key = take(&mut rest, u32_at(r, 40) as usize);
            let value = take(&mut rest, u32_at(r, 44) as usize);
            Record {
                id: u32_at(r, 4),
                key: (flags & KEY_NULL == 0).then_some(key),
                value: (flags & VALUE_NULL == 0).then_some(value),
                headers,
                topic: topics[u16_at(r, 12) as usize],
                partition: u32_at(r, 32) as i32,
                offset: i64_at(r, 16),
                timestamp: i64_at(r, 24),
                attempt: u32_at(r, 36),
                redelivered: flags & REDELIVERED != 0,
                trace: &r[56..72],
            }
        })
        .collect()
}

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

    fn bytes(&mut self) -> &mut [u8] {
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr() as *mut u8, self.len) }
    }

    fn put(&mut self, b: &[u8]) {
        let at = self.len;
        self.len += b.len();
        if self.words.len() * 8 < self.len {
            self.words.resize((self.len + 7) / 8, 0);
        }
        self.bytes()[at..].copy_from_slice(b);
    }

    fn set_u32(&mut self, at: usize, v: u32) {
        self.bytes()[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }

    /// Begins a result frame for the request.
    pub fn begin(&mut self, request: &[u8]) {
        self.len = 0;
        self.put(&request[..BATCH]);
        self.bytes()[6..8].copy_from_slice(&2u16.to_le_bytes());
        self.set_u32(12, 0);
    }

    /// Ends the frame and returns its address and length.
    pub fn end(&mut self) -> u64 {
        let len = self.len as u32;
        self.set_u32(0, len);
        (self.words.as_ptr() as u64) << 32 | self.len as u64
    }

    pub fn answer(&mut self, a: &Answer) {
        let at = self.len;
        let emit = a.outcome == EMIT;
        let sent = |bit| !emit || a.same & bit == 0;
        let mut flags = 0;
        let mut key: &[u8] = &[];
        let mut headers: &[(Vec<u8>, Vec<u8>)] = &[];
        if emit && sent(SAME_KEY) {
            match &a.key {
                Some(k) => key = k,
                None => flags |= KEY_NULL,
            }
        }
        if emit && sent(SAME_HEADERS) {
            headers = &a.headers;
        }
        let mut value: &[u8] = &[];
        if sent(SAME_VALUE) {
            match &a.value {
                Some(v) => value = v,
                None if emit => flags |= VALUE_NULL,
                None => {}
            }
        }
        let block: usize = headers.iter().map(|(k, v)| 6 + k.len() + v.len()).sum();
        let mut h = [0u8; RECORD];
        h[4..8].copy_from_slice(&a.id.to_le_bytes());
        h[8] = a.outcome;
        h[9] = if emit { a.same } else { 0 };
        h[10..12].copy_from_slice(&flags.to_le_bytes());
        h[12..14].copy_from_slice(&a.output.to_le_bytes());
        h[14..16].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        h[16..24].copy_from_slice(&a.delay_ms.to_le_bytes());
        h[24..32].copy_from_slice(&a.timestamp.to_le_bytes());
        h[32..36].copy_from_slice(&a.partition.to_le_bytes());
        h[36..40].copy_from_slice(&a.code.to_le_bytes());
        h[40..44].copy_from_slice(&(key.len() as u32).to_le_bytes());
        h[44..48].copy_from_slice(&(value.len() as u32).to_le_bytes());
        h[48..52].copy_from_slice(&(block as u32).to_le_bytes());
        self.put(&h);
        for (k, v) in headers {
            self.put(&(k.len() as u16).to_le_bytes());
            self.put(&(v.len() as u32).to_le_bytes());
            self.put(k);
            self.put(v);
        }
        self.put(key);
        self.put(value);
        while self.len % 8 != 0 {
            self.put(&[0]);
        }
        let len = (self.len - at) as u32;
        self.set_u32(at, len);
    }
}
