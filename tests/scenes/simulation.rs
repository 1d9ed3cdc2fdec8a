//! A door over many frames, at which everything happens at random: people, strangers,
//! photos, swaps in front of the camera, buttons, orders, faults of relay and card, clocks
//! that jump, restarts. After every tick the invariants of the door are checked against a
//! record of what was really there.
//!
//! `cargo test --release --test scenes -- simulation` runs some thousand frames, always the
//! same. `FACELATCH_FRAMES=1000000` sets their number and prints figures;
//! `FACELATCH_SEED` changes what happens.

use crate::script::scenes;
use crate::stage::{FRAME_MS, Relay, Stage, TICK_MS};
use facelatch::access::door::{Mode, State};
use facelatch::access::event::Event;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Frames of an ordinary test.
const FRAMES: u64 = 12_000;
/// Frames between two doors with other settings.
const EPOCH: u64 = 4000;
/// Longest time from the reason to the open lock: the relay answers within two seconds, and
/// a slow one half a second later.
const REASON_MS: u64 = 2600;
/// A person who was granted was in view for this long before, with the largest lag.
const SEEN_MS: u64 = 8000;
/// Longest time that a lock stays open after its reason ended, while its relay works.
const OPEN_MS: u64 = 12_000;
/// Most events of one tick.
const MOST_EVENTS: usize = 40;
/// Most bytes that one epoch may leave behind, and the whole run after its first epochs.
const LEFT_BYTES: i64 = 1 << 16;

const WHO: [&str; 6] = ["ada", "grace", "bob", "eve", "mallory", "eva"];
const LIVE: [&str; 9] =
    ["front", "left", "right", "up", "down", "turning", "sharp-left", "sharp-right", "between"];
const FALSE: [&str; 3] = ["photo", "tilted", "screen"];
const POOR: [&str; 8] =
    ["far", "dark", "blurred", "profile", "cut", "masked", "sunglasses", "hand"];
const SETTINGS: [&str; 6] = [
    "set liveness.mode = \"enforce\"\nset liveness.motion = true",
    "set liveness.mode = \"enforce\"\nset liveness.turns = 1\nset lockout.tries = 3",
    "set liveness.mode = \"enforce\"\nset liveness.turns = 2\nset liveness.motion = true",
    "set liveness.mode = \"enforce\"\nset liveness.motion = true\nset door.role = \"in\"\n\
     set door.anti_passback = \"hard\"",
    "set liveness.mode = \"enforce\"\nset liveness.motion = true\nset door.open_for = \"2s\"\n\
     set enroll.probation = true",
    "set liveness.mode = \"enforce\"\nset liveness.motion = true\n\
     set recognition.two_faces = \"refuse\"",
];

