//! Flipped, cut and swapped bytes of records are found and named.

use super::*;
use crate::blob::segment::file_name;

/// A volume with three extents of one length side by side, the middle one to be damaged.
async fn three(rig: &Rig) -> (Volume, Vec<Placed>) {
    let (volume, _) = rig.open().await;
    let mut placed = Vec::new();
    for number in 0..3 {
        placed.push(put_packed(&volume, &rig.pool, number, PLAIN_LEN).await.unwrap());
    }
    volume.flush(&placed).await.unwrap();
    (volume, placed)
}

/// Two chunks.
const PLAIN_LEN: u64 = 80_000;

async fn check_others(volume: &Volume, placed: &[Placed]) {
    for number in [0, 2] {
        let location = placed[number as usize].location();
        assert_eq!(read_all(volume, number, location).await.unwrap(), sealed(number, PLAIN_LEN));
    }
}

#[test]
fn every_flipped_bit_of_a_stored_header_is_noticed() {
    run(async {
        let sim = SimDisk::new(1);
        let rig = Rig::new(sim.clone(), 1);
        let (volume, placed) = three(&rig).await;
        let location = *placed[1].location();
        let name = file_name(location.segment());
        for bit in 0..(128 + 2 * 4) * 8 {
            let at = location.offset() + bit / 8;
            sim.rot(&name, at, (bit % 8) as u8).unwrap();
            assert_eq!(kind(read_all(&volume, 1, &location).await), ErrorKind::Corrupt, "{bit}");
            assert_eq!(kind(volume.verify(extent_id(1), &location).await), ErrorKind::Corrupt);
            let damage = volume.classify(extent_id(1), &location, 0).await.unwrap();
            assert_eq!(damage, Damage::Rot);
            sim.rot(&name, at, (bit % 8) as u8).unwrap();
        }
        assert_eq!(read_all(&volume, 1, &location).await.unwrap(), sealed(1, PLAIN_LEN));
        check_others(&volume, &placed).await;
    });
}

#[test]
fn rot_in_a_chunk_is_told_from_tampering() {
    run(async {
        let sim = SimDisk::new(2);
        let rig = Rig::new(sim.clone(), 2);
        let (volume, placed) = three(&rig).await;
        let (id, location) = (extent_id(1), *placed[1].location());
        let name = file_name(location.segment());
        // Nothing is wrong with the bytes: if a tag failed, somebody else is to blame.
        for chunk in 0..2 {
            let damage = volume.classify(id, &location, chunk).await.unwrap();
            assert_eq!(damage, Damage::Tampered);
        }
        sim.rot(&name, location.offset() + 136 + 65_552 + 5, 3).unwrap();
        assert_eq!(volume.classify(id, &location, 0).await.unwrap(), Damage::Tampered);
        assert_eq!(volume.classify(id, &location, 1).await.unwrap(), Damage::Rot);
        assert_eq!(kind(read_all(&volume, 1, &location).await), ErrorKind::Corrupt);
        assert_eq!(volume.verify(id, &location).await.unwrap(), [1]);
        // A part is not checked here: its tags are, above.
        let part = read(&volume, 1, &location, 1..2).await.unwrap();
        assert_eq!(part.len(), sealed(1, PLAIN_LEN).len() - 65_552);
        assert_ne!(part, sealed(1, PLAIN_LEN)[65_552..]);
        check_others(&volume, &placed).await;
    });
}

#[test]
fn a_device_that_cannot_read_is_rot_and_one_that_is_gone_is_not() {
    run(async {
        let sim = SimDisk::new(3);
        let rig = Rig::new(sim.clone(), 3);
        let (volume, placed) = three(&rig).await;
        let (id, location) = (extent_id(1), *placed[1].location());
        sim.inject(SimOp::Read, 0, SimFault::Eio);
        assert_eq!(kind(read_all(&volume, 1, &location).await), ErrorKind::Corrupt);
        sim.inject(SimOp::Read, 0, SimFault::Eio);
        assert_eq!(volume.classify(id, &location, 0).await.unwrap(), Damage::Rot);
        sim.inject(SimOp::Read, 1, SimFault::Eio);
        assert_eq!(volume.classify(id, &location, 0).await.unwrap(), Damage::Rot);
        sim.inject(SimOp::Read, 1, SimFault::Eio);
        assert_eq!(volume.verify(id, &location).await.unwrap(), [0, 1]);
        assert!(!volume.is_fenced());
        drop(sim.crash());
        assert_eq!(kind(read_all(&volume, 1, &location).await), ErrorKind::Unavailable);
        assert_eq!(kind(volume.classify(id, &location, 0).await), ErrorKind::Unavailable);
    });
}

