//! EDGE: people of a site in the gallery: all changes of a batch in one transaction.

use super::limits::Lengths;
use super::tables::{
    CROPS, Edit, NEXT_PERSON, PEOPLE, PersonRecord, TEMPLATES, TemplateRecord, each_in, meta, put,
};
use super::{MOST_PEOPLE, MOST_TEMPLATES, Store, StoreError, checked_name, error, limits};
use crate::access::gallery::{PersonId, Traits};
use crate::access::names::Likeness;
use crate::models::ModelId;
use crate::vision::embed::{Embedding, Template};
use facelatch_site::{Person, PersonId as SiteId, SiteTemplate};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers that are tried behind a name that is taken here.
const MOST_NAMES: u32 = 99;

/// A change that the site makes.
#[derive(Clone, Debug, PartialEq)]
pub enum SiteChange {
    /// The person, in place of the one with the same id.
    Put(Box<Person>),
    /// Nobody has this id any more.
    Remove(SiteId),
    /// Whether the person is an administrator here.
    Administrator(SiteId, bool),
}

impl SiteChange {
    fn of(&self) -> SiteId {
        match self {
            Self::Put(person) => person.id,
            Self::Remove(id) | Self::Administrator(id, _) => *id,
        }
    }
}

/// A person of the gallery as a site would know them.
#[derive(Clone, Debug, PartialEq)]
pub struct SitePerson {
    /// Number in the gallery.
    pub number: PersonId,
    /// Whether the person belongs to a site; else the id in `person` is zero.
    pub belongs: bool,
    /// Templates are as their model made them, in 8 bits.
    pub person: Person,
}

/// A person that was not taken, and why.
pub type NotTaken = (SiteId, String);

