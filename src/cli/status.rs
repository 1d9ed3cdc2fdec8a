//! `status`: shows the state of the door, models, thresholds and gallery.

use super::common_args::{CommonArgs, is_begun, open_store, service_socket};
use super::now;
use anyhow::Result;
use clap::Args;
use facelatch::service::control::{Request, ask};
use facelatch::service::status::Snapshot;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show the state of the door, models, thresholds and gallery
///
/// The state of the door comes from the running service through its socket. Without a
/// service, the command shows the rest.
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    site: CommonArgs,
    /// Socket of the service [default: from the configuration, else the user's, else the
    /// system's]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    /// `None` if no service answers.
    service: Option<Box<Snapshot>>,
    /// Why no service answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_error: Option<String>,
    version: &'static str,
    models: String,
    recognizer: String,
    embedding_size: usize,
    calibration: String,
    impostor_pairs: u64,
    measured_down_to: f64,
    thresholds: Vec<ThresholdLine>,
    gallery: PathBuf,
    people: usize,
    templates: usize,
    templates_of_other_models: usize,
    false_accept_rate: f64,
    similarity: f32,
    extrapolated: bool,
}

#[derive(Serialize)]
struct ThresholdLine {
    false_accept_rate: f64,
    similarity: f32,
    extrapolated: bool,
}

impl Status {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.site.config()?;
        let socket = service_socket(self.socket, &config);
        let (service, service_error) = match ask(&socket, &Request::Status) {
            Ok(reply) => (reply.status, reply.error),
            Err(error) => (None, Some(error.to_string())),
        };
        let models = self.site.models(&config)?;
        let table = models.thresholds()?;
        let calibration = table.calibration();
        let file = config.gallery_file();
        let recognizer = models.recognizer_id()?;
        let embedding_size = models.recognizer()?.embedding_size;
        // This command only reads: it must not create a gallery.
        let (people, templates, other) = if is_begun(&file) {
            let loaded = open_store(&file)?.load(&recognizer, embedding_size)?;
            (loaded.gallery.people(), loaded.gallery.templates(), loaded.of_other_models)
        } else {
            (0, 0, 0)
        };
        let rate = config.recognition.false_accept_rate;
        let threshold = table.for_attempt(rate, templates);
        let lines = table.points().iter().map(|(far, similarity)| ThresholdLine {
            false_accept_rate: *far,
            similarity: *similarity,
            extrapolated: table.for_pair(*far).extrapolated,
        });
        let shown = Shown {
            service,
            service_error,
            version: env!("CARGO_PKG_VERSION"),
            models: models.manifest.version.clone(),
            recognizer: recognizer.to_string(),
            embedding_size,
            calibration: calibration.data.clone(),
            impostor_pairs: calibration.impostor_pairs,
            measured_down_to: calibration.measured_down_to,
            thresholds: lines.collect(),
            gallery: file,
            people,
            templates,
            templates_of_other_models: other,
            false_accept_rate: rate,
            similarity: threshold.similarity,
            extrapolated: threshold.extrapolated,
        };
        let mut out = anstream::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&shown)?)?;
        } else {
            print(&mut out, &shown)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(out: &mut impl Write, shown: &Shown) -> std::io::Result<()> {
    let mark = |extrapolated: bool| if extrapolated { "  extrapolated" } else { "" };
    match &shown.service {
        Some(service) => now::print(out, service)?,
        None => {
            let why = shown.service_error.as_deref().unwrap_or("its reply holds no status");
            writeln!(out, "service      none: {why}")?;
        }
    }
    writeln!(out, "facelatch    {}", shown.version)?;
    writeln!(
        out,
        "models       {}, recognizer {}, embedding size {}",
        shown.models, shown.recognizer, shown.embedding_size
    )?;
    writeln!(
        out,
        "thresholds   from {} impostor pairs of {}, measured down to {:.1e}",
        shown.impostor_pairs, shown.calibration, shown.measured_down_to
    )?;
    for line in &shown.thresholds {
        let (far, similarity) = (line.false_accept_rate, line.similarity);
        let far = format!("{far:e}");
        writeln!(out, "  pair {far:<7} {similarity:.3}{}", mark(line.extrapolated))?;
    }
    writeln!(out, "gallery      {}", shown.gallery.display())?;
    writeln!(out, "  {} people, {} templates", shown.people, shown.templates)?;
    if shown.templates_of_other_models > 0 {
        writeln!(out, "  and {} templates of other models", shown.templates_of_other_models)?;
    }
    writeln!(
        out,
        "this door    false accept rate {:.0e} per attempt: similarity {:.3}{}",
        shown.false_accept_rate,
        shown.similarity,
        mark(shown.extrapolated)
    )
}
