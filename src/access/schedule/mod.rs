//! Schedules: when each group may come in, and when the door stands open. They are pure
//! functions of the local time and the configuration.
//!
//! A span like "mon-fri 07:00-19:00" begins on each of its days. If its end is not after
//! its beginning, it ends on the next day. On a holiday only the holiday spans begin, but
//! a span from the day before runs to its end.

mod clock_trust;

pub use clock_trust::{Clock, KnownTime, Reading, TrustNote, WallClock};

use jiff::civil::{Date, DateTime, Weekday};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Group of people who were put in no other group.
pub const DEFAULT_GROUP: &str = "staff";

const MINUTES_A_DAY: u16 = 24 * 60;
/// [`Span::days`] with all seven days.
const EVERY_DAY: u8 = 0x7f;
/// Names of the weekdays in configuration files, in the order of the bits of
/// [`Span::days`].
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Whether and why a schedule admits a person now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Admission {
    /// Admitted: their group may come in at any time, or no groups are configured.
    Always,
    /// Admitted: within the hours of their group.
    WithinHours,
    /// Refused: outside the hours of their group.
    OutsideHours,
    /// Admitted: the clock is not trusted and their group has [`ClockUnsure::Admit`].
    ClockUnsureAdmitted,
    /// Refused: the clock is not trusted and their group has [`ClockUnsure::Refuse`].
    ClockUnsureRefused,
    /// Refused: the configuration does not have their group.
    UnknownGroup,
    /// Refused: the person may not come in yet.
    NotYet,
    /// Refused: the person may not come in any more.
    NoLonger,
    /// Refused: the site's rules may be out of date.
    SiteUnheard,
}

impl Admission {
    /// Whether the person is admitted.
    pub fn admitted(self) -> bool {
        match self {
            Self::Always | Self::WithinHours | Self::ClockUnsureAdmitted => true,
            Self::OutsideHours
            | Self::ClockUnsureRefused
            | Self::UnknownGroup
            | Self::NotYet
            | Self::NoLonger
            | Self::SiteUnheard => false,
        }
    }

    /// Reason in words, for logs and reports.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Always => "at any time",
            Self::WithinHours => "within the hours of the group",
            Self::OutsideHours => "outside the hours of the group",
            Self::ClockUnsureAdmitted => {
                "the clock cannot be trusted, and the group's rule is admit"
            }
            Self::ClockUnsureRefused => {
                "the clock cannot be trusted, and the group's rule is refuse"
            }
            Self::UnknownGroup => "the configuration has no such group",
            Self::NotYet => "the person may come in later",
            Self::NoLonger => "the person's time is over",
            Self::SiteUnheard => {
                "the door has not heard from its site for too long; see facelatch site show"
            }
        }
    }
}

/// Whether to admit people of a group with hours while the clock is not trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockUnsure {
    /// Admit nobody of the group.
    #[default]
    Refuse,
    /// Admit everybody of the group.
    Admit,
}

/// A span of time on some days of the week: "mon-fri 07:00-19:00", "sat,sun 09:00-13:00",
/// "fri 22:00-06:00". Without days, as in "00:00-24:00", it applies to every day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// One bit per weekday; Monday is the lowest.
    days: u8,
    /// Beginning in minutes since midnight, 0..=1439.
    from: u16,
    /// End in minutes since midnight, 0..=1440; this minute is outside the span. A value
    /// of at most `from` is on the next day.
    to: u16,
}

impl Span {
    /// Length in minutes, 1 to 1440, and whether it ends on the next day.
    pub fn length(self) -> (u16, bool) {
        let next_day = self.to <= self.from;
        (if next_day { MINUTES_A_DAY - self.from + self.to } else { self.to - self.from }, next_day)
    }

    /// Whether the span begins on this day of the week.
    fn begins_on(self, day: Weekday) -> bool {
        self.days & (1 << day.to_monday_zero_offset()) != 0
    }
}

impl FromStr for Span {
    type Err = String;

