//! `kluis restore`: puts a snapshot back.
//!
//! Owns: arguments, what is printed. Knows nothing of: what a snapshot consists of.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use kluis_kms::env::Env;
use kluis_storage::backup::{MetadataRequest, Progress, RestoreRequest, restore, restore_metadata};
use serde_json::json;

use super::backup::watch;
use super::output::{self, time};
use super::{EXIT_DONE, Failure, Outcome};
use crate::config::Config;
use crate::node::engine_config;
use crate::{logging, process};

const EXAMPLES: &str = "\
The keys that come back are the newest of the repository, whatever snapshot is asked for: a key that
was destroyed since stays destroyed. The passphrase is not in it; `kluis serve` asks for it.

Examples:
  kluis restore --from /mnt/backup/node1 --data-dir /var/lib/kluis
  kluis restore --from /mnt/backup/node1 --data-dir ./copy --snapshot 1796000000000-1a2b3c4d
  kluis restore --from /mnt/meta/node1 --data-dir /var/lib/kluis --metadata-only --accept-loss";

/// Fills an empty directory with a snapshot of a node.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Restore {
    /// The repository.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The directory to fill; made if it is not there.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Which snapshot: `kluis backup list` shows them. Without it, the newest.
    #[arg(long, value_name = "ID")]
    snapshot: Option<String>,
    /// Puts only the metadata back, beside the volume that it is of: its disk was lost, the
    /// segments were not. The folder `meta/` must not be there.
    #[arg(long)]
    metadata_only: bool,
    /// Lets go of what was acknowledged after the snapshot.
    #[arg(long, requires = "metadata_only")]
    accept_loss: bool,
}

impl Restore {
    pub(super) async fn run(self, is_json: bool) -> Outcome {
        process::harden().map_err(Failure::could_not_run)?;
        logging::start(&Config { log_level: "warn".to_owned(), ..Config::default() });
        if self.metadata_only {
            return self.metadata(is_json).await;
        }
        let progress = Arc::new(Progress::default());
        let (shared, to) = (Arc::clone(&progress), self.data_dir.clone());
        let request =
            RestoreRequest { from: self.from, snapshot: self.snapshot, to: self.data_dir };
        let work = tokio::task::spawn_blocking(move || restore(&request, &Env::system(), &shared));
        let done = watch(&progress, work).await.map_err(Failure::could_not_run)?;
        let done = done?;
        let about = &done.about;
        if is_json {
            output::json(&json!({
                "snapshot": done.snapshot,
                "created_ms": about.created_ms,
                "sequence": about.sequence,
                "segments": about.segments,
                "bytes": about.bytes,
                "unreadable_bytes": about.unreadable_bytes,
            }))?;
        } else {
            output::line(&format!(
                "snapshot {} of {}: {} segments, {} MiB\nStart the node:  kluis serve {}",
                done.snapshot,
                time(about.created_ms),
                about.segments,
                about.bytes >> 20,
                to.display()
            ))?;
        }
        Ok(EXIT_DONE)
    }

    async fn metadata(self, is_json: bool) -> Outcome {
        let progress = Progress::default();
        let engine = engine_config(&Config::default())?;
        let request = MetadataRequest {
            from: self.from,
            snapshot: self.snapshot,
            to: self.data_dir,
            accept_loss: self.accept_loss,
        };
        let work = restore_metadata(&request, &engine, Env::system(), &progress);
        let done = watch(&progress, work).await?;
        if is_json {
            output::json(&json!({
                "snapshot": done.snapshot,
                "created_ms": done.about.created_ms,
                "sequence": done.about.sequence,
                "lost_writes": done.lost_writes,
                "changed_segments": done.changed_segments,
                "moved_extents": done.moved_extents,
            }))?;
        } else {
            output::line(&format!(
                "metadata of snapshot {} of {}: {} writes after it are lost, {} segments differ",
                done.snapshot,
                time(done.about.created_ms),
                done.lost_writes,
                done.changed_segments
            ))?;
        }
        Ok(EXIT_DONE)
    }
}
