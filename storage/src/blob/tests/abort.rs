//! Writers that are dropped leave a filler and nothing else.

use std::pin::pin;
use std::task::Poll;

use super::*;

/// Writes `chunks` chunks and drops the writer, once with a place still lent.
async fn abandon(volume: &Volume, number: u32, chunks: usize, lent: bool) {
    let bytes = sealed(number, 4 * MIB);
    let mut writer = volume.extent_writer(plan(number, 4 * MIB)).await.unwrap();
    for chunk in bytes.chunks(FULL).take(chunks) {
        writer.chunk().await.unwrap().copy_from_slice(chunk);
        writer.seal_chunk().unwrap();
    }
    if lent {
        writer.chunk().await.unwrap().fill(0x5A);
    }
}

#[test]
fn an_abandoned_range_becomes_a_filler_and_hides_nothing() {
    for chunks in 0..64 {
        run(async {
            let rig = Rig::new(SimDisk::new(chunks as u64), 1);
            let (volume, _) = rig.open_with(config(16 * MIB)).await.unwrap();
            let before = put_packed(&volume, &rig.pool, 1, 5_000).await.unwrap();
            abandon(&volume, 2, chunks, chunks % 2 == 0).await;
            let after = put_streamed(&volume, 3, 100_000).await.unwrap();
            settle().await;
            let found = scan_all(&volume).await;
            let numbers = [(1, *before.location()), (3, *after.location())];
            assert_eq!(extents(&found), numbers);
            let is_filler = |found: &&Found| matches!(found, Found::Filler { .. });
            // Nothing is reserved before the second slab is full.
            let taken_places = chunks + usize::from(chunks % 2 == 0);
            let fillers = usize::from(taken_places > 30);
            assert_eq!(found.iter().filter(is_filler).count(), fillers, "{chunks} chunks");
            assert_eq!(found.len(), 2 + fillers);
            let abandoned = 1_025 * 4_096 * fillers as u64;
            assert_eq!(volume.usage().abandoned_bytes, abandoned);
            assert_eq!(read_all(&volume, 3, after.location()).await.unwrap(), sealed(3, 100_000));
        });
    }
}

#[test]
fn an_abandoned_range_pins_its_segment_until_the_filler_is_written() {
    run(async {
        let rig = Rig::new(SimDisk::new(1), 1);
        let (volume, _) = rig.open().await;
        abandon(&volume, 1, 40, false).await;
        drop(put_streamed(&volume, 2, 4 * MIB).await.unwrap());
        drop(put_streamed(&volume, 3, 4 * MIB).await.unwrap());
        settle().await;
        let closed = |row: &&SegmentRow| row.state == SegmentState::Closed;
        assert_eq!(volume.segments().iter().filter(closed).count(), 2);
        assert_eq!(scan_all(&volume).await.len(), 3);
    });
}

#[test]
fn a_place_that_was_lent_and_not_sealed_is_wiped() {
    let pool = BufPool::new(4 << 20, false).unwrap();
    let rig = Rig::over(Arc::new(SimDisk::new(1)), pool, 1);
    run(async {
        let (volume, _) = rig.open().await;
        abandon(&volume, 1, 3, true).await;
        drop(volume);
        settle().await;
    });
    let mut bufs = Vec::new();
    while let Some(mut buf) = rig.pool.try_acquire(BufClass::Large) {
        buf.set_len(buf.capacity());
        assert!(!buf.windows(64).any(|bytes| bytes == [0x5A; 64]));
        bufs.push(buf);
    }
    assert_eq!(bufs.len(), 4);
}

/// Polls `future` up to `polls` times, letting others run in between, and drops it.
async fn poll_some<T>(future: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(done) = futures::poll!(future.as_mut()) {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// A client that leaves at any moment of a put: whatever is left is a record, a filler or nothing,
/// and the volume goes on.
#[test]
fn a_put_dropped_at_any_moment_harms_nobody() {
    for polls in 0..60 {
        run(async {
            let seed = u64::from(polls);
            let rig = Rig::new(SimDisk::new(seed), seed);
            let (volume, _) = rig.open_with(config(16 * MIB)).await.unwrap();
            let first = poll_some(put_streamed(&volume, 1, 3 * MIB), polls).await;
            let second = poll_some(put_packed(&volume, &rig.pool, 2, 5_000), polls % 20).await;
            let last = [put_streamed(&volume, 3, 200_000).await.unwrap()];
            settle().await;
            volume.flush(&last).await.unwrap();
            let found = scan_all(&volume).await;
            assert!(!found.iter().any(|found| matches!(found, Found::Damaged { .. })));
            for (number, location) in extents(&found) {
                let plain_len = [3 * MIB, 5_000, 200_000][number as usize - 1];
                let bytes = read_all(&volume, number, &location).await.unwrap();
                assert_eq!(bytes, sealed(number, plain_len));
            }
            for placed in [first, second].into_iter().flatten() {
                assert!(placed.is_ok());
            }
            drop(last);
            volume.close().await.unwrap();
            let closed = |row: &SegmentRow| row.state == SegmentState::Closed;
            assert!(volume.segments().iter().all(closed), "nothing pins a segment any more");
        });
    }
}
