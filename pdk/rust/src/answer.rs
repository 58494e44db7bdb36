//! What a stage answers.

use crate::frame::{self, Buffer, Cursor};
use crate::json::{Object, Rewrite};
use crate::record::Record;
use std::fmt;
use std::time::Duration;

/// What a stage function returns: an [`Answered`] from the call that answered,
/// or a [`Failure`].
pub type Result<T = Answered, E = Failure> = std::result::Result<T, E>;

/// Proof that the record was answered. Only the methods of [`Out`] make one,
/// so that a stage that forgets a record does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered(());

/// Why a record is not processed. Any error becomes one by `?`, with code 1
/// and its own message; [`fail`], [`retry_after`] and [`OrFail`] make others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub(crate) retry: Option<Duration>,
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Failure {
    /// The record cannot be processed.
    #[cold]
    pub fn fail(code: u32, message: impl Into<String>) -> Self {
        Failure {
            retry: None,
            code,
            message: message.into(),
        }
    }

    /// The record may be processed later.
    #[cold]
    pub fn retry(after: Duration, code: u32, message: impl Into<String>) -> Self {
        Failure {
            retry: Some(after),
            code,
            message: message.into(),
        }
    }

    /// Its code.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// Its message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl<E: fmt::Display> From<E> for Failure {
    #[cold]
    fn from(err: E) -> Self {
        Failure::fail(1, err.to_string())
    }
}

/// Fails the record: it goes where the flow's `otherwise` says, with this code
/// and message. For `return fail(7, "no such country");`.
#[cold]
pub fn fail<T>(code: u32, message: impl Into<String>) -> Result<T> {
    Err(Failure::fail(code, message))
}

/// Asks for the record to be tried again after the delay and the flow's own
/// backoff.
#[cold]
pub fn retry_after<T>(delay: Duration, code: u32, message: impl Into<String>) -> Result<T> {
    Err(Failure::retry(delay, code, message))
}

/// A code of one's own for an error or a missing value.
pub trait OrFail<T> {
    /// Fails the record with this code; the message is `what`, and the error
    /// behind it if there is one.
    fn or_fail(self, code: u32, what: &str) -> Result<T>;

    /// Asks for the record again after the delay.
    fn or_retry(self, after: Duration, code: u32, what: &str) -> Result<T>;
}

impl<T, E: fmt::Display> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, code: u32, what: &str) -> Result<T> {
        self.map_err(|e| Failure::fail(code, format!("{}: {}", what, e)))
    }

    fn or_retry(self, after: Duration, code: u32, what: &str) -> Result<T> {
        self.map_err(|e| Failure::retry(after, code, format!("{}: {}", what, e)))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_fail(self, code: u32, what: &str) -> Result<T> {
        self.ok_or_else(|| Failure::fail(code, what))
    }

    fn or_retry(self, after: Duration, code: u32, what: &str) -> Result<T> {
        self.ok_or_else(|| Failure::retry(after, code, what))
    }
}

/// An output of the plugin. `stage!` makes a constant for each that it is
/// given, so that a name that does not exist does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Output(u16);

impl Output {
    /// Where records go unless told otherwise.
    pub const DEFAULT: Output = Output(0);

    #[doc(hidden)]
    pub const fn at(index: u16) -> Self {
        Output(index)
    }

    /// Its place among the outputs of the manifest.
    pub fn index(&self) -> u16 {
        self.0
    }
}

/// The answers to one record. A stage emits any number of records, or drops
/// it; a failure that it returns takes back what was emitted for the record.
pub struct Out<'a> {
    buf: &'a mut Buffer,
    record: Record<'a>,
    /// Where the record's answers begin and where the last complete one ends.
    start: usize,
    done: usize,
    /// Something was emitted that a frame cannot express.
    fault: Option<Failure>,
}

impl<'a> Out<'a> {
    #[inline(always)]
    pub(crate) fn new(buf: &'a mut Buffer, record: Record<'a>) -> Self {
        let start = buf.len();
        Out {
            buf,
            record,
            start,
            done: start,
            fault: None,
        }
    }

    /// Emits the record as it is.
    #[inline]
    pub fn pass(&mut self) -> Result {
        self.record().pass()
    }

    /// Emits the record with this value; key, headers and timestamp stay.
    #[inline]
    pub fn emit<V: AsRef<[u8]> + ?Sized>(&mut self, value: &V) -> Result {
        self.record().emit(value)
    }

    /// Emits the record with a value that is written piece by piece.
    #[inline(always)]
    pub fn write(&mut self) -> Writer<'_, 'a> {
        self.record().write()
    }

