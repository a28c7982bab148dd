//! `kluis access-key`.

use clap::Subcommand;
use http::Method;

use super::output;
use super::{EXIT_DONE, Node, Outcome};
use crate::admin::{AccessKeys, Client, CreateAccessKey, CreatedAccessKey, Done, encode};

#[derive(Subcommand)]
pub(super) enum AccessKey {
    /// Makes an access key for a user. The secret is shown once.
    #[command(after_help = "\
Examples:
  kluis access-key create --tenant acme --user alice --data-dir ./data --json")]
    Create {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// The user's name.
        #[arg(long, value_name = "NAME", default_value = "root")]
        user: String,
        #[command(flatten)]
        node: Node,
    },
    /// Lists the access keys of a user, revoked ones too.
    #[command(after_help = "\
Examples:
  kluis access-key list --tenant acme --user alice --data-dir ./data")]
    List {
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// The user's name.
        #[arg(long, value_name = "NAME", default_value = "root")]
        user: String,
        #[command(flatten)]
        node: Node,
    },
    /// Refuses every request signed with an access key from now on. There is no way back.
    #[command(after_help = "\
Examples:
  kluis access-key revoke AKIAXXXXXXXXXXXXXXXX --tenant acme --data-dir ./data")]
    Revoke {
        /// The access key id.
        #[arg(value_name = "ID")]
        access_key_id: String,
        /// The tenant's name.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        #[command(flatten)]
        node: Node,
    },
}

impl AccessKey {
    pub(super) async fn run(self, json: bool) -> Outcome {
        match self {
            Self::Create { tenant, user, node } => create(&node, &tenant, user, json).await?,
            Self::List { tenant, user, node } => list(&node, &tenant, &user, json).await?,
            Self::Revoke { access_key_id, tenant, node } => {
                let mut client = Client::connect(&node.data_dir).await?;
                let (tenant, id) = (encode(&tenant), encode(&access_key_id));
                let path = format!("/v1/tenants/{tenant}/access-keys/{id}");
                let done: Done = client.call(Method::DELETE, &path).await?;
                if json {
                    output::json(&done)?;
                } else {
                    output::line(&format!("{access_key_id} is revoked."))?;
                }
            }
        }
        Ok(EXIT_DONE)
    }
}

async fn create(node: &Node, tenant: &str, user: String, json: bool) -> Result<(), super::Failure> {
    let mut client = Client::connect(&node.data_dir).await?;
    let path = format!("/v1/tenants/{}/access-keys", encode(tenant));
    let made: CreatedAccessKey = client.post(&path, &CreateAccessKey { user }).await?;
    if json {
        return output::json(&made);
    }
    output::line(&format!(
        "user               {}\naccess_key_id      {}\nsecret_access_key  {}\n\n\
         The secret is not shown again.",
        made.user, made.access_key_id, made.secret_access_key
    ))
}

async fn list(node: &Node, tenant: &str, user: &str, json: bool) -> Result<(), super::Failure> {
    let mut client = Client::connect(&node.data_dir).await?;
    let path = format!("/v1/tenants/{}/access-keys?user={}", encode(tenant), encode(user));
    let all: AccessKeys = client.call(Method::GET, &path).await?;
    if json {
        return output::json(&all);
    }
    let rows: Vec<_> = all
        .access_keys
        .iter()
        .map(|it| {
            let state = if it.active { "active" } else { "revoked" };
            [it.access_key_id.clone(), output::time(it.created_ms), state.to_owned()]
        })
        .collect();
    output::table(["ACCESS KEY ID", "CREATED", "STATE"], &rows)
}
