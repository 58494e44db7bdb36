//! A `validate` plugin: what the member `code` of the body says counts, not the
//! status. 0 is taken, 429 is sent again, all else is refused for good.

use millrace_pdk::http::Response;
use millrace_pdk::*;
use std::time::Duration;

stage!(
    check,
    sample: [
        r#"{"value":{"code":0},"headers":[{"key":":status","value":"200"}]}"#,
        r#"{"value":{"code":7,"message":"no such order"},"headers":[{"key":":status","value":"200"}]}"#,
    ],
);

fn check(r: &Record, out: &mut Out) -> Result {
    let response = Response::of(r)?;
    let body = match r.json() {
        Ok(body) => body,
        Err(fault) => {
            let message = format!("status {}: {}", response.status(), fault.message());
            return retry_after(Duration::ZERO, u32::from(response.status()), message);
        }
    };
    let code = body.get("code").or_fail(1, "no code")?;
    let code = code.as_u64().or_fail(1, "the code is no number")? as u32;
    let message = match body.get("message").and_then(|m| m.as_str()) {
        Some(text) => text.into_owned(),
        None => format!("code {}", code),
    };
    match code {
        0 => out.pass(),
        429 => retry_after(Duration::from_secs(1), code, message),
        _ => fail(code, message),
    }
}
