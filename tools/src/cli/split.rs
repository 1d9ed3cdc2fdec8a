//! `split`: splits a data set into parts.

use super::say;
use crate::data::dataset::{self, Dataset, Row, counted, some_of};
use crate::data::split::{PARTS, Shares, by_person, by_photo, count_people, of_people};
use crate::measure::lfw::{Pairs, check_apart, names_in, people_of};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Split a data set into training, validation and test sets.
///
/// By photo, the photos of each person are divided in the same ratio, so that each person
/// is in every part: use it for a classifier of known people. By person, no person is in
/// two parts: use it for a recognizer that must work on unseen people. With --part, files
/// name the people of each part.
#[derive(Args)]
pub struct Split {
    /// labels.csv of the data set
    labels: PathBuf,
    /// Output folder: train.csv, validation.csv and test.csv
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Unit to split by
    #[arg(long, value_enum, default_value_t = By::Photo, conflicts_with = "parts")]
    by: By,
    /// Ratio of photos or people as TRAIN:VALIDATION:TEST, in any unit; 0 leaves a part out
    /// [default: 79.2:10.8:10, that is 10 % test, and 88 % of the rest for training]
    #[arg(long, conflicts_with = "parts")]
    ratio: Option<Shares>,
    /// Seed of the assignment of photos or people to parts
    #[arg(long, default_value_t = 1)]
    seed: i64,
    /// Write NAME.csv with the people named in FILE: one name per line, or a pairs file in
    /// LFW's format. Repeat it for more parts; no person may be in two
    #[arg(long = "part", value_name = "NAME=FILE")]
    parts: Vec<PartFile>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The unit that is never divided between parts.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// Each person's photos are divided among the parts; labels stay as they are
    Photo,
    /// Each person is in one part only; labels start from 0 in each part
    Person,
}

/// `NAME=FILE`
#[derive(Clone)]
struct PartFile {
    name: String,
    file: PathBuf,
}

impl FromStr for PartFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match text.split_once('=') {
            Some((name, file))
                if !name.is_empty() && name.chars().all(plain) && !file.is_empty() =>
            {
                Ok(Self { name: name.to_owned(), file: file.into() })
            }
            _ => Err("expected NAME=FILE with a NAME of letters, digits, - and _".to_owned()),
        }
    }
}

/// JSON output of `split`.
#[derive(Serialize)]
struct Told {
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    parts: Vec<ToldPart>,
    /// People in no part, and their photos.
    left_out: Count,
}

#[derive(Serialize)]
struct ToldPart {
    name: String,
    file: PathBuf,
    #[serde(flatten)]
    count: Count,
}

#[derive(Serialize)]
struct Count {
    people: usize,
    photos: usize,
}

impl Split {
    pub fn run(self) -> Result<()> {
        let rows = Dataset::read(&self.labels)?.rows;
        let parts = if self.parts.is_empty() { self.drawn(&rows)? } else { self.named(&rows)? };
        let parts: Vec<(String, PathBuf, Vec<Row>)> = parts
            .into_iter()
            .map(|(name, part)| {
                let file = self.out.join(format!("{name}.csv"));
                (name, file, part)
            })
            .collect();
        let source = self.labels.canonicalize()?;
        for (.., file, part) in &parts {
            if file.canonicalize().is_ok_and(|file| file == source) {
                bail!("{} is the input file; choose another --out", file.display());
            }
            if part.is_empty() {
                bail!(
                    "{}: this part would be empty: {} of {} are too few; add photos or change \
                     the ratio with --ratio",
                    file.display(),
                    counted(rows.len(), "photo", "photos"),
                    counted(count_people(&rows), "person", "people")
                );
            }
        }
        for (.., file, part) in &parts {
            dataset::write(part, file)?;
        }
        self.tell(&rows, parts)
    }

