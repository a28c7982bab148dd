//! A client of a simulated node: does its operations and compares each answer with the model.
//!
//! Owns: the meaning of each [`Op`]. Knows nothing of: disks, faults, restarts.
//!
//! Invariants
//! - A client changes only names of its own, each one change at a time, and a counter that it
//!   shares.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use kluis_kms::Purpose;

use super::env::SimEnv;
use super::judge::{Judge, Verdict};
use super::model::{Client, Model, Piece, Seen, Slot, Upload, Value};
use super::plan::{Guard, KEYS, Op};
use crate::body::BytesBody;
use crate::digest::ChecksumAlgorithm;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::reached::sometimes;
use crate::requests::{
    CompleteUpload, CompletedPart, CopyRequest, CreateUpload, DeleteRequest, GetReply, GetRequest,
    ListEntry, ListRequest, PartReceipt, PutRequest, UploadPart, UploadPartCopy,
};
use crate::types::{
    BucketInfo, Conditions, ETag, ETagMatch, ObjectHeaders, ObjectKey, PART_BYTES_MIN, RangeSpec,
    SseChoice, Tags,
};

/// The name of the counter, beside every client's own.
const COUNTER: &str = "counter";

/// The one tag of an object.
const TAG: &str = "n";

/// Bytes of an object that is read slowly: more than two steps of a reader.
const SLOW_BYTES: u64 = 600_000;

/// What a read found, or nothing.
type Found = Option<Seen>;

/// See the module.
#[derive(Clone)]
pub(super) struct Hand {
    pub(super) index: usize,
    /// Which of the tenants it belongs to.
    pub(super) tenant: usize,
    pub(super) engine: Engine,
    pub(super) bucket: BucketInfo,
    pub(super) purpose: Purpose,
    pub(super) model: Arc<Mutex<Model>>,
    pub(super) judge: Arc<Judge>,
    pub(super) env: SimEnv,
    pub(super) segment_bytes: u64,
}

impl Hand {
    /// Does `ops` one after the other.
    pub(super) async fn run(self, ops: Vec<Op>) {
        for op in ops {
            if self.judge.has_violation() {
                return;
            }
            self.judge.note(&[self.index as u64, self.env.passed_ms()]);
            self.step(op).await;
        }
    }

