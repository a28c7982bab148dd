//! One verb of S3 by a Rust SDK: `kluis-client-rust aws-sdk|object-store VERB BUCKET …`.
//!
//! Owns: the command line. Address and credentials come from the variables that AWS clients read.
//! Knows nothing of: what the node should answer; the suite that runs it looks at the bytes.

use std::error::Error;
use std::path::PathBuf;

mod aws_sdk;
mod object_store_client;

/// What every verb answers.
type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Bytes in a part of a multipart upload.
const PART_BYTES: usize = 8 << 20;

/// One verb with its arguments.
enum Verb {
    Delete { object_key: String },
    Get { object_key: String, file: PathBuf, range: Option<(u64, u64)> },
    List { prefix: String },
    Put { object_key: String, file: PathBuf, only_if_absent: bool },
    PutParts { object_key: String, file: PathBuf },
}

/// The address and the credentials.
struct Account {
    endpoint: String,
    region: String,
    access_key_id: String,
    secret_access_key: String,
}

impl Account {
    fn from_environment() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let read = |name: &str| std::env::var(name).map_err(|cause| format!("{name}: {cause}"));
        Ok(Self {
            endpoint: read("AWS_ENDPOINT_URL")?,
            region: read("AWS_REGION")?,
            access_key_id: read("AWS_ACCESS_KEY_ID")?,
            secret_access_key: read("AWS_SECRET_ACCESS_KEY")?,
        })
    }
}

fn parse(words: &[String]) -> Option<(&str, Verb)> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let object = |name: &str| name.to_owned();
    Some(match words.as_slice() {
        ["delete", bucket, name] => (*bucket, Verb::Delete { object_key: object(name) }),
        ["get", bucket, name, file] => {
            (*bucket, Verb::Get { object_key: object(name), file: file.into(), range: None })
        }
        ["get", bucket, name, file, first, length] => {
            let range = Some((first.parse().ok()?, length.parse().ok()?));
            (*bucket, Verb::Get { object_key: object(name), file: file.into(), range })
        }
        ["list", bucket, prefix] => (*bucket, Verb::List { prefix: object(prefix) }),
        [verb @ ("put" | "put-if-absent"), bucket, name, file] => {
            let only_if_absent = *verb == "put-if-absent";
            (*bucket, Verb::Put { object_key: object(name), file: file.into(), only_if_absent })
        }
        ["put-parts", bucket, name, file] => {
            (*bucket, Verb::PutParts { object_key: object(name), file: file.into() })
        }
        _ => return None,
    })
}

#[tokio::main]
async fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (client, rest) = words.split_first().ok_or("aws-sdk or object-store?")?;
    let (bucket, verb) =
        parse(rest).ok_or("delete, get, list, put, put-if-absent or put-parts?")?;
    let account = Account::from_environment()?;
    match client.as_str() {
        "aws-sdk" => aws_sdk::run(&account, bucket, verb).await,
        "object-store" => object_store_client::run(&account, bucket, verb).await,
        other => Err(format!("no client {other}").into()),
    }
}
