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
    let seconds = now_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms": days from 0000-03-01.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests;
