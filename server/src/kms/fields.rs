//! The fields of a call: JSON in, checked values out.
//!
//! Owns: reading and bounding each type of field that the API has, AWS's texts for what is wrong
//! with one. Knows nothing of: what the fields mean.
//!
//! Invariants
//! - Every text that became a field is wiped when its [`Fields`] are dropped: some are plaintext.
//!   What the JSON parser unescapes a text into on its way is not, nor what a refused body held.
//! - A member that stands twice is refused: readers disagree on which of the two counts.
//! - No refusal shows the value of a blob or of an encryption context.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

use super::error::{Answer, KmsError, invalid, not_json};

/// How much of a wrong value is shown to the client that sent it.
const SHOWN_CHARS_MAX: usize = 128;
/// Names and values of one encryption context together (AWS KMS: 8,192 characters).
const CONTEXT_BYTES_MAX: usize = 8_192;
/// Entries of one encryption context: what the keys bind.
const CONTEXT_ENTRIES_MAX: usize = kluis_kms::CONTEXT_ENTRIES_MAX;
/// The last second of the year 9999: later times are mistakes.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// The fields of one call.
#[derive(Default)]
pub(super) struct Fields(Map<String, Value>);

impl Drop for Fields {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::String(text) => text.zeroize(),
        Value::Bool(_) | Value::Null | Value::Number(_) => {}
    }
}

/// Names only.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Reads any JSON value in which no member stands twice. The parser bounds the depth (128).
#[derive(Clone, Copy)]
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = from.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom("a member stands twice"));
            }
            let value = from.next_value_seed(self)?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// How long a text may be, in characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    /// At least.
    pub(super) min: usize,
    /// At most.
    pub(super) max: usize,
}

impl Length {
    /// From 1 to `max`.
    pub(super) const fn up_to(max: usize) -> Self {
        Self { min: 1, max }
    }
}

impl Fields {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// `SerializationException`: it is not a JSON object, or a member in it stands twice.
    pub(super) fn parse(body: &[u8]) -> Answer<Self> {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let value = Strict.deserialize(&mut reader).map_err(|_| not_json())?;
        reader.end().map_err(|_| not_json())?;
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(not_json()),
        }
    }

    /// A field that is there; `null` counts as absent, as with AWS.
    fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Whether a field is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// A text.
    pub(super) fn text(&self, name: &str, length: Length) -> Answer<Option<&str>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let text = value.as_str().ok_or_else(|| wrong_type(name, "a string"))?;
        check_length(&member(name), text, length)?;
        Ok(Some(text))
    }

    /// A text that has to be there.
    pub(super) fn required_text(&self, name: &str, length: Length) -> Answer<&str> {
        self.text(name, length)?.ok_or_else(|| missing(name))
    }

    /// A text made of certain characters, which `pattern` describes as AWS does.
    pub(super) fn matching(
        &self,
        name: &str,
        length: Length,
        (is_allowed, pattern): (fn(char) -> bool, &str),
    ) -> Answer<Option<&str>> {
        let text = self.text(name, length)?;
        match text {
            Some(text) if !text.chars().all(is_allowed) => Err(constraint(
                &format!("'{}'", shown(text)),
                &member(name),
                &format!("Member must satisfy regular expression pattern: {pattern}"),
            )),
            _ => Ok(text),
        }
    }

    /// One of a set of names.
    pub(super) fn one_of(
        &self,
        name: &str,
        names: &[&'static str],
    ) -> Answer<Option<&'static str>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let text = value.as_str().ok_or_else(|| wrong_type(name, "a string"))?;
        one_of(&member(name), text, names).map(Some)
    }

    /// A number within bounds.
    pub(super) fn integer(&self, name: &str, (min, max): (i64, i64)) -> Answer<Option<i64>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let number = value.as_i64().ok_or_else(|| wrong_type(name, "an integer"))?;
        let rule = if number < min {
            format!("Member must have value greater than or equal to {min}")
        } else if number > max {
            format!("Member must have value less than or equal to {max}")
        } else {
            return Ok(Some(number));
        };
        Err(constraint(&format!("'{number}'"), &member(name), &rule))
    }

    /// A switch, off where it is absent.
    pub(super) fn flag(&self, name: &str) -> Answer<bool> {
        let Some(value) = self.value(name) else {
            return Ok(false);
        };
        value.as_bool().ok_or_else(|| wrong_type(name, "a boolean"))
    }

    /// Bytes, written in base64.
    pub(super) fn blob(&self, name: &str, max: usize) -> Answer<Option<Zeroizing<Vec<u8>>>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let text = value.as_str().ok_or_else(|| wrong_type(name, "a base64 string"))?;
        // All the room at once: bytes that may be secret are not left behind by a growing buffer.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 3));
        STANDARD.decode_vec(text, &mut bytes).map_err(|_| wrong_type(name, "a base64 string"))?;
        let rule = match bytes.len() {
            0 => "Member must have length greater than or equal to 1".to_owned(),
            count if count > max => format!("Member must have length less than or equal to {max}"),
            _ => return Ok(Some(bytes)),
        };
        Err(constraint("(binary)", &member(name), &rule))
    }

    /// Bytes that have to be there.
    pub(super) fn required_blob(&self, name: &str, max: usize) -> Answer<Zeroizing<Vec<u8>>> {
        self.blob(name, max)?.ok_or_else(|| missing(name))
    }

    /// A time, in epoch seconds on the wire and in Unix milliseconds here.
    pub(super) fn time_ms(&self, name: &str) -> Answer<Option<u64>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let seconds = value.as_f64().ok_or_else(|| wrong_type(name, "a timestamp"))?;
        if !(0.0..=LAST_SECOND).contains(&seconds) {
            return Err(wrong_type(name, "a timestamp"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the year 9999"
        )]
        Ok(Some((seconds * 1_000.0).round() as u64))
    }

    /// A list of texts.
    pub(super) fn texts(
        &self,
        name: &str,
        counts: (usize, usize),
        length: Length,
    ) -> Answer<Option<Vec<&str>>> {
        let Some(values) = self.list(name, counts)? else {
            return Ok(None);
        };
        let mut texts = Vec::with_capacity(values.len());
        for (place, value) in (1..).zip(values) {
            let text = value.as_str().ok_or_else(|| wrong_type(name, "a list of strings"))?;
            check_length(&format!("{}.{place}.member", member(name)), text, length)?;
            texts.push(text);
        }
        Ok(Some(texts))
    }

    /// A list of objects.
    pub(super) fn objects(
        &self,
        name: &str,
        counts: (usize, usize),
    ) -> Answer<Option<Vec<&Map<String, Value>>>> {
        let Some(values) = self.list(name, counts)? else {
            return Ok(None);
        };
        let objects = values.iter().map(Value::as_object).collect::<Option<Vec<_>>>();
        objects.map(Some).ok_or_else(|| wrong_type(name, "a list of structures"))
    }

    fn list(&self, name: &str, (min, max): (usize, usize)) -> Answer<Option<&Vec<Value>>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let values = value.as_array().ok_or_else(|| wrong_type(name, "a list"))?;
        let rule = match values.len() {
            count if count < min => {
                format!("Member must have length greater than or equal to {min}")
            }
            count if count > max => format!("Member must have length less than or equal to {max}"),
            _ => return Ok(Some(values)),
        };
        Err(constraint(&format!("(a list of {})", values.len()), &member(name), &rule))
    }

    /// A structure.
    pub(super) fn object(&self, name: &str) -> Answer<Option<&Map<String, Value>>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        value.as_object().map(Some).ok_or_else(|| wrong_type(name, "a structure"))
    }

    /// An encryption context; absent is empty.
    pub(super) fn context(&self, name: &str) -> Answer<BTreeMap<String, String>> {
        let Some(entries) = self.object(name)? else {
            return Ok(BTreeMap::new());
        };
        context_of(name, entries)
    }
}

