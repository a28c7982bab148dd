//! Open uploads as jobs see them: bound to another epoch, or given up.

use kluis_kms::{Purpose, TenantKeyId};

use super::part::part_field;
use super::{every_part, part_row_key, parts_of, upload_row_key};
use crate::commit::Draft;
use crate::engine::Inner;
use crate::error::Result;
use crate::index::Binding;
use crate::namespace::TenantNs;
use crate::rows::{PartRow, UploadRow};
use crate::types::{BucketInfo, ContentId, ObjectKey, UploadId};

impl Inner {
    /// The commit that puts an upload and its parts under the current epoch of `tenant_key`.
    pub(crate) async fn rebound_upload(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        (bucket, object_key, upload): (&BucketInfo, &ObjectKey, UploadId),
        tenant_key: TenantKeyId,
    ) -> Result<Draft> {
        let opened = self.open_upload(ns, purpose, (bucket, object_key), upload, None).await?;
        let access = self.keys.for_write(ns, purpose, bucket.id, Some(tenant_key)).await?;
        let (from, held) = (&opened.access, &opened.held);
        let of = (object_key, upload.as_bytes());
        let binding = Binding {
            tenant: ns.tenant(),
            bucket,
            object_key,
            content: held.row.content,
            sse: held.row.sse,
            customer_key: None,
            context: &opened.heading.context,
        };
        let bound = binding.of_upload(upload)?;
        let (data_key, rng) = (&opened.key.data_key, &*self.env.rng);
        let tags = if held.row.tags.is_empty() {
            Vec::new()
        } else {
            access.seal("tg", of, &from.open("tg", of, &held.row.tags)?)?
        };
        let row = UploadRow {
            wrapped: access.data().wrap_data_key(&access.permit, data_key, &bound, rng)?,
            heading: access.seal("um", of, &from.open("um", of, &held.row.heading)?)?,
            tags,
            ..held.row.clone()
        };
        let mut draft = Draft::default();
        let row_key = upload_row_key(ns, bucket, object_key, upload);
        draft.expect(row_key.clone(), Some(held.bytes.clone()));
        draft.put(row_key, row.encode());
        let parts = parts_of(ns, bucket, upload, 0, usize::MAX).await?;
        draft.conditions.push(every_part(ns, bucket, upload, parts.len()));
        for part in parts {
            let field = part_field(part.number);
            let sealed = access.seal(&field, of, &from.open(&field, of, &part.row.sealed)?)?;
            let row_key = part_row_key(ns, bucket, upload, part.number);
            draft.expect(row_key.clone(), Some(part.bytes));
            draft.put(row_key, PartRow { sealed, ..part.row }.encode());
        }
        Ok(draft)
    }

    /// Deletes every part of an upload and gives their streams up.
    pub(crate) async fn give_up_all_parts(
        &self,
        ns: &TenantNs,
        bucket: &BucketInfo,
        of: (UploadId, ContentId),
        draft: &mut Draft,
    ) -> Result<()> {
        let parts = parts_of(ns, bucket, of.0, 0, usize::MAX).await?;
        self.give_up_parts(ns, bucket, of, &parts, draft).await
    }
}
