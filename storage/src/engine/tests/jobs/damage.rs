//! Jobs over rows that somebody changed, and destructions that go on all the same.

use std::path::Path;

use kluis_kms::KeyState;

use super::*;
use crate::bucket_keys::{IndexName, RowName};
use crate::commit::Draft;
use crate::meta::{Change, Family, RowKey};
use crate::namespace::{Table, encode_object_key};

const HOUR_MS: u64 = 3_600 * 1_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A node whose clock a test moves.
async fn with_clock() -> (Node, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let env = Env { clock: Arc::clone(&clock) as _, ..Env::system() };
    (Node::with(env).await, clock)
}

impl Tenant<'_> {
    async fn write(&self, row: RowKey, value: Option<Vec<u8>>) {
        let mut draft = Draft::default();
        match value {
            Some(value) => draft.put(row, value),
            None => draft.changes.push(Change::Delete { row }),
        }
        self.engine().inner.committer.commit(draft).await.unwrap();
    }

    /// The row that says that a key's destruction is under way.
    fn destroying(&self) -> RowKey {
        let (tenant, key) = (self.purpose.tenant, self.key());
        let bytes = [b"E", tenant.as_bytes().as_slice(), key.as_bytes()].concat();
        RowKey { family: Family::Sys, bytes }
    }

    fn is_destroying(&self, row: &RowKey) -> bool {
        let store = self.engine().inner.reader.store();
        store.get(row.family, &row.bytes).unwrap().is_some()
    }

    /// The job that the report of a destroyed key names.
    async fn purge_job(&self, key: TenantKeyId) -> String {
        let report = self.engine().erasure_report(self.purpose.tenant, key).await.unwrap().unwrap();
        let report: serde_json::Value = serde_json::from_str(&report.json).unwrap();
        assert_eq!(report["state"], "Destroyed");
        assert_eq!(report["evidence"]["materials"], report["evidence"]["canaries_refused"]);
        report["purge_job"].as_str().unwrap().to_owned()
    }
}

fn object_row(tenant: &Tenant<'_>, bucket: &BucketInfo, object_key: &str) -> RowKey {
    let encoded = encode_object_key(object_key.as_bytes());
    tenant.ns().row(Table::Objects, &[bucket.id.as_bytes(), &encoded])
}

