//! `covers`: learns what tells covered faces, for a model set.

use super::import::{update_manifest, write_file};
use super::say;
use crate::measure::covers::learn;
use crate::measure::lfw::{all_photos, names_in};
use anyhow::Result;
use clap::Args;
use facelatch::models::covered::CoveredEntry;
use facelatch::models::{Models, sha256_hex};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// File name of the classifier in a model folder.
const FILE: &str = "covered.json";

/// Learn to tell faces with a mask, sunglasses or another cover, and write what was learned
/// into a model set.
///
/// The door refuses to enroll such faces, because they resemble each other, and asks people
/// to show the whole face. The photos must show whole faces; the covers are painted on them.
/// Repeat this after any change of the detector. The recognizer does not matter.
#[derive(Args)]
pub struct Covers {
    /// Folder of the model set
    #[arg(long)]
    models: PathBuf,
    /// Folder of photos named as in LFW: NAME/NAME_0001.jpg
    #[arg(long)]
    images: PathBuf,
    /// Files with one name per line; all photos of these people are used
    #[arg(long, required = true, num_args = 1..)]
    people: Vec<PathBuf>,
    /// Seed of the painted covers
    #[arg(long, default_value_t = 1, allow_hyphen_values = true)]
    seed: i64,
}

impl Covers {
    pub fn run(self) -> Result<()> {
        let models = Models::open(&self.models)?;
        let mut people = BTreeSet::new();
        for list in &self.people {
            people.extend(names_in(list)?);
        }
        let names: Vec<&String> = people.iter().collect();
        let photos: Vec<(usize, PathBuf)> = all_photos(&self.images, &people)?
            .into_iter()
            .map(|photo| {
                let person = names.binary_search(&&photo.person).unwrap_or_default();
                (person, photo.path(&self.images))
            })
            .collect();
        let learned = learn(&models, &photos, self.seed)?;
        let bytes = serde_json::to_vec(&learned.classifier)?;
        let lists: Vec<String> = self
            .people
            .iter()
            .map(|list| list.file_name().unwrap_or_default().to_string_lossy().into_owned())
            .collect();
        let entry = CoveredEntry {
            file: FILE.to_owned(),
            sha256: sha256_hex(&bytes),
            data: lists.join(", "),
            people: people.len(),
            whole_refused: learned.whole_refused,
            refused: learned.refused,
        };
        say(&format!(
            "refused  {:.2} % of whole faces of people from whom it was not learned",
            entry.whole_refused * 100.0
        ));
        for (name, share) in &entry.refused {
            say(&format!("         {:.1} % of faces with the cover {name}", share * 100.0));
        }
        write_file(&self.models.join(FILE), &bytes)?;
        update_manifest(&self.models, None, "covered", toml::Value::try_from(entry)?)
    }
}
