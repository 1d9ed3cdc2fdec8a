//! Progress reports of a training, and the errors that end it early.

use crate::train::checkpoint::Sums;
use crate::train::run_folder::{Blend, Epoch};
use std::path::PathBuf;
use thiserror::Error;

/// The training was asked to stop.
#[derive(Debug, Error)]
pub enum Interrupted {
    /// A checkpoint was written, so the training can continue.
    #[error(
        "interrupted in epoch {epoch} after {step} of {steps} steps; the same command with \
         --resume continues from the checkpoint in {}", folder.display()
    )]
    Saved {
        /// Number of the epoch, from 1.
        epoch: usize,
        /// Steps of the epoch that are done.
        step: usize,
        /// Steps of the epoch.
        steps: usize,
        /// Folder that holds the checkpoint.
        folder: PathBuf,
    },
    /// Without a run folder no checkpoint was written.
    #[error("interrupted in epoch {epoch}")]
    Lost {
        /// Number of the epoch, from 1.
        epoch: usize,
    },
}

/// The loss or the validation value is no longer finite. The message says where, and what
/// to change.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Diverged(pub String);

/// What a training reports while it runs.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Continues from a checkpoint.
    Resumed {
        /// Number of the epoch, from 1.
        epoch: usize,
        /// Steps of the epoch that are already done.
        step: usize,
    },
    /// A step is done.
    Step(Step),
    /// An epoch was judged; number 0 is the start.
    Judged(Epoch),
    /// A blend of the start and the best epoch was judged.
    Blended(Blend),
    /// No epoch improved within the patience, so training ends.
    Ended {
        /// Number of the last epoch.
        epoch: usize,
    },
    /// The run or its checkpoint could not be written, for this reason. The previous
    /// checkpoint stays.
    Unsaved(String),
}

/// State of an epoch after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Steps of the epoch that are done.
    pub step: usize,
    /// Steps of the epoch.
    pub steps: usize,
    /// Photos in this step.
    pub photos: usize,
    /// Mean loss over the epoch so far.
    pub loss: f64,
    /// Share of photos classified correctly over the epoch so far, 0..=1.
    pub accuracy: f64,
    /// Photos per second.
    pub images_per_second: f64,
    /// Share of the time spent waiting for batches, 0..=1.
    pub waited: f64,
}

impl Step {
    /// Computes the means from the sums of the epoch so far.
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
