//! Faults that are armed: which operation fails, which one is the last before the power goes.
//!
//! Owns: the plan, the counters. Knows nothing of: files, mounts.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use fuser::Errno;

/// Plans armed at one time. A test that needs more is unclear about what it tests.
const PLANS_MAX: usize = 64;

/// An operation that can fail, as counted and as named by the control protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// fallocate(2).
    Allocate,
    /// Making a file, directory, socket or link.
    Create,
    /// open(2) of what exists.
    Open,
    /// read(2).
    Read,
    /// rename(2).
    Rename,
    /// fsync(2) and fdatasync(2) of a file.
    Sync,
    /// fsync(2) of a directory.
    SyncDirectory,
    /// A change of a file's length.
    Truncate,
    /// unlink(2), rmdir(2).
    Unlink,
    /// write(2).
    Write,
}

impl Verb {
    /// The names in the control protocol.
    pub const NAMES: [(&'static str, Self); 10] = [
        ("create", Self::Create),
        ("fallocate", Self::Allocate),
        ("fsync", Self::Sync),
        ("fsyncdir", Self::SyncDirectory),
        ("open", Self::Open),
        ("read", Self::Read),
        ("rename", Self::Rename),
        ("truncate", Self::Truncate),
        ("unlink", Self::Unlink),
        ("write", Self::Write),
    ];

    /// The verb of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|known| known.0 == name).map(|known| known.1)
    }

    /// Whether it changes the disk, so that a power cut may fall on it.
    fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read)
    }
}

/// One operation that will fail.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which kind of operation.
    pub verb: Verb,
    /// How many of that kind still pass.
    pub passes: u64,
    /// How many then fail.
    pub times: u64,
    /// With which errno.
    pub errno: i32,
    /// Only files whose name holds this text.
    pub name: String,
}

/// What the next operation has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The power goes now. A write may reach the disk before.
    Cut,
    /// It fails.
    Fail(i32),
    /// Nothing.
    Pass,
}

/// The plans and what was counted so far.
#[derive(Default)]
pub struct Faults {
    plans: Vec<Plan>,
    cut_after: Option<u64>,
    counted: BTreeMap<Verb, u64>,
    injected: BTreeMap<Verb, u64>,
}

impl Faults {
    /// Arms a plan; whether there was room for it.
    pub fn arm(&mut self, plan: Plan) -> bool {
        let room = self.plans.len() < PLANS_MAX;
        if room {
            self.plans.push(plan);
        }
        room
    }

    /// Arms a power cut at the operation after so many more that change the disk.
    pub fn cut_after(&mut self, operations: u64) {
        self.cut_after = Some(operations);
    }

    /// Disarms everything.
    pub fn clear(&mut self) {
        self.plans.clear();
        self.cut_after = None;
    }

    /// Counts an operation on a file of this name and says what becomes of it.
    pub fn judge(&mut self, verb: Verb, name: &OsStr) -> Verdict {
        *self.counted.entry(verb).or_default() += 1;
        if verb.changes()
            && let Some(left) = &mut self.cut_after
        {
            if *left == 0 {
                self.cut_after = None;
                return Verdict::Cut;
            }
            *left -= 1;
        }
        let name = name.to_string_lossy();
        for plan in &mut self.plans {
            if plan.verb != verb || !name.contains(plan.name.as_str()) {
                continue;
            }
            if plan.passes > 0 {
                plan.passes -= 1;
            } else if plan.times > 0 {
                plan.times -= 1;
                *self.injected.entry(verb).or_default() += 1;
                return Verdict::Fail(plan.errno);
            }
        }
        Verdict::Pass
    }

    /// Counts a fault that was not planned one by one, such as a full disk.
    pub fn note(&mut self, verb: Verb, errno: Errno) {
        if errno.code() == Errno::ENOSPC.code() {
            *self.injected.entry(verb).or_default() += 1;
        }
    }

    /// Operations by name, and how many of them failed on purpose.
    pub fn counts(&self) -> (BTreeMap<&'static str, u64>, BTreeMap<&'static str, u64>) {
        let named = |counts: &BTreeMap<Verb, u64>| {
            let count = |verb: Verb| counts.get(&verb).copied().unwrap_or(0);
            Verb::NAMES.iter().map(|(name, verb)| (*name, count(*verb))).collect()
        };
        (named(&self.counted), named(&self.injected))
    }
}
