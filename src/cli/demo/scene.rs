//! A simulated camera that shows a person walking up to the door.

use anyhow::Result;
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use std::path::Path;
use std::time::Duration;

/// Frames per second, as on a small board.
const FRAMES_A_SECOND: u32 = 10;
const WIDTH: usize = 640;
const HEIGHT: usize = 480;
/// Frames of each part of the approach.
const FAR: usize = 6;
const BLURRED: usize = 6;
const SIDE_LIT: usize = 6;
const NEAR: usize = 12;
/// Scale of the portrait far away and near.
const SMALLEST: f32 = 0.35;
const LARGEST: f32 = 1.1;
/// Side of the blur box, pixels.
const BLUR: usize = 7;

/// A portrait to walk up with.
pub struct Portrait {
    name: &'static str,
    picture: Frame,
}

/// One frame of an approach.
pub struct Moment {
    /// Time since the beginning of the approach.
    pub at: Duration,
    /// The simulated frame, 640 x 480 pixels.
    pub frame: Frame,
    /// Part of the approach: "far", "blurred", "side-lit" or "near".
    pub part: &'static str,
}

impl Portrait {
    /// Eileen Collins, by NASA.
    pub fn astronaut() -> Result<Self> {
        Self::read("Eileen Collins", include_bytes!("../../../assets/astronaut.jpg"))
    }

    /// Grace Hopper, by the US Navy.
    pub fn admiral() -> Result<Self> {
        Self::read("Grace Hopper", include_bytes!("../../../assets/grace_hopper.jpg"))
    }

    fn read(name: &'static str, jpeg: &[u8]) -> Result<Self> {
        Ok(Self { name, picture: picture::decode(Path::new(name), jpeg)? })
    }

    /// Name of the person shown.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The whole portrait.
    pub fn picture(&self) -> &Frame {
        &self.picture
    }

    /// The frames of an approach: far away, then blurred by walking, then lit from one
    /// side, and finally near and standing.
    pub fn approach(&self) -> impl Iterator<Item = Moment> {
        let all = FAR + BLURRED + SIDE_LIT + NEAR;
        (0..all).map(move |n| {
            // In the last part the person stands near and only sways.
            let way = (n as f32 / (all - NEAR) as f32).min(1.0);
            let size = SMALLEST + (LARGEST - SMALLEST) * way;
            let sway = 6.0 * (n as f32 * 0.9).sin();
            let frame = self.shown(size, sway);
            let (part, frame) = if n < FAR {
                ("far", frame)
            } else if n < FAR + BLURRED {
                ("blurred", blurred(&frame))
            } else if n < FAR + BLURRED + SIDE_LIT {
                ("side-lit", side_lit(frame))
            } else {
                ("near", frame)
            };
            Moment { at: Duration::from_secs(1) / FRAMES_A_SECOND * n as u32, frame, part }
        })
    }

    /// Draws the portrait in front of a wall, scaled by `size` and moved `sway` pixels to
    /// the right.
    fn shown(&self, size: f32, sway: f32) -> Frame {
        let mut frame = Frame::filled(WIDTH, HEIGHT, [0; 3]);
        let (width, height) = (self.picture.width() as f32, self.picture.height() as f32);
        // The face is in the upper half of the portrait. Keep it at the same height.
        let left = WIDTH as f32 / 2.0 - width * size / 2.0 + sway;
        let top = HEIGHT as f32 * 0.4 - height * size * 0.35;
        for (at, pixel) in frame.pixels_mut().chunks_exact_mut(3).enumerate() {
            let (x, y) = ((at % WIDTH) as f32, (at / WIDTH) as f32);
            let (u, v) = ((x - left) / size, (y - top) / size);
            let inside = (0.0..width - 1.0).contains(&u) && (0.0..height - 1.0).contains(&v);
            let wall = 120.0 + 40.0 * y / HEIGHT as f32;
            let value = if inside { self.smooth(u, v, size) } else { [wall, wall, wall * 0.95] };
            for channel in 0..3 {
                pixel[channel] = value[channel].clamp(0.0, 255.0) as u8;
            }
        }
        frame
    }

    /// The colour of the portrait at a point, averaged over the area that one pixel of the
    /// frame covers.
    fn smooth(&self, u: f32, v: f32, size: f32) -> [f32; 3] {
        let samples = (1.0 / size).ceil() as usize;
        let mut sums = [0.0; 3];
        for j in 0..samples {
            for i in 0..samples {
                let offset = |k: usize| ((k as f32 + 0.5) / samples as f32 - 0.5) / size;
                let sample = self.picture.sample(u + offset(i), v + offset(j));
                for channel in 0..3 {
                    sums[channel] += sample[channel];
                }
            }
        }
        sums.map(|sum| sum / (samples * samples) as f32)
    }
}

/// Box blur with a side of [`BLUR`] pixels.
fn blurred(frame: &Frame) -> Frame {
    let mut out = frame.clone();
    let reach = (BLUR / 2) as isize;
    for (at, pixel) in out.pixels_mut().chunks_exact_mut(3).enumerate() {
        let (x, y) = ((at % WIDTH) as isize, (at / WIDTH) as isize);
        let mut sums = [0u32; 3];
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let near = frame.pixel(x + dx, y + dy);
                for channel in 0..3 {
                    sums[channel] += u32::from(near[channel]);
                }
            }
        }
        for channel in 0..3 {
            pixel[channel] = (sums[channel] / (BLUR * BLUR) as u32) as u8;
        }
    }
    out
}

/// Simulates light from the right: darkens the left of the picture.
fn side_lit(mut frame: Frame) -> Frame {
    for (at, pixel) in frame.pixels_mut().chunks_exact_mut(3).enumerate() {
        let across = (at % WIDTH) as f32 / WIDTH as f32;
        // The face takes up the middle third.
        let light = (0.25 + (across - 0.35) * 3.0).clamp(0.25, 1.1);
        for value in pixel {
            *value = (f32::from(*value) * light).min(255.0) as u8;
        }
    }
    frame
}