/// Reads an encryption context.
pub(super) fn context_of(
    name: &str,
    entries: &Map<String, Value>,
) -> Answer<BTreeMap<String, String>> {
    if entries.len() > CONTEXT_ENTRIES_MAX {
        let rule = format!("Member must have at most {CONTEXT_ENTRIES_MAX} entries");
        return Err(constraint("(a map)", &member(name), &rule));
    }
    let mut context = BTreeMap::new();
    let mut bytes = 0;
    for (entry, value) in entries {
        let value = value.as_str().ok_or_else(|| wrong_type(name, "a map of strings"))?;
        bytes += entry.len() + value.len();
        context.insert(entry.clone(), value.to_owned());
    }
    if bytes > CONTEXT_BYTES_MAX {
        let rule = format!("Member must have at most {CONTEXT_BYTES_MAX} bytes in all");
        return Err(constraint("(a map)", &member(name), &rule));
    }
    Ok(context)
}

/// Checks that a text is one of a set of names.
pub(super) fn one_of(at: &str, text: &str, names: &[&'static str]) -> Answer<&'static str> {
    names.iter().find(|known| **known == text).copied().ok_or_else(|| {
        let rule = format!("Member must satisfy enum value set: [{}]", names.join(", "));
        constraint(&format!("'{}'", shown(text)), at, &rule)
    })
}

/// Checks the characters of a text.
pub(super) fn check_length(at: &str, text: &str, length: Length) -> Answer<()> {
    // A text has at most as many characters as bytes, and counting those of a long one is slow.
    let count = if text.len() > length.max { text.chars().count() } else { text.len() };
    let rule = if count > length.max {
        format!("Member must have length less than or equal to {}", length.max)
    } else if count < length.min {
        format!("Member must have length greater than or equal to {}", length.min)
    } else {
        return Ok(());
    };
    Err(constraint(&format!("'{}'", shown(text)), at, &rule))
}

fn shown(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(SHOWN_CHARS_MAX).collect()
}

/// A field's name as AWS's messages have it: `keyId`.
fn member(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// A required field is not there.
pub(super) fn missing(name: &str) -> KmsError {
    constraint("null", &member(name), "Member must not be null")
}

/// `SerializationException`: a field is of another type than the API says.
pub(super) fn wrong_type(name: &str, expected: &str) -> KmsError {
    let message = format!("The value at '{}' is not {expected}.", member(name));
    KmsError::new("SerializationException", message)
}

fn constraint(value: &str, at: &str, rule: &str) -> KmsError {
    invalid(format!(
        "1 validation error detected: Value {value} at '{at}' failed to satisfy constraint: {rule}"
    ))
}
