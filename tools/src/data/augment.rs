//! Data augmentation: aligned faces as another camera, light or distance would have shown
//! them.
//!
//! Each change has a probability and a limit; its strength is drawn uniformly within the
//! limit. The changes follow the order in which a picture forms: what stands before the
//! camera (mirror image, mask, objects), light (brightness, contrast), optics (blur,
//! distance), and the stored file (JPEG).

use crate::chance::Chance;
use anyhow::{Result, bail};
use facelatch::models::Alignment;
use facelatch::vision::align::Crop;
use facelatch::vision::frame::Frame;
use facelatch::vision::{picture, resample};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage, imageops};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Side of the crop in whose pixels all lengths below are given. Larger crops scale them.
const CROP_SIDE: usize = Alignment::ARCFACE.side;
/// Highest JPEG quality that is drawn. A better file looks the same in a crop of 112
/// pixels.
const BEST_QUALITY: f64 = 95.0;
/// Lowest row at which a mask may begin. A mask that has not slipped covers the tip of
/// the nose, which is at row 71.7 of the alignment template.
const LOWEST_MASK_TOP: f64 = 70.0;
/// Smallest share of the picture that an object covers; `s_l` of Zhong et al.
const LEAST_OBJECT: f64 = 0.02;
/// Width over height of the narrowest object; `r_1` of Zhong et al.
const NARROWEST_OBJECT: f64 = 0.3;
/// Half the width of a mask below the eyes and at the chin, pixels. From ear to ear an
/// aligned face is about 84 pixels wide at the nose and 50 at the chin.
const MASK_HALF_WIDTHS: [f64; 2] = [42.0, 25.0];
/// How far the upper edge of a mask falls from the nose to its sides, pixels.
const MASK_FALL: f64 = 8.0;
/// Mask colours, RGB: surgical blue and green, white, grey, black, and cloth.
const MASKS: [[f64; 3]; 6] = [
    [150.0, 190.0, 215.0],
    [150.0, 200.0, 185.0],
    [225.0, 225.0, 225.0],
    [125.0, 125.0, 130.0],
    [35.0, 35.0, 38.0],
    [95.0, 60.0, 75.0],
];
/// Each channel of a mask's colour varies by up to this much in both directions.
const MASK_COLOUR_SPREAD: f64 = 25.0;
/// Mean value of the covered skin at which a mask has the colours above. In the shade the
/// mask darkens together with the face.
const MASK_DAYLIGHT: f64 = 130.0;

/// Probability and limit of one augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Probability, 0..=1.
    pub probability: f64,
    /// Strongest setting, in the unit that the field of [`Augment`] documents.
    pub limit: f64,
}

/// Augmentations of a face before training on it. The default is [`Augment::mild`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Probability of the mirror image, 0..=1.
    pub flip: f64,
    /// Offset added to every value; the limit is a share of the full range, 0..=1.
    pub brightness: Change,
    /// Distance of every value from the picture's mean is multiplied by `1 ± x`; the
    /// limit of x is 0..=1.
    pub contrast: Change,
    /// Gaussian blur; the limit is the standard deviation in pixels, 0..=10.
    pub blur: Change,
    /// Compression to JPEG, decoded as the device decodes it; the limit is the lowest
    /// quality, 1..=95.
    pub jpeg: Change,
    /// Downscaling followed by upscaling; the limit is the smallest side in pixels,
    /// 8..=112.
    pub low_resolution: Change,
    /// A mask over the lower half of the face; the limit is the topmost row at which it
    /// begins, 40..=70. The eyes are at row 52, the tip of the nose at row 72.
    pub mask: Change,
    /// A rectangle of one colour in front of the face; the limit is the largest share of
    /// the picture it covers, 0.02..=0.5.
    pub object: Change,
}

impl Default for Augment {
    fn default() -> Self {
        Self::mild()
    }
}