struct Chance(TestRng);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        (self.0.next_u64() % limit as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// What is known about the door independently of it.
#[derive(Default)]
struct Record {
    /// When each person was last there themselves.
    seen: BTreeMap<String, u64>,
    /// When the last event came that opens the lock.
    reason: Option<u64>,
    open: bool,
    lockdown: bool,
    relay_works_since: u64,
    /// How the head is to be held that the door asked for last.
    asked: &'static str,
    grants: u64,
    openings: u64,
    events: u64,
}

impl Record {
    /// Notes who is in view, before the frame is processed.
    fn view(&mut self, stage: &Stage) {
        for (_, who, how) in &stage.faces {
            if LIVE.contains(&how.as_str()) {
                self.seen.insert(who.clone(), stage.now);
            }
        }
    }

    fn check(&mut self, stage: &mut Stage) -> Result<(), String> {
        let now = stage.now;
        if stage.told.len() > MOST_EVENTS {
            return Err(format!("{} events in one tick", stage.told.len()));
        }
        for (_, event) in &stage.told {
            self.events += 1;
            if let Event::Granted { name, .. } = event {
                self.grants += 1;
                let there = self.seen.get(name).is_some_and(|at| now - at <= SEEN_MS);
                // Who was enrolled at the door keeps the face they came with.
                let newcomer = name.starts_with("staff-");
                if !there && !newcomer {
                    return Err(format!("{event}, but only a photo or nobody was there"));
                }
                if !stage.people.iter().any(|person| person.1 == *name) {
                    return Err(format!("{event}, but nobody of that name is enrolled"));
                }
            }
            let kind = event.kind();
            if matches!(kind, "granted" | "opened by command") && self.lockdown {
                return Err(format!("{event} in lockdown"));
            }
            if matches!(kind, "granted" | "opened by command" | "exit") {
                self.reason = Some(now);
            }
        }
        let door = stage.controller.door();
        let mode = door.mode();
        if (mode == Mode::Lockdown) != self.lockdown {
            return Err(format!("the mode is {mode:?}, lockdown was ordered: {}", self.lockdown));
        }
        let always = matches!(mode, Mode::AlwaysOpen { .. });
        if always {
            self.reason = Some(now);
        }
        let since = self.reason.map_or(u64::MAX, |at| now - at);
        if stage.is_open() && !self.open {
            self.openings += 1;
            if since > REASON_MS {
                return Err("the lock opened without an event that says why".to_owned());
            }
        }
        if stage.relay != Relay::Works {
            self.relay_works_since = now;
        }
        let working = now - self.relay_works_since;
        if stage.is_open() && since.min(working) > OPEN_MS {
            return Err("the lock stayed open without a reason".to_owned());
        }
        self.open = stage.is_open();
        if door.state() == State::Open && !self.open {
            return Err("the door counts as open, and the relay is off".to_owned());
        }
        for (_, shown) in &stage.shown {
            self.asked = match shown.as_str() {
                "Turn(Left)" => "sharp-left",
                "Turn(Right)" => "sharp-right",
                "LookAtCamera" => "front",
                _ => "turning",
            };
        }
        stage.told.clear();
        stage.shown.clear();
        Ok(())
    }
}

/// What happens next, in the words of a scene.
fn happens(chance: &mut Chance, record: &mut Record, stage: &Stage) -> String {
    match chance.below(100) {
        0..40 => {
            let mut words = "faces".to_owned();
            // Often the same track with somebody else, as when a photo is held up.
            for track in 0..1 + chance.below(8) / 6 {
                let how = match chance.below(10) {
                    0..6 => chance.of(&LIVE),
                    6..9 => chance.of(&FALSE),
                    _ => chance.of(&POOR),
                };
                let track = if chance.below(5) == 0 { chance.below(20) } else { track };
                let _ = write!(words, " {track}={}/{how}", chance.of(&WHO));
            }
            words
        }
        40..48 => "nobody".to_owned(),
        48..52 => format!("faces 0={}/{}", chance.of(&WHO), record.asked),
        52..58 => chance.of(&["opened", "closed", "exit"]).to_owned(),
        58..62 => format!("press {}", chance.of(&["inside", "outside"])),
        62..66 => format!("release {}", chance.of(&["inside", "outside"])),
        66..68 => format!("hold {}", chance.of(&["inside", "outside"])),
        68..70 => format!("presses {} inside", 1 + chance.below(3)),
        70 => {
            record.lockdown = true;
            "command lockdown".to_owned()
        }
        71..76 => {
            record.lockdown = false;
            "command normal".to_owned()
        }
        76 => chance.of(&["command open", "command open", "command always-open"]).to_owned(),
        77 => format!("relay {}", chance.of(&["broken", "silent", "slow", "away"])),
        78..82 => chance.of(&["relay works", "relay back"]).to_owned(),
        82 => format!("store {}", chance.of(&["broken", "silent"])),
        83..85 => "store works".to_owned(),
        85..88 => format!("lag {}.{}", chance.below(3), chance.below(10)),
        88..90 => "lag 0".to_owned(),
        90 => {
            let year = 2026 + chance.below(21) - 10;
            let how = chance.of(&["", "unsynchronized", "sudden"]);
            format!("clock {year}-03-0{} 0{}:00:00 {how}", 1 + chance.below(9), chance.below(10))
        }
        91 => chance.of(&["clock none", "trust-clock", "reset"]).to_owned(),
        92 => "models".to_owned(),
        93..95 => {
            format!("elsewhere {} {}", chance.of(&["ada", "grace"]), chance.of(&["in", "out"]))
        }
        95 => "restart".to_owned(),
        96..98 => match stage.people.iter().rfind(|person| person.1.starts_with("staff-")) {
            Some(newcomer) => format!("remove {}", newcomer.1),
            None => "nobody".to_owned(),
        },
        _ => "nobody".to_owned(),
    }
}

fn epoch(chance: &mut Chance, frames: u64, total: &mut Record) -> Result<(), String> {
    let settings = chance.of(&SETTINGS);
    let text = format!("# simulation\npeople ada=admin grace bob=night\n{settings}\n");
    let scene = scenes(&text)?.into_iter().next().ok_or("no scene")?;
    let mut stage = Stage::new(&scene)?;
    let mut record = Record { asked: "turning", ..Record::default() };
    let mut last = vec![];
    let (mut next, mut visit_ends, mut visitor) = (0, 0, "");
    while stage.now < frames * FRAME_MS {
        // Somebody who does what the door asks, with whom others interfere.
        let visited = stage.now < visit_ends;
        if visited && stage.now < next {
            let words = format!("faces 0={visitor}/{}", record.asked);
            stage.act(&words)?;
        } else if stage.now >= next {
            let pause = if visited { 100 } else { 30 };
            next = stage.now + TICK_MS * (1 + chance.below(pause) as u64);
            if !visited && chance.below(4) == 0 {
                visitor = chance.of(&WHO);
                visit_ends = stage.now + 1000 * (2 + chance.below(10) as u64);
            }
            let words = happens(chance, &mut record, &stage);
            if last.len() == 40 {
                last.remove(0);
            }
            last.push(format!("{:.2} {words}", stage.now as f64 / 1000.0));
            stage.act(&words)?;
            if words == "restart" && record.lockdown {
                // Kept in a file, which the service reads at its start.
                stage.act("command lockdown")?;
            }
        }
        record.view(&stage);
        stage.moment()?;
        let checked = record.check(&mut stage);
        checked.map_err(|fault| {
            let at = stage.now as f64 / 1000.0;
            format!("{fault}, at {at:.2} s; {settings}\n{}", last.join("\n"))
        })?;
        stage.now += TICK_MS;
    }
    total.grants += record.grants;
    total.openings += record.openings;
    total.events += record.events;
    Ok(())
}

/// Resident memory of this process, kB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4
}

