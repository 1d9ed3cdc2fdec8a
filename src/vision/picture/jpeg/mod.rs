//! JPEG decoder with exactly the values of libjpeg, which decoded the training and test
//! data of published networks. Other decoders round the transform and the colour conversion
//! differently, which moves one face in twenty by a pixel.
//!
//! Decodes 8-bit, Huffman-coded pictures, sequential or progressive, grey or YCbCr with all
//! common subsampling. Other and damaged pictures are left to the general decoder.

mod entropy;
pub(crate) mod markers;
mod samples;

use entropy::{BitReader, Huffman};
use markers::{marker, word};
use samples::Plane;

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

/// One colour component of the picture.
struct Component {
    id: u8,
    /// Sampling factors.
    h: usize,
    v: usize,
    table: usize,
    /// Quantization table in the order of a block; `None` before its first scan.
    quantization: Option<[u16; 64]>,
    /// Size of the component in samples, without padding.
    width: usize,
    height: usize,
    /// Blocks per row, padded to whole MCUs.
    stride: usize,
    blocks: Vec<Block>,
}

/// The frame header.
struct Header {
    width: usize,
    height: usize,
    progressive: bool,
    /// Number of MCUs across and down.
    mcus: [usize; 2],
    components: Vec<Component>,
}

/// Content of a scan: its range of coefficients in zigzag order, and its bits of them.
#[derive(Clone, Copy)]
struct Spectrum {
    first: usize,
    last: usize,
    refines: bool,
    shift: u32,
}

/// Decodes a JPEG file to width, height and RGB pixels, row-major. `None` if the picture is
/// of another kind, is damaged, or would take more than `memory` bytes.
pub(super) fn decode(bytes: &[u8], memory: u64) -> Option<(usize, usize, Vec<u8>)> {
    let mut decoder = Decoder::default();
    let mut rest = markers::after_start(bytes)?;
    let mut scans = 0;
    loop {
        let (marker, after) = marker(rest)?;
        if marker == markers::END {
            break;
        }
        let segment;
        (segment, rest) = markers::segment(after)?;
        match marker {
            0xc0..=0xc2 => decoder.header(segment, marker == 0xc2, memory)?,
            markers::HUFFMAN_TABLES => decoder.huffman_tables(segment)?,
            markers::SCAN => {
                scans += 1;
                if scans > MOST_SCANS {
                    return None;
                }
                rest = decoder.scan(segment, rest)?;
            }
            0xdb => decoder.quantization_tables(segment)?,
            0xdd => decoder.restart_interval = usize::from(word(segment, 0)?),
            0xe0 => decoder.jfif |= segment.starts_with(b"JFIF\0"),
            // Adobe's segment: colour spaces other than YCbCr are not decoded.
            0xee if segment.starts_with(b"Adobe") && *segment.get(11)? != 1 => return None,
            0xe1..=0xef | 0xfe => {}
            // Arithmetic coding, lossless and hierarchical pictures, DNL segments.
            _ => return None,
        }
    }
    decoder.finish()
}

#[derive(Default)]
struct Decoder {
    header: Option<Header>,
    quantization: [Option<[u16; 64]>; 4],
    /// Huffman tables of DC and AC coefficients.
    huffman: [[Option<Huffman>; 4]; 2],
    restart_interval: usize,
    jfif: bool,
}

impl Decoder {
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

