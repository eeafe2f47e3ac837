//! The UTC calendar, in integers: budgets run by its weeks and months, and prices begin on its days.
//!
//! Deliberately lacks time zones and leap seconds: every replica must agree, and finance closes its
//! books on one calendar for all offices.

/// Microseconds in a day.
pub const DAY_US: u64 = 24 * super::HOUR_US;
/// The last moment that is told as a date: the end of the year 9999.
const LAST_DAY: u64 = 2_932_896;

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// From 1970.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
}

impl Date {
    /// The day in which a moment lies, in microseconds since 1970 in UTC; at most the last of 9999.
    ///
    /// The arithmetic is Howard Hinnant's `civil_from_days` ("chrono-Compatible Low-Level Date
    /// Algorithms", 2021), for days from 1970 on.
    pub fn of(at_us: u64) -> Self {
        // Years begin in March, so that the leap day is the last of its year.
        let days = (at_us / DAY_US).min(LAST_DAY) + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
        }
    }

    /// When its day begins, in microseconds since 1970; the inverse of [`Self::of`].
    pub fn start_us(self) -> u64 {
        let year = self.year - u64::from(self.month <= 2);
        let year_of_era = year % 400;
        let shifted = (self.month + 9) % 12;
        let day_of_year = (153 * shifted + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (year / 400 * 146_097 + day_of_era).saturating_sub(719_468) * DAY_US
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A moment as people write it: `2027-01-01 08:30 UTC`, the time left out at midnight.
pub fn utc_text(at_us: u64) -> String {
    let date = Date::of(at_us);
    let minutes = at_us % DAY_US / 60_000_000;
    if at_us.is_multiple_of(DAY_US) {
        format!("{date} UTC")
    } else {
        format!("{date} {:02}:{:02} UTC", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_until_2400_follows_the_one_before_and_leads_back_to_its_moment() {
        let mut before = Date {
            year: 1969,
            month: 12,
            day: 31,
        };
        for day in 0..157_000_u64 {
            let date = Date::of(day * DAY_US + 17);
            assert_eq!(date.start_us(), day * DAY_US, "{date}");
            let next = date.day == before.day + 1 && date.month == before.month;
            let turned = date.day == 1
                && before.day >= 28
                && (date.month == before.month + 1 || date.month == 1 && before.month == 12);
            assert!(date > before && (next || turned), "{date} after {before}");
            before = date;
        }
    }

    #[test]
    fn moments_are_told_as_the_calendar_has_them() {
        for (at_us, text) in [
            (0, "1970-01-01 UTC"),
            (951_782_400_000_000, "2000-02-29 UTC"),
            (1_798_761_600_000_000, "2027-01-01 UTC"),
            (1_798_792_259_999_999, "2027-01-01 08:30 UTC"),
        ] {
            assert_eq!(utc_text(at_us), text);
        }
        assert_eq!(Date::of(u64::MAX).to_string(), "9999-12-31", "no overflow");
    }
}
