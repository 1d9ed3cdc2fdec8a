//! The office's commands with a real Mosquitto and a door that is a member of the site.

use facelatch_crypto::{PublicKey, Secret};
use facelatch_link::mqtt::{Pauses, Settings};
use facelatch_link::site::{Line, Wire};
use facelatch_site::{Code, Effect, KeyId, Member, Person, PersonId, SiteTemplate};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_millis() as u64
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    /// As by systemd.
    fn stop(&mut self) -> bool {
        let id = self.0.id().to_string();
        assert!(Command::new("/bin/kill").args(["-TERM", &id]).status().expect("kill").success());
        self.0.wait().expect("ended").success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A broker, and the office's folder and configuration.
struct Site {
    folder: TempDir,
    port: u16,
    _broker: Running,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let broker = folder.path().join("mosquitto.conf");
        std::fs::write(&broker, format!("listener {port} 127.0.0.1\nallow_anonymous true\n"))
            .expect("written");
        let path = std::env::var("PATH").unwrap_or_default();
        let broker = Command::new("mosquitto")
            .env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"))
            .arg("-c")
            .arg(broker)
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs Mosquitto: apt-get install mosquitto");
        let broker = Running(broker);
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "the broker takes no connections");
            std::thread::sleep(Duration::from_millis(20));
        }
        let config = format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n");
        std::fs::write(folder.path().join("link.toml"), config).expect("written");
        Self { folder, port, _broker: broker }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch-link"));
        let office = self.path("office");
        let config = self.path("link.toml");
        command.args(["site", "--office", &office, "--config", &config]).args(arguments);
        command
    }

    /// Whether a command succeeded, and what it wrote.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command(arguments).output().expect("the program");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).expect("text"))
    }

    /// The answer of a command that succeeds.
    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [&["--json"], arguments].concat();
        let output = self.command(&arguments).output().expect("the program");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        let said = String::from_utf8(output.stdout).expect("text");
        serde_json::from_str(said.trim()).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    fn keep(&self) -> Running {
        let running = Running(self.command(&["keep"]).stderr(Stdio::null()).spawn().expect("it"));
        let until = Instant::now() + PATIENCE;
        while !Path::new(&self.path("office/orders")).is_dir() {
            assert!(Instant::now() < until, "the office's service does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }
}

/// A door: a member of the site with a connection.
struct Door {
    member: Member,
    wire: Wire,
    kept: BTreeMap<String, Vec<u8>>,
    gallery: BTreeMap<PersonId, Person>,
    expelled: bool,
    /// Whether it reported whom it has.
    reported: bool,
    ticked: Instant,
}

impl Door {
    fn new(site: &Site, key: &str) -> Self {
        let key: PublicKey = key.parse().expect("a key");
        let secret = Secret::random().expect("random numbers");
        let pause = Duration::from_millis(50);
        let settings = Settings {
            host: "127.0.0.1".to_owned(),
            port: site.port,
            tls: None,
            client_id: String::new(),
            username: None,
            password: None,
            keep_alive: Duration::from_secs(30),
            will: None,
            pauses: Pauses::new(pause, pause),
        };
        let prefix = format!("facelatch/{}/fleet/", KeyId::of(&key));
        Self {
            member: Member::new(&secret, key, []),
            wire: Wire::start(settings, prefix, 1 << 20).expect("a thread"),
            kept: BTreeMap::new(),
            gallery: BTreeMap::new(),
            expelled: false,
            reported: false,
            ticked: Instant::now(),
        }
    }

    fn carry(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Keep { key, bytes } => drop(self.kept.insert(key, bytes)),
                Effect::Forget { key } => drop(self.kept.remove(&key)),
                Effect::Put(person) => drop(self.gallery.insert(person.id, *person)),
                Effect::Remove(person) => drop(self.gallery.remove(&person)),
                Effect::Expelled => self.expelled = true,
                Effect::PublishKept { topic, key } => {
                    self.wire.publish(&topic, self.kept[&key].clone(), true, None);
                }
                other => {
                    let have = |topic: &str| topic.starts_with("have/");
                    let known = !self.gallery.is_empty();
                    self.reported |=
                        matches!(&other, Effect::Publish { topic, .. } if have(topic) && known);
                    drop(self.wire.carry(vec![other]));
                }
            }
        }
    }

    /// Lets the door work until it is as wanted.
    fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !wanted(self) {
            assert!(Instant::now() < until, "{what}: {:?}", self.member.standing(now_ms()));
            let effects = match self.wire.next_line(Duration::from_millis(50)) {
                Some(Line::Connected) => self.member.connected(),
                Some(Line::Fetched) => self.member.fetched(now_ms()),
                Some(Line::Record { topic, bytes }) => self.member.hear(&topic, &bytes, now_ms()),
                Some(Line::Lost { .. }) | None => Vec::new(),
            };
            self.carry(effects);
            if self.ticked.elapsed() >= Duration::from_millis(200) {
                self.ticked = Instant::now();
                let effects = self.member.tick(now_ms());
                self.carry(effects);
            }
        }
    }

    fn enroll(&mut self, name: &str) -> PersonId {
        let id = PersonId::random().expect("random numbers");
        let person = Person {
            id,
            name: name.to_owned(),
            group: "staff".to_owned(),
            administrator: false,
            probation: false,
            stricter: 0.0,
            enrolled_at: 0,
            valid_from: None,
            valid_until: None,
            templates: vec![SiteTemplate::new("test", &[1.0, -0.5]).expect("a template")],
        };
        self.gallery.insert(id, person.clone());
        let effects = self.member.put(person, now_ms()).expect("enrolled");
        self.carry(effects);
        id
    }
}

