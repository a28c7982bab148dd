//! Random puts, deletes, reads, moves and restarts against a map, on a volume that is nearly full.

use super::*;

/// A seeded choice.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

const SIZES: [u64; 6] = [0, 900, 5_000, 70_000, 300_000, 1_100_000];

/// What the sequences reached.
#[derive(Default)]
struct Reached {
    full: u64,
    moved: u64,
    freed: u64,
    reused: u64,
    restarts: u64,
}

async fn sequence(seed: u64, reached: &mut Reached) {
    let mut dice = Dice(seed);
    let mut ledger = Ledger::new(seed, Some(6));
    let mut bench = ledger.open().await;
    let mut objects = BTreeMap::new();
    let mut freed = std::collections::BTreeSet::new();
    for object in 0..60 {
        match dice.roll(10) {
            0..=4 => {
                let size = SIZES[usize::try_from(dice.roll(6)).unwrap()];
                match bench.put(object, size).await {
                    Ok(()) => {
                        objects.insert(object, size);
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                        reached.full += 1;
                    }
                }
            }
            5 | 6 => {
                let nth = dice.roll(objects.len().max(1) as u64);
                let chosen = objects.keys().nth(usize::try_from(nth).unwrap()).copied();
                if let Some(chosen) = chosen {
                    bench.delete(chosen).await;
                    objects.remove(&chosen);
                }
            }
            7 | 8 => {
                let closed = bench.closed();
                let nth = usize::try_from(dice.roll(closed.len().max(1) as u64)).unwrap();
                if let Some(segment) = closed.get(nth) {
                    match bench.clean(*segment).await {
                        Ok((tally, Step::Freed)) => {
                            reached.moved += tally.extents;
                            reached.freed += 1;
                            freed.insert(*segment);
                        }
                        Ok((_, end)) => panic!("{end:?}"),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                            bench.volume.keep_segment(*segment).await.unwrap();
                        }
                    }
                }
            }
            _ => {
                let orderly = dice.roll(2) == 0;
                if orderly {
                    bench.volume.close().await.unwrap();
                }
                drop(bench);
                ledger = ledger.crash(if orderly { SimCrash::LoseAll } else { SimCrash::Mixed });
                bench = ledger.open().await;
                reached.restarts += 1;
            }
        }
        let is_used = |segment: &&u32| bench.row(**segment).state != SegmentState::Free;
        let used: Vec<u32> = freed.iter().filter(is_used).copied().collect();
        reached.reused += used.len() as u64;
        freed.retain(|segment| !used.contains(segment));
    }
    bench.check(&objects).await;
}

#[test]
fn nothing_is_lost_and_nothing_comes_back() {
    let mut reached = Reached::default();
    for seed in 0..150 {
        run(sequence(seed, &mut reached));
    }
    let Reached { full, moved, freed, reused, restarts } = reached;
    assert!(full > 0 && restarts > 100, "{full} full, {restarts} restarts");
    assert!(moved > 100 && freed > 50 && reused > 20, "{moved} moved, {freed} freed, {reused}");
}
