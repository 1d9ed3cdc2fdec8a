//! The zone of the picture in which faces count.

use crate::vision::frame::Rect;

/// The part of the picture in which faces count, and their minimum size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zone {
    /// Left, top, right, bottom as fractions of the picture's width and height, 0..=1.
    pub area: [f32; 4],
    /// Minimum of a bounding box's shorter side in pixels. Smaller faces are passers-by.
    pub minimum_face: f32,
}

impl Default for Zone {
    fn default() -> Self {
        Self { area: [0.0, 0.0, 1.0, 1.0], minimum_face: 60.0 }
    }
}

impl Zone {
    /// Whether a face counts: the centre of its bounding box lies in the zone, and the box
    /// is large enough. `width` and `height` are those of the picture, in pixels.
    pub fn contains(&self, face: &Rect, width: usize, height: usize) -> bool {
        let (x, y) = face.center();
        let [left, top, right, bottom] = self.area;
        let (x, y) = (x / width as f32, y / height as f32);
        (left..=right).contains(&x)
            && (top..=bottom).contains(&y)
            && face.width().min(face.height()) >= self.minimum_face
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_is_for_large_faces_within_it() {
        let zone = Zone { area: [0.25, 0.0, 0.75, 1.0], minimum_face: 50.0 };
        let at = |x: f32, side: f32| Rect { x1: x, y1: 10.0, x2: x + side, y2: 10.0 + side };
        assert!(zone.contains(&at(300.0, 60.0), 640, 480));
        assert!(!zone.contains(&at(300.0, 40.0), 640, 480));
        assert!(!zone.contains(&at(20.0, 60.0), 640, 480));
        assert!(!zone.contains(&at(f32::NAN, 60.0), 640, 480));
    }
}
