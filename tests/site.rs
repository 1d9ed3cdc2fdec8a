//! Doors of a site: each with its gallery, its thread and its socket, an office, and a broker
//! in memory in the place of the link.

mod sets;

use facelatch::access::SitePeople;
use facelatch::access::door::Role;
use facelatch::access::gallery::{Gallery, PersonId};
use facelatch::config::{Config, LeaseEnd, LinkConfig};
use facelatch::crypto::{Secret, Signer};
use facelatch::models::ModelId;
use facelatch::nn::Precision;
use facelatch::service::audit::Auditor;
use facelatch::service::control::{Control, ControlSettings};
use facelatch::service::link::{Link, LinkSettings};
use facelatch::service::site::{ModelPlace, Site, SiteNow, SiteRules, SiteSettings};
use facelatch::service::status::Status;
use facelatch::storage::audit::AuditPlace;
use facelatch::storage::gallery::{NewTemplate, Opening, Person, Purpose, Register, Store};
use facelatch::storage::models::{BUILT_IN, InstallOptions, ModelStore};
use facelatch::vision::embed::{Embedding, Template};
use facelatch_messages::{
    Bytes, FromDoor, FromLink, Lines, LinkHello, PROTOCOL, Reach, write_line,
};
use facelatch_site::{Code, Effect, Office, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Timeout for events that must happen: far longer than they take.
const LONG: Duration = Duration::from_secs(60);
const MODEL: &str = "test";
const SIZE: usize = 16;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn fits(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// A template that resembles no other with another number.
fn template(number: usize) -> Template {
    let mut values = vec![0.05; SIZE];
    values[number % SIZE] = 1.0;
    values[(number / SIZE) % SIZE] += 0.4;
    Template::new(ModelId::new(MODEL), Embedding::normalized(&values))
}

/// A door with what a service gives it, but without camera and relay.
struct Door {
    folder: TempDir,
    secret: Secret,
    site: Option<Site>,
    link: Option<Link>,
    control: Control,
    stream: Option<UnixStream>,
    lines: Lines,
    filters: Vec<String>,
    on_lease_end: LeaseEnd,
    rules: Arc<SiteRules>,
    /// More of the door's configuration, which is read again for each installation.
    config: Arc<Mutex<String>>,
}

impl Door {
    fn gallery(&self) -> PathBuf {
        self.folder.path().join("gallery.redb")
    }

    fn register(&self) -> Register {
        Register::at(self.folder.path().join("register"))
    }

    fn store(&self, purpose: Purpose) -> Store {
        let opening = Opening::to(purpose).registered(Some(self.register()));
        let until = Instant::now() + LONG;
        loop {
            match Store::open_as(&self.gallery(), opening.clone()) {
                Ok(store) => return store,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn people(&self) -> BTreeMap<String, Person> {
        let people = self.store(Purpose::Read).people().expect("people");
        people.into_iter().map(|person| (person.name.clone(), person)).collect()
    }

    /// The gallery as the door compares with it.
    fn loaded(&self) -> Gallery {
        self.store(Purpose::Read).load(&ModelId::new(MODEL), SIZE).expect("a gallery").gallery
    }

    fn enroll(&self, name: &str, number: usize) {
        let new = NewTemplate { template: template(number), picture: None };
        self.store(Purpose::Begin).enroll(name, &[new]).expect("enrolled");
    }

    fn models(&self) -> ModelStore {
        ModelStore::new(&self.folder.path().join("models")).registered(Some(self.register()))
    }

    fn place(&self) -> ModelPlace {
        let (config, gallery) = (Arc::clone(&self.config), self.gallery());
        let read_config = move || {
            let text = config.lock().expect("no panic").clone();
            let gallery = format!("[gallery]\nfile = {gallery:?}\n");
            Ok(Config::parse(Path::new("facelatch.toml"), &format!("{text}{gallery}"))?)
        };
        ModelPlace {
            store: self.models(),
            read_config: Arc::new(read_config),
            precision: Precision::default(),
        }
    }

    fn site(&self) -> &Site {
        self.site.as_ref().expect("a running door")
    }

    fn now(&self) -> SiteNow {
        self.site().ends().now()
    }

    fn say(&mut self, message: &FromLink) {
        let (line, until) = (write_line(message), Instant::now() + LONG);
        let Some(stream) = &mut self.stream else { return };
        let mut rest = &line[..];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What the door says now.
    fn said(&mut self) -> Vec<FromDoor> {
        let (mut all, mut bytes) = (vec![], vec![0; 65536]);
        let Some(stream) = &mut self.stream else { return all };
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => panic!("the door hangs up"),
                Ok(count) => self.lines.add(&bytes[..count]).expect("a short line"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
                Err(error) => panic!("{error}"),
            }
            while let Some(message) = self.lines.next_message() {
                all.extend(message.expect("a message"));
            }
        }
    }
}

/// Office, broker and doors.
struct World {
    office: Office,
    kept: BTreeMap<String, Vec<u8>>,
    retained: BTreeMap<String, Vec<u8>>,
    /// Everything that was ever published.
    history: Vec<(String, Vec<u8>)>,
    /// What waits for the office, and for each door.
    for_office: Vec<(String, Vec<u8>)>,
    doors: Vec<Door>,
    sent: u64,
    /// Published records that reach nobody.
    withheld: fn(&str) -> bool,
}

impl World {
    fn new() -> Self {
        let (office, effects) = Office::new(&Secret::new([1; 32]), []).expect("a site");
        let mut world = Self {
            office,
            kept: BTreeMap::new(),
            retained: BTreeMap::new(),
            history: vec![],
            for_office: vec![],
            doors: vec![],
            sent: 0,
            withheld: |_| false,
        };
        world.carry(effects);
        let connected = world.office.connected();
        world.carry(connected);
        let policy = world.office.set_policy(Policy { lease_s: 3600, ..Policy::default() });
        world.carry(policy.expect("a policy"));
        let fetched = world.office.fetched(now_ms());
        world.carry(fetched);
        world
    }

    fn carry(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Keep { key, bytes } => drop(self.kept.insert(key, bytes)),
                Effect::Forget { key } => drop(self.kept.remove(&key)),
                Effect::Publish { topic, bytes, retain, .. } => {
                    self.publish(&topic, &bytes, retain)
                }
                Effect::Subscribe { filters } | Effect::Fetch { filters } => {
                    let wanted = |topic: &String| filters.iter().any(|filter| fits(filter, topic));
                    let found = self.retained.iter().filter(|(topic, _)| wanted(topic));
                    self.for_office.extend(found.map(|(a, b)| (a.clone(), b.clone())));
                }
                _ => {}
            }
        }
    }

    fn publish(&mut self, topic: &str, bytes: &[u8], retain: bool) {
        self.history.push((topic.to_owned(), bytes.to_vec()));
        if retain {
            self.retained.insert(topic.to_owned(), bytes.to_vec());
        }
        if (self.withheld)(topic) {
            return;
        }
        if self.office.filters().iter().any(|filter| fits(filter, topic)) {
            self.for_office.push((topic.to_owned(), bytes.to_vec()));
        }
        for at in 0..self.doors.len() {
            if self.doors[at].filters.iter().any(|filter| fits(filter, topic)) {
                self.show(at, topic, bytes);
            }
        }
    }

    fn show(&mut self, at: usize, topic: &str, bytes: &[u8]) {
        self.sent += 1;
        let (topic, bytes) = (topic.to_owned(), Bytes(bytes.to_vec()));
        self.doors[at].say(&FromLink::Record { id: self.sent, topic, bytes });
    }

    fn fetch(&mut self, at: usize, filters: &[String]) {
        let wanted = |topic: &str| {
            filters.iter().any(|filter| fits(filter, topic)) && !(self.withheld)(topic)
        };
        let found: Vec<_> = self.retained.iter().filter(|(topic, _)| wanted(topic)).collect();
        let found: Vec<_> = found.into_iter().map(|(a, b)| (a.clone(), b.clone())).collect();
        for (topic, bytes) in found {
            self.show(at, &topic, &bytes);
        }
        let reach = Reach { good: true, broker: true, fetched: true, ..Reach::default() };
        self.doors[at].say(&FromLink::Reach(reach));
    }

    fn door(&mut self) -> usize {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = ControlSettings::default();
        let path = folder.path().join("run/control.sock");
        let (control, _) = Control::listen(&path, Arc::default(), settings).expect("a socket");
        let secret = Secret::new([10 + self.doors.len() as u8; 32]);
        self.doors.push(Door {
            folder,
            secret,
            site: None,
            link: None,
            control,
            stream: None,
            lines: Lines::default(),
            filters: vec![],
            on_lease_end: LeaseEnd::AdministratorsOnly,
            rules: Arc::new(SiteRules::new(Arc::default())),
            config: Arc::default(),
        });
        let at = self.doors.len() - 1;
        // The gallery begins with somebody of another group.
        let door = &self.doors[at];
        door.enroll("Installer", 100 + at);
        door.store(Purpose::Change).set_group("Installer", "installers").expect("changed");
        self.start(at);
        at
    }

    /// Starts a door's thread and socket.
    fn start(&mut self, at: usize) {
        let door = &mut self.doors[at];
        let site = Site::start(SiteSettings {
            key: self.office.public(),
            secret: door.secret.clone(),
            door: format!("door {at}"),
            on_lease_end: door.on_lease_end,
            gallery: door.gallery(),
            register: Some(door.register()),
            place: Some(door.place()),
            models: "1".to_owned(),
            rules: Arc::clone(&door.rules),
            auditor: Auditor::off(),
        })
        .expect("a site");
        let socket = door.folder.path().join("run/link.sock");
        let settings = LinkSettings {
            config: LinkConfig::default(),
            door: "front".to_owned(),
            key: Signer::new(&door.secret).public(),
            pseudonyms: door.secret.clone(),
            orders: door.control.queue(),
            status: Arc::new(Mutex::new(Status::default())),
            place: AuditPlace { gallery: door.gallery(), register: None },
            auditor: Auditor::off(),
            site: Some(site.ends()),
            patience: LONG,
        };
        door.link = Some(Link::listen(&socket, settings).expect("a socket"));
        door.site = Some(site);
        self.connect(at);
    }

    fn connect(&mut self, at: usize) {
        let door = &mut self.doors[at];
        let socket = door.folder.path().join("run/link.sock");
        let stream = UnixStream::connect(socket).expect("a listener");
        stream.set_nonblocking(true).expect("a socket");
        (door.stream, door.lines, door.filters) = (Some(stream), Lines::default(), vec![]);
        door.say(&FromLink::Hello(LinkHello { protocol: PROTOCOL, ..LinkHello::default() }));
        let reach = Reach { good: true, broker: true, ..Reach::default() };
        door.say(&FromLink::Reach(reach));
    }

    fn stop(&mut self, at: usize) {
        let door = &mut self.doors[at];
        (door.stream, door.link, door.site) = (None, None, None);
        door.filters.clear();
    }

    /// Carries messages until something holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let until = Instant::now() + LONG;
        let mut tick = Instant::now();
        loop {
            for at in 0..self.doors.len() {
                for message in self.doors[at].said() {
                    match message {
                        FromDoor::Publish { topic, bytes, retain, .. } => {
                            self.publish(&topic, &bytes.0, retain);
                        }
                        FromDoor::Subscribe { filters } => {
                            self.doors[at].filters.clone_from(&filters);
                            self.fetch(at, &filters);
                        }
                        FromDoor::Fetch { filters } => self.fetch(at, &filters),
                        _ => {}
                    }
                }
            }
            for (topic, bytes) in std::mem::take(&mut self.for_office) {
                let effects = self.office.hear(&topic, &bytes, now_ms());
                self.carry(effects);
            }
            if tick <= Instant::now() {
                tick = Instant::now() + Duration::from_millis(200);
                let effects = self.office.tick(now_ms()).expect("random numbers");
                self.carry(effects);
                if holds(self) {
                    return;
                }
                let states: Vec<_> =
                    self.doors.iter().filter(|door| door.site.is_some()).map(Door::now).collect();
                assert!(Instant::now() < until, "not yet: {what}; {states:#?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets a door join.
    fn admit(&mut self, at: usize, groups: &[&str], writes: bool) {
        let code = Code::random().expect("random numbers");
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let name = format!("door {at}");
        self.office.invite(&code, &name, &groups, writes, now_ms()).expect("an invitation");
        let socket = self.doors[at].folder.path().join("run/control.sock");
        assert!(socket.exists());
        self.doors[at].site().join(code);
        self.until("admitted", |world| {
            let now = world.doors[at].now();
            now.name.is_some() && now.lease_s.is_some_and(|lease| lease > 0) && now.missing == 0
        });
    }

    fn pair() -> Self {
        let mut world = Self::new();
        for at in [0, 1] {
            world.door();
            world.admit(at, &["staff"], true);
        }
        world
    }
}

fn has(world: &World, at: usize, name: &str) -> bool {
    world.doors[at].people().contains_key(name)
}

#[test]
fn a_person_enrolled_at_one_door_is_known_at_the_other_and_one_removed_is_not() {
    let mut world = World::pair();
    world.doors[0].enroll("Ada Lovelace", 1);
    world.until("Ada at both", |world| has(world, 1, "Ada Lovelace"));
    // With templates that each door rotates in its own way.
    let galleries = [0, 1].map(|at| world.doors[at].loaded());
    for gallery in &galleries {
        let best = gallery.best(&template(1)).expect("somebody");
        assert_eq!(best.name, "Ada Lovelace");
        assert!(best.similarity > 0.999, "{}", best.similarity);
    }
    // Changes at the other door come back.
    world.doors[1].store(Purpose::Change).rename("Ada Lovelace", "Ada King").expect("renamed");
    world.until("the new name", |world| has(world, 0, "Ada King"));
    assert!(!has(&world, 0, "Ada Lovelace") && has(&world, 0, "Installer"));
    world.doors[0].store(Purpose::Change).remove("Ada King").expect("removed");
    world.until("gone at both", |world| !has(world, 1, "Ada King"));
    let left = world.doors[1].loaded();
    assert_eq!(left.people(), 1, "the installer");
    // Who is of no shared group stays at their door.
    assert!(world.doors.iter().all(|door| door.people().len() == 1));
}

#[test]
fn a_door_that_was_off_or_away_catches_up_and_nobody_comes_twice() {
    let mut world = World::pair();
    world.doors[0].enroll("Ada", 1);
    world.until("Ada at both", |world| has(world, 1, "Ada"));
    world.stop(1);
    world.doors[0].enroll("Grace", 2);
    world.doors[0].store(Purpose::Change).remove("Ada").expect("removed");
    // Changed while the service is off, as a command may.
    world.doors[1].enroll("Mary", 3);
    world.until("published", |world| world.office.people_count() == 1);
    world.start(1);
    world.until("agreement", |world| {
        let names = [0, 1].map(|at| world.doors[at].people().into_keys().collect::<BTreeSet<_>>());
        names[0] == names[1] && names[0].len() == 3
    });
    assert!(has(&world, 0, "Mary") && has(&world, 1, "Grace") && !has(&world, 1, "Ada"));
    // Nothing changes by starting again.
    let before = world.doors[1].people();
    world.stop(1);
    world.start(1);
    world.until("connected again", |world| {
        let now = world.doors[1].now();
        now.people == 2 && now.missing == 0
    });
    std::thread::sleep(Duration::from_millis(1500));
    world.until("quiet", |_| true);
    assert_eq!(world.doors[1].people(), before);
    assert_eq!(world.office.people_count(), 2);
}

#[test]
fn names_that_are_taken_here_get_a_number_and_stay_apart() {
    let mut world = World::new();
    for at in [0, 1] {
        world.door();
        world.doors[at].enroll("Ada", 1 + at);
        world.admit(at, &["staff"], true);
    }
    world.until("both at both", |world| {
        [0, 1].iter().all(|at| world.doors[*at].people().len() == 3)
    });
    assert!(has(&world, 0, "Ada 2") && has(&world, 1, "Ada 2"));
    for at in [0, 1] {
        let gallery = world.doors[at].loaded();
        let names =
            [1, 2].map(|number| gallery.best(&template(number)).expect("one").name.to_owned());
        assert_ne!(names[0], names[1]);
    }
}

#[test]
fn records_that_are_old_forged_or_changed_change_nothing() {
    let mut world = World::pair();
    world.doors[0].enroll("Ada", 1);
    world.until("Ada at both", |world| has(world, 1, "Ada"));
    let old = world.history.clone();
    world.doors[0].store(Purpose::Change).remove("Ada").expect("removed");
    world.until("gone at both", |world| !has(world, 1, "Ada"));
    let before = world.doors[1].people();
    // The whole past once more, then each record with a flipped bit, and of another site.
    for (topic, bytes) in old.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        world.show(1, &topic, &bytes);
        let mut changed = bytes.clone();
        let at = changed.len() / 2;
        changed[at] ^= 1;
        world.show(1, &topic, &changed);
        world.show(1, "policy", &bytes);
    }
    world.show(1, "people/x/y", &[1; 100]);
    world.show(1, "\u{1b}[2J", &[]);
    std::thread::sleep(Duration::from_millis(1500));
    world.until("all heard", |_| true);
    assert_eq!(world.doors[1].people(), before);
    assert!(world.doors[1].now().refused > 0);
    // A door that is no member of this site.
    let mut other = World::new();
    other.office = Office::new(&Secret::new([9; 32]), []).expect("a site").0;
    other.door();
    for (topic, bytes) in world.history.clone() {
        other.show(0, &topic, &bytes);
    }
    other.until("all heard", |world| world.doors[0].now().refused > 0);
    assert_eq!(other.doors[0].people().len(), 1);
}

#[test]
fn a_door_that_is_locked_out_loses_the_people_of_the_site() {
    let mut world = World::pair();
    world.doors[0].enroll("Ada", 1);
    world.until("Ada at both", |world| has(world, 1, "Ada"));
    let effects = world.office.revoke_door(door_key(&world, 1), None, now_ms()).expect("a change");
    world.carry(effects);
    world.until("locked out", |world| !has(world, 1, "Ada"));
    assert!(has(&world, 1, "Installer") && has(&world, 0, "Ada"));
    world.until("shown", |world| world.doors[1].now().name.is_none());
}

fn door_key(world: &World, at: usize) -> facelatch_site::KeyId {
    world.doors[at].now().door.parse().expect("an id")
}

#[test]
fn until_the_site_is_heard_the_rule_of_the_configuration_holds() {
    let mut world = World::new();
    let text = "[groups.staff]\nhours = [\"07:00-19:00\"]\n".to_owned();
    let policy = Policy { lease_s: 3600, text: text.clone(), ..Policy::default() };
    let policy = world.office.set_policy(policy);
    world.carry(policy.expect("a policy"));
    world.door();
    world.doors[0].on_lease_end = LeaseEnd::RefuseSitePeople;
    world.stop(0);
    world.start(0);
    // Not admitted, it has nobody of the site whom to trust.
    assert_eq!(world.doors[0].site().people(), SitePeople::Nobody);
    world.admit(0, &["staff"], true);
    assert_eq!(world.doors[0].site().people(), SitePeople::All);
    assert_eq!(world.doors[0].rules.text(), text);
    // Rules that no door could use change nothing.
    let policy = Policy {
        lease_s: 3600,
        text: "[door]\nopen_for = \"50s\"".to_owned(),
        ..Policy::default()
    };
    let policy = world.office.set_policy(policy);
    world.carry(policy.expect("a policy"));
    world.until("the fault", |world| world.doors[0].now().fault.is_some());
    assert_eq!(world.doors[0].rules.text(), text);
}

#[test]
fn a_passage_at_one_door_is_heard_at_the_other() {
    let mut world = World::pair();
    world.doors[0].enroll("Ada", 1);
    world.until("Ada at both", |world| has(world, 1, "Ada"));
    let number = |world: &World, at: usize| world.doors[at].people()["Ada"].id;
    let (here, there) = (number(&world, 0), number(&world, 1));
    world.doors[0].site().passed(here, Role::In);
    world.doors[0].site().passed(PersonId(9999), Role::Out);
    let mut heard = vec![];
    world.until("the passage", |world| {
        heard.extend(world.doors[1].site().passages());
        !heard.is_empty()
    });
    assert_eq!((heard[0].person, heard[0].role), (there, Role::In));
    assert!(heard[0].ago < LONG);
    assert_eq!(heard.len(), 1);
}

#[test]
fn a_set_of_models_reaches_the_doors_that_trust_its_key() {
    let mut world = World::pair();
    let set = sets::set(world.doors[0].folder.path(), "2030.1");
    let trusting = sets::sign(&set, 1, 1_900_000_000);
    trusting.clone_into(&mut world.doors[0].config.lock().expect("no panic"));
    // A part is lost on its way.
    world.withheld = |topic| topic == "models/1";
    let offer = world.office.offer_models("January", &sets::tar(&set)).expect("an offer");
    world.carry(offer);
    let fetching = |world: &World, at: usize| {
        let models = world.doors[at].now().models.unwrap_or_default();
        let (_, parts) = models.split_once(": ").unwrap_or_default();
        let mut words = parts.split(' ');
        let (here, all) = (words.next(), words.nth(1));
        let [here, all] = [here, all].map(|word| word.and_then(|word| word.parse().ok()));
        here.zip(all).is_some_and(|(here, all): (u32, u32)| here + 1 == all)
    };
    world.until("all parts but one", |world| (0..2).all(|at| fetching(world, at)));
    let in_use =
        |world: &World, at: usize| world.doors[at].models().pointer().expect("a pointer").current;
    assert_eq!([0, 1].map(|at| in_use(&world, at)), [BUILT_IN; 2]);
    world.withheld = |_| false;
    (0..2).for_each(|at| world.connect(at));
    world.until("installed", |world| in_use(world, 0).starts_with("2030.1+"));
    // What the office says does not replace the signature.
    let refused = |world: &World, at: usize| {
        let fault = world.doors[at].now().fault.unwrap_or_default();
        fault.contains("January") && fault.contains("models.trusted_keys")
    };
    world.until("refused", |world| refused(world, 1));
    assert_eq!(in_use(&world, 1), BUILT_IN);

    // Back to the set before: the office's is not installed again, also after a restart.
    let door = &world.doors[0];
    let gallery = door.gallery();
    let options = InstallOptions::new(Precision::default(), &gallery, 1e-4);
    door.models().rollback(&options, &mut |_| Ok(())).expect("rolled back");
    // The door that did not trust the key does, and tries again after its restart.
    trusting.clone_into(&mut world.doors[1].config.lock().expect("no panic"));
    (0..2).for_each(|at| world.stop(at));
    (0..2).for_each(|at| world.start(at));
    world.until("installed", |world| in_use(world, 1).starts_with("2030.1+"));
    assert_eq!((in_use(&world, 0).as_str(), world.doors[0].now().models), (BUILT_IN, None));
    world.doors[1].site().set_models("2030.1");
    world.until("told to the office", |world| {
        let doors = world.office.doors();
        let has = |at: usize| doors[at].have.as_ref().map(|have| have.models.as_str());
        (has(0), has(1)) == (Some("1"), Some("2030.1"))
    });
    let left = std::fs::read_dir(world.doors[1].models().folder()).expect("a folder");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(left.iter().all(|name| name != ".offered.tar"), "{left:?}");
}

#[test]
fn a_set_that_another_office_or_nobody_signed_is_not_installed() {
    let mut world = World::pair();
    let set = sets::set(world.doors[0].folder.path(), "2030.1");
    let unsigned = sets::tar(&set);
    let trusting = sets::sign(&set, 1, 1_900_000_000);
    trusting.clone_into(&mut world.doors[0].config.lock().expect("no panic"));
    std::fs::remove_file(set.join("onet.onnx")).expect("removed");
    // Bytes that are no set, a set that nobody signed, and one that lacks a file.
    for (version, file) in
        [("junk", vec![7; 250_000]), ("bare", unsigned), ("cut", sets::tar(&set))]
    {
        let offer = world.office.offer_models(version, &file).expect("an offer");
        world.carry(offer);
        world.until("refused", |world| {
            let fault = world.doors[0].now().fault.unwrap_or_default();
            fault.contains(&format!("models {version} of the site"))
        });
        let pointer = world.doors[0].models().pointer().expect("a pointer");
        assert_eq!(pointer.current, BUILT_IN, "{version}");
    }
}
