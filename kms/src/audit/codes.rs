//! The codes and names of operations, outcomes and reasons in the trail.
//!
//! Owns: one byte and one name for each. Knows nothing of: entries, files.
//!
//! Invariants
//! - A code never changes its meaning and is never given twice: old entries keep theirs.
//!   Bytes: docs/FORMAT.md, "Audit log".

use super::{AuditOperation, AuditOutcome};
use crate::error::ErrorKind;
use crate::gate::{JobId, KeyUse, Reason};

/// Every operation, its code and its name.
const OPERATIONS: [(AuditOperation, u8, &str); 17] = [
    (AuditOperation::Use(KeyUse::Attributes), 0x01, "tenant_key.use.attributes"),
    (AuditOperation::Use(KeyUse::Read), 0x02, "tenant_key.use.read"),
    (AuditOperation::Use(KeyUse::Write), 0x03, "tenant_key.use.write"),
    (AuditOperation::Create, 0x10, "tenant_key.create"),
    (AuditOperation::Rotate, 0x11, "tenant_key.rotate"),
    (AuditOperation::SetRotation, 0x12, "tenant_key.rotation.set"),
    (AuditOperation::Disable, 0x13, "tenant_key.disable"),
    (AuditOperation::Enable, 0x14, "tenant_key.enable"),
    (AuditOperation::ScheduleDeletion, 0x15, "tenant_key.destroy.schedule"),
    (AuditOperation::CancelDeletion, 0x16, "tenant_key.destroy.cancel"),
    (AuditOperation::Destroy, 0x17, "tenant_key.destroy"),
    (AuditOperation::ImportMaterial, 0x18, "tenant_key.material.import"),
    (AuditOperation::LoseMaterial, 0x19, "tenant_key.material.lose"),
    (AuditOperation::RetireMaterial, 0x1a, "tenant_key.material.retire"),
    (AuditOperation::Configure, 0x1b, "tenant_key.configure"),
    (AuditOperation::Job, 0x1c, "tenant_key.job"),
    (AuditOperation::Reseal, 0x1d, "root_key.reseal"),
];

impl AuditOperation {
    /// Its code on disk. A match without a catch-all, so that a new operation cannot go without.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Use(KeyUse::Attributes) => 0x01,
            Self::Use(KeyUse::Read) => 0x02,
            Self::Use(KeyUse::Write) => 0x03,
            Self::Create => 0x10,
            Self::Rotate => 0x11,
            Self::SetRotation => 0x12,
            Self::Disable => 0x13,
            Self::Enable => 0x14,
            Self::ScheduleDeletion => 0x15,
            Self::CancelDeletion => 0x16,
            Self::Destroy => 0x17,
            Self::ImportMaterial => 0x18,
            Self::LoseMaterial => 0x19,
            Self::RetireMaterial => 0x1a,
            Self::Configure => 0x1b,
            Self::Job => 0x1c,
            Self::Reseal => 0x1d,
        }
    }

    pub(super) fn of_code(code: u8) -> Option<Self> {
        OPERATIONS.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// Its name in what is exported: `tenant_key.disable`.
    pub fn name(self) -> &'static str {
        OPERATIONS.iter().find(|row| row.0 == self).map_or("unknown", |row| row.2)
    }
}

const BEGUN: u8 = 0x01;
const DONE: u8 = 0x02;
/// Codes from here on are failures.
const FAILED: u8 = 0x10;

