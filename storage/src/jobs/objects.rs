//! Objects and open uploads moved to new bucket keys, and the scan that none was left out.
//!
//! Owns: which epochs a job moves away from; the phases `Close`, `Drain`, `Objects`, `Uploads`,
//! `Verify…`; binding data keys anew. Knows nothing of: chunks.
//!
//! Invariants
//! - What is old is decided by epochs alone: those made under an older material, or those that the
//!   job closed. No clock is asked.
//! - The verifying scan tries to move what it finds, so what it counts as damaged is just that.
//! - A row is replaced only as it was read: whoever changed it meanwhile wins, and the row is
//!   looked at again.
//! - Nothing that a reader sees of an object changes but the key it is under.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use kluis_kms::{BucketKeyPurpose, DataKey, KeyUse, WrapKind};

use super::row::{JobRow, Phase};
use super::run::{EPOCHS_MAX, PASSES_MAX, Step, Work};
use super::scan::{after, key_page, page};
use super::{JobKind, JobState, Live};
use crate::bucket_keys::{BucketAccess, RowName, change_row};
use crate::commit::Draft;
use crate::engine::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::get::open_content;
use crate::index::{Binding, Held};
use crate::meta::{RowKey, ScanStep};
use crate::namespace::{Table, TenantNs, decode_object_key};
use crate::rows::{BucketKeyRow, ContentRow, Heading, ObjectRow, UploadRow, decode_bucket};
use crate::types::{BucketId, BucketInfo, BucketName, ContentId, ObjectKey, UploadId};

/// How often a job looks whether the writes are over that began before it.
const DRAIN_EVERY: Duration = Duration::from_millis(200);
/// Tries of one row that keeps changing, before it is left to the next pass.
const ROW_TRIES_MAX: usize = 16;

/// A row that a job works on.
pub(super) enum Place {
    Object { bucket: BucketInfo, object_key: ObjectKey },
    Upload { bucket: BucketInfo, object_key: ObjectKey, upload: UploadId },
}

/// A row to move: what it is of, and how it was read.
pub(super) struct Old {
    pub(super) place: Place,
    pub(super) row: RowKey,
    pub(super) held: Bytes,
    /// Its data key opens only with its customer's key.
    pub(super) is_customers: bool,
}

/// What became of an old row.
pub(super) enum Moved {
    /// It was moved, so many bytes of it.
    Anew(u64),
    /// It opens only with its customer's key.
    Customers,
    /// It does not verify.
    Damaged,
    /// It went meanwhile, or it keeps changing and is left to the next pass.
    Not,
}

/// Whether an error says that what is stored does not verify, or that what it is under is lost: the
/// job goes on without it. That the whole key is gone is found before the next step.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::KeyDestroyed | ErrorKind::Tampered)
}

impl Inner {
    /// Closes the next epochs of the key. The job is registered by now, so that what is written
    /// under a later epoch, and copied, has a data key of its own.
    pub(super) async fn close_step(&self, work: &mut Work, row: &mut JobRow) -> Result<Step> {
        let (page, next) = key_page(&work.ns, &row.cursor).await?;
        let (mut names, mut drafts) = (Vec::new(), Vec::new());
        for (name, held, before) in page.rows {
            if name.purpose != BucketKeyPurpose::Data || before.tenant_key != row.tenant_key {
                continue;
            }
            let mut draft = Draft::default();
            if !before.is_closed {
                let after = BucketKeyRow { is_indexed: true, is_closed: true, ..before.clone() };
                change_row(&mut draft, &work.ns, name, Some((&held, &before)), &after);
            }
            names.push((name.bucket, name.epoch));
            drafts.push(draft);
        }
        let outcomes = join_all(drafts.into_iter().map(|draft| self.job_commit(draft))).await;
        // Also those whose commit failed: they are just taken up again.
        self.keys.closed(work.ns.ns(), row.tenant_key, &names);
        for outcome in outcomes {
            match outcome {
                // It changed meanwhile: the same page again.
                Err(error) if error.kind() == ErrorKind::Conflict => return Ok(Step::More(0)),
                outcome => outcome?,
            }
        }
        if let Some(next) = next {
            row.cursor = next;
        } else {
            work.old.clear();
            row.enter(Phase::Drain);
        }
        Ok(Step::More(0))
    }

    /// Waits until no write is under way that began under an old epoch.
    pub(super) async fn drain_step(&self, work: &mut Work, row: &mut JobRow) -> Result<Step> {
        for (bucket, epoch) in self.keys.writes_under_way(work.ns.ns()) {
            if is_old(work, row, bucket, epoch).await? {
                return Ok(Step::Later(DRAIN_EVERY));
            }
        }
        self.barrier().await?;
        row.enter(Phase::Objects);
        Ok(Step::More(0))
    }

