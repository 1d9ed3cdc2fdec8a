//! EDGE: the system's wall clock, its time zone, and whether it is synchronized.

use crate::access::schedule::Reading;
use jiff::{Timestamp, tz::TimeZone};
use std::path::Path;

/// File by which systemd-timesyncd marks that it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

/// Reads the wall clock. `follows` marks it as synchronized on the installer's word: a
/// clock with a battery, or another time service than systemd's.
pub fn read(follows: bool) -> Reading {
    let now = Timestamp::now();
    Reading {
        unix: now.as_second(),
        local: TimeZone::system().to_datetime(now),
        synchronized: follows || Path::new(SYNCHRONIZED).exists(),
        vouched_for: follows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_local_time_lies_within_a_day_of_utc() {
        let reading = read(true);
        assert!(reading.synchronized && reading.unix > 1_700_000_000);
        let utc = Timestamp::from_second(reading.unix).expect("a time");
        let apart = TimeZone::UTC.to_datetime(utc).duration_until(reading.local);
        assert!(apart.unsigned_abs() < Duration::from_secs(86_400), "{}", reading.local);
    }
}
