//! Tests of ids and of the canonical encoding.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::env::SeededRng;
use crate::fixtures::{ramp, version_context};

fn with_all<'a>(
    entries: impl IntoIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
) -> EncryptionContext {
    entries
        .into_iter()
        .fold(EncryptionContext::new(), |context, (name, value)| context.with(name, value).unwrap())
}

/// Reads an encoding back; what it says, it says in one way only.
fn decode(bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let (count, mut rest) = bytes.split_first_chunk()?;
    let mut entries = BTreeMap::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk()?;
        let (name, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (length, tail) = tail.split_first_chunk()?;
        let (value, tail) = tail.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        entries.insert(name.to_vec(), value.to_vec());
        rest = tail;
    }
    rest.is_empty().then_some(entries)
}

#[test]
fn the_known_answer_holds_whatever_the_order_of_entries() {
    let digest = version_context(ramp(0x30)).digest();
    let want = "866ecdc761ea72b484e1f3443307830c3f68f92575bf3e98946b347f418b22dd";
    assert_eq!(hex::encode(digest), want);
}

#[test]
fn an_empty_context_is_a_count_of_zero() {
    assert_eq!(EncryptionContext::new().encode(), [0, 0]);
}

#[test]
fn lengths_keep_neighbours_apart() {
    let left = EncryptionContext::new().with(b"a", b"bc").unwrap();
    let right = EncryptionContext::new().with(b"ab", b"c").unwrap();
    assert_ne!(left.encode(), right.encode());
}

#[test]
fn a_duplicate_name_is_refused() {
    let error = EncryptionContext::new().with(b"a", b"1").unwrap().with(b"a", b"1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
}

#[test]
fn the_limits_hold() {
    let long_name = vec![b'n'; CONTEXT_NAME_BYTES_MAX];
    let long_value = vec![b'v'; CONTEXT_VALUE_BYTES_MAX];
    EncryptionContext::new().with(&long_name, &long_value).unwrap().encode();
    let refused = |name: &[u8], value: &[u8]| {
        EncryptionContext::new().with(name, value).unwrap_err().kind() == ErrorKind::Misuse
    };
    assert!(refused(&[long_name.as_slice(), b"n"].concat(), b""));
    assert!(refused(b"n", &[long_value.as_slice(), b"v"].concat()));
    let full = (0..CONTEXT_ENTRIES_MAX).fold(EncryptionContext::new(), |context, entry| {
        context.with(entry.to_string().as_bytes(), b"").unwrap()
    });
    full.encode();
    assert_eq!(full.with(b"one more", b"").unwrap_err().kind(), ErrorKind::Misuse);
}

#[test]
fn debug_shows_no_value() {
    let context = EncryptionContext::new().with(b"k", b"canary-name").unwrap();
    let shown = format!("{context:?}");
    assert_eq!(shown, r#"{"k": 11}"#);
}

#[test]
fn ids_read_back_from_their_text() {
    let id = TenantId::random(&SeededRng::new(1));
    assert_eq!(id.to_string().len(), 32);
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(format!("{id:?}"), id.to_string());
    for text in ["", "00", &"A".repeat(32), &"g".repeat(32), &"0".repeat(33), &"é".repeat(16)] {
        assert_eq!(text.parse::<TenantId>(), Err(ParseIdError), "{text}");
    }
}

proptest! {
    #[test]
    fn encoding_is_canonical_and_injective(
        entries in btree_map(vec(any::<u8>(), 0..12), vec(any::<u8>(), 0..40), 0..8),
    ) {
        let sorted = with_all(&entries);
        let reversed = with_all(entries.iter().rev());
        prop_assert_eq!(sorted.encode(), reversed.encode());
        prop_assert_eq!(sorted.digest(), reversed.digest());
        prop_assert_eq!(decode(&sorted.encode()), Some(entries));
    }

    #[test]
    fn the_digest_without_allocation_is_the_same(
        left in vec(any::<u8>(), 0..40),
        right in vec(any::<u8>(), 0..40),
    ) {
        let context = EncryptionContext::new().with(b"f", &left).unwrap();
        let context = context.with(b"k", &right).unwrap();
        prop_assert_eq!(context_digest(&[(b"f", &left), (b"k", &right)]), context.digest());
    }
}
