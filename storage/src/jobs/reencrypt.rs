//! Re-encryption: every object under a key gets a new data key and new ciphertext.
//!
//! An object is old if it is under an epoch made before the job began; what the job writes goes
//! under later ones, so that a scan at the end can tell. While the job is at work a copy shares no
//! content under its key.
//! Owns: the order of one object's steps. Knows nothing of: where bytes lie.
//!
//! Invariants
//! - Name, version id, time, ETag, checksums, headers, tags and parts stay as they were; every
//!   chunk is verified on the way, and every checksum of the manifest is computed again.
//! - The old content is given up in the commit that replaces it. A crash before leaves dead bytes,
//!   and streams in the release queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use bytes::Bytes;
use kluis_kms::{ContentScope, DataKey, KeyUse};

use super::Live;
use super::objects::{Old, Place, begin_verify, behind, is_damage, note_damage};
use super::row::JobRow;
use super::run::{Step, Work, pause};
use super::scan::page;
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
use crate::release::{Pin, queue_row};
use crate::requests::GetRequest;
use crate::rows::{ContentRow, Manifest, ObjectRow, StreamRef};
use crate::stream::{StreamPlan, WrittenStream};
use crate::types::{Conditions, ContentId, StreamId};

/// Object rows looked at in one step; each object that is old is read and written in it.
const STEP_ROWS: usize = 16;
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
    _pin: Pin,
}

impl Inner {
    /// Re-encrypts the next objects.
    pub(super) async fn reencrypt_step(
        self: &Arc<Self>,
        live: &Live,
        work: &mut Work,
        row: &mut JobRow,
    ) -> Result<Step> {
        let page = page(&work.ns, Table::Objects, &[], &row.cursor, STEP_ROWS).await?;
        for (rest, value) in &page.rows {
            let old = self.old_row(work, row, Table::Objects, (rest, value)).await?;
            if let Some(old) = old.filter(|old| !old.is_customers) {
                let rate = Rate::new(row.rate_max, live);
                match self.reencrypt(work, row, &old, rate).await {
                    Ok(bytes) => {
                        row.done += 1;
                        row.bytes += bytes;
                    }
                    // It was replaced meanwhile, by something new or by a job's end.
                    Err(error) if error.kind() == ErrorKind::Conflict => {
                        if live.is_cancelled.load(Ordering::Acquire)
                            || self.jobs.is_closing.load(Ordering::Acquire)
                        {
                            return Ok(Step::More(1));
                        }
                    }
                    Err(error) if is_damage(&error) => note_damage(row, &error),
                    Err(error) => return Err(error),
                }
                behind(row, rest);
                *live.row() = row.clone();
                if live.is_cancelled.load(Ordering::Acquire) {
                    return Ok(Step::More(1));
                }
            }
        }
        match page.next {
            Some(next) => row.cursor = next,
            None => begin_verify(row),
        }
        // The bytes were paid for one by one.
        Ok(Step::More(0))
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
        let record = ns.get(Table::Contents, &[held.row.content.as_bytes()]).await?;
        let record = ContentRow::decode(&record.ok_or_else(changed)?)?;
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
        let (keys, since_ms) = (&self.keys, row.started_ms);
        let access = keys.for_write_since(ns, purpose, bucket.id, row.tenant_key, since_ms).await?;
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
            _pin: Pin::new(Arc::clone(self), id),
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

/// How fast an object may be read, and whether it should be read on.
struct Rate<'a> {
    max: Option<u32>,
    live: &'a Live,
    began: Instant,
    bytes: u64,
}

impl<'a> Rate<'a> {
    fn new(max: Option<u32>, live: &'a Live) -> Self {
        Self { max, live, began: Instant::now(), bytes: 0 }
    }

    /// Waits until so many more bytes are due.
    async fn pay(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes as u64;
        if self.live.is_cancelled.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Conflict, "re-encrypt in a job that was cancelled"));
        }
        let whole = pause(self.max, self.bytes / MIB);
        let rest = pause(self.max, self.bytes % MIB) / u32::try_from(MIB).expect("2^20");
        let ahead = (whole + rest).saturating_sub(self.began.elapsed());
        if ahead > Duration::from_millis(1) {
            tokio::time::sleep(ahead).await;
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
            if self.body.pending.is_empty() {
                let next = self.body.reader.next().await?;
                self.body.pending = next.ok_or_else(|| {
                    Error::new(ErrorKind::Corrupt, "read an object: it ended before its length")
                })?;
                self.body.rate.pay(self.body.pending.len()).await?;
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
