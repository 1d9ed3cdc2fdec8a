//! Covers painted on the face of a photo: masks, sunglasses, hands, objects and bars, and
//! photos cut at the edge. From them the door learns what a covered face looks like, and by
//! them its refusals are measured.
//!
//! A cover is painted in the photo, not in the aligned face, because the detector places the
//! landmarks of a covered face differently. All lengths are in pixels of a face aligned by
//! [`Alignment::ARCFACE`].

use crate::chance::Chance;
use facelatch::models::Alignment;
use facelatch::vision::align::Similarity;
use facelatch::vision::frame::{Frame, Landmarks};
use facelatch::vision::resample;

/// A way in which a face is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A mask over mouth and nose.
    Mask,
    /// Dark glasses.
    Sunglasses,
    /// A hand in front of mouth and nose, or of one side.
    Hand,
    /// A rectangle of one colour over at least a quarter of the face.
    Object,
    /// A bar from the edge of the picture into the face: black, of one colour, or blurred.
    Bar,
    /// The picture ends at the nose or the mouth.
    CutBelow,
    /// The picture begins at the brow or the eyes.
    CutAbove,
    /// The picture ends in the middle of the face, on one side.
    CutBeside,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Mask,
        Self::Sunglasses,
        Self::Hand,
        Self::Object,
        Self::Bar,
        Self::CutBelow,
        Self::CutAbove,
        Self::CutBeside,
    ];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::Sunglasses => "sunglasses",
            Self::Hand => "hand",
            Self::Object => "object",
            Self::Bar => "bar",
            Self::CutBelow => "cut below",
            Self::CutAbove => "cut above",
            Self::CutBeside => "cut beside",
        }
    }
}

/// A copy of the photo in which the face with these landmarks is not whole.
pub fn spoilt(photo: &Frame, landmarks: &Landmarks, kind: Kind, chance: &mut Chance) -> Frame {
    let mut canvas = Canvas::new(photo, landmarks);
    match kind {
        Kind::Mask => mask(&mut canvas, chance),
        Kind::Sunglasses => sunglasses(&mut canvas, chance),
        Kind::Hand => hand(&mut canvas, chance),
        Kind::Object => object(&mut canvas, chance),
        Kind::Bar => return bar(photo, &canvas, chance),
        Kind::CutBelow | Kind::CutAbove | Kind::CutBeside => {
            let edge = match kind {
                Kind::CutBelow => Edge::Bottom,
                Kind::CutAbove => Edge::Top,
                _ if chance.happens(0.5) => Edge::Left,
                _ => Edge::Right,
            };
            let [left, top, right, bottom] = canvas.kept(edge, chance);
            return part(photo, [left, top, right, bottom]);
        }
    }
    canvas.frame
}

/// A photo, and the way from its pixels to those of the aligned face.
struct Canvas {
    frame: Frame,
    to_face: Similarity,
    eyes: [[f32; 2]; 2],
    /// Mean value of the skin between eyes and mouth, 0..=255.
    skin: [f32; 3],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Left,
    Top,
    Right,
    Bottom,
}

type Point = [f32; 2];

impl Canvas {
    fn new(photo: &Frame, landmarks: &Landmarks) -> Self {
        let to_face = Similarity::fit(landmarks, &Alignment::ARCFACE.landmarks);
        let from_face = to_face.inverse();
        let (mut sum, mut count) = ([0.0; 3], 0.0f32);
        for row in 60..82 {
            for column in 36..77 {
                let [x, y] = from_face.apply([column as f32, row as f32]);
                let sample = photo.sample(x, y);
                (0..3).for_each(|channel| sum[channel] += sample[channel]);
                count += 1.0;
            }
        }
        Self {
            frame: photo.clone(),
            to_face,
            eyes: [to_face.apply(landmarks[0]), to_face.apply(landmarks[1])],
            skin: sum.map(|sum| sum / count),
        }
    }

    /// How bright the light on the face is: 1 is daylight.
    fn light(&self) -> f32 {
        (self.skin.iter().sum::<f32>() / 3.0 / 130.0).clamp(0.25, 1.25)
    }

