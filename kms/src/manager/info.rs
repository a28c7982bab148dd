//! What a tenant may know about its keys and their materials.
//!
//! Owns: the public description of a key. Knows nothing of: how it is stored, who asks.
//!
//! Invariants
//! - No wrap, slot or key byte is in it; a material's id is a keyed digest.

use crate::lifecycle::KeyState;
use crate::record::{KeyOrigin, KeyRecord, MaterialRecord, MaterialRole};
use crate::types::{TenantId, TenantKeyId};

/// What a tenant may know about one material of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaterialInfo {
    /// Counted from 1; wraps name it as their wrapping version.
    pub number: u32,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Its public name, a keyed digest.
    pub id: [u8; 32],
    /// Whether it can be used.
    pub state: MaterialState,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
    /// Whether a rotation by schedule made it.
    pub is_automatic: bool,
    /// What its tenant said when importing it.
    pub description: Option<String>,
}

/// The state of one material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaterialState {
    /// New bucket keys are wrapped under it.
    Current,
    /// Imported, and current from the next rotation on.
    PendingRotation,
    /// Deleted by its tenant, or expired; may be imported again. The current one can be in this
    /// state too: [`TenantKeyInfo::current_material`] tells.
    PendingImport,
    /// Opens what is under it.
    Previous,
    /// Erased for good.
    Retired,
}

impl MaterialInfo {
    pub(super) fn of(origin: &KeyOrigin, material: &MaterialRecord) -> Self {
        let is_absent = *origin == KeyOrigin::Imported && material.wrapped.is_none();
        let state = match material.role {
            MaterialRole::Retired => MaterialState::Retired,
            _ if is_absent => MaterialState::PendingImport,
            MaterialRole::Current => MaterialState::Current,
            MaterialRole::PendingRotation => MaterialState::PendingRotation,
            MaterialRole::Previous => MaterialState::Previous,
        };
        Self {
            number: material.number,
            created_ms: material.created_ms,
            id: material.id,
            state,
            expires_ms: material.expires_ms,
            is_automatic: material.is_automatic,
            description: material.description.clone(),
        }
    }
}

/// What a tenant may know about its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantKeyInfo {
    /// Which key.
    pub id: TenantKeyId,
    /// Whose key.
    pub tenant: TenantId,
    /// Its state.
    pub state: KeyState,
    /// Whether it is used where the tenant names none.
    pub is_default: bool,
    /// Where its material comes from.
    pub origin: KeyOrigin,
    /// When it will be destroyed, in milliseconds since the Unix epoch.
    pub deletion_ms: Option<u64>,
    /// Automatic rotation: the period in days, and when the next is, in Unix milliseconds.
    pub rotation: Option<(u16, u64)>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When its state or materials changed last, in milliseconds since the Unix epoch.
    pub changed_ms: u64,
    /// The number of the material that new bucket keys are wrapped under; 0 before the first
    /// import and after destruction.
    pub current_material: u32,
    /// All materials, oldest first.
    pub materials: Vec<MaterialInfo>,
}

impl TenantKeyInfo {
    pub(super) fn of(record: &KeyRecord) -> Self {
        let materials = record.materials.iter();
        Self {
            id: record.id,
            tenant: record.tenant,
            state: record.state,
            is_default: record.is_default,
            origin: record.origin.clone(),
            deletion_ms: record.deletion_ms,
            rotation: record.rotation,
            created_ms: record.created_ms,
            changed_ms: record.changed_ms,
            current_material: record.current().map_or(0, |current| current.number),
            materials: materials.map(|held| MaterialInfo::of(&record.origin, held)).collect(),
        }
    }
}
