//! Kluis' own verbs: jobs on keys, what depends on one, retiring a material, the erasure report.
//!
//! Owns: the fields of those operations. Knows nothing of: how a job works.
//!
//! Invariants
//! - A job and a report are the caller's tenant's; another tenant's answers as absent.

use std::sync::Arc;

use kluis_storage::{Engine, ErrorKind, JobInfo, JobKind, JobRequest, JobState, KeyImpact};
use serde_json::{Map, Value, json};

use super::blocking;
use super::call::{Accept, Call, Target};
use super::error::{Answer, KmsError, absent_key, internal, invalid, not_found, of_engine};
use super::fields::{Length, missing};
use super::names::{Named, uuid};
use super::reply::{Reply, seconds};
use super::table::Pending;

/// A job's id: 32 hexadecimal digits.
const JOB_ID: Length = Length { min: 32, max: 32 };
/// Steps a second that a job may be held to.
const RATE: (i64, i64) = (1, 1_000_000);

fn engine(call: &Call) -> Answer<&Engine> {
    call.api.engine.as_ref().ok_or_else(internal)
}

/// The key of a call, after the caller's right to it was decided.
fn authorised(call: &Call) -> Answer<Target> {
    let target = call.target("KeyId", Accept::Aliases)?;
    call.authorise(Some(&target))?;
    Ok(target)
}

/// `StartRewrap`.
pub(super) fn start_rewrap(call: Arc<Call>) -> Pending {
    Box::pin(async move {
        let is_deep = call.fields.flag("Deep")?;
        start(call, if is_deep { JobKind::DeepRewrap } else { JobKind::Rewrap }).await
    })
}

/// `StartReencrypt`.
pub(super) fn start_reencrypt(call: Arc<Call>) -> Pending {
    Box::pin(start(call, JobKind::Reencrypt))
}

async fn start(call: Arc<Call>, kind: JobKind) -> Answer<Reply> {
    let rate_max = call.fields.integer("RatePerSecond", RATE)?;
    let rate_max = rate_max.and_then(|rate| u32::try_from(rate).ok());
    let target = blocking(Arc::clone(&call), |call| {
        let target = authorised(call)?;
        target.check_enabled()?;
        Ok(target)
    })
    .await?;
    let request = JobRequest { kind, tenant_key: target.id(), rate_max };
    let job = engine(&call)?.start_job(&call.purpose(), request).await;
    let job = job.map_err(|cause| match cause.kind() {
        ErrorKind::Conflict => KmsError::new(
            "ConflictException",
            "A job is at work on the key that this one cannot run beside, or the account has as \
             many jobs as it may: let one end, or cancel it.",
        ),
        _ => of_engine(&cause, &target.arn),
    })?;
    Ok(Reply::default().with("Job", shown(&job)))
}

/// The job that a call names, if the caller may do the operation to its key.
async fn job(call: &Arc<Call>) -> Answer<JobInfo> {
    let id = call.fields.required_text("JobId", JOB_ID)?;
    let absent = || not_found(format!("Job '{id}' does not exist"));
    let found = engine(call)?.job(call.user.tenant, id).await;
    let job = found.map_err(|cause| match cause.kind() {
        ErrorKind::NotFound | ErrorKind::Misuse => absent(),
        _ => of_engine(&cause, "The job"),
    })?;
    authorise_job(call, &job)?;
    Ok(job)
}

/// Decides on a job by the key that it works on.
fn authorise_job(call: &Call, job: &JobInfo) -> Answer<()> {
    let info = call.names().find_any(&Named::Id(job.tenant_key));
    let target = info.map(|info| call.target_of(info));
    call.authorise(target.as_ref())
}

/// `DescribeJob`.
pub(super) fn describe(call: Arc<Call>) -> Pending {
    Box::pin(async move { Ok(Reply::default().with("Job", shown(&job(&call).await?))) })
}

/// `CancelJob`.
pub(super) fn cancel(call: Arc<Call>) -> Pending {
    Box::pin(async move {
        let job = job(&call).await?;
        let cancelled = engine(&call)?.cancel_job(&call.purpose(), &job.job).await;
        let cancelled = cancelled.map_err(|cause| match cause.kind() {
            ErrorKind::Conflict | ErrorKind::Misuse => {
                KmsError::new("ConflictException", "The job cannot be cancelled any more.")
            }
            _ => of_engine(&cause, "The job"),
        })?;
        Ok(Reply::default().with("Job", shown(&cancelled)))
    })
}

/// `ListJobs`.
pub(super) fn list(call: Arc<Call>) -> Pending {
    Box::pin(async move {
        let target = blocking(Arc::clone(&call), |call| {
            let target = call.optional_target("KeyId", Accept::Aliases)?;
            call.authorise(target.as_ref())?;
            Ok(target)
        })
        .await?;
        let key = target.as_ref().map(Target::id);
        let jobs = engine(&call)?.jobs(call.user.tenant, key).await;
        let jobs = jobs.map_err(|cause| of_engine(&cause, "The list of jobs"))?;
        let jobs: Vec<Value> = jobs.iter().map(shown).collect();
        Ok(Reply::default().with("Jobs", jobs))
    })
}

