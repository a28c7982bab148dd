//! The test double: rows in a sorted map, as durable as the test says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

use super::{Change, Family, MetaStore, ScanStep, Visit};
use crate::error::{Error, ErrorKind, Result};

/// Rows in memory.
#[derive(Default)]
pub(crate) struct MemoryMeta {
    rows: Mutex<BTreeMap<(Family, Vec<u8>), Bytes>>,
    sequence: AtomicU64,
    alive: Arc<()>,
}

impl MemoryMeta {
    fn rows(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Family, Vec<u8>), Bytes>> {
        self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl MetaStore for MemoryMeta {
    fn get(&self, family: Family, row_key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.rows().get(&(family, row_key.to_vec())).cloned())
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
                .rows()
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
        let mut rows = self.rows();
        for change in changes {
            match change.clone() {
                Change::Put { row, value } => {
                    rows.insert((row.family, row.bytes), value);
                }
                Change::Delete { row } => {
                    rows.remove(&(row.family, row.bytes));
                }
                Change::Add { row, delta } => {
                    let entry = rows.entry((row.family, row.bytes)).or_default();
                    let held = entry.first_chunk().map_or(0, |held| i64::from_be_bytes(*held));
                    let sum = held.checked_add(delta).ok_or_else(|| {
                        Error::new(ErrorKind::Misuse, "add to a counter row: overflow")
                    })?;
                    *entry = Bytes::copy_from_slice(&sum.to_be_bytes());
                }
            }
        }
        Ok(self.sequence.fetch_add(changes.len() as u64, Ordering::AcqRel) + changes.len() as u64)
    }

    fn ensure_family(&self, _: Family) -> Result<()> {
        Ok(())
    }

    fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }

    fn alive(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }
}
