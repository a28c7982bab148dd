//! What every key store must do, whatever it is.
//!
//! Written against the package's public list only (`crate::…`), so that it runs twice: here over
//! the stores without a peer, and in `kms/tests/stores`, which has the peers.
//! Owns: the suite. Knows nothing of: which store it judges.

use crate::{
    EncryptionContext, ErrorKind, KeyStore, RemoteKeyStore, Result, RootKey, STORE_BLOB_BYTES_MAX,
    SeededRng, StoreBlob, StoreSecret,
};

/// One store under test, with keys that it has.
pub(crate) struct Subject<'a> {
    pub(crate) store: &'a dyn RemoteKeyStore,
    pub(crate) store_key: &'a str,
    pub(crate) other_key: &'a str,
    /// A key that the suite may destroy, where the store destroys any.
    pub(crate) doomed_key: &'a str,
    /// Tries every bit of a blob; else one bit of each byte.
    pub(crate) every_bit: bool,
}

pub(crate) fn context(values: &[(&[u8], &[u8])]) -> EncryptionContext {
    values
        .iter()
        .fold(EncryptionContext::new(), |context, (name, value)| context.with(name, value).unwrap())
}

/// Contexts that a sloppy encoding would take for one another, and long ones.
fn contexts() -> Vec<EncryptionContext> {
    vec![
        context(&[]),
        context(&[(b"", b"")]),
        context(&[(b"a", b"bc")]),
        context(&[(b"ab", b"c")]),
        context(&[(b"a", b"b"), (b"c", b"")]),
        context(&[(b"a", b"b"), (b"", b"c")]),
        context(&[(b"t", &[0; 16])]),
        context(&[(b"t", &[0; 17])]),
        context(&[(b"\0", b"\xff\n\"\\")]),
        context(&[(b"long", &[0x5a; 4000])]),
    ]
}

