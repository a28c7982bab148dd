//! The audit events around every change of a key.
//!
//! Owns: the order of event and effect. Knows nothing of: where events go.
//!
//! Invariants
//! - `Begun` is durable before the first effect; without it there is none.
//! - The second event tells how it ended. If it cannot be written the effect stays, because it is
//!   durable already; the log says so.

use super::Kms;
use crate::audit::{AuditEvent, AuditOperation, AuditOutcome};
use crate::error::Result;
use crate::gate::{Access, KeyUse, Purpose};
use crate::types::{TenantId, TenantKeyId};

/// Who acts when nobody asked: the node, by its schedule or for a new tenant.
const NODE_PRINCIPAL: &str = "kluis node";

/// An event of what the node does by itself.
pub(super) fn node_event(
    tenant: TenantId,
    id: Option<TenantKeyId>,
    operation: AuditOperation,
) -> AuditEvent {
    AuditEvent {
        operation,
        tenant,
        principal: NODE_PRINCIPAL.into(),
        reason: None,
        request_id: "schedule".into(),
        action: "kluis:Schedule",
        tenant_key: id,
        access: Access::direct(KeyUse::Attributes),
        outcome: AuditOutcome::Begun,
    }
}

impl Kms {
    /// Does a change that `who` asked for, between two events.
    pub(super) fn audited<T>(
        &self,
        who: &Purpose,
        id: Option<TenantKeyId>,
        operation: AuditOperation,
        effect: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let begun = AuditEvent::of_change(who, id, operation, AuditOutcome::Begun);
        self.audited_events(vec![begun], effect)
    }

    /// Does a change between two batches of events.
    pub(super) fn audited_events<T>(
        &self,
        mut events: Vec<AuditEvent>,
        effect: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.audit.record(&events)?;
        let result = effect();
        self.record_outcome(&mut events, AuditOutcome::of(&result));
        result
    }

    /// The second batch.
    pub(super) fn record_outcome(&self, events: &mut [AuditEvent], outcome: AuditOutcome) {
        for event in &mut *events {
            event.outcome = outcome;
        }
        if let Err(error) = self.audit.record(events) {
            tracing::error!(%error, "could not record how a change of a tenant key ended");
        }
    }
}

#[cfg(test)]
mod tests;
