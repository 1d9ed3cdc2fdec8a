//! MiniFASNet (Minivision, "Silent-Face-Anti-Spoofing", 2020): networks trained to tell
//! live faces from prints and screens, each on a crop of another scale around the face.

use crate::models::LivenessModels;
use crate::nn::{Batch, Dim, Network, NetworkError, Signature};
use crate::vision::frame::{Frame, Rect};

/// Side of the input of the networks, pixels.
pub const INPUT_SIDE: usize = 80;
/// Number of output classes: a flat attack, a live face, an attack of another kind.
pub const CLASSES: usize = 3;
/// The class of live faces.
const LIVE: usize = 1;

/// The networks and their input buffer.
#[derive(Debug)]
pub struct LivenessNets {
    networks: Vec<(f64, Network)>,
    pictures: Batch,
}

impl LivenessNets {
    /// Loads all networks.
    ///
    /// # Errors
    /// If a model is invalid or has another shape than required.
    pub fn new(models: &LivenessModels) -> Result<Self, NetworkError> {
        let side = Dim::Fixed(INPUT_SIDE);
        let signature =
            Signature { input: [Dim::Fixed(1), Dim::Fixed(3), side, side], outputs: vec![CLASSES] };
        let networks = models.networks.iter().map(|(scale, file)| {
            let normalization = &models.normalization;
            let network = Network::load(&file.name, &file.bytes, &signature, normalization, None)?;
            Ok((*scale, network))
        });
        let networks = networks.collect::<Result<_, NetworkError>>()?;
        Ok(Self { networks, pictures: Batch::default() })
    }

    /// Mean of the networks' outputs for a live face, 0 to 1. `face` is the bounding box in
    /// pixels of the frame.
    ///
    /// # Errors
    /// If a network fails.
    pub fn judge(&mut self, frame: &Frame, face: &Rect) -> Result<f32, NetworkError> {
        let mut sum = 0.0;
        for (scale, network) in &mut self.networks {
            let region = crop_region((frame.width(), frame.height()), face, *scale);
            self.pictures.clear();
            cut(frame, region, self.pictures.add(INPUT_SIDE, INPUT_SIDE));
            let outputs = network.run(&self.pictures)?;
            let classes = outputs.first().and_then(|output| output.places().next());
            sum += classes.and_then(|classes| classes.get(LIVE)).copied().unwrap_or_default();
        }
        Ok(sum / self.networks.len().max(1) as f32)
    }
}

/// First and last column and row of a crop, pixels, all inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First column, inclusive.
    pub left: usize,
    /// First row, inclusive.
    pub top: usize,
    /// Last column, inclusive.
    pub right: usize,
    /// Last row, inclusive.
    pub bottom: usize,
}

/// The crop around a face, as the authors of the networks cut it: the bounding box in whole
/// pixels is scaled about its centre by `scale`, or by as much as the size of the picture
/// allows, and then moved into the picture if it extends beyond it.
pub fn crop_region((width, height): (usize, usize), face: &Rect, scale: f64) -> Region {
    let (picture_width, picture_height) = (width as f64, height as f64);
    // Box of the authors' detector: rounded towards zero, with sides one pixel longer.
    let (x, y) = (f64::from(face.x1).trunc(), f64::from(face.y1).trunc());
    let box_width = (f64::from(face.x2 - face.x1) + 1.0).trunc().max(1.0);
    let box_height = (f64::from(face.y2 - face.y1) + 1.0).trunc().max(1.0);
    let scale =
        ((picture_height - 1.0) / box_height).min((picture_width - 1.0) / box_width).min(scale);
    let placed = |from: f64, side: f64, pixels: f64| {
        let (middle, half) = (side / 2.0 + from, side * scale / 2.0);
        let (mut low, mut high) = (middle - half, middle + half);
        if low < 0.0 {
            high -= low;
            low = 0.0;
        }
        if high > pixels - 1.0 {
            low -= high - pixels + 1.0;
            high = pixels - 1.0;
        }
        // Casts saturate, and NaN becomes 0.
        (low.max(0.0) as usize, high.max(0.0) as usize)
    };
    let (left, right) = placed(x, box_width, picture_width);
    let (top, bottom) = placed(y, box_height, picture_height);
    Region { left, top, right, bottom }
}

