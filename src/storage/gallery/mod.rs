//! EDGE: the gallery on disk, in a redb file, with a last good copy beside it.
//!
//! Every change is one transaction on the main file and then the same transaction on the
//! copy. On opening, every record of both is checked. A damaged main file is moved aside
//! and replaced by the copy.

mod error;
mod export;
mod files;
mod naming;
mod record;
mod tables;

use crate::access::gallery::{Gallery, PersonId, Traits};
use crate::access::names;
use crate::access::schedule::DEFAULT_GROUP;
use crate::models::ModelId;
use crate::vision::embed::Template;
use crate::vision::face_picture::FacePicture;
use error::error;
use files::{
    PATIENCE, begin, builder, create, create_folder, draft_path, guarded, open_checked,
    open_to_read, remove_file, restore,
};
use naming::checked_name;
use record::Content;
use redb::{Database, ReadOnlyDatabase, ReadableDatabase, TableHandle};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tables::{
    CROPS, Edit, Fault, NEXT_PERSON, PEOPLE, PersonRecord, PictureRecord, REVISION, TEMPLATES,
    Table, TemplateRecord, all, copy_records, each, fault_of, meta, number, one, person_of, put,
    read_record, state, write,
};

pub use error::StoreError;
pub use export::Export;
pub use files::copy_path;

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

/// A gallery loaded for one model.
#[derive(Debug)]
pub struct Loaded {
    /// Everybody, with the templates that the model can compare.
    pub gallery: Gallery,
    /// Number of templates left out, because they are of another model.
    pub of_other_models: usize,
    /// Names of people with such templates, in the order of their numbers.
    pub to_renew: Vec<String>,
    /// Identity and revision of the gallery.
    pub revision: [u64; 2],
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
    main: Database,
    /// `None` after a write to the copy failed; the next opening creates it again.
    copy: Option<Database>,
    /// Description of the repair on opening, if one was needed.
    repaired: Option<String>,
}

