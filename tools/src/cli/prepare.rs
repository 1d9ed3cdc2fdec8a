//! `prepare`: makes a data set from photos.

use super::say;
use super::signals;
use crate::data::dataset::counted;
use crate::data::prepare::{Ended, Found, Report, Settings, Task, prepare};
use crate::parallel;
use anyhow::{Result, bail};
use clap::Args;
use facelatch::access::names::look_alikes;
use facelatch::models::Models;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines printed per kind of finding; `report.json` has all of them.
const NAMES_TOLD: usize = 10;

/// Make a data set from photos: find, align and label the faces.
///
/// PHOTOS has one folder per person; deeper subfolders are allowed. DATA receives the
/// aligned faces (crops/), their bounding boxes and landmarks (keypoints/), labels.csv,
/// report.json and a contact sheet to look at (contact.png). A second run processes only
/// photos that are new or changed. An unreadable photo is skipped, and the exit code is
/// then 1.
#[derive(Args)]
pub struct Prepare {
    /// Folder of photos: PERSON/PHOTO.jpg
    #[arg(required_unless_present = "labels")]
    photos: Option<PathBuf>,
    /// Output folder for the data set
    #[arg(long, value_name = "DATA")]
    out: PathBuf,
    /// CSV that lists the photos instead of folders, with the columns path, label, person
    /// and optionally group. Paths are relative to PHOTOS, or to the CSV's folder without
    /// PHOTOS
    #[arg(long, value_name = "CSV")]
    labels: Option<PathBuf>,
    /// Crop every face of a photo instead of only the largest
    #[arg(long)]
    every_face: bool,
    /// Smallest face to detect: shorter side of its bounding box in pixels, 12 to 10000
    #[arg(long, default_value_t = 40.0, value_parser = minimum_face, value_name = "PIXELS")]
    minimum_face: f32,
    /// Folder of the model set whose detector is used [default: the built-in one]
    #[arg(long)]
    models: Option<PathBuf>,
    /// Photos processed in parallel [default: one per core]
    #[arg(long)]
    threads: Option<NonZero<usize>>,
}

fn minimum_face(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(side) if (12.0..=10_000.0).contains(&side) => Ok(side),
        _ => Err("expected 12 to 10000 pixels".to_owned()),
    }
}

impl Prepare {
    pub fn run(self) -> Result<()> {
        let stop = signals::stop()?;
        let models = Models::open_or_built_in(self.models.as_deref())?;
        let photos = self.photos.as_deref();
        if let Some(photos) = photos {
            check_apart(photos, &self.out)?;
        }
        let mut found = match (&self.labels, photos) {
            (Some(csv), root) => Found::in_csv(csv, root, self.every_face)?,
            (None, Some(root)) => Found::in_folders(root, self.every_face)?,
            (None, None) => bail!("no photos given; name a folder of photos"),
        };
        if found.photos.is_empty() {
            let from = self.labels.as_deref().or(photos).unwrap_or(Path::new(""));
            let why = found.unreadable.first();
            let why = why.map(|unread| format!(": {}", unread.reason));
            bail!(
                "{}: no photo found{}; expected PERSON/PHOTO.jpg or .png",
                from.display(),
                why.unwrap_or_default()
            );
        }
        let pairs = look_alikes(found.people());
        let owned = pairs.iter().map(|(one, other)| [one, other].map(|name| (*name).to_owned()));
        found.look_alikes = owned.collect();
        let task = Task {
            models: &models,
            out: &self.out,
            settings: Settings::new(&models.manifest, self.minimum_face, self.every_face),
            threads: self.threads.map_or_else(parallel::cores, NonZero::get),
        };
        match prepare(&task, found, &stop)? {
            Ended::Stopped { done, photos } => bail!(
                "stopped after {done} of {photos} photos; run the same command again to continue"
            ),
            Ended::Done { report, made, took } => {
                tell(&report, &self.out, made, took, task.threads);
                if !report.unreadable.is_empty() {
                    bail!(
                        "{} could not be read; all others are done",
                        counted(report.unreadable.len(), "photo", "photos")
                    );
                }
                Ok(())
            }
        }
    }
}

