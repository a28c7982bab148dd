//! The program `faultfs`: serves a file system that loses what was not flushed, checks histories.
//!
//! Owns: the command line. Knows nothing of: what runs on the file system.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use kluis_faultfs::control::Control;
use kluis_faultfs::device::Shared;
use kluis_faultfs::history::{Call, check};
use kluis_faultfs::tree::{EntryRule, Owner, Tree};

/// A file system in memory that loses what was not flushed, and a checker of histories.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a file system; what happens to it is told over a socket. Needs /dev/fuse, and root or
    /// fusermount3.
    Serve {
        /// The directory to mount it on.
        #[arg(long)]
        mount: PathBuf,
        /// The control socket, which is made.
        #[arg(long)]
        control: PathBuf,
        /// Bytes that the disk holds; they are this program's memory.
        #[arg(long, default_value_t = 4 << 30)]
        bytes: u64,
        /// When entries of directories are durable.
        #[arg(long, value_enum, default_value = "strict")]
        entries: Entries,
    },
    /// Checks a history for linearizability: calls as lines of JSON. Exits with 1 on a violation.
    CheckHistory {
        /// The file that holds it.
        file: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Entries {
    /// Also when any file is flushed, as ext4 does.
    Ext4,
    /// Only when their directory is flushed.
    Strict,
}

fn main() -> io::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Serve { mount, control, bytes, entries } => {
            let rule = match entries {
                Entries::Ext4 => EntryRule::Ext4,
                Entries::Strict => EntryRule::Strict,
            };
            let owner = Owner {
                uid: rustix::process::getuid().as_raw(),
                gid: rustix::process::getgid().as_raw(),
                perm: 0o700,
            };
            let shared = Shared::new(Tree::new(bytes, rule, owner));
            Control::new(shared, &mount).serve(&control)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::CheckHistory { file } => {
            let text = std::fs::read_to_string(file)?;
            let calls = text.lines().map(serde_json::from_str).collect::<Result<Vec<Call>, _>>()?;
            let verdict = check(&calls).map_err(io::Error::other)?;
            println!("{}", serde_json::to_string(&verdict)?);
            Ok(ExitCode::from(u8::from(!verdict.violations.is_empty())))
        }
    }
}
