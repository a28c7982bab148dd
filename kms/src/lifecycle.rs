//! The states of a tenant key and the steps between them.
//!
//! Owns: which step is allowed in which state. Knows nothing of: gates, files, time.
//!
//! Invariants
//! - Pure. The states and steps are those of AWS KMS for symmetric keys, with the end state named.
//! - Nothing leaves `Destroyed`, and only `PendingDeletion` leads there.
//!   See docs/KEYS.md, "States".

use std::fmt;
use std::ops::RangeInclusive;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::GateClosed;

/// The days between automatic rotations: AWS KMS's own limits.
pub const ROTATION_DAYS: RangeInclusive<u16> = 90..=2560;
/// The days that a deletion waits: AWS KMS's own limits.
pub const DELETION_DAYS: RangeInclusive<u16> = 7..=30;

/// The state of a tenant key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyState {
    /// The material is gone for good.
    Destroyed,
    /// Switched off by its tenant.
    Disabled,
    /// In use.
    Enabled,
    /// Switched off, and to be destroyed when its waiting period ends.
    PendingDeletion,
    /// Without material, until the tenant imports it.
    PendingImport,
    /// Its key store does not answer.
    Unavailable,
}

/// What can happen to a tenant key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// The tenant called the deletion off.
    CancelDeletion,
    /// The waiting period is over and the material is erased.
    Destroy,
    /// The tenant switched it off.
    Disable,
    /// The tenant switched it on.
    Enable,
    /// The tenant imported its material.
    ImportMaterial,
    /// Imported material expired or was deleted by its tenant.
    LoseMaterial,
    /// Its key store stopped answering.
    LoseStore,
    /// Its key store answers again.
    RegainStore,
    /// The tenant scheduled its deletion.
    ScheduleDeletion,
}

impl KeyState {
    /// The state after `event`.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`] from `Destroyed`, else [`ErrorKind::Conflict`]: the step is not
    /// allowed in this state.
    pub fn after(self, event: KeyEvent) -> Result<Self> {
        use KeyEvent as Event;
        Ok(match (self, event) {
            (Self::Destroyed, _) => {
                let during = format!("{event:?} a tenant key");
                return Err(Error::new(ErrorKind::KeyDestroyed, during));
            }
            (Self::Enabled | Self::Disabled, Event::Enable)
            | (Self::PendingImport, Event::ImportMaterial)
            | (Self::Unavailable, Event::RegainStore) => Self::Enabled,
            (Self::Enabled | Self::Disabled | Self::Unavailable, Event::Disable)
            | (Self::PendingDeletion, Event::CancelDeletion) => Self::Disabled,
            (Self::Enabled | Self::Disabled, Event::LoseMaterial) => Self::PendingImport,
            (Self::Enabled, Event::LoseStore) => Self::Unavailable,
            (
                Self::Enabled | Self::Disabled | Self::PendingImport | Self::Unavailable,
                Event::ScheduleDeletion,
            ) => Self::PendingDeletion,
            (Self::PendingDeletion, Event::Destroy) => Self::Destroyed,
            (state, event) => {
                let during = format!("{event:?} a tenant key that is {state}");
                return Err(Error::new(ErrorKind::Conflict, during));
            }
        })
    }

    /// How the gate stands in this state.
    pub const fn gate(self) -> Option<GateClosed> {
        match self {
            Self::Enabled => None,
            Self::Destroyed => Some(GateClosed::Destroyed),
            Self::Disabled => Some(GateClosed::Disabled),
            Self::PendingDeletion | Self::PendingImport => Some(GateClosed::Unusable),
            Self::Unavailable => Some(GateClosed::Unavailable),
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Enabled => 1,
            Self::Disabled => 2,
            Self::PendingDeletion => 3,
            Self::PendingImport => 4,
            Self::Destroyed => 5,
            Self::Unavailable => 6,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Enabled,
            2 => Self::Disabled,
            3 => Self::PendingDeletion,
            4 => Self::PendingImport,
            5 => Self::Destroyed,
            6 => Self::Unavailable,
            _ => return None,
        })
    }
}

/// The name that the AWS KMS API uses.
impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
