//! Rewrap: every bucket key of a tenant key under its current material.
//!
//! The index says what lies under older materials, the fence that nothing more comes, and a scan of
//! every bucket key that the index left nothing out.
//! Owns: the phases `Fence`, `Index` and `VerifyKeys`. Knows nothing of: objects.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use kluis_kms::{Access, KeyUse, WrapGuard};

use super::objects::is_damage;
use super::row::{JobRow, Phase};
use super::run::{PAGE_ROWS, PASSES_MAX, Step, Work};
use super::scan::{after, key_page, page};
use super::{JobKind, JobState};
use crate::bucket_keys::{IndexName, RowName};
use crate::commit::Draft;
use crate::engine::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::Change;
use crate::namespace::Table;
use crate::rows::BucketKeyRow;

impl Inner {
    pub(super) async fn fence_step(&self, work: &Work, row: &mut JobRow) -> Result<Step> {
        self.fence(&work.ns, row.tenant_key).await?;
        row.enter(Phase::Index);
        Ok(Step::More(0))
    }

    /// Wraps anew what the next index rows name.
    pub(super) async fn index_step(&self, work: &Work, row: &mut JobRow) -> Result<Step> {
        let prefix = row.tenant_key.as_bytes();
        let rows_max = step_rows(row);
        let page = page(&work.ns, Table::KeyIndex, prefix, &row.cursor, rows_max).await?;
        let mut names = Vec::new();
        for (rest, value) in &page.rows {
            match IndexName::decode(rest) {
                Ok(name) => names.push(name),
                Err(error) => self.drop_index(work, (rest, value), &error).await?,
            }
        }
        // In order of materials: behind the last older one there is nothing to do.
        let is_last =
            page.next.is_none() || names.last().is_some_and(|last| last.material >= row.material);
        names.retain(|name| name.material < row.material);
        for name in &names {
            self.mend_index(work, name).await?;
        }
        let (done, _) = self.rewrap_all(work, row, names.iter().map(|name| name.of)).await?;
        row.done += done;
        if is_last {
            row.enter_scan(Phase::VerifyKeys);
        } else if let Some((rest, _)) = page.rows.last() {
            row.cursor = after(rest);
        }
        Ok(Step::More(done))
    }

    /// Deletes an index row that no bucket key can have.
    async fn drop_index(
        &self,
        work: &Work,
        (rest, value): (&[u8], &Bytes),
        error: &Error,
    ) -> Result<()> {
        tracing::warn!(tenant = %work.ns.tenant(), %error, "a job deletes an index row");
        let mut draft = Draft::default();
        draft.delete_held(work.ns.row(Table::KeyIndex, &[rest]), value.clone());
        self.job_commit(draft).await
    }

    /// Deletes an index row that stands for nothing: its bucket went while its key was being moved.
    async fn mend_index(&self, work: &Work, name: &IndexName) -> Result<()> {
        let held = match name.of.held(&work.ns).await {
            // The verifying scan says so.
            Err(error) if is_damage(&error) => return Ok(()),
            held => held?,
        };
        let named = held.as_ref().and_then(|(_, row)| IndexName::of(name.of, row));
        if named.as_ref() == Some(name) {
            return Ok(());
        }
        let mut draft = Draft::default();
        draft.expect(name.of.row(&work.ns), held.map(|(bytes, _)| bytes));
        draft.changes.push(Change::Delete { row: name.row(&work.ns) });
        self.job_commit(draft).await
    }

    /// Wraps bucket keys anew, with commits side by side; how many, and how many do not verify. One
    /// that changes meanwhile is left to the verifying scan.
    async fn rewrap_all(
        &self,
        work: &Work,
        row: &JobRow,
        names: impl Iterator<Item = RowName>,
    ) -> Result<(u64, u64)> {
        let (mut commits, mut damaged) = (Vec::new(), 0);
        for name in names {
            let rewrapped = match self.rewrapped(work, row, name).await {
                Err(error) if is_damage(&error) => {
                    tracing::warn!(tenant_key = %row.tenant_key, %error,
                        "a job passes over a bucket key that does not verify");
                    damaged += 1;
                    continue;
                }
                rewrapped => rewrapped?,
            };
            let Some((draft, guard)) = rewrapped else { continue };
            commits.push(async move {
                let outcome = self.job_commit(draft).await;
                drop(guard);
                outcome
            });
        }
        let mut done = 0;
        for outcome in join_all(commits).await {
            match outcome {
                Ok(()) => done += 1,
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok((done, damaged))
    }

    async fn rewrapped(
        &self,
        work: &Work,
        row: &JobRow,
        name: RowName,
    ) -> Result<Option<(Draft, WrapGuard)>> {
        let mut access = Access::in_bucket(KeyUse::Write, *name.bucket.as_bytes());
        access.material = name.held(&work.ns).await?.and_then(|(_, row)| row.material());
        let permit = Arc::new(self.kms.permit(&work.purpose, row.tenant_key, access)?);
        self.keys.rewrapped(&work.ns, &permit, name).await
    }

    /// Looks at the next bucket keys, all of them, whatever the index says; what is found under an
    /// older material is wrapped anew too, and the job looks once more.
    pub(super) async fn verify_keys_step(&self, work: &Work, row: &mut JobRow) -> Result<Step> {
        let (page, next) = key_page(&work.ns, &row.cursor).await?;
        let is_older = |key_row: &BucketKeyRow| {
            key_row.tenant_key == row.tenant_key
                && key_row.material().is_some_and(|material| material < row.material)
        };
        let older: Vec<_> = page.rows.iter().filter(|(.., key_row)| is_older(key_row)).collect();
        let names = older.iter().map(|(name, ..)| *name);
        let (done, damaged) = self.rewrap_all(work, row, names).await?;
        row.found += (older.len() as u64).saturating_sub(damaged);
        row.damaged += damaged;
        row.unreadable += page.damaged;
        row.done += done;
        if let Some(next) = next {
            row.cursor = next;
            return Ok(Step::More(done));
        }
        if row.found > 0 && row.pass + 1 < PASSES_MAX {
            row.pass += 1;
            row.enter(Phase::Fence);
            return Ok(Step::More(done));
        }
        row.remaining = Some(row.found + row.damaged);
        let mut causes = Vec::new();
        if row.found > 0 {
            causes.push(format!("{} bucket keys came back under older materials", row.found));
        }
        if row.damaged + row.unreadable > 0 {
            let count = row.damaged + row.unreadable;
            causes.push(format!("{count} bucket keys do not verify: run `kluis check`"));
        }
        if !causes.is_empty() {
            row.state = JobState::Failed;
            row.say(&causes.join("; "));
            return Ok(Step::Ended);
        }
        if row.kind == JobKind::Rewrap {
            row.state = JobState::Completed;
            return Ok(Step::Ended);
        }
        (row.pass, row.remaining) = (0, None);
        row.enter(Phase::Drain);
        Ok(Step::More(done))
    }
}

/// Rows of one step: as many as a second's worth of the rate.
pub(super) fn step_rows(row: &JobRow) -> usize {
    let rate = row.rate_max.map_or(PAGE_ROWS, |rate| usize::try_from(rate).unwrap_or(PAGE_ROWS));
    rate.clamp(1, PAGE_ROWS)
}
