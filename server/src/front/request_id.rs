//! Request ids: 16 characters, as AWS writes them.
//!
//! Owns: how they are made. Knows nothing of: requests.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kluis_kms::RequestId;
use kluis_kms::env::{Rng, random_array};
use sha2::{Digest as _, Sha256};

/// Makes ids from a counter and a key of this run of the node, so that an id does not tell how many
/// requests there were. Two are the same only by chance: after 2^32 of them that is likely.
pub(super) struct RequestIds {
    next: AtomicU64,
    /// Secret: who knows it can undo an id by trying counts.
    run_key: [u8; 16],
    /// Makes the host id of this run of the node; it is not secret.
    host: [u8; 16],
}

impl RequestIds {
    /// Ids under a random key.
    pub(super) fn new(rng: &dyn Rng) -> Self {
        Self { next: AtomicU64::new(0), run_key: random_array(rng), host: random_array(rng) }
    }

    /// The next id.
    pub(super) fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let digest = Sha256::new().chain_update(self.run_key).chain_update(count.to_be_bytes());
        let digest = digest.finalize();
        let mut text = String::with_capacity(16);
        for byte in digest.iter().take(8) {
            let _ = write!(text, "{byte:02X}");
        }
        RequestId::new(text)
    }

    /// The host id of a request (`x-amz-id-2`): AWS support finds a server by it; here it only
    /// tells two runs of a node apart.
    pub(super) fn host_id(&self, request_id: &RequestId) -> String {
        let digest = Sha256::new().chain_update(self.host).chain_update(request_id.as_str());
        STANDARD.encode(digest.finalize())
    }
}

#[cfg(test)]
mod tests {
    use kluis_kms::env::SeededRng;

    use super::*;

    #[test]
    fn ids_follow_from_the_key_of_the_run() {
        let (ids, again) =
            (RequestIds::new(&SeededRng::new(1)), RequestIds::new(&SeededRng::new(1)));
        let other = RequestIds::new(&SeededRng::new(2));
        let first = ids.next();
        assert_eq!(first, again.next());
        assert_ne!(first, other.next());
        assert_ne!(first, ids.next());
        let is_upper_hex = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
        assert!(first.as_str().len() == 16 && first.as_str().bytes().all(is_upper_hex));
    }
}
