//! `kluis tenant`.

use clap::Subcommand;
use http::Method;

use super::output::{self, progress_bar};
use super::{EXIT_DONE, Failure, Node, Outcome};
use crate::admin::{self, Client, CreateTenants, CreatedTenant, CreatedTenants, Tenants, encode};

/// Tenants made by one request, so that progress shows and a failure loses little.
const BATCH: usize = 250;

#[derive(Subcommand)]
pub(super) enum Tenant {
    /// Makes a tenant, or many, each with a user `root` and an access key.
    #[command(after_help = "\
The secret access key is shown once.

Examples:
  kluis tenant create acme --data-dir ./data --json
  kluis tenant create --count 10000 --prefix t- --data-dir ./data --json > tenants.json")]
    Create {
        /// The tenant's name.
        #[arg(value_name = "NAME", required_unless_present = "count", conflicts_with = "count")]
        name: Option<String>,
        /// Makes this many tenants, named by the prefix and a number from 0.
        #[arg(long, value_name = "N", requires = "prefix")]
        count: Option<u32>,
        /// What the names of `--count` begin with.
        #[arg(long, value_name = "TEXT", requires = "count")]
        prefix: Option<String>,
        #[command(flatten)]
        node: Node,
    },
    /// Lists tenants by name.
    #[command(after_help = "Examples:\n  kluis tenant list --data-dir ./data")]
    List {
        #[command(flatten)]
        node: Node,
    },
    /// Shows a tenant.
    #[command(after_help = "Examples:\n  kluis tenant show acme --data-dir ./data")]
    Show {
        /// The tenant's name.
        name: String,
        #[command(flatten)]
        node: Node,
    },
    /// Refuses every request of a tenant from now on. Its data stays as it is.
    #[command(after_help = "Examples:\n  kluis tenant suspend acme --data-dir ./data")]
    Suspend {
        /// The tenant's name.
        name: String,
        #[command(flatten)]
        node: Node,
    },
    /// Ends `suspend`.
    #[command(after_help = "Examples:\n  kluis tenant resume acme --data-dir ./data")]
    Resume {
        /// The tenant's name.
        name: String,
        #[command(flatten)]
        node: Node,
    },
}

impl Tenant {
    pub(super) async fn run(self, json: bool) -> Outcome {
        match self {
            Self::Create { name: Some(name), node, .. } => create(&node, name, json).await,
            Self::Create { count, prefix, node, .. } => {
                let (count, prefix) = (count.unwrap_or_default(), prefix.unwrap_or_default());
                create_many(&node, count, &prefix, json).await
            }
            Self::List { node } => list(&node, json).await,
            Self::Show { name, node } => one(&node, Method::GET, &name, "", json).await,
            Self::Suspend { name, node } => one(&node, Method::POST, &name, "/suspend", json).await,
            Self::Resume { name, node } => one(&node, Method::POST, &name, "/resume", json).await,
        }
    }
}

async fn create(node: &Node, name: String, json: bool) -> Outcome {
    let mut client = Client::connect(&node.data_dir).await?;
    let asked = CreateTenants { names: vec![name] };
    let mut made: CreatedTenants = client.post("/v1/tenants", &asked).await?;
    let Some(tenant) = made.tenants.pop() else {
        return Err(Failure::could_not_run("the node made no tenant"));
    };
    if json {
        output::json(&tenant)?;
    } else {
        output::line(&text(&tenant))?;
    }
    Ok(EXIT_DONE)
}

fn text(tenant: &CreatedTenant) -> String {
    format!(
        "tenant_id          {}\naccount_id         {}\nname               {}\n\
         access_key_id      {}\nsecret_access_key  {}\n\nThe secret is not shown again.",
        tenant.tenant_id,
        tenant.account_id,
        tenant.name,
        tenant.access_key_id,
        tenant.secret_access_key
    )
}

async fn create_many(node: &Node, count: u32, prefix: &str, json: bool) -> Outcome {
    let mut client = Client::connect(&node.data_dir).await?;
    let width = count.saturating_sub(1).to_string().len();
    let names: Vec<_> = (0..count).map(|number| format!("{prefix}{number:0width$}")).collect();
    let bar = progress_bar(count.into());
    let mut all = CreatedTenants { tenants: Vec::with_capacity(names.len()) };
    for batch in names.chunks(BATCH) {
        let asked = CreateTenants { names: batch.to_vec() };
        let made: Result<CreatedTenants, _> = client.post("/v1/tenants", &asked).await;
        match made {
            Ok(made) => all.tenants.extend(made.tenants),
            Err(error) => {
                bar.abandon();
                // What was made is told, or its secrets would be lost.
                show_many(&all, json)?;
                return Err(error.into());
            }
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    show_many(&all, json)?;
    Ok(EXIT_DONE)
}

fn show_many(all: &CreatedTenants, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(all);
    }
    let rows: Vec<_> = all
        .tenants
        .iter()
        .map(|it| [it.name.clone(), it.access_key_id.clone(), it.secret_access_key.clone()])
        .collect();
    output::table(["NAME", "ACCESS KEY ID", "SECRET ACCESS KEY"], &rows)
}

async fn list(node: &Node, json: bool) -> Outcome {
    let mut client = Client::connect(&node.data_dir).await?;
    let mut all = Tenants { tenants: Vec::new(), next: None };
    let mut path = "/v1/tenants".to_owned();
    loop {
        let page: Tenants = client.call(Method::GET, &path).await?;
        all.tenants.extend(page.tenants);
        let Some(next) = page.next else { break };
        path = format!("/v1/tenants?after={}", encode(&next));
    }
    if json {
        output::json(&all)?;
        return Ok(EXIT_DONE);
    }
    let rows: Vec<_> = all.tenants.iter().map(row).collect();
    output::table(HEADING, &rows)?;
    Ok(EXIT_DONE)
}

const HEADING: [&str; 5] = ["NAME", "TENANT ID", "ACCOUNT ID", "CREATED", "STATE"];

fn row(tenant: &admin::Tenant) -> [String; 5] {
    let state = if tenant.suspended { "suspended" } else { "active" };
    [
        tenant.name.clone(),
        tenant.tenant_id.clone(),
        tenant.account_id.clone(),
        output::time(tenant.created_ms),
        state.to_owned(),
    ]
}

async fn one(node: &Node, method: Method, name: &str, verb: &str, json: bool) -> Outcome {
    let mut client = Client::connect(&node.data_dir).await?;
    let path = format!("/v1/tenants/{}{verb}", encode(name));
    let tenant: admin::Tenant = client.call(method, &path).await?;
    if json {
        output::json(&tenant)?;
    } else {
        output::table(HEADING, &[row(&tenant)])?;
    }
    Ok(EXIT_DONE)
}
