//! One scan of a JPEG: its header and its blocks in order (ITU-T T.81, B.2.3 and A.2).

use super::entropy::{self, BitReader, Huffman, Place};
use super::header::Header;
use super::{Block, Decoder, Fault, Flaw, Spectrum, ZIGZAG};

/// A component of a scan: its index, and its tables of DC and AC coefficients.
type Part<'t> = (usize, [Option<&'t Huffman>; 2]);

/// State carried from block to block of a scan.
#[derive(Default)]
struct Running {
    /// The last DC coefficient of each component.
    predictions: [i32; 4],
    /// Number of blocks left whose band has ended.
    end_of_band: u32,
}

impl Decoder {
    /// Decodes one scan. Returns the bytes after it.
    pub(super) fn scan<'a>(&mut self, segment: &[u8], data: &'a [u8]) -> Result<&'a [u8], Fault> {
        let header = self.header.as_mut().ok_or(Flaw::Header)?;
        let (count, list) = segment.split_first().ok_or(Flaw::Scan)?;
        let (list, spectrum) = list.split_at_checked(2 * usize::from(*count)).ok_or(Flaw::Scan)?;
        let spectrum = Spectrum::read(spectrum, header.progressive, list.len() / 2)?;
        let mut parts: Vec<Part<'_>> = Vec::new();
        let mut repeated = false;
        for one in list.as_chunks::<2>().0 {
            let index = header.components.iter().position(|component| component.id == one[0]);
            let index = index.ok_or(Flaw::Scan)?;
            if parts.last().is_some_and(|(before, _)| *before >= index) {
                return Err(Flaw::Scan.into());
            }
            let tables = [one[1] >> 4, one[1] & 15].map(usize::from);
            let of = |kind: usize| self.huffman[kind].get(tables[kind])?.as_ref();
            parts.push((index, [of(0), of(1)]));
            let component = &mut header.components[index];
            component.quantize(self.quantization.get(component.table).copied().flatten())?;
            let band = [spectrum.first, spectrum.last];
            repeated |= component.send(band, spectrum.refines, spectrum.shift)?;
        }
        let mut bits = BitReader::new(data);
        let mut at = 0;
        let done =
            blocks(header, &mut bits, &parts, spectrum, self.restart_interval, repeated, &mut at);
        let (height, mcu_rows) = (header.height, header.mcu_rows);
        done.and_then(|()| bits.end()).map_err(|flaw| {
            let line = (at * mcu_rows).min(height);
            Fault::Damaged(format!("{flaw} near line {line} of {height}"))
        })
    }
}

impl Spectrum {
    /// Reads the end of a scan's header. `count` is its number of components.
    fn read(bytes: &[u8], progressive: bool, count: usize) -> Result<Self, Flaw> {
        let &[first, last, bits] = bytes else { return Err(Flaw::Scan) };
        let whole = (first, last, bits) == (0, 63, 0);
        let (high, low) = (bits >> 4, bits & 15);
        let part = low < 14
            && (high == 0 || high == low + 1)
            && match (first, last) {
                (0, 0) => true,
                (1.., ..64) => first <= last && count == 1,
                _ => false,
            };
        if count == 0 || !(if progressive { part } else { whole }) {
            return Err(Flaw::Scan);
        }
        Ok(Self {
            first: usize::from(first),
            last: usize::from(last),
            refines: high != 0,
            shift: u32::from(low),
        })
    }
}

/// Decodes all blocks of a scan. `row` follows the rows of MCUs.
fn blocks(
    header: &mut Header,
    bits: &mut BitReader<'_>,
    parts: &[Part<'_>],
    spectrum: Spectrum,
    restart_interval: usize,
    repeated: bool,
    row: &mut usize,
) -> Result<(), Flaw> {
    let mut state = Running::default();
    let single = parts.len() == 1;
    let [across, down] = match parts {
        // A scan of one component is not interleaved and has no padding blocks.
        [(index, _)] => {
            let component = &header.components[*index];
            [component.width.div_ceil(8), component.height.div_ceil(8)]
        }
        _ => header.mcus,
    };
    // A block that is only checked, and one that was sent before.
    let (mut other, mut first): (Block, Block) = ([0; 64], [0; 64]);
    for mcu in 0..across * down {
        if restart_interval > 0 && mcu > 0 && mcu % restart_interval == 0 {
            if state.end_of_band > 0 {
                return Err(Flaw::Left);
            }
            bits.restart((mcu / restart_interval - 1) % 8)?;
            state = Running::default();
        }
        let (x, y) = (mcu % across, mcu / across);
        *row = if single { y * header.mcus[1] / down } else { y };
        for (index, tables) in parts {
            let component = &mut header.components[*index];
            let (h, v) = if single { (1, 1) } else { (component.h, component.v) };
            for at in 0..h * v {
                let (column, row) = (x * h + at % h, y * v + at / h);
                let kept = component.blocks.get_mut(row * component.stride + column);
                let block = match kept {
                    Some(ref block) if repeated => {
                        first = **block;
                        other = [0; 64];
                        &mut other
                    }
                    Some(block) => block,
                    None => {
                        other = [0; 64];
                        &mut other
                    }
                };
                let mut place = Place { block, limits: &component.limits };
                let prediction = &mut state.predictions[*index];
                if header.progressive {
                    let run = &mut state.end_of_band;
                    entropy::progressive(bits, tables, spectrum, &mut place, prediction, run)?;
                } else {
                    entropy::sequential(bits, tables, &mut place, prediction)?;
                }
                let band = &ZIGZAG[spectrum.first..=spectrum.last];
                if repeated && band.iter().any(|at| other[*at] != first[*at]) {
                    return Err(Flaw::Scans);
                }
            }
        }
    }
    if state.end_of_band > 0 { Err(Flaw::Left) } else { Ok(()) }
}