    /// Moves the next objects, or uploads.
    pub(super) async fn move_step(&self, work: &mut Work, row: &mut JobRow) -> Result<Step> {
        let table = if row.phase == Phase::Uploads { Table::Multipart } else { Table::Objects };
        let page = page(&work.ns, table, &[], &row.cursor, super::rewrap::step_rows(row)).await?;
        let mut drafts = Vec::new();
        for (rest, value) in &page.rows {
            let Some(old) = self.old_row(work, row, table, (rest, value)).await? else { continue };
            match self.moved(work, row, &old).await {
                Ok(Some(draft)) => drafts.push((rest, draft)),
                Ok(None) => {}
                // The verifying scan counts it.
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let (rests, drafts): (Vec<_>, Vec<_>) = drafts.into_iter().unzip();
        let outcomes = join_all(drafts.into_iter().map(|draft| self.job_commit(draft))).await;
        let mut done = 0;
        for (rest, outcome) in rests.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => done += 1,
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    let moved = self.move_row(work, row, table, rest).await?;
                    done += u64::from(matches!(moved, Moved::Anew(_)));
                }
                Err(error) => return Err(error),
            }
        }
        row.done += done;
        match page.next {
            Some(next) => row.cursor = next,
            None if table == Table::Objects => row.enter(Phase::Uploads),
            None => begin_verify(row),
        }
        Ok(Step::More(done))
    }

    /// Moves one row from what it is now, also while it keeps changing.
    async fn move_row(
        &self,
        work: &mut Work,
        row: &mut JobRow,
        table: Table,
        rest: &[u8],
    ) -> Result<Moved> {
        for _ in 0..ROW_TRIES_MAX {
            let Some(value) = work.ns.get(table, &[rest]).await? else { return Ok(Moved::Not) };
            let Some(old) = self.old_row(work, row, table, (rest, &value)).await? else {
                return Ok(Moved::Not);
            };
            let moved = match self.moved(work, row, &old).await {
                Ok(Some(draft)) => self.job_commit(draft).await,
                Ok(None) => return Ok(Moved::Customers),
                Err(error) => Err(error),
            };
            match moved {
                Ok(()) => return Ok(Moved::Anew(0)),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) if is_damage(&error) => {
                    say_damage(row, &error);
                    return Ok(Moved::Damaged);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Moved::Not)
    }

    /// The commit that moves a row; none where only its customer could.
    async fn moved(&self, work: &Work, row: &JobRow, old: &Old) -> Result<Option<Draft>> {
        if row.kind == JobKind::Purge {
            return self.purged(&work.ns, old).await.map(Some);
        }
        if old.is_customers {
            return Ok(None);
        }
        match &old.place {
            Place::Object { bucket, object_key } => {
                let held = Held { row: ObjectRow::decode(&old.held)?, bytes: old.held.clone() };
                let rebound = self.rebound(work, row, (bucket, object_key), &held).await?;
                let mut draft = Draft::default();
                draft.expect(old.row.clone(), Some(old.held.clone()));
                draft.put(old.row.clone(), rebound.encode());
                Ok(Some(draft))
            }
            Place::Upload { bucket, object_key, upload } => self
                .rebound_upload(
                    &work.ns,
                    &work.purpose,
                    (bucket, object_key, *upload),
                    row.tenant_key,
                )
                .await
                .map(Some),
        }
    }

    /// The row of an object with its data key and fields under the current epoch.
    async fn rebound(
        &self,
        work: &Work,
        row: &JobRow,
        (bucket, object_key): (&BucketInfo, &ObjectKey),
        held: &Held,
    ) -> Result<ObjectRow> {
        let (ns, purpose) = (&work.ns, &work.purpose);
        let of = (object_key, &held.row);
        let opened = self.open_row(ns, purpose, bucket, of, KeyUse::Read).await?;
        let content = held.row.content;
        let record = self.record_of(ns, (bucket, object_key), held).await?;
        let (key, ..) = open_content(ns, (bucket, object_key), (held, &opened), &record, None)?;
        let access = self.keys.for_write(ns, purpose, bucket.id, Some(row.tenant_key)).await?;
        let accesses = (&opened.access, &access);
        let target = (content, &key.data_key, record.sealed_manifest.as_slice());
        self.resealed(ns, accesses, (bucket, object_key), &held.row, target)
    }

    /// The content row of an object.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: the object was replaced meanwhile. [`ErrorKind::Corrupt`]: it was
    /// not, and its content is lost.
    pub(super) async fn record_of(
        &self,
        ns: &TenantNs,
        (bucket, object_key): (&BucketInfo, &ObjectKey),
        held: &Held,
    ) -> Result<ContentRow> {
        if let Some(record) = ns.get(Table::Contents, &[held.row.content.as_bytes()]).await? {
            return ContentRow::decode(&record);
        }
        let now = self.held(ns, bucket, object_key).await?;
        let is_same = now.is_some_and(|now| now.bytes == held.bytes);
        let kind = if is_same { ErrorKind::Corrupt } else { ErrorKind::Conflict };
        Err(Error::new(kind, "find the content of an object that is moved"))
    }

    /// An object row as it is, with `data_key` and the sealed fields under another epoch.
    pub(super) fn resealed(
        &self,
        ns: &TenantNs,
        (from, to): (&BucketAccess, &BucketAccess),
        (bucket, object_key): (&BucketInfo, &ObjectKey),
        row: &ObjectRow,
        (content, data_key, sealed_manifest): (ContentId, &DataKey, &[u8]),
    ) -> Result<ObjectRow> {
        let of = (object_key, row.version.as_bytes());
        let heading = from.open("um", of, &row.heading)?;
        let caller = Heading::decode(&heading)?.context;
        let binding = Binding {
            tenant: ns.tenant(),
            bucket,
            object_key,
            content,
            sse: row.sse,
            customer_key: None,
            context: &caller,
        };
        let bound = binding.of_version(row.version, sealed_manifest)?;
        let rng = &*self.env.rng;
        let tags = if row.tags.is_empty() {
            Vec::new()
        } else {
            to.seal("tg", of, &from.open("tg", of, &row.tags)?)?
        };
        Ok(ObjectRow {
            content,
            wrapped: to.data().wrap_data_key(&to.permit, data_key, &bound, rng)?,
            heading: to.seal("um", of, &heading)?,
            tags,
            attributes: to.seal("la", of, &from.open("la", of, &row.attributes)?)?,
            ..row.clone()
        })
    }

    /// What a row is of, if it is under an epoch that the job moves away from.
    pub(super) async fn old_row(
        &self,
        work: &mut Work,
        row: &mut JobRow,
        table: Table,
        (rest, value): (&[u8], &Bytes),
    ) -> Result<Option<Old>> {
        let Some((bucket, name)) = rest.split_first_chunk::<16>() else {
            return Err(Error::new(ErrorKind::Corrupt, "read the bucket in a row key"));
        };
        let is_upload = table == Table::Multipart;
        let encoded = match name.split_first() {
            Some((b'u', encoded)) if is_upload => encoded,
            Some(_) if is_upload => return Ok(None),
            _ => name,
        };
        let wrapped = if is_upload {
            UploadRow::decode(value).map(|upload| upload.wrapped)
        } else {
            ObjectRow::decode(value).map(|object| object.wrapped)
        };
        let wrapped = match wrapped {
            Ok(wrapped) => wrapped,
            Err(error) => {
                note_unreadable(row, &error);
                return Ok(None);
            }
        };
        let bucket = BucketId::from_bytes(*bucket);
        match is_old(work, row, bucket, wrapped.wrapping_version()).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if is_damage(&error) => {
                note_unreadable(row, &error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let Some(bucket) = bucket_of(work, bucket).await? else { return Ok(None) };
        let (object_key, id) = decode_object_key(encoded)?;
        let object_key = ObjectKey::new(&object_key)?;
        let place = if is_upload {
            let id = id
                .try_into()
                .map_err(|_| Error::new(ErrorKind::Corrupt, "read the upload id in a row key"))?;
            Place::Upload { bucket, object_key, upload: UploadId::from_bytes(id) }
        } else {
            Place::Object { bucket, object_key }
        };
        let is_customers = wrapped.kind() == WrapKind::DataKeyCustomer;
        let row = work.ns.row(table, &[rest]);
        Ok(Some(Old { place, row, held: value.clone(), is_customers }))
    }

    /// Looks at the next object rows, or uploads, all of them, and moves what is old after all.
    pub(super) async fn verify_step(
        self: &Arc<Self>,
        live: &Live,
        work: &mut Work,
        row: &mut JobRow,
    ) -> Result<Step> {
        let is_objects = row.phase == Phase::VerifyObjects;
        let table = if is_objects { Table::Objects } else { Table::Multipart };
        let page = page(&work.ns, table, &[], &row.cursor, super::run::PAGE_ROWS).await?;
        let is_reencrypt = row.kind == JobKind::Reencrypt;
        let open = is_reencrypt.then(|| self.jobs.objects.try_take());
        if matches!(open, Some(None)) {
            return Ok(Step::Later(super::reencrypt::OPEN_EVERY));
        }
        let before = row.clone();
        for (rest, value) in &page.rows {
            let Some(old) = self.old_row(work, row, table, (rest, value)).await? else { continue };
            let moved = if is_reencrypt {
                self.reencrypt_row(live, work, row, &old).await?
            } else {
                self.move_row(work, row, table, rest).await?
            };
            if self.jobs.is_over(live) {
                // The page is not seen through: again, should the job go on.
                *row = before;
                return Ok(Step::More(0));
            }
            match moved {
                Moved::Anew(bytes) => {
                    row.found += 1;
                    row.done += 1;
                    row.bytes += bytes;
                }
                Moved::Customers => row.skipped += 1,
                Moved::Damaged => row.damaged += 1,
                Moved::Not => row.found += 1,
            }
        }
        if let Some(next) = page.next {
            row.cursor = next;
            return Ok(Step::More(0));
        }
        if is_objects && !is_reencrypt {
            row.enter(Phase::VerifyUploads);
            return Ok(Step::More(0));
        }
        Ok(finish_pass(row))
    }
}

/// Goes to the verifying scan.
pub(super) fn begin_verify(row: &mut JobRow) {
    row.enter_scan(Phase::VerifyObjects);
}

/// Ends the job after its verifying scan, or begins another pass.
fn finish_pass(row: &mut JobRow) -> Step {
    let is_clean = row.found == 0;
    if !is_clean && row.pass + 1 < PASSES_MAX {
        row.pass += 1;
        row.enter(if row.kind == JobKind::Purge { Phase::Objects } else { Phase::Drain });
        return Step::More(0);
    }
    row.remaining = Some(row.found + row.skipped + row.damaged);
    let mut causes = Vec::new();
    if !is_clean {
        causes.push(format!("{} came back under old keys", row.found));
    }
    if row.damaged > 0 {
        causes.push(format!("{} do not verify and were left: run `kluis check`", row.damaged));
    }
    if row.unreadable > 0 {
        let what = "rows cannot be read, of this key or of another: run `kluis check`";
        causes.push(format!("{} {what}", row.unreadable));
    }
    if row.skipped > 0 {
        causes.push(format!("{} skipped: they open only with a customer's key", row.skipped));
    }
    if row.kind == JobKind::Reencrypt && row.uploads > 0 {
        let what = "uploads were open when it began; they keep the data key they began with";
        causes.push(format!("{} {what}", row.uploads));
    }
    row.say(&causes.join("; "));
    // What cannot be read cannot be given up, by a second purge neither.
    let is_read = row.unreadable == 0 || row.kind == JobKind::Purge;
    let is_done = is_clean && row.damaged == 0 && is_read;
    row.state = if is_done { JobState::Completed } else { JobState::Failed };
    Step::Ended
}

pub(super) fn say_damage(row: &JobRow, error: &Error) {
    tracing::warn!(tenant_key = %row.tenant_key, %error, "a job passes over what does not verify");
}

fn note_unreadable(row: &mut JobRow, error: &Error) {
    row.unreadable += 1;
    tracing::warn!(tenant_key = %row.tenant_key, %error, "a job passes over a row it cannot read");
}

/// Whether an epoch is one that the job moves away from.
pub(super) async fn is_old(
    work: &mut Work,
    row: &JobRow,
    bucket: BucketId,
    epoch: u32,
) -> Result<bool> {
    if let Some(known) = work.old.get(&(bucket, epoch)) {
        return Ok(*known);
    }
    let name = RowName { bucket, purpose: BucketKeyPurpose::Data, epoch };
    // Without its row nothing under it opens: that is for `kluis check` to say.
    let is_old = name.held(&work.ns).await?.is_some_and(|(_, key)| {
        key.tenant_key == row.tenant_key
            && match row.kind {
                JobKind::Rewrap | JobKind::DeepRewrap => key.born_material < row.material,
                JobKind::Reencrypt => key.is_closed,
                JobKind::Purge => true,
            }
    });
    if work.old.len() >= EPOCHS_MAX {
        work.old.clear();
    }
    work.old.insert((bucket, epoch), is_old);
    Ok(is_old)
}

/// The bucket of that id.
async fn bucket_of(work: &mut Work, bucket: BucketId) -> Result<Option<BucketInfo>> {
    if !work.buckets.contains_key(&bucket) {
        work.buckets = buckets(&work.ns).await?.into_iter().map(|info| (info.id, info)).collect();
    }
    Ok(work.buckets.get(&bucket).cloned())
}

/// Every bucket of a tenant.
pub(super) async fn buckets(ns: &TenantNs) -> Result<Vec<BucketInfo>> {
    ns.fold(Table::Buckets, &[], &[], Vec::new(), |buckets, rest, value| {
        let name = std::str::from_utf8(rest).ok().and_then(|name| BucketName::new(name).ok());
        let name = name
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a bucket's name in a row key"))?;
        buckets.push(decode_bucket(name, value)?);
        Ok(ScanStep::Next)
    })
    .await
}

/// The cursor behind a row.
pub(super) fn behind(row: &mut JobRow, rest: &[u8]) {
    row.cursor = after(rest);
}
