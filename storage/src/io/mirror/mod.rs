//! A disk that keeps every byte on two others, its members.
//!
//! A write goes to all members and is answered when all have answered; a read comes from one and,
//! if that fails, from the other. A member that fails a write or a sync is left out, on record,
//! before anything that it misses is acknowledged; it comes back by [`MirrorDisk::replace`] only,
//! which fills an empty disk while the mirror is in use.
//! Owns: the order of operations on members. Who is in lies in `group.rs`, what a start makes of
//! the records in `verdict.rs`, filling in `rebuild.rs`. Does not know: what a byte means; who can
//! tell good from bad bytes reads single copies and has the bad one put right.
//!
//! Invariants
//! - What was answered with `Ok` is on every current member, and durable on every one after a sync.
//! - A member that is not current is never read.
//! - An operation runs in a task of its own: a caller that leaves never leaves the members apart.
//!   Records: docs/FORMAT.md, "Member". Use: docs/OPERATIONS.md, "Two copies".

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;

use super::files::{check_len, check_name, not_open};
use super::transfer::{Counters, Direction, stopped};
use super::{Buf, BufClass, BufPool, Disk, DiskFuture, DiskKind, DiskStats, FileId, OpenMode};
use crate::format::{SEATS, SeatState};

mod flight;
mod group;
mod names;
mod open;
mod rebuild;
mod slip;
mod table;
mod verdict;

#[cfg(test)]
mod tests;

pub use open::{MirrorMember, MirrorParts};
pub use rebuild::{RebuildState, RebuildStatus};

use flight::{Flight, Hold};
use group::Group;
use table::{Entry, Handle, Table};

/// Where the files of a volume lie; docs/FORMAT.md, "Directory", knows no others.
const DIRECTORIES: [&str; 2] = ["", "seg"];

/// Bytes that are read from one member before the other's turn: one extent. The same bytes come
/// from the same member every time, so that two reads of what was never acknowledged agree.
const STRIPE_BYTES: u64 = 4 << 20;

/// How a member stands, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberState {
    /// It has everything.
    Current,
    /// It is not read or written.
    Out,
    /// It is being filled.
    Rebuilding,
}

impl MemberState {
    /// The word used in metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Out => "out",
            Self::Rebuilding => "rebuilding",
        }
    }
}

/// A member, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberStatus {
    /// Its path.
    pub path: String,
    /// How it stands.
    pub state: MemberState,
    /// Why it is out.
    pub why: Option<String>,
}

/// How a mirror stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorStatus {
    /// Its members.
    pub members: Vec<MemberStatus>,
    /// Raised with every change of their states.
    pub generation: u64,
    /// The rebuild under way, or the last one.
    pub rebuild: Option<RebuildStatus>,
    /// Reads that one member refused and the other answered, since the start.
    pub fallback_reads: u64,
    /// Ranges put right from the other member, since the start.
    pub repairs: u64,
}

impl MirrorStatus {
    /// Whether some byte has one copy only.
    pub fn is_degraded(&self) -> bool {
        self.members.iter().any(|member| member.state != MemberState::Current)
    }
}

/// A disk over two others. Clones are the same disk.
#[derive(Clone)]
pub struct MirrorDisk(Arc<Shared>);

struct Shared {
    pool: BufPool,
    /// Buffers of the mirror's own: whoever waits for it may hold all others.
    own: BufPool,
    group: Group,
    table: Table,
    flight: Arc<Flight>,
    /// Held while a name comes or goes, and while a member is taken in.
    names: tokio::sync::Mutex<()>,
    /// Held while a handle is opened on a member that is being filled.
    attaching: tokio::sync::Mutex<()>,
    counters: Counters,
    tallies: Tallies,
    rebuild: Mutex<Option<RebuildStatus>>,
    rebuild_bytes_per_second: u64,
}

#[derive(Default)]
struct Tallies {
    fallback_reads: std::sync::atomic::AtomicU64,
    repairs: std::sync::atomic::AtomicU64,
}

/// One member's part in an operation.
struct Target {
    seat: usize,
    serial: u64,
    is_current: bool,
    handle: Arc<Handle>,
}

/// What one member answered.
struct Answer {
    seat: usize,
    serial: u64,
    is_current: bool,
    result: io::Result<()>,
}

impl Target {
    fn answer(&self, result: io::Result<()>) -> Answer {
        let Self { seat, serial, is_current, .. } = *self;
        Answer { seat, serial, is_current, result }
    }
}

