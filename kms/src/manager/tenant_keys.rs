//! A tenant's verbs on its keys: create, describe, list, disable, enable, rotate.
//!
//! Owns: the order of durable steps of each verb. Knows nothing of: who may call which verb.
//!
//! Invariants
//! - Event, then slot, then journal, then memory; only closing a gate comes before them.
//! - Changes of one key follow each other (`KeyEntry::transition`).

use std::collections::HashMap;

use super::audited::node_event;
use super::entries::{Change, Sealed, check_changes};
use super::quota::Held;
use super::{KeyEntry, Kms, TenantKeyInfo, Writer, lock, read, write};
use crate::audit::{AuditEvent, AuditOperation, AuditOutcome};
use crate::derive::kdf;
use crate::error::{Error, ErrorKind, Result};
use crate::gate::Purpose;
use crate::keyring::{JournalRecord, Room, batches};
use crate::lifecycle::{KeyEvent, KeyState, ROTATION_DAYS};
use crate::record::{
    KeyOrigin, KeyRecord, MATERIAL_BYTES_MAX, MATERIALS_MAX, MaterialRecord, MaterialRole,
};
use crate::secret::{TenantKey, random};
use crate::slots::SlotName;
use crate::types::{TenantId, TenantKeyId};

pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Kms {
    /// How many tenant keys there are.
    pub fn tenant_key_count(&self) -> usize {
        read(&self.index).keys.len()
    }

    /// Makes a tenant key. A tenant's first one becomes its default.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: no slots or no locked memory is left.
    /// [`ErrorKind::Unavailable`]: the keyring could not be written.
    pub fn create_tenant_key(&self, tenant: TenantId) -> Result<TenantKeyInfo> {
        let mut infos = self.create_tenant_keys(&[tenant])?;
        infos.pop().ok_or_else(|| Error::new(ErrorKind::Misuse, "make a tenant key"))
    }

    /// Makes a key for each tenant, in order, with one flush of the slots and one of the journal
    /// per 59,000. Errors as [`Self::create_tenant_key`]; a whole batch exists or none of it.
    pub fn create_tenant_keys(&self, tenants: &[TenantId]) -> Result<Vec<TenantKeyInfo>> {
        let blanks: Vec<_> =
            tenants.iter().map(|tenant| self.blank_record(*tenant, KeyOrigin::Local)).collect();
        let events = blanks
            .iter()
            .map(|blank| node_event(blank.tenant, Some(blank.id), AuditOperation::Create))
            .collect();
        let records = self.audited_events(events, || self.insert_records(blanks, Vec::new()))?;
        tracing::info!(count = records.len(), "made tenant keys");
        Ok(records.iter().map(TenantKeyInfo::of).collect())
    }

    /// Makes a key with nothing beside it.
    ///
    /// # Errors
    /// As [`Self::create_key_with`].
    pub fn create_key(&self, who: &Purpose, origin: KeyOrigin) -> Result<TenantKeyInfo> {
        self.create_key_with(who, origin, |_| Vec::new())
    }

    /// Makes a key, with what its tenant keeps beside it from the start: both are durable, or
    /// neither. An imported one begins in `PendingImport`.
    ///
    /// # Errors
    /// As [`Self::create_tenant_key`] and [`Self::set_entries`]; [`ErrorKind::KeyUnusable`]: the
    /// tenant has no such key store, or the store refuses the key. [`ErrorKind::Unavailable`]: the
    /// store does not answer.
    pub fn create_key_with(
        &self,
        who: &Purpose,
        origin: KeyOrigin,
        beside: impl FnOnce(TenantKeyId) -> Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<TenantKeyInfo> {
        let blank = self.blank_record(who.tenant, origin);
        let id = blank.id;
        let mut changes = beside(id);
        check_changes(&changes)?;
        let records = self.audited(who, Some(id), AuditOperation::Create, || {
            // Asked before a store is, so that a refusal makes nothing there.
            self.check_key_quota(who.tenant)?;
            changes.extend(self.begin_remote_key(&blank)?);
            self.insert_records(vec![blank], changes)
        })?;
        tracing::info!(tenant = %who.tenant, tenant_key = %id, "made a tenant key");
        let record = records.first().map(TenantKeyInfo::of);
        record.ok_or_else(|| Error::new(ErrorKind::Misuse, "make a tenant key"))
    }

    /// A key without material.
    fn blank_record(&self, tenant: TenantId, origin: KeyOrigin) -> KeyRecord {
        let now_ms = self.env.clock.now_ms();
        let is_imported = origin == KeyOrigin::Imported;
        KeyRecord {
            id: TenantKeyId::random(&*self.env.rng),
            tenant,
            version: 1,
            state: if is_imported { KeyState::PendingImport } else { KeyState::Enabled },
            is_default: false,
            origin,
            created_ms: now_ms,
            changed_ms: now_ms,
            deletion_ms: None,
            rotation: None,
            destruction: None,
            materials: Vec::new(),
        }
    }

    /// Whether the tenant may have one more key.
    fn check_key_quota(&self, tenant: TenantId) -> Result<()> {
        let writer = lock(&self.writer);
        let more = Held { keys: 1, ..Held::default() };
        writer.quotas.check(tenant, writer.quotas.of(tenant).and(more))
    }

    /// Gives local keys their first material, and makes all of them durable and known. What is kept
    /// beside them is the first one's tenant's, and in the first one's entry.
    fn insert_records(
        &self,
        blanks: Vec<KeyRecord>,
        beside: Vec<Change>,
    ) -> Result<Vec<KeyRecord>> {
        let mut writer = lock(&self.writer);
        writer.keyring.check_writable()?;
        let sealed = match blanks.first() {
            Some(first) => self.seal_entries(first.tenant, beside),
            None => return Ok(Vec::new()),
        };
        let tenant = blanks.first().map(|first| first.tenant);
        sealed.check_length()?;
        self.check_new(&mut writer, &blanks, &sealed)?;
        let mut has_default: HashMap<TenantId, bool> = HashMap::new();
        let mut records = blanks;
        for record in &mut records {
            // A key without material is nobody's default: what is made without a key named would
            // fail until its tenant imports it.
            if record.origin == KeyOrigin::Imported {
                continue;
            }
            // Nor is one in a store: it is a choice, bucket by bucket, to depend on it.
            if record.origin == KeyOrigin::Local {
                let known = has_default.entry(record.tenant);
                let known = known.or_insert_with(|| self.default_tenant_key(record.tenant).is_ok());
                record.is_default = !std::mem::replace(known, true);
            }
            let material = self.new_material(record, &mut writer, false)?;
            record.materials.push(material);
        }
        read(&self.vault).slots.sync()?;
        let mut journal: Vec<JournalRecord> = sealed.records.clone();
        journal.extend(records.iter().cloned().map(JournalRecord::from));
        let mut unseen = records.iter();
        for batch in batches(&journal) {
            writer.keyring.append(batch, 0, &self.mac_key)?;
            let keys = batch.iter().filter(|record| matches!(record, JournalRecord::Key(_)));
            let mut index = write(&self.index);
            for record in unseen.by_ref().take(keys.count()) {
                writer.quotas.add(record.tenant, Held::of_key(record));
                index.insert(record.clone());
            }
        }
        if let Some(tenant) = tenant {
            self.show_entries(&mut writer, tenant, sealed);
        }
        Ok(records)
    }

    /// Whether there is room for new keys, before any of them takes a slot.
    fn check_new(&self, writer: &mut Writer, blanks: &[KeyRecord], sealed: &Sealed) -> Result<()> {
        let mut after: HashMap<TenantId, Held> = HashMap::new();
        let mut bytes = sealed.records.iter().map(JournalRecord::encoded_bytes).sum();
        for blank in blanks {
            let has_material = blank.origin != KeyOrigin::Imported;
            let material_bytes = if has_material { MATERIAL_BYTES_MAX as u64 } else { 0 };
            let mut more = Held::of_key(blank);
            (more.slots, more.bytes) = (usize::from(has_material), more.bytes + material_bytes);
            bytes += more.bytes;
            let held = after.entry(blank.tenant).or_insert_with(|| writer.quotas.of(blank.tenant));
            *held = held.and(more);
        }
        if let Some(held) = blanks.first().and_then(|first| after.get_mut(&first.tenant)) {
            *held = sealed.after(*held);
        }
        for (tenant, after) in after {
            writer.quotas.check(tenant, after)?;
        }
        self.make_room(writer, bytes, Room::Adding)
    }

    /// Draws the next material of a key and writes its slot, which the caller flushes before the
    /// record.
    pub(super) fn new_material(
        &self,
        record: &KeyRecord,
        writer: &mut Writer,
        is_automatic: bool,
    ) -> Result<MaterialRecord> {
        let material = TenantKey::fill_with(random(&*self.env.rng))?;
        let mut held = self.seal_material(record, writer, &material, next_number(record)?)?;
        held.is_automatic = is_automatic;
        Ok(held)
    }

    /// Puts a material into a slot of its own, as the key's current one.
    pub(super) fn seal_material(
        &self,
        record: &KeyRecord,
        writer: &mut Writer,
        material: &TenantKey,
        number: u32,
    ) -> Result<MaterialRecord> {
        let slot = SlotName { index: writer.take_slot(), tenant_key: record.id, material: number };
        self.check_unused(&slot)?;
        let sealed = (&self.mac_key, &*self.env.rng);
        let wrapped = read(&self.vault).seal(record, &slot, material, sealed)?;
        Ok(MaterialRecord {
            number,
            role: MaterialRole::Current,
            is_automatic: false,
            created_ms: self.env.clock.now_ms(),
            expires_ms: None,
            id: self.material_id(record.id, material),
            description: None,
            slot: Some(slot.index),
            wrapped: Some(wrapped),
        })
    }

    /// Refuses a slot that a record names: what is in it could never be brought back.
    fn check_unused(&self, slot: &SlotName) -> Result<()> {
        let Some((tenant_key, material)) = read(&self.vault).slots.holder(slot.index)? else {
            return Ok(());
        };
        // One that no record names is what a crash left between slot and journal.
        let index = read(&self.index);
        let is_used = index.keys.get(&tenant_key).is_some_and(|entry| {
            let record = read(&entry.record);
            let mut materials = record.materials.iter();
            materials.any(|held| held.number == material && held.slot == Some(slot.index))
        });
        if is_used {
            let during = format!("write slot {}, which {tenant_key} is in", slot.index);
            return Err(Error::new(ErrorKind::Corrupt, during)
                .with_advice("this is a bug: restart the node, and report it"));
        }
        Ok(())
    }

    /// `KDF(root MAC key, "material-id", tenant key id ‖ material, 32)`.
    pub(super) fn material_id(&self, id: TenantKeyId, material: &TenantKey) -> [u8; 32] {
        let mut digest = [0; 32];
        let material_bytes = material.borrow();
        let context = [id.as_bytes().as_slice(), material_bytes.as_slice()];
        kdf(&self.mac_key.borrow(), b"material-id", context, &mut digest);
        digest
    }

    /// The key that is used where the tenant names none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the tenant has no key.
    pub fn default_tenant_key(&self, tenant: TenantId) -> Result<TenantKeyId> {
        let index = read(&self.index);
        let default = index.tenants.get(&tenant).and_then(|keys| keys.default);
        default.ok_or_else(|| Error::new(ErrorKind::NotFound, "find a tenant's default key"))
    }

    /// What is known about a key.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the tenant has no such key.
    pub fn describe(&self, tenant: TenantId, id: TenantKeyId) -> Result<TenantKeyInfo> {
        Ok(TenantKeyInfo::of(&self.entry(tenant, id)?.record()))
    }

    /// The number of the material that new bucket keys are wrapped under, 0 if there is none. Asked
    /// for every write: copies nothing of the key's record.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the tenant has no such key.
    pub fn current_material(&self, tenant: TenantId, id: TenantKeyId) -> Result<u32> {
        let entry = self.entry(tenant, id)?;
        let record = read(&entry.record);
        Ok(record.current().map_or(0, |current| current.number))
    }

    /// The tenant's keys, oldest first.
    pub fn list(&self, tenant: TenantId) -> Vec<TenantKeyInfo> {
        let index = read(&self.index);
        let ids = index.tenants.get(&tenant).map_or(&[][..], |keys| &keys.ids);
        let entries = ids.iter().filter_map(|id| index.keys.get(id));
        entries.map(|entry| TenantKeyInfo::of(&entry.record())).collect()
    }

    /// Switches a key off. When this returns, the state is durable, no plaintext is being made or
    /// read under the key, none will be, and no material of it is in memory.
    ///
    /// Blocks until work in flight is done: at most one chunk per open request. Do not call it
    /// from a thread that holds an [`InFlight`](crate::InFlight) guard.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], [`ErrorKind::KeyDestroyed`]: the state does not allow it.
    /// [`ErrorKind::NotFound`]: the tenant has no such key.
    /// [`ErrorKind::Unavailable`]: the keyring or the audit trail could not be written; the gate
    /// is closed all the same, but after a restart the key would be as it was.
    pub fn disable(&self, who: &Purpose, id: TenantKeyId) -> Result<()> {
        self.switch_off(who, id, (AuditOperation::Disable, KeyEvent::Disable), |_| {})
    }

    /// Closes the gate, makes the state durable, drains, wipes and tells: the one way in which a
    /// key stops.
    pub(super) fn switch_off(
        &self,
        who: &Purpose,
        id: TenantKeyId,
        (operation, event): (AuditOperation, KeyEvent),
        edit: impl FnOnce(&mut KeyRecord),
    ) -> Result<()> {
        let tenant = who.tenant;
        let entry = self.entry(tenant, id)?;
        let _transition = lock(&entry.transition);
        let state = match entry.record().state.after(event) {
            Ok(state) => state,
            // Refused, and on record as refused.
            Err(error) => return self.audited(who, Some(id), operation, || Err(error)),
        };
        let gate = state.gate().expect("a key that is switched off has a closed gate");
        // Safe first: the gate closes whatever the disk and the audit trail say.
        entry.gate.shut(gate);
        let mut events = [AuditEvent::of_change(who, Some(id), operation, AuditOutcome::Begun)];
        let durable = self.audit.record(&events).and_then(|()| {
            self.change(&entry, |changed, _| {
                changed.state = state;
                edit(changed);
                Ok(())
            })
        });
        self.silence(&entry, tenant, id);
        self.record_outcome(&mut events, AuditOutcome::of(&durable));
        durable.map_err(|error| {
            let during = format!("make durable that tenant key {id} is off; its gate is closed");
            Error::new(error.kind(), during)
                .with_advice("repair the disk and repeat: a restart would open the gate again")
                .with_source(error)
        })?;
        tracing::info!(%tenant, tenant_key = %id, %state, "switched a tenant key off");
        Ok(())
    }

    /// Waits for the guards of a gate that is shut, wipes the materials, and tells the listeners.
    pub(super) fn silence(&self, entry: &KeyEntry, tenant: TenantId, id: TenantKeyId) {
        entry.gate.drain();
        lock(&entry.materials).clear();
        self.remote.forget(entry.record().id);
        let listeners = read(&self.listeners).clone();
        for listener in &listeners {
            listener(tenant, id);
        }
    }

    /// Switches a key on again. Permits from before stay void.
    ///
    /// # Errors
    /// As [`Self::disable`]; the gate stays as it was then.
    pub fn enable(&self, who: &Purpose, id: TenantKeyId) -> Result<()> {
        let tenant = who.tenant;
        let entry = self.entry(tenant, id)?;
        let _transition = lock(&entry.transition);
        self.audited(who, Some(id), AuditOperation::Enable, || {
            let state = entry.record().state.after(KeyEvent::Enable)?;
            self.change(&entry, |changed, _| {
                changed.state = state;
                Ok(())
            })?;
            entry.gate.open()
        })?;
        tracing::info!(%tenant, tenant_key = %id, "enabled a tenant key");
        Ok(())
    }

    /// Adds a material, under which bucket keys are wrapped from now on; of an imported key, the
    /// material that waits for it. Older ones stay readable.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyUnusable`]: only an enabled key rotates.
    /// [`ErrorKind::Full`]: it has 256 materials. [`ErrorKind::Conflict`]: no imported material
    /// waits. [`ErrorKind::Unsupported`]: the key is in a store that rotates it.
    /// And as [`Self::create_tenant_key`].
    pub fn rotate(&self, who: &Purpose, id: TenantKeyId) -> Result<TenantKeyInfo> {
        let tenant = who.tenant;
        let entry = self.entry(tenant, id)?;
        let _transition = lock(&entry.transition);
        let number = self
            .audited(who, Some(id), AuditOperation::Rotate, || self.rotate_entry(&entry, false))?;
        tracing::info!(%tenant, tenant_key = %id, material = number, "rotated a tenant key");
        Ok(TenantKeyInfo::of(&entry.record()))
    }

    /// Rotates; gives the new current material's number. The caller holds the transition lock.
    pub(super) fn rotate_entry(&self, entry: &KeyEntry, is_automatic: bool) -> Result<u32> {
        self.add_material(entry, |changed, writer| {
            self.rotate_record(changed, writer, is_automatic)
        })
    }

    /// The edit of a rotation.
    pub(super) fn rotate_record(
        &self,
        changed: &mut KeyRecord,
        writer: &mut Writer,
        is_automatic: bool,
    ) -> Result<u32> {
        check_enabled(changed, "rotate")?;
        let material = match changed.origin {
            KeyOrigin::Local => {
                let material = self.new_material(changed, writer, is_automatic)?;
                read(&self.vault).slots.sync()?;
                material
            }
            KeyOrigin::Imported => take_pending(changed, self.env.clock.now_ms())?,
            KeyOrigin::Store { .. } => {
                let during = format!("rotate tenant key {}, which is in a store", changed.id);
                return Err(Error::new(ErrorKind::Unsupported, during));
            }
        };
        let number = material.number;
        for held in &mut changed.materials {
            if held.role == MaterialRole::Current {
                held.role = MaterialRole::Previous;
            }
        }
        changed.materials.push(material);
        Ok(number)
    }

    /// Sets automatic rotation every `days` (90 to 2,560), or ends it.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyUnusable`]: the key is not enabled.
    /// [`ErrorKind::Misuse`]: another number of days. [`ErrorKind::Unsupported`]: only keys that
    /// are made here rotate by schedule.
    pub fn set_rotation(&self, who: &Purpose, id: TenantKeyId, days: Option<u16>) -> Result<()> {
        let entry = self.entry(who.tenant, id)?;
        let _transition = lock(&entry.transition);
        self.audited(who, Some(id), AuditOperation::SetRotation, || {
            if days.is_some_and(|days| !ROTATION_DAYS.contains(&days)) {
                return Err(Error::new(ErrorKind::Misuse, format!("rotate every {days:?} days")));
            }
            let now_ms = self.env.clock.now_ms();
            self.change(&entry, |changed, _| {
                if changed.origin != KeyOrigin::Local {
                    let during = format!("set the rotation of tenant key {id}");
                    return Err(Error::new(ErrorKind::Unsupported, during));
                }
                check_enabled(changed, "set the rotation of")?;
                changed.rotation = days.map(|days| (days, now_ms + u64::from(days) * DAY_MS));
                Ok(())
            })
        })
    }
}

/// The number of a key's next material.
///
/// # Errors
/// [`ErrorKind::Full`]: it has 256.
pub(super) fn next_number(record: &KeyRecord) -> Result<u32> {
    let count = record.materials.len();
    if count >= MATERIALS_MAX {
        return Err(Error::new(ErrorKind::Full, format!("add to a key of {count} materials")));
    }
    Ok(u32::try_from(count).expect("at most 256 materials") + 1)
}

fn take_pending(record: &mut KeyRecord, now_ms: u64) -> Result<MaterialRecord> {
    let pending = record.materials.last();
    let is_ready = pending.is_some_and(|held| {
        held.role == MaterialRole::PendingRotation
            && held.wrapped.is_some()
            && held.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms)
    });
    let pending = if is_ready { record.materials.pop() } else { None };
    let mut pending = pending.ok_or_else(|| {
        let during = format!("rotate tenant key {}: no imported material waits", record.id);
        Error::new(ErrorKind::Conflict, during)
    })?;
    pending.role = MaterialRole::Current;
    Ok(pending)
}

/// What only an enabled key can do.
pub(super) fn check_enabled(record: &KeyRecord, verb: &str) -> Result<()> {
    let kind = match record.state {
        KeyState::Enabled => return Ok(()),
        KeyState::Disabled => ErrorKind::KeyDisabled,
        KeyState::Destroyed => ErrorKind::KeyDestroyed,
        KeyState::PendingDeletion | KeyState::PendingImport => ErrorKind::KeyUnusable,
        KeyState::Unavailable => ErrorKind::Unavailable,
    };
    Err(Error::new(kind, format!("{verb} a tenant key that is {}", record.state)))
}
