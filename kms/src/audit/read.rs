//! Reading the audit log: a tenant's own entries, headers for the operator, and the check of all.
//!
//! Owns: what a reader gets, and which segments it takes. Knows nothing of: who may read.
//!
//! Invariants
//! - Every entry that is given out stands in a group whose MAC and chain were checked, and follows
//!   the tenant's entry before it.
//! - A tenant's read opens that tenant's bodies and no other's; the operator's opens none.
//! - It reads segments that hold something of that tenant, and of the others their beginnings.
//!   See docs/KEYS.md, "Audit".

use std::path::Path;

use super::entry::{Entry, EntryHash};
use super::log::AuditLog;
use super::segment::{Chain, Head, Keys, SegmentReader, Step, segment_path};
use super::writer::AuditDamage;
use super::{AuditOperation, AuditOutcome};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{Access, Reason};
use crate::types::{TenantId, TenantKeyId};

const DAMAGED: &str = "run the check of the audit log, and compare it with its last backup";

/// What the log shows of an entry without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHeader {
    /// Counted from 1 among the tenant's own entries, without gaps.
    pub sequence: u64,
    /// Counted among all entries of the node.
    pub node_sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Whose key.
    pub tenant: TenantId,
    /// What happened.
    pub operation: AuditOperation,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// Which key.
    pub tenant_key: Option<TenantKeyId>,
    /// SHA-256 of the entry.
    pub entry_hash: [u8; 32],
    /// The hash of the tenant's entry before it.
    pub previous_hash: [u8; 32],
}

/// One entry, opened for its tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// What is in clear as well.
    pub header: AuditHeader,
    /// Who asked.
    pub principal: String,
    /// Why; none for what the node does on schedule.
    pub reason: Option<Reason>,
    /// In which request.
    pub request_id: String,
    /// The call, in the vocabulary of AWS policies.
    pub action: String,
    /// Which material, bucket and version.
    pub access: Access,
    /// Whether a text was longer than the log keeps.
    pub is_cut: bool,
}

/// What a check of the whole log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditVerdict {
    /// Segments that were read.
    pub segments: u64,
    /// Entries whose chain and MAC are right.
    pub entries: u64,
    /// The number of the first entry that is kept.
    pub first_sequence: u64,
    /// Bytes at the end that a crash cut short; they were never acknowledged and are no damage.
    pub torn_bytes: u64,
    /// What is not as it was written.
    pub damage: Vec<AuditDamage>,
}

impl AuditVerdict {
    /// Whether everything is as it was written.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    pub(super) fn harm(&mut self, segment: u64, offset: u64, what: &'static str) {
        self.damage.push(AuditDamage { segment, offset, what });
    }
}

impl AuditHeader {
    fn of(entry: &Entry<'_>, entry_hash: EntryHash) -> Self {
        Self {
            sequence: entry.link.tenant_sequence,
            node_sequence: entry.link.sequence,
            time_ms: entry.subject.time_ms,
            tenant: entry.subject.tenant,
            operation: entry.subject.operation,
            outcome: entry.subject.outcome,
            tenant_key: entry.subject.tenant_key,
            entry_hash,
            previous_hash: entry.link.tenant_previous,
        }
    }
}

impl AuditLog {
    /// A tenant's entries behind its own number `after`, at most `limit`, oldest first. What was
    /// noted before the call is among them.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: what comes next is damaged. [`ErrorKind::Unavailable`]: a file
    /// cannot be read.
    pub fn read(&self, tenant: TenantId, after: u64, limit: usize) -> Result<Vec<AuditRecord>> {
        self.page((tenant, after, limit), |entry, hash| {
            let body = entry.open(&self.keys.seal)?;
            Ok(AuditRecord {
                header: AuditHeader::of(entry, hash),
                principal: body.principal,
                reason: body.reason,
                request_id: body.request_id,
                action: body.action,
                access: body.access,
                is_cut: body.is_cut,
            })
        })
    }

    /// As [`Self::read`], without opening a body: what an operator may see.
    pub fn headers(&self, tenant: TenantId, after: u64, limit: usize) -> Result<Vec<AuditHeader>> {
        self.page((tenant, after, limit), |entry, hash| Ok(AuditHeader::of(entry, hash)))
    }

    /// Checks every segment, hash and MAC there is.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: a file cannot be read.
    pub fn verify(&self) -> Result<AuditVerdict> {
        let head = self.view().head;
        check_all(&self.dir, &self.keys, &head)
    }

