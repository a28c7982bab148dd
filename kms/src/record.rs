//! The record of a tenant key, as the keyring's journal keeps it.
//!
//! ```text
//!  0   1  format 0x01    1  16  tenant key id    17  16  tenant id    33   8  version (from 1)
//! 41   1  state         42   1  flags (bit 0: the tenant's default)
//! 43   1  origin (1 made here, 2 imported, 3 in a store)
//! 44   8  created, ms   52   8  changed, ms      60   8  deletion due, ms (0: none)
//! 68   2  rotation period, days (0: none)        70   8  next rotation, ms
//! 78   1  destruction step (0 none, 1 begun, 2 resealed, 3 proven)
//!      then, of a key in a store:         2  length   store    2  length   its key there
//!      then, of a key being destroyed:    4  old epoch    4  new epoch    4  materials
//!                       4  canaries refused    8  erased, ms
//!                       2  count of canaries, each  4  material   136  ciphertext (kind 6)
//!                                                136  the material's wrap as the destruction began
//!      2  count of materials, then each:
//!      4  number (from 1)    1  role    1  flags (1 made by schedule, 2 slot, 4 wrap)
//!      8  created, ms        8  expires, ms (0: never)    32  material id
//!      2  length   description    [4  slot]    [136  wrapped key]
//! ```
//! All integers are big-endian. A change appends the whole record with the next version.
//! Owns: that layout. Knows nothing of: files, what is inside a wrapped key.
//!
//! Invariants
//! - Pure. One record has one encoding; decoding refuses every other.
//! - Materials are numbered 1, 2, …; at most one is current and at most one waits to become it.
//! - A wrap has a slot. A slot without a wrap is one that still has to be erased.

use crate::api_ciphertext::{API_OVERHEAD_BYTES, ApiCiphertext};
use crate::error::{Error, ErrorKind, Result};
use crate::lifecycle::{KeyState, ROTATION_DAYS};
use crate::types::{TenantId, TenantKeyId};
use crate::wrap::{WRAPPED_KEY_COMMITTED_BYTES, WrapKind, WrappedKey};

/// Most materials of one tenant key: daily rotation for most of a year, monthly for 21 years.
pub(crate) const MATERIALS_MAX: usize = 256;
/// Longest description of an imported material: AWS KMS's own limit.
pub const DESCRIPTION_BYTES_MAX: usize = 256;
/// Longest name of a key store, and longest id of a key in one: a URI of a token fits.
pub const STORE_NAME_BYTES_MAX: usize = 1024;
/// Longest encoding.
pub(crate) const RECORD_BYTES_MAX: usize = 79
    + 2 * (2 + STORE_NAME_BYTES_MAX)
    + (26 + MATERIALS_MAX * (4 + CANARY_BYTES + WRAPPED_KEY_COMMITTED_BYTES))
    + (2 + MATERIALS_MAX * MATERIAL_BYTES_MAX);
/// Longest encoding of one material.
pub(crate) const MATERIAL_BYTES_MAX: usize =
    60 + DESCRIPTION_BYTES_MAX + WRAPPED_KEY_COMMITTED_BYTES;

const FORMAT: u8 = 0x01;
const FLAG_DEFAULT: u8 = 0x01;
const FLAG_AUTOMATIC: u8 = 0x01;
const FLAG_SLOT: u8 = 0x02;
const FLAG_WRAP: u8 = 0x04;
const CANARY_BYTES: usize = 32 + API_OVERHEAD_BYTES;

/// Where a tenant key's material comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// Drawn here (`AWS_KMS`).
    Local,
    /// Imported by its tenant (`EXTERNAL`).
    Imported,
    /// In a key store of the tenant's own; it never comes here (`EXTERNAL_KEY_STORE`).
    Store {
        /// The name of the store in the node's configuration.
        store: String,
        /// The key's id inside that store.
        key: String,
    },
}

impl KeyOrigin {
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Local => 1,
            Self::Imported => 2,
            Self::Store { .. } => 3,
        }
    }
}

/// What a material is to its key, whether or not it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaterialRole {
    Current,
    PendingRotation,
    Previous,
    Retired,
}

