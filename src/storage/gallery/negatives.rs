//! EDGE: negatives, views of people who got in by mistake. They are templates and crops of
//! the number [`NEGATIVES`], which no person has; so they are sealed, rotated, re-embedded and
//! backed up like those of people.

use super::error::{StoreError, error};
use super::export::Export;
use super::limits::{Lengths, MOST_NEGATIVES};
use super::tables::{
    CROPS, Edit, NEGATIVES, PictureRecord, TEMPLATES, TemplateRecord, person_of, put,
};
use super::{NewTemplate, Store, now};
use std::collections::BTreeSet;

/// Keys of all negatives.
const KEYS: std::ops::RangeInclusive<u64> = 0..=0xffff_ffff;

/// A negative in the gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negative {
    /// Its number: the Unix time of the report in seconds, or the next free one.
    pub number: u32,
    /// Identity of the model of its template.
    pub model: String,
    /// Whether its picture is stored, so that it survives a change of models.
    pub picture: bool,
}

impl Store {
    /// All negatives, the oldest report first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn negatives(&self) -> Result<Vec<Negative>, StoreError> {
        let crops: BTreeSet<u64> = self.keys(CROPS)?.into_iter().collect();
        let mut negatives = Vec::new();
        let read = self.reader().each_in(TEMPLATES, KEYS, |key, record: TemplateRecord| {
            let (number, model) = (key as u32, record.model().to_owned());
            negatives.push(Negative { number, model, picture: crops.contains(&key) });
            Ok(())
        });
        read.map_err(|fault| error(&self.path, fault))?;
        Ok(negatives)
    }

    /// Adds a negative. Returns its number.
    ///
    /// # Errors
    /// If there are too many, or the change cannot be written.
    pub fn add_negative(&mut self, view: &NewTemplate) -> Result<u32, StoreError> {
        let taken: BTreeSet<u32> = self.negatives()?.iter().map(|one| one.number).collect();
        if taken.len() >= MOST_NEGATIVES {
            return Err(StoreError::ManyNegatives { path: self.path.clone() });
        }
        // A clock beyond the year 2106 starts again.
        let mut number = now() as u32;
        while taken.contains(&number) {
            number = number.wrapping_add(1);
        }
        let key = u64::from(number);
        let made = &view.template;
        let record = self.guard.template_record(made, made.model());
        let mut edits: Vec<Edit> =
            record.map(|record| put(TEMPLATES, key, &record)).into_iter().collect();
        if let Some(picture) = &view.picture {
            let record = PictureRecord::new(picture).map_err(|reason| StoreError::Io {
                path: self.path.clone(),
                reason: reason.to_string(),
            })?;
            edits.push(put(CROPS, key, &record));
        }
        self.commit(edits)?;
        Ok(number)
    }

    /// Removes a negative with its picture.
    ///
    /// # Errors
    /// If there is none with this number, or the change cannot be written.
    pub fn remove_negative(&mut self, number: u32) -> Result<(), StoreError> {
        if !self.negatives()?.iter().any(|one| one.number == number) {
            return Err(StoreError::NoNegative { number });
        }
        let key = u64::from(number);
        let mut edits = vec![Edit { table: TEMPLATES, key, record: None }];
        if self.keys(CROPS)?.contains(&key) {
            edits.push(Edit { table: CROPS, key, record: None });
        }
        self.commit(edits)
    }
}

impl Export {
    /// Whether the negatives of the file are valid.
    ///
    /// # Errors
    /// If one is not, or there are too many.
    pub(super) fn check_negatives(&self, lengths: &mut Lengths) -> Result<(), StoreError> {
        let mut count = 0;
        let mut fault = None;
        let read = self.reader().each_in(TEMPLATES, KEYS, |key, record: TemplateRecord| {
            count += 1;
            fault = fault.take().or_else(|| record.fault(lengths.of(record.model())));
            lengths.add(record.model(), record.length());
            let kept: Option<PictureRecord> = self.reader().one(CROPS, key)?;
            fault = fault.take().or_else(|| kept.and_then(|kept| kept.fault()));
            Ok(())
        });
        read.map_err(|fault| error(self.path(), fault))?;
        if count > MOST_NEGATIVES {
            return Err(StoreError::ManyNegatives { path: self.path().to_owned() });
        }
        match fault {
            None => Ok(()),
            Some(reason) => {
                let (path, name) = (self.path().to_owned(), "a negative".to_owned());
                Err(StoreError::Invalid { path, name, reason })
            }
        }
    }
}

