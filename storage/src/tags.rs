//! The tags of an object: read, and replaced without touching anything else of it.

use kluis_kms::{KeyUse, Purpose};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::index::{COMMIT_TRIES_MAX, object_row_key};
use crate::rows::{decode_tags, encode_tags};
use crate::types::{BucketInfo, ObjectKey, Tags};

impl Engine {
    /// The tags of an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: no such object; and those of its tenant key.
    pub async fn object_tags(
        &self,
        purpose: &Purpose,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
    ) -> Result<Tags> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let held = inner.held_or_absent(&ns, bucket, object_key).await?;
        if held.row.tags.is_empty() {
            return Ok(Tags::default());
        }
        let opened = inner
            .open_row(&ns, purpose, bucket, (object_key, &held.row), KeyUse::Attributes)
            .await?;
        let of = (object_key, held.row.version.as_bytes());
        decode_tags(&opened.access.open("tg", of, &held.row.tags)?)
    }

    /// Replaces the tags of an object; none at all deletes them.
    ///
    /// # Errors
    /// As [`Engine::object_tags`]; [`ErrorKind::Conflict`]: too many others changed the object.
    pub async fn set_object_tags(
        &self,
        purpose: &Purpose,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
        tags: Tags,
    ) -> Result<()> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        for _ in 0..COMMIT_TRIES_MAX {
            let mut draft = inner.in_bucket(&ns, bucket).await?;
            let held = inner.held_or_absent(&ns, bucket, object_key).await?;
            let opened = inner
                .open_row(&ns, purpose, bucket, (object_key, &held.row), KeyUse::Attributes)
                .await?;
            let access = &opened.access;
            let of = (object_key, held.row.version.as_bytes());
            let mut row = held.row.clone();
            let mut attributes = opened.attributes.clone();
            attributes.tag_count = u16::try_from(tags.0.len()).unwrap_or(u16::MAX);
            row.attributes = access.seal("la", of, &attributes.encode())?;
            row.tags = if tags.0.is_empty() {
                Vec::new()
            } else {
                access.seal("tg", of, &encode_tags(&tags))?
            };
            let row_key = object_row_key(&ns, bucket, object_key);
            draft.expect(row_key.clone(), Some(held.bytes));
            draft.put(row_key, row.encode());
            match inner.committer.commit(draft).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                outcome => return outcome,
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit the tags of an object"))
    }
}
