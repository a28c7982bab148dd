//! Encryption headers: what is taken, which key is meant, what is answered.

use std::sync::Arc;

use kluis_kms::{Env, Kms, MemoryStore, TenantId};

use super::*;
use crate::auth::AccountId;
use crate::s3::tests::call;

#[track_caller]
fn refused<T>(answer: Answer<T>, code: &str) {
    let found = answer.err().map(|failure| failure.api().code.to_string());
    assert_eq!(found.as_deref(), Some(code));
}

#[test]
fn modes_are_read() {
    let mode = |mode, key_id, context| read(mode, key_id, context).unwrap().mode;
    assert_eq!(mode(None, None, None), None);
    assert_eq!(mode(Some("AES256"), None, None), Some(SseMode::S3));
    assert_eq!(mode(Some("aws:kms"), Some("id"), None), Some(SseMode::Kms));
    refused(read(Some("aws:kms:dsse"), None, None), "NotImplemented");
    for mode in ["aes256", "AWS:KMS", "none"] {
        refused(read(Some(mode), None, None), "InvalidArgument");
    }
    refused(read(None, Some("id"), None), "InvalidArgument");
    refused(read(Some("AES256"), Some("id"), None), "InvalidArgument");
    refused(read(Some("AES256"), None, Some("e30=")), "InvalidArgument");
    assert!(check_bucket_key(Some("true")).is_ok() && check_bucket_key(None).is_ok());
    refused(check_bucket_key(Some("yes")), "InvalidArgument");
}

#[test]
fn a_context_is_base64_of_json_texts() {
    let encode = |json: &str| STANDARD.encode(json);
    let got = parse_context(&encode(r#"{"team":"red","a":"b"}"#)).unwrap();
    let want = EncryptionContext::new().with(b"a", b"b").unwrap().with(b"team", b"red").unwrap();
    assert_eq!(got.encode(), want.encode());
    assert_eq!(parse_context(&encode("{}")).unwrap().encode(), EncryptionContext::new().encode());
    for json in ["[]", r#"{"a":1}"#, r#"{"a":{}}"#, "x", ""] {
        refused(parse_context(&encode(json)), "InvalidArgument");
    }
    refused(parse_context("!"), "InvalidArgument");
    let long = format!(r#"{{"a":"{}"}}"#, "b".repeat(CONTEXT_BYTES_MAX));
    refused(parse_context(&encode(&long)), "InvalidArgument");
}

#[test]
fn a_key_has_several_names_and_no_other_tenant_has_it() {
    let env = Env::system();
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    let kms = Kms::create(dir.path(), &store, env.clone()).unwrap();
    let tenants = [TenantId::random(&*env.rng), TenantId::random(&*env.rng)];
    let keys = kms.create_tenant_keys(&tenants).unwrap();
    let names = |tenant: usize| Names {
        kms: &kms,
        region: "eu-west-1",
        account: AccountId::from_number([123_456_789_012, 210_987_654_321][tenant]).unwrap(),
        tenant: tenants[tenant],
    };
    let id = keys[0].id;
    let arn = names(0).key_arn(id);
    let uuid = arn.rsplit('/').next().unwrap().to_owned();
    assert_eq!(arn, format!("arn:aws:kms:eu-west-1:123456789012:key/{uuid}"));
    let known = [
        uuid.clone(),
        arn.clone(),
        "alias/aws/s3".to_owned(),
        "alias/kluis/default".to_owned(),
        names(0).alias_arn("alias/aws/s3"),
    ];
    for name in &known {
        assert_eq!(find_key(&names(0), name).ok(), Some(id), "{name}");
    }
    for name in &known[..2] {
        refused(find_key(&names(1), name), "KMS.NotFoundException");
    }
    assert_eq!(find_key(&names(1), "alias/aws/s3").ok(), Some(keys[1].id));
    let elsewhere = arn.replace("eu-west-1", "us-east-1");
    let odd = [
        "testkey-1",
        "alias/mine",
        "alias/",
        "",
        &elsewhere,
        &names(1).key_arn(id),
        &names(0).alias_arn(&uuid),
        &uuid.to_uppercase(),
        &id.to_string(),
        &format!("key/{uuid}"),
        &arn[..arn.len() - 1],
        &uuid.replace('-', "_"),
    ];
    let texts: Vec<_> = odd
        .iter()
        .map(|name| {
            let failure = find_key(&names(0), name).err().unwrap();
            assert_eq!(failure.api().code, "KMS.NotFoundException", "{name}");
            failure.api().message.replace(name, "")
        })
        .collect();
    assert!(texts[1..3].iter().all(|text| *text == texts[0]), "one answer for all: {texts:?}");
}

#[test]
fn reads_take_no_encryption_headers() {
    assert!(refuse_on_read(&call(&[])).is_ok());
    refused(refuse_on_read(&call(&[(MODE, "AES256")])), "InvalidArgument");
}

#[test]
fn a_reply_says_it_in_headers_as_in_elements() {
    let kms = SseReply { mode: Some("aws:kms"), key_id: Some("arn".into()), customer_md5: None };
    assert_eq!(kms.headers(), [(MODE, "aws:kms"), (KEY_ID, "arn"), (BUCKET_KEY, "true")]);
    assert_eq!(kms.bucket_key(), Some(true));
    let aes = SseReply { mode: Some("AES256"), ..SseReply::default() };
    assert_eq!(aes.headers(), [(MODE, "AES256")]);
    let customer = SseReply { customer_md5: Some("md5".into()), ..SseReply::default() };
    let told = [(customer::ALGORITHM_HEADER, "AES256"), (customer::MD5_HEADER, "md5")];
    assert_eq!(customer.headers(), told);
    assert_eq!((customer.element(), customer.bucket_key()), (None, None));
}
