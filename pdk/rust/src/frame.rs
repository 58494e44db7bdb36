//! The stage/1 frame: a batch header, a topic table, then records; an answer
//! is the record's own header with the outcome filled in. Little endian,
//! 8-byte alignment.

use std::convert::TryInto;

pub(crate) const BATCH: usize = 32;
pub(crate) const RECORD: usize = 72;

pub(crate) const VERSION: u16 = 1;
pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESULT: u16 = 2;

pub(crate) const EMIT: u8 = 0;
pub(crate) const DROP: u8 = 1;
pub(crate) const RETRY: u8 = 2;
pub(crate) const FAIL: u8 = 3;

pub(crate) const SAME_KEY: u8 = 1;
pub(crate) const SAME_VALUE: u8 = 2;
pub(crate) const SAME_HEADERS: u8 = 4;
pub(crate) const SAME_TIMESTAMP: u8 = 8;

pub(crate) const KEY_NULL: u16 = 1;
pub(crate) const VALUE_NULL: u16 = 2;
pub(crate) const REDELIVERED: u16 = 4;

/// The output partition that means: by key.
pub(crate) const BY_KEY: i32 = -1;

#[inline(always)]
pub(crate) fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

#[inline(always)]
pub(crate) fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

#[inline(always)]
pub(crate) fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

/// A growing run of bytes that begins at a multiple of 8.
pub struct Buffer {
    words: Vec<u64>,
    len: usize,
}

impl Buffer {
    pub(crate) const fn new() -> Self {
        Buffer {
            words: Vec::new(),
            len: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.words.as_mut_ptr() as *mut u8
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    #[inline(always)]
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Room for `n` more bytes; false if memory ran out.
    pub(crate) fn try_room(&mut self, n: usize) -> bool {
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
        let len = self.words.len();
        // Reserved above. One fill: resize is a loop in builds for size.
        unsafe {
            std::ptr::write_bytes(self.words.as_mut_ptr().add(len), 0, words - len);
            self.words.set_len(words);
        }
        true
    }

    /// As try_room; ends the guest when memory runs out, which the host
    /// reports as a failure of class memory.
    #[inline(always)]
    pub(crate) fn room(&mut self, n: usize) {
        if !self.try_room(n) {
            panic!("no memory for an answer of {} bytes more", n);
        }
    }

    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        // Any eight bytes are a u64 and the reverse.
        unsafe {
            std::slice::from_raw_parts_mut(self.words.as_mut_ptr() as *mut u8, self.words.len() * 8)
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn written(&self) -> &[u8] {
        // len is within the words, and any word is eight bytes.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr() as *const u8, self.len) }
    }

    #[inline(always)]
    pub(crate) fn word(&mut self, at: usize, w: u64) {
        self.bytes()[at..at + 8].copy_from_slice(&w.to_le_bytes());
    }

    /// Appends `n` bytes of any content.
    #[inline(always)]
    pub(crate) fn skip(&mut self, n: usize) {
        self.room(n);
        self.len += n;
    }

    #[inline(always)]
    pub(crate) fn extend(&mut self, s: &[u8]) {
        self.room(s.len());
        let len = self.len;
        self.bytes()[len..len + s.len()].copy_from_slice(s);
        self.len += s.len();
    }

    /// Appends zeros up to a multiple of 8.
    #[inline(always)]
    pub(crate) fn pad(&mut self) {
        let len = self.len;
        let end = (len + 7) & !7;
        self.room(end - len);
        self.bytes()[len..end].iter_mut().for_each(|c| *c = 0);
        self.len = end;
    }
}

/// The end of a buffer while a value is written there: what the buffer knows of
/// itself, in variables of its own. Nobody else uses the buffer meanwhile.
pub(crate) struct Cursor {
    base: *mut u8,
    len: usize,
    room: usize,
}

impl Cursor {
    #[inline(always)]
    pub(crate) fn of(buf: &mut Buffer) -> Self {
        Cursor {
            base: buf.as_mut_ptr(),
            len: buf.len,
            room: buf.words.len() * 8,
        }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes sure that there is room for `n` more bytes, and returns where they
    /// go.
    #[inline(always)]
    fn end(&mut self, buf: &mut Buffer, n: usize) -> *mut u8 {
        if n > self.room - self.len {
            self.grow(buf, n);
        }
        // len is within the buffer.
        unsafe { self.base.add(self.len) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, buf: &mut Buffer, n: usize) {
        buf.len = self.len;
        buf.room(n);
        *self = Cursor::of(buf);
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, buf: &mut Buffer, c: u8) {
        // There is room for it.
        unsafe { self.end(buf, 1).write(c) };
        self.len += 1;
    }

    #[inline(always)]
    pub(crate) fn extend(&mut self, buf: &mut Buffer, s: &[u8]) {
        // There is room for them, and what is lent out is not the buffer's.
        unsafe { std::ptr::copy_nonoverlapping(s.as_ptr(), self.end(buf, s.len()), s.len()) };
        self.len += s.len();
    }

    /// Appends `src[from..to]`. Short copies go by 32 bytes where both sides
    /// have room for it: for a length that is not constant, a call of
    /// memory.copy costs more than the bytes.
    #[inline(always)]
    pub(crate) fn copy(&mut self, buf: &mut Buffer, src: &[u8], from: usize, to: usize) {
        const CHUNK: usize = 32;
        const SHORT: usize = 256;
        let part = &src[from..to];
        let n = part.len();
        let dst = self.end(buf, n + CHUNK);
        if n <= SHORT && src.len() - to >= CHUNK {
            let mut done = 0;
            while done < n {
                // Within both: done < n, and each has CHUNK bytes behind n.
                unsafe {
                    let chunk = part.as_ptr().add(done) as *const [u8; CHUNK];
                    (dst.add(done) as *mut [u8; CHUNK]).write_unaligned(chunk.read_unaligned());
                }
                done += CHUNK;
            }
        } else {
            // There is room for them.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), dst, n) };
        }
        self.len += n;
    }

    /// Ends the record that begins at `at`: pads it with zeros up to a multiple
    /// of 8 and writes the words of its header, of which the first gets the
    /// length. The buffer ends there.
    #[inline(always)]
    pub(crate) fn finish(mut self, buf: &mut Buffer, at: usize, mut header: [u64; RECORD / 8]) {
        // There is room for eight bytes more.
        unsafe { (self.end(buf, 8) as *mut u64).write_unaligned(0) };
        self.len = (self.len + 7) & !7;
        header[0] |= (self.len - at) as u64;
        assert!(at % 8 == 0 && at + RECORD <= self.len);
        let to = unsafe { self.base.add(at) as *mut [u64; RECORD / 8] };
        // Within the buffer, which begins at a multiple of 8.
        unsafe { to.write(header.map(u64::to_le)) };
        buf.len = self.len;
    }
}
