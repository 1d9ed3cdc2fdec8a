//! How similar the strangers at a door are to the people enrolled, beside what the
//! calibration of the models promises.
//!
//! For each stranger's attempt the calibration gives the probability `u` that a stranger
//! is at least as similar to somebody of this gallery. If its promise holds, `u` is at most
//! as small as a uniform number: at most one attempt in ten has `u` below 0.1. So attempts
//! with galleries of different sizes can be counted together.
//!
//! The test never ends, so a fixed level would raise a false alarm some day. It is a bet
//! instead: for a level `p` and an alternative `q` above it, the likelihood ratio of the
//! counts
//!
//! ```text
//!   (q / p)^k * ((1 - q) / (1 - p))^(n - k)
//! ```
//!
//! is a supermartingale as long as the promise holds, and so is the mean over several levels
//! and alternatives. The probability that it ever reaches `1 / a` is at most `a` (Ville
//! 1939; Robbins, "Statistical methods related to the law of the iterated logarithm", 1970;
//! Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference", 2023). This
//! holds for attempts of different people. Each face is therefore measured once, as far as
//! [`super::attempts`] remembers faces.

use serde::{Deserialize, Serialize};

/// Shares of strangers' attempts whose similarity is compared with the promise.
pub const LEVELS: [f64; 3] = [0.1, 0.01, 0.001];

/// Alternatives: the factors by which attempts beyond a level exceed the promise.
const TIMES: [f64; 3] = [2.0, 4.0, 8.0];

/// Probability that a door whose strangers are as promised is ever warned about.
pub const SIGNIFICANCE: f64 = 0.01;

/// Similarities are counted in this many steps from 0 to 1; negative ones count as 0.
const STEPS: usize = 50;

/// Similarities of strangers' attempts: counts that survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Strangers {
    /// Identity of the model that they belong to.
    model: String,
    /// Number of attempts.
    attempts: u32,
    /// Number of them beyond each of [`LEVELS`].
    beyond: [u32; LEVELS.len()],
    /// Number of attempts by the step of their similarity.
    similarities: Vec<u32>,
}

/// Attempts beyond one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Level {
    /// Share of strangers' attempts that the calibration promises at most.
    pub share: f64,
    /// Number of attempts that this share would be.
    pub promised: f64,
    /// Number of attempts measured.
    pub measured: u32,
}

/// What was measured, for the status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// Number of attempts.
    pub attempts: u32,
    /// Similarity to the most similar person that half of the attempts do not exceed; `None`
    /// without attempts. Exact to 0.02.
    pub median: Option<f32>,
    /// The same of 99 in 100 attempts.
    pub p99: Option<f32>,
    /// Attempts beyond each level.
    pub levels: Vec<Level>,
    /// Evidence against the promise, as a ratio: 100 or more is a warning.
    pub evidence: f64,
    /// Whether strangers are more similar to the people enrolled than promised.
    pub more_alike: bool,
}

impl Strangers {
    /// Goes on with counts from before a restart. Impossible counts are dropped.
    pub fn restored(saved: &Self) -> Self {
        let possible = saved.beyond.iter().all(|beyond| *beyond <= saved.attempts)
            && (saved.attempts == 0 || saved.similarities.len() == STEPS);
        if possible { saved.clone() } else { Self::default() }
    }

    /// Counts one attempt of a stranger: cosine similarity to the most similar person, and
    /// the promised probability of a similarity at least as high. Counts of another model
    /// are dropped.
    pub fn add(&mut self, model: &str, similarity: f32, share: f64) {
        if self.model != model {
            *self = Self { model: model.to_owned(), ..Self::default() };
        }
        if self.attempts == u32::MAX {
            return;
        }
        self.attempts += 1;
        for (beyond, level) in self.beyond.iter_mut().zip(LEVELS) {
            *beyond += u32::from(share <= level);
        }
        self.similarities.resize(STEPS, 0);
        // The cast saturates, and NaN becomes 0.
        let step = ((similarity * STEPS as f32) as usize).min(STEPS - 1);
        self.similarities[step] += 1;
    }

    /// Natural logarithm of the evidence against the promise.
    fn log_evidence(&self) -> f64 {
        let attempts = f64::from(self.attempts);
        let bets = LEVELS.iter().zip(self.beyond).flat_map(|(level, beyond)| {
            let beyond = f64::from(beyond);
            TIMES.map(|times| {
                let (p, q) = (*level, level * times);
                beyond * (q / p).ln() + (attempts - beyond) * ((-q).ln_1p() - (-p).ln_1p())
            })
        });
        let bets: Vec<f64> = bets.collect();
        let most = bets.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = bets.iter().map(|bet| (bet - most).exp()).sum();
        most + (sum / bets.len() as f64).ln()
    }

