//! Power loss at every moment of a workload, then again while recovering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::*;

/// What the outside knows of one extent.
#[derive(Clone, Copy, Debug)]
struct Known {
    plain_len: u64,
    location: Location,
    /// Its flush returned.
    acknowledged: bool,
}

type Ledger = Arc<Mutex<BTreeMap<u32, Known>>>;

/// Sizes around every border that the layout has.
const SIZES: [u64; 8] = [0, 1, 5_000, 65_536, 65_537, 130_000, 250_000, 1_100_000];

/// One client: puts extents one after another until the power goes.
async fn client(
    volume: Volume,
    pool: BufPool,
    ledger: Ledger,
    meta_seq: Arc<AtomicU64>,
    name: u32,
) {
    for round in 0..6 {
        let number = name * 100 + round;
        let plain_len = SIZES[(name * 3 + round) as usize % SIZES.len()];
        if (name + round) % 5 == 4 {
            // Somebody who leaves in the middle.
            let Ok(mut writer) = volume.extent_writer(plan(number, 3 * MIB)).await else {
                return;
            };
            for _ in 0..35 {
                let Ok(place) = writer.chunk().await else {
                    return;
                };
                place.fill(7);
                writer.seal_chunk().unwrap();
            }
            continue;
        }
        let Ok(placed) = put(&volume, &pool, number, plain_len).await else {
            return;
        };
        let location = *placed.location();
        let known = Known { plain_len, location, acknowledged: false };
        ledger.lock().unwrap().insert(number, known);
        if volume.flush(std::slice::from_ref(&placed)).await.is_err() {
            return;
        }
        meta_seq.fetch_add(1, Ordering::SeqCst);
        ledger.lock().unwrap().insert(number, Known { acknowledged: true, ..known });
    }
}

/// Checks that what was acknowledged is there, and that nothing reads as something else.
async fn check(volume: &Volume, ledger: &Ledger) {
    let ledger = ledger.lock().unwrap().clone();
    for (number, known) in ledger {
        let read = read_all(volume, number, &known.location).await;
        match read {
            Ok(bytes) => assert_eq!(bytes, sealed(number, known.plain_len)),
            Err(error) => {
                assert!(!known.acknowledged, "extent {number} was lost: {error}");
                assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
        }
    }
    let mut numbers = BTreeSet::new();
    for found in scan_all(volume).await {
        if let Found::Extent { header, .. } | Found::Filler { header, .. } = found {
            assert!(numbers.insert(header.rec_seq), "a record number was used twice");
        }
    }
    let used = volume.segments().into_iter().filter(|row| row.incarnation > 0);
    let incarnations: Vec<u64> = used.map(|row| row.incarnation).collect();
    assert_eq!(incarnations.iter().collect::<BTreeSet<_>>().len(), incarnations.len());
}

/// Three lives of one volume, each ended by a power loss after some steps.
async fn live_and_die(seed: u64, steps: u64, settings: &VolumeConfig) -> u64 {
    let mut sim = SimDisk::new(seed);
    let mut rig = Rig::new(sim.clone(), seed);
    let ledger = Ledger::default();
    let mut clients = 0;
    for life in 0..3 {
        let opening = tokio::spawn({
            let (rig, settings) = (rig.clone(), settings.clone());
            async move { rig.open_with(settings).await }
        });
        // Every other life is cut short while it still recovers.
        if life == 1 {
            for _ in 0..steps % 40 {
                tokio::task::yield_now().await;
            }
            sim = sim.crash();
            drop(opening.await);
            rig = rig.after(sim.clone());
            continue;
        }
        let (volume, report) = opening.await.unwrap().unwrap();
        assert!(report.max_meta_seq <= rig.meta_seq.load(Ordering::SeqCst));
        check(&volume, &ledger).await;
        let mut tasks = Vec::new();
        for _ in 0..5 {
            let (volume, pool) = (volume.clone(), rig.pool.clone());
            let (ledger, meta_seq) = (Arc::clone(&ledger), Arc::clone(&rig.meta_seq));
            tasks.push(tokio::spawn(client(volume, pool, ledger, meta_seq, clients)));
            clients += 1;
        }
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        sim = sim.crash();
        for task in tasks {
            task.await.unwrap();
        }
        drop(volume);
        settle().await;
        rig = rig.after(sim.clone());
    }
    let (volume, _) = rig.open_with(settings.clone()).await.unwrap();
    check(&volume, &ledger).await;
    let placed = [put(&volume, &rig.pool, 9_999, 100_000).await.unwrap()];
    volume.flush(&placed).await.unwrap();
    drop(volume);
    settle().await;
    ledger.lock().unwrap().values().filter(|known| known.acknowledged).count() as u64
}

#[test]
fn what_was_flushed_survives_a_power_loss_at_any_step() {
    let mut acknowledged = 0;
    for seed in 0..100 {
        acknowledged += run(live_and_die(seed, 2 * seed, &config(4 * MIB)));
    }
    assert!(acknowledged > 500, "{acknowledged}");
}

#[test]
fn what_was_flushed_survives_with_segments_that_roll_all_the_time() {
    for seed in 0..50 {
        run(live_and_die(1_000 + seed, 5 * seed, &config(3 * MIB + MIB / 2)));
    }
}

#[test]
fn a_simulated_life_repeats_exactly() {
    let lives = [0, 0].map(|_| run(live_and_die(7, 150, &config(4 * MIB))));
    assert_eq!(lives[0], lives[1]);
    assert!(lives[0] > 0);
}

/// Packed extents only, many of them, every crash mode: cheap enough for many seeds.
#[test]
fn small_extents_survive_every_kind_of_power_loss() {
    for seed in 0..300_u64 {
        run(async {
            let sim = SimDisk::new(seed);
            let rig = Rig::new(sim.clone(), seed);
            let settings = config(128 << 10);
            let (volume, _) = rig.open_with(settings.clone()).await.unwrap();
            let ledger = Ledger::default();
            let mut tasks = Vec::new();
            for name in 0..12 {
                let (volume, pool) = (volume.clone(), rig.pool.clone());
                let ledger = Arc::clone(&ledger);
                tasks.push(tokio::spawn(async move {
                    for round in 0..4 {
                        let (number, plain_len) =
                            (name * 10 + round, u64::from(name * 700 + round));
                        let put = put_packed(&volume, &pool, number, plain_len).await;
                        let Ok(placed) = put else { return };
                        let location = *placed.location();
                        if volume.flush(&[placed]).await.is_err() {
                            return;
                        }
                        let known = Known { plain_len, location, acknowledged: true };
                        ledger.lock().unwrap().insert(number, known);
                    }
                }));
            }
            for _ in 0..seed {
                tokio::task::yield_now().await;
            }
            let crash = [SimCrash::KeepAll, SimCrash::LoseAll, SimCrash::Mixed]
                [usize::try_from(seed).unwrap() % 3];
            let rig = rig.after(sim.crash_with(crash));
            for task in tasks {
                task.await.unwrap();
            }
            let (volume, _) = rig.open_with(settings).await.unwrap();
            check(&volume, &ledger).await;
        });
    }
}
