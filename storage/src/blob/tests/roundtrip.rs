//! What is written is read, in every size and many at a time.

use std::collections::BTreeSet;

use super::*;

const PACKED: [u64; 9] = [0, 1, 15, 4_096, 65_535, 65_536, 65_537, 131_072, 262_000];
const STREAMED: [u64; 14] = [
    0,
    1,
    65_536,
    65_537,
    200_000,
    900_000,
    15 * CHUNK_BYTES,
    15 * CHUNK_BYTES + 1,
    16 * CHUNK_BYTES,
    30 * CHUNK_BYTES,
    31 * CHUNK_BYTES + 7,
    4 * MIB - CHUNK_BYTES + 1,
    4 * MIB - 1,
    4 * MIB,
];

async fn check_every_size(rig: &Rig) {
    let (volume, report) = rig.open().await;
    assert!(report.created);
    let mut placed = Vec::new();
    for (number, plain_len) in (0..).zip(PACKED) {
        placed.push((number, plain_len, put_packed(&volume, &rig.pool, number, plain_len).await));
    }
    for (number, plain_len) in (100..).zip(STREAMED) {
        placed.push((number, plain_len, put_streamed(&volume, number, plain_len).await));
    }
    let mut locations = Vec::new();
    for (number, plain_len, placed) in placed {
        let placed = [placed.unwrap()];
        volume.flush(&placed).await.unwrap();
        locations.push((number, plain_len, *placed[0].location()));
    }
    for reopened in [false, true] {
        let (volume, _) = if reopened {
            volume.close().await.unwrap();
            rig.open().await
        } else {
            (volume.clone(), report.clone())
        };
        for (number, plain_len, location) in &locations {
            let location = Location::decode(&location.encode()).unwrap();
            let expected = sealed(*number, *plain_len);
            assert_eq!(read_all(&volume, *number, &location).await.unwrap(), expected);
            assert!(volume.verify(extent_id(*number), &location).await.unwrap().is_empty());
        }
        let found = extents(&scan_all(&volume).await);
        let expected: Vec<_> = locations.iter().map(|(number, _, at)| (*number, *at)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn every_size_round_trips_in_simulation() {
    run(check_every_size(&Rig::new(SimDisk::new(1), 1)));
}

#[test]
fn every_size_round_trips_through_real_files() {
    let dir = tempfile::tempdir().unwrap();
    run(check_every_size(&Rig::threads(dir.path())));
}

#[test]
fn every_range_of_chunks_reads_what_lies_there() {
    run(async {
        let rig = Rig::new(SimDisk::new(2), 2);
        let (volume, _) = rig.open().await;
        let plain_len = 19 * CHUNK_BYTES + 100;
        drop(put_packed(&volume, &rig.pool, 1, 5_000).await.unwrap());
        let placed = put_streamed(&volume, 2, plain_len).await.unwrap();
        let expected = sealed(2, plain_len);
        for start in 0..20 {
            for end in start + 1..=20 {
                let bytes = read(&volume, 2, placed.location(), start..end).await.unwrap();
                let to = (end as usize * FULL).min(expected.len());
                assert_eq!(bytes, expected[start as usize * FULL..to], "{start}..{end}");
            }
        }
        let one = volume.read(extent_id(2), placed.location(), 19..20).await.unwrap();
        assert_eq!((one.len(), one.is_empty()), (1, false));
        assert!(one.into_buf().capacity() < 1 << 20, "one chunk takes a small buffer");
        for bad in [0..0, 20..21, 0..21] {
            let reader = volume.reader(extent_id(2), placed.location(), bad);
            assert_eq!(kind(reader), ErrorKind::Misuse);
        }
        let too_much = volume.read(extent_id(2), placed.location(), 0..20).await;
        assert_eq!(kind(too_much), ErrorKind::Misuse);
    });
}

/// Small and large at once; every extent must read back, and no two may share a byte.
async fn check_many_writers(rig: &Rig, count: u32) {
    let (volume, _) = rig.open().await;
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let (volume, pool) = (volume.clone(), rig.pool.clone());
            tokio::spawn(async move {
                let plain_len = match number % 8 {
                    0 => 4 * MIB - u64::from(number),
                    1 => 300_000,
                    rest => u64::from(rest) * 7_919,
                };
                let placed = [put(&volume, &pool, number, plain_len).await.unwrap()];
                volume.flush(&placed).await.unwrap();
                let location = *placed[0].location();
                let bytes = read_all(&volume, number, &location).await.unwrap();
                assert_eq!(bytes, sealed(number, plain_len));
                (number, plain_len, location)
            })
        })
        .collect();
    let mut ranges = Vec::new();
    for task in tasks {
        let (number, plain_len, location) = task.await.unwrap();
        let bytes = read_all(&volume, number, &location).await.unwrap();
        assert_eq!(bytes, sealed(number, plain_len));
        let end = location.offset() + u64::from(location.stored_len());
        ranges.push((location.segment(), location.offset(), end));
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "{pair:?} overlap");
    }
    assert_eq!(extents(&scan_all(&volume).await).len(), count as usize);
    let usage = volume.usage();
    assert_eq!(usage.segments_open, 1);
    assert!(usage.allocated_bytes >= usage.written_bytes && usage.written_bytes > 0);
}

