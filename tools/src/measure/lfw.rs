//! Labeled Faces in the Wild (Huang et al. 2007): people, photos and the pairs
//! files of its protocol.

use crate::measure::metrics::Scored;
use anyhow::{Context, Result, bail};
use facelatch::vision::embed::Embedding;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A photo: whose, and which of theirs (from 1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Photo {
    /// Name of the person, underscores for spaces.
    pub person: String,
    /// Number of the photo.
    pub number: u32,
}

impl Photo {
    /// `images/NAME/NAME_0001.jpg`
    pub fn path(&self, images: &Path) -> PathBuf {
        images.join(&self.person).join(format!("{}_{:04}.jpg", self.person, self.number))
    }
}

/// Two photos and whether they show one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// One.
    pub first: Photo,
    /// The other.
    pub second: Photo,
    /// Whether both are of the same person.
    pub genuine: bool,
    /// Which fold of the file, from 0.
    pub fold: usize,
}

/// A pairs file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// In the file's order.
    pub pairs: Vec<Pair>,
    /// Number of folds.
    pub folds: usize,
    /// Rows that are no pair: line number and what is wrong with it.
    pub bad_rows: Vec<(usize, String)>,
}

impl Pairs {
    /// Reads the official format: folds and pairs of each kind a fold in the
    /// first line (a lone number is pairs, of one fold), then `NAME i j` and
    /// `NAME1 i NAME2 j`, separated by tabs. Bad rows are kept aside.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        let header = lines.next().map(|(_, line)| line).unwrap_or_default();
        let numbers: Option<Vec<usize>> =
            header.split_whitespace().map(|word| word.parse().ok()).collect();
        let (folds, a_kind) = match numbers.as_deref() {
            Some(&[pairs]) => (1, pairs),
            Some(&[folds, pairs]) => (folds, pairs),
            _ => bail!(
                "line 1 is {header:?}, expected the number of folds and of pairs of each kind a fold"
            ),
        };
        if folds == 0 || a_kind == 0 {
            bail!("line 1 is {header:?}: there must be at least one fold and one pair");
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

    /// Reads a pairs file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// The similarity of each pair, where both photos have an embedding.
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

    /// Every photo named, once, sorted.
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

/// All photos of a person on disk, in order.
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

/// Everybody in a pairs file.
pub fn people_of(pairs: &Pairs) -> BTreeSet<String> {
    pairs.photos().into_iter().map(|photo| photo.person).collect()
}

/// The names of a file with one a line.
pub fn names_in(path: &Path) -> Result<BTreeSet<String>> {
    let names = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(names.lines().map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect())
}

/// All photos of these people, in order.
pub fn all_photos(images: &Path, people: &BTreeSet<String>) -> Result<Vec<Photo>> {
    let mut photos = Vec::new();
    for person in people {
        photos.append(&mut photos_of(images, person)?);
    }
    Ok(photos)
}

/// Refuses people who are in two parts; each part has the name of its option.
pub fn check_apart(parts: &[(&str, BTreeSet<String>)]) -> Result<()> {
    for (at, (first, people)) in parts.iter().enumerate() {
        for (second, others) in &parts[at + 1..] {
            if let Some(person) = people.intersection(others).next() {
                bail!("{person} is in both {first} and {second}; nobody may be in two parts");
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
