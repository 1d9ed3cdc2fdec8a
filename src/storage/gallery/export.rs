//! EDGE: people in a file of their own, for another door.

use super::files::{Readable, read_checked, sync_folder};
use super::limits::{Lengths, person_fault};
use super::tables::{Fault, each_in, read_record};
use super::*;
use crate::access::names::Likeness;

/// A file written by [`Store::export`], open read-only.
pub struct Export {
    path: PathBuf,
    file: Readable,
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
    /// Opens the file and checks every record.
    ///
    /// # Errors
    /// If the file is missing, unreachable, no gallery, damaged, in use or newer.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (file, _) = read_checked(path, PATIENCE).map_err(|fault| error(path, fault))?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn reader(&self) -> &dyn ReadableDatabase {
        self.file.reader()
    }

    pub(super) fn revision(&self) -> Result<[u64; 2], StoreError> {
        state(self.reader()).map_err(|fault| error(&self.path, fault))
    }

    /// Everybody in the file.
    pub(super) fn people(&self) -> Result<Vec<PersonRecord>, StoreError> {
        let people: BTreeMap<u64, PersonRecord> = self.all(PEOPLE)?;
        Ok(people.into_values().collect())
    }

    fn all<T: Content>(&self, table: Table) -> Result<BTreeMap<u64, T>, StoreError> {
        all(self.reader(), table).map_err(|fault| error(&self.path, fault))
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
        Ok(())
    }

    /// Templates of a person, and at most one more than a person may have.
    fn templates(&self, number: u64) -> Result<Vec<(u64, TemplateRecord)>, StoreError> {
        let keys = number << 32..=(number << 32 | 0xffff_ffff);
        let mut templates = Vec::new();
        each_in(self.reader(), TEMPLATES, keys, |key, bytes| {
            if templates.len() <= MOST_TEMPLATES {
                templates.push((key, read_record(TEMPLATES, key, bytes)?));
            }
            Ok(())
        })
        .map_err(|fault| error(&self.path, fault))?;
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
                one(self.reader(), CROPS, *at).map_err(|fault| error(&self.path, fault))?;
            if let Some(fault) = kept.and_then(|kept| kept.fault()) {
                return Ok(Some(fault));
            }
        }
        Ok(None)
    }
}

impl Store {
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
        copy_records(self.main.reader(), &target, wanted).map_err(failed)?;
        drop(target);
        sync_folder(to).map_err(|reason| failed(Fault::Io(reason.to_string())))?;
        Ok(people.len())
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
        each(self.main.reader(), TEMPLATES, |key, bytes| {
            let record: TemplateRecord = read_record(TEMPLATES, key, bytes)?;
            lengths.add(record.model(), record.length());
            Ok(())
        })
        .map_err(|fault| error(&self.path, fault))?;
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
                edits.push(put(TEMPLATES, to, &template));
                let kept = one::<PictureRecord>(from.reader(), CROPS, at);
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
