//! What one tenant may keep in the keyring, so that none takes the room of the others.
//!
//! Owns: the limits of a tenant, and how much each holds; the names that the node writes itself.
//! Knows nothing of: files, what values say.
//!
//! Invariants
//! - What is held is counted under the writer's lock, with every entry that is appended.
//! - Only what adds is refused: switching off, deleting and destroying always find room.

use std::collections::HashMap;

use crate::directory::{Directory, ENTRIES_MAX, entry_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{RECORD_HEAD_BYTES, key_record_bytes};
use crate::lifecycle::KeyState;
use crate::record::KeyRecord;
use crate::slots::SLOTS_MAX;
use crate::types::TenantId;

/// Most keys of a tenant, destroyed ones apart: a tenth of AWS KMS's default quota, so that a
/// hundred tenants with so many find slots.
pub const TENANT_KEYS_MAX: usize = 10_000;
/// Most slots of a tenant: a sixteenth of all, which is six materials for each of
/// [`TENANT_KEYS_MAX`] keys.
pub(super) const TENANT_SLOTS_MAX: usize = SLOTS_MAX as usize / 16;
/// Most bytes of a tenant in a journal without history, tombstones and reports of destroyed keys
/// included: 1,000 keys with the longest policy and the longest tags, and a sixteenth of what a
/// journal holds.
pub(super) const TENANT_BYTES_MAX: u64 = 64 << 20;

/// What a tenant holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Keys that are not destroyed.
    pub(super) keys: usize,
    pub(super) slots: usize,
    /// Names that are not the node's own.
    pub(super) names: usize,
    pub(super) bytes: u64,
}

impl Held {
    /// What a key's record adds.
    pub(super) fn of_key(record: &KeyRecord) -> Self {
        Self {
            keys: usize::from(record.state != KeyState::Destroyed),
            slots: record.materials.iter().filter(|held| held.slot.is_some()).count(),
            names: 0,
            bytes: key_record_bytes(record),
        }
    }

    /// What a name with a value of so many bytes adds; nothing if it has none.
    pub(super) fn of_name(name: &[u8], value_bytes: Option<usize>) -> Self {
        let Some(value_bytes) = value_bytes else {
            return Self::default();
        };
        let bytes = RECORD_HEAD_BYTES + entry_bytes(name, value_bytes);
        Self { names: usize::from(!is_of_node(name)), bytes, ..Self::default() }
    }

    pub(super) const fn and(self, more: Self) -> Self {
        Self {
            keys: self.keys + more.keys,
            slots: self.slots + more.slots,
            names: self.names + more.names,
            bytes: self.bytes + more.bytes,
        }
    }

    pub(super) const fn without(self, less: Self) -> Self {
        Self {
            keys: self.keys.saturating_sub(less.keys),
            slots: self.slots.saturating_sub(less.slots),
            names: self.names.saturating_sub(less.names),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }

    /// Refuses what adds beyond a limit. What takes away is never refused, also above one.
    fn check_after(&self, before: &Self) -> Result<()> {
        let limits = [
            ("keys", before.keys as u64, self.keys as u64, TENANT_KEYS_MAX as u64),
            ("key slots", before.slots as u64, self.slots as u64, TENANT_SLOTS_MAX as u64),
            ("names", before.names as u64, self.names as u64, ENTRIES_MAX as u64),
            ("bytes", before.bytes, self.bytes, TENANT_BYTES_MAX),
        ];
        for (what, before, after, max) in limits {
            if after > max && after > before {
                let during = format!("keep {after} {what} of a tenant in the keyring");
                return Err(Error::new(ErrorKind::Full, during)
                    .with_advice("the tenant deletes keys, policies, tags, grants or aliases"));
            }
        }
        Ok(())
    }
}

/// What every tenant holds.
#[derive(Default)]
pub(super) struct Quotas {
    tenants: HashMap<TenantId, Held>,
}

impl Quotas {
    /// Counts what is there.
    pub(super) fn count(keys: &[KeyRecord], directory: &Directory) -> Self {
        let mut quotas = Self::default();
        for record in keys {
            quotas.add(record.tenant, Held::of_key(record));
        }
        for (tenant, name, value_bytes) in directory.sizes() {
            quotas.add(tenant, Held::of_name(name, Some(value_bytes)));
        }
        quotas
    }

    pub(super) fn of(&self, tenant: TenantId) -> Held {
        self.tenants.get(&tenant).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, tenant: TenantId, more: Held) {
        let held = self.tenants.entry(tenant).or_default();
        *held = held.and(more);
    }

    /// One thing took another's place.
    pub(super) fn replace(&mut self, tenant: TenantId, old: Held, new: Held) {
        let held = self.tenants.entry(tenant).or_default();
        *held = held.and(new).without(old);
    }

    /// Whether a tenant may hold `after`.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: it is over a limit, and more than before.
    pub(super) fn check(&self, tenant: TenantId, after: Held) -> Result<()> {
        after.check_after(&self.of(tenant))
    }
}

/// Whether a name is one that the node writes itself: `k/<id>/erasure`, `k/<id>/count/<number>`
/// and `k/<id>/store/<number>`. There are at most 513 of a key.
pub(super) fn is_of_node(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"k/") else {
        return false;
    };
    let Some((id, rest)) = rest.split_first_chunk::<32>() else {
        return false;
    };
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let counted = [b"/count/", b"/store/"].into_iter().find_map(|part| rest.strip_prefix(part));
    let is_number =
        counted.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit));
    id.iter().all(is_digit) && (rest == b"/erasure" || is_number)
}

#[cfg(test)]
mod tests;