impl MaterialRole {
    const fn code(self) -> u8 {
        match self {
            Self::Current => 1,
            Self::PendingRotation => 2,
            Self::Previous => 3,
            Self::Retired => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Current,
            2 => Self::PendingRotation,
            3 => Self::Previous,
            4 => Self::Retired,
            _ => return None,
        })
    }

    /// Whether what lies under the material needs it.
    pub(crate) const fn is_in_use(self) -> bool {
        matches!(self, Self::Current | Self::Previous)
    }
}

/// One version of a tenant key's material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaterialRecord {
    pub(crate) number: u32,
    pub(crate) role: MaterialRole,
    pub(crate) is_automatic: bool,
    pub(crate) created_ms: u64,
    pub(crate) expires_ms: Option<u64>,
    /// A keyed digest of the material: names it, and confirms no guess without the node's secret.
    pub(crate) id: [u8; 32],
    pub(crate) description: Option<String>,
    pub(crate) slot: Option<u32>,
    pub(crate) wrapped: Option<WrappedKey>,
}

/// How far a destruction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DestructionStep {
    /// It cannot be called off any more.
    Begun,
    /// The materials are erased, and the keyring is under a new root key.
    Resealed,
    /// No canary opens.
    Proven,
}

impl DestructionStep {
    const fn code(self) -> u8 {
        match self {
            Self::Begun => 1,
            Self::Resealed => 2,
            Self::Proven => 3,
        }
    }
}

/// A destruction on its way, and its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destruction {
    pub(crate) step: DestructionStep,
    pub(crate) epochs: (u32, u32),
    pub(crate) materials: u32,
    pub(crate) refused: u32,
    pub(crate) erased_ms: u64,
    /// One for each material, until the key is buried.
    pub(crate) canaries: Vec<Canary>,
}

/// What must not open any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Canary {
    /// Made under the material, and opened, when the destruction began.
    pub(crate) ciphertext: ApiCiphertext,
    /// The material's wrap at that time: it is tried again after the wrap is gone from its place.
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
    pub(crate) origin: KeyOrigin,
    pub(crate) created_ms: u64,
    pub(crate) changed_ms: u64,
    pub(crate) deletion_ms: Option<u64>,
    /// The period in days, and when the next rotation is.
    pub(crate) rotation: Option<(u16, u64)>,
    pub(crate) destruction: Option<Destruction>,
    pub(crate) materials: Vec<MaterialRecord>,
}

impl KeyRecord {
    /// The material that new wraps are made under.
    pub(crate) fn current(&self) -> Option<&MaterialRecord> {
        self.materials.iter().find(|material| material.role == MaterialRole::Current)
    }

    /// Whether everything that may lie under the key could be opened.
    pub(crate) fn has_material(&self) -> bool {
        let mut in_use = self.materials.iter().filter(|material| material.role.is_in_use());
        self.current().is_some() && in_use.all(|material| material.wrapped.is_some())
    }

    /// When the first material in use expires.
    pub(crate) fn first_expiry_ms(&self) -> Option<u64> {
        let held = self.materials.iter().filter(|material| material.wrapped.is_some());
        held.filter(|material| material.role.is_in_use()).filter_map(|held| held.expires_ms).min()
    }

