//! `kluis check`: everything that is stored, verified while no node runs.
//!
//! Owns: what is compared with what. Knows nothing of: terminals, exit codes.
//!
//! Without keys: every location row against its extent (identity and every CRC), every reference
//! from object to content to stream to extent, both ways, and the count of each segment's live
//! bytes against the rows. With keys: every wrap, commitment,
//! manifest, sealed field and chunk tag as well, by reading every object through the engine.
//!
//! Opening the directory recovers it like a start does. Memory grows with the number of contents:
//! about 100 bytes each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use kluis_kms::{Env, Kms, Purpose, Reason, Rights};

use crate::blob::{ExtentId, Location, Volume};
use crate::bucket_keys::{IndexName, RowName};
use crate::engine::{Engine, EngineConfig, open_parts};
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::JobRow;
use crate::meta::{Family, ScanStep, prefix_end};
use crate::namespace::{MetaReader, Table, TenantNs, decode_object_key};
use crate::requests::{GetRequest, ListBuckets};
use crate::rows::{BucketKeyRow, ContentRow, ObjectRow, PartRow, StreamRef, UploadRow};
use crate::scrub::damage::stored as recorded;
use crate::scrub::row::{DamageKind, DamagePlace, DamageRow};
use crate::segments::live_bytes;
use crate::tenants::Tenants;
use crate::types::{BucketInfo, Conditions, ContentId, ObjectKey, StreamId};

/// Rows taken from a table at a time.
const PAGE_ROWS: usize = 1_000;
/// Findings that are listed; more are only counted.
pub const FINDINGS_MAX: usize = 1_000;

/// Something that is not as it should be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What is damaged: `row`, `reference`, `extent`, `object` or `accounting`.
    pub kind: &'static str,
    /// Where, in ids and numbers; never a name.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

/// What was verified, and what was found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Tenants looked at.
    pub tenants: u64,
    /// Rows decoded.
    pub rows: u64,
    /// Extents whose identity and checksums were verified.
    pub extents: u64,
    /// Bytes of those extents.
    pub extent_bytes: u64,
    /// Objects whose every tag was verified; 0 without keys.
    pub objects: u64,
    /// Jobs on record.
    pub jobs: u64,
    /// Plaintext bytes of those objects.
    pub object_bytes: u64,
    /// Objects that only a key of their client opens: their extents are verified, their tags not.
    pub customer_objects: u64,
    /// Objects under a tenant key that is off, waits for its material or is destroyed: their tags
    /// are not verified either, and that is no damage.
    pub locked_objects: u64,
    /// The damage, at most [`FINDINGS_MAX`] of it.
    pub findings: Vec<Finding>,
    /// How much damage there is in all.
    pub damaged: u64,
}

/// Told now and then how far the check is.
pub type CheckProgress<'a> = dyn Fn(&CheckReport) + Send + Sync + 'a;

/// Verifies the directory, with tags if `kms` is given.
///
/// # Errors
/// Those of [`Engine::open`]: what keeps a node from starting keeps this from running.
pub async fn check(
    dir: &Path,
    config: EngineConfig,
    kms: Option<Arc<Kms>>,
    env: Env,
    progress: &CheckProgress<'_>,
) -> Result<CheckReport> {
    let mut check = Check {
        report: CheckReport::default(),
        progress,
        live: BTreeMap::new(),
        recorded: BTreeMap::new(),
    };
    {
        let opened = open_parts(dir, &config, &env).await?;
        check.all(&opened.reader, &opened.tenants, &opened.volume).await?;
        opened.volume.close().await?;
        let store = opened.reader.store().alive();
        drop(opened);
        wait_until_gone(&store).await;
    }
    if let Some(kms) = kms {
        let engine = Engine::open(dir, config, kms, env).await?;
        for ns in engine.inner.tenants.all() {
            check.objects(&engine, &ns).await?;
        }
        engine.close().await?;
    }
    Ok(check.report)
}

