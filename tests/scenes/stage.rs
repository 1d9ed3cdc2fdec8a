//! A scene as it plays.

use crate::cast::{CHANCE, SIZE, calibration, live, model, template};
use crate::script::{Expected, Scene, scenes};
use facelatch::access::controller::{Controller, FaceSeen, Input, Output};
use facelatch::access::door::{self, Command, LockKind, Role};
use facelatch::access::event::Event;
use facelatch::access::gallery::{Gallery, PersonId, Traits};
use facelatch::access::gesture::Side;
use facelatch::access::schedule::Reading;
use facelatch::config::Config;
use facelatch::models::covered::Cover;
use facelatch::vision::embed::Template;
use facelatch::vision::liveness::motion::Shape;
use facelatch::vision::pose::Pose;
use facelatch::vision::quality::Aspect;
use facelatch::vision::track::TrackId;
use jiff::{Timestamp, tz::TimeZone};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

pub const TICK_MS: u64 = 50;
pub const FRAME_MS: u64 = 100;
/// Events and signals may be up to this much earlier than the script says.
pub const SLACK_MS: u64 = 100;

#[derive(Clone, Copy, PartialEq)]
pub enum Relay {
    Works,
    Broken,
    Silent,
    Slow,
}

/// The state of a scene while it plays.
pub struct Stage {
    /// The configuration as TOML.
    text: String,
    config: Config,
    pub controller: Controller,
    pub now: u64,
    pub people: Vec<(PersonId, String, Vec<Template>, Traits)>,
    /// Views of people who got in by mistake.
    negatives: Vec<Template>,
    /// Faces in view: track, person, pose or flaw.
    pub faces: Vec<(u64, String, String)>,
    lag: u64,
    pub relay: Relay,
    energised: bool,
    /// Future answers of a slow relay and edges of buttons, with their times.
    later: Vec<(u64, Later)>,
    clock: Option<(i64, u64, bool)>,
    /// Whether a reading was given since the boot.
    clock_read: bool,
    store: Relay,
    views: Vec<Template>,
    pub told: Vec<(u64, Event)>,
    pub shown: Vec<(u64, String)>,
}

#[derive(Clone, Copy)]
pub enum Later {
    Answer(u32, bool),
    Edge(Side, bool),
}

impl Stage {
    pub fn new(scene: &Scene) -> Result<Self, String> {
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
            Controller::new(calibration(), config.access(), gallery, CHANCE, Duration::ZERO);
        let mut stage = Self {
            text: scene.config.clone(),
            config,
            controller,
            now: 0,
            people,
            negatives: vec![],
            faces: vec![],
            lag: 0,
            relay: Relay::Works,
            energised: true,
            later: vec![],
            clock: None,
            clock_read: false,
            store: Relay::Works,
            views: vec![],
            told: vec![],
            shown: vec![],
        };
        stage.controller.keep_inputs(true);
        stage.carry_out(first);
        stage.told.clear();
        Ok(stage)
    }

    /// From -1 to 1 and back, once in two seconds.
    fn swing(&self) -> f32 {
        (self.now as f32 / 1000.0 * std::f32::consts::PI).sin()
    }

