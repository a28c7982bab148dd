//! What every disk must do: one suite, run by each backend.
//!
//! A backend that cannot be made fails its tests; none is ever skipped.
//! Owns: the checks that all share. A backend's own tests lie beside it.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, poll_immediate};
use tempfile::TempDir;
use tokio::runtime;

use super::sim::SimDisk;
use super::{
    BLOCK_BYTES, BLOCK_LEN, Backend, Buf, BufClass, BufPool, Disk, DiskFuture, DiskKind, FileId,
    IoConfig, MirrorDisk, MirrorMember, MirrorParts, OpenMode, PIECE_BYTES, SLAB_BYTES, open_disk,
};
use crate::format::MirrorId;

/// No check takes a second; one that takes this long hangs.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Buffers of the pool in most checks.
const POOL_BYTES: usize = 16 << 20;

/// The operations in flight at once in the checks of concurrency.
const DEPTH: u64 = 64;

/// A disk under test.
struct Bench {
    disk: Arc<dyn Disk>,
    pool: BufPool,
    /// Outlives the disk, being declared after it.
    _dir: Option<TempDir>,
}

/// How a disk under test is made, for a pool of this size.
type Make = fn(usize) -> Bench;

/// A directory beside the test program: where the build lies there is a real file system, while
/// the usual place for such things is often a tmpfs.
pub(super) fn temp_dir() -> TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

fn real(backend: Backend, direct: bool, pool: BufPool) -> Bench {
    let dir = temp_dir();
    let disk = open_at(dir.path(), backend, direct, &pool);
    Bench { disk, pool, _dir: Some(dir) }
}

fn open_at(root: &Path, backend: Backend, direct: bool, pool: &BufPool) -> Arc<dyn Disk> {
    let config = IoConfig { backend, direct, require_direct: direct, ..IoConfig::default() };
    let (disk, report) = open_disk(root, &config, pool).unwrap();
    assert_eq!(report.direct, direct, "{report:?}");
    let expected = if backend == Backend::Ring { DiskKind::Ring } else { DiskKind::Threads };
    assert_eq!(report.kind, expected);
    disk
}

fn ring_direct(pool_bytes: usize) -> Bench {
    real(Backend::Ring, true, BufPool::new(pool_bytes, true).unwrap())
}

fn ring_buffered(pool_bytes: usize) -> Bench {
    real(Backend::Ring, false, BufPool::new(pool_bytes, true).unwrap())
}

fn ring_unregistered(pool_bytes: usize) -> Bench {
    real(Backend::Ring, true, BufPool::new(pool_bytes, false).unwrap())
}

fn threads_direct(pool_bytes: usize) -> Bench {
    real(Backend::Threads, true, BufPool::new(pool_bytes, true).unwrap())
}

fn threads_buffered(pool_bytes: usize) -> Bench {
    real(Backend::Threads, false, BufPool::new(pool_bytes, true).unwrap())
}

fn sim(pool_bytes: usize) -> Bench {
    let pool = BufPool::new(pool_bytes, false).unwrap();
    Bench { disk: Arc::new(SimDisk::new(1)), pool, _dir: None }
}

/// A mirror over two disks. The checks' runtime has threads to spare for the wait.
fn mirror(disks: [Arc<dyn Disk>; 2], pool: &BufPool, dir: Option<TempDir>) -> Bench {
    let members = disks.map(|disk| MirrorMember { path: "member".to_owned(), disk: Ok(disk) });
    let parts = MirrorParts {
        members,
        witness: None,
        pool: pool.clone(),
        mirror: MirrorId::from_bytes([7; 16]),
        rebuild_bytes_per_second: u64::MAX,
    };
    let runtime = runtime::Handle::current();
    let opened = tokio::task::block_in_place(|| runtime.block_on(MirrorDisk::open(parts)));
    Bench { disk: Arc::new(opened.unwrap()), pool: pool.clone(), _dir: dir }
}

