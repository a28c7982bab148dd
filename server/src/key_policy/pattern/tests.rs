//! The matcher against one that is slow and plain.

use proptest::prelude::*;

use super::*;

/// What a pattern means, written down directly.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|taken| naive(rest, &text[taken..])),
        Some((wanted, rest)) => text
            .split_first()
            .is_some_and(|(found, text)| (*wanted == '?' || wanted == found) && naive(rest, text)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn it_says_what_the_plain_matcher_says(pattern in "[ab*?é]{0,8}", text in "[abé]{0,10}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(matches(&pattern, &text), naive(&chars(&pattern), &chars(&text)));
    }
}

#[test]
fn examples() {
    for (pattern, text, want) in [
        ("kms:ReEncrypt*", "kms:ReEncryptFrom", true),
        ("kms:ReEncrypt*", "kms:Reencrypt", false),
        ("*", "", true),
        ("?", "", false),
        ("s3.*.amazonaws.com", "s3.eu-west-1.amazonaws.com", true),
        ("s3.*.amazonaws.com", "s3.eu-west-1.amazonaws.com.evil", false),
        ("a**b", "ab", true),
        ("", "a", false),
    ] {
        assert_eq!(matches(pattern, text), want, "{pattern} on {text}");
    }
}

#[test]
fn a_hard_pattern_takes_no_exponential_time() {
    let pattern = "a*".repeat(500) + "b";
    assert!(!matches(&pattern, &"a".repeat(5_000)));
}

#[test]
fn a_wildcard_stays_inside_its_part_of_an_arn() {
    let arn = "arn:aws:iam::111122223333:user/ann";
    assert!(matches_arn("arn:aws:iam::*:user/a*", arn));
    assert!(matches_arn("arn:aws:*::111122223333:*", arn));
    assert!(!matches_arn("arn:*:user/ann", arn));
    assert!(!matches_arn("arn:aws:iam:*", arn));
    assert!(matches_arn("arn:aws:s3:::a:b*", "arn:aws:s3:::a:bc"));
}