/// What is to be found without keys in rows and extents that nobody changes meanwhile.
#[cfg(feature = "sim")]
pub(crate) async fn check_rows(engine: &Engine) -> Result<CheckReport> {
    let mut check = Check {
        report: CheckReport::default(),
        progress: &|_| {},
        live: BTreeMap::new(),
        recorded: BTreeMap::new(),
    };
    let inner = &engine.inner;
    check.all(&inner.reader, &inner.tenants, &inner.volume).await?;
    Ok(check.report)
}

/// The volume's tasks hold the store until they notice that the volume is gone.
pub(crate) async fn wait_until_gone(store: &std::sync::Weak<()>) {
    while store.strong_count() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

struct Check<'a> {
    report: CheckReport,
    progress: &'a CheckProgress<'a>,
    /// Bytes of each segment that location rows name.
    live: BTreeMap<u32, i64>,
    /// What the node knew to be damaged.
    recorded: BTreeMap<DamagePlace, DamageRow>,
}

/// What the rows of one tenant say of each other.
#[derive(Default)]
struct References {
    /// By content: references counted on object rows, and on the content row itself.
    contents: HashMap<ContentId, (u32, Option<u32>)>,
    /// By stream: extents that its owner says it has, and that there are rows for.
    streams: HashMap<StreamId, (Option<u32>, u32)>,
    /// Contents whose body has to be a row, and those that have one.
    inline: HashMap<ContentId, (bool, bool)>,
}

