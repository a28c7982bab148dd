//! `kluis dev`: what only a node with `--dev` does.

use clap::Subcommand;

use super::output;
use super::{EXIT_DONE, Node, Outcome};
use crate::admin::{AdvanceClock, Client, Done};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600 * 1_000;

#[derive(Subcommand)]
pub(super) enum Dev {
    /// Moves the keys' clock on until the node stops: waiting periods, expiries and rotations come
    /// due at once. Signatures are still checked by the machine's clock.
    #[command(after_help = "Examples:\n  kluis dev advance-clock --days 8 --data-dir ./data")]
    AdvanceClock {
        /// By how many days.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
        days: u64,
        #[command(flatten)]
        node: Node,
    },
}

impl Dev {
    pub(super) async fn run(self, json: bool) -> Outcome {
        let Self::AdvanceClock { days, node } = self;
        let mut client = Client::connect(&node.data_dir).await?;
        let asked = AdvanceClock { advance_ms: days * DAY_MS };
        let done: Done = client.post("/v1/dev/clock", &asked).await?;
        if json {
            output::json(&done)?;
        } else {
            output::line(&format!("the keys' clock is {days} days further on"))?;
        }
        Ok(EXIT_DONE)
    }
}
