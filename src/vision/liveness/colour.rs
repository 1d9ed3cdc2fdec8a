//! Colour statistics, which differ between skin and its picture in ink or on a display.
//!
//! Inks and displays reproduce fewer colours than skin has, raise the black level and
//! reduce the saturation. The statistics are the chromatic moments, colour diversity and
//! specular share of Wen, Han and Jain, "Face spoof detection with image distortion
//! analysis", 2015.

use crate::models::Alignment;
use crate::vision::align::Crop;
use crate::vision::frame::luma;

/// Columns of the aligned crop that show the face without hair.
const COLUMNS: std::ops::Range<usize> = 24..88;
/// Rows of the aligned crop from eyebrows to chin.
const ROWS: std::ops::Range<usize> = 36..100;
/// Levels per channel by which colours are counted.
const LEVELS: usize = 32;
/// Luma at or above which a pixel is a highlight.
const HIGHLIGHT: f32 = 245.0;

/// Colour statistics of an aligned face.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Colours {
    /// Mean saturation, `1 - min / max` over the channels, 0 to 1.
    pub saturation: f32,
    /// Standard deviation of saturation, 0 to 0.5.
    pub saturation_spread: f32,
    /// Mean of `(red - blue) / (red + green + blue)`, from -1 (cold) to 1 (warm).
    pub warmth: f32,
    /// 2nd percentile of the luma, 0 to 255.
    pub black: f32,
    /// Number of different colours, at 32 levels per channel, divided by that of pixels.
    pub diversity: f32,
    /// Share of pixels that are highlights, 0 to 1.
    pub glare: f32,
}

impl Colours {
    /// Measures a face aligned by [`Alignment::ARCFACE`]. A crop of another side gives the
    /// default, which has no colours.
    pub fn measure(crop: &Crop) -> Self {
        if crop.side() != Alignment::ARCFACE.side {
            return Self::default();
        }
        let mut seen = vec![0u64; LEVELS * LEVELS * LEVELS / 64];
        let mut lights = Vec::with_capacity(COLUMNS.len() * ROWS.len());
        let (mut sum, mut squares, mut warmth, mut glare) = (0.0f32, 0.0f32, 0.0f32, 0.0f32);
        for y in ROWS {
            let row = &crop.frame().row(y)[COLUMNS.start * 3..COLUMNS.end * 3];
            for pixel in row.as_chunks::<3>().0 {
                let [red, green, blue] = pixel.map(f32::from);
                let greatest = red.max(green).max(blue);
                let least = red.min(green).min(blue);
                let saturation = if greatest > 0.0 { 1.0 - least / greatest } else { 0.0 };
                sum += saturation;
                squares += saturation * saturation;
                warmth += (red - blue) / (red + green + blue).max(1.0);
                let light = luma([red, green, blue]);
                glare += f32::from(u8::from(light >= HIGHLIGHT));
                lights.push(light);
                let level = |value: u8| usize::from(value) * LEVELS / 256;
                let colour =
                    (level(pixel[0]) * LEVELS + level(pixel[1])) * LEVELS + level(pixel[2]);
                seen[colour / 64] |= 1 << (colour % 64);
            }
        }
        let count = lights.len() as f32;
        let dark = lights.len() / 50;
        let (_, black, _) = lights.select_nth_unstable_by(dark, f32::total_cmp);
        let colours: u32 = seen.iter().map(|bits| bits.count_ones()).sum();
        let mean = sum / count;
        Self {
            saturation: mean,
            saturation_spread: (squares / count - mean * mean).max(0.0).sqrt(),
            warmth: warmth / count,
            black: *black,
            diversity: colours as f32 / count,
            glare: glare / count,
        }
    }

    /// All statistics, in the order of the fields.
    pub fn values(&self) -> [f32; 6] {
        [
            self.saturation,
            self.saturation_spread,
            self.warmth,
            self.black,
            self.diversity,
            self.glare,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const CROP_SIDE: usize = Alignment::ARCFACE.side;
    use proptest::prelude::*;

    fn crop(pixel: impl Fn(usize) -> [u8; 3]) -> Crop {
        let pixels = (0..CROP_SIDE * CROP_SIDE).flat_map(pixel).collect();
        Crop::from_pixels(CROP_SIDE, pixels).expect("112 x 112")
    }

    #[test]
    fn grey_has_no_colours_and_white_is_glare() {
        let grey = Colours::measure(&crop(|_| [90; 3]));
        assert_eq!((grey.saturation, grey.warmth, grey.glare), (0.0, 0.0, 0.0));
        assert!((grey.black - 90.0).abs() < 1e-3);
        assert_eq!(Colours::measure(&crop(|_| [255; 3])).glare, 1.0);
        let many = Colours::measure(&crop(|at| [at as u8, (at / 7) as u8, (at / 50) as u8]));
        assert!(many.diversity > grey.diversity && many.saturation > 0.0);
    }

    proptest! {
        #[test]
        fn all_are_within_their_ranges(seed in any::<u32>()) {
            let noise = |at: usize| (at as u32).wrapping_mul(seed).to_le_bytes();
            let colours = Colours::measure(&crop(|at| { let [a, b, c, _] = noise(at); [a, b, c] }));
            let ranges = [(0.0, 1.0), (0.0, 0.51), (-1.0, 1.0), (0.0, 255.0), (0.0, 1.0), (0.0, 1.0)];
            for (value, (from, to)) in colours.values().into_iter().zip(ranges) {
                prop_assert!((from..=to).contains(&value), "{colours:?}");
            }
        }
    }
}
