//! A disk in memory that loses power, tears sectors and fails, all from one seed.
//!
//! Every choice (how long an operation takes, what a crash keeps, where a bit flips) comes from
//! the seed, so a run repeats exactly in a single-threaded runtime.
//! Owns: the faults and the schedule. What a disk remembers lies in `sim/world.rs`.
//! Does not know: real files, time, threads.
//!
//! Invariants
//! - A sync makes durable only the writes that were *answered* before it was first polled: the
//!   least that a real disk promises.
//! - After a crash each unsynced sector of 512 bytes holds what was durable, what any unsynced
//!   write put there, or a torn mixture of two of these. Synced sectors never change.
//! - A sync that failed makes nothing durable later on: the pages count as clean.
//! - An operation goes on if its future is dropped.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use super::files::{check_len, check_name};
use super::transfer::{Direction, Step, stopped};
use super::{Buf, Disk, DiskFuture, DiskKind, DiskStats, FileId, OpenMode};

mod random;
mod world;

#[cfg(test)]
mod tests;

#[cfg_attr(not(feature = "sim"), expect(unused_imports, reason = "for the simulation"))]
pub(crate) use random::SplitMix;
use world::{Sync, World};

/// What a power loss tears or keeps as a unit.
pub const SECTOR_BYTES: usize = 512;

/// How many times an operation lets others run before it is answered, at most. Enough for any
/// order of a handful of operations; more only makes runs longer.
const PAUSES_MAX: u64 = 3;

/// The same for a sync, which on a real device takes longest.
const SYNC_PAUSES_MAX: u64 = 12;

/// How a simulated disk starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Files can be made until their lengths add up to this; then comes `StorageFull`.
    pub capacity_bytes: u64,
}

/// The kinds of operation that are counted and can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SimOp {
    /// `open` with [`OpenMode::Create`].
    Create,
    /// `list`.
    List,
    /// `open` with [`OpenMode::Existing`].
    Open,
    /// `read_at`.
    Read,
    /// `remove`.
    Remove,
    /// `rename`.
    Rename,
    /// `sync`.
    Sync,
    /// `write_at`.
    Write,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SimFault {
    /// A read returns, or a write stores, one bit wrong; answered with `Ok`.
    BitFlip,
    /// EIO. A write may have stored any beginning of itself; after a sync each write may be
    /// durable or may never become so.
    Eio,
    /// ENOSPC, from a write or from making a file; nothing happened.
    Enospc,
    /// A write or sync is answered with `Ok` and did nothing.
    Lost,
    /// A write lands in another place of the same file; answered with `Ok`.
    Misdirected,
    /// A write takes only a beginning, and says so: it has to be continued.
    Short,
}

impl SimFault {
    fn suits(self, op: SimOp) -> bool {
        match self {
            Self::BitFlip => matches!(op, SimOp::Read | SimOp::Write),
            Self::Eio => true,
            Self::Enospc => matches!(op, SimOp::Create | SimOp::Write),
            Self::Lost => matches!(op, SimOp::Sync | SimOp::Write),
            Self::Misdirected | Self::Short => op == SimOp::Write,
        }
    }
}

/// What a power loss does to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SimCrash {
    /// Every unsynced write happened to reach the device.
    KeepAll,
    /// None did.
    LoseAll,
    /// The seed decides: sector by sector with tears, write by write, or up to a moment.
    Mixed,
}

/// The simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<World>>);

impl SimDisk {
    /// An empty disk without a limit.
    pub fn new(seed: u64) -> Self {
        Self::with(SimConfig { seed, capacity_bytes: u64::MAX })
    }

    /// An empty disk.
    pub fn with(config: SimConfig) -> Self {
        Self::over(World::new(config))
    }

    fn over(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// Lets `after` more operations of this kind succeed and makes the next one fail.
    ///
    /// # Panics
    /// If that kind of operation cannot fail that way.
    pub fn inject(&self, op: SimOp, after: u64, fault: SimFault) {
        assert!(fault.suits(op), "{op:?} cannot fail by {fault:?}");
        self.world().inject(op, after, fault);
    }

    /// Takes back the faults that have not happened yet.
    pub fn calm(&self) {
        self.world().calm();
    }

    /// Injected faults that have not happened yet.
    pub fn faults_left(&self) -> usize {
        self.world().faults_left()
    }

    /// How many operations of this kind have started: the places where a fault can go.
    pub fn count(&self, op: SimOp) -> u64 {
        self.world().count(op)
    }

    /// Cuts the power; the seed decides what remains. This disk answers nothing more, the one
    /// returned is what the next start finds.
    #[must_use]
    pub fn crash(&self) -> Self {
        self.crash_with(SimCrash::Mixed)
    }

    /// Cuts the power.
    #[must_use]
    pub fn crash_with(&self, crash: SimCrash) -> Self {
        Self::over(self.world().crash(crash))
    }

    /// The file as a read would see it now.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        self.world().contents(name)
    }

    /// Flips a stored bit, as rot does: bit `bit` (0 to 7) of the byte at `offset`.
    ///
    /// # Errors
    /// `NotFound` if there is no such file, `UnexpectedEof` if it is shorter.
    pub fn rot(&self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        self.world().rot(name, offset, bit)
    }

