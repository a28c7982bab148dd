//! The segment table of a volume and the count of live bytes, kept in the family `gc`.
//!
//! Owns: the bytes of both kinds of row. Knows nothing of: which segment is used for what.
//!
//! Invariants
//! - A segment's live bytes are those of the location rows that name it: every commit that puts or
//!   deletes one counts it, so bytes that were never published are dead without being counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::blob::{Location, SegmentRow, SegmentTable, TableFuture};
use crate::commit::{Committer, Draft};
use crate::error::Result;
use crate::meta::{Change, Family, MetaStore, RowKey, ScanStep, prefix_end};
use crate::namespace::MetaReader;

/// The first byte of a segment row in `gc`.
const SEGMENT: u8 = b'S';
/// The first byte of a count of live bytes in `gc`.
const LIVE: u8 = b'A';

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
                .map(|row| Change::Put {
                    row: row_of(SEGMENT, row.segment),
                    value: row.encode().to_vec().into(),
                })
                .collect();
            committer.commit(Draft::new(Vec::new(), changes)).await
        })
    }
}

fn row_of(kind: u8, segment: u32) -> RowKey {
    let bytes = [&[kind], segment.to_be_bytes().as_slice()].concat();
    RowKey { family: Family::Gc, bytes }
}

/// Counts a location row that is put.
pub(crate) fn count_live(location: &Location) -> Change {
    let row = row_of(LIVE, location.segment());
    Change::Add { row, delta: i64::from(location.stored_len()) }
}

/// Counts a location row that is deleted, by its value.
pub(crate) fn count_dead(location: &[u8]) -> Result<Change> {
    let location = Location::decode(location)?;
    let row = row_of(LIVE, location.segment());
    Ok(Change::Add { row, delta: -i64::from(location.stored_len()) })
}

/// The live bytes of every segment that ever had some.
pub(crate) async fn live_bytes(reader: &MetaReader) -> Result<BTreeMap<u32, i64>> {
    let lower = vec![LIVE];
    let upper = prefix_end(&lower);
    reader
        .fold(Family::Gc, lower, upper, BTreeMap::new(), |live, row_key, value| {
            let segment = row_key.get(1..).and_then(|segment| segment.first_chunk());
            if let (Some(segment), Some(bytes)) = (segment, value.first_chunk()) {
                live.insert(u32::from_be_bytes(*segment), i64::from_be_bytes(*bytes));
            }
            Ok(ScanStep::Next)
        })
        .await
}

/// The live bytes of `segment`.
pub(crate) async fn live_bytes_of(reader: &MetaReader, segment: u32) -> Result<i64> {
    let held = reader.get(row_of(LIVE, segment)).await?;
    Ok(held.and_then(|held| held.first_chunk().map(|held| i64::from_be_bytes(*held))).unwrap_or(0))
}
