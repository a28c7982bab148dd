//! Backups by way of the operator's API.
//!
//! Owns: what a request may ask for, and how a run is told. Knows nothing of: what a snapshot
//! consists of.

use std::path::Path;

use http::StatusCode;
use kluis_storage::ErrorKind;
use kluis_storage::backup::{BackupKind, BackupRequest, BackupSummary, ProgressView};

use super::audit::{self, Asker};
use super::types::{BackupDone, BackupRunning, BackupState, StartBackup};
use super::{Admin, Refused, Reply, ok};

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

impl Admin {
    /// Takes a snapshot and answers when it is durable.
    pub(super) async fn back_up(&self, who: Asker, asked: StartBackup) -> Reply {
        audit::record_backup(who, &asked.to);
        let request = request(&asked)?;
        let taken = self.engine.backup(request).await.map_err(|error| {
            let (status, kind) = match error.kind() {
                ErrorKind::Misuse => (StatusCode::BAD_REQUEST, "invalid"),
                ErrorKind::Conflict => (StatusCode::CONFLICT, "unavailable"),
                _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            };
            Refused::new(status, kind, error.to_string())
        })?;
        ok(&BackupDone::from(taken))
    }

    /// How far a backup is.
    pub(super) fn backup_state(&self) -> Reply {
        let status = self.engine.backup_status();
        let (last, error) = match status.last {
            Some(Ok(summary)) => (Some(summary.into()), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        ok(&BackupState { running: status.running.map(Into::into), last, error })
    }
}

fn request(asked: &StartBackup) -> Result<BackupRequest, Refused> {
    let invalid = |message| Refused::new(StatusCode::BAD_REQUEST, "invalid", message);
    if !Path::new(&asked.to).is_absolute() {
        return Err(invalid("to: give an absolute path"));
    }
    if asked.keep == Some(0) || asked.rate_mib == Some(0) {
        return Err(invalid("keep and rate_mib: give 1 or more"));
    }
    let kind = if asked.metadata_only { BackupKind::Metadata } else { BackupKind::Full };
    Ok(BackupRequest {
        to: asked.to.clone(),
        kind,
        rate_bytes: asked.rate_mib.map(|mib| mib.saturating_mul(MIB)),
        keep: asked.keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
    })
}

impl From<BackupSummary> for BackupDone {
    fn from(summary: BackupSummary) -> Self {
        Self {
            snapshot: summary.snapshot,
            kind: summary.kind.as_str().to_owned(),
            created_ms: summary.created_ms,
            sequence: summary.sequence,
            segments: summary.segments,
            copied_bytes: summary.copied_bytes,
            reused_bytes: summary.reused_bytes,
            unreadable_bytes: summary.unreadable_bytes,
            removed_snapshots: summary.removed_snapshots,
            same_disk: summary.same_disk,
            took_ms: summary.took_ms,
        }
    }
}

impl From<ProgressView> for BackupRunning {
    fn from(view: ProgressView) -> Self {
        Self {
            phase: view.phase.to_owned(),
            done_bytes: view.done_bytes,
            total_bytes: view.total_bytes,
        }
    }
}
