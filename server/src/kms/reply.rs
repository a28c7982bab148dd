//! The answer of a call, and its bytes.
//!
//! Owns: fields out, base64, the one secret that an answer may hold. Knows nothing of: HTTP.
//!
//! Invariants
//! - A secret stands in one buffer of its final size, which is wiped when it was sent or dropped.
//!   What the connection copies out of it to write it is the kernel's and hyper's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kluis_kms::TenantKeyId;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::plaintext::Plaintext;

/// What goes out for a call.
pub(crate) struct Served {
    /// The body of the answer.
    pub(crate) body: Bytes,
    /// Whether it holds plaintext under a tenant key.
    pub(crate) plaintext: Option<Plaintext>,
}

impl From<Bytes> for Served {
    fn from(body: Bytes) -> Self {
        Self { body, plaintext: None }
    }
}

/// What a handler answers.
#[derive(Default)]
pub(super) struct Reply {
    fields: Map<String, Value>,
    /// A field's name and its bytes.
    secret: Option<(&'static str, Zeroizing<Vec<u8>>)>,
    plaintext: Option<Plaintext>,
}

impl From<Map<String, Value>> for Reply {
    fn from(fields: Map<String, Value>) -> Self {
        Self { fields, secret: None, plaintext: None }
    }
}

impl Reply {
    /// Adds a field.
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a field, if there is a value.
    #[must_use]
    pub(super) fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds bytes.
    #[must_use]
    pub(super) fn with_blob(self, name: &'static str, bytes: &[u8]) -> Self {
        self.with(name, STANDARD.encode(bytes))
    }

    /// Adds bytes that are wiped after they were sent.
    #[must_use]
    pub(super) fn with_secret(mut self, name: &'static str, bytes: Zeroizing<Vec<u8>>) -> Self {
        self.secret = Some((name, bytes));
        self
    }

    /// Says under which key lies what the answer was made of.
    #[must_use]
    pub(super) fn under(mut self, tenant_key: TenantKeyId) -> Self {
        self.plaintext = Some(Plaintext { tenant_key });
        self
    }

    /// The answer as it goes out.
    pub(super) fn into_served(self) -> Served {
        let plaintext = self.plaintext;
        Served { body: self.into_bytes(), plaintext }
    }

    /// The fields, for tests and for answers within answers.
    pub(super) fn into_fields(self) -> Map<String, Value> {
        self.fields
    }

    /// The body of the answer. A reply without fields is no body at all, as with AWS.
    pub(super) fn into_bytes(self) -> Bytes {
        let Self { fields, secret, .. } = self;
        let Some((name, secret)) = secret else {
            if fields.is_empty() {
                return Bytes::new();
            }
            return Bytes::from(Value::Object(fields).to_string());
        };
        let open = Value::Object(fields).to_string();
        let head = open.strip_suffix('}').unwrap_or_default();
        let comma = if head.len() > 1 { "," } else { "" };
        let lead = format!("{head}{comma}\"{name}\":\"");
        let digits = secret.len().div_ceil(3) * 4;
        let mut body = Zeroizing::new(vec![0; lead.len() + digits + 2]);
        if let Some(place) = body.get_mut(..lead.len()) {
            place.copy_from_slice(lead.as_bytes());
        }
        let written = body
            .get_mut(lead.len()..)
            .and_then(|place| STANDARD.encode_slice(&*secret, place).ok())
            .unwrap_or_default();
        if let Some(place) = body.get_mut(lead.len() + written..) {
            place.copy_from_slice(b"\"}");
        }
        Bytes::from_owner(body)
    }
}

/// Epoch seconds with a fraction, as the API writes times.
pub(super) fn seconds(unix_ms: u64) -> Value {
    let (whole, rest) = (unix_ms / 1_000, unix_ms % 1_000);
    if rest == 0 {
        return whole.into();
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds until the year 200,000 are exact")]
    let seconds = unix_ms as f64 / 1_000.0;
    seconds.into()
}
