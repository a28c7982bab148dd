//! Transit, over an OpenBao server.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kluis_kms::{
    GuardLimits, Guarded, RemoteKeyStore, RootInStore, SeededRng, SystemClock, TransitSettings,
    TransitStore,
};

use crate::contract::{Subject, check_remote_store, check_root_store, context};
use crate::peers::{Peer, free_port, private_file, required};
use crate::{ErrorKind, StoreSecret};

const ROOT_TOKEN: &str = "test-root-token";
const TIMEOUT: Duration = Duration::from_secs(10);

struct Bao {
    peer: Peer,
    binary: PathBuf,
    url: String,
    dir: tempfile::TempDir,
    token_file: PathBuf,
}

impl Bao {
    fn start() -> Self {
        let (binary, port) = (required("KLUIS_BAO"), free_port());
        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(&binary);
        command
            .args(["server", "-dev", "-dev-no-store-token", "-log-level=error"])
            .args([format!("-dev-root-token-id={ROOT_TOKEN}")])
            .args([format!("-dev-listen-address={address}")])
            .env("HOME", dir.path())
            .stderr(Stdio::null());
        let peer = Peer::start(&mut command, port);
        let token_file = private_file(dir.path(), "token", &format!("{ROOT_TOKEN}\n"));
        let bao = Self { peer, binary, url: format!("http://{address}"), dir, token_file };
        bao.run(&["secrets", "enable", "transit"]);
        for name in ["one", "two", "doomed"] {
            bao.run(&["write", "-f", &format!("transit/keys/{name}"), "type=aes256-gcm96"]);
        }
        bao
    }

    fn run(&self, args: &[&str]) -> String {
        let output = Command::new(&self.binary)
            .args(args)
            .env("BAO_ADDR", &self.url)
            .env("BAO_TOKEN", ROOT_TOKEN)
            .env("HOME", self.dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn store(&self, timeout: Duration) -> TransitStore {
        let settings = TransitSettings {
            url: &self.url,
            mount: "transit",
            ca_file: None,
            token_file: &self.token_file,
            timeout,
        };
        TransitStore::new(&settings).unwrap()
    }
}

fn secret() -> StoreSecret {
    StoreSecret::generate(&SeededRng::new(1)).unwrap()
}

fn kind<T>(result: crate::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn transit_keeps_the_contract() {
    let bao = Bao::start();
    let store = bao.store(TIMEOUT);
    check_remote_store(&Subject {
        store: &store,
        store_key: "one",
        other_key: "two",
        doomed_key: "doomed",
        every_bit: true,
    });
}

#[test]
fn a_root_in_transit_keeps_the_contract() {
    let bao = Bao::start();
    let root = |store_key| {
        let store: Arc<dyn RemoteKeyStore> = Arc::new(bao.store(TIMEOUT));
        RootInStore::new(store, store_key, Arc::new(SeededRng::new(2)))
    };
    check_root_store(&root("one"), &root("two"));
}

#[test]
fn a_rewrap_moves_to_the_newest_version_and_an_old_one_can_be_given_up() {
    let (bao, context) = (Bao::start(), context(&[(b"a", b"b")]));
    let store = bao.store(TIMEOUT);
    let old = store.wrap("one", &context, &secret()).unwrap();
    assert_eq!(old.as_bytes()[..4], [0, 0, 0, 1]);
    bao.run(&["write", "-f", "transit/keys/one/rotate"]);
    let new = store.rewrap("one", &context, &old).unwrap();
    assert_eq!(new.as_bytes()[..4], [0, 0, 0, 2]);
    assert!(store.unwrap("one", &context, &old).unwrap().matches(&secret()));
    bao.run(&["write", "transit/keys/one/config", "min_decryption_version=2"]);
    assert_eq!(kind(store.unwrap("one", &context, &old)), Some(ErrorKind::KeyDisabled));
    assert!(store.unwrap("one", &context, &new).unwrap().matches(&secret()));
}

#[test]
fn keys_that_do_not_bind_a_context_are_refused() {
    let bao = Bao::start();
    let store = bao.store(TIMEOUT);
    bao.run(&["write", "-f", "transit/keys/rsa", "type=rsa-2048"]);
    bao.run(&["write", "-f", "transit/keys/derived", "type=aes256-gcm96", "derived=true"]);
    bao.run(&["write", "-f", "transit/keys/short", "type=aes128-gcm96"]);
    for store_key in ["rsa", "derived", "short"] {
        let wrapped = store.wrap(store_key, &context(&[]), &secret());
        assert_eq!(kind(wrapped), Some(ErrorKind::Refused), "{store_key}");
    }
}

#[test]
fn a_token_that_is_not_good_or_readable_by_others_opens_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let bao = Bao::start();
    let store = bao.store(TIMEOUT);
    let blob = store.wrap("one", &context(&[]), &secret()).unwrap();
    std::fs::write(&bao.token_file, "no-token").unwrap();
    let opened = store.unwrap("one", &context(&[]), &blob);
    assert_eq!(kind(opened), Some(ErrorKind::AccessDenied));
    std::fs::write(&bao.token_file, ROOT_TOKEN).unwrap();
    // Read anew: nothing has to be restarted.
    store.unwrap("one", &context(&[]), &blob).unwrap();
    std::fs::set_permissions(&bao.token_file, PermissionsExt::from_mode(0o640)).unwrap();
    let opened = store.unwrap("one", &context(&[]), &blob);
    assert_eq!(kind(opened), Some(ErrorKind::Refused));
}

#[test]
fn a_slow_or_dead_server_is_unavailable_in_time_and_comes_back() {
    let bao = Bao::start();
    let store = Arc::new(bao.store(Duration::from_millis(400)));
    let limits =
        GuardLimits { failures_max: 1000, ..GuardLimits::with_timeout(Duration::from_millis(500)) };
    let guarded = Guarded::new(store, limits, Arc::new(SystemClock));
    let blob = bao.store(TIMEOUT).wrap("one", &context(&[]), &secret()).unwrap();
    bao.peer.stop_answering();
    let begun = kluis_kms::Clock::monotonic_ns(&SystemClock);
    assert_eq!(kind(guarded.unwrap("one", &context(&[]), &blob)), Some(ErrorKind::Unavailable));
    let waited_ms = (kluis_kms::Clock::monotonic_ns(&SystemClock) - begun) / 1_000_000;
    assert!(waited_ms < 2_000, "{waited_ms} ms for a limit of 500 ms");
    bao.peer.go_on();
    let opened = bao.store(TIMEOUT).unwrap("one", &context(&[]), &blob).unwrap();
    assert!(opened.matches(&secret()));
    let Bao { peer, url, token_file, dir: _dir, .. } = bao;
    drop(peer);
    let settings = TransitSettings {
        url: &url,
        mount: "transit",
        ca_file: None,
        token_file: &token_file,
        timeout: TIMEOUT,
    };
    let dead = TransitStore::new(&settings).unwrap();
    assert_eq!(kind(dead.unwrap("one", &context(&[]), &blob)), Some(ErrorKind::Unavailable));
    assert_eq!(kind(dead.health()), Some(ErrorKind::Unavailable));
}