impl Store {
    /// The people with these ids of a site, or everybody.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn site_people(
        &self,
        ids: Option<&BTreeSet<SiteId>>,
    ) -> Result<Vec<SitePerson>, StoreError> {
        let mut all = Vec::new();
        for (key, record) in self.all::<PersonRecord>(PEOPLE)? {
            let id = record.traits.site.map(SiteId);
            if ids.is_some_and(|ids| id.is_none_or(|id| !ids.contains(&id))) {
                continue;
            }
            let number = PersonId(key as u32);
            let templates = self.site_templates(number)?;
            let Traits { administrator, group, stricter, probation, .. } = record.traits.clone();
            let person = Person {
                id: id.unwrap_or(SiteId([0; 16])),
                name: record.name,
                group,
                administrator,
                probation,
                stricter,
                enrolled_at: record.enrolled_at,
                valid_from: record.traits.valid_from,
                valid_until: record.traits.valid_until,
                templates: templates.into_iter().map(|(_, template)| template).collect(),
            };
            all.push(SitePerson { number, belongs: id.is_some(), person });
        }
        Ok(all)
    }

    /// Templates of a person as their model made them, with their keys.
    fn site_templates(&self, person: PersonId) -> Result<Vec<(u64, SiteTemplate)>, StoreError> {
        let first = u64::from(person.0) << 32;
        let mut templates = Vec::new();
        let read = self.reader().each_in(TEMPLATES, first..=first | 0xffff_ffff, |key, record| {
            let plain = self.guard.plain_template(record);
            let template = plain.and_then(|plain| SiteTemplate::new(plain.model(), plain.values()));
            templates.extend(template.map(|template| (key, template)));
            Ok(())
        });
        read.map_err(|fault| error(&self.path, fault))?;
        templates.truncate(MOST_TEMPLATES);
        Ok(templates)
    }

    /// Marks people of this gallery as people of the site.
    ///
    /// # Errors
    /// If the change cannot be written.
    pub fn mark_site(&mut self, marks: &[(PersonId, Option<SiteId>)]) -> Result<(), StoreError> {
        let mut edits = Vec::new();
        for (number, id) in marks {
            if let Some(mut record) = self.one::<PersonRecord>(PEOPLE, u64::from(number.0))? {
                record.traits.site = id.map(|id| id.0);
                edits.push(put(PEOPLE, u64::from(number.0), &record));
            }
        }
        if edits.is_empty() { Ok(()) } else { self.commit(edits) }
    }

    /// Makes changes of a site in one transaction; of several about one person the last
    /// counts. A name that is taken here, or looks like one that is, gets a number. A person
    /// whose templates stay keeps the pictures. Returns whom it did not take.
    ///
    /// # Errors
    /// If the file cannot be read or the changes cannot be written; then nothing changed.
    pub fn apply_site(&mut self, changes: &[SiteChange]) -> Result<Vec<NotTaken>, StoreError> {
        let mut people: BTreeMap<u64, PersonRecord> = self.all(PEOPLE)?;
        let mut numbers: BTreeMap<SiteId, u64> = people
            .iter()
            .filter_map(|(number, record)| Some((SiteId(record.traits.site?), *number)))
            .collect();
        let mut alike: BTreeMap<u64, Likeness> =
            people.iter().map(|(number, record)| (*number, Likeness::of(&record.name))).collect();
        let mut lengths = Lengths::default();
        let read = self.reader().each(TEMPLATES, |_, record: TemplateRecord| {
            lengths.add(record.model(), record.length());
            Ok(())
        });
        read.map_err(|fault| error(&self.path, fault))?;
        let first_new = self.next_person()?;
        let (mut next, mut edits, mut not_taken) = (first_new, Vec::new(), Vec::new());
        // The last change of each person, with what came before it for an administrator.
        let mut last: BTreeMap<SiteId, Vec<&SiteChange>> = BTreeMap::new();
        for change in changes {
            let of = last.entry(change.of()).or_default();
            if !matches!(change, SiteChange::Administrator(..)) {
                of.clear();
            }
            of.push(change);
        }
        for change in last.into_values().flatten() {
            match change {
                SiteChange::Put(person) => {
                    let number = numbers.get(&person.id).copied();
                    let mut record = match checked(person, &mut lengths) {
                        Ok(record) => record,
                        Err(fault) => {
                            not_taken.push((person.id, fault));
                            continue;
                        }
                    };
                    if number.is_none() && people.len() >= MOST_PEOPLE {
                        return Err(StoreError::ManyPeople { path: self.path.clone() });
                    }
                    let number = number.unwrap_or_else(|| {
                        next += 1;
                        next - 1
                    });
                    alike.remove(&number);
                    record.name = free_name(&record.name, &alike);
                    alike.insert(number, Likeness::of(&record.name));
                    numbers.insert(person.id, number);
                    self.put_templates(number, person, &mut edits)?;
                    edits.push(put(PEOPLE, number, &record));
                    people.insert(number, record);
                }
                SiteChange::Remove(id) => {
                    let Some(number) = numbers.remove(id) else { continue };
                    people.remove(&number);
                    alike.remove(&number);
                    edits.push(Edit { table: PEOPLE, key: number, record: None });
                    self.remove_templates(number, &mut edits)?;
                }
                SiteChange::Administrator(id, is) => {
                    let number = numbers.get(id).copied();
                    let Some((number, record)) =
                        number.and_then(|number| Some((number, people.get_mut(&number)?)))
                    else {
                        continue;
                    };
                    record.traits.administrator = *is;
                    edits.push(put(PEOPLE, number, record));
                }
            }
        }
        if next > first_new {
            edits.push(meta(NEXT_PERSON, next));
        }
        if !edits.is_empty() {
            self.commit(edits)?;
        }
        Ok(not_taken)
    }

    fn put_templates(
        &self,
        number: u64,
        person: &Person,
        edits: &mut Vec<Edit>,
    ) -> Result<(), StoreError> {
        let had = self.site_templates(PersonId(number as u32))?;
        if had.iter().map(|(_, template)| template).eq(&person.templates) {
            return Ok(());
        }
        self.remove_templates(number, edits)?;
        for (key, template) in (number << 32..).zip(&person.templates) {
            let model = ModelId::new(&template.model);
            let embedding = Embedding::normalized(&template.embedding());
            let made = Template::new(model.clone(), embedding);
            let record = self.guard.template_record(&made, &model);
            edits.extend(record.map(|record| put(TEMPLATES, key, &record)));
        }
        Ok(())
    }

    fn remove_templates(&self, number: u64, edits: &mut Vec<Edit>) -> Result<(), StoreError> {
        for table in [TEMPLATES, CROPS] {
            let own = number << 32..=number << 32 | 0xffff_ffff;
            let read = each_in(self.main.reader(), table, own, |key, _| {
                edits.push(Edit { table, key, record: None });
                Ok(())
            });
            read.map_err(|fault| error(&self.path, fault))?;
        }
        Ok(())
    }
}

/// The record of a person of the site, or why there is none.
fn checked(person: &Person, lengths: &mut Lengths) -> Result<PersonRecord, String> {
    let name = checked_name(&person.name).map_err(|fault| fault.to_string())?;
    let group = checked_name(&person.group).map_err(|fault| fault.to_string())?;
    let traits = Traits {
        administrator: person.administrator,
        group,
        stricter: person.stricter,
        probation: person.probation,
        valid_from: person.valid_from,
        valid_until: person.valid_until,
        site: Some(person.id.0),
    };
    let record = PersonRecord { name, enrolled_at: person.enrolled_at, traits };
    if let Some(fault) = limits::person_fault(&record) {
        return Err(fault);
    }
    for template in &person.templates {
        let length = template.numbers.len();
        if lengths.of(&template.model).is_some_and(|known| known != length) {
            return Err(format!("a template has {length} values"));
        }
        if template.numbers.iter().all(|number| *number == 0) {
            return Err("a template is zero".to_owned());
        }
        lengths.add(&template.model, length);
    }
    Ok(record)
}

/// The name, with a number if it is taken here or looks like one that is.
fn free_name(name: &str, taken: &BTreeMap<u64, Likeness>) -> String {
    let is_free = |name: &str| {
        let likeness = Likeness::of(name);
        !taken.values().any(|other| other.is_like(&likeness))
    };
    if is_free(name) {
        return name.to_owned();
    }
    let base: String = name.chars().take(95).collect();
    let numbered = (2..=MOST_NAMES).map(|number| format!("{base} {number}"));
    let mut free = numbered.filter(|name| is_free(name));
    free.next().unwrap_or_else(|| name.to_owned())
}
