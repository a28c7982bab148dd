//! The digests of one body: which are wanted, which must match, what they came to.
//!
//! Owns: [`DigestHandle`], through which a verb asks before the first byte and reads after the
//! last.
//! Knows nothing of: framing, signatures of chunks.
//!
//! Invariants
//! - [`DigestHandle::results`] is `None` until every check has passed, and stays so if one failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kluis_storage::{Checksum, ChecksumAlgorithm, Digester};

use super::error::{self, BodyError};
use super::plan::BodyPlan;
use crate::error::ApiError;

/// A view on a body's digests, for the request's extensions.
#[derive(Clone)]
pub(crate) struct DigestHandle(Arc<Mutex<Shared>>);

struct Shared {
    size: Option<u64>,
    named: Option<ChecksumAlgorithm>,
    has_client_digest: bool,
    wanted: Vec<ChecksumAlgorithm>,
    results: Option<Vec<Checksum>>,
    failure: Option<ApiError>,
}

impl DigestHandle {
    /// A handle for the body that `plan` is about.
    pub(super) fn new(plan: &BodyPlan) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            size: plan.size,
            named: plan.named,
            has_client_digest: plan.trailer.is_some() || !plan.sent.is_empty(),
            wanted: Vec::new(),
            results: None,
            failure: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for digests, before the body is first polled; later it has no effect.
    pub(crate) fn want(&self, algorithms: &[ChecksumAlgorithm]) {
        self.lock().wanted.extend_from_slice(algorithms);
    }

    /// The body's size as declared: the plaintext, without any framing.
    pub(crate) fn declared_size(&self) -> Option<u64> {
        self.lock().size
    }

    /// The body's size, or the refusal of a verb that needs one.
    pub(crate) fn required_size(&self) -> Result<u64, ApiError> {
        self.declared_size().ok_or_else(error::missing_length)
    }

    /// Whether the client sends a digest of the body: `Content-MD5`, or a checksum in the head or
    /// the trailer. Some operations demand one.
    pub(crate) fn has_client_digest(&self) -> bool {
        self.lock().has_client_digest
    }

    /// Every digest that was named, wanted or sent, once the body has ended well.
    pub(crate) fn results(&self) -> Option<Vec<Checksum>> {
        self.lock().results.clone()
    }

    /// What went wrong with the body, for an answer that is better than the text of whoever read
    /// it.
    pub(crate) fn failure(&self) -> Option<ApiError> {
        self.lock().failure.clone()
    }

    pub(super) fn fail(&self, error: &BodyError) {
        self.lock().failure = Some(error.to_api_error());
    }

    /// The algorithms to keep: named, wanted and sent, and CRC64NVME if that leaves none but MD5.
    fn kept(&self, sent: &[Checksum]) -> Vec<ChecksumAlgorithm> {
        let shared = self.lock();
        let mut kept = shared.wanted.clone();
        kept.extend(shared.named);
        kept.extend(sent.iter().map(|checksum| checksum.algorithm));
        if kept.iter().all(|algorithm| *algorithm == ChecksumAlgorithm::Md5) {
            kept.push(ChecksumAlgorithm::Crc64Nvme);
        }
        kept
    }

    fn publish(&self, results: Vec<Checksum>) {
        self.lock().results = Some(results);
    }
}

/// Calculates and compares as the bytes go by.
pub(super) struct Checks {
    handle: DigestHandle,
    /// Values from the head, and the trailer's once it was read.
    pub(super) sent: Vec<Checksum>,
    payload_sha256: Option<[u8; 32]>,
    running: Option<(Digester, Vec<ChecksumAlgorithm>)>,
}

impl Checks {
    pub(super) fn new(
        handle: DigestHandle,
        sent: Vec<Checksum>,
        payload_sha256: Option<[u8; 32]>,
    ) -> Self {
        Self { handle, sent, payload_sha256, running: None }
    }

    /// Settles which digests are calculated. Called once, by the first poll.
    pub(super) fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        let kept = self.handle.kept(&self.sent);
        let mut calculated = kept.clone();
        if self.payload_sha256.is_some() {
            calculated.push(ChecksumAlgorithm::Sha256);
        }
        self.running = Some((Digester::new(&calculated), kept));
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some((digester, _)) = &mut self.running {
            digester.update(bytes);
        }
    }

    /// Compares everything, and publishes the results if all of it matches.
    pub(super) fn finish(&mut self) -> Result<(), BodyError> {
        let Some((digester, kept)) = self.running.take() else {
            return Err(BodyError::Incomplete("its digests were taken already"));
        };
        let mut computed = digester.finish();
        let value = |algorithm: ChecksumAlgorithm| {
            let found = computed.iter().find(|checksum| checksum.algorithm == algorithm);
            found.map(|checksum| checksum.value.clone()).unwrap_or_default()
        };
        if let Some(expected) = self.payload_sha256 {
            let computed = value(ChecksumAlgorithm::Sha256);
            if computed != expected {
                return Err(BodyError::PayloadHash { expected, computed });
            }
        }
        for sent in &self.sent {
            let computed = value(sent.algorithm);
            if computed != sent.value {
                let (algorithm, expected) = (sent.algorithm, sent.value.clone());
                return Err(BodyError::BadDigest { algorithm, expected, computed });
            }
        }
        computed.retain(|checksum| kept.contains(&checksum.algorithm));
        self.handle.publish(computed);
        Ok(())
    }
}