impl MirrorDisk {
    /// How it stands.
    pub fn status(&self) -> MirrorStatus {
        let members = self.0.group.seats().map(|seat| MemberStatus {
            path: seat.label.to_string(),
            why: seat.why,
            state: match seat.state {
                SeatState::Current => MemberState::Current,
                SeatState::Out => MemberState::Out,
                SeatState::Rebuilding => MemberState::Rebuilding,
            },
        });
        let now = |counter: &std::sync::atomic::AtomicU64| {
            counter.load(std::sync::atomic::Ordering::Relaxed)
        };
        MirrorStatus {
            members: members.into(),
            generation: self.0.group.generation(),
            rebuild: self.0.rebuild.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            fallback_reads: now(&self.0.tallies.fallback_reads),
            repairs: now(&self.0.tallies.repairs),
        }
    }

    /// Why no more writes are taken, if so.
    pub fn broken(&self) -> Option<String> {
        self.0.group.broken()
    }

    fn run_with_buf(
        &self,
        operation: impl Future<Output = (Buf, io::Result<()>)> + Send + 'static,
    ) -> DiskFuture<(Buf, io::Result<()>)> {
        let pool = self.0.pool.clone();
        Box::pin(async move {
            let done = tokio::spawn(operation).await;
            done.unwrap_or_else(|_| (pool.lend_nothing(), Err(stopped())))
        })
    }
}

/// Runs an operation in a task of its own, from its first poll on.
fn run<T: Send + 'static>(
    operation: impl Future<Output = io::Result<T>> + Send + 'static,
) -> DiskFuture<io::Result<T>> {
    Box::pin(async move { tokio::spawn(operation).await.unwrap_or_else(|_| Err(stopped())) })
}

impl Shared {
    /// The members that are in, those being filled included.
    async fn targets(&self, entry: &Entry) -> Vec<Target> {
        self.targets_in(entry, |state| state != SeatState::Out).await
    }

    /// The members that may be read.
    async fn current(&self, entry: &Entry) -> Vec<Target> {
        self.targets_in(entry, |state| state == SeatState::Current).await
    }

    async fn targets_in(&self, entry: &Entry, is_in: fn(SeatState) -> bool) -> Vec<Target> {
        let mut targets = Vec::with_capacity(SEATS);
        for (seat, place) in self.group.seats().into_iter().enumerate() {
            if !is_in(place.state) {
                continue;
            }
            // One that became current since the file was opened may have no handle yet.
            let handle = self.handle_on(entry, seat, &place).await;
            let (serial, is_current) = (place.serial, place.state == SeatState::Current);
            targets.extend(handle.map(|handle| Target { seat, serial, is_current, handle }));
        }
        targets
    }

    /// Leaves a member out and lets go of its files.
    async fn fail(&self, seat: usize, serial: u64, why: &str) -> io::Result<()> {
        if self.group.fail(seat, serial, why).await? {
            self.table.forget(seat);
        }
        Ok(())
    }

    /// The answer to an operation that went to these members: good if one that is current did it
    /// and everybody who did not is out, on record.
    async fn conclude(&self, doing: &str, answers: Vec<Answer>) -> io::Result<()> {
        let is_good = |answer: &Answer| answer.is_current && answer.result.is_ok();
        let good = answers.iter().filter(|answer| is_good(answer)).count();
        let mut failed = answers.into_iter().filter(|answer| answer.result.is_err());
        if good == 0 {
            let first = failed.find(|answer| answer.is_current);
            return first.map_or_else(|| Err(no_member()), |answer| answer.result);
        }
        for answer in failed {
            let Err(error) = answer.result else { continue };
            self.fail(answer.seat, answer.serial, &format!("{doing}: {error}")).await?;
        }
        // Somebody is left out already; perhaps that is not on record yet.
        if good < SEATS { self.group.settled().await } else { Ok(()) }
    }

    async fn write(&self, id: FileId, buf: Buf, offset: u64) -> (Buf, io::Result<()>) {
        let Some(entry) = self.table.get(id) else {
            return (buf, Err(not_open(id)));
        };
        let len = buf.len() as u64;
        let range = offset..offset.saturating_add(len);
        let _claim = self.flight.enter(&entry.name, range, Hold::Shared).await;
        let targets = self.targets(&entry).await;
        let (buf, answers) = self.write_all(&targets, buf, offset).await;
        let doing = format!("write {} at {offset}", entry.name);
        let result = self.conclude(&doing, answers).await;
        self.counters.finished(Direction::Write, len, &result);
        (buf, result)
    }

