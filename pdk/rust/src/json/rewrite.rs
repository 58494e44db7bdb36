//! A changed copy of an object, written while its members are read.

use super::{Fault, Member, Object, Span, ToJson};
use crate::answer::{Failure, Result, Writer};
use std::ops::Range;

/// A changed copy of an [`Object`] under way into the answer. What is not
/// touched is copied byte for byte, in the same order, without the white space
/// between members; whole runs of untouched members are one copy, and cost
/// nothing before.
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
    // Of the object, so that its fields are variables of the stage's own loop.
    text: &'o [u8],
    spans: &'o [Span],
    escapes: bool,
    fault: Option<Fault>,
    /// The object without white space between its members, where it has some.
    tight: Option<Tight>,
    /// The number of members that were read.
    next: usize,
    /// The member that was touched last, as `next` was then, and how.
    touched: usize,
    state: State,
    /// Where the text begins that is not written yet. It is copied as it is up to
    /// what is touched next. If members stand before, it begins with the comma
    /// behind them.
    from: usize,
    removed: usize,
    added: usize,
    /// A member was added before the first one: a comma comes before that.
    comma: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Its key is written, or a part of its value.
    Begun,
    /// Nothing of it is left to write.
    Done,
}

struct Tight {
    text: Vec<u8>,
    spans: Vec<Span>,
}

impl Tight {
    #[cold]
    fn of(object: &Object<'_>) -> Self {
        let mut text = vec![b'{'];
        let mut spans = Vec::with_capacity(object.spans.len());
        for s in &object.spans {
            if text.len() > 1 {
                text.push(b',');
            }
            text.push(b'"');
            let key = text.len();
            text.extend_from_slice(&object.text[s.key as usize..s.key_end as usize]);
            let key_end = text.len();
            text.extend_from_slice(b"\":");
            text.extend_from_slice(&object.text[s.value as usize..s.value_end as usize]);
            spans.push(Span {
                key: key as u32,
                key_end: key_end as u32,
                value: key_end as u32 + 2,
                value_end: text.len() as u32,
            });
        }
        text.push(b'}');
        Tight { text, spans }
    }
}

impl<'o, 'a> Rewrite<'o, 'a> {
    #[inline(always)]
    pub(crate) fn new(writer: Writer<'o, 'a>, object: &'o Object<'o>) -> Self {
        Rewrite {
            writer,
            text: object.text,
            spans: &object.spans,
            escapes: object.escapes,
            fault: object.fault,
            tight: if object.tight {
                None
            } else {
                Some(Tight::of(object))
            },
            next: 0,
            touched: usize::MAX,
            state: State::Done,
            from: 0,
            removed: 0,
            added: 0,
            comma: false,
        }
    }

