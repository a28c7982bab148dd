//! The gate of a tenant key, and the permits that pass it.
//!
//! A [`KeyGate`] is open or closed. Every encryption, decryption and unwrap under a tenant key runs
//! inside an [`InFlight`] guard, which only an [`UnwrapPermit`] hands out. [`KeyGate::close`]
//! returns when the last guard is gone, so after it no plaintext is made or read any more.
//! Owns: gate state, permits, purposes and reasons. Knows nothing of: key bytes, files, policies.
//!
//! Invariants
//! - Linearizable: no [`UnwrapPermit::enter`] that begins after `close` returned succeeds, and
//!   `close` waits for every one that succeeded before.
//! - A permit belongs to one generation of its gate; opening again does not revive old permits.
//! - Nothing but this file builds an [`UnwrapPermit`], and it names tenant, principal and purpose.
//!   See docs/KEYS.md, "Disable".

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::types::{TenantId, TenantKeyId};

/// Defines a shared, immutable text that is a type of its own.
macro_rules! text_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text over.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_type! {
    /// The name of a tenant's background job, as the job's API shows it.
    JobId
}
text_type! {
    /// Who asks: the ARN of a user, role or job.
    Principal
}
text_type! {
    /// The request an access belongs to; the same id is in the log and in the answer.
    RequestId
}

/// Why a key is used. A closed list; see docs/KEYS.md, "Permits".
///
/// Only the tenant's own two are issued. The others exist so that logs and policies can name them,
/// and are refused until approvals can issue them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A call by the tenant's own principal.
    CustomerInitiated,
    /// Support was asked for by the tenant. Refused.
    CustomerSupport,
    /// An incident in production. Refused.
    ProductionAlert,
    /// A review by the provider. Refused.
    ProviderReview,
    /// Work of the provider's service. Refused.
    ProviderService,
    /// A job of the tenant: rewrap, re-encrypt, lifecycle, export, replication.
    TenantJob {
        /// Which job.
        job: JobId,
    },
    /// A demand by a third party, such as an authority. Refused.
    ThirdPartyDataRequest,
}

impl Reason {
    /// The reason's name in logs and policies.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CustomerInitiated => "customer-initiated",
            Self::CustomerSupport => "customer-support",
            Self::ProductionAlert => "production-alert",
            Self::ProviderReview => "provider-review",
            Self::ProviderService => "provider-service",
            Self::TenantJob { .. } => "tenant-job",
            Self::ThirdPartyDataRequest => "third-party-data-request",
        }
    }

    const fn is_issued(&self) -> bool {
        matches!(self, Self::CustomerInitiated | Self::TenantJob { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyUse {
    /// Showing what a listing shows: no policy of the key is asked, its gate is.
    Attributes,
    /// Reading bytes: `kms:Decrypt`.
    Read,
    /// Writing bytes: `kms:GenerateDataKey`.
    Write,
}

/// Decides whether whoever acts may use a tenant key. Asked before every permit.
pub trait KeyRights: Send + Sync {
    /// Whether the key's policy and grants allow it.
    fn may_use(&self, tenant_key: TenantKeyId, key_use: KeyUse) -> bool;
}

/// The rights that a [`Purpose`] carries. Two are equal if they are the same object.
#[derive(Clone)]
pub struct Rights(Arc<dyn KeyRights>);

/// The rights of the tenant itself: its own jobs, and checks of a directory that is offline.
struct OwnRights;

impl KeyRights for OwnRights {
    fn may_use(&self, _: TenantKeyId, _: KeyUse) -> bool {
        true
    }
}

impl Rights {
    /// Rights decided by `rights`.
    pub fn new(rights: Arc<dyn KeyRights>) -> Self {
        Self(rights)
    }

    /// The rights of the tenant itself, for its jobs.
    pub fn of_tenant() -> Self {
        Self(Arc::new(OwnRights))
    }
}

impl PartialEq for Rights {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Rights {}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rights")
    }
}

/// Who wants to use a key, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Whose keys.
    pub tenant: TenantId,
    /// Who asks.
    pub principal: Principal,
    /// Why.
    pub reason: Reason,
    /// In which request.
    pub request_id: RequestId,
    /// The call, in the vocabulary of AWS policies: `s3:GetObject`, `kms:Encrypt`.
    pub action: &'static str,
    /// What decides whether whoever asks may use a key.
    pub rights: Rights,
}

/// What exactly a permit is asked for; goes into the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What the key is used for.
    pub key_use: KeyUse,
    /// The material that the key above the data is wrapped under, where it is known.
    pub material: Option<u32>,
    /// The bucket's id, where there is one.
    pub bucket: Option<[u8; 16]>,
    /// The object version's id, or the upload's, where there is one.
    pub version: Option<[u8; 16]>,
}

impl Access {
    /// Of a key, without a bucket.
    pub const fn direct(key_use: KeyUse) -> Self {
        Self { key_use, material: None, bucket: None, version: None }
    }

    /// Of something in a bucket.
    pub const fn in_bucket(key_use: KeyUse, bucket: [u8; 16]) -> Self {
        Self { key_use, material: None, bucket: Some(bucket), version: None }
    }

