//! The record as a stage sees it.

use crate::answer::{Failure, Result};
use crate::frame::{self, u16_at, u32_at, u64_at};
use crate::json::Object;
use std::convert::TryInto;

/// A record of the batch: a view of the host's bytes, copied nowhere. It is
/// small and `Copy`; what it hands out lives as long as the batch.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The frame from the record's header on, to the frame's end.
    tail: &'a [u8],
    topics: &'a [u8],
    headers_end: usize,
    key_end: usize,
    value_end: usize,
    flags: u16,
    batch_id: u64,
    now: i64,
}

/// The batch header and where its parts begin.
pub(crate) struct Request<'a> {
    frame: &'a [u8],
    topics: &'a [u8],
    pub(crate) count: u32,
    pub(crate) id: u64,
    pub(crate) now: i64,
    pub(crate) first: usize,
}

impl<'a> Request<'a> {
    pub(crate) fn read(frame: &'a [u8]) -> Option<Self> {
        let first = frame::BATCH.checked_add(u32_at(frame, 12)? as usize)?;
        if u16_at(frame, 6)? != frame::REQUEST {
            return None;
        }
        Some(Request {
            frame,
            topics: frame.get(frame::BATCH..first)?,
            count: u32_at(frame, 8)?,
            id: u64_at(frame, 16)?,
            now: u64_at(frame, 24)? as i64,
            first,
        })
    }

    /// The record at `at` and where the next one begins.
    #[inline(always)]
    pub(crate) fn record(&self, at: usize) -> Option<(Record<'a>, usize)> {
        let length = u32_at(self.frame, at)? as usize;
        let tail = self.frame.get(at..)?;
        let head = tail.get(..frame::RECORD)?;
        let headers_end = frame::RECORD.checked_add(u32_at(head, 48)? as usize)?;
        let key_end = headers_end.checked_add(u32_at(head, 40)? as usize)?;
        let value_end = key_end.checked_add(u32_at(head, 44)? as usize)?;
        if value_end > length || length > tail.len() {
            return None;
        }
        let record = Record {
            tail,
            topics: self.topics,
            headers_end,
            key_end,
            value_end,
            flags: u16_at(head, 10)?,
            batch_id: self.id,
            now: self.now,
        };
        Some((record, at + length))
    }
}

impl<'a> Record<'a> {
    /// The key; None if it is null.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        if self.flags & frame::KEY_NULL != 0 {
            return None;
        }
        Some(&self.tail[self.headers_end..self.key_end])
    }

    /// The value; None if it is null: a tombstone.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        if self.flags & frame::VALUE_NULL != 0 {
            return None;
        }
        Some(self.bytes())
    }

    /// The value, empty for a tombstone.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        &self.tail[self.key_end..self.value_end]
    }

    /// The value as text. A tombstone, or a value that is no UTF-8, is a
    /// failure with code 1, so that `r.text()?` fails the record.
    pub fn text(&self) -> Result<&'a str> {
        let value = self.value().ok_or_else(tombstone)?;
        std::str::from_utf8(value)
            .map_err(|e| Failure::fail(1, format!("the value is no text: {}", e)))
    }

    /// The value as a JSON object, valid as a whole. Anything else is a
    /// failure with code 1 that names the byte.
    #[inline]
    pub fn json(&self) -> Result<Object<'a>> {
        if self.value().is_none() {
            return Err(tombstone());
        }
        let object = self.scan();
        match object.fault() {
            None => Ok(object),
            Some(fault) => Err(Failure::from(fault)),
        }
    }

    /// The value as a JSON object that is read member by member: a fault shows
    /// only behind the members before it. For stages that decide early.
    #[inline]
    pub fn scan(&self) -> Object<'a> {
        let value = &self.tail[self.key_end..];
        Object::scan_prefix(value, self.value_end - self.key_end)
    }

    /// The headers in order; a name may occur several times.
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            rest: self.header_bytes(),
            left: self.header_count(),
        }
    }

    /// The value of the last header of that name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers()
            .filter(|h| h.name == name.as_bytes())
            .last()
            .map(|h| h.value)
    }

    /// The topic it was read from.
    pub fn topic(&self) -> &'a str {
        let mut table = self.topics;
        for _ in 0..self.u16(12) {
            table = u16_at(table, 0)
                .and_then(|n| table.get(2 + n as usize..))
                .unwrap_or(&[]);
        }
        u16_at(table, 0)
            .and_then(|n| table.get(2..2 + n as usize))
            .and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or("")
    }

    /// The partition it was read from.
    pub fn partition(&self) -> i32 {
        self.u32(32) as i32
    }

    /// Its offset in the partition.
    pub fn offset(&self) -> i64 {
        self.u64(16) as i64
    }

    /// Its time in Unix milliseconds.
    pub fn timestamp(&self) -> i64 {
        self.u64(24) as i64
    }

    /// How often it is tried, from 1.
    pub fn attempt(&self) -> u32 {
        self.u32(36)
    }

    /// Whether an earlier run may have processed it already.
    pub fn redelivered(&self) -> bool {
        self.flags & frame::REDELIVERED != 0
    }

    /// The trace that it belongs to.
    pub fn trace_id(&self) -> Option<[u8; 16]> {
        let id: [u8; 16] = self.tail[56..frame::RECORD].try_into().ok()?;
        if id == [0; 16] {
            None
        } else {
            Some(id)
        }
    }

    /// The time of the batch in Unix milliseconds: the only clock of a stage.
    /// A replay sees the same.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Identifies the call, not the record: after a failure a record may come
    /// again in another call.
    pub fn batch_id(&self) -> u64 {
        self.batch_id
    }

    pub(crate) fn id(&self) -> u32 {
        self.u32(4)
    }

    pub(crate) fn header_bytes(&self) -> &'a [u8] {
        &self.tail[frame::RECORD..self.headers_end]
    }

    pub(crate) fn header_count(&self) -> u16 {
        self.u16(14)
    }

    // The header is whole: Request::record looked.
    #[inline(always)]
    fn u16(&self, at: usize) -> u16 {
        u16_at(self.tail, at).unwrap_or(0)
    }

    #[inline(always)]
    fn u32(&self, at: usize) -> u32 {
        u32_at(self.tail, at).unwrap_or(0)
    }

    #[inline(always)]
    fn u64(&self, at: usize) -> u64 {
        u64_at(self.tail, at).unwrap_or(0)
    }
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/{}@{} ({} bytes)",
            self.topic(),
            self.partition(),
            self.offset(),
            self.bytes().len()
        )
    }
}

#[cold]
pub(crate) fn tombstone() -> Failure {
    Failure::fail(1, "the record has no value (a tombstone)")
}

/// A header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name, as a rule UTF-8.
    pub name: &'a [u8],
    /// Its value; null is empty.
    pub value: &'a [u8],
}

/// The headers of a record, in order.
#[derive(Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        let name_end = 6 + u16_at(self.rest, 0)? as usize;
        let end = name_end.checked_add(u32_at(self.rest, 2)? as usize)?;
        let header = Header {
            name: self.rest.get(6..name_end)?,
            value: self.rest.get(name_end..end)?,
        };
        self.rest = &self.rest[end..];
        Some(header)
    }
}
