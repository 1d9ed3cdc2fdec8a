//! A data set: a CSV that assigns aligned faces to people. Its columns are
//! `path,label,person[,group]` in any order, named by the header.
//!
//! A path is relative to the CSV's folder. A label is a number from 0; person and label
//! correspond one to one. A group is free text, such as an age range, a skin tone or a
//! camera, for which evaluation reports separate figures.

use crate::data::aligned;
use crate::{files, parallel};
use anyhow::{Context, Result, bail};
use facelatch::files::{self as input, LARGEST};
use facelatch::models::Alignment;
use facelatch::vision::align::Crop;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Component, Path, PathBuf};

/// Largest label, more than any public face data set needs. Without a limit, one wrong
/// label could allocate gigabytes.
const MAX_LABEL: usize = 10_000_000;
/// Faults or names listed in one message.
const FAULTS_TOLD: usize = 10;

/// An aligned face and its person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Path of the picture, resolved against the CSV's folder.
    pub path: PathBuf,
    /// Label of the person, from 0.
    pub label: usize,
    /// Name of the person.
    pub person: String,
    /// Group for separate evaluation figures.
    pub group: Option<String>,
}

/// A faulty line of a CSV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line number; line 1 is the header.
    pub line: u64,
    /// The fault and its cure.
    pub reason: String,
}

/// The rows and the faulty lines of a CSV.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Line number and row, in the file's order.
    pub rows: Vec<(u64, Row)>,
    /// Faulty lines, in the file's order.
    pub faults: Vec<Fault>,
}

/// A data set without faults.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Rows, in the file's order.
    pub rows: Vec<Row>,
    /// Names by label; "" for a label without rows.
    pub people: Vec<String>,
    /// SHA-256 over labels, names, groups and the bytes of the pictures, lowercase
    /// hexadecimal. Paths are left out, so that a moved data set keeps its digest.
    pub digest: String,
}

impl Dataset {
    /// Reads a CSV and the bytes of all its pictures.
    ///
    /// # Errors
    /// If a line is faulty, a picture is missing, or there are no rows. The message lists
    /// several faults with their line numbers.
    pub fn read(csv: &Path) -> Result<Self> {
        let Listing { rows, mut faults } = Listing::read(csv)?;
        let digests = parallel::each(
            parallel::cores(),
            rows.len(),
            || Ok(()),
            |(), at| Ok(input::read(&rows[at].1.path, LARGEST).map(Sha256::digest)),
        )?;
        let mut digest = Sha256::new();
        for ((line, row), file) in rows.iter().zip(digests) {
            match file {
                Ok(file) => add(&mut digest, row, &file),
                Err(error) => {
                    let reason = format!("{}: {error}", row.path.display());
                    faults.push(Fault { line: *line, reason });
                }
            }
        }
        if !faults.is_empty() {
            faults.sort_by_key(|fault| fault.line);
            bail!("{}", told(csv, &faults));
        }
        let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        if rows.is_empty() {
            bail!("{}: no rows; expected one line per face below the header", csv.display());
        }
        let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { people: people_of(&rows), rows, digest })
    }

    /// Writes the CSV atomically, with paths relative to its folder.
    pub fn write(&self, csv: &Path) -> Result<()> {
        write(&self.rows, csv)
    }

    /// Reads the aligned faces, in the rows' order.
    ///
    /// # Errors
    /// If a picture is unreadable, or was aligned in another way.
    pub fn crops(&self, alignment: &Alignment) -> Result<Vec<Crop>> {
        aligned::check(self.rows.iter().map(|row| &*row.path), alignment)?;
        parallel::each(
            parallel::cores(),
            self.rows.len(),
            || Ok(()),
            |(), at| aligned::read_crop(&self.rows[at].path, alignment.side),
        )
    }

    /// Checks whether the data set is suitable for training; returns warnings.
    ///
    /// # Errors
    /// If there are fewer than two people.
    pub fn check(&self) -> Result<Vec<String>> {
        let mut photos = vec![0usize; self.people.len()];
        for row in &self.rows {
            if let Some(count) = photos.get_mut(row.label) {
                *count += 1;
            }
        }
        let with = |wanted: usize| -> Vec<&str> {
            let people = self.people.iter().zip(&photos);
            people.filter(|(_, count)| **count == wanted).map(|(name, _)| name.as_str()).collect()
        };
        let present = photos.iter().filter(|count| **count > 0).count();
        if present < 2 {
            let who = self.rows.first().map_or("nobody", |row| row.person.as_str());
            bail!("the only person is {who}; training needs at least two people");
        }
        let mut told = Vec::new();
        let lone = with(1);
        if !lone.is_empty() {
            told.push(format!(
                "{} with only one photo: {}; variation within a person cannot be learned from \
                 one photo, and none is left for evaluation",
                counted(lone.len(), "person", "people"),
                some_of(&lone)
            ));
        }
        let unused = self.people.len() - present;
        if unused > 0 {
            told.push(format!(
                "{} without photos; number the people from 0 without gaps",
                counted(unused, "label", "labels")
            ));
        }
        Ok(told)
    }
}

