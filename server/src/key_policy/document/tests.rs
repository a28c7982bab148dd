//! Documents as AWS's guide shows them, what is refused, and that rules never work backwards.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::super::keys::ConditionKey;
use super::*;

const ARN: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn account() -> AccountId {
    AccountId::parse(b"111122223333").unwrap()
}

fn parse(policy: &Value) -> Result<Policy, String> {
    Policy::parse(&policy.to_string(), account(), ARN)
}

/// A policy of these statements.
fn policy(statements: &Value) -> Value {
    json!({"Version": "2012-10-17", "Id": "test", "Statement": statements})
}

struct Given(BTreeMap<&'static str, &'static str>);

impl Values for Given {
    fn values(&self, key: &ConditionKey) -> Vec<String> {
        let is_it = |name: &str| ConditionKey::parse(name).is_some_and(|(known, _)| known == *key);
        let found = self.0.iter().filter(|(name, _)| is_it(name));
        found.map(|(_, value)| (*value).to_owned()).collect()
    }
}

fn ask(
    policy: &Policy,
    user_name: Option<&str>,
    action: &str,
    values: &[(&'static str, &'static str)],
) -> Verdict {
    let values = Given(values.iter().copied().collect());
    policy.verdict(&Question { user_name, action, resource: ARN, values: &values })
}

#[test]
fn the_default_policy_leaves_everything_to_the_account() {
    // AWS KMS, "Default key policy".
    let policy = parse(&policy(&json!([{
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
        "Action": "kms:*",
        "Resource": "*"
    }])))
    .unwrap();
    assert_eq!(ask(&policy, None, "kms:ScheduleKeyDeletion", &[]), Verdict::Allowed);
    assert_eq!(ask(&policy, Some("ann"), "kms:ScheduleKeyDeletion", &[]), Verdict::Delegated);
}

#[test]
fn administrators_and_users_of_a_key() {
    // AWS KMS, "Allows key administrators …", "Allows key users …", with grants for services.
    let users = json!({"AWS": ["arn:aws:iam::111122223333:user/CMKUser", "111122223333"]});
    let policy = parse(&policy(&json!([
        {
            "Sid": "Allow access for Key Administrators",
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::111122223333:user/KMSAdminUser"},
            "Action": ["kms:Create*", "kms:Describe*", "kms:Enable*", "kms:List*", "kms:Put*",
                       "kms:Update*", "kms:Revoke*", "kms:Disable*", "kms:Get*", "kms:Delete*",
                       "kms:TagResource", "kms:UntagResource", "kms:ScheduleKeyDeletion",
                       "kms:CancelKeyDeletion", "kms:RotateKeyOnDemand"],
            "Resource": "*"
        },
        {
            "Sid": "Allow use of the key",
            "Effect": "Allow",
            "Principal": users,
            "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*",
                       "kms:DescribeKey"],
            "Resource": "*"
        },
        {
            "Sid": "Allow attachment of persistent resources",
            "Effect": "Allow",
            "Principal": users,
            "Action": ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"],
            "Resource": "*",
            "Condition": {"Bool": {"kms:GrantIsForAWSResource": true}}
        }
    ])))
    .unwrap();
    assert_eq!(policy.statement_count(), 3);
    let admin = Some("KMSAdminUser");
    assert_eq!(ask(&policy, admin, "kms:ScheduleKeyDeletion", &[]), Verdict::Allowed);
    assert_eq!(ask(&policy, admin, "kms:Decrypt", &[]), Verdict::Delegated);
    let user = Some("CMKUser");
    assert_eq!(ask(&policy, user, "kms:ReEncryptFrom", &[]), Verdict::Allowed);
    assert_eq!(ask(&policy, user, "kms:GenerateDataKeyWithoutPlaintext", &[]), Verdict::Allowed);
    assert_eq!(ask(&policy, Some("ann"), "kms:Decrypt", &[]), Verdict::Delegated);
    let service = [("kms:GrantIsForAWSResource", "true")];
    let direct = [("kms:GrantIsForAWSResource", "false")];
    assert_eq!(ask(&policy, user, "kms:CreateGrant", &service), Verdict::Allowed);
    assert_eq!(ask(&policy, user, "kms:CreateGrant", &direct), Verdict::Silent);
    assert_eq!(ask(&policy, None, "kms:ScheduleKeyDeletion", &[]), Verdict::Silent);
}

