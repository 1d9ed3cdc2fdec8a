//! `enroll`: adds a person, or templates of a person, to the gallery.

use super::common_args::{CAMERA, CommonArgs};
use super::trail::Trail;
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::access::enroll::{
    EnrollSettings, Enrolment, MAX_VIEWS, Poses, SAME_PERSON_RATE, Shot, Step,
};
use facelatch::access::gallery::Gallery;
use facelatch::audit::entry::Entry;
use facelatch::config::Config;
use facelatch::hardware::camera::Camera;
use facelatch::models::Models;
use facelatch::service::files::{load_gallery, open_store};
use facelatch::storage::gallery::{NewTemplate, Purpose, reachable};
use facelatch::vision::detect::DetectorSettings;
use facelatch::vision::embed::Template;
use facelatch::vision::face_picture::FacePicture;
use facelatch::vision::picture;
use facelatch::vision::quality::WORTH_ENROLLING;
use facelatch::vision::recognizer::Recognizer;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The largest face in a photo is enrolled only if its area is at least this many times
/// that of the second largest.
const CLEARLY_LARGER: f32 = 2.0;
/// Shorter side of the smallest face to find in a photo, pixels. Smaller faces would not
/// reach the quality needed for enrolment.
const SMALLEST_FACE: f32 = 40.0;

/// Enroll somebody from photos or in front of the camera
///
/// If the name is already enrolled, the new templates are added to it, provided that they
/// show the same person.
#[derive(Args)]
pub struct Enroll {
    /// The person's name
    name: String,
    #[command(flatten)]
    source: Source,
    /// Number of views to take in front of the camera
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=MAX_VIEWS as i64))]
    views: u8,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Photos of the person, alone or clearly in the foreground
    #[arg(long = "image", value_name = "FILE", num_args = 1..)]
    images: Vec<PathBuf>,
    #[arg(long, value_name = "URI", help = CAMERA)]
    camera: Option<String>,
}

