//! `search`: grid search over learning rate and momentum, then training with the best.

use super::say;
use super::signals;
use super::training::{Data, Options, follow, read_weights};
use crate::data::photos;
use crate::networks::face::FaceNetwork;
use crate::train::checkpoint::Checkpoint;
use crate::train::data::TrainingData;
use crate::train::recipe::Recipe;
use crate::train::run_folder::digest;
use crate::train::search::{
    self, LEARNING_RATES, MOMENTUMS, Point, Row, Told, Tried, available_memory, best, bytes_each,
    csv, grid, text,
};
use crate::train::validation::Judge;
use crate::train::{Diverged, Interrupted, Start, train};
use crate::{device, files, parallel};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Grid search over learning rate and momentum, then train with the best pair.
///
/// Every grid point is a fine-tuning run from the same weights; its score is its lowest
/// validation loss. Finished points are kept in --out, and the same command continues an
/// interrupted search. The final training run is written to OUT/best.
#[derive(Args)]
pub struct Search {
    /// Weights to start from: a file that `import mobilefacenet` reads, the folder of an
    /// earlier training run, or face-reidentification-retail-0095 as the folder of a
    /// floating-point set, an .onnx or OpenVINO's .xml
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    #[command(flatten)]
    data: Data,
    /// Output folder: grid points, table.csv and the final training run
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// Learning rates to try, comma-separated
    #[arg(long, value_name = "RATES", value_delimiter = ',', default_values_t = LEARNING_RATES)]
    learning_rates: Vec<f64>,
    /// SGD momentums to try, comma-separated, each 0 up to but not including 1
    #[arg(long, value_name = "SHARES", value_delimiter = ',', default_values_t = MOMENTUMS)]
    momentums: Vec<f64>,
    /// Grid points trained in parallel; does not change the results [default: as many as
    /// cores and memory allow, 1 on a GPU]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Threads of libtorch per grid point; changes the last digits of the results
    #[arg(long, value_name = "N", default_value_t = 1)]
    point_threads: usize,
    /// Only search; do not train with the best pair
    #[arg(long)]
    no_retrain: bool,
    /// Epochs of the final training run [default: the same as per grid point]
    #[arg(long, value_name = "N", conflicts_with = "no_retrain")]
    retrain_epochs: Option<usize>,
    /// Print only the table, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: Options,
}

/// Everything that the result of a grid point depends on, except the point itself.
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
            ensure!(!given, "--{option} is what this command searches for; give --{option}s");
        }
        let judged = self.options.judge.unwrap_or(Judge::Loss);
        ensure!(
            judged == Judge::Loss,
            "--judge: a search compares points by validation loss only; leave --judge out"
        );
        ensure!(self.point_threads > 0, "--point-threads 0: expected at least 1");
        let points = grid(&self.learning_rates, &self.momentums)?;
        let (network, weights) = read_weights(&self.weights)?;
        let recipe = self.options.recipe(Recipe::finetune(), &weights)?;
        let recipe = Recipe { judge: Some(Judge::Loss), ..recipe };
        let data = self.data.read(weights.network)?;
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
                "interrupted with {} of {} points done; run the same command again to continue",
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
        .with_context(|| format!("training with the best point, {}", best.point.name()))
    }

    /// Trains the grid points that are not done yet; returns all finished rows, the best
    /// first. There are fewer rows than points only if `stop` was set.
    fn table(
        &self,
        points: &[Point],
        network: &FaceNetwork,
        data: &TrainingData,
        recipe: &Recipe,
        stop: &Arc<AtomicBool>,
    ) -> Result<Vec<Row>> {
        let neutral = at(recipe, &Point { learning_rate: 0.0, momentum: 0.0 });
        let identity = Identity {
            recipe: &neutral,
            weights: digest(network)?,
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
        // Each grid point sets libtorch's thread count. The old count is restored below.
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

/// The recipe with the learning rate and momentum of a grid point.
fn at(recipe: &Recipe, point: &Point) -> Recipe {
    let mut recipe = recipe.clone();
    recipe.schedule.learning_rate = point.learning_rate;
    recipe.momentum = point.momentum;
    recipe
}

/// Trains one grid point from the starting weights; `None` if it was interrupted.
fn try_point(
    point: &Point,
    network: &FaceNetwork,
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
        // Divergence is a result as well: this point is no candidate.
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
