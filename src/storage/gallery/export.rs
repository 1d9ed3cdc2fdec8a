//! EDGE: people in a file of their own, for another door.

use super::check::{Depth, check_records, some};
use super::files::{How, Readable, read_checked, sync_folder};
use super::limits::{Lengths, person_fault};
use super::negatives::is_negative;
use super::reseal::keys_of;
use super::rewrite::{Numbers, feed, fill};
use super::sealed::Keys;
use super::tables::{Fault, Reader};
use super::*;
use crate::access::names::Likeness;

/// A file written by [`Store::export`], open read-only.
pub struct Export {
    pub(super) path: PathBuf,
    pub(super) file: Readable,
    pub(super) guard: Guard,
}

/// Result of [`Store::import`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Number of people added.
    pub added: usize,
    /// Number of them who were administrators and are none here.
    pub made_ordinary: usize,
    /// Names of those left out because somebody has the name, or one that looks alike.
    pub taken: Vec<String>,
    /// Those left out because something is wrong with them: name and reason, for a log.
    pub refused: Vec<String>,
}

impl Export {
    /// Opens the file and checks every record. A file that is sealed like the gallery at
    /// `own`, such as its copy, is opened with the keys of that gallery.
    ///
    /// # Errors
    /// If the file is missing, unreachable, no gallery, damaged, in use or newer, or sealed
    /// with other keys.
    pub fn open(path: &Path, own: Option<(&Path, &Register)>) -> Result<Self, StoreError> {
        let keys = match own.map(|(own, register)| keys_of(own, Some(register))) {
            Some(Ok(keys)) => Keys { sealed: false, ..keys },
            Some(Err(StoreError::Sealed { reason, .. })) => {
                Keys { keys: Err(reason), sealed: false }
            }
            Some(Err(other)) => return Err(other),
            None => Keys::none(),
        };
        let (file, checked) =
            read_checked(path, PATIENCE, How::all(&keys)).map_err(|fault| error(path, fault))?;
        if !checked.flaws.is_empty() {
            return Err(error(path, Fault::Damaged(some(&checked.flaws))));
        }
        Ok(Self { path: path.to_owned(), file, guard: checked.guard })
    }

    /// Checks every record of content that is in memory.
    pub(super) fn checked(&mut self, keys: &Keys) -> Result<(), StoreError> {
        check_records(self.file.reader(), keys, Depth::Records)
            .map(drop)
            .map_err(|fault| error(&self.path, fault))
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { database: self.file.reader(), guard: &self.guard }
    }

    pub(super) fn revision(&self) -> Result<[u64; 2], StoreError> {
        state(self.file.reader()).map_err(|fault| error(&self.path, fault))
    }

    /// Everybody in the file.
    pub(super) fn people(&self) -> Result<Vec<PersonRecord>, StoreError> {
        let people: BTreeMap<u64, PersonRecord> = self.all(PEOPLE)?;
        Ok(people.into_values().collect())
    }

    fn all<T: Content>(&self, table: Table) -> Result<BTreeMap<u64, T>, StoreError> {
        self.reader().all(table).map_err(|fault| error(&self.path, fault))
    }

    /// Whether everybody in the file is valid; see [`Self::fault`].
    ///
    /// # Errors
    /// Names the first person who is not, or says that there are too many.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let mut lengths = Lengths::default();
        let people: BTreeMap<u64, PersonRecord> = self.all(PEOPLE)?;
        if people.len() > MOST_PEOPLE {
            return Err(StoreError::ManyPeople { path: self.path.clone() });
        }
        for (number, person) in people {
            let templates = self.templates(number)?;
            if let Some(reason) = self.fault(&person, &templates, &mut lengths)? {
                let (path, name) = (self.path.clone(), shown(person).name);
                return Err(StoreError::Invalid { path, name, reason });
            }
        }
        self.check_negatives(&mut lengths)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Templates of a person, and at most one more than a person may have.
    fn templates(&self, number: u64) -> Result<Vec<(u64, TemplateRecord)>, StoreError> {
        let keys = number << 32..=(number << 32 | 0xffff_ffff);
        let mut templates = Vec::new();
        let read = self.reader().each_in(TEMPLATES, keys, |key, record: TemplateRecord| {
            if templates.len() <= MOST_TEMPLATES {
                // As its model made it: this gallery rotates it in its own way.
                templates.extend(self.guard.plain_template(record).map(|record| (key, record)));
            }
            Ok(())
        });
        read.map_err(|fault| error(&self.path, fault))?;
        Ok(templates)
    }

    /// What is wrong with a person. Pictures are decoded only if their header is right.
    fn fault(
        &self,
        person: &PersonRecord,
        templates: &[(u64, TemplateRecord)],
        lengths: &mut Lengths,
    ) -> Result<Option<String>, StoreError> {
        if let Some(fault) = person_fault(person) {
            return Ok(Some(fault));
        }
        if templates.len() > MOST_TEMPLATES {
            return Ok(Some(format!("more than {MOST_TEMPLATES} templates")));
        }
        for (at, template) in templates {
            if let Some(fault) = template.fault(lengths.of(template.model())) {
                return Ok(Some(fault));
            }
            lengths.add(template.model(), template.length());
            let kept: Option<PictureRecord> =
                self.reader().one(CROPS, *at).map_err(|fault| error(&self.path, fault))?;
            if let Some(fault) = kept.and_then(|kept| kept.fault()) {
                return Ok(Some(fault));
            }
        }
        Ok(None)
    }
}

