//! What a training says while it goes on, and when it is asked to stop.

use crate::checkpoint::Sums;
use crate::run::{Blend, Epoch};
use std::path::PathBuf;
use thiserror::Error;

/// A training that was asked to stop.
#[derive(Debug, Error)]
pub enum Interrupted {
    /// It can go on.
    #[error(
        "interrupted in epoch {epoch} after {step} of {steps} steps; the same command with \
         --resume goes on from the checkpoint in {}", folder.display()
    )]
    Saved {
        /// From 1.
        epoch: usize,
        /// Done.
        step: usize,
        /// Of the epoch.
        steps: usize,
        /// Where the checkpoint is.
        folder: PathBuf,
    },
    /// It had no folder.
    #[error("interrupted in epoch {epoch}")]
    Lost {
        /// From 1.
        epoch: usize,
    },
}

/// What is told while it goes on.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Goes on from a checkpoint.
    Resumed {
        /// From 1.
        epoch: usize,
        /// Done of it.
        step: usize,
    },
    /// A step is done.
    Step(Step),
    /// An epoch is over; 0 is the start.
    Judged(Epoch),
    /// A point between start and best epoch was judged.
    Blended(Blend),
    /// No epoch was better for as long as there was patience.
    Ended {
        /// The last one.
        epoch: usize,
    },
    /// A checkpoint could not be written; the one before stays.
    Unsaved(String),
}

/// How an epoch is going.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// From 1.
    pub epoch: usize,
    /// Steps done of it.
    pub step: usize,
    /// Steps it has.
    pub steps: usize,
    /// Photos of this step.
    pub photos: usize,
    /// Mean over the epoch so far.
    pub loss: f64,
    /// The same of photos told right.
    pub accuracy: f64,
    /// Photos a second.
    pub images_per_second: f64,
    /// Share of the time without anything to learn from.
    pub waited: f64,
}

impl Step {
    /// From the sums of the epoch so far.
    pub(crate) fn of(sums: &Sums, epoch: usize, step: usize, steps: usize, photos: usize) -> Self {
        let seen = sums.seen.max(1) as f64;
        let seconds = sums.seconds.max(1e-9);
        Self {
            epoch,
            step,
            steps,
            photos,
            loss: sums.loss / seen,
            accuracy: sums.right as f64 / seen,
            images_per_second: sums.seen as f64 / seconds,
            waited: sums.waited / seconds,
        }
    }
}
