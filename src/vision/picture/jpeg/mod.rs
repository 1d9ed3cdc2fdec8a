//! JPEG decoder with exactly the values of libjpeg, which decoded the training and test
//! data of published networks. Other decoders round the transform and the colour conversion
//! differently, which moves one face in twenty by a pixel.
//!
//! Decodes 8-bit, Huffman-coded pictures, sequential or progressive. A picture is decoded
//! only if all of it is there: a face filled in by a decoder could match anybody. Pictures
//! with unusual colours or subsampling are only checked, and the general decoder makes
//! their pixels.

mod entropy;
mod header;
pub(crate) mod markers;
mod samples;
mod scan;
mod standard;
#[cfg(test)]
mod tests;

pub(super) use standard::complete;

use entropy::Huffman;
use header::{Component, Header};
use markers::{Outline, marker, word};
use samples::Plane;
use thiserror::Error;

/// The 8x8 coefficients of a block, row by row.
type Block = [i16; 64];

/// Position in a block of the n-th coefficient in zigzag order.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
/// Most scans of a picture. Encoders write about ten, and each costs a pass over all
/// blocks.
const MOST_SCANS: usize = 100;

/// Content of a scan: its range of coefficients in zigzag order, and its bits of them.
#[derive(Clone, Copy)]
struct Spectrum {
    first: usize,
    last: usize,
    refines: bool,
    shift: u32,
}

/// What is wrong with the data of a scan or with a segment.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum Flaw {
    #[error("its data ends early")]
    Ended,
    #[error("its data holds a code that does not exist")]
    Code,
    #[error("its data holds a value that no picture has")]
    Coefficient,
    #[error("more data is left than belongs there")]
    Left,
    #[error("a restart marker is missing or another one stands there")]
    Restart,
    #[error("a table is missing or damaged")]
    Table,
    #[error("its header is damaged")]
    Header,
    #[error("the header of a scan is damaged")]
    Scan,
    #[error("a scan is missing or was repeated")]
    Scans,
}

/// Why a JPEG is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A healthy file of a kind that is not decoded: its name.
    Kind(&'static str),
    /// Its end marker is missing.
    Cut,
    /// Part of it is missing or damaged.
    Damaged(String),
}

impl From<Flaw> for Fault {
    fn from(flaw: Flaw) -> Self {
        Self::Damaged(flaw.to_string())
    }
}

/// A JPEG that is whole.
pub(super) enum Picture {
    /// Width, height and RGB pixels, row-major.
    Decoded(usize, usize, Vec<u8>),
    /// Its colours or subsampling are unusual, or its decoding would take more memory than
    /// was allowed.
    Unusual,
}

