//! Whole structs by serde, with the feature `serde`.

use crate::answer::{Emit, Failure, Out, Result};
use crate::config::Fault;
use crate::record::{tombstone, Record};
use serde::de::{Deserialize, DeserializeOwned};
use serde::Serialize;

impl<'a> Record<'a> {
    /// The value, read from JSON by serde. A tombstone, or a value that is no
    /// such JSON, is a failure with code 1, so that `r.parse()?` fails the
    /// record. Strings may be borrowed: `&'a str`, `Cow<'a, str>`.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T> {
        let value = self.value().ok_or_else(tombstone)?;
        serde_json::from_slice(value).map_err(Failure::from)
    }
}

impl Out<'_> {
    /// Emits the record with this value, written as JSON by serde; key, headers
    /// and timestamp stay. What serde cannot write fails the record.
    pub fn emit_json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.record().emit_json(value)
    }
}

impl Emit<'_, '_> {
    /// Emits it with this value, written as JSON by serde.
    pub fn emit_json<T: Serialize + ?Sized>(self, value: &T) -> Result {
        let mut to = self.write();
        serde_json::to_writer(&mut to, value)?;
        to.emit()
    }
}

/// Reads a configuration by serde: `stage!(f, config: Rules =
/// config::by_serde)`. The node checks it before only if `schema:` says how it
/// looks.
pub fn config<T: DeserializeOwned>(json: &[u8]) -> std::result::Result<T, Fault> {
    serde_json::from_slice(json).map_err(Fault::new)
}
