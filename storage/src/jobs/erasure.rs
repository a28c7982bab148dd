//! The destruction of tenant keys, step by step, and the report of it.
//!
//! ```text
//! begin ─► row in sys ─► impact ─► erase and prove ─► tombstone ─► bucket keys ─► purge job done
//! ```
//! Owns: the order of the steps, the document. Knows nothing of: how material is erased.
//!
//! Invariants
//! - Every step may be done again; the row in `sys` goes last, so a crash anywhere is resumed. A
//!   purge that failed is started again while the row is there.
//! - What a step found is in the tenant's key directory before the next step begins.

use std::sync::Arc;

use kluis_kms::{
    ErasureAssurance, ErasureEvidence, JobId, KeyOrigin, KeyState, Purpose, Reason, Rights,
    TenantId, TenantKeyId,
};
use serde_json::{Map, Value, json};

use super::{ErasureReport, JobKind, JobRequest, JobState};
use crate::commit::Draft;
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Change, Family, RowKey, ScanStep, prefix_end};
use crate::namespace::blocking;
use crate::rows::ROW_VERSION;

/// The byte in front of the rows in `sys` that name keys whose destruction is under way.
const DESTROYING: u8 = b'E';
/// Buckets that a report names as having the key for their default: with the longest names 17 KiB,
/// so that a report fits into the key directory whatever its tenant does.
const NAMED_BUCKETS_MAX: usize = 256;
/// How long after its end a failed purge is started again, in milliseconds: what it failed by takes
/// its time to be mended, and each one looks at all objects of its tenant.
const PURGE_AGAIN_MS: u64 = 3_600 * 1_000;

impl Engine {
    /// The report of a key that is being or was destroyed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the tenant has no such key.
    pub async fn erasure_report(
        &self,
        tenant: TenantId,
        key: TenantKeyId,
    ) -> Result<Option<ErasureReport>> {
        let inner = &self.inner;
        let state = inner.kms.describe(tenant, key)?.state;
        let mut report = inner.stored_report(tenant, key)?;
        if report.is_empty() {
            return Ok(None);
        }
        report.insert("state".to_owned(), json!(state.to_string()));
        let job = report.get("purge_job").and_then(Value::as_str).map(str::to_owned);
        if let Some(job) = job {
            let purge = match self.job(tenant, &job).await {
                Ok(info) => json!({
                    "job": info.job,
                    "state": state_name(info.state),
                    "done": info.done,
                    "total": info.total,
                    "remaining": info.remaining,
                    "ended_ms": info.ended_ms,
                }),
                Err(error) if error.kind() == ErrorKind::NotFound => json!({ "job": job }),
                Err(error) => return Err(error),
            };
            report.insert("purge".to_owned(), purge);
        }
        Ok(Some(ErasureReport { json: Value::Object(report).to_string() }))
    }

