//! Request ids: 16 characters, as AWS writes them, unique while the node runs.
//!
//! Owns: how they are made. Knows nothing of: requests.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kluis_kms::RequestId;
use kluis_kms::env::{Rng, random_array};
use sha2::{Digest as _, Sha256};

/// Makes ids from a counter that starts at a random number. A bijection scrambles it, so ids do not
/// repeat within 2^64 requests, and do not tell how many there were.
pub(super) struct RequestIds {
    next: AtomicU64,
    /// Makes the host id of this run of the node; it is not secret.
    host: [u8; 16],
}

impl RequestIds {
    /// Ids from a random start.
    pub(super) fn new(rng: &dyn Rng) -> Self {
        let next = AtomicU64::new(u64::from_be_bytes(random_array(rng)));
        Self { next, host: random_array(rng) }
    }

    /// The next id.
    pub(super) fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = String::with_capacity(16);
        let _ = write!(text, "{:016X}", scramble(count));
        RequestId::new(text)
    }

    /// The host id of a request (`x-amz-id-2`): AWS support finds a server by it; here it only
    /// tells two runs of a node apart.
    pub(super) fn host_id(&self, request_id: &RequestId) -> String {
        let digest = Sha256::new().chain_update(self.host).chain_update(request_id.as_str());
        STANDARD.encode(digest.finalize())
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014): every step can be undone, so different counts give different ids.
fn scramble(count: u64) -> u64 {
    let mut word = count;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
