//! `liveness`: error rates of the liveness check on simulated presentation attacks.

use crate::measure::liveness::{QUANTILES, Report, present, report};
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::models::Models;
use facelatch::vision::picture::looks_like_a_picture;
use std::path::PathBuf;
use walkdir::WalkDir;

/// Measure liveness on simulated people, prints and screens made from photos.
///
/// A live face is a photo on a turning head of average shape. A print or a screen is the
/// photo on a moving plane with ink dots or display stripes, glare, edges and compression.
/// The rates (BPCER and APCER of ISO/IEC 30107-3) show whether each cue works as intended
/// and how many people it refuses. They do not show how many attacks a door withstands:
/// only real attacks in front of its camera do.
#[derive(Args)]
pub struct LivenessRates {
    /// Folder of photos with one face each; subfolders are included
    #[arg(long)]
    images: PathBuf,
    /// Number of photos to use, taken at equal distances from the sorted list
    #[arg(long, default_value_t = 100)]
    photos: usize,
    /// Folder of a model set [default: the built-in one]
    #[arg(long)]
    models: Option<PathBuf>,
    /// Liveness score below which a face counts as an attack, 0 to 1
    #[arg(long, default_value_t = 0.5)]
    threshold: f32,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl LivenessRates {
    pub fn run(self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.threshold) {
            bail!("--threshold {}: expected 0 to 1", self.threshold);
        }
        let models = Models::open_or_built_in(self.models.as_deref())?;
        let mut paths = Vec::new();
        for entry in WalkDir::new(&self.images).sort_by_file_name() {
            let entry = entry.with_context(|| self.images.display().to_string())?;
            if entry.file_type().is_file() && looks_like_a_picture(entry.path()) {
                paths.push(entry.into_path());
            }
        }
        let wanted = self.photos.clamp(1, paths.len().max(1));
        let paths: Vec<PathBuf> =
            (0..wanted).filter_map(|at| paths.get(at * paths.len() / wanted).cloned()).collect();
        let (presented, left_out) = present(&models, &paths, self.seed)
            .with_context(|| self.images.display().to_string())?;
        print(&report(&models, self.seed, self.threshold, &presented, left_out), self.json)
    }
}

#[expect(clippy::print_stdout, reason = "the command's own output")]
fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    for reason in &report.left_out {
        log::warn!("{reason}; skipped");
    }
    println!("{} photos, seed {}; attacks are simulated", report.photos, report.seed);
    for (species, count, none) in &report.presentations {
        println!(
            "  {species:<14} {count:>5} presentations, {:.1} % without a verdict",
            none * 100.0
        );
    }
    println!("\n{:<22} {:>7} {:>15}   APCER by species", "", "BPCER", "95 %");
    for rates in &report.rates {
        let [low, high] = rates.bpcer_interval;
        let apcer: Vec<String> = rates
            .apcer
            .iter()
            .map(|(species, rate)| format!("{species} {:.1} %", rate * 100.0))
            .collect();
        println!(
            "{:<22} {:>5.1} % {:>13}   {}",
            rates.by,
            rates.bpcer * 100.0,
            format!("{:.1} - {:.1} %", low * 100.0, high * 100.0),
            apcer.join(", ")
        );
    }
    let shares: Vec<String> = QUANTILES.iter().map(|share| format!("{share:>8}")).collect();
    println!("\n{:<26} {}", "cue values, by quantile", shares.join(" "));
    for (name, species, values) in &report.measured {
        let values: Vec<String> = values.iter().map(|value| format!("{value:>8.4}")).collect();
        println!("{:<26} {}", format!("{name}, {species}"), values.join(" "));
    }
    Ok(())
}