/// Every kind of failure and its name, in the order of its codes.
const FAILURES: [(ErrorKind, &str); 17] = [
    (ErrorKind::AccessDenied, "access-denied"),
    (ErrorKind::Conflict, "conflict"),
    (ErrorKind::Corrupt, "corrupt"),
    (ErrorKind::Full, "full"),
    (ErrorKind::KeyDestroyed, "key-destroyed"),
    (ErrorKind::KeyDisabled, "key-disabled"),
    (ErrorKind::KeyUnusable, "key-unusable"),
    (ErrorKind::Misuse, "misuse"),
    (ErrorKind::NotFound, "not-found"),
    (ErrorKind::Refused, "refused"),
    (ErrorKind::Unavailable, "unavailable"),
    (ErrorKind::WrongPassphrase, "wrong-passphrase"),
    (ErrorKind::ImportExpired, "import-expired"),
    (ErrorKind::ImportToken, "import-token"),
    (ErrorKind::IncorrectMaterial, "incorrect-material"),
    (ErrorKind::InvalidCiphertext, "invalid-ciphertext"),
    (ErrorKind::Unsupported, "unsupported"),
];

const fn failure_index(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::AccessDenied => 0,
        ErrorKind::Conflict => 1,
        ErrorKind::Corrupt => 2,
        ErrorKind::Full => 3,
        ErrorKind::KeyDestroyed => 4,
        ErrorKind::KeyDisabled => 5,
        ErrorKind::KeyUnusable => 6,
        ErrorKind::Misuse => 7,
        ErrorKind::NotFound => 8,
        ErrorKind::Refused => 9,
        ErrorKind::Unavailable => 10,
        ErrorKind::WrongPassphrase => 11,
        ErrorKind::ImportExpired => 12,
        ErrorKind::ImportToken => 13,
        ErrorKind::IncorrectMaterial => 14,
        ErrorKind::InvalidCiphertext => 15,
        ErrorKind::Unsupported => 16,
    }
}

impl AuditOutcome {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Begun => BEGUN,
            Self::Done => DONE,
            Self::Failed(kind) => FAILED + failure_index(kind),
        }
    }

    pub(super) fn of_code(code: u8) -> Option<Self> {
        match code {
            BEGUN => Some(Self::Begun),
            DONE => Some(Self::Done),
            _ => {
                let index = usize::from(code.checked_sub(FAILED)?);
                FAILURES.get(index).map(|row| Self::Failed(row.0))
            }
        }
    }

    /// Its name in what is exported: `begun`, `done`, or the kind of failure.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Failed(kind) => {
                FAILURES.get(usize::from(failure_index(kind))).map_or("failed", |row| row.1)
            }
        }
    }
}

/// No reason: the node acts on schedule.
const NO_REASON: u8 = 0;

/// The code of a reason. The job's name, if there is one, is written beside it.
pub(super) const fn reason_code(reason: Option<&Reason>) -> u8 {
    match reason {
        None => NO_REASON,
        Some(Reason::CustomerInitiated) => 1,
        Some(Reason::CustomerSupport) => 2,
        Some(Reason::ProductionAlert) => 3,
        Some(Reason::ProviderReview) => 4,
        Some(Reason::ProviderService) => 5,
        Some(Reason::TenantJob { .. }) => 6,
        Some(Reason::ThirdPartyDataRequest) => 7,
    }
}

/// The reason of a code and a job's name; the outer option is none if there is no such code.
#[expect(clippy::option_option, reason = "an unknown code and a known absence are two answers")]
pub(super) fn reason_of_code(code: u8, job: &str) -> Option<Option<Reason>> {
    Some(Some(match code {
        NO_REASON => return Some(None),
        1 => Reason::CustomerInitiated,
        2 => Reason::CustomerSupport,
        3 => Reason::ProductionAlert,
        4 => Reason::ProviderReview,
        5 => Reason::ProviderService,
        6 => Reason::TenantJob { job: JobId::from(job) },
        7 => Reason::ThirdPartyDataRequest,
        _ => return None,
    }))
}

pub(super) const fn key_use_code(key_use: KeyUse) -> u8 {
    match key_use {
        KeyUse::Attributes => 1,
        KeyUse::Read => 2,
        KeyUse::Write => 3,
    }
}

pub(super) const fn key_use_of_code(code: u8) -> Option<KeyUse> {
    match code {
        1 => Some(KeyUse::Attributes),
        2 => Some(KeyUse::Read),
        3 => Some(KeyUse::Write),
        _ => None,
    }
}
