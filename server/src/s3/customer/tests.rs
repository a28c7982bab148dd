//! SSE-C headers: what is a key, over which connection, and that nothing of it is left.

use super::*;

const KEY: [u8; 32] = *b"0123456789abcdef0123456789ABCDEF";

fn headers(names: &[&'static str; 3], values: [Option<&str>; 3]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in names.iter().zip(values) {
        if let Some(value) = value {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
    }
    headers
}

fn code(keys: &Keys) -> String {
    let failure = keys.own().err().expect("refused");
    failure.api().code.to_string()
}

#[test]
fn a_key_is_taken_off_and_checked() {
    let (key, md5) = (STANDARD.encode(KEY), STANDARD.encode(Md5::digest(KEY)));
    for names in [OWN, SOURCE] {
        let mut map = headers(&names, [Some("AES256"), Some(&key), Some(&md5)]);
        let keys = Keys::lift(&mut map, true);
        assert!(map.is_empty(), "s3s sees none of it");
        let sent = if names == OWN { keys.own() } else { keys.source() };
        assert_eq!(sent.unwrap().unwrap().md5, md5);
        let other = if names == OWN { keys.source() } else { keys.own() };
        assert!(other.unwrap().is_none());
    }
    let none = Keys::lift(&mut HeaderMap::new(), true);
    assert!(none.own().unwrap().is_none() && none.source().unwrap().is_none());
    let short = STANDARD.encode(&KEY[..31]);
    let long = STANDARD.encode([KEY.as_slice(), &[0]].concat());
    let huge = "A".repeat(4_000);
    let other = STANDARD.encode(Md5::digest(b"another"));
    for (algorithm, key, md5, want) in [
        (None, Some(key.as_str()), Some(md5.as_str()), "InvalidArgument"),
        (Some("AES128"), Some(&key), Some(&md5), "InvalidEncryptionAlgorithmError"),
        (Some("AES256"), None, Some(&md5), "InvalidArgument"),
        (Some("AES256"), Some(&key), None, "InvalidArgument"),
        (Some("AES256"), Some(&short), Some(&md5), "InvalidArgument"),
        (Some("AES256"), Some(&long), Some(&md5), "InvalidArgument"),
        (Some("AES256"), Some(&huge), Some(&md5), "InvalidArgument"),
        (Some("AES256"), Some("not base64"), Some(&md5), "InvalidArgument"),
        (Some("AES256"), Some(&key), Some(&other), "InvalidArgument"),
        (Some("AES256"), Some(&key), Some("!"), "InvalidArgument"),
    ] {
        let mut map = headers(&OWN, [algorithm, key, md5]);
        let keys = Keys::lift(&mut map, true);
        assert_eq!(code(&keys), want);
        let failure = keys.own().err().unwrap();
        let told = format!("{:?}", failure.api());
        let sent = [key, md5].into_iter().flatten().filter(|text| text.len() > 3);
        assert!(sent.into_iter().all(|text| !told.contains(text)), "{told}");
    }
}

#[test]
fn a_key_comes_over_a_private_connection_only() {
    let (key, md5) = (STANDARD.encode(KEY), STANDARD.encode(Md5::digest(KEY)));
    for is_private in [false, true] {
        let mut map = headers(&OWN, [Some("AES256"), Some(&key), Some(&md5)]);
        let keys = Keys::lift(&mut map, is_private);
        assert!(map.is_empty());
        assert_eq!(keys.own().is_ok(), is_private);
        if !is_private {
            assert_eq!(code(&keys), "InvalidRequest");
        }
    }
}
