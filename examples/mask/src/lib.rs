//! Masks what is personal in JSON records, by rules of the flow: fields by
//! their paths, and emails and card numbers in any text.

mod hmac;
mod kinds;
mod rules;
mod text;
mod walk;

use millrace_pdk::json::ToJson;
use millrace_pdk::*;
use rules::Plan;
use std::collections::BTreeMap;
use walk::Walk;

stage!(
    mask,
    config: Plan,
    outputs: { AUDIT: "audit" },
    sample: [
        r#"{"key":"c-1","value":{"id":1,"name":"Jane Doe","email":"jane@example.com","note":"card 4111 1111 1111 1111, mail jane@example.com","address":{"city":"Berlin"},"cards":[{"number":"4111111111111111"}]}}"#,
        r#"{"key":"c-2","value":{"id":2,"name":"Li","note":"","address":{"city":"Oslo"}}}"#,
    ],
    memory_mb: 16,
);

fn mask(r: &Record, out: &mut Out, plan: &Plan) -> Result {
    if r.value().is_none() {
        return out.pass();
    }
    let event = r.json()?;
    let mut walk = Walk::new(plan);
    let mut to = out.rewrite(&event);
    while let Some(member) = to.next()? {
        match walk.member(&member) {
            walk::Did::Nothing => {}
            walk::Did::Removed => to.remove(),
            walk::Did::Changed => to.set_raw(walk.text.as_bytes()),
        }
    }
    if walk.masked.is_empty() {
        drop(to);
        return out.pass();
    }
    to.emit()?;
    for (what, n) in &walk.masked {
        count(&counter(what), *n as f64);
    }
    if plan.audit {
        out.to(AUDIT).no_headers().emit(&audit(r, &walk.masked))?;
    }
    out.end()
}

/// The name of a counter has at most 128 bytes.
fn counter(what: &str) -> String {
    let mut name = format!("masked {}", what);
    while name.len() > 128 {
        name.pop();
    }
    name
}

