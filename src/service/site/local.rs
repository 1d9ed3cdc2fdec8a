//! EDGE: changes that were made at this door, by the button or a command, become changes of
//! the site.

use super::carry::digest;
use super::now_ms;
use super::thread::{APPLIED, GALLERY, SiteThread};
use crate::access::event::plain;
use crate::access::gallery::PersonId;
use crate::storage::gallery::{Purpose, SitePerson, StoreError, stamp};
use facelatch_site::{ChangeError, Effect, Member, Person, PersonId as SiteId};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// More people than this who vanish at once were not removed one by one: a gallery was
/// restored. They come back from the site.
const MOST_REMOVED: usize = 8;
/// Time from the first look at a changed gallery to the second one.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl SiteThread {
    /// Notes the numbers that people of the site have here.
    pub(super) fn number(&mut self) {
        let people = self.open_gallery(Purpose::Read).and_then(|store| store.site_people(None));
        if let Ok(people) = people {
            let of_site = people.into_iter().filter(|one| one.belongs);
            self.numbers = of_site.map(|one| (one.person.id, one.number)).collect();
        }
    }

    /// Makes everybody a person of this door alone.
    pub(super) fn unmark(&mut self) -> Result<(), StoreError> {
        let mut gallery = match self.open_gallery(Purpose::Change) {
            Err(StoreError::Absent { .. }) => return Ok(()),
            gallery => gallery?,
        };
        let people = gallery.site_people(None)?;
        let marks: Vec<(PersonId, Option<SiteId>)> =
            people.iter().filter(|one| one.belongs).map(|one| (one.number, None)).collect();
        gallery.mark_site(&marks)
    }

    /// Compares the gallery with what was applied last, if it has changed.
    pub(super) fn compare(&mut self, ended: &AtomicBool) {
        if !self.knows_site() {
            return;
        }
        let now = stamp(&self.settings.gallery);
        let changed = now != self.seen;
        let due = self.look_again.is_some_and(|at| Instant::now() >= at);
        if now.is_none() || !changed && !due {
            return;
        }
        match self.differences() {
            Ok(effects) => {
                self.carry(effects, ended);
                // To open the file is to write to it, so its time is read afterwards. What
                // somebody else changes in between is found by the second look.
                self.seen = stamp(&self.settings.gallery);
                self.look_again = changed.then(|| Instant::now() + LOOK_AGAIN_AFTER);
            }
            // Next time.
            Err(StoreError::Busy { .. }) => {}
            Err(error) => self.fault = Some(error.to_string()),
        }
    }

    fn differences(&mut self) -> Result<Vec<Effect>, StoreError> {
        let gallery = self.open_gallery(Purpose::Read)?;
        let [identity, _] = gallery.revision()?;
        let people = gallery.site_people(None)?;
        drop(gallery);
        if self.identity.replace(identity).is_some_and(|before| before != identity) {
            log::warn!(
                "site: this is another gallery than before; the site's people are heard again"
            );
            return Ok(self.begin_again(identity));
        }
        let mut effects =
            vec![Effect::Keep { key: GALLERY.to_owned(), bytes: identity.to_le_bytes().to_vec() }];
        let here: BTreeSet<SiteId> =
            people.iter().filter(|one| one.belongs).map(|one| one.person.id).collect();
        let of_site: BTreeSet<SiteId> = self.member.people().collect();
        let gone: Vec<SiteId> =
            self.applied.keys().copied().filter(|id| !here.contains(id)).collect();
        if gone.iter().filter(|id| of_site.contains(id)).count() > MOST_REMOVED {
            log::warn!(
                "site: {} people vanished from the gallery at once; they are taken for lost, and \
                 come back from the site; remove people one by one",
                gone.len()
            );
            return Ok(self.begin_again(identity));
        }
        for id in gone {
            self.applied.remove(&id);
            self.numbers.remove(&id);
            if of_site.contains(&id) {
                match self.member.remove(id, now_ms()) {
                    Ok(removed) => effects.extend(removed),
                    Err(error) => {
                        log::warn!("site: a person removed here stays elsewhere: {error}")
                    }
                }
            }
            effects.push(Effect::Forget { key: format!("{APPLIED}{id}") });
        }
        effects.extend(self.newcomers(&people)?);
        for one in people.iter().filter(|one| one.belongs) {
            self.numbers.insert(one.person.id, one.number);
            if self.applied.get(&one.person.id) != Some(&digest(&one.person)) {
                effects.extend(self.publish_person(&one.person));
            }
        }
        Ok(effects)
    }

    /// People of this door alone, in a group that the site shares: they get an id.
    fn newcomers(&mut self, people: &[SitePerson]) -> Result<Vec<Effect>, StoreError> {
        let shared = |member: &Member, group: &String| {
            member
                .certificate()
                .is_some_and(|certificate| certificate.writes && certificate.groups.contains(group))
        };
        let mut new = Vec::new();
        for one in people.iter().filter(|one| !one.belongs) {
            if shared(&self.member, &one.person.group)
                && !one.person.templates.is_empty()
                && let Ok(id) = SiteId::random()
            {
                new.push((one.number, Person { id, ..one.person.clone() }));
            }
        }
        if new.is_empty() {
            return Ok(Vec::new());
        }
        // Before they are published: a stop in between must not give them two ids.
        let marks: Vec<_> = new.iter().map(|(number, person)| (*number, Some(person.id))).collect();
        self.open_gallery(Purpose::Change)?.mark_site(&marks)?;
        let mut effects = Vec::new();
        for (number, person) in new {
            self.numbers.insert(person.id, number);
            effects.extend(self.publish_person(&person));
        }
        Ok(effects)
    }

    /// Publishes a person as they are here. Somebody whom the site removed goes here too.
    fn publish_person(&mut self, person: &Person) -> Vec<Effect> {
        let now = digest(person);
        let key = format!("{APPLIED}{}", person.id);
        match self.member.put(person.clone(), now_ms()) {
            Ok(mut effects) => {
                self.applied.insert(person.id, now);
                effects.insert(0, Effect::Keep { key, bytes: now.to_vec() });
                effects
            }
            Err(ChangeError::Unknown) => vec![Effect::Remove(person.id)],
            Err(error) => {
                let name = plain(&person.name);
                log::warn!("site: a change of {name} stays at this door: {error}");
                self.applied.insert(person.id, now);
                vec![Effect::Keep { key, bytes: now.to_vec() }]
            }
        }
    }

    /// Forgets what is known of people, to hear it again.
    fn begin_again(&mut self, identity: u64) -> Vec<Effect> {
        let kept = self.store.all().unwrap_or_default();
        let of_people =
            |key: &str| ["entry/", "mine/", APPLIED].iter().any(|one| key.starts_with(one));
        let (people, rest): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|(key, _)| of_people(key));
        let rest = rest.into_iter().filter(|(key, _)| !key.starts_with(super::thread::OWN));
        self.member = Member::new(&self.settings.secret, self.settings.key, rest);
        self.member.set_models(&self.settings.models);
        self.applied.clear();
        self.numbers.clear();
        self.synced = false;
        let mut effects: Vec<Effect> =
            people.into_iter().map(|(key, _)| Effect::Forget { key }).collect();
        effects.push(Effect::Forget { key: super::thread::SYNCED.to_owned() });
        effects
            .push(Effect::Keep { key: GALLERY.to_owned(), bytes: identity.to_le_bytes().to_vec() });
        if self.is_connected() {
            effects.extend(self.member.connected());
            effects.push(Effect::Fetch { filters: self.member.filters() });
        }
        effects
    }
}
