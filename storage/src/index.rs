//! From an object's name to its version and content, and back out again.
//!
//! Owns: object rows, the counted references on contents, the contexts that data keys are bound to.
//! The only holder of object keys. Knows nothing of: chunks, where bytes lie.
//!
//! Invariants
//! - An object row points to a content row that counts it; the last reference takes the content's
//!   rows with it, in the same commit.
//! - Every commit names the bucket row and the object row that it was decided on, so that it fails
//!   if either has changed.
//!   Bytes: docs/FORMAT.md, "Rows", "Bindings".

use bytes::Bytes;
use kluis_kms::{Access, CustomerKey, EncryptionContext, KeyUse, Purpose, TenantId};

use crate::blob::Location;
use crate::bucket_keys::BucketAccess;
use crate::bugs::{Bug, seeded};
use crate::commit::Draft;
use crate::conditions::Validators;
use crate::engine::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::get::STEP_CHUNKS;
use crate::meta::{Change, RowKey};
use crate::namespace::{Table, TenantNs, encode_object_key};
use crate::release::queue_row;
use crate::rows::{
    Attributes, ContentRow, Heading, Manifest, ObjectRow, decode_bucket, encode_sse,
};
use crate::segments::count_dead;
use crate::types::{
    BucketInfo, Conditions, ContentId, ObjectKey, SseMode, StreamId, UploadId, VersionId,
};

/// Tries of one commit before it gives up with [`ErrorKind::Conflict`]. Each failed try means that
/// another commit on the same object went through.
pub(crate) const COMMIT_TRIES_MAX: usize = 256;

/// An object row with the bytes that a commit is decided on.
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    pub(crate) row: ObjectRow,
}

/// An object row that was opened.
pub(crate) struct Opened {
    pub(crate) access: BucketAccess,
    pub(crate) attributes: Attributes,
}

impl Inner {
    /// The current version of an object.
    pub(crate) async fn held(
        &self,
        ns: &TenantNs,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
    ) -> Result<Option<Held>> {
        let encoded = encode_object_key(object_key.as_bytes());
        let bytes = ns.get(Table::Objects, &[bucket.id.as_bytes(), &encoded]).await?;
        bytes.map(|bytes| Ok(Held { row: ObjectRow::decode(&bytes)?, bytes })).transpose()
    }

    /// The current version, or [`ErrorKind::NotFound`].
    pub(crate) async fn held_or_absent(
        &self,
        ns: &TenantNs,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
    ) -> Result<Held> {
        let held = self.held(ns, bucket, object_key).await?;
        held.ok_or_else(|| Error::new(ErrorKind::NotFound, "find an object"))
    }

    /// Opens what a listing shows of an object.
    pub(crate) async fn open_row(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: &BucketInfo,
        (object_key, row): (&ObjectKey, &ObjectRow),
        key_use: KeyUse,
    ) -> Result<Opened> {
        let epoch = row.wrapped.wrapping_version();
        let wanted =
            Access::in_bucket(key_use, *bucket.id.as_bytes()).of_version(*row.version.as_bytes());
        let access = self.keys.for_epoch(ns, purpose, bucket.id, epoch, wanted).await?;
        let attributes =
            access.open("la", (object_key, row.version.as_bytes()), &row.attributes)?;
        let attributes = Attributes::decode(&attributes)?;
        attributes.check(row)?;
        Ok(Opened { access, attributes })
    }

    /// The start of a commit that puts or deletes the current version of an object: as
    /// [`Self::decide`], and the content of that version is given up. The object row itself is left
    /// to the caller.
    pub(crate) async fn replace(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
        conditions: &Conditions,
    ) -> Result<(Draft, Option<Held>)> {
        let (mut draft, held) = self.decide(ns, purpose, bucket, object_key, conditions).await?;
        if let Some(held) = &held {
            self.release_content(ns, held.row.content, &mut draft).await?;
        }
        Ok((draft, held))
    }

