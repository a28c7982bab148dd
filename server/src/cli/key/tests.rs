//! `kluis key` against a scripted node: what is asked in which order, and what is never asked.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::cli::EXIT_REFUSED;
use crate::cli::api::tests::{Answer, Fake};

const ID: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

fn metadata(state: &str) -> Value {
    json!({"KeyMetadata": {
        "KeyId": ID, "KeyState": state, "Origin": "AWS_KMS", "CreationDate": 1_700_000_000.5,
    }})
}

fn aliases() -> Value {
    json!({"Aliases": [{"AliasName": "alias/reports", "TargetKeyId": ID}], "Truncated": false})
}

fn ok(answers: Vec<Value>) -> Vec<Answer> {
    answers.into_iter().map(|answer| (200, answer)).collect()
}

async fn found(fake: &Fake) -> Found {
    Found::look(fake.client(), "reports").await.ok().unwrap()
}

fn targets(fake: &Fake) -> Vec<String> {
    let short = |target: String| target.split_once('.').unwrap().1.to_owned();
    fake.asked().into_iter().map(|(target, _)| short(target)).collect()
}

fn code(outcome: Outcome) -> u8 {
    outcome.unwrap_or_else(|failure| failure.code)
}

#[test]
fn what_is_no_id_and_no_arn_is_an_alias() {
    assert_eq!(named(ID), ID);
    assert_eq!(named("arn:aws:kms:us-east-1:1:key/x"), "arn:aws:kms:us-east-1:1:key/x");
    assert_eq!((named("alias/a").as_str(), named("a").as_str()), ("alias/a", "alias/a"));
}

#[tokio::test]
async fn a_key_is_looked_up_by_alias_and_every_page_is_read() {
    let pages = vec![
        json!({"Keys": [{"KeyId": ID}], "Truncated": true, "NextMarker": "m"}),
        json!({"Keys": [{"KeyId": "other"}], "Truncated": false}),
        aliases(),
        metadata("Enabled"),
        metadata("Disabled"),
    ];
    let fake = Fake::start(ok(pages)).await;
    assert_eq!(code(list(fake.client(), true).await), EXIT_DONE);
    let asked = fake.asked();
    assert_eq!(asked[1].1, json!({"Limit": 1000, "Marker": "m"}));
    assert_eq!(asked[4].1, json!({"KeyId": "other"}));

    let fake = Fake::start(ok(vec![metadata("Enabled")])).await;
    assert_eq!(found(&fake).await.id, ID);
    assert_eq!(fake.asked()[0].1, json!({"KeyId": "alias/reports"}));
}

#[tokio::test]
async fn a_key_is_made_with_its_alias_or_its_id_is_told() {
    let fake =
        Fake::start(ok(vec![metadata("Enabled"), Value::Null, metadata("Enabled"), aliases()]))
            .await;
    let asked = (Some("reports".to_owned()), "for people", true);
    assert_eq!(code(create(fake.client(), asked, false).await), EXIT_DONE);
    let seen = fake.asked();
    assert_eq!(seen[0].1, json!({"Description": "for people", "Origin": "EXTERNAL"}));
    assert_eq!(seen[1].1, json!({"AliasName": "alias/reports", "TargetKeyId": ID}));

    let refusal = json!({"__type": "AlreadyExistsException", "message": "taken"});
    let fake = Fake::start(vec![(200, metadata("Enabled")), (400, refusal)]).await;
    let asked = (Some("reports".to_owned()), "", false);
    let failure = create(fake.client(), asked, false).await.err().unwrap();
    assert!(failure.message.contains(ID) && failure.message.contains("taken"));
}

#[tokio::test]
async fn a_job_is_followed_to_its_end_and_its_end_is_the_exit_code() {
    let job = |state: &str, done: u64| {
        json!({"Job": {
            "JobId": "j", "Kind": "Rewrap", "State": state, "Done": done, "Total": 2,
        }})
    };
    let pace = job::Pace { rate: Some(9), no_wait: false };
    for (end, expected) in [("Completed", EXIT_DONE), ("Failed", EXIT_REFUSED)] {
        let answers = vec![metadata("Enabled"), job("Running", 0), job("Waiting", 1), job(end, 2)];
        let fake = Fake::start(ok(answers)).await;
        let kind = job::Kind::Rewrap { deep: true };
        assert_eq!(code(job::run(found(&fake).await, kind, &pace, true).await), expected);
        assert_eq!(targets(&fake), ["DescribeKey", "StartRewrap", "DescribeJob", "DescribeJob"]);
        let asked = fake.asked();
        assert_eq!(asked[1].1, json!({"KeyId": ID, "Deep": true, "RatePerSecond": 9}));
        assert_eq!(asked[2].1, json!({"JobId": "j"}));
    }
    let fake = Fake::start(ok(vec![metadata("Enabled"), job("Running", 0)])).await;
    let pace = job::Pace { rate: None, no_wait: true };
    let outcome = job::run(found(&fake).await, job::Kind::Reencrypt, &pace, true).await;
    assert_eq!((code(outcome), targets(&fake).len()), (EXIT_DONE, 2));
}

