//! Max pooling. Plain loops are enough: the compiler vectorizes them on every machine.

use super::{CHANNELS, Kernel};

/// Maximum of each window, per channel.
pub struct MaxPool {
    signed: bool,
    height: usize,
    width: usize,
    stride: usize,
    /// Stored channels of a pixel, a multiple of 16.
    stored: usize,
}

/// A row of windows in the input.
pub struct Row {
    /// Offset of the first window in the input, in bytes.
    pub source: usize,
    /// Number of pixel rows from the windows' top to the end of the picture.
    pub rows: usize,
    /// Width of the picture in pixels.
    pub columns: usize,
    /// Distance from one row to the next, in pixels.
    pub pitch: usize,
}

impl MaxPool {
    /// Windows of `height` by `width` pixels, `stride` pixels apart. A pixel has `stored`
    /// bytes, a multiple of [`CHANNELS`].
    pub fn new(
        kernel: Kernel,
        (height, width): (usize, usize),
        stride: usize,
        stored: usize,
    ) -> Self {
        Self { signed: kernel.offset() == 0, height, width, stride, stored }
    }

    /// Fills one row of the output, one pixel of `stored` bytes per window. If a window
    /// reaches beyond the picture, only its part within counts.
    pub fn run(&self, row: &Row, input: &[u8], output: &mut [u8]) {
        if self.signed {
            self.run_as(row, input, output, |a, b| a.cast_signed().max(b.cast_signed()) as u8);
        } else {
            self.run_as(row, input, output, u8::max);
        }
    }

    #[inline(always)]
    fn run_as(
        &self,
        row: &Row,
        input: &[u8],
        output: &mut [u8],
        larger: impl Fn(u8, u8) -> u8 + Copy,
    ) {
        let height = self.height.min(row.rows);
        for (x, pixel) in output.chunks_exact_mut(self.stored).enumerate() {
            let column = x * self.stride;
            let width = self.width.min(row.columns - column);
            let source = row.source + column * self.stored;
            for (group, out) in pixel.as_chunks_mut::<CHANNELS>().0.iter_mut().enumerate() {
                let at = source + group * CHANNELS;
                let mut largest = [0; CHANNELS];
                largest.copy_from_slice(&input[at..at + CHANNELS]);
                for y in 0..height {
                    for x in 0..width {
                        let at = at + (y * row.pitch + x) * self.stored;
                        let Some((bytes, _)) = input[at..].split_first_chunk::<CHANNELS>() else {
                            continue;
                        };
                        for lane in 0..CHANNELS {
                            largest[lane] = larger(largest[lane], bytes[lane]);
                        }
                    }
                }
                *out = largest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_largest_of_what_lies_within(
            (rows, columns) in (1usize..7, 1usize..7), side in 1usize..4, stride in 1usize..3,
            groups in 1usize..3, seed in any::<u8>(),
        ) {
            let stored = groups * CHANNELS;
            let bytes: Vec<u8> = (0..rows * columns * stored)
                .map(|at| (at as u8).wrapping_mul(37).wrapping_add(seed))
                .collect();
            let kernels = Kernel::ALL.into_iter().filter(|kernel| kernel.is_available());
            for kernel in kernels {
                let pool = MaxPool::new(kernel, (side, side), stride, stored);
                let windows = if columns < side { 1 } else { (columns - side).div_ceil(stride) + 1 };
                let windows = windows.min(columns.div_ceil(stride));
                let mut out = vec![0; windows * stored];
                let row = Row { source: 0, rows, columns, pitch: columns };
                pool.run(&row, &bytes, &mut out);
                for (at, got) in out.iter().enumerate() {
                    let (x, channel) = (at / stored * stride, at % stored);
                    let taps = (0..side.min(rows)).flat_map(|dy| {
                        (x..(x + side).min(columns)).map(move |x| (dy * columns + x) * stored)
                    });
                    let number = |byte: u8| {
                        i32::from(byte) - if kernel.offset() == 0 && byte > 127 { 256 } else { 0 }
                    };
                    let expected = taps.map(|tap| number(bytes[tap + channel])).max();
                    prop_assert_eq!(Some(number(*got)), expected);
                }
            }
        }
    }
}
