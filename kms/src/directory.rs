//! The key directory: what a tenant keeps beside its keys, sealed in the keyring's journal.
//!
//! ```text
//!  0   1  format 0x01    1   1  flags (bit 0: there is a value; else the name is deleted)
//!  2  16  tenant id     18   8  version (from 1)   26   2  length   name
//!     then, with a value:  12  nonce (random)   ciphertext   16  tag
//! ```
//! The key is `KDF(node secret, "directory", tenant, 32)`; the associated data is
//! `SHA-256(CTX{n: name, t: tenant, v: be64 version})`.
//! Owns: that layout, the values in memory. Knows nothing of: what names and values say, files.
//!
//! Invariants
//! - A value opens only for its tenant, its name and its version.
//! - Versions of a name grow by one. A deleted name keeps its place until the journal is
//!   compacted.
//!   See docs/KEYS.md, "Key directory".

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::aead::{self, NONCE_BYTES, Nonce, TAG_BYTES, Tag};
use crate::derive::kdf;
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::record::take;
use crate::secret::NodeSecret;
use crate::types::{TenantId, context_digest};

/// Longest name: an alias has at most 256 bytes, a key's id 32.
pub const ENTRY_NAME_BYTES_MAX: usize = 512;
/// Longest value: a key policy has at most 32 KiB, 50 tags at most 20 KiB.
pub const ENTRY_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Most names of a tenant, those that the node writes itself apart: 1,000 keys with four each.
pub const ENTRIES_MAX: usize = 4096;
/// Longest encoding.
pub(crate) const DIRECTORY_RECORD_BYTES_MAX: usize =
    HEAD_BYTES + ENTRY_NAME_BYTES_MAX + NONCE_BYTES + ENTRY_VALUE_BYTES_MAX + TAG_BYTES;

/// Bytes of the record of a name with a value of so many bytes.
pub(crate) fn entry_bytes(name: &[u8], value_bytes: usize) -> u64 {
    (HEAD_BYTES + name.len() + NONCE_BYTES + value_bytes + TAG_BYTES) as u64
}

const FORMAT: u8 = 0x01;
const FLAG_VALUE: u8 = 0x01;
const HEAD_BYTES: usize = 28;

/// One version of one name, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryRecord {
    pub(crate) tenant: TenantId,
    pub(crate) version: u64,
    pub(crate) name: Vec<u8>,
    sealed: Option<Vec<u8>>,
}

impl DirectoryRecord {
    /// Seals a value, or records that the name is deleted.
    pub(crate) fn seal(
        node_secret: &NodeSecret,
        (tenant, name, version): (TenantId, &[u8], u64),
        value: Option<&[u8]>,
        rng: &dyn Rng,
    ) -> Self {
        let sealed = value.map(|value| {
            let nonce: Nonce = random_array(rng);
            let mut sealed = nonce.to_vec();
            sealed.resize(NONCE_BYTES + value.len(), 0);
            let (_, body) = sealed.split_at_mut(NONCE_BYTES);
            let aad = aad(tenant, name, version);
            let tag =
                aead::encrypt_to(&value_key(node_secret, tenant), &nonce, &aad, (value, body));
            sealed.extend_from_slice(&tag);
            sealed
        });
        Self { tenant, version, name: name.to_vec(), sealed }
    }

    /// Whether it says that the name is deleted.
    pub(crate) const fn is_deletion(&self) -> bool {
        self.sealed.is_none()
    }

    /// Bytes of the encoding.
    pub(crate) fn encoded_bytes(&self) -> u64 {
        (HEAD_BYTES + self.name.len() + self.sealed.as_ref().map_or(0, Vec::len)) as u64
    }

    /// The value; none if the name is deleted.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: sealed for something else, or damaged.
    pub(crate) fn open(&self, node_secret: &NodeSecret) -> Result<Option<Arc<[u8]>>> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "open a value of the key directory");
        let Some(sealed) = &self.sealed else {
            return Ok(None);
        };
        let (nonce, rest) = sealed.split_first_chunk().ok_or_else(corrupt)?;
        let (body, tag) = rest.split_last_chunk().ok_or_else(corrupt)?;
        let mut value = vec![0; body.len()];
        let aad = aad(self.tenant, &self.name, self.version);
        let message: (&[u8], &Tag, &mut [u8]) = (body, tag, &mut value);
        aead::decrypt_to(&value_key(node_secret, self.tenant), nonce, &aad, message)
            .map_err(|_| corrupt())?;
        Ok(Some(value.into()))
    }

    pub(crate) fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&[FORMAT, if self.sealed.is_some() { FLAG_VALUE } else { 0 }]);
        bytes.extend_from_slice(self.tenant.as_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        let length = u16::try_from(self.name.len()).expect("a name is at most 512 bytes");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.name);
        bytes.extend_from_slice(self.sealed.as_deref().unwrap_or(&[]));
    }

    /// Reads an encoding.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not one that [`Self::encode_to`] makes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_all(bytes)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a record of the key directory"))
    }

    fn decode_all(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [format, flags] = take(&mut rest)?;
        let tenant = TenantId::from_bytes(take(&mut rest)?);
        let version = u64::from_be_bytes(take(&mut rest)?);
        let length = usize::from(u16::from_be_bytes(take(&mut rest)?));
        let (name, sealed) = rest.split_at_checked(length)?;
        let is_sized = if flags == FLAG_VALUE {
            let overhead = NONCE_BYTES + TAG_BYTES;
            (overhead..=overhead + ENTRY_VALUE_BYTES_MAX).contains(&sealed.len())
        } else {
            flags == 0 && sealed.is_empty()
        };
        let is_canonical = format == FORMAT
            && version > 0
            && (1..=ENTRY_NAME_BYTES_MAX).contains(&name.len())
            && is_sized;
        let sealed = (flags == FLAG_VALUE).then(|| sealed.to_vec());
        is_canonical.then(|| Self { tenant, version, name: name.to_vec(), sealed })
    }
}