/// `DescribeKeyImpact`.
pub(super) fn impact(call: Arc<Call>) -> Pending {
    Box::pin(async move {
        let target = blocking(Arc::clone(&call), authorised).await?;
        let impact = engine(&call)?.key_impact(&call.purpose(), target.id()).await;
        let impact = impact.map_err(|cause| of_engine(&cause, &target.arn))?;
        Ok(shown_impact(&impact))
    })
}

/// `RetireKeyMaterial`.
pub(super) fn retire_material(call: Arc<Call>) -> Pending {
    Box::pin(async move {
        let material = call.fields.integer("Material", (1, i64::from(u32::MAX)))?;
        let material = material.ok_or_else(|| missing("Material"))?;
        let material = u32::try_from(material).map_err(|_| internal())?;
        let force = call.fields.flag("Force")?;
        let target = blocking(Arc::clone(&call), |call| {
            let target = authorised(call)?;
            target.check_not_pending_deletion()?;
            Ok(target)
        })
        .await?;
        if material == target.info.current_material {
            return Err(invalid("The current material cannot be retired; rotate the key first."));
        }
        if !target.info.materials.iter().any(|known| known.number == material) {
            return Err(not_found(format!("{} has no material {material}.", target.arn)));
        }
        let engine = engine(&call)?;
        let retired = engine.retire_material(&call.purpose(), target.id(), material, force).await;
        retired.map_err(|cause| match cause.kind() {
            ErrorKind::Conflict | ErrorKind::NotEmpty => KmsError::new(
                "ConflictException",
                format!(
                    "Something is still under material {material} of {}: {}",
                    target.arn, "see DescribeKeyImpact, and rewrap it first."
                ),
            ),
            _ => of_engine(&cause, &target.arn),
        })?;
        Ok(Reply::default().with("KeyId", uuid(target.id())).with("Material", material))
    })
}

/// `GetErasureReport`.
pub(super) fn erasure_report(call: Arc<Call>) -> Pending {
    Box::pin(async move {
        let target = blocking(Arc::clone(&call), |call| {
            // A destroyed key still answers for its report.
            let text = call.fields.required_text("KeyId", Length::up_to(2_048))?;
            let names = call.names();
            let found = names.find_any(&names.read(text));
            let target = call.target_of(found.ok_or_else(|| absent_key(text))?);
            call.authorise(Some(&target))?;
            Ok(target)
        })
        .await?;
        let report = engine(&call)?.erasure_report(call.user.tenant, target.id()).await;
        let report = report.map_err(|cause| of_engine(&cause, &target.arn))?;
        let report = report
            .ok_or_else(|| not_found(format!("There is no erasure report of {}.", target.arn)))?;
        let report: Value = serde_json::from_str(&report.json).map_err(|_| internal())?;
        Ok(Reply::default().with("Report", report))
    })
}

fn kind_name(kind: JobKind) -> &'static str {
    match kind {
        JobKind::DeepRewrap => "DeepRewrap",
        JobKind::Purge => "Purge",
        JobKind::Reencrypt => "Reencrypt",
        JobKind::Rewrap => "Rewrap",
    }
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Cancelled => "Cancelled",
        JobState::Completed => "Completed",
        JobState::Failed => "Failed",
        JobState::Running => "Running",
        JobState::Waiting => "Waiting",
    }
}

/// A job as the API shows it.
fn shown(job: &JobInfo) -> Value {
    let reply = Reply::default()
        .with("JobId", job.job.clone())
        .with("Kind", kind_name(job.kind))
        .with("KeyId", uuid(job.tenant_key))
        .with("Material", job.material)
        .with("State", state_name(job.state))
        .with_some("Cause", job.cause.clone())
        .with("StartedDate", seconds(job.started_ms))
        .with("UpdatedDate", seconds(job.updated_ms))
        .with_some("EndedDate", job.ended_ms.map(seconds))
        .with("Done", job.done)
        .with("Total", job.total)
        .with("Bytes", job.bytes)
        .with_some("Remaining", job.remaining)
        .with_some("RatePerSecond", job.rate_max);
    Value::Object(reply.into_fields())
}

fn by_material(counts: &[(u32, u64)]) -> Value {
    counts.iter().map(|(material, count)| json!({"Material": material, "Count": count})).collect()
}

/// What a count of what depends on a key says and what it does not.
const COVERAGE: &str = "Counted in this node's live database: bucket keys, current object versions \
    and open uploads. Ciphertexts of the KMS API are kept by their owners: the number is of those \
    made, at most 1,023 too many for each material, and says nothing of those deleted. Backups and \
    copies elsewhere are not counted.";

fn shown_impact(impact: &KeyImpact) -> Reply {
    Reply::from(Map::new())
        .with("KeyId", uuid(impact.tenant_key))
        .with("BucketKeys", by_material(&impact.bucket_keys))
        .with("Buckets", impact.buckets)
        .with("Objects", impact.objects)
        .with("Bytes", impact.bytes)
        .with("OpenUploads", impact.open_uploads)
        .with("DefaultOf", impact.default_of.clone())
        .with("ApiCiphertexts", by_material(&impact.api_ciphertexts))
        .with("Damaged", impact.damaged)
        .with("CountedDate", seconds(impact.counted_ms))
        .with("Coverage", COVERAGE)
}
