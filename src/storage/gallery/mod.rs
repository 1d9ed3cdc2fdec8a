//! EDGE: the gallery on disk, in a redb file, with a last good copy beside it.
//!
//! Every change is one transaction on the main file and then the same transaction on the
//! copy, and then the new revision is noted in the register. On opening, every record of both
//! files is checked, and `choose.rs` decides between them: the newer counts, and neither may
//! be older than what is remembered. A main file that does not count is moved aside and
//! replaced by the copy.

mod backup;
mod check;
mod choose;
mod error;
mod export;
mod files;
mod limits;
mod load;
mod naming;
mod negatives;
mod open;
mod presence;
mod record;
mod register;
mod replace;
mod reseal;
mod rewrite;
mod sealed;
mod site;
mod tables;

use crate::access::gallery::{PersonId, Traits};
use crate::access::names;
use crate::access::schedule::DEFAULT_GROUP;
use crate::models::ModelId;
use crate::vision::embed::Template;
use crate::vision::face_picture::FacePicture;
use error::error;
use files::{Open, PATIENCE, create, create_folder, remove_file};
use limits::{most_of, shown};
use naming::checked_name;
use record::Content;
use redb::{Database, TableHandle};
use sealed::Guard;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tables::{
    CROPS, Edit, LAST_REVISION, NEGATIVES, NEXT_PERSON, PEOPLE, PersonRecord, PictureRecord,
    REVISION, TEMPLATES, Table, TemplateRecord, each, meta, number_in, person_of, put, state,
    write,
};

pub use backup::{Lock, Unlock, is_encrypted};
pub use choose::Known;
pub use error::StoreError;
pub use export::{Export, Imported};
pub(super) use files::sync_folder;
pub use files::{copy_path, unsealed_path};
pub use limits::{MOST_NEGATIVES, MOST_PEOPLE, MOST_TEMPLATES};
pub use load::{Loaded, LoadedContent, peek};
pub use negatives::Negative;
pub use open::{Opening, Purpose, why_read_only};
pub use presence::remarks;
pub(super) use presence::{folder_of, give_to_owner};
pub use register::{Register, SYSTEM_REGISTER};
pub use replace::{Restored, reachable};
pub use site::{NotTaken, SiteChange, SitePerson};

/// A person enrolled.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// Number of the person.
    pub id: PersonId,
    /// Name, unique in the gallery.
    pub name: String,
    /// Time of enrolment, seconds since 1970.
    pub enrolled_at: u64,
    /// Administrator, group and stricter threshold.
    pub traits: Traits,
    /// Number of templates, of any model.
    pub templates: usize,
    /// Number of templates with a stored crop.
    pub crops: usize,
}

/// A template to be enrolled and, if it is to be kept, the picture of the face.
#[derive(Clone, Debug)]
pub struct NewTemplate {
    /// The template.
    pub template: Template,
    /// The picture of the face.
    pub picture: Option<FacePicture>,
}

/// Result of [`Store::re_embed`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReEmbedded {
    /// Number of templates re-embedded from their crops.
    pub renewed: usize,
    /// Number of templates of another model without a usable crop.
    pub without_crop: usize,
    /// Names of people who have only such templates and must be enrolled again.
    pub lost: Vec<String>,
    /// Names of people who keep other templates, but fewer than before.
    pub fewer: Vec<String>,
}

/// The gallery's files, open and locked.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    main: Open,
    /// How the records are protected.
    guard: Guard,
    /// `None` after a write to the copy failed; the next opening creates it again.
    copy: Option<Database>,
    /// Description of the repair on opening, if one was needed.
    repaired: Option<String>,
    /// Why the file can only be read: the fault and the cure.
    read_only: Option<String>,
    /// Where the gallery is remembered.
    register: Option<Register>,
}

impl Store {
    /// Everybody, sorted by name without regard to case.
    pub fn people(&self) -> Result<Vec<Person>, StoreError> {
        let people: BTreeMap<u64, PersonRecord> = self.all(PEOPLE)?;
        let mut templates: BTreeMap<u32, usize> = BTreeMap::new();
        for key in self.keys(TEMPLATES)? {
            *templates.entry(person_of(key).0).or_default() += 1;
        }
        let mut crops: BTreeMap<u32, usize> = BTreeMap::new();
        for key in self.keys(CROPS)? {
            *crops.entry(person_of(key).0).or_default() += 1;
        }
        let mut people: Vec<Person> = people
            .into_iter()
            .map(|(key, record)| (key, shown(record)))
            .map(|(key, record)| Person {
                id: PersonId(key as u32),
                name: record.name,
                enrolled_at: record.enrolled_at,
                traits: record.traits,
                templates: templates.get(&(key as u32)).copied().unwrap_or(0),
                crops: crops.get(&(key as u32)).copied().unwrap_or(0),
            })
            .collect();
        people.sort_by_cached_key(|person| person.name.to_lowercase());
        Ok(people)
    }