fn value_key(node_secret: &NodeSecret, tenant: TenantId) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    kdf(&node_secret.borrow(), b"directory", [tenant.as_bytes()], derived.as_mut_slice());
    derived
}

fn aad(tenant: TenantId, name: &[u8], version: u64) -> [u8; 32] {
    context_digest(&[(b"n", name), (b"t", tenant.as_bytes()), (b"v", &version.to_be_bytes())])
}

struct Entry {
    version: u64,
    value: Option<Arc<[u8]>>,
}

/// Every tenant's names and values.
#[derive(Default)]
pub(crate) struct Directory {
    tenants: HashMap<TenantId, BTreeMap<Vec<u8>, Entry>>,
}

impl Directory {
    /// Opens records, the last one of each name.
    pub(crate) fn load(records: &[DirectoryRecord], node_secret: &NodeSecret) -> Result<Self> {
        let mut directory = Self::default();
        for record in records {
            let value = record.open(node_secret)?;
            directory.set(record.tenant, &record.name, record.version, value);
        }
        Ok(directory)
    }

    pub(crate) fn set(
        &mut self,
        tenant: TenantId,
        name: &[u8],
        version: u64,
        value: Option<Arc<[u8]>>,
    ) {
        self.tenants.entry(tenant).or_default().insert(name.to_vec(), Entry { version, value });
    }

    pub(crate) fn value(&self, tenant: TenantId, name: &[u8]) -> Option<Arc<[u8]>> {
        self.tenants.get(&tenant)?.get(name)?.value.clone()
    }

    /// The version that a change of the name has.
    pub(crate) fn next_version(&self, tenant: TenantId, name: &[u8]) -> u64 {
        let entry = self.tenants.get(&tenant).and_then(|names| names.get(name));
        entry.map_or(1, |entry| entry.version + 1)
    }

    /// The live names that start with `prefix`, in byte order, with their values.
    pub(crate) fn values(&self, tenant: TenantId, prefix: &[u8]) -> Vec<(Vec<u8>, Arc<[u8]>)> {
        let Some(names) = self.tenants.get(&tenant) else {
            return Vec::new();
        };
        let from = names.range(prefix.to_vec()..);
        let matching = from.take_while(|(name, _)| name.starts_with(prefix));
        matching.filter_map(|(name, entry)| Some((name.clone(), entry.value.clone()?))).collect()
    }

    /// Every living name of every tenant, with the length of its value.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (TenantId, &[u8], usize)> {
        self.tenants.iter().flat_map(|(tenant, names)| {
            names.iter().filter_map(|(name, entry)| {
                Some((*tenant, name.as_slice(), entry.value.as_ref()?.len()))
            })
        })
    }

    /// Every living name, for a new journal. Deleted ones keep their place until that journal is
    /// the one that counts: then call [`Self::forget_deleted`].
    pub(crate) fn living(&self, node_secret: &NodeSecret, rng: &dyn Rng) -> Vec<DirectoryRecord> {
        let mut records = Vec::new();
        for (tenant, names) in &self.tenants {
            let living = names.iter().filter(|(_, entry)| entry.value.is_some());
            records.extend(living.map(|(name, entry)| {
                let place = (*tenant, name.as_slice(), entry.version);
                DirectoryRecord::seal(node_secret, place, entry.value.as_deref(), rng)
            }));
        }
        records.sort_by(|left, right| (left.tenant, &left.name).cmp(&(right.tenant, &right.name)));
        records
    }

    /// Drops deleted names: the journal in use does not hold them.
    pub(crate) fn forget_deleted(&mut self) {
        for names in self.tenants.values_mut() {
            names.retain(|_, entry| entry.value.is_some());
        }
    }
}

#[cfg(test)]
mod tests;