#[test]
fn many_writers_at_once_in_simulation() {
    for seed in 0..4 {
        run(check_many_writers(&Rig::new(SimDisk::new(seed), seed), 64));
    }
}

#[test]
fn many_writers_at_once_through_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::threads(dir.path());
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(4).enable_time().build().unwrap();
    runtime.block_on(check_many_writers(&rig, 96));
}

#[test]
fn small_extents_share_writes_and_flushes() {
    run(async {
        let sim = SimDisk::new(3);
        let rig = Rig::new(sim.clone(), 3);
        let (volume, _) = rig.open().await;
        let (writes, syncs) = (sim.count(SimOp::Write), sim.count(SimOp::Sync));
        let puts = (0..100).map(|number| {
            let (volume, pool) = (volume.clone(), rig.pool.clone());
            async move {
                let placed = [put_packed(&volume, &pool, number, 5_000).await.unwrap()];
                volume.flush(&placed).await.unwrap();
                *placed[0].location()
            }
        });
        let locations = futures::future::join_all(puts).await;
        let offsets: BTreeSet<u64> = locations.iter().map(Location::offset).collect();
        assert_eq!(offsets.len(), 100);
        assert!(offsets.iter().all(|offset| offset.is_multiple_of(8)));
        let (writes, syncs) = (sim.count(SimOp::Write) - writes, sim.count(SimOp::Sync) - syncs);
        assert!(writes <= 10, "{writes} writes");
        assert!(syncs <= 10, "{syncs} flushes");
    });
}

#[test]
fn what_is_durable_already_is_not_flushed_again() {
    run(async {
        let sim = SimDisk::new(4);
        let rig = Rig::new(sim.clone(), 4);
        let (volume, _) = rig.open().await;
        let first = put_packed(&volume, &rig.pool, 1, 10).await.unwrap();
        let second = put_streamed(&volume, 2, 10).await.unwrap();
        let both = [first, second];
        volume.flush(&both).await.unwrap();
        let syncs = sim.count(SimOp::Sync);
        volume.flush(&both[..1]).await.unwrap();
        volume.flush(&both).await.unwrap();
        volume.flush(&[]).await.unwrap();
        assert_eq!(sim.count(SimOp::Sync), syncs);
    });
}

