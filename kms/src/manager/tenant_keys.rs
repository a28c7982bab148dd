//! A tenant's verbs on its keys: create, describe, list, disable, enable, rotate.
//!
//! Owns: the order of durable steps of each verb, and what a tenant may know about a key. Knows
//! nothing of: who may call which verb.
//!
//! Invariants
//! - Slot, then journal, then memory; only closing a gate comes before the disk.
//! - Changes of one key follow each other (`KeyEntry::transition`).

use std::collections::HashMap;
use std::sync::Arc;

use super::{KeyEntry, Kms, Writer, lock, material_context, read, write};
use crate::derive::{extract, kdf};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::batches;
use crate::lifecycle::{KeyEvent, KeyState};
use crate::record::{KeyRecord, MATERIALS_MAX, MaterialRecord};
use crate::secret::{SlotSecret, TenantKey, random};
use crate::slots::{SLOTS_MAX, SlotName};
use crate::types::{TenantId, TenantKeyId};
use crate::wrap::{WrapHeader, WrapKind, wrap};

const FIRST_MATERIAL: u32 = 1;

/// What a tenant may know about one material of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaterialInfo {
    /// Counted from 1; wraps name it as their wrapping version.
    pub number: u32,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Its public name, a keyed digest.
    pub id: [u8; 32],
}

/// What a tenant may know about its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantKeyInfo {
    /// Which key.
    pub id: TenantKeyId,
    /// Whose key.
    pub tenant: TenantId,
    /// Its state.
    pub state: KeyState,
    /// Whether it is used where the tenant names none.
    pub is_default: bool,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When its state or materials changed last, in milliseconds since the Unix epoch.
    pub changed_ms: u64,
    /// The number of the material that new bucket keys are wrapped under.
    pub current_material: u32,
    /// All materials, oldest first.
    pub materials: Vec<MaterialInfo>,
}