    /// Appends the encoding to `bytes`.
    pub(crate) fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.push(FORMAT);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(self.tenant.as_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.push(self.state.code());
        bytes.push(if self.is_default { FLAG_DEFAULT } else { 0 });
        bytes.push(self.origin.code());
        bytes.extend_from_slice(&self.created_ms.to_be_bytes());
        bytes.extend_from_slice(&self.changed_ms.to_be_bytes());
        bytes.extend_from_slice(&self.deletion_ms.unwrap_or(0).to_be_bytes());
        let (days, next_ms) = self.rotation.unwrap_or((0, 0));
        bytes.extend_from_slice(&days.to_be_bytes());
        bytes.extend_from_slice(&next_ms.to_be_bytes());
        bytes.push(self.destruction.as_ref().map_or(0, |destruction| destruction.step.code()));
        if let KeyOrigin::Store { store, key } = &self.origin {
            put_text(bytes, store);
            put_text(bytes, key);
        }
        if let Some(destruction) = &self.destruction {
            destruction.encode_to(bytes);
        }
        put_count(bytes, self.materials.len());
        for material in &self.materials {
            material.encode_to(bytes);
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
        let version = take_u64(&mut rest)?;
        let [state, flags, origin] = take(&mut rest)?;
        let created_ms = take_u64(&mut rest)?;
        let changed_ms = take_u64(&mut rest)?;
        let deletion_ms = some_unless_zero(take_u64(&mut rest)?);
        let days = u16::from_be_bytes(take(&mut rest)?);
        let next_ms = take_u64(&mut rest)?;
        let [step] = take(&mut rest)?;
        let origin = match origin {
            1 => KeyOrigin::Local,
            2 => KeyOrigin::Imported,
            3 => {
                let store = take_text(&mut rest, STORE_NAME_BYTES_MAX)?;
                KeyOrigin::Store { store, key: take_text(&mut rest, STORE_NAME_BYTES_MAX)? }
            }
            _ => return None,
        };
        let destruction = match step {
            0 => None,
            1 => Some(take_destruction(&mut rest, DestructionStep::Begun)?),
            2 => Some(take_destruction(&mut rest, DestructionStep::Resealed)?),
            3 => Some(take_destruction(&mut rest, DestructionStep::Proven)?),
            _ => return None,
        };
        let count = u16::from_be_bytes(take(&mut rest)?);
        let mut materials = Vec::new();
        for _ in 0..count {
            materials.push(take_material(&mut rest)?);
        }
        let is_canonical = format == FORMAT
            && flags & !FLAG_DEFAULT == 0
            && (days > 0 || next_ms == 0)
            && rest.is_empty();
        let rotation = (days > 0).then_some((days, next_ms));
        let record = Self {
            id,
            tenant,
            version,
            state: KeyState::from_code(state)?,
            is_default: flags == FLAG_DEFAULT,
            origin,
            created_ms,
            changed_ms,
            deletion_ms,
            rotation,
            destruction,
            materials,
        };
        is_canonical.then_some(record)
    }

    fn is_sound(&self) -> bool {
        let count_of = |role| self.materials.iter().filter(|held| held.role == role).count();
        let is_destroyed = self.state == KeyState::Destroyed;
        let step = self.destruction.as_ref().map(|destruction| destruction.step);
        let needs_material = self.origin == KeyOrigin::Local;
        let is_numbered =
            (1..).zip(&self.materials).all(|(number, material)| material.number == number);
        self.version > 0
            && (usize::from(needs_material)..=MATERIALS_MAX).contains(&self.materials.len())
            && is_numbered
            && count_of(MaterialRole::Current)
                == usize::from(!is_destroyed && !self.materials.is_empty())
            && count_of(MaterialRole::PendingRotation) <= 1
            && (!is_destroyed || count_of(MaterialRole::Retired) == self.materials.len())
            && self.materials.iter().all(|material| material.is_sound(&self.origin))
            && self.deletion_ms.is_some() == (self.state == KeyState::PendingDeletion)
            && (step.is_none() || is_destroyed || self.state == KeyState::PendingDeletion)
            && (!is_destroyed || step == Some(DestructionStep::Proven))
            && self.rotation.is_none_or(|(days, _)| {
                self.origin == KeyOrigin::Local && ROTATION_DAYS.contains(&days)
            })
            && self.destruction.as_ref().is_none_or(|destruction| {
                destruction.canaries.iter().all(|canary| canary.ciphertext.tenant_key() == self.id)
                    && destruction.canaries.is_sorted_by_key(|canary| canary.ciphertext.material())
            })
    }
}

impl Destruction {
    fn encode_to(&self, bytes: &mut Vec<u8>) {
        for number in [self.epochs.0, self.epochs.1, self.materials, self.refused] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.erased_ms.to_be_bytes());
        put_count(bytes, self.canaries.len());
        for canary in &self.canaries {
            bytes.extend_from_slice(&canary.ciphertext.material().to_be_bytes());
            bytes.extend_from_slice(canary.ciphertext.as_bytes());
            bytes.extend_from_slice(canary.wrapped.as_bytes());
        }
    }
}

