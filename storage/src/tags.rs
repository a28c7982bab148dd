//! The tags of an object: read, and replaced without touching anything else of it.
//!
//! Owns: both verbs. Knows nothing of: what tags mean, HTTP.
//!
//! Invariants
//! - Reading tags needs the right to read under the object's key, and replacing them the right to
//!   write, whether or not there are any: what they say is as secret as the body.

use kluis_kms::{KeyUse, Purpose, TenantKeyId};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::index::{COMMIT_TRIES_MAX, object_row_key};
use crate::rows::{decode_tags, encode_tags};
use crate::types::{BucketInfo, ObjectKey, Tags};

impl Engine {
    /// Whether there is an object. Needs no key: what listings show of it is open to whoever may
    /// look at the bucket.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is none.
    pub async fn check_object(
        &self,
        purpose: &Purpose,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
    ) -> Result<()> {
        let ns = self.inner.tenants.namespace(purpose.tenant)?;
        self.inner.held_or_absent(&ns, bucket, object_key).await.map(drop)
    }

    /// The tags of an object, and the tenant key that they are under.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: no such object; and those of its tenant key.
    pub async fn object_tags(
        &self,
        purpose: &Purpose,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
    ) -> Result<(Tags, TenantKeyId)> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let held = inner.held_or_absent(&ns, bucket, object_key).await?;
        let opened =
            inner.open_row(&ns, purpose, bucket, (object_key, &held.row), KeyUse::Read).await?;
        let tenant_key = opened.access.tenant_key();
        if held.row.tags.is_empty() {
            return Ok((Tags::default(), tenant_key));
        }
        let of = (object_key, held.row.version.as_bytes());
        Ok((decode_tags(&opened.access.open("tg", of, &held.row.tags)?)?, tenant_key))
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
                .open_row(&ns, purpose, bucket, (object_key, &held.row), KeyUse::Write)
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
