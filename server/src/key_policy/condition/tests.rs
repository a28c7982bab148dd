//! Every operator as a table: with a value, with several, and without.

use std::collections::BTreeMap;

use super::*;

/// Values by the name a policy writes.
struct Given(BTreeMap<&'static str, Vec<&'static str>>);

impl Values for Given {
    fn values(&self, key: &ConditionKey) -> Vec<String> {
        let found = self
            .0
            .iter()
            .find(|(name, _)| ConditionKey::parse(name).is_some_and(|(known, _)| known == *key));
        found.map_or(Vec::new(), |(_, values)| values.iter().map(ToString::to_string).collect())
    }
}

fn condition(operator: &str, key: &str, want: &[&str]) -> Condition {
    let want: Vec<_> = want.iter().map(ToString::to_string).collect();
    Condition::parse(operator, key, &want).unwrap()
}

/// Whether `operator` on `key` with the values `want` holds where the key has the values `have`.
#[track_caller]
fn check(operator: &str, (key, want): (&'static str, &[&str]), have: &[&'static str], holds: bool) {
    let given = Given(BTreeMap::from([(key, have.to_vec())]));
    let found = condition(operator, key, want).holds(&given);
    assert_eq!(found, holds, "{operator} {key} {want:?} on {have:?}");
}

const TEXT: &str = "kms:RequestAlias";

#[test]
fn texts() {
    check("StringEquals", (TEXT, &["a", "b"]), &["b"], true);
    check("StringEquals", (TEXT, &["a"]), &["A"], false);
    check("StringEquals", (TEXT, &["a*"]), &["ab"], false);
    check("StringNotEquals", (TEXT, &["a", "b"]), &["b"], false);
    check("StringNotEquals", (TEXT, &["a", "b"]), &["c"], true);
    check("StringEqualsIgnoreCase", (TEXT, &["aÉ"]), &["Aé"], true);
    check("StringNotEqualsIgnoreCase", (TEXT, &["a"]), &["A"], false);
    check("StringLike", (TEXT, &["alias/a*"]), &["alias/abc"], true);
    check("StringLike", (TEXT, &["alias/?"]), &["alias/abc"], false);
    check("StringNotLike", (TEXT, &["alias/a*"]), &["alias/abc"], false);
    check("stringlike", (TEXT, &["x"]), &["x"], true);
}

#[test]
fn a_key_that_is_absent() {
    check("StringEquals", (TEXT, &["a"]), &[], false);
    check("StringLike", (TEXT, &["*"]), &[], false);
    check("StringNotEquals", (TEXT, &["a"]), &[], true);
    check("StringEqualsIfExists", (TEXT, &["a"]), &[], true);
    check("StringEqualsIfExists", (TEXT, &["a"]), &["b"], false);
    check("StringNotEqualsIfExists", (TEXT, &["a"]), &["a"], false);
    check("Null", (TEXT, &["true"]), &[], true);
    check("Null", (TEXT, &["false"]), &[], false);
    check("Null", (TEXT, &["false"]), &["x"], true);
    check("BoolIfExists", ("aws:SecureTransport", &["false"]), &[], true);
    check("Bool", ("aws:SecureTransport", &["false"]), &[], false);
}

#[test]
fn sets() {
    let key = "kms:EncryptionContextKeys";
    let all = "ForAllValues:StringEquals";
    let any = "ForAnyValue:StringEquals";
    check(all, (key, &["a", "b"]), &["a"], true);
    check(all, (key, &["a", "b"]), &["a", "c"], false);
    check(all, (key, &["a"]), &[], true);
    check(any, (key, &["a", "b"]), &["a", "c"], true);
    check(any, (key, &["a"]), &["c"], false);
    check(any, (key, &["a"]), &[], false);
    check("ForAllValues:StringNotEquals", (key, &["a"]), &["b", "a"], false);
    check("ForAnyValue:StringNotEquals", (key, &["a"]), &["b", "a"], true);
    check("ForAnyValue:StringNotEquals", (key, &["a"]), &["a"], false);
    // Without a quantifier one match is enough, and no match may be for the negation.
    check("StringEquals", (key, &["a"]), &["b", "a"], true);
    check("StringNotEquals", (key, &["a"]), &["b", "a"], false);
}

#[test]
fn booleans_numbers_and_dates() {
    let tls = "aws:SecureTransport";
    check("Bool", (tls, &["true"]), &["true"], true);
    check("Bool", (tls, &["True"]), &["false"], false);
    let days = "kms:ScheduleKeyDeletionPendingWindowInDays";
    check("NumericEquals", (days, &["7"]), &["7"], true);
    check("NumericNotEquals", (days, &["7"]), &["8"], true);
    check("NumericLessThan", (days, &["10"]), &["9"], true);
    check("NumericLessThan", (days, &["10"]), &["10"], false);
    check("NumericLessThanEquals", (days, &["10"]), &["10"], true);
    check("NumericGreaterThan", (days, &["10"]), &["9"], false);
    check("NumericGreaterThanEquals", (days, &["10"]), &["10"], true);
    check("NumericLessThan", (days, &["10"]), &["many"], false);
    let now = "aws:CurrentTime";
    let noon = "2026-11-24T12:00:00Z";
    check("DateLessThan", (now, &[noon]), &["2026-11-24T11:59:59Z"], true);
    check("DateLessThan", (now, &[noon]), &[noon], false);
    check("DateGreaterThan", (now, &["2026-11-24"]), &[noon], true);
    check("DateGreaterThanEquals", (now, &["1795521600"]), &[noon], true);
    check("DateEquals", (now, &["1795521600"]), &[noon], true);
    check("DateNotEquals", (now, &[noon]), &[noon], false);
    check("DateLessThanEquals", (now, &[noon]), &[noon], true);
}

