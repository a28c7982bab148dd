//! How files are made and named on a real file system.

use std::os::unix::fs::symlink;

use super::*;
use crate::io::contract::temp_dir;

fn files(root: &Path, direct: bool) -> Files {
    let pool = BufPool::new(0, false).unwrap();
    Files::open_root(root, direct, &pool).unwrap().0
}

#[test]
fn a_file_has_its_length_reserved() {
    let dir = temp_dir();
    let files = files(dir.path(), true);
    files.open("a/b/c", OpenMode::Create { len: 1 << 20 }).unwrap();
    let stat = statx(&files.root, "a/b/c", AtFlags::empty(), StatxFlags::BASIC_STATS).unwrap();
    assert_eq!(stat.stx_size, 1 << 20);
    assert!(stat.stx_blocks * 512 >= 1 << 20, "{} blocks", stat.stx_blocks);
    assert_eq!(stat.stx_mode & 0o777, 0o600);
}

#[test]
fn what_a_crash_left_half_made_is_hidden_and_replaced() {
    let dir = temp_dir();
    let files = files(dir.path(), true);
    fs::write(dir.path().join(".new-f"), b"half").unwrap();
    assert_eq!(files.list("").unwrap(), []);
    assert!(files.open("f", OpenMode::Existing).is_err());
    files.open("f", OpenMode::Create { len: BLOCK_BYTES }).unwrap();
    assert_eq!(files.list("").unwrap(), [("f".to_owned(), BLOCK_BYTES)]);
    assert!(!dir.path().join(".new-f").exists());
}

#[test]
fn a_refused_file_leaves_nothing() {
    let dir = temp_dir();
    let files = files(dir.path(), true);
    files.open("f", OpenMode::Create { len: BLOCK_BYTES }).unwrap();
    let again = files.open("f", OpenMode::Create { len: 2 * BLOCK_BYTES });
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    // 8 EiB are more than any file system here has.
    files.open("huge", OpenMode::Create { len: i64::MAX as u64 & !4095 }).unwrap_err();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["f"]);
}

#[test]
fn symlinks_are_not_followed() {
    let dir = temp_dir();
    let outside = temp_dir();
    fs::write(outside.path().join("target"), [0; BLOCK_LEN]).unwrap();
    symlink(outside.path().join("target"), dir.path().join("link")).unwrap();
    symlink(outside.path(), dir.path().join("linked-dir")).unwrap();
    let files = files(dir.path(), true);
    assert!(files.open("link", OpenMode::Existing).is_err());
    assert!(files.list("linked-dir").is_err());
    assert_eq!(files.list("").unwrap(), [], "a link is not a file of the volume");
}

#[test]
fn the_probe_has_no_name() {
    let dir = temp_dir();
    let files = files(dir.path(), true);
    let id = files.open_probe().unwrap();
    assert_eq!(files.file(id).unwrap().len, BLOCK_BYTES);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn slots_are_used_again_and_ids_are_not() {
    let dir = temp_dir();
    let files = files(dir.path(), true);
    let first = files.open("f", OpenMode::Create { len: BLOCK_BYTES }).unwrap();
    let held = files.close(first).unwrap();
    assert!(held.is_closed());
    assert!(files.close(first).is_none());
    let second = files.open("f", OpenMode::Existing).unwrap();
    assert_ne!(files.file(second).unwrap().slot, held.slot, "the first is still in use");
    let slot = held.slot;
    drop(held);
    let third = files.open("f", OpenMode::Existing).unwrap();
    assert_eq!(files.file(third).unwrap().slot, slot);
    assert!(first != second && second != third && first != third);
}

#[test]
fn too_many_open_files_are_refused() {
    let dir = temp_dir();
    let mut files = files(dir.path(), true);
    files.slots = Slots::new(2);
    files.open("f", OpenMode::Create { len: BLOCK_BYTES }).unwrap();
    let id = files.open("f", OpenMode::Existing).unwrap();
    assert!(files.open("f", OpenMode::Existing).is_err());
    drop(files.close(id));
    files.open("f", OpenMode::Existing).unwrap();
}

#[test]
fn a_tmpfs_is_not_direct() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let pool = BufPool::new(0, false).unwrap();
    let (files, refusal) = Files::open_root(dir.path(), true, &pool).unwrap();
    assert_eq!((files.is_direct(), refusal.is_some()), (false, true));
}
