//! One epoch of the root key: its slots, and how a material is put under both and taken out.
//!
//! A material's wrapping key is `Extract(slot secret, root key)`; the wrap is kind 1 with the
//! keyring's id and the epoch in its header.
//! Owns: that construction. Knows nothing of: journals, states, who asks.
//!
//! Invariants
//! - A wrap of one epoch opens under that epoch's root key and its slot's secret, and no other.

use crate::derive::extract;
use crate::env::Rng;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{KeyOrigin, KeyRecord, MaterialRecord, MaterialRole};
use crate::secret::{MacSecret, NodeSecret, RootKey, SlotSecret, TenantKey, random};
use crate::slots::{SLOTS_MAX, SlotFile, SlotName};
use crate::types::{EncryptionContext, context_digest};
use crate::wrap::{WrapHeader, WrapKind, WrappedKey, unwrap_into, wrap};

/// The root key of one epoch, with the slots of that epoch.
pub(super) struct Vault {
    pub(super) root_key: RootKey,
    pub(super) epoch: u32,
    pub(super) keyring_id: [u8; 16],
    pub(super) slots: SlotFile,
}

impl Vault {
    /// Puts a material into a slot and gives its wrap. The caller flushes the slots before the
    /// record that names them.
    pub(super) fn seal(
        &self,
        record: &KeyRecord,
        slot: &SlotName,
        material: &TenantKey,
        (mac_key, rng): (&MacSecret, &dyn Rng),
    ) -> Result<WrappedKey> {
        if slot.index >= SLOTS_MAX {
            return Err(Error::new(ErrorKind::Full, format!("use slot {}", slot.index)));
        }
        let slot_secret = SlotSecret::fill_with(random(rng))?;
        let kek = extract(slot_secret.borrow().as_slice(), self.root_key.borrow().as_slice());
        let header = WrapHeader {
            kind: WrapKind::TenantKey,
            wrapping_key_id: self.keyring_id,
            wrapping_version: self.epoch,
        };
        let digest = material_context(record);
        let wrapped = wrap(&kek, header, &digest, (&material.borrow(), rng));
        self.slots.write(slot, &slot_secret, mac_key)?;
        Ok(wrapped)
    }

    /// Takes a material out.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`]: its slot is erased. [`ErrorKind::Corrupt`]: damaged, or lost.
    /// [`ErrorKind::KeyUnusable`]: it is not there, and may be imported again.
    /// [`ErrorKind::Unavailable`]: the slot could not be read.
    pub(super) fn open(
        &self,
        record: &KeyRecord,
        held: &MaterialRecord,
        mac_key: &MacSecret,
    ) -> Result<TenantKey> {
        let (Some(index), Some(wrapped)) = (held.slot, &held.wrapped) else {
            return Err(absent(record, held));
        };
        let slot = SlotName { index, tenant_key: record.id, material: held.number };
        let slot_secret = self.slots.read(&slot, mac_key)?;
        let kek = extract(slot_secret.borrow().as_slice(), self.root_key.borrow().as_slice());
        let digest = material_context(record);
        TenantKey::fill_with(|bytes| unwrap_into(&kek, wrapped, &digest, bytes))
    }

    /// Tries a wrap of an epoch that is over with all that is left of it: this epoch's root key,
    /// and the zeroes of an erased slot.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`]: it does not open, as it must not.
    pub(super) fn open_erased(
        &self,
        record: &KeyRecord,
        wrapped: &WrappedKey,
    ) -> Result<TenantKey> {
        let kek = extract(&[0; 32], self.root_key.borrow().as_slice());
        let digest = material_context(record);
        let opened = TenantKey::fill_with(|bytes| unwrap_into(&kek, wrapped, &digest, bytes));
        opened.map_err(|error| match error.kind() {
            ErrorKind::Corrupt => {
                let during = format!("open an erased material of tenant key {}", record.id);
                Error::new(ErrorKind::KeyDestroyed, during)
            }
            _ => error,
        })
    }
}

fn absent(record: &KeyRecord, held: &MaterialRecord) -> Error {
    let kind = if held.role == MaterialRole::Retired || record.destruction.is_some() {
        ErrorKind::KeyDestroyed
    } else if record.origin == KeyOrigin::Imported {
        ErrorKind::KeyUnusable
    } else {
        // It was damaged when the root key changed, and could not be taken along.
        ErrorKind::Corrupt
    };
    Error::new(kind, format!("open material {} of tenant key {}", held.number, record.id))
}

/// The context of wrap kind 1: `{k: tenant key, o: origin, t: tenant}`.
fn material_context(record: &KeyRecord) -> [u8; 32] {
    context_digest(&[
        (b"k", record.id.as_bytes()),
        (b"o", &[record.origin.code()]),
        (b"t", record.tenant.as_bytes()),
    ])
}

/// What a sealed root key is bound to.
pub(super) fn root_context((keyring_id, epoch): ([u8; 16], u32)) -> Result<EncryptionContext> {
    EncryptionContext::new().with(b"e", &epoch.to_be_bytes())?.with(b"r", &keyring_id)
}

/// The node's secret under a root key: wrap kind 7, context `{e: be32 epoch, r: keyring id}`.
pub(super) fn wrap_node_secret(
    root_key: &RootKey,
    identity: ([u8; 16], u32),
    node_secret: &NodeSecret,
    rng: &dyn Rng,
) -> Result<WrappedKey> {
    let header = WrapHeader {
        kind: WrapKind::NodeSecret,
        wrapping_key_id: identity.0,
        wrapping_version: identity.1,
    };
    let digest = root_context(identity)?.digest();
    Ok(wrap(&root_key.borrow(), header, &digest, (&node_secret.borrow(), rng)))
}

/// Takes the node's secret out.
pub(super) fn unwrap_node_secret(
    root_key: &RootKey,
    identity: ([u8; 16], u32),
    wrapped: &WrappedKey,
) -> Result<NodeSecret> {
    if wrapped.kind() != WrapKind::NodeSecret {
        return Err(Error::new(ErrorKind::Corrupt, "read the node's secret"));
    }
    let digest = root_context(identity)?.digest();
    NodeSecret::fill_with(|slot| unwrap_into(&root_key.borrow(), wrapped, &digest, slot))
}
