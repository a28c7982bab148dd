//! Backup and restore over real files: under load, incremental, damaged, cut short.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kluis_kms::ManualClock;
use tokio::sync::Notify;

use super::*;
use crate::backup::{
    BackupKind, BackupRequest, BackupSummary, Progress, RestoreRequest, backup_at_rest, list,
    prune, restore, verify,
};
use crate::body::{Body, BodyFuture};
use crate::check::check;
use crate::digest::Checksum;

const SIZES: [usize; 5] = [0, 10, 5_000, 100_000, 6 << 20];

/// A node, a folder for its repository, and what is put back.
struct Scene {
    node: Node,
    id: TenantId,
    away: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let node = Node::new().await;
        let id = node.tenant().await.purpose.tenant;
        Self { node, id, away: tempfile::tempdir().unwrap() }
    }

    fn tenant(&self) -> Tenant<'_> {
        Tenant { node: &self.node, purpose: purpose(self.id) }
    }

    fn repository(&self) -> PathBuf {
        self.away.path().join("repository")
    }

    fn request(&self) -> BackupRequest {
        let kind = BackupKind::Full;
        BackupRequest { to: self.repository(), kind, rate_bytes: None, keep: None }
    }

    async fn backup(&self) -> BackupSummary {
        self.node.engine().backup(self.request()).await.unwrap()
    }

    fn restore(&self, snapshot: Option<&str>, to: &Path) -> Result<()> {
        let request = RestoreRequest {
            from: self.repository(),
            snapshot: snapshot.map(str::to_owned),
            to: to.to_owned(),
        };
        restore(&request, &self.node.env, &Progress::default()).map(drop)
    }

    /// Puts a snapshot back, checks the directory, and opens it.
    async fn restored(&self, snapshot: &BackupSummary) -> Node {
        let dir = tempfile::tempdir().unwrap();
        self.restore(Some(&snapshot.snapshot), dir.path()).unwrap();
        let open = || Kms::open(dir.path(), &self.node.store, self.node.env.clone()).unwrap();
        let env = self.node.env.clone();
        let report = check(dir.path(), small(), Some(Arc::new(open())), env.clone(), &|_| ()).await;
        let report = report.unwrap();
        assert_eq!(report.damaged, 0, "{:?}", report.findings);
        // The check's engine holds the keys until its tasks have noticed.
        let kms = loop {
            match Kms::open(dir.path(), &self.node.store, env.clone()) {
                Ok(kms) => break kms,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        };
        let kms = Arc::new(kms);
        let engine = loop {
            match Engine::open(dir.path(), small(), Arc::clone(&kms), env.clone()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                engine => break engine.unwrap(),
            }
        };
        opened(dir, engine, env)
    }
}

/// A node on a directory that was put back; its own key store is of no use.
fn opened(dir: tempfile::TempDir, engine: Engine, env: Env) -> Node {
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    Node { dir, store, env, engine: Some(engine) }
}