impl Store {
    /// Opens the gallery, or creates it if there is none. Waits up to three seconds for
    /// another process to release it. Restores a damaged file from its copy.
    ///
    /// # Errors
    /// If the gallery is in use, newer than this program, or damaged with no usable copy,
    /// or if a file operation fails.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_within(path, PATIENCE)
    }

    /// Like [`Store::open`], but waits for at most `patience`.
    pub fn open_within(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        let copy_path = copy_path(path);
        let mut repaired = None;
        let main = match open_checked(path, patience) {
            Ok(main) => main,
            Err(Fault::Absent) if !copy_path.exists() => begin(path)?,
            Err(fault @ (Fault::Absent | Fault::Damaged(_))) => {
                let reason = match fault {
                    Fault::Damaged(reason) => reason,
                    _ => "it is missing".to_owned(),
                };
                let aside = restore(path, &copy_path, &reason)?;
                repaired = Some(match aside {
                    Some(aside) => format!(
                        "{}: was damaged ({reason}); restored from its last good copy; the \
                         damaged file is kept as {}",
                        path.display(),
                        aside.display()
                    ),
                    None => {
                        format!("{}: was missing; restored from its last good copy", path.display())
                    }
                });
                open_checked(path, PATIENCE).map_err(|fault| error(path, fault))?
            }
            Err(fault) => return Err(error(path, fault)),
        };
        let mut store = Self { path: path.to_owned(), main, copy: None, repaired };
        store.copy = store.current_copy(&copy_path);
        Ok(store)
    }

    /// Description of the repair on opening, for the log. `None` if none was needed.
    pub fn repaired(&self) -> Option<&str> {
        self.repaired.as_deref()
    }

    /// Opens the copy; creates it again if it is damaged or differs from the main file.
    fn current_copy(&self, path: &Path) -> Option<Database> {
        if let Ok(copy) = open_checked(path, PATIENCE)
            && state(&copy).is_ok_and(|copied| state(&self.main).is_ok_and(|own| own == copied))
        {
            return Some(copy);
        }
        let draft = draft_path(path);
        let made = (|| {
            remove_file(&draft)?;
            let copy = create(&draft)?;
            copy_records(&self.main, &copy, |_, _| true)?;
            drop(copy);
            std::fs::rename(&draft, path).map_err(|error| Fault::Io(error.to_string()))?;
            open_checked(path, PATIENCE)
        })();
        match made {
            Ok(copy) => Some(copy),
            Err(fault) => {
                log::error!("{}; until then there is no last good copy", error(path, fault));
                // Better no copy than one with people who were removed since.
                let _ = remove_file(path);
                let _ = remove_file(&draft);
                None
            }
        }
    }

    /// Identity and revision of the gallery.
    pub fn revision(&self) -> Result<[u64; 2], StoreError> {
        state(&self.main).map_err(|fault| error(&self.path, fault))
    }

    /// Everybody, sorted by name without regard to case.
    pub fn people(&self) -> Result<Vec<Person>, StoreError> {
        let people: BTreeMap<u64, PersonRecord> = self.all(PEOPLE)?;
        let mut templates: BTreeMap<u32, usize> = BTreeMap::new();
        for (key, _) in self.all::<TemplateRecord>(TEMPLATES)? {
            *templates.entry(person_of(key).0).or_default() += 1;
        }
        let mut crops: BTreeMap<u32, usize> = BTreeMap::new();
        for key in self.keys(CROPS)? {
            *crops.entry(person_of(key).0).or_default() += 1;
        }
        let mut people: Vec<Person> = people
            .into_iter()
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
        self.add_templates(person, templates, &mut edits)?;
        self.commit(edits)?;
        self.find(&name)
    }

    /// Adds a person whose name is not known yet, in one transaction. The name is made from
    /// the number, such as "staff-0007". `look_alike` is a similar person and the
    /// [`Traits::stricter`] value that both get.
    ///
    /// # Errors
    /// If the change cannot be written.
    pub fn enroll_unnamed(
        &mut self,
        templates: &[NewTemplate],
        administrator: bool,
        look_alike: Option<(PersonId, f32)>,
    ) -> Result<Person, StoreError> {
        let mut edits = Vec::new();
        let number = self.number(NEXT_PERSON)?.max(1);
        let mut name = format!("{DEFAULT_GROUP}-{number:04}");
        // Somebody may have been given this name.
        while self.check_look_alikes(&name, None).is_err() {
            name.push('x');
        }
        let stricter = look_alike.map_or(0.0, |(_, stricter)| stricter);
        let traits = Traits { administrator, stricter, ..Traits::default() };
        let person = self.new_person(&name, traits, &mut edits)?;
        self.add_templates(person, templates, &mut edits)?;
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
        let next = self.number(NEXT_PERSON)?.max(1);
        edits.push(meta(NEXT_PERSON, next + 1));
        let record = PersonRecord { name: name.to_owned(), enrolled_at: now(), traits };
        edits.push(put(PEOPLE, next, &record));
        Ok(PersonId(next as u32))
    }

    fn add_templates(
        &self,
        person: PersonId,
        templates: &[NewTemplate],
        edits: &mut Vec<Edit>,
    ) -> Result<(), StoreError> {
        let first = u64::from(person.0) << 32;
        let taken = self.keys(TEMPLATES)?.into_iter().filter(|key| person_of(*key) == person).max();
        let free = taken.map_or(first, |last| last + 1);
        for (key, template) in (free..).zip(templates) {
            let record = TemplateRecord::new(&template.template, template.template.model());
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
        self.change(&person, |record| record.name = name)
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

    /// Loads the gallery for a model. Templates of other models are left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn load(&self, model: &ModelId, embedding_size: usize) -> Result<Loaded, StoreError> {
        self.load_embedding(model, embedding_size, |_| None)
    }

    /// Like [`Store::load`], but re-embeds templates of other models from their crops, in
    /// memory only. A crop for which `embed` returns `None` is left out.
    pub fn load_embedding(
        &self,
        model: &ModelId,
        embedding_size: usize,
        embed: impl FnMut(&FacePicture) -> Option<Template>,
    ) -> Result<Loaded, StoreError> {
        load(&self.main, model, embedding_size, embed).map_err(|fault| error(&self.path, fault))
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
            if record.is_of(model) {
                *usable += 1;
                continue;
            }
            let kept: Option<PictureRecord> = self.one(CROPS, key)?;
            let made = kept.and_then(|kept| kept.picture()).and_then(|kept| embed(&kept));
            if let Some(record) = made.and_then(|made| TemplateRecord::new(&made, model)) {
                edits.push(put(TEMPLATES, key, &record));
                *usable += 1;
                done.renewed += 1;
            } else {
                *without += 1;
                done.without_crop += 1;
            }
        }
        let people: BTreeMap<u64, PersonRecord> = self.all(PEOPLE)?;
        for (id, (usable, without)) in &counts {
            let Some(person) = people.get(&u64::from(id.0)).filter(|_| *without > 0) else {
                continue;
            };
            let names = if *usable == 0 { &mut done.lost } else { &mut done.fewer };
            names.push(person.name.clone());
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
        edits.push(meta(REVISION, self.number(REVISION)? + 1));
        let failed = |path: &Path, reason: String| StoreError::Io {
            path: path.to_owned(),
            reason: format!("{reason}; nothing was changed"),
        };
        write(&self.main, &edits).map_err(|reason| failed(&self.path, reason))?;
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
        Ok(())
    }

    fn number(&self, key: u64) -> Result<u64, StoreError> {
        number(&self.main, key).map_err(|fault| error(&self.path, fault))
    }

    fn all<T: Content>(&self, table: Table) -> Result<BTreeMap<u64, T>, StoreError> {
        all(&self.main, table).map_err(|fault| error(&self.path, fault))
    }

    fn keys(&self, table: Table) -> Result<Vec<u64>, StoreError> {
        let mut keys = Vec::new();
        each(&self.main, table, |key, _| {
            keys.push(key);
            Ok(())
        })
        .map_err(|fault| error(&self.path, fault))?;
        Ok(keys)
    }

    fn one<T: Content>(&self, table: Table, key: u64) -> Result<Option<T>, StoreError> {
        one(&self.main, table, key).map_err(|fault| error(&self.path, fault))
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

fn load(
    database: &impl ReadableDatabase,
    model: &ModelId,
    embedding_size: usize,
    mut embed: impl FnMut(&FacePicture) -> Option<Template>,
) -> Result<Loaded, Fault> {
    let mut by_person: BTreeMap<PersonId, Vec<Template>> = BTreeMap::new();
    let mut of_other_models = 0;
    let mut to_renew = BTreeSet::new();
    each(database, TEMPLATES, |key, bytes| {
        let record: TemplateRecord = read_record(TEMPLATES, key, bytes)?;
        let template = if record.is_of(model) {
            Some(record.template())
        } else {
            let kept: Option<PictureRecord> = one(database, CROPS, key)?;
            kept.and_then(|kept| kept.picture()).and_then(|kept| embed(&kept))
        };
        match template {
            Some(template) => by_person.entry(person_of(key)).or_default().push(template),
            None => {
                of_other_models += 1;
                to_renew.insert(person_of(key));
            }
        }
        Ok(())
    })?;
    let mut gallery = Gallery::new(model.clone(), embedding_size);
    let mut names = Vec::new();
    each(database, PEOPLE, |key, bytes| {
        let person: PersonRecord = read_record(PEOPLE, key, bytes)?;
        let id = PersonId(key as u32);
        let left_out = gallery.add(id, &person.name, by_person.get(&id).map_or(&[], Vec::as_slice));
        of_other_models += left_out;
        if left_out > 0 || to_renew.contains(&id) {
            names.push(person.name);
        }
        gallery.set_traits(id, person.traits);
        Ok(())
    })?;
    Ok(Loaded { gallery, of_other_models, to_renew: names, revision: state(database)? })
}

/// Loads the gallery for a model, read-only and without waiting. `None` while another
/// process has the file open. Templates of other models are re-embedded from their crops,
/// in memory only. Damage is not repaired; [`Store::open`] does that.
///
/// # Errors
/// If the file is missing, damaged or newer.
pub fn peek(
    path: &Path,
    model: &ModelId,
    embedding_size: usize,
    embed: impl FnMut(&FacePicture) -> Option<Template>,
) -> Result<Option<Loaded>, StoreError> {
    let read = guarded(|| {
        let database = builder().open_read_only(path).map_err(fault_of)?;
        load(&database, model, embedding_size, embed)
    });
    match read {
        Ok(loaded) => Ok(Some(loaded)),
        Err(Fault::Busy) => Ok(None),
        Err(fault) => Err(error(path, fault)),
    }
}

#[cfg(test)]
mod tests;
