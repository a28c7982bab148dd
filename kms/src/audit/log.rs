//! The node's audit log: events in, durable and chained.
//!
//! A caller seals its event and leaves it in a buffer; one thread gives what is there its place in
//! the chain, writes it as one group and flushes it, at most every 50 ms, or at once when somebody
//! waits or 1 MiB is there.
//! Owns: the buffer, the thread, who waits for which flush. Knows nothing of: bytes on the disk.
//!
//! Invariants
//! - [`AuditSink::record`] returns after the flush, and waits for room. [`AuditSink::note`] never
//!   waits for the disk: a full buffer refuses it, and with it the permit that it announces.
//! - After a failed write or flush the log takes no event any more, so that no permit is given out
//!   and no key changes without a trace. A restart reads what is really there.
//!   See docs/KEYS.md, "Audit".

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::entry::Sealed;
use super::segment::{Head, Keys};
use super::writer::{AuditDamage, Bounds, Writer};
use super::{AuditEvent, AuditSink};
use crate::aead::Nonce;
use crate::env::{Env, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::private_file;
use crate::secret::MacSecret;
use crate::types::TenantId;

/// The directory under the node's data directory that holds the log.
pub(super) const AUDIT_DIR: &str = "audit";

/// What waits for the next flush.
#[derive(Default)]
struct Queue {
    events: Vec<Sealed>,
    bytes: usize,
    /// Events that were ever put in.
    taken: u64,
    /// Events that are durable.
    durable: u64,
    /// Somebody waits: do not wait for company.
    is_urgent: bool,
    is_closing: bool,
    /// A write or flush failed, or the thread is gone.
    is_fenced: bool,
}

/// How far the durable log goes.
pub(super) struct View {
    pub(super) head: Head,
    /// The last entry of each tenant, by the tenant's own count.
    pub(super) tenants: HashMap<TenantId, u64>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Told when the thread has something to do.
    work: Condvar,
    /// Told when something became durable, or the fence went up.
    done: Condvar,
    view: Mutex<View>,
    bounds: Bounds,
}

/// The one sink of a node. Dropping it flushes what it holds.
pub struct AuditLog {
    pub(super) dir: PathBuf,
    pub(super) keys: Arc<Keys>,
    env: Env,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    nonce_base: Nonce,
    nonce_count: AtomicU64,
    damage: Option<AuditDamage>,
    /// Keeps a second log out of the directory, also one of this process.
    _lock: File,
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl AuditLog {
    /// Opens the log under the data directory `dir`, or begins one.
    ///
    /// Damage does not keep it from opening: it goes on in a new segment, says so in the program's
    /// log and in [`Self::damage`], and every [`Self::verify`] reports it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: it is open. [`ErrorKind::Refused`]: others may read a file.
    /// [`ErrorKind::Unavailable`]: a file cannot be read or written.
    pub(crate) fn open(dir: &Path, mac_key: &MacSecret, env: &Env) -> Result<Self> {
        Self::open_with(dir, mac_key, env, Bounds::NODE)
    }

    pub(super) fn open_with(
        dir: &Path,
        mac_key: &MacSecret,
        env: &Env,
        bounds: Bounds,
    ) -> Result<Self> {
        let dir = dir.join(AUDIT_DIR);
        private_file::ensure_dir(&dir)?;
        let lock = private_file::lock_dir(&dir)?;
        let keys = Arc::new(Keys::derive(mac_key)?);
        let (writer, damage) = Writer::open(&dir, &keys, env, bounds)?;
        if let Some(damage) = &damage {
            tracing::error!(
                %damage,
                "the audit log was damaged or cut while the node was down; it goes on behind the \
                 damage. Keep a copy of the audit directory and find out who wrote to it"
            );
        }
        Self::start(dir, (keys, env.clone(), bounds), writer, (damage, lock))
    }

    pub(super) fn start(
        dir: PathBuf,
        (keys, env, bounds): (Arc<Keys>, Env, Bounds),
        writer: Writer,
        (damage, lock): (Option<AuditDamage>, File),
    ) -> Result<Self> {
        let heads = writer.chain().tenants.iter();
        let tenants = heads.map(|(tenant, head)| (*tenant, head.sequence)).collect();
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            view: Mutex::new(View { head: writer.head(), tenants }),
            bounds,
        });
        let in_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("kluis-audit".into())
            .spawn(move || in_thread.run(writer))
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "start the audit thread").with_source(error)
            })?;
        let nonce_base = random_array(&*env.rng);
        Ok(Self {
            dir,
            keys,
            env,
            shared,
            thread: Some(thread),
            nonce_base,
            nonce_count: AtomicU64::new(0),
            damage,
            _lock: lock,
        })
    }

    /// What was wrong with the log when it was opened.
    pub const fn damage(&self) -> Option<&AuditDamage> {
        self.damage.as_ref()
    }

    /// Waits until everything that was noted so far is durable.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the log takes no events any more.
    pub fn flush(&self) -> Result<()> {
        let queue = self.shared.lock();
        let ticket = queue.taken;
        self.shared.wait_for(queue, ticket)
    }

    /// How far the durable log goes; what is noted is flushed before, if it can be.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // A fenced log can still be read.
        let _ = self.flush();
        self.shared.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the fence up, as a failed write does.
    #[cfg(test)]
    pub(crate) fn fence(&self) {
        self.shared.lock().is_fenced = true;
    }

    fn seal(&self, event: &AuditEvent) -> Sealed {
        // A random start and a count: no two are the same while the process lives, without a
        // system call for each. The cipher bears a repetition between two lives (RFC 8452).
        let count = self.nonce_count.fetch_add(1, Ordering::Relaxed);
        let mut nonce = self.nonce_base;
        for (byte, step) in nonce.iter_mut().rev().zip(count.to_le_bytes()) {
            *byte ^= step;
        }
        Sealed::seal(event, self.env.clock.now_ms(), &self.keys.seal, &nonce)
    }
}

