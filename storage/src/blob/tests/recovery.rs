//! What a start finds in segments that were open.

use std::collections::BTreeSet;

use super::*;
use crate::blob::segment::file_name;
use crate::format::{SUPER_BYTES, Superblock};
use crate::io::OpenMode;

/// Writes and flushes an extent in each lane.
async fn write_some(volume: &Volume, first: u32) -> Vec<Location> {
    let mut locations = Vec::new();
    for (number, lane) in (first..).zip([Lane::Hot, Lane::Part]) {
        let placed = [stream(volume, ExtentPlan { lane, ..plan(number, 100_000) }).await.unwrap()];
        volume.flush(&placed).await.unwrap();
        locations.push(*placed[0].location());
    }
    locations
}

async fn headers(volume: &Volume) -> Vec<ExtentHeader> {
    let found = scan_all(volume).await;
    let headers = found.iter().filter_map(|found| match found {
        Found::Extent { header, .. } | Found::Filler { header, .. } => Some(*header),
        _ => None,
    });
    headers.collect()
}

#[test]
fn no_restart_repeats_a_record_number_or_an_incarnation() {
    run(async {
        let mut rig = Rig::new(SimDisk::new(1), 1);
        let mut sim = SimDisk::new(1);
        rig = rig.after(sim.clone());
        for round in 0..8 {
            let (volume, report) = rig.open().await;
            assert_eq!(report.open_count, u64::from(round) + 1);
            assert_eq!(report.scanned_segments.len(), if round % 2 == 1 { 2 } else { 0 });
            write_some(&volume, 10 * round).await;
            if round % 2 == 1 {
                volume.close().await.unwrap();
            }
            sim = sim.crash_with(SimCrash::LoseAll);
            rig = rig.after(sim.clone());
        }
        let (volume, _) = rig.open().await;
        let headers = headers(&volume).await;
        assert_eq!(headers.len(), 16);
        let numbers: BTreeSet<u64> = headers.iter().map(|header| header.rec_seq).collect();
        assert_eq!(numbers.len(), 16);
        let uses: BTreeSet<u64> = volume.segments().iter().map(|row| row.incarnation).collect();
        assert_eq!(uses.len(), 16);
        assert!(volume.segments().iter().all(|row| row.state == SegmentState::Closed));
    });
}

#[test]
fn a_segment_that_was_open_is_never_appended_to_again() {
    run(async {
        for clean in [false, true] {
            let sim = SimDisk::new(2);
            let rig = Rig::new(sim.clone(), 2);
            let (volume, _) = rig.open().await;
            let before = write_some(&volume, 0).await;
            if clean {
                volume.close().await.unwrap();
                assert_eq!(
                    kind(put_packed(&volume, &rig.pool, 9, 1).await),
                    ErrorKind::Unavailable
                );
                assert_eq!(kind(put_streamed(&volume, 9, 1).await), ErrorKind::Unavailable);
            }
            let rig = rig.after(sim.crash());
            let (volume, report) = rig.open().await;
            assert_eq!(report.clean, clean);
            assert_eq!(report.scanned_segments.len(), if clean { 0 } else { 2 });
            assert_eq!(report.extents, if clean { 0 } else { 2 });
            let after = write_some(&volume, 2).await;
            for (number, location) in (0..).zip(before.iter().chain(&after)) {
                let bytes = read_all(&volume, number, location).await.unwrap();
                assert_eq!(bytes, sealed(number, 100_000));
            }
            let used: BTreeSet<u32> = before.iter().chain(&after).map(Location::segment).collect();
            assert_eq!(used.len(), 4);
        }
    });
}

#[test]
fn the_watermark_survives() {
    run(async {
        let sim = SimDisk::new(3);
        let rig = Rig::new(sim.clone(), 3);
        let (volume, report) = rig.open().await;
        assert_eq!(report.max_meta_seq, 0);
        rig.meta_seq.store(41, Ordering::SeqCst);
        write_some(&volume, 0).await;
        let rig = rig.after(sim.crash());
        let (volume, report) = rig.open().await;
        assert_eq!(report.max_meta_seq, 41);
        rig.meta_seq.store(42, Ordering::SeqCst);
        volume.close().await.unwrap();
        let (_, report) = rig.open().await;
        assert_eq!(report.max_meta_seq, 42, "closing in order writes it down");
    });
}

