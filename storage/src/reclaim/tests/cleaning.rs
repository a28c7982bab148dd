//! One segment cleaned: what moves, what stays, who may go on reading.

use super::*;
use crate::blob::{ChunkRead, RecordBody, file_name_of};
use crate::io::sim::{SimFault, SimOp};

const SIZES: [u64; 5] = [0, 5_000, 70_000, 300_000, 1_100_000];

/// Fills segments until three are closed; the objects and their sizes.
async fn fill(bench: &Bench, first: u64) -> BTreeMap<u64, u64> {
    let mut objects = BTreeMap::new();
    for object in first.. {
        let size = SIZES[usize::try_from(object % 5).unwrap()];
        bench.put(object, size).await.unwrap();
        objects.insert(object, size);
        // The last one's hold on its segment ends with its commit; the janitor closes it then.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        if bench.closed().len() >= 3 {
            break;
        }
    }
    objects
}

#[test]
fn survivors_move_and_the_segment_is_used_again() {
    run(async {
        let bench = Ledger::new(1, None).open().await;
        let mut objects = fill(&bench, 0).await;
        let victim = bench.closed()[0];
        let mut old = Vec::new();
        for object in objects.keys().copied().collect::<Vec<_>>() {
            let location = bench.location(object).await;
            if location.segment() == victim {
                old.push((object, location));
            }
        }
        assert!(old.len() > 3, "the segment holds several objects");
        let before = bench.row(victim);
        bench.delete(old[0].0).await;
        objects.remove(&old[0].0);
        let (tally, end) = bench.clean(victim).await.unwrap();
        assert!(matches!(end, Step::Freed), "{end:?}");
        assert_eq!(tally.extents, old.len() as u64 - 1);
        assert_eq!((tally.lost, tally.damaged), (0, 0));
        bench.check(&objects).await;
        let row = bench.row(victim);
        assert_eq!((row.state, row.incarnation), (SegmentState::Free, before.incarnation));
        for (object, location) in &old {
            let refused = bench.read_at(*object, location).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Moved, "free, and not used again yet");
        }
        objects.extend(fill_more(&bench, 1_000).await);
        let row = bench.row(victim);
        assert!(row.incarnation > before.incarnation, "it is in use again");
        for (object, location) in &old {
            let refused = bench.read_at(*object, location).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Moved, "used by others");
        }
        bench.check(&objects).await;
    });
}

fn collect(bytes: &mut Vec<u8>, mut read: ChunkRead) {
    let spans: Vec<_> = read.spans().collect();
    for span in spans {
        bytes.extend_from_slice(&read.buf_mut()[span.range]);
    }
}

/// Writes more than two segments.
async fn fill_more(bench: &Bench, first: u64) -> BTreeMap<u64, u64> {
    let mut objects = BTreeMap::new();
    for object in first..first + 5 {
        bench.put(object, 1_100_000).await.unwrap();
        objects.insert(object, 1_100_000);
    }
    objects
}

#[test]
fn a_copy_says_what_the_original_said() {
    run(async {
        let bench = Ledger::new(2, None).open().await;
        let objects = fill(&bench, 0).await;
        let victim = bench.closed()[0];
        bench.clean(victim).await.unwrap();
        let mut copies = 0;
        for object in objects.keys() {
            let location = bench.location(*object).await;
            let mut scan = bench.volume.scan_segment(location.segment()).await.unwrap();
            while let Some(found) = scan.next().await.unwrap() {
                let crate::blob::Found::Extent { header, location: at } = found else { continue };
                let RecordBody::Extent { id, layout, .. } = header.body else { continue };
                if at == location {
                    assert_eq!((id, layout), (bench.extent(*object), location.layout()));
                    copies += 1;
                }
            }
            let bad = bench.volume.verify(bench.extent(*object), &location).await.unwrap();
            assert!(bad.is_empty());
        }
        assert_eq!(copies, objects.len());
    });
}

#[test]
fn who_reads_keeps_the_segment_until_the_last_byte() {
    run(async {
        let bench = Ledger::new(3, None).open().await;
        let objects = fill(&bench, 0).await;
        let victim = bench.closed()[0];
        let mut object = 0;
        for candidate in objects.keys().filter(|object| objects[object] == 1_100_000) {
            if bench.location(*candidate).await.segment() == victim {
                object = *candidate;
            }
        }
        let location = bench.location(object).await;
        assert_eq!(location.segment(), victim, "a long one lies in it");
        let chunks = 0..location.n_chunks();
        let mut reader = bench.volume.reader(bench.extent(object), &location, chunks).unwrap();
        let mut bytes = Vec::new();
        collect(&mut bytes, reader.next().await.unwrap().unwrap());

        let mut cleaner = Cleaner::begin(bench.ground(), victim).await.unwrap();
        let mut waited = 0;
        while waited < 5 {
            match cleaner.step(bench.ground()).await.unwrap() {
                Step::Moved(_) => {}
                Step::Read => waited += 1,
                end => panic!("{end:?} under a reader"),
            }
        }
        assert_eq!(bench.row(victim).state, SegmentState::Cleaning);
        let late = bench.volume.reader(bench.extent(object), &location, 0..1);
        assert_eq!(late.err().unwrap().kind(), ErrorKind::Moved, "nobody else is let in");
        while let Some(read) = reader.next().await.unwrap() {
            collect(&mut bytes, read);
        }
        assert_eq!(bytes, sealed(object, 1_100_000));
        assert!(matches!(cleaner.step(bench.ground()).await.unwrap(), Step::Read));
        drop(reader);
        assert!(matches!(cleaner.step(bench.ground()).await.unwrap(), Step::Freed));
        bench.check(&objects).await;
    });
}

