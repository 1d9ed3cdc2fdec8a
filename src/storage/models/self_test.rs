//! Self-test of a model set: pictures of faces with the results recorded where the set was
//! made. A board runs the self-test before it uses the set, to verify that its arithmetic
//! gives the same results.

use crate::models::{FileEntry, Manifest, Models, ModelsError, is_plain_name, sha256_hex};
use crate::nn::NetworkError;
use crate::vision::built_in_faces::UselessError;
use crate::vision::detect::nearest_center;
use crate::vision::embed::{Embedding, OtherModel};
use crate::vision::frame::{Frame, Landmarks, Rect};
use crate::vision::picture::{self, PictureError};
use crate::vision::recognizer::Recognizer;
use serde::{Deserialize, Serialize};
use std::path::Path;
use thiserror::Error;

/// File name of the self-test in a model folder.
pub const SELF_TEST: &str = "selftest.json";
/// Version of the file format.
const FORMAT: u32 = 1;
/// Most pictures in a self-test. More would make the installation slow without proving
/// more.
const MOST_VECTORS: usize = 16;

/// Why a self-test failed.
#[derive(Debug, Error)]
pub enum SelfTestError {
    /// A file is missing, or its digest differs.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// A picture cannot be read.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The recognizer recognizes nobody, or anybody.
    #[error(transparent)]
    Useless(#[from] UselessError),
    /// The file is invalid.
    #[error("{path}: {reason}; create it again with facelatch-tools export")]
    Format {
        /// The file.
        path: String,
        /// What is wrong, with the key.
        reason: String,
    },
    /// The recognizer belongs to another set.
    #[error(transparent)]
    Other(#[from] OtherModel),
    /// The results on this machine differ from those recorded.
    #[error(
        "{picture}: {what}; the models give other results here than where they were made, so they are not used"
    )]
    Differs {
        /// The picture.
        picture: String,
        /// The result that differs, with the limit.
        what: String,
    },
}

/// The content of `selftest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    format: u32,
    vectors: Vec<Vector>,
}

/// A picture and the expected results for the face nearest its centre.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    /// Picture in the same folder.
    picture: FileEntry,
    /// Bounding box: left, top, right, bottom, pixels.
    #[serde(rename = "box")]
    rect: [f32; 4],
    /// Landmarks, pixels.
    landmarks: Landmarks,
    /// Unit vector of the crop aligned at these landmarks, so independent of the detector.
    embedding: Vec<f32>,
    tolerance: Tolerance,
}

/// Largest differences allowed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tolerance {
    /// Least intersection over union of the bounding boxes.
    iou: f32,
    /// Largest mean distance of the landmarks, pixels.
    landmarks: f32,
    /// Least cosine similarity of the embeddings.
    cosine: f32,
}

/// Tolerances of a new self-test. Quantized networks are bit-exact on all kernels. Floating
/// point with another order of summation changes a cosine by 1e-5. The remaining tolerance
/// is for windows that rounding moves across a threshold, which shifts the mean of several
/// windows by a fraction of a pixel.
const TOLERANCE: Tolerance = Tolerance { iou: 0.95, landmarks: 0.5, cosine: 0.999 };

/// Result of a passed self-test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Number of pictures.
    pub vectors: usize,
    /// Least cosine similarity of an embedding to the expected one.
    pub cosine: f32,
    /// Largest mean distance of the five landmarks from the expected ones, pixels.
    pub landmarks: f32,
}

/// Reads a file of the set by its name.
pub type Files<'f> = dyn Fn(&str) -> std::io::Result<Vec<u8>> + 'f;

impl SelfTest {
    /// Creates a self-test from the results of a set on pictures, given as names and bytes
    /// of JPEG or PNG files.
    ///
    /// # Errors
    /// If a picture cannot be read or shows no face, or a network fails.
    pub fn measure(models: &Models, pictures: &[(&str, &[u8])]) -> Result<Self, SelfTestError> {
        let mut recognizer = recognizer(models)?;
        let vectors = pictures.iter().map(|(name, bytes)| -> Result<Vector, SelfTestError> {
            let frame = picture::decode(Path::new(name), bytes)?;
            let (rect, landmarks) = find(&mut recognizer, name, &frame)?;
            let embedding = embed(&mut recognizer, &frame, &landmarks)?;
            let Rect { x1, y1, x2, y2 } = rect;
            Ok(Vector {
                picture: FileEntry { file: (*name).to_owned(), sha256: sha256_hex(bytes) },
                rect: [x1, y1, x2, y2],
                landmarks,
                embedding: embedding.values().to_vec(),
                tolerance: TOLERANCE,
            })
        });
        Ok(Self { format: FORMAT, vectors: vectors.collect::<Result<_, _>>()? })
    }

