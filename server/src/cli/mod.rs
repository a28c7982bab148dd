//! The command line: one file per command.
//!
//! Owns: arguments, what is printed, exit codes. Knows nothing of: how a command is carried out.
//!
//! Invariants
//! - With `--json`, standard output holds one JSON document and nothing else (`audit` prints one a
//!   line, always). Logs and errors go to standard error.
//! - Exit codes: 0 done, 1 refused (or damage found), 2 could not run.

mod access_key;
mod api;
mod audit;
mod backup;
mod check;
mod completions;
mod config;
mod dev;
mod flags;
mod key;
mod output;
mod reclaim;
mod restore;
mod scrub;
mod serve;
mod tenant;
mod user;
mod volume;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::admin::ClientError;
use crate::node::NodeError;

/// The command did what it was asked for.
const EXIT_DONE: u8 = 0;
/// The node refused, or damage was found.
const EXIT_REFUSED: u8 = 1;
/// The command could not run: bad arguments, no node, a file that cannot be read.
pub(crate) const EXIT_COULD_NOT_RUN: u8 = 2;

/// An encrypted object store with the API of S3, for many tenants on one node.
#[derive(Parser)]
#[command(name = "kluis", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    /// Prints one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  kluis serve ./data --dev
  kluis tenant create acme --data-dir ./data
  kluis user create alice --tenant acme --data-dir ./data
  kluis key rotate reports --endpoint http://127.0.0.1:9000
  kluis backup --to /mnt/backup/node1 --data-dir ./data
  kluis check ./data";

#[derive(Subcommand)]
enum Command {
    /// Runs a node on a data directory.
    Serve(serve::Serve),
    /// Makes and manages tenants.
    Tenant {
        #[command(subcommand)]
        command: tenant::Tenant,
    },
    /// Makes and lists users of a tenant.
    User {
        #[command(subcommand)]
        command: user::User,
    },
    /// Makes, lists and revokes access keys of a tenant.
    AccessKey {
        #[command(subcommand)]
        command: access_key::AccessKey,
    },
    /// Makes, turns, switches off and destroys a tenant's keys.
    Key {
        #[command(subcommand)]
        command: key::Key,
    },
    /// Shows what a tenant's keys were used for, and verifies the log of it.
    Audit {
        #[command(subcommand)]
        command: audit::Audit,
    },
    /// Wins back the space of deleted objects now.
    Reclaim(reclaim::Reclaim),
    /// Reads everything that is stored and lists what is damaged.
    Scrub {
        #[command(subcommand)]
        command: scrub::Scrub,
    },
    /// Shows and rebuilds the directories that hold the objects.
    Volume {
        #[command(subcommand)]
        command: volume::Volume,
    },
    /// Takes snapshots of a node and looks after them.
    Backup(backup::Backup),
    /// Puts a snapshot back into an empty directory.
    Restore(restore::Restore),
    /// Verifies a data directory that no node has open.
    Check(check::Check),
    /// Prints the documented default configuration.
    Config(config::Print),
    /// Moves a development node's clock on.
    Dev {
        #[command(subcommand)]
        command: dev::Dev,
    },
    /// Prints a completion script for a shell.
    Completions(completions::Completions),
}

/// Where the node is that a command talks to.
#[derive(Args)]
struct Node {
    /// The data directory of the running node.
    #[arg(long, value_name = "DIR", env = "KLUIS_DATA_DIR")]
    data_dir: PathBuf,
}

/// Why a command failed, and the exit code that says so.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn could_not_run(message: impl fmt::Display) -> Self {
        Self { code: EXIT_COULD_NOT_RUN, message: message.to_string() }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Refused(_) => EXIT_REFUSED,
            ClientError::Broken(_) | ClientError::NoNode(..) => EXIT_COULD_NOT_RUN,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        Self::could_not_run(error)
    }
}

/// What a command returns: an exit code, or a failure to print.
type Outcome = Result<u8, Failure>;

/// Reads the arguments and carries the command out.
pub(crate) fn run() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let outcome = match command {
        Command::Serve(command) => command.run(json),
        Command::Tenant { command } => with_runtime(command.run(json)),
        Command::User { command } => with_runtime(command.run(json)),
        Command::AccessKey { command } => with_runtime(command.run(json)),
        Command::Key { command } => with_runtime(command.run(json)),
        Command::Audit { command } => with_runtime(command.run(json)),
        Command::Volume { command } => with_runtime(command.run(json)),
        Command::Dev { command } => with_runtime(command.run(json)),
        Command::Reclaim(command) => with_runtime(command.run(json)),
        Command::Scrub { command } => with_runtime(command.run(json)),
        Command::Backup(command) => command.run(json),
        Command::Restore(command) => with_runtime(command.run(json)),
        Command::Check(command) => command.run(json),
        Command::Config(command) => command.run(),
        Command::Completions(command) => Ok(command.run(&mut Cli::command())),
    };
    ExitCode::from(outcome.unwrap_or_else(|failure| {
        eprintln!("kluis: {}", failure.message);
        failure.code
    }))
}

/// Carries out a command that talks to a node.
fn with_runtime(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::could_not_run)?
        .block_on(command)
}

#[cfg(test)]
mod tests;
