//! The two date forms of a signed request, and the one of error documents.
//!
//! Owns: reading `20130524T000000Z` and `Fri, 24 May 2013 00:00:00 GMT`, writing the first and
//! `2013-05-24T00:00:00Z`. Knows nothing of: clocks, time zones other than UTC, leap seconds.
//!
//! Sources: AWS, "Authenticating Requests (AWS Signature Version 4)"; RFC 9110 §5.6.7
//! (IMF-fixdate).

use kluis_kms::Civil;

/// A time in whole seconds, between the years 1970 and 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AmzDate {
    unix_s: u64,
}

/// 9999-12-31T23:59:59Z; the forms have four digits for the year.
const UNIX_S_MAX: u64 = 253_402_300_799;
const DAY_S: u64 = 86_400;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl AmzDate {
    /// The time `now_ms` milliseconds after the epoch, rounded down.
    pub(crate) fn from_unix_ms(now_ms: u64) -> Self {
        Self { unix_s: (now_ms / 1_000).min(UNIX_S_MAX) }
    }

    /// Reads either form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::parse_basic(text).or_else(|| Self::parse_http(text))
    }

    /// Reads `20130524T000000Z`, the only form that a presigned URL may use.
    pub(crate) fn parse_basic(text: &str) -> Option<Self> {
        let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
        let (day, rest) = bytes.split_at_checked(8)?;
        let (letter_t, rest) = rest.split_first()?;
        let (time, letter_z) = rest.split_at_checked(6)?;
        if *letter_t != b'T' || letter_z != b"Z" {
            return None;
        }
        Self::from_parts(parse_day(day)?, time)
    }

    /// Reads `Fri, 24 May 2013 00:00:00 GMT`. The day of the week is not checked.
    fn parse_http(text: &str) -> Option<Self> {
        let (_weekday, rest) = text.split_once(", ")?;
        let mut words = rest.split(' ');
        let day = number(words.next()?.as_bytes())?;
        let month_name = words.next()?;
        let month = MONTHS.iter().zip(1..).find(|(name, _)| **name == month_name)?.1;
        let year = number(words.next()?.as_bytes())?;
        let time: String = words.next()?.split(':').collect();
        let ends = words.next() == Some("GMT") && words.next().is_none();
        if !ends {
            return None;
        }
        Self::from_parts(Civil { year, month, day }, time.as_bytes())
    }

    fn from_parts(civil: Civil, time: &[u8]) -> Option<Self> {
        let time: &[u8; 6] = time.try_into().ok()?;
        let hour = number(time.get(0..2)?)?;
        let minute = number(time.get(2..4)?)?;
        let second = number(time.get(4..6)?)?;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let unix_s = civil.to_days()? * DAY_S + hour * 3_600 + minute * 60 + second;
        Some(Self { unix_s })
    }

    /// Milliseconds since the epoch.
    pub(crate) fn unix_ms(self) -> u64 {
        self.unix_s * 1_000
    }

    /// This time and `seconds` more.
    #[must_use]
    pub(crate) fn plus_seconds(self, seconds: u64) -> Self {
        Self { unix_s: self.unix_s.saturating_add(seconds).min(UNIX_S_MAX) }
    }

    /// `20130524`, the day of a credential's scope.
    pub(crate) fn day(self) -> String {
        let civil = Civil::from_days(self.unix_s / DAY_S);
        format!("{:04}{:02}{:02}", civil.year, civil.month, civil.day)
    }

    /// `20130524T000000Z`, as the string to sign has it.
    pub(crate) fn basic(self) -> String {
        let (hour, minute, second) = self.time();
        format!("{}T{hour:02}{minute:02}{second:02}Z", self.day())
    }

    /// `2013-05-24T00:00:00Z`, as error documents have it.
    pub(crate) fn extended(self) -> String {
        let civil = Civil::from_days(self.unix_s / DAY_S);
        let (hour, minute, second) = self.time();
        format!(
            "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
            civil.year, civil.month, civil.day
        )
    }

    fn time(self) -> (u64, u64, u64) {
        let second_of_day = self.unix_s % DAY_S;
        (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60)
    }
}

/// Whether `text` is a day as a credential's scope has it, `20130524`.
pub(crate) fn is_day(text: &str) -> bool {
    parse_day(text.as_bytes()).is_some_and(|civil| civil.to_days().is_some())
}

fn parse_day(text: &[u8]) -> Option<Civil> {
    let digits: &[u8; 8] = text.try_into().ok()?;
    Some(Civil {
        year: number(digits.get(0..4)?)?,
        month: number(digits.get(4..6)?)?,
        day: number(digits.get(6..8)?)?,
    })
}

#[cfg(test)]
mod tests;