    /// The parts by ratio and seed.
    fn drawn(&self, rows: &[Row]) -> Result<Vec<(String, Vec<Row>)>> {
        let shares = self.ratio.unwrap_or_default();
        let parts = match self.by {
            By::Photo => by_photo(rows, shares, self.seed),
            By::Person => by_person(rows, shares, self.seed)
                .with_context(|| self.labels.display().to_string())?,
        };
        for part in (0..3).filter(|part| !shares.wants(*part)) {
            let file = self.out.join(format!("{}.csv", PARTS[part]));
            if file.exists() {
                log::warn!("{} is left over from an earlier split; delete it", file.display());
            }
        }
        let named = PARTS.iter().map(|name| (*name).to_owned()).zip(parts).enumerate();
        Ok(named.filter(|(part, _)| shares.wants(*part)).map(|(_, named)| named).collect())
    }

    /// The parts by the people named in files.
    fn named(&self, rows: &[Row]) -> Result<Vec<(String, Vec<Row>)>> {
        let mut people = Vec::with_capacity(self.parts.len());
        for PartFile { name, file } in &self.parts {
            if people.iter().any(|(other, _)| *other == name.as_str()) {
                bail!("--part {name} is given twice; give each part its own name");
            }
            people.push((name.as_str(), people_in(file)?));
        }
        check_apart(&people)?;
        let present: BTreeSet<&str> = rows.iter().map(|row| row.person.as_str()).collect();
        let mut parts = Vec::with_capacity(people.len());
        for ((name, people), PartFile { file, .. }) in people.into_iter().zip(&self.parts) {
            let missing: Vec<&str> =
                people.iter().map(String::as_str).filter(|p| !present.contains(p)).collect();
            if missing.len() == people.len() {
                bail!(
                    "{}: none of these people is in {}; check the names",
                    file.display(),
                    self.labels.display()
                );
            }
            if !missing.is_empty() {
                let count = counted(missing.len(), "person", "people");
                log::warn!("{}: {count} without photos: {}", file.display(), some_of(&missing));
            }
            parts.push((name.to_owned(), of_people(rows, &people)));
        }
        Ok(parts)
    }

    fn tell(&self, rows: &[Row], parts: Vec<(String, PathBuf, Vec<Row>)>) -> Result<()> {
        let inside: BTreeSet<&str> =
            parts.iter().flat_map(|(.., part)| part).map(|row| row.person.as_str()).collect();
        let outside: Vec<Row> =
            rows.iter().filter(|row| !inside.contains(row.person.as_str())).cloned().collect();
        let count = |rows: &[Row]| Count { people: count_people(rows), photos: rows.len() };
        let drawn = self.parts.is_empty();
        let told = Told {
            by: match self.by {
                _ if !drawn => "file",
                By::Photo => "photo",
                By::Person => "person",
            },
            seed: drawn.then_some(self.seed),
            left_out: count(&outside),
            parts: parts
                .into_iter()
                .map(|(name, file, part)| ToldPart { name, file, count: count(&part) })
                .collect(),
        };
        if self.json {
            say(&serde_json::to_string(&told)?);
            return Ok(());
        }
        let width = told.parts.iter().map(|part| part.name.len()).max().unwrap_or(0).max(10);
        for ToldPart { name, file, count } in &told.parts {
            let of = counted(count.people, "person", "people");
            let photos = counted(count.photos, "photo", "photos");
            say(&format!("{name:<width$}  {photos} of {of}  {}", file.display()));
        }
        if told.left_out.photos > 0 {
            let of = counted(told.left_out.people, "person", "people");
            let photos = counted(told.left_out.photos, "photo", "photos");
            say(&format!("{:<width$}  {photos} of {of}", "in no part"));
        }
        Ok(())
    }
}

/// The people named in a pairs file, or in a file with one name per line. Text after a tab,
/// as in LFW's own lists, is ignored.
fn people_in(file: &Path) -> Result<BTreeSet<String>> {
    let names = names_in(file)?;
    let pairs = Pairs::read(file).ok().filter(|pairs| !pairs.pairs.is_empty());
    let people = match pairs {
        Some(pairs) => {
            for (line, fault) in &pairs.bad_rows {
                log::warn!("{} line {line}: {fault}", file.display());
            }
            people_of(&pairs)
        }
        None => names.iter().filter_map(|name| name.split('\t').next()).map(Into::into).collect(),
    };
    if people.is_empty() {
        bail!("{}: no names; expected one name per line, or a pairs file", file.display());
    }
    Ok(people)
}
