//! `bench`: measures the time of each stage.

use super::model_args::ModelArgs;
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::access::gallery::{Gallery, PersonId};
use facelatch::models::{ModelId, Models};
use facelatch::vision::align::align;
use facelatch::vision::detect::{Detector, DetectorSettings};
use facelatch::vision::embed::{Embedder, Embedding, Template};
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// People in the gallery that `match` searches.
const PEOPLE: u32 = 10_000;
/// Numbers per template in the gallery that `match_256` searches, whatever the model's.
const NUMBERS: usize = 256;
/// Templates per person.
const TEMPLATES: usize = 5;

/// Measure the time of each stage on this machine
///
/// With more than one thread, each thread processes a picture of its own at the same
/// time, and the times are per picture. `match` searches 10,000 people with 5 templates
/// per person, and `match_256` as many with 256 numbers per template; `total` is without
/// `match_256`.
#[derive(Args)]
pub struct Bench {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Picture to process [default: a built-in portrait]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Threads that process pictures in parallel
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Use a second thread within each detection
    #[arg(long)]
    two_threads: bool,
    /// Measured rounds per thread
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Shorter side of the smallest face to find, pixels
    #[arg(long, default_value_t = 40.0, value_name = "PIXELS")]
    minimum_face: f32,
    #[command(flatten)]
    models: ModelArgs,
}

/// Durations of every round, by stage.
type Times = BTreeMap<&'static str, Vec<Duration>>;

/// Result of one thread: durations, and the windows that R-Net and O-Net processed.
type Measured = (Times, [usize; 2]);

/// Stages in the order in which they run.
const STAGES: [&str; 9] =
    ["pnet", "rnet", "onet", "detect", "align", "embed", "match", "match_256", "total"];

impl Bench {
    pub fn run(self) -> Result<ExitCode> {
        let models = self.models.open()?;
        let kernel = Embedder::new(models.recognizer()?)?.kernel();
        let frame = match &self.image {
            Some(path) => picture::read(path)?,
            None => picture::decode(
                Path::new("built-in portrait"),
                include_bytes!("../../assets/astronaut.jpg"),
            )?,
        };
        let gallery = made_up(models.recognizer_id()?, models.recognizer()?.embedding_size);
        let wide = made_up(ModelId::new("noise"), NUMBERS);
        let (times, windows) = std::thread::scope(|scope| -> Result<Measured> {
            let workers: Vec<_> = (0..self.threads)
                .map(|_| scope.spawn(|| self.measure(&models, &frame, [&gallery, &wide])))
                .collect();
            let (mut all, mut windows) = (Times::new(), [0; 2]);
            for worker in workers {
                let (times, counted) =
                    worker.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
                windows = counted;
                for (stage, mut durations) in times {
                    all.entry(stage).or_default().append(&mut durations);
                }
            }
            Ok((all, windows))
        })?;
        let mut out = anstream::stdout().lock();
        let mut stages = Map::new();
        if !self.json {
            let (width, height) = (frame.width(), frame.height());
            writeln!(
                out,
                "{width}x{height}, {} threads, {}, kernel {kernel}",
                self.threads,
                self.models.precision()
            )?;
            writeln!(out, "{:8} {:>9} {:>9} {:>9}", "stage", "min ms", "median", "p95")?;
        }
        for stage in STAGES {
            let mut durations = times.get(stage).cloned().unwrap_or_default();
            durations.sort();
            let at = |share: f64| {
                let index = ((durations.len().max(1) - 1) as f64 * share).round() as usize;
                durations.get(index).map_or(0.0, |d| d.as_secs_f64() * 1e3)
            };
            let (min, median, p95) = (at(0.0), at(0.5), at(0.95));
            if self.json {
                let figures = json!({"min_ms": min, "median_ms": median, "p95_ms": p95});
                stages.insert(stage.to_owned(), figures);
            } else {
                writeln!(out, "{stage:8} {min:9.3} {median:9.3} {p95:9.3}")?;
            }
        }
        if self.json {
            let report = json!({
                "threads": self.threads, "precision": self.models.precision().to_string(), "kernel": kernel,
                "width": frame.width(), "height": frame.height(), "stages": Value::Object(stages),
                "windows": {"rnet": windows[0], "onet": windows[1]},
            });
            writeln!(out, "{report}")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn measure(
        &self,
        models: &Models,
        frame: &Frame,
        [gallery, wide]: [&Gallery; 2],
    ) -> Result<Measured> {
        let settings = DetectorSettings {
            minimum_face: self.minimum_face,
            two_threads: self.two_threads,
            ..DetectorSettings::default()
        };
        let mut detector = Detector::new(&models.detector, settings)?;
        let mut embedder = Embedder::new(models.recognizer()?)?;
        let model = models.recognizer_id()?;
        let probe = Template::new(wide.model().clone(), noise(NUMBERS, &mut 7));
        let (mut times, mut windows) = (Times::new(), [0; 2]);
        // The first rounds are slower: caches are cold and the clock frequency is low.
        let warm_up = (self.rounds / 10).max(1);
        for round in 0..warm_up + self.rounds {
            let started = Instant::now();
            let faces = detector.detect(frame)?;
            let detected = Instant::now();
            let face = faces.first().context(
                "no face in the picture, so not every stage can be measured; name another picture with --image",
            )?;
            let crop = align(frame, &face.landmarks, embedder.alignment());
            let aligned = Instant::now();
            let template = Template::new(model.clone(), embedder.embed(&crop)?);
            let embedded = Instant::now();
            if gallery.best(&template).is_none() {
                bail!("the generated gallery is empty");
            }
            let matched = Instant::now();
            if wide.best(&probe).is_none() {
                bail!("the generated gallery is empty");
            }
            let matched_wide = Instant::now();
            if round < warm_up {
                continue;
            }
            let nets = detector.times();
            windows = [nets.rnet_windows, nets.onet_windows];
            for (stage, duration) in [
                ("pnet", nets.pnet),
                ("rnet", nets.rnet),
                ("onet", nets.onet),
                ("detect", detected - started),
                ("align", aligned - detected),
                ("embed", embedded - aligned),
                ("match", matched - embedded),
                ("match_256", matched_wide - matched),
                ("total", matched - started),
            ] {
                times.entry(stage).or_default().push(duration);
            }
        }
        Ok((times, windows))
    }
}

/// A gallery of pseudo-random embeddings.
fn made_up(model: ModelId, size: usize) -> Gallery {
    let mut state = 1;
    let mut gallery = Gallery::new(model.clone(), size);
    for person in 0..PEOPLE {
        let templates: Vec<Template> =
            (0..TEMPLATES).map(|_| Template::new(model.clone(), noise(size, &mut state))).collect();
        gallery.add(PersonId(person), "nobody", &templates);
    }
    gallery
}

/// A pseudo-random embedding.
fn noise(size: usize, state: &mut u32) -> Embedding {
    let next = || {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    Embedding::normalized(&std::iter::repeat_with(next).take(size).collect::<Vec<_>>())
}
