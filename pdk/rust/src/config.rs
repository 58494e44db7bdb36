//! The typed configuration of a stage: what the flow says in `with:`.
//!
//! [`config!`](crate::config!) declares a struct and with it the JSON Schema
//! that the node checks before it starts anything. Types of one's own are
//! settings too once they implement [`Config`]. With the feature `serde` any
//! type that serde reads will do: `stage!(f, config: Rules = config::by_serde)`.

use crate::json::{Object, Value};
use std::collections::BTreeMap;
use std::fmt;

#[cfg(feature = "serde")]
pub use crate::by_serde::config as by_serde;

/// A type that a setting, or the whole configuration, can have.
pub trait Config: Sized {
    /// What the node checks.
    const SCHEMA: Schema;

    /// Reads the setting.
    fn read(value: &Value<'_>) -> Result<Self, Fault>;

    /// What stands for a setting that is not given; None: it must be.
    fn missing() -> Option<Self> {
        None
    }

    /// Reads a JSON text, such as the whole configuration.
    fn from_json(text: &[u8]) -> Result<Self, Fault> {
        let value = Value::read(text).map_err(Fault::new)?;
        Self::read(&value)
    }
}

/// Why a configuration is not taken, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    path: String,
    message: String,
}

impl Fault {
    /// A fault of the value at hand.
    pub fn new(message: impl fmt::Display) -> Self {
        Fault {
            path: String::new(),
            message: message.to_string(),
        }
    }

