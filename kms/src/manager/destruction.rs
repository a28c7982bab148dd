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
//! - A canary counts as refused only if what it needs is erased: a disk that fails proves nothing.
//! - Keys that are due together are erased together, with one epoch of the root key.

use super::audited::node_event;
use super::{KeyEntry, Kms, lock, read};
use crate::api_ciphertext::{ApiCiphertext, api_context};
use crate::audit::AuditOperation;
use crate::env::random_array;
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{GateClosed, Purpose};
use crate::lifecycle::{KeyEvent, KeyState};
use crate::record::{Canary, Destruction, DestructionStep, KeyRecord, MaterialRole};
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
    ///
    /// Due by settled time: a clock that jumps makes nothing due before it has been stable.
    pub fn due_destructions(&self) -> Vec<(TenantId, TenantKeyId)> {
        let now_ms = self.settled.now_ms(&*self.env.clock);
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

    /// Begins what is due, so that one epoch of the root key serves all of it. A key that fails is
    /// logged and keeps no other from its turn.
    pub(super) fn begin_due_destructions(&self) {
        for (tenant, id) in self.due_destructions() {
            if let Err(error) = self.begin_destruction(tenant, id) {
                tracing::error!(%tenant, tenant_key = %id, %error, "could not begin to destroy");
            }
        }
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
        let now_ms = self.settled.now_ms(&*self.env.clock);
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
    fn make_canaries(&self, record: &KeyRecord) -> Result<Vec<Canary>> {
        let vault = read(&self.vault);
        let rng = &*self.env.rng;
        let digest = api_context(record.tenant, &EncryptionContext::new());
        let mut canaries = Vec::new();
        for held in &record.materials {
            let Some(wrapped) = held.wrapped.clone() else { continue };
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
            let ciphertext = ApiCiphertext::seal(&material.borrow(), name, &digest, (&plain, rng));
            let opened = ciphertext.open(&material.borrow(), &digest);
            if opened.is_none_or(|opened| opened.as_slice() != plain) {
                return Err(Error::new(ErrorKind::Corrupt, "open a canary that was just made"));
            }
            canaries.push(Canary { ciphertext, wrapped });
        }
        Ok(canaries)
    }

    /// Erases all material and proves it. Repeatable.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: the destruction has not begun.
    /// [`ErrorKind::Corrupt`]: a canary still opens, or why it does not open cannot be told.
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
                // One epoch serves all that are as far as this one.
                let mut dying = vec![id];
                for other in self.entries().iter().filter(|other| is_begun(other)) {
                    let other_id = read(&other.record).id;
                    match self.erase_slots(other) {
                        Ok(()) => dying.push(other_id),
                        Err(error) => tracing::warn!(tenant_key = %other_id, %error,
                            "could not erase a key beside another one; it has its turn"),
                    }
                }
                self.reseal(&dying)
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

    /// Counts the canaries that do not open, because what they need is erased and for no other
    /// reason. Their wraps are tried with the slots as the disk gives them back, or once the epoch
    /// is over, with all that is left of it.
    fn refuse_canaries(&self, entry: &KeyEntry) -> Result<u32> {
        let vault = read(&self.vault);
        let record = entry.record();
        let digest = api_context(record.tenant, &EncryptionContext::new());
        let mut refused = 0;
        for canary in record.destruction.iter().flat_map(|destruction| &destruction.canaries) {
            let number = canary.ciphertext.material();
            let held = record.materials.iter().find(|held| held.number == number);
            let opened = match held.filter(|held| held.wrapped.is_some()) {
                Some(held) => vault.open(&record, held, &self.mac_key),
                None => vault.open_erased(&record, &canary.wrapped),
            };
            let during = |what: &str| format!("erase material {number} of {}: {what}", record.id);
            match opened {
                Err(error) if error.kind() == ErrorKind::KeyDestroyed => refused += 1,
                Err(error) => {
                    let during = during("whether it is gone cannot be told");
                    return Err(Error::new(error.kind(), during).with_source(error));
                }
                Ok(material) => {
                    let opens = canary.ciphertext.open(&material.borrow(), &digest).is_some();
                    let what = if opens { "a canary still opens" } else { "its wrap still opens" };
                    return Err(Error::new(ErrorKind::Corrupt, during(what)));
                }
            }
        }
        Ok(refused)
    }

    /// Removes what is left of the old epoch, tries the canaries once more, and records that.
    fn prove(&self, entry: &KeyEntry) -> Result<()> {
        {
            let _writer = lock(&self.writer);
            let epoch = read(&self.vault).epoch;
            self.paths.remove_other_epochs(epoch)?;
        }
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

    /// Makes the key's record a tombstone: state `Destroyed`. What its tenant kept beside it and
    /// aliases that name it go with it, in one entry; its erasure report stays. Repeatable.
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
            let buried = || self.entries_to_bury(tenant, id);
            self.change_beside(&entry, buried, |changed, _| {
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
        lock(&entry.api_counts).clear();
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

/// Whether a key's destruction has begun, and nothing of it is erased for good.
fn is_begun(entry: &KeyEntry) -> bool {
    let record = read(&entry.record);
    record.destruction.as_ref().is_some_and(|it| it.step == DestructionStep::Begun)
}

#[cfg(test)]
mod tests;
