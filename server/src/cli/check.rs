//! `kluis check`.
//!
//! Owns: arguments, the progress bar, the report and the exit code. What is verified, and how, is
//! the engine's; [`verify`] is the way to it.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use kluis_kms::env::Env;
use kluis_storage::{CheckReport, EngineConfig};
use serde::Serialize;

use super::output::{self, progress_bar};
use super::{EXIT_DONE, EXIT_REFUSED, Failure, Outcome};
use crate::config::{Config, Texts};
use crate::node::{Keys, engine_config, open_keys};
use crate::{logging, passphrase, process};

const EXAMPLES: &str = "\
Without a passphrase, every CRC and every reference is verified; with one, every authentication
tag as well. Exit codes: 0 clean, 1 damage found, 2 could not run.

Examples:
  kluis check ./data
  kluis check ./data --dev --json
  kluis check /var/lib/kluis --passphrase-file /etc/kluis/passphrase";

/// Verifies a data directory that no node has open.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// The data directory.
    #[arg(value_name = "DIR")]
    data: PathBuf,
    /// The node's configuration file; needed where it names `volumes`.
    #[arg(long, value_name = "FILE", env = "KLUIS_CONFIG")]
    config: Option<PathBuf>,
    /// Takes the passphrase that `kluis serve --dev` keeps in the data directory.
    #[arg(long)]
    dev: bool,
    /// File with the passphrase that seals the root key; `-` reads it from standard input.
    #[arg(long, value_name = "FILE", env = "KLUIS_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Something that is not as it should be.
#[derive(Serialize)]
pub(super) struct Finding {
    /// What is damaged: `superblock`, `extent`, `row`, `reference`, `tag`, …
    pub(super) kind: String,
    /// Where, in ids and numbers.
    pub(super) place: String,
    /// What is wrong.
    pub(super) message: String,
}

/// What was verified, and what was found.
#[derive(Serialize)]
pub(super) struct Report {
    /// How many things were verified, by kind.
    pub(super) verified: Vec<(String, u64)>,
    /// Whether tags were verified, which takes the keys.
    pub(super) tags: bool,
    /// How much damage there is.
    pub(super) damaged: u64,
    /// The damage, as far as it is listed.
    pub(super) findings: Vec<Finding>,
}

impl Check {
    pub(super) fn run(self, json: bool) -> Outcome {
        let none = Texts::new();
        let config =
            Config::load(self.config.as_deref(), &none, &none).map_err(Failure::could_not_run)?;
        let config = Config {
            passphrase_file: self.passphrase_file.clone().or(config.passphrase_file),
            log_level: "warn".to_owned(),
            ..config
        };
        logging::start(&config);
        process::harden().map_err(Failure::could_not_run)?;
        if !self.data.is_dir() {
            let data = self.data.display();
            return Err(Failure::could_not_run(format!("{data} is not a data directory")));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Failure::could_not_run)?;
        let bar = progress_bar(0);
        let report = runtime.block_on(async {
            let keys = self.keys(&config).await?;
            let engine = engine_config(&config).map_err(Failure::could_not_run)?;
            verify(&self.data, engine, keys, &bar).await
        });
        bar.finish_and_clear();
        let report = report?;
        if json {
            output::json(&report)?;
        } else {
            print(&report)?;
        }
        Ok(if report.damaged == 0 { EXIT_DONE } else { EXIT_REFUSED })
    }

    /// Opens the keys if there is a source for their passphrase.
    async fn keys(&self, config: &Config) -> Result<Option<Keys>, Failure> {
        let has_source = self.dev
            || config.passphrase_file.is_some()
            || config.root_store.is_some()
            || passphrase::credentials_folder().is_some();
        if !has_source {
            return Ok(None);
        }
        Ok(Some(open_keys(&self.data, self.dev, config, &Env::system()).await?))
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    for (kind, count) in &report.verified {
        output::line(&format!("{count:>12} {kind} verified"))?;
    }
    if !report.tags {
        output::line("Tags were not verified: that takes the passphrase.")?;
    }
    for Finding { kind, place, message } in &report.findings {
        output::line(&format!("DAMAGE  {kind}  {place}: {message}"))?;
    }
    match report.damaged {
        0 => output::line("Clean."),
        count => output::line(&format!("{count} damaged.")),
    }
}

/// Verifies the directory. The engine does; this is the way to it.
async fn verify(
    data: &Path,
    config: EngineConfig,
    keys: Option<Keys>,
    bar: &ProgressBar,
) -> Result<Report, Failure> {
    let tags = keys.is_some();
    let progress = |report: &CheckReport| {
        bar.set_message(format!(
            "{} rows, {} extents, {} objects, {} damaged",
            report.rows, report.extents, report.objects, report.damaged
        ));
        bar.tick();
    };
    let kms = keys.map(|keys| keys.kms);
    let report = kluis_storage::check(data, config, kms, Env::system(), &progress)
        .await
        .map_err(Failure::could_not_run)?;
    let verified = [
        ("tenants", report.tenants),
        ("rows", report.rows),
        ("extents", report.extents),
        ("extent bytes", report.extent_bytes),
        ("objects", report.objects),
        ("object bytes", report.object_bytes),
        ("objects under customers' keys, tags not verified", report.customer_objects),
        ("objects under keys that are off, tags not verified", report.locked_objects),
    ];
    let findings = report
        .findings
        .into_iter()
        .map(|finding| Finding {
            kind: finding.kind.to_owned(),
            place: finding.place,
            message: finding.message,
        })
        .collect();
    Ok(Report {
        verified: verified.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
        tags,
        damaged: report.damaged,
        findings,
    })
}
