//! The face recognizers that can be trained.

use crate::networks::mobilefacenet::{self, MobileFaceNet};
use crate::networks::reid::{self, Reid};
use crate::weights::{self, Tensors, WeightsError};
use facelatch::models::{Alignment, Channels};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A network that turns an aligned face into an embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// MobileFaceNet, with batch normalization.
    #[default]
    #[serde(rename = "mobilefacenet")]
    MobileFaceNet,
    /// Intel's face-reidentification-retail-0095.
    #[serde(rename = "face-reidentification-retail-0095")]
    Reid,
}

impl Architecture {
    /// Name of the network, and of its ONNX file without ending.
    pub fn name(self) -> &'static str {
        match self {
            Self::MobileFaceNet => "mobilefacenet",
            Self::Reid => reid::NAME,
        }
    }

    /// The alignment of the faces that it takes.
    pub fn alignment(self) -> Alignment {
        match self {
            Self::MobileFaceNet => Alignment::ARCFACE,
            Self::Reid => reid::ALIGNMENT,
        }
    }

    /// Order of the channels of its input.
    pub fn channels(self) -> Channels {
        match self {
            Self::MobileFaceNet => Channels::Rgb,
            Self::Reid => Channels::Bgr,
        }
    }

    /// Whether a tensor of this name stays as it is during training: the statistics of batch
    /// normalization, and the normalization of the picture.
    pub fn is_fixed(self, tensor: &str) -> bool {
        match self {
            Self::MobileFaceNet => {
                let last = tensor.rsplit('.').next().unwrap_or_default();
                last.starts_with("running_")
            }
            Self::Reid => reid::INPUT_CONSTANTS.contains(&tensor),
        }
    }

    /// The steps of the network from the picture to the embedding, each with the beginnings
    /// of its tensors' names. The last step computes the embedding.
    pub fn steps(self) -> Vec<Vec<String>> {
        let prefix = |name: &str| format!("{name}.");
        match self {
            Self::MobileFaceNet => {
                let blocks = |step: &mobilefacenet::Step| -> Vec<String> {
                    step.blocks().iter().map(|(name, _)| prefix(name)).collect()
                };
                let mut steps: Vec<Vec<String>> =
                    mobilefacenet::steps().iter().map(blocks).collect();
                steps.push(vec![prefix("linear"), prefix("bn")]);
                steps
            }
            Self::Reid => reid::steps()
                .iter()
                .map(|step| step.all_layers().map(|layer| prefix(&layer.name)).collect())
                .collect(),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A face recognizer with its weights.
#[derive(Clone, Debug, PartialEq)]
pub enum FaceNetwork {
    /// MobileFaceNet.
    MobileFaceNet(MobileFaceNet),
    /// face-reidentification-retail-0095.
    Reid(Reid),
}

impl From<MobileFaceNet> for FaceNetwork {
    fn from(network: MobileFaceNet) -> Self {
        Self::MobileFaceNet(network)
    }
}

impl From<Reid> for FaceNetwork {
    fn from(network: Reid) -> Self {
        Self::Reid(network)
    }
}

impl FaceNetwork {
    /// Takes tensors under the names of the architecture. `epsilon` is that of
    /// [`Self::epsilon`].
    ///
    /// # Errors
    /// If a tensor is missing, extra, misshapen or not finite.
    pub fn from_tensors(
        architecture: Architecture,
        tensors: Tensors,
        epsilon: f64,
    ) -> Result<Self, WeightsError> {
        Ok(match architecture {
            Architecture::MobileFaceNet => MobileFaceNet::from_tensors(tensors, epsilon)?.into(),
            Architecture::Reid => Reid::from_tensors(tensors)?.into(),
        })
    }

    /// The same network with other tensors of the same names and shapes.
    pub fn with(&self, tensors: Tensors) -> Self {
        match self {
            Self::MobileFaceNet(MobileFaceNet { epsilon, embedding_size, .. }) => {
                MobileFaceNet { tensors, epsilon: *epsilon, embedding_size: *embedding_size }.into()
            }
            Self::Reid(_) => Reid { tensors }.into(),
        }
    }

    /// Which network it is.
    pub fn architecture(&self) -> Architecture {
        match self {
            Self::MobileFaceNet(_) => Architecture::MobileFaceNet,
            Self::Reid(_) => Architecture::Reid,
        }
    }

    /// The weights by name.
    pub fn tensors(&self) -> &Tensors {
        match self {
            Self::MobileFaceNet(network) => &network.tensors,
            Self::Reid(network) => &network.tensors,
        }
    }

    /// Epsilon of batch normalization, added to the variance; 0 without batch normalization.
    pub fn epsilon(&self) -> f64 {
        match self {
            Self::MobileFaceNet(network) => network.epsilon,
            Self::Reid(_) => 0.0,
        }
    }

    /// Length of an embedding.
    pub fn embedding_size(&self) -> usize {
        match self {
            Self::MobileFaceNet(network) => network.embedding_size,
            Self::Reid(_) => reid::EMBEDDING_SIZE,
        }
    }

    /// The same network in a form that allows batch normalization by batch statistics;
    /// unchanged if it has no batch normalization.
    pub fn measurable(self) -> Self {
        match self {
            Self::MobileFaceNet(network) => network.measurable().into(),
            reid => reid,
        }
    }

    /// The network at a share of the way to another, weight by weight (Wortsman et al.,
    /// "Robust fine-tuning of zero-shot models", 2022). At 0 it is this one, at 1 the other.
    ///
    /// # Errors
    /// If the other is another network, or its tensors have other shapes.
    pub fn blended(&self, end: &Self, share: f64) -> Result<Self, WeightsError> {
        let tensors = self.tensors().iter();
        let expected: Vec<(String, Vec<usize>)> =
            tensors.map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
        weights::check(self.architecture().name(), end.tensors(), &expected)?;
        let mut tensors = self.tensors().clone();
        for (name, tensor) in &mut tensors {
            let Some(end) = end.tensors().get(name) else { continue };
            for (value, end) in tensor.values.iter_mut().zip(&end.values) {
                *value = ((1.0 - share) * f64::from(*value) + share * f64::from(*end)) as f32;
            }
        }
        Ok(self.with(tensors))
    }

    /// The network as an ONNX file.
    pub fn to_onnx(&self) -> Vec<u8> {
        match self {
            Self::MobileFaceNet(network) => network.to_onnx(),
            Self::Reid(network) => network.to_onnx(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::train::torch_net::tests::{noise, reid_noise};

    #[test]
    fn a_blend_ends_at_both_networks_and_lies_between_them() {
        for [start, end] in
            [[noise(16, 1), noise(16, 2)], [reid_noise(1).into(), reid_noise(2).into()]]
        {
            let at = |share| start.blended(&end, share).expect("a blend");
            assert!(at(0.0) == start && at(1.0) == end);
            let middle = at(0.25);
            for (name, tensor) in middle.tensors() {
                let (from, to) = (start.tensors()[name].values[0], end.tensors()[name].values[0]);
                assert!((tensor.values[0] - (0.75 * from + 0.25 * to)).abs() < 1e-6, "{name}");
            }
        }
        assert!(noise(16, 1).blended(&noise(32, 1), 0.5).is_err());
        assert!(noise(16, 1).blended(&reid_noise(1).into(), 0.5).is_err());
    }
}
