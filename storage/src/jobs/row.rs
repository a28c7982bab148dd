//! Job rows: encode and decode, nothing else.

use std::fmt;

use kluis_kms::{Rng, TenantKeyId, random_array};

use super::{JobInfo, JobKind, JobRequest, JobState};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::RowKey;
use crate::namespace::{Table, TenantNs};
use crate::rows::{Reader, Writer};

/// The longest cause that is written down; what is longer is cut.
const CAUSE_BYTES_MAX: usize = 1_024;

/// A job's id: 48 bits of time, then randomness, so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct JobName(pub(super) [u8; 16]);

impl JobName {
    pub(super) fn new(rng: &dyn Rng, now_ms: u64) -> Self {
        let mut bytes = random_array::<16>(rng);
        let time = now_ms.to_be_bytes();
        bytes.iter_mut().zip(time.iter().skip(2)).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// Reads 32 hex digits. Anything else names no job.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let bytes = kluis_kms::parse_id(text)
            .map_err(|cause| Error::new(ErrorKind::NotFound, "find a job").with_source(cause))?;
        Ok(Self(bytes))
    }

    pub(super) fn row(self, ns: &TenantNs) -> RowKey {
        ns.row(Table::Jobs, &[&self.0])
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        kluis_kms::write_hex(&self.0, f)
    }
}

/// How far a job is. Which phases there are, and in which order, is each kind's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Counts what there is to do.
    Count = 0,
    /// Waits for wraps on their way to the disk.
    Fence = 1,
    /// Wraps anew what the index names under older materials.
    Index = 2,
    /// Looks at every bucket key.
    VerifyKeys = 3,
    /// Waits for writes that began under older epochs.
    Drain = 4,
    /// Works on object rows.
    Objects = 5,
    /// Works on open uploads.
    Uploads = 6,
    /// Looks at every object row and upload.
    VerifyObjects = 7,
    /// As `VerifyObjects`, the second table.
    VerifyUploads = 8,
    /// Closes the epochs that are there: what is written from then on is new.
    Close = 9,
}

impl Phase {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Count,
            1 => Self::Fence,
            2 => Self::Index,
            3 => Self::VerifyKeys,
            4 => Self::Drain,
            5 => Self::Objects,
            6 => Self::Uploads,
            7 => Self::VerifyObjects,
            8 => Self::VerifyUploads,
            9 => Self::Close,
            _ => return None,
        })
    }
}

/// The value of a `J` row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobRow {
    pub(crate) kind: JobKind,
    pub(crate) tenant_key: TenantKeyId,
    /// The material that everything is moved to.
    pub(crate) material: u32,
    pub(crate) state: JobState,
    pub(crate) phase: Phase,
    /// How often the work was begun over because the verifying scan found something.
    pub(crate) pass: u8,
    pub(crate) started_ms: u64,
    pub(crate) updated_ms: u64,
    pub(crate) ended_ms: Option<u64>,
    pub(crate) done: u64,
    pub(crate) total: u64,
    pub(crate) bytes: u64,
    /// Found by the verifying scan that is under way: old, and moved or to be moved once more.
    pub(crate) found: u64,
    /// As `found`, but they open only with their customer's key.
    pub(crate) skipped: u64,
    /// As `found`, but they do not verify, so they stay as they are.
    pub(crate) damaged: u64,
    /// Found by that scan, of this key or of another: they cannot even be read.
    pub(crate) unreadable: u64,
    /// Uploads that were open when it began.
    pub(crate) uploads: u64,
    pub(crate) remaining: Option<u64>,
    pub(crate) rate_max: Option<u32>,
    pub(crate) principal: String,
    /// Why it waits or failed; empty for nothing to say.
    pub(crate) cause: String,
    /// The row key, behind the table byte, that the phase goes on at.
    pub(crate) cursor: Vec<u8>,
}

/// "None" of a number that is never that large.
const NONE: u64 = u64::MAX;

impl JobRow {
    pub(super) fn new(request: &JobRequest, material: u32, now_ms: u64, principal: &str) -> Self {
        Self {
            kind: request.kind,
            tenant_key: request.tenant_key,
            material,
            state: JobState::Running,
            phase: Phase::Count,
            pass: 0,
            started_ms: now_ms,
            updated_ms: now_ms,
            ended_ms: None,
            done: 0,
            total: 0,
            bytes: 0,
            found: 0,
            skipped: 0,
            damaged: 0,
            unreadable: 0,
            uploads: 0,
            remaining: None,
            rate_max: request.rate_max,
            principal: principal.to_owned(),
            cause: String::new(),
            cursor: Vec::new(),
        }
    }

