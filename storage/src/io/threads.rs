//! The disk without io_uring: pread(2) and pwrite(2) on a pool of threads.
//!
//! The fallback where the kernel allows no ring, the hardened choice, and the baseline of every
//! benchmark. Its pools also do what no ring does better, for any backend: fdatasync(2), which
//! io_uring hands to a kernel thread each time, and changes of names.
//! Owns: worker threads and the bounded queues in front of them. Does not know: rings.
//!
//! Invariants
//! - A job owns its buffer and its file until it is done, whether or not anybody still waits.
//! - A pool runs or holds [`QUEUE_MAX`] jobs at most; whoever comes next waits in order.
//! - A job that panics stops its pool: everything asked of it later answers with an error.
//! - Dropping a pool waits for the jobs that run and answers the others with an error.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::{Semaphore, oneshot};

use super::files::{Files, OpenFile};
use super::transfer::{Counters, Direction, Step, Transfer, stopped};
use super::{Buf, BufPool, Disk, DiskFuture, DiskKind, DiskStats, FileId, IoConfig, OpenMode};

#[cfg(test)]
mod tests;

/// Threads for reads and writes: the depth at which an NVMe disk or a cloud volume is near its
/// rate, while the stacks still cost little.
pub const THREADS_DEFAULT: usize = 16;

/// Threads for fdatasync(2): one per lane that takes client writes (objects and parts), so that
/// neither waits for the other's flush.
pub const SYNC_THREADS_DEFAULT: usize = 2;

/// The most threads of one pool; beyond this they only wait for each other.
const THREADS_MAX: usize = 256;

/// Names change rarely (a segment, a superblock) and must not change concurrently.
const NAME_THREADS: usize = 1;

/// Jobs in a pool at once. Buffers bound the reads and writes before this does; it keeps a storm
/// of other operations from taking memory.
pub(super) const QUEUE_MAX: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs, and the only owner of them.
pub(super) struct Workers {
    queue: Queue,
    threads: Vec<JoinHandle<()>>,
}

/// The way to a pool of workers, for futures that may outlive it.
#[derive(Clone)]
pub(super) struct Queue(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    stopped: bool,
}

impl Workers {
    pub(super) fn start(name: &str, threads: usize) -> io::Result<Self> {
        let queue = Queue(Arc::new(Shared {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            room: Arc::new(Semaphore::new(QUEUE_MAX)),
        }));
        let mut workers = Self { queue, threads: Vec::new() };
        for number in 0..threads.clamp(1, THREADS_MAX) {
            let queue = workers.queue.clone();
            let builder = thread::Builder::new().name(format!("{name}-{number}"));
            // A failure here drops the workers started so far, which stops them.
            workers.threads.push(builder.spawn(move || queue.work())?);
        }
        Ok(workers)
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.stop();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so on stderr and stopped the pool.
            drop(thread.join());
        }
    }
}

impl Queue {
    /// Runs `job` on a worker; none if the pool has stopped, in which case the job is dropped.
    pub(super) async fn run<T, F>(&self, job: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = Arc::clone(&self.0.room).acquire_owned().await.ok()?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move || {
            let result = job();
            drop(permit);
            // Whoever asked may have left; the result goes the way of all values.
            drop(reply.send(result));
        });
        self.push(job);
        answer.await.ok()
    }

    fn push(&self, job: Job) {
        let mut waiting = self.lock();
        if !waiting.stopped {
            waiting.jobs.push_back(job);
            drop(waiting);
            self.0.filled.notify_one();
        }
    }

    fn work(&self) {
        let _watch = StopOnPanic(self);
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if waiting.stopped {
                return None;
            }
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            waiting = self.0.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        self.0.room.close();
        let mut waiting = self.lock();
        waiting.stopped = true;
        let jobs = std::mem::take(&mut waiting.jobs);
        drop(waiting);
        self.0.filled.notify_all();
        // Outside the lock: dropping a job wakes the task that waits for it.
        drop(jobs);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct StopOnPanic<'a>(&'a Queue);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

/// Opening, naming and flushing files, on threads: shared by the backends on a real file system.
pub(super) struct FileWork {
    pub(super) files: Arc<Files>,
    pub(super) counters: Arc<Counters>,
    names: Workers,
    flushes: Workers,
}

impl FileWork {
    pub(super) fn start(files: Arc<Files>, config: &IoConfig) -> io::Result<Self> {
        Ok(Self {
            files,
            counters: Arc::default(),
            names: Workers::start("kluis-names", NAME_THREADS)?,
            flushes: Workers::start("kluis-sync", config.sync_threads)?,
        })
    }