    /// Writes to all members: at once if there is a buffer to spare for each, else one after the
    /// other. Never waits for a buffer: its owner may be whoever waits for this.
    async fn write_all(&self, targets: &[Target], mut buf: Buf, offset: u64) -> (Buf, Vec<Answer>) {
        let mut answers = Vec::with_capacity(targets.len());
        let mut copies = Vec::with_capacity(targets.len());
        let len = buf.len();
        let Some((first, others)) = targets.split_first() else {
            return (buf, answers);
        };
        for target in others {
            if let Some(copy) = self.copy_of(&buf) {
                copies.push((target, copy));
                continue;
            }
            let handle = &target.handle;
            let (back, result) = handle.disk.write_at(handle.file, buf, offset).await;
            answers.push(target.answer(result));
            buf = back;
            if buf.len() != len {
                // The bytes are lost with that disk: nobody else can be given them.
                return (buf, Vec::new());
            }
        }
        let write =
            |target: &Target, buf| target.handle.disk.write_at(target.handle.file, buf, offset);
        let beside = copies.into_iter().map(|(target, copy)| {
            let written = write(target, copy);
            async move { target.answer(written.await.1) }
        });
        let ((buf, result), beside) =
            futures::future::join(write(first, buf), join_all(beside)).await;
        answers.push(first.answer(result));
        answers.extend(beside);
        (buf, answers)
    }

    fn copy_of(&self, buf: &Buf) -> Option<Buf> {
        let mut copy = self.pool.try_acquire(BufClass::holding(buf.len())?)?;
        copy.extend_from_slice(buf);
        Some(copy)
    }

    async fn sync(&self, id: FileId) -> io::Result<()> {
        let entry = self.table.get(id).ok_or_else(|| not_open(id))?;
        let targets = self.targets(&entry).await;
        let syncs = targets.iter().map(|target| {
            let synced = target.handle.disk.sync(target.handle.file);
            async move { target.answer(synced.await) }
        });
        let answers = join_all(syncs).await;
        let result = self.conclude(&format!("sync {}", entry.name), answers).await;
        self.counters.synced(&result);
        result
    }

    async fn read(&self, id: FileId, mut buf: Buf, offset: u64) -> (Buf, io::Result<()>) {
        let Some(entry) = self.table.get(id) else {
            return (buf, Err(not_open(id)));
        };
        let len = buf.len() as u64;
        let mut targets = self.current(&entry).await;
        if (offset / STRIPE_BYTES) % SEATS as u64 == 1 {
            targets.reverse();
        }
        let mut result = Err(no_member());
        for (number, target) in targets.iter().enumerate() {
            let handle = &target.handle;
            (buf, result) = handle.disk.read_at(handle.file, buf, offset).await;
            match &result {
                Ok(()) if number > 0 => Counters::add(&self.tallies.fallback_reads, 1),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) => {
                    let file = &entry.name;
                    tracing::warn!(%file, offset, seat = target.seat, %error, "unreadable here");
                    if buf.capacity() == 0 {
                        break;
                    }
                    continue;
                }
            }
            break;
        }
        self.counters.finished(Direction::Read, len, &result);
        (buf, result)
    }

    async fn read_copy(
        &self,
        copy: usize,
        id: FileId,
        buf: Buf,
        offset: u64,
    ) -> (Buf, io::Result<()>) {
        let Some(entry) = self.table.get(id) else {
            return (buf, Err(not_open(id)));
        };
        let target = self.current(&entry).await.into_iter().find(|target| target.seat == copy);
        match target {
            Some(target) => {
                let handle = &target.handle;
                handle.disk.read_at(handle.file, buf, offset).await
            }
            None => (buf, Err(no_member())),
        }
    }

    /// Puts `proven` bytes of `good` right on the member `copy`, if the other still holds them.
    async fn repair(
        &self,
        copy: usize,
        id: FileId,
        good: Buf,
        offset: u64,
        proven: Range<usize>,
    ) -> io::Result<()> {
        let entry = self.table.get(id).ok_or_else(|| not_open(id))?;
        let range = offset..offset.saturating_add(good.len() as u64);
        let _claim = self.flight.enter(&entry.name, range, Hold::Alone).await;
        let mut targets = self.current(&entry).await;
        let bad = targets.iter().position(|target| target.seat == copy).ok_or_else(no_member)?;
        let bad = targets.swap_remove(bad);
        let source = targets.first().ok_or_else(no_member)?;
        let busy = || io::Error::new(io::ErrorKind::ResourceBusy, "no buffer is free for a repair");
        let mut there = BufClass::holding(good.len())
            .and_then(|class| self.pool.try_acquire(class))
            .ok_or_else(busy)?;
        // Written anew since it was read? Then there is nothing to put right.
        there.set_len(good.len());
        let (mut there, read) = source.handle.disk.read_at(source.handle.file, there, offset).await;
        read?;
        if there.get(proven.clone()) != good.get(proven.clone()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it was written meanwhile"));
        }
        // Around the proven bytes each member keeps what it has: they may belong to a neighbour
        // that is right there and wrong here.
        there.set_len(good.len());
        let (back, read) = bad.handle.disk.read_at(bad.handle.file, there, offset).await;
        there = back;
        if let (Ok(()), Some(to), Some(from)) =
            (read, there.get_mut(proven.clone()), good.get(proven))
        {
            to.copy_from_slice(from);
        } else {
            there.set_len(0);
            there.extend_from_slice(&good);
        }
        let (_, written) = bad.handle.disk.write_at(bad.handle.file, there, offset).await;
        let done = match written {
            Ok(()) => bad.handle.disk.sync(bad.handle.file).await,
            failed => failed,
        };
        if let Err(error) = done {
            let why = format!("repair {} at {offset}: {error}", entry.name);
            self.fail(bad.seat, bad.serial, &why).await?;
            return Err(error);
        }
        tracing::warn!(file = %entry.name, offset, seat = copy, "put right from the other member");
        Counters::add(&self.tallies.repairs, 1);
        Ok(())
    }
}

