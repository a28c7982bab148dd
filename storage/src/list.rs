//! LIST: one ordered scan of the current object rows.
//!
//! Owns: prefixes, delimiters, where a page ends. Knows nothing of: continuation tokens, XML.
//!
//! Invariants
//! - A page costs what it shows: a common prefix is one seek, bodies and old versions are
//!   elsewhere.
//! - A key that is not usable leaves ETag and checksum of its objects empty; it never fails a page.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use kluis_kms::{Access, KeyUse, Purpose};

use crate::bucket_keys::BucketAccess;
use crate::digest::ChecksumType;
use crate::engine::{Engine, Inner};
use crate::error::{ErrorKind, Result};
use crate::meta::{ScanStep, prefix_end};
use crate::namespace::{
    Table, TenantNs, decode_object_key, encode_object_key, encode_object_key_prefix,
};
use crate::requests::{ListEntry, ListPage, ListPosition, ListRequest, ListedObject};
use crate::rows::{Attributes, ObjectRow};
use crate::types::{BucketInfo, ObjectKey};

/// Entries in one page at most (AWS: `max-keys`).
pub(crate) const PAGE_MAX: usize = 1_000;

/// What a scan found.
enum Found {
    Row(String, Box<ObjectRow>),
    Prefix(String),
}

/// How names fold into common prefixes.
#[derive(Clone)]
pub(crate) struct Folding {
    pub(crate) prefix: String,
    pub(crate) delimiter: Option<String>,
}

impl Folding {
    /// The common prefix that `object_key` folds into, if it does.
    pub(crate) fn common_prefix<'a>(&self, object_key: &'a str) -> Option<&'a str> {
        let delimiter = self.delimiter.as_ref().filter(|delimiter| !delimiter.is_empty())?;
        let rest = object_key.get(self.prefix.len()..)?;
        let at = rest.find(delimiter.as_str())?;
        object_key.get(..self.prefix.len() + at + delimiter.len())
    }
}

impl Engine {
    /// A page of a bucket's objects and common prefixes.
    ///
    /// # Errors
    /// Those of reading metadata.
    pub async fn list(&self, purpose: &Purpose, request: ListRequest<'_>) -> Result<ListPage> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let limit = request.limit.min(PAGE_MAX);
        if limit == 0 {
            return Ok(ListPage { entries: Vec::new(), next: None });
        }
        let mut found = scan(&ns, &request, limit).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|last| match last {
            Found::Row(object_key, _) => ListPosition::AfterKey(object_key.clone()),
            Found::Prefix(prefix) => ListPosition::AfterPrefix(prefix.clone()),
        });
        let entries = inner.show(&ns, purpose, request.bucket, found).await?;
        Ok(ListPage { entries, next })
    }
}

/// Where a scan of encoded object keys starts.
pub(crate) fn start_of(
    bucket: &BucketInfo,
    folding: &Folding,
    after: Option<&ListPosition>,
) -> Vec<u8> {
    let encoded = match after {
        None => Vec::new(),
        Some(ListPosition::AfterKey(object_key)) => {
            let mut next = encode_object_key(object_key.as_bytes());
            next.push(0);
            // A marker inside a common prefix that was shown already does not show it again.
            match folding.common_prefix(object_key) {
                Some(common) if common == object_key => {
                    prefix_end(&encode_object_key_prefix(common.as_bytes()))
                }
                _ => next,
            }
        }
        Some(ListPosition::AfterPrefix(prefix)) => {
            prefix_end(&encode_object_key_prefix(prefix.as_bytes()))
        }
    };
    [bucket.id.as_bytes().as_slice(), &encoded].concat()
}

async fn scan(ns: &TenantNs, request: &ListRequest<'_>, limit: usize) -> Result<Vec<Found>> {
    let folding = Folding { prefix: request.prefix.clone(), delimiter: request.delimiter.clone() };
    let bucket = request.bucket.id;
    let from = start_of(request.bucket, &folding, request.after.as_ref());
    let encoded = encode_object_key_prefix(request.prefix.as_bytes());
    let within = [bucket.as_bytes().as_slice(), &encoded].concat();
    ns.fold(Table::Objects, &within, &from, Vec::new(), move |found, rest, value| {
        let encoded = rest.get(bucket.as_bytes().len()..).unwrap_or_default();
        let (object_key, _) = decode_object_key(encoded)?;
        let step = if let Some(common) = folding.common_prefix(&object_key) {
            let past = prefix_end(&encode_object_key_prefix(common.as_bytes()));
            found.push(Found::Prefix(common.to_owned()));
            ScanStep::Seek([bucket.as_bytes().as_slice(), &past].concat())
        } else {
            found.push(Found::Row(object_key, Box::new(ObjectRow::decode(value)?)));
            ScanStep::Next
        };
        Ok(if found.len() > limit { ScanStep::Stop } else { step })
    })
    .await
}

impl Inner {
    /// Opens what a page shows; one bucket key serves all rows of its epoch.
    async fn show(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: &BucketInfo,
        found: Vec<Found>,
    ) -> Result<Vec<ListEntry>> {
        let mut keys: HashMap<u32, Option<BucketAccess>> = HashMap::new();
        let mut entries = Vec::with_capacity(found.len());
        for one in found {
            let (object_key, row) = match one {
                Found::Prefix(prefix) => {
                    entries.push(ListEntry::Prefix(prefix));
                    continue;
                }
                Found::Row(object_key, row) => (object_key, row),
            };
            let epoch = row.wrapped.wrapping_version();
            if let Entry::Vacant(vacant) = keys.entry(epoch) {
                let wanted = Access::in_bucket(KeyUse::Attributes, *bucket.id.as_bytes());
                let access = match self.keys.for_epoch(ns, purpose, bucket.id, epoch, wanted).await
                {
                    Ok(access) => Some(access),
                    Err(error) if is_of_the_key(error.kind()) => None,
                    Err(error) => return Err(error),
                };
                vacant.insert(access);
            }
            let access = keys.get(&epoch).and_then(Option::as_ref);
            let attributes = access.and_then(|access| open(access, &object_key, &row));
            entries.push(ListEntry::Object(listed(object_key, &row, attributes)));
        }
        Ok(entries)
    }
}

/// Whether an error is about one tenant key and not about the node.
fn is_of_the_key(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::KeyDisabled
            | ErrorKind::KeyDestroyed
            | ErrorKind::KeyUnusable
            | ErrorKind::Unavailable
            | ErrorKind::NotFound
            | ErrorKind::Corrupt
            | ErrorKind::Tampered
    )
}

fn open(access: &BucketAccess, object_key: &str, row: &ObjectRow) -> Option<Attributes> {
    let object_key = ObjectKey::new(object_key).ok()?;
    let opened = access.open("la", (&object_key, row.version.as_bytes()), &row.attributes);
    let opened = opened.and_then(|plain| Attributes::decode(&plain));
    let opened = opened.and_then(|attributes| attributes.check(row).map(|()| attributes));
    if let Err(error) = &opened {
        tracing::error!(%error, "the listing attributes of an object do not open");
    }
    opened.ok()
}

fn listed(object_key: String, row: &ObjectRow, attributes: Option<Attributes>) -> ListedObject {
    let (etag, checksum_algorithm, checksum_type) = match attributes {
        Some(shown) => (Some(shown.etag), shown.checksum_algorithm, shown.checksum_type),
        None => (None, None, ChecksumType::default()),
    };
    ListedObject {
        object_key,
        size: row.size,
        modified_ms: row.modified_ms,
        etag,
        checksum_algorithm,
        checksum_type,
    }
}