/// Admits a door with the code that the command shows.
fn admit(site: &Site, name: &str, key: &str) -> Door {
    let mut door = Door::new(site, key);
    door.until("connected", |door| door.wire.connected());
    let mut command = site.command(&["--json", "admit", "--door", name]);
    let mut admit = Running(command.stdout(Stdio::piped()).spawn().expect("the program"));
    let mut lines = BufReader::new(admit.0.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    let shown: Value = serde_json::from_str(&next()).expect("JSON");
    let code: Code = shown["code"].as_str().expect("a code").parse().expect("a code");
    let effects = door.member.join(&code, "what it calls itself").expect("a request");
    door.carry(effects);
    door.until("admitted", |door| door.member.certificate().is_some());
    let joined: Value = serde_json::from_str(&next()).expect("JSON");
    assert_eq!(joined["fingerprint"], door.member.public().fingerprint());
    assert_eq!(joined["says"], "what it calls itself");
    assert!(admit.0.wait().expect("ended").success());
    door
}

#[test]
fn an_office_admits_doors_and_locks_out_by_its_commands() {
    let site = Site::new();
    let made = site.json(&["init"]);
    let key = made["key"].as_str().expect("a key").to_owned();
    let (good, said) = site.run(&["init"]);
    assert!(!good && said.contains("has the key of a site already"), "{said}");

    // Without the service each command is the office for a moment.
    let mut front = admit(&site, "front", &key);
    let doors = site.json(&["doors"]);
    assert_eq!(doors["doors"][0]["name"], "front");
    let ada = front.enroll("Ada");
    front.until("sent", |door| door.wire.idle());
    assert_eq!(site.json(&["people"])["people"][0]["name"], "Ada");
    front.until("reported", |door| door.reported && door.wire.idle());
    let doors = site.json(&["doors"]);
    assert_eq!(doors["doors"][0]["have"]["people"], 1, "{doors}");
    let rules = site.path("rules.toml");
    std::fs::write(&rules, "[groups.staff]\nhours = [\"mon-fri 07:00-19:00\"]\n").expect("written");
    site.json(&["policy", &rules, "--lease", "2d"]);
    front.until("rules", |door| door.member.policy().text.contains("07:00"));
    assert_eq!(front.member.policy().lease_s, 2 * 86_400);

    // With the service, commands go through it.
    let mut keep = site.keep();
    let mut back = admit(&site, "back", &key);
    back.until("everybody", |door| door.gallery.contains_key(&ada));
    back.until("a lease", |door| door.member.standing(now_ms()).fault.is_none());
    let bob = back.enroll("Bob");
    front.until("the other's", |door| door.gallery.contains_key(&bob));
    // The door may have heard of him before the office.
    front.until("the office's Bob", |_| site.json(&["people"]).to_string().contains("Bob"));
    site.json(&[
        "person",
        "Bob",
        "--name",
        "Robert",
        "--from",
        "2026-12-01",
        "--until",
        "2026-12-31T18:00Z",
    ]);
    site.json(&["person", "Robert", "--administrator", "yes"]);
    for door in [&mut front, &mut back] {
        door.until("changed", |door| door.gallery[&bob].administrator);
        let Person { name, valid_from, valid_until, .. } = &door.gallery[&bob];
        assert_eq!((name.as_str(), *valid_until), ("Robert", Some(1_798_740_000)));
        assert!(valid_from.is_some_and(|from| (1_796_000_000..1_796_200_000).contains(&from)));
    }
    let listed = site.json(&["people"]);
    assert!(listed["people"].to_string().contains("1798740000"), "{listed}");
    site.json(&["person", "Robert", "--always"]);
    back.until("no dates", |door| door.gallery[&bob].valid_until.is_none());
    site.json(&["revoke", "--person", "Ada"]);
    front.until("locked out", |door| !door.gallery.contains_key(&ada));
    back.until("locked out", |door| !door.gallery.contains_key(&ada));
    assert_eq!(site.json(&["rotate"])["epoch"], 2);
    front.until("a new key", |door| door.member.have(0).epoch == 2);
    assert_eq!(site.json(&["revoke", "--door", "back"])["epoch"], 3);
    back.until("expelled", |door| door.expelled);
    assert!(back.gallery.is_empty());
    front.until("another key", |door| door.member.have(0).epoch == 3);
    assert!(front.gallery.contains_key(&bob));

    // Faults are named with their cure.
    for (arguments, expected) in [
        (&["revoke", "--door", "back"][..], "no door \"back\"; facelatch-link site doors lists"),
        (&["revoke", "--person", "Eve"], "nobody is called \"Eve\"; facelatch-link site people"),
        (&["person", "Eve", "--group", "staff"], "nobody is called \"Eve\""),
        (&["person", "Robert", "--group", "guests"], "no door serves the group \"guests\""),
        (&["person", "Robert", "--name", ""], "1 to 100 characters"),
        (
            &["person", "Robert", "--from", "2027-01-02", "--until", "2027-01-01"],
            "before the first",
        ),
        (&["policy", &rules, "--lease", "7"], "expected a number of days, hours or minutes"),
        (&["change", "--door", "front", "--groups", ""], "1 to 100 characters"),
    ] {
        let (good, said) = site.run(arguments);
        assert!(!good && said.contains(expected), "{arguments:?}: {said}");
    }
    std::fs::write(&rules, "[relay]\ndevice = \"null:\"\n").expect("written");
    let (good, said) = site.run(&["policy", &rules]);
    assert!(!good && said.contains("rules have [groups.NAME] tables"), "{said}");
    assert!(keep.stop());

    // Everything is still there, and a door that asks with a wrong code is not let in.
    let doors = site.json(&["doors"]);
    assert_eq!(
        (doors["doors"].as_array().map(Vec::len), &doors["locked_out"]),
        (Some(1), &1.into())
    );
    assert_eq!(site.json(&["people"])["people"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_office_whose_key_others_may_read_does_not_work() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    site.json(&["init"]);
    let key = site.path("office/site.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("set");
    let (good, said) = site.run(&["doors"]);
    assert!(!good && said.contains("others may read the site's key"), "{said}");
    std::fs::remove_file(&key).expect("removed");
    let (good, said) = site.run(&["doors"]);
    assert!(!good && said.contains("make one with facelatch-link site init"), "{said}");
}

#[test]
fn an_order_waits_for_a_broker_that_is_away() {
    let site = Site::new();
    let key = site.json(&["init"])["key"].as_str().expect("a key").to_owned();
    let mut front = admit(&site, "front", &key);
    let ada = front.enroll("Ada");
    front.until("sent", |door| door.wire.idle());
    assert_eq!(site.json(&["people"])["people"].as_array().map(Vec::len), Some(1));
    let config = site.path("link.toml");
    let good = std::fs::read_to_string(&config).expect("read");
    std::fs::write(&config, "[mqtt]\nurl = \"mqtt://127.0.0.1:9\"\n").expect("written");
    let (done, said) = site.run(&["revoke", "--person", "Ada"]);
    assert!(!done && said.contains("The office has kept it"), "{said}");
    assert!(front.gallery.contains_key(&ada));
    std::fs::write(&config, good).expect("written");
    let mut keep = site.keep();
    front.until("locked out", |door| !door.gallery.contains_key(&ada));
    assert!(keep.stop());
}

#[test]
fn the_commands_of_the_document_are_understood() {
    let text = include_str!("../../docs/connect.md");
    let section = text.split("\n## ").find(|part| part.starts_with("A site of doors"));
    let section = section.expect("the section");
    // In blocks of commands, and in the table.
    let blocks = section.lines().filter_map(|line| line.strip_prefix("    sudo "));
    let table = section.lines().filter_map(|line| line.strip_prefix("| "));
    let table = table.filter_map(|line| line.split('`').nth(1));
    let commands: Vec<&str> = blocks.chain(table).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("link.toml");
    std::fs::write(&config, "").expect("written");
    std::fs::write(folder.path().join("rules.toml"), "").expect("written");
    let mut known = std::collections::BTreeSet::new();
    for command in &commands {
        let Some(arguments) = command.strip_prefix("facelatch-link ") else {
            let others = ["facelatch site join CODE", "systemctl enable --now facelatch-office"];
            assert!(others.contains(command), "{command}");
            continue;
        };
        let words: Vec<&str> = arguments.split_whitespace().collect();
        known.insert(words[1]);
        let output = Command::new(env!("CARGO_BIN_EXE_facelatch-link"))
            .args(&words)
            .arg("--office")
            .arg(folder.path().join("office"))
            .arg("--config")
            .arg(&config)
            .current_dir(folder.path())
            .output()
            .expect("the program");
        // A broker is missing, or a site; but the words are right.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() != Some(2), "{command}: {said}");
    }
    let all = [
        "admit", "change", "doors", "init", "keep", "models", "people", "person", "policy",
        "revoke", "rotate",
    ];
    assert!(all.iter().all(|word| known.contains(word)), "{known:?}");
}
