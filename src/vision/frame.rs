//! Pictures, bounding boxes and landmarks.
//!
//! Coordinates are continuous pixels: pixel `(column, row)` covers the square from
//! `(column, row)` to `(column + 1, row + 1)`. Only landmarks use pixel-centre
//! coordinates, as is usual in the field: `(10.0, 20.0)` is the middle of the pixel in
//! column 10 of row 20.

use thiserror::Error;

/// Why a buffer is not a valid frame.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// Width or height is zero.
    #[error("a frame of {width}x{height} has no pixels")]
    Empty {
        /// Width, pixels.
        width: usize,
        /// Height, pixels.
        height: usize,
    },
    /// The buffer does not hold `width * height * 3` bytes.
    #[error("a frame of {width}x{height} needs {expected} bytes of RGB, got {got}")]
    Length {
        /// Width, pixels.
        width: usize,
        /// Height, pixels.
        height: usize,
        /// Length needed, bytes.
        expected: usize,
        /// Length of the buffer, bytes.
        got: usize,
    },
}

/// Luma of a colour `[red, green, blue]` by ITU-R BT.601, on the scale of its channels.
pub fn luma([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// A picture: RGB, 8 bits per channel, row-major `height x width x 3`. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({}x{})", self.width, self.height)
    }
}

impl Frame {
    /// Wraps `pixels`, RGB row-major, `width * height * 3` bytes.
    ///
    /// # Errors
    /// If a side is zero or the length is wrong.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, FrameError> {
        if width == 0 || height == 0 {
            return Err(FrameError::Empty { width, height });
        }
        let expected = width.saturating_mul(height).saturating_mul(3);
        if pixels.len() != expected {
            return Err(FrameError::Length { width, height, expected, got: pixels.len() });
        }
        Ok(Self { width, height, pixels })
    }

    /// A frame of one colour `[red, green, blue]`. A side of zero becomes one.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self { width, height, pixels: colour.repeat(width * height) }
    }

    /// Width, pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height, pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All pixels, RGB row-major, `width * height * 3` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All pixels, mutable, in the same order as [`Self::pixels`].
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// One row, RGB, `width * 3` bytes.
    ///
    /// # Panics
    /// If `row` is not below the height.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.pixels[row * self.width * 3..(row + 1) * self.width * 3]
    }

    /// The RGB pixel at a position, or black outside the frame.
    pub fn pixel(&self, column: isize, row: isize) -> [u8; 3] {
        if column < 0 || row < 0 || column >= self.width as isize || row >= self.height as isize {
            return [0; 3];
        }
        let at = (row as usize * self.width + column as usize) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// Bilinear RGB sample at a point in pixel-centre coordinates, 0..=255 per channel.
    /// Pixels outside the frame are black.
    pub fn sample(&self, x: f32, y: f32) -> [f32; 3] {
        let inside = x >= 0.0
            && y >= 0.0
            && x < self.width.saturating_sub(1) as f32
            && y < self.height.saturating_sub(1) as f32;
        if inside && let Some(sample) = self.sample_inside(x, y) {
            return sample;
        }
        let (left, top) = (x.floor(), y.floor());
        let (right_share, bottom_share) = (x - left, y - top);
        let (column, row) = (left as isize, top as isize);
        let corners = [
            (self.pixel(column, row), (1.0 - right_share) * (1.0 - bottom_share)),
            (self.pixel(column.saturating_add(1), row), right_share * (1.0 - bottom_share)),
            (self.pixel(column, row.saturating_add(1)), (1.0 - right_share) * bottom_share),
            (
                self.pixel(column.saturating_add(1), row.saturating_add(1)),
                right_share * bottom_share,
            ),
        ];
        let mut out = [0.0; 3];
        for (pixel, share) in corners {
            for channel in 0..3 {
                out[channel] += f32::from(pixel[channel]) * share;
            }
        }
        out
    }

    /// Fast path for a point whose four pixels all lie inside the frame.
    #[inline]
    fn sample_inside(&self, x: f32, y: f32) -> Option<[f32; 3]> {
        let (column, row) = (x as usize, y as usize);
        let (right_share, bottom_share) = (x - column as f32, y - row as f32);
        let at = (row * self.width + column) * 3;
        let upper = self.pixels.get(at..)?.first_chunk::<6>()?;
        let lower = self.pixels.get(at + self.width * 3..)?.first_chunk::<6>()?;
        let shares = [
            (1.0 - right_share) * (1.0 - bottom_share),
            right_share * (1.0 - bottom_share),
            (1.0 - right_share) * bottom_share,
            right_share * bottom_share,
        ];
        Some(std::array::from_fn(|channel| {
            f32::from(upper[channel]) * shares[0]
                + f32::from(upper[channel + 3]) * shares[1]
                + f32::from(lower[channel]) * shares[2]
                + f32::from(lower[channel + 3]) * shares[3]
        }))
    }

    /// The whole frame as a bounding box.
    pub fn bounds(&self) -> Rect {
        Rect { x1: 0.0, y1: 0.0, x2: self.width as f32, y2: self.height as f32 }
    }
}

