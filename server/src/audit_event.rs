//! Audit events as JSON: one object, and so one line, per entry of the log.
//!
//! Owns: the fields that an operator sees, a line of the command line, the check that a list of
//! events has no gap. Pure. Knows nothing of: files, who may read.
//!
//! Invariants
//! - [`header`] shows nothing that is sealed in the log.
//!   Fields: docs/OPERATIONS.md, "Audit".

use std::time::Duration;

use kluis_kms::{AuditHeader, TenantKeyId};
use serde_json::{Value, json};

use crate::auth::amz_date::AmzDate;
use crate::auth::signing::hex;

/// What the first event of a log has as the hash before it.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// An event as the operator may see it: without principal, request, bucket and version.
pub(crate) fn header(header: &AuditHeader) -> Value {
    json!({
        "Sequence": header.sequence,
        "NodeSequence": header.node_sequence,
        "Time": time(header.time_ms),
        "Tenant": header.tenant.to_string(),
        "Operation": header.operation.name(),
        "KeyId": header.tenant_key.map(uuid),
        "Outcome": header.outcome.name(),
        "EntryHash": hex(&header.entry_hash),
        "PreviousHash": hex(&header.previous_hash),
    })
}

/// A time as RFC 3339 in UTC, to the millisecond.
fn time(unix_ms: u64) -> String {
    let text = AmzDate::from_unix_ms(unix_ms).extended();
    format!("{}.{:03}Z", text.trim_end_matches('Z'), unix_ms % 1_000)
}

/// An event of the API for tenants as a line: its time as text instead of epoch seconds.
pub(crate) fn line(mut event: Value) -> Value {
    let seconds = event.get("Time").and_then(Value::as_f64);
    // Half a millisecond more, because the number is the nearest one below or above.
    let since = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds + 0.0005).ok());
    let unix_ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
    if let (Some(unix_ms), Some(fields)) = (unix_ms, event.as_object_mut()) {
        fields.insert("Time".to_owned(), time(unix_ms).into());
    }
    event
}

/// A key's id as its ARN has it.
fn uuid(id: TenantKeyId) -> String {
    let digits = id.to_string();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| digits.get(range));
    parts.into_iter().flatten().collect::<Vec<_>>().join("-")
}

/// Follows a tenant's chain through the events of a list.
#[derive(Default)]
pub(crate) struct ChainCheck {
    last: Option<(u64, String)>,
}

impl ChainCheck {
    /// Takes the next event. What is wrong with it, if anything is.
    pub(crate) fn take(&mut self, event: &Value) -> Result<(), String> {
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let sequence = event.get("Sequence").and_then(Value::as_u64);
        let sequence = sequence.ok_or_else(|| "an event has no sequence number".to_owned())?;
        let previous = text("PreviousHash");
        let last = self.last.replace((sequence, text("EntryHash").to_owned()));
        match last {
            None if sequence == 1 && previous != NO_HASH => {
                Err("event 1 names an event before it".to_owned())
            }
            Some((before, _)) if sequence != before + 1 => {
                Err(format!("event {sequence} follows {before}: those between are missing"))
            }
            Some((before, hash)) if previous != hash => {
                Err(format!("event {sequence} does not name event {before} by its hash"))
            }
            None | Some(_) => Ok(()),
        }
    }

    /// The number of the last event that was taken.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last.as_ref().map_or(0, |(sequence, _)| *sequence)
    }
}

#[cfg(test)]
mod tests;