    fn page<T>(
        &self,
        (tenant, after, limit): (TenantId, u64, usize),
        make: impl Fn(&Entry<'_>, EntryHash) -> Result<T>,
    ) -> Result<Vec<T>> {
        let (head, last) = {
            let view = self.view();
            (view.head, view.tenants.get(&tenant).copied().unwrap_or(0))
        };
        let mut page = Vec::new();
        if last <= after || limit == 0 {
            return Ok(page);
        }
        let mut segment = self.segment_of(&head, tenant, after)?;
        let mut was_damaged = false;
        let mut reached = after;
        // What comes behind the tenant's last entry is of others, and is not read for it.
        while segment <= head.segment && page.len() < limit && reached < last {
            let end = (segment == head.segment).then_some(head.end);
            let opened = if segment_path(&self.dir, segment).exists() {
                SegmentReader::open(&self.dir, segment, end, &self.keys)?
            } else {
                None
            };
            let Some((mut reader, checkpoint)) = opened else {
                was_damaged = true;
                segment += 1;
                continue;
            };
            // Damage that was found at a start is passed over: the numbers show the gap.
            if was_damaged && !checkpoint.follows_damage {
                break;
            }
            let mut chain = checkpoint.chain;
            if self.has_none_of(tenant, (segment, &chain), &head)? {
                (segment, was_damaged) = (segment + 1, false);
                continue;
            }
            let mut step = Step::Group;
            while step == Step::Group && page.len() < limit && reached < last {
                step = reader.next(&mut chain, &self.keys, &mut |entry, hash| {
                    let is_next =
                        entry.subject.tenant == tenant && entry.link.tenant_sequence > after;
                    if is_next && page.len() < limit {
                        page.push(make(entry, hash)?);
                        reached = entry.link.tenant_sequence;
                    }
                    Ok(())
                })?;
            }
            was_damaged = step == Step::Unsound;
            segment += 1;
        }
        if was_damaged && page.is_empty() { Err(damaged(head.segment)) } else { Ok(page) }
    }

    /// The last segment that begins before the entry behind `after`: the numbers of a tenant grow
    /// from segment to segment, so a few first records are enough to find it.
    fn segment_of(&self, head: &Head, tenant: TenantId, after: u64) -> Result<u64> {
        let (mut low, mut high) = (head.first_segment, head.segment + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let mut begin = None;
            for segment in middle..high {
                begin = self.begin_of(segment, tenant)?.map(|before| (segment, before));
                if begin.is_some() {
                    break;
                }
            }
            match begin {
                Some((segment, before)) if before <= after => low = segment,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Whether the segment after this one begins where this one begins, for this tenant. Nothing is
    /// said of the last segment, and none is passed over because of one that is damaged.
    fn has_none_of(
        &self,
        tenant: TenantId,
        (segment, chain): (u64, &Chain),
        head: &Head,
    ) -> Result<bool> {
        if segment >= head.segment {
            return Ok(false);
        }
        let before = chain.tenants.get(&tenant).map_or(0, |head| head.sequence);
        Ok(self.begin_of(segment + 1, tenant)? == Some(before))
    }

    /// How far a tenant's chain went when a segment was begun; none if its beginning is damaged.
    fn begin_of(&self, segment: u64, tenant: TenantId) -> Result<Option<u64>> {
        if !segment_path(&self.dir, segment).exists() {
            return Ok(None);
        }
        let opened = SegmentReader::open(&self.dir, segment, None, &self.keys)?;
        let heads = opened.map(|(_, checkpoint)| checkpoint.chain.tenants);
        Ok(heads.map(|heads| heads.get(&tenant).map_or(0, |head| head.sequence)))
    }
}

fn damaged(segment: u64) -> Error {
    Error::new(ErrorKind::Corrupt, format!("read audit segment {segment}")).with_advice(DAMAGED)
}

/// Checks the segments from the first to the head, and the head as it is written.
pub(super) fn check_all(dir: &Path, keys: &Keys, head: &Head) -> Result<AuditVerdict> {
    let mut verdict = check_segments(dir, keys, head)?;
    let written = Head::read(dir, keys)?;
    if written.is_none_or(|written| (written.segment, written.end) < (head.segment, head.end)) {
        let what = "the head is damaged, missing or of an older log";
        verdict.harm(head.segment, head.end, what);
    }
    Ok(verdict)
}

/// Checks the segments from the first to the head.
pub(super) fn check_segments(dir: &Path, keys: &Keys, head: &Head) -> Result<AuditVerdict> {
    let mut verdict = AuditVerdict::default();
    let mut expected = None;
    for segment in head.first_segment..=head.segment {
        let end = (segment == head.segment).then_some(head.end);
        let opened = if segment_path(dir, segment).exists() {
            SegmentReader::open(dir, segment, end, keys)?
        } else {
            None
        };
        let Some((mut reader, checkpoint)) = opened else {
            verdict.harm(segment, 0, "it is missing, or its beginning is damaged");
            expected = None;
            continue;
        };
        if checkpoint.follows_damage {
            let what = "it was begun because the log before it was damaged or cut";
            verdict.harm(segment, 0, what);
        } else if expected.as_ref().is_some_and(|chain| *chain != checkpoint.chain) {
            verdict.harm(segment, 0, "it does not follow the segment before it");
        }
        if verdict.segments == 0 {
            verdict.first_sequence = checkpoint.chain.next_sequence;
        }
        verdict.segments += 1;
        let mut chain = checkpoint.chain;
        let mut count = |_: &Entry<'_>, _: EntryHash| {
            verdict.entries += 1;
            Ok(())
        };
        let step = loop {
            match reader.next(&mut chain, keys, &mut count)? {
                Step::Group => {}
                step => break step,
            }
        };
        if step == Step::Unsound {
            verdict.harm(segment, reader.offset(), "a group of entries is damaged");
        }
        expected = (step == Step::End).then_some(chain);
    }
    if expected.is_some_and(|chain| chain.head != head.hash) {
        verdict.harm(head.segment, head.end, "it does not end where the head says");
    }
    Ok(verdict)
}
