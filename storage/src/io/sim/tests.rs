//! Crashes, faults, and that one seed means one run.

use std::collections::BTreeSet;
use std::task::{Context, Waker};

use futures::future::join_all;
use rustix::io::Errno;

use super::*;
use crate::io::{BLOCK_BYTES, BLOCK_LEN, BufClass, BufPool};

/// Seeds tried where every outcome of a crash must show up.
const SEEDS: u64 = 200;

fn pool() -> BufPool {
    BufPool::new(4 << 20, false).unwrap()
}

fn blocks(pool: &BufPool, count: usize, byte: u8) -> Buf {
    let mut buf = pool.try_acquire(BufClass::holding(count * BLOCK_LEN).unwrap()).unwrap();
    buf.set_len(count * BLOCK_LEN);
    buf.fill(byte);
    buf
}

async fn create(disk: &SimDisk, count: u64) -> FileId {
    disk.open("f", OpenMode::Create { len: count * BLOCK_BYTES }).await.unwrap()
}

async fn write(disk: &SimDisk, file: FileId, count: usize, byte: u8) -> io::Result<()> {
    disk.write_at(file, blocks(&pool(), count, byte), 0).await.1
}

/// The different bytes of a file.
fn bytes_of(disk: &SimDisk) -> BTreeSet<u8> {
    disk.contents("f").unwrap().into_iter().collect()
}

#[track_caller]
fn expect_errno<T>(result: io::Result<T>, errno: Errno) {
    assert_eq!(result.map(|_| ()).unwrap_err().raw_os_error(), Some(errno.raw_os_error()));
}

async fn busy_run(seed: u64) -> (u64, Vec<u8>) {
    let (disk, pool) = (SimDisk::new(seed), pool());
    let file = create(&disk, 64).await;
    disk.inject(SimOp::Write, 5, SimFault::BitFlip);
    for round in 0..10 {
        let writes = (0..8_u64).map(|i| {
            let buf = blocks(&pool, 2, u8::try_from(round * 8 + i).unwrap());
            disk.write_at(file, buf, i * 8 * BLOCK_BYTES)
        });
        join_all(writes).await;
        if round % 3 == 0 {
            disk.sync(file).await.unwrap();
        }
    }
    let after = disk.crash();
    (after.trace(), after.contents("f").unwrap())
}

#[tokio::test]
async fn one_seed_is_one_run() {
    assert_eq!(busy_run(42).await, busy_run(42).await);
    let runs: BTreeSet<_> = join_all((0..8).map(busy_run)).await.into_iter().collect();
    assert_eq!(runs.len(), 8, "other seeds, other runs");
}

#[tokio::test]
async fn what_was_synced_survives_every_crash() {
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = create(&disk, 4).await;
        write(&disk, file, 4, 1).await.unwrap();
        disk.sync(file).await.unwrap();
        let after = disk.crash();
        assert_eq!(bytes_of(&after), BTreeSet::from([1]));
        let file = after.open("f", OpenMode::Existing).await.unwrap();
        let (buf, read) = after.read_at(file, blocks(&pool(), 4, 9), 0).await;
        read.unwrap();
        assert!(buf.iter().all(|&byte| byte == 1));
    }
}

#[tokio::test]
async fn what_was_not_synced_is_kept_lost_mixed_and_torn() {
    let (mut kept, mut lost, mut mixed, mut torn) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = create(&disk, 4).await;
        write(&disk, file, 4, 1).await.unwrap();
        disk.sync(file).await.unwrap();
        write(&disk, file, 4, 2).await.unwrap();
        write(&disk, file, 4, 3).await.unwrap();
        let after = disk.crash();
        let bytes = bytes_of(&after);
        assert!(bytes.is_subset(&BTreeSet::from([1, 2, 3])), "{bytes:?}");
        kept += u32::from(bytes == BTreeSet::from([3]));
        lost += u32::from(bytes == BTreeSet::from([1]));
        mixed += u32::from(bytes.len() > 1);
        let contents = after.contents("f").unwrap();
        let is_torn = |sector: &[u8]| sector.first() != sector.last();
        torn += u32::from(contents.chunks(SECTOR_BYTES).any(is_torn));
    }
    assert!(kept > 0 && lost > 0 && mixed > 0 && torn > 0, "{kept} {lost} {mixed} {torn}");
}

#[tokio::test]
async fn a_crash_can_be_kind_or_cruel() {
    let disk = SimDisk::new(1);
    let file = create(&disk, 4).await;
    write(&disk, file, 4, 1).await.unwrap();
    disk.sync(file).await.unwrap();
    write(&disk, file, 4, 2).await.unwrap();
    assert_eq!(bytes_of(&disk.crash_with(SimCrash::KeepAll)), BTreeSet::from([2]));
    assert_eq!(bytes_of(&disk.crash_with(SimCrash::LoseAll)), BTreeSet::from([1]));
}