/// The name of a coding process that is not decoded.
fn other_process(outline: &Outline<'_>) -> Option<&'static str> {
    let (marker, bits) = outline.process?;
    Some(match marker {
        0xf7 => "a JPEG-LS file",
        0xc3 | 0xcb => "a lossless JPEG",
        0xc5..=0xc7 | 0xcd..=0xcf => "a hierarchical JPEG",
        0xc9 | 0xca => "a JPEG with arithmetic coding",
        _ if bits == 12 => "a 12-bit JPEG",
        _ => return None,
    })
}

/// Decodes a JPEG file. If it would take more than `memory` bytes, or has unusual colours
/// or subsampling, it is only checked.
///
/// # Errors
/// If the picture is not whole, or of a kind that is not decoded.
pub(super) fn decode(bytes: &[u8], outline: &Outline<'_>, memory: u64) -> Result<Picture, Fault> {
    if let Some(kind) = other_process(outline) {
        return Err(Fault::Kind(kind));
    }
    if !outline.end {
        return Err(Fault::Cut);
    }
    let mut decoder =
        Decoder { lines: outline.size.map_or(0, |(_, rows)| rows), ..Decoder::default() };
    let mut rest = markers::after_start(bytes).ok_or(Flaw::Header)?;
    let mut scans = 0;
    loop {
        let (marker, after) = marker(rest).ok_or(Fault::Cut)?;
        rest = after;
        match marker {
            markers::END => break,
            // Some cameras begin with two of these.
            markers::START if decoder.header.is_none() => continue,
            markers::START => return Err(Flaw::Ended.into()),
            marker if markers::is_bare(marker) => continue,
            _ => {}
        }
        let segment;
        (segment, rest) = markers::segment(after).ok_or(Fault::Cut)?;
        match marker {
            0xc0..=0xc2 => decoder.frame(segment, marker == 0xc2, memory)?,
            markers::HUFFMAN_TABLES => decoder.huffman_tables(segment).ok_or(Flaw::Table)?,
            markers::SCAN => {
                scans += 1;
                if scans > MOST_SCANS {
                    return Err(Flaw::Scans.into());
                }
                rest = decoder.scan(segment, rest)?;
            }
            0xdb => decoder.quantization_tables(segment).ok_or(Flaw::Table)?,
            0xdd => {
                let interval = word(segment, 0).ok_or(Flaw::Header)?;
                decoder.restart_interval = usize::from(interval);
            }
            0xe0 => decoder.jfif |= segment.starts_with(b"JFIF\0"),
            // Adobe's segment: colour spaces other than YCbCr are not decoded.
            0xee if segment.starts_with(b"Adobe") && segment.get(11) != Some(&1) => {
                decoder.other_colours = true;
            }
            // Comments, extensions, and the number of lines, which the outline has.
            0xdc | 0xe1..=0xef | 0xf0..=0xfe => {}
            0xde | 0xdf => return Err(Fault::Kind("a hierarchical JPEG")),
            0xcc => return Err(Fault::Kind("a JPEG with arithmetic coding")),
            _ => return Err(Flaw::Header.into()),
        }
    }
    decoder.finish()
}

#[derive(Default)]
struct Decoder {
    /// Number of lines; 0 if the outline has none.
    lines: usize,
    header: Option<Header>,
    quantization: [Option<[u16; 64]>; 4],
    /// Huffman tables of DC and AC coefficients.
    huffman: [[Option<Huffman>; 4]; 2],
    restart_interval: usize,
    jfif: bool,
    other_colours: bool,
}

impl Decoder {
    fn frame(&mut self, segment: &[u8], progressive: bool, memory: u64) -> Result<(), Flaw> {
        if self.header.is_some() {
            return Err(Flaw::Header);
        }
        self.header = Some(Header::read(segment, progressive, self.lines, memory)?);
        Ok(())
    }

    fn quantization_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((kind, rest)) = segment.split_first() {
            let size = match kind >> 4 {
                0 => 1,
                1 => 2,
                _ => return None,
            };
            let values = rest.get(..64 * size)?;
            let mut table = [0; 64];
            for (value, at) in values.chunks_exact(size).zip(ZIGZAG) {
                table[at] = value.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte));
            }
            *self.quantization.get_mut(usize::from(kind & 15))? = Some(table);
            segment = &rest[64 * size..];
        }
        Some(())
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((kind, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(total)?;
            let tables = self.huffman.get_mut(usize::from(kind >> 4))?;
            *tables.get_mut(usize::from(kind & 15))? = Some(Huffman::new(counts, symbols)?);
            segment = rest;
        }
        Some(())
    }

    fn finish(self) -> Result<Picture, Fault> {
        let Some(header) = self.header else { return Err(Flaw::Header.into()) };
        if !header.components.iter().all(Component::is_complete) {
            return Err(Flaw::Scans.into());
        }
        // Without a JFIF segment, components with the ids R, G and B are RGB.
        let ids = header.components.iter().map(|component| component.id);
        let rgb = !self.jfif && ids.eq(*b"RGB");
        if !header.kept || self.other_colours || rgb {
            return Ok(Picture::Unusual);
        }
        let Header { width, height, components, .. } = header;
        let shared = components.first().map_or([1, 1], |first| [first.h, first.v]);
        let mut planes = Vec::new();
        for component in components {
            let quantization = component.quantization.ok_or(Flaw::Scans)?;
            let Component { width, height, stride, blocks, .. } = component;
            planes.push(Plane::new(width, height, stride, &blocks, &quantization));
        }
        let pixels = match &planes[..] {
            [grey] => samples::grey(width, height, grey),
            [luma, blue, red] => samples::rgb(width, height, [luma, blue, red], shared),
            _ => return Ok(Picture::Unusual),
        };
        Ok(Picture::Decoded(width, height, pixels))
    }
}
