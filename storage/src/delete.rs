//! DELETE: an object given up, and the tags of one that stays.

use kluis_kms::Purpose;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::index::{COMMIT_TRIES_MAX, object_row_key};
use crate::meta::Change;
use crate::requests::{DeleteReceipt, DeleteRequest};

impl Engine {
    /// Deletes an object; one that is not there is deleted already, unless a condition asks for it.
    /// Allowed on a full node.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: too many others changed the object at the same time.
    /// - [`ErrorKind::Fenced`]: a write failed.
    /// - [`ErrorKind::NotFound`]: no such bucket, or a condition on an object that is not there.
    /// - [`ErrorKind::PreconditionFailed`]: a condition does not hold.
    pub async fn delete(
        &self,
        purpose: &Purpose,
        request: DeleteRequest<'_>,
    ) -> Result<DeleteReceipt> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let (bucket, object_key) = (request.bucket, request.object_key);
        for _ in 0..COMMIT_TRIES_MAX {
            let (mut draft, held) =
                inner.replace(&ns, purpose, bucket, object_key, &request.conditions).await?;
            if held.is_none() {
                return Ok(DeleteReceipt { existed: false });
            }
            let row = object_row_key(&ns, bucket, object_key);
            draft.changes.push(Change::Delete { row });
            match inner.committer.commit(draft).await {
                Ok(()) => return Ok(DeleteReceipt { existed: true }),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit a delete"))
    }
}
