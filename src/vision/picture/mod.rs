//! EDGE: reads image files as frames.

pub(crate) mod jpeg;

use crate::vision::frame::Frame;
pub use image::ImageError;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Most pixels of a picture. Larger ones take over 300 MB as RGB, too much for a board with
/// 1 GB of memory.
const MAX_PIXELS: u64 = 100_000_000;
/// Memory limit of the general decoder, bytes: the largest picture at 16 bits per channel
/// with alpha.
const MAX_ALLOCATION: u64 = MAX_PIXELS * 8;
/// Memory limit of the JPEG decoder, bytes, which keeps all coefficients: those of the
/// largest picture with 4:2:0 subsampling. The general decoder needs less.
const MAX_COEFFICIENTS: u64 = MAX_PIXELS * 9 / 2;

/// Largest file read, bytes. Files of pictures within [`MAX_PIXELS`] are far smaller.
const MAX_FILE: u64 = 256 << 20;

/// Extensions of the image files that are read, lowercase.
pub const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Why a file cannot be read as a picture.
#[derive(Debug, Error)]
pub enum PictureError {
    /// The file is missing, unreadable or larger than 256 MB.
    #[error("{path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        reason: std::io::Error,
    },
    /// The file is neither JPEG nor PNG.
    #[error("{path}: neither JPEG nor PNG; convert it to one of them")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The picture has too many pixels.
    #[error(
        "{path}: {width}x{height} is {} megapixels, more than the limit of {}; scale it down",
        u64::from(*width) * u64::from(*height) / 1_000_000,
        MAX_PIXELS / 1_000_000
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Width, pixels.
        width: u32,
        /// Height, pixels.
        height: u32,
    },
    /// A JPEG without its end marker.
    #[error("{path}: truncated, its end is missing; copy it again")]
    Cut {
        /// The file.
        path: PathBuf,
    },
    /// The decoder failed.
    #[error("{path}: damaged or truncated ({reason}); copy it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Error of the decoder.
        reason: ImageError,
    },
}

/// Reads a JPEG or PNG file. Applies the EXIF orientation, blends alpha over black, and
/// converts 16 bits per channel and CMYK to 8-bit RGB.
///
/// # Errors
/// If the file cannot be read or decoded, or is too large.
pub fn read(path: impl AsRef<Path>) -> Result<Frame, PictureError> {
    let path = path.as_ref();
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

/// Like [`read`], from the bytes of a file. `path` only appears in error messages.
///
/// # Errors
/// If the bytes cannot be decoded, or the picture has more than 100 megapixels.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<Frame, PictureError> {
    let damaged = |reason| PictureError::Damaged { path: path.to_owned(), reason };
    let format = || PictureError::Format { path: path.to_owned() };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|reason| PictureError::Read { path: path.to_owned(), reason })?;
    if reader.format().is_none() {
        return Err(format());
    }
    // The decoder fills in missing data, and a face filled in could match anybody. So
    // truncated files are refused.
    let is_jpeg = reader.format() == Some(ImageFormat::Jpeg);
    if is_jpeg && !jpeg::markers::has_end(bytes) {
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
    // Without a readable orientation the picture is not rotated.
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

/// Converts to RGB8 and blends alpha over black, because transparent pixels may hold any
/// colour.
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

/// Encodes the frame as a PNG file.
///
/// # Errors
/// If the encoder fails.
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

/// Whether the file name has one of the [`EXTENSIONS`], in any case.
pub fn looks_like_a_picture(path: &Path) -> bool {
    path.extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}
