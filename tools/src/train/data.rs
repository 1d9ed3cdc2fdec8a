//! Training and validation faces, in memory.

use crate::data::dataset::Dataset;
use anyhow::{Context, Result, bail};
use facelatch::models::Alignment;
use facelatch::vision::align::Crop;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Most names listed in one message.
const NAMED: usize = 5;

/// Faces with their labels.
#[derive(Clone, Debug)]
pub struct Faces {
    /// Aligned crops.
    pub crops: Arc<Vec<Crop>>,
    /// Label of each crop's person, from 0.
    pub labels: Arc<Vec<i64>>,
    /// Path of each photo, for messages.
    pub names: Vec<String>,
    /// Group of each photo's person, `None` where the data set has none.
    pub groups: Vec<Option<String>>,
    /// SHA-256 of the data set, hexadecimal.
    pub digest: String,
}

/// The data of a training.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// Names of the people, by label; empty for a label that nobody has.
    pub people: Vec<String>,
    /// Faces to train on.
    pub train: Faces,
    /// Faces to validate on. They have the labels of the training data if all of their
    /// people occur there.
    pub validation: Faces,
    /// Whether all validation people occur in the training data.
    pub same_people: bool,
    /// Problems to report that do not prevent the training.
    pub warnings: Vec<String>,
}

impl TrainingData {
    /// Reads two data sets and their crops. Fails if a file cannot be read, if faces have
    /// another alignment than this one, or if the training data is unusable.
    pub fn read(train: &Path, validation: &Path, alignment: &Alignment) -> Result<Self> {
        let read = |csv: &Path| -> Result<(Dataset, Vec<Crop>)> {
            let data = Dataset::read(csv)?;
            let crops = data.crops(alignment)?;
            Ok((data, crops))
        };
        let [train_csv, validation_csv] = [train, validation];
        let (train, crops) = read(train)?;
        let (validation, validation_crops) = read(validation)?;
        Self::new((train, crops), (validation, validation_crops))
            .with_context(|| format!("{} and {}", train_csv.display(), validation_csv.display()))
    }

    /// Combines data sets with their crops, which are in the order of the rows.
    pub fn new(train: (Dataset, Vec<Crop>), validation: (Dataset, Vec<Crop>)) -> Result<Self> {
        let mut warnings = train.0.check()?;
        let known: BTreeMap<&str, i64> =
            train.0.rows.iter().map(|row| (row.person.as_str(), row.label as i64)).collect();
        let others: Vec<&str> = validation.0.people.iter().map(String::as_str).collect();
        let others: Vec<&str> = others.into_iter().filter(|person| !person.is_empty()).collect();
        let both: Vec<&str> =
            others.iter().copied().filter(|person| known.contains_key(person)).collect();
        let same_people = both.len() == others.len();
        if !same_people && !both.is_empty() {
            warnings.push(format!(
                "{} of {} validation people are also in the training data ({}): their pairs give \
                 better figures than a door will; split by person",
                both.len(),
                others.len(),
                named(&both)
            ));
        }
        let own = |row: &crate::data::dataset::Row| row.label as i64;
        let labels = validation.0.rows.iter();
        let labels: Vec<i64> = if same_people {
            labels.map(|row| known.get(row.person.as_str()).copied().unwrap_or(own(row))).collect()
        } else {
            labels.map(own).collect()
        };
        let people = train.0.people.clone();
        let learned = train.0.rows.iter().map(own).collect();
        Ok(Self {
            people,
            train: Faces::new(train, learned)?,
            validation: Faces::new(validation, labels)?,
            same_people,
            warnings,
        })
    }
}

impl TrainingData {
    /// Fails unless all faces have this side, pixels.
    pub fn check_side(&self, side: usize) -> Result<()> {
        for faces in [&self.train, &self.validation] {
            if let Some(at) = faces.crops.iter().position(|crop| crop.side() != side) {
                let has = faces.crops[at].side();
                bail!(
                    "{}: a face of {has}x{has} pixels, and the network takes {side}x{side}; \
                     run facelatch-tools prepare --models with its set again",
                    faces.named(&[at])
                );
            }
        }
        Ok(())
    }
}

impl Faces {
    fn new((data, crops): (Dataset, Vec<Crop>), labels: Vec<i64>) -> Result<Self> {
        if crops.len() != labels.len() {
            bail!("{} faces, but {} labels", crops.len(), labels.len());
        }
        Ok(Self {
            crops: Arc::new(crops),
            labels: Arc::new(labels),
            names: data.rows.iter().map(|row| row.path.display().to_string()).collect(),
            groups: data.rows.iter().map(|row| row.group.clone()).collect(),
            digest: data.digest,
        })
    }

