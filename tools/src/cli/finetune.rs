//! `finetune`: weights that know faces, trained on for people of one's own.

use super::signals;
use super::training::{Data, Options, Place, follow, read_weights};
use crate::train::Start;
use crate::train::recipe::Recipe;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Train on from imported or earlier weights.
///
/// People of --train are learned; the epoch is chosen on --validation, by the loss where
/// its people are the same, by verifying pairs where they are others. What is kept is in
/// the folder --out: model.safetensors, run.json and a checkpoint. Where a softmax head is
/// learned its logits have a scale of their own; cosines as they are would put a floor of
/// 1.4 under the loss of ten people.
#[derive(Args)]
pub struct Finetune {
    /// Weights to start from: what `import mobilefacenet` reads, or the folder of an
    /// earlier training
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    options: Options,
}

impl Finetune {
    pub fn run(self) -> Result<()> {
        let (network, normalization) = read_weights(&self.weights)?;
        let recipe = self.options.recipe(Recipe::finetune(), normalization)?;
        let data = self.data.read()?;
        let start = Start {
            resume: self.place.resume,
            stop: signals::stop()?,
            ..Start::from_weights(network)
        };
        follow(start, &data, &recipe, &self.place.out)
    }
}
