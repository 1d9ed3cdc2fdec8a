//! The motion gate: decides whether a frame is processed. Networks are expensive, and an
//! empty corridor should cost little.
//!
//! A coarse grid of luma is compared with a background that follows slowly:
//!
//! ```text
//!   cells      mean luma of 16 pixels each, 32 x 24 cells
//!   shift      median of (cell - background): a change of light over the whole picture
//!   rest       |cell - background - shift|
//!   noise      the larger of: a low quantile of rest over all cells, and this cell's past
//!   changed    rest > 6 standard deviations of that noise, and > 4 levels
//!   motion     at least `minimum_cells` cells changed
//!   light      shift > 6 levels, or most cells changed: a lamp, another exposure;
//!              counts as motion once, then becomes the background
//! ```
//!
//! The gate may miss something. So it passes one frame per second in any case, and every
//! frame while a face is followed. It is pure: time is an argument.

use crate::vision::frame::Frame;
use std::time::Duration;

/// Columns of cells. A cell is 40 pixels wide at 1280x720, so that a face large enough to
/// compare covers several.
const COLUMNS: usize = 32;
/// Rows of cells.
const ROWS: usize = 24;
const CELLS: usize = COLUMNS * ROWS;
/// Pixels sampled per cell and axis: 16 samples reduce the camera's noise to a quarter.
const SAMPLES: usize = 4;
/// Time constant of the background. A person who stands still for long becomes part of it,
/// and a moved chair within half a minute.
const FOLLOWS: Duration = Duration::from_secs(10);
/// Standard deviations above which a cell counts as changed. Normal noise exceeds them in
/// one cell of 500 million.
const SIGMAS: f32 = 6.0;
/// Standard deviation of normal noise with a median absolute difference of 1.
const SIGMA_OF_MEDIAN: f32 = 1.4826;
/// Ratio of the median to the lower quartile of the absolute value of normal noise. Noise
/// is estimated from the quartile, because a person close to the camera fills more than
/// half of the picture.
const QUARTILE: f32 = 0.6745 / 0.3186;
/// Difference, levels of 255, up to which a cell never counts as changed: compression alone
/// causes small differences.
const LEAST_CHANGE: f32 = 4.0;
/// Shift of the whole picture, levels, above which the light has changed.
const LIGHT: f32 = 6.0;
/// Correction of a cell's noise estimate per frame, levels. The estimate is a running
/// median, so that a large difference counts no more than a small one.
const NOISE_STEP: f32 = 0.02;
/// Upper limit of a noise estimate, levels.
const MOST_NOISE: f32 = 8.0;

/// One value per cell, row by row; a luma is from 0 to 255.
type Cells = heapless::Vec<f32, CELLS>;

/// Settings of the motion gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MotionGateSettings {
    /// Longest time without processing a frame: the longest delay caused by missed motion.
    pub idle_look_every: Duration,
    /// Time after motion during which every frame is processed.
    pub hold_on: Duration,
    /// Changed cells, of 768, from which a frame has motion.
    pub minimum_cells: usize,
}

impl Default for MotionGateSettings {
    fn default() -> Self {
        Self {
            idle_look_every: Duration::from_secs(1),
            hold_on: Duration::from_secs(2),
            minimum_cells: 3,
        }
    }
}

/// Whether to process a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Process it, with the reason.
    Pass(Why),
    /// Skip it: it shows no change.
    Skip,
}

/// Reason for processing a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A face is followed.
    Followed,
    /// It is the first frame, or the first of this size.
    First,
    /// There is motion.
    Motion,
    /// The light has changed.
    Light,
    /// There was motion less than `hold_on` ago.
    HoldOn,
    /// No frame was processed for `idle_look_every`.
    Idle,
}

/// Decides which frames are processed.
#[derive(Clone, Debug)]
pub struct MotionGate {
    settings: MotionGateSettings,
    /// Width and height of the frames in the background, pixels.
    sides: (usize, usize),
    background: Cells,
    /// Running median of each cell's absolute difference, levels.
    noise: Cells,
    /// Time of the last frame.
    at: Duration,
    looked: Option<Duration>,
    hold_until: Duration,
    share: Share,
}

/// Counts of frames received and processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Frames received.
    pub frames: u64,
    /// Frames processed.
    pub looked: u64,
}

impl MotionGate {
    /// A gate without a background.
    pub fn new(settings: MotionGateSettings) -> Self {
        Self {
            settings,
            sides: (0, 0),
            background: Cells::new(),
            noise: Cells::new(),
            at: Duration::ZERO,
            looked: None,
            hold_until: Duration::ZERO,
            share: Share::default(),
        }
    }

