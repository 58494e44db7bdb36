//! Whole structs by serde.

#![cfg(feature = "serde")]

use millrace_pdk::testing::{Batch, Input};
use millrace_pdk::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;

#[derive(Deserialize, Serialize)]
struct Order<'a> {
    id: u64,
    #[serde(borrow)]
    city: Cow<'a, str>,
    #[serde(default)]
    test: bool,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Rules {
    add: u64,
}

stage!(stage, config: Rules = config::by_serde, outputs: { AUDIT: "audit" });

fn stage(r: &Record, out: &mut Out, rules: &Rules) -> Result {
    let mut order: Order = r.parse()?;
    if order.test {
        return out.drop();
    }
    order.id += rules.add;
    out.emit_json(&order)?;
    out.to(AUDIT).key("audited").emit_json(&[order.id])
}

#[test]
fn structs_come_and_go() {
    let rules = config::by_serde(br#"{"add":1}"#).unwrap();
    let answers = Batch::of(r#"{"city":"K\u00f6ln","id":7}"#)
        .add(Input::value(r#"{"id":1,"city":"","test":true}"#))
        .add(Input::value(r#"{"id":"x"}"#))
        .add(Input::tombstone())
        .run_with(&rules, stage);
    let emitted = answers.emitted(0);
    let value = |i: usize| String::from_utf8(emitted[i].value.clone().unwrap()).unwrap();
    assert_eq!(value(0), r#"{"id":8,"city":"Köln","test":false}"#);
    assert_eq!((value(1).as_str(), emitted[1].output), ("[8]", AUDIT));
    assert_eq!(emitted[1].key.as_deref(), Some(&b"audited"[..]));
    assert!(answers.is_dropped(1));
    let message = |i| answers.failure(i).unwrap().message().to_owned();
    assert!(
        message(2).contains("invalid type: string \"x\", expected u64"),
        "{}",
        message(2)
    );
    assert_eq!(message(3), "the record has no value (a tombstone)");
}

#[test]
fn what_cannot_be_written_fails() {
    let answers = Batch::of("x").run(|_, out| {
        let mut map = HashMap::new();
        map.insert(vec![1], 2);
        out.emit_json(&map)
    });
    assert_eq!(
        answers.failure(0).unwrap().message(),
        "key must be a string"
    );
}

#[test]
fn a_configuration_is_refused_with_the_reason() {
    let err = config::by_serde::<Rules>(br#"{"sub":1}"#).unwrap_err();
    assert_eq!(
        err.to_string(),
        "with: unknown field `sub`, expected `add` at line 1 column 6"
    );
}