/// Refuses an output folder inside the photos, because the next run would take its crops
/// for photos, and photos inside the output folder's `crops` or `keypoints`.
fn check_apart(photos: &Path, out: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path));
    let (inside, outside) = (real(out)?, real(photos)?);
    if inside.starts_with(&outside) {
        bail!(
            "{} is inside {}; choose an --out outside the photos",
            out.display(),
            photos.display()
        );
    }
    if ["crops", "keypoints"].iter().any(|folder| outside.starts_with(inside.join(folder))) {
        bail!("{} is in the output folder of this command; choose another --out", photos.display());
    }
    Ok(())
}

fn tell(report: &Report, out: &Path, made: usize, took: Duration, threads: usize) {
    say(&format!(
        "photos      {}, {made} processed now",
        counted(report.photos, "photo", "photos")
    ));
    say(&format!("faces       {} of {}", report.faces, counted(report.people, "person", "people")));
    if made > 0 {
        let rate = made as f64 / took.as_secs_f64().max(1e-3);
        say(&format!("rate        {rate:.1} photos/s, {}", counted(threads, "thread", "threads")));
    }
    let unreadable = report.unreadable.iter();
    list("unreadable", unreadable.map(|unread| unread.reason.clone()));
    let (poison, same): (Vec<_>, Vec<_>) =
        report.duplicates.iter().partition(|duplicate| duplicate.different_people);
    list(
        "wrong label",
        poison.iter().map(|duplicate| {
            format!(
                "{} looks like {} but is labelled as another person; remove one of them, or \
                 training learns both labels",
                duplicate.photo, duplicate.of
            )
        }),
    );
    list(
        "duplicate",
        same.iter().map(|duplicate| format!("{} looks like {}", duplicate.photo, duplicate.of)),
    );
    list(
        "look alike",
        report.look_alikes.iter().map(|[one, other]| {
            format!(
                "{one:?} and {other:?}{}; if they are one person, use one name, or training \
                 learns two labels",
                written(one, other)
            )
        }),
    );
    list("no face", report.no_face.iter().cloned());
    let kept = if report.settings.every_face { "all kept" } else { "only the largest kept" };
    list(
        "several",
        report.several_faces.iter().map(|s| format!("{}: {} faces, {kept}", s.photo, s.faces)),
    );
    list("not in set", report.people_without_a_face.iter().cloned());
    list("one face", report.people_with_one_face.iter().cloned());
    if !report.other_files.is_empty() {
        let kinds: Vec<String> = report
            .other_files
            .iter()
            .map(|(ending, count)| match ending.as_str() {
                "" => format!("{count} without an extension"),
                ending => format!("{count} .{ending}"),
            })
            .collect();
        say(&format!("ignored     {}: neither .jpg nor .png", kinds.join(", ")));
    }
    if report.left_over > 0 {
        say(&format!(
            "left over   {} of other photos in {}; their faces are not in labels.csv",
            counted(report.left_over, "keypoints file", "keypoints files"),
            out.display()
        ));
    }
    let file = |name| out.join(name).display().to_string();
    say(&format!("look at     {}", file("contact.png")));
    say(&format!("report      {}", file("report.json")));
    say(&format!("data set    {}", file("labels.csv")));
}

/// The first characters in which two names differ, because they may look the same.
fn written(one: &str, other: &str) -> String {
    let differ = one.chars().zip(other.chars()).find(|(a, b)| a != b);
    differ.map_or_else(String::new, |(a, b)| {
        format!(" (U+{:04X} and U+{:04X})", u32::from(a), u32::from(b))
    })
}

/// Prints the first few lines of a kind of finding, the first with its title.
fn list(title: &str, lines: impl ExactSizeIterator<Item = String>) {
    let count = lines.len();
    for (at, line) in lines.take(NAMES_TOLD).enumerate() {
        say(&format!("{:<11} {line}", if at == 0 { title } else { "" }));
    }
    if count > NAMES_TOLD {
        say(&format!("{:<11} and {} more", "", count - NAMES_TOLD));
    }
}
