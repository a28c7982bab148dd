//! The key manager of a node: tenant keys, permits, bucket keys.
//!
//! Owns: the living set of tenant keys, their gates and unwrapped materials; the order of durable
//! steps. Knows nothing of: buckets and objects but as opaque bytes, who may do what.
//!
//! Invariants
//! - A change is durable before it shows: slot, then journal, then memory.
//! - [`Kms::disable`] returns after the gate drained and every unwrapped material is wiped.
//! - Another tenant's key answers as if it did not exist.
//! - A material is unwrapped on first use, inside a permit's guard, and never written anywhere.
//!   See docs/KEYS.md.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::bucket_key::{BucketKey, BucketKeyScope, KeyOwner};
use crate::derive::{extract, kdf};
use crate::env::{Env, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{KeyGate, Purpose, UnwrapPermit};
use crate::keyring::{Keyring, RootFile};
use crate::private_file;
use crate::record::{KeyRecord, ORIGIN_LOCAL};
use crate::secret::{BucketSecret, MacSecret, RootKey, TenantKey, random};
use crate::slots::{SlotFile, SlotName};
use crate::store::{Capabilities, KeyStore};
use crate::types::{BucketKeyId, EncryptionContext, TenantId, TenantKeyId, context_digest};
use crate::wrap::{WrapHeader, WrapKind, WrappedKey, unwrap_into, wrap};

mod node;
mod tenant_keys;

pub use node::CREDENTIAL_BYTES_MAX;
pub use tenant_keys::{MaterialInfo, TenantKeyInfo};

/// The directory under the node's data directory that holds everything of this package.
const KEYS_DIR: &str = "keys";
const ROOT_FILE: &str = "root.sealed";
const KEYRING_FILE: &str = "keyring";
const SLOTS_FILE: &str = "slots";
/// The epoch of a root key that was never replaced.
const FIRST_EPOCH: u32 = 1;

/// Told after a tenant key's gate closed and drained, so that caches can drop what lies under it.
pub type CloseListener = Arc<dyn Fn(TenantId, TenantKeyId) + Send + Sync>;

/// One tenant key in memory.
struct KeyEntry {
    gate: Arc<KeyGate>,
    /// Held through a whole state change, drain included, so that changes of one key follow each
    /// other. Taken before every other lock.
    transition: Mutex<()>,
    /// Held for reading while a bucket key is wrapped, so that none is wrapped under an older
    /// material once a rotation returned.
    record: RwLock<Arc<KeyRecord>>,
    materials: Mutex<HashMap<u32, Arc<TenantKey>>>,
}

impl KeyEntry {
    fn new(record: KeyRecord) -> Self {
        Self {
            gate: Arc::new(KeyGate::new(record.state.gate())),
            transition: Mutex::new(()),
            record: RwLock::new(Arc::new(record)),
            materials: Mutex::new(HashMap::new()),
        }
    }

    fn record(&self) -> Arc<KeyRecord> {
        Arc::clone(&read(&self.record))
    }
}

#[derive(Default)]
struct TenantKeys {
    ids: Vec<TenantKeyId>,
    default: Option<TenantKeyId>,
}

#[derive(Default)]
struct Index {
    keys: HashMap<TenantKeyId, Arc<KeyEntry>>,
    tenants: HashMap<TenantId, TenantKeys>,
}

impl Index {
    fn insert(&mut self, record: KeyRecord) {
        let keys = self.tenants.entry(record.tenant).or_default();
        keys.ids.push(record.id);
        if record.is_default {
            keys.default = Some(record.id);
        }
        self.keys.insert(record.id, Arc::new(KeyEntry::new(record)));
    }
}

/// What appends to the files.
struct Writer {
    keyring: Keyring,
    next_slot: u32,
}

/// The keys of one node.
pub struct Kms {
    index: RwLock<Index>,
    writer: Mutex<Writer>,
    slots: SlotFile,
    root_key: RootKey,
    mac_key: MacSecret,
    keyring_id: [u8; 16],
    epoch: u32,
    env: Env,
    capabilities: Capabilities,
    listeners: RwLock<Vec<CloseListener>>,
    /// Keeps other processes out.
    _lock: File,
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.keys.display())
    }
}

struct Paths {
    keys: PathBuf,
    root: PathBuf,
    keyring: PathBuf,
    slots: PathBuf,
}

impl Paths {
    fn under(dir: &Path) -> Self {
        let keys = dir.join(KEYS_DIR);
        Self {
            root: keys.join(ROOT_FILE),
            keyring: keys.join(KEYRING_FILE),
            slots: keys.join(SLOTS_FILE),
            keys,
        }
    }
}

impl Kms {
    /// Whether `dir` holds a keyring.
    pub fn exists(dir: &Path) -> bool {
        Paths::under(dir).root.exists()
    }

