//! From the faces of the frames to attempts: one per track, counted once.
//!
//! ```text
//!   track with a first view that can be compared
//!     known person decided               -> an attempt of a known person
//!     refused as a stranger, or ended
//!       undecided and matched nobody     -> waits for two minutes
//!     ended undecided, matched somebody  -> not counted: known people pass by
//!   waiting attempt
//!     the person whom it resembles most is
//!       recognized meanwhile             -> not counted: it was that person, badly seen
//!     the same face within the last hour -> not counted: the same visit
//!     else                               -> an attempt of somebody not enrolled
//! ```
//!
//! The similarity of an attempt is that of its first view: a view that was chosen for its
//! similarity, or the best of many, would be more alike than the calibration promises. Faces
//! are kept in memory only, and only a few.

use super::traffic::Whose;
use crate::access::gallery::{PersonId, Probe};
use crate::vision::embed::Template;
use crate::vision::track::{MAX_TRACKS, TrackId};
use std::time::Duration;

/// A track that was not seen for this time has ended.
const TRACK_ENDS: Duration = Duration::from_secs(5);

/// How long an attempt waits for the person whom it resembles most.
const WAITS: Duration = Duration::from_secs(120);

/// For how long the same face is the same visit.
const VISIT: Duration = Duration::from_secs(3600);

/// Attempts that wait; the oldest makes room by being counted.
const MOST_WAITING: usize = 16;

/// Faces that are remembered.
const MOST_VISITORS: usize = 32;

/// An attempt to be counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attempt {
    /// Whose it was.
    pub whose: Whose,
    /// Cosine similarity of its first view to the most similar person; `None` if nobody is
    /// enrolled.
    pub similarity: Option<f32>,
}

/// How a track was decided so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Not at all, and no view has matched anybody.
    Open,
    /// Not at all, but a view has matched somebody.
    Matched,
    Stranger,
    Known(PersonId),
}

#[derive(Clone, Debug)]
struct OfTrack {
    track: TrackId,
    last: Duration,
    /// The first view.
    view: Template,
    best: Option<(PersonId, f32)>,
    outcome: Outcome,
}

#[derive(Clone, Debug)]
struct Waiting {
    since: Duration,
    whose: Whose,
    view: Template,
    best: Option<(PersonId, f32)>,
}

#[derive(Clone, Debug)]
struct Visitor {
    last: Duration,
    view: Template,
}

/// Attempts that are not counted yet.
#[derive(Clone, Debug)]
pub struct Attempts {
    /// Cosine of two views at which they are of one visitor.
    same_visitor: f32,
    tracks: heapless::Vec<OfTrack, MAX_TRACKS>,
    waiting: heapless::Deque<Waiting, MOST_WAITING>,
    visitors: heapless::Vec<Visitor, MOST_VISITORS>,
    counted: heapless::Vec<Attempt, { MAX_TRACKS + 1 }>,
}

impl Attempts {
    /// No attempts yet. `same_visitor` is the cosine of two views at which they are of one
    /// visitor.
    pub fn new(same_visitor: f32) -> Self {
        Self {
            same_visitor,
            tracks: heapless::Vec::new(),
            waiting: heapless::Deque::new(),
            visitors: heapless::Vec::new(),
            counted: heapless::Vec::new(),
        }
    }

    /// Forgets everything: a newcomer is enrolled.
    pub fn clear(&mut self) {
        *self = Self::new(self.same_visitor);
    }

    /// Whether nobody is in view.
    pub fn is_idle(&self) -> bool {
        self.tracks.is_empty()
    }

    /// A track was compared with the gallery. Call it before the decision on that frame.
    pub fn seen(&mut self, now: Duration, track: TrackId, probe: &Probe<'_>) {
        let matches = probe.best.is_some_and(|best| best.reaches);
        if let Some(known) = self.tracks.iter_mut().find(|known| known.track == track) {
            known.last = now;
            if matches && known.outcome == Outcome::Open {
                known.outcome = Outcome::Matched;
            }
            return;
        }
        let outcome = if matches { Outcome::Matched } else { Outcome::Open };
        let best = probe.best.map(|best| (best.person, best.similarity));
        let new = OfTrack { track, last: now, view: probe.template.clone(), best, outcome };
        // The tracker has no more tracks; of those that have ended the oldest makes room.
        if self.tracks.is_full() {
            let oldest = self.tracks.iter().enumerate().min_by_key(|(_, track)| track.last);
            if let Some((at, _)) = oldest {
                let ended = self.tracks.swap_remove(at);
                self.ended(now, ended);
            }
        }
        let _ = self.tracks.push(new);
    }

