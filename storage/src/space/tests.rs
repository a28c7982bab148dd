//! When the ballast is there and when it is not.

use super::*;

const MIB: u64 = 1 << 20;

fn space(dir: &Path, ballast: u64) -> Space {
    let env = Env::system();
    // A file system of any size has this much, so nothing is capped.
    Space { reserve: 8 * MIB, ballast, ..Space::new(dir.to_path_buf(), 0, 0, env) }
}

fn length(dir: &Path) -> Option<u64> {
    fs::metadata(dir.join(BALLAST)).ok().map(|found| found.len())
}

#[test]
fn the_ballast_goes_below_the_floor_and_comes_back_with_space() {
    let dir = tempfile::tempdir().unwrap();
    let space = space(dir.path(), MIB);
    space.tend(100 * MIB, false);
    assert_eq!(length(dir.path()), None, "an empty node has none");
    space.tend(10 * MIB, true);
    assert_eq!(length(dir.path()), None, "not where it would use the reserve up");
    space.tend(10 * MIB + 1, true);
    assert_eq!(length(dir.path()), Some(MIB));
    space.tend(4 * MIB, true);
    assert_eq!(length(dir.path()), Some(MIB), "half of the reserve is the floor");
    space.tend(4 * MIB - 1, true);
    assert_eq!(length(dir.path()), None);
    space.tend(9 * MIB, true);
    assert_eq!(length(dir.path()), None, "what it gave back is not taken at once");
    space.tend(100 * MIB, true);
    assert_eq!(length(dir.path()), Some(MIB));
    space.tend(0, false);
    assert_eq!(length(dir.path()), None, "a start on a full disk throws it off as well");
}

#[test]
fn the_ballast_takes_blocks_and_only_its_owner_reads_it() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let dir = tempfile::tempdir().unwrap();
    space(dir.path(), MIB).tend(u64::MAX, true);
    let found = fs::metadata(dir.path().join(BALLAST)).unwrap();
    assert!(found.blocks() * 512 >= MIB, "a file with holes would give nothing back");
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
}

#[test]
fn no_ballast_is_made_where_none_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    space(dir.path(), 0).tend(u64::MAX, true);
    assert_eq!(length(dir.path()), None);
}

#[test]
fn the_shares_of_a_file_system_are_capped() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new(dir.path().to_path_buf(), u64::MAX, u64::MAX, Env::system());
    let stat = statvfs(dir.path()).unwrap();
    let total = stat.f_blocks * stat.f_frsize;
    assert_eq!((space.reserve, space.ballast), (total / 20, total / 100));
}
