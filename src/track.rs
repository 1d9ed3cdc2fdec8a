//! Which face of this frame is which face of the last: boxes that overlap most
//! belong together.
//!
//! A track says only "probably the same head". Whether it is the same person is
//! for [`crate::decide`], which does not trust a track whose face changes.

use crate::detect::Face;
use crate::frame::Rect;
use std::time::Duration;

/// Faces followed at once. A door sees a few people; more than this in view is
/// a crowd in which nobody is let in anyway.
pub const MAX_TRACKS: usize = 16;
/// Overlap (intersection over union) below which two boxes are two heads. At 10
/// frames a second a walking person's box still overlaps its last by half.
const LEAST_OVERLAP: f32 = 0.3;
/// A face unseen for longer has left: somebody else may stand there now.
const LOST_AFTER: Duration = Duration::from_millis(600);

/// A track's number, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId(pub u64);

/// Follows faces from frame to frame.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    tracks: heapless::Vec<Track, MAX_TRACKS>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Track {
    id: TrackId,
    rect: Rect,
    seen: Duration,
}

impl Tracker {
    /// A track for each of the frame's faces, in their order. `now` is the
    /// frame's time on any clock that does not run backwards. Faces beyond
    /// [`MAX_TRACKS`] get none.
    pub fn step(&mut self, now: Duration, faces: &[Face]) -> heapless::Vec<TrackId, MAX_TRACKS> {
        self.tracks.retain(|track| now.saturating_sub(track.seen) <= LOST_AFTER);
        let faces = &faces[..faces.len().min(MAX_TRACKS)];
        let mut pairs: heapless::Vec<(f32, usize, usize), { MAX_TRACKS * MAX_TRACKS }> =
            heapless::Vec::new();
        for (f, face) in faces.iter().enumerate() {
            for (t, track) in self.tracks.iter().enumerate() {
                let overlap = face.rect.iou(&track.rect);
                if overlap >= LEAST_OVERLAP {
                    // There is room for every pair.
                    let _ = pairs.push((overlap, f, t));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut of_face = [None; MAX_TRACKS];
        let mut taken = [false; MAX_TRACKS];
        for (_, f, t) in pairs {
            if of_face[f].is_none() && !taken[t] {
                of_face[f] = Some(self.tracks[t].id);
                taken[t] = true;
            }
        }
        let mut ids = heapless::Vec::new();
        for (f, face) in faces.iter().enumerate() {
            let id = of_face[f].unwrap_or_else(|| {
                self.next += 1;
                TrackId(self.next)
            });
            let seen = Track { id, rect: face.rect, seen: now };
            match self.tracks.iter_mut().find(|track| track.id == id) {
                Some(track) => *track = seen,
                None => self.add(seen),
            }
            // As many ids as faces, of which there are at most MAX_TRACKS.
            let _ = ids.push(id);
        }
        ids
    }

    /// A new track, in place of the one unseen for longest if there is no room.
    fn add(&mut self, track: Track) {
        if let Err(track) = self.tracks.push(track)
            && let Some(oldest) = self.tracks.iter_mut().min_by_key(|track| track.seen)
        {
            *oldest = track;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn face(x: f32, side: f32) -> Face {
        let rect = Rect { x1: x, y1: 0.0, x2: x + side, y2: side };
        Face { rect, score: 1.0, landmarks: [[0.0; 2]; 5] }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn two_people_passing_keep_their_tracks() {
        let mut tracker = Tracker::default();
        let first = tracker.step(ms(0), &[face(0.0, 100.0), face(300.0, 100.0)]);
        let second = tracker.step(ms(100), &[face(280.0, 100.0), face(20.0, 100.0)]);
        assert_eq!((first[0], first[1]), (second[1], second[0]));
    }

    #[test]
    fn a_jump_or_a_long_absence_is_a_new_track() {
        let mut tracker = Tracker::default();
        let first = tracker.step(ms(0), &[face(0.0, 100.0)])[0];
        assert_ne!(tracker.step(ms(100), &[face(90.0, 100.0)])[0], first);
        assert_eq!(tracker.step(ms(200), &[face(0.0, 100.0)])[0], first);
        assert_eq!(tracker.step(ms(800), &[face(0.0, 100.0)])[0], first);
        assert_ne!(tracker.step(ms(1401), &[face(0.0, 100.0)])[0], first);
    }

    proptest! {
        #[test]
        fn every_face_gets_a_track_of_its_own(
            frames in prop::collection::vec(prop::collection::vec((0f32..500.0, 10f32..200.0), 0..20), 1..8),
        ) {
            let mut tracker = Tracker::default();
            for (at, frame) in frames.iter().enumerate() {
                let faces: Vec<Face> = frame.iter().map(|(x, side)| face(*x, *side)).collect();
                let ids = tracker.step(ms(at as u64 * 100), &faces);
                prop_assert_eq!(ids.len(), faces.len().min(MAX_TRACKS));
                let mut distinct = ids.to_vec();
                distinct.sort();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), ids.len());
            }
        }
    }
}
