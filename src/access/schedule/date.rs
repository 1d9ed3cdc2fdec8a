//! Calendar dates and local times to the minute, without a time zone.

use std::fmt;
use std::str::FromStr;

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weekday {
    /// Day 0.
    Monday,
    /// Day 1.
    Tuesday,
    /// Day 2.
    Wednesday,
    /// Day 3.
    Thursday,
    /// Day 4.
    Friday,
    /// Day 5.
    Saturday,
    /// Day 6.
    Sunday,
}

impl Weekday {
    const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    /// Number of days since Monday, 0..=6.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Names in configuration files, Monday first.
    pub(super) const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

    /// Parses "mon" to "sun"; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().position(|name| *name == text).map(|at| Self::ALL[at])
    }
}

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Days since 1970-01-01.
    days: i32,
}

impl Date {
    /// The date `days` days after 1970-01-01; before it if negative.
    pub fn from_days(days: i32) -> Self {
        Self { days }
    }

    /// The date, or `None` if it does not exist or its year is not in 1..=9999. `month` and
    /// `day` count from 1.
    pub fn new(year: i32, month: u8, day: u8) -> Option<Self> {
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in
        // March, so that the leap day is the last day of the year.
        let march = i32::from(month) - 3;
        let (year_of, month_of) = if march < 0 { (year - 1, march + 12) } else { (year, march) };
        let day_of_year = (153 * month_of + 2) / 5 + i32::from(day) - 1;
        let (era, of_era) = (year_of.div_euclid(400), year_of.rem_euclid(400));
        let date = Self {
            days: era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468,
        };
        // A day past the end of its month has become a day of the next month.
        (date.month() == month).then_some(date)
    }

    /// Year, month and day: the inverse of [`Date::new`], from the same source.
    fn civil(self) -> (i32, u8, u8) {
        let days = self.days.saturating_add(719_468);
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        (year_of_era + era * 400 + later, month as u8, day as u8)
    }

    /// Year of the Gregorian calendar.
    pub fn year(self) -> i32 {
        self.civil().0
    }

    /// Month, 1..=12.
    pub fn month(self) -> u8 {
        self.civil().1
    }

    /// Day of the month, 1..=31.
    pub fn day(self) -> u8 {
        self.civil().2
    }

    /// The day of the week.
    pub fn weekday(self) -> Weekday {
        // 1970-01-01 was a Thursday.
        Weekday::ALL[self.days.saturating_add(3).rem_euclid(7) as usize]
    }

    /// The day before.
    pub fn yesterday(self) -> Self {
        Self { days: self.days.saturating_sub(1) }
    }
}

impl FromStr for Date {
    type Err = String;

    /// Parses "YYYY-MM-DD", like "2026-12-24".
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is not a date; use YYYY-MM-DD, like \"2026-12-24\"");
        let digits = |text: &str, count: usize| {
            let plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse::<u16>().ok()).flatten()
        };
        let parts: Vec<&str> = text.split('-').collect();
        let &[year, month, day] = &parts[..] else { return Err(fault()) };
        let year = digits(year, 4).ok_or_else(fault)?;
        let (month, day) = (digits(month, 2).ok_or_else(fault)?, digits(day, 2).ok_or_else(fault)?);
        // Two digits fit into a byte.
        Self::new(i32::from(year), month as u8, day as u8).ok_or_else(fault)
    }
}

/// A local time to the minute, as a wall clock shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime {
    date: Date,
    minute: u16,
}

impl LocalTime {
    /// A time `minute` minutes after midnight; `None` if that is 1440 or more.
    pub fn new(date: Date, minute: u16) -> Option<Self> {
        (minute < 1440).then_some(Self { date, minute })
    }

    /// The date.
    pub fn date(self) -> Date {
        self.date
    }

    /// Minutes since midnight, 0..=1439.
    pub fn minute(self) -> u16 {
        self.minute
    }
}

impl FromStr for LocalTime {
    type Err = String;

    /// Parses "YYYY-MM-DD HH:MM", like "2026-11-25 07:30".
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!("{text:?} is not a local time; use YYYY-MM-DD HH:MM, like \"2026-11-25 07:30\"")
        };
        let (date, time) = text.split_once(' ').ok_or_else(fault)?;
        let minute = super::parse_minute(time).ok_or_else(fault)?;
        Self::new(date.parse()?, minute).ok_or_else(fault)
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date.civil();
        let (hour, minute) = (self.minute / 60, self.minute % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut date = Date::new(1900, 1, 1).expect("a day");
        assert_eq!(date.weekday(), Weekday::Monday);
        let mut count = 0;
        for year in 1900..2300 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let months = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, days) in (1u8..).zip(months) {
                for day in 1..=days {
                    assert_eq!(Date::new(year, month, day), Some(date));
                    assert_eq!((date.year(), date.month(), date.day()), (year, month, day));
                    assert_eq!(i32::from(date.weekday().number()), count % 7);
                    count += 1;
                    let next = Date::from_days(date.days + 1);
                    assert_eq!(next.yesterday(), date);
                    date = next;
                }
                assert_eq!(Date::new(year, month, days + 1), None, "{year}-{month}");
            }
        }
        assert_eq!(Date::new(1970, 1, 1), Some(Date::from_days(0)));
    }

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for text in ["2026-11-25 00:00", "2024-02-29 23:59"] {
            assert_eq!(text.parse::<LocalTime>().expect("a time").to_string(), text);
        }
        for text in ["2026-11-25", "2026-11-25 24:00", "2026-11-31 10:00", "26-11-25 10:00", ""] {
            assert!(text.parse::<LocalTime>().is_err(), "{text}");
        }
    }
}