#[test]
fn addresses() {
    let key = "aws:SourceIp";
    check("IpAddress", (key, &["192.0.2.0/24"]), &["192.0.2.200"], true);
    check("IpAddress", (key, &["192.0.2.0/24"]), &["192.0.3.1"], false);
    check("IpAddress", (key, &["192.0.2.1"]), &["::ffff:192.0.2.1"], true);
    check("IpAddress", (key, &["0.0.0.0/0"]), &["203.0.113.9"], true);
    check("IpAddress", (key, &["0.0.0.0/0"]), &["2001:db8::1"], false);
    check("IpAddress", (key, &["2001:db8::/32"]), &["2001:db8:9::1"], true);
    check("NotIpAddress", (key, &["192.0.2.0/24"]), &["192.0.2.1"], false);
    check("NotIpAddress", (key, &["192.0.2.0/24"]), &[], true);
}

#[test]
fn arns_and_the_encryption_context() {
    let key = "aws:PrincipalArn";
    let ann = "arn:aws:iam::111122223333:user/ann";
    check("ArnLike", (key, &["arn:aws:iam::*:user/a*"]), &[ann], true);
    check("ArnEquals", (key, &["arn:aws:iam::*:user/a*"]), &[ann], true);
    check("ArnNotLike", (key, &["arn:aws:iam::*:user/a*"]), &[ann], false);
    check("ArnNotEquals", (key, &["arn:aws:iam::*:user/b"]), &[ann], true);
    let pair = "kms:EncryptionContext:aws:s3:arn";
    check("ArnLike", (pair, &["arn:aws:s3:::photos*"]), &["arn:aws:s3:::photos-2"], true);
    check("StringEquals", (pair, &["x"]), &["x"], true);
}

#[test]
fn names_of_keys_are_compared_without_case() {
    let given = Given(BTreeMap::from([("KMS:encryptioncontext:AppName", vec!["x"])]));
    let condition = condition("StringEquals", "kms:EncryptionContext:appname", &["x"]);
    assert!(condition.holds(&given));
}

#[test]
fn a_reason_that_covers_calls_too_may_be_named() {
    for (operator, value) in [("StringLike", "*"), ("StringEquals", "customer-initiated")] {
        assert!(Condition::parse(operator, "kluis:Reason", &[value.to_owned()]).is_ok());
    }
}

#[test]
fn what_is_not_known_or_does_not_fit_is_refused() {
    for (operator, key, values, why) in [
        ("StringEqual", TEXT, vec!["a"], "operator"),
        ("ForSomeValues:StringEquals", TEXT, vec!["a"], "operator"),
        ("BinaryEquals", TEXT, vec!["a"], "operator"),
        ("StringEquals", "aws:PrincipalTag/x", vec!["a"], "not known"),
        ("StringEquals", "kms:EncryptionContext:", vec!["a"], "not known"),
        ("StringEquals", "kms:ViaServices", vec!["a"], "not known"),
        ("StringEquals", TEXT, vec![], "no value"),
        ("NullIfExists", TEXT, vec!["true"], "alone"),
        ("ForAllValues:Null", TEXT, vec!["true"], "alone"),
        ("Null", TEXT, vec!["yes"], "unfit"),
        ("Bool", TEXT, vec!["true"], "does not apply"),
        ("IpAddress", TEXT, vec!["192.0.2.1"], "does not apply"),
        ("Bool", "aws:SecureTransport", vec!["1"], "unfit"),
        ("IpAddress", "aws:SourceIp", vec!["192.0.2.0/33"], "unfit"),
        ("IpAddress", "aws:SourceIp", vec!["192.0.2"], "unfit"),
        ("DateLessThan", "aws:CurrentTime", vec!["tomorrow"], "unfit"),
        ("DateLessThan", "aws:CurrentTime", vec!["2026-13-24T12:00:00Z"], "unfit"),
        ("NumericEquals", "kms:RotationPeriodInDays", vec!["90", "NaN"], "unfit"),
        ("ArnLike", "aws:PrincipalArn", vec!["user/ann"], "unfit"),
        ("StringEquals", "kluis:Reason", vec!["tenant-job"], "never"),
        ("StringNotLike", "KLUIS:reason", vec!["tenant*"], "never"),
        ("StringEqualsIgnoreCase", "kluis:Reason", vec!["provider-service", "Tenant-Job"], "never"),
    ] {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        let message = Condition::parse(operator, key, &values).unwrap_err();
        assert!(message.contains(why), "{operator} {key} {values:?}: {message}");
    }
}
