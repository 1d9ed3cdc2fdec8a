//! `train`: trains a recognizer end to end, from scratch or from weights.

use super::signals;
use super::training::{Data, Options, Place, Weights, follow, read_weights};
use crate::train::Start;
use crate::train::recipe::Recipe;
use anyhow::{Result, ensure};
use clap::Args;
use std::path::PathBuf;

/// Train end to end with ArcFace, from scratch or from weights.
///
/// From scratch, the network is MobileFaceNet. It needs many people to learn a general face embedding; with ten
/// it learns only those ten. After each epoch it is evaluated on --validation, by loss if
/// the people are the same, by verification of photo pairs if they are others. The best
/// epoch is kept in the folder --out: model.safetensors, run.json and a checkpoint.
#[derive(Args)]
pub struct Train {
    /// Weights to start from: a file that `import mobilefacenet` reads, the folder of an
    /// earlier training run, or face-reidentification-retail-0095 as the folder of a
    /// floating-point set, an .onnx or OpenVINO's .xml [default: train from scratch]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Embedding size when training from scratch, 1 to 8192
    #[arg(long, value_name = "N", default_value_t = 512, conflicts_with = "weights")]
    embedding_size: usize,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    options: Options,
}

impl Train {
    pub fn run(self) -> Result<()> {
        ensure!(
            (1..=8192).contains(&self.embedding_size),
            "--embedding-size {}: expected 1 to 8192",
            self.embedding_size
        );
        let mut usual = Recipe::train();
        let (start, weights) = match &self.weights {
            Some(weights) => {
                // The batch-normalization statistics of the weights come from more faces
                // than this training set has.
                usual.batch_norm = false;
                let (network, weights) = read_weights(weights)?;
                (Start::from_weights(network), weights)
            }
            None => {
                let start = Start::from_nothing(self.embedding_size, self.options.seed);
                (start, Weights::default())
            }
        };
        let recipe = self.options.recipe(usual, &weights)?;
        let data = self.data.read(weights.network)?;
        let start = Start { resume: self.place.resume, stop: signals::stop()?, ..start };
        follow(start, &data, &recipe, &self.place.out)
    }
}
