//! The disk over io_uring: one ring on a thread of its own, fed by a bounded channel.
//!
//! The thread takes everything that queued, issues it with one io_uring_enter(2) and sleeps in
//! the same call until something completes. A standing read on an eventfd is how senders wake it,
//! and they write there only if it sleeps. fdatasync(2) and names go to threads.
//! Owns: the ring, what is in flight, the kernel's tables of buffers and files.
//! Does not know: what the bytes mean.
//!
//! Invariants
//! - An operation owns its buffer and its file from before the kernel hears of it until its
//!   completion arrives; a dropped future drops a receiver and nothing else. Should the thread
//!   fail, what is in flight is leaked rather than freed under the kernel's hands.
//! - In flight are at most [`ENTRIES`] requests, so neither queue of the ring can overflow.
//! - The ring may only read and write, and only files that are in its table, wherever the kernel
//!   can be told so. It issues no links and no flushes: order comes from awaiting.
//! - Dropping the disk waits for what is in flight and answers the rest with an error.
//!
//! Reasons for this shape: docs/ARCHITECTURE.md, "I/O".
#![expect(
    unsafe_code,
    reason = "the kernel reads and writes memory that it was given as addresses"
)]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::files::{Files, OpenFile};
use super::threads::{FileWork, QUEUE_MAX};
use super::transfer::{Counters, Direction, Step, Transfer, stopped};
use super::{Buf, BufPool, Disk, DiskFuture, DiskKind, DiskStats, FileId, IoConfig, OpenMode};

mod bell;
mod in_flight;
mod setup;

#[cfg(test)]
mod tests;

use bell::Bell;
use in_flight::{InFlight, Op};

/// Entries of the submission queue, and the most requests in flight: what an NVMe queue takes,
/// and with buffers of 1 MiB already four times the default pool. The completion queue has twice
/// as many.
const ENTRIES: u32 = 256;

/// Reads and writes in flight: all entries but the one of the standing read.
const OPS_MAX: usize = ENTRIES as usize - 1;

/// Marks the completion of the standing read; operations are numbered from zero.
const DOORBELL: u64 = u64::MAX;

/// How often in a row io_uring_enter(2) may say that it has no room at the moment.
const ENTER_REFUSALS_MAX: u32 = 10_000;

/// The longest stretch that can be registered as one buffer (linux: io_uring/rsrc.c). Slabs never
/// straddle two of them.
const REGION_BYTES: usize = 1 << 30;

/// What the kernel allowed the ring to set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingReport {
    /// The best set of flags it took: "defer_taskrun", "coop_taskrun" or "plain".
    pub setup: &'static str,
    /// Whether buffers are registered, which saves pinning them for each operation.
    pub registered_buffers: bool,
    /// Why they are not although the pool asked for it.
    pub unregistered: Option<String>,
    /// Whether files are registered.
    pub registered_files: bool,
    /// Whether the ring refuses everything but reads and writes.
    pub restricted: bool,
}

/// What the ring thread is sent.
enum Message {
    /// A handle was closed; the kernel's table should forget the file.
    Close(Arc<OpenFile>),
    Transfer(Op),
}

/// A disk whose reads and writes go through a ring.
pub struct RingDisk {
    work: FileWork,
    sender: mpsc::Sender<Message>,
    bell: Arc<Bell>,
    pool: BufPool,
    thread: Option<JoinHandle<()>>,
}