/// A bounding box in continuous pixels; `x2` and `y2` are exclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Left side.
    pub x1: f32,
    /// Top side.
    pub y1: f32,
    /// Right side, exclusive.
    pub x2: f32,
    /// Bottom side, exclusive.
    pub y2: f32,
}

impl Rect {
    /// Width, pixels; never negative.
    pub fn width(&self) -> f32 {
        (self.x2 - self.x1).max(0.0)
    }

    /// Height, pixels; never negative.
    pub fn height(&self) -> f32 {
        (self.y2 - self.y1).max(0.0)
    }

    /// Area, square pixels; zero if a side is inverted.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Centre of the box as `(x, y)`.
    pub fn center(&self) -> (f32, f32) {
        ((self.x1 + self.x2) / 2.0, (self.y1 + self.y2) / 2.0)
    }

    /// Area shared with `other`, square pixels.
    pub fn intersection(&self, other: &Rect) -> f32 {
        Rect {
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
            x2: self.x2.min(other.x2),
            y2: self.y2.min(other.y2),
        }
        .area()
    }

    /// Intersection over union, 0..=1.
    pub fn iou(&self, other: &Rect) -> f32 {
        let shared = self.intersection(other);
        let union = self.area() + other.area() - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }

    /// Intersection over the smaller of the two areas, 0..=1.
    pub fn intersection_over_minimum(&self, other: &Rect) -> f32 {
        let smaller = self.area().min(other.area());
        if smaller > 0.0 { self.intersection(other) / smaller } else { 0.0 }
    }

    /// The square with the same centre and the longer side.
    pub fn squared(&self) -> Rect {
        let half = self.width().max(self.height()) / 2.0;
        let (x, y) = self.center();
        Rect { x1: x - half, y1: y - half, x2: x + half, y2: y + half }
    }

    /// Whether the point `(x, y)` lies inside.
    pub fn contains(&self, (x, y): (f32, f32)) -> bool {
        x >= self.x1 && x < self.x2 && y >= self.y1 && y < self.y2
    }

    /// Whether all four coordinates are finite.
    pub fn is_finite(&self) -> bool {
        [self.x1, self.y1, self.x2, self.y2].iter().all(|v| v.is_finite())
    }
}

/// Five landmarks as `[x, y]` in pixel-centre coordinates, in this order: left eye, right
/// eye, nose, left mouth corner, right mouth corner. Left and right are those of the
/// picture.
pub type Landmarks = [[f32; 2]; 5];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rect() -> impl Strategy<Value = Rect> {
        (-50.0f32..50.0, -50.0f32..50.0, 0.0f32..80.0, 0.0f32..80.0)
            .prop_map(|(x1, y1, w, h)| Rect { x1, y1, x2: x1 + w, y2: y1 + h })
    }

    #[test]
    fn refuses_a_buffer_of_the_wrong_length() {
        assert_eq!(
            Frame::new(2, 2, vec![0; 11]),
            Err(FrameError::Length { width: 2, height: 2, expected: 12, got: 11 })
        );
        assert_eq!(Frame::new(0, 2, vec![]), Err(FrameError::Empty { width: 0, height: 2 }));
        assert!(Frame::new(usize::MAX, usize::MAX, vec![0; 3]).is_err());
    }

    #[test]
    fn samples_between_pixels_and_black_outside() {
        let frame = Frame::new(2, 1, vec![0, 0, 0, 200, 100, 50]).expect("six bytes");
        assert_eq!(frame.sample(0.5, 0.0), [100.0, 50.0, 25.0]);
        assert_eq!(frame.sample(1.5, 0.0), [100.0, 50.0, 25.0]);
        assert_eq!(frame.sample(40.0, 0.0), [0.0; 3]);
        assert_eq!(frame.sample(f32::MAX, f32::MIN), [0.0; 3]);
    }

    proptest! {
        #[test]
        fn iou_is_symmetric_and_bounded(a in rect(), b in rect()) {
            let iou = a.iou(&b);
            prop_assert!((0.0..=1.0 + 1e-5).contains(&iou));
            prop_assert_eq!(iou, b.iou(&a));
            prop_assert!(a.intersection_over_minimum(&b) + 1e-5 >= iou);
        }

        #[test]
        fn a_box_covers_itself(a in rect()) {
            prop_assume!(a.area() > 1e-3);
            prop_assert!((a.iou(&a) - 1.0).abs() < 1e-5);
        }

        #[test]
        fn squaring_keeps_the_centre_and_covers_the_box(a in rect()) {
            let square = a.squared();
            prop_assert!((square.width() - square.height()).abs() < 1e-3);
            prop_assert!((square.center().0 - a.center().0).abs() < 1e-3);
            prop_assert!((square.intersection(&a) - a.area()).abs() <= 1e-2 * a.area().max(1.0));
        }
    }
}
