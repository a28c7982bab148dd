//! Jobs on a key: started, followed with a bar, told at the end.
//!
//! Owns: how a job's progress looks. Knows nothing of: what a job does.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::super::{EXIT_DONE, EXIT_REFUSED};
use super::{Found, number, text};
use crate::cli::{Outcome, output};

/// How often a job is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How fast a job goes, and whether the command stays with it.
#[derive(Args)]
pub(in crate::cli) struct Pace {
    /// Steps a second at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rate: Option<u32>,
    /// Starts the job and does not wait for its end.
    #[arg(long)]
    pub(super) no_wait: bool,
}

/// Which job.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Reencrypt,
    Rewrap { deep: bool },
}

pub(super) async fn run(mut found: Found, kind: Kind, pace: &Pace, is_json: bool) -> Outcome {
    let mut input = json!({"KeyId": found.id});
    if let Some(rate) = pace.rate {
        set(&mut input, "RatePerSecond", rate.into());
    }
    let target = match kind {
        Kind::Reencrypt => "KluisKms.StartReencrypt",
        Kind::Rewrap { deep } => {
            set(&mut input, "Deep", deep.into());
            "KluisKms.StartRewrap"
        }
    };
    let mut job = job_of(&found.api.call(target, &input).await?);
    if !pace.no_wait {
        job = follow(&mut found, job).await?;
    }
    if is_json {
        output::json(&job)?;
    } else {
        output::line(&sentence(&job))?;
    }
    let is_lost = matches!(text(&job, "State").as_str(), "Failed" | "Cancelled");
    Ok(if is_lost { EXIT_REFUSED } else { EXIT_DONE })
}

fn set(input: &mut Value, name: &str, value: Value) {
    if let Some(input) = input.as_object_mut() {
        input.insert(name.to_owned(), value);
    }
}

fn job_of(answer: &Value) -> Value {
    answer.get("Job").cloned().unwrap_or_default()
}

/// Whether a job goes on. An answer without a state is the end of it.
fn goes_on(job: &Value) -> bool {
    matches!(text(job, "State").as_str(), "Running" | "Waiting")
}

/// Asks until the job has ended. Whoever interrupts the command leaves the job running.
async fn follow(found: &mut Found, mut job: Value) -> Result<Value, crate::cli::Failure> {
    let bar = output::progress_bar(number(&job, "Total"));
    let input = json!({"JobId": text(&job, "JobId")});
    while goes_on(&job) {
        bar.set_length(number(&job, "Total"));
        bar.set_position(number(&job, "Done"));
        bar.set_message(text(&job, "Cause"));
        tokio::time::sleep(ASK_EVERY).await;
        job = job_of(&found.api.call("KluisKms.DescribeJob", &input).await?);
    }
    bar.finish_and_clear();
    Ok(job)
}

fn sentence(job: &Value) -> String {
    let (kind, id) = (text(job, "Kind"), text(job, "JobId"));
    let (done, total) = (number(job, "Done"), number(job, "Total"));
    let mut line = format!("job {id}: {kind} {} ({done} of {total})", text(job, "State"));
    let cause = text(job, "Cause");
    if !cause.is_empty() {
        line = format!("{line}: {cause}");
    }
    line
}
