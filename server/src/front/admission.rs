//! The memory that bodies in flight may take together.
//!
//! Owns: how much of one body is held at one time, and waiting until that much is free. Knows
//! nothing of: framing, verbs; [`BodyPlan`](crate::body::BodyPlan) and
//! [`door`](crate::s3::door) say what they hold.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::Config;
use crate::error::ApiError;
use crate::s3::door;

/// The unit of memory that bodies are admitted by.
const UNIT_BYTES: u64 = 1 << 10;

/// What is known of a body's size before any of it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// Bytes on the wire, if the client said how many.
    pub(super) wire: Option<u64>,
    /// Bytes without framing, if the client said how many.
    pub(super) decoded: Option<u64>,
    /// What decoding holds at one time, at most.
    pub(super) held_max: u64,
}

/// The bytes on the wire that a request as it was sent declares. hyper lets no body be longer.
pub(super) fn wire_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The memory for request bodies.
pub(super) struct Admission {
    memory: Arc<Semaphore>,
    units_max: usize,
    xml_bytes_max: u64,
    patience: Duration,
}

impl Admission {
    /// As much memory as `config` says.
    pub(super) fn new(config: &Config) -> Self {
        let units = usize::try_from(config.request_bytes_max / UNIT_BYTES).unwrap_or(usize::MAX);
        let units_max = units.min(Semaphore::MAX_PERMITS);
        Self {
            memory: Arc::new(Semaphore::new(units_max)),
            units_max,
            xml_bytes_max: config.xml_bytes_max,
            patience: Duration::from_secs(config.body_stall_seconds),
        }
    }

    /// Waits for the memory that a body will take. `parts` is the request as the codec will see it,
    /// because the codec's choice of operation decides whether the body is gathered.
    pub(super) async fn admit(
        &self,
        parts: &Parts,
        expected: Expected,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        self.admit_bytes(self.bytes(door::streams_body(parts), expected)?).await
    }

    /// Waits for the memory of a body that takes `bytes`.
    pub(super) async fn admit_bytes(&self, bytes: u64) -> Result<OwnedSemaphorePermit, ApiError> {
        // A body that may take more than there is waits for all of it: it could never be served
        // otherwise.
        let units = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX);
        let units = u32::try_from(units.min(self.units_max)).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.memory).acquire_many_owned(units);
        match timeout(self.patience, permits).await {
            Ok(Ok(permits)) => Ok(permits),
            _ => Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "SlowDown",
                "Please reduce your request rate.",
            )),
        }
    }

    /// What is held of a body: of a stream what its decoder holds, of a document all of it.
    fn bytes(&self, is_streamed: bool, expected: Expected) -> Result<u64, ApiError> {
        let Expected { wire, decoded, held_max } = expected;
        let held = wire.unwrap_or(u64::MAX).min(held_max);
        if is_streamed {
            return Ok(held);
        }
        let most = self.xml_bytes_max;
        if wire.max(decoded).is_some_and(|declared| declared > most) {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "MaxMessageLengthExceeded",
                "Your request was too big.",
            )
            .with("MaxMessageLengthBytes", most.to_string()));
        }
        // The decoder's chunk and what was gathered of the document are there at the same time.
        Ok(decoded.unwrap_or(most).saturating_add(held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn admission() -> Admission {
        Admission::new(&Config { xml_bytes_max: 8 * MIB, ..Config::default() })
    }

    #[test]
    fn a_stream_takes_what_its_decoder_holds() {
        for (wire, held_max, bytes) in [
            (Some(10), MIB, 10),
            (Some(100 * MIB), MIB, MIB),
            (Some(100 * MIB), 16 * MIB, 16 * MIB),
            (None, 16 * MIB, 16 * MIB),
        ] {
            let expected = Expected { wire, decoded: wire, held_max };
            assert_eq!(admission().bytes(true, expected).unwrap(), bytes);
        }
    }

    #[test]
    fn a_document_takes_all_of_it_or_is_refused() {
        for (wire, decoded, bytes) in [
            (Some(10), Some(10), Some(20)),
            (Some(8 * MIB), Some(8 * MIB), Some(9 * MIB)),
            (None, None, Some(9 * MIB)),
            (Some(8 * MIB + 1), Some(8 * MIB), None),
            (None, Some(8 * MIB + 1), None),
        ] {
            let expected = Expected { wire, decoded, held_max: MIB };
            assert_eq!(admission().bytes(false, expected).ok(), bytes, "{wire:?} {decoded:?}");
        }
    }

    #[tokio::test]
    async fn more_than_there_is_waits_for_all() {
        let config = Config { request_bytes_max: 16 * MIB, ..Config::default() };
        let request = http::Request::builder().method("POST").uri("/b?delete").body(()).unwrap();
        let expected = Expected { wire: None, decoded: None, held_max: 16 * MIB };
        let admission = Admission::new(&config);
        let permits = admission.admit(&request.into_parts().0, expected).await.unwrap();
        assert_eq!(permits.num_permits(), 16 << 10);
    }
}