    /// Paints where `covers`, with smooth edges: a pixel is covered by the share of its four
    /// quarters whose centres are.
    fn paint(
        &mut self,
        opacity: f32,
        covers: impl Fn(Point) -> bool,
        mut colour: impl FnMut(Point) -> [f32; 3],
    ) {
        const QUARTERS: [Point; 4] = [[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]];
        let width = self.frame.width();
        let to_face = self.to_face;
        for (at, pixel) in self.frame.pixels_mut().as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (x, y) = ((at % width) as f32, (at / width) as f32);
            let inside =
                QUARTERS.iter().filter(|[dx, dy]| covers(to_face.apply([x + dx, y + dy]))).count();
            if inside == 0 {
                continue;
            }
            let share = opacity * inside as f32 / 4.0;
            let over = colour(to_face.apply([x, y]));
            for (value, over) in pixel.iter_mut().zip(over) {
                *value = (f32::from(*value) * (1.0 - share) + over * share + 0.5) as u8;
            }
        }
    }

    /// The rectangle `[left, top, right, bottom]` of the photo that stays when this edge is
    /// moved into the face.
    fn kept(&self, edge: Edge, chance: &mut Chance) -> [usize; 4] {
        let (width, height) = (self.frame.width(), self.frame.height());
        let back = self.to_face.inverse();
        let at = |x: f32, y: f32, axis: usize, most: usize| {
            (back.apply([x, y])[axis] as usize).max(16).min(most.saturating_sub(16).max(1))
        };
        match edge {
            Edge::Bottom => [0, 0, width, at(56.0, chance.between(68.0, 92.0) as f32, 1, height)],
            Edge::Top => [0, at(56.0, chance.between(40.0, 52.0) as f32, 1, height), width, height],
            Edge::Left => [at(chance.between(38.0, 58.0) as f32, 70.0, 0, width), 0, width, height],
            Edge::Right => [0, 0, at(chance.between(54.0, 74.0) as f32, 70.0, 0, width), height],
        }
    }
}

/// A colour of cloth or plastic as it looks in this light, with noise and a weave.
fn material(
    base: [f64; 3],
    spread: f64,
    light: f32,
    chance: &mut Chance,
) -> impl FnMut(Point) -> [f32; 3] + use<> {
    let colour = base.map(|value| (value + chance.between(-spread, spread)) as f32 * light);
    let noise = chance.between(0.0, 6.0);
    let weave = if chance.happens(0.4) { chance.between(0.02, 0.15) as f32 } else { 0.0 };
    let step = chance.between(2.5, 12.0) as f32;
    let [shade_x, shade_y] = [0, 1].map(|_| chance.between(-0.006, 0.006) as f32);
    let mut own = Chance::at(chance.below(1 << 30) as i64, &[]);
    move |[x, y]| {
        let wave = (x / step).sin() * (y / step).sin();
        let shade = 1.0 + shade_x * (x - 56.0) + shade_y * (y - 80.0) + weave * wave;
        let grain = own.between(-noise, noise) as f32;
        colour.map(|value| (value * shade + grain).clamp(0.0, 255.0))
    }
}

/// Mask colours, RGB: surgical blue and green, white, greys, black, cloth, and beige.
pub(super) const MASKS: [[f64; 3]; 8] = [
    [150.0, 190.0, 215.0],
    [150.0, 200.0, 185.0],
    [225.0, 225.0, 225.0],
    [125.0, 125.0, 130.0],
    [35.0, 35.0, 38.0],
    [95.0, 60.0, 75.0],
    [60.0, 80.0, 140.0],
    [190.0, 150.0, 120.0],
];

/// From ear to ear and from the nose down past the chin, with pleats or without.
fn mask(canvas: &mut Canvas, chance: &mut Chance) {
    let mut drawn = |from, to| chance.between(from, to) as f32;
    let (top, fall) = (drawn(56.0, 70.0), drawn(2.0, 12.0));
    let (wide, narrow, chin) = (drawn(35.0, 44.0), drawn(14.0, 28.0), drawn(105.0, 122.0));
    let (middle, tilt) = (56.0 + drawn(-3.0, 3.0), drawn(-0.06, 0.06));
    let (pleat, pleats) = (drawn(0.0, 0.18), drawn(6.0, 13.0));
    let covers = move |[x, y]: Point| {
        let aside = (x - middle) / wide;
        let y = y - tilt * (x - middle);
        let down = ((y - top) / (chin - top)).clamp(0.0, 1.0);
        let half = narrow + (wide - narrow) * (1.0 - down * down).sqrt();
        aside.abs() * wide <= half && y >= top + fall * aside * aside && y <= chin
    };
    let base = MASKS[chance.below(MASKS.len())];
    let mut cloth = material(base, 25.0, canvas.light(), chance);
    canvas.paint(1.0, covers, |point| {
        let fold = 1.0 - pleat * (0.5 + 0.5 * (point[1] / pleats * std::f32::consts::TAU).sin());
        cloth(point).map(|value| value * fold)
    });
}

