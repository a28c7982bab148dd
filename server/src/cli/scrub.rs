//! `kluis scrub`.
//!
//! Owns: arguments, the bar of a pass, how damage is printed. Knows nothing of: what is read.

use std::time::Duration;

use clap::Subcommand;
use http::Method;
use serde::Serialize;

use super::output::{self, progress_bar, time};
use super::{EXIT_DONE, EXIT_REFUSED, Failure, Node, Outcome};
use crate::admin::{Client, Damage, DamagedExtent, Scrub as State, ScrubAsked, encode};

/// How often a pass is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

#[derive(Subcommand)]
pub(super) enum Scrub {
    /// Shows how far scrubbing is, and everything that is damaged.
    #[command(after_help = "\
Exit codes: 0 nothing is damaged, 1 something is, 2 could not run.

Examples:
  kluis scrub status --data-dir ./data
  kluis scrub status --data-dir ./data --json")]
    Status {
        #[command(flatten)]
        node: Node,
    },
    /// Reads everything once, at full speed, and shows what is damaged.
    #[command(after_help = "\
A node does this by itself within `scrub_period_days`, at a pace that clients do not feel.
Interrupting the command does not stop it. Exit codes: as of `scrub status`.

Examples:
  kluis scrub now --data-dir ./data")]
    Now {
        #[command(flatten)]
        node: Node,
    },
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    state: State,
    damage: Vec<DamagedExtent>,
}

impl Scrub {
    pub(super) async fn run(self, json: bool) -> Outcome {
        let (node, is_now) = match self {
            Self::Status { node } => (node, false),
            Self::Now { node } => (node, true),
        };
        let mut client = Client::connect(&node.data_dir).await?;
        let state = if is_now {
            pass(&mut client).await?
        } else {
            client.call(Method::GET, "/v1/scrub").await?
        };
        let report = Report { damage: damage(&mut client).await?, state };
        if json {
            output::json(&report)?;
        } else {
            print(&report)?;
        }
        Ok(if report.is_clean() { EXIT_DONE } else { EXIT_REFUSED })
    }
}

impl Report {
    fn is_clean(&self) -> bool {
        let faults = self.state.metadata_faults + self.state.checkpoint_faults;
        self.damage.is_empty() && self.state.unlisted == 0 && faults == 0
    }
}

/// Has a pass made, and waits for its end.
async fn pass(client: &mut Client) -> Result<State, Failure> {
    let asked: ScrubAsked = client.call(Method::POST, "/v1/scrub").await?;
    let bar = progress_bar(0);
    loop {
        let state: State = client.call(Method::GET, "/v1/scrub").await?;
        if state.answered >= asked.number {
            bar.finish_and_clear();
            return Ok(state);
        }
        bar.set_length(state.segments);
        bar.set_position(state.segments_done);
        bar.set_message(format!("segments ({}), {} damaged", state.phase, state.damaged));
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Everything on the list.
async fn damage(client: &mut Client) -> Result<Vec<DamagedExtent>, Failure> {
    let mut all = Vec::new();
    let mut path = "/v1/damage".to_owned();
    loop {
        let page: Damage = client.call(Method::GET, &path).await?;
        all.extend(page.damage);
        let Some(next) = page.next else { return Ok(all) };
        path = format!("/v1/damage?after={}", encode(&next));
    }
}

fn print(Report { state, damage }: &Report) -> Result<(), Failure> {
    let when = |ms: u64| if ms == 0 { "never".to_owned() } else { time(ms) };
    output::line(&format!(
        "pass                 {} ({})\nsegments read        {} of {}\nbytes of records     {}\n\
         begun                {}\nlast whole pass      {}\nranges repaired      {}\n\
         ranges left broken   {}\ndead records damaged {}\nmetadata faults      {}\n\
         checkpoint faults    {}\ndamaged extents      {}",
        state.pass,
        state.phase,
        state.segments_done,
        state.segments,
        state.bytes,
        when(state.started_ms),
        when(state.ended_ms),
        state.repaired,
        state.unrepaired,
        state.dead_damaged,
        state.metadata_faults,
        state.checkpoint_faults,
        damage.len() as u64 + state.unlisted,
    ))?;
    for it in damage {
        output::line(&format!(
            "DAMAGE  {}  tenant {} stream {} extent {}: segment {} offset {}, found {}",
            it.kind,
            it.tenant_id,
            it.stream,
            it.extent,
            it.segment,
            it.offset,
            time(it.found_ms)
        ))?;
    }
    Ok(())
}
