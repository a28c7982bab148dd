//! The XKS proxy API, over the proxy in tests/clients/xks_proxy.py.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kluis_kms::{Env, GuardLimits, Guarded, RemoteKeyStore, SystemClock, XksSettings, XksStore};

use crate::contract::{Subject, check_remote_store, context};
use crate::peers::{Peer, free_port, private_file, required};
use crate::{ErrorKind, SeededRng, StoreSecret};

const ACCESS_KEY: &str = "AKIAXKSPROXYTEST";
const SECRET: &str = "aTestsSecretAccessKeyOfFortyCharacters00";
const TIMEOUT: Duration = Duration::from_secs(5);

struct Proxy {
    peer: Peer,
    url: String,
    mood_file: PathBuf,
    key_file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Proxy {
    fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let key_file = private_file(dir.path(), "access-key", &format!("{ACCESS_KEY}\n{SECRET}\n"));
        let mood_file = private_file(dir.path(), "mood", "well");
        let mut command = Command::new(required("KLUIS_PYTHON"));
        command
            .arg("-B")
            .arg(required("KLUIS_XKS_PROXY"))
            .args(["--port", &port.to_string(), "--prefix", "/tenants/acme"])
            .args(["--key", "one", "--key", "two", "--key", "doomed"])
            .arg("--access-key-file")
            .arg(private_file(dir.path(), "proxy-key", &format!("{ACCESS_KEY}\n{SECRET}\n")))
            .arg("--mood-file")
            .arg(&mood_file);
        let peer = Peer::start(&mut command, port);
        let url = format!("http://127.0.0.1:{port}/tenants/acme");
        Self { peer, url, mood_file, key_file, _dir: dir }
    }

    fn store(&self, timeout: Duration) -> XksStore {
        let settings = XksSettings {
            url: &self.url,
            region: "eu-test-1",
            ca_file: None,
            access_key_file: &self.key_file,
            timeout,
        };
        XksStore::new(&settings, &Env::system()).unwrap()
    }

    fn be(&self, mood: &str) {
        std::fs::write(&self.mood_file, mood).unwrap();
    }
}

fn secret() -> StoreSecret {
    StoreSecret::generate(&SeededRng::new(1)).unwrap()
}

fn kind<T>(result: crate::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn xks_keeps_the_contract() {
    let proxy = Proxy::start();
    let store = proxy.store(TIMEOUT);
    check_remote_store(&Subject {
        store: &store,
        store_key: "one",
        other_key: "two",
        doomed_key: "doomed",
        every_bit: true,
    });
}

#[test]
fn a_wrong_access_key_is_refused() {
    let proxy = Proxy::start();
    for file in [format!("{ACCESS_KEY}\nanother secret"), format!("AKIAOTHER\n{SECRET}")] {
        std::fs::write(&proxy.key_file, file).unwrap();
        assert_eq!(kind(proxy.store(TIMEOUT).health()), Some(ErrorKind::AccessDenied));
    }
    std::fs::write(&proxy.key_file, format!("{ACCESS_KEY}\n{SECRET}")).unwrap();
    proxy.store(TIMEOUT).health().unwrap();
}

#[test]
fn what_the_tenant_switches_off_stays_off_until_it_is_on_again() {
    let proxy = Proxy::start();
    let store = proxy.store(TIMEOUT);
    let blob = store.wrap("one", &context(&[]), &secret()).unwrap();
    let moods = [
        ("denied", ErrorKind::AccessDenied),
        ("disabled", ErrorKind::KeyDisabled),
        ("failing", ErrorKind::Unavailable),
        ("garbage", ErrorKind::Unavailable),
        ("throttling", ErrorKind::Unavailable),
    ];
    for (mood, expected) in moods {
        proxy.be(mood);
        assert_eq!(kind(store.unwrap("one", &context(&[]), &blob)), Some(expected), "{mood}");
        assert_eq!(kind(store.wrap("one", &context(&[]), &secret())), Some(expected), "{mood}");
    }
    proxy.be("well");
    assert!(store.unwrap("one", &context(&[]), &blob).unwrap().matches(&secret()));
}

#[test]
fn a_slow_or_dead_proxy_is_unavailable_in_time_and_comes_back() {
    let proxy = Proxy::start();
    let blob = proxy.store(TIMEOUT).wrap("one", &context(&[]), &secret()).unwrap();
    let limit = Duration::from_millis(250);
    let limits = GuardLimits { failures_max: 1000, ..GuardLimits::with_timeout(limit) };
    let store = Arc::new(proxy.store(limit));
    let guarded = Guarded::new(store, limits, Arc::new(SystemClock));
    proxy.be("slow");
    let begun = kluis_kms::Clock::monotonic_ns(&SystemClock);
    assert_eq!(kind(guarded.unwrap("one", &context(&[]), &blob)), Some(ErrorKind::Unavailable));
    let waited_ms = (kluis_kms::Clock::monotonic_ns(&SystemClock) - begun) / 1_000_000;
    assert!(waited_ms < 1_500, "{waited_ms} ms for a limit of 250 ms");
    proxy.be("well");
    assert!(proxy.store(TIMEOUT).unwrap("one", &context(&[]), &blob).unwrap().matches(&secret()));
    let patient = proxy.store(TIMEOUT);
    drop(proxy.peer);
    assert_eq!(kind(patient.unwrap("one", &context(&[]), &blob)), Some(ErrorKind::Unavailable));
    assert_eq!(kind(patient.health()), Some(ErrorKind::Unavailable));
}