    /// Reads the self-test that a manifest names, if it names one. `folder` only appears in
    /// error messages.
    ///
    /// # Errors
    /// If the file cannot be read, its digest differs, or it is invalid.
    pub fn read(
        folder: &Path,
        manifest: &Manifest,
        files: &Files,
    ) -> Result<Option<Self>, SelfTestError> {
        let Some(entry) = &manifest.selftest else { return Ok(None) };
        let bytes = verified(folder, entry, files)?;
        let path = folder.join(&entry.file).display().to_string();
        let broken = |reason: String| SelfTestError::Format { path: path.clone(), reason };
        let read: Self =
            serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        read.check().map_err(broken)?;
        Ok(Some(read))
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {}, expected {FORMAT}", self.format));
        }
        if !(1..=MOST_VECTORS).contains(&self.vectors.len()) {
            return Err(format!("{} pictures, expected 1 to {MOST_VECTORS}", self.vectors.len()));
        }
        for vector in &self.vectors {
            let Tolerance { iou, landmarks, cosine } = vector.tolerance;
            let file = &vector.picture.file;
            if !is_plain_name(file) {
                return Err(format!("{file:?}: expected the name of a file in the same folder"));
            }
            // Wider tolerances would let anything pass.
            if !((0.5..=1.0).contains(&iou)
                && (0.0..=5.0).contains(&landmarks)
                && (0.9..=1.0).contains(&cosine))
            {
                return Err(format!(
                    "tolerances of {file}: expected iou 0.5 to 1, landmarks 0 to 5, cosine 0.9 to 1"
                ));
            }
        }
        Ok(())
    }

    /// File names of the pictures.
    pub fn pictures(&self) -> impl Iterator<Item = &str> {
        self.vectors.iter().map(|vector| vector.picture.file.as_str())
    }

    /// Checks every picture against its digest.
    ///
    /// # Errors
    /// If a picture cannot be read, or its digest differs.
    pub fn check_pictures(&self, folder: &Path, files: &Files) -> Result<(), ModelsError> {
        let mut pictures = self.vectors.iter().map(|vector| &vector.picture);
        pictures.try_for_each(|picture| verified(folder, picture, files).map(|_| ()))
    }

    /// Runs the networks of the set on every picture. `folder` only appears in error
    /// messages.
    ///
    /// # Errors
    /// If a picture cannot be read, a network fails, or a result differs by more than its
    /// tolerance.
    pub fn run(
        &self,
        recognizer: &mut Recognizer,
        folder: &Path,
        files: &Files,
    ) -> Result<Report, SelfTestError> {
        let mut report = Report { vectors: self.vectors.len(), cosine: 1.0, landmarks: 0.0 };
        for vector in &self.vectors {
            let shown = folder.join(&vector.picture.file);
            let frame = picture::decode(&shown, &verified(folder, &vector.picture, files)?)?;
            let name = shown.display().to_string();
            let differs =
                |what: String| Err(SelfTestError::Differs { picture: name.clone(), what });
            let (rect, landmarks) = find(recognizer, &name, &frame)?;
            let [x1, y1, x2, y2] = vector.rect;
            let iou = rect.iou(&Rect { x1, y1, x2, y2 });
            let apart = landmarks.iter().zip(&vector.landmarks);
            let apart = apart.map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1])).sum::<f32>() / 5.0;
            let expected = Embedding::normalized(&vector.embedding);
            let cosine = embed(recognizer, &frame, &vector.landmarks)?.similarity(&expected);
            let tolerance = &vector.tolerance;
            if iou < tolerance.iou || apart > tolerance.landmarks || !(iou + apart).is_finite() {
                return differs(format!(
                    "the landmarks are {apart:.2} pixels away and the box overlaps by {iou:.2}; expected at most {} and at least {}",
                    tolerance.landmarks, tolerance.iou
                ));
            }
            if cosine < tolerance.cosine || cosine.is_nan() {
                return differs(format!(
                    "the embedding's cosine to the expected one is {cosine:.4}; expected at least {}",
                    tolerance.cosine
                ));
            }
            report.cosine = report.cosine.min(cosine);
            report.landmarks = report.landmarks.max(apart);
        }
        Ok(report)
    }

    /// The content of the file.
    ///
    /// # Errors
    /// If serialization fails.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