    /// The group of each photo as a number from 0, in the alphabetical order of the groups.
    ///
    /// # Errors
    /// If photos have no group, or all have the same one.
    pub fn group_numbers(&self) -> Result<Vec<i64>> {
        let names: BTreeSet<&String> = self.groups.iter().flatten().collect();
        let without = self.groups.iter().filter(|group| group.is_none()).count();
        if without > 0 || names.len() < 2 {
            bail!(
                "--balanced-groups: {without} of {} training photos have no group, and there are \
                 {} groups; the column group must name one of at least two for every photo",
                self.groups.len(),
                names.len()
            );
        }
        let numbers: BTreeMap<&String, i64> = names.into_iter().zip(0..).collect();
        Ok(self.groups.iter().flatten().filter_map(|group| numbers.get(group).copied()).collect())
    }

    /// Paths of some of the faces, for a message.
    pub fn named(&self, indices: &[usize]) -> String {
        let names: Vec<&str> =
            indices.iter().filter_map(|at| self.names.get(*at)).map(String::as_str).collect();
        named(&names)
    }
}

/// The first few names, and how many more there are.
fn named(names: &[&str]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::data::dataset::{Row, people_of};
    use crate::networks::mobilefacenet::INPUT_SIDE;
    use crate::train::torch_net::tests::crop_of;

    /// Faces of the named people, with slightly different crops.
    pub(crate) fn faces(people: &[(&str, usize)], photos: usize) -> (Dataset, Vec<Crop>) {
        faces_of(INPUT_SIDE, people, photos)
    }

    fn faces_of(side: usize, people: &[(&str, usize)], photos: usize) -> (Dataset, Vec<Crop>) {
        let rows: Vec<Row> = people
            .iter()
            .flat_map(|(person, label)| (0..photos).map(move |photo| (person, label, photo)))
            .map(|(person, label, photo)| Row {
                path: format!("{person}/{photo}.png").into(),
                label: *label,
                person: (*person).to_owned(),
                group: Some(if *label == 0 { "few" } else { "many" }.to_owned()),
            })
            .collect();
        let crop = |(at, row): (usize, &Row)| crop_of(side, row.label * 20 + at % 3);
        let crops = rows.iter().enumerate().map(crop).collect();
        (Dataset { people: people_of(&rows), rows, digest: format!("{photos}") }, crops)
    }

    pub(crate) fn four_people(photos: usize) -> TrainingData {
        four_people_of(INPUT_SIDE, photos)
    }

    pub(crate) fn four_people_of(side: usize, photos: usize) -> TrainingData {
        let people = [("Ada", 0), ("Grace", 1), ("Hedy", 2), ("Mary", 3)];
        let faces = |photos| faces_of(side, &people, photos);
        TrainingData::new(faces(photos), faces(2)).expect("four people")
    }

    #[test]
    fn groups_are_numbered_and_a_photo_without_one_is_told() {
        let mut faces = four_people(2).train;
        assert_eq!(faces.group_numbers().expect("two groups"), [0, 0, 1, 1, 1, 1, 1, 1]);
        faces.groups[3] = None;
        let error = faces.group_numbers().expect_err("one without").to_string();
        assert!(error.contains("1 of 8 training photos"), "{error}");
        faces.groups = vec![Some("all".to_owned()); 8];
        assert!(faces.group_numbers().is_err());
    }

    #[test]
    fn people_are_the_same_by_name_whatever_their_numbers() {
        let data = TrainingData::new(
            faces(&[("Ada", 0), ("Grace", 1)], 3),
            faces(&[("Grace", 0), ("Ada", 7)], 1),
        )
        .expect("two people");
        assert!(data.same_people);
        assert_eq!(*data.validation.labels, [1, 0]);
        assert_eq!(data.train.labels.len(), 6);
    }

    #[test]
    fn others_keep_their_numbers_and_half_known_ones_are_told() {
        let train = || faces(&[("Ada", 0), ("Grace", 1)], 3);
        let data = TrainingData::new(train(), faces(&[("Hedy", 4)], 2)).expect("others");
        assert!(!data.same_people && data.warnings.is_empty());
        assert_eq!(*data.validation.labels, [4, 4]);
        let data = TrainingData::new(train(), faces(&[("Ada", 0), ("Hedy", 4)], 2)).expect("both");
        assert!(data.warnings[0].contains("1 of 2 validation people"), "{:?}", data.warnings);
    }

    #[test]
    fn one_person_is_refused_and_a_lone_photo_told() {
        let one = faces(&[("Ada", 0)], 3);
        let error = TrainingData::new(one.clone(), one).expect_err("one person").to_string();
        assert!(error.contains("the only person is Ada"), "{error}");
        let two = || faces(&[("Ada", 0), ("Grace", 1)], 1);
        let data = TrainingData::new(two(), two()).expect("two people");
        assert!(data.warnings[0].contains("one photo"), "{:?}", data.warnings);
    }
}