/// Time limit for taking all views.
const TIME: Duration = Duration::from_secs(60);
/// Interval at which the signal flag is read.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Interrupts the camera, and the program of a `pipe:` camera, on a signal or after twice
/// [`TIME`].
#[derive(Default)]
struct Watch {
    done: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Registers the signal handlers. Call it before the camera is opened: a signal in
    /// between would end this process and leave the camera's program running.
    fn begin() -> Result<Self> {
        let watch = Self::default();
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&watch.stop))
                .context("cannot register a signal handler")?;
        }
        Ok(watch)
    }

    fn over(&self, camera: &Camera) {
        let (interrupter, watched) = (camera.interrupter(), Arc::clone(&self.done));
        let stopped = Arc::clone(&self.stop);
        let began = Instant::now();
        std::thread::spawn(move || {
            while !watched.load(Ordering::Relaxed) {
                if stopped.load(Ordering::Relaxed) || began.elapsed() > 2 * TIME {
                    return interrupter.interrupt();
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
    }

    /// Whether a signal came. An `images:` camera cannot be interrupted, so its reader
    /// must check this.
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// The people already enrolled, and the similarity from which two templates count as the
/// same person.
struct Known {
    gallery: Gallery,
    same_person: f32,
}

impl Enroll {
    pub fn run(mut self) -> Result<ExitCode> {
        let config = self.common.config()?;
        let file = config.gallery_file();
        reachable(&file)?;
        let models = self.common.models(&config)?;
        let detector = match &self.source.camera {
            Some(_) => config.detector(),
            None => DetectorSettings { minimum_face: SMALLEST_FACE, ..DetectorSettings::default() },
        };
        let mut recognizer = Recognizer::new(&models, detector)?;
        // The store is closed while the camera runs, so that the service can use it.
        let mut store = open_store(&file, Purpose::Begin)?;
        self.name = store.name_for(&self.name)?;
        let gallery = load_gallery(&mut store, &models, &mut recognizer, false)?.gallery;
        drop(store);
        let same_person = models.thresholds()?.for_pair(SAME_PERSON_RATE).similarity;
        let known = Known { gallery, same_person };
        let (views, failed) = match &self.source.camera {
            Some(uri) => (self.of_camera(uri, &config, &mut recognizer, &known)?, false),
            None => self.of_images(&mut recognizer, &known)?,
        };
        if views.is_empty() {
            bail!("{}: no usable photo; nothing was enrolled", self.name);
        }
        self.keep(&file, &config, &models, &mut recognizer, known.same_person, views)?;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn keep(
        &self,
        file: &Path,
        config: &Config,
        models: &Models,
        recognizer: &mut Recognizer,
        same_person: f32,
        views: Vec<(FacePicture, Template)>,
    ) -> Result<()> {
        let mut store = open_store(file, Purpose::Begin)?;
        // The service may have enrolled somebody in the meantime.
        let gallery = load_gallery(&mut store, models, recognizer, false)?.gallery;
        let known = Known { gallery, same_person };
        if let Some(fault) =
            views.iter().find_map(|(_, template)| self.stands_against(template, &known))
        {
            bail!("{}: {fault}", self.name);
        }
        let templates: Vec<NewTemplate> = views
            .into_iter()
            .map(|(picture, template)| NewTemplate {
                template,
                picture: config.gallery.keep_crops.then_some(picture),
            })
            .collect();
        let added = templates.len();
        let mut trail = Trail::of(&self.common, config);
        trail.before(&store);
        let person = store.enroll(&self.name, &templates)?;
        trail.people(Entry::new("people"), &store);
        let mut out = anstream::stdout().lock();
        let noun = if added == 1 { "template" } else { "templates" };
        writeln!(out, "{}: {added} {noun} added, {} now", person.name, person.templates)?;
        Ok(())
    }

    /// The views of usable photos, and whether any photo was rejected. A rejected photo is
    /// logged and skipped.
    fn of_images(
        &self,
        recognizer: &mut Recognizer,
        known: &Known,
    ) -> Result<(Vec<(FacePicture, Template)>, bool)> {
        let bar = ProgressBar::new(self.source.images.len() as u64);
        bar.set_style(ProgressStyle::with_template("photos {bar:30} {pos}/{len} {eta}")?);
        let (mut views, mut failed) = (Vec::new(), false);
        for path in &self.source.images {
            match self.of_image(path, recognizer, known, &views)? {
                Ok(view) => views.push(view),
                Err(fault) => {
                    failed = true;
                    bar.suspend(|| log::error!("{fault}"));
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok((views, failed))
    }

    fn of_image(
        &self,
        path: &Path,
        recognizer: &mut Recognizer,
        known: &Known,
        before: &[(FacePicture, Template)],
    ) -> Result<Result<(FacePicture, Template), String>> {
        let shown = path.display();
        let frame = match picture::read(path) {
            Ok(frame) => frame,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut views = recognizer.faces(&frame)?;
        views.sort_by(|a, b| b.face.rect.area().total_cmp(&a.face.rect.area()));
        if let [first, second, ..] = &views[..]
            && first.face.rect.area() < CLEARLY_LARGER * second.face.rect.area()
        {
            let count = views.len();
            return Ok(Err(format!(
                "{shown}: {count} faces of similar size; crop the photo to the person to enroll"
            )));
        }
        let Some(view) = views.into_iter().next() else {
            return Ok(Err(format!(
                "{shown}: no face found; use a photo in which the face is at least {SMALLEST_FACE} pixels wide"
            )));
        };
        let (aspect, score) = view.quality.weakest();
        let Some(template) = view.template.clone().filter(|_| score >= WORTH_ENROLLING) else {
            let (got, needed) = (score * 100.0, WORTH_ENROLLING * 100.0);
            return Ok(Err(format!(
                "{shown}: quality {got:.0} %, but at least {needed:.0} % is needed: {}",
                aspect.advice()
            )));
        };
        if !before.iter().all(|(_, other)| {
            other.similarity(&template).is_ok_and(|same| same >= known.same_person)
        }) {
            return Ok(Err(format!("{shown}: shows a different person than the photos before it")));
        }
        if let Some(fault) = self.stands_against(&template, known) {
            return Ok(Err(format!("{shown}: {fault}")));
        }
        Ok(Ok((FacePicture::cut(&frame, &view.face.landmarks), template)))
    }

    /// Why the template cannot be enrolled under this name: it is similar to somebody else,
    /// or not similar to the person already enrolled under it.
    fn stands_against(&self, template: &Template, known: &Known) -> Option<String> {
        let name = self.name.as_str();
        let best = known.gallery.best(template)?;
        if best.name != name && best.similarity >= known.same_person {
            return Some(format!(
                "looks like {}, who is already enrolled (similarity {:.3}); use that name, or remove that person first",
                best.name, best.similarity
            ));
        }
        let own = known.gallery.best_of(name, template)?;
        (own < known.same_person).then(|| {
            format!("does not look like {name} as already enrolled (similarity {own:.3}); use another name")
        })
    }

    fn of_camera(
        &self,
        uri: &str,
        config: &Config,
        recognizer: &mut Recognizer,
        known: &Known,
    ) -> Result<Vec<(FacePicture, Template)>> {
        let mut enrolment = Enrolment::new(EnrollSettings {
            views: usize::from(self.views),
            // No poses are required: the views may be of any pose.
            poses: Poses::new(),
            time: TIME,
            same_person: known.same_person,
        });
        let zone = config.zone();
        let bar = ProgressBar::new(u64::from(self.views));
        bar.set_style(ProgressStyle::with_template("views {bar:30} {pos}/{len}  {msg}")?);
        let mut taken = Vec::new();
        let watch = Watch::begin()?;
        let camera = Camera::open(uri, config.camera.limit())?;
        watch.over(&camera);
        for next in camera {
            if watch.stopped() {
                break;
            }
            let captured = match next {
                Ok(captured) => captured,
                Err(error) => {
                    bar.suspend(|| log::error!("{error}"));
                    continue;
                }
            };
            let (width, height) = (captured.frame.width(), captured.frame.height());
            let mut views = recognizer
                .look(&captured.frame, |face| zone.contains(&face.rect, width, height))?;
            let shot = match &views[..] {
                [] => Shot::Empty,
                [view] => Shot::Face {
                    weakest: view.quality.weakest(),
                    turn: view.quality.turn,
                    template: view.template.clone(),
                },
                _ => Shot::Crowd,
            };
            let step = enrolment.step(captured.at, &shot);
            match step {
                Step::Take(_) | Step::Done => {
                    bar.inc(1);
                    bar.set_message("");
                    let view = views.pop().and_then(|view| Some((view.clone(), view.template?)));
                    let Some((view, template)) = view else { continue };
                    if let Some(fault) = self.stands_against(&template, known) {
                        bar.finish_and_clear();
                        bail!("{}: {fault}", self.name);
                    }
                    let picture = FacePicture::cut(&captured.frame, &view.face.landmarks);
                    taken.push((picture, template));
                    if step == Step::Done {
                        bar.finish_and_clear();
                        return Ok(taken);
                    }
                }
                Step::Wait(hindrance) => bar.set_message(hindrance.advice()),
                Step::Early => {}
                Step::Failed(hindrance) => {
                    bar.finish_and_clear();
                    bail!("{}: not enough good views in time: {}", self.name, hindrance.advice());
                }
            }
        }
        bar.finish_and_clear();
        let end = if watch.stopped() { "stopped by a signal" } else { "the camera ended" };
        bail!(
            "{}: {end} after {} of {} views; nothing was enrolled",
            self.name,
            taken.len(),
            self.views
        );
    }
}
