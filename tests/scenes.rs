//! A door simulator: the controller with a scripted clock, scripted faces and a scripted
//! relay, at native speed. The scenes are text files in tests/scenes/. Each scene is a
//! trial; `cargo test --test scenes -- --list` lists them.
//!
//! ```text
//! # title of the scene
//! set door.open_for = "4s"           a setting, as in the configuration
//! people ada grace=admin bob=night   enrolled people; =admin or =GROUP
//! 1.0  faces 1=ada 2=eve/left        faces from 1.0 s on: track=person/pose
//! 1.2  told granted: ada             an event with this text, at 1.2 s
//! 1.2  shown Welcome                 a signal with this text, at 1.2 s
//! 1.2  open                          state of the lock: open or locked
//!      never alarm                   no event of the scene has this text
//! ```
//!
//! The clock ticks every 50 ms, and the camera takes a frame every 100 ms; `told` and
//! `shown` accept events up to one frame early. Other lines:
//!
//! - `nobody`: no faces in view; `lag 2.0`: seconds between a frame and its result
//! - `press SIDE`, `release SIDE`, `presses N SIDE`, `hold SIDE`: the button, with SIDE
//!   `inside` or `outside`; `hold` lasts 3.5 s
//! - `exit`, `opened`, `closed`, `command NAME`, `reset`
//! - `relay works|broken|silent|slow|away|back`, `store works|broken|silent`
//! - `clock TIME [unsynchronized]`, `clock none`
//! - `elsewhere NAME in|out`: a passage at another door; `remove NAME`: from the gallery
//! - `models`: other models are used from now on
//! - `configure KEY = VALUE`: the service reloads its configuration
//! - `restart`: the power fails and comes back; `stop`: the service ends

use facelatch::access::controller::{Controller, FaceSeen, Input, Output};
use facelatch::access::door::{Command, LockKind, Role};
use facelatch::access::gallery::{Gallery, PersonId, Traits};
use facelatch::access::gesture::Side;
use facelatch::access::schedule::{LocalTime, Reading};
use facelatch::config::Config;
use facelatch::models::threshold::{Calibration, Tail, ThresholdTable};
use facelatch::models::{ModelId, ScoreCalibration};
use facelatch::storage::gallery::{NewTemplate, Store};
use facelatch::vision::embed::{Embedding, Template};
use facelatch::vision::liveness::Sample;
use facelatch::vision::liveness::colour::Colours;
use facelatch::vision::pose::Pose;
use facelatch::vision::quality::Aspect;
use facelatch::vision::track::TrackId;
use libtest_mimic::{Arguments, Failed, Trial};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

const TICK_MS: u64 = 50;
const FRAME_MS: u64 = 100;
/// Events and signals may be up to this much earlier than the script says.
const SLACK_MS: u64 = 100;

/// People of the scenes. An embedding has one dimension per person and one per pose.
const PEOPLE: [&str; 6] = ["ada", "grace", "bob", "eve", "mallory", "own"];
const SIZE: usize = PEOPLE.len() + Pose::ALL.len();

/// Seed of the liveness challenges.
const CHANCE: u64 = 1;

/// Liveness sample of an ordinary person who is present.
fn live() -> Sample {
    let colours = Colours {
        saturation: 0.41,
        saturation_spread: 0.1,
        warmth: 0.18,
        black: 45.0,
        diversity: 0.094,
        glare: 0.0,
    };
    Sample { shape: None, moire: 0.0, edges: 0.0, sharpness: 0.07, colours, network: None }
}

fn model() -> ModelId {
    ModelId::new("scenes")
}

/// Template of a face as the networks would embed it. Different people are far apart, but
/// "eva" resembles ada (cosine 0.45) and "twin" is almost identical to her (0.87).
fn template(who: &str, pose: Pose) -> Option<Template> {
    let mut values = [0.0; SIZE];
    let at = |who: &str| PEOPLE.iter().position(|known| *known == who);
    let (like, share) = match who {
        "eva" => ("ada", 0.4f32),
        "twin" => ("ada", 0.85),
        who => (who, 1.0),
    };
    values[at("own")?] = (1.0 - share * share).sqrt();
    values[at(like)?] = share;
    let turned = Pose::ALL.iter().position(|known| *known == pose)?;
    values[PEOPLE.len() + turned] = 0.3;
    Some(Template::new(model(), Embedding::normalized(&values)))
}

