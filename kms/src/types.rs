//! Ids and the encryption context.
//!
//! Owns: 16-byte ids and their text form, the canonical bytes of [`EncryptionContext`]. Knows
//! nothing of: what the ids stand for in other packages, keys, files.
//!
//! Invariants
//! - One context has one encoding, whatever the order in which its entries were added.
//! - Two different contexts never share an encoding: every length is written down.
//!   Bytes: docs/KEYS.md, "Encryption context".

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// Defines a newtype over 16 bytes with a text form of 32 lower-case hexadecimal digits.
#[macro_export]
macro_rules! id16 {
    ($(#[$meta:meta])* $vis:vis struct $name:ident;) => {
        $crate::id16!($(#[$meta])* $vis $name);
    };
    ($(#[$meta:meta])* $vis:vis $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name([u8; 16]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// A new id; two never meet by chance (128 random bits).
            pub fn random(rng: &dyn $crate::env::Rng) -> Self {
                Self($crate::env::random_array(rng))
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                $crate::write_hex(&self.0, f)
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                $crate::write_hex(&self.0, f)
            }
        }

        impl ::core::str::FromStr for $name {
            type Err = $crate::ParseIdError;

            fn from_str(text: &str) -> ::core::result::Result<Self, Self::Err> {
                $crate::parse_id(text).map(Self)
            }
        }
    };
}

id16! {
    /// Who owns keys and a namespace.
    pub TenantId
}
id16! {
    /// A tenant key; the KMS API shows it as the UUID in a key's ARN.
    pub TenantKeyId
}
id16! {
    /// A bucket key. Derived from its bytes, so that it names one key and no other.
    pub BucketKeyId
}

/// A text that is not 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is 32 lower-case hexadecimal digits")
    }
}

impl std::error::Error for ParseIdError {}

/// Reads the text form of an id. Part of [`id16!`](crate::id16).
#[doc(hidden)]
pub fn parse_id(text: &str) -> Result<[u8; 16], ParseIdError> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ParseIdError);
    }
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError)?;
    Ok(bytes)
}

/// Writes bytes as lower-case hexadecimal digits. Part of [`id16!`](crate::id16).
#[doc(hidden)]
pub fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Most entries in one context: the count is written in 16 bits; nothing needs more than a dozen.
pub const CONTEXT_ENTRIES_MAX: usize = 256;
/// Longest name in a context: AWS KMS allows an encryption context of 8,192 bytes in all.
pub const CONTEXT_NAME_BYTES_MAX: usize = 8192;
/// Longest value in a context: room for a nested context of 256 entries of ordinary size.
pub const CONTEXT_VALUE_BYTES_MAX: usize = 64 * 1024;

/// What a wrapped key or a sealed value is bound to: names and values, all of them bytes.
///
/// `be16(count) ‖ Σ over entries sorted by name: be16(len name) ‖ name ‖ be32(len value) ‖ value`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EncryptionContext {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl EncryptionContext {
    /// The context without entries.
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: the name is there already, or a limit of this module is passed.
    pub fn with(mut self, name: &[u8], value: &[u8]) -> Result<Self> {
        let fits = name.len() <= CONTEXT_NAME_BYTES_MAX
            && value.len() <= CONTEXT_VALUE_BYTES_MAX
            && self.entries.len() < CONTEXT_ENTRIES_MAX;
        if !fits || self.entries.contains_key(name) {
            return Err(Error::new(ErrorKind::Misuse, "add an entry to an encryption context"));
        }
        self.entries.insert(name.to_vec(), value.to_vec());
        Ok(self)
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        encode_entries(self.iter(), self.entries.len(), &mut |piece| {
            bytes.extend_from_slice(piece);
        });
        bytes
    }

    /// SHA-256 of the canonical bytes.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        encode_entries(self.iter(), self.entries.len(), &mut |piece| {
            hash.update(piece);
        });
        hash.finalize().into()
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

/// Shows names and lengths; values may be object names or a caller's data.
impl fmt::Debug for EncryptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| (name.escape_ascii().to_string(), value.len()));
        f.debug_map().entries(shown).finish()
    }
}

/// SHA-256 of the canonical bytes of `entries`, without an allocation.
///
/// The entries are constants of this package, already sorted by name and without duplicates.
pub(crate) fn context_digest<const N: usize>(entries: &[(&[u8], &[u8]); N]) -> [u8; 32] {
    debug_assert!(entries.is_sorted_by(|left, right| left.0 < right.0), "sorted and unique");
    let mut hash = Sha256::new();
    encode_entries(entries.iter().copied(), N, &mut |piece| hash.update(piece));
    hash.finalize().into()
}

/// Writes the canonical bytes of entries that come sorted by name.
fn encode_entries<'a>(
    entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    count: usize,
    write: &mut dyn FnMut(&[u8]),
) {
    let be16 = |length: usize| {
        u16::try_from(length).expect("the limits of this module fit 16 bits").to_be_bytes()
    };
    write(&be16(count));
    for (name, value) in entries {
        write(&be16(name.len()));
        write(name);
        let value_bytes = u32::try_from(value.len()).expect("a value is at most 64 KiB");
        write(&value_bytes.to_be_bytes());
        write(value);
    }
}

#[cfg(test)]
mod tests;
