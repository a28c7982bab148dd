//! The ring against files that block, run short and end: pipes, whose other end the test holds.

use std::fs::File;
use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures::future::{join_all, poll_immediate};
use tokio::time::sleep;

use super::*;
use crate::io::contract::{run, temp_dir};
use crate::io::{BLOCK_BYTES, BLOCK_LEN, Backend, BufClass};

/// What a pipe pretends to be long.
const PIPE_LEN: u64 = 1 << 30;

struct Bench {
    disk: RingDisk,
    pool: BufPool,
    report: RingReport,
    _dir: tempfile::TempDir,
}

fn bench(pool_bytes: usize) -> Bench {
    let dir = temp_dir();
    let pool = BufPool::new(pool_bytes, true).unwrap();
    let (files, _) = Files::open_root(dir.path(), true, &pool).unwrap();
    let config = IoConfig { backend: Backend::Ring, ..IoConfig::default() };
    let (disk, report) = RingDisk::start(Arc::new(files), &config, &pool).unwrap();
    Bench { disk, pool, report, _dir: dir }
}

impl Bench {
    /// A file that reads what the test writes.
    fn pipe(&self) -> (FileId, PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        let id = self.disk.work.files.enter(File::from(OwnedFd::from(reader)), PIPE_LEN).unwrap();
        (id, writer)
    }

    async fn buf(&self, len: usize) -> Buf {
        let mut buf = self.pool.acquire(BufClass::holding(len).unwrap()).await;
        buf.set_len(len);
        buf
    }

    fn used(&self) -> u64 {
        self.pool.stats().bytes_used
    }
}