    /// Of this version.
    #[must_use]
    pub const fn of_version(mut self, version: [u8; 16]) -> Self {
        self.version = Some(version);
        self
    }
}

/// Why a gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateClosed {
    /// The material is gone.
    Destroyed,
    /// Switched off.
    Disabled,
    /// Its key store does not answer.
    Unavailable,
    /// Waiting for its deletion, or for its material to be imported.
    Unusable,
}

// The gate is one 64-bit word, so that state and guard count change together:
// bits 0..32 guards in flight, 32..35 state, 35..64 generation.
const COUNT_MASK: u64 = 0xffff_ffff;
const STATE_SHIFT: u32 = 32;
const STATE_MASK: u64 = 0b111;
const STATE_OPEN: u64 = 0;
const STATE_DISABLED: u64 = 1;
const STATE_DESTROYED: u64 = 2;
const STATE_UNAVAILABLE: u64 = 3;
const STATE_UNUSABLE: u64 = 4;
const GENERATION_SHIFT: u32 = 35;
/// 2^29: a gate moved once a second lasts 17 years of uptime. Past it the gate stays shut.
const GENERATION_MAX: u64 = (1 << 29) - 1;

const fn word_state(word: u64) -> u64 {
    (word >> STATE_SHIFT) & STATE_MASK
}

const fn word_generation(word: u64) -> u64 {
    word >> GENERATION_SHIFT
}

const fn pack(generation: u64, state: u64, count: u64) -> u64 {
    (generation << GENERATION_SHIFT) | (state << STATE_SHIFT) | count
}

/// The switch of one tenant key. Shared by everything that works under the key.
pub struct KeyGate {
    word: AtomicU64,
    /// Held only to wait for, and to announce, the last guard of a closed gate.
    drain: Mutex<()>,
    drained: Condvar,
}

impl KeyGate {
    /// A gate in its first generation, open or closed.
    pub fn new(closed: Option<GateClosed>) -> Self {
        let state = closed.map_or(STATE_OPEN, state_code);
        Self {
            word: AtomicU64::new(pack(0, state, 0)),
            drain: Mutex::new(()),
            drained: Condvar::new(),
        }
    }

    /// Whether work may start.
    pub fn is_open(&self) -> bool {
        word_state(self.word.load(Ordering::Acquire)) == STATE_OPEN
    }

    /// How often the gate was closed.
    pub fn generation(&self) -> u64 {
        word_generation(self.word.load(Ordering::Acquire))
    }

    /// Guards that exist now.
    pub fn in_flight(&self) -> u64 {
        self.word.load(Ordering::Acquire) & COUNT_MASK
    }

    /// Closes the gate and waits until no guard is left.
    ///
    /// Blocks for at most one chunk's work per open request. Must not be called by a thread that
    /// holds a guard of this gate: it would wait for itself.
    pub fn close(&self, why: GateClosed) {
        self.shut(why);
        self.drain();
    }

    /// Waits until no guard is left. The gate must stay closed meanwhile, or this may not end.
    pub fn drain(&self) {
        let mut drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        while self.in_flight() != 0 {
            drain = self.drained.wait(drain).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Closes the gate without waiting: every later `enter` fails, earlier guards go on.
    pub fn shut(&self, why: GateClosed) {
        let step = |word: u64| {
            let generation = (word_generation(word) + 1).min(GENERATION_MAX);
            Some(pack(generation, state_code(why), word & COUNT_MASK))
        };
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, step)
            .expect("the step always gives a new word");
    }

    /// Opens the gate for new permits. A destroyed key's gate stays shut.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`], or [`ErrorKind::Full`] when the generations are used up.
    pub fn open(&self) -> Result<()> {
        let step = |word: u64| {
            let generation = word_generation(word);
            let may_open = word_state(word) != STATE_DESTROYED && generation < GENERATION_MAX;
            may_open.then(|| pack(generation, STATE_OPEN, word & COUNT_MASK))
        };
        match self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step) {
            Ok(_) => Ok(()),
            Err(word) if word_state(word) == STATE_DESTROYED => {
                Err(Error::new(ErrorKind::KeyDestroyed, "open a key's gate"))
            }
            Err(_) => Err(Error::new(ErrorKind::Full, "open a key's gate")
                .with_advice("restart the node: the gate moved 2^29 times")),
        }
    }

    fn enter(&self, generation: u64) -> Result<InFlight<'_>> {
        self.look(generation)?;
        let (guard, word) = self.count();
        check_word(word, generation)?;
        Ok(guard)
    }

    /// Keeps late-comers from touching the count of a closed gate, so that a closer waits only for
    /// guards from before.
    fn look(&self, generation: u64) -> Result<()> {
        check_word(self.word.load(Ordering::Acquire), generation)
    }

    /// Counts a guard and reads the state in one step, so that a closer's step comes either before
    /// it or after it. The guard is good for work only if the word that it met is.
    fn count(&self) -> (InFlight<'_>, u64) {
        let word = self.word.fetch_add(1, Ordering::SeqCst);
        (InFlight { gate: self }, word)
    }

    fn leave(&self) {
        let word = self.word.fetch_sub(1, Ordering::SeqCst);
        debug_assert_ne!(word & COUNT_MASK, 0, "a guard leaves once");
        if word_state(word) != STATE_OPEN && word & COUNT_MASK == 1 {
            // Under the lock, so that a closer is either before its check or already waiting.
            let _drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner);
            self.drained.notify_all();
        }
    }
}

