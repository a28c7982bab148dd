//! Errors of the disk at every write and flush fence the volume.

use super::*;

/// What follows a failed write or flush: no more writes, but reads.
async fn check_fenced(volume: &Volume, rig: &Rig, kept: &Placed) {
    assert!(volume.is_fenced());
    assert!(volume.fence_reason().is_some());
    assert_eq!(kind(put_packed(volume, &rig.pool, 90, 10).await), ErrorKind::Fenced);
    assert_eq!(kind(put_streamed(volume, 91, 10).await), ErrorKind::Fenced);
    assert_eq!(kind(volume.flush(std::slice::from_ref(kept)).await), ErrorKind::Fenced);
    assert_eq!(kind(volume.close().await), ErrorKind::Fenced);
    assert_eq!(read_all(volume, 1, kept.location()).await.unwrap(), sealed(1, 70_000));
}

/// Lets one operation of a kind fail, at each place where one starts.
fn check_every_site(op: SimOp, fault: SimFault) {
    for site in 0.. {
        let sim = SimDisk::new(site);
        let failed = run(async {
            let rig = Rig::new(sim.clone(), site);
            let (volume, _) = rig.open_with(config(5 * MIB)).await.unwrap();
            let kept = [put_packed(&volume, &rig.pool, 1, 70_000).await.unwrap()];
            volume.flush(&kept).await.unwrap();
            sim.inject(op, site, fault);
            let failed = write_and_flush(&volume, &rig).await.is_err();
            if !failed {
                return false;
            }
            check_fenced(&volume, &rig, &kept[0]).await;
            drop(volume);
            settle().await;
            let (volume, _) = rig.open_with(config(5 * MIB)).await.unwrap();
            assert_eq!(read_all(&volume, 1, kept[0].location()).await.unwrap(), sealed(1, 70_000));
            write_and_flush(&volume, &rig).await.unwrap();
            true
        });
        if !failed {
            assert_eq!(sim.faults_left(), 1, "a fault was swallowed");
            assert!(site >= 2, "{op:?} happens more than twice");
            return;
        }
    }
}

/// Packed, streamed, streamed in another segment; each flushed.
async fn write_and_flush(volume: &Volume, rig: &Rig) -> Result<()> {
    let packed = [put_packed(volume, &rig.pool, 2, 10_000).await?];
    volume.flush(&packed).await?;
    for number in [3, 4] {
        let streamed = [put_streamed(volume, number, 4 * MIB).await?];
        volume.flush(&streamed).await?;
    }
    Ok(())
}

#[test]
fn a_failed_write_fences_wherever_it_happens() {
    check_every_site(SimOp::Write, SimFault::Eio);
    check_every_site(SimOp::Write, SimFault::Enospc);
}

#[test]
fn a_failed_flush_fences_wherever_it_happens() {
    check_every_site(SimOp::Sync, SimFault::Eio);
}

#[test]
fn a_failed_flush_is_answered_to_everybody_in_the_group() {
    run(async {
        let sim = SimDisk::new(1);
        let rig = Rig::new(sim.clone(), 1);
        let (volume, _) = rig.open().await;
        let mut placed = Vec::new();
        for number in 0..10 {
            placed.push([put_packed(&volume, &rig.pool, number, 100).await.unwrap()]);
        }
        sim.inject(SimOp::Sync, 0, SimFault::Eio);
        let flushes = placed.iter().map(|placed| volume.flush(placed));
        for answer in futures::future::join_all(flushes).await {
            assert_eq!(kind(answer), ErrorKind::Fenced);
        }
    });
}

#[test]
fn no_space_for_a_segment_is_full_and_passes() {
    run(async {
        let sim = SimDisk::with(SimConfig { seed: 1, capacity_bytes: 9 * MIB });
        let rig = Rig::new(sim.clone(), 1);
        let (volume, _) = rig.open().await;
        let first = [put_streamed(&volume, 1, 4 * MIB).await.unwrap()];
        volume.flush(&first).await.unwrap();
        assert_eq!(kind(put_streamed(&volume, 2, 4 * MIB).await), ErrorKind::Full);
        assert!(!volume.is_fenced());
        // What still fits in the open segment is still taken.
        let small = [put_packed(&volume, &rig.pool, 3, 100_000).await.unwrap()];
        volume.flush(&small).await.unwrap();
        let part = ExtentPlan { lane: Lane::Part, ..plan(4, 10) };
        assert_eq!(kind(stream(&volume, part).await), ErrorKind::Full);
        assert_eq!(read_all(&volume, 1, first[0].location()).await.unwrap(), sealed(1, 4 * MIB));
        assert_eq!(volume.usage().allocated_bytes, 8 * MIB);
    });
}

