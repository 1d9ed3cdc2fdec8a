//! Resampling: cuts a rectangle out of a frame at another size.
//!
//! Shrinking averages over the area that each output pixel covers; enlarging interpolates
//! bilinearly. Pixels outside the frame are black. The axes are separable: rows are summed
//! first, then columns, in 16-bit fixed point.

use crate::nn::kernels::{ONE, SLACK, STEPS, Taps, weighted_pixels, weighted_rows};
use crate::vision::frame::{Frame, Rect};

/// Number of values per output pixel: red, green, blue and an unused one.
pub const PIXEL: usize = 4;
/// Steps of an output value per step of a byte.
pub const ONE_BYTE: i16 = STEPS;

/// Bytes per pixel of a frame.
const CHANNELS: usize = 3;

/// Rounding of the output values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Rounded to whole bytes, as in a picture with 8 bits per channel.
    Whole,
    /// Rounded to steps of 1/128.
    Exact,
}

/// Bilinear or area weights of one axis: for each output pixel the first source pixel and
/// the weights of the source pixels from there on.
#[derive(Debug, Default)]
struct Axis {
    starts: Vec<usize>,
    counts: Vec<usize>,
    weights: Vec<i16>,
    /// The weights before rounding.
    shares: Vec<f32>,
    taps: usize,
}

impl Axis {
    /// Sets the weights for `outputs` pixels over `[from, to)`: output pixel `i` covers
    /// `[from + i * step, from + (i + 1) * step)`. The weights of an output within the
    /// picture add up to [`ONE`].
    fn set(&mut self, (from, to): (f32, f32), outputs: usize, sources: usize) {
        let step = (to - from) / outputs as f32;
        let limit = sources as f32;
        // An area of length `step` touches at most this many pixels.
        self.taps = if step > 1.0 { (step.ceil() as usize + 1).min(sources) } else { 2 };
        self.taps = self.taps.next_multiple_of(2);
        self.starts.clear();
        self.counts.clear();
        self.weights.clear();
        self.weights.resize(outputs * self.taps, 0);
        self.shares.clear();
        self.shares.resize(outputs * self.taps, 0.0);
        for output in 0..outputs {
            let places = output * self.taps..(output + 1) * self.taps;
            let (weights, shares) = (&mut self.weights[places.clone()], &mut self.shares[places]);
            let mut count = 0;
            let mut start = 0;
            // Round the running sum, so that rounding errors do not accumulate.
            let (mut share, mut given) = (0.0f32, 0.0f32);
            let mut add = |weight: f32| {
                share += weight;
                let whole = (share * f32::from(ONE)).round() - given;
                given += whole;
                whole as i16
            };
            if step > 1.0 {
                let low = from + output as f32 * step;
                let high = low + step;
                let first = low.max(0.0).floor();
                let last = high.min(limit).ceil();
                start = first as usize;
                let mut pixel = first;
                while pixel < last && count < weights.len() {
                    let covered = high.min(pixel + 1.0) - low.max(pixel);
                    shares[count] = (covered / step).max(0.0);
                    weights[count] = add(shares[count]);
                    count += 1;
                    pixel += 1.0;
                }
            } else {
                let center = from + (output as f32 + 0.5) * step - 0.5;
                // Within half a pixel of the border the border pixel is repeated, if the
                // point itself lies in the picture.
                let inside = center >= -0.5 && center <= limit - 0.5;
                let center = if inside { center.clamp(0.0, limit - 1.0) } else { center };
                let left = center.floor();
                let share = center - left;
                for (pixel, weight) in [(left, 1.0 - share), (left + 1.0, share)] {
                    if pixel >= 0.0 && pixel < limit && weight > 0.0 {
                        if count == 0 {
                            start = pixel as usize;
                        }
                        shares[count] = weight;
                        weights[count] = add(weight);
                        count += 1;
                    }
                }
            }
            self.starts.push(start.min(sources));
            self.counts.push(count.min(sources - start.min(sources)));
        }
    }

    fn of(&self, output: usize) -> (usize, &[i16]) {
        let from = output * self.taps;
        (self.starts[output], &self.weights[from..from + self.counts[output]])
    }

    fn shares(&self, output: usize) -> (usize, &[f32]) {
        let from = output * self.taps;
        (self.starts[output], &self.shares[from..from + self.counts[output]])
    }

    fn taps(&self) -> Taps<'_> {
        let Self { starts, counts, weights, taps, .. } = self;
        Taps { starts, counts, weights, pitch: *taps }
    }

    /// The range of source pixels used by any output: the first, and one past the last.
    fn touched(&self) -> (usize, usize) {
        let ends = self.starts.iter().zip(&self.counts).filter(|(_, count)| **count > 0);
        ends.fold((usize::MAX, 0), |(first, last), (&start, &count)| {
            (first.min(start), last.max(start + count))
        })
    }
}

