//! Multipart uploads: parts in any order, sent again, left out, aborted, completed twice.

use super::*;

const PART: usize = 5 << 20;

pub(super) async fn begin(
    tenant: &Tenant<'_>,
    bucket: &BucketInfo,
    object_key: &ObjectKey,
) -> UploadId {
    let request = CreateUpload {
        bucket,
        object_key,
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        sse: SseChoice::default(),
        checksum: None,
    };
    tenant.engine().create_upload(&tenant.purpose, request).await.unwrap().upload
}

pub(super) async fn send(
    tenant: &Tenant<'_>,
    (bucket, object_key, upload): (&BucketInfo, &ObjectKey, UploadId),
    part_number: u32,
    body: Vec<u8>,
) -> Result<CompletedPart> {
    let body = Box::new(BytesBody::new(body, &[ChecksumAlgorithm::Crc64Nvme]));
    let request = UploadPart { bucket, object_key, upload, part_number, customer_key: None, body };
    let receipt = tenant.engine().upload_part(&tenant.purpose, request).await?;
    Ok(CompletedPart { number: part_number, etag: receipt.etag, checksums: receipt.checksums })
}

pub(super) async fn complete(
    tenant: &Tenant<'_>,
    (bucket, object_key, upload): (&BucketInfo, &ObjectKey, UploadId),
    parts: Vec<CompletedPart>,
) -> Result<PutReceipt> {
    let request = CompleteUpload {
        bucket,
        object_key,
        upload,
        parts,
        checksum: None,
        size: None,
        customer_key: None,
        conditions: Conditions::default(),
    };
    tenant.engine().complete_upload(&tenant.purpose, request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_parts() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("parts").await;
    let object_key = object("o");
    let upload = begin(&tenant, &bucket, &object_key).await;
    let place = (&bucket, &object_key, upload);
    let last = send(&tenant, place, 9, bytes(1_000, 3)).await.unwrap();
    send(&tenant, place, 2, bytes(PART, 99)).await.unwrap();
    let second = send(&tenant, place, 2, bytes(PART + 5, 2)).await.unwrap();
    send(&tenant, place, 4, bytes(77, 7)).await.unwrap();
    let first = send(&tenant, place, 1, bytes(PART, 1)).await.unwrap();
    let parts = vec![first, second, last];
    let made = complete(&tenant, place, parts.clone()).await.unwrap();
    assert!(made.etag.as_str().ends_with("-3"));
    let whole = [bytes(PART, 1), bytes(PART + 5, 2), bytes(1_000, 3)].concat();
    assert!(tenant.get(&bucket, "o").await.unwrap() == whole);
    let mut digester = crate::digest::Digester::new(&[ChecksumAlgorithm::Crc64Nvme]);
    digester.update(&whole);
    assert!(made.checksums == digester.finish());
    let part = tenant.get_part(&bucket, "o", None, Some(2)).await.unwrap();
    assert!(part == bytes(PART + 5, 2));
    // A repeat answers the same; the upload is gone.
    assert_eq!(complete(&tenant, place, parts).await.unwrap().etag, made.etag);
    let gone = send(&tenant, place, 1, bytes(1, 1)).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let range = RangeSpec::From { first: PART as u64 - 3, last: Some(PART as u64 + 3) };
    let got = tenant.get_part(&bucket, "o", Some(range), None).await.unwrap();
    assert!(got == whole[PART - 3..=PART + 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_part_lists_change_nothing() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("wrong").await;
    let object_key = object("o");
    let upload = begin(&tenant, &bucket, &object_key).await;
    let place = (&bucket, &object_key, upload);
    let small = send(&tenant, place, 1, bytes(10, 1)).await.unwrap();
    let other = send(&tenant, place, 2, bytes(10, 2)).await.unwrap();
    let unknown = CompletedPart { number: 3, ..other.clone() };
    let forged = CompletedPart { etag: ETag::new("0"), ..other.clone() };
    let cases = [
        (vec![], ErrorKind::Misuse),
        (vec![other.clone(), small.clone()], ErrorKind::InvalidPartOrder),
        (vec![small.clone(), small.clone()], ErrorKind::InvalidPartOrder),
        (vec![small.clone(), other.clone()], ErrorKind::PartTooSmall),
        (vec![small.clone(), unknown], ErrorKind::PartTooSmall),
        (vec![forged], ErrorKind::InvalidPart),
    ];
    for (parts, expected) in cases {
        assert_eq!(complete(&tenant, place, parts).await.unwrap_err().kind(), expected);
    }
    let error = send(&tenant, place, 0, bytes(1, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!(tenant.get(&bucket, "o").await.unwrap_err().kind(), ErrorKind::NotFound);
    // Still open, and still good.
    complete(&tenant, place, vec![small]).await.unwrap();
    assert!(tenant.get(&bucket, "o").await.unwrap() == bytes(10, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_upload_leaves_nothing() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("abort").await;
    let object_key = object("o");
    let upload = begin(&tenant, &bucket, &object_key).await;
    let place = (&bucket, &object_key, upload);
    for number in 1..4 {
        send(&tenant, place, number, bytes(PART, 1)).await.unwrap();
    }
    let delete = tenant.engine().delete_bucket(&tenant.purpose, &bucket).await;
    assert_eq!(delete.unwrap_err().kind(), ErrorKind::NotEmpty);
    let abort = || tenant.engine().abort_upload(&tenant.purpose, &bucket, &object_key, upload);
    abort().await.unwrap();
    assert_eq!(abort().await.unwrap_err().kind(), ErrorKind::NotFound);
    let ns = node.engine().inner.tenants.namespace(tenant.purpose.tenant).unwrap();
    for table in [crate::namespace::Table::Locations, crate::namespace::Table::Multipart] {
        for tries in 0.. {
            let left = ns
                .fold(table, &[], &[], 0, |count, _, _| {
                    *count += 1;
                    Ok(crate::meta::ScanStep::Next)
                })
                .await
                .unwrap();
            if left == 0 {
                break;
            }
            assert!(tries < 100, "{left} rows are left in {table:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    tenant.engine().delete_bucket(&tenant.purpose, &bucket).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_and_parts_list_in_order() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("lists").await;
    let mut expected = Vec::new();
    for one in ["a", "a", "b/1", "b/2", "c"] {
        begin(&tenant, &bucket, &object(one)).await;
        expected.push(one.to_owned());
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    for (delimiter, expected) in [
        (None, expected),
        (Some("/"), ["a", "a", "b/", "c"].iter().map(|&one| one.to_owned()).collect()),
    ] {
        for limit in 1..6 {
            let (mut names, mut after) = (Vec::new(), None);
            loop {
                let request = ListUploads {
                    bucket: &bucket,
                    prefix: String::new(),
                    delimiter: delimiter.map(str::to_owned),
                    after,
                    limit,
                };
                let page = tenant.engine().list_uploads(&tenant.purpose, request).await.unwrap();
                names.extend(page.entries.into_iter().map(|entry| match entry {
                    UploadEntry::Upload { object_key, .. } => object_key,
                    UploadEntry::Prefix(prefix) => prefix,
                }));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(names, expected, "{delimiter:?} {limit}");
        }
    }
    let object_key = object("parts");
    let upload = begin(&tenant, &bucket, &object_key).await;
    for number in [7, 1, 3] {
        send(&tenant, (&bucket, &object_key, upload), number, bytes(10, 1)).await.unwrap();
    }
    let page = tenant
        .engine()
        .list_parts(&tenant.purpose, &bucket, &object_key, upload, 1, 1)
        .await
        .unwrap();
    assert_eq!((page.parts[0].number, page.next), (3, Some(3)));
}

/// Parts that arrive while their upload ends: afterwards there is an upload with all of them, or
/// nothing of any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_races_the_end_of_its_upload_leaves_nothing() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("race").await;
    let object_key = object("o");
    for round in 0..20_u8 {
        let upload = begin(&tenant, &bucket, &object_key).await;
        let place = (&bucket, &object_key, upload);
        send(&tenant, place, 1, bytes(10, round)).await.unwrap();
        let late = (2..6).map(|number| send(&tenant, place, number, bytes(10, round)));
        let late = futures::future::join_all(late);
        let abort = tenant.engine().abort_upload(&tenant.purpose, &bucket, &object_key, upload);
        let (_, aborted) = futures::future::join(late, abort).await;
        aborted.unwrap();
    }
    tenant.engine().delete_bucket(&tenant.purpose, &bucket).await.unwrap();
}
