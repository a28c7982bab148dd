//! What the operator's API says, in JSON.
//!
//! Owns: the shapes, which the command line prints as they are. Knows nothing of: how they come
//! about.
//!
//! Invariants
//! - No shape has room for an object's name, metadata or bytes.
//! - A secret access key is in the answer that made it and in no other. The types that carry one
//!   have no `Debug`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The most tenants that one request may make.
pub(crate) const TENANTS_PER_REQUEST_MAX: usize = 1_000;
/// The most entries of one page.
pub(crate) const PAGE_ENTRIES_MAX: usize = 1_000;

/// Asks for the keys' clock to be moved on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdvanceClock {
    pub(crate) advance_ms: u64,
}

/// What to back up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartBackup {
    /// The repository, as an absolute path on the node's machine.
    pub(crate) to: PathBuf,
    /// MiB a second that are read at most.
    #[serde(default)]
    pub(crate) rate_mib: Option<u64>,
    /// Snapshots of each kind that stay.
    #[serde(default)]
    pub(crate) keep: Option<u64>,
    /// Without segments.
    #[serde(default)]
    pub(crate) metadata_only: bool,
}

/// A snapshot that was taken.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BackupDone {
    pub(crate) snapshot: String,
    /// `full` or `metadata`.
    pub(crate) kind: String,
    pub(crate) created_ms: u64,
    /// How far the metadata goes.
    pub(crate) sequence: u64,
    pub(crate) segments: u64,
    pub(crate) copied_bytes: u64,
    /// Bytes that the repository had.
    pub(crate) reused_bytes: u64,
    /// Bytes of segments that the disk could not read; zeros stand for them.
    pub(crate) unreadable_bytes: u64,
    pub(crate) removed_snapshots: u64,
    /// Whether the repository is on the disk of the data directory, and so lost with it.
    pub(crate) same_disk: bool,
    pub(crate) took_ms: u64,
}

/// How far a backup is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BackupRunning {
    pub(crate) phase: String,
    pub(crate) done_bytes: u64,
    /// 0 while nobody knows.
    pub(crate) total_bytes: u64,
}

/// How the backups of a node stand.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BackupState {
    pub(crate) running: Option<BackupRunning>,
    /// The last one that is over, if it was taken.
    pub(crate) last: Option<BackupDone>,
    /// Why not, if it was not.
    pub(crate) error: Option<String>,
}

/// A tenant that was just made.
#[derive(Serialize, Deserialize)]
pub(crate) struct CreatedTenant {
    pub(crate) tenant_id: String,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

/// Tenants that were just made, in the order asked for.
#[derive(Serialize, Deserialize)]
pub(crate) struct CreatedTenants {
    pub(crate) tenants: Vec<CreatedTenant>,
}

/// The names of tenants to make.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTenants {
    pub(crate) names: Vec<String>,
}

/// A tenant.
#[derive(Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the API")]
pub(crate) struct Tenant {
    pub(crate) tenant_id: String,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) created_ms: u64,
    pub(crate) suspended: bool,
}

/// A page of tenants, by name.
#[derive(Serialize, Deserialize)]
pub(crate) struct Tenants {
    pub(crate) tenants: Vec<Tenant>,
    /// The name to go on after, if there may be more.
    pub(crate) next: Option<String>,
}

/// The name of a user to make.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateUser {
    pub(crate) name: String,
}

/// A user.
#[derive(Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the API")]
pub(crate) struct User {
    pub(crate) user_id: String,
    pub(crate) name: String,
    pub(crate) root: bool,
    pub(crate) created_ms: u64,
}

/// A page of users, by name.
#[derive(Serialize, Deserialize)]
pub(crate) struct Users {
    pub(crate) users: Vec<User>,
    /// The name to go on after, if there may be more.
    pub(crate) next: Option<String>,
}

/// The user that an access key is to be made for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateAccessKey {
    pub(crate) user: String,
}

