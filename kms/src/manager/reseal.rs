//! The next epoch of the root key: every material but a destroyed key's moves under a new one.
//!
//! ```text
//! slots.E+1, keyring.E+1  written and flushed
//! root.sealed             replaced: the commit point
//! slots.E, keyring.E      removed
//! ```
//! Owns: that order. Knows nothing of: why an epoch ends.
//!
//! Invariants
//! - A crash before the rename leaves epoch E whole, and one after it epoch E+1; opening removes
//!   the files of the other.
//! - Nothing of the old root key, its slots or its wraps opens anything in the new epoch.
//! - No change of a key is between the two: the writer is held throughout.
//! - A material that is damaged is lost with its epoch, on record, and stops nothing.
//! - Nobody sees the new vault with a record of the old epoch, or the other way round.

use std::sync::Arc;

use super::audited::node_event;
use super::quota::Quotas;
use super::{Kms, Vault, lock, read, root_context, wrap_node_secret, write};
use crate::audit::{AuditOperation, AuditOutcome};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::GateClosed;
use crate::keyring::{Keyring, RootFile};
use crate::lifecycle::{KeyEvent, KeyState};
use crate::record::{DestructionStep, KeyOrigin, KeyRecord, MaterialRecord};
use crate::secret::RootKey;
use crate::slots::{SlotFile, SlotName};
use crate::types::{TenantId, TenantKeyId};

/// What goes on while records move.
struct Moving<'a> {
    next_slot: u32,
    dying: &'a [TenantKeyId],
    /// The old one, and the new one.
    epochs: (u32, u32),
    /// Materials that do not open, with whose they are.
    lost: Vec<(TenantId, TenantKeyId, u32)>,
}

impl Kms {
    /// Moves to the next epoch, leaving the materials of `dying` behind, and what is damaged.
    pub(super) fn reseal(&self, dying: &[TenantKeyId]) -> Result<()> {
        let mut writer = lock(&self.writer);
        writer.keyring.check_writable()?;
        let old = read(&self.vault);
        let epochs = (old.epoch, old.epoch.checked_add(1).ok_or_else(epochs_used_up)?);
        let identity = (old.keyring_id, epochs.1);
        let (keyring_id, epoch) = identity;
        let root_key = RootKey::generate(&*self.env.rng)?;
        let slots = SlotFile::create(&self.paths.slots(epoch), keyring_id, &self.mac_key)?;
        let new = Vault { root_key, epoch, keyring_id, slots };
        let mut records = self.key_records();
        let mut moving = Moving { next_slot: 0, dying, epochs, lost: Vec::new() };
        for record in &mut records {
            self.move_record((&old, &new), record, &mut moving)?;
        }
        let Moving { next_slot, lost, .. } = moving;
        new.slots.sync()?;
        let journal = self.journal_records(records.clone());
        let path = self.paths.keyring(epoch);
        let keyring = Keyring::write_epoch(&path, identity, &journal, &self.mac_key)?;
        let sealed = self.store.seal_root(&new.root_key, &root_context(identity)?)?;
        let rng = &*self.env.rng;
        let node_secret = wrap_node_secret(&new.root_key, identity, &self.node_secret, rng)?;
        let root_file = RootFile { epoch, keyring_id, sealed, node_secret };
        if let Err(error) = root_file.write(&self.paths.root) {
            // It may be durable all the same: nothing more goes to a journal that may be dead.
            writer.keyring.fence();
            return Err(error);
        }
        drop(old);
        writer.quotas = Quotas::count(&records, &read(&self.directory));
        self.show_epoch(new, records);
        writer.keyring = keyring;
        writer.next_slot = next_slot;
        writer.free_slots.clear();
        write(&self.directory).forget_deleted();
        tracing::info!(epoch, "sealed the keyring under a new root key");
        // The writer is still held, so that no epoch that another call makes is removed.
        let removed = self.paths.remove_other_epochs(epoch);
        drop(writer);
        self.report_lost(&lost);
        removed
    }

