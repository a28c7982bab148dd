//! `kluis user`.

use clap::Subcommand;
use http::Method;

use super::output;
use super::{EXIT_DONE, Node, Outcome};
use crate::admin::{self, Client, CreateUser, Users, encode};

#[derive(Subcommand)]
pub(super) enum User {
    /// Makes a user, without an access key. A user may use the buckets that it makes.
    #[command(after_help = "\
Examples:
  kluis user create alice --tenant acme --data-dir ./data
  kluis access-key create --tenant acme --user alice --data-dir ./data")]
    Create {
        /// The user's name, unique inside the tenant.
        name: String,
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        #[command(flatten)]
        node: Node,
    },
    /// Lists the users of a tenant by name.
    #[command(after_help = "Examples:\n  kluis user list --tenant acme --data-dir ./data")]
    List {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        #[command(flatten)]
        node: Node,
    },
}

const HEADING: [&str; 4] = ["NAME", "USER ID", "CREATED", "ROOT"];

fn row(user: &admin::User) -> [String; 4] {
    [user.name.clone(), user.user_id.clone(), output::time(user.created_ms), user.root.to_string()]
}

impl User {
    pub(super) async fn run(self, json: bool) -> Outcome {
        match self {
            Self::Create { name, tenant, node } => {
                let mut client = Client::connect(&node.data_dir).await?;
                let path = format!("/v1/tenants/{}/users", encode(&tenant));
                let made: admin::User = client.post(&path, &CreateUser { name }).await?;
                if json {
                    output::json(&made)?;
                } else {
                    output::table(HEADING, &[row(&made)])?;
                }
            }
            Self::List { tenant, node } => {
                let all = list(&node, &tenant).await?;
                if json {
                    output::json(&all)?;
                } else {
                    let rows: Vec<_> = all.users.iter().map(row).collect();
                    output::table(HEADING, &rows)?;
                }
            }
        }
        Ok(EXIT_DONE)
    }
}

async fn list(node: &Node, tenant: &str) -> Result<Users, super::Failure> {
    let mut client = Client::connect(&node.data_dir).await?;
    let mut all = Users { users: Vec::new(), next: None };
    let first = format!("/v1/tenants/{}/users", encode(tenant));
    let mut path = first.clone();
    loop {
        let page: Users = client.call(Method::GET, &path).await?;
        all.users.extend(page.users);
        let Some(next) = page.next else {
            return Ok(all);
        };
        path = format!("{first}?after={}", encode(&next));
    }
}
