//! What the tests of several modules share: the known answers' inputs, permits, a keyring.
//!
//! Owns: nothing that ships. The known answers come from docs/KEYS.md, "Known answers".

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::audit::{AuditEvent, AuditSink};
use crate::bucket_key::{BucketKey, BucketKeyPurpose, BucketKeyScope, KeyOwner};
use crate::env::{Clock, Env, ManualClock, Rng};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{KeyGate, Purpose, Reason, UnwrapPermit};
use crate::gate::{KeyUse, Rights};
use crate::manager::Kms;
use crate::secret::{BucketSecret, DataKey, MacSecret, copy_of};
use crate::store::MemoryStore;
use crate::types::{EncryptionContext, TenantId, TenantKeyId};

/// Bytes `first`, `first + 1`, …
pub(crate) fn ramp<const N: usize>(first: u8) -> [u8; N] {
    let mut next = first;
    [(); N].map(|()| {
        let byte = next;
        next = next.wrapping_add(1);
        byte
    })
}

pub(crate) fn tenant() -> TenantId {
    TenantId::from_bytes(ramp(0x10))
}

pub(crate) fn data_key() -> DataKey {
    DataKey::fill_with(copy_of(&ramp(0xc0))).unwrap()
}

pub(crate) fn mac_key() -> MacSecret {
    MacSecret::fill_with(copy_of(&ramp(0x31))).unwrap()
}

/// The context of the known answer for wrap kind 3.
pub(crate) fn version_context(version: [u8; 16]) -> EncryptionContext {
    let sealed = hex::decode("51f9e7934af763f9cbebe28940eadcdf093f753cb0a99fbb").unwrap();
    let manifest: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha256 as sha2::Digest>::new(),
        sealed,
    ))
    .into();
    let callers =
        EncryptionContext::new().with(b"aws:s3:arn", b"arn:aws:s3:::b/dir").unwrap().encode();
    let entries: [(&[u8], &[u8]); 8] = [
        (b"x", &[2]),
        (b"b", &ramp::<16>(0x20)),
        (b"v", &version),
        (b"u", &callers),
        (b"c", &ramp::<16>(0x40)),
        (b"k", "dir/ключ".as_bytes()),
        (b"t", &ramp::<16>(0x10)),
        (b"m", &manifest),
    ];
    entries
        .iter()
        .fold(EncryptionContext::new(), |context, (name, value)| context.with(name, value).unwrap())
}

/// Gives the same bytes on every call.
pub(crate) struct RampRng(pub(crate) u8);

impl Rng for RampRng {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.iter_mut().zip(0..).for_each(|(byte, step)| *byte = self.0.wrapping_add(step));
    }
}

pub(crate) fn purpose(tenant: TenantId) -> Purpose {
    Purpose {
        tenant,
        principal: "arn:aws:iam::123456789012:user/ada".into(),
        reason: Reason::CustomerInitiated,
        request_id: "4442587FB7D0A2F9".into(),
        action: "kluis:Test",
        rights: Rights::of_tenant(),
    }
}

pub(crate) fn tenant_key_id() -> TenantKeyId {
    TenantKeyId::from_bytes(ramp(0x02))
}

/// A permit of the known answers' tenant, and its gate.
pub(crate) fn permit() -> (UnwrapPermit, Arc<KeyGate>) {
    let gate = Arc::new(KeyGate::new(None));
    let permit =
        UnwrapPermit::issue(&purpose(tenant()), tenant_key_id(), Arc::clone(&gate), KeyUse::Write);
    (permit.unwrap(), gate)
}

/// The known answers' bucket key, with `rng` for its field cipher.
pub(crate) fn bucket_key(purpose: BucketKeyPurpose, rng: Arc<dyn Rng>) -> BucketKey {
    let secret = BucketSecret::fill_with(copy_of(&ramp(0xa0))).unwrap();
    let owner = KeyOwner { tenant: tenant(), tenant_key: tenant_key_id() };
    let scope = BucketKeyScope { bucket: ramp(0x20), epoch: 7, purpose };
    BucketKey::new(secret, owner, scope, rng)
}

/// A keyring in `dir`, sealed in memory, with reproducible randomness.
pub(crate) fn kms(dir: &Path, seed: u64) -> (Kms, MemoryStore, Env) {
    let env = Env::seeded(seed, 1_700_000_000_000);
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    let kms = Kms::create(dir, &store, env.clone()).unwrap();
    (kms, store, env)
}

/// A keyring like [`kms`]'s, with the clock that moves it.
pub(crate) fn timed_kms(dir: &Path, seed: u64) -> (Kms, MemoryStore, Env, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let env = Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Env::seeded(seed, 0) };
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    let kms = Kms::create(dir, &store, env.clone()).unwrap();
    (kms, store, env, clock)
}

/// Keeps events, or refuses them; runs `hook` before either.
#[derive(Default)]
pub(crate) struct TestAudit {
    pub(crate) events: Mutex<Vec<AuditEvent>>,
    pub(crate) is_broken: AtomicBool,
    pub(crate) hook: Option<Box<dyn Fn() + Send + Sync>>,
}

impl AuditSink for TestAudit {
    fn record(&self, events: &[AuditEvent]) -> Result<()> {
        if let Some(hook) = &self.hook {
            hook();
        }
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "record"));
        }
        self.events.lock().unwrap().extend_from_slice(events);
        Ok(())
    }

    fn note(&self, event: AuditEvent) -> Result<()> {
        self.record(&[event])
    }
}

/// Copies a data directory, modes and all.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy_dir(&entry, &target);
        } else {
            fs::copy(&entry, &target).unwrap();
        }
    }
}

/// Flips bit `bit` of `bytes`, counted over all of them.
pub(crate) fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}
