//! One entry of the audit log: a header in clear, a body sealed for its tenant.
//!
//! Owns: the bytes of an entry, its hash, and the seal of its body. Knows nothing of: files,
//! groups, which entry comes before which.
//!
//! Invariants
//! - The header names tenant, key, operation and outcome and nothing else: no principal, request,
//!   bucket or version is in clear.
//! - A body opens only for the tenant, key, operation, outcome and time that its header names.
//!   Bytes: docs/FORMAT.md, "Audit log".

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::codes::{key_use_code, key_use_of_code, reason_code, reason_of_code};
use super::{AuditEvent, AuditOperation, AuditOutcome};
use crate::aead::{self, NONCE_BYTES, Nonce, TAG_BYTES};
use crate::derive::kdf;
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{Access, Reason};
use crate::secret::MacSecret;
use crate::types::{TenantId, TenantKeyId};

/// SHA-256 over a whole entry.
pub(super) type EntryHash = [u8; 32];

const VERSION: u8 = 1;
/// Bytes of the clear header.
pub(super) const HEADER_BYTES: usize = 126;
const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// The shortest entry: no texts, no ids.
pub(super) const ENTRY_BYTES_MIN: usize = HEADER_BYTES + SEAL_BYTES + FIXED_BODY_BYTES;
/// Longest body in clear: four texts at their bound, and every optional field.
const BODY_BYTES_MAX: usize = 4096 - SEAL_BYTES;
/// Longest entry.
pub(super) const ENTRY_BYTES_MAX: usize = HEADER_BYTES + 4096;
/// Longest text of a body; what is longer is cut, because an event must not be lost over it. ARNs
/// of principals, names of calls, request and job ids are far below.
const TEXT_BYTES_MAX: usize = 960;
/// Flags, reason, use and the lengths of four texts.
const FIXED_BODY_BYTES: usize = 3 + 4 * 2;

const HAS_KEY: u8 = 1;
const HAS_MATERIAL: u8 = 1;
const HAS_BUCKET: u8 = 2;
const HAS_VERSION: u8 = 4;
const IS_CUT: u8 = 8;

/// The place of an entry: numbers and hashes that are known once it is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) sequence: u64,
    pub(super) tenant_sequence: u64,
    pub(super) previous: EntryHash,
    pub(super) tenant_previous: EntryHash,
}

/// What the header says of the event itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) operation: AuditOperation,
    pub(super) outcome: AuditOutcome,
    pub(super) tenant: TenantId,
    pub(super) tenant_key: Option<TenantKeyId>,
    pub(super) time_ms: u64,
}

impl Subject {
    pub(super) fn of(event: &AuditEvent, time_ms: u64) -> Self {
        let AuditEvent { operation, outcome, tenant, tenant_key, .. } = *event;
        Self { operation, outcome, tenant, tenant_key, time_ms }
    }

    /// `version ‖ operation ‖ outcome ‖ flags ‖ be64 time ‖ tenant ‖ key`: what a body is bound to.
    fn aad(&self) -> [u8; 44] {
        let has_key = if self.tenant_key.is_some() { HAS_KEY } else { 0 };
        let codes = [VERSION, self.operation.code(), self.outcome.code(), has_key];
        let key = self.tenant_key.map_or([0; 16], |id| *id.as_bytes());
        let mut bytes = [0; 44];
        let parts = codes.into_iter().chain(self.time_ms.to_be_bytes());
        let parts = parts.chain(*self.tenant.as_bytes()).chain(key);
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = from;
        }
        bytes
    }
}

/// An event that is sealed and waits for its place.
pub(super) struct Sealed {
    pub(super) subject: Subject,
    /// Nonce, ciphertext, tag.
    body: Vec<u8>,
}

impl Sealed {
    /// Encodes and seals the body of an event. This is what an append costs its caller.
    pub(super) fn seal(
        event: &AuditEvent,
        time_ms: u64,
        audit_key: &MacSecret,
        nonce: &Nonce,
    ) -> Self {
        let subject = Subject::of(event, time_ms);
        let mut body = Vec::with_capacity(SEAL_BYTES + 256);
        body.extend_from_slice(nonce);
        encode_body(event, &mut body);
        let tenant_key = tenant_audit_key(audit_key, subject.tenant);
        let (_, plain) = body.split_at_mut(NONCE_BYTES);
        let tag = aead::encrypt(&tenant_key, nonce, &subject.aad(), plain);
        body.extend_from_slice(&tag);
        Self { subject, body }
    }

    /// Bytes of the entry it becomes.
    pub(super) fn entry_bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Appends the entry to `out` and returns its hash.
    pub(super) fn write(&self, link: &Link, out: &mut Vec<u8>) -> EntryHash {
        let start = out.len();
        let aad = self.subject.aad();
        let (codes, named) = aad.split_at(4);
        let sealed_bytes = u16::try_from(self.body.len()).expect("a body is at most 4 KiB");
        out.extend_from_slice(codes);
        out.extend_from_slice(&sealed_bytes.to_be_bytes());
        out.extend_from_slice(&link.sequence.to_be_bytes());
        out.extend_from_slice(&link.tenant_sequence.to_be_bytes());
        out.extend_from_slice(named);
        out.extend_from_slice(&link.previous);
        out.extend_from_slice(&link.tenant_previous);
        out.extend_from_slice(&self.body);
        Sha256::digest(out.get(start..).unwrap_or_default()).into()
    }
}