/// Colours of dark glasses, RGB.
const GLASSES: [[f64; 3]; 6] = [
    [10.0, 10.0, 10.0],
    [25.0, 20.0, 18.0],
    [45.0, 30.0, 20.0],
    [20.0, 30.0, 28.0],
    [18.0, 20.0, 40.0],
    [60.0, 55.0, 50.0],
];
/// Colours of their frames.
const FRAMES: [[f64; 3]; 4] =
    [[10.0, 10.0, 10.0], [60.0, 40.0, 20.0], [150.0, 140.0, 120.0], [190.0, 190.0, 195.0]];

/// Two dark lenses with a frame, a bridge and temples.
fn sunglasses(canvas: &mut Canvas, chance: &mut Chance) {
    let mut drawn = |from, to| chance.between(from, to) as f32;
    let (half_width, half_height, lower) = (drawn(12.5, 18.0), drawn(8.5, 15.0), drawn(-1.0, 4.0));
    let (roundness, rim, wire) = (drawn(2.0, 6.0), drawn(1.0, 1.2), drawn(1.0, 2.5));
    let opacity = drawn(0.85, 1.0);
    let eyes = canvas.eyes.map(|[x, y]| [x, y + lower]);
    let lens = move |[x, y]: Point, scale: f32| {
        eyes.iter().any(|[eye_x, eye_y]| {
            let (dx, dy) = ((x - eye_x) / half_width, (y - eye_y) / half_height);
            dx.abs().powf(roundness) + dy.abs().powf(roundness) <= scale.powf(roundness)
        })
    };
    let frame = move |point: Point| {
        let [x, y] = point;
        let along = (x - eyes[0][0]) / (eyes[1][0] - eyes[0][0]).max(1.0);
        let line = eyes[0][1] + along * (eyes[1][1] - eyes[0][1]) - 0.35 * half_height;
        let temple = (10.0..102.0).contains(&x) && (y - line).abs() <= wire;
        (temple || lens(point, rim)) && !lens(point, 1.0)
    };
    let frames = FRAMES[chance.below(FRAMES.len())];
    let mut wire_colour = material(frames, 15.0, canvas.light(), chance);
    canvas.paint(1.0, frame, &mut wire_colour);
    let mut glass = material(GLASSES[chance.below(GLASSES.len())], 8.0, canvas.light(), chance);
    canvas.paint(opacity, |point| lens(point, 1.0), &mut glass);
}

/// Fingers side by side, in a skin colour like that of the face.
fn hand(canvas: &mut Canvas, chance: &mut Chance) {
    let side = chance.below(3);
    let [left, right, top, bottom] = match side {
        0 => [26.0, 86.0, 66.0, 112.0],
        1 => [14.0, 56.0, 34.0, 84.0],
        _ => [56.0, 98.0, 34.0, 84.0],
    };
    let (angle, fingers) = (chance.between(-0.5, 0.5) as f32, 3 + chance.below(2));
    let shift = [0, 1].map(|_| chance.between(-5.0, 5.0) as f32);
    let middle = [(left + right) / 2.0 + shift[0], (top + bottom) / 2.0 + shift[1]];
    let place = move |[x, y]: Point| {
        let (dx, dy) = (x - middle[0], y - middle[1]);
        [
            (dx * angle.cos() + dy * angle.sin()) / (right - left) + 0.5,
            (dy * angle.cos() - dx * angle.sin()) / (bottom - top) + 0.5,
        ]
    };
    let covers = move |point: Point| place(point).iter().all(|v| (0.0..1.0).contains(v));
    let tone = chance.between(0.75, 1.1);
    let base = canvas.skin.map(|value| f64::from(value) * tone);
    let mut skin = material(base, 12.0, 1.0, chance);
    canvas.paint(1.0, covers, |point| {
        // Each finger is darker at its sides.
        let across = (place(point)[0] * fingers as f32).fract() - 0.5;
        skin(point).map(|value| value * (1.05 - 0.9 * across * across))
    });
}