#[tokio::test]
async fn after_a_crash_the_old_disk_answers_nothing() {
    let disk = SimDisk::new(1);
    let file = create(&disk, 1).await;
    let after = disk.crash();
    let kind = write(&disk, file, 1, 1).await.unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::BrokenPipe);
    assert!(disk.sync(file).await.is_err());
    assert!(disk.list("").await.is_err());
    let kind = write(&after, file, 1, 1).await.unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::NotFound, "old handles mean nothing to the new disk");
    assert_eq!(after.list("").await.unwrap(), [("f".to_owned(), BLOCK_BYTES)]);
}

/// Polls a future until it would wait for the first time.
fn start<T>(future: &mut DiskFuture<T>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_sync_does_not_cover_a_write_under_way() {
    let mut seen = 0;
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = create(&disk, 1).await;
        let mut writing = disk.write_at(file, blocks(&pool(), 1, 1), 0);
        if start(&mut writing).is_ready() {
            continue;
        }
        disk.sync(file).await.unwrap();
        writing.await.1.unwrap();
        let after = disk.crash_with(SimCrash::LoseAll);
        assert_eq!(bytes_of(&after), BTreeSet::from([0]), "seed {seed}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[tokio::test]
async fn a_dropped_write_still_happens_and_is_covered_later() {
    for seed in 0..SEEDS {
        let (disk, pool) = (SimDisk::new(seed), pool());
        let file = create(&disk, 1).await;
        let mut writing = disk.write_at(file, blocks(&pool, 1, 1), 0);
        let _ = start(&mut writing);
        drop(writing);
        assert_eq!(pool.stats().bytes_used, 0);
        disk.sync(file).await.unwrap();
        assert_eq!(bytes_of(&disk.crash_with(SimCrash::LoseAll)), BTreeSet::from([1]));
    }
}

#[tokio::test]
async fn a_crash_finds_an_unanswered_change_of_names_done_or_not() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        create(&disk, 1).await;
        let mut removing = disk.remove("f");
        if start(&mut removing).is_pending() {
            let after = disk.crash();
            assert!(removing.await.is_err(), "no answer comes after the power is gone");
            outcomes.insert(after.list("").await.unwrap().is_empty());
        }
    }
    assert_eq!(outcomes, BTreeSet::from([false, true]));
}

#[tokio::test]
async fn faults_happen_when_they_are_due() {
    let disk = SimDisk::new(1);
    let file = create(&disk, 1).await;
    disk.inject(SimOp::Write, 2, SimFault::Eio);
    disk.inject(SimOp::Write, 0, SimFault::Enospc);
    expect_errno(write(&disk, file, 1, 1).await, Errno::NOSPC);
    assert_eq!(bytes_of(&disk), BTreeSet::from([0]), "nothing happened");
    write(&disk, file, 1, 2).await.unwrap();
    assert_eq!(disk.faults_left(), 1);
    expect_errno(write(&disk, file, 1, 3).await, Errno::IO);
    write(&disk, file, 1, 4).await.unwrap();
    assert_eq!((disk.faults_left(), disk.count(SimOp::Write)), (0, 4));
    assert_eq!(bytes_of(&disk), BTreeSet::from([4]));
}

#[tokio::test]
async fn every_operation_can_fail() {
    let disk = SimDisk::new(1);
    let file = create(&disk, 1).await;
    for op in [SimOp::Create, SimOp::List, SimOp::Open, SimOp::Remove, SimOp::Rename, SimOp::Sync] {
        disk.inject(op, 0, SimFault::Eio);
    }
    let mode = OpenMode::Create { len: BLOCK_BYTES };
    expect_errno(disk.open("g", mode).await, Errno::IO);
    expect_errno(disk.open("f", OpenMode::Existing).await, Errno::IO);
    expect_errno(disk.list("").await, Errno::IO);
    expect_errno(disk.rename("f", "g").await, Errno::IO);
    expect_errno(disk.remove("f").await, Errno::IO);
    expect_errno(disk.sync(file).await, Errno::IO);
    disk.inject(SimOp::Read, 0, SimFault::Eio);
    expect_errno(disk.read_at(file, blocks(&pool(), 1, 0), 0).await.1, Errno::IO);
    assert_eq!(disk.list("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_fault_that_makes_no_sense_is_refused() {
    let disk = SimDisk::new(1);
    let injected = std::panic::catch_unwind(|| disk.inject(SimOp::Read, 0, SimFault::Enospc));
    assert!(injected.is_err());
}

#[tokio::test]
async fn a_full_disk_makes_no_files() {
    let disk = SimDisk::with(SimConfig { seed: 1, capacity_bytes: 2 * BLOCK_BYTES });
    create(&disk, 1).await;
    let mode = OpenMode::Create { len: 2 * BLOCK_BYTES };
    let opened = disk.open("g", mode).await;
    assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.remove("f").await.unwrap();
    let opened = disk.open("g", mode).await;
    assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::StorageFull, "a handle is still open");
}

#[tokio::test]
async fn a_failed_write_may_have_stored_a_beginning() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = create(&disk, 2).await;
        disk.inject(SimOp::Write, 0, SimFault::Eio);
        expect_errno(write(&disk, file, 2, 1).await, Errno::IO);
        let contents = disk.contents("f").unwrap();
        let stored = contents.iter().take_while(|&&byte| byte == 1).count();
        assert!(contents[stored..].iter().all(|&byte| byte == 0));
        outcomes.insert(stored / SECTOR_BYTES);
        disk.sync(file).await.unwrap();
        assert_eq!(bytes_of(&disk.crash_with(SimCrash::LoseAll)), BTreeSet::from([0]));
    }
    assert!(outcomes.len() > 8, "{outcomes:?}");
}

