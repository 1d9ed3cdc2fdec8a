//! EDGE: reads image files as frames.

pub(crate) mod jpeg;
mod orientation;

use crate::files::{self, Class, Kind};
use crate::vision::frame::Frame;
pub use image::ImageError;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use jpeg::markers::Outline;
use std::io::Cursor;
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
    /// The file is missing, unreadable, no regular file or larger than 256 MB.
    #[error("{path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        reason: std::io::Error,
    },
    /// The file is of a kind that is not read.
    #[error("{path}: {kind}; {cure}")]
    Kind {
        /// The file.
        path: PathBuf,
        /// The kind with an article, such as "a GIF, neither JPEG nor PNG".
        kind: String,
        /// What to do.
        cure: &'static str,
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
    /// Part of the picture is missing or damaged.
    #[error("{path}: damaged or truncated ({reason}); copy it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a JPEG or PNG file. Applies the EXIF orientation, blends alpha over black, and
/// converts 16 bits per channel and CMYK to 8-bit RGB.
///
/// # Errors
/// If the file cannot be read or decoded, or is too large.
pub fn read(path: impl AsRef<Path>) -> Result<Frame, PictureError> {
    let path = path.as_ref();
    match files::read(path, MAX_FILE) {
        Ok(bytes) => decode(path, &bytes),
        Err(reason) => Err(PictureError::Read { path: path.to_owned(), reason }),
    }
}

/// Like [`read`], from the bytes of a file. `path` only appears in error messages.
///
/// # Errors
/// If the bytes cannot be decoded, or the picture has more than 100 megapixels.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<Frame, PictureError> {
    if let Some(outline) = Outline::read(bytes) {
        return decode_jpeg(path, bytes, &outline);
    }
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(other_kind(path, bytes));
    }
    if orientation::chunks(bytes).next().is_some_and(|(kind, _)| kind == b"CgBI") {
        return Err(kind(
            path,
            "a PNG in the form of iOS (CgBI), which is not read",
            "convert it with: sips -s format jpeg FILE --out FILE.jpg",
        ));
    }
    let picture = general(path, bytes, ImageFormat::Png)?;
    let orientation = orientation::first(orientation::of_png(bytes));
    finished(path, picture, orientation)
}

fn decode_jpeg(path: &Path, bytes: &[u8], outline: &Outline<'_>) -> Result<Frame, PictureError> {
    if let Some((width, height)) = outline.size {
        check_size(path, width as u32, height as u32)?;
    }
    let bytes = jpeg::complete(bytes, outline);
    let picture = match jpeg::decode(&bytes, outline, MAX_COEFFICIENTS) {
        Ok(jpeg::Picture::Decoded(width, height, pixels)) => {
            RgbImage::from_raw(width as u32, height as u32, pixels)
                .map(DynamicImage::from)
                .ok_or_else(|| damaged(path, "its size is none"))?
        }
        Ok(jpeg::Picture::Unusual) => general(path, &bytes, ImageFormat::Jpeg)?,
        Err(jpeg::Fault::Kind(name)) => {
            let name = format!("{name}, which is not read");
            return Err(kind(path, name, "save it as an ordinary JPEG or as PNG"));
        }
        Err(jpeg::Fault::Cut) => return Err(PictureError::Cut { path: path.to_owned() }),
        Err(jpeg::Fault::Damaged(reason)) => return Err(damaged(path, reason)),
    };
    let exif = outline.exif.iter().copied();
    finished(path, picture, orientation::first(exif))
}

/// Decodes with the crate `image`, which fills in what is missing of a JPEG.
fn general(path: &Path, bytes: &[u8], format: ImageFormat) -> Result<DynamicImage, PictureError> {
    let fault = |reason| match reason {
        ImageError::Unsupported(_) => {
            let name = "an unusual form of its kind, which is not read";
            kind(path, name, "save it as an ordinary JPEG or PNG")
        }
        reason => damaged(path, reason.to_string()),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(fault)?;
    let (width, height) = decoder.dimensions();
    check_size(path, width, height)?;
    DynamicImage::from_decoder(decoder).map_err(fault)
}

/// Without a readable orientation the picture is not rotated.
fn finished(
    path: &Path,
    mut picture: DynamicImage,
    orientation: Option<Orientation>,
) -> Result<Frame, PictureError> {
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    let rgb = over_black(picture);
    let (width, height) = rgb.dimensions();
    Frame::new(width as usize, height as usize, rgb.into_raw())
        .map_err(|error| damaged(path, error.to_string()))
}

fn check_size(path: &Path, width: u32, height: u32) -> Result<(), PictureError> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(PictureError::Size { path: path.to_owned(), width, height });
    }
    Ok(())
}

fn damaged(path: &Path, reason: impl Into<String>) -> PictureError {
    PictureError::Damaged { path: path.to_owned(), reason: reason.into() }
}

fn kind(path: &Path, kind: impl Into<String>, cure: &'static str) -> PictureError {
    PictureError::Kind { path: path.to_owned(), kind: kind.into(), cure }
}

/// Names a file that is neither JPEG nor PNG.
fn other_kind(path: &Path, bytes: &[u8]) -> PictureError {
    let Some(Kind { name, class }) = files::kind_of(bytes) else {
        return kind(path, "neither JPEG nor PNG", "convert it to one of them");
    };
    let cure = match class {
        Class::Lost => "copy it again",
        Class::Pointer => "fetch its content, for example with git lfs pull",
        Class::Page => "a download failed; fetch the picture itself",
        Class::Text if name.contains("base64") => "decode it, for example with base64 -d",
        Class::Text => "name a JPEG or PNG",
        Class::Picture if name.contains("HEIC") => {
            "convert it to JPEG; an iPhone takes JPEG with Camera, Formats, Most Compatible"
        }
        Class::Picture => "convert it to JPEG or PNG",
        Class::Video => {
            "take pictures out of it, for example with ffmpeg -i FILE -vf fps=2 frame%04d.png"
        }
        Class::Document => "save the picture in it as JPEG or PNG",
        Class::Archive => "unpack it first",
        Class::Side => "leave it out; the picture has the same name without ._",
    };
    match class {
        Class::Lost => kind(path, name, cure),
        _ => kind(path, format!("{name}, neither JPEG nor PNG"), cure),
    }
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
