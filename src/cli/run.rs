//! `run`: the service.

use super::LAST_WORDS;
use super::outlet::Outlet;
use super::site::{Site, load_gallery, open_store};
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::camera::Camera;
use facelatch::controller::Input;
use facelatch::decide::Evidence;
use facelatch::detect::DetectorSettings;
use facelatch::door::{Note, Refusal};
use facelatch::gallery::Gallery;
use facelatch::gallery::store::{Loaded, Store, StoreError, peek, stamp};
use facelatch::models::Models;
use facelatch::recognize::Recognizer;
use facelatch::relay::Relay;
use facelatch::schedule::{Admission, TrustNote};
use facelatch::service::{Doorkeeper, Event, NewPerson, run};
use facelatch::threshold::Threshold;
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// How often to look whether somebody was enrolled or removed meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Age at which a file's time tells it from any later state.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// Watch the camera and open the door for the people enrolled
///
/// Ends with the camera's input, after --max-frames, or on SIGINT or SIGTERM,
/// with the relay off first. People enrolled, renamed or removed meanwhile count
/// within a second.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    site: Site,
    /// Camera: images:DIR, images:'PATTERN?fps=10&loop' or pipe:'COMMAND'
    #[arg(long, value_name = "URI")]
    camera: Option<String>,
    /// Relay: log: or serial:/dev/ttyUSB0?channel=1
    #[arg(long, value_name = "URI")]
    relay: Option<String>,
    /// End after so many frames
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    max_frames: usize,
    /// Print JSON Lines, one object an event, to standard output
    #[arg(long)]
    json: bool,
}