    /// Goes to the start of a scan: nothing is found yet.
    pub(super) fn enter_scan(&mut self, phase: Phase) {
        (self.found, self.skipped, self.damaged, self.unreadable) = (0, 0, 0, 0);
        self.enter(phase);
    }

    /// Goes to the start of a phase.
    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.cursor = Vec::new();
    }

    /// Says why, in at most as many bytes as are written down.
    pub(super) fn say(&mut self, cause: &str) {
        let mut end = cause.len().min(CAUSE_BYTES_MAX);
        while !cause.is_char_boundary(end) {
            end -= 1;
        }
        cause.get(..end).unwrap_or_default().clone_into(&mut self.cause);
    }

    pub(super) fn info(&self, name: JobName) -> JobInfo {
        JobInfo {
            job: name.to_string(),
            kind: self.kind,
            tenant_key: self.tenant_key,
            material: self.material,
            state: self.state,
            cause: Some(self.cause.clone()).filter(|cause| !cause.is_empty()),
            started_ms: self.started_ms,
            updated_ms: self.updated_ms,
            ended_ms: self.ended_ms,
            done: self.done,
            total: self.total.max(self.done),
            bytes: self.bytes,
            remaining: self.remaining,
            rate_max: self.rate_max,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer::versioned();
        value.u8(match self.kind {
            JobKind::Rewrap => 1,
            JobKind::DeepRewrap => 2,
            JobKind::Reencrypt => 3,
            JobKind::Purge => 4,
        });
        value.put(self.tenant_key.as_bytes()).u32(self.material);
        value.u8(match self.state {
            JobState::Running => 0,
            JobState::Waiting => 1,
            JobState::Completed => 2,
            JobState::Failed => 3,
            JobState::Cancelled => 4,
        });
        value.u8(self.phase as u8).u8(self.pass);
        value.u64(self.started_ms).u64(self.updated_ms).u64(self.ended_ms.unwrap_or(NONE));
        value.u64(self.done).u64(self.total).u64(self.bytes).u64(self.found);
        value.u64(self.skipped).u64(self.damaged).u64(self.unreadable).u64(self.uploads);
        value.u64(self.remaining.unwrap_or(NONE)).u32(self.rate_max.unwrap_or(0));
        value.long(self.principal.as_bytes()).long(self.cause.as_bytes()).long(&self.cursor);
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "job row")?;
        let kind = match reader.u8()? {
            1 => JobKind::Rewrap,
            2 => JobKind::DeepRewrap,
            3 => JobKind::Reencrypt,
            4 => JobKind::Purge,
            _ => return Err(reader.corrupt("an unknown kind")),
        };
        let (tenant_key, material) = (TenantKeyId::from_bytes(reader.array()?), reader.u32()?);
        let state = match reader.u8()? {
            0 => JobState::Running,
            1 => JobState::Waiting,
            2 => JobState::Completed,
            3 => JobState::Failed,
            4 => JobState::Cancelled,
            _ => return Err(reader.corrupt("an unknown state")),
        };
        let phase = Phase::from_byte(reader.u8()?);
        let row = Self {
            kind,
            tenant_key,
            material,
            state,
            phase: phase.ok_or_else(|| reader.corrupt("an unknown phase"))?,
            pass: reader.u8()?,
            started_ms: reader.u64()?,
            updated_ms: reader.u64()?,
            ended_ms: Some(reader.u64()?).filter(|number| *number != NONE),
            done: reader.u64()?,
            total: reader.u64()?,
            bytes: reader.u64()?,
            found: reader.u64()?,
            skipped: reader.u64()?,
            damaged: reader.u64()?,
            unreadable: reader.u64()?,
            uploads: reader.u64()?,
            remaining: Some(reader.u64()?).filter(|number| *number != NONE),
            rate_max: Some(reader.u32()?).filter(|number| *number != 0),
            principal: reader.long_text()?,
            cause: reader.long_text()?,
            cursor: reader.long()?.to_vec(),
        };
        reader.end()?;
        Ok(row)
    }
}
