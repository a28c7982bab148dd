//! Encryption headers: what is taken, what is answered.

use super::*;
use crate::s3::tests::call;

#[track_caller]
fn refused<T: fmt::Debug>(answer: Answer<T>, code: &str) {
    assert_eq!(answer.unwrap_err().api().code, code);
}

#[test]
fn modes_are_read() {
    let plain = read(None, None, None).unwrap();
    assert_eq!((plain.mode, plain.asked), (SseMode::Kms, false));
    let aes = read(Some("AES256"), None, None).unwrap();
    assert_eq!((aes.mode, aes.asked), (SseMode::S3, true));
    let kms = read(Some("aws:kms"), Some("id"), None).unwrap();
    assert_eq!((kms.mode, kms.asked), (SseMode::Kms, true));
    refused(read(Some("aws:kms:dsse"), None, None), "NotImplemented");
    for mode in ["aes256", "AWS:KMS", "none"] {
        refused(read(Some(mode), None, None), "InvalidArgument");
    }
    refused(read(None, Some("id"), None), "InvalidArgument");
    refused(read(Some("AES256"), Some("id"), None), "InvalidArgument");
    refused(read(Some("AES256"), None, Some("e30=")), "InvalidArgument");
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
fn the_default_key_has_several_names() {
    let id = TenantKeyId::from_bytes([
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd,
        0xef,
    ]);
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let arn = key_arn("eu-west-1", "123456789012", id);
    assert_eq!(arn, format!("arn:aws:kms:eu-west-1:123456789012:key/{uuid}"));
    let check = |named: &str| check_key_id(named, id, "eu-west-1", "123456789012");
    for named in
        [uuid, &arn, &uuid.to_uppercase(), "0123456789abcdef0123456789abcdef", "alias/aws/s3"]
    {
        assert!(check(named).is_ok(), "{named}");
    }
    let elsewhere = key_arn("us-east-1", "123456789012", id);
    let foreign = key_arn("eu-west-1", "210987654321", id);
    for named in ["testkey-1", "alias/mine", &elsewhere, &foreign, ""] {
        refused(check(named), "KMS.NotFoundException");
    }
}

#[test]
fn reads_take_no_encryption_headers() {
    assert!(refuse_on_read(&call(&[])).is_ok());
    refused(refuse_on_read(&call(&[(MODE, "AES256")])), "InvalidArgument");
    let customer = "x-amz-server-side-encryption-customer-algorithm";
    refused(refuse_on_read(&call(&[(customer, "AES256")])), "NotImplemented");
    refused(refuse_customer_keys(&call(&[(customer, "AES256")])), "NotImplemented");
}