    fn gallery(&self) -> Gallery {
        let mut gallery = gallery(&self.people);
        for negative in &self.negatives {
            gallery.add_negative(negative);
        }
        gallery
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
            self.told.extend(output.events.iter().map(|event| (now, event.clone())));
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
            let answer = Input::Door(door::Input::Answer { order: order.number, taken });
            output = self.controller.step(self.time(), answer);
        }
    }

    fn keep(&mut self, number: u32, administrator: bool, look_alike: Option<(PersonId, f32)>) {
        let kept = match self.store {
            Relay::Works | Relay::Slow => {
                let id = PersonId(self.people.iter().map(|p| p.0.0).max().unwrap_or(0) + 1);
                let name = format!("staff-{:04}", id.0);
                let stricter = look_alike.map_or(0.0, |(_, stricter)| stricter);
                let probation = !administrator && self.config.enroll.probation;
                let traits = Traits { administrator, stricter, probation, ..Traits::default() };
                let views = std::mem::take(&mut self.views);
                self.people.push((id, name.clone(), views, traits));
                for person in &mut self.people {
                    if look_alike.is_some_and(|(other, _)| other == person.0) {
                        person.3.stricter = person.3.stricter.max(stricter);
                    }
                }
                Ok((id, name))
            }
            Relay::Broken => Err("gallery.redb: no space left on device".to_owned()),
            Relay::Silent => return,
        };
        self.controller.set_gallery(self.gallery());
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
                "cut" => Some(Aspect::Cut),
                "masked" => Some(Aspect::Covered(Cover::Mask)),
                "sunglasses" => Some(Aspect::Covered(Cover::Sunglasses)),
                "hand" => Some(Aspect::Covered(Cover::Other)),
                "" | "front" | "left" | "right" | "up" | "down" | "sidelit" | "between"
                | "screen" | "sharp-left" | "sharp-right" | "turning" | "photo" | "tilted" => None,
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
                "turning" => turn.yaw = 0.12 * self.swing(),
                _ => {}
            }
            let mut sample = live();
            sample.shape = match how.as_str() {
                "photo" => shape(0.0, 1.0),
                // A print that is tilted stays a plane.
                "tilted" => shape(0.0, 0.9 + 0.1 * self.swing()),
                _ => shape(turn.yaw, 1.0),
            };
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
                probe: template.as_ref().map(|template| self.controller.probe(template)),
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
    pub fn moment(&mut self) -> Result<(), String> {
        let now = self.now;
        let due: Vec<Later> =
            self.later.iter().filter(|(at, _)| *at <= now).map(|(_, later)| *later).collect();
        self.later.retain(|(at, _)| *at > now);
        for later in due {
            match later {
                Later::Answer(order, energise) => {
                    self.energised = energise;
                    self.input(Input::Door(door::Input::Answer { order, taken: true }));
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
        let time = Timestamp::from_second(unix).map_err(|error| error.to_string())?;
        let local = TimeZone::UTC.to_datetime(time);
        let reading = |synchronized| Reading { unix, local, synchronized, vouched_for: false };
        if synchronized && !std::mem::replace(&mut self.clock_read, true) {
            // The board kept the right time: the clock does not jump once it is synchronized.
            self.input(Input::Clock(reading(false)));
        }
        self.input(Input::Clock(reading(synchronized)));
        Ok(())
    }

    pub fn act(&mut self, words: &str) -> Result<(), String> {
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
            ["exit"] => self.input(Input::Door(door::Input::Exit)),
            ["opened"] => self.input(Input::Door(door::Input::Opened)),
            ["closed"] => self.input(Input::Door(door::Input::Closed)),
            ["command", "open"] => self.input(Input::Door(door::Input::Command(Command::Open))),
            ["command", "lockdown"] => {
                self.input(Input::Door(door::Input::Command(Command::Lockdown)))
            }
            ["command", "always-open"] => {
                self.input(Input::Door(door::Input::Command(Command::AlwaysOpen)))
            }
            ["command", "normal"] => self.input(Input::Door(door::Input::Command(Command::Normal))),
            ["relay", "works"] => self.relay = Relay::Works,
            ["relay", "broken"] => self.relay = Relay::Broken,
            ["relay", "silent"] => self.relay = Relay::Silent,
            ["relay", "slow"] => self.relay = Relay::Slow,
            ["relay", "away"] => {
                // It has no power and accepts no order.
                (self.relay, self.energised) = (Relay::Broken, false);
                self.input(Input::Door(door::Input::RelayAway));
            }
            ["relay", "back"] => {
                // A board that lost power comes back de-energised.
                (self.relay, self.energised) = (Relay::Works, false);
                self.input(Input::Door(door::Input::RelayBack));
            }
            ["store", "works"] => self.store = Relay::Works,
            ["store", "broken"] => self.store = Relay::Broken,
            ["store", "silent"] => self.store = Relay::Silent,
            ["clock", "none"] => self.clock = None,
            ["clock", date, time] | ["clock", date, time, "unsynchronized" | "sudden"] => {
                let unsynchronized = all.last() == Some(&"unsynchronized");
                self.clock_read |= all.last() == Some(&"sudden");
                let time = format!("{date}T{time}Z").parse::<Timestamp>();
                let unix = time.map_err(|error| error.to_string())?.as_second();
                self.clock = Some((unix, self.now, !unsynchronized));
                self.read_clock()?;
            }
            ["elsewhere", name, way] => {
                let role = if way == "in" { Role::In } else { Role::Out };
                let ago = Duration::ZERO;
                self.input(Input::Door(door::Input::Passed {
                    person: person(self, name)?,
                    role,
                    ago,
                }));
            }
            ["configure", ..] => {
                self.text += words.trim_start_matches("configure");
                self.text.push('\n');
                self.config = Config::parse(Path::new("scene"), &self.text)
                    .map_err(|error| error.to_string())?;
                self.controller.reconfigure(self.config.access());
            }
            ["models"] => self.input(Input::ModelsChanged),
            ["trust-clock"] => self.input(Input::TrustClock),
            ["reset"] => self.input(Input::LocalReset),
            ["rename", name, new] => {
                let id = person(self, name)?;
                for known in self.people.iter_mut().filter(|known| known.0 == id) {
                    known.1 = (*new).to_owned();
                    known.3.probation = false;
                }
                self.controller.set_gallery(self.gallery());
            }
            ["remove", name] => {
                let gone = person(self, name)?;
                self.people.retain(|person| person.0 != gone);
                self.controller.set_gallery(self.gallery());
            }
            ["report", who] => {
                let view = template(who, Pose::Front);
                self.negatives.push(view.ok_or_else(|| format!("{who}: who is that?"))?);
                self.controller.set_gallery(self.gallery());
            }
            ["restart"] => {
                let gallery = self.gallery();
                let (controller, first) = Controller::new(
                    calibration(),
                    self.config.access(),
                    gallery,
                    CHANCE,
                    self.time(),
                );
                let saved = self.controller.saved(self.time());
                self.controller = controller;
                self.controller.keep_inputs(true);
                self.controller.resume(self.time(), &saved, None);
                // Everything else in memory is lost, and the relay is de-energised.
                self.clock_read = false;
                self.views.clear();
                self.later.clear();
                self.energised = false;
                self.carry_out(first);
            }
            ["stop"] => self.input(Input::Door(door::Input::Stop)),
            _ => return Err(format!("what is {words:?}?")),
        }
        Ok(())
    }

    pub fn is_open(&self) -> bool {
        self.energised == (self.config.door.lock == LockKind::FailSecure)
    }

    /// Finds the first entry that fits at this time, after the last one found.
    fn find<E>(
        entries: &[(u64, E)],
        from: &mut usize,
        at: u64,
        what: &dyn std::fmt::Display,
        fits: impl Fn(&E) -> bool,
    ) -> Result<(), String> {
        let found = entries
            .iter()
            .enumerate()
            .skip(*from)
            .find(|(_, (time, entry))| fits(entry) && *time <= at && *time + SLACK_MS >= at);
        match found {
            Some((place, _)) => {
                *from = place + 1;
                Ok(())
            }
            None => Err(format!("no {what} at {:.2} s", at as f64 / 1000.0)),
        }
    }
}

/// Shape of a face whose nose is `yaw` beside the middle, squeezed sideways.
fn shape(yaw: f32, squeeze: f32) -> Option<Shape> {
    let at = |x: f32, y: f32| [100.0 + 50.0 * x * squeeze, 100.0 + 50.0 * y];
    let nose = at(2.0 * yaw, 0.1);
    Shape::of(&[at(-1.0, -1.0), at(1.0, -1.0), nose, at(-0.7, 1.0), at(0.7, 1.0)])
}

pub fn gallery(people: &[(PersonId, String, Vec<Template>, Traits)]) -> Gallery {
    let mut gallery = Gallery::new(model(), SIZE);
    for (id, name, views, traits) in people {
        gallery.add(*id, name, views);
        gallery.set_traits(*id, traits.clone());
    }
    gallery
}

/// Plays what an attacker shows, one step after another: what is in front of the camera and
/// for how many frames. In it `ASKED` stands for a head turned as the door asked last.
/// Returns the first grant.
pub fn attack(config: &str, shown: &[(String, u64)]) -> Result<Option<String>, String> {
    let text = format!("# attack\npeople ada bob\n{config}");
    let scene = scenes(&text)?.into_iter().next().ok_or("no scene")?;
    let mut stage = Stage::new(&scene)?;
    for (faces, frames) in shown {
        for _ in 0..*frames {
            let asked = stage.shown.iter().rev().find_map(|(_, shown)| match shown.as_str() {
                "Turn(Left)" => Some("sharp-left"),
                "Turn(Right)" => Some("sharp-right"),
                "LookAtCamera" => Some("front"),
                _ => None,
            });
            stage.act(&faces.replace("ASKED", asked.unwrap_or("turning")))?;
            for _ in 0..FRAME_MS / TICK_MS {
                stage.moment()?;
                stage.now += TICK_MS;
            }
        }
    }
    let granted = stage.told.iter().find(|(_, event)| event.kind() == "granted");
    Ok(granted.map(|(at, event)| format!("{event} at {at} ms")))
}

/// Plays a scene. Returns its events and signals, one per line. Every decision must come
/// out the same when it is derived again.
pub fn play(scene: &Scene) -> Result<String, String> {
    let mut stage = Stage::new(scene)?;
    let outcome = played(scene, &mut stage);
    let mut all = String::new();
    let mut entries: Vec<(u64, String)> =
        stage.told.iter().map(|(at, event)| (*at, event.to_string())).collect();
    entries.extend(stage.shown.iter().map(|(at, signal)| (*at, format!("({signal})"))));
    entries.sort_by_key(|(at, _)| *at);
    for (at, event) in entries {
        let _ = writeln!(all, "{:8.2}  {event}", at as f64 / 1000.0);
    }
    match outcome {
        Ok(()) => Ok(all),
        Err(fault) => Err(format!("{fault}\n{all}")),
    }
}

/// Plays a scene. Returns its events with their times in milliseconds.
pub fn events(scene: &Scene) -> Result<Vec<(u64, Event)>, String> {
    let mut stage = Stage::new(scene)?;
    played(scene, &mut stage)?;
    Ok(stage.told)
}

fn played(scene: &Scene, stage: &mut Stage) -> Result<(), String> {
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
            "told" => Expected::parse(rest).and_then(|expected| {
                let fits = |event: &Event| expected.fits(event);
                Stage::find(&stage.told, &mut told, line.at, &expected, fits)
            }),
            "shown" => {
                let signal = rest.trim();
                let fits = |shown: &String| shown.contains(signal);
                Stage::find(&stage.shown, &mut shown, line.at, &signal, fits)
            }
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
        let never = Expected::parse(never)?;
        if let Some((at, event)) = stage.told.iter().find(|(_, event)| never.fits(event)) {
            outcome = outcome.and(Err(format!("never {never}: {event} at {at} ms")));
        }
    }
    outcome = outcome.and(crate::replayed::all(&stage.told).map(drop));
    outcome
}
