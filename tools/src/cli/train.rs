//! `train`: a recognizer from nothing, or from weights, end to end.

use super::signals;
use super::training::{Data, Options, Place, follow, read_weights};
use crate::train::Start;
use crate::train::recipe::Recipe;
use anyhow::{Result, ensure};
use clap::Args;
use std::path::PathBuf;

/// Train end to end with ArcFace, from nothing or from weights.
///
/// From nothing it takes many people to learn what a face is: with ten it learns those
/// ten. The epoch is chosen on --validation, by the loss where its people are the same, by
/// verifying pairs where they are others. What is kept is in the folder --out.
#[derive(Args)]
pub struct Train {
    /// Weights to start from: what `import mobilefacenet` reads, or the folder of an
    /// earlier training [default: from nothing]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Components of an embedding, from nothing
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
        let (start, normalization) = match &self.weights {
            Some(weights) => {
                // Their statistics are of more faces than there are here.
                usual.batch_norm = false;
                let (network, normalization) = read_weights(weights)?;
                (Start::from_weights(network), normalization)
            }
            None => (Start::from_nothing(self.embedding_size, self.options.seed), None),
        };
        let recipe = self.options.recipe(usual, normalization)?;
        let data = self.data.read()?;
        let start = Start { resume: self.place.resume, stop: signals::stop()?, ..start };
        follow(start, &data, &recipe, &self.place.out)
    }
}
