//! Huffman-coded coefficients (ITU-T T.81, annexes F and G).

use super::markers::marker;
use super::{Block, Flaw, Spectrum, ZIGZAG};
use std::ops::RangeInclusive;

type Result<T> = std::result::Result<T, Flaw>;

/// Bytes before a restart marker that libjpeg skips with a warning: some webcams put up to
/// ten there.
const FEW_LEFT: usize = 16;
/// Most bytes before a marker if the data before them ends as it should.
const MOST_LEFT: usize = 64;
/// A block has fewer coefficients than this if all are alike. Zeros in place of data give
/// blocks of 63; in a picture, the coefficients of a block fall off with the frequency.
const MOST_ALIKE: usize = 48;
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
    /// order. `None` if there are more codes than the lengths allow, or two of one symbol.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut known = [false; 256];
        if symbols.iter().any(|symbol| std::mem::replace(&mut known[usize::from(*symbol)], true)) {
            return None;
        }
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

    fn skip(&mut self, count: u32) -> Result<()> {
        // An error at the end of the data; missing bits must not be read as zeros.
        self.count = self.count.checked_sub(count).ok_or(Flaw::Ended)?;
        self.waiting <<= count;
        Ok(())
    }

    /// The next `count` bits, at most 16, as an unsigned number.
    fn bits(&mut self, count: u32) -> Result<u32> {
        if count == 0 {
            return Ok(0);
        }
        if self.count < count {
            self.fill();
        }
        let bits = (self.waiting >> (64 - count)) as u32;
        self.skip(count)?;
        Ok(bits)
    }

    fn symbol(&mut self, table: &Huffman) -> Result<u8> {
        if self.count < 16 {
            self.fill();
        }
        let found = table.fast[(self.waiting >> (64 - FAST)) as usize];
        if found != 0 {
            self.skip(u32::from(found >> 8))?;
            return Ok(found as u8);
        }
        let code = (self.waiting >> 48) as u32;
        let length = (FAST + 1..=16).find(|length| code < table.beyond[*length as usize]);
        let Some(length) = length else {
            return Err(if self.count < 16 { Flaw::Ended } else { Flaw::Code });
        };
        self.skip(length)?;
        let index = (code >> (16 - length)) as i32 - table.offsets[length as usize];
        let symbol = usize::try_from(index).ok().and_then(|index| table.symbols.get(index));
        symbol.copied().ok_or(Flaw::Code)
    }

    /// The next `count` bits, at most 16, as a signed number (T.81, EXTEND).
    fn signed(&mut self, count: u32) -> Result<i32> {
        let bits = self.bits(count)? as i32;
        let positive = count == 0 || bits >> (count - 1) != 0;
        Ok(if positive { bits } else { bits - (1 << count) + 1 })
    }

    /// Continues after the restart marker with this number.
    pub(super) fn restart(&mut self, number: usize) -> Result<()> {
        let left = self.left();
        if left.count > FEW_LEFT && !left.is_padding() {
            return Err(Flaw::Left);
        }
        match marker(left.rest) {
            Some((marker, after)) if usize::from(marker) == 0xd0 + number => {
                *self = Self::new(after);
                Ok(())
            }
            _ => Err(Flaw::Restart),
        }
    }

    /// The bytes from the next marker on, once all blocks before it are read.
    ///
    /// # Errors
    /// If more is left before the marker than encoders put there.
    pub(super) fn end(&mut self) -> Result<&'a [u8]> {
        let left = self.left();
        let few = left.count <= FEW_LEFT && left.ones;
        if left.count == 0 || few || left.is_padding() { Ok(left.rest) } else { Err(Flaw::Left) }
    }

    fn left(&mut self) -> Left<'a> {
        self.fill();
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (before, rest) = rest.split_at(super::markers::before_marker(rest));
        let bits = self.count % 8;
        Left {
            count: self.count as usize / 8 + before.len(),
            bits,
            ones: self.waiting.leading_ones() >= bits,
            even: before.windows(2).all(|pair| pair[0] == pair[1]),
            rest,
        }
    }
}

