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
//! - Locks are taken in this order: a key's `transition`, its `api_counts`, `writer`, `vault`,
//!   `index`, a key's `record`, its `materials`. `directory` is taken alone, or under `writer`.
//!   See docs/KEYS.md.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::audit::{AuditEvent, AuditLog, AuditOutcome, AuditSink};
use crate::derive::kdf;
use crate::directory::Directory;
use crate::env::{Env, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{Access, KeyGate, KeyUse, Purpose, UnwrapPermit};
use crate::keyring::{Keyring, RootFile};
use crate::private_file;
use crate::record::{KeyOrigin, KeyRecord, MaterialRecord};
use crate::secret::{MacSecret, NodeSecret, RootKey, TenantKey, random};
use crate::slots::SlotFile;
use crate::store::{CACHE_TTL_DEFAULT, Capabilities, KeyStore, OuterSecret, RemoteStores};
use crate::types::{TenantId, TenantKeyId};

mod api_crypto;
mod audit_check;
mod audited;
mod bucket_keys;
mod deletion;
mod destruction;
mod entries;
mod export;
mod fence;
mod imports;
mod info;
mod journal;
mod node;
mod quota;
mod remote_keys;
mod reseal;
mod schedule;
mod settled;
mod tenant_keys;
mod vault;

pub use api_crypto::API_DATA_KEY_BYTES_MAX;
pub use destruction::ErasureEvidence;
pub use export::with_key_files_at_rest;
pub use fence::WrapGuard;
pub use imports::ImportRequest;
pub use info::{MaterialInfo, MaterialState, TenantKeyInfo};
pub use node::CREDENTIAL_BYTES_MAX;
pub use quota::TENANT_KEYS_MAX;

use api_crypto::ApiCount;
use fence::WrapFence;
use quota::Quotas;
use settled::Settled;
use vault::{Vault, root_context, unwrap_node_secret, wrap_node_secret};

/// The directory under the node's data directory that holds everything of this package.
const KEYS_DIR: &str = "keys";
const ROOT_FILE: &str = "root.sealed";
/// These two are followed by a dot and the epoch.
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
    /// Bucket keys that were wrapped and are not on the disk yet.
    fence: Arc<WrapFence>,
    /// When a permit was issued last, and for which call.
    last_used: Mutex<Option<(u64, &'static str)>>,
    /// Taken before `writer`.
    api_counts: Mutex<HashMap<u32, ApiCount>>,
}

impl KeyEntry {
    fn new(record: KeyRecord) -> Self {
        Self {
            gate: Arc::new(KeyGate::new(record.state.gate())),
            transition: Mutex::new(()),
            record: RwLock::new(Arc::new(record)),
            materials: Mutex::new(HashMap::new()),
            fence: Arc::default(),
            last_used: Mutex::default(),
            api_counts: Mutex::default(),
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
    /// Slots below `next_slot` that no material has.
    free_slots: Vec<u32>,
    quotas: Quotas,
}

impl Writer {
    fn new(keyring: Keyring, records: &[KeyRecord], directory: &Directory) -> Self {
        let materials = records.iter().flat_map(|record| &record.materials);
        let used: HashSet<u32> = materials.filter_map(|material| material.slot).collect();
        let next_slot = used.iter().max().map_or(0, |slot| slot + 1);
        let free_slots = (0..next_slot).filter(|slot| !used.contains(slot)).collect();
        let quotas = Quotas::count(records, directory);
        Self { keyring, next_slot, free_slots, quotas }
    }

    /// A slot that nothing is in. It is given out once, also if it is not used then.
    fn take_slot(&mut self) -> u32 {
        self.free_slots.pop().unwrap_or_else(|| {
            let slot = self.next_slot;
            self.next_slot += 1;
            slot
        })
    }
}

/// The keys of one node.
pub struct Kms {
    index: RwLock<Index>,
    directory: RwLock<Directory>,
    writer: Mutex<Writer>,
    vault: RwLock<Vault>,
    node_secret: NodeSecret,
    mac_key: MacSecret,
    /// Seals the root key of the next epoch.
    store: Arc<dyn KeyStore>,
    env: Env,
    settled: Settled,
    remote: Arc<RemoteStores>,
    listeners: RwLock<Vec<CloseListener>>,
    audit: Arc<dyn AuditSink>,
    audit_log: Arc<AuditLog>,
    paths: Paths,
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
}

impl Paths {
    fn under(dir: &Path) -> Self {
        let keys = dir.join(KEYS_DIR);
        Self { root: keys.join(ROOT_FILE), keys }
    }

    fn keyring(&self, epoch: u32) -> PathBuf {
        self.keys.join(format!("{KEYRING_FILE}.{epoch}"))
    }

    fn slots(&self, epoch: u32) -> PathBuf {
        self.keys.join(format!("{SLOTS_FILE}.{epoch}"))
    }

    /// Whether a journal of an epoch later than the first is there.
    fn has_later_epoch(&self) -> Result<bool> {
        let first = self.keyring(FIRST_EPOCH);
        Ok(self.epoch_files()?.into_iter().any(|path| {
            let is_journal = path.file_stem().is_some_and(|stem| stem == KEYRING_FILE);
            is_journal && path != first
        }))
    }

    /// Journals and slot files, of every epoch. A proof of erasure rests on seeing all of them.
    fn epoch_files(&self) -> Result<Vec<PathBuf>> {
        let listed = std::fs::read_dir(&self.keys)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let paths: Vec<PathBuf> =
            listed.map_err(|error| private_file::io_error("list", &self.keys, error))?;
        let is_epoch_file = |path: &PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let epoch = path.extension().and_then(|extension| extension.to_str());
            stem.is_some_and(|stem| [KEYRING_FILE, SLOTS_FILE].contains(&stem))
                && epoch.is_some_and(|epoch| epoch.parse::<u32>().is_ok())
        };
        Ok(paths.into_iter().filter(is_epoch_file).collect())
    }

    /// Removes what other epochs left: an unfinished next one, or the last one, superseded.
    fn remove_other_epochs(&self, epoch: u32) -> Result<()> {
        let kept = [self.keyring(epoch), self.slots(epoch)];
        let mut removed = false;
        for path in self.epoch_files()?.into_iter().filter(|path| !kept.contains(path)) {
            std::fs::remove_file(&path)
                .map_err(|error| private_file::io_error("remove", &path, error))?;
            removed = true;
        }
        if removed { private_file::sync_parent(&self.root) } else { Ok(()) }
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
        if paths.has_later_epoch()? {
            return Err(Error::new(ErrorKind::Conflict, format!("make a keyring in {paths:?}"))
                .with_advice("it holds keys: restore root.sealed from its backup instead"));
        }
        let identity = (random_array(&*env.rng), FIRST_EPOCH);
        let (keyring_id, epoch) = identity;
        let root_key = RootKey::generate(&*env.rng)?;
        let node_secret = NodeSecret::fill_with(random(&*env.rng))?;
        let mac_key = mac_key_of(&node_secret)?;
        let keyring = Keyring::create(&paths.keyring(epoch), identity, &mac_key)?;
        let slots = SlotFile::create(&paths.slots(epoch), keyring_id, &mac_key)?;
        // The commit point: without root.sealed there is no keyring.
        let sealed = store.seal_root(&root_key, &root_context(identity)?)?;
        let wrapped = wrap_node_secret(&root_key, identity, &node_secret, &*env.rng)?;
        RootFile { epoch, keyring_id, sealed, node_secret: wrapped }.write(&paths.root)?;
        let audit_log = Arc::new(AuditLog::open(dir, &mac_key, &env)?);
        Ok(Self {
            index: RwLock::default(),
            directory: RwLock::default(),
            writer: Mutex::new(Writer::new(keyring, &[], &Directory::default())),
            vault: RwLock::new(Vault { root_key, epoch, keyring_id, slots }),
            node_secret,
            mac_key,
            store: store.share()?,
            remote: Arc::new(RemoteStores::new(CACHE_TTL_DEFAULT, env.clone())),
            settled: Settled::begin(&paths.keys, keyring_id, &*env.clock),
            env,
            listeners: RwLock::default(),
            audit: Arc::clone(&audit_log) as _,
            audit_log,
            paths,
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
        let (keyring_id, epoch) = identity;
        let root_key = store.unseal_root(&root_file.sealed, &root_context(identity)?)?;
        let node_secret = unwrap_node_secret(&root_key, identity, &root_file.node_secret)?;
        let mac_key = mac_key_of(&node_secret)?;
        let (keyring, living) = Keyring::open(&paths.keyring(epoch), identity, &mac_key)?;
        let slots = SlotFile::open(&paths.slots(epoch), keyring_id, &mac_key)?;
        paths.remove_other_epochs(epoch)?;
        let directory = Directory::load(&living.directory, &node_secret)?;
        let writer = Writer::new(keyring, &living.keys, &directory);
        let changed_ms = living.keys.iter().map(|record| record.changed_ms).max().unwrap_or(0);
        let at = (paths.keys.as_path(), keyring_id);
        let settled = Settled::open(at, changed_ms, &*env.clock, &mac_key);
        let audit_log = Arc::new(AuditLog::open(dir, &mac_key, &env)?);
        let mut index = Index::default();
        for record in living.keys {
            index.insert(record);
        }
        let kms = Self {
            index: RwLock::new(index),
            directory: RwLock::new(directory),
            writer: Mutex::new(writer),
            vault: RwLock::new(Vault { root_key, epoch, keyring_id, slots }),
            node_secret,
            mac_key,
            store: store.share()?,
            remote: Arc::new(RemoteStores::new(CACHE_TTL_DEFAULT, env.clone())),
            settled,
            env,
            listeners: RwLock::default(),
            audit: Arc::clone(&audit_log) as _,
            audit_log,
            paths,
            _lock: lock,
        };
        kms.finish_erasures()?;
        Ok(kms)
    }

    /// With another audit trail.
    #[must_use]
    pub fn with_audit(mut self, audit: Arc<dyn AuditSink>) -> Self {
        self.audit = audit;
        self
    }

    /// With key stores of tenants.
    #[must_use]
    pub fn with_key_stores(mut self, stores: Arc<RemoteStores>) -> Self {
        self.remote = stores;
        self
    }

    /// What the key store that sealed the root key can do.
    pub fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    /// The node's audit log, for reading and checking it.
    pub const fn audit_log(&self) -> &Arc<AuditLog> {
        &self.audit_log
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
    /// [`ErrorKind::AccessDenied`]: the purpose's rights do not allow the use.
    pub fn permit(
        &self,
        purpose: &Purpose,
        id: TenantKeyId,
        access: Access,
    ) -> Result<UnwrapPermit> {
        let issued = self.entry(purpose.tenant, id).and_then(|entry| {
            let gate = Arc::clone(&entry.gate);
            let permit = UnwrapPermit::issue(purpose, id, gate, access.key_use)?;
            self.check_expiry(&entry)?;
            if access.key_use != KeyUse::Attributes {
                *lock(&entry.last_used) = Some((self.env.clock.now_ms(), purpose.action));
            }
            Ok(permit)
        });
        let outcome = AuditOutcome::of(&issued);
        self.audit.note(AuditEvent::of_permit(purpose, id, access, outcome))?;
        issued
    }

    /// When the key was used last, in Unix milliseconds, and by which call; since the node started.
    pub fn last_usage(&self, tenant: TenantId, id: TenantKeyId) -> Option<(u64, &'static str)> {
        let entry = self.entry(tenant, id).ok()?;
        *lock(&entry.last_used)
    }

    /// Material that is past its time is not used, also before [`Self::run_due`] has erased it.
    fn check_expiry(&self, entry: &KeyEntry) -> Result<()> {
        let record = read(&entry.record);
        let Some(expires_ms) = record.first_expiry_ms() else {
            return Ok(());
        };
        if expires_ms <= self.settled.latest_ms(&*self.env.clock) {
            let during = format!("use tenant key {}, whose material has expired", record.id);
            return Err(Error::new(ErrorKind::KeyUnusable, during));
        }
        Ok(())
    }

    fn permitted_entry(&self, permit: &UnwrapPermit) -> Result<Arc<KeyEntry>> {
        let entry = self.entry(permit.tenant(), permit.tenant_key())?;
        if permit.is_for(&entry.gate) {
            return Ok(entry);
        }
        Err(Error::new(ErrorKind::Misuse, "use a permit of another key manager"))
    }

    /// Works with a material of a key, the current one or the one of a number. The caller is
    /// inside a permit's guard, so that what is cached here is cleared by the disable that waits
    /// for it. `outer` comes from [`Kms::outer_secret`]. `work` must not ask for another
    /// material: the locks held are not reentrant.
    fn with_material<T>(
        &self,
        entry: &KeyEntry,
        (number, outer): (Option<u32>, Option<&OuterSecret>),
        work: impl FnOnce(&MaterialRecord, &TenantKey) -> Result<T>,
    ) -> Result<T> {
        let vault = read(&self.vault);
        let record = read(&entry.record);
        let held = match number {
            Some(number) => record.materials.iter().find(|material| material.number == number),
            None => record.current(),
        };
        let held = held.ok_or_else(|| {
            let during = format!("find material {number:?} of tenant key {}", record.id);
            Error::new(ErrorKind::Corrupt, during)
        })?;
        let material = self.material(&vault, entry, (&record, held))?;
        match &record.origin {
            KeyOrigin::Local | KeyOrigin::Imported => work(held, &material),
            KeyOrigin::Store { .. } => work(held, &remote_keys::whole(held, &material, outer)?),
        }
    }

    /// A material, from the cache or unwrapped; of a key in a remote store, its inner half.
    fn material(
        &self,
        vault: &Vault,
        entry: &KeyEntry,
        (record, held): (&KeyRecord, &MaterialRecord),
    ) -> Result<Arc<TenantKey>> {
        let mut materials = lock(&entry.materials);
        if let Some(material) = materials.get(&held.number) {
            return Ok(Arc::clone(material));
        }
        let material = Arc::new(vault.open(record, held, &self.mac_key)?);
        materials.insert(held.number, Arc::clone(&material));
        Ok(material)
    }
}

/// `KDF(node secret, "root-mac", "", 32)`: what authenticates the node's own records.
fn mac_key_of(node_secret: &NodeSecret) -> Result<MacSecret> {
    MacSecret::fill_with(|slot| {
        kdf(&node_secret.borrow(), b"root-mac", [], slot);
        Ok(())
    })
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
