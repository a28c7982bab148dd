//! The whole engine in simulation: one thread, one seed, and a model to compare it with.
//!
//! The engine is the one that ships; disk, rows, clock, randomness and executor are simulated. Each
//! seed is a sequence: a plan that is drawn from it, run, judged, and cut down if it went wrong.
//! Owns: the rows of the campaign table that run inside one process (docs/TESTING.md, "Campaign").
//! Knows nothing of: the command line, ledgers.
//!
//! Invariants
//! - A sequence repeats exactly: two runs of one seed end with the same fingerprint.
//! - Wrong bytes are a violation under every fault; a lost acknowledgement is one under every fault
//!   that a device reports.

mod blob;
mod client;
mod commits;
mod env;
mod judge;
mod model;
mod node;
mod plan;
mod shared;
mod shrink;
mod tally;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

pub use tally::Outcome;

use blob::BlobPlan;
use commits::CommitPlan;
use judge::Judge;
use plan::{Faults, Plan, Sequence};
use shared::Shared;

/// Steps between two moments in which time passes while a power loss is due.
const STEPS_PER_MS: u64 = 48;

/// A row of the campaign that this process can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// The blob layer against its model, with power losses.
    BlobCrash,
    /// The blob layer with errors and silent damage as well.
    BlobFault,
    /// The blob layer, orderly stops only.
    BlobModel,
    /// The committer against its model, with power losses.
    CommitCrash,
    /// The committer over a log that fails.
    CommitFault,
    /// The committer, orderly stops only.
    CommitModel,
    /// The whole node against its model, with power losses.
    NodeCrash,
    /// The whole node with errors and silent damage as well.
    NodeFault,
    /// The whole node, orderly stops only.
    NodeModel,
}

impl Row {
    /// Every row.
    pub const ALL: [Self; 9] = [
        Self::BlobCrash,
        Self::BlobFault,
        Self::BlobModel,
        Self::CommitCrash,
        Self::CommitFault,
        Self::CommitModel,
        Self::NodeCrash,
        Self::NodeFault,
        Self::NodeModel,
    ];

    /// Its name in ledgers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BlobCrash => "blob-crash",
            Self::BlobFault => "blob-fault",
            Self::BlobModel => "blob-model",
            Self::CommitCrash => "commit-crash",
            Self::CommitFault => "commit-fault",
            Self::CommitModel => "commit-model",
            Self::NodeCrash => "node-crash",
            Self::NodeFault => "node-fault",
            Self::NodeModel => "node-model",
        }
    }

    const fn faults(self) -> Faults {
        match self {
            Self::BlobCrash | Self::CommitCrash | Self::NodeCrash => Faults::Crashes,
            Self::BlobFault | Self::CommitFault | Self::NodeFault => Faults::All,
            Self::BlobModel | Self::CommitModel | Self::NodeModel => Faults::None,
        }
    }
}

/// Runs the sequence of `seed`.
pub fn run(row: Row, seed: u64) -> Outcome {
    let faults = row.faults();
    match row {
        Row::BlobCrash | Row::BlobFault | Row::BlobModel => {
            judged(|shared| blob::run(&BlobPlan::blob(seed, faults), shared))
        }
        Row::CommitCrash | Row::CommitFault | Row::CommitModel => {
            judged(|shared| commits::run(&CommitPlan::commits(seed, faults), shared))
        }
        Row::NodeCrash | Row::NodeFault | Row::NodeModel => {
            judged(|shared| node::run(&Plan::new(seed, faults), shared))
        }
    }
}

/// The shortest plan found that goes wrong like the one of `seed`, in words.
pub fn explain(row: Row, seed: u64) -> String {
    let faults = row.faults();
    let text = match row {
        Row::BlobCrash | Row::BlobFault | Row::BlobModel => {
            cut_down(BlobPlan::blob(seed, faults), blob::run)
        }
        Row::CommitCrash | Row::CommitFault | Row::CommitModel => {
            cut_down(CommitPlan::commits(seed, faults), commits::run)
        }
        Row::NodeCrash | Row::NodeFault | Row::NodeModel => {
            cut_down(Plan::new(seed, faults), node::run)
        }
    };
    format!("row {} seed {seed}: {text}", row.name())
}

