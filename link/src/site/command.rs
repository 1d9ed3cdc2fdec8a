//! The commands of the office.

use super::answer::Answer;
use super::clock::Clock;
use super::folder::{Folder, FolderError, SYSTEM_FOLDER};
use super::order::{LARGEST_MODELS, Order, PersonEdit};
use super::service::{Service, late_door};
use super::spool::Spool;
use crate::config::Config;
use crate::home::Topics;
use crate::mqtt::Settings;
use crate::service::wiring;
use clap::{Args, Subcommand};
use facelatch_site::dates::{self, End};
use facelatch_site::{CODE_MS, Code};
use jiff::tz::TimeZone;
use serde_json::json;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for a broker.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest wait until the broker has everything.
const SETTLE: Duration = Duration::from_secs(300);
/// Longest wait for the answer of the office's service.
const ANSWER: Duration = Duration::from_secs(30);

/// The office of a site of doors.
#[derive(Clone, Debug, Args)]
pub struct SiteCommand {
    /// Folder of the office, with the site's key. Back it up: doors know the site by this key.
    #[arg(long, global = true, default_value = SYSTEM_FOLDER, value_name = "FOLDER")]
    pub office: PathBuf,
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

impl SiteCommand {
    /// Whether it runs until a signal ends it.
    pub fn is_service(&self) -> bool {
        matches!(self.what, What::Keep)
    }

