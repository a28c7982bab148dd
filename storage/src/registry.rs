//! Rows of the node that storage keeps and does not read: tenants, users, access keys.
//!
//! Owns: where they lie in the family `sys`. Knows nothing of: what they hold.
//!
//! Invariants
//! - No tenant data: names that an operator gives, ids, and secrets sealed by kms.
//!   Bytes: docs/FORMAT.md, "Registry rows".

use std::sync::Arc;

use bytes::Bytes;

use crate::commit::{Committer, Draft};
use crate::error::Result;
use crate::meta::{Change, Condition, Family, MetaStore, RowKey, ScanStep, prefix_end};

/// The byte in front of every registry row key in `sys`.
const REGISTRY: u8 = b'R';
/// Rows that one scan yields at most.
const SCAN_ROWS_MAX: usize = 10_000;

/// What must hold for a registry commit.
#[derive(Clone, Debug)]
pub struct RegistryCondition {
    /// Which table.
    pub table: u8,
    /// Which row.
    pub row_key: Vec<u8>,
    /// Its value, or `None` for "absent".
    pub expected: Option<Vec<u8>>,
}

/// A change of a registry commit.
#[derive(Clone, Debug)]
pub struct RegistryChange {
    /// Which table.
    pub table: u8,
    /// Which row.
    pub row_key: Vec<u8>,
    /// Its new value, or `None` to delete it.
    pub value: Option<Vec<u8>>,
}

/// The registry. Its reads may block for a disk read; its rows are few and hot.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn MetaStore>,
    committer: Arc<Committer>,
}

impl Registry {
    pub(crate) fn new(store: Arc<dyn MetaStore>, committer: Arc<Committer>) -> Self {
        Self { store, committer }
    }

    /// One row.
    pub fn get(&self, table: u8, row_key: &[u8]) -> Result<Option<Vec<u8>>> {
        let row = row(table, row_key);
        Ok(self.store.get(row.family, &row.bytes)?.map(|value| value.to_vec()))
    }

    /// Rows of `table` whose key starts with `prefix`, after `after`, in byte order, at most
    /// `limit` (and never more than 10,000): row key and value.
    pub fn scan(
        &self,
        table: u8,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let within = row(table, prefix).bytes;
        let lower = after.map_or_else(
            || within.clone(),
            |after| {
                let mut next = row(table, after).bytes;
                next.push(0);
                next.max(within.clone())
            },
        );
        let limit = limit.min(SCAN_ROWS_MAX);
        let mut rows = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        self.store.scan(Family::Sys, &lower, &prefix_end(&within), &mut |row_key, value| {
            let row_key = row_key.get(2..).unwrap_or_default().to_vec();
            rows.push((row_key, value.to_vec()));
            Ok(if rows.len() < limit { ScanStep::Next } else { ScanStep::Stop })
        })?;
        Ok(rows)
    }

    /// Makes the changes if the conditions hold; durable once this returns.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`]: a condition does not hold; nothing was changed.
    pub async fn commit(
        &self,
        conditions: Vec<RegistryCondition>,
        changes: Vec<RegistryChange>,
    ) -> Result<()> {
        let conditions = conditions
            .into_iter()
            .map(|condition| Condition::RowIs {
                row: row(condition.table, &condition.row_key),
                expected: condition.expected.map(Bytes::from),
            })
            .collect();
        let changes = changes
            .into_iter()
            .map(|change| {
                let row = row(change.table, &change.row_key);
                match change.value {
                    Some(value) => Change::Put { row, value: value.into() },
                    None => Change::Delete { row },
                }
            })
            .collect();
        self.committer.commit(Draft::new(conditions, changes)).await
    }
}

fn row(table: u8, row_key: &[u8]) -> RowKey {
    RowKey { family: Family::Sys, bytes: [&[REGISTRY, table], row_key].concat() }
}
