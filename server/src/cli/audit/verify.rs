//! `kluis audit verify`: the check of a stopped node's audit log.
//!
//! Owns: its arguments, its report and its exit code. Knows nothing of: how a log is checked.
//!
//! Invariants
//! - Nothing in the data directory is changed.
//! - Damage ends it with exit code 1.

use std::path::PathBuf;

use clap::Args;
use kluis_kms::env::Env;
use kluis_kms::{AuditDamage, AuditVerdict, Kms};
use serde::Serialize;

use crate::cli::flags::ConfigFlags;
use crate::cli::serve::load;
use crate::cli::{EXIT_DONE, EXIT_REFUSED, Failure, Outcome, output};
use crate::node::root_store;
use crate::process;

const EXAMPLES: &str = "\
Reads every segment of the log: links, numbers, MACs, the head. Changes nothing. Exit codes: 0 sound,
1 damage found, 2 could not run.

Examples:
  kluis audit verify ./data --dev
  kluis audit verify /var/lib/kluis --passphrase-file /etc/kluis/passphrase --json";

/// A stopped node's log, and what opens its keys.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Verify {
    /// The data directory.
    #[arg(value_name = "DIR")]
    data: PathBuf,
    /// Takes the passphrase that `kluis serve --dev` keeps in the data directory.
    #[arg(long)]
    dev: bool,
    /// File with the passphrase that seals the root key; `-` reads it from standard input.
    #[arg(long, value_name = "FILE", env = "KLUIS_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// The node's configuration file, where its root key is sealed by a key store.
    #[arg(long, value_name = "FILE", env = "KLUIS_CONFIG")]
    config: Option<PathBuf>,
}

/// What a check of a log says.
#[derive(Serialize)]
struct Verdict {
    sound: bool,
    segments: u64,
    entries: u64,
    first_sequence: u64,
    torn_bytes: u64,
    damage: Vec<Place>,
}

/// A place that is not as it was written.
#[derive(Serialize)]
struct Place {
    segment: u64,
    offset: u64,
    what: &'static str,
}

impl From<AuditVerdict> for Verdict {
    fn from(verdict: AuditVerdict) -> Self {
        let sound = verdict.is_sound();
        let AuditVerdict { segments, entries, first_sequence, torn_bytes, damage } = verdict;
        let place =
            |at: AuditDamage| Place { segment: at.segment, offset: at.offset, what: at.what };
        let damage = damage.into_iter().map(place).collect();
        Self { sound, segments, entries, first_sequence, torn_bytes, damage }
    }
}

impl Verify {
    pub(super) async fn run(self, json: bool) -> Outcome {
        let Self { data, dev, passphrase_file, config } = self;
        let mut config = load(config.as_deref(), &ConfigFlags::default())?;
        config.passphrase_file = passphrase_file.or(config.passphrase_file);
        process::harden().map_err(Failure::could_not_run)?;
        let (store, _) = root_store(&data, dev, &config, &Env::system())?;
        let verified = tokio::task::spawn_blocking(move || Kms::verify_audit(&data, &*store)).await;
        let verdict = verified.map_err(Failure::could_not_run)?.map_err(Failure::could_not_run)?;
        let verdict = Verdict::from(verdict);
        if json {
            output::json(&verdict)?;
        } else {
            print(&verdict)?;
        }
        Ok(if verdict.sound { EXIT_DONE } else { EXIT_REFUSED })
    }
}

fn print(verdict: &Verdict) -> Result<(), Failure> {
    let Verdict { segments, entries, first_sequence, .. } = verdict;
    output::line(&format!(
        "{entries} entries from number {first_sequence} on, in {segments} segments"
    ))?;
    if verdict.torn_bytes > 0 {
        let torn = verdict.torn_bytes;
        output::line(&format!(
            "{torn} bytes at the end were cut short by a crash; nobody was told of them"
        ))?;
    }
    for Place { segment, offset, what } in &verdict.damage {
        output::line(&format!("DAMAGE  segment {segment} at byte {offset}: {what}"))?;
    }
    output::line(if verdict.sound { "Sound." } else { "Not sound." })
}