fn take_destruction(rest: &mut &[u8], step: DestructionStep) -> Option<Destruction> {
    let epochs = (take_u32(rest)?, take_u32(rest)?);
    let (materials, refused) = (take_u32(rest)?, take_u32(rest)?);
    let erased_ms = take_u64(rest)?;
    let count = u16::from_be_bytes(take(rest)?);
    let mut canaries = Vec::new();
    for _ in 0..count {
        let material = take_u32(rest)?;
        let bytes: [u8; CANARY_BYTES] = take(rest)?;
        let ciphertext = ApiCiphertext::parse(&bytes).ok()?;
        let bytes: [u8; WRAPPED_KEY_COMMITTED_BYTES] = take(rest)?;
        let wrapped = WrappedKey::parse(&bytes).ok()?;
        if ciphertext.material() != material || wrapped.kind() != WrapKind::TenantKey {
            return None;
        }
        canaries.push(Canary { ciphertext, wrapped });
    }
    Some(Destruction { step, epochs, materials, refused, erased_ms, canaries })
}

impl MaterialRecord {
    fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.number.to_be_bytes());
        let mut flags = if self.is_automatic { FLAG_AUTOMATIC } else { 0 };
        flags |= if self.slot.is_some() { FLAG_SLOT } else { 0 };
        flags |= if self.wrapped.is_some() { FLAG_WRAP } else { 0 };
        bytes.extend_from_slice(&[self.role.code(), flags]);
        bytes.extend_from_slice(&self.created_ms.to_be_bytes());
        bytes.extend_from_slice(&self.expires_ms.unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(&self.id);
        put_text(bytes, self.description.as_deref().unwrap_or(""));
        if let Some(slot) = self.slot {
            bytes.extend_from_slice(&slot.to_be_bytes());
        }
        if let Some(wrapped) = &self.wrapped {
            bytes.extend_from_slice(wrapped.as_bytes());
        }
    }

    fn is_sound(&self, origin: &KeyOrigin) -> bool {
        let is_imported = *origin == KeyOrigin::Imported;
        (self.wrapped.is_none() || self.slot.is_some())
            && (self.role != MaterialRole::Retired || self.wrapped.is_none())
            && (self.role != MaterialRole::PendingRotation || is_imported)
            && (is_imported || (self.expires_ms.is_none() && self.description.is_none()))
            && (!self.is_automatic || *origin == KeyOrigin::Local)
            && self.wrapped.as_ref().is_none_or(|wrapped| wrapped.kind() == WrapKind::TenantKey)
    }
}

fn take_material(rest: &mut &[u8]) -> Option<MaterialRecord> {
    let number = take_u32(rest)?;
    let [role, flags] = take(rest)?;
    let role = MaterialRole::from_code(role)?;
    let created_ms = take_u64(rest)?;
    let expires_ms = some_unless_zero(take_u64(rest)?);
    let id = take(rest)?;
    let description = Some(take_text(rest, DESCRIPTION_BYTES_MAX)?).filter(|text| !text.is_empty());
    let slot = if flags & FLAG_SLOT == 0 { None } else { Some(take_u32(rest)?) };
    let wrapped = if flags & FLAG_WRAP == 0 {
        None
    } else {
        let bytes: [u8; WRAPPED_KEY_COMMITTED_BYTES] = take(rest)?;
        Some(WrappedKey::parse(&bytes).ok()?)
    };
    let is_automatic = flags & FLAG_AUTOMATIC != 0;
    (flags & !(FLAG_AUTOMATIC | FLAG_SLOT | FLAG_WRAP) == 0).then_some(MaterialRecord {
        number,
        role,
        is_automatic,
        created_ms,
        expires_ms,
        id,
        description,
        slot,
        wrapped,
    })
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("a key has at most 256 materials");
    bytes.extend_from_slice(&count.to_be_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("texts are bounded where they come in");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn take_text(rest: &mut &[u8], bytes_max: usize) -> Option<String> {
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    let (text, tail) = rest.split_at_checked(length).filter(|_| length <= bytes_max)?;
    *rest = tail;
    String::from_utf8(text.to_vec()).ok()
}

const fn some_unless_zero(number: u64) -> Option<u64> {
    if number == 0 { None } else { Some(number) }
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_be_bytes)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_be_bytes)
}

/// Takes `N` bytes off the front.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
pub(crate) mod tests;