/// Deletes race moves, from many seeds: sometimes the delete wins while the copy is being made.
#[test]
fn a_delete_that_is_faster_leaves_a_dead_copy() {
    let mut lost = 0;
    for seed in 0..60 {
        lost += run(async {
            let bench = Ledger::new(seed, None).open().await;
            let mut objects = fill(&bench, 0).await;
            let victim = bench.closed()[0];
            let names: Vec<_> = objects.keys().copied().filter(|object| object % 3 == 0).collect();
            let deleting = async {
                for object in &names {
                    for _ in 0..seed % 7 {
                        tokio::task::yield_now().await;
                    }
                    bench.delete(*object).await;
                }
            };
            let (cleaned, ()) = tokio::join!(bench.clean(victim), deleting);
            let (tally, end) = cleaned.unwrap();
            assert!(matches!(end, Step::Freed), "{end:?}");
            objects.retain(|object, _| !names.contains(object));
            bench.check(&objects).await;
            tally.lost
        });
    }
    assert!(lost > 0, "no delete was ever faster");
}

#[test]
fn a_damaged_extent_keeps_its_segment_and_nothing_else() {
    run(async {
        let ledger = Ledger::new(5, None);
        let bench = ledger.open().await;
        let mut objects = fill(&bench, 0).await;
        let victim = bench.closed()[0];
        let mut inside = Vec::new();
        for object in objects.keys() {
            if bench.location(*object).await.segment() == victim {
                inside.push(*object);
            }
        }
        let bad = *inside.iter().find(|object| objects[object] == 70_000).unwrap();
        let location = bench.location(bad).await;
        ledger.disk.rot(&file_name_of(victim), location.offset() + 30_000, 3).unwrap();
        let (tally, end) = bench.clean(victim).await.unwrap();
        assert!(matches!(end, Step::Kept(_)), "{end:?}");
        assert_eq!((tally.extents, tally.damaged), (inside.len() as u64 - 1, 1));
        assert_eq!(bench.row(victim).state, SegmentState::Closed);
        assert_eq!(bench.location(bad).await, location, "it stays where it is");
        assert_eq!(bench.read(bad).await.unwrap_err().kind(), ErrorKind::Corrupt);
        objects.remove(&bad);
        for (object, plain_len) in &objects {
            assert_eq!(bench.read(*object).await.unwrap(), sealed(*object, *plain_len));
        }
        // Once it is deleted, nothing keeps the segment.
        bench.delete(bad).await;
        let (_, end) = bench.clean(victim).await.unwrap();
        assert!(matches!(end, Step::Freed), "{end:?}");
        bench.check(&objects).await;
    });
}

/// A live extent whose header is gone is found by no walk: only the count knows of it.
#[test]
fn a_lost_header_keeps_its_segment() {
    run(async {
        let ledger = Ledger::new(6, None);
        let bench = ledger.open().await;
        let objects = fill(&bench, 0).await;
        let victim = bench.closed()[0];
        let mut lost = None;
        for object in objects.keys() {
            let location = bench.location(*object).await;
            if location.segment() == victim {
                lost = Some(location);
            }
        }
        ledger.disk.rot(&file_name_of(victim), lost.unwrap().offset(), 0).unwrap();
        let (_, end) = bench.clean(victim).await.unwrap();
        assert!(matches!(end, Step::Kept(_)), "{end:?}");
        assert_eq!(bench.row(victim).state, SegmentState::Closed);
    });
}

/// Any write, read or flush may fail while a segment is cleaned: nothing is lost by it.
#[test]
fn no_failed_operation_loses_an_object() {
    for op in [SimOp::Write, SimOp::Sync, SimOp::Read, SimOp::Create] {
        for after in 0..6 {
            run(async {
                let ledger = Ledger::new(7 + after, None);
                let bench = ledger.open().await;
                let objects = fill(&bench, 0).await;
                let victim = bench.closed()[0];
                ledger.disk.inject(op, after, SimFault::Eio);
                let cleaned = bench.clean(victim).await;
                if matches!(op, SimOp::Write | SimOp::Sync) && ledger.disk.faults_left() == 0 {
                    assert!(!matches!(cleaned, Ok((_, Step::Freed))), "{op:?} {after}: freed");
                }
                drop(bench);
                let bench = ledger.crash(SimCrash::LoseAll).open().await;
                bench.check(&objects).await;
                let (_, end) = match bench.row(victim).state {
                    SegmentState::Closed => bench.clean(victim).await.unwrap(),
                    _ => (Tally::default(), Step::Freed),
                };
                assert!(matches!(end, Step::Freed), "{op:?} {after}: {end:?}");
                bench.check(&objects).await;
            });
        }
    }
}
