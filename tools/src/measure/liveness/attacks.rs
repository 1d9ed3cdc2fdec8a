//! Simulated faces in front of a door's camera, made from photos: live, printed and on a
//! screen.
//!
//! A live face is the photo on the depth of an average head (a curved shell with a nose)
//! that turns. A print or a screen is the photo on a plane that is tilted by hand. Ink and
//! displays change the colours and add a grid of dots or stripes, which the camera's pixels
//! alias. Lamps reflect in the surface, and the edges are visible or not. All frames pass
//! through the same camera: blur, noise, JPEG. Everything random depends on the seed.
//!
//! This is a simplified model of geometry and optics, not a real presentation attack: real
//! paper, inks, displays and lenses differ from it in many ways.

use crate::chance::Chance;
use crate::data::augment::recompressed;
use facelatch::vision::detect::Face;
use facelatch::vision::frame::Frame;
use serde::Serialize;
use std::f64::consts::{PI, TAU};

/// Width and height of a frame, pixels.
pub const SIDE: usize = 200;
/// Width of a face's bounding box in a frame, pixels.
const FACE: f64 = 80.0;
/// Distance of the camera in pixels; for a face 15 cm wide it corresponds to 94 cm.
const DISTANCE: f64 = 500.0;
/// Height of the nose, and depth of the head's shell at one eye distance from the nose;
/// both in units of the distance between the eyes.
const NOSE: f64 = 0.4;
const SHELL: f64 = 0.6;

/// What is presented to the camera: a live face or a species of presentation attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Species {
    /// A live person.
    Live,
    /// A photo on paper with visible edges.
    Print,
    /// A photo on paper, so close that its edges are outside the frame.
    PrintClose,
    /// A photo on a phone or tablet with visible edges.
    Screen,
    /// A photo on a phone or tablet, so close that its edges are outside the frame.
    ScreenClose,
}

impl Species {
    /// All species, `Live` first.
    pub const ALL: [Self; 5] =
        [Self::Live, Self::Print, Self::PrintClose, Self::Screen, Self::ScreenClose];

    fn flat(self) -> bool {
        self != Self::Live
    }

    fn printed(self) -> bool {
        matches!(self, Self::Print | Self::PrintClose)
    }

    fn edged(self) -> bool {
        matches!(self, Self::Print | Self::Screen)
    }
}

impl std::fmt::Display for Species {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Live => "live",
            Self::Print => "print",
            Self::PrintClose => "print, close",
            Self::Screen => "screen",
            Self::ScreenClose => "screen, close",
        })
    }
}

/// A presentation to the camera over some frames.
pub struct Presentation<'p> {
    photo: Frame,
    background: &'p Frame,
    face: Face,
    species: Species,
    /// Frame pixels per photo pixel.
    scale: f64,
    motion: Motion,
    medium: Medium,
    /// Centre and radius, both in pixels, and strength of a reflection.
    glare: Option<([f64; 2], f64, f64)>,
    light: f64,
    noise: f64,
    quality: u8,
}

/// Rotation about three axes (yaw, pitch, roll) and drift.
struct Motion {
    /// Amplitude and phase per axis, radians.
    swings: [[f64; 2]; 3],
    /// Radians of phase per frame.
    pace: f64,
    /// Offset of the face from the centre of the frame, and amplitude of its drift; pixels.
    place: [f64; 2],
    drift: f64,
}

/// Paper or screen that shows the photo. Lengths are frame pixels, brightnesses shares of
/// full brightness.
struct Medium {
    /// Half width and half height of the visible part.
    half: [f64; 2],
    border: f64,
    border_light: f64,
    black: f64,
    white: f64,
    gamma: f64,
    saturation: f64,
    cast: [f64; 3],
    /// Distance between two dots or stripes, and strength of their modulation.
    pitch: f64,
    grid: f64,
    angle: f64,
}

