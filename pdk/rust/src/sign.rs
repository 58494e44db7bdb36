//! Signatures with keys that the stage does not see.
//!
//! A `sign` plugin of a flow signs what a delivery sends. Its keys stay with
//! the node: the plugin knows them by their place in the flow's `keys`, and
//! asks for signatures.
//!
//! ```
//! use millrace_pdk::http::Request;
//! use millrace_pdk::sign::{Algorithm, Key};
//! use millrace_pdk::*;
//!
//! stage!(sign);
//!
//! fn sign(r: &Record, out: &mut Out) -> Result {
//!     let request = Request::of(r)?;
//!     let message = [request.method().as_bytes(), b"\n", request.body()].concat();
//!     let signature = Key::at(0).sign(Algorithm::HmacSha256, &message)?;
//!     out.record().header("X-Signature", &signature.to_hex()).pass()
//! }
//!
//! // cargo test: the keys are a function.
//! testing::sign_with(|_key, _algorithm, message| Ok(vec![message.len() as u8]));
//! let request = testing::Input::value("{}").header(":method", "POST").header(":url", "https://a.example/b");
//! let answers = testing::Batch::new().add(request).run(sign);
//! assert_eq!(answers.emitted(0)[0].headers.last().unwrap().1, b"07");
//! ```

use std::fmt;

/// A way to sign. The numbers are those of the ABI.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum Algorithm {
    HmacMd5 = 1,
    HmacSha1 = 2,
    HmacSha256 = 3,
    HmacSha384 = 4,
    HmacSha512 = 5,
    /// RSA with the padding of PKCS #1 v1.5.
    RsaSha1 = 16,
    RsaSha256 = 17,
    RsaSha384 = 18,
    RsaSha512 = 19,
    /// RSA-PSS with a salt as long as the digest.
    RsaPssSha256 = 32,
    RsaPssSha384 = 33,
    RsaPssSha512 = 34,
    /// The signature in DER.
    EcdsaSha256 = 48,
    EcdsaSha384 = 49,
    EcdsaSha512 = 50,
    /// The signature is r and s, each as long as the curve's order.
    EcdsaRawSha256 = 64,
    EcdsaRawSha384 = 65,
    EcdsaRawSha512 = 66,
    Ed25519 = 80,
}

/// A key of the stage, by its place among the flow's `keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u32);

impl Key {
    /// The key at that place, from 0.
    pub const fn at(place: u32) -> Self {
        Key(place)
    }

    /// Signs a message of up to 16 MiB. Before the first record of a stage,
    /// in its warm-up, the signature is 64 zeros.
    pub fn sign(self, algorithm: Algorithm, message: &[u8]) -> Result<Signature, Refused> {
        let mut signature = Signature {
            bytes: [0; LONGEST],
            len: 0,
        };
        let answer = imports::sign(self.0, algorithm, message, &mut signature.bytes);
        if answer < 0 || answer as usize > LONGEST {
            return Err(Refused::of(answer));
        }
        signature.len = answer as usize;
        Ok(signature)
    }
}

/// The most bytes that a signature has.
const LONGEST: usize = 1024;

/// A signature.
#[derive(Clone)]
pub struct Signature {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Signature {
    /// In hex, lower case.
    pub fn to_hex(&self) -> String {
        let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
        self.as_ref()
            .iter()
            .flat_map(|b| [digit(b >> 4), digit(b & 15)])
            .collect()
    }

    /// In base64 with padding.
    pub fn to_base64(&self) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::with_capacity((self.len + 2) / 3 * 4);
        for part in self.as_ref().chunks(3) {
            let bits = part
                .iter()
                .enumerate()
                .fold(0, |bits, (i, b)| bits | u32::from(*b) << (16 - 8 * i));
            for i in 0..4 {
                out.push(match i <= part.len() {
                    true => char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]),
                    false => '=',
                });
            }
        }
        out
    }
}