impl RingDisk {
    pub(super) fn start(
        files: Arc<Files>,
        config: &IoConfig,
        pool: &BufPool,
    ) -> io::Result<(Self, RingReport)> {
        let work = FileWork::start(files, config)?;
        let bell = Arc::new(Bell::new()?);
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let slots = work.files.slot_count();
        let parts = (Arc::clone(&bell), Arc::clone(&work.counters), pool.clone());
        // The ring is made on its thread: SINGLE_ISSUER ties it to the one that enables it.
        let thread = thread::Builder::new().name("kluis-ring".to_owned()).spawn(move || {
            let (bell, counters, pool) = parts;
            match Driver::set_up(receiver, bell, counters, pool, slots) {
                Ok((driver, report)) => {
                    let _ = tell.send(Ok(report));
                    driver.run();
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        let report = told.recv().map_err(io::Error::other)??;
        let pool = pool.clone();
        Ok((Self { work, sender, bell, pool, thread: Some(thread) }, report))
    }

    fn transfer(
        &self,
        direction: Direction,
        id: FileId,
        buf: Buf,
        offset: u64,
    ) -> DiskFuture<(Buf, io::Result<()>)> {
        let (sender, bell) = (self.sender.clone(), Arc::clone(&self.bell));
        let (files, pool) = (Arc::clone(&self.work.files), self.pool.clone());
        Box::pin(async move {
            let admitted = files.file(id).and_then(|file| {
                let transfer = Transfer::admit(direction, offset, buf.len(), file.len)?;
                Ok((file, transfer))
            });
            let (file, transfer) = match admitted {
                Ok(admitted) => admitted,
                Err(error) => return (buf, Err(error)),
            };
            let (reply, answer) = oneshot::channel();
            let op = Op { transfer, file, buf, reply };
            match sender.send(Message::Transfer(op)).await {
                Err(mpsc::error::SendError(Message::Transfer(op))) => {
                    return (op.buf, Err(stopped()));
                }
                // Nothing is awaited between sending and ringing: what is sent is heard.
                sent => drop(sent.map(|()| bell.wake())),
            }
            // What is sent to a thread that has ended is dropped with the last sender.
            drop(sender);
            answer.await.unwrap_or_else(|_| (pool.lend_nothing(), Err(stopped())))
        })
    }
}

impl Drop for RingDisk {
    fn drop(&mut self) {
        self.bell.stop();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on stderr.
            drop(thread.join());
        }
    }
}

impl Disk for RingDisk {
    fn open(&self, name: &str, mode: OpenMode) -> DiskFuture<io::Result<FileId>> {
        self.work.open(name, mode)
    }

    fn read_at(&self, file: FileId, buf: Buf, offset: u64) -> DiskFuture<(Buf, io::Result<()>)> {
        self.transfer(Direction::Read, file, buf, offset)
    }

    fn write_at(&self, file: FileId, buf: Buf, offset: u64) -> DiskFuture<(Buf, io::Result<()>)> {
        self.transfer(Direction::Write, file, buf, offset)
    }

    fn sync(&self, file: FileId) -> DiskFuture<io::Result<()>> {
        self.work.sync(file)
    }

    fn close(&self, file: FileId) -> DiskFuture<()> {
        let (sender, bell) = (self.sender.clone(), Arc::clone(&self.bell));
        let files = Arc::clone(&self.work.files);
        Box::pin(async move {
            // The place in the channel comes first: dropped while it waits, nothing has happened.
            let Ok(place) = sender.reserve().await else {
                return;
            };
            if let Some(file) = files.close(file) {
                place.send(Message::Close(file));
                bell.wake();
            }
        })
    }

    fn list(&self, dir: &str) -> DiskFuture<io::Result<Vec<(String, u64)>>> {
        self.work.list(dir)
    }

    fn remove(&self, name: &str) -> DiskFuture<io::Result<()>> {
        self.work.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> DiskFuture<io::Result<()>> {
        self.work.rename(from, to)
    }

    fn kind(&self) -> DiskKind {
        DiskKind::Ring
    }

    fn stats(&self) -> DiskStats {
        self.work.counters.snapshot()
    }
}

/// What the kernel's table holds in one place, and how many operations in flight rely on it.
#[derive(Clone, Copy, Default)]
struct Slot {
    id: Option<FileId>,
    users: u32,
}

/// How a request names its file.
#[derive(Clone, Copy)]
enum Target {
    Fixed(u32),
    Raw(RawFd),
}

/// Builds a request for whichever kind of target.
macro_rules! for_target {
    ($target:expr, |$fd:ident| $build:expr) => {
        match $target {
            Target::Fixed(slot) => {
                let $fd = types::Fixed(slot);
                $build
            }
            Target::Raw(fd) => {
                let $fd = types::Fd(fd);
                $build
            }
        }
    };
}

/// The ring and its thread's state.
struct Driver {
    ring: IoUring,
    in_flight: InFlight,
    /// Places to issue, for the first time or again; each at most once.
    ready: VecDeque<usize>,
    completed: Vec<(u64, i32)>,
    receiver: mpsc::Receiver<Message>,
    bell: Arc<Bell>,
    bell_target: Target,
    stopping: bool,
    /// The kernel's table of files as we know it; empty if there is none.
    slots: Vec<Slot>,
    /// The pool whose arena is registered, if it is.
    registered: Option<BufPool>,
    counters: Arc<Counters>,
    refusals: u32,
}

impl Driver {
    fn set_up(
        receiver: mpsc::Receiver<Message>,
        bell: Arc<Bell>,
        counters: Arc<Counters>,
        pool: BufPool,
        slots: u32,
    ) -> io::Result<(Self, RingReport)> {
        let (ring, setup) = setup::build()?;
        setup::check_opcodes(&ring)?;
        let registration = pool.wants_registration().then(|| register_arena(&ring, &pool));
        let registered_buffers = matches!(registration, Some(Ok(())));
        let unregistered = registration.and_then(Result::err).map(|error| error.to_string());
        let event = bell.descriptor();
        // One more than there are files, for the eventfd.
        let registered_files = ring.submitter().register_files_sparse(slots + 1).is_ok();
        let bell_target = if registered_files {
            ring.submitter().register_files_update(slots, &[event])?;
            Target::Fixed(slots)
        } else {
            Target::Raw(event)
        };
        let restricted = setup::restrict(&ring, registered_files).is_ok();
        ring.submitter().register_enable_rings()?;
        let report =
            RingReport { setup, registered_buffers, unregistered, registered_files, restricted };
        let slots = if registered_files { slots as usize } else { 0 };
        let driver = Self {
            ring,
            in_flight: InFlight::new(),
            ready: VecDeque::with_capacity(OPS_MAX),
            completed: Vec::with_capacity(ENTRIES as usize),
            receiver,
            bell,
            bell_target,
            stopping: false,
            slots: vec![Slot::default(); slots],
            registered: registered_buffers.then_some(pool),
            counters,
            refusals: 0,
        };
        Ok((driver, report))
    }

    fn run(mut self) {
        if let Err(error) = self.turn_until_stopped() {
            tracing::error!(%error, "the ring failed; its volume answers nothing more");
        }
    }

    fn turn_until_stopped(&mut self) -> io::Result<()> {
        loop {
            self.take_messages();
            if self.stopping && self.in_flight.is_empty() {
                return Ok(());
            }
            self.issue_ready()?;
            self.arm_doorbell()?;
            self.enter()?;
            self.bell.get_up();
            self.reap()?;
        }
    }

    /// Takes what queued, as far as there is room. Afterwards the next message rings the bell,
    /// unless there is no room for it.
    fn take_messages(&mut self) {
        loop {
            if self.bell.is_stopped() {
                self.stop_taking();
            }
            if self.stopping || !self.in_flight.has_room() {
                return;
            }
            let message = match self.receiver.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.bell.lie_down();
                    self.receiver.try_recv()
                }
                message => message,
            };
            match message {
                Ok(message) => {
                    self.bell.get_up();
                    self.take(message);
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.stopping = true,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Close(file) => self.forget_if_unused(&file),
            Message::Transfer(op) => {
                if let Some(slot) = self.slots.get_mut(op.file.slot as usize) {
                    slot.users += 1;
                }
                let index = self.in_flight.insert(op);
                self.ready.push_back(index);
            }
        }
    }

    fn stop_taking(&mut self) {
        if mem::replace(&mut self.stopping, true) {
            return;
        }
        self.receiver.close();
        // A sender may still hold a place and use it later; it is not waited for, since it may need
        // this very thread's caller to run. Its message is dropped with the channel.
        while let Ok(message) = self.receiver.try_recv() {
            if let Message::Transfer(op) = message {
                drop(op.reply.send((op.buf, Err(stopped()))));
            }
        }
    }

    fn issue_ready(&mut self) -> io::Result<()> {
        while let Some(index) = self.ready.pop_front() {
            match self.entry(index) {
                Ok(entry) => self.push(&entry)?,
                Err(error) => self.advance(index, Err(error)),
            }
        }
        Ok(())
    }

    /// The request for the rest of an operation.
    fn entry(&mut self, index: usize) -> io::Result<Entry> {
        let target = self.target(index)?;
        let op = self.in_flight.op_mut(index);
        let position = op.transfer.position();
        let start = op.buf.start().as_ptr().wrapping_add(position);
        let len = u32::try_from(op.transfer.remaining()).map_err(io::Error::other)?;
        let offset = op.transfer.file_offset();
        let region = self.registered.as_ref().and_then(|pool| pool.offset_of(&op.buf));
        let region = region.and_then(|offset| u16::try_from(offset / REGION_BYTES).ok());
        let entry = match (op.transfer.direction, region) {
            (Direction::Read, Some(region)) => for_target!(target, |fd| {
                opcode::ReadFixed::new(fd, start, len, region).offset(offset).build()
            }),
            (Direction::Read, None) => for_target!(target, |fd| {
                opcode::Read::new(fd, start, len).offset(offset).build()
            }),
            (Direction::Write, Some(region)) => for_target!(target, |fd| {
                opcode::WriteFixed::new(fd, start, len, region).offset(offset).build()
            }),
            (Direction::Write, None) => for_target!(target, |fd| {
                opcode::Write::new(fd, start, len).offset(offset).build()
            }),
        };
        Ok(entry.user_data(index as u64))
    }

    /// How to name the operation's file, which enters the kernel's table when first used.
    fn target(&mut self, index: usize) -> io::Result<Target> {
        let file = &self.in_flight.op_mut(index).file;
        let descriptor = file.file.as_raw_fd();
        let Some(slot) = self.slots.get_mut(file.slot as usize) else {
            return Ok(Target::Raw(descriptor));
        };
        if slot.id != Some(file.id) {
            self.ring.submitter().register_files_update(file.slot, &[descriptor])?;
            slot.id = Some(file.id);
        }
        Ok(Target::Fixed(file.slot))
    }

    fn arm_doorbell(&mut self) -> io::Result<()> {
        if self.in_flight.armed || self.stopping {
            return Ok(());
        }
        let word = self.in_flight.doorbell.as_mut_ptr();
        let read = for_target!(self.bell_target, |fd| opcode::Read::new(fd, word, 8).build());
        self.push(&read.user_data(DOORBELL))?;
        self.in_flight.armed = true;
        Ok(())
    }

    fn push(&mut self, entry: &Entry) -> io::Result<()> {
        let mut queue = self.ring.submission();
        // SAFETY: the memory belongs to `in_flight`, which keeps an operation, with its buffer
        // and its file, until its completion arrives, keeps the doorbell's word as long, and
        // leaks both if this thread ends before. Nobody else touches them meanwhile.
        let pushed = unsafe { queue.push(entry) };
        pushed.map_err(|_| io::Error::other("more requests than the ring has entries"))
    }

    /// Submits what was pushed and waits for a completion. One is bound to come: the doorbell is
    /// armed, or operations are in flight.
    fn enter(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(submitted) => {
                self.refusals = 0;
                Counters::add(&self.counters.batches, u64::from(submitted > 0));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            // EAGAIN or EBUSY: the kernel is short of memory for requests; what was pushed stays.
            Err(error) if is_shortage(&error) && self.refusals < ENTER_REFUSALS_MAX => {
                self.refusals += 1;
                thread::yield_now();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        let mut completed = mem::take(&mut self.completed);
        let seen = self.ring.completion().map(|entry| (entry.user_data(), entry.result()));
        completed.extend(seen);
        for (user_data, result) in completed.drain(..) {
            let answer = to_answer(result);
            if user_data == DOORBELL {
                self.in_flight.armed = false;
                match answer {
                    Err(error) if !is_shortage(&error) => return Err(error),
                    _ => continue,
                }
            }
            let index = usize::try_from(user_data).map_err(io::Error::other)?;
            self.advance(index, answer);
        }
        self.completed = completed;
        Ok(())
    }

    /// Takes in an answer: the operation goes on, or its future gets the result.
    fn advance(&mut self, index: usize, answer: io::Result<usize>) {
        match self.in_flight.op_mut(index).transfer.step(answer, &self.counters) {
            Step::Again => self.ready.push_back(index),
            Step::Done(result) => {
                let op = self.in_flight.take(index);
                if let Some(slot) = self.slots.get_mut(op.file.slot as usize) {
                    slot.users -= 1;
                }
                if op.file.is_closed() {
                    self.forget_if_unused(&op.file);
                }
                // Whoever asked may have left; then the buffer returns to its pool here.
                drop(op.reply.send((op.buf, result)));
            }
        }
    }

    /// Takes a closed file out of the kernel's table, which would keep it open.
    fn forget_if_unused(&mut self, file: &OpenFile) {
        let Some(slot) = self.slots.get_mut(file.slot as usize) else {
            return;
        };
        if slot.users == 0 && slot.id == Some(file.id) {
            slot.id = None;
            if let Err(error) = self.ring.submitter().register_files_update(file.slot, &[-1]) {
                // The entry is replaced when the slot is next used.
                tracing::warn!(%error, slot = file.slot, "a closed file stays in the ring's table");
            }
        }
    }
}

/// As the kernel lays it out: `struct iovec`.
#[repr(C)]
struct IoVec {
    start: *mut u8,
    len: usize,
}

/// Registers the pool's arena in stretches of [`REGION_BYTES`].
fn register_arena(ring: &IoUring, pool: &BufPool) -> io::Result<()> {
    let (start, len) = pool.arena();
    let regions: Vec<_> = (0..len)
        .step_by(REGION_BYTES)
        .map(|offset| IoVec {
            start: start.as_ptr().wrapping_add(offset),
            len: REGION_BYTES.min(len - offset),
        })
        .collect();
    // SAFETY: `IoVec` has the fields of the crate's `iovec` in the same order and layout, and the
    // slice is only read, while `regions` lives.
    let iovecs = unsafe { std::slice::from_raw_parts(regions.as_ptr().cast(), regions.len()) };
    // SAFETY: the stretches lie in the arena, which stays mapped: the driver holds its pool, and
    // the kernel holds the pages themselves until the ring is gone.
    unsafe { ring.submitter().register_buffers(iovecs) }
}

fn to_answer(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// EINTR, EAGAIN and EBUSY: it did not happen, and asking again may work.
fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, ResourceBusy, WouldBlock};
    matches!(error.kind(), Interrupted | ResourceBusy | WouldBlock)
}