impl<'p> Presentation<'p> {
    /// Sets up the presentation of a photo's face. `background` is visible beyond the edges
    /// of a print or screen.
    pub fn new(
        photo: &Frame,
        face: &Face,
        background: &'p Frame,
        species: Species,
        chance: &mut Chance,
    ) -> Self {
        let reach = if species.flat() { [0.1, 0.4] } else { [0.07, 0.25] };
        let mut swing =
            |share: f64| [share * chance.between(reach[0], reach[1]), chance.between(0.0, TAU)];
        let swings = [swing(1.0), swing(0.6), swing(0.4)];
        let motion = Motion {
            swings,
            pace: chance.between(0.35, 0.7),
            place: [chance.between(-6.0, 6.0), chance.between(-6.0, 6.0)],
            drift: chance.between(0.0, 4.0),
        };
        let medium = Medium::drawn(species, chance);
        let mirrors = species.flat() && chance.happens(0.6);
        let glare = mirrors.then(|| {
            let place = [chance.between(30.0, 170.0), chance.between(20.0, 150.0)];
            (place, chance.between(12.0, 45.0), chance.between(30.0, 130.0))
        });
        // A photo for a print or screen is usually a JPEG file.
        let photo = match species.flat() {
            true => recompressed(photo.clone(), chance.between(60.0, 90.0) as u8),
            false => photo.clone(),
        };
        Self {
            photo,
            background,
            face: *face,
            species,
            scale: FACE / f64::from(face.rect.width()).max(1.0),
            motion,
            medium,
            glare,
            light: chance.between(0.8, 1.1),
            noise: chance.between(1.0, 3.0),
            quality: chance.between(75.0, 92.0) as u8,
        }
    }

    /// Renders frame `number`: RGB, [`SIDE`] x [`SIDE`] pixels.
    pub fn frame(&self, number: usize, chance: &mut Chance) -> Frame {
        let Motion { swings, pace, place, drift } = &self.motion;
        let time = number as f64 * pace;
        let [yaw, pitch, roll] = swings.map(|[amplitude, phase]| amplitude * (time + phase).sin());
        let pose = Pose::new(yaw, pitch, roll);
        let middle = SIDE as f64 / 2.0;
        let center = [
            middle + place[0] + drift * (time * 0.7).sin(),
            middle + place[1] + drift * (time * 0.9).cos(),
        ];
        let mut values = vec![[0.0f64; 3]; SIDE * SIDE];
        for (at, value) in values.iter_mut().enumerate() {
            let (column, row) = ((at % SIDE) as f64, (at / SIDE) as f64);
            let seen = [column - center[0], row - center[1]];
            *value = if self.species.flat() {
                self.on_plane(pose.plane(seen, 0.0), [column, row])
            } else {
                self.of_photo(self.on_head(&pose, seen))
            };
            if let Some(([x, y], radius, strength)) = self.glare {
                let far = ((column - x).powi(2) + (row - y).powi(2)) / (radius * radius);
                value.iter_mut().for_each(|v| *v += strength * (-far).exp());
            }
        }
        self.through_camera(&values, chance)
    }

    /// Colours of the photo, 0..=255, at an offset in frame pixels from the centre of the
    /// face.
    fn of_photo(&self, [x, y]: [f64; 2]) -> [f64; 3] {
        let (middle_x, middle_y) = self.face.rect.center();
        let last = |pixels: usize| pixels.saturating_sub(1) as f64;
        // Beyond the photo its outermost pixels repeat.
        let x = (x / self.scale + f64::from(middle_x)).clamp(0.0, last(self.photo.width()));
        let y = (y / self.scale + f64::from(middle_y)).clamp(0.0, last(self.photo.height()));
        self.photo.sample(x as f32, y as f32).map(f64::from)
    }

    fn on_plane(&self, [x, y]: [f64; 2], [column, row]: [f64; 2]) -> [f64; 3] {
        let medium = &self.medium;
        let beyond = (x.abs() - medium.half[0]).max(y.abs() - medium.half[1]);
        if beyond > medium.border {
            let share = self.background.width() as f64 / SIDE as f64;
            let (x, y) = (column * share, row * share);
            return self.background.sample(x as f32, y as f32).map(f64::from);
        }
        if beyond > 0.0 {
            return [255.0 * medium.border_light; 3];
        }
        medium.shown(self.of_photo([x, y]), [x, y], self.species.printed())
    }

    /// Where a ray meets the head, by iterating to the depth found so far. The background
    /// does not turn with the head.
    fn on_head(&self, pose: &Pose, seen: [f64; 2]) -> [f64; 2] {
        let landmarks = self.face.landmarks;
        let (middle_x, middle_y) = self.face.rect.center();
        let place = |[x, y]: [f32; 2]| {
            [f64::from(x - middle_x) * self.scale, f64::from(y - middle_y) * self.scale]
        };
        let [left, right, nose] = [place(landmarks[0]), place(landmarks[1]), place(landmarks[2])];
        let eyes = (right[0] - left[0]).hypot(right[1] - left[1]).max(1.0);
        let depth = |[x, y]: [f64; 2]| {
            let (across, down) = ((x - nose[0]) / eyes, (y - nose[1]) / eyes);
            let shell = SHELL * (across * across + 0.6 * down * down).min(1.5);
            // The bridge of the nose runs up to the eyes.
            let height = if down < 0.0 { 0.35 } else { 0.2 };
            let nose = NOSE * (-(across / 0.2).powi(2) - (down / height).powi(2)).exp();
            (shell - nose) * eyes
        };
        let mut at = seen;
        for _ in 0..6 {
            at = pose.plane(seen, depth(at));
        }
        let far = (seen[0] / (1.5 * eyes)).hypot(seen[1] / (1.9 * eyes));
        let turns = ((1.5 - far) / 0.5).clamp(0.0, 1.0);
        [0, 1].map(|axis| seen[axis] + turns * (at[axis] - seen[axis]))
    }

