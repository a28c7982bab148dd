//! Types and bounds of fields, pages, and the bytes of answers.

use proptest::prelude::*;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::fields::{Fields, Length};
use super::super::page::Page;
use super::super::reply::{Reply, seconds};
use super::b64;

fn fields(text: &str) -> Fields {
    Fields::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_body_is_a_json_object() {
    for body in [
        "",
        "[]",
        "null",
        "1",
        "\"a\"",
        "{",
        "{\"a\":}",
        "{}{}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":1,\"a\":1}",
        "{\"a\":{\"b\":1,\"b\":2}}",
        "{\"a\":[{\"b\":1,\"b\":2}]}",
    ] {
        assert_eq!(Fields::parse(body.as_bytes()).unwrap_err().code, "SerializationException");
    }
    let deep = "{\"a\":".repeat(10_000);
    assert_eq!(Fields::parse(deep.as_bytes()).unwrap_err().code, "SerializationException");
    assert!(Fields::parse(b"{\xff}").is_err());
    assert!(!fields("{\"a\":null}").has("a"));
}

#[test]
fn what_is_wrong_with_a_field_is_told_as_aws_does() {
    let given = fields(r#"{"KeyId":"","Limit":0,"Big":1001,"Spec":"X"}"#);
    let message = |error: super::KmsError| {
        assert_eq!(error.code, "ValidationException");
        error.message.into_owned()
    };
    assert_eq!(
        message(given.text("KeyId", Length::up_to(2_048)).unwrap_err()),
        "1 validation error detected: Value '' at 'keyId' failed to satisfy constraint: Member \
         must have length greater than or equal to 1"
    );
    assert_eq!(
        message(given.required_text("AliasName", Length::up_to(1)).unwrap_err()),
        "1 validation error detected: Value null at 'aliasName' failed to satisfy constraint: \
         Member must not be null"
    );
    for (name, bound) in [("Limit", "greater than or equal to 1"), ("Big", "less than or equal to")]
    {
        assert!(message(given.integer(name, (1, 1_000)).unwrap_err()).contains(bound));
    }
    assert!(message(given.one_of("Spec", &["A", "B"]).unwrap_err()).ends_with("value set: [A, B]"));
}

#[test]
fn other_types_are_refused() {
    for value in ["1", "true", "\"x y\"", "[]", "{}", "1.5", "[1]", "{\"a\":1}", "\"A\""] {
        let given = fields(&format!("{{\"F\":{value}}}"));
        let is_text = value.starts_with('"');
        assert_eq!(given.text("F", Length::up_to(9)).is_ok(), is_text, "{value}");
        assert_eq!(given.integer("F", (0, 9)).is_ok(), value == "1", "{value}");
        assert_eq!(given.flag("F").is_ok(), value == "true", "{value}");
        assert!(given.blob("F", 9).is_err(), "{value}");
        assert_eq!(given.time_ms("F").is_ok(), value.starts_with('1'), "{value}");
        assert_eq!(given.context("F").is_ok(), value == "{}", "{value}");
        let texts = given.texts("F", (0, 9), Length::up_to(9));
        assert_eq!(texts.is_ok(), value == "[]", "{value}");
    }
}

#[test]
fn blobs_are_bounded_and_never_shown() {
    let given = fields(&format!("{{\"F\":\"{}\"}}", b64(b"secret words")));
    assert_eq!(**given.blob("F", 12).unwrap().unwrap(), *b"secret words");
    let error = given.blob("F", 11).unwrap_err();
    assert!(!error.message.contains("secret") && !error.message.contains(&b64(b"secret words")));
    assert!(fields("{\"F\":\"\"}").blob("F", 9).is_err());
    assert_eq!(format!("{given:?}"), "{\"F\"}");
}

#[test]
fn a_context_is_bounded_in_all() {
    let of = |count: usize, bytes: usize| {
        let pairs: serde_json::Map<_, _> =
            (0..count).map(|it| (format!("{it:04}"), "v".repeat(bytes).into())).collect();
        fields(&json!({"F": pairs}).to_string()).context("F")
    };
    assert_eq!(of(256, 28).unwrap().len(), 256);
    assert_eq!(of(256, 29).unwrap_err().code, "ValidationException");
    assert_eq!(of(257, 1).unwrap_err().code, "ValidationException");
}

#[test]
fn a_secret_joins_the_fields_of_an_answer() {
    for bytes in [&b""[..], b"a", b"ab", b"abc", &[0xff; 1_024]] {
        for reply in [Reply::default(), Reply::default().with("KeyId", "x\"y")] {
            let body = reply.with_secret("Plaintext", Zeroizing::new(bytes.to_vec())).into_bytes();
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["Plaintext"], b64(bytes));
        }
    }
    assert!(Reply::default().into_bytes().is_empty());
}

#[test]
fn times_are_seconds() {
    assert_eq!(seconds(1_700_000_000_000).to_string(), "1700000000");
    assert_eq!(seconds(1_700_000_000_123).to_string(), "1700000000.123");
    let given = fields("{\"F\":1700000000.123}");
    assert_eq!(given.time_ms("F").unwrap(), Some(1_700_000_000_123));
    for bad in ["-1", "1e300", "253402300800"] {
        assert!(fields(&format!("{{\"F\":{bad}}}")).time_ms("F").is_err(), "{bad}");
    }
}

fn page(operation: &'static str, limit: usize, marker: Option<&str>) -> Page {
    let given = json!({"Limit": limit, "Marker": marker}).to_string();
    Page::of(operation, &fields(&given)).unwrap()
}

proptest! {
    #[test]
    fn pages_show_everything_once(
        places in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 0..20), 0..60),
        limit in 1_usize..20,
    ) {
        let items = || places.iter().map(|place| (place.clone(), json!(b64(place))));
        let (mut shown, mut marker) = (Vec::new(), None::<String>);
        loop {
            let reply = page("ListKeys", limit, marker.as_deref()).cut("Keys", items());
            let keys = reply["Keys"].as_array().unwrap();
            prop_assert!(keys.len() <= limit);
            shown.extend(keys.iter().map(super::text));
            marker = reply.get("NextMarker").map(super::text);
            prop_assert_eq!(reply["Truncated"].as_bool().unwrap(), marker.is_some());
            if marker.is_none() {
                break;
            }
            prop_assert!(!keys.is_empty());
        }
        prop_assert_eq!(shown, places.iter().map(|place| b64(place)).collect::<Vec<_>>());
    }
}

#[test]
fn a_marker_that_nobody_gave_out_is_refused() {
    let items = || (0..3_u8).map(|it| (vec![it], json!(it)));
    let reply = page("ListKeys", 1, None).cut("Keys", items());
    let marker = super::text(&reply["NextMarker"]);
    let code = |operation: &'static str, marker: &str| {
        let given = json!({"Marker": marker}).to_string();
        Page::of(operation, &fields(&given)).unwrap_err().code
    };
    assert_eq!(code("ListAliases", &marker), "InvalidMarkerException");
    for at in 0..marker.len() {
        let mut bytes = marker.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(
            code("ListKeys", std::str::from_utf8(&bytes).unwrap()),
            "InvalidMarkerException"
        );
    }
    for broken in ["!", "AAAA", "é"] {
        assert_eq!(code("ListKeys", broken), "InvalidMarkerException");
    }
}
