//! EDGE: the gallery on disk, in a redb file, with a last good copy beside it.
//!
//! Every change is one transaction on the main file and then the same transaction on the
//! copy. On opening, every record of both is checked. A damaged main file is moved aside
//! and replaced by the copy.

use crate::access::gallery::{Gallery, PersonId, Traits};
use crate::access::schedule::DEFAULT_GROUP;
use crate::models::ModelId;
mod files;
mod record;
mod tables;

use crate::vision::align::Crop;
use crate::vision::embed::Template;
use crate::vision::picture;
use files::{
    PATIENCE, begin, builder, create, create_folder, draft_path, error, guarded, open_checked,
    open_to_read, remove_file, restore,
};
use record::Content;
use redb::{Database, ReadOnlyDatabase, ReadableDatabase, TableHandle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tables::{
    CROPS, Edit, Fault, NEXT_PERSON, PEOPLE, PersonRecord, REVISION, TEMPLATES, Table,
    TemplateRecord, all, copy_records, each, fault_of, meta, number, one, person_of, put,
    read_record, state, write,
};
use thiserror::Error;

pub use files::copy_path;

/// Longest name, characters, so that it fits a screen and a log line.
const LONGEST_NAME: usize = 100;

/// Why an operation on the gallery failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Description of the error.
        reason: String,
    },
    /// Another process has the file open.
    #[error("{path}: in use by another facelatch; wait until it is done and try again")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The main file is damaged, and the copy is damaged or missing.
    #[error(
        "{path}: damaged ({reason}), and its last good copy {copy} is unusable ({copy_reason}); \
         restore one of them from a backup, or move both away to start with an empty gallery"
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The copy.
        copy: PathBuf,
        /// What is wrong with the copy.
        copy_reason: String,
    },
    /// The file was written by a later version.
    #[error("{path}: {reason}; update facelatch")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The record that is newer.
        reason: String,
    },
    /// The name is invalid.
    #[error("{name:?}: {fault}; give a name of 1 to {LONGEST_NAME} printable characters")]
    Name {
        /// Name as given.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Nobody has this name.
    #[error("{name:?}: nobody with this name is enrolled; see facelatch people list")]
    Unknown {
        /// Name as given.
        name: String,
    },
    /// Somebody else has this name.
    #[error("{name:?}: somebody with this name is already enrolled; choose another name")]
    Taken {
        /// Name as given.
        name: String,
    },
}

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
    /// Identity and revision of the gallery.
    pub revision: [u64; 2],
}

/// A template to be enrolled and, if it is to be stored, its crop.
#[derive(Clone, Debug)]
pub struct NewTemplate {
    /// The template.
    pub template: Template,
    /// The aligned face from which it was made.
    pub crop: Option<Crop>,
}

/// A file written by [`Store::export`], open read-only.
pub struct Export {
    path: PathBuf,
    database: ReadOnlyDatabase,
}

