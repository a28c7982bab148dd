//! Put, get, copy, delete, list: what goes in comes out, and conditions decide.

use super::*;

/// Every size class, and the bytes around its borders.
const SIZES: [usize; 14] = [
    0,
    1,
    4_095,
    4_096,
    4_097,
    65_535,
    65_536,
    65_537,
    262_000,
    262_144,
    1 << 20,
    (4 << 20) - 1,
    4 << 20,
    (9 << 20) + 77,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_comes_back_byte_for_byte() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("sizes").await;
    for (seed, size) in (0_u8..).zip(SIZES) {
        let body = bytes(size, seed);
        let receipt = tenant.put(&bucket, &format!("o{size}"), &body).await.unwrap();
        assert_eq!(receipt.size, size as u64);
        assert!(tenant.get(&bucket, &format!("o{size}")).await.unwrap() == body, "{size}");
    }
}

// Many more readers than the pool has buffers, none of which comes back: whoever writes meanwhile
// finds buffers all the same, or this test does not end. Every reader that comes finds its bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stay_away_keep_nobody_from_writing() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("paused").await;
    let (object_key, body) = (object("long"), bytes(3 << 20, 5));
    tenant.put(&bucket, "long", &body).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..64 {
        let request = GetRequest {
            bucket: &bucket,
            object_key: &object_key,
            conditions: Conditions::default(),
            range: None,
            part_number: None,
            customer_key: None,
        };
        readers.push(tenant.engine().get(&tenant.purpose, request).await.unwrap());
    }
    for round in 0..4 {
        let other = bytes(5 << 20, round);
        tenant.put(&bucket, "other", &other).await.unwrap();
        assert!(tenant.get(&bucket, "other").await.unwrap() == other);
    }
    for mut reader in readers {
        let mut got = Vec::new();
        while let Some(bytes) = reader.body.next().await.unwrap() {
            got.extend_from_slice(&bytes);
        }
        assert!(got == body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_what_a_slice_is() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("ranges").await;
    let body = bytes((5 << 20) + 333, 9);
    tenant.put(&bucket, "o", &body).await.unwrap();
    let size = body.len() as u64;
    let borders = [0, 1, 65_535, 65_536, 65_537, 4 << 20, (4 << 20) + 1, size - 1];
    for first in borders {
        for last in borders.into_iter().filter(|last| *last >= first) {
            let range = RangeSpec::From { first, last: Some(last) };
            let got = tenant.get_part(&bucket, "o", Some(range), None).await.unwrap();
            assert!(
                got == body[crate::crypt::within(first)..=crate::crypt::within(last)],
                "{first}-{last}"
            );
        }
    }
    let suffix = RangeSpec::Suffix { length: 70_000 };
    let got = tenant.get_part(&bucket, "o", Some(suffix), None).await.unwrap();
    assert!(got == body[body.len() - 70_000..]);
    let beyond = RangeSpec::From { first: size, last: None };
    let error = tenant.get_part(&bucket, "o", Some(beyond), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRange);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_lies_stores_nothing() {
    struct Short;
    impl crate::body::Body for Short {
        fn size(&self) -> u64 {
            100_000
        }
        fn next(&mut self) -> crate::body::BodyFuture<'_> {
            Box::pin(async { Ok(None) })
        }
        fn checksums(&mut self) -> Vec<crate::digest::Checksum> {
            Vec::new()
        }
    }
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("short").await;
    let object_key = object("o");
    let request = PutRequest {
        bucket: &bucket,
        object_key: &object_key,
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        sse: SseChoice::default(),
        conditions: Conditions::default(),
        body: Box::new(Short),
    };
    let error = tenant.engine().put(&tenant.purpose, request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    assert_eq!(tenant.get(&bucket, "o").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_decide_in_the_commit() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("conditions").await;
    let create = || Conditions { if_none_match: Some(ETagMatch::Any), ..Conditions::default() };
    // Sixteen creators at once: one wins, fifteen are told so, and the winner's bytes are there.
    let results =
        futures::future::join_all(
            (0..16_u8).map(|seed| {
                let (tenant, bucket) = (&tenant, &bucket);
                async move {
                    tenant.put_if(bucket, "o", &bytes(10_000, seed), create()).await.map(|_| seed)
                }
            }),
        )
        .await;
    let winners: Vec<u8> =
        results.iter().filter_map(|result| result.as_ref().ok().copied()).collect();
    assert_eq!(winners.len(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
    }
    assert!(tenant.get(&bucket, "o").await.unwrap() == bytes(10_000, winners[0]));
    let wrong = Conditions {
        if_match: Some(ETagMatch::OneOf(vec![ETag::new("x")])),
        ..Conditions::default()
    };
    let error = tenant.put_if(&bucket, "o", b"y", wrong.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
    let error = tenant.put_if(&bucket, "absent", b"y", wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_gives_the_bytes_up_but_not_under_a_reader() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("delete").await;
    let body = bytes(9 << 20, 3);
    tenant.put(&bucket, "o", &body).await.unwrap();
    let object_key = object("o");
    let request = GetRequest {
        bucket: &bucket,
        object_key: &object_key,
        conditions: Conditions::default(),
        range: None,
        part_number: None,
        customer_key: None,
    };
    let mut reply = tenant.engine().get(&tenant.purpose, request).await.unwrap();
    let mut got = reply.body.next().await.unwrap().unwrap().to_vec();
    assert!(tenant.delete(&bucket, "o").await.unwrap().existed);
    assert!(!tenant.delete(&bucket, "o").await.unwrap().existed);
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    while let Some(bytes) = reply.body.next().await.unwrap() {
        got.extend_from_slice(&bytes);
    }
    assert!(got == body);
    drop(reply);
    // Nothing but dead bytes is left: no content, no location, no queued stream.
    let inner = &tenant.engine().inner;
    let ns = inner.tenants.namespace(tenant.purpose.tenant).unwrap();
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        if count(&ns, crate::namespace::Table::Locations).await == 0 {
            break;
        }
    }
    for table in [crate::namespace::Table::Contents, crate::namespace::Table::Locations] {
        assert_eq!(count(&ns, table).await, 0);
    }
}

async fn count(ns: &crate::namespace::TenantNs, table: crate::namespace::Table) -> usize {
    ns.fold(table, &[], &[], 0, |count, _, _| {
        *count += 1;
        Ok(crate::meta::ScanStep::Next)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_share_a_content_and_survive_each_other() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let (from, to) = (tenant.bucket("from").await, tenant.bucket("onto").await);
    for size in [10, 100_000, 5 << 20] {
        let body = bytes(size, 5);
        let put = tenant.put(&from, "a", &body).await.unwrap();
        let (a, b) = (object("a"), object("b"));
        let request = |conditions| CopyRequest {
            source: (&from, &a),
            source_purpose: &tenant.purpose,
            source_conditions: Conditions::default(),
            source_customer_key: None,
            bucket: &to,
            object_key: &b,
            headers: None,
            tags: None,
            sse: SseChoice::default(),
            conditions,
            checksum: None,
            reencrypt: false,
        };
        for _ in 0..3 {
            let copied =
                tenant.engine().copy(&tenant.purpose, request(Conditions::default())).await;
            assert_eq!(copied.unwrap().etag, put.etag);
        }
        tenant.delete(&from, "a").await.unwrap();
        assert!(tenant.get(&to, "b").await.unwrap() == body);
        let tags = tenant.engine().object_tags(&tenant.purpose, &to, &b).await.unwrap().0;
        assert_eq!(tags.0, vec![("tag".to_owned(), "value".to_owned())]);
        tenant.delete(&to, "b").await.unwrap();
        assert_eq!(tenant.get(&to, "b").await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let ns = node.engine().inner.tenants.namespace(tenant.purpose.tenant).unwrap();
    assert_eq!(count(&ns, crate::namespace::Table::Contents).await, 0);
    // A copy that asks for another checksum reads the bytes and has it.
    tenant.put(&from, "a", &bytes(70_000, 1)).await.unwrap();
    let (a, b) = (object("a"), object("b"));
    let request = CopyRequest {
        source: (&from, &a),
        source_purpose: &tenant.purpose,
        source_conditions: Conditions::default(),
        source_customer_key: None,
        bucket: &to,
        object_key: &b,
        headers: None,
        tags: None,
        sse: SseChoice::default(),
        conditions: Conditions::default(),
        checksum: Some(ChecksumAlgorithm::Sha256),
        reencrypt: false,
    };
    let copied = tenant.engine().copy(&tenant.purpose, request).await.unwrap();
    assert_eq!(copied.checksums[0].algorithm, ChecksumAlgorithm::Sha256);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_equal_those_of_a_sorted_map() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("lists").await;
    let names = [
        "a", "a/", "a//b", "a/b", "a/b/c", "a0", "a\u{1}", "a\u{0}b", "ab/x", "ab/y", "b", "ключ",
        "../x", "\n", "z/1", "z/2", "z/3", "zz",
    ];
    for one in names {
        tenant.put(&bucket, one, one.as_bytes()).await.unwrap();
    }
    let mut sorted: Vec<String> = names.iter().map(|&one| one.to_owned()).collect();
    sorted.sort_unstable();
    for limit in [1, 2, 3, 7, 1_000] {
        assert_eq!(tenant.list(&bucket, "", None, limit).await, sorted, "limit {limit}");
        for prefix in ["", "a", "a/", "z/", "no"] {
            for delimiter in ["/", "b", "//"] {
                let mut expected: Vec<String> = sorted
                    .iter()
                    .filter_map(|one| one.strip_prefix(prefix))
                    .map(|rest| match rest.find(delimiter) {
                        Some(at) => format!("{prefix}{}", &rest[..at + delimiter.len()]),
                        None => format!("{prefix}{rest}"),
                    })
                    .collect();
                expected.dedup();
                let got = tenant.list(&bucket, prefix, Some(delimiter), limit).await;
                assert_eq!(got, expected, "{prefix:?} {delimiter:?} {limit}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_goes_only_when_it_is_empty() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("going").await;
    let delete = || tenant.engine().delete_bucket(&tenant.purpose, &bucket);
    tenant.put(&bucket, "o", b"x").await.unwrap();
    assert_eq!(delete().await.unwrap_err().kind(), ErrorKind::NotEmpty);
    tenant.delete(&bucket, "o").await.unwrap();
    delete().await.unwrap();
    assert_eq!(delete().await.unwrap_err().kind(), ErrorKind::NotFound);
    // A put that still holds the old bucket does not bring it back.
    assert_eq!(tenant.put(&bucket, "o", b"x").await.unwrap_err().kind(), ErrorKind::NotFound);
    let again = tenant.bucket("going").await;
    assert_eq!(tenant.put(&bucket, "o", b"x").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(tenant.list(&again, "", None, 10).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_key_cuts_reads_and_writes_and_enable_brings_them_back() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("switch").await;
    let body = bytes(9 << 20, 8);
    tenant.put(&bucket, "o", &body).await.unwrap();
    let kms = Arc::clone(node.engine().kms());
    let tenant_key = kms.default_tenant_key(tenant.purpose.tenant).unwrap();
    let object_key = object("o");
    let request = GetRequest {
        bucket: &bucket,
        object_key: &object_key,
        conditions: Conditions::default(),
        range: None,
        part_number: None,
        customer_key: None,
    };
    let mut open = node.engine().get(&tenant.purpose, request).await.unwrap();
    open.body.next().await.unwrap().unwrap();
    let switching = Arc::clone(&kms);
    let id = tenant.purpose.tenant;
    tokio::task::spawn_blocking(move || switching.disable(&purpose(id), tenant_key))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(open.body.next().await.unwrap_err().kind(), ErrorKind::KeyDisabled);
    assert_eq!(tenant.get(&bucket, "o").await.unwrap_err().kind(), ErrorKind::KeyDisabled);
    assert_eq!(tenant.put(&bucket, "p", b"x").await.unwrap_err().kind(), ErrorKind::KeyDisabled);
    // Listing goes on.
    assert_eq!(tenant.list(&bucket, "", None, 10).await, ["o"]);
    kms.enable(&purpose(id), tenant_key).unwrap();
    assert!(tenant.get(&bucket, "o").await.unwrap() == body);
}
