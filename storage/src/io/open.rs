//! Choosing a backend for a volume and proving that it works before anything relies on it.
//!
//! Owns: the order of choices, the start-up round trip, the line in the log.
//! Does not know: what the volume holds.
//!
//! Invariants
//! - A backend asked for by name is never replaced by another.
//! - No disk is returned that has not written and read back a block.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::files::Files;
use super::ring::{RingDisk, RingReport};
use super::threads::ThreadsDisk;
use super::{BLOCK_LEN, Backend, Buf, BufClass, BufPool, Disk, DiskReport, IoConfig};

/// What the round trip writes: not zero, which an unwritten block would read as.
const PROBE_BYTE: u8 = 0xA5;

/// Opens the directory `root` as a disk.
///
/// # Errors
/// - `ResourceBusy`: a lock was asked for, and another process has the directory open.
/// - `Unsupported`: O_DIRECT was required and the file system refuses it.
/// - Whatever kept a backend that was asked for by name from working. With [`Backend::Auto`] a
///   ring that cannot be made is a line in the log and `no_ring` in the report.
pub fn open_disk(
    root: &Path,
    config: &IoConfig,
    pool: &BufPool,
) -> io::Result<(Arc<dyn Disk>, DiskReport)> {
    let (mut files, no_direct) = Files::open_root(root, config.direct, pool)?;
    if config.lock {
        files.lock()?;
    }
    if config.require_direct && !files.is_direct() {
        let why = no_direct.as_deref().unwrap_or("switched off");
        let text = format!("O_DIRECT is required but not to be had here: {why}");
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let files = Arc::new(files);
    let (disk, ring, no_ring) = match config.backend {
        Backend::Auto => match start_ring(&files, config, pool) {
            Ok((disk, ring)) => (disk, Some(ring), None),
            Err(error) => (start_threads(&files, config, pool)?, None, Some(error.to_string())),
        },
        Backend::Ring => {
            let (disk, ring) = start_ring(&files, config, pool)?;
            (disk, Some(ring), None)
        }
        Backend::Threads => (start_threads(&files, config, pool)?, None, None),
    };
    let direct = files.is_direct();
    let report = DiskReport { kind: disk.kind(), no_ring, direct, no_direct, ring };
    log(&report);
    Ok((disk, report))
}

fn log(report: &DiskReport) {
    let backend = report.kind.as_str();
    let direct = report.direct;
    tracing::info!(backend, direct, ring = ?report.ring, "volume opened");
    if let Some(why) = &report.no_ring {
        tracing::warn!(why, "no io_uring here; threads do the reads and writes");
    }
    if let Some(why) = &report.no_direct {
        tracing::warn!(why, "no O_DIRECT here; reads and writes pass through the page cache");
    }
    if let Some(why) = report.ring.as_ref().and_then(|ring| ring.unregistered.as_ref()) {
        tracing::warn!(why, "buffers not registered with the ring; raise the limit (ulimit -l)");
    }
}

fn start_ring(
    files: &Arc<Files>,
    config: &IoConfig,
    pool: &BufPool,
) -> io::Result<(Arc<dyn Disk>, RingReport)> {
    let (disk, report) = RingDisk::start(Arc::clone(files), config, pool)?;
    prove(&disk, files, pool)?;
    Ok((Arc::new(disk), report))
}

fn start_threads(
    files: &Arc<Files>,
    config: &IoConfig,
    pool: &BufPool,
) -> io::Result<Arc<dyn Disk>> {
    let disk = ThreadsDisk::start(Arc::clone(files), config, pool)?;
    prove(&disk, files, pool)?;
    Ok(Arc::new(disk))
}

/// Writes a block to a file without a name and reads it back.
fn prove(disk: &dyn Disk, files: &Files, pool: &BufPool) -> io::Result<()> {
    let file = files.open_probe()?;
    let proof = block_on(async {
        let mut buf = block(pool)?;
        buf.fill(PROBE_BYTE);
        let (mut buf, written) = disk.write_at(file, buf, 0).await;
        written?;
        disk.sync(file).await?;
        buf.fill(0);
        let (buf, read) = disk.read_at(file, buf, 0).await;
        read?;
        if buf.iter().any(|&byte| byte != PROBE_BYTE) {
            return Err(io::Error::other("a block read back differs from what was written"));
        }
        Ok(())
    });
    block_on(disk.close(file));
    proof
}

fn block(pool: &BufPool) -> io::Result<Buf> {
    let mut buf = pool.try_acquire(BufClass::Small).ok_or_else(|| {
        io::Error::other("no buffer is free to try the disk with; open it before using the pool")
    })?;
    buf.set_len(BLOCK_LEN);
    Ok(buf)
}

/// Waits for a future on this thread. Opening is synchronous, inside a runtime or not.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