    /// Does what is due by the clock: rotations, expiries, destructions. Called every few seconds
    /// and by tests.
    ///
    /// # Errors
    /// The first failure; what it kept from being done is due again at the next call.
    pub async fn run_due(&self) -> Result<()> {
        let inner = &self.inner;
        let _one_at_a_time = inner.jobs.due.lock().await;
        if inner.jobs.check_open().is_err() {
            return Ok(());
        }
        let kms = Arc::clone(&inner.kms);
        let rotated = blocking(move || Ok(kms.run_due()?)).await;
        let mut keys = inner.kms.due_destructions();
        keys.extend(inner.destructions_begun().await?);
        keys.sort();
        keys.dedup();
        let mut first = rotated.err();
        for (tenant, key) in keys {
            if inner.jobs.check_open().is_err() {
                break;
            }
            if let Err(error) = inner.destroy(tenant, key).await {
                tracing::warn!(%tenant, tenant_key = %key, %error,
                    "a key's destruction is not done; it goes on later");
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}

impl Inner {
    /// Keys whose destruction was begun and not seen through.
    async fn destructions_begun(&self) -> Result<Vec<(TenantId, TenantKeyId)>> {
        let lower = vec![DESTROYING];
        let upper = prefix_end(&lower);
        let corrupt = || Error::new(ErrorKind::Corrupt, "read which keys are being destroyed");
        self.reader
            .fold(Family::Sys, lower, upper, Vec::new(), move |found, row_key, _| {
                let ids = row_key.get(1..).ok_or_else(corrupt)?;
                let (tenant, key) = ids.split_first_chunk().ok_or_else(corrupt)?;
                let key = key.first_chunk().ok_or_else(corrupt)?;
                found.push((TenantId::from_bytes(*tenant), TenantKeyId::from_bytes(*key)));
                Ok(ScanStep::Next)
            })
            .await
    }

    /// Destroys a key, or goes on with it.
    async fn destroy(self: &Arc<Self>, tenant: TenantId, key: TenantKeyId) -> Result<()> {
        let ns = self.tenants.namespace(tenant)?;
        let info = self.kms.describe(tenant, key)?;
        let mut report = self.stored_report(tenant, key)?;
        let is_destroyed = info.state == KeyState::Destroyed;
        if is_destroyed && report.contains_key("purge_job") {
            return self.see_purge(tenant, key, &mut report).await;
        }
        if !is_destroyed {
            let kms = Arc::clone(&self.kms);
            let begun = blocking(move || match kms.begin_destruction(tenant, key) {
                Err(error) if error.kind() == kluis_kms::ErrorKind::Conflict => Ok(false),
                begun => Ok(begun.map(|()| true)?),
            });
            if !begun.await? {
                // It was called off in time: nothing is under way.
                return self.forget_destruction(tenant, key).await;
            }
        }
        // From here it is resumed also once the key waits for nothing any more.
        let mut draft = Draft::default();
        draft.put(destroying_row(tenant, key), vec![ROW_VERSION]);
        self.job_commit(draft).await?;
        if report.is_empty() {
            report.insert("version".to_owned(), json!(1));
            report.insert("key_id".to_owned(), json!(key.to_string()));
            report.insert("created_ms".to_owned(), json!(info.created_ms));
            // The last change of a key that waits for its deletion is that it was asked for.
            report.insert("requested_ms".to_owned(), json!(info.changed_ms));
            report.insert("due_ms".to_owned(), json!(info.deletion_ms));
            report.insert("begun_ms".to_owned(), json!(self.env.clock.now_ms()));
            report.insert("impact".to_owned(), self.impact_json(tenant, key).await?);
            self.store_report(tenant, key, &report).await?;
        }
        if !report.contains_key("evidence") {
            let kms = Arc::clone(&self.kms);
            let evidence = blocking(move || Ok(kms.erase_materials(tenant, key)?)).await?;
            report.insert("erased_ms".to_owned(), json!(evidence.erased_ms));
            report.insert("evidence".to_owned(), evidence_json(&evidence, &info.origin));
            self.store_report(tenant, key, &report).await?;
        }
        if !is_destroyed {
            let kms = Arc::clone(&self.kms);
            blocking(move || Ok(kms.finish_destruction(tenant, key)?)).await?;
        }
        self.erase_bucket_keys(&ns, key).await?;
        report.insert("bucket_keys_erased_ms".to_owned(), json!(self.env.clock.now_ms()));
        self.purge(tenant, key, &mut report).await?;
        tracing::info!(%tenant, tenant_key = %key, "destroyed a tenant key");
        Ok(())
    }

    /// Starts the job that gives up what lay under a destroyed key.
    async fn purge(
        self: &Arc<Self>,
        tenant: TenantId,
        key: TenantKeyId,
        report: &mut Map<String, Value>,
    ) -> Result<()> {
        let request = JobRequest { kind: JobKind::Purge, tenant_key: key, rate_max: None };
        let job = self.start(&purpose(tenant), request).await?.job;
        report.insert("purge_job".to_owned(), json!(job));
        self.store_report(tenant, key, report).await
    }

    /// Ends a destruction once its purge is done; one that failed is started again after a while.
    async fn see_purge(
        self: &Arc<Self>,
        tenant: TenantId,
        key: TenantKeyId,
        report: &mut Map<String, Value>,
    ) -> Result<()> {
        let job = report.get("purge_job").and_then(Value::as_str).unwrap_or_default();
        let info = match (Engine { inner: Arc::clone(self) }).job(tenant, job).await {
            // Its row made room for later ones.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return self.purge(tenant, key, report).await;
            }
            info => info?,
        };
        let Some(ended_ms) = info.ended_ms else { return Ok(()) };
        if info.state == JobState::Completed {
            return self.forget_destruction(tenant, key).await;
        }
        if self.env.clock.now_ms().abs_diff(ended_ms) < PURGE_AGAIN_MS {
            return Ok(());
        }
        self.purge(tenant, key, report).await
    }

    /// Nothing is to be resumed of a key's destruction any more.
    async fn forget_destruction(&self, tenant: TenantId, key: TenantKeyId) -> Result<()> {
        let mut draft = Draft::default();
        draft.changes.push(Change::Delete { row: destroying_row(tenant, key) });
        self.job_commit(draft).await
    }

    async fn impact_json(&self, tenant: TenantId, key: TenantKeyId) -> Result<Value> {
        let impact = self.impact(tenant, key).await?;
        let by_material = |counts: &[(u32, u64)]| -> Vec<Value> {
            let entry =
                |(material, count): &(u32, u64)| json!({ "material": material, "count": count });
            counts.iter().map(entry).collect()
        };
        Ok(json!({
            "counted_ms": impact.counted_ms,
            "buckets": impact.buckets,
            "objects": impact.objects,
            "bytes": impact.bytes,
            "open_uploads": impact.open_uploads,
            "bucket_keys": by_material(&impact.bucket_keys),
            "api_ciphertexts": by_material(&impact.api_ciphertexts),
            "default_of": impact.default_of.iter().take(NAMED_BUCKETS_MAX).collect::<Vec<_>>(),
            "default_of_count": impact.default_of.len(),
            "damaged": impact.damaged,
        }))
    }

    fn stored_report(&self, tenant: TenantId, key: TenantKeyId) -> Result<Map<String, Value>> {
        let Some(stored) = self.kms.erasure_report(tenant, key) else {
            return Ok(Map::new());
        };
        serde_json::from_slice(&stored).map_err(|cause| {
            Error::new(ErrorKind::Corrupt, "read an erasure report").with_source(cause)
        })
    }

    async fn store_report(
        &self,
        tenant: TenantId,
        key: TenantKeyId,
        report: &Map<String, Value>,
    ) -> Result<()> {
        let text = serde_json::to_vec(report).map_err(|cause| {
            Error::new(ErrorKind::Misuse, "write an erasure report").with_source(cause)
        })?;
        let kms = Arc::clone(&self.kms);
        blocking(move || Ok(kms.keep_erasure_report(&purpose(tenant), key, text)?)).await
    }
}

/// The row in `sys` of a key whose destruction is under way.
fn destroying_row(tenant: TenantId, key: TenantKeyId) -> RowKey {
    let bytes = [&[DESTROYING], tenant.as_bytes().as_slice(), key.as_bytes()].concat();
    RowKey { family: Family::Sys, bytes }
}

/// What the node destroys a key as: its tenant asked for it when it scheduled the deletion.
fn purpose(tenant: TenantId) -> Purpose {
    Purpose {
        tenant,
        principal: "kluis".into(),
        reason: Reason::TenantJob { job: JobId::new("destruction") },
        request_id: "destruction".into(),
        action: "kluis:DestroyKey",
        rights: Rights::of_tenant(),
    }
}

/// What was proved, and what it does not prove.
fn evidence_json(evidence: &ErasureEvidence, origin: &KeyOrigin) -> Value {
    let (assurance, limits) = match evidence.assurance {
        ErasureAssurance::BackendDestroyed => (
            "backend-destroyed",
            "The key store destroyed the key that the material was under. Copies of the data \
             directory do not open without it; copies that the key store itself keeps are not \
             covered.",
        ),
        ErasureAssurance::EpochDestroyed => (
            "epoch-destroyed",
            "The sealed root epoch that the material was under was replaced. Copies of the data \
             directory taken before do not open with what is left.",
        ),
        ErasureAssurance::OverwriteBestEffort => (
            "overwrite-best-effort",
            "The slots were overwritten and the keyring was sealed anew. A backup or an older \
             copy of the keys folder revives the key for whoever also has its passphrase, and a \
             disk or file system that writes elsewhere (SSD, copy-on-write, journal) may still \
             hold the bytes.",
        ),
    };
    let mut limits = vec![limits.to_owned()];
    match origin {
        KeyOrigin::Local => {}
        KeyOrigin::Imported => limits.push(
            "The material was imported. If its tenant still holds it, the key is revoked here, not \
             erased everywhere."
                .to_owned(),
        ),
        KeyOrigin::Store { .. } => limits.push(
            "The key is in a store of its tenant's own: it was let go of here. Destroying it there \
             is the tenant's to do."
                .to_owned(),
        ),
    }
    json!({
        "assurance": assurance,
        "limits": limits,
        "epoch_destroyed": evidence.epochs.0,
        "epoch_after": evidence.epochs.1,
        "materials": evidence.materials,
        "canaries_refused": evidence.canaries_refused,
        "erased_ms": evidence.erased_ms,
    })
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Cancelled => "cancelled",
        JobState::Completed => "completed",
        JobState::Failed => "failed",
        JobState::Running => "running",
        JobState::Waiting => "waiting",
    }
}
