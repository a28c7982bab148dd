//! The committer alone against its model: conditions, atomic batches, counters, a log that fails.
//!
//! Owns: the plan, the model and the run of this row. Knows nothing of: volumes, keys, objects.
//!
//! Invariants
//! - Of commits that contradict each other one succeeds, and every one that did survives.
//! - The changes of a commit are there together or not at all.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::judge::{Judge, Verdict};
use super::model::Counter;
use super::plan::{Draw, Ending, Fault, Faults, Life, Sequence};
use super::shared::Shared;
use super::tally::{self, Outcome};
use crate::commit::{Committer, Draft};
use crate::error::{Error, ErrorKind};
use crate::executor::inline::Inline;
use crate::io::sim::SplitMix;
use crate::meta::memory::MemoryMeta;
use crate::meta::{Change, Condition, Family, MetaStore, RowKey, ScanStep, prefix_end};
use crate::reached::sometimes;

/// Operations of a client in one life, at most.
const OPS_MAX: u64 = 16;
/// Rows of each kind.
const ROWS: usize = 3;

/// One step of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitOp {
    /// Adds one to a row by compare and swap.
    Swap { row: u64 },
    /// Puts the same new number into two rows.
    Pair { row: u64 },
    /// Adds to a counter.
    Add { row: u64, delta: i64 },
    /// Puts a row beside others, if there are as many as there were.
    Join { row: u64 },
}

/// A whole sequence.
pub(super) type CommitPlan = Sequence<CommitOp>;

impl CommitPlan {
    pub(super) fn commits(seed: u64, faults: Faults) -> Self {
        let mut draw = Draw::new(SplitMix::new(seed));
        let clients = 1 + draw.random.below(5);
        let lives = 1 + draw.random.below(4);
        let mut lives: Vec<_> =
            (0..lives).map(|_| draw.life((clients, OPS_MAX), faults, op)).collect();
        for life in &mut lives {
            // There is no disk here: every fault is one of the log.
            life.faults.truncate(1);
            for fault in &mut life.faults {
                *fault = Fault::Meta { after: draw.random.below(20) };
            }
        }
        Self {
            seed,
            segment_bytes: 0,
            inline_bytes_max: 0,
            segments_max: None,
            prewrite: false,
            lives,
        }
    }
}

fn op(draw: &mut Draw) -> CommitOp {
    let row = draw.random.below(ROWS as u64);
    match draw.random.below(4) {
        0 => CommitOp::Swap { row },
        1 => CommitOp::Pair { row },
        2 => CommitOp::Add { row, delta: i64::try_from(draw.random.below(100)).unwrap_or(0) - 20 },
        _ => CommitOp::Join { row },
    }
}

/// What a counter row may hold: what was acknowledged, and changes that nobody knows of.
#[derive(Default)]
struct Added {
    sum: i64,
    open: Vec<i64>,
}

#[derive(Default)]
struct Model {
    swaps: [Counter; ROWS],
    joins: [Counter; ROWS],
    added: [Added; ROWS],
    /// Numbers that a pair may hold.
    pairs: [BTreeSet<u64>; ROWS],
    next: u64,
}

#[derive(Clone)]
struct Hand {
    store: Arc<MemoryMeta>,
    committer: Arc<Committer>,
    model: Arc<Mutex<Model>>,
    judge: Arc<Judge>,
}

fn row(table: u8, numbers: &[u64]) -> RowKey {
    let mut bytes = vec![table];
    bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    RowKey { family: if table == b'a' { Family::Gc } else { Family::Sys }, bytes }
}

fn number(value: Option<&Bytes>) -> u64 {
    value.and_then(|value| value.first_chunk()).map_or(0, |value| u64::from_be_bytes(*value))
}

fn at<T>(of: &mut [T; ROWS], row: u64) -> &mut T {
    let index = usize::try_from(row).unwrap_or_default() % ROWS;
    of.get_mut(index).expect("a number below the length")
}

