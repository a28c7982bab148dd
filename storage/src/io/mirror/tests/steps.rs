//! What a member that fails costs, and how it comes back.

use std::sync::Arc;

use super::super::*;
use super::rig::{Rig, create, rebuilt, run, states};
use crate::error::ErrorKind;
use crate::io::sim::{SimDisk, SimFault, SimOp};
use crate::io::{BLOCK_BYTES, BLOCK_LEN};

use MemberState::{Current, Out};

#[test]
fn a_member_that_fails_a_write_or_a_sync_is_left_out_for_good() {
    for (op, fault) in [(SimOp::Write, SimFault::Eio), (SimOp::Sync, SimFault::Eio)] {
        run(async {
            let rig = Rig::new(1);
            let disk = rig.open().await.unwrap();
            let file = create(&disk, "seg/f", 4).await;
            rig.put(&disk, file, 0, 1).await.unwrap();
            rig.disks[1].inject(op, 0, fault);
            rig.put(&disk, file, 0, 2).await.unwrap();
            assert_eq!(states(&disk), [Current, Out]);
            assert_eq!(rig.get(&disk, file, 0).await.unwrap(), 2);
            let why = disk.status().members[1].why.clone().unwrap();
            assert!(why.contains("seg/f"), "{why}");
            // The other is not written any more.
            let before = rig.disks[1].count(SimOp::Write);
            rig.put(&disk, file, 1, 3).await.unwrap();
            assert_eq!(rig.disks[1].count(SimOp::Write), before);
            drop(disk);
            // It is out after a start, and alone it is refused.
            let after = rig.crash();
            let disk = after.open().await.unwrap();
            assert_eq!(states(&disk), [Current, Out]);
            let file = disk.open("seg/f", OpenMode::Existing).await.unwrap();
            assert_eq!(after.get(&disk, file, 0).await.unwrap(), 2);
            drop(disk);
            let stale = Some(after.disks[1].clone());
            let alone = after.open_with([None, stale], Some(after.witness.clone())).await;
            assert_eq!(alone.err().unwrap().kind(), ErrorKind::Corrupt);
        });
    }
}

#[test]
fn a_write_without_the_failed_member_waits_for_the_record() {
    run(async {
        let rig = Rig::new(2);
        let disk = rig.open().await.unwrap();
        let file = create(&disk, "f", 4).await;
        // The member fails, and the other cannot write that down.
        rig.disks[1].inject(SimOp::Write, 0, SimFault::Eio);
        rig.disks[0].inject(SimOp::Write, 1, SimFault::Eio);
        assert!(rig.put(&disk, file, 0, 1).await.is_err());
        assert!(disk.broken().unwrap().contains("membership record"));
        assert!(rig.put(&disk, file, 1, 1).await.is_err(), "nothing more is acknowledged");
        rig.get(&disk, file, 2).await.unwrap();
    });
}

#[test]
fn the_last_member_is_never_left_out() {
    run(async {
        let rig = Rig::new(3);
        let disk = rig.open().await.unwrap();
        let file = create(&disk, "f", 4).await;
        rig.disks[0].inject(SimOp::Sync, 0, SimFault::Eio);
        rig.put(&disk, file, 0, 1).await.unwrap();
        assert_eq!(states(&disk), [Out, Current]);
        rig.disks[1].inject(SimOp::Write, 0, SimFault::Eio);
        assert!(rig.put(&disk, file, 1, 1).await.is_err());
        assert_eq!(states(&disk), [Out, Current]);
        assert_eq!(rig.get(&disk, file, 0).await.unwrap(), 1);
    });
}

#[test]
fn a_read_falls_back_and_leaves_nobody_out() {
    run(async {
        let rig = Rig::new(4);
        let disk = rig.open().await.unwrap();
        let file = create(&disk, "f", 4).await;
        rig.put(&disk, file, 0, 9).await.unwrap();
        rig.disks[0].inject(SimOp::Read, 0, SimFault::Eio);
        assert_eq!(rig.get(&disk, file, 0).await.unwrap(), 9);
        assert_eq!((states(&disk), disk.status().fallback_reads), ([Current; 2], 1));
        rig.disks[0].inject(SimOp::Read, 0, SimFault::Eio);
        rig.disks[1].inject(SimOp::Read, 0, SimFault::Eio);
        assert!(rig.get(&disk, file, 0).await.is_err());
        assert_eq!(states(&disk), [Current; 2]);
    });
}