    /// Emits the record with a changed copy of the object as its value.
    #[inline(always)]
    pub fn rewrite<'o>(&'o mut self, object: &'o Object<'o>) -> Rewrite<'o, 'a> {
        self.record().rewrite(object)
    }

    /// Begins a record to emit to that output.
    pub fn to(&mut self, output: Output) -> Emit<'_, 'a> {
        self.record().to(output)
    }

    /// Begins a record to emit: the input's, of which parts can be changed.
    #[inline(always)]
    pub fn record(&mut self) -> Emit<'_, 'a> {
        self.buf.truncate(self.done);
        let key = self.record.key();
        Emit {
            out: self,
            output: 0,
            partition: frame::BY_KEY,
            timestamp: None,
            key,
            own_headers: true,
            headers: Vec::new(),
        }
    }

    /// Drops the record, and takes back what was emitted for it.
    #[inline]
    pub fn drop(&mut self) -> Result {
        self.done = self.start;
        Ok(Answered(()))
    }

    /// Says that all is emitted, for stages that emit in a loop. If nothing
    /// was, the record is dropped.
    pub fn end(&mut self) -> Result {
        Ok(Answered(()))
    }

    /// Writes the record's answers as the function's result says.
    #[inline(always)]
    pub(crate) fn finish(mut self, result: Result) {
        match result {
            Ok(Answered(())) if self.fault.is_some() => {
                if let Some(fault) = self.fault.take() {
                    self.failed(&fault);
                }
            }
            Ok(Answered(())) => {
                self.buf.truncate(self.done);
                if self.done == self.start {
                    answer(self.buf, &self.record, frame::DROP, 0, 0, b"");
                }
            }
            Err(failure) => self.failed(&failure),
        }
    }

    #[cold]
    fn failed(self, failure: &Failure) {
        self.buf.truncate(self.start);
        let (outcome, delay) = match failure.retry {
            Some(delay) => (frame::RETRY, delay.as_millis().min(i64::MAX as u128) as u64),
            None => (frame::FAIL, 0),
        };
        answer(
            self.buf,
            &self.record,
            outcome,
            delay,
            failure.code,
            failure.message.as_bytes(),
        );
    }
}

/// An answer that emits nothing.
fn answer(buf: &mut Buffer, record: &Record, outcome: u8, delay: u64, code: u32, message: &[u8]) {
    let at = buf.len();
    buf.skip(frame::RECORD);
    buf.extend(message);
    buf.pad();
    let length = (buf.len() - at) as u64;
    buf.word(at, length | u64::from(record.id()) << 32);
    buf.word(at + 8, u64::from(outcome));
    buf.word(at + 16, delay);
    buf.word(at + 24, 0);
    buf.word(at + 32, u64::from(u32::MAX) | u64::from(code) << 32);
    buf.word(at + 40, (message.len() as u64) << 32);
    buf.word(at + 48, 0);
    buf.word(at + 56, 0);
    buf.word(at + 64, 0);
}

/// A record to emit. What is not changed is the input's, and what is the
/// input's is not sent again.
#[must_use = "nothing is emitted before emit, emit_null, pass or write"]
pub struct Emit<'o, 'a> {
    out: &'o mut Out<'a>,
    output: u16,
    partition: i32,
    timestamp: Option<i64>,
    key: Option<&'o [u8]>,
    own_headers: bool,
    headers: Vec<(&'o [u8], &'o [u8])>,
}

impl<'o, 'a> Emit<'o, 'a> {
    /// To another output.
    pub fn to(mut self, output: Output) -> Self {
        self.output = output.0;
        self
    }

    /// Another key.
    pub fn key<K: AsRef<[u8]> + ?Sized>(mut self, key: &'o K) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// No key.
    pub fn no_key(mut self) -> Self {
        self.key = None;
        self
    }

    /// One header more, behind the others.
    pub fn header<N, V>(mut self, name: &'o N, value: &'o V) -> Self
    where
        N: AsRef<[u8]> + ?Sized,
        V: AsRef<[u8]> + ?Sized,
    {
        self.headers.push((name.as_ref(), value.as_ref()));
        self
    }

    /// Without the input's headers.
    pub fn no_headers(mut self) -> Self {
        self.own_headers = false;
        self
    }

    /// Another time, in Unix milliseconds.
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    /// To this partition of the sink; otherwise the key decides.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = partition;
        self
    }

    /// Emits it with this value.
    #[inline]
    pub fn emit<V: AsRef<[u8]> + ?Sized>(self, value: &V) -> Result {
        let value = value.as_ref();
        if self
            .out
            .record
            .value()
            .map_or(false, |own| is_same(own, value))
        {
            return self.pass();
        }
        let mut w = self.write();
        w.bytes(value);
        w.emit()
    }

    /// Emits it with the input's own value.
    #[inline]
    pub fn pass(self) -> Result {
        let mut w = self.write();
        w.same |= frame::SAME_VALUE;
        w.emit()
    }

