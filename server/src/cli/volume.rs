//! `kluis volume`.
//!
//! Owns: arguments, the table of members, the bar of a rebuild. Knows nothing of: what a rebuild
//! does.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use http::Method;

use super::output::{self, progress_bar};
use super::{EXIT_DONE, EXIT_REFUSED, Failure, Node, Outcome};
use crate::admin::{Client, Rebuild, ReplaceMember, VolumeMember, Volumes};

/// How often a rebuild is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(super) enum Volume {
    /// Lists the directories that the volume is kept in, and how they stand.
    #[command(after_help = "\
Exit codes: 0 every byte has its copies, 1 it has not, 2 could not run.

Examples:
  kluis volume list --data-dir ./data")]
    List {
        #[command(flatten)]
        node: Node,
    },
    /// Fills a directory that is out with what the other one has, while the node serves.
    #[command(after_help = "\
The directory must be empty, or what was left of this very member. The command stays until the
member is current; interrupting it leaves the rebuild running.

Examples:
  kluis volume replace /d2/kluis --data-dir ./data")]
    Replace {
        /// The member, as the configuration names it.
        path: PathBuf,
        /// Starts the rebuild and does not wait for its end.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        node: Node,
    },
    /// Tells how far the rebuild of a member is.
    #[command(after_help = "Examples:\n  kluis volume rebuild-status --data-dir ./data --json")]
    RebuildStatus {
        /// Stays until it has ended.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        node: Node,
    },
}

impl Volume {
    pub(super) async fn run(self, json: bool) -> Outcome {
        match self {
            Self::List { node } => {
                let volumes = ask(&mut Client::connect(&node.data_dir).await?).await?;
                if json {
                    output::json(&volumes)?;
                } else {
                    list(&volumes)?;
                }
                Ok(if volumes.degraded { EXIT_REFUSED } else { EXIT_DONE })
            }
            Self::Replace { path, no_wait, node } => {
                let mut client = Client::connect(&node.data_dir).await?;
                let asked = ReplaceMember { path: path.display().to_string() };
                let mut volumes: Volumes = client.post("/v1/volumes/replace", &asked).await?;
                if !no_wait {
                    volumes = follow(&mut client, volumes).await?;
                }
                tell(&volumes, json)
            }
            Self::RebuildStatus { wait, node } => {
                let mut client = Client::connect(&node.data_dir).await?;
                let mut volumes = ask(&mut client).await?;
                if wait {
                    volumes = follow(&mut client, volumes).await?;
                }
                tell(&volumes, json)
            }
        }
    }
}

async fn ask(client: &mut Client) -> Result<Volumes, Failure> {
    Ok(client.call(Method::GET, "/v1/volumes").await?)
}

/// Stays with the rebuild until it ends.
async fn follow(client: &mut Client, mut volumes: Volumes) -> Result<Volumes, Failure> {
    let bar = progress_bar(0);
    while let Some(rebuild) = volumes.rebuild.as_ref().filter(|it| it.state == "running") {
        bar.set_length(rebuild.bytes);
        bar.set_position(rebuild.bytes_done);
        bar.set_message(format!("{} of {} files", rebuild.files_done, rebuild.files));
        tokio::time::sleep(ASK_EVERY).await;
        volumes = ask(client).await?;
    }
    bar.finish_and_clear();
    Ok(volumes)
}

fn list(volumes: &Volumes) -> Result<(), Failure> {
    if volumes.members.is_empty() {
        return output::line("The volume has one directory.");
    }
    let row = |member: &VolumeMember| {
        let why = member.why.clone().unwrap_or_default();
        [member.path.clone(), member.state.clone(), why]
    };
    let rows: Vec<_> = volumes.members.iter().map(row).collect();
    output::table(["PATH", "STATE", "WHY"], &rows)
}

fn tell(volumes: &Volumes, json: bool) -> Outcome {
    if json {
        output::json(&volumes.rebuild)?;
    } else {
        output::line(
            &volumes.rebuild.as_ref().map_or_else(
                || "No member was rebuilt since the node started.".to_owned(),
                sentence,
            ),
        )?;
    }
    let has_failed = volumes.rebuild.as_ref().is_some_and(|rebuild| rebuild.state == "failed");
    Ok(if has_failed { EXIT_REFUSED } else { EXIT_DONE })
}

fn sentence(rebuild: &Rebuild) -> String {
    let Rebuild { path, state, files, files_done, bytes, bytes_done, why } = rebuild;
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!(
        "{path}: {state}{why}; {files_done} of {files} files, {bytes_done} of {bytes} bytes copied"
    )
}
