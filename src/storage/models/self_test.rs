//! Self-test vectors: pictures of faces, and what a set of models made of them where
//! it was made. A board looks at them before it uses the set, and so knows that its
//! own arithmetic gives the same.

use crate::models::{FileEntry, Manifest, Models, ModelsError, is_plain_name, sha256_hex};
use crate::nn::NetworkError;
use crate::vision::align::align;
use crate::vision::detect::nearest_center;
use crate::vision::embed::{Embedding, OtherModel};
use crate::vision::frame::{Frame, Landmarks, Rect};
use crate::vision::picture::{self, PictureError};
use crate::vision::recognizer::Recognizer;
use serde::{Deserialize, Serialize};
use std::path::Path;
use thiserror::Error;

/// Name of the file in a folder of models.
pub const SELF_TEST: &str = "selftest.json";
/// What the file's form is counted by.
const FORMAT: u32 = 1;
/// More would make installing slow and prove nothing more.
const MOST_VECTORS: usize = 16;

/// Why a self-test failed.
#[derive(Debug, Error)]
pub enum SelfTestError {
    /// A file is missing, or not the one that is named.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// A picture is none.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The file makes no sense.
    #[error("{path}: {reason}; write it again with facelatch-tools export")]
    Format {
        /// Which file.
        path: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A recognizer of another set.
    #[error(transparent)]
    Other(#[from] OtherModel),
    /// The set gives something else here.
    #[error(
        "{picture}: {what}; these models do not do here what they did where they were made, so they are not used"
    )]
    Differs {
        /// Which picture.
        picture: String,
        /// What differs, and how much.
        what: String,
    },
}

/// `selftest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    format: u32,
    vectors: Vec<Vector>,
}

/// One picture and what is seen in it: of the face nearest the centre.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    /// Beside the file.
    picture: FileEntry,
    /// Left, top, right, bottom, pixels.
    #[serde(rename = "box")]
    rect: [f32; 4],
    /// Pixels.
    landmarks: Landmarks,
    /// Of length one, of the crop at these landmarks: it owes nothing to the detector.
    embedding: Vec<f32>,
    tolerance: Tolerance,
}

/// How far a board may be off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tolerance {
    /// Least overlap of the boxes, as intersection over union.
    iou: f32,
    /// Largest mean distance of the landmarks, pixels.
    landmarks: f32,
    /// Least cosine of the embeddings.
    cosine: f32,
}

/// Networks of whole numbers are the same to the bit on all kernels; floating point
/// through another order of sums is off by 1e-5 of a cosine. What is left over is for
/// windows that a rounding tips over a threshold: it moves a mean of several windows
/// by a fraction of a pixel.
const TOLERANCE: Tolerance = Tolerance { iou: 0.95, landmarks: 0.5, cosine: 0.999 };

/// How near the set came to what it should give.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Pictures looked at.
    pub vectors: usize,
    /// The least cosine of an embedding to the one it should be.
    pub cosine: f32,
    /// The largest mean distance of five landmarks to where they should be, pixels.
    pub landmarks: f32,
}

/// Gives a file of the set by its name.
pub type Files<'f> = dyn Fn(&str) -> std::io::Result<Vec<u8>> + 'f;

impl SelfTest {
    /// What a set makes of pictures: names and bytes of JPEG or PNG files.
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

    /// The self-test that a manifest names, if it names one.
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
            // Wider ones would let anything pass.
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

    /// Names of the pictures.
    pub fn pictures(&self) -> impl Iterator<Item = &str> {
        self.vectors.iter().map(|vector| vector.picture.file.as_str())
    }

    /// Looks at every picture with the networks of the set.
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
                    "the face is found {apart:.2} pixels away, its box with an overlap of {iou:.2}; expected at most {} and at least {}",
                    tolerance.landmarks, tolerance.iou
                ));
            }
            if cosine < tolerance.cosine || cosine.is_nan() {
                return differs(format!(
                    "the embedding's cosine to the one it should be is {cosine:.4}, expected at least {}",
                    tolerance.cosine
                ));
            }
            report.cosine = report.cosine.min(cosine);
            report.landmarks = report.landmarks.max(apart);
        }
        Ok(report)
    }

    /// As a file's bytes.
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
        }
    })
}

fn find(
    recognizer: &mut Recognizer,
    name: &str,
    frame: &Frame,
) -> Result<(Rect, Landmarks), SelfTestError> {
    let views = recognizer.look(frame, |_| true)?;
    let faces: Vec<_> = views.iter().map(|view| view.face).collect();
    match nearest_center(&faces, frame) {
        Some(face) => Ok((face.rect, face.landmarks)),
        None => Err(SelfTestError::Differs {
            picture: name.to_owned(),
            what: "no face is found in it".to_owned(),
        }),
    }
}

fn embed(
    recognizer: &mut Recognizer,
    frame: &Frame,
    landmarks: &Landmarks,
) -> Result<Embedding, SelfTestError> {
    let template = recognizer.embed(&align(frame, landmarks))?;
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
    fn what_comes_out_differently_is_named() {
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
    fn a_test_that_lets_everything_pass_is_none() {
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