    pub(super) fn open(&self, name: &str, mode: OpenMode) -> DiskFuture<io::Result<FileId>> {
        let name = name.to_owned();
        let opening = self.on_names(move |files| {
            let id = files.open(&name, mode)?;
            Ok(Opened { files: Arc::clone(files), id: Some(id) })
        });
        Box::pin(async move { opening.await.map(Opened::keep) })
    }

    pub(super) fn list(&self, dir: &str) -> DiskFuture<io::Result<Vec<(String, u64)>>> {
        let dir = dir.to_owned();
        self.on_names(move |files| files.list(&dir))
    }

    pub(super) fn remove(&self, name: &str) -> DiskFuture<io::Result<()>> {
        let name = name.to_owned();
        self.on_names(move |files| files.remove(&name))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> DiskFuture<io::Result<()>> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.on_names(move |files| files.rename(&from, &to))
    }

    pub(super) fn sync(&self, id: FileId) -> DiskFuture<io::Result<()>> {
        let queue = self.flushes.queue();
        let (files, counters) = (Arc::clone(&self.files), Arc::clone(&self.counters));
        Box::pin(async move {
            let file = files.file(id)?;
            let flush = move || {
                let result = files.sync(&file);
                counters.synced(&result);
                result
            };
            queue.run(flush).await.unwrap_or_else(|| Err(stopped()))
        })
    }

    fn on_names<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Arc<Files>) -> io::Result<T> + Send + 'static,
    ) -> DiskFuture<io::Result<T>> {
        let (queue, files) = (self.names.queue(), Arc::clone(&self.files));
        Box::pin(
            async move { queue.run(move || job(&files)).await.unwrap_or_else(|| Err(stopped())) },
        )
    }
}

/// A file that is closed again if nobody is left to take its id.
struct Opened {
    files: Arc<Files>,
    id: Option<FileId>,
}

impl Opened {
    fn keep(mut self) -> FileId {
        self.id.take().expect("the id is taken only here, and `self` with it")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            drop(self.files.close(id));
        }
    }
}

/// A disk whose reads and writes are system calls on worker threads.
pub struct ThreadsDisk {
    work: FileWork,
    movers: Workers,
    pool: BufPool,
}

impl ThreadsDisk {
    pub(super) fn start(files: Arc<Files>, config: &IoConfig, pool: &BufPool) -> io::Result<Self> {
        Ok(Self {
            work: FileWork::start(files, config)?,
            movers: Workers::start("kluis-io", config.threads)?,
            pool: pool.clone(),
        })
    }

    fn transfer(
        &self,
        direction: Direction,
        id: FileId,
        buf: Buf,
        offset: u64,
    ) -> DiskFuture<(Buf, io::Result<()>)> {
        let (queue, pool) = (self.movers.queue(), self.pool.clone());
        let (files, counters) = (Arc::clone(&self.work.files), Arc::clone(&self.work.counters));
        Box::pin(async move {
            let admitted = files.file(id).and_then(|file| {
                let transfer = Transfer::admit(direction, offset, buf.len(), file.len)?;
                Ok((file, transfer))
            });
            let (file, transfer) = match admitted {
                Ok(admitted) => admitted,
                Err(error) => return (buf, Err(error)),
            };
            let job = move || move_bytes(&file, transfer, buf, &counters);
            let done = queue.run(job).await;
            done.unwrap_or_else(|| (pool.lend_nothing(), Err(stopped())))
        })
    }
}

fn move_bytes(
    file: &OpenFile,
    mut transfer: Transfer,
    mut buf: Buf,
    counters: &Counters,
) -> (Buf, io::Result<()>) {
    loop {
        let (_, rest) = buf.split_at_mut(transfer.position());
        let answer = match transfer.direction {
            Direction::Read => file.file.read_at(rest, transfer.file_offset()),
            Direction::Write => file.file.write_at(rest, transfer.file_offset()),
        };
        if let Step::Done(result) = transfer.step(answer, counters) {
            return (buf, result);
        }
    }
}

impl Disk for ThreadsDisk {
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
        let files = Arc::clone(&self.work.files);
        Box::pin(async move { drop(files.close(file)) })
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
        DiskKind::Threads
    }

    fn stats(&self) -> DiskStats {
        self.work.counters.snapshot()
    }
}
