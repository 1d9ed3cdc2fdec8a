//! Motion JPEG: a stream of JPEG pictures, read as files are.

use crate::vision::frame::Frame;
use crate::vision::picture::jpeg::markers::Outline;
use crate::vision::picture::{self, PictureError};
use std::path::Path;
use thiserror::Error;

/// Errors of decoding one buffer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MjpegError {
    /// The buffer does not begin with a JPEG marker.
    #[error("not a JPEG")]
    NoJpeg,
    /// The picture has another size than the camera was set to.
    #[error("the JPEG has {}x{} pixels, expected {}x{}", got.0, got.1, expected.0, expected.1)]
    Size {
        /// Columns and rows from the JPEG header.
        got: (usize, usize),
        /// Columns and rows that the camera was set to.
        expected: (usize, usize),
    },
    /// The data ends too early.
    #[error("the JPEG is cut short")]
    Cut,
    /// Part of the picture is missing or damaged.
    #[error("the JPEG is damaged: {0}")]
    Damaged(String),
    /// The camera sends a kind of JPEG that is not read.
    #[error("{0}; set the camera to ordinary Motion JPEG or to YUYV")]
    Kind(String),
}

/// Decodes a JPEG of `expected` (columns, rows) to RGB. A picture whose header has
/// another size is refused before it is decoded, so that a damaged header costs no
/// memory.
pub fn decode(bytes: &[u8], expected: (usize, usize)) -> Result<Frame, MjpegError> {
    let outline = Outline::read(bytes).ok_or(MjpegError::NoJpeg)?;
    match outline.size {
        Some(got) if got == expected => {}
        Some(got) => return Err(MjpegError::Size { got, expected }),
        None => return Err(MjpegError::Cut),
    }
    picture::decode(Path::new(""), bytes).map_err(|error| match error {
        PictureError::Cut { .. } => MjpegError::Cut,
        PictureError::Damaged { reason, .. } => MjpegError::Damaged(reason),
        PictureError::Kind { kind, .. } => MjpegError::Kind(kind),
        _ => MjpegError::NoJpeg,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::picture::jpeg::markers::{HUFFMAN_TABLES, SCAN, marker, segment};
    use image::codecs::jpeg::JpegEncoder;
    use proptest::prelude::*;

    const SIZE: (usize, usize) = (40, 24);

    /// A picture whose blocks have many different coefficients.
    fn picture() -> Vec<u8> {
        let pixel = |at: usize| {
            let (x, y) = (at % SIZE.0, at / SIZE.0);
            [(x * 6) as u8, (y * 10) as u8, ((x * y * 7) % 256) as u8]
        };
        let pixels: Vec<u8> = (0..SIZE.0 * SIZE.1).flat_map(pixel).collect();
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 95)
            .encode(&pixels, SIZE.0 as u32, SIZE.1 as u32, image::ExtendedColorType::Rgb8)
            .expect("a JPEG");
        bytes
    }

    /// The picture without its Huffman tables, as webcams send it.
    fn without_tables(bytes: &[u8]) -> Vec<u8> {
        let (mut left, mut rest) = (vec![0xff, 0xd8], &bytes[2..]);
        while let Some((marker, after)) = marker(rest)
            && let Some((_, after)) = segment(after)
        {
            if marker == SCAN {
                break;
            }
            if marker != HUFFMAN_TABLES {
                left.extend(&rest[..rest.len() - after.len()]);
            }
            rest = after;
        }
        left.extend(rest);
        left
    }

    #[test]
    fn the_tables_left_out_are_those_of_the_standard() {
        let whole = picture();
        let bare = without_tables(&whole);
        assert!(bare.len() + 400 < whole.len(), "the encoder writes the standard's tables");
        let expected = decode(&whole, SIZE).expect("a picture");
        assert_eq!(decode(&bare, SIZE), Ok(expected.clone()));
        // Bytes after the picture are ignored.
        assert_eq!(decode(&[bare, vec![0; 100]].concat(), SIZE), Ok(expected));
    }

    #[test]
    fn faults_are_named() {
        let bare = without_tables(&picture());
        let end = bare.len() - 2;
        for (bytes, expected) in [
            (&b""[..], MjpegError::NoJpeg),
            (b"YUYVYUYV", MjpegError::NoJpeg),
            (&bare[..10], MjpegError::Cut),
            (&bare[..end], MjpegError::Cut),
        ] {
            assert_eq!(decode(bytes, SIZE), Err(expected));
        }
        let error = decode(&bare, (640, 480)).expect_err("another size");
        assert_eq!(error.to_string(), "the JPEG has 40x24 pixels, expected 640x480");
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(
            at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = without_tables(&picture());
            for (at, byte) in at {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let cut = cut.index(bytes.len());
            for bytes in [&bytes[..], &bytes[..cut]] {
                if let Ok(frame) = decode(bytes, SIZE) {
                    prop_assert_eq!((frame.width(), frame.height()), SIZE);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&[&[0xff, 0xd8][..], &bytes].concat(), SIZE);
        }
    }
}
