//! The faces a training learns from and those it is judged on, in memory.

use crate::dataset::Dataset;
use anyhow::{Context, Result, bail};
use facelatch::vision::align::Crop;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Names told in one message.
const NAMED: usize = 5;

/// Faces, and whose they are.
#[derive(Clone, Debug)]
pub struct Faces {
    /// Aligned.
    pub crops: Arc<Vec<Crop>>,
    /// Number of the person, from 0.
    pub labels: Arc<Vec<i64>>,
    /// What each is called where something is wrong with it.
    pub names: Vec<String>,
    /// SHA-256 of the data set.
    pub digest: String,
}

/// What a training sees.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// Names by label; "" where nobody has it.
    pub people: Vec<String>,
    /// Learned from.
    pub train: Faces,
    /// Judged on: with the labels above where all of its people are among them.
    pub validation: Faces,
    /// Whether they are.
    pub same_people: bool,
    /// What should be told but stops nothing.
    pub warnings: Vec<String>,
}

impl TrainingData {
    /// Reads two data sets.
    pub fn read(train: &Path, validation: &Path) -> Result<Self> {
        let read = |csv: &Path| -> Result<(Dataset, Vec<Crop>)> {
            let data = Dataset::read(csv)?;
            let crops = data.crops()?;
            Ok((data, crops))
        };
        let [train_csv, validation_csv] = [train, validation];
        let (train, crops) = read(train)?;
        let (validation, validation_crops) = read(validation)?;
        Self::new((train, crops), (validation, validation_crops))
            .with_context(|| format!("{} and {}", train_csv.display(), validation_csv.display()))
    }

    /// From data sets and their crops, in the rows' order.
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
                "{} of {} validation people are learned from as well ({}): pairs of them look \
                 better than a door will; split by person",
                both.len(),
                others.len(),
                named(&both)
            ));
        }
        let own = |row: &crate::dataset::Row| row.label as i64;
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

impl Faces {
    fn new((data, crops): (Dataset, Vec<Crop>), labels: Vec<i64>) -> Result<Self> {
        if crops.len() != labels.len() {
            bail!("{} faces with {} labels", crops.len(), labels.len());
        }
        Ok(Self {
            crops: Arc::new(crops),
            labels: Arc::new(labels),
            names: data.rows.iter().map(|row| row.path.display().to_string()).collect(),
            digest: data.digest,
        })
    }

    /// Names of some of them, for a message.
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
    use crate::dataset::{Row, people_of};
    use crate::student::tests::crop;

    /// Faces of the people named, a crop each that differs a little.
    pub(crate) fn faces(people: &[(&str, usize)], photos: usize) -> (Dataset, Vec<Crop>) {
        let rows: Vec<Row> = people
            .iter()
            .flat_map(|(person, label)| (0..photos).map(move |photo| (person, label, photo)))
            .map(|(person, label, photo)| Row {
                path: format!("{person}/{photo}.png").into(),
                label: *label,
                person: (*person).to_owned(),
                group: None,
            })
            .collect();
        let crops =
            rows.iter().enumerate().map(|(at, row)| crop(row.label * 20 + at % 3)).collect();
        (Dataset { people: people_of(&rows), rows, digest: format!("{photos}") }, crops)
    }

    pub(crate) fn four_people(photos: usize) -> TrainingData {
        let people = [("Ada", 0), ("Grace", 1), ("Hedy", 2), ("Mary", 3)];
        TrainingData::new(faces(&people, photos), faces(&people, 2)).expect("four people")
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