impl Listing {
    /// Reads a CSV without looking for its pictures.
    pub fn read(csv: &Path) -> Result<Self> {
        let text = input::read(csv, LARGEST).with_context(|| csv.display().to_string())?;
        let folder = csv.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).with_context(|| csv.display().to_string())
    }

    /// Parses the bytes of a CSV whose paths are relative to `folder`. A UTF-8 byte order
    /// mark is skipped. Faulty lines are collected.
    ///
    /// # Errors
    /// If the header lacks a column.
    pub fn parse(text: &[u8], folder: &Path) -> Result<Self> {
        // Spreadsheets write a byte order mark.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut reader =
            csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text);
        let columns = Columns::of(&reader.headers().context("line 1")?.clone())?;
        let mut listing = Self::default();
        let mut known = Known::default();
        let mut record = csv::StringRecord::new();
        let (mut line, mut counted) = (1, 0);
        loop {
            let from = reader.position().byte() as usize;
            let read = reader.read_record(&mut record);
            // The reader may stand before the end of the last line and before blank lines,
            // which its own line count leaves out. Count them here.
            let blank = |byte: &u8| matches!(byte, b'\r' | b'\n');
            let ahead = text.iter().skip(from).take_while(|byte| blank(byte)).count();
            let passed = text.get(counted..from + ahead).unwrap_or_default();
            line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
            counted = from + ahead;
            let row = match read {
                Ok(false) => return Ok(listing),
                Ok(true) => columns.row(&record, folder).and_then(|row| known.add(row, line)),
                Err(error) => Err(format!("not valid text ({error}); save the file as UTF-8")),
            };
            match row {
                Ok(row) => listing.rows.push((line, row)),
                Err(reason) => listing.faults.push(Fault { line, reason }),
            }
        }
    }
}

/// Indices of the columns.
struct Columns {
    path: usize,
    label: usize,
    person: usize,
    group: Option<usize>,
}

impl Columns {
    fn of(header: &csv::StringRecord) -> Result<Self> {
        let find = |name: &str| header.iter().position(|got| got.eq_ignore_ascii_case(name));
        let (Some(path), Some(label), Some(person)) = (find("path"), find("label"), find("person"))
        else {
            let got = header.iter().collect::<Vec<_>>().join(",");
            bail!(
                "line 1 is {got:?}, expected the header path,label,person or path,label,person,group"
            );
        };
        Ok(Self { path, label, person, group: find("group") })
    }

    fn row(&self, record: &csv::StringRecord, folder: &Path) -> Result<Row, String> {
        let field = |at: usize, name: &str| match record.get(at) {
            None | Some("") => Err(format!("no {name}; every line needs path, label and person")),
            Some(text) => Ok(text),
        };
        let (path, label) = (field(self.path, "path")?, field(self.label, "label")?);
        let label = match label.parse() {
            Ok(label) if label <= MAX_LABEL => label,
            _ => {
                return Err(format!(
                    "label {label:?} is not a whole number from 0 to {MAX_LABEL}; number the people from 0"
                ));
            }
        };
        let group = self.group.and_then(|at| record.get(at)).filter(|group| !group.is_empty());
        Ok(Row {
            // `components` drops `.`. It keeps `..`, which may cross a symbolic link.
            path: folder.join(path).components().collect(),
            label,
            person: field(self.person, "person")?.to_owned(),
            group: group.map(str::to_owned),
        })
    }
}

/// Labels, people and paths of earlier lines, with line numbers.
#[derive(Default)]
struct Known {
    labels: BTreeMap<String, (usize, u64)>,
    people: BTreeMap<usize, (String, u64)>,
    paths: BTreeMap<PathBuf, u64>,
}

impl Known {
    /// Returns the row unless it contradicts or repeats an earlier one.
    fn add(&mut self, row: Row, line: u64) -> Result<Row, String> {
        let Row { label, person, .. } = &row;
        if let Some((other, first)) = self.labels.get(person)
            && other != label
        {
            return Err(format!("{person} has label {label} here and {other} in line {first}"));
        }
        if let Some((other, first)) = self.people.get(label)
            && other != person
        {
            return Err(format!("label {label} is {person} here and {other} in line {first}"));
        }
        match self.paths.entry(row.path.clone()) {
            Entry::Occupied(first) => {
                let (path, first) = (row.path.display(), first.get());
                return Err(format!("{path} is already in line {first}; remove one of them"));
            }
            Entry::Vacant(place) => place.insert(line),
        };
        self.labels.entry(person.clone()).or_insert((*label, line));
        self.people.entry(*label).or_insert_with(|| (person.clone(), line));
        Ok(row)
    }
}

