//! `kluis backup`: snapshots of a node in a repository on another disk.
//!
//! Owns: arguments, the progress bar, what is printed. Knows nothing of: what a snapshot consists
//! of.
//!
//! Invariants
//! - A running node takes the snapshot itself, by way of its socket; a directory that no node has
//!   open is backed up by this process. Neither needs the passphrase here.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, value_parser};
use http::Method;
use indicatif::ProgressBar;
use kluis_kms::env::Env;
use kluis_storage::backup::{
    BackupKind, BackupRequest, Progress, SnapshotInfo, backup_at_rest, list, prune, verify,
};
use serde_json::{Value, json};

use super::output::{self, progress_bar, time};
use super::{EXIT_DONE, EXIT_REFUSED, Failure, Outcome};
use crate::admin::{BackupDone, BackupState, Client, ClientError, StartBackup};
use crate::config::Config;
use crate::node::engine_config;
use crate::{logging, process};

/// How often the bar is moved.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

const EXAMPLES: &str = "\
A repository is a folder on another disk. The first run copies everything, later ones what is new.
It holds everything but the passphrase: keep that elsewhere.

Examples:
  kluis backup --to /mnt/backup/node1 --data-dir /var/lib/kluis
  kluis backup --to /mnt/backup/node1 --data-dir /var/lib/kluis --rate 100 --keep 14
  kluis backup list --from /mnt/backup/node1
  kluis backup verify --from /mnt/backup/node1
  kluis backup prune --from /mnt/backup/node1 --keep 7";

/// Takes a snapshot of a node, running or stopped, and looks after those that there are.
#[derive(Args)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(super) struct Backup {
    /// The repository; made if the folder is empty or not there.
    #[arg(long, value_name = "DIR", required = true)]
    to: Option<PathBuf>,
    /// The data directory.
    #[arg(long, value_name = "DIR", required = true)]
    data_dir: Option<PathBuf>,
    /// MiB a second that are read at most.
    #[arg(long, value_name = "MIB", value_parser = value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Removes older snapshots than so many.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    keep: Option<u64>,
    /// Copies metadata, keys and audit log, and no objects.
    #[arg(long)]
    metadata_only: bool,
    #[command(subcommand)]
    command: Option<Care>,
}

/// What is done with snapshots that there are.
#[derive(Subcommand)]
pub(super) enum Care {
    /// Lists snapshots.
    #[command(after_help = "Examples:\n  kluis backup list --from /mnt/backup/node1")]
    List {
        /// The repository.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
    },
    /// Reads every file of a repository and holds it against its digest; needs no keys. Exit codes:
    /// 0 sound, 1 damage found, 2 could not run.
    #[command(after_help = "Examples:\n  kluis backup verify --from /mnt/backup/node1")]
    Verify {
        /// The repository.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Only what this snapshot needs.
        #[arg(long, value_name = "ID")]
        snapshot: Option<String>,
    },
    /// Removes all snapshots but the newest, and what only they need.
    #[command(after_help = "Examples:\n  kluis backup prune --from /mnt/backup/node1 --keep 7")]
    Prune {
        /// The repository.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// How many stay, of those with objects and of those without.
        #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
        keep: u64,
    },
}

impl Backup {
    pub(super) fn run(self, json: bool) -> Outcome {
        process::harden().map_err(Failure::could_not_run)?;
        let config = Config { log_level: "warn".to_owned(), ..Config::default() };
        logging::start(&config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Failure::could_not_run)?;
        runtime.block_on(async {
            match &self.command {
                None => self.take(&config, json).await,
                Some(Care::List { from }) => show_list(&list(from)?, json),
                Some(Care::Verify { from, snapshot }) => {
                    check(from.clone(), snapshot.clone(), json).await
                }
                Some(Care::Prune { from, keep }) => thin_out(from, *keep, json),
            }
        })
    }

    async fn take(&self, config: &Config, json: bool) -> Outcome {
        let (Some(to), Some(data)) = (&self.to, &self.data_dir) else {
            return Err(Failure::could_not_run("give --to and --data-dir"));
        };
        let to = std::path::absolute(to).map_err(Failure::could_not_run)?;
        let asked = StartBackup {
            to,
            rate_mib: self.rate,
            keep: self.keep,
            metadata_only: self.metadata_only,
        };
        let done = match Client::connect(data).await {
            Ok(client) => by_node(client, data, &asked).await?,
            Err(ClientError::NoNode(..)) => at_rest(data, asked, config).await?,
            Err(error) => return Err(error.into()),
        };
        if json {
            output::json(&done)?;
        } else {
            output::line(&sentence(&done))?;
        }
        Ok(EXIT_DONE)
    }
}

/// Has the running node take the snapshot, and shows how far it is.
async fn by_node(
    mut client: Client,
    data: &Path,
    asked: &StartBackup,
) -> Result<BackupDone, Failure> {
    let bar = progress_bar(0);
    let mut watcher = Client::connect(data).await?;
    let look = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let state: Result<BackupState, _> = watcher.call(Method::GET, "/v1/backup").await;
            if let Ok(BackupState { running: Some(running), .. }) = state {
                move_bar(&bar, &running.phase, running.done_bytes, running.total_bytes);
            }
        }
    };
    let done = tokio::select! {
        done = client.post("/v1/backup", asked) => done,
        () = look => unreachable!("it goes on for ever"),
    };
    bar.finish_and_clear();
    Ok(done?)
}