/// Random doors for a number of frames.
// Long runs print their figures.
#[allow(clippy::print_stderr)]
pub fn simulation() -> Result<(), String> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>());
    let wanted = number("FACELATCH_FRAMES").transpose().map_err(|_| "FACELATCH_FRAMES")?;
    let seed = number("FACELATCH_SEED").transpose().map_err(|_| "FACELATCH_SEED")?.unwrap_or(1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut chance = Chance(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let (mut frames, mut left, mut first) = (0, 0, 0);
    let mut total = Record::default();
    let all = wanted.unwrap_or(FRAMES);
    while frames < all {
        let length = EPOCH.min(all - frames);
        let mut done = Ok(());
        let info = allocation_counter::measure(|| done = epoch(&mut chance, length, &mut total));
        done?;
        frames += length;
        left += info.bytes_current;
        if info.bytes_current > LEFT_BYTES || left > LEFT_BYTES {
            return Err(format!("{} bytes left by one epoch, {left} by all", info.bytes_current));
        }
        if first == 0 {
            first = resident();
        }
    }
    if total.grants == 0 || total.openings == 0 {
        return Err("nobody came in: the simulation shows nothing".to_owned());
    }
    if wanted.is_some() {
        eprintln!(
            "{frames} frames, {} events, {} grants, {} openings; {left} bytes left; resident {first} \
             kB after {EPOCH} frames, {} kB at the end",
            total.events,
            total.grants,
            total.openings,
            resident()
        );
    }
    Ok(())
}
