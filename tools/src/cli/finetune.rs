//! `finetune`: fine-tunes pretrained weights on your own people.

use super::signals;
use super::training::{Data, Options, Place, follow, read_weights};
use crate::train::Start;
use crate::train::recipe::Recipe;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Fine-tune pretrained weights.
///
/// The network learns the people of --train. After each epoch it is evaluated on
/// --validation, by loss if the people are the same, by verification of photo pairs if they
/// are others. The best epoch is kept in the folder --out: model.safetensors, run.json and
/// a checkpoint. The softmax head learns the scale of its logits: plain cosines could not
/// bring the loss of ten people below 1.4.
#[derive(Args)]
pub struct Finetune {
    /// Weights to start from: a file that `import mobilefacenet` reads, the folder of an
    /// earlier training run, or face-reidentification-retail-0095 as the folder of a
    /// floating-point set, an .onnx or OpenVINO's .xml
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
        let (network, weights) = read_weights(&self.weights)?;
        let recipe = self.options.recipe(Recipe::finetune(), &weights)?;
        let data = self.data.read(weights.network)?;
        let start = Start {
            resume: self.place.resume,
            stop: signals::stop()?,
            ..Start::from_weights(network)
        };
        follow(start, &data, &recipe, &self.place.out)
    }
}
