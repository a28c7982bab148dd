//! What needs no proxy: blobs, error names, the access key. The rest is in `kms/tests/stores`.

use super::*;

fn parts() -> Parts {
    Parts { iv: vec![1; 12], tag: vec![2; 16], metadata: vec![3; 5], ciphertext: vec![4; 32] }
}

#[test]
fn a_blob_comes_back_and_no_length_can_be_wrong() {
    let blob = parts().encode().unwrap();
    assert_eq!(Parts::decode(&blob).unwrap(), parts());
    for length in 1..blob.as_bytes().len() {
        let short = StoreBlob::new(blob.as_bytes()[..length].to_vec()).unwrap();
        assert_eq!(Parts::decode(&short).unwrap_err().kind(), ErrorKind::Corrupt, "{length}");
    }
    let long = StoreBlob::new([blob.as_bytes(), &[0]].concat()).unwrap();
    assert_eq!(Parts::decode(&long).unwrap_err().kind(), ErrorKind::Corrupt);
    for (place, value) in [(0, 2), (1, 11), (1, 13), (14, 15), (31, 6)] {
        let mut bytes = blob.as_bytes().to_vec();
        bytes[place] = value;
        let changed = StoreBlob::new(bytes).unwrap();
        assert_eq!(Parts::decode(&changed).unwrap_err().kind(), ErrorKind::Corrupt, "{place}");
    }
}

#[test]
fn a_proxy_that_answers_out_of_bounds_is_not_believed() {
    let reply = |iv: usize, tag: usize, metadata: usize, ciphertext: usize| EncryptReply {
        ciphertext: BASE64.encode(vec![0; ciphertext]),
        ciphertext_metadata: BASE64.encode(vec![0; metadata]),
        initialization_vector: BASE64.encode(vec![0; iv]),
        authentication_tag: BASE64.encode(vec![0; tag]),
    };
    assert!(Parts::of_reply(&reply(12, 16, 20, 32)).is_some());
    for (iv, tag, metadata, ciphertext) in
        [(11, 16, 0, 32), (17, 16, 0, 32), (12, 15, 0, 32), (12, 16, 21, 32), (12, 16, 0, 31)]
    {
        assert!(Parts::of_reply(&reply(iv, tag, metadata, ciphertext)).is_none());
    }
}

#[test]
fn error_names_mean_what_the_specification_says() {
    let cases = [
        (401, "AuthenticationFailedException", ErrorKind::AccessDenied),
        (403, "AccessDeniedException", ErrorKind::AccessDenied),
        (400, "InvalidCiphertextException", ErrorKind::Corrupt),
        (400, "InvalidStateException", ErrorKind::KeyDisabled),
        (404, "KeyNotFoundException", ErrorKind::NotFound),
        (501, "UnsupportedOperationException", ErrorKind::Refused),
        (429, "ThrottlingException", ErrorKind::Unavailable),
        (503, "DependencyTimeoutException", ErrorKind::Unavailable),
        (500, "InternalException", ErrorKind::Unavailable),
    ];
    for (status, name, kind) in cases {
        let body = Zeroizing::new(format!(r#"{{"errorName":"{name}"}}"#).into_bytes());
        assert_eq!(problem("/", &Answer { status, body }).kind(), kind, "{name}");
    }
    let html = Answer { status: 502, body: Zeroizing::new(b"<html>".to_vec()) };
    assert_eq!(problem("/", &html).kind(), ErrorKind::Unavailable);
}

#[test]
fn an_access_key_file_has_two_lines() {
    assert_eq!(split_access_key(b"AKID\nsecret\n"), Some(("AKID", b"secret".as_slice())));
    assert_eq!(split_access_key(b"AKID\r\nsecret"), Some(("AKID", b"secret".as_slice())));
    for file in [b"AKID".as_slice(), b"\nsecret", b"AKID\n", b""] {
        assert_eq!(split_access_key(file), None);
    }
}
