//! `run`: the service.

use super::site::{Site, load_gallery, open_store};
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::camera::Camera;
use facelatch::gallery::Gallery;
use facelatch::gallery::store::{Store, stamp};
use facelatch::models::Models;
use facelatch::recognize::Recognizer;
use facelatch::relay::Relay;
use facelatch::service::{Doorkeeper, Event, run};
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

/// How often to look whether somebody was enrolled or removed meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
        let mut recognizer = Recognizer::new(&models, config.detector())?;
        let file = config.gallery_file();
        let gallery = {
            let mut store = open_store(&file)?;
            load_gallery(&mut store, &models, &mut recognizer)?
        };
        if gallery.people() == 0 {
            log::warn!("{}: nobody is enrolled yet; see facelatch enroll --help", file.display());
        }
        let mut watch = GalleryWatch::new(&file, &models)?;

        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The second one ends the program at once.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
                .context("cannot listen to signals")?;
        }
        log::info!("{} people, {} templates; relay {relay}", gallery.people(), gallery.templates());
        let json = self.json;
        let told = |at: Duration, event: &Event| tell(at, event, json);
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
        let summary = run(&mut keeper, camera, self.max_frames, &stop, told, || watch.changed())?;
        log::info!(
            "{} frames, {} not readable, {} times granted",
            summary.frames,
            summary.bad_frames,
            summary.granted
        );
        Ok(if summary.bad_frames > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Notices when another facelatch has changed the gallery.
struct GalleryWatch {
    file: PathBuf,
    model: String,
    embedding_size: usize,
    looked: Instant,
    known: Option<(SystemTime, u64)>,
}

impl GalleryWatch {
    fn new(file: &Path, models: &Models) -> Result<Self> {
        Ok(Self {
            file: file.to_owned(),
            model: models.recognizer_id()?,
            embedding_size: models.recognizer()?.embedding_size,
            looked: Instant::now(),
            known: stamp(file),
        })
    }

    /// The new gallery, if there is one. While another facelatch works on it, or
    /// when it cannot be read, the old one goes on.
    fn changed(&mut self) -> Option<Gallery> {
        if self.looked.elapsed() < LOOK_EVERY {
            return None;
        }
        self.looked = Instant::now();
        if stamp(&self.file) == self.known {
            return None;
        }
        let store = Store::open_within(&self.file, Duration::ZERO);
        if matches!(store, Err(facelatch::gallery::store::StoreError::Busy { .. })) {
            return None;
        }
        let loaded = store.and_then(|store| store.load(&self.model, self.embedding_size));
        // Opening touches the file, too.
        self.known = stamp(&self.file);
        match loaded {
            Ok(loaded) => {
                let gallery = loaded.gallery;
                log::info!(
                    "gallery: {} people, {} templates",
                    gallery.people(),
                    gallery.templates()
                );
                Some(gallery)
            }
            Err(error) => {
                log::error!("{error}; going on with the people known so far");
                None
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command's own output")]
fn tell(at: Duration, event: &Event, json: bool) {
    match event {
        Event::RelayFailed(_) => log::error!("{event}"),
        _ => log::info!("{event}"),
    }
    if json {
        println!("{}", line(at, event));
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