    /// Applies blur, light, noise, rounding to bytes and JPEG.
    fn through_camera(&self, values: &[[f64; 3]], chance: &mut Chance) -> Frame {
        let mut frame = Frame::filled(SIDE, SIDE, [0; 3]);
        let taps = [(0isize, 0.6), (-1, 0.2), (1, 0.2)];
        for (at, pixel) in frame.pixels_mut().chunks_exact_mut(3).enumerate() {
            let (column, row) = ((at % SIDE) as isize, (at / SIDE) as isize);
            let mut sum = [0.0; 3];
            for (dy, down) in taps {
                for (dx, across) in taps {
                    let inside = |v: isize| v.clamp(0, SIDE as isize - 1) as usize;
                    let value = values[inside(row + dy) * SIDE + inside(column + dx)];
                    (0..3).for_each(|channel| sum[channel] += down * across * value[channel]);
                }
            }
            for (channel, to) in pixel.iter_mut().enumerate() {
                // The sum of four uniform draws has a variance of 1/3 and is nearly
                // Gaussian; the factor makes it 1.
                let noise: f64 = (0..4).map(|_| chance.share() - 0.5).sum::<f64>() * 3f64.sqrt();
                let value = sum[channel] * self.light + noise * self.noise;
                *to = value.round().clamp(0.0, 255.0) as u8;
            }
        }
        recompressed(frame, self.quality)
    }
}

impl Medium {
    fn drawn(species: Species, chance: &mut Chance) -> Self {
        let mut between = |from: f64, to: f64| chance.between(from, to);
        let half =
            if species.edged() { [between(58.0, 76.0), between(66.0, 80.0)] } else { [1e6, 1e6] };
        if species.printed() {
            return Self {
                half,
                border: between(0.0, 6.0),
                border_light: between(0.75, 0.95),
                black: between(0.08, 0.2),
                white: between(0.78, 0.95),
                gamma: between(0.85, 1.1),
                saturation: between(0.6, 0.95),
                cast: [between(0.94, 1.04), between(0.95, 1.03), between(0.88, 1.02)],
                pitch: between(0.7, 2.2),
                grid: between(0.05, 0.25),
                angle: between(0.0, PI / 2.0),
            };
        }
        Self {
            half,
            border: between(4.0, 12.0),
            border_light: between(0.02, 0.12),
            black: between(0.01, 0.08),
            white: between(0.85, 1.1),
            gamma: between(0.9, 1.25),
            saturation: between(0.85, 1.2),
            cast: [between(0.88, 1.0), between(0.95, 1.03), between(1.0, 1.18)],
            pitch: between(0.7, 2.5),
            grid: between(0.2, 0.6),
            angle: between(-0.05, 0.05),
        }
    }

    /// Colours of the photo as this medium shows them at a position.
    fn shown(&self, colours: [f64; 3], [x, y]: [f64; 2], printed: bool) -> [f64; 3] {
        let mean = colours.iter().sum::<f64>() / 3.0;
        // A camera pixel averages over its area, which weakens the grid.
        let kept = (PI / self.pitch).sin() / (PI / self.pitch);
        let (sin, cos) = self.angle.sin_cos();
        let (along, across) = (x * cos + y * sin, y * cos - x * sin);
        let wave = |at: f64| (TAU * at / self.pitch).cos() * kept;
        std::array::from_fn(|channel| {
            let colour = mean + (colours[channel] - mean) * self.saturation;
            let share = (colour / 255.0).clamp(0.0, 1.0).powf(self.gamma);
            let level = (self.black + (self.white - self.black) * share) * self.cast[channel];
            let third = channel as f64 * self.pitch / 3.0;
            let grid = if printed {
                // Dots at a different angle for each ink.
                let (sin, cos) = (channel as f64 * PI / 6.0).sin_cos();
                wave(along * cos + across * sin) + wave(across * cos - along * sin)
            } else {
                // Stripes of three colours next to each other, and rows.
                wave(along - third) + 0.5 * wave(across)
            };
            255.0 * level * (1.0 + self.grid * grid)
        })
    }
}

