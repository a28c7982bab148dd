//! What a request claims before any secret is looked at, and what is refused at once.

use proptest::prelude::*;

use super::super::testing::{EXAMPLE_MS, head, set};
use super::*;

fn expectation() -> Expectation<'static> {
    let now = AmzDate::from_unix_ms(EXAMPLE_MS);
    Expectation { region: "us-east-1", service: "s3", now }
}

fn read_parts(parts: &Parts) -> Result<Claim, ApiError> {
    read(parts, &QueryParams::parse(parts.uri.query()), expectation())
}

#[test]
fn components_come_in_any_order_and_spacing() {
    let scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
    let forms = [
        format!("AWS4-HMAC-SHA256 Credential={scope},SignedHeaders=host;x-amz-date,Signature=ab"),
        format!(
            "AWS4-HMAC-SHA256   Signature=ab ,  Credential={scope}, SignedHeaders=x-amz-date;Host"
        ),
    ];
    for form in forms {
        let mut parts = head("GET", "/", &[("x-amz-date", "20130524T001500Z")]);
        set(&mut parts, "authorization", &form);
        let Claim::Signed(claim) = read_parts(&parts).unwrap() else { panic!("anonymous") };
        assert_eq!(claim.access_key_id, "AKIAIOSFODNN7EXAMPLE");
        assert_eq!(claim.signed_headers, ["host", "x-amz-date"]);
        assert_eq!(claim.signature, "ab");
        assert_eq!(claim.place, Place::Header);
    }
}

proptest! {
    /// Nothing that a client can write makes this panic, or passes for a claim that is not covered.
    #[test]
    fn any_header_is_refused_or_covered(
        text in "(AWS4-HMAC-SHA256 )?[ -~]{0,120}",
        date in "[0-9TZ]{0,17}",
        query in "[!-~&&[^#\"<>`\\\\^{}|]]{0,120}",
    ) {
        let uri = format!("/?{query}");
        prop_assume!(uri.parse::<http::Uri>().is_ok());
        let mut parts = head("GET", &uri, &[("host", "h"), ("x-amz-date", "x")]);
        set(&mut parts, "authorization", &text);
        set(&mut parts, "x-amz-date", &date);
        if let Ok(Claim::Signed(claim)) = read_parts(&parts) {
            prop_assert!(claim.signed_headers.contains(&"host".to_owned()));
            prop_assert!(claim.signed_headers.contains(&"x-amz-date".to_owned()));
        }
    }

    #[test]
    fn any_presigned_query_is_refused_or_in_time(
        expires in "[-+0-9a-z]{0,22}",
        date in "(20130524T000000Z|[0-9TZ]{0,17})",
        headers in "[a-zA-Z;-]{0,20}",
    ) {
        let uri = format!(
            "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={date}&X-Amz-Expires={expires}&\
             X-Amz-Credential=A%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&\
             X-Amz-SignedHeaders={headers}&X-Amz-Signature=00"
        );
        let parts = head("GET", &uri, &[]);
        if let Ok(Claim::Signed(claim)) = read_parts(&parts) {
            let lifetime: u64 = expires.parse().unwrap();
            prop_assert!((1..=604_800).contains(&lifetime));
            prop_assert_eq!(claim.scope.day, claim.date.day());
        }
    }
}