/// Either superblock may be lost to rot at any time: nothing is repeated for it.
#[test]
fn one_lost_superblock_repeats_nothing() {
    run(async {
        for lost in ["SUPER.a", "SUPER.b"] {
            let sim = SimDisk::new(4);
            let rig = Rig::new(sim.clone(), 4);
            let mut opens = 0;
            let mut uses = BTreeSet::new();
            for round in 0..5 {
                let (volume, report) = rig.open().await;
                assert!(report.open_count > opens);
                opens = report.open_count;
                for location in write_some(&volume, round * 2).await {
                    assert!(uses.insert(location.incarnation()));
                }
                sim.rot(lost, 2_000, 1).unwrap();
            }
        }
    });
}

#[test]
fn two_lost_superblocks_are_refused_and_nothing_is_made() {
    run(async {
        let sim = SimDisk::new(5);
        let rig = Rig::new(sim.clone(), 5);
        drop(rig.open().await);
        let before = sim.count(SimOp::Write);
        for name in ["SUPER.a", "SUPER.b"] {
            sim.rot(name, 20, 1).unwrap();
        }
        let error = rig.open_with(config(8 * MIB)).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.advice().is_some());
        assert_eq!(sim.count(SimOp::Write), before);
    });
}

#[test]
fn segments_without_a_superblock_are_not_a_new_volume() {
    run(async {
        let sim = SimDisk::new(6);
        let rig = Rig::new(sim.clone(), 6);
        let (volume, _) = rig.open().await;
        write_some(&volume, 0).await;
        for name in ["SUPER.a", "SUPER.b"] {
            rig.disk.remove(name).await.unwrap();
        }
        let opened = rig.open_with(config(8 * MIB)).await;
        assert_eq!(kind(opened.map(|_| ())), ErrorKind::Corrupt);
    });
}

#[test]
fn a_volume_of_a_later_release_is_refused_with_advice() {
    run(async {
        let sim = SimDisk::new(7);
        let rig = Rig::new(sim.clone(), 7);
        drop(rig.open().await);
        let file = rig.disk.open("SUPER.a", OpenMode::Existing).await.unwrap();
        let mut bytes = sim.contents("SUPER.a").unwrap();
        bytes[8] = 2;
        let crc = crate::format::crc32c(&bytes[..SUPER_BYTES - 4]);
        bytes[SUPER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        let mut buf = rig.pool.acquire(BufClass::Small).await;
        buf.extend_from_slice(&bytes);
        rig.disk.write_at(file, buf, 0).await.1.unwrap();
        let error = rig.open_with(config(8 * MIB)).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.to_string().contains("later release"));
    });
}

#[test]
fn making_a_volume_may_be_cut_short_anywhere() {
    for seed in 0..300 {
        run(async {
            let sim = SimDisk::new(seed);
            let rig = Rig::new(sim.clone(), seed);
            let opening = tokio::spawn({
                let rig = rig.clone();
                async move { rig.open_with(config(8 * MIB)).await.map(|_| ()) }
            });
            for _ in 0..seed % 60 {
                tokio::task::yield_now().await;
            }
            let rig = rig.after(sim.crash());
            drop(opening.await);
            let (volume, _) = rig.open().await;
            write_some(&volume, 0).await;
        });
    }
}

#[test]
fn a_volume_keeps_its_own_segment_size_and_family_count() {
    run(async {
        let sim = SimDisk::new(8);
        let rig = Rig::new(sim.clone(), 8);
        let (_, report) = rig.open().await;
        assert_eq!(report.pooled_families, 16);
        let other = VolumeConfig { pooled_families: 4, ..config(16 * MIB) };
        let (volume, report) = rig.open_with(other).await.unwrap();
        assert_eq!((report.pooled_families, volume.usage().segment_bytes), (16, 8 * MIB));
        let block = Superblock::decode(&sim.contents("SUPER.a").unwrap()).unwrap();
        assert_eq!((block.volume, block.open_count), (volume.id(), 2));
    });
}

#[test]
fn settings_out_of_bounds_are_refused() {
    run(async {
        let rig = Rig::new(SimDisk::new(9), 9);
        for bytes in [0, 4096, 65_536 + 512, 8 << 30] {
            let opened = rig.open_with(config(bytes)).await;
            assert_eq!(kind(opened.map(|_| ())), ErrorKind::Misuse, "{bytes}");
        }
        let settings = VolumeConfig { writer_slabs_max: 1, ..config(8 * MIB) };
        let opened = rig.open_with(settings).await;
        assert_eq!(kind(opened.map(|_| ())), ErrorKind::Misuse);
        let small = Rig::over(rig.disk, BufPool::new(1 << 20, false).unwrap(), 9);
        let opened = small.open_with(config(8 * MIB)).await;
        assert_eq!(kind(opened.map(|_| ())), ErrorKind::Unavailable);
    });
}