    fn header(&mut self, segment: &[u8], progressive: bool, memory: u64) -> Option<()> {
        let &[8, _, _, _, _, count, ref list @ ..] = segment else { return None };
        let (height, width) = (usize::from(word(segment, 1)?), usize::from(word(segment, 3)?));
        if self.header.is_some()
            || width == 0
            || height == 0
            || list.len() != 3 * usize::from(count)
        {
            return None;
        }
        let factors: Vec<[usize; 2]> =
            list.chunks_exact(3).map(|one| [one[1] >> 4, one[1] & 15].map(usize::from)).collect();
        let [across, down] = match factors[..] {
            // The sampling factors of a single component have no effect.
            [_] => [1, 1],
            [most @ ([1 | 2, 1] | [1 | 2, 2]), [1, 1], [1, 1]] => most,
            _ => return None,
        };
        let mcus = [width.div_ceil(8 * across), height.div_ceil(8 * down)];
        let mut components = Vec::new();
        let mut samples = 0u64;
        for (at, one) in list.chunks_exact(3).enumerate() {
            let [h, v] = if at == 0 { [across, down] } else { [1, 1] };
            let stride = mcus[0] * h;
            samples += 64 * (stride * mcus[1] * v) as u64;
            components.push(Component {
                id: one[0],
                h,
                v,
                table: usize::from(one[2]),
                quantization: None,
                width: (width * h).div_ceil(across),
                height: (height * v).div_ceil(down),
                stride,
                blocks: Vec::new(),
            });
        }
        // Peak memory: two bytes per coefficient plus one per sample, or samples plus
        // pixels.
        if (3 * samples).max(samples + 3 * width as u64 * height as u64) > memory {
            return None;
        }
        for component in &mut components {
            component.blocks = vec![[0; 64]; component.stride * mcus[1] * component.v];
        }
        self.header = Some(Header { width, height, progressive, mcus, components });
        Some(())
    }

    /// Decodes one scan. Returns the bytes after it.
    fn scan<'a>(&mut self, segment: &[u8], data: &'a [u8]) -> Option<&'a [u8]> {
        let header = self.header.as_mut()?;
        let (count, list) = segment.split_first()?;
        let count = usize::from(*count);
        let &[first, last, bits] = list.get(2 * count..)? else { return None };
        let spectrum = Spectrum {
            first: usize::from(first),
            last: usize::from(last),
            refines: bits >> 4 != 0,
            shift: u32::from(bits & 15),
        };
        let whole = spectrum.first == 0 && spectrum.last == 63 && bits == 0;
        let part = match (first, last) {
            (0, 0) => true,
            (1.., _) => first <= last && last < 64 && count == 1,
            _ => false,
        };
        let fits = if header.progressive { part && bits & 15 < 14 } else { whole };
        // Index of each component and its tables, in the order of the scan.
        let mut parts: Vec<(usize, [Option<&Huffman>; 2])> = Vec::new();
        for one in list[..2 * count].chunks_exact(2) {
            let index = header.components.iter().position(|component| component.id == one[0])?;
            if parts.last().is_some_and(|(before, _)| *before >= index) {
                return None;
            }
            let tables = [one[1] >> 4, one[1] & 15].map(usize::from);
            let of = |kind: usize| self.huffman[kind].get(tables[kind])?.as_ref();
            parts.push((index, [of(0), of(1)]));
            let component = &mut header.components[index];
            if component.quantization.is_none() {
                component.quantization = Some((*self.quantization.get(component.table)?)?);
            }
        }
        if !fits || parts.is_empty() {
            return None;
        }
        let mut bits = BitReader::new(data);
        let mut state = Running::default();
        let [across, down] = match parts[..] {
            // A scan of one component is not interleaved and has no padding blocks.
            [(index, _)] => {
                let component = &header.components[index];
                [component.width.div_ceil(8), component.height.div_ceil(8)]
            }
            _ => header.mcus,
        };
        let single = parts.len() == 1;
        for mcu in 0..across * down {
            if self.restart_interval > 0 && mcu > 0 && mcu % self.restart_interval == 0 {
                bits.restart((mcu / self.restart_interval - 1) % 8)?;
                state = Running::default();
            }
            let (x, y) = (mcu % across, mcu / across);
            for (index, tables) in &parts {
                let component = &mut header.components[*index];
                let (h, v) = if single { (1, 1) } else { (component.h, component.v) };
                for at in 0..h * v {
                    let (column, row) = (x * h + at % h, y * v + at / h);
                    let block = &mut component.blocks[row * component.stride + column];
                    let prediction = &mut state.predictions[*index];
                    if header.progressive {
                        let run = &mut state.end_of_band;
                        entropy::progressive(&mut bits, tables, spectrum, block, prediction, run)?;
                    } else {
                        entropy::sequential(&mut bits, tables, block, prediction)?;
                    }
                }
            }
        }
        bits.rest()
    }

    fn finish(self) -> Option<(usize, usize, Vec<u8>)> {
        let Header { width, height, components, .. } = self.header?;
        // Without a JFIF segment, components with the ids R, G and B are RGB.
        if !self.jfif && components.iter().map(|component| component.id).eq(*b"RGB") {
            return None;
        }
        let shared = components.first().map_or([1, 1], |first| [first.h, first.v]);
        let mut planes = Vec::new();
        for component in components {
            // A component without a scan is missing.
            let quantization = component.quantization?;
            let Component { width, height, stride, blocks, .. } = component;
            planes.push(Plane::new(width, height, stride, &blocks, &quantization));
        }
        let pixels = match &planes[..] {
            [grey] => samples::grey(width, height, grey),
            [luma, blue, red] => samples::rgb(width, height, [luma, blue, red], shared),
            _ => return None,
        };
        Some((width, height, pixels))
    }
}