    /// The person with this name, whether its accents are composed or not. An identical
    /// spelling wins: names stored by earlier versions may be in neither form.
    ///
    /// # Errors
    /// If nobody has the name.
    pub fn find(&self, name: &str) -> Result<Person, StoreError> {
        let name = name.trim();
        let mut people = self.people()?;
        let composed = names::nfc(name);
        let same = people.iter().position(|person| person.name == name);
        let found =
            same.or_else(|| people.iter().position(|person| names::nfc(&person.name) == composed));
        let found = found.ok_or_else(|| StoreError::Unknown { name: name.to_owned() })?;
        Ok(people.swap_remove(found))
    }

    /// Adds templates to the person with this name, who is created if necessary.
    ///
    /// # Errors
    /// If the name is invalid or looks like that of somebody else, or the change cannot be
    /// written.
    pub fn enroll(&mut self, name: &str, templates: &[NewTemplate]) -> Result<Person, StoreError> {
        let mut edits = Vec::new();
        let name = self.name_for(name)?;
        let person = match self.find(&name) {
            Ok(person) => person.id,
            Err(StoreError::Unknown { .. }) => {
                self.new_person(&name, Traits::default(), &mut edits)?
            }
            Err(error) => return Err(error),
        };
        self.add_templates(person, &name, templates, &mut edits)?;
        self.commit(edits)?;
        self.find(&name)
    }

    /// Adds a person whose name is not known yet, in one transaction. The name is made from
    /// the number, such as "staff-0007". `look_alike` is a similar person and the
    /// [`Traits::stricter`] value that both get; the one in `traits` does not count.
    ///
    /// # Errors
    /// If the change cannot be written.
    pub fn enroll_unnamed(
        &mut self,
        templates: &[NewTemplate],
        traits: Traits,
        look_alike: Option<(PersonId, f32)>,
    ) -> Result<Person, StoreError> {
        let mut edits = Vec::new();
        let number = self.next_person()?;
        let mut name = format!("{DEFAULT_GROUP}-{number:04}");
        // Somebody may have been given this name.
        while self.check_look_alikes(&name, None).is_err() {
            name.push('x');
        }
        let stricter = look_alike.map_or(0.0, |(_, stricter)| stricter);
        let traits = Traits { stricter, ..traits };
        let person = self.new_person(&name, traits, &mut edits)?;
        self.add_templates(person, &name, templates, &mut edits)?;
        // The similar person may have been removed in the meantime.
        if let Some((other, _)) = look_alike
            && let Some(mut record) = self.one::<PersonRecord>(PEOPLE, u64::from(other.0))?
        {
            record.traits.stricter = record.traits.stricter.max(stricter);
            edits.push(put(PEOPLE, u64::from(other.0), &record));
        }
        self.commit(edits)?;
        self.find(&name)
    }

    fn new_person(
        &self,
        name: &str,
        traits: Traits,
        edits: &mut Vec<Edit>,
    ) -> Result<PersonId, StoreError> {
        let next = self.next_person()?;
        if self.keys(PEOPLE)?.len() >= MOST_PEOPLE {
            return Err(StoreError::ManyPeople { path: self.path.clone() });
        }
        edits.push(meta(NEXT_PERSON, next + 1));
        let record = PersonRecord { name: name.to_owned(), enrolled_at: now(), traits };
        edits.push(put(PEOPLE, next, &record));
        Ok(PersonId(next as u32))
    }

    /// Number of the next person. Numbers are never used again.
    fn next_person(&self) -> Result<u64, StoreError> {
        let last = self.keys(PEOPLE)?.into_iter().max().unwrap_or(0);
        let next = self.number(NEXT_PERSON)?.max(last + 1);
        if next >= u64::from(u32::MAX) {
            let reason = "has no number left for another person".to_owned();
            return Err(StoreError::Io { path: self.path.clone(), reason });
        }
        Ok(next)
    }