impl Check<'_> {
    /// Everything that needs no keys.
    async fn all(&mut self, reader: &MetaReader, tenants: &Tenants, volume: &Volume) -> Result<()> {
        self.recorded = recorded(reader).await?;
        let queued = queued_streams(reader).await?;
        // In the same order each time: a simulation repeats, and so do reports.
        let mut all = tenants.all();
        all.sort_by_key(|ns| *ns.tenant().as_bytes());
        for ns in all {
            self.tenant(&ns, volume, &queued).await?;
        }
        self.accounting(&live_bytes(reader).await?);
        Ok(())
    }

    fn found(&mut self, kind: &'static str, place: String, message: impl Into<String>) {
        self.report.damaged += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding { kind, place, message: message.into() });
        }
    }

    /// Counts a row, or reports one that does not decode.
    fn row<T>(&mut self, ns: &TenantNs, table: Table, decoded: Result<T>) -> Option<T> {
        self.report.rows += 1;
        match decoded {
            Ok(row) => Some(row),
            Err(error) => {
                let place = format!("tenant {} table {table:?}", ns.tenant());
                self.found("row", place, error.to_string());
                None
            }
        }
    }

    async fn tenant(&mut self, ns: &TenantNs, volume: &Volume, queued: &[StreamId]) -> Result<()> {
        let mut references = References::default();
        self.object_rows(ns, &mut references).await?;
        self.content_rows(ns, &mut references).await?;
        self.multipart_rows(ns, &mut references).await?;
        self.inline_rows(ns, &mut references).await?;
        self.location_rows(ns, volume, &mut references).await?;
        self.key_rows(ns).await?;
        self.job_rows(ns).await?;
        self.compare(ns, &references, queued);
        self.report.tenants += 1;
        (self.progress)(&self.report);
        Ok(())
    }

    async fn object_rows(&mut self, ns: &TenantNs, references: &mut References) -> Result<()> {
        let mut pages = Pages::new(ns, Table::Objects);
        while let Some(rows) = pages.next().await? {
            for (_, value) in rows {
                if let Some(row) = self.row(ns, Table::Objects, ObjectRow::decode(&value)) {
                    references.contents.entry(row.content).or_default().0 += 1;
                }
            }
        }
        Ok(())
    }

    async fn content_rows(&mut self, ns: &TenantNs, references: &mut References) -> Result<()> {
        let mut pages = Pages::new(ns, Table::Contents);
        while let Some(rows) = pages.next().await? {
            for (rest, value) in rows {
                let decoded = ContentRow::decode(&value);
                let Some(row) = self.row(ns, Table::Contents, decoded) else {
                    continue;
                };
                let Some(content) = rest.first_chunk().map(|id| ContentId::from_bytes(*id)) else {
                    continue;
                };
                references.contents.entry(content).or_default().1 = Some(row.references);
                if row.inline {
                    references.inline.entry(content).or_default().0 = true;
                }
                for stream in row.streams.iter().filter(|stream| stream.extents > 0) {
                    references.streams.entry(stream.stream).or_default().0 = Some(stream.extents);
                }
            }
        }
        Ok(())
    }

    async fn multipart_rows(&mut self, ns: &TenantNs, references: &mut References) -> Result<()> {
        let mut pages = Pages::new(ns, Table::Multipart);
        while let Some(rows) = pages.next().await? {
            for (rest, value) in rows {
                if rest.get(16) == Some(&b'u') {
                    self.row(ns, Table::Multipart, UploadRow::decode(&value));
                    continue;
                }
                let decoded = PartRow::decode(&value);
                if let Some(part) = self.row(ns, Table::Multipart, decoded) {
                    let stream = StreamRef { stream: part.stream, extents: part.extents };
                    references.streams.entry(stream.stream).or_default().0 = Some(stream.extents);
                }
            }
        }
        Ok(())
    }

    async fn inline_rows(&mut self, ns: &TenantNs, references: &mut References) -> Result<()> {
        let mut pages = Pages::new(ns, Table::Inline);
        while let Some(rows) = pages.next().await? {
            for (rest, _) in rows {
                self.report.rows += 1;
                if let Some(id) = rest.first_chunk() {
                    references.inline.entry(ContentId::from_bytes(*id)).or_default().1 = true;
                }
            }
        }
        Ok(())
    }

    async fn location_rows(
        &mut self,
        ns: &TenantNs,
        volume: &Volume,
        references: &mut References,
    ) -> Result<()> {
        let mut pages = Pages::new(ns, Table::Locations);
        while let Some(rows) = pages.next().await? {
            for (rest, value) in rows {
                let decoded = Location::decode(&value);
                let Some(location) = self.row(ns, Table::Locations, decoded) else {
                    continue;
                };
                let Some((stream, number)) = rest.split_first_chunk::<16>() else {
                    continue;
                };
                let Some(number) = number.first_chunk().map(|n| u32::from_be_bytes(*n)) else {
                    continue;
                };
                let live = self.live.entry(location.segment()).or_default();
                *live += i64::from(location.stored_len());
                let stream = StreamId::from_bytes(*stream);
                references.streams.entry(stream).or_default().1 += 1;
                let id = ExtentId { ns: ns.ns(), stream, number };
                self.extent(ns, volume, id, &location).await?;
            }
            (self.progress)(&self.report);
        }
        Ok(())
    }

    /// Compares bucket keys with the index of them by material.
    async fn key_rows(&mut self, ns: &TenantNs) -> Result<()> {
        let mut expected = BTreeSet::new();
        let mut pages = Pages::new(ns, Table::BucketKeys);
        while let Some(rows) = pages.next().await? {
            for (rest, value) in rows {
                let decoded = RowName::decode(&rest)
                    .and_then(|name| Ok((name, BucketKeyRow::decode(&value)?)));
                if let Some((name, row)) = self.row(ns, Table::BucketKeys, decoded) {
                    expected.extend(IndexName::of(name, &row));
                }
            }
        }
        let mut pages = Pages::new(ns, Table::KeyIndex);
        while let Some(rows) = pages.next().await? {
            for (rest, _) in rows {
                let decoded = IndexName::decode(&rest);
                let Some(name) = self.row(ns, Table::KeyIndex, decoded) else { continue };
                if !expected.remove(&name) {
                    self.found(
                        "reference",
                        index_place(ns, &name),
                        "an index row stands for nothing",
                    );
                }
            }
        }
        for name in expected {
            self.found("reference", index_place(ns, &name), "its index row is missing");
        }
        Ok(())
    }

    async fn job_rows(&mut self, ns: &TenantNs) -> Result<()> {
        let mut pages = Pages::new(ns, Table::Jobs);
        while let Some(rows) = pages.next().await? {
            for (_, value) in rows {
                let decoded = JobRow::decode(&value);
                self.report.jobs += u64::from(self.row(ns, Table::Jobs, decoded).is_some());
            }
        }
        Ok(())
    }

    async fn extent(
        &mut self,
        ns: &TenantNs,
        volume: &Volume,
        id: ExtentId,
        location: &Location,
    ) -> Result<()> {
        let place = || {
            let (segment, offset) = (location.segment(), location.offset());
            format!("tenant {} segment {segment} offset {offset}", ns.tenant())
        };
        let recorded = self.recorded.remove(&DamagePlace::of(location)).filter(|it| it.id == id);
        let told =
            recorded.map_or_else(String::new, |it| format!("; known as {}", it.kind.as_str()));
        match volume.verify(id, location).await {
            // No checksum tells of that; only a read with the keys did.
            Ok(bad) if bad.is_empty() => {
                if recorded.is_some_and(|it| it.kind == DamageKind::Tampered) {
                    self.found("extent", place(), format!("its checksums are right{told}"));
                }
            }
            Ok(bad) => {
                self.found("extent", place(), format!("chunks {bad:?} fail their checksum{told}"));
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Moved) => {
                self.found("extent", place(), format!("{error}{told}"));
            }
            Err(error) => return Err(error),
        }
        self.report.extents += 1;
        self.report.extent_bytes += u64::from(location.stored_len());
        Ok(())
    }

    /// Compares the counts that reclaiming goes by with the rows.
    fn accounting(&mut self, counted: &BTreeMap<u32, i64>) {
        let live = std::mem::take(&mut self.live);
        let segments: BTreeSet<u32> = live.keys().chain(counted.keys()).copied().collect();
        for segment in segments {
            let of = |counts: &BTreeMap<u32, i64>| counts.get(&segment).copied().unwrap_or(0);
            let (live, counted) = (of(&live), of(counted));
            if live != counted {
                let message = format!("counts {counted} live bytes and has {live}");
                self.found("accounting", format!("segment {segment}"), message);
            }
        }
    }

    fn compare(&mut self, ns: &TenantNs, references: &References, queued: &[StreamId]) {
        let tenant = ns.tenant();
        for (content, (objects, counted)) in &references.contents {
            let message = match counted {
                Some(counted) if counted == objects => continue,
                Some(counted) => format!("counts {counted} references and has {objects}"),
                None => format!("is missing; {objects} objects point to it"),
            };
            self.found("reference", format!("tenant {tenant} content {content}"), message);
        }
        for (stream, (named, held)) in &references.streams {
            let message = match named {
                Some(named) if named == held => continue,
                Some(named) => format!("has {held} extents and should have {named}"),
                None if queued.contains(stream) => continue,
                None => format!("is listed by nothing and holds {held} extents"),
            };
            self.found("reference", format!("tenant {tenant} stream {stream}"), message);
        }
        for (content, inline) in &references.inline {
            let message = match inline {
                (true, false) => "its body is missing",
                (false, true) => "nothing points to its body",
                _ => continue,
            };
            self.found("reference", format!("tenant {tenant} content {content}"), message);
        }
    }

    /// Reads every object of a tenant through the engine.
    async fn objects(&mut self, engine: &Engine, ns: &TenantNs) -> Result<()> {
        let purpose = Purpose {
            tenant: ns.tenant(),
            principal: "kluis check".into(),
            reason: Reason::TenantJob { job: "check".into() },
            request_id: "check".into(),
            action: "kluis:Check",
            rights: Rights::of_tenant(),
        };
        let mut after = None;
        loop {
            let request = ListBuckets { after, limit: PAGE_ROWS, ..ListBuckets::default() };
            let page = engine.list_buckets(&purpose, request).await?;
            for bucket in &page.buckets {
                self.bucket(engine, ns, &purpose, bucket).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn bucket(
        &mut self,
        engine: &Engine,
        ns: &TenantNs,
        purpose: &Purpose,
        bucket: &BucketInfo,
    ) -> Result<()> {
        let mut pages = Pages::under(ns, Table::Objects, bucket.id.as_bytes());
        while let Some(rows) = pages.next().await? {
            for (rest, value) in rows {
                let read = read_object(engine, purpose, bucket, &rest).await;
                let sealed = |error: &Error| error.kind() == ErrorKind::CustomerKeyMissing;
                if read.as_ref().is_err_and(sealed) {
                    self.report.customer_objects += 1;
                    continue;
                }
                if read.as_ref().is_err_and(|error| is_locked(error.kind())) {
                    self.report.locked_objects += 1;
                    continue;
                }
                self.report.objects += 1;
                match read {
                    Ok(bytes) => self.report.object_bytes += bytes,
                    Err(error) => {
                        let version = ObjectRow::decode(&value).map(|row| row.version.to_string());
                        let version = version.unwrap_or_else(|_| "of a broken row".to_owned());
                        let place = format!("tenant {} version {version}", ns.tenant());
                        self.found("object", place, error.to_string());
                    }
                }
            }
            (self.progress)(&self.report);
        }
        Ok(())
    }
}

/// Where a bucket key is that the index is wrong about.
fn index_place(ns: &TenantNs, name: &IndexName) -> String {
    let IndexName { tenant_key, material, of } = name;
    let (tenant, bucket, epoch) = (ns.tenant(), of.bucket, of.epoch);
    format!("tenant {tenant} key {tenant_key} material {material} bucket {bucket} epoch {epoch}")
}

/// Verifies every tag of an object; its plaintext bytes.
/// Whether an object is not read because of its tenant key's state.
fn is_locked(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::KeyDestroyed | ErrorKind::KeyDisabled | ErrorKind::KeyUnusable)
}

async fn read_object(
    engine: &Engine,
    purpose: &Purpose,
    bucket: &BucketInfo,
    rest: &[u8],
) -> Result<u64> {
    let encoded = rest.get(bucket.id.as_bytes().len()..).unwrap_or_default();
    let object_key = ObjectKey::new(&decode_object_key(encoded)?.0)?;
    engine.object_tags(purpose, bucket, &object_key).await?;
    let request = GetRequest {
        bucket,
        object_key: &object_key,
        conditions: Conditions::default(),
        range: None,
        part_number: None,
        customer_key: None,
    };
    let mut reply = engine.get(purpose, request).await?;
    let mut bytes = 0;
    while let Some(chunk) = reply.body.next().await? {
        bytes += chunk.len() as u64;
    }
    if bytes != reply.info.size {
        return Err(Error::new(ErrorKind::Corrupt, format!("read {bytes} bytes of an object")));
    }
    Ok(bytes)
}

/// The rows of a table, a page at a time: key behind the table byte, and value.
struct Pages<'a> {
    ns: &'a TenantNs,
    table: Table,
    prefix: Vec<u8>,
    from: Option<Vec<u8>>,
}