/// State carried from block to block of a scan.
#[derive(Default)]
struct Running {
    /// The last DC coefficient of each component.
    predictions: [i32; 3],
    /// Number of blocks left whose band has ended.
    end_of_band: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, RgbImage};
    use proptest::prelude::*;
    use std::io::Cursor;

    const PORTRAIT: &[u8] = include_bytes!("../../../../assets/astronaut.jpg");

    /// A small picture written by the general encoder.
    fn small() -> Vec<u8> {
        let picture = RgbImage::from_fn(19, 11, |x, y| {
            image::Rgb([(x * 13) as u8, (y * 23) as u8, ((x * y) % 256) as u8])
        });
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Jpeg).expect("a JPEG");
        bytes.into_inner()
    }

    #[test]
    fn it_is_near_the_general_decoder() {
        for bytes in [PORTRAIT, &small()] {
            let (width, height, pixels) = decode(bytes, u64::MAX).expect("an ordinary picture");
            let other = image::load_from_memory(bytes).expect("a picture").into_rgb8();
            assert_eq!((width as u32, height as u32), other.dimensions());
            let apart = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b));
            let apart = pixels.iter().zip(other.as_raw()).map(apart);
            assert!(apart.clone().fold(0.0, f64::max) <= 6.0);
            assert!(apart.sum::<f64>() < 0.5 * pixels.len() as f64);
        }
    }

    #[test]
    fn restart_markers_come_in_order() {
        // Three grey blocks with a restart interval of one. The DC table has only the
        // symbol for 4-bit numbers and the AC table only the end of block, both as code 0.
        let with_marker = |second: u8| {
            let mut bytes = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
            bytes.extend([8; 64]);
            bytes.extend([0xff, 0xc0, 0, 11, 8, 0, 8, 0, 24, 1, 1, 0x11, 0]);
            for (kind, symbol) in [(0x00, 4), (0x10, 0)] {
                bytes.extend([0xff, 0xc4, 0, 20, kind, 1]);
                bytes.extend([0; 15]);
                bytes.push(symbol);
            }
            bytes.extend([0xff, 0xdd, 0, 4, 0, 1, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
            // 10, -10 and 15, each padded with ones.
            bytes.extend([0b0101_0011, 0xff, 0xd0, 0b0010_1011, 0xff, second, 0b0111_1011]);
            bytes.extend([0xff, 0xd9]);
            bytes
        };
        let (width, height, pixels) = decode(&with_marker(0xd1), u64::MAX).expect("a picture");
        assert_eq!((width, height), (24, 8));
        assert_eq!([pixels[0], pixels[3 * 8], pixels[3 * 16]], [138, 118, 143]);
        assert!(decode(&with_marker(0xd2), u64::MAX).is_none(), "an interval is missing");
    }

    #[test]
    fn unusual_files_are_left_to_the_general_decoder() {
        assert!(decode(include_bytes!("../../../../tests/data/cmyk.jpg"), u64::MAX).is_none());
        assert!(decode(&PORTRAIT[..PORTRAIT.len() / 2], u64::MAX).is_none());
        assert!(decode(PORTRAIT, 1000).is_none(), "more memory than there is");
        assert!(decode(b"", u64::MAX).is_none());
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(
            at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = small();
            for (at, byte) in at {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            // A false header costs no more memory than the limit.
            let _ = decode(&bytes, 1 << 22);
            let _ = decode(&bytes[..cut.index(bytes.len())], 1 << 22);
        }
    }
}