/// Waits for something that another thread brings about.
async fn eventually(mut happened: impl FnMut() -> bool) {
    while !happened() {
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn the_ring_has_what_this_kernel_can_give() {
    let report = bench(1 << 20).report;
    assert_ne!(report.setup, "plain", "{report:?}");
    assert!(report.registered_files && report.restricted, "{report:?}");
    assert!(report.registered_buffers != report.unregistered.is_some(), "{report:?}");
}

#[test]
fn a_pool_may_decline_registration() {
    let dir = temp_dir();
    let pool = BufPool::new(1 << 20, false).unwrap();
    let (files, _) = Files::open_root(dir.path(), true, &pool).unwrap();
    let (_disk, report) = RingDisk::start(Arc::new(files), &IoConfig::default(), &pool).unwrap();
    assert!(!report.registered_buffers && report.unregistered.is_none(), "{report:?}");
}

#[test]
fn a_restricted_ring_refuses_everything_else() {
    let (ring, _) = setup::build().unwrap();
    ring.submitter().register_files_sparse(1).unwrap();
    setup::restrict(&ring, true).unwrap();
    ring.submitter().register_enable_rings().unwrap();
    let mut ring = ring;
    let mut word = [0_u8; 8];
    let unlisted = opcode::Nop::new().build();
    let unregistered = opcode::Read::new(types::Fd(0), word.as_mut_ptr(), 8).build();
    for entry in [unlisted, unregistered] {
        // SAFETY: the kernel refuses the request, and the word outlives the wait for its answer.
        unsafe { ring.submission().push(&entry) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        let answer = to_answer(ring.completion().next().unwrap().result());
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
    assert!(ring.submitter().unregister_files().is_err(), "the table is not for changing");
}

#[test]
fn a_dropped_future_leaves_its_buffer_to_the_operation() {
    run(async {
        let bench = bench(1 << 20);
        let (pipe, mut writer) = bench.pipe();
        let read = bench.disk.read_at(pipe, bench.buf(BLOCK_LEN).await, 0);
        assert!(poll_immediate(read).await.is_none());
        sleep(Duration::from_millis(20)).await;
        let used = bench.used();
        assert_ne!(used, 0, "the kernel may still write to the buffer");
        writer.write_all(&[1; BLOCK_LEN]).unwrap();
        eventually(|| bench.used() == 0).await;
        assert_eq!(bench.disk.stats().reads, 1);
    });
}

#[test]
fn short_reads_are_continued() {
    run(async {
        let bench = bench(1 << 20);
        let (pipe, mut writer) = bench.pipe();
        let feed = thread::spawn(move || {
            for block in 1..=16 {
                writer.write_all(&[block; BLOCK_LEN]).unwrap();
                thread::yield_now();
            }
        });
        let (buf, read) = bench.disk.read_at(pipe, bench.buf(16 * BLOCK_LEN).await, 0).await;
        read.unwrap();
        feed.join().unwrap();
        for (block, bytes) in (1..).zip(buf.chunks(BLOCK_LEN)) {
            assert!(bytes.iter().all(|&byte| byte == block));
        }
    });
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    run(async {
        let bench = bench(1 << 20);
        let (pipe, mut writer) = bench.pipe();
        writer.write_all(&[7; BLOCK_LEN]).unwrap();
        drop(writer);
        let (buf, read) = bench.disk.read_at(pipe, bench.buf(2 * BLOCK_LEN).await, 0).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(buf.len(), 2 * BLOCK_LEN);
        let stats = bench.disk.stats();
        assert_eq!((stats.reads, stats.errors, stats.continued), (0, 1, 1));
    });
}

#[test]
fn more_operations_than_entries_wait_their_turn() {
    run(async {
        let bench = bench(64 << 20);
        let (pipe, mut writer) = bench.pipe();
        let count = OPS_MAX + 100;
        let reads = (0..count).map(|_| async {
            let buf = bench.buf(BLOCK_LEN).await;
            bench.disk.read_at(pipe, buf, 0).await.1.unwrap();
        });
        let feed = tokio::task::spawn_blocking(move || {
            for _ in 0..count {
                writer.write_all(&[1; BLOCK_LEN]).unwrap();
            }
        });
        let mut reads = std::pin::pin!(join_all(reads));
        assert!(poll_immediate(&mut reads).await.is_none());
        reads.await;
        feed.await.unwrap();
        assert_eq!(bench.disk.stats().reads, count as u64);
    });
}

#[test]
fn dropping_the_disk_waits_for_what_is_in_flight() {
    run(async {
        let bench = bench(1 << 20);
        let (pipe, mut writer) = bench.pipe();
        let mut read = bench.disk.read_at(pipe, bench.buf(BLOCK_LEN).await, 0);
        assert!(poll_immediate(&mut read).await.is_none());
        // Until the ring has taken it: what only queued is answered with an error.
        sleep(Duration::from_millis(50)).await;
        let late = bench.disk.read_at(pipe, bench.buf(BLOCK_LEN).await, 0);
        let Bench { disk, pool, .. } = bench;
        let (done, is_done) = std::sync::mpsc::channel();
        let shutdown = thread::spawn(move || {
            drop(disk);
            done.send(()).unwrap();
        });
        assert!(is_done.recv_timeout(Duration::from_millis(50)).is_err(), "a read is in flight");
        writer.write_all(&[3; BLOCK_LEN]).unwrap();
        is_done.recv_timeout(Duration::from_secs(10)).unwrap();
        shutdown.join().unwrap();
        let (buf, answer) = read.await;
        answer.unwrap();
        assert!(buf.iter().all(|&byte| byte == 3));
        drop(buf);
        let (buf, answer) = late.await;
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(buf.len(), BLOCK_LEN, "it was never sent, so it comes back");
        drop(buf);
        assert_eq!(pool.stats().bytes_used, 0);
    });
}

#[test]
fn a_closed_file_leaves_the_kernels_table() {
    run(async {
        let bench = bench(1 << 20);
        let (pipe, mut writer) = bench.pipe();
        let mut read = bench.disk.read_at(pipe, bench.buf(BLOCK_LEN).await, 0);
        assert!(poll_immediate(&mut read).await.is_none());
        bench.disk.close(pipe).await;
        sleep(Duration::from_millis(20)).await;
        writer.write_all(&[1; BLOCK_LEN]).unwrap();
        read.await.1.unwrap();
        // A pipe breaks when the last reader is gone: the table held it, and lets it go.
        eventually(|| writer.write_all(&[1]).is_err()).await;
    });
}

#[test]
fn no_wake_up_is_lost() {
    run(async {
        let bench = Arc::new(bench(1 << 20));
        let file = bench.disk.open("f", OpenMode::Create { len: 8 * BLOCK_BYTES }).await.unwrap();
        let tasks = (0..8).map(|i| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let mut buf = bench.buf(BLOCK_LEN).await;
                for _ in 0..1000 {
                    let (back, read) = bench.disk.read_at(file, buf, i * BLOCK_BYTES).await;
                    read.unwrap();
                    buf = back;
                }
            })
        });
        for task in join_all(tasks).await {
            task.unwrap();
        }
        let stats = bench.disk.stats();
        assert_eq!(stats.reads, 8000);
        assert!(stats.batches > 0);
    });
}

#[test]
fn a_bell_is_struck_only_for_a_sleeper() {
    let bell = Bell::new().unwrap();
    let flags = rustix::fs::fcntl_getfl(rustix_fd(&bell)).unwrap();
    rustix::fs::fcntl_setfl(rustix_fd(&bell), flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let strikes = || {
        let mut count = [0; 8];
        rustix::io::read(rustix_fd(&bell), &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    };
    bell.wake();
    assert_eq!(strikes(), 0);
    bell.lie_down();
    bell.wake();
    bell.wake();
    assert_eq!(strikes(), 1);
    bell.stop();
    assert!(bell.is_stopped());
    assert_eq!(strikes(), 1);
}

fn rustix_fd(bell: &Bell) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as the bell, which is borrowed.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(bell.descriptor()) }
}

#[test]
fn what_is_in_flight_is_leaked_rather_than_freed() {
    let dir = temp_dir();
    let pool = BufPool::new(1 << 20, false).unwrap();
    let (files, _) = Files::open_root(dir.path(), true, &pool).unwrap();
    let file = files.file(files.open_probe().unwrap()).unwrap();
    let transfer = Transfer::admit(Direction::Read, 0, BLOCK_LEN, BLOCK_BYTES).unwrap();
    let op = |buf| Op { transfer, file: Arc::clone(&file), buf, reply: oneshot::channel().0 };

    let mut finished = InFlight::new();
    let index = finished.insert(op(pool.try_acquire(BufClass::Small).unwrap()));
    drop(finished.take(index));
    drop(finished);
    assert_eq!(pool.stats().bytes_used, 0);

    let mut in_flight = InFlight::new();
    in_flight.insert(op(pool.try_acquire(BufClass::Small).unwrap()));
    drop(in_flight);
    assert_ne!(pool.stats().bytes_used, 0);
}