    /// A track was refused as a stranger. `same_face` is the cosine of two views of one
    /// face: another face on the same track is another attempt.
    pub fn stranger(&mut self, now: Duration, track: TrackId, probe: &Probe<'_>, same_face: f32) {
        let Some(at) = self.tracks.iter().position(|known| known.track == track) else { return };
        let known = &self.tracks[at];
        let same = known.view.similarity(probe.template).is_ok_and(|cosine| cosine >= same_face);
        if known.outcome != Outcome::Open && known.outcome != Outcome::Matched && !same {
            let ended = self.tracks.swap_remove(at);
            self.ended(now, ended);
            self.seen(now, track, probe);
        }
        for known in self.tracks.iter_mut().filter(|known| known.track == track) {
            known.outcome = Outcome::Stranger;
        }
    }

    /// A track was decided to be a known person, whether the door opens or not.
    pub fn known(&mut self, now: Duration, track: TrackId, person: PersonId) {
        for known in self.tracks.iter_mut().filter(|known| known.track == track) {
            known.outcome = Outcome::Known(person);
        }
        let resembles =
            |best: Option<(PersonId, f32)>| best.is_some_and(|(best, _)| best == person);
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else { break };
            if !resembles(waiting.best) || now > waiting.since + WAITS {
                // There is room: it was there before.
                let _ = self.waiting.push_back(waiting);
            }
        }
    }

    /// Lets time pass. Returns the attempts to be counted now.
    pub fn elapse(&mut self, now: Duration) -> impl Iterator<Item = Attempt> + use<> {
        while let Some(at) = self.tracks.iter().position(|track| now >= track.last + TRACK_ENDS) {
            let ended = self.tracks.swap_remove(at);
            self.ended(now, ended);
        }
        while self.waiting.front().is_some_and(|waiting| now >= waiting.since + WAITS) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            self.release(now, waiting);
        }
        std::mem::take(&mut self.counted).into_iter()
    }

    fn ended(&mut self, now: Duration, track: OfTrack) {
        let OfTrack { view, best, outcome, .. } = track;
        let whose = match outcome {
            Outcome::Matched => return,
            Outcome::Known(_) => {
                let attempt = Attempt { whose: Whose::Known, similarity: None };
                // More than that do not end between two calls.
                let _ = self.counted.push(attempt);
                return;
            }
            Outcome::Stranger => Whose::Stranger,
            Outcome::Open => Whose::Undecided,
        };
        if self.waiting.is_full()
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.release(now, oldest);
        }
        let _ = self.waiting.push_back(Waiting { since: now, whose, view, best });
    }

    fn release(&mut self, now: Duration, waiting: Waiting) {
        let Waiting { since, whose, view, best } = waiting;
        let same_visitor = self.same_visitor;
        self.visitors.retain(|visitor| now < visitor.last + VISIT);
        let same = |visitor: &&mut Visitor| {
            visitor.view.similarity(&view).is_ok_and(|cosine| cosine >= same_visitor)
        };
        if let Some(visitor) = self.visitors.iter_mut().find(same) {
            visitor.last = since;
            return;
        }
        if self.visitors.is_full() {
            let oldest = self.visitors.iter().enumerate().min_by_key(|(_, one)| one.last);
            oldest.map(|(at, _)| at).map(|at| self.visitors.swap_remove(at));
        }
        let _ = self.visitors.push(Visitor { last: since, view });
        let similarity = best.map(|(_, similarity)| similarity);
        let _ = self.counted.push(Attempt { whose, similarity });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::gallery::{Candidate, Denied};
    use crate::models::ModelId;
    use crate::vision::embed::Embedding;

    const ADA: PersonId = PersonId(1);
    const SAME: f32 = 0.5;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A face that resembles no other.
    fn face(number: usize) -> Template {
        let mut values = [0.0; 64];
        values[number] = 1.0;
        Template::new(ModelId::new("tests"), Embedding::normalized(&values))
    }

    fn probe(template: &Template, similarity: f32) -> Probe<'_> {
        let (reaches, denied) = (similarity >= 0.4, Denied::No);
        let best = Candidate { person: ADA, similarity, reaches, denied };
        Probe { template, best: Some(best) }
    }

    /// Everything that is counted from `now` on, once nobody comes any more.
    fn rest(attempts: &mut Attempts, now: u64) -> Vec<Attempt> {
        (0..200).flat_map(|at| attempts.elapse(s(now + at)).collect::<Vec<_>>()).collect()
    }

    fn attempt(whose: Whose, similarity: f32) -> Attempt {
        Attempt { whose, similarity: Some(similarity) }
    }

    #[test]
    fn a_track_is_one_attempt_with_the_similarity_of_its_first_view() {
        let mut attempts = Attempts::new(SAME);
        let eve = face(1);
        for at in 0..60 {
            attempts.seen(s(at), TrackId(1), &probe(&eve, 0.2 + at as f32 * 1e-3));
            if at % 5 == 4 {
                attempts.stranger(s(at), TrackId(1), &probe(&eve, 0.3), SAME);
            }
            assert_eq!(attempts.elapse(s(at)).count(), 0);
        }
        assert!(!attempts.is_idle());
        assert_eq!(rest(&mut attempts, 60), [attempt(Whose::Stranger, 0.2)]);
        assert!(attempts.is_idle());
    }

    #[test]
    fn whoever_leaves_early_counts_unless_a_view_matched() {
        let mut attempts = Attempts::new(SAME);
        attempts.seen(s(0), TrackId(1), &probe(&face(1), 0.2));
        attempts.seen(s(0), TrackId(2), &probe(&face(2), 0.45));
        attempts.seen(s(0), TrackId(3), &probe(&face(3), 0.3));
        attempts.seen(s(1), TrackId(3), &probe(&face(3), 0.45));
        assert_eq!(rest(&mut attempts, 2), [attempt(Whose::Undecided, 0.2)]);
    }

    #[test]
    fn a_known_person_who_was_refused_before_is_no_stranger() {
        let mut attempts = Attempts::new(SAME);
        let badly = face(1);
        attempts.seen(s(0), TrackId(1), &probe(&badly, 0.35));
        attempts.stranger(s(0), TrackId(1), &probe(&badly, 0.35), SAME);
        assert_eq!(attempts.elapse(s(10)).count(), 0);
        // Somebody else is recognized first.
        attempts.seen(s(11), TrackId(2), &probe(&face(3), 0.7));
        attempts.known(s(11), TrackId(2), PersonId(2));
        attempts.seen(s(12), TrackId(3), &probe(&face(2), 0.7));
        attempts.known(s(12), TrackId(3), ADA);
        let known = Attempt { whose: Whose::Known, similarity: None };
        assert_eq!(rest(&mut attempts, 13), [known, known]);
    }

    #[test]
    fn the_same_face_within_an_hour_is_one_visit() {
        let mut attempts = Attempts::new(SAME);
        let mut counted = vec![];
        for (at, who) in [(0, 1), (600, 1), (1200, 2), (4000, 1), (9000, 1)] {
            let track = TrackId(at);
            attempts.seen(s(at), track, &probe(&face(who), 0.2));
            attempts.stranger(s(at), track, &probe(&face(who), 0.2), SAME);
            counted.extend(rest(&mut attempts, at + 1).iter().map(|_| at));
        }
        // At 4,000 s the last visit is 3,400 s ago, and at 9,000 s it is longer ago.
        assert_eq!(counted, [0, 1200, 9000]);
    }

    #[test]
    fn another_face_on_the_same_track_is_another_attempt() {
        let mut attempts = Attempts::new(SAME);
        for (at, who) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3)] {
            let view = face(who);
            attempts.seen(s(at), TrackId(1), &probe(&view, 0.1 * who as f32));
            attempts.stranger(s(at), TrackId(1), &probe(&view, 0.1 * who as f32), SAME);
        }
        let similarities: Vec<_> =
            rest(&mut attempts, 5).iter().map(|attempt| attempt.similarity).collect();
        assert_eq!(similarities, [Some(0.1), Some(0.2), Some(0.3)]);
    }

    #[test]
    fn a_crowd_is_counted_and_memory_stays_bounded() {
        let mut attempts = Attempts::new(SAME);
        let mut counted = 0;
        for number in 0..1000u64 {
            let view = face(number as usize % 64);
            attempts.seen(s(number), TrackId(number), &probe(&view, 0.2));
            counted += attempts.elapse(s(number)).count();
        }
        counted += rest(&mut attempts, 1000).len();
        // 64 faces, of which half are remembered at a time.
        assert_eq!(counted, 1000);
    }
}