fn verified(folder: &Path, entry: &FileEntry, files: &Files) -> Result<Vec<u8>, ModelsError> {
    let path = folder.join(&entry.file);
    let bytes =
        files(&entry.file).map_err(|reason| ModelsError::Read { path: path.clone(), reason })?;
    let got = sha256_hex(&bytes);
    if got == entry.sha256 {
        Ok(bytes)
    } else {
        Err(ModelsError::Digest { path, got, expected: entry.sha256.clone() })
    }
}

fn recognizer(models: &Models) -> Result<Recognizer, SelfTestError> {
    use crate::vision::recognizer::RecognizerError;
    Recognizer::new(models, crate::vision::detect::DetectorSettings::default()).map_err(|error| {
        match error {
            RecognizerError::Models(error) => error.into(),
            RecognizerError::Network(error) => error.into(),
            RecognizerError::Useless(error) => error.into(),
        }
    })
}

fn find(
    recognizer: &mut Recognizer,
    name: &str,
    frame: &Frame,
) -> Result<(Rect, Landmarks), SelfTestError> {
    let views = recognizer.faces(frame)?;
    let faces: Vec<_> = views.iter().map(|view| view.face).collect();
    match nearest_center(&faces, frame) {
        Some(face) => Ok((face.rect, face.landmarks)),
        None => Err(SelfTestError::Differs {
            picture: name.to_owned(),
            what: "no face was found".to_owned(),
        }),
    }
}

fn embed(
    recognizer: &mut Recognizer,
    frame: &Frame,
    landmarks: &Landmarks,
) -> Result<Embedding, SelfTestError> {
    let template = recognizer.embed(frame, landmarks)?;
    Ok(template.of(recognizer.model())?.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASTRONAUT: &[u8] = include_bytes!("../../../assets/astronaut.jpg");
    const ADMIRAL: &[u8] = include_bytes!("../../../assets/grace_hopper.jpg");

    fn files(name: &str) -> std::io::Result<Vec<u8>> {
        match name {
            "astronaut.jpg" => Ok(ASTRONAUT.to_vec()),
            "admiral.jpg" => Ok(ADMIRAL.to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    fn measured() -> (SelfTest, Recognizer) {
        let models = Models::built_in().expect("the built-in models");
        let test =
            SelfTest::measure(&models, &[("astronaut.jpg", ASTRONAUT)]).expect("a self-test");
        (test, recognizer(&models).expect("a recognizer"))
    }

    #[test]
    fn a_set_passes_its_own_test_and_its_text_comes_back() {
        let (test, mut recognizer) = measured();
        let report = test.run(&mut recognizer, Path::new("x"), &files).expect("passed");
        assert_eq!((report.vectors, report.landmarks), (1, 0.0));
        assert!(report.cosine > 0.9999, "{report:?}");
        let text = test.to_json().expect("JSON");
        assert_eq!(serde_json::from_slice::<SelfTest>(&text).expect("a self-test"), test);
    }

    #[test]
    fn a_different_result_is_named() {
        let (test, mut recognizer) = measured();
        let mut run = |test: &SelfTest| {
            test.run(&mut recognizer, Path::new("x"), &files).expect_err("differs").to_string()
        };
        let mut other = test.clone();
        other.vectors[0].embedding[0] += 0.2;
        let message = run(&other);
        assert!(message.contains("x/astronaut.jpg: the embedding's cosine"), "{message}");
        let mut other = test.clone();
        other.vectors[0].landmarks.iter_mut().for_each(|point| point[0] += 3.0);
        let message = run(&other);
        assert!(message.contains("3.00 pixels away"), "{message}");
        let mut other = test.clone();
        other.vectors[0].picture.file = "admiral.jpg".to_owned();
        assert!(run(&other).contains("sha256"));
        other.vectors[0].picture.file = "none.jpg".to_owned();
        assert!(run(&other).contains("none.jpg"));
    }

    #[test]
    fn a_self_test_that_accepts_everything_is_rejected() {
        let (test, _) = measured();
        let fault = |change: &dyn Fn(&mut SelfTest)| {
            let mut test = test.clone();
            change(&mut test);
            test.check().expect_err("a fault")
        };
        assert!(fault(&|test| test.vectors.clear()).contains("0 pictures"));
        assert!(fault(&|test| test.format = 2).contains("format 2"));
        assert!(fault(&|test| test.vectors[0].tolerance.cosine = -1.0).contains("tolerances"));
        assert!(fault(&|test| test.vectors[0].tolerance.iou = f32::NAN).contains("tolerances"));
        let outside = |test: &mut SelfTest| test.vectors[0].picture.file = "../x.jpg".to_owned();
        assert!(fault(&outside).contains("same folder"));
    }
}
