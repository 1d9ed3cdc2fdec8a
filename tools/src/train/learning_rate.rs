//! Learning rate over the course of a training.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Course {
    /// Constant
    Constant,
    /// Cosine decay to zero
    Cosine,
    /// Multiplied by a factor every few epochs
    Step,
}

/// Learning rate schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Epochs of linear warm-up; fractions are allowed (Goyal et al., "Accurate, Large
    /// Minibatch SGD", 2017, section 2.2).
    pub warm_up: f64,
    /// Course after the warm-up (cosine: Loshchilov and Hutter, "SGDR", 2017).
    pub course: Course,
    /// For [`Course::Step`]: epochs between two drops.
    pub step_epochs: usize,
    /// For [`Course::Step`]: factor on the learning rate at each drop, 0..=1.
    pub step_factor: f64,
}

impl Schedule {
    /// A constant learning rate without warm-up.
    pub fn constant(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            warm_up: 0.0,
            course: Course::Constant,
            step_epochs: 1,
            step_factor: 0.1,
        }
    }

    /// Fails if a value is out of range for a training of this many epochs.
    pub fn check(&self, epochs: usize) -> Result<()> {
        ensure!(
            self.learning_rate >= 0.0 && self.learning_rate.is_finite(),
            "the learning rate is {}, expected a finite number, 0 or more",
            self.learning_rate
        );
        ensure!(
            (0.0..=epochs as f64).contains(&self.warm_up),
            "the warm-up is {} epochs, expected 0 to {epochs}",
            self.warm_up
        );
        ensure!(self.step_epochs > 0, "the rate drops every 0 epochs, expected at least 1");
        ensure!(
            (0.0..=1.0).contains(&self.step_factor),
            "the rate drops by a factor of {}, expected 0 to 1",
            self.step_factor
        );
        Ok(())
    }

    /// Learning rate of a step. `step` counts from 0 through all epochs, each of which
    /// has `steps_an_epoch` steps.
    pub fn at(&self, step: usize, steps_an_epoch: usize, epochs: usize) -> f64 {
        let an_epoch = steps_an_epoch.max(1) as f64;
        let warm = self.warm_up * an_epoch;
        let done = step as f64;
        if done < warm {
            // The first step is not wasted at a rate of zero.
            return self.learning_rate * ((done + 1.0) / warm).min(1.0);
        }
        let rest = (epochs as f64 * an_epoch - warm).max(1.0);
        self.learning_rate
            * match self.course {
                Course::Constant => 1.0,
                Course::Cosine => (1.0 + (PI * ((done - warm) / rest).min(1.0)).cos()) / 2.0,
                Course::Step => {
                    let falls = step / steps_an_epoch.max(1) / self.step_epochs.max(1);
                    self.step_factor.powi(falls.try_into().unwrap_or(i32::MAX))
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(schedule: Schedule) -> Vec<f64> {
        (0..40).map(|step| schedule.at(step, 10, 4)).collect()
    }

    #[test]
    fn a_constant_step_stays() {
        assert!(sizes(Schedule::constant(0.1)).iter().all(|size| *size == 0.1));
    }

    #[test]
    fn a_warm_up_rises_and_a_cosine_falls_to_nothing() {
        let schedule = Schedule { warm_up: 1.0, course: Course::Cosine, ..Schedule::constant(0.1) };
        let sizes = sizes(schedule);
        assert!((sizes[0] - 0.01).abs() < 1e-12 && (sizes[9] - 0.1).abs() < 1e-12);
        assert_eq!(sizes[10], 0.1);
        assert!((sizes[25] - 0.05).abs() < 1e-12);
        assert!(sizes[10..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(sizes[39] < 0.001);
    }

    #[test]
    fn steps_fall_by_their_factor() {
        let schedule = Schedule {
            course: Course::Step,
            step_epochs: 2,
            step_factor: 0.1,
            ..Schedule::constant(1.0)
        };
        let sizes = sizes(schedule);
        assert_eq!((sizes[0], sizes[19]), (1.0, 1.0));
        assert!((sizes[20] - 0.1).abs() < 1e-12 && (sizes[39] - 0.1).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let fine = Schedule::constant(0.1);
        assert!(fine.check(1).is_ok());
        for (schedule, said) in [
            (Schedule { learning_rate: f64::NAN, ..fine }, "learning rate is NaN"),
            (Schedule { warm_up: 5.0, ..fine }, "warm-up is 5"),
            (Schedule { step_epochs: 0, ..fine }, "every 0 epochs"),
            (Schedule { step_factor: 2.0, ..fine }, "factor of 2"),
        ] {
            let error = schedule.check(4).expect_err("no schedule").to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