/// Writes a region as 80 x 80 pixels. Interpolates bilinearly between the nearest four
/// pixels, also when shrinking, and never from outside the region. Matches OpenCV's
/// `resize` within half a step of a byte.
fn cut(frame: &Frame, region: Region, out: &mut [i16]) {
    let Region { left, top, right, bottom } = region;
    let along = |at: usize, from: usize, to: usize| {
        let step = (to + 1 - from) as f32 / INPUT_SIDE as f32;
        let place = (at as f32 + 0.5) * step - 0.5;
        from as f32 + place.clamp(0.0, (to - from) as f32)
    };
    for (at, pixel) in out.as_chunks_mut::<{ Batch::PIXEL }>().0.iter_mut().enumerate() {
        let (column, row) = (at % INPUT_SIDE, at / INPUT_SIDE);
        let sample = frame.sample(along(column, left, right), along(row, top, bottom));
        for (to, value) in pixel.iter_mut().zip(sample) {
            *to = (value + 0.5) as i16 * Batch::STEPS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rect(x: f32, y: f32, width: f32, height: f32) -> Rect {
        Rect { x1: x, y1: y, x2: x + width, y2: y + height }
    }

    fn region(left: usize, top: usize, right: usize, bottom: usize) -> Region {
        Region { left, top, right, bottom }
    }

    #[test]
    fn a_crop_that_fits_is_the_box_grown_about_its_centre() {
        // A box of 100 x 120 (99 and 119 apart) at 450, 300: 270 x 324 about 500, 360.
        let got = crop_region((1000, 800), &rect(450.0, 300.0, 99.0, 119.0), 2.7);
        assert_eq!(got, region(365, 198, 635, 522));
    }

    #[test]
    fn a_crop_larger_than_the_picture_is_shrunk_to_fit() {
        // min(249 / 120, 249 / 100, 4) = 2.075: 207.5 x 249 about 125, 125.
        let got = crop_region((250, 250), &rect(75.0, 65.0, 99.0, 119.0), 4.0);
        assert_eq!(got, region(21, 0, 228, 249));
    }

    #[test]
    fn a_crop_past_a_border_is_moved_inside() {
        // 200 x 200 about 50, 50 and about 950, 750.
        let near = crop_region((1000, 800), &rect(0.0, 0.0, 99.0, 99.0), 2.0);
        assert_eq!(near, region(0, 0, 200, 200));
        let far = crop_region((1000, 800), &rect(900.0, 700.0, 99.0, 99.0), 2.0);
        assert_eq!(far, region(799, 599, 999, 799));
        // A box may begin outside the picture.
        let outside = crop_region((1000, 800), &rect(-30.7, 10.0, 99.0, 99.0), 2.0);
        assert_eq!(outside.left, 0);
    }

    #[test]
    fn a_region_of_80_is_copied() {
        let mut frame = Frame::filled(200, 100, [0; 3]);
        let (width, pixels) = (frame.width(), frame.pixels_mut());
        for (at, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&[(at % width) as u8, (at / width) as u8, 7]);
        }
        let mut out = vec![0; INPUT_SIDE * INPUT_SIDE * Batch::PIXEL];
        cut(&frame, region(10, 5, 89, 84), &mut out);
        for (at, pixel) in out.chunks_exact(Batch::PIXEL).enumerate() {
            let expected = [10 + at % 80, 5 + at / 80, 7].map(|v| v as i16 * Batch::STEPS);
            assert_eq!(pixel[..3], expected);
        }
    }

    proptest! {
        #[test]
        fn a_crop_lies_within_the_picture(
            sides in (1usize..2000, 1usize..2000), scale in 0.5f64..5.0,
            x in -500f32..2500.0, y in -500f32..2500.0, width in 1f32..900.0, height in 1f32..900.0,
        ) {
            let got = crop_region(sides, &rect(x, y, width, height), scale);
            prop_assert!(got.left <= got.right && got.right < sides.0, "{got:?}");
            prop_assert!(got.top <= got.bottom && got.bottom < sides.1, "{got:?}");
        }
    }
}
