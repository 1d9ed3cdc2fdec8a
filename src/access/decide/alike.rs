//! The faces of a frame, as the decision takes them.

use super::Seen;
use crate::access::gallery::PersonId;
use crate::vision::embed::Template;
use crate::vision::track::TrackId;

/// A view of a face that can be compared with another one.
pub trait Alike: Clone {
    /// Cosine of two views, -1..=1; `None` if they cannot be compared.
    fn cosine(&self, other: &Self) -> Option<f32>;
}

impl Alike for Template {
    fn cosine(&self, other: &Self) -> Option<f32> {
        self.similarity(other).ok()
    }
}

/// One face in the zone of one frame.
#[derive(Debug, PartialEq)]
pub struct Observation<'a, V = Template> {
    /// Track of the face.
    pub track: TrackId,
    /// Result of the gallery search.
    pub seen: Seen,
    /// The view itself, for the likelihood ratio. A view without it counts as a repetition
    /// of the track's other views.
    pub look: Option<Sighting<'a, V>>,
}

/// The part of a view that its likelihood ratio depends on.
#[derive(Debug, PartialEq)]
pub struct Sighting<'a, V = Template> {
    /// Template of the view. The cosine of two templates measures how distinct the views
    /// are.
    pub template: &'a V,
    /// [`crate::vision::quality::Quality::score`]: the best views of a track are combined.
    pub quality: f32,
    /// The most similar person in the gallery, even below the threshold.
    pub most_alike: Option<PersonId>,
}

// Derived ones would ask that a view itself can be copied.
impl<V> Clone for Observation<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Observation<'_, V> {}

impl<V> Clone for Sighting<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Sighting<'_, V> {}
