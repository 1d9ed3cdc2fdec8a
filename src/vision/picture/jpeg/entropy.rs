//! Huffman-coded coefficients (ITU-T T.81, annexes F and G).

use super::markers::marker;
use super::{Block, Spectrum, ZIGZAG};
use std::ops::RangeInclusive;

/// Longest code, bits, that is decoded by a single table look-up.
const FAST: u32 = 9;

/// A Huffman table.
pub(super) struct Huffman {
    /// Indexed by the next [`FAST`] bits: length of the code in the upper byte, symbol in
    /// the lower byte; 0 if the code is longer.
    fast: [u16; 1 << FAST],
    /// Indexed by the length of a code: the first code beyond it, left-aligned to 16 bits.
    beyond: [u32; 17],
    /// Indexed by the length of a code: the code minus this is the index of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// A table from the number of codes of each length from 1 to 16 and their symbols in
    /// order. `None` if there are more codes than the lengths allow.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            fast: [0; 1 << FAST],
            beyond: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0u32, 0u32);
        for (length, count) in (1u32..).zip(counts) {
            table.offsets[length as usize] = code as i32 - index as i32;
            for _ in 0..*count {
                let symbol = u16::from(*symbols.get(index as usize)?);
                if length <= FAST {
                    let first = (code << (FAST - length)) as usize;
                    let same = table.fast.get_mut(first..first + (1 << (FAST - length)))?;
                    same.fill((length as u16) << 8 | symbol);
                }
                code += 1;
                index += 1;
            }
            if code > 1 << length {
                return None;
            }
            table.beyond[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }
}

/// Reads the bits of a scan up to the next marker, without the zeros stuffed after 0xff.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, left-aligned.
    waiting: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, waiting: 0, count: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at..) {
                Some(&[0xff, 0x00, ..]) => {
                    self.at += 2;
                    0xff
                }
                None | Some(&[] | &[0xff, ..]) => return,
                Some(&[byte, ..]) => {
                    self.at += 1;
                    byte
                }
            };
            self.waiting |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        // `None` at the end of the data; missing bits must not be read as zeros.
        self.count = self.count.checked_sub(count)?;
        self.waiting <<= count;
        Some(())
    }

    /// The next `count` bits, at most 16, as an unsigned number.
    fn bits(&mut self, count: u32) -> Option<u32> {
        if count == 0 {
            return Some(0);
        }
        if self.count < count {
            self.fill();
        }
        let bits = (self.waiting >> (64 - count)) as u32;
        self.skip(count)?;
        Some(bits)
    }

    fn symbol(&mut self, table: &Huffman) -> Option<u8> {
        if self.count < 16 {
            self.fill();
        }
        let found = table.fast[(self.waiting >> (64 - FAST)) as usize];
        if found != 0 {
            self.skip(u32::from(found >> 8))?;
            return Some(found as u8);
        }
        let code = (self.waiting >> 48) as u32;
        let length = (FAST + 1..=16).find(|length| code < table.beyond[*length as usize])?;
        self.skip(length)?;
        let index = (code >> (16 - length)) as i32 - table.offsets[length as usize];
        table.symbols.get(usize::try_from(index).ok()?).copied()
    }

    /// The next `count` bits, at most 16, as a signed number (T.81, EXTEND).
    fn signed(&mut self, count: u32) -> Option<i32> {
        let bits = self.bits(count)? as i32;
        let positive = count == 0 || bits >> (count - 1) != 0;
        Some(if positive { bits } else { bits - (1 << count) + 1 })
    }

    /// Continues after the restart marker with this number. `None` if another follows.
    pub(super) fn restart(&mut self, number: usize) -> Option<()> {
        let (marker, after) = marker(self.rest()?)?;
        if usize::from(marker) != 0xd0 + number {
            return None;
        }
        *self = Self::new(after);
        Some(())
    }

    /// The bytes from the next marker on. `None` if a byte or more is left before it.
    pub(super) fn rest(&mut self) -> Option<&'a [u8]> {
        self.fill();
        if self.count >= 8 { None } else { self.bytes.get(self.at..) }
    }
}

/// Decodes a block of a sequential scan. `None` if the data is damaged.
pub(super) fn sequential(
    bits: &mut BitReader<'_>,
    [dc, ac]: &[Option<&Huffman>; 2],
    block: &mut Block,
    prediction: &mut i32,
) -> Option<()> {
    first_of_dc(bits, (*dc)?, 0, block, prediction)?;
    coefficients(bits, (*ac)?, 1..=63, 0, block)?;
    Some(())
}

/// Decodes a block of a progressive scan. `end_of_band` is the number of blocks, including
/// this one, without new coefficients in the band. `None` if the data is damaged.
pub(super) fn progressive(
    bits: &mut BitReader<'_>,
    [dc, ac]: &[Option<&Huffman>; 2],
    spectrum: Spectrum,
    block: &mut Block,
    prediction: &mut i32,
    end_of_band: &mut u32,
) -> Option<()> {
    match (spectrum.first, spectrum.refines) {
        (0, false) => first_of_dc(bits, (*dc)?, spectrum.shift, block, prediction)?,
        (0, true) => block[0] |= (bits.bits(1)? as i16) << spectrum.shift,
        (_, false) => first_of_band(bits, (*ac)?, spectrum, block, end_of_band)?,
        (_, true) => more_of_band(bits, (*ac)?, spectrum, block, end_of_band)?,
    }
    Some(())
}

