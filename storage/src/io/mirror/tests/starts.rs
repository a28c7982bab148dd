//! Starts: with both directories, with one, with strangers, after a crash between the two.

use super::super::*;
use super::rig::{Rig, create, run, states};
use crate::error::ErrorKind;
use crate::io::BLOCK_BYTES;
use crate::io::sim::SimDisk;

use MemberState::{Current, Out};

#[test]
fn one_of_two_starts_if_the_witness_knows_it_is_current() {
    run(async {
        let rig = Rig::new(1);
        let disk = rig.open().await.unwrap();
        let file = create(&disk, "seg/f", 4).await;
        rig.put(&disk, file, 0, 5).await.unwrap();
        drop(disk);
        let [a, b] = rig.disks.clone();
        let alone = rig.open_with([None, Some(b.clone())], None).await;
        assert_eq!(alone.err().unwrap().kind(), ErrorKind::Corrupt);
        let witness = Some(rig.witness.clone());
        let disk = rig.open_with([None, Some(b)], witness.clone()).await.unwrap();
        assert_eq!(states(&disk), [Out, Current]);
        assert!(disk.status().is_degraded());
        let file = disk.open("seg/f", OpenMode::Existing).await.unwrap();
        rig.put(&disk, file, 0, 6).await.unwrap();
        drop(disk);
        // The one that was away is stale now.
        let stale = rig.open_with([Some(a), None], witness).await;
        let error = stale.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(format!("{error}").contains("/b") || format!("{error:?}").contains("/b"));
        let disk = rig.open().await.unwrap();
        assert_eq!(states(&disk), [Out, Current]);
        let file = disk.open("seg/f", OpenMode::Existing).await.unwrap();
        assert_eq!(rig.get(&disk, file, 0).await.unwrap(), 6);
    });
}

#[test]
fn exchanged_disks_and_strangers_are_refused_and_left_alone() {
    run(async {
        let (rig, other) = (Rig::new(2), Rig::new(3));
        drop(rig.open().await.unwrap());
        let [a, b] = rig.disks.clone();
        let witness = Some(rig.witness.clone());
        let before: Vec<_> = [&a, &b].map(|disk| disk.contents("MEMBER.a")).into();
        let exchanged = rig.open_with([Some(b.clone()), Some(a.clone())], witness.clone()).await;
        assert_eq!(exchanged.err().unwrap().kind(), ErrorKind::Misuse);
        let twice = rig.open_with([Some(a.clone()), Some(a.clone())], witness.clone()).await;
        assert_eq!(twice.err().unwrap().kind(), ErrorKind::Misuse);
        let used = SimDisk::new(4);
        used.open("SUPER.a", OpenMode::Create { len: BLOCK_BYTES }).await.unwrap();
        let disk = rig.open_with([Some(a.clone()), Some(used)], witness).await.unwrap();
        assert_eq!(states(&disk), [Current, Out], "never read, never written");
        drop(disk);
        drop(other);
        assert_eq!(before[1], b.contents("MEMBER.a"));
    });
}

#[test]
fn a_volume_of_one_directory_becomes_a_mirror() {
    run(async {
        let rig = Rig::new(4);
        let [a, b] = rig.disks.clone();
        let file = a.open("seg/f", OpenMode::Create { len: BLOCK_BYTES }).await.unwrap();
        let (_, written) = a.write_at(file, rig.block(8).await, 0).await;
        written.unwrap();
        a.sync(file).await.unwrap();
        let disk = rig.open().await.unwrap();
        assert_eq!(states(&disk), [Current, Out]);
        disk.replace(1, Arc::new(b.clone())).await.unwrap();
        super::rig::rebuilt(&disk).await;
        assert_eq!(states(&disk), [Current; 2]);
        assert_eq!(b.contents("seg/f"), a.contents("seg/f"));
    });
}

#[test]
fn a_file_that_one_member_lacks_is_copied() {
    run(async {
        let rig = Rig::new(5);
        let disk = rig.open().await.unwrap();
        let file = create(&disk, "seg/f", 4).await;
        rig.put(&disk, file, 1, 3).await.unwrap();
        drop(disk);
        rig.disks[0].remove("seg/f").await.unwrap();
        // An attempt that a crash cut short.
        rig.disks[0].open("seg/COPY", OpenMode::Create { len: BLOCK_BYTES }).await.unwrap();
        let disk = rig.open().await.unwrap();
        assert_eq!(states(&disk), [Current; 2]);
        assert_eq!(rig.disks[0].contents("seg/f"), rig.disks[1].contents("seg/f"));
        assert_eq!(disk.list("seg").await.unwrap(), [("f".to_owned(), 4 * BLOCK_BYTES)]);
        drop(disk);
        rig.disks[0].remove("seg/f").await.unwrap();
        rig.disks[0].open("seg/f", OpenMode::Create { len: BLOCK_BYTES }).await.unwrap();
        let error = rig.open().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "which of the lengths is right?");
    });
}

#[test]
fn the_mirrors_own_files_are_not_seen() {
    run(async {
        let rig = Rig::new(6);
        let disk = rig.open().await.unwrap();
        assert_eq!(disk.list("").await.unwrap(), []);
        for name in ["MEMBER.a", "MEMBER.b", "LOCK"] {
            let opened = disk.open(name, OpenMode::Existing).await;
            assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert_eq!(disk.remove(name).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn damaged_records_leave_a_member_out() {
    run(async {
        let rig = Rig::new(7);
        let disk = rig.open().await.unwrap();
        let file = create(&disk, "f", 1).await;
        rig.put(&disk, file, 0, 3).await.unwrap();
        drop(disk);
        for name in ["MEMBER.a", "MEMBER.b"] {
            if rig.disks[0].contents(name).is_some() {
                rig.disks[0].rot(name, 21, 3).unwrap();
            }
        }
        let disk = rig.open().await.unwrap();
        assert_eq!(states(&disk), [Out, Current]);
        let file = disk.open("f", OpenMode::Existing).await.unwrap();
        assert_eq!(rig.get(&disk, file, 0).await.unwrap(), 3);
    });
}
