//! What sequences share: keys and buffers, which are dear to make and say nothing of a seed.
//!
//! Owns: one keyring in memory-backed files, its tenants, one buffer pool, per thread.
//! Knows nothing of: sequences.
//!
//! Invariants
//! - Keys, ids and their order are the same in every process: a sequence does not depend on those
//!   that ran before it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kluis_kms::{DiscardAudit, Kms, MemoryStore, Purpose, Reason, Rights, TenantId};

use super::env::SimEnv;
use crate::error::{Error, ErrorKind, Result};
use crate::io::BufPool;

/// Tenants of a simulated node.
pub(super) const TENANTS: usize = 2;
/// Sequences before the keyring is made anew: each start of an engine leaves it a listener.
const USES_MAX: u32 = 256;
/// The seed of everything shared.
const SEED: u64 = 0x6b6c_7569_732e_7631;
/// Few buffers, so that waiting for one is not rare.
const POOL_BYTES: usize = 6 << 20;

/// See the module.
pub(super) struct Shared {
    pub(super) env: SimEnv,
    pub(super) kms: Arc<Kms>,
    pub(super) pool: BufPool,
    pub(super) tenants: Vec<TenantId>,
    _folder: Folder,
}

impl Shared {
    fn new() -> Result<Self> {
        let env = SimEnv::new();
        env.reset(SEED);
        let folder = Folder::new()?;
        let store = MemoryStore::new(env.env().rng)?;
        let kms = Kms::create(&folder.0, &store, env.env())?.with_audit(Arc::new(DiscardAudit));
        let tenants: Vec<_> = (0..TENANTS).map(|_| TenantId::random(&*env.env().rng)).collect();
        kms.create_tenant_keys(&tenants)?;
        let pool = BufPool::new(POOL_BYTES, false).map_err(|cause| {
            Error::new(ErrorKind::Unavailable, "make a pool").with_source(cause)
        })?;
        Ok(Self { env, kms: Arc::new(kms), pool, tenants, _folder: folder })
    }

    /// In whose name a tenant's requests are made.
    pub(super) fn purpose(&self, tenant: usize) -> Purpose {
        Purpose {
            tenant: *self.tenants.get(tenant % TENANTS).expect("a number below the length"),
            principal: "root".into(),
            reason: Reason::CustomerInitiated,
            request_id: "sim".into(),
            action: "kluis:Sim",
            rights: Rights::of_tenant(),
        }
    }
}

/// This thread's.
pub(super) fn shared() -> Result<Rc<Shared>> {
    thread_local! {
        static SHARED: RefCell<Option<(Rc<Shared>, u32)>> = const { RefCell::new(None) };
    }
    SHARED.with_borrow_mut(|held| {
        if let Some((shared, uses)) = held
            && *uses < USES_MAX
        {
            *uses += 1;
            return Ok(Rc::clone(shared));
        }
        *held = None;
        let shared = Rc::new(Shared::new()?);
        *held = Some((Rc::clone(&shared), 1));
        Ok(shared)
    })
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = base.join(format!("kluis-sim-{process}-{number}"));
        std::fs::create_dir(&path).map_err(|cause| {
            Error::new(ErrorKind::Unavailable, format!("make {}", path.display()))
                .with_source(cause)
        })?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It lies in memory, or where the system cleans up by itself.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
