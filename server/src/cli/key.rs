//! `kluis key`: a tenant's keys, over the API for tenants with the tenant's access key.
//!
//! Owns: arguments, the verbs that are one call, how a key is shown. Knows nothing of: connections,
//! signatures.
//!
//! Invariants
//! - Nothing that cannot be undone is done before its impact was shown and a name typed, but for
//!   scripts that say `--yes`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::{Api, ApiError, Endpoint};
use super::output;
use super::{EXIT_DONE, Failure, Outcome};

mod impact;
mod import;
mod job;
#[cfg(test)]
mod tests;

const ENVIRONMENT: &str = "\
A key is named by its id, its ARN or an alias; `alias/` may be left out.

Environment:
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY  an access key of the tenant
  KLUIS_ENDPOINT, AWS_REGION                as --endpoint and --region

Examples:
  export KLUIS_ENDPOINT=http://127.0.0.1:9000
  kluis key create --alias reports
  kluis key rotate reports && kluis key rewrap reports
  kluis key destroy reports --days 7";

/// The key that a command is about, and the node it is on.
#[derive(Args)]
pub(super) struct OneKey {
    /// The key's id, ARN or alias.
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    endpoint: Endpoint,
}

#[derive(Subcommand)]
#[command(after_help = ENVIRONMENT)]
pub(super) enum Key {
    /// Lists the tenant's keys with their aliases.
    #[command(after_help = "Examples:\n  kluis key list")]
    List {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Shows a key with its aliases, rotation and materials.
    #[command(after_help = "Examples:\n  kluis key show reports --json")]
    Show(OneKey),
    /// Makes a key.
    #[command(after_help = "Examples:\n  kluis key create --alias reports")]
    Create {
        /// An alias for it; `alias/` may be left out.
        #[arg(long, value_name = "NAME")]
        alias: Option<String>,
        /// A description for people.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Makes a key without material, to be imported.
        #[arg(long)]
        external: bool,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Gives a key a new material. What is there stays readable.
    #[command(after_help = "Examples:\n  kluis key rotate reports")]
    Rotate(OneKey),
    /// Wraps all bucket keys of a key under its current material, as a job.
    #[command(after_help = "Examples:\n  kluis key rewrap reports --deep")]
    Rewrap {
        #[command(flatten)]
        one: OneKey,
        /// Also gives every object a data key wrap of a new bucket key.
        #[arg(long)]
        deep: bool,
        #[command(flatten)]
        pace: job::Pace,
    },
    /// Encrypts the bytes of all objects under a key anew, as a job.
    #[command(after_help = "Examples:\n  kluis key reencrypt reports --rate 50")]
    Reencrypt {
        #[command(flatten)]
        one: OneKey,
        #[command(flatten)]
        pace: job::Pace,
    },
    /// Switches a key off. When it returns, nothing under the key is read or written any more.
    #[command(after_help = "Examples:\n  kluis key disable reports")]
    Disable(OneKey),
    /// Switches a key on again.
    #[command(after_help = "Examples:\n  kluis key enable reports")]
    Enable(OneKey),
    /// Schedules the destruction of a key and of all that is under it.
    #[command(after_help = "Examples:\n  kluis key destroy reports --days 7")]
    Destroy {
        #[command(flatten)]
        one: OneKey,
        /// Days in which it can be called off.
        #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(7..=30))]
        days: u16,
        /// Asks nothing.
        #[arg(long)]
        yes: bool,
    },
    /// Calls a destruction off. The key stays disabled.
    #[command(after_help = "Examples:\n  kluis key cancel 1234abcd-12ab-34cd-56ef-1234567890ab")]
    Cancel(OneKey),
    /// Brings the tenant's own material into a key made with `--external`.
    #[command(
        after_help = "Examples:\n  kluis key import own --material ./material --expires 2027-01-31T12:00:00Z"
    )]
    Import {
        #[command(flatten)]
        one: OneKey,
        /// The material: a file of 32 bytes.
        #[arg(long, value_name = "FILE")]
        material: PathBuf,
        /// When the material expires, as `2027-01-31T12:00:00Z`; never if not given.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// Adds a further material, for the next rotation.
        #[arg(long)]
        new: bool,
    },
    /// Shows what depends on a key.
    #[command(after_help = "Examples:\n  kluis key impact reports")]
    Impact(OneKey),
    /// Erases one earlier material for good, once nothing is under it.
    #[command(after_help = "Examples:\n  kluis key retire reports --material 1")]
    Retire {
        #[command(flatten)]
        one: OneKey,
        /// The material's number.
        #[arg(long, value_name = "N")]
        material: u32,
        /// Retires it although ciphertexts may be left that were made through the API.
        #[arg(long)]
        force: bool,
        /// Asks nothing.
        #[arg(long)]
        yes: bool,
    },
    /// Prints the report on a destroyed key.
    #[command(
        after_help = "Examples:\n  kluis key erasure-report 1234abcd-12ab-34cd-56ef-1234567890ab"
    )]
    ErasureReport(OneKey),
}