    /// The same fault, seen from the object or list around the value.
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{}{}{}", place, dot, self.path);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("with")?;
        if !self.path.is_empty() {
            write!(f, ".{}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Fault {}

fn expected(value: &Value<'_>, what: &str) -> Fault {
    let mut text = String::from_utf8_lossy(value.raw()).into_owned();
    if text.len() > 40 {
        text = value.kind().to_string();
    }
    Fault::new(format_args!("{} where {} is expected", text, what))
}

/// A JSON Schema as far as settings need one.
pub enum Schema {
    /// Anything.
    Any,
    /// true or false
    Bool,
    /// an integer from `min` on
    Integer {
        /// The smallest.
        min: i64,
    },
    /// any number
    Number,
    /// a string
    String,
    /// a list
    Array(&'static Schema),
    /// an object with values of one kind under any name
    Map(&'static Schema),
    /// an object with these properties and no other
    Object(&'static [Property]),
    /// the value or null
    Nullable(&'static Schema),
    /// a schema as JSON text
    Json(&'static str),
}

/// A property of an object.
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// What it is for; may be empty.
    pub description: &'static str,
    /// What it is.
    pub schema: Schema,
    /// Whether it must be given.
    pub required: bool,
}

impl Config for bool {
    const SCHEMA: Schema = Schema::Bool;

    fn read(value: &Value<'_>) -> Result<Self, Fault> {
        value
            .as_bool()
            .ok_or_else(|| expected(value, "true or false"))
    }
}

impl Config for String {
    const SCHEMA: Schema = Schema::String;

    fn read(value: &Value<'_>) -> Result<Self, Fault> {
        match value.as_str() {
            Some(text) => Ok(text.into_owned()),
            None => Err(expected(value, "a string")),
        }
    }
}

impl Config for f64 {
    const SCHEMA: Schema = Schema::Number;

    fn read(value: &Value<'_>) -> Result<Self, Fault> {
        value.as_f64().ok_or_else(|| expected(value, "a number"))
    }
}

macro_rules! integers {
    ($($t:ty, $min:expr, $what:literal;)*) => { $(
        impl Config for $t {
            const SCHEMA: Schema = Schema::Integer { min: $min };

            fn read(value: &Value<'_>) -> Result<Self, Fault> {
                std::str::from_utf8(value.raw())
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| expected(value, $what))
            }
        }
    )* };
}

integers! {
    u8, 0, "an integer from 0 to 255";
    u16, 0, "an integer from 0 to 65535";
    u32, 0, "an integer from 0 to 4294967295";
    u64, 0, "an integer from 0 on";
    usize, 0, "an integer from 0 on";
    i32, i32::MIN as i64, "an integer of 32 bits";
    i64, i64::MIN, "an integer";
}

/// May be missing, or null.
impl<T: Config> Config for Option<T> {
    const SCHEMA: Schema = Schema::Nullable(&T::SCHEMA);

    fn read(value: &Value<'_>) -> Result<Self, Fault> {
        if value.is_null() {
            return Ok(None);
        }
        T::read(value).map(Some)
    }

    fn missing() -> Option<Self> {
        Some(None)
    }
}

impl<T: Config> Config for Vec<T> {
    const SCHEMA: Schema = Schema::Array(&T::SCHEMA);

    fn read(value: &Value<'_>) -> Result<Self, Fault> {
        value
            .items()
            .ok_or_else(|| expected(value, "a list"))?
            .enumerate()
            .map(|(i, item)| T::read(&item).map_err(|e| e.within(format_args!("[{}]", i))))
            .collect()
    }
}

impl<T: Config> Config for BTreeMap<String, T> {
    const SCHEMA: Schema = Schema::Map(&T::SCHEMA);

    fn read(value: &Value<'_>) -> Result<Self, Fault> {
        let object = object(value)?;
        let mut map = BTreeMap::new();
        for member in object.members() {
            let member = member.map_err(Fault::new)?;
            let name = member.name().into_owned();
            let setting = T::read(&member.value()).map_err(|e| e.within(&name))?;
            map.insert(name, setting);
        }
        Ok(map)
    }
}

fn object<'a>(value: &Value<'a>) -> Result<Object<'a>, Fault> {
    value.object().ok_or_else(|| expected(value, "an object"))
}

/// The settings of an object, for implementations of [`Config`].
pub struct Settings<'a>(Object<'a>);

impl<'a> Settings<'a> {
    /// Opens an object; a setting that is none of `known` is a fault.
    pub fn open(value: &Value<'a>, known: &[&str]) -> Result<Self, Fault> {
        let object = object(value)?;
        for member in object.members() {
            let member = member.map_err(Fault::new)?;
            if !known.iter().any(|name| member.is(name)) {
                return Err(Fault::new(format_args!(
                    "there is no setting {:?}; there are {:?}",
                    member.name(),
                    known
                )));
            }
        }
        Ok(Settings(object))
    }

    /// The setting, if it is given.
    pub fn get<T: Config>(&self, name: &str) -> Result<Option<T>, Fault> {
        match self.0.get(name) {
            Some(value) => T::read(&value).map(Some).map_err(|e| e.within(name)),
            None => Ok(T::missing()),
        }
    }

    /// The setting, which must be given.
    pub fn required<T: Config>(&self, name: &str) -> Result<T, Fault> {
        self.get(name)?
            .ok_or_else(|| Fault::new(format_args!("the setting {:?} is missing", name)))
    }
}

/// Declares the configuration of a stage: a struct, how it is read from JSON,
/// and its JSON Schema. A field with `= value` may be missing, and so may an
/// `Option`; comments become descriptions in the schema.
///
/// ```
/// use millrace_pdk::*;
///
/// config! {
///     /// Which fields to mask.
///     pub struct Rules {
///         /// Their names.
///         fields: Vec<String>,
///         /// How many characters stay.
///         keep: usize = 4,
///         salt: Option<String>,
///     }
/// }
///
/// let rules = Rules::from_json(br#"{"fields": ["email"]}"#).unwrap();
/// assert_eq!((rules.fields.len(), rules.keep, rules.salt), (1, 4, None));
///
/// let err = Rules::from_json(br#"{"fields": ["email", 7]}"#).err().unwrap();
/// assert_eq!(err.to_string(), "with.fields[1]: 7 where a string is expected");
/// ```
#[macro_export]
macro_rules! config {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $fvis:vis $field:ident : $type:ty $(= $default:expr)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        $vis struct $name {
            $( $(#[doc = $doc])* $fvis $field: $type, )*
        }

        impl $crate::config::Config for $name {
            const SCHEMA: $crate::config::Schema = {
                const PROPERTIES: &[$crate::config::Property] = &[
                    $( $crate::config::Property {
                        name: ::core::stringify!($field),
                        description: ::core::concat!("" $(, $doc)*),
                        schema: <$type as $crate::config::Config>::SCHEMA,
                        required: $crate::config!(@required $type $(, $default)?),
                    }, )*
                ];
                $crate::config::Schema::Object(PROPERTIES)
            };

            fn read(
                value: &$crate::json::Value<'_>,
            ) -> ::core::result::Result<Self, $crate::config::Fault> {
                let settings = $crate::config::Settings::open(
                    value,
                    &[$( ::core::stringify!($field) ),*],
                )?;
                ::core::result::Result::Ok($name {
                    $( $field: $crate::config!(@read settings $field $(, $default)?), )*
                })
            }
        }
    };
    (@required $type:ty, $default:expr) => { false };
    (@required $type:ty) => {
        !::core::matches!(
            <$type as $crate::config::Config>::SCHEMA,
            $crate::config::Schema::Nullable(_)
        )
    };
    (@read $settings:ident $field:ident, $default:expr) => {
        match $settings.get(::core::stringify!($field))? {
            ::core::option::Option::Some(given) => given,
            ::core::option::Option::None => $default,
        }
    };
    (@read $settings:ident $field:ident) => {
        $settings.required(::core::stringify!($field))?
    };
}
