//! The verbs by `object_store`, which lakes and tables are built on.
//!
//! Owns: how the crate is asked. Knows nothing of: the command line.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, RetryConfig,
};

use crate::{Account, Outcome, PART_BYTES, Verb};

pub(crate) async fn run(account: &Account, bucket: &str, verb: Verb) -> Outcome {
    let store = connect(account, bucket)?;
    match verb {
        Verb::Delete { object_key } => store.delete(&path(&object_key)?).await?,
        Verb::Get { object_key, file, range } => {
            let body = match range {
                Some((first, length)) => {
                    store.get_range(&path(&object_key)?, first..first + length).await?
                }
                None => store.get(&path(&object_key)?).await?.bytes().await?,
            };
            tokio::fs::write(file, body).await?;
        }
        Verb::List { prefix } => {
            let mut entries = store.list(Some(&path(prefix.trim_end_matches('/'))?));
            while let Some(entry) = entries.try_next().await? {
                println!("{}", entry.location);
            }
        }
        Verb::Put { object_key, file, only_if_absent } => {
            let body = PutPayload::from(tokio::fs::read(file).await?);
            let mode = if only_if_absent { PutMode::Create } else { PutMode::Overwrite };
            match store.put_opts(&path(&object_key)?, body, PutOptions::from(mode)).await {
                Ok(_) => {}
                Err(object_store::Error::AlreadyExists { .. }) if only_if_absent => {}
                Err(other) => return Err(other.into()),
            }
        }
        Verb::PutParts { object_key, file } => {
            let options = PutMultipartOptions::default();
            let mut upload = store.put_multipart_opts(&path(&object_key)?, options).await?;
            for part in tokio::fs::read(file).await?.chunks(PART_BYTES) {
                upload.put_part(Bytes::copy_from_slice(part).into()).await?;
            }
            upload.complete().await?;
        }
    }
    Ok(())
}

/// The name as it is: `Path::from` would encode what S3 allows.
fn path(object_key: &str) -> Result<Path, object_store::path::Error> {
    Path::parse(object_key)
}

fn connect(account: &Account, bucket: &str) -> object_store::Result<AmazonS3> {
    // reqwest asks for a provider although nothing here speaks TLS; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    AmazonS3Builder::new()
        .with_endpoint(&account.endpoint)
        .with_allow_http(true)
        .with_region(&account.region)
        .with_access_key_id(&account.access_key_id)
        .with_secret_access_key(&account.secret_access_key)
        .with_bucket_name(bucket)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .build()
}
