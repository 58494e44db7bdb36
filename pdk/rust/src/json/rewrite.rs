//! A changed copy of an object, written while its members are read.

use super::{Member, Object, Span, ToJson};
use crate::answer::{Failure, Result, Writer};
use std::ops::Range;

/// A changed copy of an [`Object`] under way into the answer. What is not
/// touched is copied byte for byte, in the same order, without the white space
/// between members; whole runs of untouched members are one copy.
///
/// ```
/// use millrace_pdk::*;
///
/// fn mask(r: &Record, out: &mut Out) -> Result {
///     let event = r.scan();
///     let mut to = out.rewrite(&event);
///     while let Some(member) = to.next()? {
///         if member.is("internal_note") {
///             to.remove();
///         } else if member.is("customer_id") {
///             to.rename("customer");
///         } else if member.is("email") {
///             to.set("***");
///         }
///     }
///     to.emit()
/// }
///
/// let event = r#"{"customer_id":7, "email":"a@b", "internal_note":"", "x":[1, 2]}"#;
/// let answers = testing::Batch::of(event).run(mask);
/// assert_eq!(answers.value(0), Some(r#"{"customer":7,"email":"***","x":[1, 2]}"#));
/// ```
pub struct Rewrite<'o, 'a> {
    writer: Writer<'o, 'a>,
    object: &'o Object<'o>,
    next: usize,
    span: Span,
    state: State,
    /// Untouched text that waits to be copied.
    run: (usize, usize),
    /// A member is written, or in the run.
    kept: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// The member is to be kept as it is.
    Untouched,
    /// Its key is written or in the run, and so is a part of its value.
    Begun,
    /// Nothing of it is left to write.
    Done,
}

/// A run that nothing follows.
const NOWHERE: (usize, usize) = (usize::MAX - 1, usize::MAX - 1);

impl<'o, 'a> Rewrite<'o, 'a> {
    #[inline(always)]
    pub(crate) fn new(mut writer: Writer<'o, 'a>, object: &'o Object<'o>) -> Self {
        let tight = object.text.first() == Some(&b'{');
        if !tight {
            writer.push(b'{');
        }
        Rewrite {
            writer,
            object,
            next: 0,
            span: Span {
                key: 0,
                key_end: 0,
                value: 0,
                value_end: 0,
            },
            state: State::Done,
            run: if tight { (0, 1) } else { NOWHERE },
            kept: false,
        }
    }

    /// The next member, which is kept unless remove, rename, set or splice say
    /// otherwise; None behind the last. A fault of the text fails the record,
    /// behind the members that stand before it.
    #[inline(always)]
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Member<'o>>> {
        self.settle();
        if self.next == self.object.spans.len() {
            return match self.object.fault {
                None => Ok(None),
                Some(fault) => Err(Failure::from(fault)),
            };
        }
        let member = self.object.member(self.next);
        self.span = self.object.spans[self.next];
        self.next += 1;
        self.state = State::Untouched;
        Ok(Some(member))
    }

    /// Leaves the member out.
    #[inline(always)]
    pub fn remove(&mut self) {
        if self.state == State::Untouched {
            self.state = State::Done;
        }
    }

    /// Gives the member another name. It comes before set and splice.
    #[inline(always)]
    pub fn rename(&mut self, name: &str) {
        if self.state != State::Untouched {
            return;
        }
        self.comma();
        let value = self.span.value as usize;
        if name.bytes().all(|c| c >= 0x20 && c != b'"' && c != b'\\') {
            self.writer.push(b'"');
            self.writer.bytes(name.as_bytes());
            if value == self.span.key_end as usize + 2 {
                self.run = (value - 2, value);
            } else {
                self.writer.bytes(b"\":");
                self.run = (value, value);
            }
        } else {
            self.writer.bytes(name.to_json().as_bytes());
            self.writer.push(b':');
            self.run = (value, value);
        }
        self.state = State::Begun;
    }

    /// Gives the member another value.
    pub fn set<T: ToJson + ?Sized>(&mut self, value: &T) {
        self.set_raw(value.to_json().as_bytes());
    }

    /// Gives the member another value, written as JSON already. That it is
    /// valid is the caller's affair.
    pub fn set_raw(&mut self, json: &[u8]) {
        if self.state == State::Done {
            return;
        }
        self.begin();
        self.flush();
        self.writer.bytes(json);
        let end = self.span.value_end as usize;
        self.run = (end, end);
        self.state = State::Done;
    }

    /// Replaces these bytes of the value's text, quotes counted, by others.
    /// Several splices of a value go from left to right. That the value stays
    /// valid JSON is the caller's affair.
    ///
    /// Panics if the range does not lie in the value behind the last splice.
    #[inline(always)]
    pub fn splice(&mut self, range: Range<usize>, text: &str) {
        if self.state == State::Done {
            return;
        }
        self.begin();
        let value = self.span.value as usize;
        let (from, to) = (value + range.start, value + range.end);
        assert!(
            self.run.1 <= from && from <= to && to <= self.span.value_end as usize,
            "splice({}..{}) of a value of {} bytes",
            range.start,
            range.end,
            self.span.value_end as usize - value
        );
        self.run.1 = from;
        self.flush();
        self.writer.bytes(text.as_bytes());
        self.run = (to, to);
    }

    /// Adds a member behind those that were read so far.
    pub fn add<T: ToJson + ?Sized>(&mut self, name: &str, value: &T) {
        self.settle();
        self.state = State::Done;
        self.comma();
        let mut text = name.to_json();
        text.push(':');
        value.append(&mut text);
        self.writer.bytes(text.as_bytes());
        self.run = NOWHERE;
    }

    /// Emits the copy. Members that were not read yet are kept.
    #[inline(always)]
    pub fn emit(mut self) -> Result {
        while self.next()?.is_some() {}
        // The run may go on to the bracket that ends the object.
        if self.run.1 < self.object.text.len() && self.object.text[self.run.1] == b'}' {
            self.run.1 += 1;
            self.flush();
        } else {
            self.flush();
            self.writer.push(b'}');
        }
        self.writer.emit()
    }

    /// Completes the member that was read last.
    #[inline(always)]
    fn settle(&mut self) {
        if self.state == State::Untouched {
            self.begin();
        }
        if self.state == State::Begun {
            self.run.1 = self.span.value_end as usize;
        }
    }

    /// Puts the key into the run, unless it is written.
    #[inline(always)]
    fn begin(&mut self) {
        if self.state != State::Untouched {
            return;
        }
        self.state = State::Begun;
        let quote = self.span.key as usize - 1;
        let colon = self.span.key_end as usize + 1;
        // Between two members there is one comma, so one byte is that.
        if quote != self.run.1 + usize::from(self.kept) {
            self.comma();
            self.run.0 = quote;
        }
        self.kept = true;
        if self.span.value as usize == colon + 1 {
            self.run.1 = colon + 1;
        } else {
            self.run.1 = colon;
            self.flush();
            self.writer.push(b':');
            self.run = (self.span.value as usize, self.span.value as usize);
        }
    }

    /// Writes what waits and the comma before another member.
    #[inline(always)]
    fn comma(&mut self) {
        self.flush();
        if self.kept {
            self.writer.push(b',');
        }
        self.kept = true;
    }

    #[inline(always)]
    fn flush(&mut self) {
        let (from, to) = self.run;
        if from < to {
            self.writer.copy(self.object.text, from, to);
        }
        self.run.0 = to;
    }
}