    /// Shows the new epoch, whole: whoever reads the vault finds its records.
    fn show_epoch(&self, new: Vault, records: Vec<KeyRecord>) {
        let mut vault = write(&self.vault);
        *vault = new;
        let index = read(&self.index);
        for record in records {
            if let Some(entry) = index.keys.get(&record.id) {
                *write(&entry.record) = Arc::new(record);
            }
        }
    }

    fn move_record(
        &self,
        (old, new): (&Vault, &Vault),
        record: &mut KeyRecord,
        moving: &mut Moving<'_>,
    ) -> Result<()> {
        let before = record.clone();
        if moving.dying.contains(&record.id) {
            if let Some(destruction) = &mut record.destruction {
                destruction.step = DestructionStep::Resealed;
                destruction.epochs = moving.epochs;
            }
            for held in &mut record.materials {
                (held.slot, held.wrapped) = (None, None);
            }
            return Ok(());
        }
        for held in &mut record.materials {
            self.move_material((old, new), &before, held, moving)?;
        }
        let is_usable = matches!(record.state, KeyState::Enabled | KeyState::Disabled);
        if record.origin == KeyOrigin::Imported && is_usable && !record.has_material() {
            record.state = record.state.after(KeyEvent::LoseMaterial)?;
        }
        Ok(())
    }

    /// Materials that were damaged are on record as lost, and a key that waits for its tenant to
    /// bring them again is switched off.
    fn report_lost(&self, lost: &[(TenantId, TenantKeyId, u32)]) {
        for (tenant, id, material) in lost {
            tracing::error!(%tenant, tenant_key = %id, material,
                "a damaged material could not be taken to the new root key; what is under it is \
                 lost unless the keys directory is restored from a backup");
            let mut event = node_event(*tenant, Some(*id), AuditOperation::LoseMaterial);
            event.access.material = Some(*material);
            event.outcome = AuditOutcome::Failed(ErrorKind::Corrupt);
            if let Err(error) = self.audit.record(&[event]) {
                tracing::error!(%error, "could not record that a material is lost");
            }
            if let Ok(entry) = self.entry(*tenant, *id)
                && entry.record().state == KeyState::PendingImport
            {
                entry.gate.shut(GateClosed::Unusable);
                self.silence(&entry, *tenant, *id);
            }
        }
    }

    fn move_material(
        &self,
        (old, new): (&Vault, &Vault),
        record: &KeyRecord,
        held: &mut MaterialRecord,
        moving: &mut Moving<'_>,
    ) -> Result<()> {
        if held.wrapped.is_none() {
            if let Some(slot) = held.slot.take() {
                old.slots.erase(slot)?;
            }
            return Ok(());
        }
        let material = match old.open(record, held, &self.mac_key) {
            Ok(material) => material,
            // One tenant's damage does not keep others from being erased. Of a key that is being
            // destroyed, its slots are erased.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::KeyDestroyed) => {
                if record.destruction.is_none() {
                    moving.lost.push((record.tenant, record.id, held.number));
                }
                (held.slot, held.wrapped, held.expires_ms) = (None, None, None);
                return Ok(());
            }
            Err(error) => {
                let during = format!("move material {} of {}", held.number, record.id);
                return Err(Error::new(error.kind(), during).with_source(error));
            }
        };
        let slot =
            SlotName { index: moving.next_slot, tenant_key: record.id, material: held.number };
        let sealed = new.seal(record, &slot, &material, (&self.mac_key, &*self.env.rng))?;
        (held.slot, held.wrapped) = (Some(slot.index), Some(sealed));
        moving.next_slot += 1;
        Ok(())
    }
}

fn epochs_used_up() -> Error {
    Error::new(ErrorKind::Full, "begin the 2^32nd epoch of the root key")
}

#[cfg(test)]
mod tests;
