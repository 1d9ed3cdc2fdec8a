//! The frame header of a JPEG and its colour components (ITU-T T.81, B.2.2).

use super::markers::word;
use super::{Block, Flaw};

/// State of a coefficient of which nothing was sent.
const UNSENT: u8 = u8::MAX;

/// One colour component of the picture.
pub(super) struct Component {
    pub(super) id: u8,
    /// Sampling factors.
    pub(super) h: usize,
    pub(super) v: usize,
    /// Number of its quantization table.
    pub(super) table: usize,
    /// Quantization table in the order of a block; `None` before its first scan.
    pub(super) quantization: Option<[u16; 64]>,
    /// Largest magnitude of each coefficient, in the order of a block.
    pub(super) limits: Block,
    /// Size of the component in samples, without padding.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Blocks per row, padded to whole MCUs.
    pub(super) stride: usize,
    /// Empty if coefficients are only checked.
    pub(super) blocks: Vec<Block>,
    /// Number of low bits still missing of each coefficient, in zigzag order.
    sent: [u8; 64],
}

impl Component {
    /// Notes that a scan sends coefficients `first` to `last`, down to bit `shift`. Returns
    /// whether it repeats one that was sent before.
    ///
    /// # Errors
    /// If the scan refines bits that are not the next ones.
    pub(super) fn send(
        &mut self,
        [first, last]: [usize; 2],
        refines: bool,
        shift: u32,
    ) -> Result<bool, Flaw> {
        let band = self.sent.get_mut(first..=last).ok_or(Flaw::Scan)?;
        let shift = shift as u8;
        let fresh = if refines { shift + 1 } else { UNSENT };
        let repeated = !refines && band.iter().all(|sent| *sent == shift);
        if !repeated && band.iter().any(|sent| *sent != fresh) {
            return Err(Flaw::Scans);
        }
        band.fill(shift);
        Ok(repeated)
    }

    /// Whether all bits of all coefficients were sent.
    pub(super) fn is_complete(&self) -> bool {
        self.sent == [0; 64]
    }

    /// Takes the quantization table that is in force at the first scan of the component.
    pub(super) fn quantize(&mut self, table: Option<[u16; 64]>) -> Result<(), Flaw> {
        if self.quantization.is_some() {
            return Ok(());
        }
        let table = table.filter(|table| !table.contains(&0)).ok_or(Flaw::Table)?;
        self.limits = table.map(largest);
        self.quantization = Some(table);
        Ok(())
    }
}

/// Largest magnitude of a coefficient with quantization step `step`. Coefficients of 8-bit
/// samples reach 1,024; one encoder raises samples beside white by up to 31.
fn largest(step: u16) -> i16 {
    const LARGEST: u32 = 8 * (128 + 32);
    let step = u32::from(step);
    (LARGEST.div_ceil(step.max(1)) + 1) as i16
}

/// The frame header.
pub(super) struct Header {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) progressive: bool,
    /// Number of MCUs across and down.
    pub(super) mcus: [usize; 2],
    /// Rows of pixels in an MCU.
    pub(super) mcu_rows: usize,
    /// Whether the coefficients are kept to make pixels.
    pub(super) kept: bool,
    pub(super) components: Vec<Component>,
}

impl Header {
    /// Reads the segment. `lines` replaces its number of lines unless it is 0.
    pub(super) fn read(
        segment: &[u8],
        progressive: bool,
        lines: usize,
        memory: u64,
    ) -> Result<Self, Flaw> {
        let &[8, _, _, _, _, count, ref list @ ..] = segment else { return Err(Flaw::Header) };
        let side = |at: usize| word(segment, at).map(usize::from).ok_or(Flaw::Header);
        let (height, width) = (if lines > 0 { lines } else { side(1)? }, side(3)?);
        let factors: Vec<[usize; 2]> =
            list.chunks_exact(3).map(|one| [one[1] >> 4, one[1] & 15].map(usize::from)).collect();
        if width == 0
            || height == 0
            || list.len() != 3 * usize::from(count)
            || !(1..=4).contains(&count)
            || factors.iter().flatten().any(|factor| !(1..=4).contains(factor))
        {
            return Err(Flaw::Header);
        }
        // The sampling factors of a single component have no effect.
        let factors = if let [_] = factors[..] { vec![[1, 1]] } else { factors };
        let usual = matches!(factors[..], [[1, 1]] | [[1 | 2, 1] | [1 | 2, 2], [1, 1], [1, 1]]);
        let most = |axis: usize| factors.iter().map(|one| one[axis]).max().unwrap_or(1);
        let [across, down] = [most(0), most(1)];
        let mcus = [width.div_ceil(8 * across), height.div_ceil(8 * down)];
        let mut components = Vec::new();
        let mut samples = 0u64;
        for (one, [h, v]) in list.chunks_exact(3).zip(factors) {
            let stride = mcus[0] * h;
            samples += 64 * (stride * mcus[1] * v) as u64;
            components.push(Component {
                id: one[0],
                h,
                v,
                table: usize::from(one[2]),
                quantization: None,
                limits: [0; 64],
                width: (width * h).div_ceil(across),
                height: (height * v).div_ceil(down),
                stride,
                blocks: Vec::new(),
                sent: [UNSENT; 64],
            });
        }
        // Peak memory: two bytes per coefficient plus one per sample, or samples plus
        // pixels.
        let peak = (3 * samples).max(samples + 3 * width as u64 * height as u64);
        let kept = usual && peak <= memory;
        // What refines coefficients must know them.
        if kept || progressive {
            for component in &mut components {
                component.blocks = vec![[0; 64]; component.stride * mcus[1] * component.v];
            }
        }
        let mcu_rows = 8 * down;
        Ok(Self { width, height, progressive, mcus, mcu_rows, kept, components })
    }
}
