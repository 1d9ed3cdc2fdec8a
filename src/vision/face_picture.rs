//! The picture of a face that is kept beside its template, so that another recognizer can
//! make a template from it. It is independent of the recognizer: the upright face with a
//! margin, and its landmarks. Any [`Alignment`] can be cut out of it.

use crate::models::Alignment;
use crate::vision::align::{Crop, Similarity, align};
use crate::vision::frame::{Frame, Landmarks};
use image::{ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use std::io::Cursor;

/// The face as it is kept, 192x192 pixels. The eyes are 47 pixels apart, which is finer than
/// the recognizers need, and the margin on each side is a quarter of the picture.
const KEPT: Alignment = Alignment {
    side: 192,
    landmarks: [[72.5, 91.0], [119.5, 91.0], [96.0, 114.0], [76.5, 137.5], [115.5, 137.5]],
};

/// Largest PNG of a kept picture, bytes: more than its pixels take uncompressed.
const LARGEST_PNG: usize = 256 << 10;

/// Memory that decoding a kept picture may take, bytes.
const DECODING: u64 = 4 << 20;

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

    /// A picture with its landmarks. `None` if it is not of a size in which faces are kept,
    /// 192x192 or 112x112 pixels, or if a landmark is not finite.
    pub fn with_landmarks(frame: Frame, landmarks: Landmarks) -> Option<Self> {
        let usable = is_kept_size(frame.width() as u64, frame.height() as u64);
        let finite = landmarks.iter().flatten().all(|v| v.is_finite());
        (usable && finite).then_some(Self { frame, landmarks })
    }

    /// Decodes a picture that was kept as a PNG. Without landmarks it is an aligned face as
    /// earlier versions kept it. A picture of a wrong size is refused by its header, before
    /// its pixels take memory.
    ///
    /// # Errors
    /// A description of what is wrong with the picture.
    pub fn decode(png: &[u8], landmarks: Option<Landmarks>) -> Result<Self, String> {
        let damaged = |error: image::ImageError| format!("a damaged picture ({error})");
        let mut reader = ImageReader::with_format(Cursor::new(png), ImageFormat::Png);
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODING);
        reader.limits(limits);
        let decoder = reader.into_decoder().map_err(damaged)?;
        let (width, height) = decoder.dimensions();
        let size = || format!("a picture of {width}x{height} pixels");
        if !is_kept_size(u64::from(width), u64::from(height)) {
            return Err(size());
        }
        if png.len() > LARGEST_PNG {
            return Err(format!("a picture of {} kB", png.len() >> 10));
        }
        let picture = image::DynamicImage::from_decoder(decoder).map_err(damaged)?;
        let pixels: RgbImage = picture.into_rgb8();
        let frame = Frame::new(width as usize, height as usize, pixels.into_raw())
            .map_err(|error| error.to_string())?;
        match landmarks {
            Some(landmarks) => Self::with_landmarks(frame, landmarks)
                .ok_or_else(|| "a picture whose landmarks are no numbers".to_owned()),
            None => Self::from_arcface_crop(frame).ok_or_else(size),
        }
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

/// Whether faces are kept in this size, or were by earlier versions.
fn is_kept_size(width: u64, height: u64) -> bool {
    let sides = [KEPT.side as u64, Alignment::ARCFACE.side as u64];
    width == height && sides.contains(&width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::picture::encode_png;

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
        assert!(FacePicture::with_landmarks(frame(192), landmarks).is_some());
        assert!(FacePicture::with_landmarks(frame(112), landmarks).is_some());
        assert!(FacePicture::with_landmarks(frame(160), landmarks).is_none());
        assert!(FacePicture::with_landmarks(Frame::filled(192, 112, [9; 3]), landmarks).is_none());
        let nowhere = landmarks.map(|[x, _]| [x, f32::NAN]);
        assert!(FacePicture::with_landmarks(frame(192), nowhere).is_none());
        assert!(FacePicture::from_arcface_crop(frame(112)).is_some());
        assert!(FacePicture::from_arcface_crop(frame(113)).is_none());
    }

    #[test]
    fn a_kept_picture_is_decoded_and_a_wrong_one_refused_by_its_header() {
        let png = |frame: &Frame| encode_png(frame).expect("a PNG");
        let kept = FacePicture::cut(&waves(), &KEPT.landmarks);
        let back = FacePicture::decode(&png(kept.frame()), Some(*kept.landmarks()));
        assert_eq!(back.as_ref(), Ok(&kept));
        let small = png(&Frame::filled(112, 112, [90; 3]));
        assert!(FacePicture::decode(&small, None).is_ok());
        // The header promises another size than the pixels have.
        for (width, height) in [(10_000u32, 10_000u32), (192, 193), (1, 1), (113, 113)] {
            let mut bytes = png(kept.frame());
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let sum = crc32fast::hash(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&sum.to_be_bytes());
            let fault = FacePicture::decode(&bytes, None).expect_err("a wrong size");
            assert_eq!(fault, format!("a picture of {width}x{height} pixels"));
        }
        let kept = png(kept.frame());
        let half = FacePicture::decode(&kept[..kept.len() / 2], Some(KEPT.landmarks));
        assert!(half.expect_err("half").contains("damaged"));
        assert!(FacePicture::decode(&kept, None).expect_err("no crop").contains("192x192"));
        let mut long = kept;
        long.resize(300 << 10, 0);
        assert!(FacePicture::decode(&long, None).expect_err("long").contains("300 kB"));
        assert!(FacePicture::decode(b"", None).is_err());
    }
}
