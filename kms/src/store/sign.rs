//! AWS Signature Version 4 for requests that the node sends.
//!
//! Owns: the canonical request, the signing key. Knows nothing of: what is asked, how it is sent.
//!
//! Invariants
//! - Pure: the time comes with the request.
//! - The path is signed as it is sent: callers use unreserved characters and slashes only.
//!   Known answers: AWS's published suite, in `sign/tests.rs`.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::calendar::Civil;
use crate::derive::mac_of;

/// What is signed.
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Lower-case names, sorted.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
    /// `20150830T123600Z`; also among the headers, as `x-amz-date`.
    pub(super) time: &'a str,
}

/// Where a signature counts.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// The value of the `authorization` header.
pub(super) fn authorization(
    signed: &Signed<'_>,
    scope: Scope<'_>,
    (access_key, secret): (&str, &[u8]),
) -> String {
    let names: Vec<&str> = signed.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut canonical = format!("{}\n{}\n\n", signed.method, signed.path);
    for (name, value) in signed.headers {
        for piece in [name, ":", value, "\n"] {
            canonical.push_str(piece);
        }
    }
    for piece in ["\n", &names, "\n", &hex::encode(Sha256::digest(signed.body))] {
        canonical.push_str(piece);
    }
    let date = signed.time.get(..8).unwrap_or_default();
    let place = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let hash = hex::encode(Sha256::digest(canonical));
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{place}\n{hash}", signed.time);
    let mut signing_key = Zeroizing::new(Vec::with_capacity(4 + secret.len()));
    signing_key.extend_from_slice(b"AWS4");
    signing_key.extend_from_slice(secret);
    let mut step = Zeroizing::new(mac_of(&signing_key, date.as_bytes()));
    for part in [scope.region, scope.service, "aws4_request"] {
        *step = mac_of(&*step, part.as_bytes());
    }
    let signature = hex::encode(mac_of(&*step, to_sign.as_bytes()));
    format!(
        "AWS4-HMAC-SHA256 Credential={access_key}/{place}, SignedHeaders={names}, \
         Signature={signature}"
    )
}

/// `20150830T123600Z` of Unix milliseconds.
pub(super) fn time_text(now_ms: u64) -> String {
    let seconds = now_ms / 1_000;
    let Civil { year, month, day } = Civil::from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests;