/// What was masked in a record, by rule: numbers, no values.
fn audit(r: &Record, masked: &BTreeMap<String, u32>) -> String {
    let rules: Vec<String> = masked
        .iter()
        .map(|(what, n)| format!("{}:{}", what.to_json(), n))
        .collect();
    format!(
        "{{\"topic\":{},\"partition\":{},\"offset\":{},\"masked\":{{{}}}}}",
        r.topic().to_json(),
        r.partition(),
        r.offset(),
        rules.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_pdk::testing::{Batch, Input};

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn masked(config: &str, value: &str) -> String {
        let plan = testing::config(config).unwrap();
        let answers = Batch::of(value).run_with(&plan, mask);
        assert!(answers.failure(0).is_none(), "{:?}", answers.failure(0));
        answers.value(0).unwrap().to_owned()
    }

    #[test]
    fn fields_by_path() {
        let config = r#"{"fields":[
            {"path":"email","kind":"email"},
            {"path":"customer.name","kind":"name"},
            {"path":"cards.number","kind":"card"},
            {"path":"*.iban","kind":"iban"},
            {"path":"**.phone","kind":"phone"},
            {"path":"ref","kind":"keep_last","keep":3},
            {"path":"note","kind":"remove"},
            {"path":"secret","kind":"redact"}]}"#;
        for (value, want) in [
            (
                r#"{"id":1, "email":"jane@example.com"}"#,
                r#"{"id":1,"email":"j***@example.com"}"#,
            ),
            (
                r#"{"customer":{"id":1,"name":"Jane van Doe"},"name":"kept"}"#,
                r#"{"customer":{"id":1,"name":"J*** v*** D***"},"name":"kept"}"#,
            ),
            (
                r#"{"cards":[{"number":"4111-1111-1111-1111"},{"number":4111111111111111},{}]}"#,
                r#"{"cards":[{"number":"****-****-****-1111"},{"number":"************1111"},{}]}"#,
            ),
            (
                r#"{"bank":{"iban":"DE89 3704 0044 0532 0130 00"},"iban":"kept"}"#,
                r#"{"bank":{"iban":"DE** **** **** **** **30 00"},"iban":"kept"}"#,
            ),
            (
                r#"{"phone":"+49 30 1234567","a":{"b":[{"phone":"1234"}]}}"#,
                r#"{"phone":"+** ** *****67","a":{"b":[{"phone":"****"}]}}"#,
            ),
            (
                r#"{"ref":"AB-12345","note":"x","secret":[1,{"a":true}]}"#,
                r#"{"ref":"*****345","secret":["***",{"a":"***"}]}"#,
            ),
            (
                r#"{"email":null,"e\u006dail":"jane@example.com"}"#,
                r#"{"email":null,"e\u006dail":"j***@example.com"}"#,
            ),
            (
                r#"{"email":"a@example.com","email":"jane\u0040example.com"}"#,
                r#"{"email":"***@example.com","email":"j***@example.com"}"#,
            ),
        ] {
            assert_eq!(masked(config, value), want);
        }
    }

    #[test]
    fn the_first_rule_wins_and_what_is_below_a_field_is_masked_whole() {
        let config = r#"{"fields":[{"path":"a.b","kind":"redact"},{"path":"a","kind":"name"}]}"#;
        assert_eq!(
            masked(config, r#"{"a":{"b":"x y","c":["Jane",7,null]}}"#),
            r#"{"a":{"b":"***","c":["J***","7***",null]}}"#
        );
        let config = r#"{"fields":[{"path":"a.b","kind":"redact"},{"path":"**.b","kind":"name"}]}"#;
        assert_eq!(
            masked(config, r#"{"a":{"b":"Jane"},"b":"Jane"}"#),
            r#"{"a":{"b":"***"},"b":"J***"}"#
        );
    }

    #[test]
    fn text_that_no_rule_names() {
        let config = r#"{"text":["email","card"],"fields":[{"path":"id","kind":"keep_last"}]}"#;
        let value = r#"{"note":"mail jane@example.com or 4111 1111 1111 1111\n","list":[{"x":"joe@example.org"}],"n":4111111111111111,"id":"12345678"}"#;
        let want = r#"{"note":"mail j***@example.com or **** **** **** 1111\n","list":[{"x":"j***@example.org"}],"n":4111111111111111,"id":"****5678"}"#;
        assert_eq!(masked(config, value), want);
    }

    #[test]
    fn what_has_nothing_to_mask_is_passed_as_it_is() {
        let plan =
            testing::config(r#"{"text":["email"],"fields":[{"path":"email","kind":"email"}]}"#)
                .unwrap();
        let answers = Batch::of(r#"{ "id": 1, "a": {"b": [1, "x@y"]} }"#)
            .add(Input::tombstone().key("k"))
            .run_with(&plan, mask);
        for i in 0..2 {
            assert_eq!(answers.emitted(i)[0].same, [true; 4]);
        }
    }

    #[test]
    fn what_is_no_object_fails_and_nothing_of_it_goes_on() {
        let plan = testing::config(r#"{"text":["email"]}"#).unwrap();
        let answers = Batch::of(r#"{"email":"jane@example.com""#)
            .add(Input::value("jane@example.com"))
            .run_with(&plan, mask);
        assert_eq!(
            answers.failure(0).unwrap().message(),
            "cut off behind a value at byte 27"
        );
        assert_eq!(
            answers.failure(1).unwrap().message(),
            "not a JSON object: no '{' at byte 0"
        );
    }

    #[test]
    fn hashes_are_the_same_for_the_same() {
        let config = format!(
            r#"{{"hash_key":"{}","fields":[{{"path":"**.id","kind":"hash"}}]}}"#,
            KEY
        );
        let value = masked(&config, r#"{"id":"7","a":{"id":7},"b":{"id":"8"}}"#);
        let hash = &value[7..39];
        assert!(hash.bytes().all(|c| c.is_ascii_hexdigit()), "{}", value);
        assert!(
            value.contains(&format!(r#""a":{{"id":"{}"}}"#, hash)),
            "{}",
            value
        );
        assert_eq!(value.matches(hash).count(), 2, "{}", value);
        let other = masked(&config.replace("abcdef", "abcdeg"), r#"{"id":"7"}"#);
        assert!(!other.contains(hash), "{}", other);
    }

    #[test]
    fn an_audit_counts_and_shows_nothing() {
        let config =
            r#"{"audit":true,"text":["email"],"fields":[{"path":"**.name","kind":"name"}]}"#;
        let plan = testing::config(config).unwrap();
        let answers = Batch::new()
            .add(
                Input::value(r#"{"name":"Jane","a":[{"name":"Joe"}],"note":"joe@example.com"}"#)
                    .key("k")
                    .header("h", "v")
                    .from("people", 3, 9),
            )
            .add(Input::value("{}"))
            .run_with(&plan, mask);
        let emitted = answers.emitted(0);
        assert_eq!((emitted.len(), emitted[1].output), (2, AUDIT));
        assert_eq!(
            std::str::from_utf8(emitted[1].value.as_deref().unwrap()).unwrap(),
            r#"{"topic":"people","partition":3,"offset":9,"masked":{"**.name":2,"text email":1}}"#
        );
        assert!(emitted[1].headers.is_empty() && emitted[1].same[0]);
        assert_eq!(answers.counts["masked **.name"], 2.0);
        assert_eq!(answers.emitted(1).len(), 1, "nothing masked: no audit");
    }

    #[test]
    fn wrong_rules_are_refused() {
        for (config, want) in [
            (
                r#"{"fields":[{"path":"a","kind":"mail"}]}"#,
                r#"with.fields[0].kind: "mail" where one of email, card, phone, name, iban, keep_last, hash, redact, remove is expected"#,
            ),
            (
                r#"{"fields":[{"path":"","kind":"email"}]}"#,
                "with.fields[0].path: a path without a name between its dots",
            ),
            (
                r#"{"fields":[{"path":"a..b","kind":"email"}]}"#,
                "with.fields[0].path: a path without a name between its dots",
            ),
            (
                r#"{"fields":[{"path":"a.**","kind":"email"}]}"#,
                "with.fields[0].path: a path cannot end with **",
            ),
            (
                r#"{"fields":[{"path":"a","kind":"hash"}]}"#,
                "with: kind hash needs hash_key, a secret of at least 32 characters",
            ),
            (
                r#"{"hash_key":"short","fields":[{"path":"a","kind":"hash"}]}"#,
                "with: kind hash needs hash_key, a secret of at least 32 characters",
            ),
            (
                r#"{"text":["phone"]}"#,
                "with.text[0]: only email and card are found in text",
            ),
            (
                "{}",
                "with: neither fields nor text: nothing would be masked",
            ),
        ] {
            assert_eq!(testing::config::<Plan>(config).err().as_deref(), Some(want));
        }
    }
}
