//! The rules, as the flow's `with:` gives them.

use crate::hmac::Hmac;
use crate::kinds::Kind;
use millrace_pdk::config::{Config, Fault, Schema};
use millrace_pdk::json::Value;
use millrace_pdk::*;

config! {
    /// What is masked.
    struct Rules {
        /// Fields, the first rule that fits a field wins.
        fields: Vec<Field> = Vec::new(),
        /// What is masked in texts that no field rule names: email, card.
        text: Vec<Kind> = Vec::new(),
        /// The key of kind hash, at least 32 characters.
        hash_key: Option<String>,
        /// Emit to output audit what was masked in each record.
        audit: bool = false,
    }
}

config! {
    /// A field and how it is masked.
    struct Field {
        /// Names with dots between them; * is any name, ** any number of them. Lists are walked through.
        path: String,
        /// How it is masked.
        kind: Kind,
        /// How many characters kind keep_last leaves.
        keep: usize = 4,
    }
}

/// The rules, ready to be used.
pub struct Plan {
    pub fields: Vec<Masked>,
    pub emails: bool,
    pub cards: bool,
    pub hash: Option<Hmac>,
    pub audit: bool,
}

pub struct Masked {
    /// As the flow writes it.
    pub name: String,
    pub path: Vec<Step>,
    pub kind: Kind,
    pub keep: usize,
}

pub enum Step {
    Name(String),
    Any,
    Deep,
}

impl Config for Plan {
    const SCHEMA: Schema = Rules::SCHEMA;

    fn read(value: &Value<'_>) -> std::result::Result<Self, Fault> {
        let rules = Rules::read(value)?;
        if rules.fields.is_empty() && rules.text.is_empty() {
            return Err(Fault::new(
                "neither fields nor text: nothing would be masked",
            ));
        }
        let mut plan = Plan {
            fields: Vec::new(),
            emails: false,
            cards: false,
            hash: rules
                .hash_key
                .filter(|key| key.chars().count() >= 32)
                .map(|key| Hmac::new(key.as_bytes())),
            audit: rules.audit,
        };
        for (i, kind) in rules.text.iter().enumerate() {
            match kind {
                Kind::Email => plan.emails = true,
                Kind::Card => plan.cards = true,
                _ => {
                    return Err(Fault::new("only email and card are found in text")
                        .within(format_args!("text[{}]", i)))
                }
            }
        }
        for (i, field) in rules.fields.into_iter().enumerate() {
            if field.kind == Kind::Hash && plan.hash.is_none() {
                return Err(Fault::new(
                    "kind hash needs hash_key, a secret of at least 32 characters",
                ));
            }
            let path = path(&field.path)
                .map_err(|e| e.within("path").within(format_args!("fields[{}]", i)))?;
            plan.fields.push(Masked {
                name: field.path,
                path,
                kind: field.kind,
                keep: field.keep,
            });
        }
        Ok(plan)
    }
}

fn path(text: &str) -> std::result::Result<Vec<Step>, Fault> {
    let mut steps = Vec::new();
    for name in text.split('.') {
        steps.push(match name {
            "" => return Err(Fault::new("a path without a name between its dots")),
            "*" => Step::Any,
            "**" => Step::Deep,
            _ => Step::Name(name.to_owned()),
        });
    }
    match steps.last() {
        Some(Step::Deep) => Err(Fault::new("a path cannot end with **")),
        _ => Ok(steps),
    }
}
