//! Pauses between attempts: longer each time, and by chance, so that many clients do not
//! come back at the same moment.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Pauses between attempts: each up to twice as long as the one before, of which between a
/// half and all is taken by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pauses {
    /// Pauses from `first` up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause. `chance` is from 0 to 1, see [`chance`].
    pub fn next_pause(&mut self, chance: f64) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2).min(self.longest);
        pause.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }

    /// An attempt succeeded: begins with the first pause again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

impl Default for Pauses {
    /// A broker that restarts is back in seconds; one that stays away is asked once a minute.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }
}

/// A number from 0 to 1 by chance. Not for keys.
pub fn chance() -> f64 {
    // The standard library seeds each state differently.
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_to_the_longest_and_begin_anew(
            first in 1u64..5000, longest in 5000u64..100_000, chances in prop::collection::vec(0.0..=1.0, 40),
        ) {
            let millis = Duration::from_millis;
            let mut pauses = Pauses::new(millis(first), millis(longest));
            let mut most = millis(first);
            for chance in chances {
                let pause = pauses.next_pause(chance);
                prop_assert!(pause >= most / 2 - millis(1).min(most / 2) && pause <= most);
                most = (most * 2).min(millis(longest));
            }
            prop_assert_eq!(most, millis(longest));
            pauses.reset();
            prop_assert_eq!(pauses.next_pause(1.0), millis(first));
        }
    }

    #[test]
    fn chances_differ() {
        let chances: Vec<f64> = (0..8).map(|_| chance()).collect();
        assert!(chances.iter().all(|chance| (0.0..1.0).contains(chance)));
        assert!(chances.iter().any(|chance| chance != &chances[0]), "{chances:?}");
    }
}