    /// Parses the forms of [`Span`]. The error shows the expected form.
    fn from_str(text: &str) -> Result<Self, String> {
        let fault =
            || format!("{text:?} is not a time span; write it like \"mon-fri 07:00-19:00\"");
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, hours) = match words[..] {
            [hours] => (EVERY_DAY, hours),
            [days, hours] => (parse_days(days).ok_or_else(fault)?, hours),
            _ => return Err(fault()),
        };
        let (from, to) = hours.split_once('-').ok_or_else(fault)?;
        let from = parse_minute(from).filter(|from| *from < MINUTES_A_DAY).ok_or_else(fault)?;
        let to = parse_minute(to).ok_or_else(fault)?;
        Ok(Self { days, from, to })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Writes the form that is parsed. Consecutive days of a week become "mon-fri".
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != EVERY_DAY {
            let mut next = 0;
            let mut comma = "";
            while let Some(from) = (next..7).find(|day| self.days & (1 << day) != 0) {
                let run = (from..7).take_while(|day| self.days & (1 << day) != 0).count();
                let to = from + run - 1;
                write!(f, "{comma}{}", WEEKDAYS[from])?;
                if run > 1 {
                    write!(f, "-{}", WEEKDAYS[to])?;
                }
                (next, comma) = (to + 1, ",");
            }
            f.write_str(" ")?;
        }
        let minute = |minute: u16| (minute / 60, minute % 60);
        let ((hour, minute), (to_hour, to_minute)) = (minute(self.from), minute(self.to));
        write!(f, "{hour:02}:{minute:02}-{to_hour:02}:{to_minute:02}")
    }
}

/// Parses "mon", "mon-fri", "fri-mon", or several of these with commas, to
/// [`Span::days`].
fn parse_days(text: &str) -> Option<u8> {
    let day = |name: &str| WEEKDAYS.iter().position(|known| *known == name);
    let mut days = 0;
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (day(from)?, day(to)?);
        let count = (to + 7 - from) % 7;
        for day in 0..=count {
            days |= 1 << ((from + day) % 7);
        }
    }
    Some(days)
}

/// Parses "07:00" to minutes since midnight; the last time is "24:00".
fn parse_minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= MINUTES_A_DAY).then_some(total)
}

/// A holiday: "2026-12-24", or "12-25" for every year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holiday {
    /// With `every_year` the day in [`LEAP_YEAR`].
    date: Date,
    every_year: bool,
}

/// A leap year, so that 29 February is a day of it.
const LEAP_YEAR: i16 = 2024;

impl Holiday {
    /// Whether this day is the holiday.
    fn is_on(self, date: Date) -> bool {
        let day = |date: Date| (date.month(), date.day());
        if self.every_year { day(self.date) == day(date) } else { self.date == date }
    }
}

impl FromStr for Holiday {
    type Err = String;