#[test]
fn a_missing_segment_is_reported_and_its_number_stays_taken() {
    run(async {
        let rig = Rig::new(SimDisk::new(10), 10);
        let (volume, _) = rig.open().await;
        let locations = write_some(&volume, 0).await;
        drop(volume);
        settle().await;
        rig.disk.remove(&file_name(locations[0].segment())).await.unwrap();
        let (volume, report) = rig.open().await;
        assert_eq!(report.missing_segments, [locations[0].segment()]);
        assert_eq!(kind(read_all(&volume, 0, &locations[0]).await), ErrorKind::Corrupt);
        assert_eq!(read_all(&volume, 1, &locations[1]).await.unwrap(), sealed(1, 100_000));
        let more = write_some(&volume, 2).await;
        assert!(more.iter().all(|location| location.segment() != locations[0].segment()));
    });
}

/// A segment that is used again still holds records of its earlier use.
#[test]
fn records_of_an_earlier_use_are_not_found() {
    run(async {
        let sim = SimDisk::new(11);
        let rig = Rig::new(sim.clone(), 11);
        let (volume, _) = rig.open().await;
        let old = put_streamed(&volume, 1, 4 * MIB).await.unwrap();
        volume.flush(&[old]).await.unwrap();
        let old = volume.segments()[0];
        volume.close().await.unwrap();
        settle().await;
        let free = SegmentRow { state: SegmentState::Free, ..old };
        rig.table.put(vec![free]).await.unwrap();
        let (volume, _) = rig.open().await;
        let new = [put_packed(&volume, &rig.pool, 2, 300).await.unwrap()];
        volume.flush(&new).await.unwrap();
        let location = *new[0].location();
        assert_eq!(location.segment(), old.segment);
        assert_ne!(location.incarnation(), old.incarnation);
        assert_eq!(extents(&scan_all(&volume).await), [(2, location)]);
        let rig = rig.after(sim.crash());
        let (volume, report) = rig.open().await;
        assert_eq!((report.extents, report.damaged), (1, 0));
        assert_eq!(volume.segments()[0].written_bytes, 4096);
        assert_eq!(read_all(&volume, 2, &location).await.unwrap(), sealed(2, 300));
    });
}

/// A table that was restored from an old copy: the volume does not open, however often it is tried.
#[test]
fn a_segment_that_the_table_forgot_keeps_the_volume_shut() {
    run(async {
        let mut rig = Rig::new(SimDisk::new(12), 12);
        let (volume, _) = rig.open().await;
        let forgotten = write_some(&volume, 0).await[1].segment();
        drop(volume);
        settle().await;
        let mut rows = rig.table.load().unwrap();
        rows.retain(|row| row.segment != forgotten);
        rig.table = MemoryTable::default();
        rig.table.put(rows).await.unwrap();
        for _ in 0..2 {
            let refused = rig.open_with(config(8 * MIB)).await.err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
        }
    });
}

/// Metadata that is behind what an extent says was synced: acknowledged rows are missing. The
/// refusal writes nothing, so a second start refuses too; with the rows back, the volume opens.
#[test]
fn metadata_behind_the_watermark_keeps_the_volume_shut() {
    run(async {
        let sim = SimDisk::new(14);
        let rig = Rig::new(sim.clone(), 14);
        let (volume, _) = rig.open().await;
        rig.meta_seq.store(77, Ordering::SeqCst);
        write_some(&volume, 0).await;
        drop(volume);
        settle().await;
        let rig = rig.after(sim.crash());
        rig.meta_seq.store(76, Ordering::SeqCst);
        for _ in 0..2 {
            let refused = rig.open_with(config(8 * MIB)).await.err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
        }
        rig.meta_seq.store(77, Ordering::SeqCst);
        let (volume, report) = rig.open().await;
        assert_eq!(report.max_meta_seq, 77);
        // From here on the superblock holds it: the segments that did are closed.
        drop(volume);
        settle().await;
        rig.meta_seq.store(76, Ordering::SeqCst);
        let refused = rig.open_with(config(8 * MIB)).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
    });
}

/// A reader that failed goes on failing: it never skips what it could not yield.
#[test]
fn a_reader_that_failed_leaves_no_gap() {
    run(async {
        let sim = SimDisk::new(13);
        let rig = Rig::new(sim.clone(), 13);
        let (volume, _) = rig.open().await;
        let placed = put_streamed(&volume, 1, 20 * CHUNK_BYTES).await.unwrap();
        let location = *placed.location();
        let at = location.offset() + u64::from(location.stored_len()) - 1;
        sim.rot(&file_name(location.segment()), at, 0).unwrap();
        let mut reader = volume.reader(extent_id(1), &location, 0..20).unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap().len(), 15);
        for _ in 0..3 {
            assert_eq!(kind(reader.next().await), ErrorKind::Corrupt);
        }
    });
}
