//! Keys whose material their tenant brings: import, expiry, deletion of material.
//!
//! Owns: which material is expected, and the order of steps when one goes. Knows nothing of: RSA.
//!
//! Invariants
//! - A material is replaced by itself only: its keyed digest must agree.
//! - Losing a material that is in use closes the gate first, and returns once the slot is erased.

use subtle::ConstantTimeEq;

use super::tenant_keys::next_number;
use super::{KeyEntry, Kms, MaterialInfo, Writer, lock, read};
use crate::audit::{AuditEvent, AuditOperation, AuditOutcome};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{GateClosed, Purpose};
use crate::import::{
    ImportAlgorithm, ImportParameters, TokenScope, make_parameters, open_material,
};
use crate::lifecycle::{KeyEvent, KeyState};
use crate::record::{DESCRIPTION_BYTES_MAX, KeyOrigin, KeyRecord, MaterialRole};
use crate::secret::TenantKey;
use crate::types::TenantKeyId;

/// What a tenant says about the material it imports.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// When it expires, in Unix milliseconds; none for never.
    pub expires_ms: Option<u64>,
    /// `NEW_KEY_MATERIAL`: a further material, which becomes current by the next rotation.
    pub is_new: bool,
    /// `KeyMaterialId` that the material must have.
    pub material_id: Option<[u8; 32]>,
    /// `KeyMaterialDescription`.
    pub description: Option<String>,
}

impl Kms {
    /// Parameters to wrap material for an imported key; `modulus_bits` 2048, 3072 or 4096. Takes
    /// up to seconds.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], [`ErrorKind::KeyDestroyed`]: the key waits for its deletion or is
    /// gone. [`ErrorKind::Misuse`]: another size. [`ErrorKind::NotFound`]: the tenant has no such
    /// key. [`ErrorKind::Unsupported`]: the key is not an imported one.
    pub fn import_parameters(
        &self,
        who: &Purpose,
        id: TenantKeyId,
        algorithm: ImportAlgorithm,
        modulus_bits: u16,
    ) -> Result<ImportParameters> {
        check_imports(&self.entry(who.tenant, id)?.record())?;
        let scope = TokenScope { tenant: who.tenant, tenant_key: id };
        let clock = (self.env.clock.now_ms(), &self.env.rng);
        make_parameters(&self.node_secret, scope, (algorithm, modulus_bits), clock)
    }

    /// Takes material in.
    ///
    /// # Errors
    /// [`ErrorKind::ImportToken`], [`ErrorKind::ImportExpired`]: not a token of this key, or not
    /// any more. [`ErrorKind::InvalidCiphertext`]: it does not unwrap.
    /// [`ErrorKind::IncorrectMaterial`]: not 32 bytes, not the material that is expected, or known
    /// already and meant to be new. [`ErrorKind::Conflict`]: a new material waits for its rotation
    /// already. [`ErrorKind::Misuse`]: the expiry is past, or the description longer than 256
    /// bytes. And as [`Self::import_parameters`] and [`Self::create_tenant_key`].
    pub fn import_material(
        &self,
        who: &Purpose,
        id: TenantKeyId,
        token: &[u8],
        encrypted: &[u8],
        request: ImportRequest,
    ) -> Result<MaterialInfo> {
        let entry = self.entry(who.tenant, id)?;
        let _transition = lock(&entry.transition);
        self.audited(who, Some(id), AuditOperation::ImportMaterial, || {
            check_imports(&entry.record())?;
            let now_ms = self.env.clock.now_ms();
            let description_bytes = request.description.as_ref().map_or(0, String::len);
            if request.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
                || description_bytes > DESCRIPTION_BYTES_MAX
            {
                return Err(Error::new(ErrorKind::Misuse, "read what is said of the material"));
            }
            let scope = TokenScope { tenant: who.tenant, tenant_key: id };
            let material = open_material(&self.node_secret, scope, (token, encrypted), now_ms)?;
            // What a failing disk kept from being erased would be forgotten by what comes now.
            self.erase_freed_slots(&entry)?;
            let (info, opens) = self.add_material(&entry, |changed, writer| {
                self.place_material(changed, writer, &material, request)
            })?;
            if opens {
                entry.gate.open()?;
            }
            Ok(info)
        })
    }

    /// Puts a material where it belongs; tells whether the key is usable again by it.
    pub(super) fn place_material(
        &self,
        record: &mut KeyRecord,
        writer: &mut Writer,
        material: &TenantKey,
        request: ImportRequest,
    ) -> Result<(MaterialInfo, bool)> {
        let id = self.material_id(record.id, material);
        let number = number_for(record, &id, &request)?;
        let is_first = record.materials.is_empty();
        let place = record.materials.iter().position(|held| held.number == number);
        let held = place.and_then(|place| record.materials.get(place)).cloned();
        let role = match &held {
            Some(held) => held.role,
            None if is_first => MaterialRole::Current,
            None => MaterialRole::PendingRotation,
        };
        let mut placed = if let Some(held) = held.filter(|held| held.wrapped.is_some()) {
            held
        } else {
            let sealed = self.seal_material(record, writer, material, number)?;
            read(&self.vault).slots.sync()?;
            sealed
        };
        placed.role = role;
        placed.expires_ms = request.expires_ms;
        placed.description =
            request.description.or(placed.description).filter(|text| !text.is_empty());
        let info = MaterialInfo::of(&record.origin, &placed);
        match place.and_then(|place| record.materials.get_mut(place)) {
            Some(held) => *held = placed,
            None => record.materials.push(placed),
        }
        let opens = record.state == KeyState::PendingImport && record.has_material();
        if opens {
            record.state = record.state.after(KeyEvent::ImportMaterial)?;
        }
        Ok((info, opens))
    }

