//! `check`: diagnoses the board and the configuration, and names a cure for each fault.

mod board;
mod devices;
mod keys;
mod service;

use super::common_args::{CommonArgs, service_socket};
use super::models::NO_COVERS;
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use clap::Args;
use facelatch::access::names::{self, look_alikes};
use facelatch::config::Config;
use facelatch::models::Models;
use facelatch::service::control::{Request, ask, unknown_names};
use facelatch::service::models::detector;
use facelatch::service::status::ModelsNow;
use facelatch::storage::gallery::{Opening, Person, Purpose, Register, Store, StoreError, remarks};
use facelatch::storage::models::{ModelStore, Standing};
use facelatch::vision::picture;
use facelatch::vision::recognizer::Recognizer;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Time for a frame with one face above which people wait too long at the door.
const SLOW_BOARD: Duration = Duration::from_millis(200);
/// Time limit for another process to release the gallery.
const GALLERY_WITHIN: Duration = Duration::from_secs(2);
/// Picture with one face, to time the networks.
const PORTRAIT: &[u8] = include_bytes!("../../assets/astronaut.jpg");

/// Check this board for faults and show how to fix them
///
/// Checks configuration, models, gallery and its key, camera, GPIO lines, relay, clock and the board
/// itself. If the service runs, it reports the devices that it holds. The relay is not
/// switched. Exit code 1 if something is wrong.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    common: CommonArgs,
    /// Print JSON Lines, one object per finding
    #[arg(long)]
    json: bool,
}

/// The severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// No fault.
    Good,
    /// It works, with a limitation or a likely mistake.
    Odd,
    /// It does not work.
    Wrong,
}

#[derive(Serialize)]
struct Finding<'a> {
    thing: &'a str,
    state: State,
    text: &'a str,
}

/// Prints findings one by one, because some checks take seconds, and counts the faults.
struct Findings<W> {
    out: W,
    json: bool,
    wrong: usize,
    odd: usize,
}

impl<W: Write> Findings<W> {
    fn tell(&mut self, thing: &str, state: State, text: &str) -> Result<()> {
        match state {
            State::Good => {}
            State::Odd => self.odd += 1,
            State::Wrong => self.wrong += 1,
        }
        if self.json {
            serde_json::to_writer(&mut self.out, &Finding { thing, state, text })?;
            writeln!(self.out)?;
            return Ok(());
        }
        let (word, colour) = match state {
            State::Good => ("good", AnsiColor::Green),
            State::Odd => ("odd", AnsiColor::Yellow),
            State::Wrong => ("wrong", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into())).bold();
        writeln!(self.out, "{style}{word:<6}{style:#} {thing:<14} {text}")?;
        Ok(())
    }

    fn good(&mut self, thing: &str, text: &str) -> Result<()> {
        self.tell(thing, State::Good, text)
    }

    fn odd(&mut self, thing: &str, text: &str) -> Result<()> {
        self.tell(thing, State::Odd, text)
    }

    fn wrong(&mut self, thing: &str, error: impl std::fmt::Display) -> Result<()> {
        self.tell(thing, State::Wrong, &error.to_string())
    }
}