fn calibration() -> ScoreCalibration {
    // Votes alone decide here; the weight of evidence has its own tests.
    ScoreCalibration { thresholds: thresholds(), likelihood: None }
}

fn thresholds() -> ThresholdTable {
    ThresholdTable::new(
        [(1e-2, 0.25), (1e-3, 0.35), (1e-4, 0.45), (1e-5, 0.55), (1e-6, 0.6)],
        Calibration {
            data: "made up".to_owned(),
            people: 2,
            photos: 2,
            impostor_pairs: 100_000_000,
            measured_down_to: 1e-6,
            extrapolated: vec![],
            tail: Tail { similarity: 0.35, far: 1e-3, scale: 0.05, shape: 0.0 },
        },
    )
}

/// A timed line of a scene, with its number in the file and its time in milliseconds.
struct Line {
    number: usize,
    at: u64,
    words: String,
}

struct Scene {
    name: String,
    config: String,
    people: Vec<String>,
    lines: Vec<Line>,
    never: Vec<String>,
}

fn scenes(text: &str) -> Result<Vec<Scene>, String> {
    let mut scenes: Vec<Scene> = vec![];
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix("# ") {
            let name = name.trim().to_owned();
            let (config, people, lines, never) = (String::new(), vec![], vec![], vec![]);
            scenes.push(Scene { name, config, people, lines, never });
            continue;
        }
        let fault = |fault: &str| format!("line {number}: {fault}: {line}");
        let scene = scenes.last_mut().ok_or_else(|| fault("no scene yet"))?;
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match first {
            "set" => writeln!(scene.config, "{rest}").map_err(|e| e.to_string())?,
            "people" => scene.people.extend(rest.split_whitespace().map(str::to_owned)),
            "never" => scene.never.push(rest.to_owned()),
            time => {
                let seconds: f64 = time.parse().map_err(|_| fault("no time"))?;
                let at = (seconds * 1000.0).round() as u64;
                if scene.lines.last().is_some_and(|last| last.at > at) {
                    return Err(fault("time runs backwards"));
                }
                scene.lines.push(Line { number, at, words: rest.to_owned() });
            }
        }
    }
    Ok(scenes)
}

#[derive(Clone, Copy, PartialEq)]
enum Relay {
    Works,
    Broken,
    Silent,
    Slow,
}

/// The state of a scene while it plays.
struct Stage {
    /// The configuration as TOML.
    text: String,
    config: Config,
    controller: Controller,
    now: u64,
    people: Vec<(PersonId, String, Vec<Template>, Traits)>,
    /// Faces in view: track, person, pose or flaw.
    faces: Vec<(u64, String, String)>,
    lag: u64,
    relay: Relay,
    energised: bool,
    /// Future answers of a slow relay and edges of buttons, with their times.
    later: Vec<(u64, Later)>,
    clock: Option<(i64, u64, bool)>,
    store: Relay,
    views: Vec<Template>,
    told: Vec<(u64, String)>,
    shown: Vec<(u64, String)>,
}

#[derive(Clone, Copy)]
enum Later {
    Answer(u32, bool),
    Edge(Side, bool),
}

