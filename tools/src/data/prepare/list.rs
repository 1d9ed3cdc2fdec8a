//! Lists the photos with their people and the file names of their crops.

use crate::data::dataset::{Listing, Row};
use anyhow::{Result, bail};
use facelatch::files::{self as input, LARGEST};
use facelatch::vision::picture;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// A photo to process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    /// Path of the file.
    pub file: PathBuf,
    /// Name in reports: the path relative to the folder of photos.
    pub name: String,
    /// Name of the person.
    pub person: String,
    /// Label of the person, from 0, if a CSV gave one.
    pub label: Option<usize>,
    /// Group for separate evaluation figures, such as age or camera.
    pub group: Option<String>,
    /// Line of the CSV that lists the photo, for error messages.
    line: Option<String>,
    /// Subfolder for its crops and keypoints.
    pub folder: PathBuf,
    /// File name of its crops and keypoints without extension; unique in `folder`.
    pub stem: String,
}

/// A photo or CSV line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Name of the photo, or the CSV file and line.
    pub photo: String,
    /// The fault, naming the file or line.
    pub reason: String,
}

/// The photos found, unusable entries, and other files.
#[derive(Debug, Default)]
pub struct Found {
    /// Photos, sorted by name or in the CSV's order.
    pub photos: Vec<Photo>,
    /// Files and CSV lines that cannot be used.
    pub unreadable: Vec<Unread>,
    /// Number of files with another extension than a photo's, by lowercase extension.
    pub other_files: BTreeMap<String, usize>,
    /// Names of people that look alike, in pairs, as the caller found them.
    pub look_alikes: Vec<[String; 2]>,
}

impl Photo {
    /// Reports this photo as unreadable, with its CSV line if it has one.
    pub fn unread(&self, reason: String) -> Unread {
        let reason = match &self.line {
            Some(line) => format!("{line}: {reason}"),
            None => reason,
        };
        Unread { photo: self.name.clone(), reason }
    }
}

impl Found {
    /// The names of all people, sorted, each once.
    pub fn people(&self) -> BTreeSet<&str> {
        self.photos.iter().map(|photo| photo.person.as_str()).collect()
    }

    /// Lists the photos below `root/PERSON/`. Symbolic links are followed; hidden files and
    /// folders are ignored. Unusable entries go to `unreadable`.
    ///
    /// # Errors
    /// If `root` is not a folder.
    pub fn in_folders(root: &Path, every_face: bool) -> Result<Self> {
        if !root.is_dir() {
            bail!(
                "{}: not a folder; name a folder with one folder of photos per person",
                root.display()
            );
        }
        let mut found = Self::default();
        let hidden = |entry: &DirEntry| {
            entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".")
        };
        let entries = WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter();
        for entry in entries.filter_entry(|entry| !hidden(entry)) {
            match entry {
                Ok(entry) if entry.file_type().is_file() => found.add(root, entry.path()),
                Ok(_) => {}
                Err(error) => {
                    let photo = error.path().unwrap_or(root).display().to_string();
                    let reason = match (error.loop_ancestor(), error.io_error()) {
                        (Some(above), _) => {
                            format!("links back to {}; remove the link", above.display())
                        }
                        (None, Some(reason)) => reason.to_string(),
                        (None, None) => error.to_string(),
                    };
                    let reason = format!("{photo}: {reason}");
                    found.unreadable.push(Unread { photo, reason });
                }
            }
        }
        name_apart(&mut found.photos, every_face);
        Ok(found)
    }

    fn add(&mut self, root: &Path, file: &Path) {
        let inside = file.strip_prefix(root).unwrap_or(file);
        if !picture::looks_like_a_picture(file) {
            let ending = file.extension().map(|ending| ending.to_string_lossy().to_lowercase());
            *self.other_files.entry(ending.unwrap_or_default()).or_default() += 1;
            return;
        }
        let mut unread = |reason: &str| {
            let photo = inside.display().to_string();
            let reason = format!("{}: {reason}", file.display());
            self.unreadable.push(Unread { photo, reason });
        };
        let (Some(name), Some(stem)) =
            (inside.to_str(), file.file_stem().and_then(|stem| stem.to_str()))
        else {
            return unread("the name is not UTF-8, which a CSV cannot hold; rename it");
        };
        let mut folders = inside.parent().into_iter().flat_map(Path::components);
        let Some(Component::Normal(person)) = folders.next() else {
            return unread(
                "not in a person's folder; move it into a folder named after the person",
            );
        };
        self.photos.push(Photo {
            file: file.to_owned(),
            name: name.to_owned(),
            person: person.to_string_lossy().into_owned(),
            label: None,
            group: None,
            line: None,
            folder: inside.parent().unwrap_or(Path::new("")).to_owned(),
            stem: stem.to_owned(),
        });
    }

    /// Lists the photos of a CSV. Paths are relative to `root` or, without it, to the CSV's
    /// folder. Faulty lines go to `unreadable`.
    ///
    /// # Errors
    /// If the CSV cannot be read or lacks the header.
    pub fn in_csv(csv: &Path, root: Option<&Path>, every_face: bool) -> Result<Self> {
        let root = root.unwrap_or(csv.parent().unwrap_or(Path::new("")));
        let text = input::read(csv, LARGEST);
        let listing = text.map_err(anyhow::Error::from).and_then(|t| Listing::parse(&t, root));
        let listing = listing.map_err(|error| error.context(csv.display().to_string()))?;
        let line = |line: u64| format!("{} line {line}", csv.display());
        let mut found = Self::default();
        for fault in listing.faults {
            let photo = line(fault.line);
            found.unreadable.push(Unread { reason: format!("{photo}: {}", fault.reason), photo });
        }
        for (at, Row { path, label, person, group }) in listing.rows {
            let inside = path.strip_prefix(root).unwrap_or(&path);
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.photos.push(Photo {
                name: inside.display().to_string(),
                folder: folder_of(&person).into(),
                line: Some(line(at)),
                label: Some(label),
                file: path,
                person,
                group,
                stem,
            });
        }
        name_apart(&mut found.photos, every_face);
        Ok(found)
    }
}

