//! Tenants do not see each other, and rows that are moved do not open.

use super::*;
use crate::meta::{Change, RowKey, ScanStep};
use crate::namespace::{Table, TenantNs, encode_object_key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_name_two_tenants() {
    let node = Node::new().await;
    let (a, b) = (node.tenant().await, node.tenant().await);
    let (in_a, in_b) = (a.bucket("data").await, b.bucket("data").await);
    a.put(&in_a, "o", b"of a").await.unwrap();
    b.put(&in_b, "o", b"of b").await.unwrap();
    assert_eq!(a.get(&in_a, "o").await.unwrap(), b"of a");
    assert_eq!(b.get(&in_b, "o").await.unwrap(), b"of b");
    // Even with the other's bucket in hand there is nothing to see.
    assert_eq!(b.get(&in_a, "o").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(b.put(&in_a, "p", b"x").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(b.list(&in_a, "", None, 10).await.is_empty());
    let stranger = purpose(TenantId::from_bytes([9; 16]));
    let error = node.engine().head_bucket(&stranger, &name("data")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

async fn rows(ns: &TenantNs, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    ns.fold(table, &[], &[], Vec::new(), |rows, rest, value| {
        rows.push((rest.to_vec(), value.to_vec()));
        Ok(ScanStep::Next)
    })
    .await
    .unwrap()
}

fn write(node: &Node, row: RowKey, value: Vec<u8>) {
    let store = node.engine().inner.reader.store();
    store.write(&[Change::Put { row, value: value.into() }]).unwrap();
}

/// Every row of one tenant, written over into the other's namespace, ids and all: the strongest
/// move that an attacker with the disk can make without a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_namespace_moved_to_another_tenant_does_not_open() {
    let node = Node::new().await;
    let (a, b) = (node.tenant().await, node.tenant().await);
    let bucket = a.bucket("data").await;
    for size in [10, 100_000, 5 << 20] {
        a.put(&bucket, &format!("o{size}"), &bytes(size, 1)).await.unwrap();
    }
    let tenants = &node.engine().inner.tenants;
    let from = tenants.namespace(a.purpose.tenant).unwrap();
    let to = tenants.namespace(b.purpose.tenant).unwrap();
    for table in [
        Table::Buckets,
        Table::Objects,
        Table::Contents,
        Table::Inline,
        Table::Locations,
        Table::BucketKeys,
    ] {
        for (rest, value) in rows(&from, table).await {
            write(&node, to.row(table, &[&rest]), value);
        }
    }
    for size in [10, 100_000, 5 << 20] {
        let error = b.get(&bucket, &format!("o{size}")).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Tampered | ErrorKind::NotFound),
            "{error}"
        );
        assert!(a.get(&bucket, &format!("o{size}")).await.unwrap() == bytes(size, 1));
    }
}

/// Object rows put under another name, another bucket, or from an older version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_row_opens_only_where_it_was_written() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let (one, two) = (tenant.bucket("one").await, tenant.bucket("two").await);
    let ns = node.engine().inner.tenants.namespace(tenant.purpose.tenant).unwrap();
    let at = |bucket: &BucketInfo, object_key: &str| {
        let encoded = encode_object_key(object_key.as_bytes());
        ns.row(Table::Objects, &[bucket.id.as_bytes(), &encoded])
    };
    for size in [10, 100_000] {
        tenant.put(&one, "a", &bytes(size, 1)).await.unwrap();
        tenant.put(&one, "b", &bytes(size, 2)).await.unwrap();
        tenant.put(&two, "a", &bytes(size, 3)).await.unwrap();
        let store = node.engine().inner.reader.store();
        let row_a = store.get(at(&one, "a").family, &at(&one, "a").bytes).unwrap().unwrap();
        for (bucket, object_key) in [(&one, "b"), (&two, "a"), (&one, "new")] {
            write(&node, at(bucket, object_key), row_a.to_vec());
            let error = tenant.get(bucket, object_key).await.unwrap_err();
            let refused = [ErrorKind::Corrupt, ErrorKind::Tampered];
            assert!(refused.contains(&error.kind()), "{object_key}: {error}");
        }
        tenant.put(&one, "a", &bytes(size, 4)).await.unwrap();
    }
}

/// Every bit of every row kind of one object, flipped one at a time: an error, or the right bytes
/// where the bit says nothing about them. Never other bytes, never a panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flipped_bit_of_a_row_yields_wrong_bytes() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("bits").await;
    let (small, large) = (bytes(100, 1), bytes(70_000, 2));
    tenant.put(&bucket, "small", &small).await.unwrap();
    tenant.put(&bucket, "large", &large).await.unwrap();
    let ns = node.engine().inner.tenants.namespace(tenant.purpose.tenant).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for table in
        [Table::Objects, Table::Contents, Table::Inline, Table::Locations, Table::BucketKeys]
    {
        for (rest, value) in rows(&ns, table).await {
            for bit in (0..value.len() * 8).step_by(if value.len() > 400 { 5 } else { 1 }) {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                write(&node, ns.row(table, &[&rest]), flipped);
                node.engine().inner.keys.forget(ns.ns(), bucket.id);
                for (object_key, body) in [("small", &small), ("large", &large)] {
                    match tenant.get(&bucket, object_key).await {
                        Ok(got) => {
                            assert!(got == *body, "{table:?} bit {bit}: wrong bytes");
                            harmless += 1;
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
            write(&node, ns.row(table, &[&rest]), value);
        }
    }
    assert!(refused > 1_000 && harmless > 1_000, "refused {refused}, harmless {harmless}");
}

/// The clear fields of two part rows, exchanged on disk before the upload completes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_cannot_be_exchanged() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("parts").await;
    let object_key = object("o");
    let upload = multipart::begin(&tenant, &bucket, &object_key).await;
    let place = (&bucket, &object_key, upload);
    let mut parts = Vec::new();
    for number in 1..=2 {
        let body = bytes(5 << 20, u8::try_from(number).unwrap());
        parts.push(multipart::send(&tenant, place, number, body).await.unwrap());
    }
    let ns = node.engine().inner.tenants.namespace(tenant.purpose.tenant).unwrap();
    let stored = rows(&ns, Table::Multipart).await;
    let stored: Vec<_> = stored.into_iter().filter(|(rest, _)| rest[16] == b'p').collect();
    // Version byte, then the stream uid.
    for (from, to) in [(0, 1), (1, 0)] {
        let mut value = stored[to].1.clone();
        value[1..17].copy_from_slice(&stored[from].1[1..17]);
        write(&node, ns.row(Table::Multipart, &[&stored[to].0]), value);
    }
    let error = multipart::complete(&tenant, place, parts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tampered);
}
