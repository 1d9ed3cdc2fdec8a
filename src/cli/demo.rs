//! `demo`: the whole pipeline with a simulated camera and relay.

mod scene;
mod seen;

use super::save::create_folder;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::access::event::Event;
use facelatch::config::Config;
use facelatch::hardware::relay::Relay;
use facelatch::models::Models;
use facelatch::nn::Precision;
use facelatch::service::models::ModelSet;
use facelatch::service::pipeline::{Pipeline, RelayHandle};
use facelatch::storage::gallery::{NewTemplate, Store};
use facelatch::vision::face_picture::FacePicture;
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use facelatch::vision::recognizer::Recognizer;
use scene::Portrait;
use seen::Seen;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TITLE: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const FAINT: Style = Style::new().dimmed();
/// Simulated time with an empty scene after each visit.
const PAUSE: Duration = Duration::from_secs(8);

/// Demonstrate the whole door without any hardware
///
/// Two people, shown as portraits, walk up to a simulated camera: far away, blurred, lit
/// from one side, and near. At first both are refused. Then one is enrolled and admitted,
/// and the other is refused as an impostor. Then the first is removed, and both are refused
/// again. Detector, recognizer, gallery and door are the real ones; only camera and relay
/// are simulated. Exit code 1 if the door decided wrongly.
#[derive(Args)]
pub struct Demo {
    /// Save the frames in this folder, with boxes, landmarks, names, scores and the state of
    /// the door drawn on them
    ///
    /// PNG files, named by visit, number and part of the approach. Files of an earlier demo
    /// are overwritten.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Save the frames in this folder as the camera saw them, for images: cameras
    ///
    /// They have the same names as those of --save, so the folder must be another one.
    #[arg(long, value_name = "DIR")]
    save_frames: Option<PathBuf>,
}

/// State of the running demo.
struct Stage {
    pipeline: Pipeline,
    now: Duration,
    /// Folder for drawn frames.
    save: Option<PathBuf>,
    /// Folder for frames as they are.
    save_frames: Option<PathBuf>,
    visits: usize,
    slowest: Duration,
    /// Set by a signal. The demo then ends and deletes its gallery.
    stop: Arc<AtomicBool>,
}

impl Demo {
    pub fn run(self) -> Result<ExitCode> {
        let folder = std::env::temp_dir().join(format!("facelatch-demo-{}", std::process::id()));
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let done = self.play(&folder, stop);
        // The gallery is temporary.
        let _ = std::fs::remove_dir_all(&folder);
        done
    }

    fn play(&self, folder: &Path, stop: Arc<AtomicBool>) -> Result<ExitCode> {
        if self.save.is_some() && self.save == self.save_frames {
            bail!("--save and --save-frames name the same folder; name two");
        }
        for folder in [&self.save, &self.save_frames].into_iter().flatten() {
            create_folder(folder)?;
        }
        let mut out = anstream::stdout();
        let started = Instant::now();
        let models = Models::built_in()?.in_precision(Precision::Int8);
        let config = Config::default();
        let model = models.recognizer_id()?;
        let size = models.recognizer()?.embedding_size;
        let recognizer = Recognizer::new(&models, config.detector())?;
        let mut store = Store::open(&folder.join("gallery.redb"))?;
        let (astronaut, admiral) = (Portrait::astronaut()?, Portrait::admiral()?);
        let set = ModelSet {
            recognizer,
            liveness: None,
            calibration: models.calibration()?,
            gallery: store.load(&model, size)?.gallery,
        };
        let (pipeline, _) =
            Pipeline::new(set, &config, RelayHandle::Direct(Relay::open("log:")?), Duration::ZERO);
        let mut stage = Stage {
            pipeline,
            now: Duration::ZERO,
            save: self.save.clone(),
            save_frames: self.save_frames.clone(),
            visits: 0,
            slowest: Duration::ZERO,
            stop,
        };
        writeln!(
            out,
            "{FAINT}models {} ready in {:.1?}{FAINT:#}",
            models.manifest.version,
            started.elapsed()
        )?;

        let mut right = true;
        let name = astronaut.name();
        right &= stage.visit(&mut out, &astronaut, "walks up, a stranger", false)?;
        right &= stage.visit(&mut out, &admiral, "walks up, another stranger", false)?;

        writeln!(out, "\n{TITLE}{name} is enrolled from a photo{TITLE:#}")?;
        let mut views = stage.pipeline.recognizer().faces(astronaut.picture())?;
        let view = views.pop().context("no face in the built-in photo")?;
        let Some(template) = view.template else { bail!("the built-in photo cannot be embedded") };
        let picture = FacePicture::cut(astronaut.picture(), &view.face.landmarks);
        let person = store.enroll(name, &[NewTemplate { template, picture: Some(picture) }])?;
        writeln!(
            out,
            "  {} template, quality {:.0} %",
            person.templates,
            view.quality.score() * 100.0
        )?;
        stage.pipeline.set_gallery(store.load(&model, size)?.gallery);
        let threshold = stage.pipeline.threshold();
        writeln!(
            out,
            "  similarity needed for one false accept in {:.0} attempts: {:.3}",
            1.0 / config.recognition.false_accept_rate,
            threshold.similarity
        )?;

        right &= stage.visit(&mut out, &astronaut, "walks up again", true)?;
        right &= stage.visit(&mut out, &admiral, "walks up, an impostor", false)?;

        writeln!(out, "\n{TITLE}{name} is removed{TITLE:#}")?;
        store.remove(name)?;
        stage.pipeline.set_gallery(store.load(&model, size)?.gallery);
        right &= stage.visit(&mut out, &astronaut, "comes back", false)?;
        right &= stage.visit(&mut out, &admiral, "comes back", false)?;

        let slowest = stage.slowest;
        writeln!(
            out,
            "\n{FAINT}slowest frame {slowest:.1?}, all in {:.1?}{FAINT:#}",
            started.elapsed()
        )?;
        if right {
            writeln!(out, "{GOOD}every decision was right{GOOD:#}")?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "{BAD}a decision was wrong{BAD:#}")?;
        Ok(ExitCode::FAILURE)
    }
}

