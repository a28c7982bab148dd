//! Re-encryption: every object under a key gets a new data key and new ciphertext.
//!
//! An object is old if it is under an epoch that is closed: the job closes all that are there once
//! it is registered. What is written then goes under later ones, so a scan at the end can tell.
//! While the job is registered a copy shares no content under its key.
//! Owns: the order of one object's steps. Knows nothing of: where bytes lie.
//!
//! Invariants
//! - Name, version id, time, ETag, checksums, headers, tags and parts stay as they were; every
//!   chunk is verified on the way, and every checksum of the manifest is computed again.
//! - The old content is given up in the commit that replaces it. A crash before leaves dead bytes,
//!   and streams in the release queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kluis_kms::{ContentScope, DataKey, KeyUse};

use super::objects::{Moved, Old, Place, begin_verify, behind, is_damage, say_damage};
use super::row::JobRow;
use super::run::{Step, Work, pause};
use super::scan::page;
use super::{Jobs, Live};
use crate::blob::Lane;
use crate::body::{Body, BodyFuture};
use crate::commit::Draft;
use crate::digest::{Checksum, ChecksumAlgorithm, Digester};
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::get::{ObjectReader, open_content};
use crate::index::{ContentKey, Held};
use crate::meta::Change;
use crate::namespace::Table;
use crate::put::{publish_stream, seal_manifest};
use crate::release::{ContentPin, queue_row};
use crate::requests::GetRequest;
use crate::rows::{Manifest, ObjectRow, StreamRef};
use crate::stream::{StreamPlan, WrittenStream};
use crate::types::{Conditions, ContentId, EXTENT_BYTES, StreamId};

/// Object rows looked at in one step; each object that is old is read and written in it.
const STEP_ROWS: usize = 16;
/// How often a job looks whether it may open an object.
pub(super) const OPEN_EVERY: Duration = Duration::from_millis(200);
/// Bytes of one unit of the job's rate.
const MIB: u64 = 1 << 20;

/// A new content as far as it is written.
struct NewContent {
    id: ContentId,
    key: ContentKey,
    manifest: Manifest,
    streams: Vec<StreamRef>,
    /// The stream of an object that was put whole: published with the object.
    whole: Option<(StreamId, WrittenStream)>,
    /// Queue rows of streams that are published already.
    queued: Vec<crate::meta::RowKey>,
    /// Keeps the release queue from them.
    _pin: ContentPin,
}

impl Inner {
    /// Re-encrypts the next objects.
    pub(super) async fn reencrypt_step(
        self: &Arc<Self>,
        live: &Live,
        work: &mut Work,
        row: &mut JobRow,
    ) -> Result<Step> {
        let Some(_open) = self.jobs.objects.try_take() else { return Ok(Step::Later(OPEN_EVERY)) };
        let page = page(&work.ns, Table::Objects, &[], &row.cursor, STEP_ROWS).await?;
        for (rest, value) in &page.rows {
            let old = self.old_row(work, row, Table::Objects, (rest, value)).await?;
            let Some(old) = old else { continue };
            if let Moved::Anew(bytes) = self.reencrypt_row(live, work, row, &old).await? {
                row.done += 1;
                row.bytes += bytes;
            }
            if self.jobs.is_over(live) {
                // The row may not be done: the job goes on with it, if at all.
                return Ok(Step::More(0));
            }
            behind(row, rest);
            *live.row() = row.clone();
        }
        match page.next {
            Some(next) => row.cursor = next,
            None => begin_verify(row),
        }
        // The bytes were paid for one by one.
        Ok(Step::More(0))
    }

