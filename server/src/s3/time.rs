//! Times as S3 writes them.
//!
//! Owns: Unix milliseconds to and from HTTP dates and XML timestamps. Knows nothing of: clocks.
//!
//! Invariants
//! - Every time goes out in whole seconds, as from AWS, so that a listing and a HEAD agree.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use s3s::dto::{Timestamp, TimestampFormat};

/// The last second of the year 9999, the last year that HTTP dates can name. A later time can only
/// come from a damaged row.
const LAST_SECOND: u64 = 253_402_300_799;

/// The timestamp of an XML document.
pub(super) fn timestamp(unix_ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_secs((unix_ms / 1_000).min(LAST_SECOND)))
}

/// The value of a `Last-Modified` header, if the time can be written as one.
pub(super) fn http_date(unix_ms: u64) -> Option<HeaderValue> {
    let mut text = Vec::with_capacity(29);
    timestamp(unix_ms).format(TimestampFormat::HttpDate, &mut text).ok()?;
    HeaderValue::from_bytes(&text).ok()
}

/// Reads an HTTP date; one that is not is no date (RFC 9110 §13.1.3: the condition is ignored).
pub(super) fn parse_http_date(text: &str) -> Option<u64> {
    unix_ms(&Timestamp::parse(TimestampFormat::HttpDate, text.trim()).ok()?)
}

/// Unix milliseconds of a timestamp; times before 1970 are 1970.
pub(super) fn unix_ms(time: &Timestamp) -> Option<u64> {
    let mut text = Vec::with_capacity(24);
    time.format(TimestampFormat::EpochSeconds, &mut text).ok()?;
    let text = String::from_utf8(text).ok()?;
    if text.starts_with('-') {
        return Some(0);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    let seconds: u64 = seconds.parse().ok()?;
    seconds.checked_mul(1_000)?.checked_add(millis.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip_in_whole_seconds() {
        let date = http_date(1_445_412_480_999).unwrap();
        assert_eq!(date, "Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480_000));
        assert_eq!(http_date(0).unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "yesterday", "2015-10-21T07:28:00Z", "Wed, 32 Oct 2015 07:28:00 GMT"] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn fractions_are_kept_when_reading() {
        let time = Timestamp::parse(TimestampFormat::DateTime, "2015-10-21T07:28:00.250Z").unwrap();
        assert_eq!(unix_ms(&time), Some(1_445_412_480_250));
    }
}
