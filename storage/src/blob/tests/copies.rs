//! A volume on a mirror: damage on one copy is read around and put right.

use futures::future::join_all;

use super::*;
use crate::blob::segment::file_name;
use crate::format::MirrorId;
use crate::io::{MirrorDisk, MirrorMember, MirrorParts};

/// Three chunks, so that a part needs no header.
const PLAIN_LEN: u64 = 150_000;
/// Where the chunks begin in the record.
const CHUNKS_AT: u64 = 128 + 3 * 4;

struct Mirrored {
    disks: [SimDisk; 2],
    rig: Rig,
    volume: Volume,
    placed: Vec<Placed>,
}

/// A volume on a mirror with three extents side by side.
async fn mirrored(seed: u64) -> Mirrored {
    let disks = [SimDisk::new(seed), SimDisk::new(seed + 1)];
    let pool = BufPool::new(24 << 20, false).unwrap();
    let members = disks
        .clone()
        .map(|disk| MirrorMember { path: "member".to_owned(), disk: Ok(Arc::new(disk)) });
    let mirror = MirrorDisk::open(MirrorParts {
        members,
        witness: None,
        pool: pool.clone(),
        mirror: MirrorId::from_bytes([1; 16]),
        rebuild_bytes_per_second: u64::MAX,
    });
    let rig = Rig::over(Arc::new(mirror.await.unwrap()), pool, seed);
    let (volume, _) = rig.open().await;
    // At once, so that they share a write, and with it blocks.
    let puts = (0..3).map(|number| put_packed(&volume, &rig.pool, number, PLAIN_LEN));
    let placed: Vec<_> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
    volume.flush(&placed).await.unwrap();
    Mirrored { disks, rig, volume, placed }
}

impl Mirrored {
    fn location(&self, number: usize) -> Location {
        *self.placed[number].location()
    }

    fn rot(&self, disk: usize, number: usize, at: u64) {
        let location = self.location(number);
        self.disks[disk].rot(&file_name(location.segment()), location.offset() + at, 2).unwrap();
    }

    fn are_alike(&self) -> bool {
        let name = file_name(self.location(0).segment());
        self.disks[0].contents(&name) == self.disks[1].contents(&name)
    }
}

#[test]
fn damage_on_one_copy_is_read_around_and_put_right() {
    // In the header, in the table, and in each chunk; on either copy.
    for (seed, at) in
        [60, 130, CHUNKS_AT, CHUNKS_AT + 65_600, CHUNKS_AT + 131_200].iter().enumerate()
    {
        for disk in 0..2 {
            run(async {
                let it = mirrored(seed as u64).await;
                it.rot(disk, 1, *at);
                assert!(!it.are_alike());
                let location = it.location(1);
                let read = read_all(&it.volume, 1, &location).await.unwrap();
                assert_eq!(read, sealed(1, PLAIN_LEN));
                // If the good copy was read, nobody noticed; whoever looks at all copies does.
                it.volume.heal(extent_id(1), &location).await.unwrap();
                assert!(it.are_alike(), "{at} on {disk}");
                for number in 0..3 {
                    let location = it.location(number as usize);
                    let read = read_all(&it.volume, number, &location).await.unwrap();
                    assert_eq!(read, sealed(number, PLAIN_LEN));
                }
                assert!(it.rig.disk.mirror().unwrap().status().repairs > 0);
            });
        }
    }
}

#[test]
fn neighbours_in_one_block_are_put_right_from_different_copies() {
    run(async {
        let it = mirrored(7).await;
        let second = it.location(1).offset();
        // The extents meet inside a block: the end of the first is wrong on one copy, the begin of
        // the second on the other.
        assert_ne!(second % 4096, 0);
        let end = u64::from(it.location(0).stored_len()) - 1;
        it.rot(0, 0, end);
        it.rot(1, 1, 60);
        for number in 0..2 {
            let location = it.location(number as usize);
            let healed = it.volume.heal(extent_id(number), &location).await.unwrap();
            assert_eq!((healed.repaired, healed.left), (1, 0));
        }
        assert!(it.are_alike());
        for number in 0..3 {
            let location = it.location(number as usize);
            let read = read_all(&it.volume, number, &location).await.unwrap();
            assert_eq!(read, sealed(number, PLAIN_LEN));
        }
    });
}

#[test]
fn what_is_damaged_on_both_copies_stays_damaged() {
    run(async {
        let it = mirrored(8).await;
        let location = it.location(1);
        it.rot(0, 1, CHUNKS_AT + 5);
        it.rot(1, 1, CHUNKS_AT + 9);
        assert_eq!(kind(read_all(&it.volume, 1, &location).await), ErrorKind::Corrupt);
        let healed = it.volume.heal(extent_id(1), &location).await.unwrap();
        assert_eq!(healed.repaired, 0);
        assert!(healed.left > 0);
        assert!(!it.are_alike(), "neither is written over the other");
    });
}

#[test]
fn a_part_is_read_from_the_copy_that_is_asked_for() {
    run(async {
        let it = mirrored(9).await;
        let (id, location) = (extent_id(1), it.location(1));
        it.rot(1, 1, CHUNKS_AT + 65_600);
        assert_eq!(it.volume.copies(), 2);
        let good = it.volume.read_copy(0, id, &location, 1..2).await.unwrap().unwrap();
        let span = good.spans().next().unwrap();
        assert_eq!(good.into_buf()[span.range], sealed(1, PLAIN_LEN)[65_552..131_104]);
        assert!(it.volume.read_copy(1, id, &location, 1..2).await.unwrap().is_none());
        assert!(it.volume.read_copy(1, id, &location, 0..1).await.unwrap().is_some());
    });
}

#[test]
fn a_volume_outlives_a_member() {
    run(async {
        let it = mirrored(10).await;
        it.disks[0].inject(SimOp::Sync, 0, SimFault::Eio);
        let placed = put_packed(&it.volume, &it.rig.pool, 3, PLAIN_LEN).await.unwrap();
        it.volume.flush(std::slice::from_ref(&placed)).await.unwrap();
        assert!(!it.volume.is_fenced());
        assert!(it.rig.disk.mirror().unwrap().status().is_degraded());
        let read = read_all(&it.volume, 3, placed.location()).await.unwrap();
        assert_eq!(read, sealed(3, PLAIN_LEN));
        it.disks[1].inject(SimOp::Sync, 0, SimFault::Eio);
        let last = put_packed(&it.volume, &it.rig.pool, 4, PLAIN_LEN).await.unwrap();
        assert_eq!(kind(it.volume.flush(&[last]).await), ErrorKind::Fenced, "the last one");
    });
}
