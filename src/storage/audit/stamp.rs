//! EDGE: the clocks of the system, for the records of the audit log.

use crate::audit::{ClockTrust, Stamp};
use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::time::SystemTime;

/// Number of this boot; zeros if it cannot be read.
fn boot() -> [u8; 16] {
    static BOOT: OnceLock<[u8; 16]> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).map_or([0; 16], u128::to_be_bytes)
    })
}

/// Now. `trusted` says whether the wall clock is trusted.
pub fn stamp(trusted: bool) -> Stamp {
    let since = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(since.tv_sec).unwrap_or(0);
    let micros = u64::try_from(since.tv_nsec).unwrap_or(0) / 1000;
    let wall = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => {
            i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |before| -before)
        }
    };
    let clock = if trusted { ClockTrust::Trusted } else { ClockTrust::Unsure };
    Stamp { boot: boot(), monotonic: seconds * 1_000_000 + micros, wall, clock }
}
