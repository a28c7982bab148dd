//! One entry of `[[key_stores]]`: a place outside the node that holds keys.
//!
//! Owns: what an entry may say, and what goes with which kind. Knows nothing of: how a store is
//! talked to.
//!
//! Invariants
//! - No field holds a secret: files do.
//! - A field that its kind has no use for is refused, so that a slip is not silent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::field::{FieldValue, Kind};

/// Longest name of a store, as a tenant key keeps it.
const NAME_BYTES_MAX: usize = 64;
/// How long a call may take, in milliseconds: from a proxy next door to a key manager at work.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 10..=30_000;

/// What kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyStoreKind {
    /// An HSM, by its PKCS#11 module.
    Pkcs11,
    /// The Transit engine of Vault or OpenBao.
    Transit,
    /// An External Key Store proxy, as AWS KMS talks to.
    Xks,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyStoreConfig {
    pub(crate) name: String,
    pub(crate) kind: KeyStoreKind,
    /// The names of the tenants that may make keys over it.
    #[serde(default)]
    pub(crate) tenants: Vec<String>,
    pub(crate) url: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) mount: Option<String>,
    pub(crate) module: Option<PathBuf>,
    pub(crate) token: Option<String>,
    pub(crate) pin_file: Option<PathBuf>,
    pub(crate) access_key_file: Option<PathBuf>,
    pub(crate) region: Option<String>,
    pub(crate) timeout_ms: Option<u64>,
}

impl KeyStoreConfig {
    /// How long a call may take: what is set, or 250 ms for a proxy (as AWS KMS has it), else 2 s.
    pub(crate) fn timeout_ms(&self) -> u64 {
        let default = if self.kind == KeyStoreKind::Xks { 250 } else { 2_000 };
        self.timeout_ms.unwrap_or(default)
    }

    /// The fields that are set, beside those of every kind.
    fn given(&self) -> Vec<&'static str> {
        let all = [
            ("url", self.url.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("token_file", self.token_file.is_some()),
            ("mount", self.mount.is_some()),
            ("module", self.module.is_some()),
            ("token", self.token.is_some()),
            ("pin_file", self.pin_file.is_some()),
            ("access_key_file", self.access_key_file.is_some()),
            ("region", self.region.is_some()),
        ];
        all.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }

    /// What is wrong with it, as the end of a sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let name = &self.name;
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(format!(
                "name: `{name}` is not 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`"
            ));
        }
        let (needed, possible): (&[&str], &[&str]) = match self.kind {
            KeyStoreKind::Pkcs11 => (&["module", "token", "pin_file"], &[]),
            KeyStoreKind::Transit => (&["url", "token_file"], &["ca_file", "mount"]),
            KeyStoreKind::Xks => (&["url", "access_key_file"], &["ca_file", "region"]),
        };
        let given = self.given();
        if let Some(missing) = needed.iter().find(|field| !given.contains(field)) {
            return Err(format!("`{name}` needs `{missing}`"));
        }
        let is_known = |field: &&str| needed.contains(field) || possible.contains(field);
        if let Some(unused) = given.iter().find(|field| !is_known(field)) {
            return Err(format!("`{name}` has no use for `{unused}`"));
        }
        if !TIMEOUT_MS.contains(&self.timeout_ms()) {
            let (low, high) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
            return Err(format!("`{name}`: timeout_ms is outside {low} to {high}"));
        }
        Ok(())
    }
}

impl FieldValue for Vec<KeyStoreConfig> {
    const KIND: Kind = Kind::Tables;
    fn to_toml(&self) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        Value::try_from(self).ok()
    }
}