    /// Decides about the frame of the time `now`, on a monotonic clock. `followed` says
    /// whether any face is followed.
    pub fn step(&mut self, now: Duration, frame: &Frame, followed: bool) -> Gate {
        let moved = self.compare(now, frame, followed);
        if followed || moved.is_some() {
            self.hold_until = now.saturating_add(self.settings.hold_on);
        }
        let every = self.settings.idle_look_every;
        let due = self.looked.is_none_or(|at| now.saturating_sub(at) >= every);
        let why = if followed {
            Some(Why::Followed)
        } else if moved.is_some() {
            moved
        } else if now < self.hold_until {
            Some(Why::HoldOn)
        } else {
            due.then_some(Why::Idle)
        };
        self.share.frames += 1;
        let Some(why) = why else { return Gate::Skip };
        self.looked = Some(now);
        self.share.looked += 1;
        Gate::Pass(why)
    }

    /// Frames received and processed so far.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Compares a frame with the background and updates it. Returns the reason if the frame
    /// has changed.
    fn compare(&mut self, now: Duration, frame: &Frame, followed: bool) -> Option<Why> {
        let passed = now.saturating_sub(self.at).as_secs_f32();
        self.at = now;
        let cells = measure(frame);
        let sides = (frame.width(), frame.height());
        if sides != self.sides {
            self.sides = sides;
            self.noise = cells.iter().map(|_| 0.0).collect();
            self.background = cells;
            return Some(Why::First);
        }
        let mut differences: Cells =
            cells.iter().zip(&self.background).map(|(cell, back)| cell - back).collect();
        let shift = quantile(differences.clone(), 0.5);
        for difference in &mut differences {
            *difference = (*difference - shift).abs();
        }
        let overall = (QUARTILE * quantile(differences.clone(), 0.25)).min(MOST_NOISE);
        let changed = differences
            .iter()
            .zip(&self.noise)
            .filter(|(rest, noise)| {
                let sigma = SIGMA_OF_MEDIAN * noise.max(overall);
                **rest > (SIGMAS * sigma).max(LEAST_CHANGE)
            })
            .count();
        if shift.abs() > LIGHT || changed * 2 > cells.len() {
            self.background = cells;
            return Some(Why::Light);
        }
        if !followed {
            for (noise, rest) in self.noise.iter_mut().zip(&differences) {
                let step = if *rest > *noise { NOISE_STEP } else { -NOISE_STEP };
                *noise = (*noise + step).clamp(0.0, MOST_NOISE);
            }
        }
        let share = passed / (passed + FOLLOWS.as_secs_f32());
        for (back, cell) in self.background.iter_mut().zip(&cells) {
            *back += share * (cell - *back);
        }
        // A tiny picture has fewer cells.
        let wanted = self.settings.minimum_cells.min(cells.len() / 16).max(1);
        (changed >= wanted).then_some(Why::Motion)
    }
}

/// Mean luma (BT.601, full range) of up to 16 pixels in each cell. A picture smaller than
/// the grid has one cell per pixel.
fn measure(frame: &Frame) -> Cells {
    let columns = frame.width().min(COLUMNS);
    // The column of cells and the byte offset of each pixel sampled in a row.
    let mut taken: heapless::Vec<(usize, usize), { COLUMNS * SAMPLES }> = heapless::Vec::new();
    let mut counts = [0; COLUMNS];
    for (column, count) in counts.iter_mut().enumerate().take(columns) {
        for at in samples(frame.width(), columns, column) {
            // The capacity suffices.
            let _ = taken.push((column, at * 3));
            *count += 1;
        }
    }
    let rows = frame.height().min(ROWS);
    let mut cells = Cells::new();
    for row in 0..rows {
        let mut sums = [0u32; COLUMNS];
        let mut lines = 0;
        for at in samples(frame.height(), rows, row) {
            let line = frame.row(at);
            for (column, at) in &taken {
                let pixel = &line[*at..*at + 3];
                let [r, g, b] = [u32::from(pixel[0]), u32::from(pixel[1]), u32::from(pixel[2])];
                sums[*column] += 77 * r + 150 * g + 29 * b;
            }
            lines += 1;
        }
        for (sum, count) in sums.iter().zip(&counts).take(columns) {
            // There are at most CELLS cells.
            let _ = cells.push(*sum as f32 / (256 * count * lines) as f32);
        }
    }
    cells
}

