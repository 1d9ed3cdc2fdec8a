//! People in a file of their own, for another door.

use super::*;
use crate::access::names::Likeness;

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
        copy_records(&self.main, &target, wanted).map_err(failed)?;
        Ok(people.len())
    }

    /// Adds the people of an exported file. Returns the number of people added, and the
    /// names of those left out because somebody has the name or one that looks alike.
    ///
    /// # Errors
    /// If the file cannot be read or the change cannot be written.
    pub fn import(&mut self, from: &Export) -> Result<(usize, Vec<String>), StoreError> {
        let failed = |fault| error(&from.path, fault);
        let source = &from.database;
        let (mut added, mut taken) = (0, Vec::new());
        let people = self.people()?;
        let mut present: Vec<Likeness> = people.iter().map(|p| Likeness::of(&p.name)).collect();
        let templates = all::<TemplateRecord>(source, TEMPLATES).map_err(failed)?;
        let mut edits = Vec::new();
        let mut next = self.number(NEXT_PERSON)?.max(1);
        for (key, record) in all::<PersonRecord>(source, PEOPLE).map_err(failed)? {
            let record = PersonRecord { name: checked_name(&record.name)?, ..record };
            let likeness = Likeness::of(&record.name);
            if present.iter().any(|other| other.is_like(&likeness)) {
                taken.push(record.name);
                continue;
            }
            present.push(likeness);
            edits.push(put(PEOPLE, next, &record));
            let own = templates.iter().filter(|(at, _)| u64::from(person_of(**at).0) == key);
            for (at, template) in own {
                let to = (next << 32) | (at & 0xffff_ffff);
                edits.push(put(TEMPLATES, to, template));
                if let Some(kept) = one::<PictureRecord>(source, CROPS, *at).map_err(failed)? {
                    edits.push(put(CROPS, to, &kept));
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
}
