//! `kluis reclaim`.

use std::time::Duration;

use clap::Args;
use http::Method;

use super::output::{self, progress_bar};
use super::{EXIT_DONE, Node, Outcome};
use crate::admin::{Client, Space};

/// How often progress is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Wins back the space of deleted objects now, at full speed.
#[derive(Args)]
#[command(after_help = "\
A node does this by itself, at a rate that clients do not feel. Interrupting the command does not
stop it.

Examples:
  kluis reclaim --data-dir ./data
  kluis reclaim --status --data-dir ./data --json")]
pub(super) struct Reclaim {
    /// Shows how space is used, and starts nothing.
    #[arg(long)]
    status: bool,
    #[command(flatten)]
    node: Node,
}

impl Reclaim {
    pub(super) async fn run(self, json: bool) -> Outcome {
        let data = &self.node.data_dir;
        let mut client = Client::connect(data).await?;
        let before: Space = client.call(Method::GET, "/v1/space").await?;
        if self.status {
            return show(&before, json);
        }
        let mut watcher = Client::connect(data).await?;
        let bar = progress_bar(before.segments_closed);
        let asked = client.call(Method::POST, "/v1/reclaim");
        tokio::pin!(asked);
        let after: Space = loop {
            tokio::select! {
                done = &mut asked => break done?,
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let now: Space = watcher.call(Method::GET, "/v1/space").await?;
                    bar.set_position(
                        now.reclaimed_segments.saturating_sub(before.reclaimed_segments),
                    );
                }
            }
        };
        bar.finish_and_clear();
        show(&after, json)
    }
}

fn show(space: &Space, json: bool) -> Outcome {
    if json {
        output::json(space)?;
    } else {
        output::line(&text(space))?;
    }
    Ok(EXIT_DONE)
}

fn text(space: &Space) -> String {
    let cleaning = space.cleaning_segment.map_or_else(|| "-".to_owned(), |it| it.to_string());
    format!(
        "segments open        {}\nsegments closed      {}\nsegments free        {}\n\
         allocated bytes      {}\nwritten bytes        {}\nlive bytes           {}\n\
         reclaimed segments   {}\nkept segments        {}\nmoved bytes          {}\n\
         cleaning segment     {cleaning}",
        space.segments_open,
        space.segments_closed + space.segments_closing,
        space.segments_free,
        space.allocated_bytes,
        space.written_bytes,
        space.live_bytes,
        space.reclaimed_segments,
        space.kept_segments,
        space.moved_bytes,
    )
}
