//! What the clock makes due: automatic rotations, and slots that a crash kept from erasure.
//!
//! Owns: deciding what is due. Knows nothing of: when it is asked.
//!
//! Invariants
//! - One key's failure keeps no other key from its turn.
//! - An erasure that a record announces is done before the keyring is used.

use std::sync::Arc;

use super::audited::node_event;
use super::tenant_keys::DAY_MS;
use super::{KeyEntry, Kms, lock, read};
use crate::audit::AuditOperation;
use crate::error::Result;
use crate::lifecycle::KeyState;
use crate::record::KeyRecord;
use crate::types::{TenantId, TenantKeyId};

impl Kms {
    /// Does what is due by the clock: automatic rotations and expiries. Gives what changed.
    ///
    /// # Errors
    /// None so far: a key that fails is logged and tried again next time.
    pub fn run_due(&self) -> Result<Vec<(TenantId, TenantKeyId)>> {
        let now_ms = self.env.clock.now_ms();
        let mut changed = Vec::new();
        for entry in self.entries() {
            let (tenant, id) = {
                let record = read(&entry.record);
                (record.tenant, record.id)
            };
            match self.run_due_of(&entry, now_ms) {
                Ok(true) => changed.push((tenant, id)),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%tenant, tenant_key = %id, %error, "could not do what is due");
                }
            }
        }
        Ok(changed)
    }

    pub(super) fn entries(&self) -> Vec<Arc<KeyEntry>> {
        read(&self.index).keys.values().map(Arc::clone).collect()
    }

    fn run_due_of(&self, entry: &KeyEntry, now_ms: u64) -> Result<bool> {
        if !Due::of(&read(&entry.record), now_ms).is_any() {
            return Ok(false);
        }
        let _transition = lock(&entry.transition);
        let record = entry.record();
        let due = Due::of(&record, now_ms);
        if !due.expired.is_empty() {
            let event = node_event(record.tenant, Some(record.id), AuditOperation::LoseMaterial);
            self.lose_materials(entry, &due.expired, event)?;
        }
        if due.rotation {
            let event = node_event(record.tenant, Some(record.id), AuditOperation::Rotate);
            self.audited_events(vec![event], || self.rotate_by_schedule(entry, now_ms))?;
        }
        Ok(due.is_any())
    }

    /// The schedule moves on first, so that a key that cannot rotate is not tried for ever.
    fn rotate_by_schedule(&self, entry: &KeyEntry, now_ms: u64) -> Result<u32> {
        self.change(entry, |changed, _| {
            changed.rotation = changed.rotation.map(|(days, next_ms)| {
                let period_ms = u64::from(days) * DAY_MS;
                let is_behind = next_ms.saturating_add(period_ms) <= now_ms;
                let from_ms = if is_behind { now_ms } else { next_ms };
                (days, from_ms.saturating_add(period_ms))
            });
            Ok(())
        })?;
        self.rotate_entry(entry, true)
    }

    /// Erases slots whose record says that nothing is wrapped under them any more.
    pub(super) fn finish_erasures(&self) -> Result<()> {
        for entry in self.entries() {
            let record = entry.record();
            let mut materials = record.materials.iter();
            if materials.any(|held| held.slot.is_some() && held.wrapped.is_none()) {
                self.erase_freed_slots(&entry)?;
            }
        }
        Ok(())
    }

    /// Erases the slots of materials that have no wrap, then forgets the slots.
    pub(super) fn erase_freed_slots(&self, entry: &KeyEntry) -> Result<()> {
        let mut freed = Vec::new();
        self.change(entry, |changed, _| {
            let vault = read(&self.vault);
            for held in changed.materials.iter_mut().filter(|held| held.wrapped.is_none()) {
                if let Some(slot) = held.slot.take() {
                    vault.slots.erase(slot)?;
                    freed.push(slot);
                }
            }
            Ok(())
        })?;
        lock(&self.writer).free_slots.extend(freed);
        Ok(())
    }
}

/// What is due of one key.
struct Due {
    rotation: bool,
    /// Imported materials past their time.
    expired: Vec<u32>,
}

impl Due {
    fn of(record: &KeyRecord, now_ms: u64) -> Self {
        let is_due = record.rotation.is_some_and(|(_, next_ms)| next_ms <= now_ms);
        let held = record.materials.iter().filter(|held| held.wrapped.is_some());
        let expired = held.filter(|held| held.expires_ms.is_some_and(|ms| ms <= now_ms));
        let is_dying = record.destruction.is_some();
        Self {
            rotation: is_due && record.state == KeyState::Enabled,
            expired: expired.filter(|_| !is_dying).map(|held| held.number).collect(),
        }
    }

    const fn is_any(&self) -> bool {
        self.rotation || !self.expired.is_empty()
    }
}

#[cfg(test)]
mod tests;