impl Augment {
    /// No augmentation: faces stay as they are.
    pub fn none() -> Self {
        let never = |limit| Change { probability: 0.0, limit };
        Self {
            flip: 0.0,
            brightness: never(0.0),
            contrast: never(0.0),
            blur: never(0.0),
            jpeg: never(BEST_QUALITY),
            low_resolution: never(CROP_SIDE as f64),
            mask: never(LOWEST_MASK_TOP),
            object: never(LEAST_OBJECT),
        }
    }

    /// For fine-tuning weights that already know faces: the variation that one camera
    /// shows from day to day. Every other face is mirrored, because faces are nearly
    /// symmetric (ArcFace's own training does no more than that). Light varies most of
    /// the time, by about half a stop. The other changes are rare, so that spoilt
    /// pictures do not outnumber good ones among a few photos per person.
    pub fn mild() -> Self {
        let change = |probability, limit| Change { probability, limit };
        Self {
            flip: 0.5,
            brightness: change(0.8, 0.15),
            contrast: change(0.8, 0.2),
            blur: change(0.1, 1.0),
            jpeg: change(0.2, 50.0),
            low_resolution: change(0.1, 56.0),
            mask: change(0.0, 60.0),
            object: change(0.0, 0.1),
        }
    }

    /// For training from scratch, and for doors where people wear masks: twice the
    /// variation of light, faces as small as 28 pixels (the detector finds none below
    /// 20), JPEG as coarse as cameras send it, a mask on every tenth face, and an object
    /// in front of every fourth (Zhong, Zheng, Kang, Li and Yang, "Random Erasing Data
    /// Augmentation", 2020).
    pub fn strong() -> Self {
        let change = |probability, limit| Change { probability, limit };
        Self {
            flip: 0.5,
            brightness: change(0.8, 0.3),
            contrast: change(0.8, 0.4),
            blur: change(0.2, 2.0),
            jpeg: change(0.3, 20.0),
            low_resolution: change(0.2, 28.0),
            mask: change(0.1, 56.0),
            object: change(0.25, 0.2),
        }
    }

    /// Fails if a probability or limit is outside the range that its field documents.
    pub fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.flip) {
            bail!("flip: probability {}; it must be in 0..=1", self.flip);
        }
        for (name, change, least, most) in [
            ("brightness", self.brightness, 0.0, 1.0),
            ("contrast", self.contrast, 0.0, 1.0),
            ("blur", self.blur, 0.0, 10.0),
            ("jpeg", self.jpeg, 1.0, BEST_QUALITY),
            ("low-resolution", self.low_resolution, 8.0, CROP_SIDE as f64),
            ("mask", self.mask, 40.0, LOWEST_MASK_TOP),
            ("object", self.object, LEAST_OBJECT, 0.5),
        ] {
            if !(0.0..=1.0).contains(&change.probability) {
                bail!("{name}: probability {}; it must be in 0..=1", change.probability);
            }
            if !(least..=most).contains(&change.limit) {
                bail!("{name}: limit {}; it must be in {least}..={most}", change.limit);
            }
        }
        Ok(())
    }

    /// Returns a copy of the crop with the augmentations that `chance` draws.
    pub fn apply(&self, crop: &Crop, chance: &mut Chance) -> Crop {
        let mut frame = crop.frame().clone();
        let unit = crop.side() as f64 / CROP_SIDE as f64;
        if chance.happens(self.flip) {
            flip(&mut frame);
        }
        if chance.happens(self.mask.probability) {
            mask(&mut frame, self.mask.limit, chance);
        }
        if chance.happens(self.object.probability) {
            object(&mut frame, self.object.limit, chance);
        }
        if chance.happens(self.brightness.probability) {
            let limit = self.brightness.limit;
            brighten(&mut frame, 255.0 * chance.between(-limit, limit));
        }
        if chance.happens(self.contrast.probability) {
            let limit = self.contrast.limit;
            contrast(&mut frame, 1.0 + chance.between(-limit, limit));
        }
        if chance.happens(self.blur.probability) {
            frame = blurred(frame, unit * chance.between(0.0, self.blur.limit));
        }
        if chance.happens(self.low_resolution.probability) {
            let side = chance.between(self.low_resolution.limit, CROP_SIDE as f64) * unit;
            let small = resample::resize(&frame, side as usize, side as usize);
            frame = resample::resize(&small, crop.side(), crop.side());
        }
        if chance.happens(self.jpeg.probability) {
            frame = recompressed(frame, chance.between(self.jpeg.limit, BEST_QUALITY) as u8);
        }
        // No augmentation changes the size.
        Crop::from_pixels(crop.side(), frame.pixels().to_vec()).unwrap_or_else(|_| crop.clone())
    }
}

