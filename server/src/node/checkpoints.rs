//! Checkpoints of the metadata on another disk, for as long as the node runs.
//!
//! Owns: when they are made, and what is said of one that is not. Knows nothing of: what they hold.

use std::path::PathBuf;
use std::time::Duration;

use kluis_storage::backup::{BackupKind, BackupRequest};
use kluis_storage::{Engine, ErrorKind};
use metrics::gauge;

use crate::config::Config;
use crate::http::Drain;

/// Checkpoints that stay: the newest may be of a moment at which something was already wrong.
const KEPT: usize = 3;
/// How long to wait for a backup that is at work; no shorter than the shortest period.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Starts making checkpoints, if the configuration names a folder for them.
pub(super) fn start(engine: &Engine, config: &Config, drain: &Drain) {
    let Some(to) = config.metadata_checkpoint_dir.clone() else { return };
    let period = Duration::from_secs(config.metadata_checkpoint_seconds);
    tokio::spawn(make(engine.clone(), drain.clone(), to, period));
}

async fn make(engine: Engine, drain: Drain, to: PathBuf, period: Duration) {
    let request =
        BackupRequest { to, kind: BackupKind::Metadata, rate_bytes: None, keep: Some(KEPT) };
    while !drain.has_begun() {
        let pause = match engine.backup(request.clone()).await {
            Ok(made) => {
                #[expect(clippy::cast_precision_loss, reason = "a time in seconds")]
                gauge!("kluis_metadata_checkpoint_seconds").set((made.created_ms / 1_000) as f64);
                period
            }
            Err(error) if error.kind() == ErrorKind::Conflict => RETRY_AFTER.min(period),
            Err(error) => {
                tracing::error!(%error, "no checkpoint of the metadata was made; again later");
                period
            }
        };
        tokio::time::sleep(pause).await;
    }
}