    /// Decides whether the current version of an object may be replaced: the bucket is still there,
    /// and `conditions` hold of the version that is there now. The draft names both rows.
    pub(crate) async fn decide(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
        conditions: &Conditions,
    ) -> Result<(Draft, Option<Held>)> {
        let mut draft = self.in_bucket(ns, bucket).await?;
        let held = self.held(ns, bucket, object_key).await?;
        if !conditions.is_empty() {
            let validators = match &held {
                Some(held) => {
                    let opened = self
                        .open_row(ns, purpose, bucket, (object_key, &held.row), KeyUse::Attributes)
                        .await?;
                    Some(validators(&held.row, &opened.attributes))
                }
                None => None,
            };
            conditions.check_write(validators.as_ref())?;
        }
        let row = object_row_key(ns, bucket, object_key);
        draft.expect(row, held.as_ref().map(|held| held.bytes.clone()));
        Ok((draft, held))
    }

    /// The start of any commit inside a bucket: the bucket is what the caller thinks it is.
    pub(crate) async fn in_bucket(&self, ns: &TenantNs, bucket: &BucketInfo) -> Result<Draft> {
        let (row, held, _) = self.held_bucket(ns, bucket).await?;
        let mut draft = Draft::default();
        draft.expect(row, Some(held));
        Ok(draft)
    }

    /// The row of a bucket as it is now: its configuration may have changed since the caller looked
    /// it up, but it is the same bucket.
    pub(crate) async fn held_bucket(
        &self,
        ns: &TenantNs,
        bucket: &BucketInfo,
    ) -> Result<(RowKey, Bytes, BucketInfo)> {
        let name = bucket.name.as_str().as_bytes();
        let absent = || Error::new(ErrorKind::NotFound, "find the bucket of a commit");
        let held = ns.get(Table::Buckets, &[name]).await?.ok_or_else(absent)?;
        let current = decode_bucket(bucket.name.clone(), &held)?;
        if current.id != bucket.id {
            return Err(absent());
        }
        Ok((ns.row(Table::Buckets, &[name]), held, current))
    }

    /// Takes one reference from a content; the last one takes its rows.
    pub(crate) async fn release_content(
        &self,
        ns: &TenantNs,
        content: ContentId,
        draft: &mut Draft,
    ) -> Result<()> {
        let row = ns.row(Table::Contents, &[content.as_bytes()]);
        let Some(held) = ns.get(Table::Contents, &[content.as_bytes()]).await? else {
            // Another commit took it meanwhile; the object row has changed too, so this draft is
            // void, and says so when it is decided.
            draft.expect(row, None);
            return Ok(());
        };
        let mut record = ContentRow::decode(&held)?;
        if record.references > 1 && !seeded(Bug::ReleaseShared) {
            record.references -= 1;
            draft.expect(row.clone(), Some(held));
            draft.put(row, record.encode());
            return Ok(());
        }
        draft.delete_held(row, held);
        if record.inline {
            let row = ns.row(Table::Inline, &[content.as_bytes()]);
            draft.changes.push(Change::Delete { row });
        }
        for stream in &record.streams {
            self.release_stream(ns, content, *stream, draft).await?;
        }
        Ok(())
    }

    /// Gives up the extents of a stream: at once if it is one extent that nobody reads, else by
    /// the queue.
    pub(crate) async fn release_stream(
        &self,
        ns: &TenantNs,
        content: ContentId,
        stream: crate::rows::StreamRef,
        draft: &mut Draft,
    ) -> Result<()> {
        match stream.extents {
            0 => {}
            1 if !self.pins.is_pinned(content) => {
                let parts: [&[u8]; 2] = [stream.stream.as_bytes(), &0_u32.to_be_bytes()];
                let Some(held) = ns.get(Table::Locations, &parts).await? else { return Ok(()) };
                // A reader that opens meanwhile looks the row up once a step: an extent of one step
                // is read by then, a longer one waits in the queue until the reader is gone.
                if u64::from(Location::decode(&held)?.n_chunks()) <= STEP_CHUNKS {
                    draft.changes.push(count_dead(&held)?);
                    draft.delete_held(ns.row(Table::Locations, &parts), held);
                } else {
                    self.queue_stream(ns, content, stream.stream, draft);
                }
            }
            _ => self.queue_stream(ns, content, stream.stream, draft),
        }
        Ok(())
    }