/// An entry as it lies in a group.
pub(super) struct Entry<'a> {
    pub(super) subject: Subject,
    pub(super) link: Link,
    bytes: &'a [u8],
    body: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry at the start of `bytes`, and what follows it.
    pub(super) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[version, operation, outcome, flags], rest) = bytes.split_first_chunk()?;
        let (sealed_bytes, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (tenant_sequence, rest) = rest.split_first_chunk()?;
        let (time_ms, rest) = rest.split_first_chunk()?;
        let (tenant, rest) = rest.split_first_chunk()?;
        let (tenant_key, rest) = rest.split_first_chunk()?;
        let (previous, rest) = rest.split_first_chunk()?;
        let (tenant_previous, rest) = rest.split_first_chunk()?;
        let (body, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*sealed_bytes)))?;
        let key = (flags == HAS_KEY).then(|| TenantKeyId::from_bytes(*tenant_key));
        let is_sound = version == VERSION
            && (key.is_some() || (flags == 0 && *tenant_key == [0; 16]))
            && body.len() >= SEAL_BYTES + FIXED_BODY_BYTES;
        let subject = Subject {
            operation: AuditOperation::of_code(operation)?,
            outcome: AuditOutcome::of_code(outcome)?,
            tenant: TenantId::from_bytes(*tenant),
            tenant_key: key,
            time_ms: u64::from_be_bytes(*time_ms),
        };
        let link = Link {
            sequence: u64::from_be_bytes(*sequence),
            tenant_sequence: u64::from_be_bytes(*tenant_sequence),
            previous: *previous,
            tenant_previous: *tenant_previous,
        };
        let entry_bytes = bytes.get(..HEADER_BYTES + body.len())?;
        is_sound.then_some((Self { subject, link, bytes: entry_bytes, body }, rest))
    }

    pub(super) fn hash(&self) -> EntryHash {
        Sha256::digest(self.bytes).into()
    }

    /// Opens the body.
    pub(super) fn open(&self, audit_key: &MacSecret) -> Result<Body> {
        let corrupt = || {
            let during = format!("open the body of audit entry {}", self.link.sequence);
            Error::new(ErrorKind::Corrupt, during)
        };
        let (nonce, rest) = self.body.split_first_chunk::<NONCE_BYTES>().ok_or_else(corrupt)?;
        let (cipher, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(corrupt)?;
        let tenant_key = tenant_audit_key(audit_key, self.subject.tenant);
        let mut plain = Zeroizing::new(cipher.to_vec());
        aead::decrypt(&tenant_key, nonce, &self.subject.aad(), (&mut plain, tag))
            .map_err(|_| corrupt())?;
        decode_body(&plain).ok_or_else(corrupt)
    }
}

/// What a body says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) principal: String,
    pub(super) reason: Option<Reason>,
    pub(super) request_id: String,
    pub(super) action: String,
    pub(super) access: Access,
    pub(super) is_cut: bool,
}

/// `KDF(audit key, "audit", tenant, 32)`.
fn tenant_audit_key(audit_key: &MacSecret, tenant: TenantId) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    kdf(&audit_key.borrow(), b"audit", [tenant.as_bytes()], derived.as_mut_slice());
    derived
}

fn encode_body(event: &AuditEvent, out: &mut Vec<u8>) {
    let start = out.len();
    let AuditEvent { principal, reason, request_id, action, access, .. } = event;
    let job = match reason {
        Some(Reason::TenantJob { job }) => job.as_str(),
        _ => "",
    };
    let texts = [principal.as_str(), action, request_id.as_str(), job];
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags = flag(access.material.is_some(), HAS_MATERIAL)
        | flag(access.bucket.is_some(), HAS_BUCKET)
        | flag(access.version.is_some(), HAS_VERSION)
        | flag(texts.iter().any(|text| text.len() > TEXT_BYTES_MAX), IS_CUT);
    out.extend_from_slice(&[flags, reason_code(reason.as_ref()), key_use_code(access.key_use)]);
    out.extend(access.material.iter().flat_map(|number| number.to_be_bytes()));
    out.extend(access.bucket.iter().flatten());
    out.extend(access.version.iter().flatten());
    for text in texts {
        let text = cut(text);
        let length = u16::try_from(text.len()).expect("a text is at most 960 bytes");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    debug_assert!(out.len() - start <= BODY_BYTES_MAX, "a body is bounded");
}

/// The longest start of a text that fits and ends between two characters.
fn cut(text: &str) -> &str {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn decode_body(bytes: &[u8]) -> Option<Body> {
    let (&[flags, reason, key_use], rest) = bytes.split_first_chunk()?;
    let (material, rest) = optional::<4>(flags & HAS_MATERIAL != 0, rest)?;
    let (bucket, rest) = optional::<16>(flags & HAS_BUCKET != 0, rest)?;
    let (version, rest) = optional::<16>(flags & HAS_VERSION != 0, rest)?;
    let (principal, rest) = text(rest)?;
    let (action, rest) = text(rest)?;
    let (request_id, rest) = text(rest)?;
    let (job, rest) = text(rest)?;
    let body = Body {
        principal: principal.to_owned(),
        reason: reason_of_code(reason, job)?,
        request_id: request_id.to_owned(),
        action: action.to_owned(),
        access: Access {
            key_use: key_use_of_code(key_use)?,
            material: material.map(u32::from_be_bytes),
            bucket,
            version,
        },
        is_cut: flags & IS_CUT != 0,
    };
    rest.is_empty().then_some(body)
}

fn optional<const N: usize>(is_there: bool, bytes: &[u8]) -> Option<(Option<[u8; N]>, &[u8])> {
    if !is_there {
        return Some((None, bytes));
    }
    bytes.split_first_chunk().map(|(value, rest)| (Some(*value), rest))
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests;
