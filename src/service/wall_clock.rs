//! EDGE: the system's wall clock, its time zone, and whether it is synchronized.

use crate::access::schedule::Reading;
use jiff::{Timestamp, tz::TimeZone};
use std::ffi::OsStr;
use std::path::Path;

/// File by which systemd-timesyncd marks that it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

/// Link to the system's time zone, or a copy of its file.
const LOCALTIME: &str = "/etc/localtime";
/// Folder of the time zones that the system knows.
const ZONES: &str = "/usr/share/zoneinfo";

/// Reads the wall clock. `follows` marks it as synchronized on the installer's word: a
/// clock with a battery, or another time service than systemd's. A clock whose time zone is
/// unknown counts as not synchronized: its local time may be hours off.
pub fn read(follows: bool) -> Reading {
    let now = Timestamp::now();
    let zone = zone();
    Reading {
        unix: now.as_second(),
        vouched_for: follows && zone.is_ok(),
        synchronized: zone.is_ok() && (follows || Path::new(SYNCHRONIZED).exists()),
        local: zone.map_or(TimeZone::UTC, |(zone, _)| zone).to_datetime(now),
    }
}

/// The system's time zone and its name. Without `TZ` and `/etc/localtime` it is UTC, as for
/// other programs, and the name is `None`.
///
/// # Errors
/// If the zone cannot be found; a clause with zone and cure.
pub fn zone() -> Result<(TimeZone, Option<String>), String> {
    let set = std::env::var_os("TZ");
    match TimeZone::try_system() {
        Ok(zone) => {
            let name = zone.iana_name().map_or_else(
                || set.as_deref().map_or(LOCALTIME.into(), |set| set.to_string_lossy().into()),
                str::to_owned,
            );
            Ok((zone, Some(name)))
        }
        Err(_) => unknown(set.as_deref(), Path::new(LOCALTIME), Path::new(ZONES)),
    }
}

/// Why the time zone is unknown; UTC if none is set.
fn unknown(
    set: Option<&OsStr>,
    localtime: &Path,
    zones: &Path,
) -> Result<(TimeZone, Option<String>), String> {
    let what = match (set, std::fs::read_link(localtime)) {
        (Some(set), _) => format!("TZ={set:?} is no time zone that this system knows"),
        (None, Ok(to)) => format!(
            "{} leads to {}, which is no time zone that this system knows",
            localtime.display(),
            to.display()
        ),
        (None, Err(_)) if localtime.exists() => {
            format!("{} is not the file of a time zone", localtime.display())
        }
        (None, Err(_)) => return Ok((TimeZone::UTC, None)),
    };
    let cure = if zones.is_dir() {
        "timedatectl list-timezones shows those that it knows"
    } else {
        "install the package tzdata"
    };
    Err(format!("{what} ({cure})"))
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

    #[test]
    fn an_unknown_zone_is_named_with_the_cure_and_none_is_utc() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (link, zones) = (folder.path().join("localtime"), folder.path().join("zones"));
        assert_eq!(unknown(None, &link, &zones), Ok((TimeZone::UTC, None)));
        let told = unknown(Some(OsStr::new("Europe/Berln")), &link, &zones).expect_err("unknown");
        assert!(told.starts_with("TZ=\"Europe/Berln\" is no time zone"), "{told}");
        assert!(told.ends_with("(install the package tzdata)"), "{told}");
        std::fs::create_dir(&zones).expect("a folder");
        std::os::unix::fs::symlink("/usr/share/zoneinfo/Europe/Berln", &link).expect("a link");
        let told = unknown(None, &link, &zones).expect_err("unknown");
        assert!(told.contains("leads to /usr/share/zoneinfo/Europe/Berln, which"), "{told}");
        assert!(told.contains("timedatectl list-timezones"), "{told}");
        std::fs::remove_file(&link).expect("removed");
        std::fs::write(&link, "no zone").expect("written");
        let told = unknown(None, &link, &zones).expect_err("unknown");
        assert!(told.contains("is not the file of a time zone"), "{told}");
    }
}