    /// Makes a keyring in `dir/keys`, without tenants, and opens it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: there is one already, or another process is at it.
    /// [`ErrorKind::Unavailable`]: a file could not be written.
    pub fn create(dir: &Path, store: &dyn KeyStore, env: Env) -> Result<Self> {
        let paths = Paths::under(dir);
        private_file::ensure_dir(&paths.keys)?;
        let lock = private_file::lock_dir(&paths.keys)?;
        if paths.root.exists() {
            let during = format!("make a keyring in {paths:?}");
            return Err(Error::new(ErrorKind::Conflict, during)
                .with_advice("there is one already: open it, or choose another directory"));
        }
        let keyring_id = random_array(&*env.rng);
        let root_key = RootKey::generate(&*env.rng)?;
        let mac_key = root_mac_key(&root_key)?;
        let identity = (keyring_id, FIRST_EPOCH);
        let keyring = Keyring::create(&paths.keyring, identity, &mac_key)?;
        let slots = SlotFile::create(&paths.slots, keyring_id, &mac_key)?;
        // The commit point: without root.sealed there is no keyring.
        let sealed = store.seal_root(&root_key, &root_context(identity)?)?;
        RootFile { epoch: FIRST_EPOCH, keyring_id, sealed }.write(&paths.root)?;
        Ok(Self {
            index: RwLock::default(),
            writer: Mutex::new(Writer { keyring, next_slot: 0 }),
            slots,
            root_key,
            mac_key,
            keyring_id,
            epoch: FIRST_EPOCH,
            env,
            capabilities: store.capabilities(),
            listeners: RwLock::default(),
            _lock: lock,
        })
    }

    /// Opens the keyring in `dir/keys`. Needs the root key only; no tenant key is unwrapped.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: another process has it open.
    /// [`ErrorKind::Corrupt`]: a file is damaged. [`ErrorKind::NotFound`]: there is no keyring.
    /// [`ErrorKind::Refused`]: others may read a file.
    /// [`ErrorKind::WrongPassphrase`]: `store` does not open the root key.
    pub fn open(dir: &Path, store: &dyn KeyStore, env: Env) -> Result<Self> {
        let paths = Paths::under(dir);
        if !paths.root.exists() {
            return Err(Error::new(ErrorKind::NotFound, format!("open a keyring in {paths:?}"))
                .with_advice(
                    "make one with `kluis init`, or restore root.sealed from its backup",
                ));
        }
        private_file::check_dir(&paths.keys)?;
        let lock = private_file::lock_dir(&paths.keys)?;
        let root_file = RootFile::read(&paths.root)?;
        let identity = (root_file.keyring_id, root_file.epoch);
        let root_key = store.unseal_root(&root_file.sealed, &root_context(identity)?)?;
        let mac_key = root_mac_key(&root_key)?;
        let (keyring, records) = Keyring::open(&paths.keyring, identity, &mac_key)?;
        let slots = SlotFile::open(&paths.slots, root_file.keyring_id, &mac_key)?;
        let used_slots = records.iter().flat_map(|record| &record.materials);
        let next_slot = used_slots.map(|material| material.slot + 1).max().unwrap_or(0);
        let mut index = Index::default();
        for record in records {
            index.insert(record);
        }
        Ok(Self {
            index: RwLock::new(index),
            writer: Mutex::new(Writer { keyring, next_slot }),
            slots,
            root_key,
            mac_key,
            keyring_id: root_file.keyring_id,
            epoch: root_file.epoch,
            env,
            capabilities: store.capabilities(),
            listeners: RwLock::default(),
            _lock: lock,
        })
    }

    /// What the key store that sealed the root key can do.
    pub const fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Asks to be told of every closed gate, after it drained.
    pub fn on_close(&self, listener: CloseListener) {
        write(&self.listeners).push(listener);
    }

