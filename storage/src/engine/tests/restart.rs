//! What was acknowledged is there after a restart, orderly or not.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart() {
    let mut node = Node::new().await;
    let (id, bucket) = {
        let tenant = node.tenant().await;
        let bucket = tenant.bucket("kept").await;
        for (seed, size) in (0_u8..).zip([0, 10, 5_000, 100_000, 6 << 20]) {
            tenant.put(&bucket, &format!("o{size}"), &bytes(size, seed)).await.unwrap();
        }
        (tenant.purpose.tenant, bucket)
    };
    for orderly in [true, false, false, true] {
        node.restart(orderly).await;
        let tenant = Tenant { node: &node, purpose: purpose(id) };
        for (seed, size) in (0_u8..).zip([0, 10, 5_000, 100_000, 6 << 20]) {
            let got = tenant.get(&bucket, &format!("o{size}")).await.unwrap();
            assert!(got == bytes(size, seed), "{size} after orderly={orderly}");
        }
        let more = bytes(50_000, 77);
        tenant.put(&bucket, "more", &more).await.unwrap();
        assert!(tenant.get(&bucket, "more").await.unwrap() == more);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_kept_out() {
    let node = Node::new().await;
    let kms = Arc::clone(node.engine().kms());
    let second = Engine::open(node.dir.path(), small(), kms, node.env.clone()).await;
    assert_eq!(second.err().unwrap().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_refuses_writes_and_takes_deletes() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("full").await;
    tenant.put(&bucket, "o", b"x").await.unwrap();
    // More than any disk has free: refused before a byte is read.
    let error = node.engine().inner.admit(u64::MAX / 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(tenant.delete(&bucket, "o").await.unwrap().existed);
}