fn data_key(bucket: &BucketInfo, epoch: u32) -> RowName {
    RowName { bucket: bucket.id, purpose: kluis_kms::BucketKeyPurpose::Data, epoch }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrap_trusts_no_index() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("indexed").await;
    tenant.fill(&bucket).await;
    let (engine, key, ns) = (tenant.engine(), tenant.key(), tenant.ns());
    engine.kms().rotate(&tenant.purpose, key).unwrap();
    let (_, row) = data_key(&bucket, 1).held(&ns).await.unwrap().unwrap();
    let real = IndexName::of(data_key(&bucket, 1), &row).unwrap();
    // One is missing, one names a key that is not there, one is no index row at all.
    tenant.write(real.row(&ns), None).await;
    let stray = IndexName { of: data_key(&bucket, 77), ..real };
    tenant.write(stray.row(&ns), Some(Vec::new())).await;
    let garbled = ns.row(Table::KeyIndex, &[key.as_bytes(), &1_u32.to_be_bytes(), b"garbled"]);
    tenant.write(garbled.clone(), Some(b"?".to_vec())).await;
    let refused = engine.retire_material(&tenant.purpose, key, 1, false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let info = tenant.ended(&tenant.begin(JobKind::Rewrap).await.job).await;
    assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)));
    for row in [stray.row(&ns), garbled] {
        let left = engine.inner.reader.store().get(row.family, &row.bytes).unwrap();
        assert!(left.is_none());
    }
    engine.retire_material(&tenant.purpose, key, 1, false).await.unwrap();
    assert!(tenant.get(&bucket, "o5000").await.unwrap() == bytes(5_000, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_verify_costs_only_itself() {
    let node = Node::new().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("damaged").await;
    tenant.fill(&bucket).await;
    let placed = tenant.placed(&bucket).await;
    tenant.put(&bucket, "garbled", b"x").await.unwrap();
    tenant.put(&bucket, "forged", &bytes(70_000, 1)).await.unwrap();
    // A row that cannot be read, and one whose sealed fields were changed.
    tenant.write(object_row(&tenant, &bucket, "garbled"), Some(b"\x01?".to_vec())).await;
    let mut forged = tenant.row(&bucket, "forged").await;
    let last = forged.attributes.len() - 1;
    forged.attributes[last] ^= 1;
    tenant.write(object_row(&tenant, &bucket, "forged"), Some(forged.encode())).await;
    let (engine, key) = (tenant.engine(), tenant.key());
    for kind in [JobKind::DeepRewrap, JobKind::Reencrypt] {
        engine.kms().rotate(&tenant.purpose, key).unwrap();
        let info = tenant.ended(&tenant.begin(kind).await.job).await;
        assert_eq!((info.state, info.remaining), (JobState::Failed, Some(1)), "{kind:?}");
        let cause = info.cause.unwrap();
        assert!(cause.contains("1 do not verify"), "{cause}");
        assert!(cause.contains("1 rows cannot be read"), "{cause}");
    }
    judge(JobKind::Reencrypt, &placed, &tenant.placed(&bucket).await, "beside damage");
    assert_eq!(engine.key_impact(&tenant.purpose, key).await.unwrap().damaged, 1);
    // A bucket key that cannot be read: nothing may be retired, the others are wrapped anew.
    let ns = tenant.ns();
    tenant.write(data_key(&bucket, 99).row(&ns), Some(b"\x02?".to_vec())).await;
    engine.kms().rotate(&tenant.purpose, key).unwrap();
    let info = tenant.ended(&tenant.begin(JobKind::Rewrap).await.job).await;
    assert_eq!((info.state, info.remaining), (JobState::Failed, Some(0)));
    let impact = engine.key_impact(&tenant.purpose, key).await.unwrap();
    assert!(impact.bucket_keys.iter().all(|(material, _)| *material == 4), "{impact:?}");
    let refused = engine.retire_material(&tenant.purpose, key, 1, false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_destroyed_beside_rows_that_cannot_be_read() {
    let (node, clock) = with_clock().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("doomed").await;
    tenant.fill(&bucket).await;
    let (engine, key, ns) = (tenant.engine(), tenant.key(), tenant.ns());
    let garbled = object_row(&tenant, &bucket, "garbled");
    tenant.write(garbled, Some(b"\x01?".to_vec())).await;
    tenant.write(data_key(&bucket, 99).row(&ns), Some(b"\x02?".to_vec())).await;
    let destroying = tenant.destroying();
    engine.kms().schedule_deletion(&tenant.purpose, key, 7).unwrap();
    clock.advance_ms(8 * DAY_MS);
    engine.run_due().await.unwrap();
    let state = engine.kms().describe(tenant.purpose.tenant, key).unwrap().state;
    assert_eq!(state, KeyState::Destroyed);
    let info = tenant.ended(&tenant.purge_job(key).await).await;
    assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)));
    assert_eq!(info.done, SIZES.len() as u64);
    assert_eq!(tenant.get(&bucket, "o100").await.unwrap_err().kind(), ErrorKind::NotFound);
    engine.run_due().await.unwrap();
    assert!(!tenant.is_destroying(&destroying));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_failed_is_done_again() {
    let (node, clock) = with_clock().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("doomed").await;
    tenant.fill(&bucket).await;
    let (engine, key, ns) = (tenant.engine(), tenant.key(), tenant.ns());
    let content = tenant.row(&bucket, "o100").await.content;
    let record = ns.row(Table::Contents, &[content.as_bytes()]);
    let whole = engine.inner.reader.store().get(record.family, &record.bytes).unwrap().unwrap();
    tenant.write(record.clone(), Some(b"\x01?".to_vec())).await;
    let destroying = tenant.destroying();
    engine.kms().schedule_deletion(&tenant.purpose, key, 7).unwrap();
    clock.advance_ms(8 * DAY_MS);
    engine.run_due().await.unwrap();
    let failed = tenant.purge_job(key).await;
    let info = tenant.ended(&failed).await;
    assert_eq!((info.state, info.remaining), (JobState::Failed, Some(1)));
    // Not at once: whatever is the matter takes its time.
    engine.run_due().await.unwrap();
    assert_eq!(tenant.purge_job(key).await, failed);
    tenant.write(record, Some(whole.to_vec())).await;
    clock.advance_ms(HOUR_MS);
    engine.run_due().await.unwrap();
    let again = tenant.purge_job(key).await;
    assert_ne!(again, failed);
    let info = tenant.ended(&again).await;
    assert_eq!((info.state, info.remaining), (JobState::Completed, Some(0)));
    assert_eq!(tenant.get(&bucket, "o100").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(tenant.is_destroying(&destroying));
    engine.run_due().await.unwrap();
    assert!(!tenant.is_destroying(&destroying));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_was_called_off_leaves_nothing() {
    let (node, clock) = with_clock().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("spared").await;
    tenant.fill(&bucket).await;
    let (engine, key) = (tenant.engine(), tenant.key());
    let destroying = tenant.destroying();
    engine.kms().schedule_deletion(&tenant.purpose, key, 7).unwrap();
    clock.advance_ms(8 * DAY_MS);
    engine.kms().cancel_deletion(&tenant.purpose, key).unwrap();
    engine.kms().enable(&tenant.purpose, key).unwrap();
    // As if the clock had looked at it just before.
    tenant.write(destroying.clone(), Some(vec![1])).await;
    engine.run_due().await.unwrap();
    assert!(!tenant.is_destroying(&destroying));
    assert!(tenant.get(&bucket, "o5000").await.unwrap() == bytes(5_000, 2));
}

/// Whether a file of a folder holds these bytes.
fn holds(folder: &Path, wanted: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let held = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        held.windows(wanted.len()).any(|window| window == wanted)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_lets_go_of_the_wraps_of_a_destroyed_key() {
    let (node, clock) = with_clock().await;
    let tenant = node.tenant().await;
    let bucket = tenant.bucket("doomed").await;
    tenant.fill(&bucket).await;
    let (engine, key, ns) = (tenant.engine(), tenant.key(), tenant.ns());
    let row = data_key(&bucket, 1).read(&ns).await.unwrap();
    // Without the part in front, which every wrap under the key has.
    let wrap = row.wrapped.unwrap();
    let secret = wrap.as_bytes().rchunks(32).next().unwrap();
    let meta = node.dir.path().join("meta");
    assert!(holds(&meta, secret));
    engine.kms().schedule_deletion(&tenant.purpose, key, 7).unwrap();
    clock.advance_ms(8 * DAY_MS);
    engine.run_due().await.unwrap();
    assert!(data_key(&bucket, 1).read(&ns).await.unwrap().wrapped.is_none());
    assert!(!holds(&meta, secret));
    let gone = tenant.get(&bucket, "o5000").await.unwrap_err().kind();
    assert!(matches!(gone, ErrorKind::KeyDestroyed | ErrorKind::NotFound), "{gone:?}");
}
