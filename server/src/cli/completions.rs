//! `kluis completions`.

use clap::{Args, Command};
use clap_complete::Shell;

use super::EXIT_DONE;

/// Prints a completion script for a shell.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kluis completions bash > /etc/bash_completion.d/kluis
  kluis completions zsh > \"${fpath[1]}/_kluis\"")]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, command: &mut Command) -> u8 {
        clap_complete::generate(self.shell, command, "kluis", &mut std::io::stdout());
        EXIT_DONE
    }
}
