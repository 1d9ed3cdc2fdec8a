//! `search`: the best learning rate and momentum of a grid, and a training with them.

use super::say;
use super::signals;
use super::training::{Data, Options, follow, read_weights};
use crate::data::photos;
use crate::networks::mobilefacenet::MobileFaceNet;
use crate::train::checkpoint::Checkpoint;
use crate::train::data::TrainingData;
use crate::train::recipe::Recipe;
use crate::train::search::{
    self, LEARNING_RATES, MOMENTUMS, Point, Row, Told, Tried, available_memory, best, bytes_each,
    csv, grid, text,
};
use crate::train::validation::Judge;
use crate::train::{Diverged, Interrupted, Start, train};
use crate::weights::safetensors;
use crate::{device, files, parallel};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use facelatch::models::sha256_hex;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Try learning rates and momentums, and train with the best.
///
/// Every point of the grid starts from the same weights and is judged by its least
/// validation loss. What is done is kept in --out: the same command goes on where it
/// was ended. The training with the best is in OUT/best.
#[derive(Args)]
pub struct Search {
    /// Weights to start from: what `import mobilefacenet` reads, or the folder of an
    /// earlier training
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    #[command(flatten)]
    data: Data,
    /// Folder for the points, table.csv, and the training with the best
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// Step sizes to try
    #[arg(long, value_name = "RATES", value_delimiter = ',', default_values_t = LEARNING_RATES)]
    learning_rates: Vec<f64>,
    /// Momentums to try
    #[arg(long, value_name = "SHARES", value_delimiter = ',', default_values_t = MOMENTUMS)]
    momentums: Vec<f64>,
    /// Points tried side by side; the table does not hang on it [default: as many as
    /// cores and memory allow, 1 on a GPU]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Threads of libtorch for each of them; figures hang on it in their last digits
    #[arg(long, value_name = "N", default_value_t = 1)]
    point_threads: usize,
    /// Stop after the table
    #[arg(long)]
    no_retrain: bool,
    /// Epochs of the training with the best [default: those of a point]
    #[arg(long, value_name = "N", conflicts_with = "no_retrain")]
    retrain_epochs: Option<usize>,
    /// The table as JSON instead of text, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: Options,
}

/// All that a point's outcome hangs on, the point itself left out.
#[derive(Serialize)]
struct Identity<'a> {
    recipe: &'a Recipe,
    weights: String,
    train: &'a str,
    validation: &'a str,
    threads: usize,
    device: String,
    version: &'static str,
}

impl Search {
    pub fn run(self) -> Result<()> {
        for (option, given) in [
            ("learning-rate", self.options.learning_rate.is_some()),
            ("momentum", self.options.momentum.is_some()),
        ] {
            ensure!(!given, "--{option} is what is searched for; give --{option}s");
        }
        let judged = self.options.judge.unwrap_or(Judge::Loss);
        ensure!(judged == Judge::Loss, "--judge: points are compared by their validation loss");
        ensure!(self.point_threads > 0, "--point-threads 0; it must be above 0");
        let points = grid(&self.learning_rates, &self.momentums)?;
        let (network, normalization) = read_weights(&self.weights)?;
        let recipe = self.options.recipe(Recipe::finetune(), normalization)?;
        let recipe = Recipe { judge: Some(Judge::Loss), ..recipe };
        let data = self.data.read()?;
        let stop = signals::stop()?;

        let rows = self.table(&points, &network, &data, &recipe, &stop)?;
        files::replace(&self.out.join("table.csv"), csv(&rows).as_bytes())?;
        if self.json {
            say(&serde_json::to_string_pretty(&rows)?);
        } else {
            say(&text(&rows));
        }
        if rows.len() < points.len() {
            bail!(
                "interrupted with {} of {} points done; the same command goes on from there",
                rows.len(),
                points.len()
            );
        }
        let best = best(&rows)?;
        if self.no_retrain {
            return Ok(());
        }
        let epochs = self.retrain_epochs.unwrap_or(recipe.epochs);
        let recipe = Recipe { epochs, ..at(&recipe, &best.point) };
        let folder = self.out.join("best");
        let resume = Checkpoint::exists(&folder);
        let start = Start { resume, stop, ..Start::from_weights(network) };
        if self.json {
            train(start, &data, &recipe, Some(&folder), |_| ()).map(|_| ())
        } else {
            follow(start, &data, &recipe, &folder)
        }
        .with_context(|| format!("training with the best, {}", best.point.name()))
    }

