//! `bench-train`: throughput of a training step, in images per second.

use super::say;
use crate::device;
use crate::train::bench::{Bench, median, recipe};
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use std::io::BufRead;

/// Measure images per second of a MobileFaceNet training step.
///
/// A step is forward pass, ArcFace loss, backward pass and SGD update. The images are
/// random noise in memory, so reading and augmentation are not measured. bench/train.py
/// compares the figures with the same step in Python torch.
#[derive(Args)]
pub struct BenchTrain {
    /// Batch sizes to measure, comma-separated
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [32, 64])]
    batch: Vec<usize>,
    /// Device to compute on: cpu, cuda or cuda:1
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads of libtorch [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<i32>,
    /// Training steps per turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    steps: usize,
    /// Turns to measure; the result is their median
    #[arg(long, value_name = "N", default_value_t = 5)]
    turns: usize,
    /// Mixed precision: compute in 16 bits where that is accurate enough; needs a GPU
    #[arg(long)]
    mixed: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Run one turn per line of standard input and print its result
    #[arg(long, hide = true)]
    on_request: bool,
}

/// The result for one batch size.
#[derive(Serialize)]
struct Row {
    batch: usize,
    threads: i32,
    device: String,
    mixed: bool,
    images_per_second: f64,
    /// Slowest turn, images per second.
    least: f64,
    /// Fastest turn, images per second.
    most: f64,
}

impl BenchTrain {
    pub fn run(self) -> Result<()> {
        ensure!(
            self.turns > 0 && self.steps > 0,
            "no steps to measure; --turns and --steps must be above 0"
        );
        let device = device::parse(&self.device)?;
        if let Some(threads) = self.threads {
            ensure!(threads > 0, "--threads {threads}: expected at least 1");
            tch::set_num_threads(threads);
        }
        let mut rows = Vec::new();
        for batch in &self.batch {
            let recipe = recipe(*batch, device, self.mixed);
            let mut bench = Bench::new(&recipe)?;
            // The first step chooses kernels and allocates memory, so it is not measured.
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