/// Folder name for a person. It cannot lead out of the data set, whatever name a CSV gives.
fn folder_of(person: &str) -> String {
    let plain = |c: char| if c.is_control() || "/\\:".contains(c) { '_' } else { c };
    let name: String = person.chars().map(plain).collect();
    if name.is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

/// Makes each photo's stem unique. `a.png` next to `a.jpg` keeps its extension as part of
/// the stem, and so does `a-2.jpg` if `a-2` would be the second face of `a.jpg`.
fn name_apart(photos: &mut [Photo], every_face: bool) {
    let file_name =
        |photo: &Photo| photo.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: BTreeSet<(PathBuf, String)> = photos
        .iter()
        .flat_map(|photo| [photo.stem.clone(), file_name(photo)].map(|n| (photo.folder.clone(), n)))
        .collect();
    let mut taken = BTreeSet::new();
    for photo in photos {
        let of_another = |stem: &str| {
            let Some((base, number)) = stem.rsplit_once('-') else { return false };
            let counts = number.parse::<usize>().is_ok_and(|number| number >= 2);
            every_face && counts && names.contains(&(photo.folder.clone(), base.to_owned()))
        };
        let is_taken = |stem: &str, taken: &BTreeSet<_>| {
            taken.contains(&(photo.folder.clone(), stem.to_owned()))
        };
        let mut stem = photo.stem.clone();
        if of_another(&stem) || is_taken(&stem, &taken) {
            stem = file_name(photo);
        }
        while of_another(&stem) || is_taken(&stem, &taken) {
            stem.push('_');
        }
        taken.insert((photo.folder.clone(), stem.clone()));
        photo.stem = stem;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            crate::files::replace(&folder.path().join(file), b"x").expect("written");
        }
        folder
    }

    #[test]
    fn the_first_folder_is_the_person_and_photos_keep_their_sub_folders() {
        let files =
            ["Bo/b.JPG", "Ann/2020/a.png", "lone.jpg", "Ann/notes.txt", ".git/c.jpg", "Bo/.d.jpg"];
        let folder = folders(&files);
        let found = Found::in_folders(folder.path(), false).expect("a folder");
        let told: Vec<_> = found
            .photos
            .iter()
            .map(|photo| (photo.name.as_str(), photo.person.as_str(), photo.folder.to_str()))
            .collect();
        assert_eq!(
            told,
            [("Ann/2020/a.png", "Ann", Some("Ann/2020")), ("Bo/b.JPG", "Bo", Some("Bo"))]
        );
        assert_eq!(found.other_files, BTreeMap::from([("txt".to_owned(), 1)]));
        assert_eq!(found.unreadable.len(), 1);
        assert!(found.unreadable[0].reason.contains("not in a person's folder"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_unless_they_lead_nowhere_or_back() {
        let folder = folders(&["Ann/a.jpg", "elsewhere.d/b.jpg"]);
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, folder.path().join(name)).expect("a link");
        };
        link("../elsewhere.d", "Ann/more");
        link("nowhere", "Ann/gone.jpg");
        link("..", "Ann/back");
        let found = Found::in_folders(folder.path(), false).expect("a folder");
        assert!(found.photos.iter().any(|photo| photo.name == "Ann/more/b.jpg"));
        let reasons: Vec<&str> = found.unreadable.iter().map(|u| u.reason.as_str()).collect();
        assert_eq!(reasons.len(), 2);
        assert!(reasons[0].contains("Ann/back: links back to"), "{reasons:?}");
        assert!(reasons[1].contains("Ann/gone.jpg: No such file"), "{reasons:?}");
    }

    #[test]
    fn no_two_photos_write_to_one_file() {
        let files = ["A/a.jpg", "A/a.png", "A/a-2.jpg", "A/a-b.jpg", "A/a.jpg.png", "A/c-2.jpg"];
        let folder = folders(&files);
        let stems = |every_face| -> Vec<String> {
            let found = Found::in_folders(folder.path(), every_face).expect("a folder");
            found.photos.into_iter().map(|photo| photo.stem).collect()
        };
        assert_eq!(stems(false), ["a-2", "a-b", "a", "a.jpg", "a.png", "c-2"]);
        assert_eq!(stems(true), ["a-2.jpg", "a-b", "a", "a.jpg", "a.png", "c-2"]);
    }

    #[test]
    fn somebody_elses_csv_cannot_lead_out_of_the_data_set() {
        for (person, folder) in [("..", "_.."), ("../x", "_.._x"), ("A B", "A B"), ("/", "_")] {
            assert_eq!(folder_of(person), folder);
        }
        let folder = folders(&["photos/a.jpg"]);
        let csv = folder.path().join("labels.csv");
        let text = "path,label,person\nphotos/a.jpg,7,../../Ann\nphotos/b.jpg,one,Bo\n";
        std::fs::write(&csv, text).expect("written");
        let found = Found::in_csv(&csv, None, false).expect("a CSV");
        assert_eq!(found.photos[0].folder, Path::new("_.._.._Ann"));
        assert_eq!(
            (found.photos[0].label, found.photos[0].name.as_str()),
            (Some(7), "photos/a.jpg")
        );
        assert!(found.unreadable[0].photo.ends_with("labels.csv line 3"));
    }
}
