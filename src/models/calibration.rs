//! How the similarities of one recognizer are judged.

use crate::models::likelihood::Likelihood;
use crate::models::threshold::ThresholdTable;

/// Thresholds and likelihood of one recognizer's similarities. They belong to the model
/// that was measured and to no other.
#[derive(Clone, Debug)]
pub struct ScoreCalibration {
    /// Similarity by false accept rate.
    pub thresholds: ThresholdTable,
    /// Similarity to likelihood ratio; `None` for a set of models without that measurement.
    pub likelihood: Option<Likelihood>,
}