impl Hand {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, row: &RowKey) -> Option<Bytes> {
        self.store.get(row.family, &row.bytes).unwrap_or_default()
    }

    fn under(&self, prefix: &RowKey) -> u64 {
        let (mut count, upper) = (0, prefix_end(&prefix.bytes));
        let counted = self.store.scan(prefix.family, &prefix.bytes, &upper, &mut |_, _| {
            count += 1;
            Ok(ScanStep::Next)
        });
        counted.map_or(0, |()| count)
    }

    async fn run(self, ops: Vec<CommitOp>) {
        for op in ops {
            if self.judge.has_violation() {
                return;
            }
            let goes_on = match op {
                CommitOp::Swap { row } => self.swap(row).await,
                CommitOp::Pair { row } => self.pair(row).await,
                CommitOp::Add { row, delta } => self.add(row, delta).await,
                CommitOp::Join { row } => self.join(row).await,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Whether a commit took place; `None` if nobody knows.
    async fn commit(&self, draft: Draft, may_lose: bool) -> Option<bool> {
        match self.committer.commit(draft).await {
            Ok(()) => {
                self.judge.note(&[1]);
                Some(true)
            }
            Err(error) if may_lose && error.kind() == ErrorKind::Conflict => {
                self.judge.note(&[2]);
                Some(false)
            }
            Err(error) => {
                (self.judge.of_change("commit", &error) == Verdict::Refused).then_some(false)
            }
        }
    }

    async fn swap(&self, which: u64) -> bool {
        let place = row(b's', &[which]);
        let held = self.held(&place);
        let next = number(held.as_ref()) + 1;
        let mut draft = Draft::default();
        draft.expect(place.clone(), held);
        draft.put(place, next.to_be_bytes().to_vec());
        at(&mut self.model().swaps, which).begin(next);
        let won = self.commit(draft, true).await;
        if won == Some(true) && !at(&mut self.model().swaps, which).win(next) {
            self.judge.violation(format!("two clients swapped {next} into row {which}"));
        }
        won.is_some()
    }

    async fn pair(&self, which: u64) -> bool {
        let unique = {
            let mut model = self.model();
            model.next += 1;
            let unique = model.next;
            at(&mut model.pairs, which).insert(unique);
            unique
        };
        let mut draft = Draft::default();
        for side in 0..2 {
            draft.put(row(b'p', &[which, side]), unique.to_be_bytes().to_vec());
        }
        self.commit(draft, false).await.is_some()
    }

    async fn add(&self, which: u64, delta: i64) -> bool {
        at(&mut self.model().added, which).open.push(delta);
        let change = Change::Add { row: row(b'a', &[which]), delta };
        let took_place = self.commit(Draft::new(Vec::new(), vec![change]), false).await;
        if took_place == Some(true) {
            let mut model = self.model();
            let added = at(&mut model.added, which);
            added.sum += delta;
            if let Some(index) = added.open.iter().position(|open| *open == delta) {
                added.open.swap_remove(index);
            }
        }
        took_place.is_some()
    }

    async fn join(&self, which: u64) -> bool {
        let prefix = row(b'j', &[which]);
        let count = self.under(&prefix);
        let unique = {
            let mut model = self.model();
            model.next += 1;
            at(&mut model.joins, which).begin(count + 1);
            model.next
        };
        let condition =
            Condition::RowsUnder { prefix, count: usize::try_from(count).unwrap_or(usize::MAX) };
        let change = Change::Put { row: row(b'j', &[which, unique]), value: Bytes::new() };
        let won = self.commit(Draft::new(vec![condition], vec![change]), true).await;
        if won == Some(true) && !at(&mut self.model().joins, which).win(count + 1) {
            self.judge.violation(format!("two rows joined as number {} of {which}", count + 1));
        }
        won.is_some()
    }

    /// Compares every row with the model.
    fn verify(&self) {
        for which in 0..ROWS as u64 {
            let swapped = number(self.held(&row(b's', &[which])).as_ref());
            let joined = self.under(&row(b'j', &[which]));
            let sides = [0, 1].map(|side| number(self.held(&row(b'p', &[which, side])).as_ref()));
            let sum = self.held(&row(b'a', &[which]));
            let sum = sum.and_then(|sum| sum.first_chunk().copied()).map_or(0, i64::from_be_bytes);
            let mut model = self.model();
            for (what, held) in [("swapped", swapped), ("joined", joined)] {
                let of = if what == "joined" { &mut model.joins } else { &mut model.swaps };
                let counter = at(of, which);
                if held < counter.least() || !counter.may_hold(held) {
                    let least = counter.least();
                    self.judge
                        .violation(format!("row {which}: {what} {held}, at least {least} was"));
                }
            }
            let [left, right] = sides;
            if left != right || left > 0 && !at(&mut model.pairs, which).contains(&left) {
                self.judge.violation(format!("pair {which} holds {left} and {right}"));
            }
            let added = at(&mut model.added, which);
            if !sums(added.sum, &added.open).contains(&sum) {
                self.judge.violation(format!("counter {which} holds {sum}, not {}", added.sum));
            }
            (added.sum, added.open) = (sum, Vec::new());
        }
    }
}

/// Every sum that some of the open changes make. A crash leaves few of them.
fn sums(sum: i64, open: &[i64]) -> BTreeSet<i64> {
    let mut sums = BTreeSet::from([sum]);
    for delta in open {
        sums.extend(sums.clone().into_iter().map(|sum| sum + delta));
    }
    sums
}

/// Runs a plan.
pub(super) fn run(plan: &CommitPlan, shared: &Shared) -> Outcome {
    shared.env.reset(plan.seed);
    let _inline = Inline::begin(plan.seed);
    drop(crate::reached::counts::take());
    let (model, judge) = (Arc::<Mutex<Model>>::default(), Arc::<Judge>::default());
    let mut store = Arc::new(MemoryMeta::default());
    let mut random = SplitMix::new(!plan.seed);
    let mut lives = 1;
    for life in &plan.lives {
        lives += 1;
        judge.begin_life(false);
        let outcome = super::runtime().block_on(async {
            let synced = Arc::default();
            let committer = Arc::new(Committer::start(Arc::clone(&store) as _, synced)?);
            let (store, model, judge) =
                (Arc::clone(&store), Arc::clone(&model), Arc::clone(&judge));
            live(&Hand { store, committer, model, judge }, life).await;
            Ok::<_, Error>(())
        });
        if let Err(error) = outcome {
            judge.violation(format!("start: {error:?}"));
        }
        if store.has_failed() {
            sometimes("sim: a metadata write failed");
        }
        store = Arc::new(store.crash(random.coin()));
        let synced = Arc::default();
        let after = super::runtime().block_on(async {
            let committer = Arc::new(Committer::start(Arc::clone(&store) as _, synced)?);
            let (store, model, judge) =
                (Arc::clone(&store), Arc::clone(&model), Arc::clone(&judge));
            Hand { store, committer, model, judge }.verify();
            Ok::<_, Error>(())
        });
        if after.is_err() || judge.has_violation() {
            break;
        }
    }
    let (violation, trace) = judge.take();
    let faults = plan.lives.iter().flat_map(|life| &life.faults);
    tally::outcome(plan.ops(), faults, lives, violation, (trace ^ store.fingerprint(), 0))
}

async fn live(hand: &Hand, life: &Life<CommitOp>) {
    for fault in &life.faults {
        hand.judge.expect(*fault);
        if let Fault::Meta { after } = *fault {
            hand.store.fail_after(after);
        }
    }
    let tasks: Vec<_> =
        life.clients.iter().map(|ops| tokio::spawn(hand.clone().run(ops.clone()))).collect();
    match life.ending {
        Ending::Crash { steps, .. } => {
            super::wait(steps / 4, &tasks).await;
        }
        _ => super::finish(tasks, &hand.judge).await,
    }
}