    fn add_templates(
        &self,
        person: PersonId,
        name: &str,
        templates: &[NewTemplate],
        edits: &mut Vec<Edit>,
    ) -> Result<(), StoreError> {
        let first = u64::from(person.0) << 32;
        let taken: BTreeSet<u64> =
            self.keys(TEMPLATES)?.into_iter().filter(|key| person_of(*key) == person).collect();
        let count = taken.len() + templates.len();
        if count > MOST_TEMPLATES {
            return Err(StoreError::ManyTemplates { name: name.to_owned(), count });
        }
        let free = (first..).filter(|key| !taken.contains(key));
        for (key, template) in free.zip(templates) {
            let (made, model) = (&template.template, template.template.model());
            let record = self.guard.template_record(made, model);
            edits.extend(record.map(|record| put(TEMPLATES, key, &record)));
            if let Some(picture) = &template.picture {
                let record = PictureRecord::new(picture).map_err(|reason| StoreError::Io {
                    path: self.path.clone(),
                    reason: reason.to_string(),
                })?;
                edits.push(put(CROPS, key, &record));
            }
        }
        Ok(())
    }

    /// Renames a person.
    ///
    /// # Errors
    /// If nobody has the old name, the new name is invalid, taken or looks like that of
    /// somebody else, or the change cannot be written.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        let person = self.find(from)?;
        let name = checked_name(to)?;
        self.check_look_alikes(&name, Some(person.id))?;
        self.change(&person, |record| {
            record.name = name;
            record.traits.probation = false;
        })
    }

    /// Makes a person an administrator, or revokes it.
    ///
    /// # Errors
    /// If nobody has the name or the change cannot be written.
    pub fn set_administrator(&mut self, name: &str, is: bool) -> Result<(), StoreError> {
        let person = self.find(name)?;
        self.change(&person, |record| record.traits.administrator = is)
    }

    /// Moves a person to a group.
    ///
    /// # Errors
    /// If nobody has the name, the name of the group is invalid, or the change cannot be
    /// written.
    pub fn set_group(&mut self, name: &str, group: &str) -> Result<(), StoreError> {
        let person = self.find(name)?;
        let group = checked_name(group)?;
        self.change(&person, |record| record.traits.group = group)
    }

    /// Sets from when and until when a person may come in, seconds since 1970.
    ///
    /// # Errors
    /// If nobody has the name, or the change cannot be written.
    pub fn set_dates(
        &mut self,
        name: &str,
        (from, until): (Option<i64>, Option<i64>),
    ) -> Result<(), StoreError> {
        let person = self.find(name)?;
        self.change(&person, |record| {
            (record.traits.valid_from, record.traits.valid_until) = (from, until);
        })
    }

    fn change(
        &mut self,
        person: &Person,
        change: impl FnOnce(&mut PersonRecord),
    ) -> Result<(), StoreError> {
        let Person { id, name, enrolled_at, traits, .. } = person.clone();
        let mut record = PersonRecord { name, enrolled_at, traits };
        change(&mut record);
        self.commit(vec![put(PEOPLE, u64::from(id.0), &record)])
    }

    /// Removes a person with all templates and crops. Returns the person.
    ///
    /// # Errors
    /// If nobody has the name or the change cannot be written.
    pub fn remove(&mut self, name: &str) -> Result<Person, StoreError> {
        let person = self.find(name)?;
        let mut edits = vec![Edit { table: PEOPLE, key: u64::from(person.id.0), record: None }];
        for table in [TEMPLATES, CROPS] {
            let keys = self.keys(table)?.into_iter().filter(|key| person_of(*key) == person.id);
            edits.extend(keys.map(|key| Edit { table, key, record: None }));
        }
        self.commit(edits)?;
        Ok(person)
    }

    /// Re-embeds the templates of other models from their crops and saves them. A crop that
    /// cannot be embedded counts as missing.
    ///
    /// # Errors
    /// If the file cannot be read or the change cannot be written.
    pub fn re_embed(
        &mut self,
        model: &ModelId,
        mut embed: impl FnMut(&FacePicture) -> Option<Template>,
    ) -> Result<ReEmbedded, StoreError> {
        let mut done = ReEmbedded::default();
        let mut edits = Vec::new();
        // Usable templates and templates without a usable picture.
        let mut counts: BTreeMap<PersonId, (usize, usize)> = BTreeMap::new();
        for (key, record) in self.all::<TemplateRecord>(TEMPLATES)? {
            let (usable, without) = counts.entry(person_of(key)).or_default();
            // More of them are not used; see `load`.
            if *usable + *without >= most_of(person_of(key)) {
                continue;
            }
            if record.is_of(model) && self.guard.template(&record).is_some() {
                *usable += 1;
                continue;
            }
            let kept: Option<PictureRecord> = self.one(CROPS, key)?;
            let made = kept.and_then(|kept| kept.picture()).and_then(|kept| embed(&kept));
            if let Some(record) = made.and_then(|made| self.guard.template_record(&made, model)) {
                edits.push(put(TEMPLATES, key, &record));
                *usable += 1;
                done.renewed += 1;
            } else {
                *without += 1;
                done.without_crop += usize::from(person_of(key) != NEGATIVES);
            }
        }
        let people: BTreeMap<u64, PersonRecord> = self.all(PEOPLE)?;
        for (id, (usable, without)) in &counts {
            let Some(person) = people.get(&u64::from(id.0)).filter(|_| *without > 0) else {
                continue;
            };
            let names = if *usable == 0 { &mut done.lost } else { &mut done.fewer };
            names.push(shown(person.clone()).name);
        }
        if done.renewed > 0 {
            self.commit(edits)?;
        }
        Ok(done)
    }

    /// Kept pictures of a person, in the order of the templates.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn pictures(&self, person: PersonId) -> Result<Vec<FacePicture>, StoreError> {
        let keys = self.keys(CROPS)?.into_iter().filter(|key| person_of(*key) == person);
        let mut pictures = Vec::new();
        for key in keys {
            let kept: Option<PictureRecord> = self.one(CROPS, key)?;
            pictures.extend(kept.and_then(|kept| kept.picture()));
        }
        Ok(pictures)
    }

    fn commit(&mut self, mut edits: Vec<Edit>) -> Result<(), StoreError> {
        let path = self.path.clone();
        let io = |reason: String| StoreError::Io { path: path.clone(), reason };
        let Open::Writable(main) = &self.main else {
            let reason = self.read_only.clone().unwrap_or_default();
            return Err(StoreError::ReadOnly { path, reason });
        };
        let revision = self.number(REVISION)? + 1;
        if revision > LAST_REVISION {
            return Err(io("its revision is impossible".to_owned()));
        }
        // Sealed once, so that file and copy get the same bytes.
        let mut next = self.guard.clone();
        match &mut next {
            Guard::Plain => edits.push(meta(REVISION, revision)),
            Guard::Sealed(sealing) => edits = sealing.seal_edits(edits, revision).map_err(&io)?,
        }
        write(main, &edits).map_err(|reason| io(format!("{reason}; nothing was changed")))?;
        self.guard = next;
        // The change is safe now; the copy may follow later.
        if let Some(copy) = &self.copy
            && let Err(reason) = write(copy, &edits)
        {
            let path = copy_path(&self.path);
            log::error!("{}: {reason}; the next start creates this copy again", path.display());
            self.copy = None;
            // An outdated copy could bring back people who were removed.
            let _ = remove_file(&path);
        }
        self.note(log::Level::Warn);
        Ok(())
    }

    fn number(&self, key: u64) -> Result<u64, StoreError> {
        number_in(self.main.reader(), key).map_err(|fault| error(&self.path, fault))
    }

    fn all<T: Content>(&self, table: Table) -> Result<BTreeMap<u64, T>, StoreError> {
        self.reader().all(table).map_err(|fault| error(&self.path, fault))
    }

    fn keys(&self, table: Table) -> Result<Vec<u64>, StoreError> {
        let mut keys = Vec::new();
        each(self.main.reader(), table, |key, _| {
            keys.push(key);
            Ok(())
        })
        .map_err(|fault| error(&self.path, fault))?;
        Ok(keys)
    }

    fn one<T: Content>(&self, table: Table, key: u64) -> Result<Option<T>, StoreError> {
        self.reader().one(table, key).map_err(|fault| error(&self.path, fault))
    }
}

/// Modification time and length of the file, which change whenever the gallery does. `None`
/// if the file cannot be read.
pub fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod backup_tests;
#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod sealed_tests;
#[cfg(test)]
mod tests;
