//! Makes a data set from photos: the device's own detector finds the faces, which are
//! aligned and cropped.
//!
//! In the data set's folder each photo gets `crops/PERSON/STEM.png` (`STEM-2.png` and so on
//! for further faces) and `keypoints/PERSON/STEM.json`. `labels.csv`, `report.json` and
//! `contact.png` describe the whole set. Each file is written atomically. The keypoints
//! file records what it was made from, so that a second run processes only missing or
//! changed photos.

mod hash;
mod list;
mod record;
mod sheet;

pub use hash::{Duplicate, Look};
pub use list::{Found, Photo, Unread};
pub use record::{Keypoints, Record, RecordedFace, Settings, Source};

use crate::data::aligned;
use crate::data::dataset::{self, Row};
use crate::data::photos;
use crate::{files, parallel};
use anyhow::{Context, Result, bail};
use facelatch::files::{self as input, LARGEST};
use facelatch::models::{Models, sha256_hex};
use facelatch::vision::align::align;
use facelatch::vision::detect::{Detector, DetectorSettings, Face};
use facelatch::vision::picture;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Input of [`prepare`].
pub struct Task<'t> {
    /// Model set whose detector finds the faces.
    pub models: &'t Models,
    /// Folder of the data set.
    pub out: &'t Path,
    /// Settings that the crops depend on.
    pub settings: Settings,
    /// Photos processed in parallel.
    pub threads: usize,
}

/// `report.json`: the result for all photos. Names are paths relative to the folder of
/// photos or to the CSV's folder.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Number of photos listed.
    pub photos: usize,
    /// Number of people with a face in the data set.
    pub people: usize,
    /// Number of faces in the data set.
    pub faces: usize,
    /// Photos in which no face was found.
    pub no_face: Vec<String>,
    /// Photos with several faces.
    pub several_faces: Vec<Several>,
    /// Photos that could not be read, and faulty lines of a CSV.
    pub unreadable: Vec<Unread>,
    /// Photos that look like an earlier one.
    pub duplicates: Vec<Duplicate>,
    /// People without a face in any photo; they are not in the data set.
    pub people_without_a_face: Vec<String>,
    /// People with a single face, which cannot be divided among the parts of a split.
    pub people_with_one_face: Vec<String>,
    /// People whose names look alike, in pairs: perhaps one person under two labels.
    pub look_alikes: Vec<[String; 2]>,
    /// Number of files with another extension than a photo's, by extension.
    pub other_files: BTreeMap<String, usize>,
    /// Number of keypoints files in the data set's folder that belong to none of the
    /// photos.
    pub left_over: usize,
    /// Settings that the crops depend on.
    pub settings: Settings,
}

/// A photo with several faces.
#[derive(Debug, Serialize)]
pub struct Several {
    /// Name of the photo.
    pub photo: String,
    /// Number of faces found.
    pub faces: usize,
}

/// How a run ended.
pub enum Ended {
    /// All photos were processed.
    Done {
        /// The result, also written to `report.json`.
        report: Box<Report>,
        /// Number of photos processed in this run; the others were unchanged.
        made: usize,
        /// Duration of the processing.
        took: Duration,
    },
    /// The stop flag was set. Finished photos stay done.
    Stopped {
        /// Number of photos that are done, in this run or before.
        done: usize,
        /// Number of all photos.
        photos: usize,
    },
}

