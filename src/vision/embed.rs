//! Embedding: converts an aligned face to a unit vector. The angle between two vectors
//! tells whether they show one person. The network is MobileFaceNet (Chen et al. 2018),
//! trained with the ArcFace loss (Deng et al. 2019).

use crate::models::{Alignment, Channels, ModelId, RecognizerModel};
use crate::nn::{Batch, Dim, Network, NetworkError, Signature};
use crate::vision::align::{Crop, align};
use crate::vision::frame::{Frame, Landmarks};
use thiserror::Error;

/// A face as a unit vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Box<[f32]>);

impl Embedding {
    /// Scales `values` to length one. A vector without a direction (all zero, or not
    /// finite) becomes zero, and its similarity to everything is 0.
    pub fn normalized(values: &[f32]) -> Self {
        let length = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let factor = if length.is_finite() && length > 0.0 { 1.0 / length } else { 0.0 };
        let scaled =
            values.iter().map(|v| if factor > 0.0 { (f64::from(*v) * factor) as f32 } else { 0.0 });
        Self(scaled.collect())
    }

    /// The components, `embedding_size` of them.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// Cosine similarity to `other`, -1..=1; 0 for vectors of different sizes.
    pub fn similarity(&self, other: &Embedding) -> f32 {
        if self.0.len() != other.0.len() {
            return 0.0;
        }
        dot(&self.0, &other.0).clamp(-1.0, 1.0)
    }
}

/// An embedding and the model that made it, for people enrolled as well as for probes at
/// the door. Embeddings of two models cannot be compared. So the embedding is only
/// accessible by naming its model, and a gallery takes only templates.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    model: ModelId,
    embedding: Embedding,
}

/// Error: a template was made by another model than the one asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a template of {made_by} cannot be compared by {asked}; re-embed it from its picture")]
pub struct OtherModel {
    /// The model that made it.
    pub made_by: ModelId,
    /// The model asked for.
    pub asked: ModelId,
}

impl Template {
    /// A template from an embedding and the model that made it.
    pub fn new(model: ModelId, embedding: Embedding) -> Self {
        Self { model, embedding }
    }

    /// The model that made it.
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// The embedding, for comparison by `model`.
    ///
    /// # Errors
    /// If another model made it.
    pub fn of(&self, model: &ModelId) -> Result<&Embedding, OtherModel> {
        if self.model == *model {
            Ok(&self.embedding)
        } else {
            Err(OtherModel { made_by: self.model.clone(), asked: model.clone() })
        }
    }

    /// Cosine similarity to a template of the same model, -1..=1.
    ///
    /// # Errors
    /// If the templates are of different models.
    pub fn similarity(&self, other: &Self) -> Result<f32, OtherModel> {
        Ok(self.embedding.similarity(other.of(&self.model)?))
    }
}

/// Inner product. Sixteen running sums let the compiler use vector instructions and hide
/// their latency.
#[inline]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0.0f32; 16];
    for (x, y) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    // Add pairwise: a sequential sum would wait for sixteen additions.
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0] + rest
}

/// The embedding network and its input buffer.
#[derive(Debug)]
pub struct Embedder {
    network: Network,
    alignment: Alignment,
    channels: Channels,
    pictures: Batch,
}

impl Embedder {
    /// Loads the network.
    ///
    /// # Errors
    /// If the model is invalid, or has another shape or precision than required.
    pub fn new(model: &RecognizerModel) -> Result<Self, NetworkError> {
        let side = Dim::Fixed(model.alignment.side);
        let input = [Dim::Fixed(1), Dim::Fixed(3), side, side];
        let signature = Signature { input, outputs: vec![model.embedding_size] };
        let (file, normalization) = (&model.file, &model.normalization);
        let network =
            Network::load(&file.name, &file.bytes, &signature, normalization, model.precision)?;
        let RecognizerModel { alignment, channels, .. } = *model;
        Ok(Self { network, alignment, channels, pictures: Batch::default() })
    }

    /// Name of the kernel that computes the network.
    pub fn kernel(&self) -> &'static str {
        self.network.kernel()
    }

    /// The alignment that the network expects.
    pub fn alignment(&self) -> &Alignment {
        &self.alignment
    }

    /// The embedding of a face with landmarks in pixels of its frame.
    ///
    /// # Errors
    /// If the network fails.
    pub fn embed_face(
        &mut self,
        frame: &Frame,
        landmarks: &Landmarks,
    ) -> Result<Embedding, NetworkError> {
        let crop = align(frame, landmarks, &self.alignment);
        self.embed(&crop)
    }

    /// The embedding of a face aligned as [`Self::alignment`] says.
    ///
    /// # Errors
    /// If the network fails, also because the crop has another side.
    pub fn embed(&mut self, crop: &Crop) -> Result<Embedding, NetworkError> {
        self.pictures.clear();
        let side = crop.side();
        let pixels = self.pictures.add(side, side).as_chunks_mut::<{ Batch::PIXEL }>().0;
        let from_rgb = self.channels.from_rgb();
        for (to, from) in pixels.iter_mut().zip(crop.frame().pixels().as_chunks::<3>().0) {
            for (to, channel) in to.iter_mut().zip(from_rgb) {
                *to = i16::from(from[channel]) * Batch::STEPS;
            }
        }
        let outputs = self.network.run(&self.pictures)?;
        let values = outputs.first().and_then(|output| output.places().next());
        Ok(Embedding::normalized(values.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_embedding_has_length_one(values in prop::collection::vec(-1e3f32..1e3, 1..600)) {
            prop_assume!(values.iter().any(|v| v.abs() > 1e-3));
            let embedding = Embedding::normalized(&values);
            prop_assert!((embedding.similarity(&embedding) - 1.0).abs() < 1e-4);
        }

        #[test]
        fn the_inner_product_is_that_of_the_definition(pairs in prop::collection::vec((-1f32..1.0, -1f32..1.0), 0..70)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
            let expected: f64 = pairs.iter().map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            prop_assert!((f64::from(dot(&a, &b)) - expected).abs() < 1e-4);
        }
    }

    #[test]
    fn templates_of_two_models_do_not_compare() {
        let embedding = Embedding::normalized(&[1.0, 0.0]);
        let [old, new] = ["1+aa", "2+bb"].map(ModelId::new);
        let [a, b] = [&old, &new].map(|model| Template::new(model.clone(), embedding.clone()));
        assert_eq!(a.similarity(&a), Ok(1.0));
        assert_eq!(a.of(&old), Ok(&embedding));
        let refused = OtherModel { made_by: new.clone(), asked: old.clone() };
        assert_eq!(a.similarity(&b), Err(refused.clone()));
        assert_eq!(b.of(&old), Err(refused));
    }

    #[test]
    fn a_vector_without_direction_is_like_nobody() {
        let someone = Embedding::normalized(&[1.0, 0.0]);
        for broken in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            let nobody = Embedding::normalized(&broken);
            assert_eq!(nobody.similarity(&someone), 0.0);
            assert_eq!(nobody.similarity(&nobody), 0.0);
        }
        assert_eq!(someone.similarity(&Embedding::normalized(&[1.0, 0.0, 0.0])), 0.0);
    }
}