#[test]
fn a_full_member_refuses_a_file_on_both() {
    run(async {
        let rig = Rig::new(5);
        let disk = rig.open().await.unwrap();
        rig.disks[1].inject(SimOp::Create, 0, SimFault::Enospc);
        let made = disk.open("f", OpenMode::Create { len: BLOCK_BYTES }).await;
        assert_eq!(made.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(states(&disk), [Current; 2]);
        assert!(rig.disks[0].contents("f").is_none(), "it was taken away again");
        create(&disk, "f", 1).await;
    });
}

#[test]
fn an_empty_disk_is_filled_and_carries_on_alone() {
    run(async {
        let rig = Rig::new(6);
        let disk = rig.open().await.unwrap();
        let file = create(&disk, "seg/f", 64).await;
        for block in 0..64 {
            rig.put(&disk, file, block, u8::try_from(block).unwrap()).await.unwrap();
        }
        rig.disks[1].inject(SimOp::Write, 0, SimFault::Eio);
        rig.put(&disk, file, 0, 100).await.unwrap();
        let new = SimDisk::new(99);
        disk.replace(1, Arc::new(new.clone())).await.unwrap();
        // Written while it is filled, in a file that was there and in one that was not.
        let later = create(&disk, "seg/g", 4).await;
        for block in 0..64 {
            rig.put(&disk, file, block, u8::try_from(block + 100).unwrap()).await.unwrap();
            rig.put(&disk, later, block % 4, u8::try_from(block).unwrap()).await.unwrap();
        }
        let status = rebuilt(&disk).await;
        assert_eq!((status.state, status.why), (RebuildState::Done, None));
        assert_eq!((status.files_done, status.bytes_done), (status.files, status.bytes));
        assert_eq!(states(&disk), [Current; 2]);
        // The other is pulled.
        rig.disks[0].inject(SimOp::Sync, 0, SimFault::Eio);
        rig.put(&disk, file, 3, 200).await.unwrap();
        assert_eq!(states(&disk), [Out, Current]);
        for block in 0..64 {
            let expected = if block == 3 { 200 } else { u8::try_from(block + 100).unwrap() };
            assert_eq!(rig.get(&disk, file, block).await.unwrap(), expected);
        }
        assert_eq!(rig.get(&disk, later, 1).await.unwrap(), 61);
    });
}

#[test]
fn a_disk_that_fails_while_it_is_filled_disturbs_nobody() {
    for (op, after) in [(SimOp::Write, 3), (SimOp::Sync, 1), (SimOp::Create, 1), (SimOp::List, 4)] {
        run(async {
            let rig = Rig::new(7);
            let disk = rig.open().await.unwrap();
            let file = create(&disk, "seg/f", 64).await;
            rig.disks[1].inject(SimOp::Write, 0, SimFault::Eio);
            rig.put(&disk, file, 0, 1).await.unwrap();
            let new = SimDisk::new(98);
            new.inject(op, after, SimFault::Eio);
            if disk.replace(1, Arc::new(new)).await.is_ok() {
                for block in 0..64 {
                    rig.put(&disk, file, block, 7).await.unwrap();
                }
                // So few bytes are copied before a client's write meets the fault.
                let is_done = rebuilt(&disk).await.state == RebuildState::Done;
                assert!(!is_done || op == SimOp::Write, "{op:?}");
            }
            assert_eq!(states(&disk), [Current, Out], "{op:?}");
            rig.put(&disk, file, 0, 9).await.unwrap();
            // Another one is taken.
            disk.replace(1, Arc::new(SimDisk::new(97))).await.unwrap();
            assert_eq!(rebuilt(&disk).await.state, RebuildState::Done);
        });
    }
}

#[test]
fn only_an_empty_disk_takes_the_place_of_one_that_is_out() {
    run(async {
        let (rig, other) = (Rig::new(8), Rig::new(9));
        let disk = rig.open().await.unwrap();
        let file = create(&disk, "f", 4).await;
        let kind = |result: crate::error::Result<()>| result.unwrap_err().kind();
        let new = || Arc::new(SimDisk::new(96));
        assert_eq!(kind(disk.replace(1, new()).await), ErrorKind::Misuse, "it is current");
        assert_eq!(kind(disk.replace(2, new()).await), ErrorKind::Misuse);
        rig.disks[1].inject(SimOp::Write, 0, SimFault::Eio);
        rig.put(&disk, file, 0, 1).await.unwrap();
        let used = new();
        used.open("x", OpenMode::Create { len: BLOCK_BYTES }).await.unwrap();
        assert_eq!(kind(disk.replace(1, used.clone()).await), ErrorKind::Misuse);
        assert_eq!(used.list("").await.unwrap().len(), 1, "nothing was changed");
        let itself = Arc::new(rig.disks[0].clone());
        assert_eq!(kind(disk.replace(1, itself).await), ErrorKind::Misuse);
        drop(other.open_with([Some(SimDisk::new(5)), Some(SimDisk::new(6))], None).await.unwrap());
        // What is left of this member is filled anew.
        disk.replace(1, Arc::new(rig.disks[1].clone())).await.unwrap();
        assert_eq!(rebuilt(&disk).await.state, RebuildState::Done);
        assert_eq!(rig.disks[1].contents("f"), rig.disks[0].contents("f"));
    });
}

#[test]
fn proven_bytes_are_put_right_and_their_neighbours_left_alone() {
    run(async {
        let rig = Rig::new(10);
        let disk = rig.open().await.unwrap();
        let file = create(&disk, "f", 2).await;
        rig.put(&disk, file, 0, 0x40).await.unwrap();
        // One bit is wrong on the second member, and another on the first.
        rig.disks[1].rot("f", 100, 0).unwrap();
        rig.disks[0].rot("f", 3000, 0).unwrap();
        let (good, read) = disk.read_copy_at(0, file, rig.block(0).await, 0).await;
        read.unwrap();
        let (bad, read) = disk.read_copy_at(1, file, rig.block(0).await, 0).await;
        read.unwrap();
        assert_eq!((good[100], bad[100], good[3000], bad[3000]), (0x40, 0x41, 0x41, 0x40));
        disk.repair_at(1, file, good, 0, 0..512).await.unwrap();
        let right = vec![0x40; BLOCK_LEN];
        assert_eq!(rig.disks[1].contents("f").unwrap()[..BLOCK_LEN], right);
        disk.repair_at(0, file, bad, 0, 2048..BLOCK_LEN).await.unwrap();
        assert_eq!(rig.disks[0].contents("f").unwrap()[..BLOCK_LEN], right);
        assert_eq!(disk.status().repairs, 2);
        // Bytes that are not there any more are not written back.
        let stale = rig.block(0x40).await;
        rig.put(&disk, file, 0, 0x50).await.unwrap();
        let refused = disk.repair_at(1, file, stale, 0, 0..512).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(rig.disks[1].contents("f").unwrap()[0], 0x50);
    });
}
