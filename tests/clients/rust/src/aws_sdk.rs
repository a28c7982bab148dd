//! The verbs by `aws-sdk-s3`, with its defaults: checksums in trailers, validated on download.
//!
//! Owns: how the SDK is asked. Knows nothing of: the command line.

use std::path::Path;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use crate::{Account, Outcome, PART_BYTES, Verb};

pub(crate) async fn run(account: &Account, bucket: &str, verb: Verb) -> Outcome {
    let s3 = connect(account);
    match verb {
        Verb::Delete { object_key } => {
            s3.delete_object().bucket(bucket).key(object_key).send().await?;
        }
        Verb::Get { object_key, file, range } => {
            let asked =
                range.map(|(first, length)| format!("bytes={first}-{}", first + length - 1));
            let reply =
                s3.get_object().bucket(bucket).key(object_key).set_range(asked).send().await?;
            tokio::fs::write(file, reply.body.collect().await?.into_bytes()).await?;
        }
        Verb::List { prefix } => list(&s3, bucket, prefix).await?,
        Verb::Put { object_key, file, only_if_absent } => {
            put(&s3, bucket, object_key, &file, only_if_absent).await?;
        }
        Verb::PutParts { object_key, file } => put_parts(&s3, bucket, &object_key, &file).await?,
    }
    Ok(())
}

fn connect(account: &Account) -> Client {
    let credentials = Credentials::new(
        &account.access_key_id,
        &account.secret_access_key,
        None,
        None,
        "environment",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(&account.endpoint)
        .region(Region::new(account.region.clone()))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

async fn put(
    s3: &Client,
    bucket: &str,
    object_key: String,
    file: &Path,
    only_if_absent: bool,
) -> Outcome {
    let body = ByteStream::from_path(file).await?;
    let request = s3.put_object().bucket(bucket).key(object_key).body(body);
    let condition = only_if_absent.then(|| "*".to_owned());
    match request.set_if_none_match(condition).send().await {
        Ok(_) => Ok(()),
        Err(refusal) if only_if_absent && refusal.code() == Some("PreconditionFailed") => Ok(()),
        Err(other) => Err(other.into()),
    }
}

async fn list(s3: &Client, bucket: &str, prefix: String) -> Outcome {
    let mut pages = s3.list_objects_v2().bucket(bucket).prefix(prefix).into_paginator().send();
    while let Some(page) = pages.next().await {
        for entry in page?.contents() {
            println!("{}", entry.key().unwrap_or_default());
        }
    }
    Ok(())
}

async fn put_parts(s3: &Client, bucket: &str, object_key: &str, file: &Path) -> Outcome {
    let begun = s3.create_multipart_upload().bucket(bucket).key(object_key).send().await?;
    let upload = begun.upload_id().ok_or("no upload id")?;
    let whole = tokio::fs::read(file).await?;
    let mut completed = CompletedMultipartUpload::builder();
    for (number, part) in (1..).zip(whole.chunks(PART_BYTES)) {
        let reply = s3
            .upload_part()
            .bucket(bucket)
            .key(object_key)
            .upload_id(upload)
            .part_number(number)
            .body(ByteStream::from(part.to_vec()))
            .send()
            .await?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(reply.e_tag)
            .set_checksum_crc32(reply.checksum_crc32);
        completed = completed.parts(part.build());
    }
    s3.complete_multipart_upload()
        .bucket(bucket)
        .key(object_key)
        .upload_id(upload)
        .multipart_upload(completed.build())
        .send()
        .await?;
    Ok(())
}