    fn queue_stream(&self, ns: &TenantNs, content: ContentId, stream: StreamId, draft: &mut Draft) {
        let (row, value) = queue_row(ns, content, stream);
        draft.put(row, value);
        self.release_wanted.notify_one();
    }
}

/// A content's data key, opened and committed to.
pub(crate) struct ContentKey {
    pub(crate) data_key: kluis_kms::DataKey,
    pub(crate) scope: kluis_kms::ContentScope,
}

/// Opens a content's manifest and checks it against what the object row says in clear.
pub(crate) fn open_manifest(
    opened: &ContentKey,
    content: &ContentRow,
    size: u64,
) -> Result<Manifest> {
    let plain =
        opened.data_key.open_manifest(&opened.scope, content.sequence, &content.sealed_manifest)?;
    let manifest = Manifest::decode(&plain)?;
    if manifest.size != size {
        return Err(Error::new(ErrorKind::Tampered, "compare an object's size"));
    }
    Ok(manifest)
}

/// The key of an object row.
pub(crate) fn object_row_key(ns: &TenantNs, bucket: &BucketInfo, object_key: &ObjectKey) -> RowKey {
    let encoded = encode_object_key(object_key.as_bytes());
    ns.row(Table::Objects, &[bucket.id.as_bytes(), &encoded])
}

/// What conditions are decided on.
pub(crate) fn validators(row: &ObjectRow, attributes: &Attributes) -> Validators {
    Validators { etag: attributes.etag.clone(), modified_ms: row.modified_ms, size: row.size }
}

/// What the data key of an object version is bound to.
pub(crate) struct Binding<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) bucket: &'a BucketInfo,
    pub(crate) object_key: &'a ObjectKey,
    pub(crate) content: ContentId,
    pub(crate) sse: SseMode,
    /// CTX of the caller's encryption context, or empty.
    pub(crate) context: &'a [u8],
    /// The client's key, in the mode that has one. The wrap is under it, not bound to it.
    pub(crate) customer_key: Option<&'a CustomerKey>,
}

impl Binding<'_> {
    /// The context of a stored version.
    pub(crate) fn of_version(
        &self,
        version: VersionId,
        sealed_manifest: &[u8],
    ) -> Result<EncryptionContext> {
        use sha2::Digest as _;
        let digest: [u8; 32] = sha2::Sha256::digest(sealed_manifest).into();
        Ok(self.common()?.with(b"m", &digest)?.with(b"v", version.as_bytes())?)
    }

    /// The context of an open upload.
    pub(crate) fn of_upload(&self, upload: UploadId) -> Result<EncryptionContext> {
        Ok(self.common()?.with(b"up", upload.as_bytes())?)
    }

    fn common(&self) -> Result<EncryptionContext> {
        Ok(EncryptionContext::new()
            .with(b"b", self.bucket.id.as_bytes())?
            .with(b"c", self.content.as_bytes())?
            .with(b"k", self.object_key.as_bytes())?
            .with(b"t", self.tenant.as_bytes())?
            .with(b"u", self.context)?
            .with(b"x", &[encode_sse(self.sse)])?)
    }
}

/// CTX of a caller's encryption context; an empty one is an empty string.
pub(crate) fn encode_context(context: &EncryptionContext) -> Vec<u8> {
    if *context == EncryptionContext::new() { Vec::new() } else { context.encode() }
}

/// The heading of an object row, opened.
pub(crate) fn open_heading(
    access: &BucketAccess,
    object_key: &ObjectKey,
    id: &[u8; 16],
    sealed: &[u8],
) -> Result<Heading> {
    Heading::decode(&access.open("um", (object_key, id), sealed)?)
}
