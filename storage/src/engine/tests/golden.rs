//! The golden directories: what a build of each format version wrote, opened by this one.
//!
//! `UPDATE_GOLDEN=1 cargo test -p kluis-storage golden` writes the directory of the current format.
//! That is for a format that is not released; a released one is never written again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kluis_kms::{KeyStore, PassphraseStore};

use super::*;

/// What sealed the golden root key. Protects nothing: the directories are public.
const PASSPHRASE: &[u8] = b"the golden passphrase of format 1";
const TENANTS: [[u8; 16]; 2] = [[0x11; 16], [0x22; 16]];
const SIZES: [usize; 5] = [0, 100, 5_000, 70_000, 300_000];

/// Asked at run time: a test program in a shared target directory may have been built from another
/// clone.
fn golden() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    Path::new(&package).join("../tests/golden/v1")
}

fn tiny() -> EngineConfig {
    EngineConfig {
        volume: VolumeConfig { segment_bytes: 1 << 20, prewrite: false, ..Default::default() },
        ..small()
    }
}

/// Copies a directory, for its owner only: version control keeps no modes.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

async fn open(dir: &Path, store: &dyn KeyStore, env: &Env) -> Engine {
    let kms = if Kms::exists(dir) {
        Kms::open(dir, store, env.clone()).unwrap()
    } else {
        Kms::create(dir, store, env.clone()).unwrap()
    };
    Engine::open(dir, tiny(), Arc::new(kms), env.clone()).await.unwrap()
}

fn of(tenant: [u8; 16]) -> Purpose {
    purpose(TenantId::from_bytes(tenant))
}

/// Writes what every later build has to read.
async fn write(engine: Engine, dir: tempfile::TempDir, store: PassphraseStore, env: &Env) {
    let ids = TENANTS.map(TenantId::from_bytes);
    engine.create_namespaces(&ids).await.unwrap();
    let node = Node {
        dir,
        store: MemoryStore::new(Arc::clone(&env.rng)).unwrap(),
        env: env.clone(),
        engine: Some(engine),
    };
    for (seed, id) in (0_u8..).zip(TENANTS) {
        let tenant = Tenant { node: &node, purpose: of(id) };
        let bucket = tenant.bucket("golden").await;
        for size in SIZES {
            tenant.put(&bucket, &format!("dir/{size}"), &bytes(size, seed)).await.unwrap();
        }
    }
    node.engine().close().await.unwrap();
    drop((node.engine, store));
    let target = golden();
    let _ = fs::remove_dir_all(&target);
    copy(node.dir.path(), &target);
    // RocksDB's own log and options name the place they were written in, and are not data.
    for entry in fs::read_dir(target.join("meta")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("LOG") || name.starts_with("OPTIONS") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn format_1_opens_and_reads() {
    let env = Env::system();
    let store = PassphraseStore::new(PASSPHRASE, Arc::clone(&env.rng)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let engine = open(dir.path(), &store, &env).await;
        return write(engine, dir, store, &env).await;
    }
    copy(&golden(), dir.path());
    let engine = open(dir.path(), &store, &env).await;
    let node = Node {
        dir,
        store: MemoryStore::new(Arc::clone(&env.rng)).unwrap(),
        env: env.clone(),
        engine: Some(engine),
    };
    for (seed, id) in (0_u8..).zip(TENANTS) {
        let tenant = Tenant { node: &node, purpose: of(id) };
        let bucket = node.engine().head_bucket(&tenant.purpose, &name("golden")).await.unwrap();
        assert_eq!(tenant.list(&bucket, "dir/", None, 10).await.len(), SIZES.len());
        for size in SIZES {
            let got = tenant.get(&bucket, &format!("dir/{size}")).await.unwrap();
            assert!(got == bytes(size, seed), "{size}");
        }
        let tags = tenant.engine().object_tags(&tenant.purpose, &bucket, &object("dir/100")).await;
        assert_eq!(tags.unwrap().0.0.len(), 1);
        // What this build writes there, it reads again.
        tenant.put(&bucket, "new", &bytes(70_000, 9)).await.unwrap();
        assert!(tenant.get(&bucket, "new").await.unwrap() == bytes(70_000, 9));
    }
}
