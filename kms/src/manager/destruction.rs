//! Destruction of a key, in steps that a crash may separate, and its proof.
//!
//! ```text
//! begin:  make canaries, open them   ─► record: begun
//! erase:  slots to zero, flushed     ─► canaries refused  ─► next root epoch; record: resealed
//!         canaries refused again     ─► record: proven
//! finish:                               record: Destroyed, without canaries
//! ```
//! Owns: the order of these steps. Knows nothing of: what was under the key, who deletes it.
//!
//! Invariants
//! - Every step is repeatable, and each begins from what the record says.
//! - Nothing is erased before `begun` is durable; nothing is called proven that was not tried.

use super::audited::node_event;
use super::{KeyEntry, Kms, lock, read};
use crate::api_ciphertext::{ApiCiphertext, api_context};
use crate::audit::AuditOperation;
use crate::env::random_array;
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{GateClosed, Purpose};
use crate::lifecycle::{KeyEvent, KeyState};
use crate::record::{Destruction, DestructionStep, KeyRecord, MaterialRole};
use crate::store::ErasureAssurance;
use crate::types::{EncryptionContext, TenantId, TenantKeyId};

/// What the destruction of a key proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasureEvidence {
    /// What destroying is worth in this store.
    pub assurance: ErasureAssurance,
    /// The root epoch that was destroyed, and the one after it. The same twice if the key had no
    /// material here.
    pub epochs: (u32, u32),
    /// Materials erased.
    pub materials: u32,
    /// Canaries that opened before and do not open any more; equals `materials`.
    pub canaries_refused: u32,
    /// When, in Unix milliseconds.
    pub erased_ms: u64,
}

impl Kms {
    /// Keys whose waiting period is over, and those whose destruction a crash interrupted.
    pub fn due_destructions(&self) -> Vec<(TenantId, TenantKeyId)> {
        let now_ms = self.env.clock.now_ms();
        let mut due = Vec::new();
        for entry in self.entries() {
            let record = read(&entry.record);
            let is_over = record.deletion_ms.is_some_and(|deletion_ms| deletion_ms <= now_ms);
            let is_waiting = record.state == KeyState::PendingDeletion;
            if is_waiting && (is_over || record.destruction.is_some()) {
                due.push((record.tenant, record.id));
            }
        }
        due.sort_unstable();
        due
    }

    /// The point of no return: from here a deletion cannot be called off. Repeatable.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: no deletion is scheduled, or its time has not come.
    /// [`ErrorKind::NotFound`]: the tenant has no such key.
    /// [`ErrorKind::Unavailable`]: the keyring or the audit trail could not be written.
    pub fn begin_destruction(&self, tenant: TenantId, id: TenantKeyId) -> Result<()> {
        let entry = self.entry(tenant, id)?;
        let _transition = lock(&entry.transition);
        let record = entry.record();
        if record.state == KeyState::Destroyed || record.destruction.is_some() {
            return Ok(());
        }
        let now_ms = self.env.clock.now_ms();
        if record.deletion_ms.is_none_or(|deletion_ms| deletion_ms > now_ms) {
            let during = format!("destroy tenant key {id}, which is not due");
            return Err(Error::new(ErrorKind::Conflict, during));
        }
        let event = node_event(tenant, Some(id), AuditOperation::Destroy);
        self.audited_events(vec![event], || {
            self.change(&entry, |changed, _| {
                let canaries = self.make_canaries(changed)?;
                changed.destruction = Some(Destruction {
                    step: DestructionStep::Begun,
                    epochs: (0, 0),
                    materials: u32::try_from(canaries.len()).expect("at most 256 materials"),
                    refused: 0,
                    erased_ms: 0,
                    canaries,
                });
                Ok(())
            })
        })
    }

