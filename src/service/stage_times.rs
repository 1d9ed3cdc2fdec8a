//! How long the stages take: the last so many of each, in memory that does not grow.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Measurements of a stage that are kept: half a minute of frames at ten a second.
pub const KEPT: usize = 256;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Finding faces in a frame.
    Detect,
    /// The embedding of a frame's faces.
    Embed,
    /// Whether faces are there in person.
    Liveness,
    /// Searching the gallery and deciding.
    Match,
    /// All of a frame.
    Frame,
}

/// The last measurements of one stage.
#[derive(Clone, Debug)]
struct Ring {
    /// Microseconds; the oldest is overwritten.
    values: [u32; KEPT],
    /// How many were ever added.
    count: u64,
}

/// How the measurements of a stage lie, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spread {
    /// Measured since the start.
    pub count: u64,
    /// The last one.
    pub last_ms: f64,
    /// Half of those kept take no longer.
    pub median_ms: f64,
    /// 95 of 100 of those kept take no longer.
    pub p95_ms: f64,
}

/// The last measurements of all stages.
#[derive(Clone, Debug)]
pub struct Timings {
    detect: Ring,
    embed: Ring,
    liveness: Ring,
    matching: Ring,
    frame: Ring,
}

/// How the measurements of all stages lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spreads {
    /// Finding faces.
    pub detect: Spread,
    /// Embedding them.
    pub embed: Spread,
    /// Whether they are there in person; nothing where that is not asked.
    pub liveness: Spread,
    /// Searching the gallery.
    #[serde(rename = "match")]
    pub matching: Spread,
    /// A whole frame.
    pub frame: Spread,
}

impl Default for Timings {
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

impl Timings {
    /// One more measurement.
    pub fn add(&mut self, stage: Stage, took: Duration) {
        let ring = match stage {
            Stage::Detect => &mut self.detect,
            Stage::Embed => &mut self.embed,
            Stage::Liveness => &mut self.liveness,
            Stage::Match => &mut self.matching,
            Stage::Frame => &mut self.frame,
        };
        // Longer than an hour counts as an hour.
        let microseconds = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        ring.values[(ring.count % KEPT as u64) as usize] = microseconds;
        ring.count += 1;
    }

    /// How they lie.
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
        // The smallest that so many percent do not exceed.
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
    fn nothing_measured_is_nothing() {
        assert_eq!(Timings::default().spreads(), Spreads::default());
    }

    #[test]
    fn only_the_last_ones_count() {
        let mut timings = Timings::default();
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
            let mut timings = Timings::default();
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
