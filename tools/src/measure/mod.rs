//! What a recognizer or the liveness cues achieve: figures, intervals, charts, the report.

pub mod calibrate;
pub mod chart;
pub mod comparisons;
pub mod covers;
pub mod groups;
pub mod identification;
pub mod labels;
pub mod lfw;
pub mod likelihood;
pub mod liveness;
pub mod metrics;
pub mod report;