/// An access key that was just made.
#[derive(Serialize, Deserialize)]
pub(crate) struct CreatedAccessKey {
    pub(crate) user: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

/// An access key.
#[derive(Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the API")]
pub(crate) struct AccessKey {
    pub(crate) access_key_id: String,
    pub(crate) created_ms: u64,
    pub(crate) active: bool,
}

/// The access keys of a user.
#[derive(Serialize, Deserialize)]
pub(crate) struct AccessKeys {
    pub(crate) access_keys: Vec<AccessKey>,
}

/// A page of a tenant's audit events, without what is sealed in them.
#[derive(Serialize, Deserialize)]
pub(crate) struct AuditEvents {
    pub(crate) events: Vec<serde_json::Value>,
    /// The number to go on after, if there may be more.
    pub(crate) next: Option<u64>,
}

/// What segments hold, and what reclaiming did since the node started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Space {
    /// Whether writes are refused.
    pub(crate) full: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) segments_open: u64,
    pub(crate) segments_closing: u64,
    pub(crate) segments_closed: u64,
    pub(crate) segments_free: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) reclaimed_segments: u64,
    /// Segments that cannot be emptied, because something in them is damaged.
    pub(crate) kept_segments: u64,
    pub(crate) moved_extents: u64,
    pub(crate) moved_bytes: u64,
    /// The segment being emptied.
    pub(crate) cleaning_segment: Option<u32>,
}

/// How scrubbing stands. Counts are of the pass under way, or else of the last one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Scrub {
    pub(crate) pass: u64,
    /// `idle`, `segments`, `metadata` or `checkpoints`.
    pub(crate) phase: String,
    pub(crate) segments_done: u64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    /// 0 for never.
    pub(crate) started_ms: u64,
    /// When the last whole pass ended; 0 for never.
    pub(crate) ended_ms: u64,
    /// Ranges put right from another copy, and those that could not be.
    pub(crate) repaired: u64,
    pub(crate) unrepaired: u64,
    /// Damaged records that belong to nobody any more.
    pub(crate) dead_damaged: u64,
    pub(crate) metadata_faults: u64,
    pub(crate) checkpoint_faults: u64,
    /// Extents on the list of damage, and those it had no place for.
    pub(crate) damaged: u64,
    pub(crate) unlisted: u64,
    /// The last pass that was asked for and is over.
    pub(crate) answered: u64,
}

/// A pass that was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ScrubAsked {
    /// It is over when [`Scrub::answered`] is no less.
    pub(crate) number: u64,
}

/// A damaged extent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DamagedExtent {
    /// `rot`, `unreadable`, `misplaced` or `tampered`.
    pub(crate) kind: String,
    pub(crate) tenant_id: String,
    pub(crate) namespace: String,
    pub(crate) stream: String,
    pub(crate) extent: u32,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) found_ms: u64,
}

/// A page of damaged extents, by place.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Damage {
    pub(crate) damage: Vec<DamagedExtent>,
    /// What to go on after, if there may be more.
    pub(crate) next: Option<String>,
}

/// The directories of the volume, and the rebuild under way or the last one.
#[derive(Serialize, Deserialize)]
pub(crate) struct Volumes {
    /// Empty where the volume is no mirror.
    pub(crate) members: Vec<VolumeMember>,
    /// Some bytes have one copy only.
    pub(crate) degraded: bool,
    pub(crate) generation: u64,
    pub(crate) fallback_reads: u64,
    pub(crate) repairs: u64,
    pub(crate) rebuild: Option<Rebuild>,
}

/// A member of the mirror.
#[derive(Serialize, Deserialize)]
pub(crate) struct VolumeMember {
    pub(crate) path: String,
    /// `current`, `out` or `rebuilding`.
    pub(crate) state: String,
    /// Why it is out.
    pub(crate) why: Option<String>,
}

/// The rebuild of a member.
#[derive(Serialize, Deserialize)]
pub(crate) struct Rebuild {
    pub(crate) path: String,
    /// `running`, `done` or `failed`.
    pub(crate) state: String,
    pub(crate) files: u64,
    pub(crate) files_done: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_done: u64,
    /// Why it failed.
    pub(crate) why: Option<String>,
}

/// Asks for a member to be filled anew.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplaceMember {
    pub(crate) path: String,
}

/// An answer without content.
#[derive(Serialize, Deserialize)]
pub(crate) struct Done {}

/// A refusal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// `exists`, `invalid`, `not_found` or `unavailable`.
    pub(crate) kind: String,
    /// What is wrong, and with what.
    pub(crate) message: String,
}
