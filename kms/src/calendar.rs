//! Days as people count them, from days since 1970 and back.
//!
//! Owns: the Gregorian calendar, the one time of the program's. Knows nothing of: clocks, time
//! zones,
//! leap seconds, forms of dates.
//!
//! Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.

/// Year, month (1 to 12) and day of the month (1 to 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year, of the Gregorian calendar.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
}

impl Civil {
    /// Days since 1970-01-01, or `None` if there is no such day. The algorithm counts in years that
    /// begin in March, so that the leap day is the last of its year.
    pub fn to_days(self) -> Option<u64> {
        let leap = self.year.is_multiple_of(4)
            && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let month_days = match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => return None,
        };
        if self.year < 1970 || self.year > 9999 || self.day == 0 || self.day > month_days {
            return None;
        }
        let march_year = if self.month <= 2 { self.year - 1 } else { self.year };
        let march_month = (self.month + 9) % 12;
        let day_of_year = (153 * march_month + 2) / 5 + self.day - 1;
        let days = march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400;
        (days + day_of_year).checked_sub(719_468)
    }

    /// The day that is so many days after 1970-01-01.
    pub fn from_days(days: u64) -> Self {
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Self { year, month, day }
    }
}
