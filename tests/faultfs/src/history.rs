//! Whether a history of calls on one object key could have come from a single register: the
//! linearizability check of Wing and Gong, object key by object key.
//!
//! Owns: the model of one object key, the search. Knows nothing of: S3, how a history was made.
//!
//! The search goes through the calls and returns in the order of time and keeps every configuration
//! that is possible: the value, and which of the calls under way took effect. At a return it lets
//! calls take effect until the one that returns has (just in time, Lowe 2017). No configuration
//! left is a violation. A call without an answer may have taken effect until the time at which its
//! node was known to be dead, or never.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

/// Calls under way at one time on one object key: a bit each in a configuration.
const OPEN_MAX: usize = 64;

/// Configurations kept at one time. Eight clients make a few hundred.
const CONFIGURATIONS_MAX: usize = 1 << 20;

/// What was called. Values are numbers that name a body; no two writes of a history share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// DELETE.
    Delete,
    /// GET: `value` is what it read, none for 404.
    Get,
    /// PUT.
    Put,
    /// PUT with `If-None-Match: *`.
    PutIfAbsent,
    /// PUT with `If-Match` of the value `expected`.
    PutIfMatch,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It took effect.
    Done,
    /// No answer, or an error that does not say whether it took effect.
    Maybe,
    /// Its condition did not hold, and it had no effect.
    Refused,
}

/// One call and its return.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Call {
    /// On which object key.
    pub object_key: String,
    /// By whom, for the report.
    pub client: u64,
    /// What.
    pub verb: Verb,
    /// The value that was written or read.
    pub value: Option<u64>,
    /// The value that `If-Match` named.
    pub expected: Option<u64>,
    /// What came back.
    pub answer: Answer,
    /// When it was called, on one clock for all clients.
    pub called: u64,
    /// When it returned; without an answer, when it could not take effect any more.
    pub returned: u64,
}

/// Why a history cannot have come from a register.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// The call that fits nowhere.
    pub call: Call,
    /// What the object key could have held just before it returned.
    pub possible: Vec<Option<u64>>,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Object keys that were checked.
    pub object_keys: usize,
    /// Calls that were checked.
    pub calls: usize,
    /// Calls without an answer among them.
    pub maybes: usize,
    /// The most configurations that were possible at one time.
    pub configurations_max: usize,
    /// One for each object key that no register explains.
    pub violations: Vec<Violation>,
}

/// A value and the calls under way that already took effect.
type Configuration = (u64, Option<u64>);

/// Checks a history. Every object key begins without a value.
///
/// # Errors
/// The history is too wide to be checked, or a call returns before it was called.
pub fn check(calls: &[Call]) -> Result<Verdict, String> {
    let mut by_name: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    let mut verdict = Verdict { calls: calls.len(), ..Verdict::default() };
    for call in calls {
        if call.returned < call.called {
            return Err(format!("a call returned before it was called: {call:?}"));
        }
        verdict.maybes += usize::from(call.answer == Answer::Maybe);
        by_name.entry(call.object_key.as_str()).or_default().push(call);
    }
    verdict.object_keys = by_name.len();
    for calls in by_name.values() {
        let mut search = Search::new();
        verdict.violations.extend(search.run(calls)?);
        verdict.configurations_max = verdict.configurations_max.max(search.widest);
    }
    Ok(verdict)
}

/// The search over one object key.
struct Search<'a> {
    open: Vec<Option<&'a Call>>,
    possible: HashSet<Configuration>,
    widest: usize,
}

impl<'a> Search<'a> {
    fn new() -> Self {
        Self { open: vec![None; OPEN_MAX], possible: HashSet::from([(0, None)]), widest: 1 }
    }

    fn run(&mut self, calls: &[&'a Call]) -> Result<Option<Violation>, String> {
        // A call at the time of a return came after it: that is the stricter reading of a tie, and
        // clocks that count nanoseconds have none.
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            events.push((call.called, true, index));
            events.push((call.returned.max(call.called + 1), false, index));
        }
        events.sort_unstable();
        let mut slots = vec![0_usize; calls.len()];
        for (_, is_call, index) in events {
            let (Some(call), Some(slot)) = (calls.get(index), slots.get_mut(index)) else {
                continue;
            };
            if is_call {
                *slot = self.begin(call)?;
            } else if !self.end(call, *slot)? {
                let mut possible: Vec<_> = self.possible.iter().map(|it| it.1).collect();
                possible.sort_unstable();
                possible.dedup();
                return Ok(Some(Violation { call: (*call).clone(), possible }));
            }
        }
        Ok(None)
    }

    fn begin(&mut self, call: &'a Call) -> Result<usize, String> {
        let free = self.open.iter_mut().enumerate().find(|(_, place)| place.is_none());
        let (slot, place) =
            free.ok_or_else(|| format!("more than {OPEN_MAX} calls at a time: {call:?}"))?;
        *place = Some(call);
        Ok(slot)
    }

    /// The call returns; whether a configuration is left in which it took effect.
    fn end(&mut self, call: &Call, slot: usize) -> Result<bool, String> {
        let bit = 1_u64 << slot;
        let mut left: HashSet<Configuration> = HashSet::new();
        let mut seen = self.possible.clone();
        let mut frontier: Vec<Configuration> = self.possible.iter().copied().collect();
        while let Some((mask, value)) = frontier.pop() {
            if mask & bit != 0 {
                left.insert((mask & !bit, value));
                continue;
            }
            for (number, other) in self.open.iter().enumerate() {
                let Some(other) = other.filter(|_| mask & (1 << number) == 0) else {
                    continue;
                };
                for after in effects(other, value) {
                    let next = (mask | (1 << number), after);
                    if seen.insert(next) {
                        frontier.push(next);
                    }
                }
            }
            if seen.len() > CONFIGURATIONS_MAX {
                return Err(format!("too many configurations at {call:?}"));
            }
        }
        if left.is_empty() {
            return Ok(false);
        }
        self.widest = self.widest.max(seen.len());
        self.possible = left;
        if let Some(place) = self.open.get_mut(slot) {
            *place = None;
        }
        Ok(true)
    }
}

/// The values that may follow `value` when the call takes effect; none if it cannot have.
fn effects(call: &Call, value: Option<u64>) -> Vec<Option<u64>> {
    let holds = match call.verb {
        Verb::Delete | Verb::Get | Verb::Put => true,
        Verb::PutIfAbsent => value.is_none(),
        Verb::PutIfMatch => value.is_some() && value == call.expected,
    };
    let after = match call.verb {
        Verb::Delete => None,
        Verb::Get => value,
        Verb::Put | Verb::PutIfAbsent | Verb::PutIfMatch => call.value,
    };
    match call.answer {
        Answer::Done if call.verb == Verb::Get && value != call.value => Vec::new(),
        Answer::Done if holds => vec![after],
        Answer::Refused if !holds => vec![value],
        Answer::Maybe if holds => vec![value, after],
        Answer::Maybe => vec![value],
        Answer::Done | Answer::Refused => Vec::new(),
    }
}
