//! EDGE: image files into frames.

mod jpeg;

use crate::vision::frame::Frame;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// More would take over 300 MB as RGB, which a board of 1 GB cannot spare.
const MAX_PIXELS: u64 = 100_000_000;
/// What a decoder may allocate: the largest picture at 16 bits with alpha.
const MAX_ALLOCATION: u64 = MAX_PIXELS * 8;
/// The same where all coefficients are kept: those of the largest picture whose
/// colours have half its columns and rows. The general decoder needs less.
const MAX_COEFFICIENTS: u64 = MAX_PIXELS * 9 / 2;

/// Largest file read, bytes; a picture of that many pixels is far smaller.
const MAX_FILE: u64 = 256 << 20;

/// Endings of the image files that are read.
pub const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Why a file is no picture.
#[derive(Debug, Error)]
pub enum PictureError {
    /// Not there, or not readable.
    #[error("{path}: {reason}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Neither JPEG nor PNG.
    #[error("{path}: neither JPEG nor PNG; convert it to one of them")]
    Format {
        /// Which file.
        path: PathBuf,
    },
    /// Too many pixels.
    #[error(
        "{path}: {width}x{height} is {} megapixels, at most {} are read; scale it down",
        u64::from(*width) * u64::from(*height) / 1_000_000,
        MAX_PIXELS / 1_000_000
    )]
    Size {
        /// Which file.
        path: PathBuf,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A JPEG without its end.
    #[error("{path}: cut short, its end is missing; copy it again")]
    Cut {
        /// Which file.
        path: PathBuf,
    },
    /// Damaged.
    #[error("{path}: damaged or cut short ({reason}); copy it again")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the decoder said.
        reason: ImageError,
    },
}

/// Reads a JPEG or PNG file: EXIF rotation honoured, alpha over black, 16 bits
/// and CMYK brought to RGB8.
pub fn read(path: &Path) -> Result<Frame, PictureError> {
    let failed = |reason| PictureError::Read { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        let most = MAX_FILE >> 20;
        return Err(failed(std::io::Error::other(format!("larger than {most} MB; scale it down"))));
    }
    decode(path, &bytes)
}

/// Like [`read`], from bytes; `path` appears in messages.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<Frame, PictureError> {
    let damaged = |reason| PictureError::Damaged { path: path.to_owned(), reason };
    let format = || PictureError::Format { path: path.to_owned() };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|reason| PictureError::Read { path: path.to_owned(), reason })?;
    if reader.format().is_none() {
        return Err(format());
    }
    // The decoder paints over what is missing; a face that was painted in part
    // is nobody's.
    let is_jpeg = reader.format() == Some(ImageFormat::Jpeg);
    if is_jpeg && !jpeg_has_its_end(bytes) {
        return Err(PictureError::Cut { path: path.to_owned() });
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|reason| match reason {
        ImageError::Unsupported(_) => format(),
        reason => damaged(reason),
    })?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(PictureError::Size { path: path.to_owned(), width, height });
    }
    // A picture without a readable orientation is taken as it lies.
    let orientation = decoder.orientation().ok();
    let mut picture = match is_jpeg.then(|| jpeg::decode(bytes, MAX_COEFFICIENTS)).flatten() {
        Some((width, height, pixels)) => RgbImage::from_raw(width as u32, height as u32, pixels)
            .map(DynamicImage::from)
            .ok_or_else(format)?,
        None => DynamicImage::from_decoder(decoder).map_err(damaged)?,
    };
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    let rgb = over_black(picture);
    let (width, height) = rgb.dimensions();
    Frame::new(width as usize, height as usize, rgb.into_raw()).map_err(|_| format())
}

/// Whether the end mark follows the picture's data (ITU-T T.81, annex B). Others
/// may stand before it, of thumbnails within segments.
fn jpeg_has_its_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // To the next marker: 0xff and neither a stuffed zero nor a restart.
        let Some(found) = bytes.get(at..).and_then(|rest| {
            rest.windows(2).position(|pair| {
                pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | 0x01 | 0xd0..=0xd7)
            })
        }) else {
            return false;
        };
        at += found;
        if bytes[at + 1] == 0xd9 {
            return true;
        }
        let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
}

/// Transparent pixels hide arbitrary colours, so alpha is laid over black.
fn over_black(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let rgba = picture.into_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0;
        let laid = |value: u8| (u16::from(value) * u16::from(a) / 255) as u8;
        image::Rgb([laid(r), laid(g), laid(b)])
    })
}

/// The frame as a PNG file's bytes.
pub fn encode_png(frame: &Frame) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    image::write_buffer_with_format(
        &mut bytes,
        frame.pixels(),
        frame.width() as u32,
        frame.height() as u32,
        image::ExtendedColorType::Rgb8,
        ImageFormat::Png,
    )?;
    Ok(bytes.into_inner())
}

/// Whether the name ends like an image file.
pub fn looks_like_a_picture(path: &Path) -> bool {
    path.extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}