impl Check {
    pub fn run(self) -> Result<ExitCode> {
        let out = anstream::stdout().lock();
        let mut findings = Findings { out, json: self.json, wrong: 0, odd: 0 };
        let config = match self.common.config() {
            Ok(config) => {
                findings.good("configuration", &self.common.config_name())?;
                Some(config)
            }
            Err(error) => {
                findings.wrong("configuration", format!("{error:#}"))?;
                None
            }
        };
        // Checks that do not need the configuration still run.
        let is_read = config.is_some();
        let config = config.unwrap_or_default();
        advice(&config, &mut findings)?;
        let socket = service_socket(None, &config);
        let runs = service::judge_answer(&ask(&socket, &Request::Status), &mut findings)?;
        let recognizer = self.models(&config, &mut findings)?;
        if is_read {
            gallery(&config, &mut findings)?;
            keys::keys(&config.gallery_file(), &mut findings)?;
            if !runs {
                devices::camera(&config, recognizer, &mut findings)?;
                devices::lines(&config, &mut findings)?;
                devices::relay(&config, &mut findings)?;
            }
            wiring(&config, &mut findings)?;
            board::wall_clock(&config, &mut findings)?;
        }
        board::health(&mut findings)?;
        let Findings { mut out, json, wrong, odd } = findings;
        if !json {
            writeln!(out, "{wrong} wrong, {odd} odd")?;
        }
        Ok(if wrong > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Checks that the networks load and are fast enough.
    fn models(
        &self,
        config: &Config,
        findings: &mut Findings<impl Write>,
    ) -> Result<Option<Recognizer>> {
        let ready = || -> Result<(Recognizer, Models, Option<Standing>, Duration)> {
            let (models, standing) = self.common.models_judged(config)?;
            models.thresholds()?;
            let mut recognizer = Recognizer::new(&models, detector(config))?;
            let portrait = picture::decode(Path::new("the built-in portrait"), PORTRAIT)?;
            let mut took = Duration::MAX;
            // The first run also allocates memory.
            for _ in 0..3 {
                let began = Instant::now();
                recognizer.faces(&portrait)?;
                took = took.min(began.elapsed());
            }
            Ok((recognizer, models, standing, took))
        };
        match ready() {
            Err(error) => {
                findings.wrong("models", format!("{error:#}"))?;
                Ok(None)
            }
            Ok((recognizer, models, standing, took)) => {
                let version = &models.manifest.version;
                let text = format!("{version}, {:.1} ms for a portrait", took.as_secs_f64() * 1e3);
                if took > SLOW_BOARD {
                    let cure = "this board is slow and people will wait; see facelatch bench";
                    findings.odd("models", &format!("{text}: {cure}"))?;
                } else if models.covers().is_none() {
                    findings.odd("models", &format!("{text}: {NO_COVERS}"))?;
                } else {
                    findings.good("models", &text)?;
                }
                let ModelsNow { signature, warning, .. } =
                    ModelsNow::of(&models, standing.as_ref());
                match warning {
                    Some(warning) => findings.odd("signature", &warning)?,
                    None => findings.good("signature", &signature)?,
                }
                if let Some(store) = self.common.model_store(config) {
                    trial(&store, findings)?;
                }
                Ok(Some(recognizer))
            }
        }
    }
}

/// Reports a set on trial that does not do well.
fn trial(store: &ModelStore, findings: &mut Findings<impl Write>) -> Result<()> {
    match store.shadow() {
        Ok(None) => Ok(()),
        Ok(Some(shadow)) if shadow.has_failed() => findings.odd("trial", &shadow.to_string()),
        Ok(Some(shadow)) => findings.good("trial", &shadow.to_string()),
        Err(error) => findings.odd("trial", &error.to_string()),
    }
}

/// Reports likely mistakes in the configuration. [`board::wall_clock`] reports those that
/// concern the clock.
fn advice(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    for remark in config.advice() {
        findings.odd("advice", &remark.to_string())?;
    }
    for (key, name) in unknown_names(&config.roles) {
        findings.odd("advice", &unknown_role(key, &name))?;
    }
    Ok(())
}

/// Advice about an entry of `[roles]` that names nobody.
pub(super) fn unknown_role(key: &str, name: &str) -> String {
    format!("{key} names {name:?}, which is no user or group of this system; correct or remove it")
}

/// Checks that the gallery opens and that an administrator is enrolled.
fn gallery(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    let file = config.gallery_file();
    let name = file.display();
    for remark in remarks(&file) {
        findings.odd("gallery", &remark)?;
    }
    let opening = Opening::to(Purpose::Read).within(GALLERY_WITHIN).registered(Register::of_user());
    let store = match Store::open_as(&file, opening) {
        Ok(store) => store,
        Err(error @ StoreError::Absent { .. }) => {
            return findings.odd("gallery", &error.to_string());
        }
        Err(error) => return findings.wrong("gallery", error),
    };
    if let Some(repaired) = store.repaired() {
        findings.odd("gallery", repaired)?;
    }
    if let Some(reason) = store.read_only() {
        findings.odd("gallery", &format!("{name}: read-only: {reason}"))?;
    }
    let people = match store.people() {
        Ok(people) => people,
        Err(error) => return findings.wrong("gallery", error),
    };
    groups(config, &people, findings)?;
    names(&people, findings)?;
    let (count, administrators) =
        (people.len(), people.iter().filter(|person| person.traits.administrator).count());
    if count > 0 && administrators == 0 {
        return findings.odd(
            "gallery",
            &format!(
                "{name}: {count} people but no administrator, so nobody can enroll others with \
                 the button; see facelatch people admin --help"
            ),
        );
    }
    findings.good("gallery", &format!("{name}: {count} people, {administrators} administrators"))
}

/// Reports people who are always refused, because their group has no table.
fn groups(config: &Config, people: &[Person], findings: &mut Findings<impl Write>) -> Result<()> {
    let mut of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for person in people {
        of.entry(&person.traits.group).or_default().push(&person.name);
    }
    for (group, people) in of {
        if let Some(text) = config.group_advice(group) {
            let text = format!(
                "{text}; it has {}: add the table, or see facelatch people group --help",
                some_of(&people)
            );
            findings.wrong("groups", text)?;
        }
    }
    Ok(())
}

/// Reports names that are taken for one another, or that hide characters.
fn names(people: &[Person], findings: &mut Findings<impl Write>) -> Result<()> {
    let cure = "facelatch people rename gives one of them another name";
    for (one, other) in look_alikes(people.iter().map(|person| person.name.as_str())) {
        findings.odd("names", &format!("{other:?} looks like {one:?}; {cure}"))?;
    }
    for person in people {
        for (what, name) in [("name", &person.name), ("group", &person.traits.group)] {
            if let Some(fault) = names::fault(name) {
                findings.odd("names", &format!("the {what} {name:?} {fault}; change it"))?;
            }
        }
    }
    Ok(())
}

/// The first names of a list, and the number of the others.
fn some_of(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|name| format!("{name:?}")).collect();
    match names.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Reports optional wiring that is missing.
fn wiring(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    let gpio = &config.gpio;
    if gpio.door_contact.is_none() {
        findings.odd(
            "door contact",
            "none: a door held open or forced goes undetected, and the door always stays \
             unlocked for the full open_for",
        )?;
    }
    if gpio.button_outside.is_none() && gpio.button_inside.is_none() {
        findings.odd("buttons", "none: people can only be enrolled with facelatch enroll")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn said(look: impl FnOnce(&mut Findings<&mut Vec<u8>>)) -> String {
        let mut text = Vec::new();
        look(&mut Findings { out: &mut text, json: true, wrong: 0, odd: 0 });
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn likely_mistakes_are_odd() {
        let mut config = Config::default();
        config.door.held_open_after = config.door.open_for;
        let text = said(|findings| advice(&config, findings).expect("findings"));
        assert!(text.contains("\"odd\"") && text.contains("door.held_open_after"), "{text}");
    }
}