    /// A fingerprint of every operation and choice so far. Two runs from one seed that did the
    /// same agree on it.
    pub fn trace(&self) -> u64 {
        self.world().trace()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers with `result`, unless the power went in the meantime.
    fn answer<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if self.world().is_stopped() { Err(stopped()) } else { result }
    }

    /// Runs a change of names or a sync that takes effect before or after the wait: a crash in
    /// between finds it done or not.
    fn slowly<T: Send + 'static>(
        &self,
        pauses_max: u64,
        prepare: impl FnOnce(&mut World) -> io::Result<Sync> + Send + 'static,
        apply: impl FnOnce(&mut World, Sync) -> io::Result<T> + Send + 'static,
    ) -> DiskFuture<io::Result<T>> {
        let disk = self.clone();
        Box::pin(async move {
            let prepared = {
                let mut world = disk.world();
                prepare(&mut world)?
            };
            let (early, pauses) = disk.world().schedule(pauses_max);
            if early {
                let result = apply(&mut disk.world(), prepared);
                pause(pauses).await;
                return disk.answer(result);
            }
            pause(pauses).await;
            let mut world = disk.world();
            if world.is_stopped() {
                return Err(stopped());
            }
            apply(&mut world, prepared)
        })
    }

    fn named<T: Send + 'static>(
        &self,
        op: SimOp,
        apply: impl FnOnce(&mut World) -> io::Result<T> + Send + 'static,
    ) -> DiskFuture<io::Result<T>> {
        let prepare = move |world: &mut World| {
            world.start(op)?;
            Ok(Sync::default())
        };
        self.slowly(PAUSES_MAX, prepare, move |world, _| apply(world))
    }
}

/// Marks a write as answered when its future ends, in whichever way.
struct Answered<'a> {
    disk: &'a SimDisk,
    file: FileId,
    serial: u64,
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.disk.world().answered(self.file, self.serial);
    }
}

/// Lets other tasks run `times` times.
async fn pause(times: u64) {
    for _ in 0..times {
        let mut paused = false;
        poll_fn(|context| {
            if paused {
                return Poll::Ready(());
            }
            paused = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, mode: OpenMode) -> DiskFuture<io::Result<FileId>> {
        let name = name.to_owned();
        let op = match mode {
            OpenMode::Create { .. } => SimOp::Create,
            OpenMode::Existing => SimOp::Open,
        };
        self.named(op, move |world| {
            check_name(&name)?;
            if let OpenMode::Create { len } = mode {
                check_len(len)?;
                world.create(&name, len)?;
            }
            world.open(&name)
        })
    }

    fn read_at(
        &self,
        file: FileId,
        mut buf: Buf,
        offset: u64,
    ) -> DiskFuture<(Buf, io::Result<()>)> {
        let disk = self.clone();
        Box::pin(async move {
            let result = disk.world().read(file, &mut buf, offset);
            let (_, pauses) = disk.world().schedule(PAUSES_MAX);
            pause(pauses).await;
            disk.world().finished(Direction::Read, buf.len() as u64, &result);
            (buf, disk.answer(result))
        })
    }

    fn write_at(&self, file: FileId, buf: Buf, offset: u64) -> DiskFuture<(Buf, io::Result<()>)> {
        let disk = self.clone();
        Box::pin(async move {
            let admitted = disk.world().admit(Direction::Write, file, offset, buf.len());
            let mut transfer = match admitted {
                Ok(transfer) => transfer,
                Err(error) => {
                    let refused = Err(error);
                    disk.world().finished(Direction::Write, 0, &refused);
                    return (buf, refused);
                }
            };
            // Whatever reached the device is covered by a sync once the whole write is answered.
            let mut written = Vec::new();
            let result = loop {
                let (step, serial) = disk.world().write(file, &mut transfer, &buf);
                written.extend(serial.map(|serial| {
                    let disk = &disk;
                    Answered { disk, file, serial }
                }));
                let (_, pauses) = disk.world().schedule(PAUSES_MAX);
                pause(pauses).await;
                if let Step::Done(result) = step {
                    break result;
                }
            };
            drop(written);
            (buf, disk.answer(result))
        })
    }

    fn sync(&self, file: FileId) -> DiskFuture<io::Result<()>> {
        self.slowly(
            SYNC_PAUSES_MAX,
            move |world| world.start_sync(file),
            |world, sync| world.sync(&sync),
        )
    }

    fn close(&self, file: FileId) -> DiskFuture<()> {
        let disk = self.clone();
        Box::pin(async move { disk.world().close(file) })
    }

    fn list(&self, dir: &str) -> DiskFuture<io::Result<Vec<(String, u64)>>> {
        let dir = dir.to_owned();
        self.named(SimOp::List, move |world| {
            if !dir.is_empty() {
                check_name(&dir)?;
            }
            Ok(world.list(&dir))
        })
    }

    fn remove(&self, name: &str) -> DiskFuture<io::Result<()>> {
        let name = name.to_owned();
        self.named(SimOp::Remove, move |world| {
            check_name(&name)?;
            world.remove(&name)
        })
    }

    fn rename(&self, from: &str, to: &str) -> DiskFuture<io::Result<()>> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.named(SimOp::Rename, move |world| {
            check_name(&from)?;
            check_name(&to)?;
            world.rename(&from, &to)
        })
    }

    fn kind(&self) -> DiskKind {
        DiskKind::Sim
    }

    fn stats(&self) -> DiskStats {
        self.world().stats()
    }
}