/// Writes rows as a CSV, atomically and with paths relative to its folder. The column
/// `group` is written only if a row has one.
pub fn write(rows: &[Row], csv: &Path) -> Result<()> {
    let named = || csv.display().to_string();
    let folder = csv.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let folder = real(folder);
    let groups = rows.iter().any(|row| row.group.is_some());
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = ["path", "label", "person", "group"];
    writer.write_record(&header[..if groups { 4 } else { 3 }]).with_context(named)?;
    for row in rows {
        let path = match (row.path.parent(), row.path.file_name()) {
            (Some(parent), Some(name)) => relative(&real(parent), &folder).join(name),
            _ => row.path.clone(),
        };
        let Some(path) = path.to_str() else {
            bail!("{}: the name is not UTF-8, which a CSV cannot hold; rename it", path.display());
        };
        let label = row.label.to_string();
        let fields = [path, &label, &row.person, row.group.as_deref().unwrap_or_default()];
        writer.write_record(&fields[..if groups { 4 } else { 3 }]).with_context(named)?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error()).with_context(named)?;
    files::replace(csv, &bytes)
}

/// Names by label; "" for a label without rows.
pub fn people_of(rows: &[Row]) -> Vec<String> {
    let count = rows.iter().map(|row| row.label + 1).max().unwrap_or(0);
    let mut people = vec![String::new(); count];
    for row in rows {
        people[row.label].clone_from(&row.person);
    }
    people
}

/// Formats the first few faults, one per line, with file name and line number.
pub fn told(csv: &Path, faults: &[Fault]) -> String {
    let first = faults.iter().take(FAULTS_TOLD);
    let mut lines: Vec<String> = first
        .map(|fault| format!("{} line {}: {}", csv.display(), fault.line, fault.reason))
        .collect();
    if faults.len() > FAULTS_TOLD {
        lines.push(format!("and {} more", faults.len() - FAULTS_TOLD));
    }
    lines.join("\n")
}