/// Processes the photos and writes the data set. Ends early if `stop` is set.
///
/// # Errors
/// If a file cannot be written, the detector fails, or no photo has a face. An unreadable
/// photo is no error; it goes into the report.
pub fn prepare(task: &Task, found: Found, stop: &AtomicBool) -> Result<Ended> {
    let photos = found.photos;
    let mut records =
        parallel::each(task.threads, photos.len(), || Ok(()), |(), at| task.kept(&photos[at]))?;
    let missing: Vec<usize> =
        (0..photos.len()).filter(|at| records[*at].as_ref().is_none()).collect();
    let started = Instant::now();
    let bar = photos::progress(missing.len(), "faces");
    let detector = || {
        let minimum_face = task.settings.minimum_face;
        let settings = DetectorSettings { minimum_face, ..DetectorSettings::default() };
        Ok(Detector::new(&task.models.detector, settings)?)
    };
    let looked =
        parallel::each_until(stop, task.threads, missing.len(), detector, |detector, at| {
            let made = task.look(detector, &photos[missing[at]]);
            bar.inc(1);
            made
        })?;
    bar.finish_and_clear();
    let took = started.elapsed();
    let mut unreadable = found.unreadable;
    let done = photos.len() - looked.iter().filter(|looked| looked.is_none()).count();
    if done < photos.len() {
        return Ok(Ended::Stopped { done, photos: photos.len() });
    }
    let made = missing.len();
    for (at, looked) in missing.into_iter().zip(looked.into_iter().flatten()) {
        match looked {
            Ok(record) => records[at] = Some(record),
            Err(unread) => unreadable.push(unread),
        }
    }
    let mut report = Box::new(Report {
        photos: photos.len(),
        unreadable,
        other_files: found.other_files,
        look_alikes: found.look_alikes,
        settings: task.settings.clone(),
        ..Report::default()
    });
    task.finish(&photos, &records, &mut report)?;
    Ok(Ended::Done { report, made, took })
}

