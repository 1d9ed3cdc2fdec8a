//! Conversion of YCbCr, as video and cameras send it, to RGB.
//!
//! Luma and chroma samples are bytes. Neighbouring pixels share a chroma sample, and each
//! uses it unsmoothed: smoothing makes no difference to the networks and costs as much as
//! the rest of the conversion.

pub use crate::vision::ycbcr::{Colours, Matrix};

use crate::vision::frame::Frame;
use thiserror::Error;

/// Largest width or height in pixels. No door camera is larger, and a wrong size must not
/// cost memory.
pub const LARGEST_SIDE: usize = 8192;

/// Errors of converting a buffer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum YuvError {
    /// A side is 0 or above [`LARGEST_SIDE`].
    #[error("size {width}x{height} is out of range, expected sides of 1 to {LARGEST_SIDE} pixels")]
    Size {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The buffer is too short.
    #[error("cut short: {got} of {expected} bytes")]
    Short {
        /// Bytes in the buffer.
        got: usize,
        /// Bytes of a whole picture.
        expected: usize,
    },
}

/// Chroma subsampling of a planar picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    /// Luma only.
    Grey,
    /// One sample of Cb and Cr per block of `columns` x `rows` pixels.
    Every {
        /// Block width in pixels.
        columns: usize,
        /// Block height in pixels.
        rows: usize,
    },
}

fn checked(width: usize, height: usize) -> Result<(), YuvError> {
    let right = 1..=LARGEST_SIDE;
    if right.contains(&width) && right.contains(&height) {
        Ok(())
    } else {
        Err(YuvError::Size { width, height })
    }
}

fn long_enough(bytes: &[u8], expected: usize) -> Result<(), YuvError> {
    if bytes.len() < expected {
        return Err(YuvError::Short { got: bytes.len(), expected });
    }
    Ok(())
}

/// Size in bytes of a picture in one plane (grey) or three.
pub fn planar_bytes(width: usize, height: usize, chroma: Chroma) -> usize {
    let colour = match chroma {
        Chroma::Grey => 0,
        Chroma::Every { columns, rows } => width.div_ceil(columns) * height.div_ceil(rows),
    };
    width * height + 2 * colour
}

/// Converts planar data: `height x width` of luma, then the Cb and Cr planes, each
/// rounded up to whole samples, without gaps between rows. An error if a side is out of
/// range or the buffer too short.
pub fn planar(
    bytes: &[u8],
    width: usize,
    height: usize,
    chroma: Chroma,
    colours: Colours,
) -> Result<Frame, YuvError> {
    checked(width, height)?;
    let expected = planar_bytes(width, height, chroma);
    long_enough(bytes, expected)?;
    let (light, rest) = bytes.split_at(width * height);
    let (blue, red) = rest.split_at((expected - width * height) / 2);
    let weights = colours.weights();
    let mut frame = Frame::filled(width, height, [0; 3]);
    let rows = frame.pixels_mut().chunks_exact_mut(3 * width).zip(light.chunks_exact(width));
    for (y, (row, light)) in rows.enumerate() {
        let pixels = row.chunks_exact_mut(3).zip(light);
        match chroma {
            Chroma::Grey => pixels.for_each(|(pixel, light)| weights.write(pixel, *light, [0; 3])),
            Chroma::Every { columns, rows } => {
                let samples = width.div_ceil(columns);
                let at = y / rows * samples;
                let colour = blue[at..at + samples].iter().zip(&red[at..at + samples]);
                let colour = colour.map(|(cb, cr)| weights.colour(*cb, *cr));
                let colour = colour.flat_map(|colour| std::iter::repeat_n(colour, columns));
                for ((pixel, light), colour) in pixels.zip(colour) {
                    weights.write(pixel, *light, colour);
                }
            }
        }
    }
    Ok(frame)
}

/// Converts packed 4:2:2 data: `Y Cb Y Cr` for two pixels, rows `stride` bytes apart. A
/// stride shorter than a row, such as 0, means no gap. Errors as in [`planar`].
pub fn yuyv(
    bytes: &[u8],
    width: usize,
    height: usize,
    stride: usize,
    colours: Colours,
) -> Result<Frame, YuvError> {
    checked(width, height)?;
    let used = 4 * width.div_ceil(2);
    let stride = stride.max(used);
    long_enough(bytes, stride.saturating_mul(height - 1).saturating_add(used))?;
    let weights = colours.weights();
    let mut frame = Frame::filled(width, height, [0; 3]);
    for (row, line) in frame.pixels_mut().chunks_exact_mut(3 * width).zip(bytes.chunks(stride)) {
        for (pair, samples) in row.chunks_mut(6).zip(line.chunks_exact(4)) {
            let &[first, cb, second, cr] = samples else { continue };
            let colour = weights.colour(cb, cr);
            for (pixel, light) in pair.chunks_exact_mut(3).zip([first, second]) {
                weights.write(pixel, light, colour);
            }
        }
    }
    Ok(frame)
}

