//! What a sequence came to.
//!
//! Owns: the counts that a campaign adds up. Knows nothing of: how a sequence runs.

use std::collections::BTreeMap;

use super::plan::Fault;

/// One sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Operations planned.
    pub ops: u64,
    /// Power losses.
    pub crashes: u64,
    /// Faults planned, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Rare states reached, by name.
    pub states: BTreeMap<&'static str, u64>,
    /// A fingerprint of everything that was done and answered.
    pub trace: u64,
    /// What must not be.
    pub violation: Option<String>,
}

/// Adds a sequence up: its operations, faults and lives, what was wrong, its fingerprint and the
/// bytes of buffers that are still out.
pub(super) fn outcome<'a>(
    ops: usize,
    planned: impl Iterator<Item = &'a Fault>,
    lives: u64,
    violation: Option<String>,
    (trace, used): (u64, u64),
) -> Outcome {
    let mut faults = BTreeMap::new();
    for fault in planned {
        let name = match fault {
            Fault::Disk { op, fault, .. } => format!("{op:?} {fault:?}").to_lowercase(),
            Fault::Meta { .. } => "metadata eio".to_owned(),
        };
        *faults.entry(name).or_default() += 1;
    }
    // Every buffer is back, or somebody holds one for ever.
    let violation = violation
        .or_else(|| (used > 0).then(|| format!("{used} bytes of buffers were not returned")));
    Outcome {
        ops: ops as u64,
        crashes: lives.saturating_sub(1),
        faults,
        states: crate::reached::counts::take(),
        trace,
        violation,
    }
}