impl AsRef<[u8]> for Signature {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// Why there is no signature. By `?` it fails the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The stage has no keys.
    NoKeys,
    /// It has none at that place.
    UnknownKey,
    /// The node does not know the algorithm.
    UnknownAlgorithm,
    /// The key is not one for the algorithm.
    KeyMismatch,
    /// The message is too long.
    OutOfBounds,
    /// A number that this version of the PDK does not know.
    Other(i32),
}

impl Refused {
    fn of(answer: i32) -> Self {
        match answer {
            -1 => Refused::NoKeys,
            -2 => Refused::UnknownKey,
            -3 => Refused::UnknownAlgorithm,
            -4 => Refused::KeyMismatch,
            -5 => Refused::OutOfBounds,
            other => Refused::Other(other),
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn number(self) -> i32 {
        match self {
            Refused::NoKeys => -1,
            Refused::UnknownKey => -2,
            Refused::UnknownAlgorithm => -3,
            Refused::KeyMismatch => -4,
            Refused::OutOfBounds => -5,
            Refused::Other(n) => n,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::NoKeys => "sign: the stage has no keys",
            Refused::UnknownKey => "sign: the stage has no such key",
            Refused::UnknownAlgorithm => "sign: the node does not know the algorithm",
            Refused::KeyMismatch => "sign: the key does not go with the algorithm",
            Refused::OutOfBounds => "sign: the message is too long",
            Refused::Other(n) => return write!(f, "sign: the node refused it ({})", n),
        })
    }
}

#[cfg(target_arch = "wasm32")]
mod imports {
    use super::{Algorithm, LONGEST};

    mod stage {
        #[link(wasm_import_module = "stage")]
        extern "C" {
            pub fn sign(
                handle: u32,
                algorithm: u32,
                ptr: *const u8,
                len: usize,
                out: *mut u8,
            ) -> i32;
        }
    }

    pub fn sign(handle: u32, a: Algorithm, message: &[u8], out: &mut [u8; LONGEST]) -> i32 {
        // The host reads and writes within the two during the call.
        unsafe {
            stage::sign(
                handle,
                a as u32,
                message.as_ptr(),
                message.len(),
                out.as_mut_ptr(),
            )
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imports {
    use super::{Algorithm, Refused, LONGEST};

    pub fn sign(handle: u32, a: Algorithm, message: &[u8], out: &mut [u8; LONGEST]) -> i32 {
        let signed = super::keys::SIGNER.with(|s| match &*s.borrow() {
            Some(sign) => sign(handle, a, message),
            None => Err(Refused::NoKeys),
        });
        match signed {
            Ok(bytes) => {
                assert!(
                    bytes.len() <= LONGEST,
                    "a signature has at most {} bytes",
                    LONGEST
                );
                out[..bytes.len()].copy_from_slice(&bytes);
                bytes.len() as i32
            }
            Err(refused) => refused.number(),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod keys {
    use super::{Algorithm, Refused};
    use std::cell::RefCell;

    pub type Signer = Box<dyn Fn(u32, Algorithm, &[u8]) -> Result<Vec<u8>, Refused>>;

    thread_local! {
        pub static SIGNER: RefCell<Option<Signer>> = const { RefCell::new(None) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_signature() {
        for (bytes, hex, base64) in [
            ("", "", ""),
            ("f", "66", "Zg=="),
            ("fo", "666f", "Zm8="),
            ("foo", "666f6f", "Zm9v"),
            ("foobar", "666f6f626172", "Zm9vYmFy"),
        ] {
            let mut s = Signature {
                bytes: [0xff; LONGEST],
                len: bytes.len(),
            };
            s.bytes[..bytes.len()].copy_from_slice(bytes.as_bytes());
            assert_eq!((s.to_hex().as_str(), s.to_base64().as_str()), (hex, base64));
        }
    }

    #[test]
    fn refusals_keep_their_numbers() {
        for n in -6..0 {
            assert_eq!(Refused::of(n).number(), n);
        }
        assert_eq!(
            Key::at(3).sign(Algorithm::Ed25519, b"").unwrap_err(),
            Refused::NoKeys
        );
    }
}