impl Store {
    /// Writes people, or everybody if `names` is empty, to a new gallery file that is not
    /// sealed, for [`Store::import`]. Returns the number of people.
    ///
    /// # Errors
    /// If a name is unknown, or the file exists or cannot be written.
    pub fn export(&self, names: &[String], to: &Path) -> Result<usize, StoreError> {
        let people = self.wanted(names)?;
        if to.exists() {
            let reason = "already exists; name a new file".to_owned();
            return Err(StoreError::Io { path: to.to_owned(), reason });
        }
        create_folder(to)?;
        let failed = |fault| error(to, fault);
        let target = create(to).map_err(failed)?;
        let [identity, revision] = self.revision()?;
        let next_person = self.number(NEXT_PERSON)?;
        let numbers = Numbers { identity, revision, next_person };
        fill(&target, None, numbers, |take| {
            // A backup of everybody holds the negatives as well.
            let wanted = |table: Table, key| {
                is_of(&people, table, key) || names.is_empty() && is_negatives(table, key)
            };
            feed(self.reader(), wanted, take)
        })
        .map_err(failed)?;
        drop(target);
        sync_folder(to).map_err(|reason| failed(Fault::Io(reason.to_string())))?;
        Ok(people.len())
    }

    /// The people of these names, or everybody.
    pub(super) fn wanted(&self, names: &[String]) -> Result<Vec<Person>, StoreError> {
        match names {
            [] => self.people(),
            names => names.iter().map(|name| self.find(name)).collect(),
        }
    }

    /// Adds the people of an exported file, each of whom is checked as if enrolled here.
    /// Without `with_administrators` administrators become ordinary people.
    ///
    /// # Errors
    /// If the file cannot be read, the gallery would have too many people, or the change
    /// cannot be written.
    pub fn import(
        &mut self,
        from: &Export,
        with_administrators: bool,
    ) -> Result<Imported, StoreError> {
        let mut done = Imported::default();
        let people = self.people()?;
        let mut present: Vec<Likeness> = people.iter().map(|p| Likeness::of(&p.name)).collect();
        let mut lengths = Lengths::default();
        let read = self.reader().each(TEMPLATES, |_, record: TemplateRecord| {
            lengths.add(record.model(), record.length());
            Ok(())
        });
        read.map_err(|fault| error(&self.path, fault))?;
        let mut edits = Vec::new();
        let mut next = self.next_person()?;
        let people: BTreeMap<u64, PersonRecord> = from.all(PEOPLE)?;
        for (number, mut record) in people {
            let own = from.templates(number)?;
            if let Some(fault) = from.fault(&record, &own, &mut lengths)? {
                let name = shown(record).name;
                done.refused.push(format!("{name:?}: {fault}"));
                continue;
            }
            record.name = checked_name(&record.name)?;
            record.traits.group = checked_name(&record.traits.group)?;
            // What a file says about a site proves nothing.
            record.traits.site = None;
            let likeness = Likeness::of(&record.name);
            if present.iter().any(|other| other.is_like(&likeness)) {
                done.taken.push(record.name);
                continue;
            }
            present.push(likeness);
            if present.len() > MOST_PEOPLE {
                return Err(StoreError::ManyPeople { path: self.path.clone() });
            }
            if record.traits.administrator && !with_administrators {
                record.traits.administrator = false;
                done.made_ordinary += 1;
            }
            edits.push(put(PEOPLE, next, &record));
            for (at, template) in own {
                let to = (next << 32) | (at & 0xffff_ffff);
                let rotation = self.guard.rotation(template.length());
                edits.push(put(TEMPLATES, to, &template.rotated_by(rotation.as_deref())));
                let kept = from.reader().one::<PictureRecord>(CROPS, at);
                if let Some(kept) = kept.map_err(|fault| error(&from.path, fault))? {
                    edits.push(put(CROPS, to, &kept));
                }
            }
            next += 1;
            done.added += 1;
        }
        if done.added > 0 {
            edits.push(meta(NEXT_PERSON, next));
            self.commit(edits)?;
        }
        Ok(done)
    }
}

/// Whether a record belongs to a negative.
pub(super) fn is_negatives(table: Table, key: u64) -> bool {
    table.name() != PEOPLE.name() && is_negative(key)
}

/// Whether a record belongs to one of these people.
pub(super) fn is_of(people: &[Person], table: Table, key: u64) -> bool {
    let owner = if table.name() == PEOPLE.name() { PersonId(key as u32) } else { person_of(key) };
    people.iter().any(|person| person.id == owner)
}
