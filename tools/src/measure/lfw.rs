//! Labeled Faces in the Wild (Huang et al. 2007): people, photos and the pairs
//! files of its protocol.

use crate::measure::metrics::Scored;
use anyhow::{Context, Result, bail};
use facelatch::files::{self as input, LARGEST};
use facelatch::vision::embed::Embedding;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A photo, identified by person and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Photo {
    /// Name of the person, with underscores for spaces.
    pub person: String,
    /// Number of the photo among those of the person, from 1.
    pub number: u32,
}

impl Photo {
    /// Path of the photo: `images/NAME/NAME_0001.jpg`.
    pub fn path(&self, images: &Path) -> PathBuf {
        images.join(&self.person).join(format!("{}_{:04}.jpg", self.person, self.number))
    }
}

/// Two photos, and whether they show the same person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// First photo.
    pub first: Photo,
    /// Second photo.
    pub second: Photo,
    /// Whether both show the same person.
    pub genuine: bool,
    /// Fold of the file, from 0.
    pub fold: usize,
}

/// A pairs file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Pairs, in the file's order.
    pub pairs: Vec<Pair>,
    /// Number of folds for cross-validation.
    pub folds: usize,
    /// Malformed rows: line number, from 1, and the fault.
    pub bad_rows: Vec<(usize, String)>,
}

impl Pairs {
    /// Parses LFW's format. The first line gives the number of folds and the number of
    /// pairs of each kind per fold; a single number is the pairs of one fold. Rows of
    /// tab-separated `NAME i j` (genuine) and `NAME1 i NAME2 j` (impostor) follow.
    /// Malformed rows go to `bad_rows`.
    ///
    /// # Errors
    /// If the first line is malformed.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        let header = lines.next().map(|(_, line)| line).unwrap_or_default();
        let numbers: Option<Vec<usize>> =
            header.split_whitespace().map(|word| word.parse().ok()).collect();
        let (folds, a_kind) = match numbers.as_deref() {
            Some(&[pairs]) => (1, pairs),
            Some(&[folds, pairs]) => (folds, pairs),
            _ => bail!(
                "line 1 is {header:?}, expected the number of folds and the number of pairs of each kind per fold"
            ),
        };
        if folds == 0 || a_kind == 0 {
            bail!("line 1 is {header:?}, expected at least one fold and one pair");
        }
        let mut pairs = Self { folds, ..Self::default() };
        let rows = lines.filter(|(_, line)| !line.trim().is_empty());
        for (row, (index, line)) in rows.enumerate() {
            let fold = (row / a_kind.saturating_mul(2)).min(folds - 1);
            match parse_row(line, fold) {
                Some(pair) => pairs.pairs.push(pair),
                None => pairs.bad_rows.push((
                    index + 1,
                    format!("{line:?} is neither NAME i j nor NAME1 i NAME2 j, separated by tabs"),
                )),
            }
        }
        Ok(pairs)
    }

    /// Reads a pairs file; see [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = input::read_text(path, LARGEST).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Scores each pair; the similarity is `None` unless both photos have an embedding.
    pub fn scored<'e>(&self, embedding: impl Fn(&Photo) -> Option<&'e Embedding>) -> Vec<Scored> {
        let scored = |pair: &Pair| Scored {
            similarity: embedding(&pair.first)
                .zip(embedding(&pair.second))
                .map(|(a, b)| a.similarity(b)),
            genuine: pair.genuine,
            fold: pair.fold,
        };
        self.pairs.iter().map(scored).collect()
    }

    /// All photos named, without repetition, sorted.
    pub fn photos(&self) -> Vec<Photo> {
        let photos: BTreeSet<&Photo> =
            self.pairs.iter().flat_map(|pair| [&pair.first, &pair.second]).collect();
        photos.into_iter().cloned().collect()
    }
}

fn parse_row(line: &str, fold: usize) -> Option<Pair> {
    let photo = |person: &str, number: &str| {
        let plain = !person.is_empty() && !person.contains(['/', '\\']) && person != "..";
        plain.then_some(Photo { person: person.to_owned(), number: number.trim().parse().ok()? })
    };
    match line.split('\t').collect::<Vec<_>>()[..] {
        [name, i, j] => {
            Some(Pair { first: photo(name, i)?, second: photo(name, j)?, genuine: true, fold })
        }
        [name1, i, name2, j] => {
            Some(Pair { first: photo(name1, i)?, second: photo(name2, j)?, genuine: false, fold })
        }
        _ => None,
    }
}

/// All photos of a person in the folder `images`, sorted by number.
pub fn photos_of(images: &Path, person: &str) -> Result<Vec<Photo>> {
    let folder = images.join(person);
    let mut photos = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(person)?.strip_prefix('_')?.strip_suffix(".jpg"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            photos.push(Photo { person: person.to_owned(), number });
        }
    }
    photos.sort();
    Ok(photos)
}

/// All people named in a pairs file.
pub fn people_of(pairs: &Pairs) -> BTreeSet<String> {
    pairs.photos().into_iter().map(|photo| photo.person).collect()
}

/// The names in a file with one name per line; blank lines are ignored.
pub fn names_in(path: &Path) -> Result<BTreeSet<String>> {
    let names = input::read_text(path, LARGEST).with_context(|| path.display().to_string())?;
    Ok(names.lines().map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect())
}

/// All photos of these people in the folder `images`, sorted by person and number.
pub fn all_photos(images: &Path, people: &BTreeSet<String>) -> Result<Vec<Photo>> {
    let mut photos = Vec::new();
    for person in people {
        photos.append(&mut photos_of(images, person)?);
    }
    Ok(photos)
}

/// Checks that no person is in two parts. Each part comes with its name or option, for the
/// message.
pub fn check_apart(parts: &[(&str, BTreeSet<String>)]) -> Result<()> {
    for (at, (first, people)) in parts.iter().enumerate() {
        for (second, others) in &parts[at + 1..] {
            if let Some(person) = people.intersection(others).next() {
                bail!(
                    "{person} is in both {first} and {second}; remove this person from one of them"
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_fall_into_folds_and_bad_rows_are_kept_aside() {
        let text = "2\t1\nA_B\t1\t2\nA_B\t1\tC_D\t3\nnonsense\nE\t4\t5\n";
        let pairs = Pairs::parse(text).expect("a pairs file");
        assert_eq!(pairs.pairs.len(), 3);
        assert_eq!(pairs.pairs[0].fold, 0);
        assert_eq!(pairs.pairs[2].fold, 1);
        assert!(!pairs.pairs[1].genuine);
        assert_eq!(pairs.bad_rows[0].0, 4);
        assert_eq!(pairs.photos().len(), 5);
        let path = pairs.pairs[0].first.path(Path::new("images"));
        assert_eq!(path, Path::new("images/A_B/A_B_0001.jpg"));
    }

    #[test]
    fn a_file_without_a_header_is_refused() {
        assert!(Pairs::parse("A\t1\t2\n").is_err());
        assert!(Pairs::parse("").is_err());
        assert!(Pairs::parse("0\t5\n").is_err());
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let pairs = Pairs::parse("1\t1\n../x\t1\t2\n..\t1\t2\n").expect("a pairs file");
        assert!(pairs.pairs.is_empty());
    }
}