impl Run {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.site.config()?;
        let Some(uri) = self.camera.as_ref().or(config.camera.uri.as_ref()) else {
            bail!(
                "no camera: name one with --camera, or with uri under [camera] in the configuration"
            );
        };
        let relay = Relay::open(self.relay.as_ref().unwrap_or(&config.relay.uri))?;
        let models = self.site.models()?;
        let two_threads = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        let settings = DetectorSettings { two_threads, ..config.detector() };
        let mut recognizer = Recognizer::new(&models, settings)?;
        let file = config.gallery_file();
        let (gallery, known) = {
            let mut store = open_store(&file)?;
            let gallery = load_gallery(&mut store, &models, &mut recognizer, true)?;
            (gallery, store.revision()?)
        };
        if gallery.people() == 0 {
            log::warn!("{}: nobody is enrolled yet; see facelatch enroll --help", file.display());
        }
        let desk = watch_gallery(&file, &models, known)?;

        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // However often it comes: the relay goes off first.
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .context("cannot listen to signals")?;
        }
        log::info!("{} people, {} templates; relay {relay}", gallery.people(), gallery.templates());
        let mut out = self.json.then(|| Outlet::new(std::io::stdout())).transpose()?;
        let mut told = |at: Duration, event: &Event| tell(at, event, out.as_mut());
        let (mut keeper, events) = Doorkeeper::new(
            recognizer,
            models.thresholds()?,
            &config,
            gallery,
            relay,
            Duration::ZERO,
        );
        for event in &events {
            told(Duration::ZERO, event);
        }
        // After the relay, so that a door left open is locked whatever the camera does.
        let camera = Camera::open(uri)?;
        let between = |keeper: &mut Doorkeeper, now: Duration| desk.visit(keeper, now);
        let summary = run(&mut keeper, camera, self.max_frames, &stop, told, between);
        if let Some(out) = &out {
            out.finish(LAST_WORDS);
        }
        let summary = summary?;
        log::info!(
            "{} frames, {} not readable, {} times granted",
            summary.frames,
            summary.bad_frames,
            summary.granted
        );
        Ok(if summary.bad_frames > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// What goes between the service and the thread that reads and writes the gallery's
/// file, so that the door never waits for it.
#[derive(Default)]
struct Desk {
    papers: Mutex<Papers>,
    /// There is a newcomer to be written.
    brought: Condvar,
}

#[derive(Default)]
struct Papers {
    /// Read anew.
    gallery: Option<Gallery>,
    /// To be written.
    newcomer: Option<NewPerson>,
    /// How that went: a name, or why not.
    kept: Option<Result<String, String>>,
}

impl Desk {
    fn papers(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between two frames: brings the newcomer, takes what is there.
    fn visit(&self, keeper: &mut Doorkeeper, now: Duration) -> Vec<Event> {
        let newcomer = keeper.newcomer();
        let mut papers = self.papers();
        if newcomer.is_some() {
            papers.newcomer = newcomer;
            self.brought.notify_one();
        }
        let (gallery, kept) = (papers.gallery.take(), papers.kept.take());
        drop(papers);
        if let Some(gallery) = gallery {
            keeper.set_gallery(gallery);
        }
        kept.map_or_else(Vec::new, |kept| keeper.input(now, Input::Kept(kept)))
    }
}

/// Looks in its own thread, so that the door does not wait, whether another
/// facelatch has changed the gallery, and brings the new one to the desk; writes
/// whoever is enrolled at the door.
fn watch_gallery(file: &Path, models: &Models, mut known: [u64; 2]) -> Result<Arc<Desk>> {
    let desk = Arc::new(Desk::default());
    let (file, model) = (file.to_owned(), models.recognizer_id()?);
    let size = models.recognizer()?.embedding_size;
    let weak = Arc::downgrade(&desk);
    let mut seen: Option<(SystemTime, u64)> = None;
    let mut told = String::new();
    std::thread::Builder::new()
        .name("gallery".to_owned())
        .spawn(move || {
            // Ends with the service, which holds the desk.
            while let Some(desk) = weak.upgrade() {
                let newcomer = desk.papers().newcomer.take();
                let kept = newcomer.map(|newcomer| keep(&file, &model, &newcomer));
                let now = stamp(&file);
                if now != seen || now.is_none() || kept.is_some() {
                    // Taken before reading: what changes meanwhile is seen next time.
                    match look(&file, &model, size) {
                        Ok(Some(loaded)) => {
                            // File systems count time coarsely: a change soon after
                            // another one may not show.
                            seen = now.filter(|(at, _)| {
                                at.elapsed().is_ok_and(|age| age > SETTLED_AFTER)
                            });
                            told.clear();
                            if loaded.revision != known {
                                known = loaded.revision;
                                let gallery = loaded.gallery;
                                let (people, templates) = (gallery.people(), gallery.templates());
                                log::info!("gallery: {people} people, {templates} templates");
                                if loaded.of_other_models > 0 {
                                    log::warn!(
                                        "{} templates are of another model; start again to make \
                                         them anew from their pictures",
                                        loaded.of_other_models
                                    );
                                }
                                desk.papers().gallery = Some(gallery);
                            }
                        }
                        Ok(None) => {}
                        Err(error) => {
                            let message = format!("{error}; going on with the people known so far");
                            if message != told {
                                log::error!("{message}");
                                told = message;
                            }
                        }
                    }
                }
                let mut papers = desk.papers();
                papers.kept = kept.or(papers.kept.take());
                let nothing = |papers: &mut Papers| papers.newcomer.is_none();
                let waited = desk.brought.wait_timeout_while(papers, LOOK_EVERY, nothing);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        })
        .context("cannot watch the gallery")?;
    Ok(desk)
}

/// Writes somebody enrolled at the door; their name so far, or why not.
fn keep(file: &Path, model: &str, newcomer: &NewPerson) -> Result<String, String> {
    let NewPerson { templates, administrator, look_alike } = newcomer;
    Store::open(file)
        .and_then(|mut store| store.enroll_unnamed(model, templates, *administrator, *look_alike))
        .map(|person| person.name)
        .map_err(|error| error.to_string())
}

/// The gallery as it is now; nothing while another facelatch works on it. A file
/// that another one left in disorder is put right first.
fn look(file: &Path, model: &str, size: usize) -> Result<Option<Loaded>, StoreError> {
    peek(file, model, size).or_else(|_| match Store::open_within(file, Duration::ZERO) {
        Err(StoreError::Busy { .. }) => Ok(None),
        Err(error) => Err(error),
        Ok(store) => {
            if let Some(repaired) = store.repaired() {
                log::error!("{repaired}");
            }
            store.load(model, size).map(Some)
        }
    })
}

/// Into the log, and to whoever reads standard output, if anybody does.
fn tell(at: Duration, event: &Event, out: Option<&mut Outlet>) {
    match event {
        Event::RelayFailed(_) | Event::NotKept(_) | Event::Door(Note::NoAnswer) => {
            log::error!("{event}");
        }
        Event::Clock(TrustNote::NotSynchronized | TrustNote::Jumped(_))
        | Event::Door(Note::Alarm(_))
        | Event::Duress { .. }
        | Event::Stale { .. } => log::warn!("{event}"),
        _ => log::info!("{event}"),
    }
    if let Some(out) = out {
        // An outlet neither fails nor waits.
        let _ = out.write_all(format!("{}\n", line(at, event)).as_bytes());
    }
}

/// An event as one JSON object.
fn line(at: Duration, event: &Event) -> Value {
    let evidence = |evidence: &Evidence, threshold: &Threshold| {
        json!({
            "person": evidence.person.0, "track": evidence.track.0,
            "similarity": evidence.similarity, "frames": evidence.frames, "of": evidence.of,
            "threshold": threshold.similarity, "extrapolated": threshold.extrapolated,
        })
    };
    let mut object = Map::new();
    object.insert("at".to_owned(), json!(at.as_secs_f64()));
    object.insert("event".to_owned(), json!(event.kind()));
    let mut add = |more: Value| {
        if let Value::Object(more) = more {
            object.extend(more);
        }
    };
    match event {
        Event::Granted { name, evidence: why, threshold, admission, again } => {
            add(json!({"name": name}));
            add(evidence(why, threshold));
            add(json!({"schedule": admission.reason(), "again": again}));
        }
        Event::NotGranted { name, evidence: seen, threshold, why } => {
            add(json!({"reason": reason(why), "name": name}));
            add(evidence(seen, threshold));
        }
        Event::Stranger { track, similarity, frames, threshold } => add(json!({
            "reason": "stranger", "track": track.0, "similarity": similarity,
            "frames": frames, "threshold": threshold.similarity,
            "extrapolated": threshold.extrapolated,
        })),
        Event::TwoFaces { faces } => add(json!({"reason": "two faces", "faces": faces})),
        Event::Poor(aspect) => add(json!({"advice": aspect.advice()})),
        Event::Stale { age } => add(json!({"age": age.as_secs_f64()})),
        Event::Duress { name } | Event::Enrolled { name } => add(json!({"name": name})),
        Event::Passed { name, role } => add(json!({"name": name, "role": role})),
        Event::Unlocked | Event::Locked => {}
        Event::RelayFailed(message) | Event::NotKept(message) => add(json!({"error": message})),
        Event::Door(_) | Event::Clock(_) => add(json!({"text": event.to_string()})),
        Event::Enroll { name, .. } => add(json!({"text": event.to_string(), "name": name})),
    }
    Value::Object(object)
}

/// A word for why somebody known is not let in.
fn reason(why: &Refusal) -> &'static str {
    match why {
        Refusal::Lockdown => "lockdown",
        Refusal::LockedOut { .. } => "locked out",
        Refusal::Schedule(Admission::UnknownGroup) => "unknown group",
        Refusal::Schedule(Admission::ClockUnsureRefused) => "clock",
        Refusal::Schedule(_) => "hours",
        Refusal::PassedAlready => "passed already",
        Refusal::Stopped => "stopped",
    }
}
