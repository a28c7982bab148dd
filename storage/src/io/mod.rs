//! Disks: whole files of fixed length, read and written in aligned blocks.
//!
//! One trait, [`Disk`], and its implementations: [`ring::RingDisk`] over io_uring,
//! [`threads::ThreadsDisk`] over a pool of threads, [`sim::SimDisk`] in memory with seeded
//! crashes and faults. [`open_disk`] picks one of the first two; [`MirrorDisk`] keeps two of them
//! alike.
//! Owns: file handles, buffers, queues in front of the device. Does not know: segments, extents,
//! keys, or what any byte means.
//!
//! Invariants
//! - A future does nothing before it is first polled; from then on the *operation* owns its
//!   buffer and goes on even if the future is dropped.
//! - A read or write that answers `Ok` moved every byte asked for. A short one is continued and an
//!   interrupted one issued again; neither is a retry. Nothing is ever retried after an error.
//! - A file has its full length from the moment its name exists, and keeps it. A write past the
//!   end is refused.
//! - `sync` covers the writes that were answered before it was first polled, and no others.
//! - All backends pass the same suite (`contract.rs`).
//!
//! Why a ring, and why this one: docs/ARCHITECTURE.md, "I/O".

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;

pub mod buf;
mod files;
mod mirror;
mod open;
pub mod ring;
pub mod sim;
pub mod threads;
mod transfer;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;

pub use buf::{Buf, BufClass, BufPool, BufStats, PIECE_BYTES, SLAB_BYTES};
pub use mirror::{
    MemberState, MemberStatus, MirrorDisk, MirrorMember, MirrorParts, MirrorStatus, RebuildState,
    RebuildStatus,
};
pub use open::open_disk;

/// Offsets, lengths and buffers are multiples of this. The devices we know accept 512 or 4,096
/// bytes for O_DIRECT; a file system that wants more is used through the page cache.
pub const BLOCK_BYTES: u64 = 4096;

/// [`BLOCK_BYTES`] as the length of a buffer.
pub(crate) const BLOCK_LEN: usize = 4096;

/// What a [`Disk`] answers with, later.
pub type DiskFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An open file of one disk. Never reused, so that a stale one is refused rather than mistaken.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct FileId(u32);

/// What to do about a name.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum OpenMode {
    /// Make a file of `len` zero bytes, all of them reserved on the device, and its directory.
    /// Appears under its name at once with its full length and durably, or not at all.
    /// `AlreadyExists` if the name is taken.
    Create {
        /// A positive multiple of [`BLOCK_BYTES`].
        len: u64,
    },
    /// `NotFound` if there is none.
    Existing,
}

/// How a disk does its work.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub enum DiskKind {
    /// io_uring on a thread of its own.
    Ring,
    /// In memory, from a seed.
    Sim,
    /// pread(2) and pwrite(2) on a pool of threads.
    Threads,
}

impl DiskKind {
    /// The word used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Sim => "sim",
            Self::Threads => "threads",
        }
    }
}

/// Counters since the disk was opened.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct DiskStats {
    /// Operations finished by reading everything asked for.
    pub reads: u64,
    /// Bytes they read.
    pub read_bytes: u64,
    /// Operations finished by writing everything asked for.
    pub writes: u64,
    /// Bytes they wrote.
    pub written_bytes: u64,
    /// Successful syncs.
    pub syncs: u64,
    /// Reads, writes and syncs that answered with an error.
    pub errors: u64,
    /// Times an operation moved a part and was continued with the rest.
    pub continued: u64,
    /// Times the kernel asked to issue an operation again (EINTR, EAGAIN).
    pub reissued: u64,
    /// Times the backend went to the kernel with a batch; zero where there are no batches.
    pub batches: u64,
}

