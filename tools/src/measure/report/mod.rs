//! Evaluation of a recognizer on people it was not trained on, or of a classifier on photos
//! it has not seen. The report is JSON for programs and HTML for people ([`html`]).

pub mod breakdown;
pub mod closed;
pub mod figures;
pub mod gather;
pub mod html;
pub mod open;
pub mod subjects;

use serde::Serialize;

/// Format version of `report.json`.
pub const FORMAT: u32 = 1;

/// All results; the content of `report.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Format version: [`FORMAT`].
    pub format: u32,
    /// Identifier of the model set, or name of the training run.
    pub model: String,
    /// Version of facelatch-tools.
    pub tools: String,
    /// Data measured on.
    pub data: Data,
    /// Closed-set results, if the run was trained on these people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<closed::Closed>,
    /// Open-set results, if the people are not in the training data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<open::Open>,
}

/// Data measured on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Data {
    /// Name of the file that lists the photos.
    pub name: String,
    /// SHA-256 of the data set, or of the pairs file.
    pub sha256: String,
    /// Number of people.
    pub people: usize,
    /// Number of photos.
    pub photos: usize,
    /// Number of photos with a face.
    pub photos_with_a_face: usize,
    /// Photos in which no face was found.
    pub no_face: Vec<String>,
    /// Photos that could not be read, with the reason.
    pub unreadable: Vec<String>,
}