impl Key {
    pub(super) async fn run(self, json: bool) -> Outcome {
        match self {
            Self::List { endpoint } => list(endpoint.client()?, json).await,
            Self::Show(one) => show(one.open().await?, json).await,
            Self::Create { alias, description, external, endpoint } => {
                create(endpoint.client()?, (alias, &description, external), json).await
            }
            Self::Rotate(one) => simple(one, "RotateKeyOnDemand", json).await,
            Self::Rewrap { one, deep, pace } => {
                job::run(one.open().await?, job::Kind::Rewrap { deep }, &pace, json).await
            }
            Self::Reencrypt { one, pace } => {
                job::run(one.open().await?, job::Kind::Reencrypt, &pace, json).await
            }
            Self::Disable(one) => simple(one, "DisableKey", json).await,
            Self::Enable(one) => simple(one, "EnableKey", json).await,
            Self::Destroy { one, days, yes } => {
                impact::destroy(one.open().await?, days, yes, json).await
            }
            Self::Cancel(one) => simple(one, "CancelKeyDeletion", json).await,
            Self::Import { one, material, expires, new } => {
                let asked = import::Asked { material, expires, is_new: new };
                import::run(one.open().await?, &asked, json).await
            }
            Self::Impact(one) => impact::show(one.open().await?, json).await,
            Self::Retire { one, material, force, yes } => {
                impact::retire(one.open().await?, material, (force, yes), json).await
            }
            Self::ErasureReport(one) => erasure_report(one.open().await?).await,
        }
    }
}

/// A key that was found, and the connection it was found over.
struct Found {
    api: Api,
    id: String,
    metadata: Value,
}

impl OneKey {
    async fn open(&self) -> Result<Found, Failure> {
        Found::look(self.endpoint.client()?, &self.key).await
    }
}

impl Found {
    /// Looks a key up, because most verbs take no alias.
    async fn look(mut api: Api, name: &str) -> Result<Self, Failure> {
        let answer = api.call("TrentService.DescribeKey", &json!({"KeyId": named(name)})).await?;
        let metadata = answer.get("KeyMetadata").cloned().unwrap_or_default();
        let id = text(&metadata, "KeyId");
        if id.is_empty() {
            return Err(Failure::could_not_run("the node described a key without an id"));
        }
        Ok(Self { api, id, metadata })
    }

    async fn aliases(&mut self) -> Result<Vec<String>, ApiError> {
        aliases(&mut self.api, json!({"KeyId": self.id}))
            .await
            .map(|found| found.into_iter().map(|(alias, _)| alias).collect())
    }

    /// Shows the key as it is now.
    async fn print(mut self, is_json: bool) -> Outcome {
        let answer = self.api.call("TrentService.DescribeKey", &json!({"KeyId": self.id})).await?;
        let metadata = answer.get("KeyMetadata").cloned().unwrap_or_default();
        if is_json {
            output::json(&metadata)?;
            return Ok(EXIT_DONE);
        }
        let aliases = self.aliases().await?;
        output::table(HEADING, &[row(&metadata, &aliases)])?;
        Ok(EXIT_DONE)
    }
}

const HEADING: [&str; 5] = ["ALIAS", "KEY ID", "STATE", "ORIGIN", "CREATED"];

fn row(metadata: &Value, aliases: &[String]) -> [String; 5] {
    let aliases = if aliases.is_empty() { "-".to_owned() } else { aliases.join(",") };
    [
        aliases,
        text(metadata, "KeyId"),
        text(metadata, "KeyState"),
        text(metadata, "Origin"),
        time(metadata, "CreationDate"),
    ]
}

/// A key's name as the API takes it: what is no id and no ARN is an alias.
fn named(name: &str) -> String {
    let is_id = name.len() == 36 && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_id || name.starts_with("arn:") || name.starts_with("alias/") {
        name.to_owned()
    } else {
        format!("alias/{name}")
    }
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0)
}

/// A time in epoch seconds as text; empty if there is none.
fn time(value: &Value, field: &str) -> String {
    let seconds = value.get(field).and_then(Value::as_f64);
    let since = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    since.map_or(String::new(), |since| output::time(since.as_secs().saturating_mul(1_000)))
}

fn list_of<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Every page of a list of AWS's KMS.
async fn pages(
    api: &mut Api,
    target: &str,
    mut input: Value,
    field: &str,
) -> Result<Vec<Value>, ApiError> {
    let mut all = Vec::new();
    loop {
        let page = api.call(target, &input).await?;
        all.extend_from_slice(list_of(&page, field));
        let marker = text(&page, "NextMarker");
        if marker.is_empty() {
            return Ok(all);
        }
        if let Some(input) = input.as_object_mut() {
            input.insert("Marker".to_owned(), marker.into());
        }
    }
}

/// Aliases and the ids of their keys.
async fn aliases(api: &mut Api, input: Value) -> Result<Vec<(String, String)>, ApiError> {
    let found = pages(api, "TrentService.ListAliases", input, "Aliases").await?;
    Ok(found.iter().map(|it| (text(it, "AliasName"), text(it, "TargetKeyId"))).collect())
}

