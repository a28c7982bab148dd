//! Cutting down a plan that went wrong.
//!
//! Owns: what is left out in which order. Knows nothing of: what goes wrong.

use super::plan::Sequence;

/// Runs at most: a minute of them.
const RUNS_MAX: usize = 2_000;

/// The shortest plan found that still goes wrong.
pub(super) fn shrink<O: Clone + PartialEq>(
    mut plan: Sequence<O>,
    goes_wrong: impl Fn(&Sequence<O>) -> bool,
) -> Sequence<O> {
    let mut runs = 0;
    loop {
        let Some(shorter) = shorter(&plan).into_iter().find(|candidate| {
            runs += 1;
            runs <= RUNS_MAX && goes_wrong(candidate)
        }) else {
            return plan;
        };
        plan = shorter;
    }
}

/// Every plan that lacks one thing of `plan`, large things first.
fn shorter<O: Clone + PartialEq>(plan: &Sequence<O>) -> Vec<Sequence<O>> {
    let mut found = Vec::new();
    let mut without = |change: &dyn Fn(&mut Sequence<O>)| {
        let mut shorter = plan.clone();
        change(&mut shorter);
        if shorter != *plan {
            found.push(shorter);
        }
    };
    for life in 0..plan.lives.len() {
        without(&|plan| drop(plan.lives.remove(life)));
    }
    without(&|plan| plan.prewrite = false);
    without(&|plan| plan.segments_max = None);
    for (life, of) in plan.lives.iter().enumerate() {
        for fault in 0..of.faults.len() {
            without(&|plan| {
                plan.lives.get_mut(life).map(|life| life.faults.remove(fault));
            });
        }
        for (client, ops) in of.clients.iter().enumerate() {
            let mut ops_of = |change: &dyn Fn(&mut Vec<O>)| {
                without(&|plan| {
                    let life = plan.lives.get_mut(life);
                    if let Some(ops) = life.and_then(|life| life.clients.get_mut(client)) {
                        change(ops);
                    }
                });
            };
            ops_of(&Vec::clear);
            ops_of(&|ops| ops.truncate(ops.len() / 2));
            for op in 0..ops.len() {
                ops_of(&|ops| {
                    ops.remove(op);
                });
            }
        }
    }
    found
}
