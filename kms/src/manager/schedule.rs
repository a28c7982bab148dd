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
use crate::error::{ErrorKind, Result};
use crate::lifecycle::KeyState;
use crate::record::KeyRecord;
use crate::types::{TenantId, TenantKeyId};

impl Kms {
    /// Does what is due by the clock: automatic rotations, expiries, the beginning of destructions.
    /// Gives what rotated or expired.
    ///
    /// # Errors
    /// None so far: a key that fails is logged and tried again next time.
    pub fn run_due(&self) -> Result<Vec<(TenantId, TenantKeyId)>> {
        if let Err(error) = self.settled.keep(&*self.env.clock, &self.mac_key) {
            tracing::warn!(%error, "could not write down the settled time");
        }
        let now = Now {
            wall_ms: self.env.clock.now_ms(),
            settled_ms: self.settled.now_ms(&*self.env.clock),
        };
        let mut changed = Vec::new();
        for entry in self.entries() {
            let (tenant, id) = {
                let record = read(&entry.record);
                (record.tenant, record.id)
            };
            match self.run_due_of(&entry, now) {
                Ok(true) => changed.push((tenant, id)),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%tenant, tenant_key = %id, %error, "could not do what is due");
                }
            }
        }
        self.begin_due_destructions();
        Ok(changed)
    }

    pub(super) fn entries(&self) -> Vec<Arc<KeyEntry>> {
        read(&self.index).keys.values().map(Arc::clone).collect()
    }

    fn run_due_of(&self, entry: &KeyEntry, now: Now) -> Result<bool> {
        if !Due::of(&read(&entry.record), now).is_any() {
            return Ok(false);
        }
        let _transition = lock(&entry.transition);
        let record = entry.record();
        let due = Due::of(&record, now);
        if !due.expired.is_empty() {
            let event = node_event(record.tenant, Some(record.id), AuditOperation::LoseMaterial);
            self.lose_materials(entry, &due.expired, event)?;
        }
        if due.erasure {
            self.erase_freed_slots(entry)?;
        }
        if due.rotation {
            let event = node_event(record.tenant, Some(record.id), AuditOperation::Rotate);
            self.audited_events(vec![event], || self.rotate_by_schedule(entry, now.wall_ms))?;
        }
        Ok(due.is_any())
    }

    /// The rotation and the next one's time are one change. A key that cannot rotate any more is
    /// not tried for ever; any other failure is tried again.
    fn rotate_by_schedule(&self, entry: &KeyEntry, now_ms: u64) -> Result<u32> {
        let move_on = |changed: &mut KeyRecord| {
            changed.rotation = changed.rotation.map(|(days, next_ms)| {
                let period_ms = u64::from(days) * DAY_MS;
                let is_behind = next_ms.saturating_add(period_ms) <= now_ms;
                let from_ms = if is_behind { now_ms } else { next_ms };
                (days, from_ms.saturating_add(period_ms))
            });
        };
        let rotated = self.add_material(entry, |changed, writer| {
            move_on(changed);
            self.rotate_record(changed, writer, true)
        });
        if rotated.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full) {
            self.change(entry, |changed, _| {
                move_on(changed);
                Ok(())
            })?;
        }
        rotated
    }

    /// Erases slots whose record says that nothing is wrapped under them any more.
    pub(super) fn finish_erasures(&self) -> Result<()> {
        for entry in self.entries() {
            self.erase_freed_slots(&entry)?;
        }
        Ok(())
    }

    /// Erases the slots of materials that have no wrap, if there are any, then forgets the slots.
    pub(super) fn erase_freed_slots(&self, entry: &KeyEntry) -> Result<()> {
        if !has_freed_slots(&entry.record()) {
            return Ok(());
        }
        // The writer is held until the slots are free: an epoch in between would number them anew,
        // and what is free here would be another key's there.
        let mut writer = lock(&self.writer);
        writer.keyring.check_writable()?;
        let mut freed = Vec::new();
        self.change_under(&mut writer, entry, Vec::new, |changed, _| {
            let vault = read(&self.vault);
            for held in changed.materials.iter_mut().filter(|held| held.wrapped.is_none()) {
                if let Some(slot) = held.slot.take() {
                    vault.slots.erase(slot)?;
                    freed.push(slot);
                }
            }
            Ok(())
        })?;
        writer.free_slots.extend(freed);
        Ok(())
    }
}

/// What time it is for what can be made good again, and for what cannot.
#[derive(Clone, Copy)]
struct Now {
    wall_ms: u64,
    settled_ms: u64,
}

/// What is due of one key.
struct Due {
    rotation: bool,
    /// Imported materials past their time.
    expired: Vec<u32>,
    /// Slots that a failing disk, or a crash, kept from being erased.
    erasure: bool,
}

/// Whether a slot is still to be erased: nothing is wrapped under it any more.
fn has_freed_slots(record: &KeyRecord) -> bool {
    record.materials.iter().any(|held| held.slot.is_some() && held.wrapped.is_none())
}

impl Due {
    fn of(record: &KeyRecord, now: Now) -> Self {
        let is_due = record.rotation.is_some_and(|(_, next_ms)| next_ms <= now.wall_ms);
        let held = record.materials.iter().filter(|held| held.wrapped.is_some());
        let expired = held.filter(|held| held.expires_ms.is_some_and(|ms| ms <= now.settled_ms));
        let is_dying = record.destruction.is_some();
        Self {
            rotation: is_due && record.state == KeyState::Enabled,
            expired: expired.filter(|_| !is_dying).map(|held| held.number).collect(),
            erasure: has_freed_slots(record),
        }
    }

    const fn is_any(&self) -> bool {
        self.rotation || self.erasure || !self.expired.is_empty()
    }
}

#[cfg(test)]
mod tests;
