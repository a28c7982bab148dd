//! Sequences repeat, a campaign in small is clean, and a plan is cut down.

use super::*;

#[test]
fn a_seed_repeats_exactly() {
    for row in Row::ALL {
        for seed in 0..30 {
            let first = run(row, seed);
            assert_eq!(first, run(row, seed), "{row:?} {seed}");
            assert!(first.ops > 0);
        }
    }
}

#[test]
fn other_seeds_do_other_things() {
    let traces: std::collections::BTreeSet<_> =
        (0..50).map(|seed| run(Row::NodeCrash, seed).trace).collect();
    assert_eq!(traces.len(), 50);
}

#[test]
fn a_few_sequences_of_every_row_are_clean() {
    for row in Row::ALL {
        for seed in 1_000..1_100 {
            let outcome = run(row, seed);
            assert_eq!(outcome.violation, None, "{row:?} {seed}");
        }
    }
}

#[test]
fn a_plan_is_cut_down_to_what_matters() {
    let plan = (0..1_000)
        .map(|seed| Plan::new(seed, Faults::All))
        .find(|plan| plan.ops() > 20 && plan.lives.len() == 3)
        .unwrap();
    let short = shrink::shrink(plan, |plan| plan.ops() >= 2 && plan.lives.len() >= 2);
    assert_eq!((short.ops(), short.lives.len()), (2, 2));
    assert!(short.lives.iter().all(|life| life.faults.is_empty()));
}

/// Seed 2,000,745 of node-fault: a spare segment that could not be made put the janitor to sleep
/// for 30 seconds, and the superblock took no note of the metadata meanwhile.
#[test]
fn a_full_disk_does_not_hold_up_the_watermark() {
    use plan::{Ending, Life, Op};
    let put = |key| Op::Put { key, size: 21_845 };
    let part = Op::Part { number: 3, size: 21_845 };
    let life = Life {
        clients: vec![vec![put(0)], Vec::new(), vec![Op::Begin { key: 3 }, put(3), part]],
        faults: Vec::new(),
        faulty_start: false,
        ending: Ending::LogLies { batches: 1 },
    };
    let plan = Plan {
        seed: 2_000_745,
        segment_bytes: 64 << 10,
        inline_bytes_max: 1_000,
        segments_max: Some(2),
        prewrite: true,
        lives: vec![life],
    };
    let outcome = judged(|shared| node::run(&plan, shared));
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.states.get("sim: lost metadata was noticed"), Some(&1));
}

/// Seed 873 of node-fault: a node whose log had failed closed in order, and the simulated log
/// brought the failed write back at a later crash, over what had been written since.
#[test]
fn a_failed_write_comes_back_at_the_next_start_or_never() {
    use plan::{Ending, Fault, Life, Op};
    let life = |faults, ending| Life {
        clients: vec![Vec::new(), vec![Op::Count]],
        faults,
        faulty_start: false,
        ending,
    };
    for seed in 0..40 {
        let plan = Plan {
            seed,
            segment_bytes: 384 << 10,
            inline_bytes_max: 64,
            segments_max: None,
            prewrite: false,
            lives: vec![
                life(vec![Fault::Meta { after: 1 }], Ending::Close),
                life(Vec::new(), Ending::Idle(crate::io::sim::SimCrash::Mixed)),
            ],
        };
        let outcome = judged(|shared| node::run(&plan, shared));
        assert_eq!(outcome.violation, None, "{seed}");
        assert!(outcome.states.contains_key("sim: a metadata write failed"), "{seed}");
    }
}
