//! The rows of bucket keys, and the index of them by tenant key and material.
//!
//! Owns: row keys of the tables K and X, and the drafts that change both together.
//! Knows nothing of: caches, which epoch takes new objects.
//!
//! Invariants
//! - An index row is written and deleted in the same commit as the K row that it stands for.
//!   Bytes: docs/FORMAT.md, "Rows", tables K and X.

use bytes::Bytes;
use kluis_kms::{BucketKeyPurpose, TenantKeyId};

use crate::commit::Draft;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Change, RowKey, ScanStep};
use crate::namespace::{Table, TenantNs};
use crate::rows::BucketKeyRow;
use crate::types::BucketId;

/// Both bucket keys of an epoch.
pub(crate) const PURPOSES: [BucketKeyPurpose; 2] = [BucketKeyPurpose::Data, BucketKeyPurpose::Meta];

/// Which K row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RowName {
    pub(crate) bucket: BucketId,
    pub(crate) purpose: BucketKeyPurpose,
    pub(crate) epoch: u32,
}

impl RowName {
    /// Bytes behind the table byte of a K row key.
    const BYTES: usize = 16 + 1 + 4;

    /// Reads what is behind the table byte of a K row key.
    pub(crate) fn decode(rest: &[u8]) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "read the row key of a bucket key");
        let (bucket, rest) = rest.split_first_chunk().ok_or_else(corrupt)?;
        let (purpose, epoch) = rest.split_first().ok_or_else(corrupt)?;
        let purpose = match purpose {
            b'd' => BucketKeyPurpose::Data,
            b'm' => BucketKeyPurpose::Meta,
            _ => return Err(corrupt()),
        };
        let epoch = u32::from_be_bytes(epoch.try_into().map_err(|_| corrupt())?);
        Ok(Self { bucket: BucketId::from_bytes(*bucket), purpose, epoch })
    }

    fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let epoch = self.epoch.to_be_bytes();
        let parts = self.bucket.as_bytes().iter().chain(tag(self.purpose)).chain(&epoch);
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// The key of the K row.
    pub(crate) fn row(&self, ns: &TenantNs) -> RowKey {
        ns.row(Table::BucketKeys, &[&self.encode()])
    }

    /// The K row with the bytes that a commit is decided on, if it is there.
    pub(crate) async fn held(&self, ns: &TenantNs) -> Result<Option<(Bytes, BucketKeyRow)>> {
        let bytes = ns.get(Table::BucketKeys, &[&self.encode()]).await?;
        bytes.map(|bytes| Ok((bytes.clone(), BucketKeyRow::decode(&bytes)?))).transpose()
    }

    /// The K row.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: it is not there, though something is under it.
    pub(crate) async fn read(&self, ns: &TenantNs) -> Result<BucketKeyRow> {
        let held = self.held(ns).await?;
        held.map(|(_, row)| row).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("find epoch {} of a bucket key", self.epoch))
        })
    }
}

/// An index row: which bucket key lies under which material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IndexName {
    pub(crate) tenant_key: TenantKeyId,
    pub(crate) material: u32,
    pub(crate) of: RowName,
}

impl IndexName {
    /// The index row of `row`, if it has to have one.
    pub(crate) fn of(of: RowName, row: &BucketKeyRow) -> Option<Self> {
        let material = row.material().filter(|_| row.is_indexed)?;
        Some(Self { tenant_key: row.tenant_key, material, of })
    }

    /// Reads what is behind the table byte of an index row key.
    pub(crate) fn decode(rest: &[u8]) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "read the row key of a key index row");
        let (tenant_key, rest) = rest.split_first_chunk().ok_or_else(corrupt)?;
        let (material, rest) = rest.split_first_chunk().ok_or_else(corrupt)?;
        let (bucket, rest) = rest.split_first_chunk::<16>().ok_or_else(corrupt)?;
        let (epoch, purpose) = rest.split_first_chunk::<4>().ok_or_else(corrupt)?;
        let of = RowName::decode(&[bucket, purpose, epoch.as_slice()].concat())?;
        let tenant_key = TenantKeyId::from_bytes(*tenant_key);
        Ok(Self { tenant_key, material: u32::from_be_bytes(*material), of })
    }

    /// What is behind the table byte.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let epoch = self.of.epoch.to_be_bytes();
        let parts: [&[u8]; 3] = [self.of.bucket.as_bytes(), &epoch, tag(self.of.purpose)];
        [material_prefix(self.tenant_key, self.material), parts.concat()].concat()
    }

    /// The key of the index row.
    pub(crate) fn row(&self, ns: &TenantNs) -> RowKey {
        ns.row(Table::KeyIndex, &[&self.encode()])
    }
}

/// What the index rows of one material start with, behind the table byte.
pub(crate) fn material_prefix(tenant_key: TenantKeyId, material: u32) -> Vec<u8> {
    [tenant_key.as_bytes().as_slice(), &material.to_be_bytes()].concat()
}

/// The byte between bucket and epoch in a row key.
pub(crate) fn tag(purpose: BucketKeyPurpose) -> &'static [u8] {
    match purpose {
        BucketKeyPurpose::Data => b"d",
        BucketKeyPurpose::Meta => b"m",
    }
}

/// Adds a K row in place of `held`, and its index row in place of the one before.
pub(crate) fn change_row(
    draft: &mut Draft,
    ns: &TenantNs,
    name: RowName,
    held: Option<(&Bytes, &BucketKeyRow)>,
    row: &BucketKeyRow,
) {
    draft.expect(name.row(ns), held.map(|(bytes, _)| bytes.clone()));
    let before = held.and_then(|(_, before)| IndexName::of(name, before));
    let after = IndexName::of(name, row);
    if let Some(before) = before.filter(|before| Some(before) != after.as_ref()) {
        draft.changes.push(Change::Delete { row: before.row(ns) });
    }
    if let Some(after) = after.filter(|after| Some(after) != before.as_ref()) {
        draft.put(after.row(ns), Bytes::new());
    }
    draft.put(name.row(ns), row.encode());
}

/// Deletes every bucket key of `bucket`, and their index rows, as they are now.
pub(crate) async fn delete_all(ns: &TenantNs, bucket: BucketId, draft: &mut Draft) -> Result<()> {
    let rows = ns
        .fold(Table::BucketKeys, bucket.as_bytes(), &[], Vec::new(), |rows, rest, value| {
            rows.push((RowName::decode(rest)?, Bytes::copy_from_slice(value)));
            Ok(ScanStep::Next)
        })
        .await?;
    for (name, held) in rows {
        if let Some(index) = IndexName::of(name, &BucketKeyRow::decode(&held)?) {
            draft.changes.push(Change::Delete { row: index.row(ns) });
        }
        draft.delete_held(name.row(ns), held);
    }
    Ok(())
}