/// Whether a template or crop with this key is a negative's.
pub(super) fn is_negative(key: u64) -> bool {
    person_of(key) == NEGATIVES
}

#[cfg(test)]
mod tests {
    use super::super::tests::{filled, model, names, signed, template};
    use super::*;
    use crate::models::ModelId;
    use crate::storage::gallery::MOST_TEMPLATES;
    use tempfile::TempDir;

    #[test]
    fn negatives_are_loaded_and_are_no_people() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let mut store = Store::open(&path).expect("the gallery");
        let first = store.add_negative(&template(5.0, true)).expect("added");
        let second = store.add_negative(&template(6.0, false)).expect("added");
        assert_ne!(first, second);
        drop(store);
        let mut store = Store::open(&path).expect("the gallery");
        assert_eq!(names(&store), ["Ada", "Grace"]);
        let loaded = store.load(&model(), 4).expect("loaded").gallery;
        assert_eq!((loaded.people(), loaded.templates(), loaded.negatives()), (2, 3, 2));
        assert!(loaded.best(&signed(&model(), 5.0)).expect("somebody").denied());
        store.remove("Ada").expect("removed");
        store.remove_negative(second).expect("removed");
        let gone = store.remove_negative(second);
        assert!(matches!(gone, Err(StoreError::NoNegative { .. })));
        let left = store.negatives().expect("negatives");
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].number, left[0].picture), (first, true));
    }

    #[test]
    fn other_models_embed_their_pictures_again() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let mut store = Store::open(&path).expect("the gallery");
        store.add_negative(&template(5.0, true)).expect("added");
        store.add_negative(&template(6.0, false)).expect("added");
        let other = ModelId::new("2026.12+ef01");
        let embed = |_: &_| Some(signed(&other, 9.0));
        let loaded = store.load_embedding(&other, 4, embed).expect("loaded");
        assert_eq!(loaded.gallery.negatives(), 1);
        // Only people are to be enrolled again.
        assert_eq!((loaded.of_other_models, loaded.to_renew.len()), (1, 1));
        let done = store.re_embed(&other, embed).expect("written");
        assert_eq!((done.renewed, done.without_crop), (3, 1));
        let loaded = store.load(&other, 4).expect("loaded");
        assert_eq!(loaded.gallery.negatives(), 1);
    }

    #[test]
    fn there_may_be_more_of_them_than_templates_of_a_person_but_not_any_number() {
        let folder = TempDir::new().expect("a folder");
        let mut store = Store::open(&filled(&folder)).expect("the gallery");
        let edits: Vec<Edit> = (0..MOST_NEGATIVES as u64)
            .filter_map(|key| {
                let view = signed(&model(), key as f32);
                let record = store.guard.template_record(&view, &model())?;
                Some(put(TEMPLATES, key, &record))
            })
            .collect();
        assert!(edits.len() > MOST_TEMPLATES);
        store.commit(edits).expect("written");
        let loaded = store.load(&model(), 4).expect("loaded").gallery;
        assert_eq!(loaded.negatives(), MOST_NEGATIVES);
        let more = store.add_negative(&template(1.0, false));
        assert!(matches!(more, Err(StoreError::ManyNegatives { .. })));
    }

    #[test]
    fn a_backup_of_everybody_holds_them_and_one_of_some_people_does_not() {
        let folder = TempDir::new().expect("a folder");
        let mut store = Store::open(&filled(&folder)).expect("the gallery");
        store.add_negative(&template(5.0, true)).expect("added");
        for (names, expected) in [(vec![], 1), (vec!["Ada".to_owned()], 0)] {
            let backup = folder.path().join(format!("backup-{expected}"));
            store.export(&names, &backup).expect("written");
            let path = folder.path().join(format!("restored-{expected}.redb"));
            let export = Export::open(&backup, None).expect("a backup");
            Store::restore(&path, export, None).expect("restored");
            let restored = Store::open(&path).expect("the gallery");
            assert_eq!(restored.negatives().expect("negatives").len(), expected);
        }
    }
}