/// A rectangle of one colour, as a phone, a scarf or a beam would cover the face.
fn object(canvas: &mut Canvas, chance: &mut Chance) {
    let mut drawn = |from, to| chance.between(from, to) as f32;
    let (width, height) = (drawn(34.0, 80.0), drawn(34.0, 60.0));
    let left = drawn(18.0, f64::from(94.0 - width));
    let top = drawn(38.0, f64::from(112.0 - height));
    let colour = [0; 3].map(|_| chance.between(0.0, 255.0));
    let covers =
        move |[x, y]: Point| (left..left + width).contains(&x) && (top..top + height).contains(&y);
    let mut colour = material(colour, 0.0, 1.0, chance);
    canvas.paint(1.0, covers, &mut colour);
}

/// The photo stays on one side of a line through the face; the rest is black, of one colour,
/// or blurred.
fn bar(photo: &Frame, canvas: &Canvas, chance: &mut Chance) -> Frame {
    let edge = [Edge::Left, Edge::Top, Edge::Right, Edge::Bottom][chance.below(4)];
    let [left, top, right, bottom] = canvas.kept(edge, chance);
    let mut made = match chance.below(5) {
        0 | 1 => Frame::filled(photo.width(), photo.height(), [0; 3]),
        2 => {
            let colour = [0; 3].map(|_| chance.below(256) as u8);
            Frame::filled(photo.width(), photo.height(), colour)
        }
        _ => {
            // Enlarging a few pixels again is a strong blur.
            let few = |side: usize| (side / 16).max(2);
            let small = resample::resize(photo, few(photo.width()), few(photo.height()));
            resample::resize(&small, photo.width(), photo.height())
        }
    };
    let pitch = photo.width() * 3;
    for row in top..bottom {
        let span = row * pitch + left * 3..row * pitch + right * 3;
        made.pixels_mut()[span.clone()].copy_from_slice(&photo.pixels()[span]);
    }
    made
}

/// A part of a picture.
fn part(photo: &Frame, [left, top, right, bottom]: [usize; 4]) -> Frame {
    let (right, bottom) = (right.max(left + 1), bottom.max(top + 1));
    let mut made = Frame::filled(right - left, bottom - top, [0; 3]);
    let pitch = made.width() * 3;
    for (row, to) in made.pixels_mut().chunks_exact_mut(pitch).enumerate() {
        let from = ((top + row) * photo.width() + left) * 3;
        to.copy_from_slice(&photo.pixels()[from..from + pitch]);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photo() -> (Frame, Landmarks) {
        let landmarks = Alignment::ARCFACE.landmarks.map(|[x, y]| [x + 40.0, y + 30.0]);
        (Frame::filled(200, 190, [150, 120, 100]), landmarks)
    }

    #[test]
    fn covers_are_painted_where_they_belong_and_are_reproducible() {
        let (photo, landmarks) = photo();
        for seed in 0..20 {
            for (kind, covered, free) in [
                (Kind::Mask, [96, 125], [78, 75]),
                (Kind::Sunglasses, [78, 81], [96, 125]),
                (Kind::Sunglasses, [113, 81], [96, 145]),
            ] {
                let made = spoilt(&photo, &landmarks, kind, &mut Chance::new(seed));
                assert_eq!(made, spoilt(&photo, &landmarks, kind, &mut Chance::new(seed)));
                let at = |[x, y]: [isize; 2]| made.pixel(x, y);
                assert_ne!(at(covered), [150, 120, 100], "{kind:?} {seed}");
                assert_eq!(at(free), [150, 120, 100], "{kind:?} {seed}");
            }
        }
    }

    #[test]
    fn cut_photos_end_in_the_face() {
        let (photo, landmarks) = photo();
        for seed in 0..20 {
            let cut = |kind| spoilt(&photo, &landmarks, kind, &mut Chance::new(seed));
            let below = cut(Kind::CutBelow);
            assert!(below.width() == 200 && (98..=122).contains(&below.height()), "{below:?}");
            let above = cut(Kind::CutAbove);
            assert!(above.width() == 200 && (108..=120).contains(&above.height()), "{above:?}");
            let beside = cut(Kind::CutBeside);
            assert!(beside.height() == 190 && (94..=122).contains(&beside.width()), "{beside:?}");
            let bar = cut(Kind::Bar);
            assert_eq!((bar.width(), bar.height()), (200, 190));
        }
    }

    #[test]
    fn any_landmarks_are_survived() {
        let (photo, _) = photo();
        for landmarks in [[[f32::NAN; 2]; 5], [[0.0; 2]; 5], [[1e30, -1e30]; 5]] {
            for kind in Kind::ALL {
                let made = spoilt(&photo, &landmarks, kind, &mut Chance::new(3));
                assert!(made.width() > 0 && made.height() > 0);
            }
        }
    }
}
