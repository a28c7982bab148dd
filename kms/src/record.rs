//! The record of a tenant key, as the keyring's journal keeps it.
//!
//! ```text
//!  0   1  format 0x01    1  16  tenant key id    17  16  tenant id    33   8  version (from 1)
//! 41   1  state         42   1  flags (bit 0: the tenant's default)
//! 43   1  origin (1: made here)                  44   8  created, ms  52   8  changed, ms
//! 60   2  count of materials, then each:
//!      4  number (from 1)    4  slot    8  created, ms    32  material id    136  wrapped key
//! ```
//! All integers are big-endian. A change appends the whole record with the next version.
//! Owns: that layout. Knows nothing of: files, what is inside a wrapped key.
//!
//! Invariants
//! - Pure. One record has one encoding; decoding refuses every other.
//! - Materials are numbered 1, 2, …; the last one is current.

use crate::error::{Error, ErrorKind, Result};
use crate::lifecycle::KeyState;
use crate::types::{TenantId, TenantKeyId};
use crate::wrap::{WRAPPED_KEY_COMMITTED_BYTES, WrappedKey};

/// Most materials of one tenant key: daily rotation for most of a year, monthly for 21 years.
pub(crate) const MATERIALS_MAX: usize = 256;
/// Longest encoding.
pub(crate) const RECORD_BYTES_MAX: usize = HEAD_BYTES + MATERIALS_MAX * MATERIAL_BYTES;
/// Origin of material that this node drew at random.
pub(crate) const ORIGIN_LOCAL: u8 = 1;

const FORMAT: u8 = 0x01;
const FLAG_DEFAULT: u8 = 0x01;
const HEAD_BYTES: usize = 62;
const MATERIAL_BYTES: usize = 4 + 4 + 8 + 32 + WRAPPED_KEY_COMMITTED_BYTES;

/// One version of a tenant key's material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaterialRecord {
    pub(crate) number: u32,
    pub(crate) slot: u32,
    pub(crate) created_ms: u64,
    /// A keyed digest of the material: names it, and confirms no guess without the root key.
    pub(crate) id: [u8; 32],
    pub(crate) wrapped: WrappedKey,
}

/// A tenant key at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    pub(crate) id: TenantKeyId,
    pub(crate) tenant: TenantId,
    pub(crate) version: u64,
    pub(crate) state: KeyState,
    pub(crate) is_default: bool,
    pub(crate) created_ms: u64,
    pub(crate) changed_ms: u64,
    pub(crate) materials: Vec<MaterialRecord>,
}

impl KeyRecord {
    /// Appends the encoding to `bytes`.
    pub(crate) fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.push(FORMAT);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(self.tenant.as_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.push(self.state.code());
        bytes.push(if self.is_default { FLAG_DEFAULT } else { 0 });
        bytes.push(ORIGIN_LOCAL);
        bytes.extend_from_slice(&self.created_ms.to_be_bytes());
        bytes.extend_from_slice(&self.changed_ms.to_be_bytes());
        let count = u16::try_from(self.materials.len()).expect("a key has at most 256 materials");
        bytes.extend_from_slice(&count.to_be_bytes());
        for material in &self.materials {
            bytes.extend_from_slice(&material.number.to_be_bytes());
            bytes.extend_from_slice(&material.slot.to_be_bytes());
            bytes.extend_from_slice(&material.created_ms.to_be_bytes());
            bytes.extend_from_slice(&material.id);
            bytes.extend_from_slice(material.wrapped.as_bytes());
        }
    }

    /// Reads an encoding.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not one that [`Self::encode_to`] makes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_all(bytes)
            .filter(Self::is_sound)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read the record of a tenant key"))
    }

    fn decode_all(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [format] = take(&mut rest)?;
        let id = TenantKeyId::from_bytes(take(&mut rest)?);
        let tenant = TenantId::from_bytes(take(&mut rest)?);
        let version = u64::from_be_bytes(take(&mut rest)?);
        let [state, flags, origin] = take(&mut rest)?;
        let created_ms = u64::from_be_bytes(take(&mut rest)?);
        let changed_ms = u64::from_be_bytes(take(&mut rest)?);
        let count = u16::from_be_bytes(take(&mut rest)?);
        let mut materials = Vec::new();
        for _ in 0..count {
            materials.push(take_material(&mut rest)?);
        }
        let is_canonical = format == FORMAT
            && flags & !FLAG_DEFAULT == 0
            && origin == ORIGIN_LOCAL
            && rest.is_empty();
        let state = KeyState::from_code(state)?;
        let is_default = flags == FLAG_DEFAULT;
        let record =
            Self { id, tenant, version, state, is_default, created_ms, changed_ms, materials };
        is_canonical.then_some(record)
    }

    fn is_sound(&self) -> bool {
        self.version > 0
            && (1..=MATERIALS_MAX).contains(&self.materials.len())
            && (1..).zip(&self.materials).all(|(number, material)| material.number == number)
    }
}

fn take_material(rest: &mut &[u8]) -> Option<MaterialRecord> {
    let number = u32::from_be_bytes(take(rest)?);
    let slot = u32::from_be_bytes(take(rest)?);
    let created_ms = u64::from_be_bytes(take(rest)?);
    let id = take(rest)?;
    let wrapped: [u8; WRAPPED_KEY_COMMITTED_BYTES] = take(rest)?;
    let wrapped = WrappedKey::parse(&wrapped).ok()?;
    Some(MaterialRecord { number, slot, created_ms, id, wrapped })
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
pub(crate) mod tests;
