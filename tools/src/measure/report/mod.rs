//! What a recognizer is worth on people it was not trained on, or a classifier on photos
//! it has not seen: figures to be read by programs, and by people ([`html`]).

pub mod breakdown;
pub mod closed;
pub mod figures;
pub mod gather;
pub mod html;
pub mod open;

use serde::Serialize;

/// What the form of `report.json` is counted by.
pub const FORMAT: u32 = 1;

/// Everything measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Which recognizer.
    pub model: String,
    /// Version of this program.
    pub tools: String,
    /// On what.
    pub data: Data,
    /// People that the training knew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<closed::Closed>,
    /// People that it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<open::Open>,
}

/// What was measured on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Data {
    /// File that names the photos.
    pub name: String,
    /// SHA-256 of the data set, or of that file.
    pub sha256: String,
    /// People.
    pub people: usize,
    /// Photos.
    pub photos: usize,
    /// Photos with a face.
    pub photos_with_a_face: usize,
    /// Photos in which no face was found.
    pub no_face: Vec<String>,
    /// Photos that could not be read, with the reason.
    pub unreadable: Vec<String>,
}