/// A count with its noun: "1 person", "2 people".
pub fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// The first few names, and how many more there are.
pub fn some_of(names: &[&str]) -> String {
    let more = names.len().saturating_sub(FAULTS_TOLD);
    let first = names[..names.len() - more].join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

/// Adds a row to a digest. Each text is preceded by its length, so that field boundaries
/// count.
fn add(digest: &mut Sha256, row: &Row, file: &[u8]) {
    digest.update((row.label as u64).to_le_bytes());
    for text in [&row.person, row.group.as_ref().unwrap_or(&String::new())] {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    digest.update(file);
}

/// The folder with symbolic links resolved, because `..` behind a link leads elsewhere. For
/// a missing folder, the absolute path.
fn real(folder: &Path) -> PathBuf {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    folder.canonicalize().or_else(|_| std::path::absolute(folder)).unwrap_or(folder.to_owned())
}

/// The relative path from the folder `from` to the folder `to`, both absolute.
fn relative(to: &Path, from: &Path) -> PathBuf {
    let (mut to_parts, mut from_parts) = (to.components().peekable(), from.components().peekable());
    while to_parts.peek().is_some() && to_parts.peek() == from_parts.peek() {
        to_parts.next();
        from_parts.next();
    }
    from_parts.map(|_| Component::ParentDir).chain(to_parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch::vision::frame::Frame;
    use facelatch::vision::picture;

    fn faults(text: &str) -> Vec<(u64, String)> {
        let listing = Listing::parse(text.as_bytes(), Path::new("data")).expect("a header");
        listing.faults.into_iter().map(|fault| (fault.line, fault.reason)).collect()
    }

    fn crop_file(folder: &Path, name: &str, side: usize) -> PathBuf {
        let path = folder.join(name);
        let grey = name.len() as u8;
        let png = picture::encode_png(&Frame::filled(side, side, [grey; 3])).expect("a PNG");
        files::replace(&path, &png).expect("written");
        path
    }

    fn row(path: PathBuf, label: usize, person: &str) -> Row {
        Row { path, label, person: person.to_owned(), group: None }
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let text =
            "\u{feff}Person, Label,group,path\r\n\"Ann, B.\",1,old,./a.png\r\n\r\nBo,0,,b/c.png";
        let listing = Listing::parse(text.as_bytes(), Path::new("data")).expect("a header");
        assert!(listing.faults.is_empty(), "{:?}", listing.faults);
        let group = Some("old".to_owned());
        let ann = Row { group, ..row("data/a.png".into(), 1, "Ann, B.") };
        assert_eq!(listing.rows, [(2, ann), (4, row("data/b/c.png".into(), 0, "Bo"))]);
        let people = people_of(&listing.rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
        assert_eq!(people, ["Bo", "Ann, B."]);
    }

    #[test]
    fn a_bad_line_is_named_and_costs_only_itself() {
        let text = "path,label,person\na.png,0,Ann\nb.png,x,Bo\nc.png,1\nd.png,-1,Bo\n\
                    e.png,99999999,Bo\na.png,0,Ann\nf.png,1,Ann\ng.png,0,Bo\n";
        let faults = faults(text);
        let expected = [
            (3, "label \"x\" is not a whole number"),
            (4, "no person"),
            (5, "label \"-1\" is not a whole number"),
            (6, "label \"99999999\" is not a whole number"),
            (7, "data/a.png is already in line 2"),
            (8, "Ann has label 1 here and 0 in line 2"),
            (9, "label 0 is Bo here and Ann in line 2"),
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for ((line, reason), (expected_line, part)) in faults.iter().zip(expected) {
            assert!(*line == expected_line && reason.contains(part), "{line}: {reason}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_line() {
        let text = b"path,label,person\na.png,0,Ann\nb.png,1,B\xf6\nc.png,2,Cy\n";
        let listing = Listing::parse(text, Path::new("")).expect("a header");
        assert_eq!(listing.rows.len(), 2);
        assert_eq!(listing.faults[0].line, 3);
        assert!(listing.faults[0].reason.contains("UTF-8"), "{:?}", listing.faults);
    }

    #[test]
    fn a_file_without_the_header_is_refused() {
        for text in ["", "a.png,0,Ann\n", "path,label\n"] {
            let error = Listing::parse(text.as_bytes(), Path::new("")).expect_err("no header");
            assert!(error.to_string().contains("path,label,person"), "{error}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_keeps_its_digest_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = vec![
            row(crop_file(folder.path(), "crops/Ann/a, b.png", 112), 0, "Ann"),
            Row {
                group: Some("night".into()),
                ..row(crop_file(folder.path(), "crops/Bo/c.png", 112), 1, "Bo")
            },
        ];
        write(&rows, &folder.path().join("labels.csv")).expect("written");
        let here = Dataset::read(&folder.path().join("labels.csv")).expect("a data set");
        assert_eq!(here.rows, rows);
        here.write(&folder.path().join("parts/one/train.csv")).expect("written");
        let text = std::fs::read_to_string(folder.path().join("parts/one/train.csv"));
        assert!(text.expect("text").contains("\"../../crops/Ann/a, b.png\",0,Ann,\n"));
        let there = Dataset::read(&folder.path().join("parts/one/train.csv")).expect("a data set");
        assert_eq!((there.people.clone(), &there.digest), (here.people, &here.digest));
        assert_eq!(there.crops(&Alignment::ARCFACE).expect("crops").len(), 2);
        crop_file(folder.path(), "crops/Bo/c.png", 111);
        let error = there.crops(&Alignment::ARCFACE).expect_err("too small").to_string();
        assert!(error.contains("c.png: 111x111 pixels, expected an aligned face"), "{error}");
        let changed = Dataset::read(&folder.path().join("labels.csv")).expect("a data set");
        assert_ne!(changed.digest, here.digest);
    }

    #[test]
    fn a_missing_picture_is_named_with_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        crop_file(folder.path(), "a.png", 112);
        let csv = folder.path().join("labels.csv");
        let text = "path,label,person\na.png,0,Ann\nb.png,0,Ann\nc.png,x,Bo\n";
        std::fs::write(&csv, text).expect("written");
        let error = Dataset::read(&csv).expect_err("a missing picture").to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines[0].contains("labels.csv line 3: ") && lines[0].contains("b.png"), "{error}");
        assert!(lines[1].contains("labels.csv line 4: label \"x\""), "{error}");
    }

    #[test]
    fn training_asks_for_two_people_and_is_told_of_a_lone_photo() {
        let set =
            |rows: Vec<Row>| Dataset { people: people_of(&rows), rows, digest: String::new() };
        let one = set(vec![row("a".into(), 0, "Ann"), row("b".into(), 0, "Ann")]);
        let error = one.check().expect_err("one person").to_string();
        assert!(error.contains("the only person is Ann"), "{error}");
        let mut rows = vec![row("a".into(), 0, "Ann"), row("b".into(), 0, "Ann")];
        rows.push(row("c".into(), 2, "Bo"));
        let told = set(rows).check().expect("two people");
        assert!(told[0].contains("1 person with only one photo: Bo"), "{told:?}");
        assert!(told[1].contains("1 label without photos"), "{told:?}");
        assert!(set(vec![]).check().is_err());
    }
}
