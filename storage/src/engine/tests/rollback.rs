//! Metadata that was lost and put back from a checkpoint, beside a volume that had gone on.

use std::path::Path;

use super::*;
use crate::backup::{
    BackupKind, BackupRequest, MetadataRequest, MetadataSummary, Progress, restore_metadata,
};
use crate::blob::{ExtentId, Location};
use crate::check::check;
use crate::commit::Draft;
use crate::format::{ExtentHeader, RecordBody};
use crate::io::BufClass;
use crate::namespace::Table;

/// Takes a checkpoint of the metadata.
async fn checkpoint(node: &Node, to: &Path) {
    let request = BackupRequest {
        to: to.to_owned(),
        kind: BackupKind::Metadata,
        rate_bytes: None,
        keep: Some(3),
    };
    let summary = node.engine().backup(request).await.unwrap();
    assert_eq!((summary.kind, summary.segments), (BackupKind::Metadata, 0));
}

/// Stops the node as a crash does, and waits until its directory is free.
async fn crash(node: &mut Node) {
    let engine = node.engine.take().unwrap();
    let store = engine.inner.reader.store().alive();
    drop(engine);
    while store.strong_count() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn put_back(node: &Node, from: &Path, accept_loss: bool) -> Result<MetadataSummary> {
    let request = MetadataRequest {
        from: from.to_owned(),
        snapshot: None,
        to: node.dir.path().to_owned(),
        accept_loss,
    };
    restore_metadata(&request, &small(), node.env.clone(), &Progress::default()).await
}

async fn reopen(node: &mut Node) {
    let report = check(node.dir.path(), small(), None, node.env.clone(), &|_| ()).await.unwrap();
    assert_eq!(report.damaged, 0, "{:?}", report.findings);
    let kms = Kms::open(node.dir.path(), &node.store, node.env.clone()).unwrap();
    let env = node.env.clone();
    let opened = Engine::open(node.dir.path(), small(), Arc::new(kms), env).await;
    node.engine = Some(opened.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_the_checkpoint_reads() {
    let (mut node, away) = (Node::new().await, tempfile::tempdir().unwrap());
    let id = node.tenant().await.purpose.tenant;
    let repository = away.path().join("meta");
    let tenant = Tenant { node: &node, purpose: purpose(id) };
    let bucket = tenant.bucket("bucket").await;
    for (seed, size) in [(1, 900), (2, 90_000), (3, 7 << 20)] {
        tenant.put(&bucket, &format!("o{size}"), &bytes(size, seed)).await.unwrap();
    }
    checkpoint(&node, &repository).await;
    let tenant = Tenant { node: &node, purpose: purpose(id) };
    // Further segments, and more in the one that is open.
    for number in 0..4 {
        tenant.put(&bucket, &format!("late{number}"), &bytes(3 << 20, number)).await.unwrap();
    }
    let refused = put_back(&node, &repository, true).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    crash(&mut node).await;
    let refused = put_back(&node, &repository, true).await.unwrap_err();
    assert!(refused.to_string().contains("it has metadata"), "{refused}");
    std::fs::rename(node.dir.path().join("meta"), away.path().join("lost")).unwrap();
    let refused = put_back(&node, &repository, false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert!(refused.to_string().contains("--accept-loss"), "{refused}");
    assert!(!node.dir.path().join("meta").exists() && !node.dir.path().join("meta.new").exists());
    let summary = put_back(&node, &repository, true).await.unwrap();
    assert!(summary.lost_writes > 0 && summary.changed_segments >= 2, "{summary:?}");

    reopen(&mut node).await;
    for orderly in [true, false] {
        let tenant = Tenant { node: &node, purpose: purpose(id) };
        for (seed, size) in [(1, 900), (2, 90_000), (3, 7 << 20)] {
            assert!(tenant.get(&bucket, &format!("o{size}")).await.unwrap() == bytes(size, seed));
        }
        let lost = tenant.get(&bucket, "late0").await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::NotFound);
        let name = format!("new{orderly}");
        tenant.put(&bucket, &name, &bytes(200_000, 9)).await.unwrap();
        assert!(tenant.get(&bucket, &name).await.unwrap() == bytes(200_000, 9));
        node.restart(orderly).await;
    }
}

/// Writes the extent that `named` finds once more and has its row name the copy, as whoever
/// empties a segment does; where it was.
async fn move_extent(node: &Node, tenant: TenantId, named: impl Fn(&Location) -> bool) -> Location {
    let inner = &node.engine().inner;
    let ns = inner.tenants.namespace(tenant).unwrap();
    let rows = ns.fold(Table::Locations, &[], &[], Vec::new(), |rows, rest, value| {
        rows.push((rest.to_vec(), Location::decode(value)?));
        Ok(crate::meta::ScanStep::Next)
    });
    let mut rows = rows.await.unwrap().into_iter();
    let (rest, location) = rows.find(|(_, location)| named(location)).unwrap();
    let (stream, number) = rest.split_first_chunk::<16>().unwrap();
    let stream = StreamId::from_bytes(*stream);
    let id =
        ExtentId { ns: ns.ns(), stream, number: u32::from_be_bytes(number.try_into().unwrap()) };
    let chunks = 0..location.n_chunks();
    let mut read = inner.volume.read(id, &location, chunks).await.unwrap();
    let spans: Vec<_> = read.spans().collect();
    let mut sealed = Vec::new();
    for span in spans {
        sealed.extend_from_slice(&read.buf_mut()[span.range]);
    }
    let mut buf = inner.pool.acquire(BufClass::holding(sealed.len()).unwrap()).await;
    buf.extend_from_slice(&sealed);
    let placed = inner.volume.put_packed(id, 0, buf).await.unwrap();
    inner.volume.flush(std::slice::from_ref(&placed)).await.unwrap();
    let mut draft = Draft::default();
    draft.put(ns.row(Table::Locations, &[&rest]), placed.location().encode().to_vec());
    inner.committer.commit(draft).await.unwrap();
    location
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extents_that_were_moved_since_are_found() {
    let (mut node, away) = (Node::new().await, tempfile::tempdir().unwrap());
    let id = node.tenant().await.purpose.tenant;
    let repository = away.path().join("meta");
    let tenant = Tenant { node: &node, purpose: purpose(id) };
    let bucket = tenant.bucket("bucket").await;
    tenant.put(&bucket, "moved", &bytes(90_000, 1)).await.unwrap();
    // The segment is full, and closed, before the checkpoint.
    tenant.put(&bucket, "large", &bytes(12 << 20, 2)).await.unwrap();
    tenant.delete(&bucket, "large").await.unwrap();
    checkpoint(&node, &repository).await;
    let is_moved = |location: &Location| location.stored_len() < 100_000;
    let old = move_extent(&node, id, is_moved).await;
    let volume = node.engine().inner.volume.id();
    crash(&mut node).await;
    // Its segment is in another use.
    let header = ExtentHeader {
        volume,
        segment: old.segment(),
        incarnation: old.incarnation() + 1_000,
        rec_seq: 0,
        meta_seq: 0,
        write_time_ms: 0,
        body: RecordBody::Filler(1 << 20),
    };
    let path = node.dir.path().join(format!("seg/{:08x}.seg", old.segment()));
    let mut whole = std::fs::read(&path).unwrap();
    whole[..1 << 20].fill(0);
    let encoded = header.encode(&[]);
    whole[..encoded.len()].copy_from_slice(&encoded);
    std::fs::write(&path, whole).unwrap();
    std::fs::rename(node.dir.path().join("meta"), away.path().join("lost")).unwrap();
    let summary = put_back(&node, &repository, true).await.unwrap();
    assert_eq!(summary.moved_extents, 1, "{summary:?}");
    let kms = Kms::open(node.dir.path(), &node.store, node.env.clone()).unwrap();
    let opened = Engine::open(node.dir.path(), small(), Arc::new(kms), node.env.clone()).await;
    node.engine = Some(opened.unwrap());
    let tenant = Tenant { node: &node, purpose: purpose(id) };
    assert!(tenant.get(&bucket, "moved").await.unwrap() == bytes(90_000, 1));
}
