//! The audit trail: one event for every permit and every change of a tenant key.
//!
//! Owns: what an event holds, the [`AuditSink`] that takes them, and [`AuditLog`], the one that
//! keeps them: chained by hashes, sealed per tenant, in files. Knows nothing of: who may read the
//! trail.
//!
//! Invariants
//! - A change of a key is on durable record before it takes effect ([`AuditSink::record`]).
//! - Every permit is noted before it is given out, also when it is refused and also when what it
//!   opens is cached; a sink that cannot take the note stops the permit.
//! - No event holds key bytes, object names, user metadata or encryption contexts.
//!   See docs/KEYS.md, "Audit".

mod codes;
mod entry;
mod export;
mod log;
mod read;
mod segment;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use export::{AuditFiles, audit_files_at_rest};
pub use log::AuditLog;
pub use read::{AuditHeader, AuditRecord, AuditVerdict};
pub(crate) use verify::verify_closed;
pub use writer::AuditDamage;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::{Access, KeyUse, Principal, Purpose, Reason, RequestId};
use crate::types::{TenantId, TenantKeyId};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditOperation {
    /// A tenant key was used.
    Use(KeyUse),
    /// A key was made.
    Create,
    /// A material was added.
    Rotate,
    /// Automatic rotation was set.
    SetRotation,
    /// A key was switched off.
    Disable,
    /// A key was switched on.
    Enable,
    /// A deletion was scheduled.
    ScheduleDeletion,
    /// A deletion was called off.
    CancelDeletion,
    /// A key was destroyed.
    Destroy,
    /// A material was imported.
    ImportMaterial,
    /// An imported material was deleted by its tenant, or expired.
    LoseMaterial,
    /// A material was retired.
    RetireMaterial,
    /// Policy, alias, tag, description or grant was changed.
    Configure,
    /// A job on a key was started, finished or cancelled.
    Job,
    /// The root key's epoch was replaced.
    Reseal,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// It is about to be done; durable before the first effect.
    Begun,
    /// It is done.
    Done,
    /// It was refused, or failed, with this kind of error.
    Failed(ErrorKind),
}

impl AuditOutcome {
    /// The outcome of a result.
    pub fn of<T>(result: &Result<T, Error>) -> Self {
        result.as_ref().map_or_else(|error| Self::Failed(error.kind()), |_| Self::Done)
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// What happened.
    pub operation: AuditOperation,
    /// Whose key.
    pub tenant: TenantId,
    /// Who asked.
    pub principal: Principal,
    /// Why; none for what the node does on schedule.
    pub reason: Option<Reason>,
    /// In which request.
    pub request_id: RequestId,
    /// The call, in the vocabulary of AWS policies.
    pub action: &'static str,
    /// Which key; none before it has an id.
    pub tenant_key: Option<TenantKeyId>,
    /// Which material, bucket and version.
    pub access: Access,
    /// How it ended.
    pub outcome: AuditOutcome,
}

impl AuditEvent {
    /// The event of a permit.
    pub fn of_permit(
        purpose: &Purpose,
        tenant_key: TenantKeyId,
        access: Access,
        outcome: AuditOutcome,
    ) -> Self {
        let operation = AuditOperation::Use(access.key_use);
        Self { access, ..Self::of_change(purpose, Some(tenant_key), operation, outcome) }
    }

    /// The event of a change of a key.
    pub fn of_change(
        purpose: &Purpose,
        tenant_key: Option<TenantKeyId>,
        operation: AuditOperation,
        outcome: AuditOutcome,
    ) -> Self {
        Self {
            operation,
            tenant: purpose.tenant,
            principal: purpose.principal.clone(),
            reason: Some(purpose.reason.clone()),
            request_id: purpose.request_id.clone(),
            action: purpose.action,
            tenant_key,
            access: Access::direct(KeyUse::Attributes),
            outcome,
        }
    }
}

/// Takes events.
pub trait AuditSink: Send + Sync {
    /// Takes events and returns once they are durable. Blocks: for threads that may wait.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: they may not be durable; what they announce must not happen.
    fn record(&self, events: &[AuditEvent]) -> Result<()>;

    /// Takes an event that becomes durable soon, with others. Does not wait for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the trail takes no events, or none now because it cannot write
    /// them as fast as they come; what the event announces must not happen.
    fn note(&self, event: AuditEvent) -> Result<()>;
}

/// Forgets every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiscardAudit;

impl AuditSink for DiscardAudit {
    fn record(&self, _: &[AuditEvent]) -> Result<()> {
        Ok(())
    }

    fn note(&self, _: AuditEvent) -> Result<()> {
        Ok(())
    }
}