fn mirror_sim(pool_bytes: usize) -> Bench {
    let pool = BufPool::new(pool_bytes, false).unwrap();
    mirror([Arc::new(SimDisk::new(1)), Arc::new(SimDisk::new(2))], &pool, None)
}

fn mirror_real(backend: Backend, pool_bytes: usize) -> Bench {
    let pool = BufPool::new(pool_bytes, true).unwrap();
    let dir = temp_dir();
    let disks = ["a", "b"].map(|name| open_at(&dir.path().join(name), backend, true, &pool));
    mirror(disks, &pool, Some(dir))
}

fn mirror_ring(pool_bytes: usize) -> Bench {
    mirror_real(Backend::Ring, pool_bytes)
}

fn mirror_threads(pool_bytes: usize) -> Bench {
    mirror_real(Backend::Threads, pool_bytes)
}

/// Runs one check in a runtime of its own.
pub(super) fn run(check: impl Future<Output = ()>) {
    let mut runtime = runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_time().build().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(TIMEOUT, check).await });
    ended.expect("the check hangs");
}

macro_rules! suites {
    ($($backend:ident),*; $checks:tt) => { $( suites!(@one $backend $checks); )* };
    (@one $backend:ident [$($check:ident),* $(,)?]) => {
        mod $backend {
            $(
                #[test]
                fn $check() {
                    super::run(super::$check(super::$backend));
                }
            )*
        }
    };
}

suites! {
    ring_direct, ring_buffered, ring_unregistered, threads_direct, threads_buffered, sim,
    mirror_ring, mirror_sim, mirror_threads;
    [
        a_closed_handle_is_refused,
        a_new_file_reads_as_zeros,
        a_pool_that_runs_dry_delays_and_resumes,
        a_write_past_the_end_is_refused,
        concurrent_operations_do_not_mix,
        dropped_futures_give_back_their_buffers,
        every_size_round_trips,
        misaligned_requests_are_refused,
        names_are_checked,
        names_come_and_go,
        offsets_beyond_32_bits_work,
        reading_past_the_end_is_an_error,
        removed_files_stay_readable,
        stats_count_what_happened,
        syncs_run_beside_writes,
    ]
}

impl Bench {
    async fn create(&self, name: &str, len: u64) -> FileId {
        self.disk.open(name, OpenMode::Create { len }).await.unwrap()
    }

    /// A buffer of `len` bytes that look random and depend on `seed`.
    async fn filled(&self, len: usize, seed: u64) -> Buf {
        let mut buf = self.pool.acquire(BufClass::holding(len).unwrap()).await;
        buf.set_len(len);
        fill(&mut buf, seed);
        buf
    }

    async fn write(&self, file: FileId, len: usize, offset: u64, seed: u64) {
        let buf = self.filled(len, seed).await;
        let (buf, written) = self.disk.write_at(file, buf, offset).await;
        written.unwrap();
        assert_eq!(buf.len(), len);
    }

    #[track_caller]
    fn expect(
        &self,
        file: FileId,
        len: usize,
        offset: u64,
        seed: u64,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (disk, pool) = (Arc::clone(&self.disk), self.pool.clone());
        async move {
            let mut buf = pool.acquire(BufClass::holding(len).unwrap()).await;
            buf.set_len(len);
            buf.fill(0xEE);
            let (buf, read) = disk.read_at(file, buf, offset).await;
            read.unwrap();
            let mut expected = vec![0; len];
            fill(&mut expected, seed);
            assert!(*buf == *expected, "{len} bytes at {offset} differ from what was written");
        }
    }
}

