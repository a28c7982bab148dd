//! The audit trail of the caller's tenant.
//!
//! Owns: the fields of `ListAuditEvents`, the shape of an event, who reads now. Knows nothing of:
//! how the trail is kept.
//!
//! Invariants
//! - A tenant reads its own events and no other's.
//! - It has one read in progress at a time: each may go through files of 64 MiB.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use kluis_kms::{AuditRecord, Reason, TenantId};
use serde_json::{Map, Value};

use super::call::Call;
use super::error::{Answer, of_key, throttled};
use super::names::uuid;
use super::reply::{Reply, seconds};

/// Events in one answer.
const LIMIT: (i64, i64) = (1, 1_000);
/// Events in one answer if the caller does not say how many.
const LIMIT_DEFAULT: usize = 100;

/// The tenants that read their trail now.
#[derive(Default)]
pub(super) struct Readers(Mutex<HashSet<TenantId>>);

impl Readers {
    fn take(&self, tenant: TenantId) -> Option<Reading<'_>> {
        let is_first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant);
        is_first.then_some(Reading { readers: self, tenant })
    }
}

/// One read in progress.
struct Reading<'a> {
    readers: &'a Readers,
    tenant: TenantId,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.readers.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.tenant);
    }
}

/// `ListAuditEvents`.
pub(super) fn list(call: &Call) -> Answer<Reply> {
    let after = call.fields.integer("After", (0, i64::MAX))?;
    let after = after.and_then(|after| u64::try_from(after).ok()).unwrap_or_default();
    let limit = call.fields.integer("Limit", LIMIT)?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIMIT_DEFAULT);
    call.authorise(None)?;
    let _reading = call.api.readers.take(call.user.tenant).ok_or_else(throttled)?;
    let read = call.api.kms.audit_log().read(call.user.tenant, after, limit);
    let records = read.map_err(|cause| of_key(&cause, "The audit trail"))?;
    // A full page may have another behind it; a reader that follows the trail asks again anyway.
    let next = records.last().filter(|_| records.len() == limit);
    let next = next.map(|record| record.header.sequence);
    let events: Vec<Value> = records.iter().map(shown).collect();
    Ok(Reply::default().with("Events", events).with_some("Next", next))
}

fn shown(record: &AuditRecord) -> Value {
    let (header, access) = (&record.header, &record.access);
    let job = match &record.reason {
        Some(Reason::TenantJob { job }) => Some(job.as_str().to_owned()),
        _ => None,
    };
    let reply = Reply::from(Map::new())
        .with("Sequence", header.sequence)
        .with("Time", seconds(header.time_ms))
        .with("Operation", header.operation.name())
        .with("Outcome", header.outcome.name())
        .with_some("KeyId", header.tenant_key.map(uuid))
        .with_some("Material", access.material)
        .with_some("Bucket", access.bucket.map(hex::encode))
        .with_some("Version", access.version.map(hex::encode))
        .with("Principal", record.principal.clone())
        .with_some("Reason", record.reason.as_ref().map(Reason::code))
        .with_some("JobId", job)
        .with("RequestId", record.request_id.clone())
        .with("Action", record.action.clone())
        .with("EntryHash", hex::encode(header.entry_hash))
        .with("PreviousHash", hex::encode(header.previous_hash));
    Value::Object(reply.into_fields())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_one_read_at_a_time_and_keeps_no_other_waiting() {
        let readers = Readers::default();
        let (ada, bob) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let reading = readers.take(ada);
        assert!(reading.is_some() && readers.take(ada).is_none());
        assert!(readers.take(bob).is_some());
        drop(reading);
        assert!(readers.take(ada).is_some());
    }
}