    /// Re-encrypts what is in a row, if it can.
    pub(super) async fn reencrypt_row(
        self: &Arc<Self>,
        live: &Live,
        work: &Work,
        row: &JobRow,
        old: &Old,
    ) -> Result<Moved> {
        if old.is_customers {
            return Ok(Moved::Customers);
        }
        let rate = Rate { max: row.rate_max, live, jobs: &self.jobs };
        match self.reencrypt(work, row, old, rate).await {
            Ok(bytes) => Ok(Moved::Anew(bytes)),
            // It was replaced meanwhile by something new, or the job is over.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(Moved::Not),
            Err(error) if is_damage(&error) => {
                say_damage(row, &error);
                Ok(Moved::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    /// Re-encrypts one object; its plaintext bytes.
    async fn reencrypt(
        self: &Arc<Self>,
        work: &Work,
        row: &JobRow,
        old: &Old,
        rate: Rate<'_>,
    ) -> Result<u64> {
        let Place::Object { bucket, object_key } = &old.place else {
            return Err(Error::new(ErrorKind::Misuse, "re-encrypt an upload"));
        };
        let (ns, purpose) = (&work.ns, &work.purpose);
        let held = Held { row: ObjectRow::decode(&old.held)?, bytes: old.held.clone() };
        let of = (object_key, &held.row);
        let opened = self.open_row(ns, purpose, bucket, of, KeyUse::Read).await?;
        let changed = || Error::new(ErrorKind::Conflict, "re-encrypt an object that changed");
        let record = self.record_of(ns, (bucket, object_key), &held).await?;
        let (_, _, manifest) =
            open_content(ns, (bucket, object_key), (&held, &opened), &record, None)?;
        let request = GetRequest {
            bucket,
            object_key,
            conditions: Conditions::default(),
            range: None,
            part_number: None,
            customer_key: None,
        };
        let reply = Engine { inner: Arc::clone(self) }.get(purpose, request).await?;
        if reply.info.version != held.row.version {
            return Err(changed());
        }
        let access = self.keys.for_write(ns, purpose, bucket.id, Some(row.tenant_key)).await?;
        let body = OldBody { reader: reply.body, pending: Bytes::new(), rate };
        let content = self.write_again(work, &access.permit, manifest, body).await?;
        let inline = content.whole.as_ref().is_some_and(|(_, written)| written.inline.is_some());
        let record =
            seal_manifest(&content.key, &content.manifest, content.streams.clone(), inline);
        let target = (content.id, &content.key.data_key, record.sealed_manifest.as_slice());
        let accesses = (&opened.access, &access);
        let new = self.resealed(ns, accesses, (bucket, object_key), &held.row, target)?;
        let mut draft = Draft::default();
        draft.expect(old.row.clone(), Some(old.held.clone()));
        self.release_content(ns, held.row.content, &mut draft).await?;
        draft.put(ns.row(Table::Contents, &[content.id.as_bytes()]), record.encode());
        if let Some((stream, written)) = &content.whole {
            if let Some(inline) = &written.inline {
                draft.put(ns.row(Table::Inline, &[content.id.as_bytes()]), inline.clone());
            }
            publish_stream(&mut draft, ns, *stream, written);
        }
        for row in &content.queued {
            draft.changes.push(Change::Delete { row: row.clone() });
        }
        draft.put(old.row.clone(), new.encode());
        self.job_commit(draft).await?;
        Ok(held.row.size)
    }

    /// Encrypts a content anew, stream by stream as it was.
    async fn write_again(
        self: &Arc<Self>,
        work: &Work,
        permit: &kluis_kms::UnwrapPermit,
        old: Manifest,
        mut body: OldBody<'_>,
    ) -> Result<NewContent> {
        let (ns, rng) = (&work.ns, &*self.env.rng);
        let id = ContentId::random(rng);
        let scope = ContentScope::new(ns.tenant(), *id.as_bytes());
        let key = ContentKey { data_key: DataKey::generate(rng)?, scope };
        let is_whole = old.streams.len() == 1;
        let mut content = NewContent {
            id,
            key,
            manifest: Manifest { streams: Vec::new(), ..old.clone() },
            streams: Vec::new(),
            whole: None,
            queued: Vec::new(),
            _pin: ContentPin::new(Arc::clone(self), id),
        };
        for part in old.streams {
            self.admit(part.size)?;
            let stream = StreamId::random(rng);
            let plan = StreamPlan {
                ns,
                permit,
                stream,
                stream_key: content
                    .key
                    .data_key
                    .stream_key(&content.key.scope, stream.as_bytes())?,
                lane: if is_whole { Lane::Hot } else { Lane::Part },
                may_inline: is_whole,
            };
            let known = if is_whole && part.checksums.is_empty() && !old.composite {
                old.checksums.as_slice()
            } else {
                part.checksums.as_slice()
            };
            let mut one = OneStream::new(&mut body, part.size, known);
            let written = self.sink().write(plan, &mut one).await?;
            content.streams.push(StreamRef { stream, extents: written.extents() });
            content.manifest.streams.push(crate::rows::ManifestStream { stream, ..part });
            if is_whole {
                content.whole = Some((stream, written));
            } else if written.extents() > 0 {
                let mut draft = Draft::default();
                publish_stream(&mut draft, ns, stream, &written);
                let (queued, value) = queue_row(ns, id, stream);
                draft.put(queued.clone(), value);
                self.job_commit(draft).await?;
                content.queued.push(queued);
            }
        }
        Ok(content)
    }
}

/// How fast objects may be read, and whether this one should be read on.
struct Rate<'a> {
    max: Option<u32>,
    live: &'a Live,
    jobs: &'a Jobs,
}

impl Rate<'_> {
    /// Pays for bytes that were read.
    fn pay(&self, bytes: usize) -> Result<()> {
        let bytes = bytes as u64;
        let whole = pause(self.max, bytes / MIB);
        let rest = pause(self.max, bytes % MIB) / u32::try_from(MIB).expect("2^20");
        self.live.charge(whole + rest);
        self.check()
    }

    /// Waits until what was paid for is due, while others have the turn.
    async fn rest(&self) -> Result<()> {
        self.live.rest(self.jobs).await;
        self.check()
    }

    fn check(&self) -> Result<()> {
        if self.jobs.is_over(self.live) {
            return Err(Error::new(ErrorKind::Conflict, "re-encrypt in a job that is over"));
        }
        Ok(())
    }
}

/// An object's plaintext, read once from front to back.
struct OldBody<'a> {
    reader: ObjectReader,
    pending: Bytes,
    rate: Rate<'a>,
}

/// The part of it that is one stream.
struct OneStream<'a, 'b> {
    body: &'a mut OldBody<'b>,
    size: u64,
    left: u64,
    known: &'a [Checksum],
    digester: Option<Digester>,
}

impl<'a, 'b> OneStream<'a, 'b> {
    fn new(body: &'a mut OldBody<'b>, size: u64, known: &'a [Checksum]) -> Self {
        let algorithms: Vec<ChecksumAlgorithm> =
            known.iter().map(|checksum| checksum.algorithm).collect();
        Self { body, size, left: size, known, digester: Some(Digester::new(&algorithms)) }
    }