#[test]
fn one_failed_creation_is_not_the_end() {
    run(async {
        for fault in [SimFault::Enospc, SimFault::Eio] {
            let sim = SimDisk::new(1);
            let rig = Rig::new(sim.clone(), 1);
            let (volume, _) = rig.open().await;
            sim.inject(SimOp::Create, 0, fault);
            let expected = match fault {
                SimFault::Enospc => ErrorKind::Full,
                _ => ErrorKind::Unavailable,
            };
            assert_eq!(kind(put_packed(&volume, &rig.pool, 1, 10).await), expected);
            assert!(!volume.is_fenced());
            let placed = [put_packed(&volume, &rig.pool, 1, 10).await.unwrap()];
            volume.flush(&placed).await.unwrap();
        }
    });
}

/// Two segments are for clients and one for survivors, who may take one more in need.
#[test]
fn the_volume_keeps_to_its_limit() {
    run(async {
        let rig = Rig::new(SimDisk::new(1), 1);
        let settings = VolumeConfig { volume_bytes_max: Some(25 * MIB), ..config(8 * MIB) };
        let (volume, _) = rig.open_with(settings).await.unwrap();
        for number in 0..2 {
            assert!(!volume.is_full());
            drop(put_streamed(&volume, number, 4 * MIB).await.unwrap());
        }
        assert_eq!(kind(put_streamed(&volume, 2, 4 * MIB).await), ErrorKind::Full);
        assert_eq!(volume.usage().allocated_bytes, 16 * MIB);
        assert!(volume.is_full());
        assert_eq!(kind(volume.admit(5 * MIB)), ErrorKind::Full);
        volume.admit(3 * MIB).unwrap();
        for number in 3..5 {
            let survivor = ExtentPlan { lane: Lane::Cold, ..plan(number, 4 * MIB) };
            drop(stream(&volume, survivor).await.unwrap());
        }
        assert_eq!(volume.usage().allocated_bytes, 32 * MIB);
        let survivor = ExtentPlan { lane: Lane::Cold, ..plan(5, 4 * MIB) };
        assert_eq!(kind(stream(&volume, survivor).await), ErrorKind::Full);
        assert_eq!(volume.usage().allocated_bytes, 32 * MIB);
    });
}

/// A table that fails when it is told to.
#[derive(Clone, Default)]
struct BrokenTable(MemoryTable, Arc<AtomicU64>);

impl SegmentTable for BrokenTable {
    fn load(&self) -> Result<Vec<SegmentRow>> {
        self.0.load()
    }

    fn put(&self, rows: Vec<SegmentRow>) -> TableFuture {
        if self.1.load(Ordering::SeqCst) > 0 {
            return Box::pin(async { Err(Error::new(ErrorKind::Unavailable, "put rows")) });
        }
        self.0.put(rows)
    }
}

#[test]
fn a_segment_table_that_fails_fences() {
    run(async {
        let rig = Rig::new(SimDisk::new(1), 1);
        let table = BrokenTable::default();
        let parts = VolumeParts {
            disk: Arc::clone(&rig.disk),
            pool: rig.pool.clone(),
            table: Arc::new(table.clone()),
            meta_seq: Arc::clone(&rig.meta_seq),
            env: Env::seeded(1, 1),
            room: Arc::new(|_| Ok(())),
        };
        let (volume, _) = Volume::open(config(8 * MIB), parts).await.unwrap();
        let kept = put_packed(&volume, &rig.pool, 1, 70_000).await.unwrap();
        table.1.store(1, Ordering::SeqCst);
        let part = ExtentPlan { lane: Lane::Part, ..plan(2, 10) };
        assert_eq!(kind(stream(&volume, part).await), ErrorKind::Fenced);
        check_fenced(&volume, &rig, &kept).await;
    });
}

/// A device that lies: what it loses or puts elsewhere is noticed when it is read.
#[test]
fn lost_and_misdirected_writes_are_noticed() {
    for seed in 0..200 {
        run(async {
            for fault in [SimFault::Lost, SimFault::Misdirected, SimFault::BitFlip] {
                let sim = SimDisk::new(seed);
                let rig = Rig::new(sim.clone(), seed);
                let (volume, _) = rig.open_with(config(MIB)).await.unwrap();
                let mut placed = vec![put_packed(&volume, &rig.pool, 0, 20_000).await.unwrap()];
                sim.inject(SimOp::Write, seed % 3, fault);
                for number in 1..4 {
                    placed.push(put_packed(&volume, &rig.pool, number, 20_000).await.unwrap());
                }
                let mut wrong = 0;
                for (number, placed) in (0..).zip(&placed) {
                    match read_all(&volume, number, placed.location()).await {
                        Ok(bytes) => assert_eq!(bytes, sealed(number, 20_000)),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Corrupt);
                            wrong += 1;
                        }
                    }
                }
                // A bit may flip in the padding, where it harms nobody.
                assert!(wrong >= 1 || fault == SimFault::BitFlip);
            }
        });
    }
}