fn secret(seed: u64) -> StoreSecret {
    StoreSecret::generate(&SeededRng::new(seed)).unwrap()
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// The whole suite for stores of tenant keys.
pub(crate) fn check_remote_store(subject: &Subject<'_>) {
    subject.store.health().unwrap();
    check_capabilities(subject);
    check_round_trips(subject);
    check_binding(subject);
    check_damage(subject);
    check_ids(subject);
    check_rewrap(subject);
    check_destroy(subject);
}

fn check_capabilities(subject: &Subject<'_>) {
    let capabilities = subject.store.capabilities();
    assert!(!capabilities.name.is_empty());
    assert!(capabilities.remote_latency.is_some(), "a remote store says how long a call takes");
}

fn check_round_trips(subject: &Subject<'_>) {
    let (store, store_key) = (subject.store, subject.store_key);
    for (seed, context) in (0..).zip(contexts()) {
        let secret = secret(seed);
        let blob = store.wrap(store_key, &context, &secret).unwrap();
        assert!(blob.as_bytes().len() <= STORE_BLOB_BYTES_MAX);
        let again = store.wrap(store_key, &context, &secret).unwrap();
        assert_ne!(blob, again, "no two wraps are alike");
        assert!(store.unwrap(store_key, &context, &blob).unwrap().matches(&secret));
        assert!(store.unwrap(store_key, &context, &again).unwrap().matches(&secret));
    }
}

fn check_binding(subject: &Subject<'_>) {
    let (store, store_key) = (subject.store, subject.store_key);
    let all = contexts();
    for (index, made_with) in all.iter().enumerate() {
        let blob = store.wrap(store_key, made_with, &secret(7)).unwrap();
        for (other, opened_with) in all.iter().enumerate().filter(|(other, _)| *other != index) {
            let opened = store.unwrap(store_key, opened_with, &blob);
            assert_eq!(kind(opened), Some(ErrorKind::Corrupt), "{index} opened as {other}");
        }
        let opened = store.unwrap(subject.other_key, made_with, &blob);
        assert_eq!(kind(opened), Some(ErrorKind::Corrupt), "{index} opened with another key");
    }
}

/// Damage is an error of its own: no store may answer that it is down, or give bytes.
fn check_damage(subject: &Subject<'_>) {
    let (store, store_key) = (subject.store, subject.store_key);
    let context = context(&[(b"a", b"b")]);
    let blob = store.wrap(store_key, &context, &secret(3)).unwrap();
    let bytes = blob.as_bytes();
    let open = |bytes: Vec<u8>| match StoreBlob::new(bytes) {
        Ok(blob) => kind(store.unwrap(store_key, &context, &blob)),
        Err(error) => Some(error.kind()),
    };
    for place in 0..bytes.len() {
        let bits = if subject.every_bit { 0..8 } else { place % 8..place % 8 + 1 };
        for bit in bits {
            let mut damaged = bytes.to_vec();
            damaged[place] ^= 1 << bit;
            assert_eq!(open(damaged), Some(ErrorKind::Corrupt), "bit {bit} of byte {place}");
        }
    }
    for length in 0..bytes.len() {
        let cut = open(bytes[..length].to_vec());
        assert_eq!(cut, Some(ErrorKind::Corrupt), "cut to {length}");
    }
    assert_eq!(open([bytes, &[0]].concat()), Some(ErrorKind::Corrupt), "a byte too many");
    assert_eq!(open(vec![0; STORE_BLOB_BYTES_MAX + 1]), Some(ErrorKind::Corrupt));
    assert!(store.unwrap(store_key, &context, &blob).unwrap().matches(&secret(3)));
}

fn check_ids(subject: &Subject<'_>) {
    let store = subject.store;
    let context = context(&[]);
    let blob = store.wrap(subject.store_key, &context, &secret(1)).unwrap();
    for absent in ["no-such-key", "kluis_absent.1"] {
        let wrapped = store.wrap(absent, &context, &secret(1));
        assert_eq!(kind(wrapped), Some(ErrorKind::NotFound), "{absent}");
        let opened = store.unwrap(absent, &context, &blob);
        assert_eq!(kind(opened), Some(ErrorKind::NotFound), "{absent}");
    }
    for no_id in ["", ".", "..", "a/b", "../keys", "a b", "a?b", "a%2fb", "ключ", &"a".repeat(129)]
    {
        let wrapped = store.wrap(no_id, &context, &secret(1));
        assert_eq!(kind(wrapped), Some(ErrorKind::Refused), "{no_id}");
        let opened = store.unwrap(no_id, &context, &blob);
        assert_eq!(kind(opened), Some(ErrorKind::Refused), "{no_id}");
        assert_eq!(kind(store.destroy(no_id)), Some(ErrorKind::Refused), "{no_id}");
    }
}

fn check_rewrap(subject: &Subject<'_>) {
    let (store, store_key) = (subject.store, subject.store_key);
    let (right, wrong) = (context(&[(b"a", b"b")]), context(&[(b"a", b"c")]));
    let blob = store.wrap(store_key, &right, &secret(5)).unwrap();
    assert!(store.capabilities().can_rewrap);
    let rewrapped = store.rewrap(store_key, &right, &blob).unwrap();
    assert_ne!(rewrapped, blob);
    assert!(store.unwrap(store_key, &right, &rewrapped).unwrap().matches(&secret(5)));
    assert!(store.unwrap(store_key, &right, &blob).unwrap().matches(&secret(5)));
    assert_eq!(kind(store.rewrap(store_key, &wrong, &blob)), Some(ErrorKind::Corrupt));
    assert_eq!(kind(store.unwrap(store_key, &wrong, &rewrapped)), Some(ErrorKind::Corrupt));
}

fn check_destroy(subject: &Subject<'_>) {
    let (store, doomed) = (subject.store, subject.doomed_key);
    let context = context(&[]);
    let blob = store.wrap(doomed, &context, &secret(9)).unwrap();
    let kept = store.wrap(subject.store_key, &context, &secret(9)).unwrap();
    if store.capabilities().can_destroy {
        store.destroy(doomed).unwrap();
        let opened = store.unwrap(doomed, &context, &blob);
        assert_eq!(kind(opened), Some(ErrorKind::NotFound));
        let wrapped = store.wrap(doomed, &context, &secret(9));
        assert_eq!(kind(wrapped), Some(ErrorKind::NotFound), "a key is not made by accident");
        assert_eq!(kind(store.destroy(doomed)), Some(ErrorKind::NotFound));
    } else {
        assert_eq!(kind(store.destroy(doomed)), Some(ErrorKind::Refused));
        assert!(store.unwrap(doomed, &context, &blob).unwrap().matches(&secret(9)));
    }
    assert!(store.unwrap(subject.store_key, &context, &kept).unwrap().matches(&secret(9)));
}

/// The contract of what seals the root key: bound to its context, damage told from a wrong secret.
/// Opens without the store's secret: `stranger` is a store of the same kind with another one.
pub(crate) fn check_root_store(store: &dyn KeyStore, stranger: &dyn KeyStore) {
    store.health().unwrap();
    assert!(!store.capabilities().name.is_empty());
    let (first, second) = (context(&[(b"e", &[1])]), context(&[(b"e", &[2])]));
    let root_key = RootKey::generate(&SeededRng::new(2)).unwrap();
    let sealed = store.seal_root(&root_key, &first).unwrap();
    let again = store.seal_root(&store.unseal_root(&sealed, &first).unwrap(), &first).unwrap();
    assert_ne!(again, sealed, "a salt per seal");
    store.unseal_root(&again, &first).unwrap();
    // What is kept while the node runs seals the next epoch, and the store opens it at a start.
    let shared = store.share().unwrap();
    let next = shared.seal_root(&root_key, &second).unwrap();
    assert_ne!(next, shared.seal_root(&root_key, &second).unwrap(), "a salt per seal");
    assert!(store.unseal_root(&next, &second).unwrap().matches(&root_key));
    assert!(shared.unseal_root(&next, &second).unwrap().matches(&root_key));
    assert_eq!(shared.capabilities(), store.capabilities());

    let wrong = Some(ErrorKind::WrongPassphrase);
    assert_eq!(kind(stranger.unseal_root(&sealed, &first)), wrong);
    assert_eq!(kind(store.unseal_root(&sealed, &second)), wrong);
    for length in [0, 2, 47, sealed.len() - 1] {
        let short = store.unseal_root(&sealed[..length], &first);
        assert_eq!(kind(short), Some(ErrorKind::Corrupt));
    }
    let long = [sealed.as_slice(), &[0]].concat();
    assert_eq!(kind(store.unseal_root(&long, &first)), Some(ErrorKind::Corrupt));
}