/// Takes the snapshot of a directory that no node has open.
async fn at_rest(data: &Path, asked: StartBackup, config: &Config) -> Result<BackupDone, Failure> {
    let progress = Arc::new(Progress::default());
    let request = BackupRequest {
        to: asked.to,
        kind: if asked.metadata_only { BackupKind::Metadata } else { BackupKind::Full },
        rate_bytes: asked.rate_mib.map(|mib| mib.saturating_mul(MIB)),
        keep: asked.keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
    };
    let engine = engine_config(config)?;
    let taking = backup_at_rest(data, &engine, Env::system(), request, Arc::clone(&progress));
    Ok(watch(&progress, taking).await?.into())
}

/// Moves a bar until the work has ended.
pub(super) async fn watch<T>(progress: &Progress, work: impl Future<Output = T>) -> T {
    let bar = progress_bar(0);
    let mut work = std::pin::pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(LOOK_EVERY, &mut work).await {
            bar.finish_and_clear();
            return done;
        }
        let view = progress.view();
        move_bar(&bar, view.phase, view.done_bytes, view.total_bytes);
    }
}

fn move_bar(bar: &ProgressBar, phase: &str, done_bytes: u64, total_bytes: u64) {
    bar.set_length(total_bytes / MIB);
    bar.set_position(done_bytes / MIB);
    bar.set_message(format!("MiB, {phase}"));
}

impl From<kluis_storage::Error> for Failure {
    /// What the repository or a disk refused.
    fn from(error: kluis_storage::Error) -> Self {
        Self { code: EXIT_REFUSED, message: error.to_string() }
    }
}

fn sentence(done: &BackupDone) -> String {
    let mut text = format!(
        "snapshot {} ({}): {} MiB copied, {} MiB were there, {} segments, {}.{:03} s",
        done.snapshot,
        done.kind,
        done.copied_bytes / MIB,
        done.reused_bytes / MIB,
        done.segments,
        done.took_ms / 1_000,
        done.took_ms % 1_000,
    );
    if done.removed_snapshots > 0 {
        text = format!("{text}\n{} older snapshots were removed", done.removed_snapshots);
    }
    if done.unreadable_bytes > 0 {
        let bytes = done.unreadable_bytes;
        text = format!("{text}\nWARNING: the disk could not read {bytes} bytes: `kluis check`");
    }
    if done.same_disk {
        text = format!("{text}\nWARNING: it lies on the disk of the data, and is lost with it");
    }
    text
}

fn show_list(found: &[SnapshotInfo], is_json: bool) -> Outcome {
    let is_sound = found.iter().all(|it| it.about.is_some());
    if is_json {
        let snapshots: Vec<Value> = found.iter().map(row).collect();
        output::json(&json!({ "snapshots": snapshots }))?;
    } else {
        let rows: Vec<[String; 5]> = found
            .iter()
            .map(|it| match &it.about {
                Some(about) => [
                    it.id.clone(),
                    time(about.created_ms),
                    about.kind.as_str().to_owned(),
                    about.segments.to_string(),
                    (about.bytes / MIB).to_string(),
                ],
                None => [&it.id, "damaged", "", "", ""].map(|text: &str| text.to_owned()),
            })
            .collect();
        output::table(["SNAPSHOT", "TAKEN", "KIND", "SEGMENTS", "MIB"], &rows)?;
    }
    Ok(if is_sound { EXIT_DONE } else { EXIT_REFUSED })
}

fn row(info: &SnapshotInfo) -> Value {
    match &info.about {
        Some(about) => json!({
            "snapshot": info.id,
            "kind": about.kind.as_str(),
            "created_ms": about.created_ms,
            "sequence": about.sequence,
            "segments": about.segments,
            "bytes": about.bytes,
            "unreadable_bytes": about.unreadable_bytes,
        }),
        None => json!({ "snapshot": info.id, "damaged": true }),
    }
}

async fn check(from: PathBuf, snapshot: Option<String>, is_json: bool) -> Outcome {
    let progress = Arc::new(Progress::default());
    let shared = Arc::clone(&progress);
    let work = tokio::task::spawn_blocking(move || verify(&from, snapshot.as_deref(), &shared));
    let report = watch(&progress, work).await.map_err(Failure::could_not_run)?;
    let report = report.map_err(Failure::could_not_run)?;
    if is_json {
        let findings: Vec<Value> = report
            .findings
            .iter()
            .map(|it| json!({ "path": it.path, "message": it.what }))
            .collect();
        output::json(&json!({
            "snapshots": report.snapshots,
            "files": report.files,
            "bytes": report.bytes,
            "damaged": report.damaged,
            "findings": findings,
        }))?;
    } else {
        for found in &report.findings {
            output::line(&format!("DAMAGE  {}: {}", found.path.display(), found.what))?;
        }
        let (snapshots, files) = (report.snapshots, report.files);
        let mib = report.bytes / MIB;
        output::line(&format!("{snapshots} snapshots, {files} files, {mib} MiB read"))?;
        let verdict = match report.damaged {
            0 => "Sound.".to_owned(),
            count => format!("{count} damaged."),
        };
        output::line(&verdict)?;
    }
    Ok(if report.damaged == 0 { EXIT_DONE } else { EXIT_REFUSED })
}

fn thin_out(from: &Path, keep: u64, is_json: bool) -> Outcome {
    let pruned = prune(from, usize::try_from(keep).unwrap_or(usize::MAX))?;
    let (snapshots, files) = (pruned.snapshots, pruned.files);
    if is_json {
        output::json(&json!({ "snapshots": snapshots, "files": files, "bytes": pruned.bytes }))?;
    } else {
        let mib = pruned.bytes / MIB;
        output::line(&format!("{snapshots} snapshots and {files} files removed, {mib} MiB"))?;
    }
    Ok(EXIT_DONE)
}
