//! How one configuration field is read from text and written to TOML.
//!
//! Owns: the kinds of values, bounds, the names of a field in environment and flags.
//! Knows nothing of: which fields there are.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Value;

use super::Config;

/// What a field's text is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number, not negative.
    Integer,
    /// Any text.
    Text,
    /// Tables, in the file only: there is no flag and no variable for them.
    Tables,
}

/// Which values a field takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bounds {
    /// Any of its type.
    Any,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// From the first to the last, both included.
    Range(u64, u64),
}

/// One field of [`Config`], as the documentation, the environment and the flags see it.
pub(crate) struct Field {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// The heading it stands under.
    pub(crate) section: &'static str,
    /// Its doc comment, line by line.
    pub(crate) docs: &'static [&'static str],
    /// What its text is read as.
    pub(crate) kind: Kind,
    /// Which values it takes.
    pub(crate) bounds: Bounds,
    /// Its value in a configuration; `None` where it is unset.
    pub(crate) value: fn(&Config) -> Option<Value>,
}

impl Field {
    /// The name of its environment variable.
    pub(crate) fn environment_name(&self) -> String {
        format!("KLUIS_{}", self.name.to_ascii_uppercase())
    }

    /// The name of its flag, without dashes in front.
    pub(crate) fn flag_name(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Reads the text of a variable or flag.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, String> {
        match self.kind {
            Kind::Boolean => text
                .parse()
                .map(Value::Boolean)
                .map_err(|_| format!("`{text}` is neither `true` nor `false`")),
            Kind::Integer => text
                .replace('_', "")
                .parse()
                .map(Value::Integer)
                .map_err(|_| format!("`{text}` is not a whole number")),
            Kind::Text => Ok(Value::String(text.to_owned())),
            Kind::Tables => Err("is set in the configuration file only".to_owned()),
        }
    }

    /// Checks a value against the bounds.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        match (self.bounds, value) {
            (Bounds::Range(low, high), Value::Integer(number)) => {
                let inside = u64::try_from(*number).is_ok_and(|n| (low..=high).contains(&n));
                if inside { Ok(()) } else { Err(format!("{number} is outside {low} to {high}")) }
            }
            (Bounds::OneOf(texts), Value::String(text)) if !texts.contains(&text.as_str()) => {
                Err(format!("`{text}` is none of {}", texts.join(", ")))
            }
            _ => Ok(()),
        }
    }

    /// The bounds in words, if there are any.
    pub(crate) fn bounds_text(&self) -> Option<String> {
        match self.bounds {
            Bounds::Any => None,
            Bounds::OneOf(texts) => Some(format!("One of: {}.", texts.join(", "))),
            Bounds::Range(low, high) => Some(format!("Bounds: {low} to {high}.")),
        }
    }
}

/// A type that a field may have.
pub(crate) trait FieldValue {
    /// What its text is read as.
    const KIND: Kind;
    /// Its value in TOML; `None` where it is unset.
    fn to_toml(&self) -> Option<Value>;
}

impl FieldValue for bool {
    const KIND: Kind = Kind::Boolean;
    fn to_toml(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

impl FieldValue for u64 {
    const KIND: Kind = Kind::Integer;
    fn to_toml(&self) -> Option<Value> {
        i64::try_from(*self).ok().map(Value::Integer)
    }
}

impl FieldValue for String {
    const KIND: Kind = Kind::Text;
    fn to_toml(&self) -> Option<Value> {
        Some(Value::String(self.clone()))
    }
}

impl FieldValue for SocketAddr {
    const KIND: Kind = Kind::Text;
    fn to_toml(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

impl FieldValue for PathBuf {
    const KIND: Kind = Kind::Text;
    fn to_toml(&self) -> Option<Value> {
        Some(Value::String(self.to_string_lossy().into_owned()))
    }
}

impl<T: FieldValue> FieldValue for Option<T> {
    const KIND: Kind = T::KIND;
    fn to_toml(&self) -> Option<Value> {
        self.as_ref().and_then(FieldValue::to_toml)
    }
}