    /// Parses "2026-12-24" or "12-25". The error shows the expected form.
    fn from_str(text: &str) -> Result<Self, String> {
        let every_year = text.len() == "12-25".len();
        let written = if every_year { format!("{LEAP_YEAR}-{text}") } else { text.to_owned() };
        // The parser knows more forms than this one.
        let plain = |date: &Date| date.year() > 0 && date.to_string() == written;
        match written.parse().ok().filter(plain) {
            Some(date) => Ok(Self { date, every_year }),
            None => Err(format!(
                "{text:?} is not a date; use \"2026-12-24\", or \"12-25\" for every year"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Holiday {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Holiday {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Holiday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = if self.every_year { "%m-%d" } else { "%Y-%m-%d" };
        write!(f, "{}", self.date.strftime(form))
    }
}

/// Hours of a group, or open hours of the door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    /// Spans that begin on days other than holidays.
    pub weekly: Vec<Span>,
    /// Spans that begin on holidays. Weekdays named in them are ignored.
    pub on_holidays: Vec<Span>,
}

/// A group of people: `[groups.NAME]` in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// When its people may come in; `None` means at any time.
    pub hours: Option<Hours>,
    /// Rule while the clock is not trusted; needed only with `hours`.
    pub clock_unsure: ClockUnsure,
}

/// The schedule of a door: its groups, holidays and open hours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Groups by name. Without any, everybody may come in at any time.
    pub groups: BTreeMap<String, Group>,
    /// Days on which [`Hours::on_holidays`] applies instead of [`Hours::weekly`].
    pub holidays: Vec<Holiday>,
    /// Hours during which the door stands open.
    pub open: Hours,
}

impl Schedule {
    /// Whether any group or the open hours depend on the time.
    pub fn needs_clock(&self) -> bool {
        self.has_open_hours() || self.groups.values().any(|group| group.hours.is_some())
    }

    fn has_open_hours(&self) -> bool {
        !(self.open.weekly.is_empty() && self.open.on_holidays.is_empty())
    }

    /// Whether a person of this group is admitted at the time of `clock`.
    pub fn admits(&self, group: &str, clock: Clock) -> Admission {
        if self.groups.is_empty() {
            return Admission::Always;
        }
        let Some(group) = self.groups.get(group) else { return Admission::UnknownGroup };
        let Some(hours) = &group.hours else { return Admission::Always };
        match (clock, group.clock_unsure) {
            (Clock::Trusted(now), _) if self.within(hours, now) => Admission::WithinHours,
            (Clock::Trusted(_), _) => Admission::OutsideHours,
            (Clock::Unsure, ClockUnsure::Refuse) => Admission::ClockUnsureRefused,
            (Clock::Unsure, ClockUnsure::Admit) => Admission::ClockUnsureAdmitted,
        }
    }

    /// Whether a person may come in at all at this moment, Unix seconds; `None` while the
    /// clock is not trusted: then the rule of their group holds. `from` is the first moment,
    /// `until` the first one that is too late. `None` if nothing speaks against it.
    pub fn outside_dates(
        &self,
        group: &str,
        (from, until): (Option<i64>, Option<i64>),
        unix: Option<i64>,
    ) -> Option<Admission> {
        if from.is_none() && until.is_none() {
            return None;
        }
        let Some(unix) = unix else {
            let rule = self.groups.get(group).map(|group| group.clock_unsure);
            let admits = rule == Some(ClockUnsure::Admit);
            return (!admits).then_some(Admission::ClockUnsureRefused);
        };
        if from.is_some_and(|from| unix < from) {
            Some(Admission::NotYet)
        } else if until.is_some_and(|until| unix >= until) {
            Some(Admission::NoLonger)
        } else {
            None
        }
    }

    /// Whether the door stands open at the time of `clock`; never while the clock is not
    /// trusted.
    pub fn open_now(&self, clock: Clock) -> bool {
        match clock {
            Clock::Trusted(now) => self.within(&self.open, now),
            Clock::Unsure => false,
        }
    }

    fn within(&self, hours: &Hours, now: DateTime) -> bool {
        let minute = 60 * now.hour() as u16 + now.minute() as u16;
        let begun = self
            .beginning_on(hours, now.date())
            .any(|span| minute >= span.from && (span.to <= span.from || minute < span.to));
        let going_on = |yesterday: Date| {
            self.beginning_on(hours, yesterday).any(|span| span.to <= span.from && minute < span.to)
        };
        begun || now.date().yesterday().is_ok_and(going_on)
    }

    fn beginning_on<'s>(&self, hours: &'s Hours, date: Date) -> impl Iterator<Item = &'s Span> {
        let holiday = self.holidays.iter().any(|holiday| holiday.is_on(date));
        let spans = if holiday { &hours.on_holidays } else { &hours.weekly };
        spans.iter().filter(move |span| holiday || span.begins_on(date.weekday()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan;
    use jiff::civil::date;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime {
        text.parse().expect("a local time")
    }

    fn spans(spans: &[&str]) -> Vec<Span> {
        spans.iter().map(|span| span.parse().expect("a span")).collect()
    }

    fn group(weekly: &[&str], on_holidays: &[&str], clock_unsure: ClockUnsure) -> Group {
        let hours = Some(Hours { weekly: spans(weekly), on_holidays: spans(on_holidays) });
        Group { hours, clock_unsure }
    }

    fn schedule(groups: &[(&str, Group)]) -> Schedule {
        Schedule {
            groups: groups
                .iter()
                .map(|(name, group)| ((*name).to_owned(), group.clone()))
                .collect(),
            holidays: vec!["12-25".parse().expect("a day"), "2026-11-26".parse().expect("a day")],
            open: Hours { weekly: spans(&["mon-fri 09:00-17:00"]), on_holidays: vec![] },
        }
    }

    #[test]
    fn dates_hold_from_their_first_moment_to_their_last() {
        let unsure = |rule| schedule(&[("staff", group(&["00:00-24:00"], &[], rule))]);
        let (strict, lenient) = (unsure(ClockUnsure::Refuse), unsure(ClockUnsure::Admit));
        for (dates, unix, expected) in [
            ((None, None), Some(5), None),
            ((None, None), None, None),
            ((Some(10), None), Some(9), Some(Admission::NotYet)),
            ((Some(10), None), Some(10), None),
            ((None, Some(20)), Some(19), None),
            ((None, Some(20)), Some(20), Some(Admission::NoLonger)),
            ((Some(10), Some(20)), Some(15), None),
            ((Some(20), Some(10)), Some(15), Some(Admission::NotYet)),
            ((Some(10), None), None, Some(Admission::ClockUnsureRefused)),
        ] {
            assert_eq!(strict.outside_dates("staff", dates, unix), expected, "{dates:?} {unix:?}");
        }
        assert_eq!(lenient.outside_dates("staff", (Some(10), None), None), None);
        let unknown = lenient.outside_dates("guests", (Some(10), None), None);
        assert_eq!(unknown, Some(Admission::ClockUnsureRefused));
    }

    #[test]
    fn a_group_comes_in_within_its_hours() {
        let schedule = schedule(&[
            ("staff", group(&["mon-fri 07:00-19:00", "sat 09:00-13:00"], &[], ClockUnsure::Refuse)),
            ("night", group(&["fri 22:00-06:00"], &["20:00-24:00"], ClockUnsure::Admit)),
            ("owner", Group { hours: None, clock_unsure: ClockUnsure::Refuse }),
        ]);
        // 2026-11-25 is a Wednesday, the day after a holiday, 12-25 a Friday.
        for (group, time, expected) in [
            ("staff", "2026-11-25 06:59", Admission::OutsideHours),
            ("staff", "2026-11-25 07:00", Admission::WithinHours),
            ("staff", "2026-11-25 18:59", Admission::WithinHours),
            ("staff", "2026-11-25 19:00", Admission::OutsideHours),
            ("staff", "2026-11-26 10:00", Admission::OutsideHours),
            ("staff", "2026-11-27 10:00", Admission::WithinHours),
            ("staff", "2026-11-28 10:00", Admission::WithinHours),
            ("staff", "2026-11-28 14:00", Admission::OutsideHours),
            ("staff", "2026-11-29 10:00", Admission::OutsideHours),
            ("night", "2026-11-27 21:59", Admission::OutsideHours),
            ("night", "2026-11-27 22:00", Admission::WithinHours),
            ("night", "2026-11-28 05:59", Admission::WithinHours),
            ("night", "2026-11-28 06:00", Admission::OutsideHours),
            ("night", "2026-11-28 23:00", Admission::OutsideHours),
            ("night", "2026-12-25 21:00", Admission::WithinHours),
            ("night", "2026-12-26 01:00", Admission::OutsideHours),
            ("owner", "2026-12-25 03:00", Admission::Always),
            ("guest", "2026-11-25 12:00", Admission::UnknownGroup),
        ] {
            let said = schedule.admits(group, Clock::Trusted(at(time)));
            assert_eq!(said, expected, "{group} at {time}");
        }
    }

    #[test]
    fn without_a_trusted_clock_the_rule_of_the_group_holds() {
        let schedule = schedule(&[
            ("staff", group(&["00:00-24:00"], &["00:00-24:00"], ClockUnsure::Refuse)),
            ("fire", group(&["mon 08:00-09:00"], &[], ClockUnsure::Admit)),
            ("owner", Group { hours: None, clock_unsure: ClockUnsure::Refuse }),
        ]);
        let said = |group: &str| schedule.admits(group, Clock::Unsure);
        assert_eq!(said("staff"), Admission::ClockUnsureRefused);
        assert_eq!(said("fire"), Admission::ClockUnsureAdmitted);
        assert_eq!(said("owner"), Admission::Always);
        assert!(!schedule.open_now(Clock::Unsure));
    }

    #[test]
    fn without_groups_everybody_comes_in_at_any_time() {
        let none = Schedule::default();
        assert_eq!(none.admits("anything", Clock::Unsure), Admission::Always);
        assert!(!none.needs_clock() && !none.open_now(Clock::Trusted(at("2026-11-25 12:00"))));
    }

    #[test]
    fn the_door_stands_open_in_its_hours() {
        let schedule = schedule(&[]);
        assert!(schedule.needs_clock());
        for (time, open) in [
            ("2026-11-25 08:59", false),
            ("2026-11-25 09:00", true),
            ("2026-11-25 17:00", false),
            ("2026-11-26 12:00", false),
            ("2026-11-28 12:00", false),
        ] {
            assert_eq!(schedule.open_now(Clock::Trusted(at(time))), open, "{time}");
        }
    }

    #[test]
    fn invalid_spans_and_days_are_named() {
        for text in [
            "",
            "mon",
            "07:00",
            "mon 07:00",
            "mon 7:00-8:00",
            "mon 07:00-24:01",
            "mon 24:00-07:00",
            "mon 07:60-08:00",
            "mun 07:00-08:00",
            "mon- 07:00-08:00",
            "mon 07:00-08:00 x",
            "mon,,tue 07:00-08:00",
            "mon +7:00-08:00",
        ] {
            let message = text.parse::<Span>().expect_err(text);
            assert!(message.contains("mon-fri 07:00-19:00"), "{message}");
        }
        for text in [
            "",
            "13-01",
            "02-30",
            "2026-02-29",
            "12/25",
            "2026-12",
            "1-1",
            "+1-01",
            "20261224",
            "2026-12-24T10",
            "0000-12-24",
            "2026-W52-4",
            "2026-12-24 ",
            "26-12-24",
        ] {
            let message = text.parse::<Holiday>().expect_err(text);
            assert!(message.contains("12-25"), "{message}");
        }
        let leap: Holiday = "02-29".parse().expect("a day of leap years");
        assert!(leap.is_on(date(2028, 2, 29)) && !leap.is_on(date(2027, 3, 1)));
        let once: Holiday = "2026-12-24".parse().expect("a day");
        assert!(once.is_on(date(2026, 12, 24)) && !once.is_on(date(2027, 12, 24)));
    }

    #[test]
    fn days_in_a_row_are_written_as_one() {
        for (text, written) in [
            ("00:00-24:00", "00:00-24:00"),
            ("mon-sun 07:00-19:00", "07:00-19:00"),
            ("mon,tue,wed 07:05-19:00", "mon-wed 07:05-19:00"),
            ("fri-mon 22:00-06:00", "mon,fri-sun 22:00-06:00"),
        ] {
            assert_eq!(text.parse::<Span>().expect(text).to_string(), written);
        }
    }

    proptest! {
        #[test]
        fn spans_and_holidays_read_back_as_themselves(
            days in 1u8..128, from in 0u16..1440, to in 0u16..=1440,
            day in 0i32..40_000, every_year: bool,
        ) {
            let span = Span { days, from, to };
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
            let written = (date(1970, 1, 1) + day.days()).to_string();
            let written = if every_year { &written[5..] } else { &written };
            let holiday: Holiday = written.parse().expect("a day");
            prop_assert_eq!(holiday.to_string(), written);
        }

        /// Compares with the definition: a span that began today or yesterday and lasts its
        /// length from its beginning.
        #[test]
        fn a_span_holds_for_its_length_from_its_beginning(
            day in 0i32..2000, minute in 0u16..1440, days in 1u8..128,
            from in 0u16..1440, to in 0u16..=1440,
        ) {
            let span = Span { days, from, to };
            let today = date(2024, 10, 4) + day.days();
            let length = if to > from { to - from } else { to + 1440 - from };
            let mut expected = false;
            for back in 0..2 {
                let begun = (today - back.days()).weekday().to_monday_zero_offset();
                let since = i32::from(minute) + 1440 * back - i32::from(from);
                expected |= days & (1 << begun) != 0
                    && (0..i32::from(length)).contains(&since);
            }
            let schedule = Schedule {
                open: Hours { weekly: vec![span], on_holidays: vec![] },
                ..Schedule::default()
            };
            let now = today.at((minute / 60) as i8, (minute % 60) as i8, 0, 0);
            prop_assert_eq!(schedule.open_now(Clock::Trusted(now)), expected);
        }
    }
}
