//! Features of an aligned face by which [`CoverClassifier`] tells whether something covers it.
//!
//! Twelve times twelve cells of 8x8 pixels, without the outermost columns and the two rows at
//! the top. Each has the strength of its edges in four directions, so a simple histogram of
//! oriented gradients (Dalal and Triggs, "Histograms of Oriented Gradients for Human
//! Detection", 2005), and its mean luma and colour relative to those of the face. A mask has
//! no edges where the mouth is and another colour than the cheeks.

use crate::models::Alignment;
use crate::models::covered::CoverClassifier;
use crate::vision::align::Crop;
use crate::vision::frame::luma;

/// Side of the crop, pixels.
const SIDE: usize = Alignment::ARCFACE.side;
/// Side of a cell, pixels.
const CELL: usize = 8;
/// Cells in a row, and rows of cells.
const CELLS: usize = 12;
/// Column and row of the first pixel of the first cell.
const FIRST: [usize; 2] = [8, 16];
/// Numbers per cell: edges across, down and along the two diagonals, luma, and the two
/// colour differences.
const CHANNELS: usize = 7;
/// Number of features.
const FEATURES: usize = CoverClassifier::FEATURES;
const _: () = assert!(FEATURES == CELLS * CELLS * CHANNELS);

/// Least mean edge, grey levels, and least spread of luma: weaker ones are noise.
const LEAST_EDGE: f32 = 0.25;
const LEAST_SPREAD: f32 = 4.0;
/// Divisors that bring the features to the same range: a regularized classifier would
/// neglect smaller ones.
const LUMA_SCALE: f32 = 2.0;
const COLOUR_SCALE: f32 = 16.0;

/// The features of a face aligned by [`Alignment::ARCFACE`], cell by cell, row-major. `None`
/// for a crop of another side.
pub fn features(crop: &Crop) -> Option<[f32; FEATURES]> {
    if crop.side() != SIDE {
        return None;
    }
    let (pixels, _) = crop.frame().pixels().as_chunks::<3>();
    let pixel = |x: usize, y: usize| pixels[y * SIDE + x].map(f32::from);
    let light: Vec<f32> = pixels.iter().map(|pixel| luma(pixel.map(f32::from))).collect();
    let mut cells = [[0.0; CHANNELS]; CELLS * CELLS];
    for row in 0..CELLS * CELL {
        let y = row + FIRST[1];
        for column in 0..CELLS * CELL {
            let x = column + FIRST[0];
            let at = y * SIDE + x;
            let across = light[at + 1] - light[at - 1];
            // The last row has none below it.
            let down = if y + 1 < SIDE { light[at + SIDE] - light[at - SIDE] } else { 0.0 };
            let [red, _, blue] = pixel(x, y);
            let cell = &mut cells[row / CELL * CELLS + column / CELL];
            let diagonal = std::f32::consts::FRAC_1_SQRT_2;
            let values = [
                across.abs(),
                down.abs(),
                (across + down).abs() * diagonal,
                (across - down).abs() * diagonal,
                light[at],
                // BT.601's colour differences.
                (blue - light[at]) * 0.564,
                (red - light[at]) * 0.713,
            ];
            cell.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    Some(relative(cells))
}

/// From the sums over each cell to numbers that depend little on light and contrast.
fn relative(mut cells: [[f32; CHANNELS]; CELLS * CELLS]) -> [f32; FEATURES] {
    const COUNT: f32 = (CELLS * CELLS) as f32;
    cells.as_flattened_mut().iter_mut().for_each(|sum| *sum /= (CELL * CELL) as f32);
    let mean = |channel: usize| cells.iter().map(|cell| cell[channel]).sum::<f32>() / COUNT;
    let edges = (0..4).map(mean).sum::<f32>() / 4.0 + LEAST_EDGE;
    let [light, blue, red] = [4, 5, 6].map(mean);
    let squares = cells.iter().map(|cell| (cell[4] - light).powi(2)).sum::<f32>();
    let spread = (squares / COUNT).sqrt() + LEAST_SPREAD;
    let mut features = [0.0; FEATURES];
    for (cell, to) in cells.iter().zip(features.as_chunks_mut::<CHANNELS>().0) {
        for channel in 0..4 {
            // The square root keeps one strong edge from drowning the others.
            to[channel] = (cell[channel] / edges).sqrt() / 2.0;
        }
        to[4] = (cell[4] - light) / spread / LUMA_SCALE;
        to[5] = (cell[5] - blue) / COLOUR_SCALE;
        to[6] = (cell[6] - red) / COLOUR_SCALE;
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(side: usize, value: impl Fn(usize, usize, usize) -> f32) -> Crop {
        let pixels = (0..side * side * 3)
            .map(|at| value(at / 3 % side, at / 3 / side, at % 3).round() as u8)
            .collect();
        Crop::from_pixels(side, pixels).expect("a square")
    }

    fn waves(x: usize, y: usize, channel: usize) -> f32 {
        100.0 + 40.0 * (x as f32 / 7.0 + channel as f32).sin() + 20.0 * (y as f32 / 5.0).cos()
    }

    #[test]
    fn darker_light_changes_the_features_little() {
        let bright = features(&crop(SIDE, |x, y, c| 1.5 * waves(x, y, c))).expect("features");
        let dark = features(&crop(SIDE, waves)).expect("features");
        let near = |channel: usize| channel < 5;
        let most = bright
            .iter()
            .zip(dark)
            .enumerate()
            .filter(|(at, _)| near(at % CHANNELS))
            .map(|(_, (a, b))| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(most < 0.15, "{most}");
    }

    #[test]
    fn an_edge_is_seen_in_its_cell_and_direction() {
        // A step from left to right, within the cells of column 6.
        let step = crop(SIDE, |x, _, _| if x < 60 { 60.0 } else { 180.0 });
        let found = features(&step).expect("features");
        let at = |column: usize, channel: usize| found[(5 * CELLS + column) * CHANNELS + channel];
        assert!(at(6, 0) > 1.0 && at(6, 0) > at(6, 2), "{} {}", at(6, 0), at(6, 2));
        assert_eq!((at(6, 1), at(3, 0)), (0.0, 0.0));
        assert!(at(9, 4) > 0.4 && at(2, 4) < -0.4);
    }

    #[test]
    fn any_crop_has_finite_features_and_another_side_has_none() {
        for value in [0.0, 255.0] {
            let flat = features(&crop(SIDE, |_, _, _| value)).expect("features");
            assert!(flat.iter().all(|feature| feature.is_finite()));
        }
        assert!(features(&crop(100, waves)).is_none());
    }
}
