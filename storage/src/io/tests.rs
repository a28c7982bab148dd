//! Choosing a backend.

use std::io;

use super::contract::{run, temp_dir};
use super::*;

fn config(backend: Backend) -> IoConfig {
    IoConfig { backend, ..IoConfig::default() }
}

#[test]
fn auto_is_a_ring_where_there_is_one() {
    let dir = temp_dir();
    let pool = BufPool::new(1 << 20, true).unwrap();
    let (disk, report) = open_disk(dir.path(), &config(Backend::Auto), &pool).unwrap();
    assert_eq!((disk.kind(), report.kind), (DiskKind::Ring, DiskKind::Ring));
    assert!(report.no_ring.is_none() && report.ring.is_some());
    assert_eq!(DiskKind::Ring.as_str(), "ring");
}

#[test]
fn threads_are_threads() {
    let dir = temp_dir();
    let pool = BufPool::new(1 << 20, true).unwrap();
    let (disk, report) = open_disk(dir.path(), &config(Backend::Threads), &pool).unwrap();
    assert_eq!(disk.kind(), DiskKind::Threads);
    assert!(report.ring.is_none() && report.no_ring.is_none());
}

#[test]
fn required_direct_io_is_not_given_up() {
    let dir = temp_dir();
    let pool = BufPool::new(1 << 20, true).unwrap();
    let config = IoConfig { direct: false, require_direct: true, ..IoConfig::default() };
    let error = open_disk(dir.path(), &config, &pool).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_volume_keeps_its_files() {
    let dir = temp_dir();
    let pool = BufPool::new(1 << 20, true).unwrap();
    for (backend, other) in [(Backend::Ring, Backend::Threads), (Backend::Threads, Backend::Ring)] {
        run(async {
            let (disk, _) = open_disk(dir.path(), &config(backend), &pool).unwrap();
            let file = disk.open("f", OpenMode::Create { len: BLOCK_BYTES }).await.unwrap();
            let mut buf = pool.acquire(BufClass::Small).await;
            buf.extend_from_slice(&[0x42; BLOCK_LEN]);
            let (buf, written) = disk.write_at(file, buf, 0).await;
            written.unwrap();
            drop(disk);
            let (disk, _) = open_disk(dir.path(), &config(other), &pool).unwrap();
            let file = disk.open("f", OpenMode::Existing).await.unwrap();
            let (buf, read) = disk.read_at(file, buf, 0).await;
            read.unwrap();
            assert!(buf.iter().all(|&byte| byte == 0x42));
            disk.remove("f").await.unwrap();
        });
    }
}

#[test]
fn opening_works_inside_a_runtime_and_leaves_no_trace() {
    let dir = temp_dir();
    let pool = BufPool::new(1 << 20, true).unwrap();
    run(async {
        let (disk, _) =
            open_disk(&dir.path().join("new/volume"), &config(Backend::Auto), &pool).unwrap();
        assert_eq!(disk.list("").await.unwrap(), []);
    });
    assert_eq!(pool.stats().bytes_used, 0);
}