    /// Deletes imported material: all, or one. If any of it was in use the key is `PendingImport`
    /// then, and off as after [`Self::disable`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: no such key, or no such material. [`ErrorKind::Conflict`]: the
    /// key is being destroyed. [`ErrorKind::Unsupported`]: the key is not an imported one.
    /// [`ErrorKind::Unavailable`]: a disk failed; the gate is closed all the same.
    pub fn delete_imported_material(
        &self,
        who: &Purpose,
        id: TenantKeyId,
        material_id: Option<[u8; 32]>,
    ) -> Result<()> {
        let entry = self.entry(who.tenant, id)?;
        let _transition = lock(&entry.transition);
        let record = entry.record();
        let outcome = AuditOutcome::Begun;
        let operation = AuditOperation::LoseMaterial;
        let event = AuditEvent::of_change(who, Some(id), operation, outcome);
        // While a deletion waits, material may go, and may not come.
        let is_waiting = record.state == KeyState::PendingDeletion && record.destruction.is_none();
        let refusal = check_imports(&record).err();
        if let Some(error) =
            refusal.filter(|error| !(is_waiting && error.kind() == ErrorKind::Conflict))
        {
            return self.audited_events(vec![event], || Err(error));
        }
        let is_meant = |id: &[u8; 32]| material_id.is_none_or(|meant| bool::from(meant.ct_eq(id)));
        let meant = record.materials.iter().filter(|held| is_meant(&held.id));
        let meant: Vec<u32> = meant.map(|held| held.number).collect();
        if material_id.is_some() && meant.is_empty() {
            let during = format!("find a material of tenant key {id}");
            return Err(Error::new(ErrorKind::NotFound, during));
        }
        self.lose_materials(&entry, &meant, event)
    }

    /// Erases imported materials, which may come back. The caller holds the transition lock.
    pub(super) fn lose_materials(
        &self,
        entry: &KeyEntry,
        numbers: &[u32],
        event: AuditEvent,
    ) -> Result<()> {
        let record = entry.record();
        let held = record.materials.iter().filter(|held| numbers.contains(&held.number));
        let mut held = held.filter(|held| held.wrapped.is_some()).peekable();
        if held.peek().is_none() {
            // Nothing is left but slots that a failing disk kept from erasure, if there are any.
            return self.erase_freed_slots(entry);
        }
        let is_in_use = held.any(|held| held.role.is_in_use());
        let is_closing =
            is_in_use && matches!(record.state, KeyState::Enabled | KeyState::Disabled);
        if is_closing {
            entry.gate.shut(GateClosed::Unusable);
        }
        let mut events = [event];
        let durable = self.audit.record(&events).and_then(|()| {
            self.change(entry, |changed, _| {
                for held in &mut changed.materials {
                    if numbers.contains(&held.number) {
                        held.wrapped = None;
                        held.expires_ms = None;
                    }
                }
                if is_closing {
                    changed.state = changed.state.after(KeyEvent::LoseMaterial)?;
                }
                Ok(())
            })
        });
        if is_in_use {
            self.silence(entry, record.tenant, record.id);
        }
        lock(&entry.materials).retain(|number, _| !numbers.contains(number));
        let erased = durable.and_then(|()| self.erase_freed_slots(entry));
        self.record_outcome(&mut events, AuditOutcome::of(&erased));
        erased
    }
}

/// Which material a tenant brings, if it is one that is expected.
fn number_for(record: &KeyRecord, id: &[u8; 32], request: &ImportRequest) -> Result<u32> {
    let refused = |kind| {
        let during = format!("import material into tenant key {}", record.id);
        Err(Error::new(kind, during))
    };
    let is_same = |other: &[u8; 32]| bool::from(id.ct_eq(other));
    if request.material_id.is_some_and(|expected| !is_same(&expected)) {
        return refused(ErrorKind::IncorrectMaterial);
    }
    let mut materials = record.materials.iter();
    if let Some(held) = materials.clone().find(|held| is_same(&held.id)) {
        let is_there = held.wrapped.is_some();
        if held.role == MaterialRole::Retired || (request.is_new && is_there) {
            return refused(ErrorKind::IncorrectMaterial);
        }
        return Ok(held.number);
    }
    if !record.materials.is_empty() && !request.is_new {
        return refused(ErrorKind::IncorrectMaterial);
    }
    match materials.find(|held| held.role == MaterialRole::PendingRotation) {
        Some(held) if held.wrapped.is_some() => refused(ErrorKind::Conflict),
        // The one that waited was deleted and nothing is under it: this takes its place.
        Some(held) => Ok(held.number),
        None => next_number(record),
    }
}

fn check_imports(record: &KeyRecord) -> Result<()> {
    let kind = if record.origin != KeyOrigin::Imported {
        ErrorKind::Unsupported
    } else if record.state == KeyState::Destroyed {
        ErrorKind::KeyDestroyed
    } else if record.state == KeyState::PendingDeletion {
        ErrorKind::Conflict
    } else {
        return Ok(());
    };
    let during = format!("change the material of tenant key {}", record.id);
    Err(Error::new(kind, during))
}

#[cfg(test)]
mod tests;
