//! `bench-train`: images a second of a training step.

use super::say;
use crate::device;
use crate::train::bench::{Bench, median, recipe};
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use std::io::BufRead;

/// Measure a training step of MobileFaceNet: forward, ArcFace, backward, SGD.
///
/// Pictures are noise that lies ready in memory. bench/train.py holds the figures
/// against the same step in Python torch.
#[derive(Args)]
pub struct BenchTrain {
    /// Pictures a step
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [32, 64])]
    batch: Vec<usize>,
    /// cpu, cuda, or cuda:1
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads of libtorch [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<i32>,
    /// Steps a turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    steps: usize,
    /// Turns; the figure is their median
    #[arg(long, value_name = "N", default_value_t = 5)]
    turns: usize,
    /// Compute in 16 bits where that is enough; on a GPU alone
    #[arg(long)]
    mixed: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    /// Take a turn for each line of the standard input and print its figure
    #[arg(long, hide = true)]
    on_request: bool,
}

/// A figure and what it is of.
#[derive(Serialize)]
struct Row {
    batch: usize,
    threads: i32,
    device: String,
    mixed: bool,
    images_per_second: f64,
    /// Of the turns.
    least: f64,
    most: f64,
}

impl BenchTrain {
    pub fn run(self) -> Result<()> {
        ensure!(self.turns > 0 && self.steps > 0, "no step to measure; give --turns and --steps");
        let device = device::parse(&self.device)?;
        if let Some(threads) = self.threads {
            ensure!(threads > 0, "--threads {threads}; it must be above 0");
            tch::set_num_threads(threads);
        }
        let mut rows = Vec::new();
        for batch in &self.batch {
            let recipe = recipe(*batch, device, self.mixed);
            let mut bench = Bench::new(&recipe)?;
            // Kernels are chosen and memory is taken at the first.
            bench.steps(1)?;
            if self.on_request {
                for line in std::io::stdin().lock().lines() {
                    line?;
                    let figure = bench.steps(self.steps)?;
                    say(&serde_json::to_string(&self.row(*batch, &[figure]))?);
                }
                continue;
            }
            let turns = (0..self.turns).map(|_| bench.steps(self.steps));
            let row = self.row(*batch, &turns.collect::<Result<Vec<f64>>>()?);
            if !self.json {
                say(&format!(
                    "batch {batch:3}, {} threads, {}: {:.1} images/s ({:.1} to {:.1})",
                    row.threads, row.device, row.images_per_second, row.least, row.most
                ));
            }
            rows.push(row);
        }
        if self.json && !self.on_request {
            say(&serde_json::to_string_pretty(&rows)?);
        }
        Ok(())
    }

    fn row(&self, batch: usize, turns: &[f64]) -> Row {
        Row {
            batch,
            threads: tch::get_num_threads(),
            device: self.device.clone(),
            mixed: self.mixed,
            images_per_second: median(turns),
            least: turns.iter().copied().fold(f64::INFINITY, f64::min),
            most: turns.iter().copied().fold(0.0, f64::max),
        }
    }
}
