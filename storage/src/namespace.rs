//! A tenant's place in the metadata: the only door to its rows.
//!
//! Owns: row keys (family, prefix, table), the bounds of every scan, the check of every key read.
//! Knows nothing of: what a row means, keys, other tenants.
//!
//! Invariants
//! - Every row key built here starts with this tenant's 16-byte prefix, and so does every row that
//!   is handed out; a row that does not stops the node (the assertion is on in release builds).
//! - Bytes: docs/FORMAT.md, "Rows".

use std::sync::Arc;

use bytes::Bytes;
use kluis_kms::TenantId;
use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};
pub(crate) use crate::executor::blocking;
use crate::meta::{Family, MetaStore, RowKey, ScanStep, prefix_end};
use crate::types::NsId;

/// Scans that may run at once: each holds a thread, and a listing storm must not take them all.
const SCANS_MAX: usize = 32;

/// A table within a namespace; the byte behind the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Table {
    Buckets = b'B',
    Contents = b'D',
    Inline = b'I',
    Jobs = b'J',
    BucketKeys = b'K',
    Locations = b'L',
    Multipart = b'M',
    Objects = b'O',
    KeyIndex = b'X',
}

/// The metadata store as async tasks use it.
#[derive(Clone)]
pub(crate) struct MetaReader {
    store: Arc<dyn MetaStore>,
    scans: Arc<Semaphore>,
}

impl MetaReader {
    /// A reader of `store`.
    pub(crate) fn new(store: Arc<dyn MetaStore>) -> Self {
        Self { store, scans: Arc::new(Semaphore::new(SCANS_MAX)) }
    }

    /// The store itself, for threads that may block.
    pub(crate) fn store(&self) -> &Arc<dyn MetaStore> {
        &self.store
    }

    /// One row; from memory at once, else on a blocking thread.
    pub(crate) async fn get(&self, row: RowKey) -> Result<Option<Bytes>> {
        if let Some(known) = self.store.get_cached(row.family, &row.bytes) {
            return known;
        }
        let store = Arc::clone(&self.store);
        blocking(move || store.get(row.family, &row.bytes)).await
    }

    /// Many rows, in the order that they are asked for.
    pub(crate) async fn get_many(&self, rows: Vec<RowKey>) -> Result<Vec<Option<Bytes>>> {
        let store = Arc::clone(&self.store);
        let of_memory = |row: &RowKey| self.store.get_cached(row.family, &row.bytes).transpose();
        let known: Option<Result<Vec<_>>> = rows
            .iter()
            .map(|row| match of_memory(row) {
                Ok(known) => known.map(Ok),
                Err(error) => Some(Err(error)),
            })
            .collect();
        if let Some(known) = known {
            return known;
        }
        blocking(move || rows.iter().map(|row| store.get(row.family, &row.bytes)).collect()).await
    }

    /// Folds the rows of a family from `lower` up to, not including, `upper`.
    pub(crate) async fn fold<T: Send + 'static>(
        &self,
        family: Family,
        lower: Vec<u8>,
        upper: Vec<u8>,
        mut state: T,
        mut visit: impl FnMut(&mut T, &[u8], &[u8]) -> Result<ScanStep> + Send + 'static,
    ) -> Result<T> {
        let _permit = self.scans.acquire().await.map_err(|closed| {
            Error::new(ErrorKind::Unavailable, "wait to scan metadata").with_source(closed)
        })?;
        let store = Arc::clone(&self.store);
        blocking(move || {
            store.scan(family, &lower, &upper, &mut |row_key, value| {
                visit(&mut state, row_key, value)
            })?;
            Ok(state)
        })
        .await
    }
}

/// One tenant's rows.
#[derive(Clone)]
pub(crate) struct TenantNs {
    reader: MetaReader,
    tenant: TenantId,
    family: Family,
    ns: NsId,
}

impl TenantNs {
    /// The namespace of `tenant` at (`family`, `ns`), as the registry row of the tenant says.
    pub(crate) fn new(reader: MetaReader, tenant: TenantId, family: Family, ns: NsId) -> Self {
        Self { reader, tenant, family, ns }
    }

    /// Whose rows these are.
    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The prefix, which also names the tenant's extents.
    pub(crate) fn ns(&self) -> NsId {
        self.ns
    }

    /// The key of a row: prefix, table, and `parts` one after the other.
    pub(crate) fn row(&self, table: Table, parts: &[&[u8]]) -> RowKey {
        let rest: usize = parts.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(17 + rest);
        bytes.extend_from_slice(self.ns.as_bytes());
        bytes.push(table as u8);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        RowKey { family: self.family, bytes }
    }

    /// One row.
    pub(crate) async fn get(&self, table: Table, parts: &[&[u8]]) -> Result<Option<Bytes>> {
        self.reader.get(self.row(table, parts)).await
    }

    /// Folds the rows of `table` whose key, behind the table byte, starts with `prefix` and is not
    /// less than `from`. `visit` sees the key behind the table byte, and gives the same to
    /// [`ScanStep::Seek`].
    pub(crate) async fn fold<T: Send + 'static>(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        state: T,
        mut visit: impl FnMut(&mut T, &[u8], &[u8]) -> Result<ScanStep> + Send + 'static,
    ) -> Result<T> {
        let within = self.row(table, &[prefix]).bytes;
        let lower = self.row(table, &[from]).bytes.max(within.clone());
        let upper = prefix_end(&within);
        let head = self.row(table, &[]).bytes;
        let owner = self.ns;
        self.reader
            .fold(self.family, lower, upper, state, move |state, row_key, value| {
                assert!(row_key.starts_with(owner.as_bytes()), "a scan left its namespace");
                let rest = row_key.get(head.len()..).unwrap_or_default();
                Ok(match visit(state, rest, value)? {
                    ScanStep::Seek(to) => ScanStep::Seek([head.as_slice(), &to].concat()),
                    step => step,
                })
            })
            .await
    }
}

/// Encodes an object key so that encoded keys sort like the keys and one is never a prefix of
/// another: 0x00 becomes 01 01, 0x01 becomes 01 02, and a 0x00 ends it (docs/FORMAT.md, "Rows").
pub(crate) fn encode_object_key(object_key: &[u8]) -> Vec<u8> {
    let mut encoded = encode_object_key_prefix(object_key);
    encoded.push(0);
    encoded
}

/// The encoding without its end: what the encodings of all keys with this prefix start with.
pub(crate) fn encode_object_key_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        match byte {
            0 | 1 => encoded.extend_from_slice(&[1, byte + 1]),
            other => encoded.push(*other),
        }
    }
    encoded
}

/// The key of an encoding, and what follows it.
pub(crate) fn decode_object_key(encoded: &[u8]) -> Result<(String, &[u8])> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "decode an object key in a row key");
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter();
    loop {
        match bytes.next() {
            None => return Err(corrupt()),
            Some(0) => break,
            Some(1) => match bytes.next() {
                Some(escaped @ (1 | 2)) => decoded.push(escaped - 1),
                _ => return Err(corrupt()),
            },
            Some(other) => decoded.push(*other),
        }
    }
    let object_key = String::from_utf8(decoded).map_err(|_| corrupt())?;
    Ok((object_key, bytes.as_slice()))
}

#[cfg(test)]
mod tests;
