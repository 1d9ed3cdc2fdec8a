//! Data augmentation: aligned faces as another camera, light or distance would have shown
//! them.
//!
//! Each change has a probability and a limit; its strength is drawn uniformly within the
//! limit. The changes follow the order in which a picture forms: what stands before the
//! camera (mirror image, mask, objects), where the face lies in the crop (shift, zoom,
//! rotation), light (from the side, brightness, contrast), optics (blur, distance), and the
//! stored file (JPEG).

use super::covers;
use crate::chance::Chance;
use anyhow::{Result, bail};
use facelatch::models::Alignment;
use facelatch::vision::align::Crop;
use facelatch::vision::frame::Frame;
use facelatch::vision::{picture, resample};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage, imageops};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;
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
/// Mask colours, RGB: the first ones of [`covers::MASKS`].
const MASKS: &[[f64; 3]] = covers::MASKS.split_at(6).0;
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
    /// Face off-centre, as landmarks that are a little off align it; the limit is the largest
    /// shift along each axis in pixels, 0..=16. The pixels at the edge repeat.
    #[serde(default = "never", skip_serializing_if = "is_never")]
    pub shift: Change,
    /// Face larger or smaller by the factor `1 ± x`; the limit of x is 0..=0.3.
    #[serde(default = "never", skip_serializing_if = "is_never")]
    pub zoom: Change,
    /// Face turned in the picture; the limit is the largest angle in both directions,
    /// degrees, 0..=30.
    #[serde(default = "never", skip_serializing_if = "is_never")]
    pub rotation: Change,
    /// Light from one side: values are multiplied by `1 + x` on one edge of the picture, by
    /// `1 - x` on the opposite one, and linearly in between, in any direction; the limit of x
    /// is 0..=1.
    #[serde(default = "never", skip_serializing_if = "is_never")]
    pub side_light: Change,
}

/// A change that never happens.
const fn never() -> Change {
    Change { probability: 0.0, limit: 0.0 }
}

fn is_never(change: &Change) -> bool {
    *change == never()
}

impl Default for Augment {
    fn default() -> Self {
        Self::mild()
    }
}

impl Augment {
    /// No augmentation: faces stay as they are.
    pub const fn none() -> Self {
        const fn with(limit: f64) -> Change {
            Change { limit, ..never() }
        }
        Self {
            flip: 0.0,
            brightness: never(),
            contrast: never(),
            blur: never(),
            jpeg: with(BEST_QUALITY),
            low_resolution: with(CROP_SIDE as f64),
            mask: with(LOWEST_MASK_TOP),
            object: with(LEAST_OBJECT),
            shift: never(),
            zoom: never(),
            rotation: never(),
            side_light: never(),
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
            ..Self::none()
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
            ..Self::none()
        }
    }

    /// As a camera above a door shows faces: small, blurred, compressed, lit from one side,
    /// aligned by landmarks that are a little off, and now and then partly covered.
    pub fn door() -> Self {
        let change = |probability, limit| Change { probability, limit };
        Self {
            flip: 0.5,
            brightness: change(0.8, 0.2),
            contrast: change(0.8, 0.3),
            blur: change(0.2, 1.5),
            jpeg: change(0.3, 30.0),
            low_resolution: change(0.3, 32.0),
            mask: change(0.05, 56.0),
            object: change(0.1, 0.15),
            shift: change(0.5, 4.0),
            zoom: change(0.5, 0.08),
            rotation: change(0.5, 6.0),
            side_light: change(0.3, 0.5),
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
            ("shift", self.shift, 0.0, 16.0),
            ("zoom", self.zoom, 0.0, 0.3),
            ("rotation", self.rotation, 0.0, 30.0),
            ("side-light", self.side_light, 0.0, 1.0),
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
        self.place(&mut frame, unit, chance);
        if let Some(limit) = drawn(self.side_light, chance) {
            let towards = chance.between(0.0, TAU);
            side_light(&mut frame, chance.between(0.0, limit), towards);
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

    /// Moves the face within the picture. `unit` is the length of a pixel of [`CROP_SIDE`].
    fn place(&self, frame: &mut Frame, unit: f64, chance: &mut Chance) {
        let mut within = |change: Change| {
            drawn(change, chance)
                .map(|limit| [chance.between(-limit, limit), chance.between(-limit, limit)])
        };
        let (shift, zoom, rotation) =
            (within(self.shift), within(self.zoom), within(self.rotation));
        if shift.is_none() && zoom.is_none() && rotation.is_none() {
            return;
        }
        let [x, y] = shift.unwrap_or_default().map(|pixels| pixels * unit);
        let size = 1.0 + zoom.map_or(0.0, |[by, _]| by);
        let angle = rotation.map_or(0.0, |[degrees, _]| degrees.to_radians());
        moved(frame, [x, y], size, angle);
    }
}

/// The limit of a change that is drawn. A change that never happens draws no number, so that
/// the others are as they were before it existed.
fn drawn(change: Change, chance: &mut Chance) -> Option<f64> {
    (change.probability > 0.0 && chance.happens(change.probability)).then_some(change.limit)
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

/// Turns the picture about its centre, enlarges it and shifts it, with bilinear resampling.
/// Beyond the edges their pixels repeat.
fn moved(frame: &mut Frame, shift: [f64; 2], size: f64, angle: f64) {
    let source = frame.clone();
    let (width, height) = (frame.width(), frame.height());
    let center = [(width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0];
    let (sine, cosine) = (angle.sin() / size, angle.cos() / size);
    for (row, line) in frame.pixels_mut().chunks_exact_mut(3 * width).enumerate() {
        let y = row as f64 - center[1] - shift[1];
        for (column, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let x = column as f64 - center[0] - shift[0];
            let from_x = (cosine * x + sine * y + center[0]).clamp(0.0, width as f64 - 1.0);
            let from_y = (cosine * y - sine * x + center[1]).clamp(0.0, height as f64 - 1.0);
            *pixel = between(&source, from_x, from_y);
        }
    }
}

/// The colour at a place between pixels.
fn between(frame: &Frame, x: f64, y: f64) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (across, down) = (x - left, y - top);
    let at = |right: isize, below: isize| frame.pixel(left as isize + right, top as isize + below);
    let corners = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)].map(|pixel| pixel.map(f64::from));
    std::array::from_fn(|channel| {
        let [a, b, c, d] = corners.map(|pixel| pixel[channel]);
        let (above, below) = (a + (b - a) * across, c + (d - c) * across);
        (above + (below - above) * down).round() as u8
    })
}

/// Brightens the picture towards the angle `towards` and darkens it on the other side.
fn side_light(frame: &mut Frame, strength: f64, towards: f64) {
    let (width, half) = (frame.width(), frame.width() as f64 / 2.0);
    let (sine, cosine) = towards.sin_cos();
    // Up to 1 at the edges, also along the diagonals.
    let reach = half * (sine.abs() + cosine.abs());
    for (row, line) in frame.pixels_mut().chunks_exact_mut(3 * width).enumerate() {
        let y = row as f64 + 0.5 - half;
        for (column, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let x = column as f64 + 0.5 - half;
            let factor = 1.0 + strength * (x * cosine + y * sine) / reach;
            *pixel = pixel.map(|value| (f64::from(value) * factor).round() as u8);
        }
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
        let shade = light * (1.0 - pleat * (0.5 + 0.5 * (y / pleats * TAU).sin()));
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
mod tests;
