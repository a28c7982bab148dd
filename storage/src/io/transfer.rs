//! The arithmetic of one read or write, and what a disk counts.
//!
//! Owns: which requests are admitted, how a short one goes on, the counters.
//! Does not know: system calls. Pure, so that ring and threads cannot differ.
//!
//! Invariants
//! - A transfer is finished only when every byte was moved.
//! - It goes on from a block boundary: the bytes moved past one are moved again, which changes
//!   nothing, and O_DIRECT stays aligned.
//! - A step that gets no further ends the transfer, so none goes on for ever.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{BLOCK_BYTES, BLOCK_LEN, DiskStats};
use crate::bugs::{Bug, seeded};

#[cfg(test)]
mod tests;

/// How often in a row the kernel may ask for an operation to be issued again (EINTR, EAGAIN)
/// before its answer is taken for an error. Each costs a microsecond; a kernel that has no memory
/// for a request for this long is in trouble that the caller should hear of.
const REISSUES_MAX: u32 = 10_000;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// What follows after the kernel's answer.
#[derive(Debug)]
pub(super) enum Step {
    /// Issue it from [`Transfer::position`].
    Again,
    Done(io::Result<()>),
}

/// A read or write under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) direction: Direction,
    offset: u64,
    len: usize,
    moved: usize,
    reissues: u32,
}

impl Transfer {
    /// Admits a request for `len` bytes at `offset` of a file of `file_len` bytes.
    pub(super) fn admit(
        direction: Direction,
        offset: u64,
        len: usize,
        file_len: u64,
    ) -> io::Result<Self> {
        let bytes = len as u64;
        if !offset.is_multiple_of(BLOCK_BYTES) || !bytes.is_multiple_of(BLOCK_BYTES) {
            let text = format!("{bytes} bytes at {offset}: not in blocks of {BLOCK_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if offset.checked_add(bytes).is_none_or(|end| end > file_len) {
            let kind = match direction {
                Direction::Read => io::ErrorKind::UnexpectedEof,
                Direction::Write => io::ErrorKind::InvalidInput,
            };
            let text = format!("{bytes} bytes at {offset} of a file of {file_len}");
            return Err(io::Error::new(kind, text));
        }
        Ok(Self { direction, offset, len, moved: 0, reissues: 0 })
    }

    /// How far into the buffer the next step starts: the last block boundary reached.
    pub(super) fn position(&self) -> usize {
        self.moved - self.moved % BLOCK_LEN
    }

    /// Where in the file the next step starts.
    pub(super) fn file_offset(&self) -> u64 {
        self.offset + self.position() as u64
    }

    /// How many bytes the next step asks for.
    pub(super) fn remaining(&self) -> usize {
        self.len - self.position()
    }

    /// Takes in what the kernel said about the step just issued.
    pub(super) fn step(&mut self, answer: io::Result<usize>, counters: &Counters) -> Step {
        let step = self.next(answer, counters);
        if let Step::Done(result) = &step {
            counters.finished(self.direction, self.len as u64, result);
        }
        step
    }

    fn next(&mut self, answer: io::Result<usize>, counters: &Counters) -> Step {
        let count = match answer {
            Ok(count) => count,
            Err(error) if self.may_reissue(&error) => {
                self.reissues += 1;
                Counters::add(&counters.reissued, 1);
                return Step::Again;
            }
            Err(error) => return Step::Done(Err(error)),
        };
        self.reissues = 0;
        let reached = self.position() + count;
        if reached >= self.len || seeded(Bug::ShortWriteIsDone) {
            return Step::Done(Ok(()));
        }
        if reached <= self.moved {
            return Step::Done(Err(self.stalled()));
        }
        self.moved = reached;
        Counters::add(&counters.continued, 1);
        Step::Again
    }

    fn may_reissue(&self, error: &io::Error) -> bool {
        let asked = matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock);
        asked && self.reissues < REISSUES_MAX
    }

    fn stalled(&self) -> io::Error {
        let kind = match self.direction {
            Direction::Read => io::ErrorKind::UnexpectedEof,
            Direction::Write => io::ErrorKind::WriteZero,
        };
        io::Error::new(kind, format!("stopped after {} of {} bytes", self.moved, self.len))
    }
}

/// The live form of [`DiskStats`]. Each counter stands for itself, hence `Relaxed`.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) reads: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) continued: AtomicU64,
    pub(super) reissued: AtomicU64,
    pub(super) batches: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts a read or write of `bytes` bytes that was admitted.
    pub(super) fn finished(&self, direction: Direction, bytes: u64, result: &io::Result<()>) {
        let (count, moved) = match (direction, result) {
            (_, Err(_)) => return Self::add(&self.errors, 1),
            (Direction::Read, Ok(())) => (&self.reads, &self.read_bytes),
            (Direction::Write, Ok(())) => (&self.writes, &self.written_bytes),
        };
        Self::add(count, 1);
        Self::add(moved, bytes);
    }

    /// Counts a sync.
    pub(super) fn synced(&self, result: &io::Result<()>) {
        Self::add(if result.is_ok() { &self.syncs } else { &self.errors }, 1);
    }

    pub(super) fn snapshot(&self) -> DiskStats {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskStats {
            reads: now(&self.reads),
            read_bytes: now(&self.read_bytes),
            writes: now(&self.writes),
            written_bytes: now(&self.written_bytes),
            syncs: now(&self.syncs),
            errors: now(&self.errors),
            continued: now(&self.continued),
            reissued: now(&self.reissued),
            batches: now(&self.batches),
        }
    }
}

/// The error of everything asked of a disk that has stopped.
pub(super) fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the disk has stopped")
}
