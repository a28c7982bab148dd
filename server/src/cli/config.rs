//! `kluis config`.

use clap::Args;

use super::{EXIT_DONE, Failure, Outcome};
use crate::config::Config;

/// Prints the documented default configuration.
#[derive(Args)]
#[command(after_help = "Examples:\n  kluis config --print > kluis.toml")]
pub(super) struct Print {
    /// Prints it to standard output.
    #[arg(long, required = true)]
    print: bool,
}

impl Print {
    pub(super) fn run(self) -> Outcome {
        use std::io::Write as _;
        if self.print {
            let text = Config::documented_default();
            std::io::stdout().write_all(text.as_bytes()).map_err(Failure::could_not_run)?;
        }
        Ok(EXIT_DONE)
    }
}