fn impact_of(objects: u64) -> Value {
    json!({
        "KeyId": ID, "BucketKeys": [{"Material": 1, "Count": 3}, {"Material": 2, "Count": 4}],
        "Buckets": 2, "Objects": objects, "Bytes": 4096, "OpenUploads": 1,
        "DefaultOf": ["scans", "logs"], "ApiCiphertexts": [{"Material": 1, "Count": 5}],
        "CountedDate": 1_700_000_000, "Coverage": "objects of this node",
    })
}

#[test]
fn the_impact_is_told_in_plain_words() {
    let words = impact::words(&impact_of(7));
    for part in [
        "7 objects with 4096 bytes in 2 buckets, and 1 open uploads",
        "7 bucket keys",
        "up to 5 ciphertexts",
        "default key of scans, logs",
        "Counted 2023-11-14T22:13:20Z; objects of this node",
    ] {
        assert!(words.contains(part), "{part} in\n{words}");
    }
}

#[test]
fn only_the_keys_own_names_confirm() {
    let aliases = ["alias/reports".to_owned()];
    for name in [ID, "alias/reports", "reports"] {
        assert!(impact::is_name(name, ID, &aliases), "{name}");
    }
    for name in ["", "yes", "alias/", "report", "alias/report", "REPORTS"] {
        assert!(!impact::is_name(name, ID, &aliases), "{name}");
    }
}

#[tokio::test]
async fn a_destruction_shows_its_impact_first() {
    let scheduled = json!({"KeyId": ID, "DeletionDate": 1_700_000_000});
    let fake = Fake::start(ok(vec![metadata("Enabled"), impact_of(7), scheduled])).await;
    assert_eq!(code(impact::destroy(found(&fake).await, 7, true, true).await), EXIT_DONE);
    assert_eq!(targets(&fake), ["DescribeKey", "DescribeKeyImpact", "ScheduleKeyDeletion"]);
    assert_eq!(fake.asked()[2].1, json!({"KeyId": ID, "PendingWindowInDays": 7}));

    // Without its impact, nothing is scheduled.
    let refusal = json!({"__type": "KMSInternalException", "message": "no count"});
    let fake = Fake::start(vec![(200, metadata("Enabled")), (500, refusal)]).await;
    assert_eq!(code(impact::destroy(found(&fake).await, 7, true, true).await), EXIT_REFUSED);
    assert_eq!(targets(&fake).len(), 2);
}

#[tokio::test]
async fn a_material_is_retired_by_number() {
    let answers = vec![metadata("Enabled"), impact_of(0), json!({"KeyId": ID, "Material": 1})];
    let fake = Fake::start(ok(answers)).await;
    let outcome = impact::retire(found(&fake).await, 1, (true, true), false).await;
    assert_eq!(code(outcome), EXIT_DONE);
    assert_eq!(fake.asked()[2].1, json!({"KeyId": ID, "Material": 1, "Force": true}));
}

#[tokio::test]
async fn a_material_arrives_under_the_nodes_public_key_and_no_other_way() {
    let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let public = private.public_key();
    let der = STANDARD.encode(public.as_der().unwrap().as_ref());
    let parameters = json!({"ImportToken": "dG9rZW4=", "PublicKey": der});
    let fake = Fake::start(ok(vec![
        metadata("PendingImport"),
        parameters,
        Value::Null,
        metadata("Enabled"),
    ]))
    .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [7; 32]).unwrap();
    let asked = import::Asked {
        material: file.path().to_owned(),
        expires: Some("2027-01-31T12:00:00Z".to_owned()),
        is_new: true,
    };
    assert_eq!(code(import::run(found(&fake).await, &asked, true).await), EXIT_DONE);
    let seen = fake.asked();
    let input = &seen[2].1;
    assert_eq!(input["ImportToken"], "dG9rZW4=");
    assert_eq!(input["ExpirationModel"], "KEY_MATERIAL_EXPIRES");
    assert_eq!(
        (&input["ValidTo"], &input["ImportType"]),
        (&json!(1_801_396_800), &json!("NEW_KEY_MATERIAL"),)
    );
    let wrapped = STANDARD.decode(input["EncryptedKeyMaterial"].as_str().unwrap()).unwrap();
    let private = OaepPrivateDecryptingKey::new(private).unwrap();
    let mut plain = vec![0; private.min_output_size()];
    let opened = private.decrypt(&OAEP_SHA256_MGF1SHA256, &wrapped, &mut plain, None).unwrap();
    assert_eq!(opened, [7; 32]);
}

#[tokio::test]
async fn a_material_of_another_length_or_a_time_that_is_none_asks_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (length, expires) in [(31, None), (33, None), (32, Some("2027-13-01T00:00:00Z"))] {
        std::fs::write(file.path(), vec![7; length]).unwrap();
        let fake = Fake::start(ok(vec![metadata("PendingImport")])).await;
        let asked = import::Asked {
            material: file.path().to_owned(),
            expires: expires.map(str::to_owned),
            is_new: false,
        };
        let failure = import::run(found(&fake).await, &asked, true).await.err().unwrap();
        assert_eq!(failure.code, crate::cli::EXIT_COULD_NOT_RUN);
        assert_eq!(targets(&fake), ["DescribeKey"]);
    }
    for time in ["2027-01-31", "20270131T120000Z", "2027-01-31T12:00:00", "2027-01-31 12:00:00Z"] {
        assert!(import::unix_seconds(time).is_err(), "{time}");
    }
    assert!(import::wrap(b"no key", &[7; 32]).is_err());
}
