//! Motion JPEG: a stream of JPEG pictures. Most cameras leave out the Huffman tables; the
//! standard ones of ITU-T T.81, annex K.3, are inserted then.

use crate::vision::frame::Frame;
use crate::vision::picture::jpeg::markers::{
    HUFFMAN_TABLES, SCAN, after_start, marker, segment, word,
};
use crate::vision::picture::{self, PictureError};
use std::borrow::Cow;
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
    /// The picture cannot be decoded.
    #[error("the JPEG is damaged")]
    Damaged,
}

/// Symbols of DC coefficients: the bit length of a difference.
const DC: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
/// Number of Huffman codes per length, 1 to 16 bits.
const DC_LUMA: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const DC_COLOUR: [u8; 16] = [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
const AC_LUMA: [u8; 16] = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125];
const AC_COLOUR: [u8; 16] = [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119];
/// Symbols of AC coefficients: run of zeros in the high four bits, bit length in the low
/// four.
const AC_LUMA_SYMBOLS: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
    0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];
const AC_COLOUR_SYMBOLS: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0,
    0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26,
    0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
    0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];

/// Decodes a JPEG of `expected` (columns, rows) to RGB. A picture whose header has
/// another size is refused before it is decoded, so that a damaged header costs no
/// memory.
pub fn decode(bytes: &[u8], expected: (usize, usize)) -> Result<Frame, MjpegError> {
    let heading = Heading::read(bytes).ok_or(MjpegError::NoJpeg)?;
    match heading.size {
        Some(got) if got == expected => {}
        Some(got) => return Err(MjpegError::Size { got, expected }),
        None => return Err(MjpegError::Cut),
    }
    let bytes = if heading.tables { Cow::Borrowed(bytes) } else { with_tables(bytes) };
    picture::decode(Path::new(""), &bytes).map_err(|error| match error {
        PictureError::Cut { .. } => MjpegError::Cut,
        _ => MjpegError::Damaged,
    })
}

/// Inserts the standard Huffman tables after the picture's first marker.
fn with_tables(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some((start, rest)) = bytes.split_at_checked(2) else { return Cow::Borrowed(bytes) };
    let mut segment = Vec::new();
    for (kind, lengths, symbols) in [
        (0x00, DC_LUMA, &DC[..]),
        (0x01, DC_COLOUR, &DC[..]),
        (0x10, AC_LUMA, &AC_LUMA_SYMBOLS[..]),
        (0x11, AC_COLOUR, &AC_COLOUR_SYMBOLS[..]),
    ] {
        segment.push(kind);
        segment.extend(lengths);
        segment.extend(symbols);
    }
    let length = (segment.len() as u16 + 2).to_be_bytes();
    Cow::Owned([start, &[0xff, HUFFMAN_TABLES], &length[..], &segment, rest].concat())
}

/// The part of a JPEG before its first scan.
#[derive(Debug, PartialEq, Eq)]
struct Heading {
    /// Whether it contains Huffman tables.
    tables: bool,
    /// Columns and rows, if a frame header was found.
    size: Option<(usize, usize)>,
}

impl Heading {
    /// Reads markers up to the first scan or the end of the data; `None` if it is not a
    /// JPEG.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = after_start(bytes)?;
        let mut heading = Self { tables: false, size: None };
        while let Some((marker, after)) = marker(rest)
            && let Some((segment, after)) = segment(after)
        {
            match marker {
                SCAN => break,
                HUFFMAN_TABLES => heading.tables = true,
                // Frame headers (SOF) of every coding process.
                0xc0..=0xcf if !matches!(marker, 0xc8 | 0xcc) => {
                    if let (Some(height), Some(width)) = (word(segment, 1), word(segment, 3)) {
                        heading.size = Some((usize::from(width), usize::from(height)));
                    }
                }
                _ => {}
            }
            rest = after;
        }
        Some(heading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
