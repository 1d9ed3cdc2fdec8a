//! Cutting a rectangle out of a frame at another size.
//!
//! Shrinking averages over the area each output pixel covers; growing
//! interpolates bilinearly. What lies outside the frame is black. The axes are
//! separable: rows are summed first, then columns.

use crate::frame::{Frame, Rect};

/// 1.5 * 2^23: the smallest distance of two numbers there is 1.
const NO_FRACTION: f32 = 12_582_912.0;

/// Bilinear or area weights of one axis: for each output pixel the first source
/// pixel and the weights from there on.
struct Axis {
    starts: Vec<usize>,
    counts: Vec<usize>,
    weights: Vec<f32>,
    taps: usize,
}

impl Axis {
    fn new() -> Self {
        Self { starts: Vec::new(), counts: Vec::new(), weights: Vec::new(), taps: 0 }
    }

    /// Output pixel `i` of `outputs` looks at `[from + i * step, from + (i + 1) * step)`.
    fn set(&mut self, from: f32, to: f32, outputs: usize, sources: usize) {
        let step = (to - from) / outputs as f32;
        let limit = sources as f32;
        // An area of `step` touches at most this many pixels, never more than there are.
        self.taps = if step > 1.0 { (step.ceil() as usize + 1).min(sources) } else { 2 };
        self.starts.clear();
        self.counts.clear();
        self.weights.clear();
        self.weights.resize(outputs * self.taps, 0.0);
        for output in 0..outputs {
            let weights = &mut self.weights[output * self.taps..(output + 1) * self.taps];
            let mut count = 0;
            let mut start = 0;
            if step > 1.0 {
                let low = from + output as f32 * step;
                let high = low + step;
                let first = low.max(0.0).floor();
                let last = high.min(limit).ceil();
                start = first as usize;
                let mut pixel = first;
                while pixel < last && count < weights.len() {
                    let covered = high.min(pixel + 1.0) - low.max(pixel);
                    weights[count] = (covered / step).max(0.0);
                    count += 1;
                    pixel += 1.0;
                }
            } else {
                let center = from + (output as f32 + 0.5) * step - 0.5;
                // The outermost half pixel repeats the border, as long as the
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
                        weights[count] = weight;
                        count += 1;
                    }
                }
            }
            self.starts.push(start.min(sources));
            self.counts.push(count.min(sources - start.min(sources)));
        }
    }

    fn of(&self, output: usize) -> (usize, &[f32]) {
        let from = output * self.taps;
        (self.starts[output], &self.weights[from..from + self.counts[output]])
    }
}

/// What becomes of the fractions that resampling leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Rounded away, as in a picture of 8 bits a channel.
    Whole,
    /// Kept.
    Exact,
}

/// Resamples rectangles; keeps its buffers between calls.
pub struct Resampler {
    columns: Axis,
    rows: Axis,
    /// The source rows of one output row, summed: RGB, only the columns touched.
    line: Vec<f32>,
}

impl Default for Resampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Resampler {
    /// A resampler with empty buffers.
    pub fn new() -> Self {
        Self { columns: Axis::new(), rows: Axis::new(), line: Vec::new() }
    }

    /// Writes `region` of `frame` as planar RGB `3 x height x width` into `out`,
    /// each value `v` in 0..=255 stored as `(v - mean) * scale`.
    ///
    /// `out` must hold `3 * height * width` values; a region that is not finite
    /// or has no area comes out black.
    pub fn planar(
        &mut self,
        frame: &Frame,
        region: &Rect,
        (width, height): (usize, usize),
        (mean, scale): (f32, f32),
        values: Values,
        out: &mut [f32],
    ) {
        let plane = width * height;
        let out = &mut out[..3 * plane];
        out.fill(0.0);
        if plane > 0 && region.is_finite() && region.area() > 0.0 {
            self.columns.set(region.x1, region.x2, width, frame.width());
            self.rows.set(region.y1, region.y2, height, frame.height());
            self.accumulate(frame, width, height, out);
        }
        for value in out.iter_mut() {
            if values == Values::Whole {
                // Adding and taking away what leaves no room for a fraction rounds
                // to the nearest whole number, ties to even, without a call.
                *value = (*value + NO_FRACTION) - NO_FRACTION;
            }
            *value = (*value - mean) * scale;
        }
    }

    fn accumulate(&mut self, frame: &Frame, width: usize, height: usize, out: &mut [f32]) {
        let plane = width * height;
        let touched = (0..width).map(|output| self.columns.of(output));
        let (first, last) = touched
            .filter(|(_, weights)| !weights.is_empty())
            .fold((frame.width(), 0), |(first, last), (start, weights)| {
                (first.min(start), last.max(start + weights.len()))
            });
        if first >= last {
            return;
        }
        // Rows first: that is one long run over neighbouring bytes, and leaves
        // the columns to be squeezed once an output row.
        self.line.resize(3 * (last - first), 0.0);
        for output in 0..height {
            let (start, weights) = self.rows.of(output);
            if weights.is_empty() {
                continue;
            }
            self.line.fill(0.0);
            for (source, &weight) in (start..).zip(weights) {
                let row = &frame.row(source)[3 * first..3 * last];
                for (sum, &value) in self.line.iter_mut().zip(row) {
                    *sum += f32::from(value) * weight;
                }
            }
            let from = output * width;
            for column in 0..width {
                let (start, weights) = self.columns.of(column);
                if weights.is_empty() {
                    continue;
                }
                let mut sums = [0.0f32; 3];
                let pixels = self.line[3 * (start - first)..].as_chunks::<3>().0;
                for (pixel, &weight) in pixels.iter().zip(weights) {
                    for channel in 0..3 {
                        sums[channel] += pixel[channel] * weight;
                    }
                }
                for channel in 0..3 {
                    out[channel * plane + from + column] = sums[channel];
                }
            }
        }
    }
}

