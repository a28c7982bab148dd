//! What needs no server: blobs, what answers mean. The rest is in `kms/tests/stores`.

use super::*;

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: Zeroizing::new(body.as_bytes().to_vec()) }
}

#[test]
fn a_blob_is_the_ciphertext_and_back() {
    let text = format!("vault:v3:{}", BASE64.encode([7; 60]));
    let blob = blob_of(&text).unwrap();
    assert_eq!(blob.as_bytes()[..5], [0, 0, 0, 3, 7]);
    assert_eq!(ciphertext_of(&blob).unwrap(), text);
}

#[test]
fn what_is_no_ciphertext_is_not_taken() {
    for text in ["", "vault:v1", "vault:v1:", "vault:vx:AAAA", "vault:v1:!", "other:v1:AAAA"] {
        assert!(blob_of(text).is_none_or(|blob| ciphertext_of(&blob).is_err()), "{text}");
    }
    for bytes in [vec![1], vec![0, 0, 0, 0, 9], vec![0, 0, 0, 1]] {
        let error = ciphertext_of(&StoreBlob::new(bytes).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn answers_mean_what_they_say() {
    let cases = [
        (400, r#"{"errors":["encryption key not found"]}"#, ErrorKind::NotFound),
        (400, r#"{"errors":["cipher: message authentication failed"]}"#, ErrorKind::Corrupt),
        (400, r#"{"errors":["invalid ciphertext: version is too new"]}"#, ErrorKind::Corrupt),
        (
            400,
            r#"{"errors":["ciphertext or signature version is disallowed by policy (too old)"]}"#,
            ErrorKind::KeyDisabled,
        ),
        (400, r#"{"errors":["something else"]}"#, ErrorKind::Unavailable),
        (403, r#"{"errors":["permission denied"]}"#, ErrorKind::AccessDenied),
        (404, r#"{"errors":[]}"#, ErrorKind::NotFound),
        (429, "", ErrorKind::Unavailable),
        (500, "<html>", ErrorKind::Unavailable),
        (503, r#"{"errors":["Vault is sealed"]}"#, ErrorKind::Unavailable),
        (302, "", ErrorKind::Unavailable),
    ];
    for (status, body, kind) in cases {
        assert_eq!(problem("/v1/x", &answer(status, body)).kind(), kind, "{status} {body}");
    }
}

#[test]
fn a_body_is_json() {
    let body = json(&[("a", "x"), ("b", "y/+=")]);
    assert_eq!(body.as_slice(), br#"{"a":"x","b":"y/+="}"#);
}

#[test]
fn only_thirty_two_bytes_are_a_secret() {
    for length in [0, 16, 31, 33, 34, 64] {
        assert!(secret_of(&BASE64.encode(vec![1; length])).is_none(), "{length}");
    }
    assert!(secret_of("not base64").is_none());
    let secret = secret_of(&BASE64.encode([5; 32])).unwrap().unwrap();
    assert_eq!(*secret.borrow(), [5; 32]);
}

#[test]
fn a_mount_stays_in_its_place() {
    let settings = |mount| TransitSettings {
        url: "http://127.0.0.1:1",
        mount,
        ca_file: None,
        token_file: Path::new("/none"),
        timeout: Duration::from_secs(1),
    };
    assert!(TransitStore::new(&settings("teams/a/transit")).is_ok());
    for mount in ["", "..", "a/../b", "a b", "a?b", "a//b"] {
        assert!(TransitStore::new(&settings(mount)).is_err(), "{mount}");
    }
}