#[test]
fn use_through_a_service_only() {
    // AWS KMS, "kms:ViaService".
    let policy = parse(&policy(&json!({
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::111122223333:user/ExampleUser"},
        "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey*"],
        "Resource": "*",
        "Condition": {"StringEquals": {"kms:ViaService": [
            "ec2.us-west-2.amazonaws.com", "s3.us-west-2.amazonaws.com"]}}
    })))
    .unwrap();
    let s3 = [("kms:ViaService", "s3.us-west-2.amazonaws.com")];
    let user = Some("ExampleUser");
    assert_eq!(ask(&policy, user, "kms:Decrypt", &s3), Verdict::Allowed);
    assert_eq!(ask(&policy, user, "kms:Decrypt", &[]), Verdict::Silent);
    let other = [("kms:ViaService", "s3.us-east-1.amazonaws.com")];
    assert_eq!(ask(&policy, user, "kms:Decrypt", &other), Verdict::Silent);
}

#[test]
fn use_in_an_encryption_context_only() {
    // AWS KMS, "kms:EncryptionContext:context-key" and "kms:EncryptionContextKeys".
    let policy = parse(&policy(&json!([
        {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::111122223333:user/app"},
            "Action": "kms:GenerateDataKey",
            "Resource": "*",
            "Condition": {
                "StringEquals": {"kms:EncryptionContext:AppName": "ExampleApp"},
                "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["AppName"]}
            }
        },
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "kms:GenerateDataKey",
            "Resource": "*",
            "Condition": {"Null": {"kms:EncryptionContextKeys": "true"}}
        }
    ])))
    .unwrap();
    let exact =
        [("kms:EncryptionContext:AppName", "ExampleApp"), ("kms:EncryptionContextKeys", "AppName")];
    let wider =
        [("kms:EncryptionContext:AppName", "ExampleApp"), ("kms:EncryptionContextKeys", "B")];
    let action = "kms:GenerateDataKey";
    assert_eq!(ask(&policy, Some("app"), action, &exact), Verdict::Allowed);
    assert_eq!(ask(&policy, Some("app"), action, &wider), Verdict::Silent);
    assert_eq!(ask(&policy, Some("app"), action, &[]), Verdict::Denied(None));
}

