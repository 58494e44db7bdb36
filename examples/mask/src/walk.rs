//! The way through a record's value.

use crate::kinds::Kind;
use crate::rules::{Masked, Plan, Step};
use crate::text;
use millrace_pdk::json::{Kind as Json, Member, ToJson, Value};
use std::collections::BTreeMap;

/// What became of a member.
#[derive(PartialEq)]
pub enum Did {
    Nothing,
    /// The new value is in `Walk::text`.
    Changed,
    Removed,
}

pub struct Walk<'p> {
    plan: &'p Plan,
    /// What a value became, as JSON.
    pub text: String,
    /// How many values were masked, by rule.
    pub masked: BTreeMap<String, u32>,
}

/// A rule, and how much of its path led here.
type Place<'p> = (&'p Masked, usize);

impl<'p> Walk<'p> {
    pub fn new(plan: &'p Plan) -> Self {
        Walk {
            plan,
            text: String::new(),
            masked: BTreeMap::new(),
        }
    }

    /// Masks a member of the record.
    pub fn member(&mut self, member: &Member) -> Did {
        self.text.clear();
        let places: Vec<Place> = self.plan.fields.iter().map(|f| (f, 0)).collect();
        self.named(member, &places, None)
    }

    /// Appends what becomes of a member's value. `whole` is the rule of an
    /// object around it, if there is one.
    fn named(&mut self, member: &Member, places: &[Place<'p>], whole: Option<&'p Masked>) -> Did {
        let (mut hit, mut below) = (None, Vec::new());
        for &(field, at) in places {
            let mut step = |at: usize| {
                let fits = match &field.path[at] {
                    Step::Name(name) => member.is(name),
                    _ => true,
                };
                if fits && at + 1 == field.path.len() {
                    hit = hit.or(Some(field));
                } else if fits {
                    below.push((field, at + 1));
                }
            };
            if let Step::Deep = field.path[at] {
                step(at + 1);
                below.push((field, at));
            } else {
                step(at);
            }
        }
        // A rule for what is inside wins over one for what is around it.
        let whole = hit.or(whole);
        if whole.map_or(false, |f| f.kind == Kind::Remove) {
            self.count(whole);
            return Did::Removed;
        }
        if self.value(&member.value(), &below, whole) {
            Did::Changed
        } else {
            Did::Nothing
        }
    }

    /// Appends what becomes of a value; whether that is another one.
    fn value(&mut self, value: &Value, places: &[Place<'p>], whole: Option<&'p Masked>) -> bool {
        let from = self.text.len();
        let changed = match value.kind() {
            Json::Object if whole.is_some() || !places.is_empty() || self.reads() => {
                self.object(value, places, whole)
            }
            Json::Array if whole.is_some() || !places.is_empty() || self.reads() => {
                self.list(value, places, whole)
            }
            Json::String | Json::Number | Json::Bool => self.scalar(value, whole),
            _ => false,
        };
        if !changed {
            self.text.truncate(from);
            value.append(&mut self.text);
        }
        changed
    }

    fn object(&mut self, value: &Value, places: &[Place<'p>], whole: Option<&'p Masked>) -> bool {
        let (mut changed, mut first) = (false, true);
        self.text.push('{');
        for member in value.object().iter().flat_map(|o| o.members()).flatten() {
            let from = self.text.len();
            if !first {
                self.text.push(',');
            }
            member.name().append(&mut self.text);
            self.text.push(':');
            match self.named(&member, places, whole) {
                Did::Removed => {
                    self.text.truncate(from);
                    changed = true;
                }
                did => {
                    first = false;
                    changed |= did == Did::Changed;
                }
            }
        }
        self.text.push('}');
        changed
    }

    fn list(&mut self, value: &Value, places: &[Place<'p>], whole: Option<&'p Masked>) -> bool {
        let mut changed = false;
        self.text.push('[');
        for (i, item) in value.items().into_iter().flatten().enumerate() {
            if i > 0 {
                self.text.push(',');
            }
            changed |= self.value(&item, places, whole);
        }
        self.text.push(']');
        changed
    }

    fn scalar(&mut self, value: &Value, whole: Option<&'p Masked>) -> bool {
        let text = value.as_str();
        if let Some(field) = whole {
            let text = text.unwrap_or_else(|| String::from_utf8_lossy(value.raw()));
            let masked = field.kind.mask(&text, field.keep, self.plan.hash.as_ref());
            masked.append(&mut self.text);
            self.count(whole);
            return true;
        }
        let text = match text {
            Some(text) if self.reads() => text,
            _ => return false,
        };
        let found = text::mask(&text, self.plan.emails, self.plan.cards);
        for (what, n) in [("text email", found.emails), ("text card", found.cards)] {
            if n > 0 {
                *self.masked.entry(what.to_owned()).or_insert(0) += n;
            }
        }
        found.text.append(&mut self.text);
        found.emails + found.cards > 0
    }

    /// Whether texts without a rule are looked into.
    fn reads(&self) -> bool {
        self.plan.emails || self.plan.cards
    }

    fn count(&mut self, field: Option<&Masked>) {
        if let Some(field) = field {
            *self.masked.entry(field.name.clone()).or_insert(0) += 1;
        }
    }
}
