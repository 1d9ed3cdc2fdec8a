//! `run`: the service.

use super::LAST_WORDS;
use super::outlet::Outlet;
use super::site::{Site, load_gallery, open_store};
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::camera::Camera;
use facelatch::detect::DetectorSettings;
use facelatch::gallery::Gallery;
use facelatch::gallery::store::{Loaded, Store, StoreError, peek, stamp};
use facelatch::liveness::guard::LivenessGuard;
use facelatch::models::Models;
use facelatch::recognize::Recognizer;
use facelatch::relay::Relay;
use facelatch::service::{Doorkeeper, Event, run};
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
        let guard = LivenessGuard::new(config.liveness(unforeseen()), models.liveness())?;
        let file = config.gallery_file();
        let (gallery, known) = {
            let mut store = open_store(&file)?;
            let gallery = load_gallery(&mut store, &models, &mut recognizer, true)?;
            (gallery, store.revision()?)
        };
        if gallery.people() == 0 {
            log::warn!("{}: nobody is enrolled yet; see facelatch enroll --help", file.display());
        }
        let changed = watch_gallery(&file, &models, known)?;

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
        keeper.watch_liveness(guard);
        for event in &events {
            told(Duration::ZERO, event);
        }
        // After the relay, so that a door left open is locked whatever the camera does.
        let camera = Camera::open(uri)?;
        let summary =
            run(&mut keeper, camera, self.max_frames, &stop, told, || locked(&changed).take());
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

/// A number that nobody can foresee: the standard library's hashers are seeded by the
/// system.
fn unforeseen() -> u64 {
    RandomState::new().hash_one(SystemTime::now())
}

/// Looks in its own thread, so that the door does not wait, whether another
/// facelatch has changed the gallery, and puts the new one where the service
/// takes it.
fn watch_gallery(
    file: &Path,
    models: &Models,
    mut known: [u64; 2],
) -> Result<Arc<Mutex<Option<Gallery>>>> {
    let changed = Arc::new(Mutex::new(None));
    let (file, model) = (file.to_owned(), models.recognizer_id()?);
    let size = models.recognizer()?.embedding_size;
    let slot = Arc::downgrade(&changed);
    let mut seen: Option<(SystemTime, u64)> = None;
    let mut told = String::new();
    std::thread::Builder::new()
        .name("gallery".to_owned())
        .spawn(move || {
            // Ends with the service, which holds the other end of the slot.
            while let Some(slot) = slot.upgrade() {
                let now = stamp(&file);
                if now != seen || now.is_none() {
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
                                *locked(&slot) = Some(gallery);
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
                drop(slot);
                std::thread::sleep(LOOK_EVERY);
            }
        })
        .context("cannot watch the gallery")?;
    Ok(changed)
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

fn locked(slot: &Mutex<Option<Gallery>>) -> MutexGuard<'_, Option<Gallery>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Into the log, and to whoever reads standard output, if anybody does.
fn tell(at: Duration, event: &Event, out: Option<&mut Outlet>) {
    match event {
        Event::RelayFailed(_) => log::error!("{event}"),
        _ => log::info!("{event}"),
    }
    if let Some(out) = out {
        // An outlet neither fails nor waits.
        let _ = out.write_all(format!("{}\n", line(at, event)).as_bytes());
    }
}

/// An event as one JSON object.
fn line(at: Duration, event: &Event) -> Value {
    let (kind, more) = match event {
        Event::Granted { name, evidence, threshold } => (
            "granted",
            json!({
                "name": name, "person": evidence.person.0, "track": evidence.track.0,
                "similarity": evidence.similarity, "frames": evidence.frames, "of": evidence.of,
                "threshold": threshold.similarity, "extrapolated": threshold.extrapolated,
            }),
        ),
        Event::Stranger { track, similarity, frames, threshold } => (
            "refused",
            json!({
                "reason": "stranger", "track": track.0, "similarity": similarity,
                "frames": frames, "threshold": threshold.similarity,
                "extrapolated": threshold.extrapolated,
            }),
        ),
        Event::TwoFaces { faces } => ("refused", json!({"reason": "two faces", "faces": faces})),
        Event::Poor(aspect) => ("advice", json!({"advice": aspect.advice()})),
        Event::NotLive { track, verdict, enforced } => (
            if *enforced { "refused" } else { "advice" },
            json!({
                "reason": "liveness", "track": track.0, "score": verdict.score,
                "cue": verdict.cues.worst().to_string(), "frames": verdict.cues.frames,
            }),
        ),
        Event::Challenge { track, action } => {
            ("challenge", json!({"track": track.0, "action": action.to_string()}))
        }
        Event::Unlocked => ("unlocked", json!({})),
        Event::Locked => ("locked", json!({})),
        Event::RelayFailed(message) => ("relay failed", json!({"error": message})),
    };
    let mut object = Map::new();
    object.insert("at".to_owned(), json!(at.as_secs_f64()));
    object.insert("event".to_owned(), json!(kind));
    if let Value::Object(more) = more {
        object.extend(more);
    }
    Value::Object(object)
}
