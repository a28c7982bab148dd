//! The rows in a sorted map: for tests, and for the simulation with what a crash does to a log.
//!
//! Owns: the map, how much of its history a crash may take back, failures to come.
//! Knows nothing of: what a row means.
//!
//! Invariants
//! - A write that was answered with `Ok` survives a crash, unless the log lied
//!   ([`MemoryMeta::crash_losing`]); one that failed survives or not, and is seen before by nobody.
//! - What a crash takes back is the end of the history, as point-in-time recovery does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

use super::{Change, Family, MetaStore, ScanStep, Visit};
use crate::error::{Error, ErrorKind, Result};

/// Batches that a lying log may lose.
const HISTORY_MAX: usize = 16;

type Place = (Family, Vec<u8>);
type Rows = BTreeMap<Place, Bytes>;

/// Rows in memory.
#[derive(Default)]
pub(crate) struct MemoryMeta {
    state: Mutex<State>,
    alive: Arc<()>,
}

#[derive(Clone, Default)]
struct State {
    rows: Rows,
    sequence: u64,
    /// The last batches, newest last: what each row was before.
    history: VecDeque<Undo>,
    /// Writes that still succeed before one fails.
    fail_after: Option<u64>,
    /// The batch that failed.
    failed: Option<Vec<Change>>,
}

/// How to take a batch back.
#[derive(Clone)]
struct Undo {
    before: Vec<(Place, Option<Bytes>)>,
    #[cfg_attr(not(feature = "sim"), expect(dead_code, reason = "read by a crash"))]
    sequence: u64,
}

impl MemoryMeta {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(feature = "sim")]
impl MemoryMeta {
    /// Lets `after` more writes succeed; the next one fails.
    pub(crate) fn fail_after(&self, after: u64) {
        self.state().fail_after = Some(after);
    }

    /// Fails no write any more.
    pub(crate) fn calm(&self) {
        self.state().fail_after = None;
    }

    /// Whether a write has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().failed.is_some()
    }

    /// What the next start finds; `keep_failed` says whether a write that failed is there.
    pub(crate) fn crash(&self, keep_failed: bool) -> Self {
        self.crash_losing(0, keep_failed)
    }

    /// As [`Self::crash`], but the log's last `batches`, although synced, are gone.
    pub(crate) fn crash_losing(&self, batches: usize, keep_failed: bool) -> Self {
        let mut state = self.state().clone();
        state.fail_after = None;
        let failed = state.failed.take().filter(|_| keep_failed && batches == 0);
        for _ in 0..batches {
            let Some(undo) = state.history.pop_back() else { break };
            state.sequence = undo.sequence;
            for (row_key, before) in undo.before.into_iter().rev() {
                match before {
                    Some(value) => state.rows.insert(row_key, value),
                    None => state.rows.remove(&row_key),
                };
            }
        }
        state.history.clear();
        let after = Self { state: Mutex::new(state), alive: Arc::default() };
        if let Some(changes) = failed {
            // It was decided before: nothing in it can fail now that could not then.
            drop(after.write(&changes));
        }
        after
    }

    /// A fingerprint of all rows.
    pub(crate) fn fingerprint(&self) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        let state = self.state();
        state.sequence.hash(&mut hasher);
        for ((family, row_key), value) in &state.rows {
            (family, row_key, value).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl State {
    fn apply(&mut self, changes: &[Change]) -> Result<()> {
        let mut undo = Undo { before: Vec::with_capacity(changes.len()), sequence: self.sequence };
        for change in changes {
            let (row_key, before) = match change.clone() {
                Change::Put { row, value } => {
                    let row_key = (row.family, row.bytes);
                    (row_key.clone(), self.rows.insert(row_key, value))
                }
                Change::Delete { row } => {
                    let row_key = (row.family, row.bytes);
                    let before = self.rows.remove(&row_key);
                    (row_key, before)
                }
                Change::Add { row, delta } => {
                    let row_key = (row.family, row.bytes);
                    let held = self.rows.get(&row_key).and_then(|held| held.first_chunk());
                    let held = held.map_or(0, |held| i64::from_be_bytes(*held));
                    let sum = held.checked_add(delta).ok_or_else(|| {
                        Error::new(ErrorKind::Misuse, "add to a counter row: overflow")
                    })?;
                    let value = Bytes::copy_from_slice(&sum.to_be_bytes());
                    (row_key.clone(), self.rows.insert(row_key, value))
                }
            };
            undo.before.push((row_key, before));
        }
        self.sequence += changes.len() as u64;
        self.history.push_back(undo);
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
        Ok(())
    }
}

impl MetaStore for MemoryMeta {
    fn get(&self, family: Family, row_key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.state().rows.get(&(family, row_key.to_vec())).cloned())
    }

    fn get_cached(&self, family: Family, row_key: &[u8]) -> Option<Result<Option<Bytes>>> {
        Some(self.get(family, row_key))
    }

    fn scan(
        &self,
        family: Family,
        lower: &[u8],
        upper: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let mut from = lower.to_vec();
        loop {
            let next = self
                .state()
                .rows
                .range((family, from.clone())..)
                .next()
                .filter(|((of, row_key), _)| *of == family && row_key.as_slice() < upper)
                .map(|((_, row_key), value)| (row_key.clone(), value.clone()));
            let Some((row_key, value)) = next else {
                return Ok(());
            };
            match visit(&row_key, &value)? {
                ScanStep::Next => {
                    from = row_key;
                    from.push(0);
                }
                ScanStep::Seek(to) => {
                    debug_assert!(to > row_key, "a scan seeks ahead");
                    from = to;
                }
                ScanStep::Stop => return Ok(()),
            }
        }
    }

    fn write(&self, changes: &[Change]) -> Result<u64> {
        let mut state = self.state();
        if state.fail_after == Some(0) {
            state.fail_after = None;
            state.failed = Some(changes.to_vec());
            return Err(Error::new(ErrorKind::Fenced, "write metadata: a simulated failure"));
        }
        state.fail_after = state.fail_after.map(|after| after - 1);
        state.apply(changes)?;
        Ok(state.sequence)
    }

    fn ensure_family(&self, _: Family) -> Result<()> {
        Ok(())
    }

    fn sequence(&self) -> u64 {
        self.state().sequence
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }

    fn alive(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }
}