impl<'a> Pages<'a> {
    fn new(ns: &'a TenantNs, table: Table) -> Self {
        Self::under(ns, table, &[])
    }

    fn under(ns: &'a TenantNs, table: Table, prefix: &[u8]) -> Self {
        Self { ns, table, prefix: prefix.to_vec(), from: Some(Vec::new()) }
    }

    async fn next(&mut self) -> Result<Option<Vec<(Vec<u8>, Vec<u8>)>>> {
        let Some(from) = self.from.take() else {
            return Ok(None);
        };
        let rows = self
            .ns
            .fold(self.table, &self.prefix, &from, Vec::new(), |rows, rest, value| {
                rows.push((rest.to_vec(), value.to_vec()));
                Ok(if rows.len() < PAGE_ROWS { ScanStep::Next } else { ScanStep::Stop })
            })
            .await?;
        if rows.len() == PAGE_ROWS {
            self.from = rows.last().map(|(rest, _)| [rest.as_slice(), &[0]].concat());
        }
        Ok(Some(rows))
    }
}

/// Streams that wait to be given up: their extents are listed by nothing, and rightly so.
async fn queued_streams(reader: &MetaReader) -> Result<Vec<StreamId>> {
    let lower = vec![crate::release::QUEUE];
    let upper = prefix_end(&lower);
    reader
        .fold(Family::Gc, lower, upper, Vec::new(), |streams, row_key, _| {
            if let Some(id) = row_key.last_chunk() {
                streams.push(StreamId::from_bytes(*id));
            }
            Ok(ScanStep::Next)
        })
        .await
}
