//! The power goes at any step of a move.

use super::*;

/// Cuts the power after every number of scheduling steps until the move is through: everything
/// published reads, before and after the move is taken up again.
#[test]
fn a_move_may_be_cut_short_anywhere() {
    let (mut cut_short, mut finished) = (0, 0);
    for steps in 0..240_u64 {
        let crash = [SimCrash::LoseAll, SimCrash::Mixed, SimCrash::KeepAll];
        let crash = crash[usize::try_from(steps % 3).unwrap()];
        run(async {
            let ledger = Ledger::new(steps, None);
            let bench = ledger.open().await;
            let mut objects = BTreeMap::new();
            for (object, size) in (0..).zip([5_000, 700_000, 900, 70_000, 300_000, 1_500_000]) {
                bench.put(object, size).await.unwrap();
                objects.insert(object, size);
            }
            bench.delete(3).await;
            objects.remove(&3);
            bench.volume.close().await.unwrap();
            drop(bench);
            let bench = Arc::new(ledger.open().await);
            let victim = bench.closed()[0];
            let moving = tokio::spawn({
                let bench = Arc::clone(&bench);
                async move { bench.clean(victim).await.map(drop) }
            });
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
            let was_done = moving.is_finished();
            let after = ledger.crash(crash);
            moving.abort();
            drop(moving.await);
            drop(bench);
            let bench = after.open().await;
            cut_short += u64::from(!was_done);
            finished += u64::from(was_done);
            bench.check(&objects).await;
            assert!(
                bench.volume.segments().iter().all(|row| row.state != SegmentState::Cleaning),
                "no move is under way after a start"
            );
            for segment in bench.closed() {
                let (_, end) = bench.clean(segment).await.unwrap();
                assert!(matches!(end, Step::Freed), "{end:?}");
            }
            bench.check(&objects).await;
        });
    }
    assert!(cut_short > 20 && finished > 10, "{cut_short} cut short, {finished} finished");
}