    /// The next member, which is kept unless remove, rename, set or splice say
    /// otherwise; None behind the last. A fault of the text fails the record,
    /// behind the members that stand before it.
    #[inline(always)]
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Member<'o>>> {
        if self.next == self.spans.len() {
            return match self.fault {
                None => Ok(None),
                Some(fault) => Err(Failure::from(fault)),
            };
        }
        let member = super::member(self.text, self.spans[self.next], self.escapes);
        self.next += 1;
        Ok(Some(member))
    }

    /// Leaves the member out.
    #[inline(always)]
    pub fn remove(&mut self) {
        if self.next == 0 || self.touched == self.next {
            return;
        }
        let span = self.span();
        if self.kept() > 1 {
            // Without the comma before it.
            self.copy_to(span.key as usize - 2);
            self.from = span.value_end as usize;
            self.comma = false;
        } else {
            // Without the comma behind it, which is there unless it is the last.
            self.copy_to(span.key as usize - 1);
            let last = self.next == self.spans.len();
            self.from = span.value_end as usize + usize::from(!last);
        }
        self.removed += 1;
        self.touch(State::Done);
    }

    /// Gives the member another name. It comes before set and splice.
    #[inline(always)]
    pub fn rename(&mut self, name: &str) {
        if self.next == 0 || self.touched == self.next {
            return;
        }
        let span = self.span();
        if is_plain(name) {
            self.copy_to(span.key as usize);
            self.writer.bytes(name.as_bytes());
            self.from = span.key_end as usize;
        } else {
            self.copy_to(span.key as usize - 1);
            self.comma();
            self.writer.bytes(name.to_json().as_bytes());
            self.from = span.key_end as usize + 1;
        }
        self.touch(State::Begun);
    }

    /// Gives the member another value.
    pub fn set<T: ToJson + ?Sized>(&mut self, value: &T) {
        self.set_raw(value.to_json().as_bytes());
    }

    /// Gives the member another value, written as JSON already. That it is
    /// valid is the caller's affair.
    pub fn set_raw(&mut self, json: &[u8]) {
        if !self.is_open() {
            return;
        }
        let span = self.span();
        self.copy_to(span.value as usize);
        self.writer.bytes(json);
        self.from = span.value_end as usize;
        self.touch(State::Done);
    }

    /// Replaces these bytes of the value's text, quotes counted, by others.
    /// Several splices of a value go from left to right. That the value stays
    /// valid JSON is the caller's affair.
    ///
    /// Panics if the range does not lie in the value behind the last splice.
    #[inline(always)]
    pub fn splice(&mut self, range: Range<usize>, text: &str) {
        if !self.is_open() {
            return;
        }
        let span = self.span();
        let value = span.value as usize;
        let (from, to) = (value + range.start, value + range.end);
        assert!(
            self.from <= from && from <= to && to <= span.value_end as usize,
            "splice({}..{}) of a value of {} bytes",
            range.start,
            range.end,
            span.value_end as usize - value
        );
        self.copy_to(from);
        self.writer.bytes(text.as_bytes());
        self.from = to;
        self.touch(State::Begun);
    }

    /// Adds a member behind those that were read so far.
    pub fn add<T: ToJson + ?Sized>(&mut self, name: &str, value: &T) {
        let end = match self.next {
            0 => 1,
            _ => self.span().value_end as usize,
        };
        self.copy_to(end);
        if self.kept() > 0 {
            self.writer.push(b',');
        }
        let mut text = name.to_json();
        text.push(':');
        value.append(&mut text);
        self.writer.bytes(text.as_bytes());
        self.comma = self.next == 0 && !self.spans.is_empty();
        self.added += 1;
        self.from = end;
        self.touch(State::Done);
    }

    /// Emits the copy. Members that were not read yet are kept.
    #[inline(always)]
    pub fn emit(mut self) -> Result {
        if let Some(fault) = self.fault {
            return Err(Failure::from(fault));
        }
        let (_, spans) = self.source();
        let end = spans.last().map_or(1, |s| s.value_end as usize);
        self.copy_to(end + 1);
        self.writer.emit()
    }

    #[inline(always)]
    fn source(&self) -> (&[u8], &[Span]) {
        match &self.tight {
            None => (self.text, self.spans),
            Some(tight) => (&tight.text, &tight.spans),
        }
    }

    /// Where the member that was read last lies in the source.
    #[inline(always)]
    fn span(&self) -> Span {
        self.source().1[self.next - 1]
    }

    /// The number of members that the copy has so far, that read last counted.
    #[inline(always)]
    fn kept(&self) -> usize {
        self.next - self.removed + self.added
    }

    #[inline(always)]
    fn touch(&mut self, state: State) {
        self.touched = self.next;
        self.state = state;
    }

    /// Whether there is a member whose value can still be changed.
    #[inline(always)]
    fn is_open(&self) -> bool {
        self.next > 0 && (self.touched != self.next || self.state == State::Begun)
    }

    #[inline(always)]
    fn comma(&mut self) {
        if self.comma {
            self.writer.push(b',');
            self.comma = false;
        }
    }

    /// Writes the source up to that place.
    #[inline(always)]
    fn copy_to(&mut self, to: usize) {
        if self.from < to {
            self.comma();
            let text = match &self.tight {
                None => self.text,
                Some(tight) => &tight.text,
            };
            self.writer.copy(text, self.from, to);
            self.from = to;
        }
    }
}

/// Whether the name needs no escapes. Without an early end: of a constant name
/// nothing is left of it.
#[inline(always)]
fn is_plain(name: &str) -> bool {
    !name.bytes().fold(false, |bad, c| {
        bad | (c < 0x20) | (c == b'"') | (c == b'\\')
    })
}