/// A volume's files.
///
/// Names are relative, with `/` between parts of `[A-Za-z0-9._-]`; a part does not start with a
/// dot. Anything else is refused with `InvalidInput`. An operation on a disk that has stopped
/// answers with an error, and with a buffer of capacity zero if its own was lost.
pub trait Disk: Send + Sync + 'static {
    /// Opens or makes a file.
    fn open(&self, name: &str, mode: OpenMode) -> DiskFuture<io::Result<FileId>>;

    /// Fills the `buf.len()` bytes of `buf` from `offset`; `UnexpectedEof` if the file ends
    /// before. Both are multiples of [`BLOCK_BYTES`]. After an error the content is undefined.
    fn read_at(&self, file: FileId, buf: Buf, offset: u64) -> DiskFuture<(Buf, io::Result<()>)>;

    /// Writes the `buf.len()` bytes of `buf` at `offset`, inside the file; both are multiples of
    /// [`BLOCK_BYTES`]. They are durable after a later [`Disk::sync`]. After an error any of
    /// the bytes may or may not have been written.
    fn write_at(&self, file: FileId, buf: Buf, offset: u64) -> DiskFuture<(Buf, io::Result<()>)>;

    /// Makes every write to `file` that was answered before durable: fdatasync(2). After an error
    /// none of them may be relied on, and asking again proves nothing.
    fn sync(&self, file: FileId) -> DiskFuture<io::Result<()>>;

    /// Forgets the handle. Operations under way go on to their end; an unknown handle is ignored.
    fn close(&self, file: FileId) -> DiskFuture<()>;

    /// The files directly in `dir` with their lengths, sorted by name; none if there is no such
    /// directory. An empty `dir` is the volume itself. What is listed keeps its name from then on,
    /// durably.
    fn list(&self, dir: &str) -> DiskFuture<io::Result<Vec<(String, u64)>>>;

    /// Removes a name, durably. Open handles keep working.
    fn remove(&self, name: &str) -> DiskFuture<io::Result<()>>;

    /// Gives a file another name, durably and at once; a file of that name is replaced.
    fn rename(&self, from: &str, to: &str) -> DiskFuture<io::Result<()>>;

    /// How many copies of every byte this disk was made to keep. They are numbered from 0.
    fn copies(&self) -> usize {
        1
    }

    /// As [`Disk::read_at`], from the copy of this number and no other; `NotConnected` if it is not
    /// in use.
    fn read_copy_at(
        &self,
        copy: usize,
        file: FileId,
        buf: Buf,
        offset: u64,
    ) -> DiskFuture<(Buf, io::Result<()>)> {
        if copy == 0 {
            return self.read_at(file, buf, offset);
        }
        Box::pin(async move { (buf, Err(io::ErrorKind::NotConnected.into())) })
    }

    /// Puts the bytes `proven` of `good` right on the copy of this number, durably: `good` was read
    /// at `offset` from another copy, and the caller knows that these bytes of it are what was
    /// written. The rest of the blocks stays as that copy has it, if it can be read. `InvalidData`
    /// if the range was written anew meanwhile.
    fn repair_at(
        &self,
        _copy: usize,
        _file: FileId,
        _good: Buf,
        _offset: u64,
        _proven: Range<usize>,
    ) -> DiskFuture<io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    /// The mirror, if this is one.
    fn mirror(&self) -> Option<&MirrorDisk> {
        None
    }

    /// Which implementation this is.
    fn kind(&self) -> DiskKind;

    /// What it did so far.
    fn stats(&self) -> DiskStats;
}

/// Which implementation [`open_disk`] should use.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub enum Backend {
    /// A ring if the kernel allows one, else threads.
    #[default]
    Auto,
    /// A ring, or an error.
    Ring,
    /// Threads. The hardened choice: no io_uring system call is made.
    Threads,
}

/// How a volume is reached.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct IoConfig {
    /// Which implementation.
    pub backend: Backend,
    /// Ask for O_DIRECT. Off is for measurements and tests.
    pub direct: bool,
    /// Refuse to run through the page cache.
    pub require_direct: bool,
    /// Keep other processes out of the directory by a lock on its file `LOCK`, for as long as the
    /// disk is open. The data directory has a lock of its own.
    pub lock: bool,
    /// Threads of [`threads::ThreadsDisk`] for reads and writes.
    pub threads: usize,
    /// Threads for fdatasync(2), in any backend.
    pub sync_threads: usize,
}

impl Default for IoConfig {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            direct: true,
            require_direct: false,
            lock: false,
            threads: threads::THREADS_DEFAULT,
            sync_threads: threads::SYNC_THREADS_DEFAULT,
        }
    }
}

/// What [`open_disk`] found, for the log line and `/metrics` at start.
#[derive(Clone, Debug)]
pub struct DiskReport {
    /// The implementation in use.
    pub kind: DiskKind,
    /// Why it is not a ring although one was welcome.
    pub no_ring: Option<String>,
    /// Whether the page cache is bypassed.
    pub direct: bool,
    /// Why not, if it was asked for.
    pub no_direct: Option<String>,
    /// What the ring could set up; `None` with another backend.
    pub ring: Option<ring::RingReport>,
}