    /// Compares what was read with what the manifest says of it.
    fn finish(&mut self) -> Result<()> {
        let computed = self.digester.take().map(Digester::finish).unwrap_or_default();
        let agrees = self.known.iter().all(|known| computed.contains(known));
        if agrees || self.known.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Tampered, "compare an object with its checksums"))
    }
}

impl Body for OneStream<'_, '_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn next(&mut self) -> BodyFuture<'_> {
        Box::pin(async move {
            if self.left == 0 {
                if self.digester.is_some() {
                    self.finish()?;
                }
                return Ok(None);
            }
            // Between extents no buffer of the pool waits for more.
            if (self.size - self.left).is_multiple_of(EXTENT_BYTES) {
                self.body.rate.rest().await?;
            }
            if self.body.pending.is_empty() {
                let next = self.body.reader.next().await?;
                self.body.pending = next.ok_or_else(|| {
                    Error::new(ErrorKind::Corrupt, "read an object: it ended before its length")
                })?;
                self.body.rate.pay(self.body.pending.len())?;
            }
            let pending = self.body.pending.len() as u64;
            let take = usize::try_from(pending.min(self.left)).unwrap_or(usize::MAX);
            let bytes = self.body.pending.split_to(take);
            self.left -= bytes.len() as u64;
            if let Some(digester) = &mut self.digester {
                digester.update(&bytes);
            }
            Ok(Some(bytes))
        })
    }

    fn checksums(&mut self) -> Vec<Checksum> {
        Vec::new()
    }
}
