//! EDGE: the system's wall clock, its time zone, and whether it is synchronized.

use crate::access::schedule::{Date, LocalTime, Reading};
use jiff::{Timestamp, tz::TimeZone};
use std::path::Path;

/// File by which systemd-timesyncd marks that it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

/// Reads the wall clock. `follows` marks it as synchronized on the installer's word: a
/// clock with a battery, or another time service than systemd's. `None` if the date is
/// out of range.
pub fn read(follows: bool) -> Option<Reading> {
    let now = Timestamp::now();
    let unix = now.as_second();
    let local = unix + i64::from(TimeZone::system().to_offset(now).seconds());
    let days = i32::try_from(local.div_euclid(86_400)).ok()?;
    let minute = u16::try_from(local.rem_euclid(86_400) / 60).ok()?;
    let local = LocalTime::new(Date::from_days(days), minute)?;
    Some(Reading { unix, local, synchronized: follows || Path::new(SYNCHRONIZED).exists() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_time_lies_within_a_day_of_utc() {
        let reading = read(true).expect("a time");
        assert!(reading.synchronized && reading.unix > 1_700_000_000);
        let utc = Date::from_days((reading.unix / 86_400) as i32);
        let near = [utc.yesterday(), utc, Date::from_days((reading.unix / 86_400) as i32 + 1)];
        assert!(near.contains(&reading.local.date()), "{}", reading.local);
    }
}