#[tokio::test]
async fn after_a_failed_sync_another_one_proves_nothing() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = create(&disk, 1).await;
        write(&disk, file, 1, 1).await.unwrap();
        disk.inject(SimOp::Sync, 0, SimFault::Eio);
        expect_errno(disk.sync(file).await, Errno::IO);
        disk.sync(file).await.unwrap();
        outcomes.insert(bytes_of(&disk.crash_with(SimCrash::LoseAll)));
    }
    assert_eq!(outcomes, BTreeSet::from([BTreeSet::from([0]), BTreeSet::from([1])]));
}

#[tokio::test]
async fn a_lost_sync_keeps_nothing_and_the_next_makes_good() {
    for (syncs, byte) in [(0, 0), (1, 1)] {
        let disk = SimDisk::new(1);
        let file = create(&disk, 1).await;
        write(&disk, file, 1, 1).await.unwrap();
        disk.inject(SimOp::Sync, 0, SimFault::Lost);
        for _ in 0..=syncs {
            disk.sync(file).await.unwrap();
        }
        assert_eq!(bytes_of(&disk.crash_with(SimCrash::LoseAll)), BTreeSet::from([byte]));
    }
}

#[tokio::test]
async fn lost_flipped_and_misdirected_writes_are_answered_with_ok() {
    let disk = SimDisk::new(3);
    let file = create(&disk, 64).await;
    disk.inject(SimOp::Write, 0, SimFault::Lost);
    write(&disk, file, 1, 1).await.unwrap();
    assert_eq!(bytes_of(&disk), BTreeSet::from([0]));

    disk.inject(SimOp::Write, 0, SimFault::BitFlip);
    write(&disk, file, 1, 0).await.unwrap();
    let ones: u32 = disk.contents("f").unwrap().iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(ones, 1);

    write(&disk, file, 1, 0).await.unwrap();
    disk.inject(SimOp::Write, 0, SimFault::Misdirected);
    write(&disk, file, 1, 7).await.unwrap();
    let contents = disk.contents("f").unwrap();
    assert_eq!(contents.iter().map(|&byte| usize::from(byte == 7)).sum::<usize>(), BLOCK_LEN);
    assert!(contents[..BLOCK_LEN].iter().all(|&byte| byte == 0), "not where it was meant to go");
}

#[tokio::test]
async fn a_flipped_read_does_not_change_the_disk() {
    let disk = SimDisk::new(1);
    let file = create(&disk, 1).await;
    disk.inject(SimOp::Read, 0, SimFault::BitFlip);
    let (buf, read) = disk.read_at(file, blocks(&pool(), 1, 9), 0).await;
    read.unwrap();
    assert_eq!(buf.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    assert_eq!(bytes_of(&disk), BTreeSet::from([0]));
}

#[tokio::test]
async fn rot_stays() {
    let disk = SimDisk::new(1);
    let file = create(&disk, 2).await;
    write(&disk, file, 1, 0).await.unwrap();
    disk.rot("f", 100, 3).unwrap();
    disk.rot("f", BLOCK_BYTES + 5, 0).unwrap();
    disk.sync(file).await.unwrap();
    let contents = disk.crash_with(SimCrash::LoseAll).contents("f").unwrap();
    assert_eq!((contents[100], contents[BLOCK_LEN + 5]), (8, 1));
    assert_eq!(disk.rot("g", 0, 0).unwrap_err().kind(), io::ErrorKind::NotFound);
    let past = disk.rot("f", 2 * BLOCK_BYTES, 0);
    assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
