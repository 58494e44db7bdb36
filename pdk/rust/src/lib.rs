//! Write [Millrace](https://github.com/millrace-io/millrace) stages in Rust.
//!
//! A stage is one function, and a plugin is that function and one macro line:
//!
//! ```
//! use millrace_pdk::*;
//!
//! stage!(redact);
//!
//! fn redact(r: &Record, out: &mut Out) -> Result {
//!     let event = r.json()?;
//!     let country = event.get("country").or_fail(7, "no country")?;
//!     if country.is("XX") {
//!         return out.drop();
//!     }
//!     let mut to = out.rewrite(&event);
//!     while let Some(member) = to.next()? {
//!         if member.is("email") {
//!             to.remove();
//!         }
//!     }
//!     to.emit()
//! }
//!
//! // cargo test: no node, no Wasm.
//! let answers = testing::Batch::of(r#"{"country":"DE","email":"a@b"}"#).run(redact);
//! assert_eq!(answers.value(0), Some(r#"{"country":"DE"}"#));
//! ```
//!
//! - [`Record`] is what comes in: views of the batch, nothing is copied.
//! - [`Out`] is what goes out: emit any number of records, to any output, or
//!   drop. What is the input's own is not sent again, without the author's
//!   doing.
//! - `?` fails the record with the error's message. [`fail`], [`retry_after`]
//!   and [`OrFail`] give codes. A panic fails the record too, and its message
//!   is in the failure; the other records of the batch go on.
//! - [`config!`] declares the configuration and its JSON Schema.
//! - [`json`] finds fields without parsing the rest. With the feature `serde`
//!   whole structs come and go: `Record::parse`, `emit_json`, `config::by_serde`.
//! - [`debug!`], [`info!`], [`warn!`], [`error!`] and [`count`] are seen by the
//!   operator.
//! - [`sign`] and [`http`] are for plugins that sign what a delivery sends, and
//!   judge what comes back.
//! - `testing` runs a stage in `cargo test`.
//!
//! A stage starts each batch from the same state: what a `static` holds after
//! one is gone before the next.

#![warn(missing_docs)]

mod answer;
#[cfg(feature = "serde")]
mod by_serde;
pub mod config;
mod frame;
mod host;
pub mod http;
pub mod json;
mod macros;
mod manifest;
mod record;
#[doc(hidden)]
#[allow(missing_docs)]
pub mod rt;
pub mod sign;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use answer::{fail, retry_after, Answered, Emit, Failure, OrFail, Out, Output, Result, Writer};
pub use config::Config;
pub use host::{count, log, Level};
pub use record::{Header, Headers, Record};