impl TenantKeyInfo {
    fn of(record: &KeyRecord) -> Self {
        let materials: Vec<_> = record
            .materials
            .iter()
            .map(|material| MaterialInfo {
                number: material.number,
                created_ms: material.created_ms,
                id: material.id,
            })
            .collect();
        Self {
            id: record.id,
            tenant: record.tenant,
            state: record.state,
            is_default: record.is_default,
            created_ms: record.created_ms,
            changed_ms: record.changed_ms,
            current_material: materials.last().map_or(0, |material| material.number),
            materials,
        }
    }
}

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
    /// per 67,000. Errors as [`Self::create_tenant_key`]; a whole batch exists or none of it.
    pub fn create_tenant_keys(&self, tenants: &[TenantId]) -> Result<Vec<TenantKeyInfo>> {
        let mut writer = lock(&self.writer);
        writer.keyring.check_writable()?;
        let mut has_default: HashMap<TenantId, bool> = HashMap::new();
        let mut records = Vec::with_capacity(tenants.len());
        for (slot, tenant) in (writer.next_slot..).zip(tenants) {
            let known = has_default.entry(*tenant);
            let known = known.or_insert_with(|| self.default_tenant_key(*tenant).is_ok());
            let is_default = !std::mem::replace(known, true);
            records.push(self.new_record(*tenant, is_default, slot)?);
        }
        self.slots.sync()?;
        for batch in batches(&records) {
            writer.keyring.append(batch, &self.mac_key)?;
            writer.next_slot += u32::try_from(batch.len()).expect("fewer than 2^20 slots");
            let mut index = write(&self.index);
            for record in batch {
                index.insert(record.clone());
            }
        }
        tracing::info!(count = records.len(), "made tenant keys");
        Ok(records.iter().map(TenantKeyInfo::of).collect())
    }

    fn new_record(&self, tenant: TenantId, is_default: bool, slot: u32) -> Result<KeyRecord> {
        let id = TenantKeyId::random(&*self.env.rng);
        let now_ms = self.env.clock.now_ms();
        let slot = SlotName { index: slot, tenant_key: id, material: FIRST_MATERIAL };
        Ok(KeyRecord {
            id,
            tenant,
            version: 1,
            state: KeyState::Enabled,
            is_default,
            created_ms: now_ms,
            changed_ms: now_ms,
            materials: vec![self.new_material(tenant, &slot)?],
        })
    }

    /// Draws a material and writes its slot, which the caller flushes before the record.
    fn new_material(&self, tenant: TenantId, slot: &SlotName) -> Result<MaterialRecord> {
        if slot.index >= SLOTS_MAX {
            return Err(Error::new(ErrorKind::Full, format!("use slot {}", slot.index)));
        }
        let rng = &*self.env.rng;
        let material = TenantKey::fill_with(random(rng))?;
        let slot_secret = SlotSecret::fill_with(random(rng))?;
        let kek = extract(slot_secret.borrow().as_slice(), self.root_key.borrow().as_slice());
        let header = WrapHeader {
            kind: WrapKind::TenantKey,
            wrapping_key_id: self.keyring_id,
            wrapping_version: self.epoch,
        };
        let digest = material_context(tenant, slot.tenant_key);
        let material_bytes = material.borrow();
        let wrapped = wrap(&kek, header, &digest, (&material_bytes, rng));
        let mut id = [0; 32];
        let context = [slot.tenant_key.as_bytes().as_slice(), material_bytes.as_slice()];
        kdf(&self.mac_key.borrow(), b"material-id", context, &mut id);
        self.slots.write(slot, &slot_secret, &self.mac_key)?;
        let created_ms = self.env.clock.now_ms();
        let (number, slot) = (slot.material, slot.index);
        Ok(MaterialRecord { number, slot, created_ms, id, wrapped })
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
    /// [`ErrorKind::Unavailable`]: the keyring could not be written; the gate is closed all the
    /// same, but after a restart the key would be as it was.
    pub fn disable(&self, tenant: TenantId, id: TenantKeyId) -> Result<()> {
        let entry = self.entry(tenant, id)?;
        let _transition = lock(&entry.transition);
        let record = entry.record();
        let state = record.state.after(KeyEvent::Disable)?;
        let gate = state.gate().expect("a disabled key's gate is closed");
        // Safe first: the gate closes whatever the disk says.
        entry.gate.shut(gate);
        let durable = self.change(&entry, &record, |changed| changed.state = state);
        entry.gate.drain();
        lock(&entry.materials).clear();
        let listeners = read(&self.listeners).clone();
        for listener in &listeners {
            listener(tenant, id);
        }
        durable?;
        tracing::info!(%tenant, tenant_key = %id, "disabled a tenant key");
        Ok(())
    }

    /// Switches a key on again. Permits from before stay void.
    ///
    /// # Errors
    /// As [`Self::disable`]; the gate stays as it was then.
    pub fn enable(&self, tenant: TenantId, id: TenantKeyId) -> Result<()> {
        let entry = self.entry(tenant, id)?;
        let _transition = lock(&entry.transition);
        let record = entry.record();
        let state = record.state.after(KeyEvent::Enable)?;
        self.change(&entry, &record, |changed| changed.state = state)?;
        entry.gate.open()?;
        tracing::info!(%tenant, tenant_key = %id, "enabled a tenant key");
        Ok(())
    }

    /// Adds a material, under which bucket keys are wrapped from now on. Older ones stay readable.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDisabled`]: only an enabled key rotates. [`ErrorKind::Full`]: it has 256
    /// materials. And as [`Self::create_tenant_key`].
    pub fn rotate(&self, tenant: TenantId, id: TenantKeyId) -> Result<TenantKeyInfo> {
        let entry = self.entry(tenant, id)?;
        let _transition = lock(&entry.transition);
        let record = entry.record();
        if record.state != KeyState::Enabled {
            let during = format!("rotate a tenant key that is {}", record.state);
            return Err(Error::new(ErrorKind::KeyDisabled, during));
        }
        let count = record.materials.len();
        if count >= MATERIALS_MAX {
            return Err(Error::new(ErrorKind::Full, format!("rotate a key of {count} materials")));
        }
        let number = u32::try_from(count).expect("at most 256 materials") + FIRST_MATERIAL;
        let material = {
            let mut writer = lock(&self.writer);
            writer.keyring.check_writable()?;
            let slot = SlotName { index: writer.next_slot, tenant_key: id, material: number };
            let material = self.new_material(tenant, &slot)?;
            self.slots.sync()?;
            writer.next_slot += 1;
            material
        };
        self.change(&entry, &record, |changed| changed.materials.push(material))?;
        tracing::info!(%tenant, tenant_key = %id, material = number, "rotated a tenant key");
        Ok(TenantKeyInfo::of(&entry.record()))
    }

    /// Appends a changed record, then shows it. The caller holds the entry's transition lock.
    fn change(
        &self,
        entry: &KeyEntry,
        record: &KeyRecord,
        edit: impl FnOnce(&mut KeyRecord),
    ) -> Result<()> {
        let mut changed = record.clone();
        edit(&mut changed);
        if changed == *record {
            return Ok(());
        }
        changed.version += 1;
        changed.changed_ms = self.env.clock.now_ms();
        let mut writer = lock(&self.writer);
        writer.keyring.append(std::slice::from_ref(&changed), &self.mac_key)?;
        *write(&entry.record) = Arc::new(changed);
        if writer.keyring.wants_compaction() {
            self.compact(&mut writer);
        }
        Ok(())
    }

    /// A failure fences the keyring, and the next write reports it; this change is durable already.
    fn compact(&self, writer: &mut Writer) {
        let records: Vec<KeyRecord> = {
            let index = read(&self.index);
            let mut records: Vec<_> =
                index.keys.values().map(|entry| KeyRecord::clone(&read(&entry.record))).collect();
            records.sort_by_key(|record| (record.created_ms, record.id));
            records
        };
        if let Err(error) = writer.keyring.compact(&records, &self.mac_key) {
            tracing::error!(%error, "could not compact the keyring");
        }
    }
}
