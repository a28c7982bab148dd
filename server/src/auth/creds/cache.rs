//! A bounded cache of what the registry says about access keys.
//!
//! Owns: how many entries there are and which one goes. Knows nothing of: what they hold.
//!
//! Invariants
//! - Never more than twice [`Cache::half_entries_max`] entries.
//! - What was read before a change never enters after it: [`Cache::insert`] takes the [`Epoch`]
//!   that was current when reading began, and [`Cache::forget`] and [`Cache::forget_all`] end that
//!   epoch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A span of time without changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// Two generations: entries enter the young one; when it is full, it becomes the old one and what
/// was old is dropped. An entry in use moves back to the young one. So a hit costs one look, or
/// two.
struct Generations<T> {
    young: HashMap<Arc<str>, Arc<T>>,
    old: HashMap<Arc<str>, Arc<T>>,
    epoch: u64,
}

/// The cache.
pub(crate) struct Cache<T> {
    generations: Mutex<Generations<T>>,
    half_entries_max: usize,
}

impl<T> Cache<T> {
    /// A cache of at most twice `half_entries_max` entries.
    pub(crate) fn new(half_entries_max: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new(), epoch: 0 };
        Self { generations: Mutex::new(generations), half_entries_max }
    }

    fn lock(&self) -> MutexGuard<'_, Generations<T>> {
        // A panic elsewhere leaves the maps whole: every change of them is one call.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of `name`, or the epoch to read the registry in.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<T>, Epoch> {
        let mut generations = self.lock();
        if let Some(entry) = generations.young.get(name) {
            return Ok(Arc::clone(entry));
        }
        let Some((name, entry)) = generations.old.remove_entry(name) else {
            return Err(Epoch(generations.epoch));
        };
        self.put(&mut generations, name, Arc::clone(&entry));
        Ok(entry)
    }

    /// Adds what was read in `epoch`, unless that is over.
    pub(crate) fn insert(&self, epoch: Epoch, name: Arc<str>, entry: Arc<T>) {
        let mut generations = self.lock();
        if generations.epoch == epoch.0 {
            self.put(&mut generations, name, entry);
        }
    }

    fn put(&self, generations: &mut Generations<T>, name: Arc<str>, entry: Arc<T>) {
        if generations.young.len() >= self.half_entries_max {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(name, entry);
    }

    /// Drops one entry, after its row changed.
    pub(crate) fn forget(&self, name: &str) {
        let mut generations = self.lock();
        generations.epoch += 1;
        generations.young.remove(name);
        generations.old.remove(name);
    }

    /// Drops all entries, after rows changed that many of them depend on.
    pub(crate) fn forget_all(&self) {
        let mut generations = self.lock();
        generations.epoch += 1;
        generations.young.clear();
        generations.old.clear();
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let generations = self.lock();
        generations.young.len() + generations.old.len()
    }
}
