//! The segment table of a volume, kept in the family `gc`.

use std::sync::Arc;

use crate::blob::{SegmentRow, SegmentTable, TableFuture};
use crate::commit::{Committer, Draft};
use crate::error::Result;
use crate::meta::{Change, Family, MetaStore, RowKey, ScanStep, prefix_end};

/// The first byte of a segment row in `gc`.
const SEGMENT: u8 = b'S';

/// The table over the metadata store.
pub(crate) struct GcTable {
    store: Arc<dyn MetaStore>,
    committer: Arc<Committer>,
}

impl GcTable {
    pub(crate) fn new(store: Arc<dyn MetaStore>, committer: Arc<Committer>) -> Self {
        Self { store, committer }
    }
}

impl SegmentTable for GcTable {
    fn load(&self) -> Result<Vec<SegmentRow>> {
        let mut rows = Vec::new();
        let lower = [SEGMENT];
        self.store.scan(Family::Gc, &lower, &prefix_end(&lower), &mut |_, value| {
            rows.push(SegmentRow::decode(value)?);
            Ok(ScanStep::Next)
        })?;
        Ok(rows)
    }

    fn put(&self, rows: Vec<SegmentRow>) -> TableFuture {
        let committer = Arc::clone(&self.committer);
        Box::pin(async move {
            let changes = rows
                .into_iter()
                .map(|row| {
                    let bytes = [&[SEGMENT], row.segment.to_be_bytes().as_slice()].concat();
                    let key = RowKey { family: Family::Gc, bytes };
                    Change::Put { row: key, value: row.encode().to_vec().into() }
                })
                .collect();
            committer.commit(Draft::new(Vec::new(), changes)).await
        })
    }
}
