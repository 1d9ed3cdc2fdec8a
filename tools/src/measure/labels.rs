//! Groups of people from a CSV of labels, for photos named as in LFW.

use crate::data::dataset::{Listing, Row, told};
use crate::measure::lfw::Photo;
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

/// The group of each photo and person in a CSV with `path,label,person,group`. Several such
/// files may divide the same people in several ways, such as by gender and by age.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// Group by person and photo, as in `NAME` and `NAME_0001`.
    photos: BTreeMap<(String, String), String>,
    /// Group by person; `None` if photos of one person have several groups.
    people: BTreeMap<String, Option<String>>,
}

impl Labels {
    /// Reads a CSV. Its pictures are not read and need not exist.
    ///
    /// # Errors
    /// If a line is faulty or none has a group.
    pub fn read(csv: &Path) -> Result<Self> {
        let Listing { rows, faults } = Listing::read(csv)?;
        if !faults.is_empty() {
            bail!("{}", told(csv, &faults));
        }
        let labels = Self::of(rows.into_iter().map(|(_, row)| row));
        if labels.people.is_empty() {
            bail!(
                "{}: no line has a group; name groups in the column `group`, such as women and men",
                csv.display()
            );
        }
        Ok(labels)
    }

    /// The labels in these rows. Rows without a group are left out.
    pub fn of(rows: impl IntoIterator<Item = Row>) -> Self {
        let mut labels = Self::default();
        for Row { path, person, group, .. } in rows {
            let Some(group) = group else { continue };
            let known = labels.people.entry(person.clone()).or_insert_with(|| Some(group.clone()));
            if known.as_ref() != Some(&group) {
                *known = None;
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            labels.photos.insert((person, stem), group);
        }
        labels
    }

    /// The group of a photo: by its file name, or else that of its person.
    pub fn group(&self, photo: &Photo) -> Option<&str> {
        let Photo { person, number } = photo;
        let named = (person.clone(), format!("{person}_{number:04}"));
        let group = self.photos.get(&named);
        group.or_else(|| self.people.get(person)?.as_ref()).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn labels(csv: &str) -> Labels {
        let listing = Listing::parse(csv.as_bytes(), Path::new("labels")).expect("a CSV");
        assert!(listing.faults.is_empty(), "{:?}", listing.faults);
        Labels::of(listing.rows.into_iter().map(|(_, row)| row))
    }

    #[test]
    fn a_photo_has_its_own_group_or_that_of_its_person() {
        let labels = labels(
            "path,label,person,group,born\n\
             images/A_B/A_B_0001.jpg,0,A_B,women,1950\n\
             images/C/C_0001.jpg,1,C,young,\n\
             images/C/C_0002.jpg,1,C,old,\n\
             images/D/D_0001.jpg,2,D,,\n",
        );
        let group = |person: &str, number: u32| {
            labels.group(&Photo { person: person.to_owned(), number }).map(str::to_owned)
        };
        assert_eq!(group("A_B", 1).as_deref(), Some("women"));
        assert_eq!(group("A_B", 7).as_deref(), Some("women"), "as in her other photos");
        assert_eq!(group("C", 2).as_deref(), Some("old"));
        assert_eq!(group("C", 3), None, "the person is in two groups");
        assert_eq!(group("D", 1), None);
        assert_eq!(group("E", 1), None);
    }

    #[test]
    fn labels_without_groups_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let csv: PathBuf = folder.path().join("labels.csv");
        std::fs::write(&csv, "path,label,person\na.jpg,0,A\n").expect("written");
        let error = Labels::read(&csv).expect_err("no groups").to_string();
        assert!(error.contains("labels.csv") && error.contains("column `group`"), "{error}");
        std::fs::write(&csv, "path,label,person,group\na.jpg,x,A,women\n").expect("written");
        assert!(Labels::read(&csv).is_err());
    }
}