/// The pixels sampled in part `part` of `parts` of `length` pixels, evenly spread.
fn samples(length: usize, parts: usize, part: usize) -> impl Iterator<Item = usize> {
    let (from, to) = (part * length / parts, (part + 1) * length / parts);
    let count = (to - from).min(SAMPLES);
    (0..count).map(move |i| from + (2 * i + 1) * (to - from) / (2 * count))
}

/// The quantile at `share`, 0..=1; 0 if there are no values.
fn quantile(mut values: Cells, share: f32) -> f32 {
    let at = (values.len() as f32 * share) as usize;
    if at >= values.len() {
        return 0.0;
    }
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDTH: usize = 160;
    const HEIGHT: usize = 120;

    /// Pseudo-random noise.
    struct Noise(u32);

    impl Noise {
        /// A grey picture of the given levels, with noise of up to `amplitude` per pixel.
        fn picture(&mut self, amplitude: u8, level: impl Fn(usize, usize) -> u8) -> Frame {
            let mut frame = Frame::filled(WIDTH, HEIGHT, [0; 3]);
            for (at, pixel) in frame.pixels_mut().chunks_exact_mut(3).enumerate() {
                self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let range = 2 * u32::from(amplitude) + 1;
                let off = (self.0 >> 8) % range;
                let level = i32::from(level(at % WIDTH, at / WIDTH));
                let value = level + off as i32 - i32::from(amplitude);
                pixel.fill(value.clamp(0, 255) as u8);
            }
            frame
        }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn gate() -> MotionGate {
        MotionGate::new(MotionGateSettings::default())
    }

    /// Levels of a wall with some structure.
    fn wall(x: usize, y: usize) -> u8 {
        80 + (x / 20 * 7 + y / 15 * 11) as u8 % 60
    }

    #[test]
    fn an_empty_corridor_is_looked_at_once_a_second() {
        let (mut gate, mut noise) = (gate(), Noise(1));
        let looks = (0..200)
            .filter(|i| gate.step(ms(i * 100), &noise.picture(6, wall), false) != Gate::Skip)
            .count();
        // All frames for two seconds after the first, then one per second for 18 seconds.
        assert_eq!(looks, 20 + 18);
        assert_eq!(gate.share(), Share { frames: 200, looked: 38 });
    }

    #[test]
    fn a_lamp_counts_once_and_is_then_the_background() {
        let (mut gate, mut noise) = (gate(), Noise(2));
        let mut seen = vec![];
        for i in 0..100 {
            // The lamp adds twice as much light on its side of the picture.
            let lamp = move |x, y| wall(x, y) + if i < 50 { 0 } else { 20 + (x / 8) as u8 };
            if let Gate::Pass(why) = gate.step(ms(i * 100), &noise.picture(4, lamp), false) {
                seen.push((i, why));
            }
        }
        let of = |why| seen.iter().filter(|seen| seen.1 == why).map(|seen| seen.0).collect();
        let (light, motion): (Vec<u64>, Vec<u64>) = (of(Why::Light), of(Why::Motion));
        assert_eq!((light, motion), (vec![50], vec![]));
        assert_eq!(seen.iter().filter(|(_, why)| *why == Why::HoldOn).count(), 19 + 19);
    }

    #[test]
    fn an_exposure_that_creeps_moves_nothing() {
        let (mut gate, mut noise) = (gate(), Noise(3));
        for i in 0..300u64 {
            let creeping = |x, y| wall(x, y) + (i / 10) as u8;
            let look = gate.step(ms(i * 100), &noise.picture(4, creeping), false);
            assert_ne!(look, Gate::Pass(Why::Motion), "frame {i}");
        }
    }

    #[test]
    fn permanent_flicker_becomes_background() {
        let (mut gate, mut noise) = (gate(), Noise(4));
        let mut last = 0;
        for i in 0..1500u64 {
            // A flickering screen in a corner, on a wall without noise.
            let lit = (i * 7 % 3) as u8 * 4;
            let screen = |x: usize, y: usize| wall(x, y) + if x < 20 && y < 20 { lit } else { 0 };
            if gate.step(ms(i * 100), &noise.picture(0, screen), false) == Gate::Pass(Why::Motion) {
                last = i;
            }
        }
        assert!(last < 300, "{last}");
    }

    #[test]
    fn a_chair_that_was_moved_is_part_of_the_room_within_half_a_minute() {
        let (mut gate, mut noise) = (gate(), Noise(5));
        let mut last = 0;
        for i in 0..600u64 {
            let chair = |x: usize, y: usize| {
                if i >= 50 && (60..100).contains(&x) && y > 80 { 20 } else { wall(x, y) }
            };
            if gate.step(ms(i * 100), &noise.picture(4, chair), false) == Gate::Pass(Why::Motion) {
                last = i;
            }
        }
        assert!((60..350).contains(&last), "{last}");
    }

    #[test]
    fn every_frame_is_looked_at_while_a_face_is_followed_and_a_moment_after() {
        let (mut gate, mut noise) = (gate(), Noise(6));
        for i in 0..50 {
            let look = gate.step(ms(i * 100), &noise.picture(4, wall), true);
            assert_eq!(look, Gate::Pass(Why::Followed));
        }
        for i in 50..69 {
            let look = gate.step(ms(i * 100), &noise.picture(4, wall), false);
            assert_eq!(look, Gate::Pass(Why::HoldOn), "frame {i}");
        }
        assert_eq!(gate.step(ms(6900), &noise.picture(4, wall), false), Gate::Skip);
    }

    #[test]
    fn a_person_who_fills_half_or_nearly_all_of_the_picture_is_seen() {
        for width in [40, 60, 80, 100, 120, 140, 155] {
            let (mut gate, mut noise) = (gate(), Noise(7));
            for i in 0..100 {
                gate.step(ms(i * 100), &noise.picture(4, wall), false);
            }
            let person = |x: usize, y: usize| match x < width {
                true => 30 + (x * 7 % 90) as u8 + (y % 60) as u8,
                false => wall(x, y),
            };
            let look = gate.step(ms(10_000), &noise.picture(4, person), false);
            assert!(matches!(look, Gate::Pass(Why::Motion | Why::Light)), "{width}: {look:?}");
        }
    }

    #[test]
    fn another_size_is_another_picture() {
        let mut gate = gate();
        for (at, side) in [(0, 1), (10, 2), (20, 700), (30, 1)] {
            let frame = Frame::filled(side, side, [9; 3]);
            assert_eq!(gate.step(ms(at), &frame, false), Gate::Pass(Why::First));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// For any frames at any times, processing never pauses for longer than allowed.
        #[test]
        fn a_frame_is_looked_at_in_time(
            frames in prop::collection::vec(
                (0u64..1500, 1usize..70, 1usize..50, any::<u8>(), any::<bool>()),
                1..80,
            ),
        ) {
            let settings = MotionGateSettings::default();
            let mut gate = MotionGate::new(settings);
            let (mut now, mut looked) = (Duration::ZERO, None);
            for (later, width, height, level, followed) in frames {
                now += ms(later);
                // Most frames have the same size.
                let (width, height) = if width < 50 { (40, 30) } else { (width, height) };
                let frame = Frame::filled(width, height, [level / 32 * 32; 3]);
                let look = gate.step(now, &frame, followed);
                if look == Gate::Skip {
                    prop_assert!(!followed);
                    let last: Duration = looked.expect("the first frame is looked at");
                    prop_assert!(now < last + settings.idle_look_every);
                } else {
                    looked = Some(now);
                }
            }
        }

        #[test]
        fn noise_moves_nothing(seed: u32, amplitude in 0u8..30, level in 0u8..200) {
            let (mut gate, mut noise) = (gate(), Noise(seed));
            for i in 0..60u64 {
                let frame = noise.picture(amplitude, |x, y| level.max(wall(x, y)));
                let look = gate.step(ms(i * 100), &frame, false);
                let quiet = [Gate::Skip, Gate::Pass(Why::HoldOn), Gate::Pass(Why::Idle)];
                prop_assert!(i == 0 || quiet.contains(&look), "{i}: {look:?}");
            }
        }

        /// Faces from an eighth of the picture's height up.
        #[test]
        fn a_face_that_moves_a_little_is_seen_at_once(
            seed: u32,
            amplitude in 0u8..10,
            side in 15usize..50,
            (left, top) in (8usize..100, 0usize..70),
            contrast in 40u8..100,
            right: bool,
        ) {
            let (mut gate, mut noise) = (gate(), Noise(seed));
            let mut last = Gate::Skip;
            for i in 0..40u64 {
                let step = WIDTH / 20;
                let left = match (i == 39, right) {
                    (false, _) => left,
                    (true, true) => left + step,
                    (true, false) => left - step,
                };
                let face = |x: usize, y: usize| {
                    let inside = (left..left + side).contains(&x) && (top..top + side).contains(&y);
                    60 + if inside { contrast } else { 0 }
                };
                last = gate.step(ms(i * 100), &noise.picture(amplitude, face), false);
            }
            prop_assert_eq!(last, Gate::Pass(Why::Motion));
        }
    }
}