/// A resampler. It keeps its buffers, so that repeated cuts allocate no memory.
#[derive(Debug, Default)]
pub struct Resampler {
    columns: Axis,
    rows: Axis,
    line: Vec<i16>,
    exact: bool,
    exact_line: Vec<f32>,
}

impl Resampler {
    /// A resampler that computes in floating point. Slower; the oracle for the fixed-point
    /// one.
    pub fn exact() -> Self {
        Self { exact: true, ..Self::default() }
    }

    /// Writes `region`, in pixels of the frame, to `out` as `height x width` pixels of
    /// [`PIXEL`] values, row-major, from 0 to 255 in steps of 1/128. A region that is not
    /// finite or has no area gives black.
    ///
    /// # Panics
    /// If `out` is too short.
    pub fn cut(
        &mut self,
        frame: &Frame,
        region: &Rect,
        (height, width): (usize, usize),
        values: Values,
        out: &mut [i16],
    ) {
        let out = &mut out[..height * width * PIXEL];
        out.fill(0);
        if out.is_empty() || !region.is_finite() || region.area() <= 0.0 {
            return;
        }
        self.columns.set((region.x1, region.x2), width, frame.width());
        self.rows.set((region.y1, region.y2), height, frame.height());
        let (first, last) = self.columns.touched();
        if first >= last {
            return;
        }
        // Rows first: this reads long runs of neighbouring bytes, and the columns are then
        // reduced once per output row.
        let (from, length) = (first * CHANNELS, (last - first) * CHANNELS);
        if self.exact {
            return self.cut_exactly(frame, (first, last), values, out);
        }
        self.line.clear();
        self.line.resize(length + SLACK, 0);
        let pitch = frame.width() * CHANNELS;
        for (y, out) in out.chunks_exact_mut(width * PIXEL).enumerate() {
            let (start, weights) = self.rows.of(y);
            if weights.is_empty() {
                continue;
            }
            let pixels = &frame.pixels()[start * pitch + from..];
            weighted_rows(pixels, pitch, weights, &mut self.line[..length]);
            let whole = values == Values::Whole;
            weighted_pixels(&self.line, first, &self.columns.taps(), whole, out);
        }
    }

    fn cut_exactly(
        &mut self,
        frame: &Frame,
        (first, last): (usize, usize),
        values: Values,
        out: &mut [i16],
    ) {
        let width = self.columns.starts.len();
        for (y, out) in out.chunks_exact_mut(width * PIXEL).enumerate() {
            let (start, weights) = self.rows.shares(y);
            self.exact_line.clear();
            self.exact_line.resize((last - first) * CHANNELS, 0.0);
            for (row, weight) in (start..).zip(weights) {
                let bytes = &frame.row(row)[first * CHANNELS..last * CHANNELS];
                for (sum, byte) in self.exact_line.iter_mut().zip(bytes) {
                    *sum += f32::from(*byte) * weight;
                }
            }
            for (x, out) in out.as_chunks_mut::<PIXEL>().0.iter_mut().enumerate() {
                let (start, weights) = self.columns.shares(x);
                let from = (start - first.min(start)) * CHANNELS;
                for (channel, out) in out.iter_mut().enumerate().take(CHANNELS) {
                    let line = self.exact_line.iter().skip(from + channel).step_by(CHANNELS);
                    let sum: f32 = line.zip(weights).map(|(value, weight)| value * weight).sum();
                    let steps = f32::from(ONE_BYTE);
                    *out = match values {
                        Values::Whole => (sum.round_ties_even() * steps) as i16,
                        Values::Exact => (sum * steps).round_ties_even() as i16,
                    };
                }
            }
        }
    }
}