/// Nobody is left to ask.
fn no_member() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "no member of the mirror has this")
}

impl Disk for MirrorDisk {
    fn open(&self, name: &str, mode: OpenMode) -> DiskFuture<io::Result<FileId>> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        run(async move {
            check_name(&name)?;
            match mode {
                OpenMode::Create { len } => {
                    check_len(len)?;
                    shared.create(&name, len).await
                }
                OpenMode::Existing => shared.open_existing(&name).await,
            }
        })
    }

    fn read_at(&self, file: FileId, buf: Buf, offset: u64) -> DiskFuture<(Buf, io::Result<()>)> {
        let shared = Arc::clone(&self.0);
        self.run_with_buf(async move { shared.read(file, buf, offset).await })
    }

    fn write_at(&self, file: FileId, buf: Buf, offset: u64) -> DiskFuture<(Buf, io::Result<()>)> {
        let shared = Arc::clone(&self.0);
        self.run_with_buf(async move { shared.write(file, buf, offset).await })
    }

    fn sync(&self, file: FileId) -> DiskFuture<io::Result<()>> {
        let shared = Arc::clone(&self.0);
        run(async move { shared.sync(file).await })
    }

    fn close(&self, file: FileId) -> DiskFuture<()> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.table.remove(file) })
    }

    fn list(&self, dir: &str) -> DiskFuture<io::Result<Vec<(String, u64)>>> {
        let (shared, dir) = (Arc::clone(&self.0), dir.to_owned());
        run(async move { shared.list(&dir).await })
    }

    fn remove(&self, name: &str) -> DiskFuture<io::Result<()>> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        run(async move {
            check_name(&name)?;
            shared.remove(&name).await
        })
    }

    fn rename(&self, from: &str, to: &str) -> DiskFuture<io::Result<()>> {
        let (shared, from, to) = (Arc::clone(&self.0), from.to_owned(), to.to_owned());
        run(async move {
            check_name(&from)?;
            check_name(&to)?;
            shared.rename(&from, &to).await
        })
    }

    fn kind(&self) -> DiskKind {
        let seats = self.0.group.seats();
        let kinds = seats.iter().filter_map(|seat| seat.disk.as_ref().map(|disk| disk.kind()));
        kinds.min().unwrap_or(DiskKind::Threads)
    }

    fn stats(&self) -> DiskStats {
        self.0.counters.snapshot()
    }

    fn mirror(&self) -> Option<&MirrorDisk> {
        Some(self)
    }

    fn copies(&self) -> usize {
        SEATS
    }

    fn read_copy_at(
        &self,
        copy: usize,
        file: FileId,
        buf: Buf,
        offset: u64,
    ) -> DiskFuture<(Buf, io::Result<()>)> {
        let shared = Arc::clone(&self.0);
        self.run_with_buf(async move { shared.read_copy(copy, file, buf, offset).await })
    }

    fn repair_at(
        &self,
        copy: usize,
        file: FileId,
        good: Buf,
        offset: u64,
        proven: Range<usize>,
    ) -> DiskFuture<io::Result<()>> {
        let shared = Arc::clone(&self.0);
        run(async move { shared.repair(copy, file, good, offset, proven).await })
    }
}
