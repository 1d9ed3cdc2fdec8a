//! The picture of a face that is kept beside its template, so that another recognizer can
//! make a template from it. It is independent of the recognizer: the upright face with a
//! margin, and its landmarks. Any [`Alignment`] can be cut out of it.

use crate::models::Alignment;
use crate::vision::align::{Crop, Similarity, align};
use crate::vision::frame::{Frame, Landmarks};

/// The face as it is kept, 192x192 pixels. The eyes are 47 pixels apart, which is finer than
/// the recognizers need, and the margin on each side is a quarter of the picture.
const KEPT: Alignment = Alignment {
    side: 192,
    landmarks: [[72.5, 91.0], [119.5, 91.0], [96.0, 114.0], [76.5, 137.5], [115.5, 137.5]],
};

/// Sides of pictures that are taken back from a file, pixels.
const SIDES: std::ops::RangeInclusive<usize> = 32..=512;

/// An upright face with a margin, RGB, and its landmarks in pixel-centre coordinates of the
/// picture.
#[derive(Clone, Debug, PartialEq)]
pub struct FacePicture {
    frame: Frame,
    landmarks: Landmarks,
}

impl FacePicture {
    /// Cuts a face with a margin out of a frame. Pixels outside the frame are black.
    pub fn cut(frame: &Frame, landmarks: &Landmarks) -> Self {
        let fit = Similarity::fit(landmarks, &KEPT.landmarks);
        let landmarks_there = landmarks.map(|point| fit.apply(point));
        Self { frame: align(frame, landmarks, &KEPT).frame().clone(), landmarks: landmarks_there }
    }

    /// A picture read from a file. `None` if its sides are outside 32..=512 pixels, or if a
    /// landmark is not finite.
    pub fn from_file(frame: Frame, landmarks: Landmarks) -> Option<Self> {
        let usable = SIDES.contains(&frame.width()) && SIDES.contains(&frame.height());
        let finite = landmarks.iter().flatten().all(|v| v.is_finite());
        (usable && finite).then_some(Self { frame, landmarks })
    }

    /// An aligned face of 112x112 pixels, as earlier versions kept it. Its landmarks are
    /// taken to be the reference landmarks. `None` for a picture of another size.
    pub fn from_arcface_crop(frame: Frame) -> Option<Self> {
        let Alignment { side, landmarks } = Alignment::ARCFACE;
        ((frame.width(), frame.height()) == (side, side)).then_some(Self { frame, landmarks })
    }

    /// The pixels.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The landmarks, pixels of the picture.
    pub fn landmarks(&self) -> &Landmarks {
        &self.landmarks
    }

    /// The face as a recognizer expects it.
    pub fn aligned(&self, alignment: &Alignment) -> Crop {
        align(&self.frame, &self.landmarks, alignment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with slow waves of colour.
    fn waves() -> Frame {
        let mut frame = Frame::filled(320, 300, [0; 3]);
        for (at, byte) in frame.pixels_mut().iter_mut().enumerate() {
            let (x, y) = ((at / 3 % 320) as f32, (at / 3 / 320) as f32);
            *byte = (128.0 + 50.0 * ((x / 17.0 + (at % 3) as f32).sin() + (y / 13.0).cos())) as u8;
        }
        frame
    }

    #[test]
    fn another_alignment_cut_from_the_picture_is_that_of_the_frame() {
        let frame = waves();
        let place = Similarity { a: 1.3, b: 0.3, x0: 70.0, y0: 40.0 };
        let mut landmarks = Alignment::ARCFACE.landmarks.map(|point| place.apply(point));
        // No face has exactly the reference landmarks.
        landmarks[2][0] += 6.0;
        landmarks[4][1] -= 4.0;
        let picture = FacePicture::cut(&frame, &landmarks);
        let tight = Alignment { side: 128, landmarks: KEPT.landmarks.map(|p| p.map(|v| v - 32.0)) };
        for alignment in [Alignment::ARCFACE, tight] {
            let (direct, kept) =
                (align(&frame, &landmarks, &alignment), picture.aligned(&alignment));
            let pixels = direct.frame().pixels().iter().zip(kept.frame().pixels());
            let most = pixels.map(|(a, b)| a.abs_diff(*b)).max();
            assert!(most <= Some(6), "{most:?}");
        }
    }

    #[test]
    fn pictures_of_impossible_size_or_landmarks_are_refused() {
        let landmarks = KEPT.landmarks;
        let frame = |side| Frame::filled(side, side, [90; 3]);
        assert!(FacePicture::from_file(frame(192), landmarks).is_some());
        assert!(FacePicture::from_file(frame(8), landmarks).is_none());
        assert!(FacePicture::from_file(frame(600), landmarks).is_none());
        let nowhere = landmarks.map(|[x, _]| [x, f32::NAN]);
        assert!(FacePicture::from_file(frame(192), nowhere).is_none());
        assert!(FacePicture::from_arcface_crop(frame(112)).is_some());
        assert!(FacePicture::from_arcface_crop(frame(113)).is_none());
    }
}