#[test]
fn an_explicit_deny_wins_over_every_allow() {
    // AWS IAM, "Denies access based on the source IP", over the default key policy.
    let policy = parse(&policy(&json!([
        {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
        {
            "Sid": "Outside",
            "Effect": "Deny",
            "Principal": {"AWS": "*"},
            "Action": "*",
            "Resource": ARN,
            "Condition": {"NotIpAddress": {"aws:SourceIp": ["192.0.2.0/24", "203.0.113.0/24"]}}
        }
    ])))
    .unwrap();
    let denied = Verdict::Denied(Some("Outside".to_owned()));
    for user in [None, Some("ann")] {
        let inside = [("aws:SourceIp", "203.0.113.7")];
        assert_eq!(ask(&policy, user, "kms:Decrypt", &inside), Verdict::Allowed);
        assert_eq!(ask(&policy, user, "kms:Decrypt", &[("aws:SourceIp", "198.51.100.1")]), denied);
        assert_eq!(ask(&policy, user, "kms:PutKeyPolicy", &[]), denied);
    }
}

#[test]
fn exceptions_of_principals_actions_and_resources() {
    let policy = parse(&policy(&json!([
        {"Effect": "Allow", "Principal": "*", "NotAction": ["kms:Put*", "kms:schedule*"],
         "Resource": "*"},
        {"Sid": "Only", "Effect": "Deny", "Action": "kms:Decrypt", "Resource": "*",
         "NotPrincipal": {"AWS": ["arn:aws:iam::111122223333:user/ann", "111122223333"]}},
        {"Effect": "Deny", "Principal": "*", "Action": "kms:Encrypt", "NotResource": ARN}
    ])))
    .unwrap();
    assert_eq!(ask(&policy, Some("bob"), "kms:PutKeyPolicy", &[]), Verdict::Silent);
    assert_eq!(ask(&policy, Some("bob"), "kms:Encrypt", &[]), Verdict::Allowed);
    let denied = Verdict::Denied(Some("Only".to_owned()));
    assert_eq!(ask(&policy, Some("bob"), "kms:Decrypt", &[]), denied);
    assert_eq!(ask(&policy, Some("ann"), "kms:Decrypt", &[]), Verdict::Allowed);
    assert_eq!(ask(&policy, None, "kms:Decrypt", &[]), Verdict::Allowed);
}

#[test]
fn a_deny_of_the_account_reaches_its_users() {
    let policy = parse(&policy(&json!([
        {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
        {"Effect": "Deny", "Principal": {"AWS": "111122223333"}, "Action": "kms:Decrypt",
         "Resource": "*"}
    ])))
    .unwrap();
    assert_eq!(ask(&policy, Some("ann"), "kms:Decrypt", &[]), Verdict::Denied(None));
    assert_eq!(ask(&policy, None, "kms:Decrypt", &[]), Verdict::Denied(None));
}

/// A statement that is valid, with one member set or (`null`) taken away.
fn with_member(name: &str, value: Value) -> Value {
    let mut statement = json!({"Effect": "Allow", "Principal": "*", "Action": "kms:*",
        "Resource": "*"});
    let members = statement.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    policy(&json!([statement]))
}

#[test]
fn what_is_not_known_is_refused() {
    let foreign = "arn:aws:iam::444455556666:user/ann";
    let role = "arn:aws:iam::111122223333:role/r";
    let other_key = ARN.replace("1234abcd", "9234abcd");
    for (name, value, why) in [
        ("Effect", json!("allow"), "Effect"),
        ("Effect", Value::Null, "Effect"),
        ("Sid", json!(1), "Sid is a number"),
        ("Principals", json!("*"), "unknown element"),
        ("Principal", Value::Null, "Principal"),
        ("Principal", json!({"AWS": foreign}), "not valid in this account"),
        ("Principal", json!({"AWS": ["111122223333", "444455556666"]}), "not valid"),
        ("Principal", json!({"AWS": role}), "not valid"),
        ("Principal", json!({"AWS": "arn:aws:iam::111122223333:user/*"}), "not valid"),
        ("Principal", json!({"AWS": "arn:aws:iam::111122223333:user/"}), "not valid"),
        ("Principal", json!({"AWS": "arn:aws-cn:iam::111122223333:root"}), "not valid"),
        ("Principal", json!({"AWS": []}), "names nothing"),
        ("Principal", json!({}), "nobody"),
        ("Principal", json!("ann"), "not an object"),
        ("Principal", json!({"Service": "s3.amazonaws.com"}), "\"Service\""),
        ("NotPrincipal", json!("*"), "one of Principal"),
        ("Action", Value::Null, "one of Action"),
        ("Action", json!("s3:GetObject"), "names no action"),
        ("Action", json!("kms:Decyrpt"), "names no action"),
        ("Action", json!([]), "names nothing"),
        ("NotAction", json!("kms:Decrypt"), "one of Action"),
        ("Resource", Value::Null, "one of Resource"),
        ("Resource", json!(other_key), "is not this key"),
        ("Resource", json!(["*", ""]), "names nothing"),
        ("Condition", json!({"StringEquals": {"aws:Foo": "x"}}), "not known"),
        ("Condition", json!({"StringIs": {"kms:ViaService": "x"}}), "not known"),
        ("Condition", json!({"StringEquals": {"kms:ViaService": {}}}), "as a value"),
        ("Condition", json!({"StringEquals": {"kms:ViaService": null}}), "as a value"),
        ("Condition", json!({"StringEquals": "x"}), "not an object"),
        ("Condition", json!([]), "not an object"),
        ("Condition", json!({"StringLike": {"kms:RequestAlias": "${aws:username}"}}), "variables"),
    ] {
        let document = with_member(name, value);
        let message = parse(&document).unwrap_err();
        assert!(message.contains(why), "{document}: {message}");
    }
    assert!(parse(&with_member("Sid", json!("ok"))).is_ok());
}

#[test]
fn a_document_has_its_form() {
    for (text, why) in [
        ("", "EOF"),
        ("[]", "not an object"),
        ("{}", "no Statement"),
        (r#"{"Statement": []}"#, "no Statement"),
        (r#"{"Statement": ["x"]}"#, "not an object"),
        (r#"{"Version": "2013-01-01", "Statement": []}"#, "Version"),
        (r#"{"Statement": [], "Statements": []}"#, "unknown element"),
        (r#"{"Id": 7, "Statement": []}"#, "Id"),
        (r#"{"Id": "a", "Id": "b", "Statement": []}"#, "twice"),
    ] {
        let message = Policy::parse(text, account(), ARN).unwrap_err();
        assert!(message.contains(why), "{text}: {message}");
    }
    let long = format!("{}{}", " ".repeat(POLICY_BYTES_MAX), "{}");
    assert!(Policy::parse(&long, account(), ARN).unwrap_err().contains("longer"));
    // In the older version, `${` means itself.
    let mut old = with_member("Condition", json!({"StringLike": {"kms:RequestAlias": "${x}"}}));
    old.as_object_mut().unwrap().remove("Version");
    assert!(parse(&old).is_ok());
}

#[test]
fn principals_are_of_one_account() {
    let account = account();
    assert_eq!(user_of_arn("111122223333", account), Some(None));
    assert_eq!(user_of_arn("arn:aws:iam::111122223333:root", account), Some(None));
    assert_eq!(user_of_arn("arn:aws:iam::111122223333:user/a.b@c", account), Some(Some("a.b@c")));
    for text in [
        "",
        "444455556666",
        "arn:aws:iam::444455556666:root",
        "arn:aws:iam::111122223333",
        "arn:aws:iam::1111222233334:root",
        "arn:aws:iam::111122223333:user/a/b",
    ] {
        assert_eq!(user_of_arn(text, account), None, "{text}");
    }
}

const USERS: [Option<&str>; 3] = [None, Some("ann"), Some("bob")];
const ASKED: [&str; 4] = ["kms:Decrypt", "kms:Encrypt", "kms:PutKeyPolicy", "kms:ReEncryptTo"];
const PAIRS: [(&str, &str); 3] = [
    ("kms:ViaService", "s3.us-west-2.amazonaws.com"),
    ("kms:EncryptionContext:a", "1"),
    ("aws:SourceIp", "192.0.2.1"),
];

/// Any valid statement over a few principals, actions and conditions.
fn statements() -> impl Strategy<Value = Value> {
    let principals = select(vec![
        json!("*"),
        json!({"AWS": "111122223333"}),
        json!({"AWS": "arn:aws:iam::111122223333:user/ann"}),
        json!({"AWS": ["arn:aws:iam::111122223333:user/bob", "arn:aws:iam::111122223333:root"]}),
    ]);
    let actions = select(vec!["kms:*", "*", "kms:Decrypt", "kms:*Encrypt*", "kms:Put*"]);
    let conditions = select(vec![
        Value::Null,
        json!({"StringEquals": {"kms:ViaService": "s3.us-west-2.amazonaws.com"}}),
        json!({"StringNotEquals": {"kms:EncryptionContext:a": "1"}}),
        json!({"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}),
        json!({"StringLikeIfExists": {"kms:EncryptionContext:a": "?"}}),
        json!({"Null": {"aws:SourceIp": "true"}}),
    ]);
    let parts = (any::<bool>(), any::<bool>(), any::<bool>(), principals, actions, conditions);
    parts.prop_map(|(is_deny, excepts_who, excepts_action, principal, action, condition)| {
        let excepts_who = excepts_who && is_deny && principal != json!("*");
        let mut statement = json!({"Effect": if is_deny { "Deny" } else { "Allow" },
            "Resource": "*"});
        let members = statement.as_object_mut().unwrap();
        let name = if excepts_who { "NotPrincipal" } else { "Principal" };
        members.insert(name.to_owned(), principal);
        let name = if excepts_action { "NotAction" } else { "Action" };
        members.insert(name.to_owned(), json!(action));
        if !condition.is_null() {
            members.insert("Condition".to_owned(), condition);
        }
        statement
    })
}

/// How much a verdict allows.
fn rank(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Denied(_) => 0,
        Verdict::Silent => 1,
        Verdict::Delegated => 2,
        Verdict::Allowed => 3,
    }
}

fn ranks(all: &[Value], values: &[(&'static str, &'static str)]) -> Vec<u8> {
    if all.is_empty() {
        return vec![1; USERS.len() * ASKED.len()];
    }
    let policy = parse(&policy(&json!(all))).unwrap();
    let questions = USERS.iter().flat_map(|user| ASKED.iter().map(move |action| (*user, *action)));
    questions.map(|(user, action)| rank(&ask(&policy, user, action, values))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn one_more_deny_and_one_allow_less_never_allow_more(
        all in prop::collection::vec(statements(), 1..6),
        index in any::<prop::sample::Index>(),
        values in subsequence(PAIRS.to_vec(), 0..=3),
    ) {
        let index = index.index(all.len());
        let mut without = all.clone();
        let statement = without.remove(index);
        let (with, without) = (ranks(&all, &values), ranks(&without, &values));
        for (with, without) in with.iter().zip(&without) {
            if statement["Effect"] == "Deny" {
                prop_assert!(with <= without, "{statement} allowed more");
            } else {
                prop_assert!(with >= without, "{statement} allowed less");
            }
        }
    }

    #[test]
    fn the_order_of_statements_means_nothing(
        all in prop::collection::vec(statements(), 1..6),
        values in subsequence(PAIRS.to_vec(), 0..=3),
    ) {
        let reversed: Vec<_> = all.iter().rev().cloned().collect();
        prop_assert_eq!(ranks(&all, &values), ranks(&reversed, &values));
    }

    #[test]
    fn no_text_makes_the_reader_fail_badly(text in ".{0,200}") {
        let _ = Policy::parse(&text, account(), ARN);
    }
}