impl Task<'_> {
    /// The record of an earlier run, if photo, settings and crops are unchanged.
    fn kept(&self, photo: &Photo) -> Result<Option<Record>> {
        let path = self.keypoints(photo);
        let Some(mut record) = Record::read(&path) else { return Ok(None) };
        let Ok(source) = Source::stat(&photo.file) else { return Ok(None) };
        let same = record.photo == photo.name
            && record.settings == self.settings
            && record.source.bytes == source.bytes;
        if !same || !self.crops_are_whole(photo, &record) {
            return Ok(None);
        }
        if record.source.modified != source.modified {
            // The file was copied or touched; compare its bytes.
            match input::read(&photo.file, LARGEST) {
                Ok(bytes) if sha256_hex(&bytes) == record.source.sha256 => {}
                _ => return Ok(None),
            }
            record.source.modified = source.modified;
            record.write(&path)?;
        }
        Ok(Some(record))
    }

    fn crops_are_whole(&self, photo: &Photo, record: &Record) -> bool {
        record.crops().all(|(at, digest)| {
            input::read(&self.crop(photo, at), LARGEST)
                .is_ok_and(|bytes| sha256_hex(&bytes) == digest)
        })
    }

    /// Finds a photo's faces, writes the crops and then the keypoints.
    fn look(&self, detector: &mut Detector, photo: &Photo) -> Result<Result<Record, Unread>> {
        let read = Source::read(&photo.file).and_then(|(source, bytes)| {
            Ok((source, picture::decode(&photo.file, &bytes).map_err(|e| e.to_string())?))
        });
        let (source, frame) = match read {
            Ok(read) => read,
            Err(reason) => return Ok(Err(photo.unread(reason))),
        };
        let found = detector.detect(&frame).with_context(|| photo.file.display().to_string())?;
        let mut faces: Vec<Face> = found.to_vec();
        // The sort is stable: of two faces of the same size the one with the higher score
        // comes first.
        faces.sort_by(|a, b| b.rect.area().total_cmp(&a.rect.area()));
        let path = self.keypoints(photo);
        let before = Record::read(&path).map_or(0, |record| record.crops().count());
        let wanted = if self.settings.every_face { faces.len() } else { faces.len().min(1) };
        let mut recorded = Vec::with_capacity(faces.len());
        for (at, face) in faces.iter().enumerate() {
            let mut crop = None;
            if at < wanted {
                let png = picture::encode_png(
                    align(&frame, &face.landmarks, &self.settings.alignment).frame(),
                )?;
                files::replace_unsynced(&self.crop(photo, at), &png)?;
                crop = Some(sha256_hex(&png));
            }
            recorded.push(RecordedFace::new(face, crop));
        }
        let record = Record {
            photo: photo.name.clone(),
            width: frame.width(),
            height: frame.height(),
            faces: recorded,
            look: Look::of(&frame),
            source,
            settings: self.settings.clone(),
        };
        record.write(&path)?;
        for at in wanted..before {
            let crop = self.crop(photo, at);
            std::fs::remove_file(&crop)
                .or_else(gone)
                .with_context(|| crop.display().to_string())?;
        }
        Ok(Ok(record))
    }

    fn keypoints(&self, photo: &Photo) -> PathBuf {
        self.out.join("keypoints").join(&photo.folder).join(format!("{}.json", photo.stem))
    }

    /// Path of a photo's crop; face 0 is the largest.
    fn crop(&self, photo: &Photo, face: usize) -> PathBuf {
        let name = match face {
            0 => format!("{}.png", photo.stem),
            _ => format!("{}-{}.png", photo.stem, face + 1),
        };
        self.out.join("crops").join(&photo.folder).join(name)
    }

    /// Completes the report and writes `report.json`, `contact.png` and `labels.csv`.
    fn finish(
        &self,
        photos: &[Photo],
        records: &[Option<Record>],
        report: &mut Report,
    ) -> Result<()> {
        let rows = self.rows(photos, records);
        let mut faces: BTreeMap<&str, usize> =
            photos.iter().map(|photo| (photo.person.as_str(), 0)).collect();
        for row in &rows {
            *faces.entry(&row.person).or_default() += 1;
        }
        let people = |wanted: usize| -> Vec<String> {
            let people = faces.iter().filter(|(_, count)| **count == wanted);
            people.map(|(person, _)| (*person).to_owned()).collect()
        };
        report.people_without_a_face = people(0);
        report.people_with_one_face = people(1);
        report.people = faces.len() - report.people_without_a_face.len();
        report.faces = rows.len();
        let mut seen = Vec::new();
        for (photo, record) in photos.iter().zip(records) {
            let Some(record) = record else { continue };
            match record.faces.len() {
                0 => report.no_face.push(photo.name.clone()),
                1 => {}
                faces => report.several_faces.push(Several { photo: photo.name.clone(), faces }),
            }
            if !record.faces.is_empty() {
                seen.push((photo.name.as_str(), photo.person.as_str(), record.look));
            }
        }
        report.duplicates = hash::duplicates(&seen);
        report.left_over = self.left_over(photos);
        files::replace(&self.out.join("report.json"), &serde_json::to_vec_pretty(&report)?)?;
        if rows.is_empty() {
            let why = report.unreadable.first().map(|unread| format!(": {}", unread.reason));
            bail!("no face found in any photo{}", why.unwrap_or_default());
        }
        let sheet = picture::encode_png(&sheet::sheet(&rows, self.settings.alignment.side)?)?;
        files::replace(&self.out.join("contact.png"), &sheet)?;
        aligned::write(self.out, &self.settings.alignment)?;
        dataset::write(&rows, &self.out.join("labels.csv"))
    }

    /// The rows of `labels.csv` in the photos' order. People without a given label are
    /// numbered from 0 in the order of their names.
    fn rows(&self, photos: &[Photo], records: &[Option<Record>]) -> Vec<Row> {
        let with_crops: Vec<(&Photo, usize)> = photos
            .iter()
            .zip(records)
            .filter_map(|(photo, record)| Some((photo, record.as_ref()?.crops().count())))
            .filter(|(_, crops)| *crops > 0)
            .collect();
        let names: BTreeSet<&str> =
            with_crops.iter().map(|(photo, _)| photo.person.as_str()).collect();
        let numbers: BTreeMap<&str, usize> =
            names.into_iter().enumerate().map(|(number, name)| (name, number)).collect();
        let mut rows = Vec::new();
        for (photo, crops) in with_crops {
            let number = numbers.get(photo.person.as_str()).copied().unwrap_or_default();
            rows.extend((0..crops).map(|at| Row {
                path: self.crop(photo, at),
                label: photo.label.unwrap_or(number),
                person: photo.person.clone(),
                group: photo.group.clone(),
            }));
        }
        rows
    }

    /// Number of keypoints files that belong to none of these photos.
    fn left_over(&self, photos: &[Photo]) -> usize {
        let known: BTreeSet<PathBuf> = photos.iter().map(|photo| self.keypoints(photo)).collect();
        let files = walkdir::WalkDir::new(self.out.join("keypoints")).into_iter().flatten();
        files
            .filter(|file| file.path().extension().is_some_and(|ending| ending == "json"))
            .filter(|file| !known.contains(file.path()))
            .count()
    }
}

fn gone(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
