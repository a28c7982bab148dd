//! Any signed request verifies; one that was changed after signing does not.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Method, path, query and the value of a header.
type Head = (&'static str, String, String, String);

fn any_head() -> impl Strategy<Value = Head> {
    let method = prop::sample::select(vec!["GET", "PUT", "POST", "DELETE", "HEAD"]);
    let path = "/[a-zA-Z0-9/._~!$&'()*+,;=:@-]{0,20}(%[0-9A-F]{2}){0,3}";
    let query = "([a-z]{1,4}=[a-zA-Z0-9+%._~-]{0,6}&){0,4}";
    (method, path, query, "[ -~]{0,20}")
}

fn parts_of((method, path, query, value): &Head) -> Parts {
    let uri = format!("{path}?{query}");
    head(method, &uri, &[("host", "localhost:9000"), ("x-amz-meta-a", value)])
}

fn run<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let mut runner = TestRunner::new(Config::with_cases(512));
    runner.run(strategy, test).unwrap();
}

#[test]
fn any_signed_request_verifies() {
    let node = node();
    run(&(any_head(), any::<bool>()), |(request, by_query)| {
        let mut parts = parts_of(&request);
        if by_query {
            Signer::example().presign(&mut parts, "60", "UNSIGNED-PAYLOAD");
        } else {
            Signer::example().sign(&mut parts, EMPTY_SHA256);
        }
        prop_assert!(matches!(node.check(&parts), Ok(Caller::User(_))));
        Ok(())
    });
}

/// What two heads that mean the same have in common.
fn meaning(parts: &Parts) -> (String, Vec<u8>, Vec<u8>, Option<Vec<u8>>) {
    (
        parts.method.to_string(),
        canonical::decode(parts.uri.path().as_bytes()),
        QueryParams::parse(parts.uri.query()).canonical(None),
        canonical::header_value(&parts.headers, None, "x-amz-meta-a"),
    )
}

#[test]
fn a_signature_is_worth_nothing_for_another_request() {
    let node = node();
    run(&(any_head(), any_head(), 0usize..4), |(first, second, field)| {
        let mut parts = parts_of(&first);
        Signer::example().sign(&mut parts, EMPTY_SHA256);
        let mut other = first.clone();
        match field {
            0 => other.0 = second.0,
            1 => other.1 = second.1,
            2 => other.2 = second.2,
            _ => other.3 = second.3,
        }
        let changed = parts_of(&other);
        let same = meaning(&changed) == meaning(&parts);
        parts.method = changed.method;
        parts.uri = changed.uri;
        parts.headers.insert("x-amz-meta-a", changed.headers["x-amz-meta-a"].clone());
        match node.check(&parts) {
            Ok(_) => prop_assert!(same, "accepted another request"),
            Err(error) => {
                prop_assert!(!same);
                prop_assert_eq!(error.code, "SignatureDoesNotMatch");
            }
        }
        Ok(())
    });
}