fn cut_down<O: Clone + PartialEq + Debug>(
    plan: Sequence<O>,
    run: fn(&Sequence<O>, &Shared) -> Outcome,
) -> String {
    let wrong = |plan: &Sequence<O>| judged(|shared| run(plan, shared)).violation;
    let plan = shrink::shrink(plan, |plan| wrong(plan).is_some());
    format!("{}\n{plan:#?}", wrong(&plan).unwrap_or_else(|| "it goes right".to_owned()))
}

/// Runs a sequence; an assertion that fails in it is a violation.
fn judged(sequence: impl FnOnce(&Shared) -> Outcome) -> Outcome {
    let wrong = |what: String| Outcome { violation: Some(what), ..Outcome::default() };
    match shared::shared() {
        Err(error) => wrong(format!("make keys and buffers: {error:?}")),
        Ok(shared) => catch_unwind(AssertUnwindSafe(|| sequence(&shared)))
            .unwrap_or_else(|_| wrong("an assertion failed; see above".to_owned())),
    }
}

/// A runtime for one life: when it is dropped, so is everything that ran in it.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output needs nothing")
}

/// Lets tasks take so many steps; whether all have ended.
async fn wait(steps: u64, tasks: &[JoinHandle<()>]) -> bool {
    let ended = || tasks.iter().all(JoinHandle::is_finished);
    for step in 0..steps {
        if ended() {
            break;
        }
        if step % STEPS_PER_MS == STEPS_PER_MS - 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::yield_now().await;
    }
    ended()
}

/// Lets tasks end.
async fn finish(tasks: Vec<JoinHandle<()>>, judge: &Judge) {
    for task in tasks {
        if task.await.is_err() {
            judge.violation("a client panicked");
        }
    }
}

/// States that every row with power losses has to reach.
const COMMON: [&str; 3] = [
    "a damaged record was found in an open segment",
    "a segment was rolled",
    "recovery closed a segment",
];

/// What a campaign of a row has to reach: without it the row proves less than it says.
pub fn states(row: Row) -> Vec<&'static str> {
    const BLOB: [&str; 2] =
        ["sim: a location of an earlier use was refused", "sim: a segment was given back"];
    const NODE: [&str; 10] = [
        "a batch had several commits",
        "a commit lost to another",
        "a stream waited for its reader",
        "an object was replaced while it was being opened",
        "sim: a reader outlived its object",
        "sim: a segment was reclaimed",
        "sim: a survivor was moved",
        "sim: a swap was lost",
        "sim: an object was deleted while it was moved",
        "sim: the buffer pool was exhausted",
    ];
    const FAULT: [&str; 5] = [
        "sim: a metadata write failed",
        "sim: a start failed",
        "sim: damage was found at start",
        "sim: damage was found by a read",
        "sim: lost metadata was noticed",
    ];
    let of: &[&[&str]] = match row {
        Row::BlobModel => &[],
        Row::BlobCrash => &[&COMMON, &BLOB],
        Row::BlobFault => &[&COMMON],
        Row::CommitCrash | Row::CommitModel => &[&NODE[..2]],
        Row::CommitFault => &[&NODE[..2], &FAULT[..1]],
        Row::NodeModel => &[&NODE],
        Row::NodeCrash => &[&COMMON, &NODE],
        Row::NodeFault => &[&COMMON, &NODE, &FAULT],
    };
    of.concat()
}

/// The names of the mistakes that this build can make; none but for the check of the campaign.
pub fn bugs() -> Vec<&'static str> {
    #[cfg(feature = "bugs")]
    return crate::bugs::ALL.into_iter().map(|(name, _)| name).collect();
    #[cfg(not(feature = "bugs"))]
    Vec::new()
}
