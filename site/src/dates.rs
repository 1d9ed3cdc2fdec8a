//! Dates as people write them.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Which end of a span of days a date is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first day; a date is its first moment.
    First,
    /// The last day; a date is the first moment after it.
    Last,
}

/// Seconds since 1970 of a day such as `2026-12-31`, a time of the zone such as
/// `2026-12-31T18:00`, or a time with its own zone such as `2026-12-31T17:00Z`.
///
/// # Errors
/// If the text is none of these; the reason says what is expected.
pub fn moment(text: &str, end: End, zone: &TimeZone) -> Result<i64, String> {
    let fault = || {
        format!(
            "{:?}: expected a day like 2026-12-31, or a time like 2026-12-31T18:00",
            text.chars().take(40).collect::<String>()
        )
    };
    let text = text.trim();
    let local = if text.contains(['T', ' ', ':']) {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(time.as_second());
        }
        text.parse::<DateTime>().map_err(|_| fault())?
    } else {
        let day: Date = text.parse().map_err(|_| fault())?;
        let first = match end {
            End::First => day,
            End::Last => day.checked_add(1.day()).map_err(|_| fault())?,
        };
        first.to_datetime(jiff::civil::Time::midnight())
    };
    let zoned = local.to_zoned(zone.clone()).map_err(|_| fault())?;
    Ok(zoned.timestamp().as_second())
}

/// A moment as people read it, in this zone.
pub fn shown(unix: i64, zone: &TimeZone) -> String {
    match Timestamp::from_second(unix) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => format!("{unix} s after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_last_day_counts_to_its_end() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let read = |text, end| moment(text, end, &zone).expect("a moment");
        let day = read("2026-12-31", End::First);
        assert_eq!(shown(day, &TimeZone::UTC), "2026-12-30 22:00");
        assert_eq!(read("2026-12-31", End::Last), day + 86_400);
        for end in [End::First, End::Last] {
            assert_eq!(read("2026-12-31T18:00", end), day + 18 * 3600);
            assert_eq!(read(" 2026-12-31 18:00 ", end), day + 18 * 3600);
            assert_eq!(read("2026-12-31T16:00Z", end), day + 18 * 3600);
        }
        for text in ["", "tomorrow", "2026-13-01", "31.12.2026", "9999-12-31T25:00", "12:00"] {
            assert!(moment(text, End::Last, &zone).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}", unix in any::<i64>()) {
            let _ = moment(&text, End::Last, &TimeZone::UTC);
            let _ = shown(unix, &TimeZone::UTC);
        }
    }
}