impl fmt::Debug for KeyGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Acquire);
        f.debug_struct("KeyGate")
            .field("open", &(word_state(word) == STATE_OPEN))
            .field("generation", &word_generation(word))
            .field("in_flight", &(word & COUNT_MASK))
            .finish_non_exhaustive()
    }
}

const fn state_code(why: GateClosed) -> u64 {
    match why {
        GateClosed::Destroyed => STATE_DESTROYED,
        GateClosed::Disabled => STATE_DISABLED,
        GateClosed::Unavailable => STATE_UNAVAILABLE,
        GateClosed::Unusable => STATE_UNUSABLE,
    }
}

fn check_word(word: u64, generation: u64) -> Result<()> {
    let state = word_state(word);
    if state == STATE_OPEN && word_generation(word) == generation {
        return Ok(());
    }
    let kind = match state {
        STATE_DESTROYED => ErrorKind::KeyDestroyed,
        STATE_UNAVAILABLE => ErrorKind::Unavailable,
        STATE_UNUSABLE => ErrorKind::KeyUnusable,
        _ => ErrorKind::KeyDisabled,
    };
    Err(Error::new(kind, "pass the key's gate"))
}

/// Proof that one piece of work started while the gate was open. Keep it for one chunk at most.
#[must_use = "the gate counts the work as done when the guard drops"]
pub struct InFlight<'gate> {
    gate: &'gate KeyGate,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.gate.leave();
    }
}

impl fmt::Debug for InFlight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlight")
    }
}

/// The right to use one tenant key for one purpose, until its gate closes.
///
/// It cannot be copied, made outside this package or widened; share it as `Arc<UnwrapPermit>`.
/// ```compile_fail,E0451
/// fn forge(purpose: kluis_kms::Purpose, other: kluis_kms::UnwrapPermit) {
///     let _ = kluis_kms::UnwrapPermit { purpose, ..other };
/// }
/// ```
/// ```compile_fail,E0624
/// use kluis_kms::{KeyGate, Purpose, TenantKeyId, UnwrapPermit};
/// fn forge(purpose: &Purpose, id: TenantKeyId, gate: std::sync::Arc<KeyGate>) {
///     UnwrapPermit::issue(purpose, id, gate);
/// }
/// ```
/// ```compile_fail,E0599
/// fn copy(permit: kluis_kms::UnwrapPermit) -> kluis_kms::UnwrapPermit {
///     permit.clone()
/// }
/// ```
#[derive(Debug)]
pub struct UnwrapPermit {
    purpose: Purpose,
    tenant_key: TenantKeyId,
    gate: Arc<KeyGate>,
    generation: u64,
}

impl UnwrapPermit {
    /// Issues a permit if the reason may be issued and the gate is open.
    pub(crate) fn issue(
        purpose: &Purpose,
        tenant_key: TenantKeyId,
        gate: Arc<KeyGate>,
        key_use: KeyUse,
    ) -> Result<Self> {
        if !purpose.reason.is_issued() {
            let during = format!("issue a permit for reason {}", purpose.reason);
            return Err(Error::new(ErrorKind::Refused, during));
        }
        if key_use != KeyUse::Attributes && !purpose.rights.0.may_use(tenant_key, key_use) {
            let during = format!("use tenant key {tenant_key} for {}", purpose.action);
            return Err(Error::new(ErrorKind::AccessDenied, during));
        }
        let word = gate.word.load(Ordering::Acquire);
        let generation = word_generation(word);
        check_word(word, generation)?;
        Ok(Self { purpose: purpose.clone(), tenant_key, gate, generation })
    }

    /// Starts one piece of work; the guard ends it.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyDestroyed`] or [`ErrorKind::Unavailable`] when
    /// the gate is closed or was closed since this permit was issued.
    pub fn enter(&self) -> Result<InFlight<'_>> {
        self.gate.enter(self.generation)
    }

    /// Whether this is a permit of that gate.
    pub(crate) fn is_for(&self, gate: &Arc<KeyGate>) -> bool {
        Arc::ptr_eq(&self.gate, gate)
    }

    /// Whose key.
    pub const fn tenant(&self) -> TenantId {
        self.purpose.tenant
    }

    /// Which tenant key.
    pub const fn tenant_key(&self) -> TenantKeyId {
        self.tenant_key
    }

    /// Who asked.
    pub const fn principal(&self) -> &Principal {
        &self.purpose.principal
    }

    /// Why.
    pub const fn reason(&self) -> &Reason {
        &self.purpose.reason
    }

    /// In which request.
    pub const fn request_id(&self) -> &RequestId {
        &self.purpose.request_id
    }

    /// The gate's generation this permit belongs to. Caches of unwrapped keys hold it beside them.
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(test)]
mod tests;
