//! EDGE: the gallery into memory, for one model.

use super::check::{Checked, Depth, check_records, some};
use super::choose::{Known, Snapshot};
use super::error::{StoreError, error};
use super::files::{guarded, open_readable};
use super::limits::{MOST_PEOPLE, MOST_TEMPLATES, most_of, shown};
use super::reseal::keys_of;
use super::tables::{
    CROPS, Fault, NEGATIVES, PEOPLE, PersonRecord, PictureRecord, Reader, TEMPLATES,
    TemplateRecord, person_of,
};
use super::{Purpose, Register, Store};
use crate::access::gallery::{Gallery, PersonId};
use crate::models::{ModelId, Models, ModelsError};
use crate::vision::embed::Template;
use crate::vision::face_picture::FacePicture;
use redb::ReadableDatabase;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A gallery loaded for one model.
#[derive(Debug)]
pub struct Loaded {
    /// Everybody, with the templates that the model can compare.
    pub gallery: Gallery,
    /// Number of templates left out, because they are of another model.
    pub of_other_models: usize,
    /// Names of people with such templates, in the order of their numbers.
    pub to_renew: Vec<String>,
    /// What was loaded.
    pub content: LoadedContent,
}

/// Revision and digest of a loaded gallery, to be compared with the file later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedContent(Snapshot, bool);

impl Loaded {
    /// Nobody, while the gallery cannot be opened.
    ///
    /// # Errors
    /// If the set has no recognizer.
    pub fn nobody(models: &Models) -> Result<Self, ModelsError> {
        let snapshot = Snapshot { revision: [0, 0], digest: [0; 32] };
        Ok(Self {
            gallery: Gallery::for_models(models)?,
            of_other_models: 0,
            to_renew: Vec::new(),
            content: LoadedContent(snapshot, false),
        })
    }
}

impl LoadedContent {
    /// Identity and revision.
    pub fn revision(&self) -> [u64; 2] {
        self.0.revision
    }

    /// What to remember of the gallery. `None` if none was loaded.
    pub fn known(&self) -> Option<Known> {
        let known = Known { revision: self.0.revision, inhabited: self.1 };
        (self.0.revision != [0, 0]).then_some(known)
    }

    /// Whether the other gallery has the same revision and different content.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.0.revision == other.0.revision && self.0.digest != other.0.digest
    }
}

impl Store {
    /// Loads the gallery for a model. Templates of other models are left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn load(&self, model: &ModelId, embedding_size: usize) -> Result<Loaded, StoreError> {
        self.load_embedding(model, embedding_size, |_| None)
    }

    /// Like [`Store::load`], but re-embeds templates of other models from their crops, in
    /// memory only. A crop for which `embed` returns `None` is left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn load_embedding(
        &self,
        model: &ModelId,
        embedding_size: usize,
        embed: impl FnMut(&FacePicture) -> Option<Template>,
    ) -> Result<Loaded, StoreError> {
        // Opening has checked every record.
        check_records(self.main.reader(), &self.own_keys(), Depth::Digest)
            .and_then(|checked| load(self.main.reader(), &checked, model, embedding_size, embed))
            .map_err(|fault| error(&self.path, fault))
    }
}

fn load(
    database: &dyn ReadableDatabase,
    checked: &Checked,
    model: &ModelId,
    embedding_size: usize,
    mut embed: impl FnMut(&FacePicture) -> Option<Template>,
) -> Result<Loaded, Fault> {
    let reader = Reader { database, guard: &checked.guard };
    let mut by_person: BTreeMap<PersonId, (usize, Vec<Template>)> = BTreeMap::new();
    let mut of_other_models = 0;
    let mut negatives_left_out = 0;
    let mut to_renew = BTreeSet::new();
    let mut crowded = BTreeSet::new();
    reader.each(TEMPLATES, |key, record: TemplateRecord| {
        let person = person_of(key);
        let (count, templates) = by_person.entry(person).or_default();
        if *count >= most_of(person) {
            crowded.insert(person);
            return Ok(());
        }
        *count += 1;
        let ready = record.is_of(model).then(|| checked.guard.template(&record)).flatten();
        let template = if ready.is_some() {
            ready
        } else {
            let kept: Option<PictureRecord> = reader.one(CROPS, key)?;
            kept.and_then(|kept| kept.picture()).and_then(|kept| embed(&kept))
        };
        match template {
            Some(template) => templates.push(template),
            None if person == NEGATIVES => negatives_left_out += 1,
            None => {
                of_other_models += 1;
                to_renew.insert(person);
            }
        }
        Ok(())
    })?;
    let mut gallery = Gallery::new(model.clone(), embedding_size)
        .rotated_by(checked.guard.rotation(embedding_size));
    for negative in by_person.get(&NEGATIVES).map_or(&[][..], |(_, views)| views) {
        negatives_left_out += usize::from(!gallery.add_negative(negative));
    }
    if negatives_left_out > 0 {
        log::warn!(
            "{negatives_left_out} reported false entries are of another model and have no stored \
             picture; they count for nothing, see facelatch people negatives --help"
        );
    }
    let mut names = Vec::new();
    reader.each(PEOPLE, |key, person: PersonRecord| {
        if gallery.people() >= MOST_PEOPLE {
            return Ok(());
        }
        let person = shown(person);
        let id = PersonId(key as u32);
        let templates = by_person.get(&id).map_or(&[][..], |(_, templates)| templates);
        let left_out = gallery.add(id, &person.name, templates);
        of_other_models += left_out;
        if crowded.contains(&id) {
            log::error!(
                "{}: has more than {MOST_TEMPLATES} templates; the others are not used; remove \
                 this person and enroll again",
                person.name
            );
        }
        if left_out > 0 || to_renew.contains(&id) {
            names.push(person.name);
        }
        gallery.set_traits(id, person.traits);
        Ok(())
    })?;
    if checked.people > MOST_PEOPLE {
        log::error!("the gallery has more than {MOST_PEOPLE} people; the others are not used");
    }
    let content = LoadedContent(checked.snapshot, checked.people > 0);
    Ok(Loaded { gallery, of_other_models, to_renew: names, content })
}

/// Loads the gallery for a model, read-only and without waiting. `None` while another
/// process has the file open. The register says where the keys are. Templates of other
/// models are re-embedded from their crops, in memory only. Damage is not repaired;
/// [`Store::open_as`] does that.
///
/// # Errors
/// If the file is missing, unreachable, damaged, newer, or sealed with keys that cannot be
/// used.
pub fn peek(
    path: &Path,
    register: Option<&Register>,
    model: &ModelId,
    embedding_size: usize,
    embed: impl FnMut(&FacePicture) -> Option<Template>,
) -> Result<Option<Loaded>, StoreError> {
    let keys = keys_of(path, register)?;
    let read = guarded(|| {
        let file = open_readable(path)?;
        let checked = check_records(file.reader(), &keys, Depth::Records)?;
        if !checked.flaws.is_empty() {
            return Err(Fault::Damaged(some(&checked.flaws)));
        }
        load(file.reader(), &checked, model, embedding_size, embed)
    });
    match read {
        Ok(loaded) => Ok(Some(loaded)),
        Err(Fault::Busy) => Ok(None),
        Err(fault) => Err(error(path, fault)),
    }
}

impl Purpose {
    /// Whether a gallery that can only be read will do.
    pub(super) fn only_reads(self) -> bool {
        matches!(self, Self::Read | Self::Serve)
    }

    /// Whether a gallery is created if there is none.
    pub(super) fn begins(self) -> bool {
        matches!(self, Self::Begin | Self::Serve)
    }
}
