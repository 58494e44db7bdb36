//! A `sign` plugin: the HMAC-SHA256 of the body in hex, as a header.

use millrace_pdk::http::Request;
use millrace_pdk::sign::{Algorithm, Key};
use millrace_pdk::*;

config! {
    /// How requests are signed.
    struct Settings {
        /// The header that holds the signature.
        header: String = "X-Signature".to_owned(),
        /// The key's place in the flow's `keys`.
        key: u32 = 0,
        /// How often the body is signed; the last signature counts.
        times: u32 = 1,
        /// Adds the signature to the URL's query under this name too.
        query: Option<String>,
        /// Fails each request, with the signature in the message.
        refuse: bool = false,
    }
}

stage!(
    sign,
    config: Settings,
    sample: [r#"{"value":{"a":1},"headers":[{"key":":method","value":"POST"},{"key":":url","value":"https://partner.example/orders"}]}"#],
);

fn sign(r: &Record, out: &mut Out, settings: &Settings) -> Result {
    let request = Request::of(r)?;
    let mut hex = String::new();
    for _ in 0..settings.times {
        hex = Key::at(settings.key)
            .sign(Algorithm::HmacSha256, request.body())?
            .to_hex();
    }
    if settings.refuse {
        return fail(
            3,
            format!("{} {}: {}", request.method(), request.url(), hex),
        );
    }
    let mut url = request.url().to_owned();
    let signed = out.record().header(&settings.header, &hex);
    match &settings.query {
        None => signed.pass(),
        Some(name) => {
            let and = if url.contains('?') { '&' } else { '?' };
            url.push_str(&format!("{}{}={}", and, name, hex));
            signed.header(":url", &url).pass()
        }
    }
}