    /// Whether strangers are more similar to the people enrolled than promised, at
    /// [`SIGNIFICANCE`].
    pub fn more_alike(&self) -> bool {
        self.log_evidence() >= -SIGNIFICANCE.ln()
    }

    /// Upper end of the step of the similarity that this share of attempts does not exceed.
    fn quantile(&self, share: f64) -> Option<f32> {
        let wanted = (share * f64::from(self.attempts)).ceil().max(1.0);
        let mut seen = 0.0;
        for (step, count) in self.similarities.iter().enumerate() {
            seen += f64::from(*count);
            if seen >= wanted {
                return Some((step + 1) as f32 / STEPS as f32);
            }
        }
        None
    }

    /// What was measured.
    pub fn measured(&self) -> Measured {
        let level = |(share, measured): (f64, u32)| Level {
            share,
            promised: share * f64::from(self.attempts),
            measured,
        };
        Measured {
            attempts: self.attempts,
            median: self.quantile(0.5),
            p99: self.quantile(0.99),
            levels: LEVELS.into_iter().zip(self.beyond).map(level).collect(),
            // A number that JSON can hold.
            evidence: self.log_evidence().min(700.0).exp(),
            more_alike: self.more_alike(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform numbers above 0 and below 1: Marsaglia's xorshift64.
    struct Uniform(u64);

    impl Uniform {
        fn next(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }
    }

    /// Number of attempts after which the door is warned about, of 3,000.
    fn warned_after(seed: u64, share: impl Fn(f64) -> f64) -> Option<u32> {
        let mut uniform = Uniform(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut strangers = Strangers::default();
        (1..=3000).find(|_| {
            strangers.add("m", 0.2, share(uniform.next()));
            strangers.more_alike()
        })
    }

    #[test]
    fn strangers_as_promised_hardly_ever_raise_the_warning() {
        // The promise is that this happens to one door in 100.
        let warned = (0..400).filter(|seed| warned_after(*seed, |u| u).is_some()).count();
        assert!(warned <= 4, "{warned} of 400 doors");
    }

    #[test]
    fn strangers_who_are_more_alike_raise_it() {
        // Ten times as many are beyond every level.
        let after: Vec<_> = (0..40).map(|seed| warned_after(seed, |u| u / 10.0)).collect();
        assert!(after.iter().all(|after| after.is_some_and(|after| after < 100)), "{after:?}");
        // Twice as many.
        let after: Vec<_> = (0..40).map(|seed| warned_after(seed, |u| u / 2.0)).collect();
        assert!(after.iter().all(|after| after.is_some_and(|after| after < 2000)), "{after:?}");
    }

    #[test]
    fn strangers_who_are_less_alike_never_do() {
        assert!((0..100).all(|seed| warned_after(seed, |u| u.sqrt()).is_none()));
        assert!(!Strangers::default().more_alike());
    }

    #[test]
    fn the_figures_of_the_status_are_those_counted() {
        let mut strangers = Strangers::default();
        for at in 0..100 {
            strangers.add("m", at as f32 / 100.0, 1.0 - f64::from(at) / 100.0);
        }
        let measured = strangers.measured();
        assert_eq!(measured.attempts, 100);
        assert_eq!((measured.median, measured.p99), (Some(0.5), Some(1.0)));
        assert_eq!(measured.levels[0].measured, 10);
        assert!((measured.levels[0].promised - 10.0).abs() < 1e-9);
        assert!(!measured.more_alike);
        // Another model, and odd similarities.
        for odd in [f32::NAN, -1.0, 2.0] {
            strangers.add("n", odd, f64::NAN);
        }
        let measured = strangers.measured();
        assert_eq!((measured.attempts, measured.levels[0].measured), (3, 0));
        assert_eq!(Strangers::default().measured().median, None);
    }

    #[test]
    fn impossible_counts_are_dropped() {
        let mut strangers = Strangers::default();
        strangers.add("m", 0.3, 0.5);
        assert_eq!(Strangers::restored(&strangers), strangers);
        let odd = Strangers { beyond: [2, 0, 0], ..strangers.clone() };
        assert_eq!(Strangers::restored(&odd), Strangers::default());
        let odd = Strangers { similarities: vec![1], ..strangers };
        assert_eq!(Strangers::restored(&odd), Strangers::default());
    }
}
