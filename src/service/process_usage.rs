//! EDGE: memory and processor time of this process, from `/proc/self`.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Clock ticks per second in `/proc`: Linux reports 100 on all supported machines.
const TICKS: u64 = 100;
/// Shortest period for measuring the processor share, so that one tick hardly matters.
const SHARE_OVER: Duration = Duration::from_secs(2);

/// Memory and processor time of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Resident memory (RSS) in bytes.
    pub rss: u64,
    /// Processor time of all threads since the start, in seconds.
    pub cpu_s: f64,
    /// Recent share of one core: 0 to the number of cores.
    pub cpu_share: f64,
}

/// Measures the usage of this process.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Time of the last measurement of the share, and the processor time then.
    since: Option<(Duration, Duration)>,
    share: f64,
}

impl Meter {
    /// The current usage. `now` is on a clock that never runs backwards. Values that the
    /// system does not report are 0.
    pub fn measure(&mut self, now: Duration) -> Usage {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
        // Not `statm`, which counts in pages: those of a Pi 5 have 16 kB.
        let rss = read("status").and_then(|text| rss(&text)).unwrap_or(0);
        let cpu = read("stat").and_then(|text| cpu(&text)).unwrap_or(Duration::ZERO);
        Usage { rss, cpu_s: cpu.as_secs_f64(), cpu_share: self.share(now, cpu) }
    }

    fn share(&mut self, now: Duration, cpu: Duration) -> f64 {
        // The first share is since the process started, which is about when the clock
        // did.
        let (at, before) = self.since.unwrap_or_default();
        let passed = now.saturating_sub(at);
        if passed >= SHARE_OVER {
            self.share = cpu.saturating_sub(before).as_secs_f64() / passed.as_secs_f64();
            self.since = Some((now, cpu));
        }
        self.share
    }
}

/// Resident memory in bytes, from `/proc/self/status`.
fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// User and system time, from `/proc/self/stat`.
fn cpu(stat: &str) -> Option<Duration> {
    // The program name in parentheses may itself contain parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    // These begin with field 3; user and system time are 14 and 15.
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.checked_add(ticks()?)?;
    Some(Duration::from_millis(ticks.checked_mul(1000 / TICKS)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_confuses_nobody() {
        let stat = "4242 (a) b 1 2 (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        for text in ["", ")", "1 (x) S", "1 (x) S 1 2 3 4 5 6 7 8 9 10 -1 -1"] {
            assert_eq!(cpu(text), None, "{text}");
        }
    }

    #[test]
    fn memory_is_reported_in_bytes() {
        assert_eq!(rss("Name:\tx\nVmRSS:\t   2048 kB\nRssAnon: 1 kB\n"), Some(2 << 20));
        for text in ["", "VmRSS: x kB", "VmRSS: 5", "VmRSS: 18446744073709551615 kB"] {
            assert_eq!(rss(text), None, "{text}");
        }
    }

    #[test]
    fn the_share_is_that_of_the_last_seconds() {
        let s = Duration::from_secs;
        let mut meter = Meter::default();
        assert_eq!(meter.share(s(10), s(5)), 0.5);
        assert_eq!(meter.share(s(11), s(6)), 0.5, "too soon to tell");
        assert_eq!(meter.share(s(20), s(20)), 1.5);
        assert_eq!(meter.share(s(5), s(20)), 1.5, "a clock that runs backwards");
    }

    #[test]
    fn this_process_takes_something() {
        let usage = Meter::default().measure(Duration::ZERO);
        assert!(usage.rss > 100_000, "{usage:?}");
    }
}