impl Stage {
    fn new(scene: &Scene) -> Result<Self, String> {
        let config = Config::parse(Path::new("scene"), &scene.config).map_err(|e| e.to_string())?;
        let mut people = vec![];
        for (number, entry) in (1..).zip(&scene.people) {
            let (name, what) = entry.split_once('=').unwrap_or((entry, ""));
            let face = |pose| template(name, pose).ok_or_else(|| format!("{name}: who is that?"));
            let views = vec![face(Pose::Front)?, face(Pose::Left)?];
            let traits = match what {
                "" => Traits::default(),
                "admin" => Traits { administrator: true, ..Traits::default() },
                group => Traits { group: group.to_owned(), ..Traits::default() },
            };
            people.push((PersonId(number), name.to_owned(), views, traits));
        }
        let gallery = gallery(&people);
        let (controller, first) =
            Controller::new(calibration(), &config, gallery, CHANCE, Duration::ZERO);
        let mut stage = Self {
            text: scene.config.clone(),
            config,
            controller,
            now: 0,
            people,
            faces: vec![],
            lag: 0,
            relay: Relay::Works,
            energised: true,
            later: vec![],
            clock: None,
            store: Relay::Works,
            views: vec![],
            told: vec![],
            shown: vec![],
        };
        stage.carry_out(first);
        stage.told.clear();
        Ok(stage)
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    fn input(&mut self, input: Input<'_>) {
        let output = self.controller.step(self.time(), input);
        self.carry_out(output);
    }

    fn carry_out(&mut self, mut output: Output) {
        loop {
            let now = self.now;
            self.told.extend(output.events.iter().map(|event| (now, event.to_string())));
            self.shown.extend(output.signals.iter().map(|signal| (now, format!("{signal:?}"))));
            if let Some(newcomer) = output.keep {
                let like = newcomer.look_alike.map(|(l, s)| (l.person, s));
                self.keep(newcomer.number, newcomer.by.is_none(), like);
            } else if output.discard {
                self.views.clear();
            }
            let Some(order) = output.relay else { return };
            let taken = match self.relay {
                Relay::Works => true,
                Relay::Broken => false,
                Relay::Silent => return,
                Relay::Slow => {
                    return self
                        .later
                        .push((now + 500, Later::Answer(order.number, order.energise)));
                }
            };
            if taken {
                self.energised = order.energise;
            }
            let answer = Input::Answer { order: order.number, taken };
            output = self.controller.step(self.time(), answer);
        }
    }

    fn keep(&mut self, number: u32, administrator: bool, look_alike: Option<(PersonId, f32)>) {
        let kept = match self.store {
            Relay::Works | Relay::Slow => {
                let id = PersonId(self.people.iter().map(|p| p.0.0).max().unwrap_or(0) + 1);
                let name = format!("staff-{:04}", id.0);
                let stricter = look_alike.map_or(0.0, |(_, stricter)| stricter);
                let traits = Traits { administrator, stricter, ..Traits::default() };
                let views = std::mem::take(&mut self.views);
                self.people.push((id, name.clone(), views, traits));
                for person in &mut self.people {
                    if look_alike.is_some_and(|(other, _)| other == person.0) {
                        person.3.stricter = person.3.stricter.max(stricter);
                    }
                }
                Ok(name)
            }
            Relay::Broken => Err("gallery.redb: no space left on device".to_owned()),
            Relay::Silent => return,
        };
        self.controller.set_gallery(gallery(&self.people));
        self.input(Input::Kept { number, done: kept });
    }

    fn frame(&mut self) -> Result<(), String> {
        let mut views = vec![];
        for (track, who, how) in &self.faces {
            let pose = match how.as_str() {
                "left" => Pose::Left,
                "right" => Pose::Right,
                "up" => Pose::Up,
                "down" => Pose::Down,
                _ => Pose::Front,
            };
            let poor = match how.as_str() {
                "far" => Some(Aspect::Size),
                "dark" => Some(Aspect::Brightness),
                "blurred" => Some(Aspect::Sharpness),
                "profile" => Some(Aspect::Pose),
                "" | "front" | "left" | "right" | "up" | "down" | "sidelit" | "between"
                | "screen" | "sharp-left" | "sharp-right" => None,
                how => return Err(format!("{how}: how is that?")),
            };
            let face = template(who, pose).ok_or_else(|| format!("{who}: who is that?"))?;
            let weakest = poor.map_or((Aspect::Size, 1.0), |aspect| (aspect, 0.1));
            let to_enroll = if how == "sidelit" { (Aspect::Brightness, 0.2) } else { weakest };
            let mut turn = pose.example();
            match how.as_str() {
                "between" => turn.yaw += 0.11,
                "sharp-left" => turn.yaw = 0.4,
                "sharp-right" => turn.yaw = -0.4,
                _ => {}
            }
            let mut sample = live();
            if how == "screen" {
                sample.moire = 60.0;
            }
            let face = poor.is_none().then_some(face);
            views.push((TrackId(*track), weakest, to_enroll, turn, sample, face));
        }
        let faces: Vec<FaceSeen<'_>> = views
            .iter()
            .map(|(track, weakest, weakest_to_enroll, turn, sample, template)| FaceSeen {
                track: *track,
                weakest: *weakest,
                weakest_to_enroll: *weakest_to_enroll,
                turn: *turn,
                sample: Some(*sample),
                template: template.as_ref(),
            })
            .collect();
        let captured = Duration::from_millis(self.now.saturating_sub(self.lag));
        let output = self.controller.step(self.time(), Input::Faces { captured, faces: &faces });
        if output.take {
            let [(.., Some(template))] = &views[..] else {
                return Err("a view is taken of nobody".to_owned());
            };
            self.views.push(template.clone());
        }
        self.carry_out(output);
        Ok(())
    }

    /// One tick: due answers and edges, the clock, and a frame if it is time for one.
    fn moment(&mut self) -> Result<(), String> {
        let now = self.now;
        let due: Vec<Later> =
            self.later.iter().filter(|(at, _)| *at <= now).map(|(_, later)| *later).collect();
        self.later.retain(|(at, _)| *at > now);
        for later in due {
            match later {
                Later::Answer(order, energise) => {
                    self.energised = energise;
                    self.input(Input::Answer { order, taken: true });
                }
                Later::Edge(side, pressed) => self.input(Input::Button { side, pressed }),
            }
        }
        if now.is_multiple_of(1000) {
            self.read_clock()?;
        }
        if now.is_multiple_of(FRAME_MS) && !self.faces.is_empty() {
            self.frame()
        } else {
            self.input(Input::Tick);
            Ok(())
        }
    }

    fn read_clock(&mut self) -> Result<(), String> {
        let Some((unix, since, synchronized)) = self.clock else { return Ok(()) };
        let unix = unix + ((self.now - since) / 1000) as i64;
        let date = facelatch::access::schedule::Date::from_days(unix.div_euclid(86_400) as i32);
        let minute = (unix.rem_euclid(86_400) / 60) as u16;
        let local = LocalTime::new(date, minute).ok_or("no time of day")?;
        self.input(Input::Clock(Reading { unix, local, synchronized }));
        Ok(())
    }

    fn act(&mut self, words: &str) -> Result<(), String> {
        let all: Vec<&str> = words.split_whitespace().collect();
        let side = |text: &str| match text {
            "inside" => Ok(Side::Inside),
            "outside" => Ok(Side::Outside),
            _ => Err(format!("{text}: inside or outside?")),
        };
        let person = |stage: &Self, name: &str| {
            let found = stage.people.iter().find(|person| person.1 == name);
            found.map(|person| person.0).ok_or_else(|| format!("{name}: is not enrolled"))
        };
        match all[..] {
            ["nobody"] => self.faces.clear(),
            ["faces", ref faces @ ..] => {
                self.faces.clear();
                for face in faces {
                    let (track, who) = face.split_once('=').ok_or("faces are like 1=ada/left")?;
                    let (who, how) = who.split_once('/').unwrap_or((who, ""));
                    let track = track.parse().map_err(|_| "a track is a number")?;
                    self.faces.push((track, who.to_owned(), how.to_owned()));
                }
            }
            ["lag", seconds] => {
                let seconds: f64 = seconds.parse().map_err(|_| "lag in seconds")?;
                self.lag = (seconds * 1000.0) as u64;
            }
            ["press", which] => self.input(Input::Button { side: side(which)?, pressed: true }),
            ["release", which] => self.input(Input::Button { side: side(which)?, pressed: false }),
            ["hold", which] => {
                let side = side(which)?;
                self.input(Input::Button { side, pressed: true });
                self.later.push((self.now + 3500, Later::Edge(side, false)));
            }
            ["presses", count, which] => {
                let side = side(which)?;
                for press in 0..count.parse::<u64>().map_err(|_| "how many presses?")? {
                    self.later.push((self.now + press * 300, Later::Edge(side, true)));
                    self.later.push((self.now + press * 300 + 150, Later::Edge(side, false)));
                }
                self.later.sort_by_key(|(at, _)| *at);
            }
            ["exit"] => self.input(Input::Exit),
            ["opened"] => self.input(Input::Opened),
            ["closed"] => self.input(Input::Closed),
            ["command", "open"] => self.input(Input::Command(Command::Open)),
            ["command", "lockdown"] => self.input(Input::Command(Command::Lockdown)),
            ["command", "always-open"] => self.input(Input::Command(Command::AlwaysOpen)),
            ["command", "normal"] => self.input(Input::Command(Command::Normal)),
            ["relay", "works"] => self.relay = Relay::Works,
            ["relay", "broken"] => self.relay = Relay::Broken,
            ["relay", "silent"] => self.relay = Relay::Silent,
            ["relay", "slow"] => self.relay = Relay::Slow,
            ["relay", "away"] => {
                // It has no power and accepts no order.
                (self.relay, self.energised) = (Relay::Broken, false);
                self.input(Input::RelayAway);
            }
            ["relay", "back"] => {
                // A board that lost power comes back de-energised.
                (self.relay, self.energised) = (Relay::Works, false);
                self.input(Input::RelayBack);
            }
            ["store", "works"] => self.store = Relay::Works,
            ["store", "broken"] => self.store = Relay::Broken,
            ["store", "silent"] => self.store = Relay::Silent,
            ["clock", "none"] => self.clock = None,
            ["clock", date, time] | ["clock", date, time, "unsynchronized"] => {
                let local: LocalTime = format!("{date} {time}").parse()?;
                let mut days = 0;
                while facelatch::access::schedule::Date::from_days(days) < local.date() {
                    days += 1;
                }
                let unix = i64::from(days) * 86_400 + i64::from(local.minute()) * 60;
                self.clock = Some((unix, self.now, all.len() == 3));
                self.read_clock()?;
            }
            ["elsewhere", name, way] => {
                let role = if way == "in" { Role::In } else { Role::Out };
                let ago = Duration::ZERO;
                self.input(Input::Passed { person: person(self, name)?, role, ago });
            }
            ["configure", ..] => {
                self.text += words.trim_start_matches("configure");
                self.text.push('\n');
                self.config = Config::parse(Path::new("scene"), &self.text)
                    .map_err(|error| error.to_string())?;
                self.controller.reconfigure(&self.config);
            }
            ["models"] => self.input(Input::ModelsChanged),
            ["reset"] => self.input(Input::LocalReset),
            ["remove", name] => {
                let gone = person(self, name)?;
                self.people.retain(|person| person.0 != gone);
                self.controller.set_gallery(gallery(&self.people));
            }
            ["restart"] => {
                let gallery = gallery(&self.people);
                let (controller, first) =
                    Controller::new(calibration(), &self.config, gallery, CHANCE, self.time());
                self.controller = controller;
                // Everything in memory is lost, and the relay is de-energised.
                self.views.clear();
                self.later.clear();
                self.energised = false;
                self.carry_out(first);
            }
            ["stop"] => self.input(Input::Stop),
            _ => return Err(format!("what is {words:?}?")),
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.energised == (self.config.door.lock == LockKind::FailSecure)
    }

    /// Finds the first entry with the text at this time, after the last one found.
    fn find(
        entries: &[(u64, String)],
        from: &mut usize,
        at: u64,
        text: &str,
    ) -> Result<(), String> {
        let found = entries.iter().enumerate().skip(*from).find(|(_, (time, entry))| {
            entry.contains(text) && *time <= at && *time + SLACK_MS >= at
        });
        match found {
            Some((place, _)) => {
                *from = place + 1;
                Ok(())
            }
            None => Err(format!("no {text:?} at {:.2} s", at as f64 / 1000.0)),
        }
    }
}

fn gallery(people: &[(PersonId, String, Vec<Template>, Traits)]) -> Gallery {
    let mut gallery = Gallery::new(model(), SIZE);
    for (id, name, views, traits) in people {
        gallery.add(*id, name, views);
        gallery.set_traits(*id, traits.clone());
    }
    gallery
}

fn play(scene: &Scene) -> Result<(), String> {
    let mut stage = Stage::new(scene)?;
    let (mut told, mut shown) = (0, 0);
    let mut outcome = Ok(());
    'scene: for line in &scene.lines {
        while stage.now < line.at {
            stage.moment()?;
            stage.now += TICK_MS;
        }
        let (first, rest) = line.words.split_once(' ').unwrap_or((&line.words, ""));
        // The results of a tick are known only after it.
        if matches!(first, "told" | "shown" | "open" | "locked") && stage.now == line.at {
            stage.moment()?;
            stage.now += TICK_MS;
        }
        let done = match first {
            "told" => Stage::find(&stage.told, &mut told, line.at, rest.trim()),
            "shown" => Stage::find(&stage.shown, &mut shown, line.at, rest.trim()),
            "open" if !stage.is_open() => Err("the lock is not open".to_owned()),
            "locked" if stage.is_open() => Err("the lock is open".to_owned()),
            "open" | "locked" => Ok(()),
            _ => stage.act(&line.words),
        };
        if let Err(fault) = done {
            outcome = Err(format!("line {}: {fault}", line.number));
            break 'scene;
        }
    }
    for never in &scene.never {
        if let Some((at, event)) = stage.told.iter().find(|(_, event)| event.contains(never)) {
            outcome = outcome.and(Err(format!("never {never}: {event} at {at} ms")));
        }
    }
    outcome.map_err(|fault| {
        let mut all = format!("{fault}\n");
        let mut entries = stage.told.clone();
        entries.extend(stage.shown.iter().map(|(at, signal)| (*at, format!("({signal})"))));
        entries.sort_by_key(|(at, _)| *at);
        for (at, event) in entries {
            let _ = writeln!(all, "{:8.2}  {event}", at as f64 / 1000.0);
        }
        all
    })
}

/// Two doors into one area, each informing the other of passages.
fn two_doors() -> Result<(), String> {
    let text = "[door]\nrole = \"in\"\nanti_passback = \"hard\"\n";
    let config = Config::parse(Path::new("scene"), text).map_err(|error| error.to_string())?;
    let face = template("ada", Pose::Front).ok_or("ada")?;
    let mut people = Gallery::new(model(), SIZE);
    people.add(PersonId(1), "ada", std::slice::from_ref(&face));
    let mut doors: Vec<Controller> = vec![];
    for _ in 0..2 {
        let (mut door, first) =
            Controller::new(calibration(), &config, people.clone(), CHANCE, Duration::ZERO);
        let order = first.relay.ok_or("no order to lock")?.number;
        door.step(Duration::ZERO, Input::Answer { order, taken: true });
        doors.push(door);
    }
    let visit = |doors: &mut Vec<Controller>, door: usize, from: u64| {
        let mut told = vec![];
        for frame in 0..5 {
            let now = Duration::from_millis(from + frame * 100);
            let seen = FaceSeen {
                track: TrackId(from),
                weakest: (Aspect::Size, 1.0),
                weakest_to_enroll: (Aspect::Size, 1.0),
                turn: Pose::Front.example(),
                sample: None,
                template: Some(&face),
            };
            let mut output = doors[door].step(now, Input::Faces { captured: now, faces: &[seen] });
            loop {
                for event in &output.events {
                    told.push(event.to_string());
                    if event.kind() == "passed" {
                        let (role, ago) = (Role::In, Duration::ZERO);
                        let passed = Input::Passed { person: PersonId(1), role, ago };
                        doors[1 - door].step(now, passed);
                    }
                }
                let Some(order) = output.relay else { break };
                let answer = Input::Answer { order: order.number, taken: true };
                output = doors[door].step(now, answer);
            }
        }
        told
    };
    let first = visit(&mut doors, 0, 1000);
    if !first.iter().any(|event| event == "passed: ada, in") {
        return Err(format!("{first:?}"));
    }
    let second = visit(&mut doors, 1, 20_000);
    let refused = |event: &String| event.starts_with("refused: ada, passed this way already");
    if !second.iter().any(refused) {
        return Err(format!("{second:?}"));
    }
    Ok(())
}

const INTO: &str = "FACELATCH_SCENES_ENROLL_INTO";
const VIEWS: usize = 5;

/// Enrolls one newcomer after another until the process is killed.
fn enroll_for_ever(file: &Path) {
    let pixels = (0..112 * 112 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let crop = facelatch::vision::align::Crop::from_pixels(pixels).expect("112 x 112");
    let views: Vec<NewTemplate> = Pose::ALL
        .iter()
        .filter_map(|pose| template("ada", *pose))
        .map(|template| NewTemplate { template, crop: Some(crop.clone()) })
        .collect();
    loop {
        let mut store = Store::open(file).expect("a gallery");
        store.enroll_unnamed(&views, false, Some((PersonId(1), 0.1))).expect("enrolled");
    }
}

/// Kills a process while it enrolls, several times, and checks the gallery that is left.
fn killed_while_enrolling() -> Result<(), String> {
    let folder = tempfile::TempDir::new().map_err(|error| error.to_string())?;
    let file = folder.path().join("gallery.redb");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut before = 0;
    for round in 0..8u64 {
        let mut child = std::process::Command::new(&program)
            .env(INTO, &file)
            .spawn()
            .map_err(|error| error.to_string())?;
        std::thread::sleep(Duration::from_millis(150 + 37 * round));
        child.kill().map_err(|error| error.to_string())?;
        child.wait().map_err(|error| error.to_string())?;
        let store = Store::open(&file).map_err(|error| error.to_string())?;
        let people = store.people().map_err(|error| error.to_string())?;
        for person in &people {
            if (person.templates, person.crops) != (VIEWS, VIEWS) || person.traits.stricter != 0.1 {
                return Err(format!("half enrolled: {person:?}"));
            }
        }
        if people.len() < before {
            return Err(format!("{before} people were enrolled, {} are left", people.len()));
        }
        before = people.len();
    }
    if before == 0 { Err("nobody was enrolled in all that time".to_owned()) } else { Ok(()) }
}

fn main() {
    if let Some(file) = std::env::var_os(INTO) {
        return enroll_for_ever(Path::new(&file));
    }
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("anti-passback: two doors inform each other of passages", || {
            two_doors().map_err(Failed::from)
        }),
        Trial::test("enrolment: a kill at any moment leaves nobody half enrolled", || {
            killed_while_enrolling().map_err(Failed::from)
        }),
    ];
    for (file, text) in [
        ("decision", include_str!("scenes/decision.txt")),
        ("liveness", include_str!("scenes/liveness.txt")),
        ("door", include_str!("scenes/door.txt")),
        ("relay", include_str!("scenes/relay.txt")),
        ("schedule", include_str!("scenes/schedule.txt")),
        ("enrolment", include_str!("scenes/enrolment.txt")),
        ("reload", include_str!("scenes/reload.txt")),
    ] {
        match scenes(text) {
            Ok(scenes) => trials.extend(scenes.into_iter().map(|scene| {
                Trial::test(format!("{file}: {}", scene.name), move || {
                    play(&scene).map_err(Failed::from)
                })
            })),
            Err(fault) => {
                let fault = format!("tests/scenes/{file}.txt: {fault}");
                trials.push(Trial::test(file, move || Err(Failed::from(fault))));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