impl AuditSink for AuditLog {
    fn record(&self, events: &[AuditEvent]) -> Result<()> {
        let sealed: Vec<_> = events.iter().map(|event| self.seal(event)).collect();
        let mut queue = self.shared.lock();
        for event in sealed {
            queue = self.shared.wait_for_room(queue);
            self.shared.push(&mut queue, event)?;
        }
        let ticket = queue.taken;
        self.shared.wait_for(queue, ticket)
    }

    fn note(&self, event: AuditEvent) -> Result<()> {
        let sealed = self.seal(&event);
        let mut queue = self.shared.lock();
        if queue.bytes >= self.shared.bounds.buffer_bytes && !queue.is_fenced {
            return Err(Error::new(ErrorKind::Unavailable, "note an event: the audit log is full")
                .with_advice("the disk under DIR/audit is slow or stalled; try again"));
        }
        self.shared.push(&mut queue, sealed)
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.work.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit thread panicked");
        }
    }
}

fn fenced() -> Error {
    Error::new(ErrorKind::Unavailable, "append to the audit log after a failure").with_advice(
        "make room on the disk or replace it, then restart the node: no key is used until then",
    )
}

/// Puts the fence up when the thread ends, however it ends, so that nobody waits for it.
struct FenceOnDrop<'a>(&'a Shared);

impl Drop for FenceOnDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().is_fenced = true;
        self.0.done.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once there is room, or the fence is up. Blocks: for threads that may wait.
    fn wait_for_room<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        while queue.bytes >= self.bounds.buffer_bytes && !queue.is_fenced {
            queue = self.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue
    }

    /// Puts an event in.
    fn push(&self, queue: &mut Queue, event: Sealed) -> Result<()> {
        if queue.is_fenced {
            return Err(fenced());
        }
        let before = queue.bytes;
        queue.bytes += event.entry_bytes();
        queue.events.push(event);
        queue.taken += 1;
        let flush_bytes = self.bounds.flush_bytes;
        // The thread sleeps without a time limit while the queue is empty, and with one after.
        if before == 0 || (before < flush_bytes && queue.bytes >= flush_bytes) {
            self.work.notify_one();
        }
        Ok(())
    }

    fn wait_for(&self, mut queue: MutexGuard<'_, Queue>, ticket: u64) -> Result<()> {
        while queue.durable < ticket {
            if queue.is_fenced {
                return Err(fenced());
            }
            if !queue.is_urgent {
                queue.is_urgent = true;
                self.work.notify_one();
            }
            queue = self.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Flushes until the log closes or a write fails.
    fn run(&self, mut writer: Writer) {
        let _fence = FenceOnDrop(self);
        while let Some(events) = self.next_group() {
            if let Err(error) = writer.append(&events) {
                tracing::error!(%error, "the audit log failed: no key is used until a restart");
                return;
            }
            self.publish(&writer, &events);
            let mut queue = self.lock();
            queue.durable += events.len() as u64;
            drop(queue);
            self.done.notify_all();
        }
        if let Err(error) = writer.close() {
            tracing::warn!(%error, "could not flush the head of the audit log");
        }
    }

    /// Waits for events, and for a while for more; none when the log closes.
    fn next_group(&self) -> Option<Vec<Sealed>> {
        let mut queue = self.lock();
        while queue.events.is_empty() {
            if queue.is_closing {
                return None;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let is_early = |queue: &mut Queue| {
            !queue.is_urgent && !queue.is_closing && queue.bytes < self.bounds.flush_bytes
        };
        let wait = Duration::from_millis(self.bounds.flush_ms);
        let (mut queue, _) = self
            .work
            .wait_timeout_while(queue, wait, is_early)
            .unwrap_or_else(PoisonError::into_inner);
        queue.is_urgent = false;
        if queue.bytes >= self.bounds.buffer_bytes {
            // There is room again for those who wait for it.
            self.done.notify_all();
        }
        queue.bytes = 0;
        Some(std::mem::take(&mut queue.events))
    }

    fn publish(&self, writer: &Writer, events: &[Sealed]) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.head = writer.head();
        for event in events {
            let tenant = event.subject.tenant;
            let last = writer.chain().tenants.get(&tenant).map_or(0, |head| head.sequence);
            view.tenants.insert(tenant, last);
        }
    }
}
