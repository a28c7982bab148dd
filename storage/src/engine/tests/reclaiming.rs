//! Reclaiming under a whole engine: requests go on, space comes back, the counts are right.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::reclaim::ReclaimConfig;

const SEGMENTS: u64 = 12;

/// A small volume that is cleaned as fast as it can be.
fn config() -> EngineConfig {
    let reclaim = ReclaimConfig { rate_bytes: u64::MAX, ..ReclaimConfig::default() };
    let volume = VolumeConfig {
        segment_bytes: 8 << 20,
        prewrite: false,
        volume_bytes_max: Some(SEGMENTS * (8 << 20)),
        ..Default::default()
    };
    EngineConfig { volume, reclaim, ..small() }
}

async fn node() -> Node {
    let env = Env::system();
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kms = Kms::create(dir.path(), &store, env.clone()).unwrap();
    let engine = Engine::open(dir.path(), config(), Arc::new(kms), env.clone()).await.unwrap();
    Node { dir, store, env, engine: Some(engine) }
}

/// Everything in the directory verifies, counts included.
async fn check_all(node: Node) {
    let Node { dir, store, env, engine } = node;
    let engine = engine.unwrap();
    engine.close().await.unwrap();
    let alive = engine.inner.reader.store().alive();
    drop(engine);
    while alive.strong_count() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let kms = Kms::open(dir.path(), &store, env.clone()).unwrap();
    let report =
        crate::check::check(dir.path(), config(), Some(Arc::new(kms)), env, &|_| {}).await.unwrap();
    assert_eq!(report.damaged, 0, "{:?}", report.findings);
    assert!(report.objects > 0);
}

/// Bytes of an object that tell which version of which object they are.
fn body(object: usize, version: u8) -> Vec<u8> {
    let sizes = [100, 5_000, 70_000, 300_000, 1_200_000];
    bytes(sizes[object % 5] + object, version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_read_while_everything_moves() {
    const OBJECTS: usize = 25;
    let node = node().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("moving").await;
    for object in 0..OBJECTS {
        tenant.put(&bucket, &format!("o{object}"), &body(object, 0)).await.unwrap();
    }
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    // Each version is one byte off the one before: a reader sees a whole one, whichever it is.
    let reading = async {
        let mut object = 0;
        while !stop.load(Ordering::SeqCst) {
            object = (object + 7) % OBJECTS;
            let got = tenant.get(&bucket, &format!("o{object}")).await.unwrap();
            let version = got[0];
            assert!(got == body(object, version), "object {object} version {version}");
            reads.fetch_add(1, Ordering::SeqCst);
        }
    };
    let writing = async {
        for version in 1..8 {
            for object in (0..OBJECTS).filter(|object| (object + usize::from(version)) % 3 != 0) {
                let put = tenant.put(&bucket, &format!("o{object}"), &body(object, version)).await;
                if let Err(error) = put {
                    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                }
            }
            node.engine().reclaim_now().await.unwrap();
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(reading, writing);
    let stats = node.engine().stats().reclaim;
    assert!(reads.load(Ordering::SeqCst) > 0);
    assert!(stats.segments_freed > 3 && stats.extents_moved > 3, "{stats:?}");
    assert_eq!(stats.segments_kept, 0);
    check_all(node).await;
}

/// Fill until there is no space, delete, fill again: ten times, while others read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_volume_is_filled_again_and_again() {
    const SIZE: usize = 400_000;
    let node = node().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("full").await;
    let mut held: BTreeMap<String, u8> = BTreeMap::new();
    let mut first = 0;
    for round in 0..10_u8 {
        let mut written = 0;
        loop {
            let name = format!("r{round}-{written}");
            match tenant.put(&bucket, &name, &bytes(SIZE, round)).await {
                Ok(_) => held.insert(name, round),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                    break;
                }
            };
            written += 1;
        }
        if round == 0 {
            first = written;
            assert!(first > 150, "{first} objects of 400,000 bytes fit");
        }
        // One in ten survives, scattered over all segments; all of it is read while it moves.
        let doomed: Vec<_> = held.keys().enumerate().filter(|(nth, _)| nth % 10 != 0).collect();
        let doomed: Vec<String> = doomed.into_iter().map(|(_, name)| name.clone()).collect();
        for name in &doomed {
            assert!(tenant.delete(&bucket, name).await.unwrap().existed, "on a full volume");
            held.remove(name);
        }
        let reading = async {
            for (name, seed) in &held {
                assert!(tenant.get(&bucket, name).await.unwrap() == bytes(SIZE, *seed), "{name}");
            }
        };
        let (reclaimed, ()) = tokio::join!(node.engine().reclaim_now(), reading);
        reclaimed.unwrap();
        let usage = node.engine().stats().usage;
        let live = held.len() as u64 * 401_000;
        // Lanes have a segment open each, and the last segment of survivors is not full.
        let most = live * 105 / 100 / usage.segment_bytes + 1 + usage.segments_open;
        let taken = usage.allocated_bytes / usage.segment_bytes - usage.segments_free;
        assert!(taken <= most, "round {round}: {taken} segments for {live} bytes: {usage:?}");
        let rest = first - held.len();
        assert!(round == 0 || written + 40 >= rest * 8 / 10, "round {round}: {written} of {rest}");
    }
    for (name, seed) in &held {
        assert!(tenant.get(&bucket, name).await.unwrap() == bytes(SIZE, *seed), "{name}");
    }
    check_all(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn space_comes_back_by_itself() {
    let node = node().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("itself").await;
    let mut names = Vec::new();
    loop {
        let name = format!("o{}", names.len());
        match tenant.put(&bucket, &name, &bytes(5_000_000, 1)).await {
            Ok(_) => names.push(name),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                break;
            }
        }
    }
    for name in &names {
        tenant.delete(&bucket, name).await.unwrap();
    }
    let mut tries = 0;
    while let Err(error) = tenant.put(&bucket, "again", &bytes(5_000_000, 2)).await {
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        tries += 1;
        assert!(tries < 3_000, "nothing was won back");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(tenant.get(&bucket, "again").await.unwrap() == bytes(5_000_000, 2));
    assert!(node.engine().stats().reclaim.segments_freed > 0);
    check_all(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_finds_no_place_is_refused_before_it_is_read() {
    let node = node().await;
    let inner = &node.engine().inner;
    let all = SEGMENTS * (8 << 20);
    assert_eq!(inner.admit(all).unwrap_err().kind(), ErrorKind::Full, "the reserve is not given");
    inner.admit(all - (8 << 20)).unwrap();
    inner.admit(0).unwrap();
}