    /// Tries what was not tried yet.
    fn table(
        &self,
        points: &[Point],
        network: &MobileFaceNet,
        data: &TrainingData,
        recipe: &Recipe,
        stop: &Arc<AtomicBool>,
    ) -> Result<Vec<Row>> {
        let neutral = at(recipe, &Point { learning_rate: 0.0, momentum: 0.0 });
        let identity = Identity {
            recipe: &neutral,
            weights: sha256_hex(&safetensors::write(&network.tensors, None)?),
            train: &data.train.digest,
            validation: &data.validation.digest,
            threads: self.point_threads,
            device: device::name(recipe.device),
            version: env!("CARGO_PKG_VERSION"),
        };
        let jobs = self.jobs.unwrap_or_else(|| match recipe.device {
            tch::Device::Cpu => {
                let cores = parallel::cores();
                let each = bytes_each(recipe.batch);
                search::jobs(cores, self.point_threads, available_memory(), each)
            }
            _ => 1,
        });
        let search = search::Search {
            folder: &self.out,
            identity: serde_json::to_value(&identity)?,
            jobs,
            stop,
        };
        // Of this thread too, so that nothing hangs on who happens to compute.
        let threads = tch::get_num_threads();
        let few = i32::try_from(self.point_threads).unwrap_or(i32::MAX);
        let bar = photos::progress(points.len(), "points");
        let rows = search.run(
            points,
            |point| {
                tch::set_num_threads(few);
                try_point(point, network, data, recipe, stop)
            },
            |told| match told {
                Told::Kept(count) => bar.set_position(count as u64),
                Told::Tried(row) => {
                    bar.inc(1);
                    if !self.json {
                        bar.suspend(|| say(&told_point(row)));
                    }
                }
            },
        );
        bar.finish_and_clear();
        tch::set_num_threads(threads);
        rows
    }
}

/// The recipe at a point.
fn at(recipe: &Recipe, point: &Point) -> Recipe {
    let mut recipe = recipe.clone();
    recipe.schedule.learning_rate = point.learning_rate;
    recipe.momentum = point.momentum;
    recipe
}

/// Trains from the start at a point; nothing where it was interrupted.
fn try_point(
    point: &Point,
    network: &MobileFaceNet,
    data: &TrainingData,
    recipe: &Recipe,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Tried>> {
    let before = Instant::now();
    let start = Start { stop: Arc::clone(stop), ..Start::from_weights(network.clone()) };
    let trained = train(start, data, &at(recipe, point), None, |_| ());
    let seconds = before.elapsed().as_secs_f64();
    match trained {
        Ok(trained) => Ok(Some(Tried {
            loss: trained.validation.loss,
            accuracy: trained.validation.accuracy,
            epoch: trained.best_epoch,
            seconds,
            fault: None,
        })),
        Err(error) if error.downcast_ref::<Interrupted>().is_some() => Ok(None),
        // That too is an answer: this point is none to train with.
        Err(error) if error.downcast_ref::<Diverged>().is_some() => Ok(Some(Tried {
            loss: None,
            accuracy: None,
            epoch: 0,
            seconds,
            fault: Some("diverged".to_owned()),
        })),
        Err(error) => Err(error),
    }
}

fn told_point(row: &Row) -> String {
    let came = match row.tried.loss {
        Some(loss) => format!("validation loss {loss:.4} in epoch {}", row.tried.epoch),
        None => "diverged".to_owned(),
    };
    format!("learning rate {:e}, momentum {}: {came}", row.point.learning_rate, row.point.momentum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::Augment;
    use crate::train::data::tests::four_people;
    use crate::train::torch_net::tests::noise;

    fn tried(learning_rate: f64, stopped: bool) -> Option<Tried> {
        let recipe = Recipe {
            epochs: 2,
            batch: 4,
            augment: Augment::none(),
            judge: Some(Judge::Loss),
            ..Recipe::finetune()
        };
        let stop = Arc::new(AtomicBool::new(stopped));
        let point = Point { learning_rate, momentum: 0.9 };
        let tried = try_point(&point, &noise(16, 5), &four_people(2), &recipe, &stop);
        tried.expect("an answer").map(|tried| Tried { seconds: 0.0, ..tried })
    }

    #[test]
    fn every_point_starts_from_the_same_weights() {
        let once = tried(1e-4, false).expect("a loss");
        assert!(once.loss.is_some() && once.fault.is_none());
        let _ = tried(1e-3, false);
        assert_eq!(tried(1e-4, false).expect("a loss"), once);
    }

    #[test]
    fn a_point_that_diverges_is_an_answer_and_one_that_was_interrupted_is_none() {
        let diverged = tried(1e30, false).expect("an answer");
        assert_eq!((diverged.loss, diverged.fault.as_deref()), (None, Some("diverged")));
        assert!(tried(1e-4, true).is_none());
    }
}