    /// Whether it speaks to the broker.
    pub fn needs_broker(&self) -> bool {
        !matches!(self.what, What::Init)
    }
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum What {
    /// Make a new site with its key.
    Init,
    /// Let a door join: shows a code that is good once and for ten minutes.
    Admit {
        /// Name of the door.
        #[arg(long)]
        door: String,
        /// Groups whose people the door knows.
        #[arg(long, value_delimiter = ',', default_value = "staff")]
        groups: Vec<String>,
        /// The door may not add, change or remove people.
        #[arg(long)]
        read_only: bool,
    },
    /// Let a door serve other groups.
    Change {
        /// Name or number of the door.
        #[arg(long)]
        door: String,
        /// Groups whose people the door knows.
        #[arg(long, value_delimiter = ',', required = true)]
        groups: Vec<String>,
        /// The door may not add, change or remove people.
        #[arg(long)]
        read_only: bool,
    },
    /// List the doors, and whether each has heard everything.
    Doors,
    /// List the people.
    People,
    /// Change a person at all doors: name, group, dates, administrator.
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Person {
        /// Name or number of the person.
        person: String,
        /// New name.
        #[arg(long, group = "change")]
        name: Option<String>,
        /// New group; the doors that serve it let the person in.
        #[arg(long, group = "change")]
        group: Option<String>,
        /// Whether the person may enroll others.
        #[arg(long, group = "change", value_name = "yes|no", value_parser = yes_or_no)]
        administrator: Option<bool>,
        /// First day, like 2026-12-01, or time, like 2026-12-01T08:00.
        #[arg(long, group = "change", value_name = "DATE", value_parser = first)]
        from: Option<i64>,
        /// Last day, or time.
        #[arg(long, group = "change", value_name = "DATE", value_parser = last)]
        until: Option<i64>,
        /// Without dates.
        #[arg(long, group = "change", conflicts_with_all = ["from", "until"])]
        always: bool,
    },
    /// Lock out a door, or remove a person for ever.
    Revoke {
        /// Name or number of a door.
        #[arg(long, conflicts_with = "person", required_unless_present = "person")]
        door: Option<String>,
        /// Name or number of a person.
        #[arg(long)]
        person: Option<String>,
        /// Remove people whom the door wrote since this time, such as 2026-11-30T17:00Z.
        #[arg(long, requires = "door", value_name = "TIME")]
        distrust_since: Option<String>,
    },
    /// Make a new data key for all doors, and seal everything with it.
    Rotate,
    /// Sign rules for all doors: groups, hours and holidays.
    Policy {
        /// File with [groups.NAME] tables and holidays, as in facelatch.toml.
        file: PathBuf,
        /// People whom a door made administrators are so at all doors.
        #[arg(long)]
        administrators_from_doors: bool,
        /// How long the rules hold without news from the office, such as 7d, 12h or 30m.
        #[arg(long, default_value = "7d", value_name = "TIME")]
        lease: String,
    },
    /// Offer a set of models to all doors.
    Models {
        /// The set, as one file.
        file: PathBuf,
        /// Version of the set.
        #[arg(long)]
        version: String,
    },
    /// Keep the site: renews lease and manifests, and publishes again what the broker lost.
    Keep,
}

/// Runs a command. Returns whether it did what it should.
///
/// # Errors
/// If the office or the broker cannot be used: the reason and the cure.
pub fn run(command: &SiteCommand, config: &Config, stop: &Arc<AtomicBool>) -> Result<bool, String> {
    let folder = Folder::new(&command.office);
    let order = match &command.what {
        What::Init => return init(&folder, command.json),
        What::Keep => return keep(&folder, config, stop),
        what => order(what)?,
    };
    // Before anything else, so that nobody waits for a site that is not there.
    folder.secret().map_err(|error| error.to_string())?;
    let code = match &order {
        Order::Admit { code, .. } => Some(code.clone()),
        _ => None,
    };
    let answer = match folder.lock() {
        Ok(lock) => {
            drop(lock);
            alone(&folder, config, &order, stop, |public| {
                show_code(command.json, code.as_deref(), public)
            })?
        }
        Err(FolderError::Locked(_)) => {
            let text = std::fs::read_to_string(folder.public_path()).unwrap_or_default();
            by_service(&folder, &order, stop, || {
                show_code(command.json, code.as_deref(), text.trim())
            })?
        }
        Err(error) => return Err(error.to_string()),
    };
    say(command.json, &answer)?;
    Ok(answer.good)
}

fn order(what: &What) -> Result<Order, String> {
    Ok(match what.clone() {
        What::Admit { door, groups, read_only } => {
            let code = Code::random().map_err(|error| error.to_string())?.to_string();
            Order::Admit { code, door, groups, writes: !read_only }
        }
        What::Change { door, groups, read_only } => {
            Order::Change { door, groups, writes: !read_only }
        }
        What::Doors => Order::Doors,
        What::People => Order::People,
        What::Person { person, name, group, administrator, from, until, always } => {
            Order::Person(PersonEdit { person, name, group, administrator, from, until, always })
        }
        What::Revoke { person: Some(person), .. } => Order::RevokePerson { person },
        What::Revoke { door, distrust_since, .. } => {
            let time = |text: String| {
                let time: jiff::Timestamp = text.parse().map_err(|_| {
                    format!("--distrust-since {text:?}: expected a time like 2026-11-30T17:00Z")
                })?;
                Ok::<u64, String>(u64::try_from(time.as_millisecond()).unwrap_or(0))
            };
            let distrust_ms = distrust_since.map(time).transpose()?;
            Order::RevokeDoor { door: door.unwrap_or_default(), distrust_ms }
        }
        What::Rotate => Order::Rotate,
        What::Policy { file, administrators_from_doors, lease } => Order::Policy {
            text: policy_text(&file)?,
            administrators_from_doors,
            lease_s: lease_s(&lease)?,
        },
        What::Models { file, version } => {
            let file = std::path::absolute(&file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            Order::Models { file, version }
        }
        What::Init | What::Keep => Order::Doors,
    })
}

fn first(text: &str) -> Result<i64, String> {
    dates::moment(text, End::First, &TimeZone::system())
}

fn last(text: &str) -> Result<i64, String> {
    dates::moment(text, End::Last, &TimeZone::system())
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("expected yes or no".to_owned()),
    }
}

/// The rules as text. Doors read them strictly; here only what cannot be TOML is found.
fn policy_text(path: &Path) -> Result<String, String> {
    let fault = |reason: String| format!("{}: {reason}", path.display());
    let file = std::fs::File::open(path).map_err(|error| fault(error.to_string()))?;
    let mut text = String::new();
    let most = facelatch_site::LONGEST_POLICY as u64;
    file.take(most + 1).read_to_string(&mut text).map_err(|error| fault(error.to_string()))?;
    if text.len() as u64 > most {
        return Err(fault(format!("has more than {most} bytes")));
    }
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| fault(error.to_string().trim().to_owned()))?;
    let unknown =
        table.keys().find(|key| !["groups", "schedule", "holidays"].contains(&key.as_str()));
    match unknown {
        Some(key) => Err(fault(format!(
            "has {key:?}; a site's rules have [groups.NAME] tables, [schedule] and holidays only"
        ))),
        None => Ok(text),
    }
}

/// Seconds of a text like 7d.
fn lease_s(text: &str) -> Result<u32, String> {
    let fault = || {
        format!(
            "--lease {text:?}: expected a number of days, hours or minutes, such as 7d, 12h or \
             30m: at least 1m, at most 90d"
        )
    };
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(fault)?;
    let unit = match unit {
        "d" => 86_400u32,
        "h" => 3_600,
        "m" => 60,
        _ => return Err(fault()),
    };
    let number: u32 = number.parse().map_err(|_| fault())?;
    let seconds = number.checked_mul(unit).ok_or_else(fault)?;
    if facelatch_site::LEASE_S.contains(&seconds) { Ok(seconds) } else { Err(fault()) }
}

fn init(folder: &Folder, json: bool) -> Result<bool, String> {
    let public = folder.create().map_err(|error| error.to_string())?;
    // Makes the first data key.
    let service = Service::open(folder, Clock::default())?;
    let site = service.office().site();
    let text = format!(
        "The site is made; its key is in {}. Back this folder up, and let nobody read it: \
         whoever has the key decides who opens your doors.\n\n\
         Put these lines into facelatch.toml of each door:\n\n\
         [site]\nkey = \"{public}\"\n\n\
         Fingerprint of the key: {}\n\
         Then let each door join with facelatch-link site admit, and leave facelatch-link site \
         keep running.",
        folder.path().display(),
        public.fingerprint()
    );
    let answer = Answer::done(
        &text,
        json!({
            "site": site.to_string(), "key": public.to_string(),
            "fingerprint": public.fingerprint(), "folder": folder.path(),
        }),
    );
    say(json, &answer)?;
    Ok(true)
}

fn show_code(as_json: bool, code: Option<&str>, public: &str) -> Result<(), String> {
    let Some(code) = code else { return Ok(()) };
    let key: Option<facelatch_crypto::PublicKey> = public.parse().ok();
    let fingerprint = key.map(|key| key.fingerprint()).unwrap_or_default();
    let text = format!(
        "At the door, with the key {fingerprint} in its configuration, run within ten minutes:\n\n    \
         facelatch site join {code}\n\nWaiting for the door; Ctrl+C takes the code back."
    );
    let json = json!({ "code": code, "fingerprint": fingerprint });
    say(as_json, &Answer::done(&text, json))
}

fn say(as_json: bool, answer: &Answer) -> Result<(), String> {
    let text = if as_json { answer.json.to_string() } else { answer.text.clone() };
    if !answer.good && !as_json {
        return Err(text);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

/// Is the office for the time of one order.
fn alone(
    folder: &Folder,
    config: &Config,
    order: &Order,
    stop: &AtomicBool,
    ready: impl FnOnce(&str) -> Result<(), String>,
) -> Result<Answer, String> {
    let mut service = Service::open(folder, Clock::default())?;
    ready(&service.office().public().to_string())?;
    let begun = Instant::now();
    service.connect(settings(config, "office")?, &config.mqtt.prefix)?;
    // Reading orders want to hear the doors first; others must not wait.
    let mut answer = if order.only_reads() { None } else { Some(service.order(order)?) };
    let until = begun
        + if answer.as_ref().is_some_and(|answer| answer.wait) {
            Duration::from_millis(CODE_MS)
        } else {
            SETTLE
        };
    if answer.as_ref().is_some_and(|answer| !answer.good) {
        return Ok(answer.unwrap_or_else(Answer::wait));
    }
    loop {
        service.step(Duration::from_millis(200), None)?;
        if let Some(own) = service.own_answer() {
            answer = Some(own);
        }
        let waits = answer.as_ref().is_some_and(|answer| answer.wait);
        if !waits && service.fetched() && service.settled() {
            break;
        }
        let away = !service.connected() && begun.elapsed() >= CONNECT && !waits;
        let stopped = stop.load(Ordering::Relaxed);
        if Instant::now() >= until || away || stopped {
            if waits {
                return Ok(Answer::failed(&match order {
                    Order::Admit { door, .. } if !stopped => late_door(door),
                    _ => "the code is taken back".to_owned(),
                }));
            }
            if order.only_reads() {
                break;
            }
            let reason = service.lost().unwrap_or("it does not answer").to_owned();
            let done = answer.map(|answer| answer.text).unwrap_or_default();
            return Ok(Answer::failed(&format!(
                "{done}\nBut the broker does not have it all yet: {reason}. The office has kept \
                 it; facelatch-link site keep, or the next command, publishes it"
            )));
        }
    }
    let answer = match answer {
        Some(answer) => answer,
        None => service.order(order)?,
    };
    service.close();
    Ok(answer)
}

/// Gives the order to the office's service.
fn by_service(
    folder: &Folder,
    order: &Order,
    stop: &AtomicBool,
    ready: impl FnOnce() -> Result<(), String>,
) -> Result<Answer, String> {
    let spool = Spool::new(folder.path());
    let fault = |error: std::io::Error| {
        format!(
            "the office's service works with {}, and its orders folder: {error}",
            folder.path().display()
        )
    };
    // The service sees neither the user's home nor /tmp. The copy stays until the answer.
    let mut _lent = None;
    let number = match order {
        Order::Models { file, version } => {
            // One byte too many is enough to be refused.
            let lent = spool.lend(file, LARGEST_MODELS + 1);
            let lent = lent.map_err(|error| format!("{}: {error}", file.display()))?;
            let path = lent.path().to_owned();
            _lent = Some(lent);
            spool.give(&Order::Models { file: path, version: version.clone() })
        }
        order => spool.give(order),
    }
    .map_err(fault)?;
    ready()?;
    let patience = match order {
        Order::Admit { .. } => Duration::from_millis(CODE_MS) + ANSWER,
        _ => ANSWER,
    };
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if let Some(answer) = spool.look(&number) {
            return Ok(answer);
        }
        if stop.load(Ordering::Relaxed) {
            spool.take_back(&number);
            if let Order::Admit { door, .. } = order {
                let _ = spool.give(&Order::Uninvite { door: door.clone() });
            }
            return Ok(Answer::failed("stopped before the office's service answered"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    spool.take_back(&number);
    Ok(Answer::failed(
        "the office's service does not answer; see its log with journalctl -u facelatch-office",
    ))
}

/// Keeps the site until it is told to stop.
fn keep(folder: &Folder, config: &Config, stop: &AtomicBool) -> Result<bool, String> {
    let mut service = Service::open(folder, Clock::default())?;
    let spool = Spool::new(folder.path());
    spool.clear().map_err(|error| format!("{}: {error}", folder.path().display()))?;
    service.connect(settings(config, "office")?, &config.mqtt.prefix)?;
    log::info!(
        "the office of site {} keeps {} doors and {} people",
        service.office().site(),
        service.office().doors().len(),
        service.office().people_count()
    );
    // Only under systemd.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut connected = false;
    while !stop.load(Ordering::Relaxed) {
        service.step(Duration::from_millis(200), Some(&spool))?;
        service.take_orders(&spool)?;
        if service.connected() != connected {
            connected = !connected;
            if connected {
                log::info!("connected to the broker");
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
    service.close();
    Ok(true)
}

/// How to reach the broker that the configuration names.
fn settings(config: &Config, name: &str) -> Result<Settings, String> {
    let id = format!("{name}-{:016x}", crate::mqtt::chance().to_bits());
    let topics = Topics::new(&config.mqtt.prefix, &id, None)?;
    let settings = wiring::broker(config, &topics)?
        .ok_or("mqtt.url is not set: the doors of a site meet at a broker; set it in link.toml")?;
    Ok(Settings { will: None, ..settings })
}
