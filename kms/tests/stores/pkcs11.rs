//! PKCS#11, over SoftHSM2. scripts/test makes the token; the keys are made here.

use std::sync::Arc;
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use kluis_kms::{Pkcs11Settings, Pkcs11Store, RemoteKeyStore, RootInStore, SeededRng};

use crate::contract::{Subject, check_remote_store, check_root_store, context};
use crate::peers::{private_file, required};
use crate::{ErrorKind, StoreSecret};

const TOKEN: &str = "kluis-test";
const PIN: &str = "482615";

fn store(pin: &str, token: &str, dir: &tempfile::TempDir) -> Pkcs11Store {
    let pin_file = private_file(dir.path(), "pin", &format!("{pin}\n"));
    let settings = Pkcs11Settings {
        module: &required("KLUIS_PKCS11_MODULE"),
        token,
        pin_file: &pin_file,
        timeout: Duration::from_secs(5),
    };
    Pkcs11Store::new(&settings, Arc::new(SeededRng::new(u64::from(std::process::id()))))
}

/// A session to make keys in. Each test has a process of its own, and labels of its own.
fn maker() -> Session {
    let module = Pkcs11::new(required("KLUIS_PKCS11_MODULE")).unwrap();
    // Initialised already where a store was there first.
    let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    let slots = module.get_slots_with_initialized_token().unwrap();
    let is_ours = |slot: &cryptoki::slot::Slot| {
        module.get_token_info(*slot).unwrap().label().trim_end() == TOKEN
    };
    let slot = slots.into_iter().find(is_ours).expect("scripts/test makes the token");
    let session = module.open_rw_session(slot).unwrap();
    let _ = session.login(UserType::User, Some(&AuthPin::from(PIN.to_owned())));
    session
}

fn make_key(session: &Session, label: &str, (bytes, may_leave): (u64, bool)) {
    let template = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(!may_leave),
        Attribute::Extractable(may_leave),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::ValueLen(bytes.into()),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
}

fn label(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn kind<T>(result: crate::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn pkcs11_keeps_the_contract() {
    let (dir, session) = (tempfile::tempdir().unwrap(), maker());
    let names = ["one", "two", "doomed"].map(label);
    for name in &names {
        make_key(&session, name, (32, false));
    }
    let store = store(PIN, TOKEN, &dir);
    let [one, two, doomed] = &names;
    check_remote_store(&Subject {
        store: &store,
        store_key: one,
        other_key: two,
        doomed_key: doomed,
        every_bit: true,
    });
}

#[test]
fn a_root_in_a_token_keeps_the_contract() {
    let (dir, session) = (tempfile::tempdir().unwrap(), maker());
    let [one, two] = ["root-one", "root-two"].map(label);
    for name in [&one, &two] {
        make_key(&session, name, (32, false));
    }
    let root = |store_key: &str| {
        let store: Arc<dyn RemoteKeyStore> = Arc::new(store(PIN, TOKEN, &dir));
        RootInStore::new(store, store_key, Arc::new(SeededRng::new(2)))
    };
    check_root_store(&root(&one), &root(&two));
}

#[test]
fn keys_that_may_leave_or_are_short_or_ambiguous_are_refused() {
    let (dir, session) = (tempfile::tempdir().unwrap(), maker());
    let [leaves, short, twin] = ["leaves", "short", "twin"].map(label);
    make_key(&session, &leaves, (32, true));
    make_key(&session, &short, (16, false));
    make_key(&session, &twin, (32, false));
    make_key(&session, &twin, (32, false));
    let store = store(PIN, TOKEN, &dir);
    let secret = StoreSecret::generate(&SeededRng::new(1)).unwrap();
    for name in [&leaves, &short, &twin] {
        let wrapped = store.wrap(name, &context(&[]), &secret);
        assert_eq!(kind(wrapped), Some(ErrorKind::Refused), "{name}");
    }
}

#[test]
fn a_wrong_pin_or_token_is_an_error_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let absent = store(PIN, "no-such-token", &dir);
    assert_eq!(kind(absent.health()), Some(ErrorKind::Unavailable));
    let wrong = store("000000", TOKEN, &dir);
    // More often than a token lets a PIN be wrong.
    for _ in 0..20 {
        assert_eq!(kind(wrong.health()), Some(ErrorKind::AccessDenied));
    }
    private_file(dir.path(), "pin", PIN);
    wrong.health().unwrap();
}

#[test]
fn many_threads_share_a_token() {
    let (dir, session) = (tempfile::tempdir().unwrap(), maker());
    let name = label("shared");
    make_key(&session, &name, (32, false));
    let store = store(PIN, TOKEN, &dir);
    std::thread::scope(|scope| {
        for seed in 0..16 {
            let (store, name) = (&store, &name);
            scope.spawn(move || {
                let secret = StoreSecret::generate(&SeededRng::new(seed)).unwrap();
                for _ in 0..20 {
                    let blob = store.wrap(name, &context(&[]), &secret).unwrap();
                    let opened = store.unwrap(name, &context(&[]), &blob).unwrap();
                    assert!(opened.matches(&secret));
                }
            });
        }
    });
}