fn fill(bytes: &mut [u8], seed: u64) {
    let mut word = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in bytes.chunks_mut(8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.map(|_| ()).expect_err("an error was expected").kind()
}

/// Polls the future once, so that the operation starts, and drops it.
async fn start_and_drop<T>(future: DiskFuture<T>) {
    drop(poll_immediate(future).await);
}

async fn every_size_round_trips(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", 4 << 20).await;
    for (seed, blocks) in (1..).zip([0, 1, 2, 3, 5, 16, 18, 31, 32, 33, 100, 255, 256]) {
        for offset in [0, BLOCK_BYTES, 3 * BLOCK_BYTES, (4 << 20) - blocks * BLOCK_BYTES] {
            let len = usize::try_from(blocks).unwrap() * BLOCK_LEN;
            bench.write(file, len, offset, seed).await;
            bench.expect(file, len, offset, seed).await;
        }
    }
}

async fn a_new_file_reads_as_zeros(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", 1 << 20).await;
    let buf = bench.filled(SLAB_BYTES, 7).await;
    let (buf, read) = bench.disk.read_at(file, buf, 0).await;
    read.unwrap();
    assert!(buf.iter().all(|&byte| byte == 0));
}

async fn reading_past_the_end_is_an_error(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", 4 * BLOCK_BYTES).await;
    bench.write(file, 4 * BLOCK_LEN, 0, 1).await;
    for (offset, blocks) in [(3, 2), (0, 5), (4, 1), (1 << 40, 1)] {
        let buf = bench.filled(blocks * BLOCK_LEN, 2).await;
        let (buf, read) = bench.disk.read_at(file, buf, offset * BLOCK_BYTES).await;
        assert_eq!(kind(read), io::ErrorKind::UnexpectedEof);
        assert_eq!(buf.len(), blocks * BLOCK_LEN, "the buffer comes back");
    }
    bench.expect(file, 4 * BLOCK_LEN, 0, 1).await;
}

async fn a_write_past_the_end_is_refused(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", 2 * BLOCK_BYTES).await;
    for offset in [BLOCK_BYTES, 2 * BLOCK_BYTES, u64::MAX - BLOCK_BYTES + 1] {
        let buf = bench.filled(2 * BLOCK_LEN, 1).await;
        let (_, written) = bench.disk.write_at(file, buf, offset).await;
        assert_eq!(kind(written), io::ErrorKind::InvalidInput);
    }
    let listed = bench.disk.list("").await.unwrap();
    assert_eq!(listed, [("f".to_owned(), 2 * BLOCK_BYTES)], "the file kept its length");
}

async fn misaligned_requests_are_refused(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", 8 * BLOCK_BYTES).await;
    for (offset, len) in [(1, BLOCK_LEN), (512, BLOCK_LEN), (0, 1), (0, 512), (0, BLOCK_LEN + 8)] {
        let buf = bench.filled(len, 1).await;
        let (buf, written) = bench.disk.write_at(file, buf, offset).await;
        assert_eq!(kind(written), io::ErrorKind::InvalidInput);
        let (_, read) = bench.disk.read_at(file, buf, offset).await;
        assert_eq!(kind(read), io::ErrorKind::InvalidInput);
    }
    for len in [0, 1, BLOCK_BYTES + 512, u64::MAX - BLOCK_BYTES + 1] {
        let opened = bench.disk.open("g", OpenMode::Create { len }).await;
        assert_eq!(kind(opened), io::ErrorKind::InvalidInput);
    }
}

async fn concurrent_operations_do_not_mix(make: Make) {
    let bench = make(64 * SLAB_BYTES);
    let files = [bench.create("a", 64 << 20).await, bench.create("b", 64 << 20).await];
    let size = |i: u64| usize::try_from(1 + i * 7 % 32).unwrap() * BLOCK_LEN;
    for round in 0..4 {
        let file = |i: u64| files[usize::try_from(i % 2).unwrap()];
        let write = |i| bench.write(file(i), size(i), i << 20, i + round);
        join_all((0..DEPTH).map(write)).await;
        let read = |i| tokio::spawn(bench.expect(file(i), size(i), i << 20, i + round));
        for read in (0..DEPTH).map(read).collect::<Vec<_>>() {
            read.await.unwrap();
        }
    }
    assert_eq!(bench.disk.stats().errors, 0);
}

async fn dropped_futures_give_back_their_buffers(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", 64 << 20).await;
    bench.write(file, PIECE_BYTES, 0, 1).await;
    for round in 1..50 {
        for offset in [1, 2, 3, 4].map(|i| i << 20) {
            let buf = bench.filled(SLAB_BYTES, round).await;
            start_and_drop(bench.disk.write_at(file, buf, offset)).await;
            let buf = bench.filled(PIECE_BYTES, round).await;
            start_and_drop(bench.disk.read_at(file, buf, offset)).await;
        }
        start_and_drop(bench.disk.sync(file)).await;
        start_and_drop(bench.disk.list("")).await;
        start_and_drop(bench.disk.open("f", OpenMode::Existing)).await;
        bench.expect(file, PIECE_BYTES, 0, 1).await;
    }
    // Every slab can be had again: nothing leaked, and no operation kept going for ever.
    let all = (0..POOL_BYTES / SLAB_BYTES).map(|_| bench.pool.acquire(BufClass::Large));
    drop(join_all(all).await);
    assert_eq!(bench.pool.stats().bytes_used, 0);
}

async fn a_pool_that_runs_dry_delays_and_resumes(make: Make) {
    let bench = make(2 * SLAB_BYTES);
    let file = bench.create("f", 64 << 20).await;
    let write_and_read = |i: u64| {
        let bench = &bench;
        async move {
            bench.write(file, SLAB_BYTES, i << 20, i).await;
            bench.expect(file, SLAB_BYTES, i << 20, i).await;
        }
    };
    join_all((0..32).map(write_and_read)).await;
    assert!(bench.pool.stats().waits > 0, "the pool was meant to run dry");
    assert_eq!(bench.pool.stats().bytes_used, 0);
}

async fn syncs_run_beside_writes(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", 16 << 20).await;
    let write_and_sync = |i: u64| {
        let bench = &bench;
        async move {
            bench.write(file, PIECE_BYTES, i << 20, i).await;
            bench.disk.sync(file).await.unwrap();
        }
    };
    join_all((0..16).map(write_and_sync)).await;
    for i in 0..16 {
        bench.expect(file, PIECE_BYTES, i << 20, i).await;
    }
    assert!(bench.disk.stats().syncs >= 16);
}

async fn names_come_and_go(make: Make) {
    let bench = make(POOL_BYTES);
    let disk = &bench.disk;
    assert_eq!(disk.list("seg").await.unwrap(), [], "no directory, no files");
    assert_eq!(kind(disk.open("seg/b", OpenMode::Existing).await), io::ErrorKind::NotFound);
    let b = bench.create("seg/b", 2 * BLOCK_BYTES).await;
    bench.write(b, 2 * BLOCK_LEN, 0, 1).await;
    bench.create("seg/a", BLOCK_BYTES).await;
    bench.create("top", 3 * BLOCK_BYTES).await;
    let entry = |name: &str, blocks| (name.to_owned(), blocks * BLOCK_BYTES);
    assert_eq!(disk.list("seg").await.unwrap(), [entry("a", 1), entry("b", 2)]);
    assert_eq!(disk.list("").await.unwrap(), [entry("top", 3)]);

    let again = disk.open("seg/b", OpenMode::Create { len: BLOCK_BYTES }).await;
    assert_eq!(kind(again), io::ErrorKind::AlreadyExists);
    disk.rename("seg/b", "seg/a").await.unwrap();
    assert_eq!(disk.list("seg").await.unwrap(), [entry("a", 2)]);
    let renamed = disk.open("seg/a", OpenMode::Existing).await.unwrap();
    bench.expect(renamed, 2 * BLOCK_LEN, 0, 1).await;
    bench.expect(b, 2 * BLOCK_LEN, 0, 1).await;

    assert_eq!(kind(disk.rename("seg/b", "seg/c").await), io::ErrorKind::NotFound);
    disk.rename("seg/a", "seg/c").await.unwrap();
    disk.remove("seg/c").await.unwrap();
    assert_eq!(kind(disk.remove("seg/c").await), io::ErrorKind::NotFound);
    assert_eq!(disk.list("seg").await.unwrap(), []);
}

async fn names_are_checked(make: Make) {
    let bench = make(POOL_BYTES);
    let long = "x".repeat(300);
    for name in ["", "/etc/passwd", "a/../../b", "..", ".hidden", "a//b", "a/", "a b", "ü", &long]
    {
        let opened = bench.disk.open(name, OpenMode::Create { len: BLOCK_BYTES }).await;
        assert_eq!(kind(opened), io::ErrorKind::InvalidInput, "{name:?}");
        assert_eq!(kind(bench.disk.remove(name).await), io::ErrorKind::InvalidInput);
        assert_eq!(kind(bench.disk.rename(name, "x").await), io::ErrorKind::InvalidInput);
        assert_eq!(kind(bench.disk.rename("x", name).await), io::ErrorKind::InvalidInput);
    }
    assert_eq!(kind(bench.disk.list("..").await), io::ErrorKind::InvalidInput);
}

async fn offsets_beyond_32_bits_work(make: Make) {
    let bench = make(POOL_BYTES);
    let len = (4 << 30) + (1 << 20);
    let file = bench.create("big", len).await;
    for (seed, offset) in [(1, 0), (2, (1 << 32) - BLOCK_BYTES), (3, len - 2 * BLOCK_BYTES)] {
        bench.write(file, 2 * BLOCK_LEN, offset, seed).await;
    }
    for (seed, offset) in [(1, 0), (2, (1 << 32) - BLOCK_BYTES), (3, len - 2 * BLOCK_BYTES)] {
        bench.expect(file, 2 * BLOCK_LEN, offset, seed).await;
    }
}

async fn a_closed_handle_is_refused(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", BLOCK_BYTES).await;
    bench.write(file, BLOCK_LEN, 0, 1).await;
    let other = bench.disk.open("f", OpenMode::Existing).await.unwrap();
    bench.disk.close(file).await;
    bench.disk.close(file).await;
    let buf = bench.filled(BLOCK_LEN, 2).await;
    let (buf, read) = bench.disk.read_at(file, buf, 0).await;
    assert_eq!(kind(read), io::ErrorKind::NotFound);
    let (_, written) = bench.disk.write_at(file, buf, 0).await;
    assert_eq!(kind(written), io::ErrorKind::NotFound);
    assert_eq!(kind(bench.disk.sync(file).await), io::ErrorKind::NotFound);
    bench.expect(other, BLOCK_LEN, 0, 1).await;
    // Handles and their places are used and given back many times over.
    for seed in 0..200 {
        let file = bench.disk.open("f", OpenMode::Existing).await.unwrap();
        bench.write(file, BLOCK_LEN, 0, seed).await;
        bench.disk.close(file).await;
        bench.expect(other, BLOCK_LEN, 0, seed).await;
    }
}

async fn removed_files_stay_readable(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", BLOCK_BYTES).await;
    bench.write(file, BLOCK_LEN, 0, 1).await;
    bench.disk.remove("f").await.unwrap();
    let second = bench.create("f", BLOCK_BYTES).await;
    bench.write(second, BLOCK_LEN, 0, 2).await;
    bench.expect(file, BLOCK_LEN, 0, 1).await;
    bench.expect(second, BLOCK_LEN, 0, 2).await;
}

async fn stats_count_what_happened(make: Make) {
    let bench = make(POOL_BYTES);
    let file = bench.create("f", 4 * BLOCK_BYTES).await;
    let before = bench.disk.stats();
    bench.write(file, 2 * BLOCK_LEN, 0, 1).await;
    bench.write(file, BLOCK_LEN, 0, 1).await;
    bench.expect(file, BLOCK_LEN, 0, 1).await;
    bench.disk.sync(file).await.unwrap();
    let after = bench.disk.stats();
    assert_eq!(after.writes - before.writes, 2);
    assert_eq!(after.written_bytes - before.written_bytes, 3 * BLOCK_BYTES);
    assert_eq!(after.reads - before.reads, 1);
    assert_eq!(after.read_bytes - before.read_bytes, BLOCK_BYTES);
    assert_eq!(after.syncs - before.syncs, 1);
    assert_eq!(after.errors, 0);
}
