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
    /// The most likely cover.
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

/// A multinomial logistic regression: for each cover the log odds against a whole face.
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

/// Log odds of one cover, and the bounds that refuse it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Log odds at or above which a face is not enrolled.
    pub enrolled_below: f32,
    /// Log odds at or above which a face is not compared; larger.
    pub compared_below: f32,
    /// The constant.
    pub bias: f32,
    /// A weight per feature.
    pub weights: Vec<f32>,
}

impl Linear {
    fn odds(&self, features: &[f32]) -> f32 {
        let products = self.weights.iter().zip(features).map(|(weight, value)| weight * value);
        self.bias + products.sum::<f32>()
    }

    fn degree(&self, odds: f32) -> f32 {
        (odds - self.enrolled_below) / (self.compared_below - self.enrolled_below)
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
        for (name, linear) in
            [("mask", &read.mask), ("sunglasses", &read.sunglasses), ("other", &read.other)]
        {
            let Linear { enrolled_below, compared_below, bias, weights } = linear;
            if weights.len() != needed {
                return Err(format!("{name}: {} weights, expected {needed}", weights.len()));
            }
            let numbers = weights.iter().chain([bias, enrolled_below, compared_below]);
            if !numbers.copied().all(f32::is_finite) {
                return Err(format!("{name}: a number is not finite"));
            }
            if compared_below <= enrolled_below {
                return Err(format!("{name}: compared_below must be above enrolled_below"));
            }
        }
        Ok(read)
    }

    /// Judges the [`Self::FEATURES`] features of a face. Each cover has its bounds; the
    /// degree is the highest of all covers.
    pub fn judge(&self, features: &[f32]) -> Covered {
        let covers = [
            (Cover::Mask, &self.mask),
            (Cover::Sunglasses, &self.sunglasses),
            (Cover::Other, &self.other),
        ];
        let judged = covers.map(|(by, linear)| {
            let odds = linear.odds(features);
            (odds, Covered { by, degree: linear.degree(odds) })
        });
        let (_, Covered { by, .. }) =
            judged.into_iter().fold(judged[0], |a, b| if b.0 > a.0 { b } else { a });
        Covered {
            by,
            degree: judged.map(|(_, covered)| covered.degree).into_iter().fold(f32::MIN, f32::max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classifier() -> CoverClassifier {
        let linear = |enrolled_below| Linear {
            enrolled_below,
            compared_below: enrolled_below + 2.0,
            bias: -4.0,
            weights: vec![0.0; CoverClassifier::FEATURES],
        };
        let mut made =
            CoverClassifier { mask: linear(1.0), sunglasses: linear(2.0), other: linear(0.0) };
        made.mask.weights[4] = 2.0;
        made.sunglasses.weights[5] = 2.0;
        made
    }

    #[test]
    fn the_likeliest_cover_and_the_highest_degree_count() {
        let mut features = vec![0.0; CoverClassifier::FEATURES];
        assert_eq!(classifier().judge(&features), Covered { by: Cover::Mask, degree: -2.0 });
        features[5] = 5.0;
        let found = classifier().judge(&features);
        assert_eq!(found, Covered { by: Cover::Sunglasses, degree: 2.0 });
        // The odds of a mask are lower than those of sunglasses, but above their own bound.
        features[4] = 4.9;
        let found = classifier().judge(&features);
        assert_eq!(found.by, Cover::Sunglasses);
        assert!((found.degree - 2.4).abs() < 1e-5, "{found:?}");
    }

    #[test]
    fn a_file_is_read_and_faults_are_named() {
        let text = serde_json::to_string(&classifier()).expect("JSON");
        assert_eq!(CoverClassifier::parse(text.as_bytes()), Ok(classifier()));
        let mut short = classifier();
        short.other.weights.pop();
        let text = serde_json::to_string(&short).expect("JSON");
        let error = CoverClassifier::parse(text.as_bytes()).expect_err("too short");
        assert_eq!(error, "other: 1007 weights, expected 1008");
        let mut upside_down = classifier();
        upside_down.mask.compared_below = 0.5;
        let text = serde_json::to_string(&upside_down).expect("JSON");
        let error = CoverClassifier::parse(text.as_bytes()).expect_err("bounds");
        assert_eq!(error, "mask: compared_below must be above enrolled_below");
        assert!(CoverClassifier::parse(b"{}").is_err());
    }
}
