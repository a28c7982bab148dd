//! Tables read a page at a time, so that other scans get their turns in between.

use bytes::Bytes;

use crate::bucket_keys::RowName;
use crate::error::Result;
use crate::meta::ScanStep;
use crate::namespace::{Table, TenantNs};
use crate::rows::BucketKeyRow;

/// Bytes of values in a page, so that a page of large rows stays small.
const PAGE_BYTES: usize = 1 << 20;

/// Some rows of a table: keys behind the table byte, and values.
pub(super) struct Page {
    pub(super) rows: Vec<(Vec<u8>, Bytes)>,
    /// Where the next page begins; none at the end.
    pub(super) next: Option<Vec<u8>>,
}

/// The rows of `table` under `prefix` from `from` on, at most `rows_max`.
pub(super) async fn page(
    ns: &TenantNs,
    table: Table,
    prefix: &[u8],
    from: &[u8],
    rows_max: usize,
) -> Result<Page> {
    let (rows, _, is_full) = ns
        .fold(table, prefix, from, (Vec::new(), 0, false), move |state, rest, value| {
            let (rows, bytes, is_full) = state;
            rows.push((rest.to_vec(), Bytes::copy_from_slice(value)));
            *bytes += rest.len() + value.len();
            *is_full = rows.len() >= rows_max || *bytes >= PAGE_BYTES;
            Ok(if *is_full { ScanStep::Stop } else { ScanStep::Next })
        })
        .await?;
    let last = rows.last().filter(|_| is_full);
    let next = last.map(|(rest, _): &(Vec<u8>, Bytes)| after(rest));
    Ok(Page { rows, next })
}

/// The least row key behind `rest`.
pub(super) fn after(rest: &[u8]) -> Vec<u8> {
    [rest, &[0]].concat()
}

/// Some K rows.
pub(super) struct KeyPage {
    pub(super) rows: Vec<(RowName, Bytes, BucketKeyRow)>,
    /// Rows that do not decode.
    pub(super) damaged: u64,
}

/// Every K row of a namespace, a page at a time.
pub(super) struct BucketKeyPages<'a> {
    ns: &'a TenantNs,
    from: Option<Vec<u8>>,
}

impl<'a> BucketKeyPages<'a> {
    pub(super) fn new(ns: &'a TenantNs) -> Self {
        Self { ns, from: Some(Vec::new()) }
    }

    pub(super) async fn next(&mut self) -> Result<Option<KeyPage>> {
        let Some(from) = self.from.take() else { return Ok(None) };
        let (page, next) = key_page(self.ns, &from).await?;
        self.from = next;
        Ok(Some(page))
    }
}

/// The K rows of a namespace from `from` on, and where the next page begins.
pub(super) async fn key_page(ns: &TenantNs, from: &[u8]) -> Result<(KeyPage, Option<Vec<u8>>)> {
    let page = page(ns, Table::BucketKeys, &[], from, super::run::PAGE_ROWS).await?;
    let mut keys = KeyPage { rows: Vec::new(), damaged: 0 };
    for (rest, held) in page.rows {
        match (RowName::decode(&rest), BucketKeyRow::decode(&held)) {
            (Ok(name), Ok(row)) => keys.rows.push((name, held, row)),
            (Err(error), _) | (_, Err(error)) => {
                keys.damaged += 1;
                tracing::warn!(tenant = %ns.tenant(), %error, "a bucket key's row does not decode");
            }
        }
    }
    Ok((keys, page.next))
}