async fn list(mut api: Api, is_json: bool) -> Outcome {
    let keys = pages(&mut api, "TrentService.ListKeys", json!({"Limit": 1000}), "Keys").await?;
    let names = aliases(&mut api, json!({})).await?;
    let mut shown = Vec::with_capacity(keys.len());
    for found in keys {
        let id = text(&found, "KeyId");
        let answer = api.call("TrentService.DescribeKey", &json!({"KeyId": id})).await?;
        let metadata = answer.get("KeyMetadata").cloned().unwrap_or_default();
        let of_key = names.iter().filter(|(_, target)| *target == id);
        shown.push((metadata, of_key.map(|(alias, _)| alias.clone()).collect::<Vec<_>>()));
    }
    if is_json {
        let keys: Vec<_> = shown
            .into_iter()
            .map(|(metadata, aliases)| json!({"KeyMetadata": metadata, "Aliases": aliases}))
            .collect();
        output::json(&json!({"Keys": keys}))?;
        return Ok(EXIT_DONE);
    }
    let rows: Vec<_> = shown.iter().map(|(metadata, aliases)| row(metadata, aliases)).collect();
    output::table(HEADING, &rows)?;
    Ok(EXIT_DONE)
}

async fn show(mut found: Found, is_json: bool) -> Outcome {
    let aliases = found.aliases().await?;
    let input = json!({"KeyId": found.id});
    // A destroyed or imported key has no rotation to tell of; the rest is shown all the same.
    let rotation = refusable(found.api.call("TrentService.GetKeyRotationStatus", &input).await)?;
    let all = json!({"KeyId": found.id, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"});
    let target = "TrentService.ListKeyRotations";
    let materials = refusable(pages(&mut found.api, target, all, "Rotations").await)?;
    if is_json {
        output::json(&json!({
            "KeyMetadata": found.metadata,
            "Aliases": aliases,
            "Rotation": rotation,
            "Materials": materials,
        }))?;
        return Ok(EXIT_DONE);
    }
    let mut lines = vec![("aliases", aliases.join(","))];
    for (label, field) in
        [("id", "KeyId"), ("arn", "Arn"), ("state", "KeyState"), ("origin", "Origin")]
    {
        lines.push((label, text(&found.metadata, field)));
    }
    lines.push(("description", text(&found.metadata, "Description")));
    lines.push(("created", time(&found.metadata, "CreationDate")));
    lines.push(("destroyed on", time(&found.metadata, "DeletionDate")));
    if let Some(rotation) = rotation.filter(|it| it.get("KeyRotationEnabled") == Some(&true.into()))
    {
        let days = number(&rotation, "RotationPeriodInDays");
        lines.push(("rotates", format!("every {days} days")));
    }
    for (label, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        output::line(&format!("{label:14}{value}"))?;
    }
    let rows: Vec<_> = materials
        .unwrap_or_default()
        .iter()
        .map(|it| {
            let state = text(it, "KeyMaterialState");
            [text(it, "KeyMaterialId"), state, time(it, "RotationDate"), time(it, "ValidTo")]
        })
        .collect();
    if !rows.is_empty() {
        output::line("")?;
        output::table(["MATERIAL", "STATE", "ROTATED", "EXPIRES"], &rows)?;
    }
    Ok(EXIT_DONE)
}

/// An answer that the node may refuse to give for this key.
fn refusable<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ApiError::Refused(..)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn create(
    mut api: Api,
    (alias, description, is_external): (Option<String>, &str, bool),
    is_json: bool,
) -> Outcome {
    let origin = if is_external { "EXTERNAL" } else { "AWS_KMS" };
    let input = json!({"Description": description, "Origin": origin});
    let answer = api.call("TrentService.CreateKey", &input).await?;
    let metadata = answer.get("KeyMetadata").cloned().unwrap_or_default();
    let id = text(&metadata, "KeyId");
    if let Some(alias) = alias {
        let alias = if alias.starts_with("alias/") { alias } else { format!("alias/{alias}") };
        let input = json!({"AliasName": alias, "TargetKeyId": id});
        if let Err(error) = api.call("TrentService.CreateAlias", &input).await {
            // The key is there, and its id would be lost with the error alone.
            let failure = Failure::from(error);
            let message = format!("key {id} was made without its alias: {}", failure.message);
            return Err(Failure { message, ..failure });
        }
    }
    Found { api, id, metadata }.print(is_json).await
}

/// A verb of AWS's KMS that takes a key's id and nothing else.
async fn simple(one: OneKey, verb: &str, is_json: bool) -> Outcome {
    let mut found = one.open().await?;
    let target = format!("TrentService.{verb}");
    found.api.call(&target, &json!({"KeyId": found.id})).await?;
    found.print(is_json).await
}

async fn erasure_report(mut found: Found) -> Outcome {
    let input = json!({"KeyId": found.id});
    let answer = found.api.call("KluisKms.GetErasureReport", &input).await?;
    output::json(answer.get("Report").unwrap_or(&Value::Null))?;
    Ok(EXIT_DONE)
}
