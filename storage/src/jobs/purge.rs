//! Purge: what lay under a destroyed key is given up. Nothing of it could be read any more.
//!
//! Owns: the commits that delete objects, uploads and bucket keys under a destroyed key.
//! Knows nothing of: keys; it opens nothing.

use kluis_kms::TenantKeyId;

use super::objects::{Old, Place};
use super::scan::BucketKeyPages;
use crate::bucket_keys::change_row;
use crate::commit::Draft;
use crate::engine::Inner;
use crate::error::Result;
use crate::meta::prefix_end;
use crate::namespace::{Table, TenantNs, blocking};
use crate::rows::{BucketKeyRow, ObjectRow, UploadRow};
use std::sync::Arc;

impl Inner {
    /// The commit that deletes an object, or an upload with its parts.
    pub(super) async fn purged(&self, ns: &TenantNs, old: &Old) -> Result<Draft> {
        let mut draft = Draft::default();
        draft.delete_held(old.row.clone(), old.held.clone());
        match &old.place {
            Place::Object { .. } => {
                let content = ObjectRow::decode(&old.held)?.content;
                self.release_content(ns, content, &mut draft).await?;
            }
            Place::Upload { bucket, upload, .. } => {
                let content = UploadRow::decode(&old.held)?.content;
                self.give_up_all_parts(ns, bucket, (*upload, content), &mut draft).await?;
            }
        }
        Ok(draft)
    }

    /// Takes the wraps out of every bucket key under `tenant_key`, with their index rows, and makes
    /// the store let go of the bytes. The rows stay, so that no number is used again and whoever
    /// asks for what was under them is told why it does not open.
    pub(super) async fn erase_bucket_keys(
        &self,
        ns: &TenantNs,
        tenant_key: TenantKeyId,
    ) -> Result<()> {
        let mut pages = BucketKeyPages::new(ns);
        while let Some(page) = pages.next().await? {
            let mut draft = Draft::default();
            // A row that does not decode stays: whatever its wrap was under, it may be another's.
            for (name, held, row) in page.rows {
                if row.tenant_key != tenant_key || row.wrapped.is_none() {
                    continue;
                }
                let erased = BucketKeyRow { is_indexed: true, wrapped: None, ..row.clone() };
                change_row(&mut draft, ns, name, Some((&held, &row)), &erased);
            }
            if !draft.changes.is_empty() {
                self.job_commit(draft).await?;
            }
        }
        let store = Arc::clone(self.reader.store());
        let ranges = [Table::BucketKeys, Table::KeyIndex].map(|table| ns.row(table, &[]));
        blocking(move || {
            for lower in ranges {
                store.forget(lower.family, &lower.bytes, &prefix_end(&lower.bytes))?;
            }
            Ok(())
        })
        .await
    }
}
