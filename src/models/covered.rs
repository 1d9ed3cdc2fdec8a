//! What covers a face: a linear classifier on its aligned picture, learned from photos with
//! painted masks, sunglasses and other covers. `vision::cover` computes the features.

use serde::{Deserialize, Serialize};

/// What covers a face.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cover {
    /// A mask over mouth and nose.
    Mask,
    /// Dark glasses.
    Sunglasses,
    /// Something else, such as a hand, or a bar across the picture.
    Other,
}

/// How much a face looks like a covered one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Covered {
    /// The cover that it most looks like it has.
    pub by: Cover,
    /// 0 where enrolment begins to refuse faces and 1 where the door does; most whole faces
    /// are below -1.
    pub degree: f32,
}

/// `[covered]` of the manifest: the file of a [`CoverClassifier`], and what it was learned
/// from. It belongs to the detector, whose landmarks place the face, and holds for any
/// recognizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoveredEntry {
    /// File name within the model folder.
    pub file: String,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
    /// The lists of people from whose photos it was learned.
    pub data: String,
    /// Number of these people.
    pub people: usize,
    /// Share of their whole faces that it would refuse to enroll, each judged by a
    /// classifier that was learned from other people.
    pub whole_refused: f64,
    /// Share of their covered faces that it would refuse to enroll, by the cover, in the
    /// same way.
    pub refused: std::collections::BTreeMap<String, f64>,
}

/// A linear classifier per cover. A degree (see [`Covered::degree`]) is the sum of the bias
/// and of the products of weights and features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoverClassifier {
    /// For masks.
    pub mask: Linear,
    /// For sunglasses.
    pub sunglasses: Linear,
    /// For other covers.
    pub other: Linear,
}

/// A linear function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// The constant.
    pub bias: f32,
    /// A weight per feature.
    pub weights: Vec<f32>,
}

impl Linear {
    fn of(&self, features: &[f32]) -> f32 {
        let products = self.weights.iter().zip(features).map(|(weight, value)| weight * value);
        self.bias + products.sum::<f32>()
    }
}

impl CoverClassifier {
    /// Number of features: those of `vision::cover`.
    pub const FEATURES: usize = 12 * 12 * 7;

    /// Parses a file.
    ///
    /// # Errors
    /// If it is not the JSON of a classifier, or a number is missing or not finite.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let needed = Self::FEATURES;
        for (name, Linear { bias, weights }) in
            [("mask", &read.mask), ("sunglasses", &read.sunglasses), ("other", &read.other)]
        {
            if weights.len() != needed {
                return Err(format!("{name}: {} weights, expected {needed}", weights.len()));
            }
            if !weights.iter().chain([bias]).all(|value| value.is_finite()) {
                return Err(format!("{name}: a number is not finite"));
            }
        }
        Ok(read)
    }

    /// Judges the [`Self::FEATURES`] features of a face.
    pub fn judge(&self, features: &[f32]) -> Covered {
        let degrees = [
            (Cover::Mask, &self.mask),
            (Cover::Sunglasses, &self.sunglasses),
            (Cover::Other, &self.other),
        ]
        .map(|(by, linear)| Covered { by, degree: linear.of(features) });
        degrees.into_iter().fold(degrees[0], |a, b| if b.degree > a.degree { b } else { a })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classifier(weight: f32) -> CoverClassifier {
        let linear = |bias| Linear { bias, weights: vec![0.0; CoverClassifier::FEATURES] };
        let mut made =
            CoverClassifier { mask: linear(-1.0), sunglasses: linear(-2.0), other: linear(-3.0) };
        made.sunglasses.weights[5] = weight;
        made
    }

    #[test]
    fn the_cover_of_the_highest_degree_counts() {
        let mut features = vec![0.0; CoverClassifier::FEATURES];
        let found = |features: &[f32]| classifier(4.0).judge(features);
        assert_eq!(found(&features), Covered { by: Cover::Mask, degree: -1.0 });
        features[5] = 1.0;
        assert_eq!(found(&features), Covered { by: Cover::Sunglasses, degree: 2.0 });
    }

    #[test]
    fn a_file_is_read_and_faults_are_named() {
        let text = serde_json::to_string(&classifier(4.0)).expect("JSON");
        assert_eq!(CoverClassifier::parse(text.as_bytes()), Ok(classifier(4.0)));
        let mut short = classifier(4.0);
        short.other.weights.pop();
        let text = serde_json::to_string(&short).expect("JSON");
        let error = CoverClassifier::parse(text.as_bytes()).expect_err("too short");
        assert_eq!(error, "other: 1007 weights, expected 1008");
        assert!(CoverClassifier::parse(b"{}").is_err());
    }
}