/// The files of a folder and below, by path.
fn files_under(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_under(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_snapshot_is_what_was_acknowledged_before_it() {
    let scene = Scene::new().await;
    let bucket = scene.tenant().bucket("kept").await;
    for (seed, size) in (0_u8..).zip(SIZES) {
        scene.tenant().put(&bucket, &format!("o{size}"), &bytes(size, seed)).await.unwrap();
    }
    let first = scene.backup().await;
    assert!(first.copied_bytes > 6 << 20 && first.reused_bytes == 0, "{first:?}");
    scene.tenant().put(&bucket, "o10", &bytes(10, 99)).await.unwrap();
    scene.tenant().delete(&bucket, "o5000").await.unwrap();
    scene.tenant().put(&bucket, "later", &bytes(70_000, 3)).await.unwrap();
    let second = scene.backup().await;
    assert!(second.reused_bytes > 6 << 20 && second.copied_bytes < 1 << 20, "{second:?}");
    let listed: Vec<_> = list(&scene.repository()).unwrap();
    let ids: Vec<_> = listed.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, [first.snapshot.as_str(), second.snapshot.as_str()]);
    let verified = verify(&scene.repository(), None, &Progress::default()).unwrap();
    assert_eq!((verified.snapshots, verified.damaged), (2, 0), "{verified:?}");

    let node = scene.restored(&first).await;
    let old = Tenant { node: &node, purpose: purpose(scene.id) };
    for (seed, size) in (0_u8..).zip(SIZES) {
        assert!(old.get(&bucket, &format!("o{size}")).await.unwrap() == bytes(size, seed));
    }
    let absent = old.get(&bucket, "later").await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    // It goes on from there: neither numbers nor incarnations of before are used again.
    let before = scene.node.engine().inner.volume.superblock().await;
    let after = node.engine().inner.volume.superblock().await;
    assert_eq!(before.volume, after.volume);
    assert!(after.open_count > before.open_count + 1_000);
    assert!(after.incarnation_next > before.incarnation_next + (1 << 39));
    old.put(&bucket, "new", &bytes(300_000, 4)).await.unwrap();
    assert!(old.get(&bucket, "new").await.unwrap() == bytes(300_000, 4));

    let node = scene.restored(&second).await;
    let new = Tenant { node: &node, purpose: purpose(scene.id) };
    assert!(new.get(&bucket, "o10").await.unwrap() == bytes(10, 99));
    assert!(new.get(&bucket, "later").await.unwrap() == bytes(70_000, 3));
    assert_eq!(new.get(&bucket, "o5000").await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// A body that stops in its middle until it is told to go on.
struct Halting {
    parts: Vec<Vec<u8>>,
    size: u64,
    reached: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Body for Halting {
    fn size(&self) -> u64 {
        self.size
    }

    fn next(&mut self) -> BodyFuture<'_> {
        Box::pin(async move {
            if self.parts.len() == 1 {
                self.reached.notify_one();
                self.go_on.notified().await;
            }
            Ok(self.parts.pop().map(bytes::Bytes::from))
        })
    }

    fn checksums(&mut self) -> Vec<Checksum> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn bytes_that_were_being_written_are_copied_again() {
    let scene = Scene::new().await;
    let bucket = scene.tenant().bucket("bucket").await;
    let body = bytes(6 << 20, 1);
    let (begin, end) = body.split_at(3 << 20);
    let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let halting = Halting {
        parts: vec![end.to_vec(), begin.to_vec()],
        size: body.len() as u64,
        reached: Arc::clone(&reached),
        go_on: Arc::clone(&go_on),
    };
    let slow = object("slow");
    let request = PutRequest {
        bucket: &bucket,
        object_key: &slow,
        headers: ObjectHeaders::default(),
        tags: Tags(Vec::new()),
        sse: SseChoice::default(),
        conditions: Conditions::default(),
        body: Box::new(halting),
    };
    let who = purpose(scene.id);
    let putting = scene.node.engine().put(&who, request);
    let backing_up = async {
        reached.notified().await;
        // Behind the range that the slow one has reserved, and in the first snapshot.
        scene.tenant().put(&bucket, "quick", &bytes(90_000, 2)).await.unwrap();
        let first = scene.backup().await;
        go_on.notify_one();
        first
    };
    let (put, first) = tokio::join!(putting, backing_up);
    put.unwrap();
    let second = scene.backup().await;

    let node = scene.restored(&first).await;
    let old = Tenant { node: &node, purpose: purpose(scene.id) };
    assert!(old.get(&bucket, "quick").await.unwrap() == bytes(90_000, 2));
    assert_eq!(old.get(&bucket, "slow").await.unwrap_err().kind(), ErrorKind::NotFound);
    let node = scene.restored(&second).await;
    let new = Tenant { node: &node, purpose: purpose(scene.id) };
    assert!(new.get(&bucket, "slow").await.unwrap() == body);
    assert!(new.get(&bucket, "quick").await.unwrap() == bytes(90_000, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_snapshot_under_load_has_everything_from_before_it() {
    let scene = Scene::new().await;
    let bucket = scene.tenant().bucket("load").await;
    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = AtomicUsize::new(0);
    let body = |number: usize| {
        let size = [3_000, 60_000, 700_000][number % 3];
        bytes(size, u8::try_from(number % 251).unwrap())
    };
    // So much that segments are rolled while snapshots are taken.
    let load = async {
        while !done.load(Ordering::SeqCst) {
            let number = acknowledged.load(Ordering::SeqCst);
            scene.tenant().put(&bucket, &format!("o{number}"), &body(number)).await.unwrap();
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    };
    let backups = async {
        let mut taken = Vec::new();
        for _ in 0..4 {
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            let before = acknowledged.load(Ordering::SeqCst);
            taken.push((before, scene.backup().await));
        }
        done.store(true, Ordering::SeqCst);
        taken
    };
    let ((), taken) = tokio::join!(load, backups);
    for (before, summary) in taken {
        let node = scene.restored(&summary).await;
        let tenant = Tenant { node: &node, purpose: purpose(scene.id) };
        for number in 0..before {
            let got = tenant.get(&bucket, &format!("o{number}")).await.unwrap();
            assert!(got == body(number), "o{number} of {before}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_anywhere_is_named_and_nothing_is_put_back_of_it() {
    let scene = Scene::new().await;
    let bucket = scene.tenant().bucket("bucket").await;
    scene.tenant().put(&bucket, "o", &bytes(400_000, 1)).await.unwrap();
    let summary = scene.backup().await;
    for path in files_under(&scene.repository()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if ["LOCK", "KLUIS-BACKUP"].contains(&name.as_str()) {
            continue;
        }
        let whole = std::fs::read(&path).unwrap();
        if whole.is_empty() {
            continue;
        }
        flip(&path);
        let report = verify(&scene.repository(), None, &Progress::default()).unwrap();
        let found: Vec<_> = report.findings.iter().map(|it| it.path.clone()).collect();
        let is_named = |found: &PathBuf| *found == path || path.starts_with(found);
        assert!(report.damaged >= 1 && found.iter().any(is_named), "{path:?}: {found:?}");
        let dir = tempfile::tempdir().unwrap();
        let error = scene.restore(Some(&summary.snapshot), dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{path:?}: {error}");
        assert!(error.to_string().contains(&name), "{path:?}: {error}");
        assert!(!dir.path().join("LOCK").exists() || dir.path().join("RESTORING").exists());
        std::fs::write(&path, whole).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_restore_is_refused_and_finished_by_the_next() {
    let scene = Scene::new().await;
    let bucket = scene.tenant().bucket("bucket").await;
    scene.tenant().put(&bucket, "o", &bytes(400_000, 1)).await.unwrap();
    scene.backup().await;
    let dir = tempfile::tempdir().unwrap();
    let index = files_under(&scene.repository().join("keys"));
    let keyring = index.iter().find(|it| it.to_str().unwrap().contains("keyring.")).unwrap();
    flip(keyring);
    scene.restore(None, dir.path()).unwrap_err();
    assert!(dir.path().join("meta").exists() && dir.path().join("seg").exists());
    let kms = Arc::clone(scene.node.engine().kms());
    let env = scene.node.env.clone();
    let half = Engine::open(dir.path(), small(), kms, env).await.err().unwrap();
    assert!(half.kind() == ErrorKind::Misuse && half.to_string().contains("cut short"));
    // A file that no restore made is nobody's to remove.
    std::fs::write(dir.path().join("letters"), "private").unwrap();
    let refused = scene.restore(None, dir.path()).unwrap_err();
    assert!(refused.to_string().contains("letters"), "{refused}");
    std::fs::remove_file(dir.path().join("letters")).unwrap();
    flip(keyring);
    scene.restore(None, dir.path()).unwrap();
    let again = scene.restore(None, dir.path()).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Misuse, "{again}");
    let kms = Kms::open(dir.path(), &scene.node.store, scene.node.env.clone()).unwrap();
    let env = scene.node.env.clone();
    let engine = Engine::open(dir.path(), small(), Arc::new(kms), env.clone()).await.unwrap();
    let node = opened(dir, engine, env);
    let tenant = Tenant { node: &node, purpose: purpose(scene.id) };
    assert!(tenant.get(&bucket, "o").await.unwrap() == bytes(400_000, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_snapshots_go_and_the_others_stay_whole() {
    let scene = Scene::new().await;
    let bucket = scene.tenant().bucket("bucket").await;
    let mut taken = Vec::new();
    for number in 0..4 {
        scene.tenant().put(&bucket, "o", &bytes(400_000, number)).await.unwrap();
        taken.push(scene.backup().await);
    }
    let metadata = BackupRequest { kind: BackupKind::Metadata, ..scene.request() };
    scene.node.engine().backup(metadata).await.unwrap();
    assert_eq!(prune(&scene.repository(), 0).unwrap_err().kind(), ErrorKind::Misuse);
    let manifest = scene.repository().join("snapshots").join(&taken[1].snapshot);
    flip(&manifest);
    let refused = prune(&scene.repository(), 2).unwrap_err();
    assert!(refused.to_string().contains(&taken[1].snapshot), "{refused}");
    assert_eq!(list(&scene.repository()).unwrap().len(), 5);
    flip(&manifest);
    let pruned = prune(&scene.repository(), 2).unwrap();
    assert!(pruned.snapshots == 2 && pruned.files > 0, "{pruned:?}");
    assert_eq!(prune(&scene.repository(), 2).unwrap().files, 0);
    let verified = verify(&scene.repository(), None, &Progress::default()).unwrap();
    assert_eq!((verified.snapshots, verified.damaged), (3, 0), "{verified:?}");
    for (number, summary) in (2..).zip(&taken[2..]) {
        let node = scene.restored(summary).await;
        let tenant = Tenant { node: &node, purpose: purpose(scene.id) };
        assert!(tenant.get(&bucket, "o").await.unwrap() == bytes(400_000, number));
    }
    let gone = scene.restore(Some(&taken[0].snapshot), &scene.away.path().join("x")).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let kept = BackupRequest { keep: Some(1), ..scene.request() };
    let summary = scene.node.engine().backup(kept).await.unwrap();
    assert_eq!(summary.removed_snapshots, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_destroyed_is_in_no_snapshot_any_more() {
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let env = Env { clock: Arc::clone(&clock) as _, ..Env::system() };
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kms = Kms::create(dir.path(), &store, env.clone()).unwrap();
    let engine = Engine::open(dir.path(), small(), Arc::new(kms), env.clone()).await.unwrap();
    let node = Node { dir, store, env, engine: Some(engine) };
    let id = node.tenant().await.purpose.tenant;
    let scene = Scene { node, id, away: tempfile::tempdir().unwrap() };
    let bucket = scene.tenant().bucket("bucket").await;
    scene.tenant().put(&bucket, "o", &bytes(400_000, 1)).await.unwrap();
    let first = scene.backup().await;
    let generation = |number: u32| scene.repository().join(format!("keys/{number:010}"));
    assert!(generation(1).exists());
    // Nothing changed: the keys stay where they are.
    scene.backup().await;
    assert!(generation(1).exists() && !generation(2).exists());

    let kms = Arc::clone(scene.node.engine().kms());
    let doomed = kms.default_tenant_key(id).unwrap();
    kms.schedule_deletion(&purpose(id), doomed, 7).unwrap();
    clock.advance_ms(8 * 24 * 60 * 60 * 1000);
    scene.node.engine().run_due().await.unwrap();
    scene.backup().await;
    assert!(!generation(1).exists() && generation(2).exists());
    let node = scene.restored(&first).await;
    let tenant = Tenant { node: &node, purpose: purpose(id) };
    let gone = tenant.get(&bucket, "o").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::KeyDestroyed, "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_at_rest_is_backed_up_without_its_passphrase() {
    let mut scene = Scene::new().await;
    let bucket = scene.tenant().bucket("bucket").await;
    scene.tenant().put(&bucket, "o", &bytes(400_000, 1)).await.unwrap();
    let env = scene.node.env.clone();
    let (data, request) = (scene.node.dir.path().to_owned(), scene.request());
    let at_rest = async |request| {
        let progress = Arc::new(Progress::default());
        backup_at_rest(&data, &small(), env.clone(), request, progress).await
    };
    let held = at_rest(request.clone()).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Unavailable, "{held}");
    let engine = scene.node.engine.take().unwrap();
    let store = engine.inner.reader.store().alive();
    drop(engine);
    while store.strong_count() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let summary = at_rest(request.clone()).await.unwrap();
    let (nowhere, progress) = (scene.away.path(), Arc::new(Progress::default()));
    let refused = backup_at_rest(nowhere, &small(), env.clone(), request.clone(), progress).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    let inside = BackupRequest { to: data.join("backup"), ..request };
    let refused = at_rest(inside).await.unwrap_err();
    assert!(refused.to_string().contains("in the data directory"), "{refused}");
    let node = scene.restored(&summary).await;
    let tenant = Tenant { node: &node, purpose: purpose(scene.id) };
    assert!(tenant.get(&bucket, "o").await.unwrap() == bytes(400_000, 1));
}