    fn entry(&self, tenant: TenantId, id: TenantKeyId) -> Result<Arc<KeyEntry>> {
        let entry = read(&self.index).keys.get(&id).map(Arc::clone);
        let entry = entry.filter(|entry| read(&entry.record).tenant == tenant);
        entry.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("find tenant key {id}")))
    }

    /// The right to use a key for a purpose.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`], [`ErrorKind::KeyDisabled`], [`ErrorKind::Unavailable`]: the
    /// gate is closed. [`ErrorKind::NotFound`]: the purpose's tenant has no such key.
    /// [`ErrorKind::Refused`]: the reason may not be issued.
    pub fn permit(&self, purpose: &Purpose, id: TenantKeyId) -> Result<UnwrapPermit> {
        let entry = self.entry(purpose.tenant, id)?;
        UnwrapPermit::issue(purpose, id, Arc::clone(&entry.gate))
    }

    /// Makes a bucket key and wraps it under the tenant key's current material.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`], [`ErrorKind::KeyDisabled`]: the gate is closed.
    /// [`ErrorKind::Corrupt`]: the tenant key's slot or record is damaged.
    /// [`ErrorKind::Full`]: no locked memory is left.
    pub fn create_bucket_key(
        &self,
        permit: &UnwrapPermit,
        scope: &BucketKeyScope,
    ) -> Result<(BucketKey, BucketKeyId, WrappedKey)> {
        let entry = self.permitted_entry(permit)?;
        let _in_flight = permit.enter()?;
        let record = read(&entry.record);
        let current = record.materials.last().expect("a record has at least one material");
        let tenant_key = self.material(&entry, &record, current.number)?;
        let rng = &*self.env.rng;
        let secret = BucketSecret::fill_with(random(rng))?;
        let header = WrapHeader {
            kind: WrapKind::BucketKey,
            wrapping_key_id: *record.id.as_bytes(),
            wrapping_version: current.number,
        };
        let digest = scope.context_digest(permit.tenant());
        let wrapped = wrap(&tenant_key.borrow(), header, &digest, (&secret.borrow(), rng));
        let bucket_key = self.bucket_key(permit, secret, *scope);
        let id = bucket_key.id();
        Ok((bucket_key, id, wrapped))
    }

    /// Unwraps a bucket key.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not wrapped for this tenant key and scope, or damaged.
    /// And as [`Self::create_bucket_key`].
    pub fn unwrap_bucket_key(
        &self,
        permit: &UnwrapPermit,
        wrapped: &WrappedKey,
        scope: &BucketKeyScope,
    ) -> Result<BucketKey> {
        let entry = self.permitted_entry(permit)?;
        let is_ours = wrapped.kind() == WrapKind::BucketKey
            && wrapped.wrapping_key_id() == permit.tenant_key().as_bytes();
        if !is_ours {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "unwrap a bucket key of another tenant key",
            ));
        }
        let _in_flight = permit.enter()?;
        let record = read(&entry.record);
        let tenant_key = self.material(&entry, &record, wrapped.wrapping_version())?;
        let digest = scope.context_digest(permit.tenant());
        let secret = BucketSecret::fill_with(|slot| {
            unwrap_into(&tenant_key.borrow(), wrapped, &digest, slot)
        })?;
        Ok(self.bucket_key(permit, secret, *scope))
    }

    fn bucket_key(
        &self,
        permit: &UnwrapPermit,
        secret: BucketSecret,
        scope: BucketKeyScope,
    ) -> BucketKey {
        BucketKey::new(secret, KeyOwner::of(permit), scope, Arc::clone(&self.env.rng))
    }

    fn permitted_entry(&self, permit: &UnwrapPermit) -> Result<Arc<KeyEntry>> {
        let entry = self.entry(permit.tenant(), permit.tenant_key())?;
        if permit.is_for(&entry.gate) {
            return Ok(entry);
        }
        Err(Error::new(ErrorKind::Misuse, "use a permit of another key manager"))
    }

    /// An unwrapped material. The caller is inside a permit's guard, so that what is cached here
    /// is cleared by the disable that waits for it.
    fn material(
        &self,
        entry: &KeyEntry,
        record: &KeyRecord,
        number: u32,
    ) -> Result<Arc<TenantKey>> {
        let mut materials = lock(&entry.materials);
        if let Some(material) = materials.get(&number) {
            return Ok(Arc::clone(material));
        }
        let held = record.materials.iter().find(|material| material.number == number);
        let held = held.ok_or_else(|| {
            let during = format!("find material {number} of tenant key {}", record.id);
            Error::new(ErrorKind::Corrupt, during)
        })?;
        let slot = SlotName { index: held.slot, tenant_key: record.id, material: number };
        let slot_secret = self.slots.read(&slot, &self.mac_key)?;
        let kek = extract(slot_secret.borrow().as_slice(), self.root_key.borrow().as_slice());
        let digest = material_context(record.tenant, record.id);
        let material =
            TenantKey::fill_with(|bytes| unwrap_into(&kek, &held.wrapped, &digest, bytes))?;
        let material = Arc::new(material);
        materials.insert(number, Arc::clone(&material));
        Ok(material)
    }
}

/// `KDF(root, "root-mac", "", 32)`: what authenticates the node's own records.
fn root_mac_key(root_key: &RootKey) -> Result<MacSecret> {
    MacSecret::fill_with(|slot| {
        kdf(&root_key.borrow(), b"root-mac", [], slot);
        Ok(())
    })
}

/// What a sealed root key is bound to.
fn root_context((keyring_id, epoch): ([u8; 16], u32)) -> Result<EncryptionContext> {
    EncryptionContext::new().with(b"e", &epoch.to_be_bytes())?.with(b"r", &keyring_id)
}

/// The context of wrap kind 1: `{k: tenant key, o: origin, t: tenant}`.
fn material_context(tenant: TenantId, tenant_key: TenantKeyId) -> [u8; 32] {
    context_digest(&[
        (b"k", tenant_key.as_bytes()),
        (b"o", &[ORIGIN_LOCAL]),
        (b"t", tenant.as_bytes()),
    ])
}

// A panic while a lock is held leaves values that are whole: each is replaced in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(rw_lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    rw_lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(rw_lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    rw_lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