/// Converts 4:2:0 data: a luma plane, then a plane of `Cb Cr` pairs for 2x2 pixels each,
/// rows `stride` bytes apart in both. A stride shorter than a row, such as 0, means no
/// gap. Errors as in [`planar`].
pub fn nv12(
    bytes: &[u8],
    width: usize,
    height: usize,
    stride: usize,
    colours: Colours,
) -> Result<Frame, YuvError> {
    checked(width, height)?;
    let used = 2 * width.div_ceil(2);
    let stride = stride.max(used);
    let luma = stride.saturating_mul(height);
    let shared = height.div_ceil(2) - 1;
    long_enough(bytes, luma.saturating_add(stride.saturating_mul(shared)).saturating_add(used))?;
    let (light, colour) = bytes.split_at(luma);
    let weights = colours.weights();
    let mut frame = Frame::filled(width, height, [0; 3]);
    let rows = frame.pixels_mut().chunks_exact_mut(3 * width).zip(light.chunks(stride));
    for (y, (row, light)) in rows.enumerate() {
        let colour = &colour[y / 2 * stride..][..used];
        let pairs = row.chunks_mut(6).zip(light.chunks(2)).zip(colour.chunks_exact(2));
        for ((pair, light), samples) in pairs {
            let &[cb, cr] = samples else { continue };
            let colour = weights.colour(cb, cr);
            for (pixel, light) in pair.chunks_exact_mut(3).zip(light) {
                weights.write(pixel, *light, colour);
            }
        }
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Colours; 4] = [
        Colours { matrix: Matrix::Bt601, full_range: false },
        Colours { matrix: Matrix::Bt601, full_range: true },
        Colours { matrix: Matrix::Bt709, full_range: false },
        Colours { matrix: Matrix::Bt709, full_range: true },
    ];

    /// RGB by the definition in the standards, from the shares of red and blue in luma.
    fn by_definition(colours: Colours, [y, cb, cr]: [u8; 3]) -> [f64; 3] {
        let (kr, kb) = match colours.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
        };
        let [y, cb, cr] = [y, cb, cr].map(f64::from);
        let (y, cb, cr) = if colours.full_range {
            (y, cb - 128.0, cr - 128.0)
        } else {
            ((y - 16.0) * 255.0 / 219.0, (cb - 128.0) * 255.0 / 224.0, (cr - 128.0) * 255.0 / 224.0)
        };
        let (red, blue) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
        let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
        [red, green, blue].map(|value| value.clamp(0.0, 255.0))
    }

    fn one(colours: Colours, ycc: [u8; 3]) -> [u8; 3] {
        let every = Chroma::Every { columns: 1, rows: 1 };
        planar(&ycc, 1, 1, every, colours).expect("a pixel").pixel(0, 0)
    }

    #[test]
    fn colour_bars_have_the_colours_of_the_standard() {
        let bt601 = Colours::default();
        let bt709 = Colours { matrix: Matrix::Bt709, full_range: false };
        for (colours, ycc, rgb) in [
            (bt601, [16, 128, 128], [0, 0, 0]),
            (bt601, [235, 128, 128], [255, 255, 255]),
            (bt601, [81, 90, 240], [254, 0, 0]),
            (bt601, [145, 54, 34], [0, 255, 1]),
            (bt601, [41, 240, 110], [0, 0, 255]),
            (bt709, [63, 102, 240], [255, 0, 0]),
            (bt709, [173, 42, 26], [0, 255, 0]),
            (bt709, [32, 240, 118], [0, 0, 255]),
        ] {
            let got = one(colours, ycc);
            let near = got.iter().zip(rgb).all(|(a, b)| a.abs_diff(b) <= 2);
            assert!(near, "{colours:?} {ycc:?} gave {got:?}, expected {rgb:?}");
        }
    }

    #[test]
    fn rows_may_lie_apart_and_odd_columns_share_what_is_there() {
        // Three columns, two rows, two padding bytes; pixels that share Cr 255 are red.
        let colours = Colours { full_range: true, ..Colours::default() };
        let line = [10, 128, 20, 128, 30, 128, 0, 255, 9, 9];
        let bytes = [&line[..], &line[..8]].concat();
        let frame = yuyv(&bytes, 3, 2, 10, colours).expect("a frame");
        assert_eq!(frame.pixel(0, 0), [10; 3]);
        assert_eq!(frame.pixel(1, 1), [20; 3]);
        assert_eq!(frame.pixel(2, 1)[0], 208);
        let bytes = [1, 2, 3, 9, 9, 4, 5, 6, 9, 9, 128, 128, 128, 255];
        let frame = nv12(&bytes, 3, 2, 5, colours).expect("a frame");
        assert_eq!([frame.pixel(0, 0), frame.pixel(1, 1)], [[1; 3], [5; 3]]);
        assert_eq!(frame.pixel(2, 1)[0], 184);
    }

    #[test]
    fn short_buffers_and_sizes_that_lie_are_named() {
        let colours = Colours::default();
        assert_eq!(
            yuyv(&[0; 15], 2, 4, 0, colours),
            Err(YuvError::Short { got: 15, expected: 16 })
        );
        assert_eq!(
            nv12(&[0; 11], 2, 4, 2, colours),
            Err(YuvError::Short { got: 11, expected: 12 })
        );
        assert_eq!(
            planar(&[0; 7], 2, 4, Chroma::Grey, colours),
            Err(YuvError::Short { got: 7, expected: 8 })
        );
        let error = yuyv(&[], LARGEST_SIDE + 1, 1, 0, colours).expect_err("too wide");
        assert!(error.to_string().contains("8193x1"), "{error}");
        assert!(nv12(&[], 0, 1, 0, colours).is_err());
        assert!(yuyv(&[0; 64], 2, 2, usize::MAX, colours).is_err(), "no overflow");
    }

    proptest! {
        #[test]
        fn every_colour_is_within_rounding_of_its_definition(ycc: [u8; 3], at in 0..4usize) {
            let (got, expected) = (one(ALL[at], ycc), by_definition(ALL[at], ycc));
            for (got, expected) in got.iter().zip(expected) {
                prop_assert!((f64::from(*got) - expected).abs() <= 0.51, "{got} {expected}");
            }
        }

        #[test]
        fn the_three_layouts_agree(
            width in 1..9usize,
            height in 1..7usize,
            gap in 0..5usize,
            bytes in prop::collection::vec(any::<u8>(), 256),
        ) {
            let (across, down) = (width.div_ceil(2), height.div_ceil(2));
            let colours = ALL[gap % 4];
            let luma = |x: usize, y: usize| bytes[(y * width + x) % 100];
            let (cb, cr) = (|x: usize, y: usize| bytes[100 + y * across + x],
                            |x: usize, y: usize| bytes[150 + y * across + x]);
            let plane = |w: usize, h: usize, of: &dyn Fn(usize, usize) -> u8| -> Vec<u8> {
                (0..w * h).map(|at| of(at % w, at / w)).collect()
            };
            let whole = plane(width, height, &luma);

            // 4:2:2 in three planes and as YUYV.
            let planes = [whole.clone(), plane(across, height, &cb), plane(across, height, &cr)];
            let every = Chroma::Every { columns: 2, rows: 1 };
            let expected = planar(&planes.concat(), width, height, every, colours);
            let mut packed = Vec::new();
            for y in 0..height {
                for x in 0..across {
                    let second = (2 * x + 1).min(width - 1);
                    packed.extend([luma(2 * x, y), cb(x, y), luma(second, y), cr(x, y)]);
                }
                packed.extend(vec![7; gap]);
            }
            prop_assert_eq!(yuyv(&packed, width, height, 4 * across + gap, colours), expected);

            // 4:2:0 in three planes and as NV12.
            let planes = [whole, plane(across, down, &cb), plane(across, down, &cr)];
            let every = Chroma::Every { columns: 2, rows: 2 };
            let expected = planar(&planes.concat(), width, height, every, colours);
            let stride = 2 * across + gap;
            let mut packed = vec![7; stride * (height + down)];
            for (y, line) in packed.chunks_exact_mut(stride).enumerate() {
                for (x, value) in line.iter_mut().enumerate() {
                    if y < height && x < width {
                        *value = luma(x, y);
                    } else if y >= height && x < 2 * across {
                        let sample = if x % 2 == 0 { cb(x / 2, y - height) } else { cr(x / 2, y - height) };
                        *value = sample;
                    }
                }
            }
            prop_assert_eq!(nv12(&packed, width, height, stride, colours), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            width in 0..20usize,
            height in 0..20usize,
            stride in prop_oneof![0..40usize, Just(usize::MAX)],
        ) {
            for frame in [
                yuyv(&bytes, width, height, stride, Colours::default()),
                nv12(&bytes, width, height, stride, Colours::default()),
            ] {
                prop_assert!(frame.is_err() || frame.is_ok_and(|frame| frame.width() == width));
            }
        }
    }
}