/// The frame resampled to another size, in pixels. A side of zero becomes one.
pub fn resize(frame: &Frame, width: usize, height: usize) -> Frame {
    let (width, height) = (width.max(1), height.max(1));
    let mut pixels = vec![0; width * height * PIXEL];
    Resampler::default().cut(frame, &frame.bounds(), (height, width), Values::Whole, &mut pixels);
    let mut out = Frame::filled(width, height, [0; 3]);
    let from = pixels.as_chunks::<PIXEL>().0;
    for (pixel, [red, green, blue, _]) in
        out.pixels_mut().as_chunks_mut::<3>().0.iter_mut().zip(from)
    {
        *pixel = [*red, *green, *blue].map(|value| (value / ONE_BYTE) as u8);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(width: usize, height: usize) -> Frame {
        let bytes = (0..width * height * 3).map(|i| (i * 7919 % 251) as u8).collect();
        Frame::new(width, height, bytes).expect("length is computed")
    }

    fn cut(frame: &Frame, region: Rect, height: usize, width: usize) -> Vec<i16> {
        let mut out = vec![0; height * width * PIXEL];
        Resampler::default().cut(frame, &region, (height, width), Values::Exact, &mut out);
        out
    }

    proptest! {
        #[test]
        fn fixed_point_is_near_floating_point(
            (x, y) in (-9.0f32..9.0, -9.0f32..9.0), (rw, rh) in (7.0f32..60.0, 7.0f32..60.0),
        ) {
            let (frame, region) = (noise(47, 39), Rect { x1: x, y1: y, x2: x + rw, y2: y + rh });
            let (mut fixed, mut exact) = (vec![0; 12 * 12 * PIXEL], vec![0; 12 * 12 * PIXEL]);
            Resampler::default().cut(&frame, &region, (12, 12), Values::Exact, &mut fixed);
            Resampler::exact().cut(&frame, &region, (12, 12), Values::Exact, &mut exact);
            for (at, (a, b)) in fixed.iter().zip(&exact).enumerate() {
                prop_assert!(at % PIXEL == 3 || (a - b).abs() <= 4, "{a} {b}");
            }
        }
    }

    /// Oracle: the mean over the area that each output pixel covers, by definition.
    fn area_oracle(frame: &Frame, region: &Rect, width: usize, height: usize) -> Vec<[f32; 3]> {
        let mut out = vec![[0.0; 3]; width * height];
        let (sx, sy) = (region.width() / width as f32, region.height() / height as f32);
        for (at, sums) in out.iter_mut().enumerate() {
            let (x1, y1) = ((at % width) as f32, (at / width) as f32);
            let (x1, y1) = (region.x1 + x1 * sx, region.y1 + y1 * sy);
            let cell = Rect { x1, y1, x2: x1 + sx, y2: y1 + sy };
            for y in 0..frame.height() {
                for x in 0..frame.width() {
                    let (x1, y1) = (x as f32, y as f32);
                    let pixel = Rect { x1, y1, x2: x1 + 1.0, y2: y1 + 1.0 };
                    let share = cell.intersection(&pixel) / (sx * sy);
                    let value = frame.pixel(x as isize, y as isize);
                    for channel in 0..3 {
                        sums[channel] += f32::from(value[channel]) * share;
                    }
                }
            }
        }
        out
    }

    fn largest_error(got: &[i16], expected: &[[f32; 3]]) -> f32 {
        let pixels = got.as_chunks::<PIXEL>().0.iter().zip(expected);
        let errors = pixels.flat_map(|(got, expected)| {
            (0..3).map(|channel| (f32::from(got[channel]) / 128.0 - expected[channel]).abs())
        });
        errors.fold(0.0, f32::max)
    }

    proptest! {
        #[test]
        fn shrinking_is_the_mean_over_the_area(
            (w, h) in (4usize..24, 4usize..24), (ow, oh) in (1usize..6, 1usize..6),
            (x, y) in (-9.0f32..9.0, -9.0f32..9.0), (rw, rh) in (7.0f32..30.0, 7.0f32..30.0),
        ) {
            let frame = noise(w, h);
            let region = Rect { x1: x, y1: y, x2: x + rw, y2: y + rh };
            let got = cut(&frame, region, oh, ow);
            let error = largest_error(&got, &area_oracle(&frame, &region, ow, oh));
            prop_assert!(error < 0.1, "{error}");
        }

        #[test]
        fn growing_a_flat_picture_keeps_it_flat(w in 1usize..20, h in 1usize..20, ow in 20usize..40, oh in 20usize..40) {
            let out = resize(&Frame::filled(w, h, [9, 99, 255]), ow, oh);
            prop_assert!(out.pixels().chunks(3).all(|p| p == [9, 99, 255]));
        }

        #[test]
        fn shrinking_a_flat_picture_keeps_it_flat(w in 40usize..200, h in 40usize..200, ow in 1usize..40, oh in 1usize..40) {
            let out = resize(&Frame::filled(w, h, [1, 99, 255]), ow, oh);
            prop_assert!(out.pixels().chunks(3).all(|p| p == [1, 99, 255]));
        }

        #[test]
        fn any_region_of_any_size_is_safe(
            (x1, y1) in (-1e9f32..1e9, -1e9f32..1e9), (x2, y2) in (-1e9f32..1e9, -1e9f32..1e9),
            (ow, oh) in (1usize..9, 1usize..9),
        ) {
            for frame in [noise(5, 4), noise(67, 33)] {
                cut(&frame, Rect { x1, y1, x2, y2 }, oh, ow);
            }
        }
    }

    #[test]
    fn same_size_is_the_same_picture() {
        let frame = noise(13, 9);
        assert_eq!(resize(&frame, 13, 9), frame);
    }

    #[test]
    fn growing_is_bilinear_and_black_outside() {
        let frame = Frame::new(2, 1, vec![0, 0, 0, 100, 100, 100]).expect("six bytes");
        let red = |out: Vec<i16>| -> Vec<i16> {
            out.chunks(PIXEL).map(|pixel| (pixel[0] + 64) / 128).collect()
        };
        assert_eq!(red(cut(&frame, frame.bounds(), 1, 4)), [0, 25, 75, 100]);
        let outside = Rect { x1: 5.0, y1: 0.0, x2: 7.0, y2: 1.0 };
        assert_eq!(red(cut(&frame, outside, 1, 4)), [0; 4]);
    }
}