/// A rotation, as the directions of the three rotated axes.
struct Pose([[f64; 3]; 3]);

impl Pose {
    fn new(yaw: f64, pitch: f64, roll: f64) -> Self {
        let axis = |[x, y, z]: [f64; 3]| {
            let (x, y) = (x * roll.cos() - y * roll.sin(), x * roll.sin() + y * roll.cos());
            let (y, z) = (y * pitch.cos() - z * pitch.sin(), y * pitch.sin() + z * pitch.cos());
            [x * yaw.cos() + z * yaw.sin(), y, z * yaw.cos() - x * yaw.sin()]
        };
        Self([axis([1.0, 0.0, 0.0]), axis([0.0, 1.0, 0.0]), axis([0.0, 0.0, 1.0])])
    }

    /// Where the ray through a pixel meets the plane at this depth, in coordinates of the
    /// plane.
    fn plane(&self, [x, y]: [f64; 2], depth: f64) -> [f64; 2] {
        let Self([across, down, away]) = self;
        let along =
            |axis: &[f64; 3]| [axis[0] * DISTANCE - x * axis[2], axis[1] * DISTANCE - y * axis[2]];
        let (u, v, w) = (along(across), along(down), along(away));
        let rest = [x * DISTANCE - depth * w[0], y * DISTANCE - depth * w[1]];
        let area = u[0] * v[1] - v[0] * u[1];
        [(rest[0] * v[1] - v[0] * rest[1]) / area, (u[0] * rest[1] - rest[0] * u[1]) / area]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch::vision::frame::Rect;

    fn face() -> Face {
        let rect = Rect { x1: 85.0, y1: 75.0, x2: 165.0, y2: 175.0 };
        let landmarks =
            [[105.0, 110.0], [145.0, 110.0], [125.0, 132.0], [108.0, 152.0], [142.0, 152.0]];
        Face { rect, score: 1.0, landmarks }
    }

    fn photo() -> Frame {
        let mut photo = Frame::filled(250, 250, [0; 3]);
        for (at, pixel) in photo.pixels_mut().chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&[(at % 250) as u8, (at / 250) as u8, 90]);
        }
        photo
    }

    #[test]
    fn everything_follows_from_the_seed() {
        let background = Frame::filled(250, 250, [60; 3]);
        let made = |species, seed| {
            let mut chance = Chance::new(seed);
            let shown = Presentation::new(&photo(), &face(), &background, species, &mut chance);
            shown.frame(3, &mut chance)
        };
        for species in Species::ALL {
            assert!(made(species, 1) == made(species, 1), "{species}");
            assert!(made(species, 1) != made(species, 2), "{species}");
        }
    }

    #[test]
    fn what_is_not_turned_is_seen_where_it_is() {
        let pose = Pose::new(0.0, 0.0, 0.0);
        let [x, y] = pose.plane([30.0, -20.0], 0.0);
        assert!((x - 30.0).abs() < 1e-9 && (y + 20.0).abs() < 1e-9);
        // At one and a half times the distance, the same ray meets the plane further out.
        assert!((pose.plane([30.0, -20.0], DISTANCE / 2.0)[0] - 45.0).abs() < 1e-9);
    }

    #[test]
    fn a_plane_moves_by_a_homography_and_a_head_does_not() {
        use facelatch::vision::liveness::motion::Shape;
        // Find by iteration where the five landmarks appear in the frame.
        let background = Frame::filled(250, 250, [60; 3]);
        let seen = |species, yaw: f64| {
            let chance = &mut Chance::new(5);
            let shown = Presentation::new(&photo(), &face(), &background, species, chance);
            let pose = Pose::new(yaw, 0.0, 0.0);
            let (x, y) = face().rect.center();
            let points = face().landmarks.map(|[px, py]| {
                let wanted = [f64::from(px - x), f64::from(py - y)].map(|v| v * shown.scale);
                let mut at = wanted;
                for _ in 0..40 {
                    let found =
                        if species.flat() { pose.plane(at, 0.0) } else { shown.on_head(&pose, at) };
                    at = [0, 1].map(|axis| at[axis] + 0.5 * (wanted[axis] - found[axis]));
                }
                at.map(|v| v as f32)
            });
            Shape::of(&points).expect("a shape").nose[0]
        };
        let moved = |species| (seen(species, 0.25) - seen(species, -0.25)).abs();
        assert!(moved(Species::Print) < 1e-3);
        assert!(moved(Species::Live) > 0.1, "{}", moved(Species::Live));
    }
}
