//! Scrubbing a whole engine: real files, real metadata, one disk and two.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::blob::Location;
use crate::namespace::Table;
use crate::scrub::{DamageKind, DamagedExtent};

/// Waits for what a task of the engine is about to do.
async fn until(mut is_done: impl AsyncFnMut() -> bool) {
    while !is_done().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes `name`, and as much behind it as closes its segment; where it lies.
async fn put_away(tenant: &Tenant<'_>, bucket: &BucketInfo, name: &str) -> Location {
    let before = locations(tenant).await;
    tenant.put(bucket, name, &bytes(90_000, 7)).await.unwrap();
    let new = locations(tenant).await.into_iter().find(|it| !before.contains(it)).unwrap();
    for nth in 0..3 {
        tenant.put(bucket, &format!("more {nth}"), &bytes(4 << 20, nth)).await.unwrap();
    }
    let closed = async || {
        let rows = tenant.engine().inner.volume.segments();
        let is_closed = |row: &crate::blob::SegmentRow| {
            row.segment == new.segment() && row.state == crate::blob::SegmentState::Closed
        };
        rows.iter().any(is_closed)
    };
    until(closed).await;
    new
}

async fn locations(tenant: &Tenant<'_>) -> Vec<Location> {
    let ns = tenant.engine().inner.tenants.namespace(tenant.purpose.tenant).unwrap();
    ns.fold(Table::Locations, &[], &[], Vec::new(), |found, _, value| {
        found.push(Location::decode(value)?);
        Ok(crate::meta::ScanStep::Next)
    })
    .await
    .unwrap()
}

/// Flips a bit of a chunk, below the node.
fn rot(dir: &Path, location: &Location) {
    use std::os::unix::fs::FileExt as _;
    let path = dir.join(crate::blob::file_name_of(location.segment()));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    let at = location.offset() + 40_000;
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    file.sync_all().unwrap();
}

async fn scrub(engine: &Engine) -> ScrubStats {
    engine.scrubbed(engine.scrub_now().unwrap()).await.unwrap()
}

async fn damage(engine: &Engine) -> Vec<DamagedExtent> {
    engine.damage(None, 100).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_is_listed_until_its_object_is_gone() {
    let mut node = Node::new().await;
    let tenant = node.tenant().await;
    let (id, bucket) = (tenant.purpose.tenant, tenant.bucket("rotten").await);
    let location = put_away(&tenant, &bucket, "victim").await;
    let clean = scrub(tenant.engine()).await;
    assert!(clean.segments_done > 0 && clean.damaged == 0 && clean.ended_ms > 0, "{clean:?}");
    assert_eq!((clean.metadata_faults, clean.checkpoint_faults, clean.phase), (0, 0, "idle"));
    rot(node.dir.path(), &location);
    let stats = scrub(tenant.engine()).await;
    assert_eq!((stats.damaged, stats.pass), (1, clean.pass + 1));
    let found = damage(tenant.engine()).await;
    assert_eq!((found[0].kind, found[0].tenant), (DamageKind::Rot, id));
    assert_eq!(found[0].place, (&location).into());
    assert_eq!(tenant.get(&bucket, "victim").await.unwrap_err().kind(), ErrorKind::Corrupt);
    node.restart(true).await;
    let tenant = Tenant { node: &node, purpose: purpose(id) };
    let known = async || damage(tenant.engine()).await == found;
    until(known).await;
    assert!(tenant.engine().stats().scrub.pass >= stats.pass);
    tenant.put(&bucket, "victim", b"anew").await.unwrap();
    tenant.engine().inner.release_all().await.unwrap();
    assert!(damage(tenant.engine()).await.is_empty());
    let after = scrub(tenant.engine()).await;
    assert_eq!((after.dead_damaged, after.pass), (1, stats.pass + 1));
    until(async || tenant.engine().stats().scrub.damaged == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_read_or_a_move_stumbles_over_is_listed_as_well() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("stumbled").await;
    let read = put_away(&tenant, &bucket, "read").await;
    let moved = put_away(&tenant, &bucket, "moved").await;
    rot(node.dir.path(), &read);
    rot(node.dir.path(), &moved);
    assert_eq!(tenant.get(&bucket, "read").await.unwrap_err().kind(), ErrorKind::Corrupt);
    until(async || damage(tenant.engine()).await.iter().any(|it| it.place == (&read).into())).await;
    for nth in 0..3 {
        tenant.delete(&bucket, &format!("more {nth}")).await.unwrap();
    }
    tenant.engine().reclaim_now().await.unwrap();
    until(async || damage(tenant.engine()).await.iter().any(|it| it.place == (&moved).into()))
        .await;
    assert_eq!(damage(tenant.engine()).await.len(), 2);
    assert_eq!(tenant.engine().stats().scrub.pass, 0, "without any pass");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_put_right_by_a_pass() {
    let env = Env::system();
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let members: [PathBuf; 2] = ["one", "two"].map(|name| dir.path().join(name));
    let data = dir.path().join("data");
    for path in members.iter().chain([&data]) {
        std::fs::create_dir(path).unwrap();
    }
    let config = EngineConfig { volume_paths: members.to_vec(), ..small() };
    let kms = Arc::new(Kms::create(&data, &store, env.clone()).unwrap());
    let engine = Engine::open(&data, config, kms, env.clone()).await.unwrap();
    let node = Node { dir, store, env, engine: Some(engine) };
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("twice").await;
    let location = put_away(&tenant, &bucket, "victim").await;
    let name = crate::blob::file_name_of(location.segment());
    for member in &members {
        rot(member, &location);
        let stats = scrub(node.engine()).await;
        assert_eq!((stats.damaged, stats.repaired, stats.unrepaired), (0, 1, 0), "{stats:?}");
        let [one, two] = [0, 1].map(|nth| std::fs::read(members[nth].join(&name)).unwrap());
        assert!(one == two, "both are alike again");
    }
    assert!(tenant.get(&bucket, "victim").await.unwrap() == bytes(90_000, 7));
    // Where no copy is right, nothing is put right, and it is told.
    for member in &members {
        rot(member, &location);
    }
    let stats = scrub(node.engine()).await;
    assert_eq!((stats.damaged, stats.repaired), (1, 0), "{stats:?}");
    node.engine().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_pass_is_told_when_the_node_closes() {
    let node = Node::new().await;
    let engine = node.engine().clone();
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.scrubbed(u64::MAX - 1).await }
    });
    scrub(&engine).await;
    engine.close().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}