/// More writers than the pool has slabs for, each of which needs two and would like three.
#[test]
fn writers_never_wait_for_each_other_in_a_circle() {
    let pool = BufPool::new(6 << 20, false).unwrap();
    let rig = Rig::over(Arc::new(SimDisk::new(5)), pool, 5);
    run(async {
        let settings = VolumeConfig { writer_slabs_max: 3, ..config(8 * MIB) };
        let (volume, _) = rig.open_with(settings).await.unwrap();
        let puts = (0..12).map(|number| put_streamed(&volume, number, 4 * MIB));
        for placed in futures::future::join_all(puts).await {
            drop(placed.unwrap());
        }
        drop(volume);
        settle().await;
    });
    assert_eq!(rig.pool.stats().bytes_used, 0, "every buffer came back");
}

#[test]
fn lanes_do_not_share_segments_and_open_at_their_first_extent() {
    run(async {
        let rig = Rig::new(SimDisk::new(6), 6);
        let (volume, _) = rig.open().await;
        assert_eq!(volume.segments(), []);
        assert_eq!(volume.usage().allocated_bytes, 0);
        let hot = put_streamed(&volume, 1, 100_000).await.unwrap();
        assert_eq!(volume.segments().len(), 1);
        let part = ExtentPlan { lane: Lane::Part, ..plan(2, 100_000) };
        let part = stream(&volume, part).await.unwrap();
        assert_ne!(hot.location().segment(), part.location().segment());
        assert_eq!(volume.usage().segments_open, 2);
    });
}

#[test]
fn a_segment_is_rolled_when_an_extent_does_not_fit_and_closed_when_nothing_pins_it() {
    run(async {
        let rig = Rig::new(SimDisk::new(7), 7);
        let (volume, _) = rig.open().await;
        let first = put_streamed(&volume, 1, 4 * MIB).await.unwrap();
        let second = put_streamed(&volume, 2, 4 * MIB).await.unwrap();
        assert_ne!(first.location().segment(), second.location().segment());
        let state = |volume: &Volume| volume.segments()[0].state;
        assert_eq!(state(&volume), SegmentState::Closing);
        drop(first);
        settle().await;
        assert_eq!(state(&volume), SegmentState::Closed);
        assert!(volume.segments()[0].written_bytes >= 4 * MIB);
        let third = put_streamed(&volume, 3, 4 * MIB).await.unwrap();
        assert_eq!(volume.segments()[1].state, SegmentState::Closing);
        drop((second, third));
    });
}

#[test]
fn misuse_is_refused_and_harms_nobody() {
    run(async {
        let rig = Rig::new(SimDisk::new(8), 8);
        let (volume, _) = rig.open_with(config(MIB)).await.unwrap();
        for bytes in [0, 15, 65_552 + 16] {
            let mut buf = rig.pool.acquire(BufClass::Small).await;
            buf.set_len(bytes);
            let put = volume.put_packed(extent_id(1), 0, buf).await;
            assert_eq!(kind(put), ErrorKind::Misuse);
        }
        let mut buf = rig.pool.acquire(BufClass::Large).await;
        buf.set_len(PACKED_BYTES_MAX + 1);
        assert_eq!(kind(volume.put_packed(extent_id(1), 0, buf).await), ErrorKind::Misuse);
        let odd = ExtentPlan { logical_off: 1, ..plan(1, 10) };
        assert_eq!(kind(volume.extent_writer(odd).await), ErrorKind::Misuse);
        for too_long in [MIB, 4 * MIB + 1] {
            assert_eq!(kind(volume.extent_writer(plan(1, too_long)).await), ErrorKind::Misuse);
        }
        let mut writer = volume.extent_writer(plan(1, 70_000)).await.unwrap();
        assert_eq!(kind(writer.seal_chunk()), ErrorKind::Misuse);
        writer.chunk().await.unwrap().fill(1);
        assert_eq!(kind(writer.chunk().await), ErrorKind::Misuse);
        writer.seal_chunk().unwrap();
        assert_eq!(kind(writer.finish().await), ErrorKind::Misuse);
        assert!(!volume.is_fenced());
        let placed = put_packed(&volume, &rig.pool, 1, 10).await.unwrap();
        assert_eq!(read_all(&volume, 1, placed.location()).await.unwrap(), sealed(1, 10));
    });
}
