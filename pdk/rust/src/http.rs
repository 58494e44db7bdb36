//! Requests and responses: what plugins of a delivery's `sign` and `validate`
//! get as records.

use crate::answer::{Failure, Result};
use crate::record::Record;

/// A request that is about to be sent: the record of a `sign` plugin, which
/// emits exactly one record, the request as it is to be sent.
///
/// The value is the body. The headers are those of HTTP, beside `:method` and
/// `:url`; of these two the last one of an emission counts, so that one that is
/// added replaces what was there.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    record: Record<'a>,
    method: &'a str,
    url: &'a str,
}

impl<'a> Request<'a> {
    /// The request in a record; a failure with code 1 if it holds none.
    pub fn of(record: &Record<'a>) -> Result<Self> {
        Ok(Request {
            record: *record,
            method: pseudo(record, ":method")?,
            url: pseudo(record, ":url")?,
        })
    }

    /// Its method, in capitals.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// Its URL with the query.
    pub fn url(&self) -> &'a str {
        self.url
    }

    /// Its body.
    pub fn body(&self) -> &'a [u8] {
        self.record.bytes()
    }

    /// The value of the last header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        header(&self.record, name)
    }
}

/// The answer to a request: the record of a `validate` plugin, which emits it
/// if the request was taken, asks for a retry, or fails it if it was refused
/// for good.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    record: Record<'a>,
    status: u16,
}

impl<'a> Response<'a> {
    /// The response in a record; a failure with code 1 if it holds none.
    pub fn of(record: &Record<'a>) -> Result<Self> {
        let status = pseudo(record, ":status")?;
        Ok(Response {
            record: *record,
            status: status
                .parse()
                .map_err(|_| Failure::fail(1, format!(":status is {:?}", status)))?,
        })
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Its body.
    pub fn body(&self) -> &'a [u8] {
        self.record.bytes()
    }

    /// The value of the last header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        header(&self.record, name)
    }
}

fn pseudo<'a>(record: &Record<'a>, name: &str) -> Result<&'a str> {
    let value = record.header(name).ok_or_else(|| missing(name))?;
    std::str::from_utf8(value).map_err(|_| missing(name))
}

#[cold]
fn missing(name: &str) -> Failure {
    Failure::fail(1, format!("the record has no header {} in UTF-8", name))
}

fn header<'a>(record: &Record<'a>, name: &str) -> Option<&'a [u8]> {
    record
        .headers()
        .filter(|h| h.name.eq_ignore_ascii_case(name.as_bytes()))
        .last()
        .map(|h| h.value)
}
