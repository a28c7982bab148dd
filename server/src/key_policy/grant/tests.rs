//! What a grant allows, and which one is no wider than another.

use super::*;

const ANN: &str = "arn:aws:iam::111122223333:user/ann";

fn account() -> AccountId {
    AccountId::parse(b"111122223333").unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> Pairs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn new(operations: &[&str], constraint: Option<Constraint>) -> NewGrant {
    NewGrant {
        grantee: ANN.to_owned(),
        operations: operations.iter().map(ToString::to_string).collect(),
        constraint,
        ..NewGrant::default()
    }
}

fn grant(operations: &[&str], constraint: Option<Constraint>) -> Grant {
    let new = new(operations, constraint).checked(account()).unwrap();
    Grant {
        grant_id: "0".repeat(GRANT_ID_CHARS),
        issuer: "arn:aws:iam::111122223333:root".to_owned(),
        grantee: new.grantee,
        retiring: None,
        operations: new.operations,
        constraint: new.constraint,
        name: None,
        created_ms: 1,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as grants take it")]
fn equals(of: &[(&str, &str)]) -> Option<Constraint> {
    Some(Constraint::EncryptionContextEquals(pairs(of)))
}

#[expect(clippy::unnecessary_wraps, reason = "as grants take it")]
fn subset(of: &[(&str, &str)]) -> Option<Constraint> {
    Some(Constraint::EncryptionContextSubset(pairs(of)))
}

#[test]
fn a_grant_is_for_one_principal_and_its_operations() {
    let grant = grant(&["Decrypt", "DescribeKey"], None);
    let context = pairs(&[]);
    assert!(grant.allows(ANN, "kms:Decrypt", &context));
    assert!(!grant.allows(ANN, "kms:Encrypt", &context));
    assert!(!grant.allows(ANN, "Decrypt", &context));
    assert!(!grant.allows("arn:aws:iam::111122223333:user/an", "kms:Decrypt", &context));
}

#[test]
fn constraints_bind_what_takes_an_encryption_context() {
    let exact = grant(&["Decrypt", "DescribeKey"], equals(&[("a", "1")]));
    let part = grant(&["Decrypt"], subset(&[("a", "1")]));
    for (context, by_exact, by_part) in [
        (pairs(&[("a", "1")]), true, true),
        (pairs(&[("a", "1"), ("b", "2")]), false, true),
        (pairs(&[("A", "1")]), false, false),
        (pairs(&[("a", "2")]), false, false),
        (pairs(&[]), false, false),
    ] {
        assert_eq!(exact.allows(ANN, "kms:Decrypt", &context), by_exact, "{context:?}");
        assert_eq!(part.allows(ANN, "kms:Decrypt", &context), by_part, "{context:?}");
        assert!(exact.allows(ANN, "kms:DescribeKey", &context));
    }
}

#[test]
fn a_grant_that_is_handed_on_is_no_wider() {
    let all = &["CreateGrant", "Decrypt"][..];
    for (parent, child, is_within) in [
        (grant(all, None), new(&["Decrypt"], None), true),
        (grant(all, None), new(&["Encrypt"], None), false),
        (grant(all, subset(&[("a", "1")])), new(&["Decrypt"], None), false),
        (grant(all, subset(&[("a", "1")])), new(all, subset(&[("a", "1"), ("b", "2")])), true),
        (grant(all, subset(&[("a", "1")])), new(all, equals(&[("a", "1")])), true),
        (grant(all, subset(&[("a", "1")])), new(all, equals(&[("a", "2")])), false),
        (grant(all, equals(&[("a", "1")])), new(all, equals(&[("a", "1")])), true),
        (grant(all, equals(&[("a", "1")])), new(all, subset(&[("a", "1")])), false),
        (grant(all, equals(&[("a", "1")])), new(all, equals(&[("a", "1"), ("b", "2")])), false),
    ] {
        assert_eq!(child.is_within(&parent), is_within, "{child:?} of {parent:?}");
    }
}

#[test]
fn parameters_are_checked() {
    let long = "x".repeat(CONSTRAINT_CHARS_MAX + 1);
    let many: Pairs = (0..=CONSTRAINT_PAIRS_MAX).map(|n| (n.to_string(), String::new())).collect();
    let bad = |edit: &dyn Fn(&mut NewGrant)| {
        let mut grant = new(&["Decrypt"], None);
        edit(&mut grant);
        grant.checked(account()).unwrap_err()
    };
    let foreign = "arn:aws:iam::444455556666:user/ann";
    assert!(bad(&|grant| grant.grantee = foreign.to_owned()).contains("principal"));
    assert!(bad(&|grant| grant.grantee = "*".to_owned()).contains("principal"));
    assert!(bad(&|grant| grant.retiring = Some(foreign.to_owned())).contains("principal"));
    assert!(bad(&|grant| grant.operations.clear()).contains("at least one"));
    assert!(bad(&|grant| grant.operations = vec!["Sign".to_owned()]).contains("\"Sign\""));
    assert!(bad(&|grant| grant.name = Some(String::new())).contains("name"));
    assert!(bad(&|grant| grant.name = Some("a b".to_owned())).contains("name"));
    assert!(bad(&|grant| grant.constraint = equals(&[("a", &long)])).contains("constraint"));
    let too_many = Some(Constraint::EncryptionContextSubset(many));
    assert!(bad(&|grant| grant.constraint.clone_from(&too_many)).contains("constraint"));
}

#[test]
fn principals_and_operations_have_one_form() {
    let mut grant = new(&["Encrypt", "Decrypt", "Encrypt"], None);
    grant.grantee = "111122223333".to_owned();
    let grant = grant.checked(account()).unwrap();
    assert_eq!(grant.grantee, "arn:aws:iam::111122223333:root");
    assert_eq!(grant.operations, ["Decrypt", "Encrypt"]);
}

#[test]
fn bytes_are_read_back() {
    let mut kept = grant(&["Decrypt"], subset(&[("a", "1")]));
    kept.name = Some("n".to_owned());
    assert_eq!(Grant::decode(&kept.encode()), Some(kept.clone()));
    let text = String::from_utf8(kept.encode()).unwrap();
    assert!(text.contains(r#""Constraint":{"EncryptionContextSubset":{"a":"1"}}"#), "{text}");
    assert_eq!(Grant::decode(text.replace("Issuer", "Issued").as_bytes()), None);
}
