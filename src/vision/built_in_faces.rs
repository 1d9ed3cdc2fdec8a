//! Whether a recognizer recognizes at all: the embeddings of two built-in faces. Damaged or
//! foreign weights can give embeddings that are not numbers, zero, or the same for
//! everybody; then nobody would be recognized, or everybody.

use crate::models::RecognizerModel;
use crate::nn::NetworkError;
use crate::vision::embed::Embedder;
use crate::vision::frame::{Frame, Landmarks};
use crate::vision::picture::{self, PictureError};
use std::path::Path;
use thiserror::Error;

/// Pictures of two people with their landmarks, cut from the portraits by
/// [`crate::vision::face_picture::FacePicture::cut`].
const FACES: [(&[u8], Landmarks); 2] = [
    (
        include_bytes!("../../assets/astronaut_face.jpg"),
        [[72.6, 92.1], [119.0, 92.1], [96.9, 120.2], [72.3, 133.4], [119.2, 133.2]],
    ),
    (
        include_bytes!("../../assets/grace_hopper_face.jpg"),
        [[72.6, 90.5], [119.3, 90.5], [96.6, 116.6], [76.0, 136.9], [115.6, 136.5]],
    ),
];

/// Similarity of two people from which a recognizer counts as giving the same embedding for
/// everybody. Trained recognizers give about 0, networks with random weights up to 0.99.
pub const SAME_FOR_ALL: f32 = 0.999;

/// Why a recognizer cannot be used.
#[derive(Debug, Error)]
pub enum UselessError {
    /// A built-in face cannot be read.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The network fails.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An embedding has no direction.
    #[error(
        "{network}: its embeddings of faces are zero or no numbers, so it recognizes nobody; import good weights"
    )]
    NoDirection {
        /// The network.
        network: String,
    },
    /// Two people have nearly the same embedding.
    #[error(
        "{network}: it does not tell two people apart (similarity {similarity:.3}, and {limit:.3} is one person), so it would recognize anybody; import good weights with their thresholds"
    )]
    Alike {
        /// The network.
        network: String,
        /// Similarity of the two people.
        similarity: f32,
        /// Similarity from which they count as one.
        limit: f32,
    },
}

/// The first of the two pictures, 192x192 pixels.
///
/// # Errors
/// None in a correct build.
pub fn picture() -> Result<Frame, PictureError> {
    picture::decode(Path::new("built-in face"), FACES[0].0)
}

/// Both pictures, 192x192 pixels, with their landmarks.
///
/// # Errors
/// None in a correct build.
pub fn all() -> Result<[(Frame, Landmarks); 2], PictureError> {
    let read = |(bytes, landmarks): (&[u8], Landmarks)| {
        Ok((picture::decode(Path::new("built-in face"), bytes)?, landmarks))
    };
    let [one, other] = FACES;
    Ok([read(one)?, read(other)?])
}

/// Embeds two faces and compares them. `limit` is the similarity from which they count as
/// one person.
///
/// # Errors
/// If an embedding has no direction, or the similarity reaches the limit.
pub fn check(
    embedder: &mut Embedder,
    model: &RecognizerModel,
    limit: f32,
) -> Result<(), UselessError> {
    let network = || model.file.name.clone();
    let mut embed = |(bytes, landmarks): (&[u8], Landmarks)| {
        let frame = picture::decode(Path::new("built-in face"), bytes)?;
        let face = embedder.embed_face(&frame, &landmarks)?;
        match face.values().iter().all(|value| *value == 0.0) {
            true => Err(UselessError::NoDirection { network: network() }),
            false => Ok(face),
        }
    };
    let [one, other] = FACES;
    let similarity = embed(one)?.similarity(&embed(other)?);
    let limit = limit.min(SAME_FOR_ALL);
    if similarity >= limit {
        return Err(UselessError::Alike { network: network(), similarity, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Models;
    use crate::vision::face_picture::FacePicture;

    #[test]
    fn the_built_in_recognizer_tells_people_apart() {
        let models = Models::built_in().expect("models");
        let model = models.recognizer().expect("a recognizer");
        let mut embedder = Embedder::new(model).expect("loads");
        check(&mut embedder, model, SAME_FOR_ALL).expect("apart");
        let error = check(&mut embedder, model, -1.0).expect_err("everybody is one person");
        assert!(matches!(error, UselessError::Alike { similarity, .. } if similarity < 0.3));
        // The landmarks belong to the pictures.
        for (bytes, landmarks) in FACES {
            let frame = picture::decode(Path::new("face"), bytes).expect("a face");
            let cut = FacePicture::cut(&frame, &landmarks);
            for (got, expected) in cut.landmarks().iter().zip(landmarks) {
                assert!((got[0] - expected[0]).hypot(got[1] - expected[1]) < 1.0);
            }
        }
    }
}
