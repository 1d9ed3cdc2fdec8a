//! Reads the photos to evaluate on, from a data set or from a pairs file.

use super::Data;
use super::subjects::Face;
use crate::data::dataset::Dataset;
use crate::data::photos::Outcome;
use crate::measure::lfw::{Pairs, Photo};
use anyhow::{Context, Result, bail};
use facelatch::files::{self as input, LARGEST};
use facelatch::models::{Alignment, Models, sha256_hex};
use facelatch::vision::align::Crop;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Photos to evaluate on, with people and groups.
pub struct Gathered {
    /// Names of people, indexed by [`Face::person`].
    pub people: Vec<String>,
    /// Names of groups, indexed by [`Face::group`].
    pub groups: Vec<String>,
    /// Photos, not embedded yet.
    pub faces: Vec<Face>,
    /// Aligned faces in the same order; `None` if no face was found.
    pub crops: Vec<Option<Crop>>,
    /// Description of the data for the report.
    pub data: Data,
    /// The pairs file, if there is one, and its photos in the order of `faces`.
    pub pairs: Option<(Pairs, Vec<Photo>)>,
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads the aligned faces of a data set.
///
/// # Errors
/// If they were aligned in another way.
pub fn crops(csv: &Path, alignment: &Alignment) -> Result<Gathered> {
    let dataset = Dataset::read(csv)?;
    let crops = dataset.crops(alignment)?;
    let groups: BTreeSet<&String> =
        dataset.rows.iter().filter_map(|row| row.group.as_ref()).collect();
    let groups: Vec<String> = groups.into_iter().cloned().collect();
    let folder = csv.parent().unwrap_or(Path::new(""));
    let faces = dataset.rows.iter().map(|row| Face {
        name: row.path.strip_prefix(folder).unwrap_or(&row.path).display().to_string(),
        person: row.label,
        group: row.group.as_ref().and_then(|group| groups.binary_search(group).ok()),
        embedding: None,
    });
    let faces: Vec<Face> = faces.collect();
    let labels: BTreeSet<usize> = dataset.rows.iter().map(|row| row.label).collect();
    Ok(Gathered {
        data: Data {
            name: file_name(csv),
            sha256: dataset.digest,
            people: labels.len(),
            photos: faces.len(),
            photos_with_a_face: faces.len(),
            no_face: vec![],
            unreadable: vec![],
        },
        people: dataset.people,
        groups,
        faces,
        crops: crops.into_iter().map(Some).collect(),
        pairs: None,
    })
}

/// Reads the photos named in a pairs file; the device's own detector and alignment crop the
/// face nearest the centre.
///
/// # Errors
/// If the pairs file is unreadable or has no pairs. Unreadable photos go into the report.
pub fn photos(models: &Models, images: &Path, file: &Path) -> Result<Gathered> {
    let pairs = Pairs::read(file)?;
    for (line, fault) in &pairs.bad_rows {
        log::warn!("{} line {line}: {fault}", file.display());
    }
    let photos = pairs.photos();
    if photos.is_empty() {
        bail!("{}: no pairs; expected a pairs file in LFW's format", file.display());
    }
    let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(images)).collect();
    let people: BTreeSet<&str> = photos.iter().map(|photo| photo.person.as_str()).collect();
    let people: Vec<String> = people.into_iter().map(str::to_owned).collect();
    let mut data = Data {
        name: file_name(file),
        sha256: sha256_hex(
            &input::read(file, LARGEST).with_context(|| file.display().to_string())?,
        ),
        people: people.len(),
        photos: photos.len(),
        ..Data::default()
    };
    let mut crops = Vec::new();
    for (outcome, path) in
        crate::data::photos::process(models, &paths, false, "detection")?.into_iter().zip(&paths)
    {
        crops.push(match outcome {
            Outcome::Face { crop, .. } => Some(crop),
            Outcome::NoFace => {
                data.no_face.push(path.strip_prefix(images).unwrap_or(path).display().to_string());
                None
            }
            Outcome::Unreadable(message) => {
                data.unreadable.push(message);
                None
            }
        });
    }
    data.photos_with_a_face = crops.iter().flatten().count();
    let faces = photos.iter().zip(&paths).map(|(photo, path)| Face {
        name: file_name(path),
        person: people.binary_search(&photo.person).unwrap_or(0),
        group: None,
        embedding: None,
    });
    let faces = faces.collect();
    Ok(Gathered { people, groups: vec![], faces, crops, data, pairs: Some((pairs, photos)) })
}