/// The mirror image of a crop.
pub fn mirrored(crop: &Crop) -> Crop {
    Augment { flip: 1.0, ..Augment::none() }.apply(crop, &mut Chance::new(0))
}

fn flip(frame: &mut Frame) {
    let width = frame.width();
    for row in frame.pixels_mut().chunks_exact_mut(3 * width) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

fn brighten(frame: &mut Frame, by: f64) {
    map(frame, |value| value + by);
}

/// Scales values about the picture's mean, so that its brightness stays the same.
fn contrast(frame: &mut Frame, factor: f64) {
    let pixels = frame.pixels();
    let sum: u64 = pixels.iter().map(|value| u64::from(*value)).sum();
    let mean = sum as f64 / pixels.len().max(1) as f64;
    map(frame, |value| mean + (value - mean) * factor);
}

/// Applies `to` to every value. Results outside 0..=255 are clipped, as a camera clips
/// them.
fn map(frame: &mut Frame, to: impl Fn(f64) -> f64) {
    let table: [u8; 256] = std::array::from_fn(|value| to(value as f64).round() as u8);
    for value in frame.pixels_mut() {
        *value = table[usize::from(*value)];
    }
}

/// Gaussian blur. Below 0.1 pixels it would not be visible and the kernel would have no
/// width.
fn blurred(frame: Frame, sigma: f64) -> Frame {
    if sigma < 0.1 {
        return frame;
    }
    let (width, height) = (frame.width(), frame.height());
    let Some(picture) = RgbImage::from_raw(width as u32, height as u32, frame.pixels().to_vec())
    else {
        return frame;
    };
    let blurred = imageops::blur(&picture, sigma as f32).into_raw();
    Frame::new(width, height, blurred).unwrap_or(frame)
}

/// Compresses to JPEG and decodes with the device's own decoder.
pub(crate) fn recompressed(frame: Frame, quality: u8) -> Frame {
    let (width, height) = (frame.width() as u32, frame.height() as u32);
    let mut file = Vec::new();
    let written = JpegEncoder::new_with_quality(&mut file, quality).encode(
        frame.pixels(),
        width,
        height,
        ExtendedColorType::Rgb8,
    );
    match (written, picture::decode(Path::new("recompressed.jpg"), &file)) {
        (Ok(()), Ok(read)) => read,
        // Encoding to memory should not fail; if it does, the face stays as it was.
        _ => frame,
    }
}

/// Paints a mask from ear to ear, from a row between `topmost` and [`LOWEST_MASK_TOP`]
/// down past the chin. It is highest on the nose, falls and narrows towards the sides,
/// has pleats, and is as bright as the light on the face.
fn mask(frame: &mut Frame, topmost: f64, chance: &mut Chance) {
    let top = chance.between(topmost, LOWEST_MASK_TOP);
    let middle = 56.0 + chance.between(-3.0, 3.0);
    let pleat = chance.between(0.02, 0.12);
    let pleats = chance.between(7.0, 14.0);
    let mut colour = MASKS[chance.below(MASKS.len())];
    for channel in &mut colour {
        *channel += chance.between(-MASK_COLOUR_SPREAD, MASK_COLOUR_SPREAD);
    }
    let [wide, narrow] = MASK_HALF_WIDTHS;
    let covers = move |x: f64, y: f64| {
        let down = ((y - top) / (CROP_SIDE as f64 - top)).clamp(0.0, 1.0);
        // A quarter of an ellipse: straight down the cheeks, then in to the chin.
        let half = narrow + (wide - narrow) * (1.0 - down * down).sqrt();
        let aside = (x - middle) / wide;
        (x - middle).abs() <= half && y >= top + MASK_FALL * aside * aside
    };
    let light = mean_where(frame, &covers) / MASK_DAYLIGHT;
    let light = light.clamp(0.25, 1.25);
    paint(frame, covers, |y| {
        let shade =
            light * (1.0 - pleat * (0.5 + 0.5 * (y / pleats * std::f64::consts::TAU).sin()));
        colour.map(|channel| channel * shade)
    });
}

/// Paints a rectangle of one colour anywhere in the picture, as a hand, a phone or a beam
/// would cover it.
fn object(frame: &mut Frame, largest: f64, chance: &mut Chance) {
    let side = CROP_SIDE as f64;
    let area = chance.between(LEAST_OBJECT, largest) * side * side;
    // Twice as wide as high is as likely as twice as high as wide.
    let shape = chance.between(NARROWEST_OBJECT.ln(), -NARROWEST_OBJECT.ln()).exp();
    let width = (area * shape).sqrt().min(side);
    let height = (area / width).min(side);
    let left = chance.between(0.0, side - width);
    let top = chance.between(0.0, side - height);
    let colour: [f64; 3] = std::array::from_fn(|_| chance.between(0.0, 255.0));
    let covers =
        move |x: f64, y: f64| (left..left + width).contains(&x) && (top..top + height).contains(&y);
    paint(frame, covers, |_| colour);
}

/// Paints each pixel whose centre `covers` accepts. `colour` gives the colour of a row. Both
/// take coordinates of a crop of [`CROP_SIDE`].
fn paint(frame: &mut Frame, covers: impl Fn(f64, f64) -> bool, colour: impl Fn(f64) -> [f64; 3]) {
    let width = frame.width();
    let unit = CROP_SIDE as f64 / width as f64;
    for (row, line) in frame.pixels_mut().chunks_exact_mut(3 * width).enumerate() {
        let y = (row as f64 + 0.5) * unit;
        let here = colour(y).map(|value| value.round() as u8);
        for (column, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            if covers((column as f64 + 0.5) * unit, y) {
                *pixel = here;
            }
        }
    }
}

/// Mean of all channels over the pixels that `covers` accepts, in coordinates of a crop of
/// [`CROP_SIDE`]; 0 if it accepts none.
fn mean_where(frame: &Frame, covers: &impl Fn(f64, f64) -> bool) -> f64 {
    let (mut sum, mut count) = (0u64, 0u64);
    let unit = CROP_SIDE as f64 / frame.width() as f64;
    for row in 0..frame.height() {
        for (column, pixel) in frame.row(row).as_chunks::<3>().0.iter().enumerate() {
            if covers((column as f64 + 0.5) * unit, (row as f64 + 0.5) * unit) {
                sum += pixel.iter().map(|value| u64::from(*value)).sum::<u64>();
                count += 3;
            }
        }
    }
    sum as f64 / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::torch_net::tests::crop;

    /// [`Augment::none`] with the one change that `one` makes.
    fn only(one: impl FnOnce(&mut Augment)) -> Augment {
        let mut augment = Augment::none();
        one(&mut augment);
        augment.check().expect("within its limits");
        augment
    }

    fn always(limit: f64) -> Change {
        Change { probability: 1.0, limit }
    }

    /// A face-like picture: smooth, so that blur and JPEG change it only a little.
    fn smooth() -> Crop {
        let pixels = (0..CROP_SIDE * CROP_SIDE)
            .flat_map(|at| {
                let (x, y) = ((at % CROP_SIDE) as f64, (at / CROP_SIDE) as f64);
                let light = 120.0 + 60.0 * (x / 17.0).sin() * (y / 23.0).cos();
                [light * 1.2, light, light * 0.8].map(|value| value as u8)
            })
            .collect();
        Crop::from_pixels(CROP_SIDE, pixels).expect("112 x 112")
    }

    /// Columns and rows where two pictures differ.
    fn changed(one: &Crop, other: &Crop) -> Vec<(usize, usize)> {
        let pixels = |crop: &Crop| crop.frame().pixels().as_chunks::<3>().0.to_vec();
        (pixels(one).iter().zip(pixels(other)).enumerate())
            .filter(|(_, (a, b))| **a != *b)
            .map(|(at, _)| (at % CROP_SIDE, at / CROP_SIDE))
            .collect()
    }

    fn mean(crop: &Crop) -> f64 {
        mean_where(crop.frame(), &|_, _| true)
    }

    /// Mean squared difference of neighbours in a row.
    fn texture(crop: &Crop) -> f64 {
        let pixels = crop.frame().pixels();
        let steps = pixels.iter().zip(&pixels[3..]);
        steps.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>()
    }

    #[test]
    fn none_changes_nothing() {
        for seed in 0..20 {
            let before = crop(seed as usize);
            assert_eq!(Augment::none().apply(&before, &mut Chance::new(seed)), before);
        }
    }

    #[test]
    fn the_mirror_image_of_the_mirror_image_is_the_face() {
        let mirror = only(|augment| augment.flip = 1.0);
        let once = mirror.apply(&crop(5), &mut Chance::new(1));
        assert_ne!(once, crop(5));
        assert_eq!(once.frame().pixel(0, 3), crop(5).frame().pixel(111, 3));
        assert_eq!(mirror.apply(&once, &mut Chance::new(2)), crop(5));
    }

    #[test]
    fn the_seed_alone_says_what_happens() {
        let strong = |seed| Augment::strong().apply(&crop(9), &mut Chance::new(seed));
        assert_eq!(strong(4), strong(4));
        let different: Vec<Crop> = (0..10).map(strong).collect();
        assert!(different.iter().enumerate().all(|(at, one)| !different[..at].contains(one)));
    }

    #[test]
    fn brightness_stays_within_its_limit_and_keeps_the_order_of_values() {
        let shift = only(|augment| augment.brightness = always(0.1));
        let before = smooth();
        for seed in 0..50 {
            let after = shift.apply(&before, &mut Chance::new(seed));
            assert!((mean(&after) - mean(&before)).abs() <= 26.0);
            let pairs = before.frame().pixels().iter().zip(after.frame().pixels());
            let by = f64::from(after.frame().pixels()[0]) - f64::from(before.frame().pixels()[0]);
            assert!(pairs.clone().all(|(a, b)| {
                (f64::from(*b) - (f64::from(*a) + by).clamp(0.0, 255.0)).abs() < 1.5
            }));
        }
    }

    #[test]
    fn contrast_keeps_the_mean() {
        let change = only(|augment| augment.contrast = always(0.3));
        let before = smooth();
        let mut textures = Vec::new();
        for seed in 0..20 {
            let after = change.apply(&before, &mut Chance::new(seed));
            assert!((mean(&after) - mean(&before)).abs() < 1.0);
            textures.push(texture(&after) / texture(&before));
        }
        assert!(textures.iter().any(|more| *more > 1.1), "{textures:?}");
        assert!(textures.iter().any(|less| *less < 0.9), "{textures:?}");
        assert!(textures.iter().all(|ratio| (0.45..1.75).contains(ratio)), "{textures:?}");
    }

    #[test]
    fn blur_distance_and_coarse_files_lose_texture_but_not_the_picture() {
        let noise = crop(31);
        for (name, augment) in [
            ("blur", only(|augment| augment.blur = always(2.0))),
            ("distance", only(|augment| augment.low_resolution = always(16.0))),
        ] {
            for seed in 0..10 {
                let after = augment.apply(&noise, &mut Chance::new(seed));
                assert!(texture(&after) <= texture(&noise), "{name}");
                assert!((mean(&after) - mean(&noise)).abs() < 2.0, "{name}");
            }
        }
        let coarse = only(|augment| augment.jpeg = always(10.0));
        for seed in 0..10 {
            let after = coarse.apply(&smooth(), &mut Chance::new(seed));
            assert_ne!(after, smooth());
            let pixels = smooth().frame().pixels().to_vec();
            let off: f64 = (pixels.iter().zip(after.frame().pixels()))
                .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs())
                .sum();
            assert!(off / (pixels.len() as f64) < 12.0, "{}", off / pixels.len() as f64);
        }
    }

    #[test]
    fn a_mask_covers_the_mouth_and_never_the_eyes() {
        let masked = only(|augment| augment.mask = always(56.0));
        for seed in 0..50 {
            let covered = changed(&smooth(), &masked.apply(&smooth(), &mut Chance::new(seed)));
            assert!(covered.iter().all(|(_, row)| *row >= 55), "the eyes are free");
            let around = |x: usize, y: usize| {
                covered.iter().filter(|(c, r)| *c / 4 == x / 4 && *r / 4 == y / 4).count()
            };
            // Some pixels of a pleat may have the colour that was there before.
            for (x, y) in [(41usize, 92usize), (56, 92), (70, 92), (56, 76)] {
                assert!(around(x, y) >= 12, "mouth and nose at {x}, {y}: seed {seed}");
            }
            let share = covered.len() as f64 / (CROP_SIDE * CROP_SIDE) as f64;
            assert!((0.2..0.4).contains(&share), "{share}");
        }
    }

    #[test]
    fn a_mask_in_the_shade_is_dark() {
        let masked = only(|augment| augment.mask = always(56.0));
        let dark =
            Crop::from_pixels(CROP_SIDE, vec![20; 3 * CROP_SIDE * CROP_SIDE]).expect("112 x 112");
        for seed in 0..20 {
            let after = masked.apply(&dark, &mut Chance::new(seed));
            assert!(after.frame().pixels().iter().all(|value| *value < 90));
        }
    }

    #[test]
    fn an_object_covers_its_share() {
        let hidden = only(|augment| augment.object = always(0.2));
        let mut largest: f64 = 0.0;
        for seed in 0..200 {
            let covered = changed(&crop(3), &hidden.apply(&crop(3), &mut Chance::new(seed)));
            let share = covered.len() as f64 / (CROP_SIDE * CROP_SIDE) as f64;
            assert!((0.017..0.225).contains(&share), "{share}");
            largest = largest.max(share);
        }
        assert!(largest > 0.15, "{largest}");
    }

    #[test]
    fn probabilities_are_kept() {
        let sometimes = only(|augment| {
            augment.object = Change { probability: 0.25, limit: 0.1 };
        });
        let mut chance = Chance::new(8);
        let hit = (0..1000).filter(|_| sometimes.apply(&crop(1), &mut chance) != crop(1)).count();
        assert!((200..300).contains(&hit), "{hit}");
    }

    #[test]
    fn what_is_out_of_its_limits_is_named() {
        for augment in [Augment::none(), Augment::mild(), Augment::strong()] {
            augment.check().expect("within its limits");
        }
        let mut augment = Augment::none();
        augment.blur.limit = f64::NAN;
        assert!(augment.check().expect_err("no number").to_string().starts_with("blur: limit NaN"));
        let mut augment = Augment::none();
        augment.mask.probability = 1.5;
        let message = augment.check().expect_err("more than certain").to_string();
        assert_eq!(message, "mask: probability 1.5; it must be in 0..=1");
    }
}