/// What is left before a marker once all blocks before it are read.
struct Left<'a> {
    /// Whole bytes.
    count: usize,
    /// Bits before these bytes, and whether all are ones, which fill up the last byte.
    bits: u32,
    ones: bool,
    /// Whether the bytes are all the same.
    even: bool,
    /// The bytes from the marker on.
    rest: &'a [u8],
}

impl Left<'_> {
    /// Whether the data was complete and other bytes follow it. Lost or overwritten data
    /// seldom ends in filled-up bits, and leaves more.
    fn is_padding(&self) -> bool {
        self.bits > 0 && self.ones && (self.count <= MOST_LEFT || self.even)
    }
}

/// Where coefficients go.
pub(super) struct Place<'b> {
    pub(super) block: &'b mut Block,
    /// Largest magnitude of each coefficient, in the order of a block.
    pub(super) limits: &'b Block,
}

impl Place<'_> {
    /// Sets the coefficient at `at` in zigzag order.
    fn set(&mut self, at: usize, value: i32, shift: u32) -> Result<()> {
        let place = *ZIGZAG.get(at).ok_or(Flaw::Coefficient)?;
        let value = i64::from(value) << shift;
        if value.unsigned_abs() > u64::from(self.limits[place].unsigned_abs()) {
            return Err(Flaw::Coefficient);
        }
        self.block[place] = value as i16;
        Ok(())
    }
}

/// Decodes a block of a sequential scan.
pub(super) fn sequential(
    bits: &mut BitReader<'_>,
    [dc, ac]: &[Option<&Huffman>; 2],
    place: &mut Place<'_>,
    prediction: &mut i32,
) -> Result<()> {
    first_of_dc(bits, dc.ok_or(Flaw::Table)?, 0, place, prediction)?;
    // Only a progressive scan ends the bands of several blocks at once.
    match coefficients(bits, ac.ok_or(Flaw::Table)?, 1..=63, 0, place)? {
        None | Some(0) => Ok(()),
        Some(_) => Err(Flaw::Code),
    }
}

/// Decodes a block of a progressive scan. `end_of_band` is the number of blocks, including
/// this one, without new coefficients in the band.
pub(super) fn progressive(
    bits: &mut BitReader<'_>,
    [dc, ac]: &[Option<&Huffman>; 2],
    spectrum: Spectrum,
    place: &mut Place<'_>,
    prediction: &mut i32,
    end_of_band: &mut u32,
) -> Result<()> {
    let (dc, ac) = (dc.ok_or(Flaw::Table), ac.ok_or(Flaw::Table));
    match (spectrum.first, spectrum.refines) {
        (0, false) => first_of_dc(bits, dc?, spectrum.shift, place, prediction),
        (0, true) => {
            place.block[0] |= (bits.bits(1)? as i16) << spectrum.shift;
            Ok(())
        }
        (_, false) => first_of_band(bits, ac?, spectrum, place, end_of_band),
        (_, true) => more_of_band(bits, ac?, spectrum, place.block, end_of_band),
    }
}

/// Reads the difference of a DC coefficient to the one before it.
fn first_of_dc(
    bits: &mut BitReader<'_>,
    dc: &Huffman,
    shift: u32,
    place: &mut Place<'_>,
    prediction: &mut i32,
) -> Result<()> {
    let size = u32::from(bits.symbol(dc)?);
    if size > 16 {
        return Err(Flaw::Code);
    }
    *prediction += bits.signed(size)?;
    place.set(0, *prediction, shift)
}