impl Export {
    /// Opens the file and checks every record.
    ///
    /// # Errors
    /// If the file is missing, damaged, in use or newer.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = open_to_read(path, PATIENCE).map_err(|fault| error(path, fault))?;
        Ok(Self { path: path.to_owned(), database })
    }
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

    /// The person with this name.
    ///
    /// # Errors
    /// If nobody has the name.
    pub fn find(&self, name: &str) -> Result<Person, StoreError> {
        let name = name.trim();
        self.people()?
            .into_iter()
            .find(|person| person.name == name)
            .ok_or_else(|| StoreError::Unknown { name: name.to_owned() })
    }

    /// Adds templates to the person with this name, who is created if necessary.
    ///
    /// # Errors
    /// If the name is invalid or the change cannot be written.
    pub fn enroll(&mut self, name: &str, templates: &[NewTemplate]) -> Result<Person, StoreError> {
        let name = checked_name(name)?;
        let mut edits = Vec::new();
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
        while self.find(&name).is_ok() {
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
            if let Some(crop) = &template.crop {
                let png = picture::encode_png(crop.frame()).map_err(|reason| StoreError::Io {
                    path: self.path.clone(),
                    reason: reason.to_string(),
                })?;
                edits.push(put(CROPS, key, &png));
            }
        }
        Ok(())
    }

    /// Renames a person.
    ///
    /// # Errors
    /// If nobody has the old name, the new name is invalid or taken, or the change cannot
    /// be written.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        let person = self.find(from)?;
        let name = checked_name(to)?;
        if self.find(&name).is_ok_and(|other| other.id != person.id) {
            return Err(StoreError::Taken { name });
        }
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
        embed: impl FnMut(&Crop) -> Option<Template>,
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
        mut embed: impl FnMut(&Crop) -> Option<Template>,
    ) -> Result<ReEmbedded, StoreError> {
        let mut done = ReEmbedded::default();
        let mut edits = Vec::new();
        let mut usable: BTreeMap<PersonId, usize> = BTreeMap::new();
        for (key, record) in self.all::<TemplateRecord>(TEMPLATES)? {
            let usable = usable.entry(person_of(key)).or_default();
            if record.is_of(model) {
                *usable += 1;
                continue;
            }
            let png: Option<Vec<u8>> = self.one(CROPS, key)?;
            let made = png.as_deref().and_then(crop_of_png).and_then(|crop| embed(&crop));
            if let Some(record) = made.and_then(|made| TemplateRecord::new(&made, model)) {
                edits.push(put(TEMPLATES, key, &record));
                *usable += 1;
                done.renewed += 1;
            } else {
                done.without_crop += 1;
            }
        }
        let people: BTreeMap<u64, PersonRecord> = self.all(PEOPLE)?;
        let lost = usable.iter().filter(|(_, usable)| **usable == 0);
        done.lost =
            lost.filter_map(|(id, _)| Some(people.get(&u64::from(id.0))?.name.clone())).collect();
        if done.renewed > 0 {
            self.commit(edits)?;
        }
        Ok(done)
    }

    /// Writes people, or everybody if `names` is empty, to a new gallery file for
    /// [`Store::import`]. Returns the number of people.
    ///
    /// # Errors
    /// If a name is unknown, or the file exists or cannot be written.
    pub fn export(&self, names: &[String], to: &Path) -> Result<usize, StoreError> {
        let people = match names {
            [] => self.people()?,
            names => names.iter().map(|name| self.find(name)).collect::<Result<_, _>>()?,
        };
        if to.exists() {
            let reason = "already exists; name a new file".to_owned();
            return Err(StoreError::Io { path: to.to_owned(), reason });
        }
        create_folder(to)?;
        let wanted = |table: Table, key: u64| {
            let of = |id: PersonId| people.iter().any(|person| person.id == id);
            match table.name() {
                "people" => of(PersonId(key as u32)),
                "meta" => true,
                _ => of(person_of(key)),
            }
        };
        let failed = |fault| error(to, fault);
        let target = create(to).map_err(failed)?;
        copy_records(&self.main, &target, wanted).map_err(failed)?;
        Ok(people.len())
    }

    /// Adds the people of an exported file. Returns the number of people added, and the
    /// names of those left out because the name is taken.
    ///
    /// # Errors
    /// If the file cannot be read or the change cannot be written.
    pub fn import(&mut self, from: &Export) -> Result<(usize, Vec<String>), StoreError> {
        let failed = |fault| error(&from.path, fault);
        let source = &from.database;
        let (mut added, mut taken) = (0, Vec::new());
        let mut present: Vec<String> = self.people()?.into_iter().map(|p| p.name).collect();
        let templates = all::<TemplateRecord>(source, TEMPLATES).map_err(failed)?;
        let mut edits = Vec::new();
        let mut next = self.number(NEXT_PERSON)?.max(1);
        for (key, record) in all::<PersonRecord>(source, PEOPLE).map_err(failed)? {
            let record = PersonRecord { name: checked_name(&record.name)?, ..record };
            if present.contains(&record.name) {
                taken.push(record.name);
                continue;
            }
            present.push(record.name.clone());
            edits.push(put(PEOPLE, next, &record));
            let own = templates.iter().filter(|(at, _)| u64::from(person_of(**at).0) == key);
            for (at, template) in own {
                let to = (next << 32) | (at & 0xffff_ffff);
                edits.push(put(TEMPLATES, to, template));
                if let Some(png) = one::<Vec<u8>>(source, CROPS, *at).map_err(failed)? {
                    edits.push(put(CROPS, to, &png));
                }
            }
            next += 1;
            added += 1;
        }
        if added > 0 {
            edits.push(meta(NEXT_PERSON, next));
            self.commit(edits)?;
        }
        Ok((added, taken))
    }

    /// Crops of a person, in the order of the templates.
    pub fn crops(&self, person: PersonId) -> Result<Vec<Crop>, StoreError> {
        let keys = self.keys(CROPS)?.into_iter().filter(|key| person_of(*key) == person);
        let mut crops = Vec::new();
        for key in keys {
            let png: Option<Vec<u8>> = self.one(CROPS, key)?;
            crops.extend(png.as_deref().and_then(crop_of_png));
        }
        Ok(crops)
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

fn checked_name(name: &str) -> Result<String, StoreError> {
    let trimmed = name.trim();
    let fault = if trimmed.is_empty() {
        "is empty"
    } else if trimmed.chars().any(char::is_control) {
        "contains control characters"
    } else if trimmed.chars().count() > LONGEST_NAME {
        "is too long"
    } else {
        return Ok(trimmed.to_owned());
    };
    Err(StoreError::Name { name: name.to_owned(), fault })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn crop_of_png(png: &[u8]) -> Option<Crop> {
    let frame = picture::decode(Path::new("stored crop"), png).ok()?;
    Crop::from_pixels(frame.pixels().to_vec()).ok()
}

fn load(
    database: &impl ReadableDatabase,
    model: &ModelId,
    embedding_size: usize,
    mut embed: impl FnMut(&Crop) -> Option<Template>,
) -> Result<Loaded, Fault> {
    let mut by_person: BTreeMap<PersonId, Vec<Template>> = BTreeMap::new();
    let mut of_other_models = 0;
    each(database, TEMPLATES, |key, bytes| {
        let record: TemplateRecord = read_record(TEMPLATES, key, bytes)?;
        let template = if record.is_of(model) {
            Some(record.template())
        } else {
            let png: Option<Vec<u8>> = one(database, CROPS, key)?;
            png.as_deref().and_then(crop_of_png).and_then(|crop| embed(&crop))
        };
        match template {
            Some(template) => by_person.entry(person_of(key)).or_default().push(template),
            None => of_other_models += 1,
        }
        Ok(())
    })?;
    let mut gallery = Gallery::new(model.clone(), embedding_size);
    each(database, PEOPLE, |key, bytes| {
        let person: PersonRecord = read_record(PEOPLE, key, bytes)?;
        let id = PersonId(key as u32);
        of_other_models +=
            gallery.add(id, &person.name, by_person.get(&id).map_or(&[], Vec::as_slice));
        gallery.set_traits(id, person.traits);
        Ok(())
    })?;
    Ok(Loaded { gallery, of_other_models, revision: state(database)? })
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
    embed: impl FnMut(&Crop) -> Option<Template>,
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
mod tests {
    use super::*;
    use crate::vision::embed::Embedding;
    use proptest::prelude::*;
    use tempfile::TempDir;

    fn model() -> ModelId {
        ModelId::new("2026.11+abcd")
    }

    fn signed(model: &ModelId, x: f32) -> Template {
        Template::new(model.clone(), Embedding::normalized(&[x, 1.0, 0.0, -x]))
    }

    fn template(x: f32, crop: bool) -> NewTemplate {
        let pixels = (0..112 * 112 * 3).map(|i| (i % 251) as u8).collect();
        let crop = crop.then(|| Crop::from_pixels(pixels).expect("112 x 112"));
        NewTemplate { template: signed(&model(), x), crop }
    }

    fn filled(folder: &TempDir) -> PathBuf {
        let path = folder.path().join("gallery.redb");
        let mut store = Store::open(&path).expect("a new gallery");
        store.enroll("Ada", &[template(1.0, true), template(2.0, false)]).expect("enrolled");
        store.enroll("Grace", &[template(-1.0, true)]).expect("enrolled");
        path
    }

    fn names(store: &Store) -> Vec<String> {
        store.people().expect("people").into_iter().map(|person| person.name).collect()
    }

    #[test]
    fn people_stay_after_closing() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let mut store = Store::open(&path).expect("the gallery");
        assert_eq!(names(&store), ["Ada", "Grace"]);
        let ada = store.enroll(" Ada ", &[template(3.0, true)]).expect("enrolled");
        assert_eq!((ada.templates, ada.crops), (3, 2));
        store.rename("Grace", "Grace Hopper").expect("renamed");
        assert!(matches!(store.rename("Ada", "Grace Hopper"), Err(StoreError::Taken { .. })));
        store.remove("Ada").expect("removed");
        drop(store);
        let mut store = Store::open(&path).expect("the gallery");
        assert_eq!(names(&store), ["Grace Hopper"]);
        assert!(matches!(store.remove("Ada"), Err(StoreError::Unknown { .. })));
        let loaded = store.load(&model(), 4).expect("loaded");
        assert_eq!((loaded.gallery.people(), loaded.gallery.templates()), (1, 1));
        // Numbers are never reused.
        let ada = store.enroll("Ada", &[]).expect("enrolled");
        assert_eq!(ada.id, PersonId(3));
    }

    #[test]
    fn traits_stay_with_their_person() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let mut store = Store::open(&path).expect("the gallery");
        store.set_administrator("Ada", true).expect("changed");
        store.set_group("Ada", "night").expect("changed");
        store.rename("Ada", "Countess").expect("renamed");
        let unknown = store.set_administrator("Ada", true);
        assert!(matches!(unknown, Err(StoreError::Unknown { .. })));
        drop(store);
        let store = Store::open(&path).expect("the gallery");
        let ada = store.find("Countess").expect("Ada");
        let traits = Traits { administrator: true, group: "night".to_owned(), stricter: 0.0 };
        assert_eq!(ada.traits, traits);
        assert_eq!(store.find("Grace").expect("Grace").traits, Traits::default());
        let loaded = store.load(&model(), 4).expect("loaded").gallery;
        assert_eq!(loaded.traits(ada.id), Some(&traits));
    }

    #[test]
    fn somebody_unnamed_is_added_in_one_change_with_their_look_alike() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let mut store = Store::open(&path).expect("the gallery");
        let [gallery, before] = store.revision().expect("a revision");
        let grace = store.find("Grace").expect("Grace").id;
        store.rename("Ada", "staff-0003").expect("renamed");
        let templates = [template(0.5, true), template(0.6, true)];
        let look_alike = Some((grace, 0.07));
        let new = store.enroll_unnamed(&templates, true, look_alike).expect("enrolled");
        assert_eq!((new.name.as_str(), new.id, new.templates), ("staff-0003x", PersonId(3), 2));
        assert_eq!(store.revision().expect("a revision"), [gallery, before + 2]);
        let traits = Traits { administrator: true, stricter: 0.07, ..Traits::default() };
        assert_eq!(new.traits, traits);
        assert_eq!(store.find("Grace").expect("Grace").traits.stricter, 0.07);
        // A similar person removed in the meantime does no harm.
        store.remove("Grace").expect("removed");
        let next = store.enroll_unnamed(&templates, false, Some((grace, 0.2)));
        let next = next.expect("enrolled");
        assert_eq!((next.name.as_str(), next.traits.stricter), ("staff-0004", 0.2));
    }

    #[test]
    fn people_from_before_traits_are_read() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let mut store = Store::open(&path).expect("the gallery");
        // Format 1: a name and a time.
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Old(String, u64);
        impl Content for Old {}
        store.commit(vec![put(PEOPLE, 2, &Old("Grace".to_owned(), 5))]).expect("written");
        drop(store);
        let mut store = Store::open(&path).expect("the gallery");
        let grace = store.find("Grace").expect("Grace");
        assert_eq!((grace.enrolled_at, &grace.traits), (5, &Traits::default()));
        store.set_administrator("Grace", true).expect("changed");
        assert!(store.find("Grace").expect("Grace").traits.administrator);
    }

    #[test]
    fn a_name_that_cannot_be_shown_is_refused() {
        let folder = TempDir::new().expect("a folder");
        let mut store = Store::open(&folder.path().join("g.redb")).expect("a new gallery");
        for name in ["", "  ", "a\nb", &"x".repeat(101)] {
            assert!(matches!(store.enroll(name, &[]), Err(StoreError::Name { .. })));
        }
        store.enroll("Łucja Ærø 王", &[]).expect("enrolled");
    }

    #[test]
    fn templates_of_another_model_are_left_out_until_made_anew() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let mut store = Store::open(&path).expect("the gallery");
        store.enroll("Hedy", &[template(3.0, false)]).expect("enrolled");
        let other = ModelId::new("other");
        let loaded = store.load(&other, 4).expect("loaded");
        assert_eq!((loaded.gallery.templates(), loaded.of_other_models), (0, 4));
        // Templates of a third model are not accepted as those of the wanted model.
        let third = signed(&ModelId::new("third"), 7.0);
        let done = store.re_embed(&other, |_| Some(third.clone())).expect("nothing done");
        assert_eq!((done.renewed, done.without_crop), (0, 4));
        let made = signed(&other, 7.0);
        let done = store.re_embed(&other, |_| Some(made.clone())).expect("re-embedded");
        let lost = vec!["Hedy".to_owned()];
        assert_eq!(done, ReEmbedded { renewed: 2, without_crop: 2, lost });
        let loaded = store.load(&other, 4).expect("loaded");
        assert_eq!((loaded.gallery.templates(), loaded.of_other_models), (2, 2));
        assert!(loaded.gallery.best(&made).expect("somebody").similarity > 0.999);
        assert!(loaded.gallery.best(&signed(&model(), 7.0)).is_none());
    }

    #[test]
    fn an_exported_file_can_be_imported_elsewhere() {
        let folder = TempDir::new().expect("a folder");
        let store = Store::open(&filled(&folder)).expect("the gallery");
        let out = folder.path().join("out/ada.redb");
        assert_eq!(store.export(&["Ada".to_owned()], &out).expect("exported"), 1);
        assert!(store.export(&[], &out).is_err(), "the file is there already");
        let mut other = Store::open(&folder.path().join("other.redb")).expect("a new gallery");
        other.enroll("Someone", &[template(0.5, false)]).expect("enrolled");
        let before = (std::fs::read(&out).expect("a file"), stamp(&out));
        let export = Export::open(&out).expect("an export");
        assert_eq!(other.import(&export).expect("imported"), (1, vec![]));
        assert_eq!(other.import(&export).expect("imported"), (0, vec!["Ada".to_owned()]));
        drop(export);
        assert_eq!((std::fs::read(&out).expect("a file"), stamp(&out)), before, "only read");
        let ada = other.find("Ada").expect("Ada");
        assert_eq!((ada.id, ada.templates, ada.crops), (PersonId(2), 2, 1));
        assert_eq!(other.crops(ada.id).expect("crops").len(), 1);
    }

    #[test]
    fn a_file_in_use_is_said_to_be() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let _held = Store::open(&path).expect("the gallery");
        assert!(matches!(Store::open(&path), Err(StoreError::Busy { .. })));
    }

    #[test]
    fn a_damaged_file_gives_way_to_its_copy() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let whole = std::fs::read(&path).expect("a file");
        let half = whole[..whole.len() / 2].to_vec();
        for (n, broken) in [half, vec![], b"not a gallery at all".to_vec()].iter().enumerate() {
            std::fs::write(&path, broken).expect("written");
            let store = Store::open(&path).expect("the copy");
            assert_eq!(names(&store), ["Ada", "Grace"]);
            let aside = format!("{}.damaged-{}", path.display(), n + 1);
            assert!(store.repaired().expect("a repair").contains(&aside));
            assert_eq!(&std::fs::read(aside).expect("kept"), broken);
        }
        std::fs::remove_file(&path).expect("removed");
        let store = Store::open(&path).expect("the copy");
        assert_eq!(names(&store), ["Ada", "Grace"]);
    }

    #[test]
    fn a_damaged_or_late_copy_is_made_anew() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let copy = copy_path(&path);
        let old = std::fs::read(&copy).expect("a copy");
        Store::open(&path).expect("open").remove("Ada").expect("removed");
        for broken in [old, b"nothing".to_vec()] {
            std::fs::write(&copy, broken).expect("written");
            drop(Store::open(&path).expect("the gallery"));
            std::fs::remove_file(&path).expect("removed");
            assert_eq!(names(&Store::open(&path).expect("the copy")), ["Grace"]);
        }
    }

    #[test]
    fn the_copy_of_another_gallery_is_not_taken_for_ones_own() {
        let (here, there) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
        let (path, other) = (filled(&here), filled(&there));
        Store::open(&other).expect("open").rename("Ada", "Somebody").expect("renamed");
        Store::open(&path).expect("open").rename("Ada", "Augusta").expect("renamed");
        std::fs::copy(copy_path(&other), copy_path(&path)).expect("copied");
        drop(Store::open(&path).expect("the gallery"));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(names(&Store::open(&path).expect("the copy")), ["Augusta", "Grace"]);
        let left = std::fs::read_dir(here.path()).expect("a folder").count();
        assert_eq!(left, 2, "no draft stays behind");
    }

    #[test]
    fn peeking_reads_without_touching_and_without_waiting() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let before = stamp(&path);
        let loaded =
            peek(&path, &model(), 4, |_| None).expect("a gallery").expect("nobody works on it");
        assert_eq!((loaded.gallery.people(), loaded.of_other_models), (2, 0));
        assert_eq!(stamp(&path), before);
        let mut store = Store::open(&path).expect("open");
        assert!(peek(&path, &model(), 4, |_| None).expect("no fault").is_none());
        store.remove("Ada").expect("removed");
        drop(store);
        let after =
            peek(&path, &model(), 4, |_| None).expect("a gallery").expect("nobody works on it");
        assert!(after.revision[1] > loaded.revision[1]);
        assert_eq!(after.revision[0], loaded.revision[0]);
        std::fs::write(&path, "nonsense").expect("written");
        assert!(peek(&path, &model(), 4, |_| None).is_err());
    }

    #[test]
    fn both_damaged_is_an_error_that_names_both_and_touches_neither() {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        std::fs::write(&path, "x").expect("written");
        std::fs::write(copy_path(&path), "y").expect("written");
        let message = Store::open(&path).expect_err("both are damaged").to_string();
        assert!(message.contains("gallery.redb") && message.contains("last-good"), "{message}");
        assert_eq!(std::fs::read(&path).expect("kept"), b"x");
    }

    /// Flips one bit of every byte of the database's header and its commit slots, and all
    /// bits of the bytes that hold the version of a slot.
    #[test]
    fn a_flipped_bit_of_the_header_is_put_right() {
        const HEADER: usize = 320;
        const VERSIONS: [usize; 2] = [64, 192];
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let files = [path.clone(), copy_path(&path)];
        let whole = files.clone().map(|file| std::fs::read(file).expect("a file"));
        let bits = (0..HEADER).flat_map(|at| {
            let all = VERSIONS.contains(&at);
            (0..8).filter(move |bit| all || at % 8 == *bit).map(move |bit| (at, bit))
        });
        for (at, bit) in bits {
            for (broken, file) in files.iter().enumerate() {
                for (file, bytes) in files.iter().zip(&whole) {
                    std::fs::write(file, bytes).expect("written");
                }
                let mut bytes = whole[broken].clone();
                bytes[at] ^= 1 << bit;
                std::fs::write(file, bytes).expect("written");
                let opened = Store::open(&path);
                let store = opened.unwrap_or_else(|error| panic!("byte {at} bit {bit}: {error}"));
                assert_eq!(names(&store), ["Ada", "Grace"], "byte {at} bit {bit}");
                assert!(store.copy.is_some(), "byte {at} bit {bit}: there is no copy");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whichever byte is damaged, everybody is still present afterwards.
        #[test]
        fn a_flipped_byte_loses_nobody(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let folder = TempDir::new().expect("a folder");
            let path = filled(&folder);
            let mut bytes = std::fs::read(&path).expect("a file");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, &bytes).expect("written");
            let store = Store::open(&path).expect("the gallery or its copy");
            prop_assert_eq!(names(&store), ["Ada", "Grace"]);
            let loaded = store.load(&model(), 4).expect("loaded");
            prop_assert_eq!(loaded.gallery.templates(), 3);
            prop_assert!(loaded.gallery.best(&signed(&model(), 2.0)).expect("Ada").similarity > 0.9999);
        }
    }
}