    /// Emits it with no value: a tombstone.
    pub fn emit_null(self) -> Result {
        let mut w = self.write();
        w.flags |= frame::VALUE_NULL;
        w.emit()
    }

    /// Emits it with a changed copy of the object as its value.
    #[inline(always)]
    pub fn rewrite(self, object: &'o Object<'o>) -> Rewrite<'o, 'a> {
        Rewrite::new(self.write(), object)
    }

    /// Emits it with a value that is written piece by piece.
    #[inline(always)]
    pub fn write(self) -> Writer<'o, 'a> {
        let record = self.out.record;
        let buf = &mut *self.out.buf;
        let at = buf.len();
        buf.skip(frame::RECORD);
        let (mut same, mut flags) = (0, 0);
        let mut headers = 0;
        if self.own_headers && self.headers.is_empty() {
            same |= frame::SAME_HEADERS;
        } else {
            if self.own_headers {
                headers = usize::from(record.header_count());
                buf.extend(record.header_bytes());
            }
            headers += self.headers.len();
            self.out.fault =
                put_headers(buf, &self.headers, headers).or_else(|| self.out.fault.take());
        }
        let headers_len = buf.len() - at - frame::RECORD;
        let mut key_len = 0;
        match (self.key, record.key()) {
            (Some(key), Some(own)) if is_same(own, key) => same |= frame::SAME_KEY,
            (None, None) => same |= frame::SAME_KEY,
            (None, Some(_)) => flags |= frame::KEY_NULL,
            (Some(key), _) => {
                key_len = key.len();
                buf.extend(key);
            }
        }
        if self.timestamp.is_none() {
            same |= frame::SAME_TIMESTAMP;
        }
        Writer {
            at,
            value: buf.len(),
            cursor: Cursor::of(buf),
            same,
            flags,
            output: self.output,
            partition: self.partition,
            timestamp: self.timestamp.unwrap_or(0),
            headers: headers as u16,
            headers_len: headers_len as u32,
            key_len: key_len as u32,
            out: self.out,
        }
    }
}

#[cold]
fn put_headers(buf: &mut Buffer, headers: &[(&[u8], &[u8])], all: usize) -> Option<Failure> {
    const MOST: usize = u16::MAX as usize;
    if all > MOST {
        return Some(Failure::fail(
            1,
            format!("emit with {} headers: at most {} are possible", all, MOST),
        ));
    }
    for (name, value) in headers {
        if name.len() > MOST {
            return Some(Failure::fail(
                1,
                format!(
                    "emit with a header name of {} bytes: at most {} are possible",
                    name.len(),
                    MOST
                ),
            ));
        }
        buf.extend(&(name.len() as u16).to_le_bytes());
        buf.extend(&(value.len() as u32).to_le_bytes());
        buf.extend(name);
        buf.extend(value);
    }
    None
}

/// Whether `b` is the slice `own`, not a copy of it.
#[inline(always)]
fn is_same(own: &[u8], b: &[u8]) -> bool {
    own.as_ptr() == b.as_ptr() && own.len() == b.len()
}

/// A value under way straight into the answer. It is emitted by `emit`; one
/// that is let go is not. It is an [`std::io::Write`] and a [`std::fmt::Write`].
#[must_use = "nothing is emitted before emit"]
pub struct Writer<'o, 'a> {
    out: &'o mut Out<'a>,
    at: usize,
    value: usize,
    cursor: Cursor,
    same: u8,
    flags: u16,
    output: u16,
    partition: i32,
    timestamp: i64,
    headers: u16,
    headers_len: u32,
    key_len: u32,
}

impl<'o, 'a> Writer<'o, 'a> {
    /// Appends a byte.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        self.cursor.push(self.out.buf, byte);
    }

    /// Appends bytes.
    #[inline(always)]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.cursor.extend(self.out.buf, bytes);
    }

    /// Appends `source[from..to]`; the bytes behind it may be read.
    #[inline(always)]
    pub(crate) fn copy(&mut self, source: &[u8], from: usize, to: usize) {
        self.cursor.copy(self.out.buf, source, from, to);
    }

    /// Emits the record.
    #[inline(always)]
    pub fn emit(self) -> Result {
        let value_len = (self.cursor.len() - self.value) as u64;
        let header = [
            u64::from(self.out.record.id()) << 32,
            u64::from(frame::EMIT)
                | u64::from(self.same) << 8
                | u64::from(self.flags) << 16
                | u64::from(self.output) << 32
                | u64::from(self.headers) << 48,
            0,
            self.timestamp as u64,
            u64::from(self.partition as u32),
            u64::from(self.key_len) | value_len << 32,
            u64::from(self.headers_len),
            0,
            0,
        ];
        self.cursor.finish(self.out.buf, self.at, header);
        self.out.done = self.out.buf.len();
        Ok(Answered(()))
    }
}

impl std::io::Write for Writer<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Writer<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