    /// A ciphertext under every material that can be opened, tried.
    fn make_canaries(&self, record: &KeyRecord) -> Result<Vec<ApiCiphertext>> {
        let vault = read(&self.vault);
        let rng = &*self.env.rng;
        let digest = api_context(record.tenant, &EncryptionContext::new());
        let mut canaries = Vec::new();
        for held in record.materials.iter().filter(|held| held.wrapped.is_some()) {
            let material = match vault.open(record, held, &self.mac_key) {
                Ok(material) => material,
                // Nobody can open it any more, so there is nothing to prove of it.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::KeyDestroyed) =>
                {
                    tracing::warn!(%error, "a key is destroyed that was damaged already");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let plain: [u8; 32] = random_array(rng);
            let name = (record.id, held.number);
            let canary = ApiCiphertext::seal(&material.borrow(), name, &digest, (&plain, rng));
            let opened = canary.open(&material.borrow(), &digest);
            if opened.is_none_or(|opened| opened.as_slice() != plain) {
                return Err(Error::new(ErrorKind::Corrupt, "open a canary that was just made"));
            }
            canaries.push(canary);
        }
        Ok(canaries)
    }

    /// Erases all material and proves it. Repeatable.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: the destruction has not begun.
    /// [`ErrorKind::Corrupt`]: a canary still opens, or a material of another key is damaged, so
    /// that it cannot be taken along to the next root epoch: repair that one first.
    /// [`ErrorKind::Unavailable`]: a disk or the key store failed; repeat it.
    pub fn erase_materials(&self, tenant: TenantId, id: TenantKeyId) -> Result<ErasureEvidence> {
        let entry = self.entry(tenant, id)?;
        let _transition = lock(&entry.transition);
        let step = entry.record().destruction.as_ref().map(|destruction| destruction.step);
        let step = step.ok_or_else(|| {
            let during = format!("erase tenant key {id}, whose destruction has not begun");
            Error::new(ErrorKind::Conflict, during)
        })?;
        if step == DestructionStep::Begun {
            let event = node_event(tenant, Some(id), AuditOperation::Reseal);
            self.audited_events(vec![event], || {
                self.erase_slots(&entry)?;
                self.reseal(id)
            })?;
        }
        if step < DestructionStep::Proven {
            self.prove(&entry)?;
        }
        let record = entry.record();
        let destruction = record.destruction.as_ref();
        let destruction = destruction
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read the evidence of an erasure"))?;
        Ok(ErasureEvidence {
            assurance: self.store.capabilities().erasure_assurance,
            epochs: destruction.epochs,
            materials: destruction.materials,
            canaries_refused: destruction.refused,
            erased_ms: destruction.erased_ms,
        })
    }

    /// Zeroes the key's slots, and tries the canaries against what is left of them: the wraps, the
    /// root key and the slots as the disk gives them back.
    fn erase_slots(&self, entry: &KeyEntry) -> Result<()> {
        {
            // The writer is held, so that no other key's destruction moves the slots meanwhile.
            let _writer = lock(&self.writer);
            let vault = read(&self.vault);
            for slot in entry.record().materials.iter().filter_map(|held| held.slot) {
                vault.slots.erase(slot)?;
            }
        }
        self.refuse_canaries(entry).map(drop)
    }

    /// Counts the canaries that do not open.
    fn refuse_canaries(&self, entry: &KeyEntry) -> Result<u32> {
        let vault = read(&self.vault);
        let record = entry.record();
        let digest = api_context(record.tenant, &EncryptionContext::new());
        let mut refused = 0;
        for canary in record.destruction.iter().flat_map(|destruction| &destruction.canaries) {
            let held = record.materials.iter().find(|held| held.number == canary.material());
            let opened = held.and_then(|held| {
                let material = vault.open(&record, held, &self.mac_key).ok()?;
                canary.open(&material.borrow(), &digest)
            });
            if opened.is_some() {
                let during = format!("erase tenant key {}: a canary still opens", record.id);
                return Err(Error::new(ErrorKind::Corrupt, during));
            }
            refused += 1;
        }
        Ok(refused)
    }

    /// Removes what is left of the old epoch, tries the canaries once more, and records that.
    fn prove(&self, entry: &KeyEntry) -> Result<()> {
        let epoch = read(&self.vault).epoch;
        self.paths.remove_other_epochs(epoch)?;
        let refused = self.refuse_canaries(entry)?;
        let erased_ms = self.env.clock.now_ms();
        self.change(entry, |changed, _| {
            if let Some(destruction) = &mut changed.destruction {
                destruction.step = DestructionStep::Proven;
                destruction.refused = refused;
                destruction.erased_ms = erased_ms;
            }
            Ok(())
        })
    }

    /// Makes the key's record a tombstone: state `Destroyed`. Repeatable.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: nothing is proven yet. And as [`Self::begin_destruction`].
    pub fn finish_destruction(&self, tenant: TenantId, id: TenantKeyId) -> Result<()> {
        let entry = self.entry(tenant, id)?;
        let _transition = lock(&entry.transition);
        let record = entry.record();
        if record.state == KeyState::Destroyed {
            return Ok(());
        }
        let step = record.destruction.as_ref().map(|destruction| destruction.step);
        if step != Some(DestructionStep::Proven) {
            let during = format!("bury tenant key {id}, whose erasure is not proven");
            return Err(Error::new(ErrorKind::Conflict, during));
        }
        let event = node_event(tenant, Some(id), AuditOperation::Destroy);
        self.audited_events(vec![event], || {
            self.change(&entry, |changed, _| {
                changed.state = changed.state.after(KeyEvent::Destroy)?;
                changed.deletion_ms = None;
                changed.rotation = None;
                for held in &mut changed.materials {
                    held.role = MaterialRole::Retired;
                    held.expires_ms = None;
                }
                if let Some(destruction) = &mut changed.destruction {
                    destruction.canaries.clear();
                }
                Ok(())
            })
        })?;
        entry.gate.shut(GateClosed::Destroyed);
        self.silence(&entry, tenant, id);
        tracing::info!(%tenant, tenant_key = %id, "destroyed a tenant key");
        Ok(())
    }

    /// Erases one material for good. The caller has shown that nothing is under it. Repeatable.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: it is current or waits to become it, or the key waits for its
    /// deletion. [`ErrorKind::KeyDestroyed`]: the key is gone. [`ErrorKind::NotFound`]: no such
    /// key or material. [`ErrorKind::Unavailable`]: a disk failed; repeat it.
    pub fn retire_material(&self, who: &Purpose, id: TenantKeyId, number: u32) -> Result<()> {
        let entry = self.entry(who.tenant, id)?;
        let _transition = lock(&entry.transition);
        self.audited(who, Some(id), AuditOperation::RetireMaterial, || {
            self.change(&entry, |changed, _| {
                let kind = match changed.state {
                    KeyState::Destroyed => Some(ErrorKind::KeyDestroyed),
                    KeyState::PendingDeletion => Some(ErrorKind::Conflict),
                    _ => None,
                };
                let held = changed.materials.iter_mut().find(|held| held.number == number);
                let kind = kind.or(match held.as_ref().map(|held| held.role) {
                    None => Some(ErrorKind::NotFound),
                    Some(MaterialRole::Current | MaterialRole::PendingRotation) => {
                        Some(ErrorKind::Conflict)
                    }
                    Some(MaterialRole::Previous | MaterialRole::Retired) => None,
                });
                if let Some(kind) = kind {
                    let during = format!("retire material {number} of tenant key {id}");
                    return Err(Error::new(kind, during));
                }
                if let Some(held) = held {
                    held.role = MaterialRole::Retired;
                    held.wrapped = None;
                    held.expires_ms = None;
                }
                Ok(())
            })?;
            lock(&entry.materials).remove(&number);
            self.erase_freed_slots(&entry)
        })
    }
}

#[cfg(test)]
mod tests;