impl Stage {
    /// Plays one visit. Returns whether the door decided as expected and is locked again.
    fn visit(
        &mut self,
        out: &mut impl Write,
        portrait: &Portrait,
        how: &str,
        welcome: bool,
    ) -> Result<bool> {
        self.visits += 1;
        writeln!(out, "\n{TITLE}{} {how}{TITLE:#}", portrait.name())?;
        let (mut granted, mut unlocked) = (false, false);
        let mut seen = Seen::default();
        let mut part = "";
        let began = self.now;
        for (number, moment) in portrait.approach().enumerate() {
            if self.stop.load(Ordering::Relaxed) {
                bail!("stopped by a signal");
            }
            self.now = began + moment.at;
            if moment.part != part {
                part = moment.part;
                writeln!(out, "  {FAINT}{:4.1} s  {part}{FAINT:#}", moment.at.as_secs_f32())?;
            }
            let began = Instant::now();
            let looked = self.pipeline.look(self.now, &moment.frame)?;
            let events = self.pipeline.decide(self.now, &looked);
            self.slowest = self.slowest.max(began.elapsed());
            for event in &events {
                granted |= matches!(event, Event::Granted { .. });
                unlocked |= matches!(event, Event::Unlocked);
                print(out, moment.at, event)?;
            }
            let name = format!("{}-{number:02}-{part}.png", self.visits);
            if let Some(folder) = &self.save_frames {
                write_frame(&folder.join(&name), &moment.frame)?;
            }
            if let Some(folder) = &self.save {
                seen.update(&self.pipeline, &looked, &events);
                write_frame(&folder.join(&name), &seen.drawn(moment.frame, &self.pipeline))?;
            }
        }
        // Empty scene: the door must lock again.
        let left = self.now;
        while self.now < left + PAUSE {
            self.now += Duration::from_millis(100);
            for event in self.pipeline.tick(self.now) {
                print(out, self.now - began, &event)?;
            }
        }
        Ok(granted == welcome && unlocked == welcome && self.pipeline.locked())
    }
}

fn print(out: &mut impl Write, at: Duration, event: &Event) -> std::io::Result<()> {
    let style = match event {
        Event::Granted { .. } | Event::Unlocked => GOOD,
        Event::NotGranted { .. }
        | Event::Stranger { .. }
        | Event::TwoFaces { .. }
        | Event::NotLive { .. }
        | Event::RelayFailed(_) => BAD,
        _ => Style::new(),
    };
    writeln!(out, "  {:4.1} s  {style}{event}{style:#}", at.as_secs_f32())
}

fn write_frame(path: &Path, frame: &Frame) -> Result<()> {
    std::fs::write(path, picture::encode_png(frame)?).with_context(|| path.display().to_string())
}
