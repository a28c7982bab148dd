//! Refused management calls in the audit trail.
//!
//! Uses of a key are noted by their permits, refused ones too; this is for calls that would have
//! changed a key: who tried what on which key, and that it was refused.
//! Owns: which operations those are, what they are called in the trail, and the bound on notes.
//! Knows nothing of: why a call was refused.
//!
//! Invariants
//! - The first refusal of a principal, operation and key is noted; the same one again only after
//!   [`QUIET_NS`]. So nobody hides one refusal behind others, and a flood makes no flood of notes.
//! - What is remembered is bounded, per tenant and on the node.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kluis_kms::{
    AuditEvent, AuditOperation, AuditOutcome, AuditSink as _, ErrorKind, Principal, TenantId,
    TenantKeyId,
};

use super::call::{Call, KEY_ID_CHARS_MAX};
use super::fields::Length;

/// For how long the same refusal is not noted again: a minute's flood is one entry.
const QUIET_NS: u64 = 60_000_000_000;
/// Different refusals of one tenant in that time; 256 entries a minute are 100 KiB of the log.
const PER_TENANT_MAX: usize = 256;
/// Tenants with refusals in that time: some 100 MiB of memory if every one fills its share.
const TENANTS_MAX: usize = 1_024;

/// What makes two refusals the same.
type Refusal = (Principal, &'static str, Option<TenantKeyId>);

/// What was noted of late, and until when it is not noted again.
#[derive(Default)]
pub(super) struct Denials(Mutex<HashMap<TenantId, HashMap<Refusal, u64>>>);

impl Denials {
    /// Whether this refusal is to be noted.
    fn take(&self, tenant: TenantId, refusal: Refusal, now_ns: u64) -> bool {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= TENANTS_MAX && !tenants.contains_key(&tenant) {
            tenants.retain(|_, noted| noted.values().any(|until_ns| now_ns < *until_ns));
            if tenants.len() >= TENANTS_MAX {
                return false;
            }
        }
        let noted = tenants.entry(tenant).or_default();
        noted.retain(|_, until_ns| now_ns < *until_ns);
        if noted.len() >= PER_TENANT_MAX || noted.contains_key(&refusal) {
            return false;
        }
        noted.insert(refusal, now_ns.saturating_add(QUIET_NS));
        true
    }
}

/// What a management call is in the trail; none for what only reads, or uses a key.
fn operation_of(name: &str) -> Option<AuditOperation> {
    Some(match name {
        "CancelJob" | "StartReencrypt" | "StartRewrap" => AuditOperation::Job,
        "CancelKeyDeletion" => AuditOperation::CancelDeletion,
        "CreateAlias"
        | "CreateGrant"
        | "DeleteAlias"
        | "PutKeyPolicy"
        | "RetireGrant"
        | "RevokeGrant"
        | "TagResource"
        | "UntagResource"
        | "UpdateAlias"
        | "UpdateKeyDescription" => AuditOperation::Configure,
        "CreateKey" => AuditOperation::Create,
        "DeleteImportedKeyMaterial" => AuditOperation::LoseMaterial,
        "DisableKey" => AuditOperation::Disable,
        "DisableKeyRotation" | "EnableKeyRotation" => AuditOperation::SetRotation,
        "EnableKey" => AuditOperation::Enable,
        "GetParametersForImport" | "ImportKeyMaterial" => AuditOperation::ImportMaterial,
        "RetireKeyMaterial" => AuditOperation::RetireMaterial,
        "RotateKeyOnDemand" => AuditOperation::Rotate,
        "ScheduleKeyDeletion" => AuditOperation::ScheduleDeletion,
        _ => return None,
    })
}

impl Call {
    /// Leaves a note that this call was refused, if it would have changed a key.
    pub(super) fn note_denied(&self) {
        let Some(operation) = operation_of(self.operation.name) else {
            return;
        };
        let tenant_key = self.named_key();
        let purpose = self.purpose();
        let refusal = (purpose.principal.clone(), self.operation.name, tenant_key);
        let now_ns = self.api.env.clock.monotonic_ns();
        if !self.api.denials.take(purpose.tenant, refusal, now_ns) {
            return;
        }
        let outcome = AuditOutcome::Failed(ErrorKind::AccessDenied);
        let event = AuditEvent::of_change(&purpose, tenant_key, operation, outcome);
        // The refusal is the answer in any case.
        if let Err(cause) = self.api.kms.audit_log().note(event) {
            tracing::warn!(%cause, "a refused call could not be noted");
        }
    }

    /// The key that the call names, whatever the caller may know of it.
    fn named_key(&self) -> Option<TenantKeyId> {
        let text = |field| self.fields.text(field, Length::up_to(KEY_ID_CHARS_MAX)).ok().flatten();
        let text = text("KeyId").or_else(|| text("TargetKeyId"))?;
        let names = self.names();
        names.find(&names.read(text)).map(|info| info.id)
    }
}

#[cfg(test)]
mod tests;
