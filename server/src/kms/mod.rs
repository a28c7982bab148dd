//! The AWS KMS API (JSON 1.1) over a tenant's keys, and Kluis' own verbs beside it.
//!
//! A request arrives from the front with its body read and its signature verified. [`table`] names
//! the handler of each operation; a handler reads [`fields`], finds the key, asks for the caller's
//! right to it, looks at the key's state, and calls the keys ([`kluis_kms::Kms`]) or the engine.
//! Owns: what the API promises: names, texts, bounds, paging, the state table.
//! Knows nothing of: sockets, signatures, how keys are kept, S3.
//!
//! Invariants
//! - Nothing here holds a key but for what an answer carries, and that is wiped.
//! - A call that is refused has changed nothing.
//! - No call blocks a thread of the runtime: handlers run on threads that may wait.
//!   Behaviour, and how it differs from AWS: docs/OPERATIONS.md, "The KMS API".

mod access;
mod aliases;
mod call;
mod crypto;
mod denials;
pub(crate) mod error;
mod fields;
mod grants;
mod import;
mod jobs;
mod keys;
mod names;
mod page;
mod policies;
mod reply;
mod rotation;
mod table;
mod tags;
mod trail;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use kluis_kms::env::Env;
use kluis_kms::{Kms, RequestId, TenantId};
use kluis_storage::Engine;

use crate::auth::User;
use crate::key_policy::{KeyPolicies, Origin};
use crate::tenant_locks::TenantLocks;

use self::call::Call;
use self::error::{KmsError, internal, throttled};
use self::fields::Fields;
use self::reply::Reply;
use self::table::Handler;

pub(crate) use self::names::Names;
pub(crate) use self::reply::Served;

/// The longest body. The longest request is a key policy of 32 KiB in JSON within JSON, where each
/// character may take six; import tokens, ciphertexts and contexts are far below.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1_024;
/// Calls that one tenant has in progress at a time. Each may wait for a disk or a key store on a
/// thread of a pool of 512, and one tenant's slow key store must leave most of them to others.
const CALLS_PER_TENANT_MAX: usize = 32;

/// A request whose sender is known.
pub(crate) struct KmsRequest {
    /// Who sent it.
    pub(crate) user: Arc<User>,
    /// Its id.
    pub(crate) request_id: RequestId,
    /// From where it came.
    pub(crate) origin: Origin,
    /// The value of `x-amz-target`.
    pub(crate) target: String,
    /// Its body, wiped when it is dropped.
    pub(crate) body: zeroize::Zeroizing<Vec<u8>>,
}

/// The KMS API of one node.
pub(crate) struct KmsApi {
    kms: Arc<Kms>,
    /// None in tests of what needs no engine.
    engine: Option<Engine>,
    env: Env,
    region: Arc<str>,
    policies: Arc<KeyPolicies>,
    /// Since when the last use of keys is known, in Unix milliseconds.
    started_ms: u64,
    /// Held while entries of a key directory are read, decided on and written.
    directory: TenantLocks,
    calls: Turns,
    readers: trail::Readers,
    denials: denials::Denials,
    /// Keys for imports that are being made: one a tenant.
    imports: Turns,
    /// Held while such a key is made: it takes a core for up to seconds.
    import_keys: Mutex<()>,
}

/// What each tenant has in progress.
type Turns = Arc<Mutex<HashMap<TenantId, usize>>>;

impl KmsApi {
    /// The API over `engine`'s keys.
    pub(crate) fn new(
        engine: Engine,
        policies: Arc<KeyPolicies>,
        env: Env,
        region: impl Into<Arc<str>>,
    ) -> Arc<Self> {
        let kms = Arc::clone(engine.kms());
        Self::over((kms, Some(engine)), policies, env, region.into())
    }

    fn over(
        (kms, engine): (Arc<Kms>, Option<Engine>),
        policies: Arc<KeyPolicies>,
        env: Env,
        region: Arc<str>,
    ) -> Arc<Self> {
        Arc::new(Self {
            policies,
            started_ms: env.clock.now_ms(),
            kms,
            engine,
            env,
            region,
            directory: TenantLocks::default(),
            calls: Arc::default(),
            readers: trail::Readers::default(),
            denials: denials::Denials::default(),
            imports: Arc::default(),
            import_keys: Mutex::default(),
        })
    }

    /// Serves a request: the body of the answer, or what to say instead.
    pub(crate) async fn serve(self: Arc<Self>, request: KmsRequest) -> Result<Served, KmsError> {
        let KmsRequest { user, request_id, origin, target, body } = request;
        let operation = table::find(&target)?;
        let turn =
            Turn::take((&self.calls, CALLS_PER_TENANT_MAX), user.tenant).ok_or_else(throttled)?;
        let fields = Fields::parse(&body)?;
        drop(body);
        let call =
            Arc::new(Call { api: self, user, request_id, origin, operation, fields, _turn: turn });
        let reply = match operation.handler {
            Handler::Engine(handler) => handler(Arc::clone(&call)).await,
            Handler::Keys(handler) => blocking(Arc::clone(&call), handler).await,
            Handler::Unsupported => Err(table::unsupported(operation)),
        };
        if matches!(&reply, Err(error) if error.code == error::ACCESS_DENIED) {
            call.note_denied();
        }
        reply.map(Reply::into_served)
    }
}

/// Runs a step that may wait for a disk, a key store or the drain of a gate.
async fn blocking<T: Send + 'static>(
    call: Arc<Call>,
    step: fn(&Call) -> Result<T, KmsError>,
) -> Result<T, KmsError> {
    let span = tracing::Span::current();
    let task = tokio::task::spawn_blocking(move || {
        let _entered = span.entered();
        catch_unwind(AssertUnwindSafe(|| step(&call))).unwrap_or_else(|_| {
            tracing::error!(operation = call.operation.name, "a call panicked; this is a bug");
            Err(internal())
        })
    });
    task.await.unwrap_or_else(|_| Err(internal()))
}

/// One of the things that a tenant has in progress.
struct Turn {
    calls: Turns,
    tenant: TenantId,
}

impl Turn {
    fn take((calls, most): (&Turns, usize), tenant: TenantId) -> Option<Self> {
        let mut counts = calls.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(tenant).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Self { calls: Arc::clone(calls), tenant })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.tenant);
            }
        }
    }
}

/// Whether a call or its answer carries plaintext, so that nobody on the way may read along.
pub(crate) fn carries_plaintext(target: &str) -> bool {
    ["Decrypt", "Encrypt", "GenerateDataKey", "GenerateRandom"].contains(&operation_name(target))
}

/// The name of the operation that a target asks for, for logs and metrics.
pub(crate) fn operation_name(target: &str) -> &'static str {
    table::find(target).map_or("Unknown", |operation| operation.name)
}

#[cfg(test)]
mod tests;
