//! `kluis audit`: a tenant's audit events, as lines of JSON.
//!
//! Owns: where events come from, following them, the check of an export. Knows nothing of: what an
//! event says.
//!
//! Invariants
//! - Over the API for tenants, events are whole and of the access key's tenant. Over the operator's
//!   socket they are headers: the node gives no bodies there.
//! - An export that has a gap says so and ends with exit code 1.

mod verify;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::api::{Api, Endpoint};
use super::output;
use super::{EXIT_DONE, EXIT_REFUSED, Failure, Outcome};
use crate::admin::{AuditEvents, Client, encode};
use crate::audit_event::{self, ChainCheck};

/// Events asked for at once.
const PAGE_EVENTS: usize = 1_000;
/// How often `tail` asks for more.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// What `tail` shows of what was there before.
const TAIL_LINES: usize = 10;

const EXAMPLES: &str = "\
With an access key of the tenant in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, events are whole.
With --data-dir, the operator of the node sees which key was used when, not by whom and for what.

Examples:
  kluis audit tail --endpoint http://127.0.0.1:9000
  kluis audit export --endpoint http://127.0.0.1:9000 > audit.jsonl
  kluis audit export --tenant acme --data-dir ./data";

/// Whose events, and from where.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Source {
    /// The tenant. With an access key it is the key's tenant, and this need not be given.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// The data directory of the running node: asks as its operator, whatever the endpoint is.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Begins behind this event of the tenant.
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
    #[command(flatten)]
    endpoint: Endpoint,
}

#[derive(Subcommand)]
pub(super) enum Audit {
    /// Prints the last events, and new ones as they come.
    #[command(after_help = "Examples:\n  kluis audit tail")]
    Tail(Source),
    /// Prints all events and verifies that none is missing.
    #[command(after_help = "Examples:\n  kluis audit export > audit.jsonl")]
    Export(Source),
    /// Verifies the audit log of a data directory that no node has open.
    Verify(verify::Verify),
}

impl Audit {
    pub(super) async fn run(self, json: bool) -> Outcome {
        match self {
            Self::Verify(verify) => verify.run(json).await,
            Self::Tail(source) => tail(source.open().await?, source.after).await,
            Self::Export(source) => export(source.open().await?, source.after.unwrap_or(0)).await,
        }
    }
}

/// What is asked for events.
enum Events {
    Headers(Client, String),
    Whole(Api),
}

impl Source {
    async fn open(&self) -> Result<Events, Failure> {
        match (&self.data_dir, &self.tenant) {
            (Some(data), Some(tenant)) => headers(data, tenant).await,
            (Some(_), None) => Err(Failure::could_not_run("name the tenant with --tenant")),
            (None, _) => Ok(Events::Whole(self.endpoint.client()?)),
        }
    }
}

async fn headers(data: &Path, tenant: &str) -> Result<Events, Failure> {
    Ok(Events::Headers(Client::connect(data).await?, tenant.to_owned()))
}

impl Events {
    /// The events behind `after`; none if there are none yet.
    async fn page(&mut self, after: u64) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Headers(client, tenant) => {
                let path = format!("/v1/tenants/{}/audit?after={after}", encode(tenant));
                let page: AuditEvents = client.call(Method::GET, &path).await?;
                Ok(page.events)
            }
            Self::Whole(api) => {
                let input = json!({"After": after, "Limit": PAGE_EVENTS});
                let mut page = api.call("KluisKms.ListAuditEvents", &input).await?;
                match page.get_mut("Events").map(Value::take) {
                    Some(Value::Array(events)) => {
                        Ok(events.into_iter().map(audit_event::line).collect())
                    }
                    _ => Err(Failure::could_not_run("the node's answer has no list of events")),
                }
            }
        }
    }
}

async fn export(mut events: Events, after: u64) -> Outcome {
    let mut chain = ChainCheck::default();
    let mut code = EXIT_DONE;
    let mut next = after;
    loop {
        let page = events.page(next).await?;
        for event in &page {
            output::json(event)?;
            if let Err(broken) = chain.take(event) {
                eprintln!("kluis: the chain is broken: {broken}");
                code = EXIT_REFUSED;
            }
        }
        let last = chain.last_sequence();
        if page.is_empty() || last <= next {
            return Ok(code);
        }
        next = last;
    }
}

async fn tail(mut events: Events, after: Option<u64>) -> Outcome {
    let mut chain = ChainCheck::default();
    let mut next = after.unwrap_or(0);
    let mut held: Option<VecDeque<Value>> = after.is_none().then(VecDeque::new);
    loop {
        let page = events.page(next).await?;
        let is_at_end = page.is_empty();
        for event in page {
            if let Err(broken) = chain.take(&event) {
                eprintln!("kluis: the chain is broken: {broken}");
            }
            match &mut held {
                Some(held) => {
                    held.push_back(event);
                    if held.len() > TAIL_LINES {
                        held.pop_front();
                    }
                }
                None => output::json(&event)?,
            }
        }
        next = next.max(chain.last_sequence());
        if is_at_end {
            for event in held.take().into_iter().flatten() {
                output::json(&event)?;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests;