    async fn step(&self, op: Op) {
        match op {
            Op::Get { key } => self.get(key).await,
            Op::Put { key, size } => self.put(key, size, Conditions::default(), true).await,
            Op::Delete { key } => self.delete(key).await,
            Op::List => self.list().await,
            Op::Range { key, from, len } => self.range(key, from, len).await,
            Op::Copy { from, to } => self.copy(from, to).await,
            Op::PutIf { key, size, guard } => self.put_if(key, size, guard).await,
            Op::Count => self.count().await,
            Op::Begin { key } => self.begin(key).await,
            Op::Part { number, size } => self.part(number, size).await,
            Op::Complete => self.complete().await,
            Op::Abort => self.abort().await,
            Op::PartCopy { number, from } => self.part_copy(number, from).await,
            Op::DeleteAll => drop(join_all((0..KEYS).map(|key| self.delete(key))).await),
            Op::Tag { key } => self.tag(key).await,
            Op::Reclaim => self.reclaim().await,
            Op::Slow { key } => self.slow(key).await,
            Op::Rest { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Op::Jump { ms } => self.env.jump(ms),
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_client<T>(&self, work: impl FnOnce(&mut Client) -> T) -> T {
        work(self.model().client(self.index))
    }

    fn with_slot<T>(&self, key: u8, work: impl FnOnce(&mut Slot) -> T) -> T {
        self.with_client(|client| work(client.slot(key)))
    }

    /// What the name holds, unless nobody knows.
    #[expect(clippy::option_option, reason = "nobody knows, or it holds nothing, or a value")]
    fn known(&self, key: u8) -> Option<Option<Value>> {
        self.with_slot(key, |slot| (!slot.is_open()).then(|| slot.now.clone()))
    }

    fn name(&self, key: u8) -> ObjectKey {
        ObjectKey::new(&format!("c{}/k\u{1}{key}", self.index)).expect("a short name")
    }

    fn during(&self, what: &str, key: u8) -> String {
        format!("client {} {what} key {key}", self.index)
    }

    /// Reads every name, after a restart.
    pub(super) async fn verify(&self) {
        let keys: Vec<u8> = self.with_client(|client| client.slots.keys().copied().collect());
        for key in keys {
            self.get(key).await;
            self.check_tag(key).await;
        }
        self.list().await;
        let least = self.model().counter(self.tenant).least();
        match self.read(COUNTER, None).await {
            Ok(found) => {
                self.counted(&found, least);
            }
            Err(error) => {
                self.judge.of_read("read the counter", &error);
            }
        }
    }

    async fn open(&self, name: &ObjectKey, range: Option<RangeSpec>) -> Result<GetReply> {
        let request = GetRequest {
            bucket: &self.bucket,
            object_key: name,
            conditions: Conditions::default(),
            range,
            part_number: None,
            customer_key: None,
        };
        self.engine.get(&self.purpose, request).await
    }

    async fn read(&self, name: &str, range: Option<RangeSpec>) -> Result<Found> {
        let name = ObjectKey::new(name)?;
        let mut reply = match self.open(&name, range).await {
            Ok(reply) => reply,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        rest_of(&mut reply, &mut bytes).await?;
        Ok(Some(Seen { bytes, etag: reply.info.etag.as_str().to_owned(), tag: None }))
    }

    async fn get(&self, key: u8) {
        let during = self.during("get", key);
        match self.read(self.name(key).as_str(), None).await {
            Ok(found) => {
                let size = found.as_ref().map_or(u64::MAX, |seen| seen.bytes.len() as u64);
                self.judge.note(&[size]);
                let silent = self.judge.is_silent();
                let fits = self.with_slot(key, |slot| {
                    // What a life that goes on shows of a change without an answer may not last.
                    let mut seen = slot.clone();
                    let fits = seen.observe(found.as_ref());
                    if fits && slot.maybe.is_none() {
                        *slot = seen;
                    }
                    fits
                });
                if !fits {
                    let states = self.with_slot(key, |slot| format!("{slot:?}"));
                    self.judge.violation(format!("{during}: wrong, {size} bytes; {states}"));
                }
                if silent && !fits {
                    sometimes("sim: silent damage was served");
                }
            }
            Err(error) => {
                if self.judge.of_read(&during, &error) && self.judge.is_silent() {
                    sometimes("sim: damage was found by a read");
                    self.with_slot(key, |slot| slot.damaged = true);
                }
            }
        }
    }

    /// After a restart what is read lasts.
    pub(super) async fn settle(&self) {
        let open: Vec<u8> = self.with_client(|client| {
            let open = client.slots.iter().filter(|(_, slot)| slot.maybe.is_some());
            open.map(|(key, _)| *key).collect()
        });
        for key in open {
            let Ok(mut found) = self.read(self.name(key).as_str(), None).await else { continue };
            if let Some(seen) = &mut found {
                let Ok(tag) = self.read_tag(key).await else { continue };
                seen.tag = Some(tag);
            }
            if !self.with_slot(key, |slot| slot.observe(found.as_ref())) {
                let states = self.with_slot(key, |slot| format!("{slot:?}"));
                let during = self.during("settle", key);
                self.judge.violation(format!("{during}: neither before nor after; {states}"));
            }
        }
    }

    async fn range(&self, key: u8, from: u64, len: u64) {
        let Some(Some(value)) = self.known(key) else { return };
        let bytes = value.bytes();
        if bytes.is_empty() {
            return;
        }
        let first = from % bytes.len() as u64;
        let last = first + len - 1;
        let end = usize::try_from(last + 1).unwrap_or(usize::MAX).min(bytes.len());
        let wanted = usize::try_from(first).unwrap_or(usize::MAX)..end;
        let spec = RangeSpec::From { first, last: Some(last) };
        let during = self.during("range of", key);
        match self.read(self.name(key).as_str(), Some(spec)).await {
            Ok(Some(found)) => {
                self.judge.note(&[found.bytes.len() as u64]);
                if bytes.get(wanted) != Some(found.bytes.as_slice()) {
                    self.judge.violation(format!("{during}: wrong bytes of {first}..={last}"));
                }
            }
            Ok(None) => self.judge.violation(format!("{during}: it is gone")),
            Err(error) => {
                self.judge.of_read(&during, &error);
            }
        }
    }

    async fn put(&self, key: u8, size: usize, conditions: Conditions, expected: bool) {
        if self.known(key).is_none() {
            return;
        }
        let during = self.during("put", key);
        let piece = self.model().piece(size);
        let value = Value::new(vec![piece]);
        self.with_slot(key, |slot| slot.begin(Some(value.clone())));
        let name = self.name(key);
        let answer = self.store(&name, piece.bytes(), conditions).await;
        self.answered(&during, key, expected, answer, value);
    }

    async fn store(
        &self,
        name: &ObjectKey,
        bytes: Vec<u8>,
        conditions: Conditions,
    ) -> Result<String> {
        let request = PutRequest {
            bucket: &self.bucket,
            object_key: name,
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            sse: SseChoice::default(),
            conditions,
            body: Box::new(BytesBody::new(bytes, &[ChecksumAlgorithm::Crc64Nvme])),
        };
        let receipt = self.engine.put(&self.purpose, request).await?;
        Ok(receipt.etag.as_str().to_owned())
    }

    /// Takes the answer of a change that was expected to succeed, or not.
    fn answered(
        &self,
        during: &str,
        key: u8,
        expected: bool,
        answer: Result<String>,
        mut value: Value,
    ) {
        match answer {
            Ok(etag) => {
                self.judge.note(&[1]);
                if !expected {
                    self.judge.violation(format!("{during}: a condition was not kept"));
                }
                value.etag = Some(etag);
                self.with_slot(key, |slot| slot.settle(Some(value)));
            }
            Err(error) if !expected && is_refusal(error.kind()) => {
                self.judge.note(&[2]);
                self.with_slot(key, Slot::refuse);
            }
            Err(error) => self.failed(during, key, &error),
        }
    }

    fn failed(&self, during: &str, key: u8, error: &Error) {
        if self.judge.of_change(during, error) == Verdict::Refused {
            self.with_slot(key, Slot::refuse);
        }
    }

    async fn put_if(&self, key: u8, size: usize, guard: Guard) {
        let Some(now) = self.known(key) else { return };
        let one = |etag: &str| Some(ETagMatch::OneOf(vec![ETag::new(etag)]));
        let current = now.as_ref().and_then(|value| value.etag.clone());
        let (conditions, expected) = match (guard, current) {
            (Guard::Absent, _) => {
                let if_none_match = Some(ETagMatch::Any);
                (Conditions { if_none_match, ..Conditions::default() }, now.is_none())
            }
            (Guard::Current, Some(etag)) => {
                (Conditions { if_match: one(&etag), ..Conditions::default() }, true)
            }
            (Guard::Current, None) => return,
            (Guard::Never, _) => {
                (Conditions { if_match: one("never"), ..Conditions::default() }, false)
            }
        };
        self.put(key, size, conditions, expected).await;
    }

    async fn delete(&self, key: u8) {
        let Some(now) = self.known(key) else { return };
        let during = self.during("delete", key);
        self.with_slot(key, |slot| slot.begin(None));
        let (name, conditions) = (self.name(key), Conditions::default());
        let request = DeleteRequest { bucket: &self.bucket, object_key: &name, conditions };
        match self.engine.delete(&self.purpose, request).await {
            Ok(receipt) => {
                self.judge.note(&[u64::from(receipt.existed)]);
                if receipt.existed != now.is_some() {
                    self.judge.violation(format!("{during}: existed {}", receipt.existed));
                }
                self.with_slot(key, |slot| slot.settle(None));
            }
            Err(error) => self.failed(&during, key, &error),
        }
    }

    async fn copy(&self, from: u8, to: u8) {
        let (Some(Some(source)), Some(_)) = (self.known(from), self.known(to)) else { return };
        if from == to {
            return;
        }
        let during = self.during("copy to", to);
        let value = Value { etag: None, ..source };
        self.with_slot(to, |slot| slot.begin(Some(value.clone())));
        let (source, name) = (self.name(from), self.name(to));
        let request = CopyRequest {
            source: (&self.bucket, &source),
            source_purpose: &self.purpose,
            source_conditions: Conditions::default(),
            source_customer_key: None,
            bucket: &self.bucket,
            object_key: &name,
            headers: None,
            tags: None,
            sse: SseChoice::default(),
            conditions: Conditions::default(),
            checksum: None,
            reencrypt: false,
        };
        let answer = self.engine.copy(&self.purpose, request).await;
        let answer = answer.map(|receipt| receipt.etag.as_str().to_owned());
        self.answered(&during, to, true, answer, value);
    }

    async fn list(&self) {
        let request = ListRequest {
            bucket: &self.bucket,
            prefix: format!("c{}/", self.index),
            delimiter: None,
            after: None,
            limit: 1_000,
        };
        let page = match self.engine.list(&self.purpose, request).await {
            Ok(page) => page,
            Err(error) => {
                self.judge.of_read("list", &error);
                return;
            }
        };
        let mut found = BTreeMap::new();
        for entry in page.entries {
            if let ListEntry::Object(object) = entry {
                found.insert(object.object_key, object.size);
            }
        }
        self.judge.note(&[found.len() as u64]);
        let expected: Vec<(u8, Slot)> =
            self.with_client(|client| client.slots.iter().map(|(k, s)| (*k, s.clone())).collect());
        for (key, slot) in expected {
            let size = found.remove(self.name(key).as_str());
            let fits = |state: &Option<Value>| state.as_ref().map(|v| v.size() as u64) == size;
            if !slot.states().any(fits) {
                self.judge.violation(format!(
                    "{}: it has {size:?} bytes, and should have {slot:?}",
                    self.during("list", key)
                ));
            }
        }
        if let Some((name, _)) = found.first_key_value() {
            self.judge.violation(format!("a listing has {name:?}, which nobody put"));
        }
    }

    /// Whether a read of the counter is possible, and what it says.
    fn counted(&self, found: &Found, least: u64) -> Option<u64> {
        let text = found
            .as_ref()
            .map_or("0", |seen| std::str::from_utf8(&seen.bytes).unwrap_or("not a number"));
        let number = text.parse::<u64>().ok();
        let fits = number.is_some_and(|number| {
            number >= least && self.model().counter(self.tenant).may_hold(number)
        });
        if !fits && !self.judge.is_silent() {
            self.judge.violation(format!("the counter is {text}, at least {least} was written"));
        }
        number
    }

    async fn count(&self) {
        let least = self.model().counter(self.tenant).least();
        let found = match self.read(COUNTER, None).await {
            Ok(found) => found,
            Err(error) => {
                self.judge.of_read("read the counter", &error);
                return;
            }
        };
        let Some(number) = self.counted(&found, least) else { return };
        let next = number + 1;
        let conditions = match found {
            Some(seen) => {
                let if_match = Some(ETagMatch::OneOf(vec![ETag::new(seen.etag)]));
                Conditions { if_match, ..Conditions::default() }
            }
            None => Conditions { if_none_match: Some(ETagMatch::Any), ..Conditions::default() },
        };
        self.model().counter(self.tenant).begin(next);
        let name = ObjectKey::new(COUNTER).expect("a short name");
        match self.store(&name, next.to_string().into_bytes(), conditions).await {
            Ok(_) => {
                self.judge.note(&[next]);
                if !self.model().counter(self.tenant).win(next) {
                    self.judge.violation(format!("two clients wrote {next} into the counter"));
                }
            }
            Err(error) if is_refusal(error.kind()) => sometimes("sim: a swap was lost"),
            Err(error) => {
                self.judge.of_change("count", &error);
            }
        }
    }

    async fn begin(&self, key: u8) {
        let name = self.name(key);
        let request = CreateUpload {
            bucket: &self.bucket,
            object_key: &name,
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            sse: SseChoice::default(),
            checksum: None,
        };
        match self.engine.create_upload(&self.purpose, request).await {
            Ok(info) => {
                let upload = Upload { id: info.upload, key, parts: BTreeMap::new() };
                self.with_client(|client| client.upload = Some(upload));
            }
            Err(error) => {
                self.judge.of_change("begin an upload", &error);
            }
        }
    }

    async fn part(&self, number: u32, size: usize) {
        // Out of the model while it is under way: one that a crash leaves open is used no more.
        let Some(upload) = self.with_client(|client| client.upload.take()) else { return };
        let piece = self.model().piece(size);
        let name = self.name(upload.key);
        let request = UploadPart {
            bucket: &self.bucket,
            object_key: &name,
            upload: upload.id,
            part_number: number,
            customer_key: None,
            body: Box::new(BytesBody::new(piece.bytes(), &[ChecksumAlgorithm::Crc64Nvme])),
        };
        let answer = self.engine.upload_part(&self.purpose, request).await;
        self.sent(upload, number, vec![piece], answer);
    }

    async fn part_copy(&self, number: u32, from: u8) {
        // Of nothing there is no copy.
        let Some(Some(source)) =
            self.known(from).filter(|it| it.as_ref().is_some_and(|value| value.size() > 0))
        else {
            return;
        };
        let Some(upload) = self.with_client(|client| client.upload.take()) else { return };
        let (name, source_name) = (self.name(upload.key), self.name(from));
        let request = UploadPartCopy {
            source: (&self.bucket, &source_name),
            source_purpose: &self.purpose,
            source_conditions: Conditions::default(),
            source_customer_key: None,
            range: None,
            bucket: &self.bucket,
            object_key: &name,
            upload: upload.id,
            part_number: number,
            customer_key: None,
        };
        let answer = self.engine.upload_part_copy(&self.purpose, request).await;
        self.sent(upload, number, source.pieces, answer);
    }

    /// Takes the answer of a part; the upload is used no more if nobody knows.
    fn sent(
        &self,
        mut upload: Upload,
        number: u32,
        pieces: Vec<Piece>,
        answer: Result<PartReceipt>,
    ) {
        match answer {
            Ok(receipt) => {
                upload.parts.insert(number, (pieces, receipt.etag.as_str().to_owned()));
            }
            Err(error) => {
                if self.judge.of_change("upload a part", &error) != Verdict::Refused {
                    return;
                }
            }
        }
        self.with_client(|client| client.upload = Some(upload));
    }

    async fn complete(&self) {
        let Some(upload) = self.with_client(|client| client.upload.take()) else { return };
        let key = upload.key;
        if self.known(key).is_none() || upload.parts.is_empty() {
            return;
        }
        let during = self.during("complete", key);
        let pieces = upload.parts.values().flat_map(|(pieces, _)| pieces);
        let value = Value::new(pieces.copied().collect());
        let last = upload.parts.keys().last().copied();
        let large_enough = upload.parts.iter().all(|(number, (pieces, _))| {
            let size: usize = pieces.iter().map(|piece| piece.size).sum();
            Some(*number) == last || size as u64 >= PART_BYTES_MIN
        });
        let parts = upload.parts.iter().map(|(number, (_, etag))| CompletedPart {
            number: *number,
            etag: ETag::new(etag.as_str()),
            checksums: Vec::new(),
        });
        let name = self.name(key);
        let request = CompleteUpload {
            bucket: &self.bucket,
            object_key: &name,
            upload: upload.id,
            parts: parts.collect(),
            checksum: None,
            size: None,
            customer_key: None,
            conditions: Conditions::default(),
        };
        self.with_slot(key, |slot| slot.begin(Some(value.clone())));
        let answer = self.engine.complete_upload(&self.purpose, request).await;
        let answer = answer.map(|receipt| receipt.etag.as_str().to_owned());
        self.answered(&during, key, large_enough, answer, value);
    }

    async fn abort(&self) {
        let Some(upload) = self.with_client(|client| client.upload.take()) else { return };
        let name = self.name(upload.key);
        let outcome = self.engine.abort_upload(&self.purpose, &self.bucket, &name, upload.id).await;
        if let Err(error) = outcome {
            self.judge.of_change("abort an upload", &error);
        }
    }

    async fn tag(&self, key: u8) {
        let Some(Some(value)) = self.known(key) else { return };
        let during = self.during("tag", key);
        // A name for the tags that no other is like.
        let tag = self.model().piece(0).number;
        let value = Value { tag, ..value };
        self.with_slot(key, |slot| slot.begin(Some(value.clone())));
        let tags = Tags(vec![(TAG.to_owned(), tag.to_string())]);
        let name = self.name(key);
        let answer = self.engine.set_object_tags(&self.purpose, &self.bucket, &name, tags).await;
        match answer {
            Ok(()) => {
                self.judge.note(&[tag]);
                self.with_slot(key, |slot| slot.settle(Some(value)));
                self.check_tag(key).await;
            }
            Err(error) => self.failed(&during, key, &error),
        }
    }

    async fn read_tag(&self, key: u8) -> Result<u64> {
        let name = self.name(key);
        let (tags, _) = self.engine.object_tags(&self.purpose, &self.bucket, &name).await?;
        // What is no number is no tag of the model.
        let number = |(_, text): &(String, String)| text.parse().unwrap_or(u64::MAX);
        Ok(tags.0.first().map_or(0, number))
    }

    /// Reads the tags of an object that is known, and compares them.
    async fn check_tag(&self, key: u8) {
        let Some(Some(value)) = self.known(key) else { return };
        let during = self.during("tags of", key);
        match self.read_tag(key).await {
            Ok(tag) if tag == value.tag => self.judge.note(&[tag]),
            Ok(tag) => {
                self.judge.violation(format!("{during}: {tag}, and should be {}", value.tag));
            }
            Err(error) => {
                self.judge.of_read(&during, &error);
            }
        }
    }

    async fn reclaim(&self) {
        match self.engine.reclaim_now().await {
            Ok(stats) => {
                self.judge.note(&[stats.segments_freed, stats.extents_moved]);
                if stats.segments_freed > 0 {
                    sometimes("sim: a segment was reclaimed");
                }
                if stats.extents_moved > 0 {
                    sometimes("sim: a survivor was moved");
                }
                if stats.races_lost > 0 {
                    sometimes("sim: an object was deleted while it was moved");
                }
            }
            Err(error) => {
                self.judge.of_change("reclaim", &error);
            }
        }
    }

    async fn slow(&self, key: u8) {
        // More than is read ahead, where an object of several extents fits.
        if self.segment_bytes > SLOW_BYTES / 2 {
            let size = usize::try_from(SLOW_BYTES).unwrap_or_default();
            self.put(key, size, Conditions::default(), true).await;
        }
        let Some(Some(value)) = self.known(key) else { return };
        let during = self.during("slow get", key);
        let mut bytes = Vec::new();
        let mut reply = match self.open(&self.name(key), None).await {
            Ok(reply) => reply,
            Err(error) => {
                self.judge.of_read(&during, &error);
                return;
            }
        };
        match reply.body.next().await {
            Ok(Some(some)) => bytes.extend_from_slice(&some),
            Ok(None) => {}
            Err(error) => {
                self.judge.of_read(&during, &error);
                return;
            }
        }
        self.delete(key).await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        match rest_of(&mut reply, &mut bytes).await {
            Ok(()) if bytes == value.bytes() => {
                if bytes.len() as u64 == SLOW_BYTES {
                    sometimes("sim: a reader outlived its object");
                }
            }
            Ok(()) => self.judge.violation(format!("{during}: wrong bytes after a delete")),
            Err(error) => {
                self.judge.of_read(&during, &error);
            }
        }
    }
}

async fn rest_of(reply: &mut GetReply, bytes: &mut Vec<u8>) -> Result<()> {
    while let Some(some) = reply.body.next().await? {
        bytes.extend_from_slice(&some);
    }
    let size = reply.range.end - reply.range.start;
    if bytes.len() as u64 != size {
        let what = format!("read {} of {size} bytes", bytes.len());
        return Err(Error::new(ErrorKind::Misuse, what));
    }
    Ok(())
}

/// How a condition, or a part that is too small, is refused.
fn is_refusal(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PreconditionFailed | ErrorKind::NotFound | ErrorKind::PartTooSmall)
}