#[test]
fn exchanged_extents_are_noticed() {
    run(async {
        let rig = Rig::new(SimDisk::new(4), 4);
        let (volume, _) = rig.open().await;
        let mut placed = Vec::new();
        for number in 0..2 {
            placed.push(put_streamed(&volume, number, PLAIN_LEN).await.unwrap());
        }
        volume.flush(&placed).await.unwrap();
        let at = |number: usize| *placed[number].location();
        assert_eq!(kind(read_all(&volume, 1, &at(0)).await), ErrorKind::Corrupt);
        exchange(&rig, at(0), at(1)).await;
        for number in 0..2 {
            let location = at(number as usize);
            assert_eq!(kind(read_all(&volume, number, &location).await), ErrorKind::Corrupt);
            let damage = volume.classify(extent_id(number), &location, 1).await.unwrap();
            assert_eq!(damage, Damage::Misplaced);
        }
    });
}

/// Writes each of two records where the other one was.
async fn exchange(rig: &Rig, left: Location, right: Location) {
    let file = rig.disk.open(&file_name(left.segment()), crate::io::OpenMode::Existing);
    let file = file.await.unwrap();
    let mut bufs = Vec::new();
    for from in [left, right] {
        let mut buf = rig.pool.acquire(BufClass::Small).await;
        buf.set_len((from.stored_len() as usize).next_multiple_of(4096));
        let (buf, read) = rig.disk.read_at(file, buf, from.offset()).await;
        read.unwrap();
        bufs.push(buf);
    }
    for (to, buf) in [right, left].into_iter().zip(bufs) {
        rig.disk.write_at(file, buf, to.offset()).await.1.unwrap();
    }
}

#[test]
fn each_part_of_the_identity_counts() {
    run(async {
        let rig = Rig::new(SimDisk::new(5), 5);
        let (volume, placed) = three(&rig).await;
        let location = *placed[1].location();
        let id = extent_id(1);
        let others = [
            ExtentId { ns: NsId::from_bytes([9; 16]), ..id },
            ExtentId { stream: StreamId::from_bytes([9; 16]), ..id },
            ExtentId { number: 9, ..id },
        ];
        for other in others {
            let mut reader = volume.reader(other, &location, 0..2).unwrap();
            assert_eq!(kind(reader.next().await), ErrorKind::Corrupt);
            let damage = volume.classify(other, &location, 0).await.unwrap();
            assert_eq!(damage, Damage::Misplaced);
        }
        let layout = ChunkLayout::for_plain_len(CHUNK_SHIFT, PLAIN_LEN - 1).unwrap();
        let shorter = Location { layout, ..location };
        assert_eq!(volume.classify(id, &shorter, 0).await.unwrap(), Damage::Misplaced);
        let stale = Location { incarnation: location.incarnation + 1, ..location };
        assert_eq!(kind(volume.reader(id, &stale, 0..1)), ErrorKind::Moved);
        let outside = Location { offset: 8 * MIB - 8, ..location };
        assert_eq!(kind(volume.reader(id, &outside, 0..1)), ErrorKind::Corrupt);
        let unknown = Location { segment: 77, ..location };
        assert_eq!(kind(volume.reader(id, &unknown, 0..1)), ErrorKind::Corrupt);
    });
}

#[test]
fn a_damaged_header_hides_no_other_record() {
    run(async {
        for victim in 0..3 {
            let sim = SimDisk::new(6);
            let rig = Rig::new(sim.clone(), 6);
            let (volume, placed) = three(&rig).await;
            let location = *placed[victim].location();
            sim.rot(&file_name(location.segment()), location.offset() + 113, 0).unwrap();
            let found = scan_all(&volume).await;
            let mut expected: Vec<_> =
                (0..).zip(&placed).map(|(n, at)| (n, *at.location())).collect();
            expected.remove(victim);
            assert_eq!(extents(&found), expected);
            let damaged = found.iter().filter_map(|found| match found {
                Found::Damaged { offset, .. } => Some(*offset),
                _ => None,
            });
            assert_eq!(damaged.collect::<Vec<_>>(), [location.offset()]);
        }
    });
}

#[test]
fn an_unreadable_block_hides_only_what_lies_in_it() {
    run(async {
        let sim = SimDisk::new(7);
        let rig = Rig::new(sim.clone(), 7);
        let (volume, placed) = three(&rig).await;
        // The wide read and the narrow one both fail, then the block after it is read.
        sim.inject(SimOp::Read, 0, SimFault::Eio);
        sim.inject(SimOp::Read, 0, SimFault::Eio);
        let found = scan_all(&volume).await;
        assert_eq!(found.first(), Some(&Found::Unreadable { offset: 0, bytes: 4096 }));
        let others: Vec<_> = (1..).zip(&placed[1..]).map(|(n, at)| (n, *at.location())).collect();
        assert_eq!(extents(&found), others);
    });
}

#[test]
fn a_scan_of_nothing_is_refused() {
    run(async {
        let rig = Rig::new(SimDisk::new(8), 8);
        let (volume, _) = rig.open().await;
        assert_eq!(kind(volume.scan_segment(0).await), ErrorKind::NotFound);
    });
}