/// Reads the AC coefficients of a band, shifted left by `shift` bits. Returns the run of
/// zeros in the symbol that ends the band early, if one does.
#[inline]
fn coefficients(
    bits: &mut BitReader<'_>,
    ac: &Huffman,
    band: RangeInclusive<usize>,
    shift: u32,
    place: &mut Place<'_>,
) -> Result<Option<usize>> {
    let (mut at, last) = band.into_inner();
    // Number of coefficients, and whether all are alike.
    let (mut count, mut alike, mut before) = (0, true, 0);
    while at <= last {
        let symbol = bits.symbol(ac)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        match (run, size) {
            (15, 0) => at += 16,
            (_, 0) => return Ok(Some(run)),
            _ => {
                at += run;
                if at > last {
                    return Err(Flaw::Coefficient);
                }
                let value = bits.signed(size)?;
                place.set(at, value, shift)?;
                at += 1;
                alike &= count == 0 || value == before;
                before = value;
                count += 1;
            }
        }
    }
    if at > last + 1 || (alike && count >= MOST_ALIKE) {
        return Err(Flaw::Coefficient);
    }
    Ok(None)
}

fn run_of_ends(bits: &mut BitReader<'_>, size: usize) -> Result<u32> {
    Ok((1 << size) + bits.bits(size as u32)?)
}

/// First scan of a band (T.81, figure G.3).
fn first_of_band(
    bits: &mut BitReader<'_>,
    ac: &Huffman,
    Spectrum { first, last, shift, .. }: Spectrum,
    place: &mut Place<'_>,
    end_of_band: &mut u32,
) -> Result<()> {
    if *end_of_band > 0 {
        *end_of_band -= 1;
        return Ok(());
    }
    if let Some(run) = coefficients(bits, ac, first..=last, shift, place)? {
        *end_of_band = run_of_ends(bits, run)? - 1;
    }
    Ok(())
}

/// Refinement scan of a band, one more bit (T.81, figure G.7).
fn more_of_band(
    bits: &mut BitReader<'_>,
    ac: &Huffman,
    Spectrum { first, last, shift, .. }: Spectrum,
    block: &mut Block,
    end_of_band: &mut u32,
) -> Result<()> {
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
                _ => return Err(Flaw::Code),
            };
            // Skip `run` coefficients that are still zero, up to the new one. Nonzero
            // coefficients in between get one more bit.
            let mut placed = false;
            while at <= last && !placed {
                let value = &mut block[ZIGZAG[at]];
                at += 1;
                if *value != 0 {
                    refine(bits, value, one)?;
                } else if run > 0 {
                    run -= 1;
                } else {
                    *value = new;
                    placed = true;
                }
            }
            if !placed {
                return Err(Flaw::Coefficient);
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
    Ok(())
}

fn refine(bits: &mut BitReader<'_>, value: &mut i16, one: i16) -> Result<()> {
    if bits.bits(1)? == 1 && *value & one == 0 {
        let more = if *value > 0 { one } else { -one };
        *value = value.checked_add(more).ok_or(Flaw::Coefficient)?;
    }
    Ok(())
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
        assert_eq!(bits.bits(7), Ok(0x7f));
        assert_eq!(bits.bits(8), Ok(0xff));
        assert_eq!(bits.bits(1), Err(Flaw::Ended), "nothing is made up behind the end");
        assert_eq!(bits.end(), Ok(&[0xff, 0xd9][..]));
    }

    #[test]
    fn a_code_that_is_none_is_refused() {
        assert_eq!(BitReader::new(&[0xff, 0x00, 0xff, 0x00]).symbol(&table()), Err(Flaw::Code));
        let mut counts = [0; 16];
        counts[0] = 3;
        assert!(Huffman::new(&counts, &[1, 2, 3]).is_none(), "one bit tells two apart");
        assert!(Huffman::new(&[0; 16], &[]).is_some());
    }

    #[test]
    fn numbers_are_negative_below_the_half_of_their_range() {
        for (size, byte, value) in [(1, 0x00, -1), (1, 0x80, 1), (3, 0x00, -7), (3, 0x80, 4)] {
            assert_eq!(BitReader::new(&[byte]).signed(size), Ok(value));
        }
        assert_eq!(BitReader::new(&[]).signed(0), Ok(0));
    }
}
