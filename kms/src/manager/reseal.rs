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

use std::sync::Arc;

use super::{Kms, Vault, lock, read, root_context, wrap_node_secret, write};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{Keyring, RootFile};
use crate::record::{DestructionStep, KeyRecord, MaterialRecord};
use crate::secret::RootKey;
use crate::slots::{SlotFile, SlotName};
use crate::types::TenantKeyId;

impl Kms {
    /// Moves to the next epoch, leaving the materials of `dying` behind.
    pub(super) fn reseal(&self, dying: TenantKeyId) -> Result<()> {
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
        let mut next_slot = 0;
        for record in &mut records {
            self.move_record((&old, &new), record, &mut next_slot, (dying, epochs))?;
        }
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
        *write(&self.vault) = new;
        let index = read(&self.index);
        for record in records {
            if let Some(entry) = index.keys.get(&record.id) {
                *write(&entry.record) = Arc::new(record);
            }
        }
        drop(index);
        writer.keyring = keyring;
        writer.next_slot = next_slot;
        writer.free_slots.clear();
        drop(writer);
        tracing::info!(epoch, "sealed the keyring under a new root key");
        self.paths.remove_other_epochs(epoch)
    }

    fn move_record(
        &self,
        (old, new): (&Vault, &Vault),
        record: &mut KeyRecord,
        next_slot: &mut u32,
        (dying, epochs): (TenantKeyId, (u32, u32)),
    ) -> Result<()> {
        let before = record.clone();
        if record.id == dying {
            if let Some(destruction) = &mut record.destruction {
                destruction.step = DestructionStep::Resealed;
                destruction.epochs = epochs;
            }
            for held in &mut record.materials {
                (held.slot, held.wrapped) = (None, None);
            }
            return Ok(());
        }
        for held in &mut record.materials {
            self.move_material((old, new), &before, held, next_slot)?;
        }
        Ok(())
    }

    fn move_material(
        &self,
        (old, new): (&Vault, &Vault),
        record: &KeyRecord,
        held: &mut MaterialRecord,
        next_slot: &mut u32,
    ) -> Result<()> {
        if held.wrapped.is_none() {
            if let Some(slot) = held.slot.take() {
                old.slots.erase(slot)?;
            }
            return Ok(());
        }
        let material = match old.open(record, held, &self.mac_key) {
            Ok(material) => material,
            // Another destruction got as far as this key's slots.
            Err(_) if record.destruction.is_some() => {
                (held.slot, held.wrapped) = (None, None);
                return Ok(());
            }
            Err(error) => {
                let during = format!("move material {} of {}", held.number, record.id);
                return Err(Error::new(ErrorKind::Corrupt, during).with_source(error));
            }
        };
        let slot = SlotName { index: *next_slot, tenant_key: record.id, material: held.number };
        let sealed = new.seal(record, &slot, &material, (&self.mac_key, &*self.env.rng))?;
        (held.slot, held.wrapped) = (Some(slot.index), Some(sealed));
        *next_slot += 1;
        Ok(())
    }
}

fn epochs_used_up() -> Error {
    Error::new(ErrorKind::Full, "begin the 2^32nd epoch of the root key")
}