/// The frame at another size, 8 bits a channel.
pub fn resize(frame: &Frame, width: usize, height: usize) -> Frame {
    let (width, height) = (width.max(1), height.max(1));
    let plane = width * height;
    let mut planar = vec![0.0; 3 * plane];
    Resampler::new().planar(
        frame,
        &frame.bounds(),
        (width, height),
        (0.0, 1.0),
        Values::Whole,
        &mut planar,
    );
    let mut out = Frame::filled(width, height, [0; 3]);
    for (at, pixel) in out.pixels_mut().chunks_exact_mut(3).enumerate() {
        for (channel, value) in pixel.iter_mut().enumerate() {
            *value = planar[channel * plane + at].round().clamp(0.0, 255.0) as u8;
        }
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

    /// The definition, pixel by pixel: the mean over the area each output covers.
    fn area_oracle(frame: &Frame, region: &Rect, width: usize, height: usize) -> Vec<f32> {
        let mut out = vec![0.0; 3 * width * height];
        let (sx, sy) = (region.width() / width as f32, region.height() / height as f32);
        for oy in 0..height {
            for ox in 0..width {
                let cell = Rect {
                    x1: region.x1 + ox as f32 * sx,
                    y1: region.y1 + oy as f32 * sy,
                    x2: region.x1 + (ox + 1) as f32 * sx,
                    y2: region.y1 + (oy + 1) as f32 * sy,
                };
                for y in 0..frame.height() {
                    for x in 0..frame.width() {
                        let (x1, y1) = (x as f32, y as f32);
                        let pixel = Rect { x1, y1, x2: x1 + 1.0, y2: y1 + 1.0 };
                        let share = cell.intersection(&pixel) / (sx * sy);
                        let value = frame.pixel(x as isize, y as isize);
                        for c in 0..3 {
                            out[(c * height + oy) * width + ox] += f32::from(value[c]) * share;
                        }
                    }
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn shrinking_is_the_mean_over_the_area(
            (w, h) in (4usize..24, 4usize..24), (ow, oh) in (1usize..6, 1usize..6),
            (x, y) in (-9.0f32..9.0, -9.0f32..9.0), (rw, rh) in (7.0f32..30.0, 7.0f32..30.0),
        ) {
            let frame = noise(w, h);
            let region = Rect { x1: x, y1: y, x2: x + rw, y2: y + rh };
            let mut out = vec![0.0; 3 * ow * oh];
            Resampler::new().planar(&frame, &region, (ow, oh), (0.0, 1.0), Values::Exact, &mut out);
            for (got, expected) in out.iter().zip(area_oracle(&frame, &region, ow, oh)) {
                prop_assert!((got - expected).abs() < 0.1, "{got} {expected}");
            }
        }

        #[test]
        fn growing_a_flat_picture_keeps_it_flat(w in 1usize..20, h in 1usize..20, ow in 20usize..40, oh in 20usize..40) {
            let out = resize(&Frame::filled(w, h, [9, 99, 199]), ow, oh);
            prop_assert!(out.pixels().chunks(3).all(|p| p == [9, 99, 199]));
        }

        #[test]
        fn any_region_of_any_size_is_safe(
            (x1, y1) in (-1e9f32..1e9, -1e9f32..1e9), (x2, y2) in (-1e9f32..1e9, -1e9f32..1e9),
            (ow, oh) in (1usize..9, 1usize..9),
        ) {
            let mut out = vec![0.0; 3 * ow * oh];
            Resampler::new().planar(&noise(5, 4), &Rect { x1, y1, x2, y2 }, (ow, oh), (0.0, 1.0), Values::Exact, &mut out);
            prop_assert!(out.iter().all(|v| v.is_finite()));
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
        let mut out = vec![0.0; 12];
        Resampler::new().planar(
            &frame,
            &frame.bounds(),
            (4, 1),
            (0.0, 1.0),
            Values::Exact,
            &mut out,
        );
        assert_eq!(&out[..4], &[0.0, 25.0, 75.0, 100.0]);
        let outside = Rect { x1: 5.0, y1: 0.0, x2: 7.0, y2: 1.0 };
        Resampler::new().planar(&frame, &outside, (4, 1), (0.0, 1.0), Values::Exact, &mut out);
        assert_eq!(&out[..4], &[0.0; 4]);
    }
}
