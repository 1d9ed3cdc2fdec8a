//! The people of an open-set report, and their photos.

use crate::measure::comparisons::{Comparisons, MAX_FACES};
use anyhow::{Result, bail};
use facelatch::vision::embed::Embedding;

/// A photo with its person, group and embedding.
#[derive(Clone, Debug)]
pub struct Face {
    /// File name, for the report.
    pub name: String,
    /// Index of the person in [`Subjects::people`].
    pub person: usize,
    /// Index of the group in [`Subjects::groups`], if the photo has one.
    pub group: Option<usize>,
    /// Embedding; `None` if no face was found.
    pub embedding: Option<Embedding>,
}

/// People and their photos.
#[derive(Clone, Debug, Default)]
pub struct Subjects {
    /// Names of people.
    pub people: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
    /// Photos of these people.
    pub faces: Vec<Face>,
}

impl Subjects {
    /// Compares all pairs of faces; `data` names the data in messages.
    ///
    /// # Errors
    /// If there are more than [`MAX_FACES`] photos.
    pub fn compare(&self, data: &str) -> Result<Comparisons> {
        if self.faces.len() > MAX_FACES {
            bail!(
                "{data}: {} photos are too many, because all pairs are compared; give at most {MAX_FACES}",
                self.faces.len()
            );
        }
        Ok(Comparisons::of(&self.shown()))
    }

    /// Person and embedding of each face.
    pub(super) fn shown(&self) -> Vec<(usize, Option<&Embedding>)> {
        self.faces.iter().map(|face| (face.person, face.embedding.as_ref())).collect()
    }
}