/// Reads the difference of a DC coefficient to the one before it.
fn first_of_dc(
    bits: &mut BitReader<'_>,
    dc: &Huffman,
    shift: u32,
    block: &mut Block,
    prediction: &mut i32,
) -> Option<()> {
    let size = u32::from(bits.symbol(dc)?);
    *prediction += bits.signed(size.min(16))?;
    block[0] = i16::try_from(i64::from(*prediction) << shift).ok()?;
    Some(())
}

/// Reads the AC coefficients of a band, shifted left by `shift` bits. Returns the run of
/// zeros in the symbol that ends the band early, if one does.
#[inline]
fn coefficients(
    bits: &mut BitReader<'_>,
    ac: &Huffman,
    band: RangeInclusive<usize>,
    shift: u32,
    block: &mut Block,
) -> Option<Option<usize>> {
    let (mut at, last) = band.into_inner();
    while at <= last {
        let symbol = bits.symbol(ac)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        match (run, size) {
            (15, 0) => at += 16,
            (_, 0) => return Some(Some(run)),
            _ => {
                at += run;
                let place = *ZIGZAG.get(at)?;
                block[place] = i16::try_from(bits.signed(size)? << shift).ok()?;
                at += 1;
            }
        }
    }
    Some(None)
}

fn run_of_ends(bits: &mut BitReader<'_>, size: usize) -> Option<u32> {
    Some((1 << size) + bits.bits(size as u32)?)
}

/// First scan of a band (T.81, figure G.3).
fn first_of_band(
    bits: &mut BitReader<'_>,
    ac: &Huffman,
    Spectrum { first, last, shift, .. }: Spectrum,
    block: &mut Block,
    end_of_band: &mut u32,
) -> Option<()> {
    if *end_of_band > 0 {
        *end_of_band -= 1;
        return Some(());
    }
    if let Some(run) = coefficients(bits, ac, first..=last, shift, block)? {
        *end_of_band = run_of_ends(bits, run)? - 1;
    }
    Some(())
}

/// Refinement scan of a band, one more bit (T.81, figure G.7).
fn more_of_band(
    bits: &mut BitReader<'_>,
    ac: &Huffman,
    Spectrum { first, last, shift, .. }: Spectrum,
    block: &mut Block,
    end_of_band: &mut u32,
) -> Option<()> {
    let one = 1i16 << shift;
    let mut at = first;
    if *end_of_band == 0 {
        while at <= last {
            let symbol = bits.symbol(ac)?;
            let (mut run, size) = (usize::from(symbol >> 4), symbol & 15);
            let new = match (run, size) {
                (15, 0) => 0,
                (_, 0) => {
                    *end_of_band = run_of_ends(bits, run)?;
                    break;
                }
                (_, 1) if bits.bits(1)? == 1 => one,
                (_, 1) => -one,
                _ => return None,
            };
            // Skip `run` coefficients that are still zero, up to the new one. Nonzero
            // coefficients in between get one more bit.
            while at <= last {
                let value = &mut block[ZIGZAG[at]];
                at += 1;
                if *value != 0 {
                    refine(bits, value, one)?;
                } else if run > 0 {
                    run -= 1;
                } else {
                    *value = new;
                    break;
                }
            }
        }
    }
    if *end_of_band > 0 {
        for place in ZIGZAG.iter().take(last + 1).skip(at) {
            if block[*place] != 0 {
                refine(bits, &mut block[*place], one)?;
            }
        }
        *end_of_band -= 1;
    }
    Some(())
}

fn refine(bits: &mut BitReader<'_>, value: &mut i16, one: i16) -> Option<()> {
    if bits.bits(1)? == 1 && *value & one == 0 {
        *value = value.checked_add(if *value > 0 { one } else { -one })?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes 0, 10, 110 and 11100000000 (eleven bits).
    fn table() -> Huffman {
        let mut counts = [0; 16];
        (counts[0], counts[1], counts[2], counts[10]) = (1, 1, 1, 1);
        Huffman::new(&counts, &[7, 8, 9, 10]).expect("a table")
    }

    #[test]
    fn codes_are_read_bit_by_bit_over_stuffed_zeros() {
        // 0 10 110 11100000000, then 1s up to a marker.
        let data = [0b0101_1011, 0b1000_0000, 0b0111_1111, 0xff, 0x00, 0xff, 0xd9];
        let mut bits = BitReader::new(&data);
        let read: Vec<u8> = (0..4).map(|_| bits.symbol(&table()).expect("a code")).collect();
        assert_eq!(read, [7, 8, 9, 10]);
        assert_eq!(bits.bits(7), Some(0x7f));
        assert_eq!(bits.bits(8), Some(0xff));
        assert_eq!(bits.bits(1), None, "nothing is made up behind the end");
        assert_eq!(bits.rest(), Some(&[0xff, 0xd9][..]));
    }

    #[test]
    fn a_code_that_is_none_is_refused() {
        assert_eq!(BitReader::new(&[0xff, 0x00, 0xff, 0x00]).symbol(&table()), None);
        let mut counts = [0; 16];
        counts[0] = 3;
        assert!(Huffman::new(&counts, &[1, 2, 3]).is_none(), "one bit tells two apart");
        assert!(Huffman::new(&[0; 16], &[]).is_some());
    }

    #[test]
    fn numbers_are_negative_below_the_half_of_their_range() {
        for (size, byte, value) in [(1, 0x00, -1), (1, 0x80, 1), (3, 0x00, -7), (3, 0x80, 4)] {
            assert_eq!(BitReader::new(&[byte]).signed(size), Some(value));
        }
        assert_eq!(BitReader::new(&[]).signed(0), Some(0));
    }
}
