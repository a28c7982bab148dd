//! How far a segment is final while writers are at work in it.

use super::*;
use crate::blob::ExtentWriter;

async fn write_chunk(writer: &mut ExtentWriter, chunk: &[u8]) {
    writer.chunk().await.unwrap().copy_from_slice(chunk);
    writer.seal_chunk().unwrap();
}

/// The one segment that is open.
fn open_segment(volume: &Volume) -> u32 {
    let rows = volume.segments();
    rows.iter().find(|row| row.state == SegmentState::Open).unwrap().segment
}

#[test]
fn nothing_behind_an_unfinished_writer_is_settled() {
    run(async {
        let rig = Rig::new(SimDisk::new(5), 5);
        let (volume, _) = rig.open().await;
        let first = put_packed(&volume, &rig.pool, 1, 1_000).await.unwrap();
        let segment = open_segment(&volume);
        // Written, but neither published nor given up.
        let reach = volume.reach(segment).unwrap();
        assert_eq!((reach.settled, reach.end), (0, 4096));
        drop(first);
        let reach = volume.reach(segment).unwrap();
        assert_eq!((reach.settled, reach.end), (4096, 4096));

        let mut writer = volume.extent_writer(plan(2, 3 * MIB)).await.unwrap();
        let bytes = sealed(2, 3 * MIB);
        let chunks: Vec<&[u8]> = bytes.chunks(FULL).collect();
        let (begin, rest) = chunks.split_at(40);
        for chunk in begin {
            write_chunk(&mut writer, chunk).await;
        }
        // Behind the range that the writer has reserved.
        let behind = put_packed(&volume, &rig.pool, 3, 1_000).await.unwrap();
        volume.flush(std::slice::from_ref(&behind)).await.unwrap();
        drop(behind);
        let reach = volume.reach(segment).unwrap();
        assert_eq!(reach.settled, 4096);
        assert!(reach.end > 4096 + 3 * MIB, "{reach:?}");
        for chunk in rest {
            write_chunk(&mut writer, chunk).await;
        }
        let placed = writer.finish().await.unwrap();
        assert_eq!(volume.reach(segment).unwrap().settled, 4096);
        drop(placed);
        let reach = volume.reach(segment).unwrap();
        assert_eq!(reach.settled, reach.end);
        volume.close().await.unwrap();
        let closed = volume.reach(segment).unwrap();
        assert_eq!((closed.settled, closed.end), (reach.end, reach.end));
    });
}

#[test]
fn bytes_are_given_as_they_lie_and_bad_blocks_as_zeros() {
    run(async {
        let disk = SimDisk::new(6);
        let rig = Rig::new(disk.clone(), 6);
        let (volume, _) = rig.open().await;
        let placed = put_packed(&volume, &rig.pool, 1, 20_000).await.unwrap();
        volume.flush(std::slice::from_ref(&placed)).await.unwrap();
        let segment = placed.location().segment();
        let read = async |bytes: usize| {
            let mut buf = rig.pool.acquire(BufClass::Large).await;
            buf.set_len(bytes);
            volume.read_bytes(segment, buf, 0).await
        };
        let (whole, lost) = read(20_480).await;
        assert_eq!(lost.unwrap(), 0);
        assert!(whole.starts_with(b"XTNT"));
        // The read of all, and then that of the second block.
        disk.inject(SimOp::Read, 0, SimFault::Eio);
        disk.inject(SimOp::Read, 2, SimFault::Eio);
        let (patched, lost) = read(20_480).await;
        assert_eq!(lost.unwrap(), 4096);
        assert!(patched[..4096] == whole[..4096] && patched[8192..] == whole[8192..]);
        assert!(patched[4096..8192].iter().all(|byte| *byte == 0));
        let buf = rig.pool.acquire(BufClass::Large).await;
        let (_, missing) = volume.read_bytes(segment + 1, buf, 0).await;
        assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    });
}
