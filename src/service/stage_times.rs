//! Durations of the stages of a frame: the latest of each, in a fixed amount of memory.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Measurements kept per stage: half a minute of frames at ten per second.
pub const KEPT: usize = 256;

/// A stage of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Face detection.
    Detect,
    /// Embedding of the frame's faces.
    Embed,
    /// Liveness check.
    Liveness,
    /// Gallery search and decision.
    Match,
    /// The whole frame.
    Frame,
}

/// The latest measurements of one stage.
#[derive(Clone, Debug)]
struct Ring {
    /// Durations in microseconds; the oldest is overwritten.
    values: [u32; KEPT],
    /// Number of measurements since the start.
    count: u64,
}

/// Statistics of one stage; durations in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spread {
    /// Number of measurements since the start.
    pub count: u64,
    /// The latest duration.
    pub last_ms: f64,
    /// Median of the kept durations.
    pub median_ms: f64,
    /// 95th percentile of the kept durations.
    pub p95_ms: f64,
}

/// The latest measurements of all stages.
#[derive(Clone, Debug)]
pub struct StageTimes {
    detect: Ring,
    embed: Ring,
    liveness: Ring,
    matching: Ring,
    frame: Ring,
}

/// Statistics of all stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spreads {
    /// Face detection.
    pub detect: Spread,
    /// Embedding.
    pub embed: Spread,
    /// Liveness check; zeros if it is off.
    pub liveness: Spread,
    /// Gallery search and decision.
    #[serde(rename = "match")]
    pub matching: Spread,
    /// The whole frame.
    pub frame: Spread,
}

impl Default for StageTimes {
    fn default() -> Self {
        let ring = Ring { values: [0; KEPT], count: 0 };
        Self {
            detect: ring.clone(),
            embed: ring.clone(),
            liveness: ring.clone(),
            matching: ring.clone(),
            frame: ring,
        }
    }
}

impl StageTimes {
    /// Adds a measurement.
    pub fn add(&mut self, stage: Stage, took: Duration) {
        let ring = match stage {
            Stage::Detect => &mut self.detect,
            Stage::Embed => &mut self.embed,
            Stage::Liveness => &mut self.liveness,
            Stage::Match => &mut self.matching,
            Stage::Frame => &mut self.frame,
        };
        // Longer durations count as u32::MAX microseconds, about an hour.
        let microseconds = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        ring.values[(ring.count % KEPT as u64) as usize] = microseconds;
        ring.count += 1;
    }

    /// Statistics of all stages.
    pub fn spreads(&self) -> Spreads {
        Spreads {
            detect: self.detect.spread(),
            embed: self.embed.spread(),
            liveness: self.liveness.spread(),
            matching: self.matching.spread(),
            frame: self.frame.spread(),
        }
    }
}

impl Ring {
    fn spread(&self) -> Spread {
        let Some(last) = self.count.checked_sub(1) else { return Spread::default() };
        let kept = self.count.min(KEPT as u64) as usize;
        let mut sorted = self.values;
        let sorted = &mut sorted[..kept];
        sorted.sort_unstable();
        let ms = |microseconds: u32| f64::from(microseconds) / 1000.0;
        // The smallest duration that `percent` of all do not exceed.
        let rank = |percent: usize| ms(sorted[(kept * percent).div_ceil(100).max(1) - 1]);
        Spread {
            count: self.count,
            last_ms: ms(self.values[(last % KEPT as u64) as usize]),
            median_ms: rank(50),
            p95_ms: rank(95),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_measurements_give_the_default() {
        assert_eq!(StageTimes::default().spreads(), Spreads::default());
    }

    #[test]
    fn only_the_latest_values_count() {
        let mut timings = StageTimes::default();
        timings.add(Stage::Frame, Duration::MAX);
        for i in 1..=KEPT as u64 {
            timings.add(Stage::Frame, Duration::from_millis(i));
        }
        let frame = timings.spreads().frame;
        let expected = Spread { count: 257, last_ms: 256.0, median_ms: 128.0, p95_ms: 244.0 };
        assert_eq!(frame, expected);
    }

    proptest! {
        #[test]
        fn as_many_lie_below_as_are_said_to(times in prop::collection::vec(0u32..5000, 1..600)) {
            let mut timings = StageTimes::default();
            for time in &times {
                timings.add(Stage::Embed, Duration::from_micros(u64::from(*time)));
            }
            let spread = timings.spreads().embed;
            let kept = &times[times.len().saturating_sub(KEPT)..];
            let within = |ms: f64| kept.iter().filter(|t| f64::from(**t) / 1000.0 <= ms).count();
            prop_assert!(within(spread.median_ms) * 2 >= kept.len());
            prop_assert!(within(spread.p95_ms) * 100 >= kept.len() * 95);
            prop_assert!(spread.median_ms <= spread.p95_ms);
            let last = f64::from(*kept.last().expect("one at least")) / 1000.0;
            prop_assert_eq!(spread.last_ms, last);
        }
    }
}
