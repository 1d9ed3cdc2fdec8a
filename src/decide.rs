//! Who may come in: evidence over several frames of one track.
//!
//! One frame proves little. A person is let in once enough recent frames of one
//! track say so and none says otherwise; evidence grows old and is forgotten.
//!
//! ```text
//!   frame: faces in the zone, each with its track and best match
//!     two or more, rule "refuse" --> no evidence is taken, one refusal is told
//!     match >= threshold --> a vote for that person
//!     no match           --> a vote for nobody
//!     too poor to tell   --> no vote
//!   a track's votes of the last `expires`:
//!     votes for two people         --> all forgotten: a face does not change
//!     `frames` for one person, and
//!       more than for nobody       --> granted
//!     `frames` for nobody, and
//!       more than for anybody      --> refused, told once
//! ```

use crate::frame::Rect;
use crate::gallery::PersonId;
use crate::track::{MAX_TRACKS, TrackId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Votes a track remembers: two seconds at 15 frames a second. Older ones make
/// room.
const MAX_VOTES: usize = 32;

/// What to do when more than one face is in the zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TwoFaces {
    /// Nobody is let in until one is alone.
    #[default]
    Refuse,
    /// Let in when everybody in the zone may come in.
    All,
    /// Let in when one of them may come in.
    Any,
}

/// How much evidence it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecideSettings {
    /// Frames of one track that must agree; at least 1.
    pub frames: usize,
    /// Age at which evidence is forgotten.
    pub expires: Duration,
    /// More than one face in the zone.
    pub two_faces: TwoFaces,
    /// Who has been let in is not let in again on the same track before.
    pub again_after: Duration,
}

impl Default for DecideSettings {
    fn default() -> Self {
        Self {
            frames: 3,
            expires: Duration::from_millis(1500),
            two_faces: TwoFaces::Refuse,
            again_after: Duration::from_secs(5),
        }
    }
}

/// What a frame says of one face in the zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Whose face it is over time.
    pub track: TrackId,
    /// What the gallery says.
    pub seen: Seen,
}

/// What the gallery says of a face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// Too small, blurred, dark or turned to be compared.
    Poor,
    /// Like nobody; the similarity to the most similar person.
    Nobody(f32),
    /// At or above the threshold.
    Person(PersonId, f32),
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Open for this person.
    Grant(Evidence),
    /// Somebody the gallery does not know.
    Stranger {
        /// Their track.
        track: TrackId,
        /// Highest similarity to anybody among the votes.
        similarity: f32,
        /// Frames that said so.
        frames: usize,
    },
    /// More than one face in the zone.
    TwoFaces {
        /// How many.
        faces: usize,
    },
}

/// What speaks for a person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Who.
    pub person: PersonId,
    /// Their track.
    pub track: TrackId,
    /// Lowest similarity among their votes.
    pub similarity: f32,
    /// Frames that agree.
    pub frames: usize,
    /// Frames within the time that could be compared.
    pub of: usize,
}

/// As many decisions as tracks, and one on their number.
pub type Decisions = heapless::Vec<Decision, { MAX_TRACKS + 1 }>;

/// The evidence so far.
#[derive(Clone, Debug)]
pub struct Decider {
    settings: DecideSettings,
    tracks: heapless::Vec<Track, MAX_TRACKS>,
    /// Until when two faces have been told of.
    crowded_until: Option<Duration>,
    /// Until when somebody unknown counts as standing beside the others.
    stranger_until: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Track {
    id: TrackId,
    votes: heapless::Deque<Vote, MAX_VOTES>,
    granted: Option<Duration>,
    told_stranger: bool,
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    at: Duration,
    person: Option<PersonId>,
    similarity: f32,
}

/// What a track's votes say.
enum Verdict {
    Open,
    Person(Evidence),
    Nobody { similarity: f32, frames: usize },
}

impl Decider {
    /// No evidence yet.
    pub fn new(settings: DecideSettings) -> Self {
        Self { settings, tracks: heapless::Vec::new(), crowded_until: None, stranger_until: None }
    }

    /// Takes one frame's faces in the zone, on a clock that does not run
    /// backwards.
    pub fn step(&mut self, now: Duration, observations: &[Observation]) -> Decisions {
        let mut decisions = Decisions::new();
        self.forget(now);
        let crowded = observations.len() > 1;
        if crowded && self.settings.two_faces == TwoFaces::Refuse {
            // Whose evidence could be trusted while two faces are close together?
            for track in &mut self.tracks {
                track.votes.clear();
            }
            if self.crowded_until.is_none_or(|until| now >= until) {
                let _ = decisions.push(Decision::TwoFaces { faces: observations.len() });
            }
            self.crowded_until = Some(now + self.settings.expires);
            return decisions;
        }
        for observation in observations {
            self.vote(now, observation);
        }
        // What opens is a frame that shows the person, not one that shows somebody
        // else while older evidence outlives what spoke against it.
        let shown = |observation: &Observation| match self.track(observation.track) {
            Some(track) => match (self.verdict(track), observation.seen) {
                (Verdict::Person(evidence), Seen::Person(person, _)) => evidence.person == person,
                _ => false,
            },
            None => false,
        };
        let everybody = observations.iter().all(shown);
        let known = |observation: &Observation| matches!(observation.seen, Seen::Person(..));
        if crowded && !observations.iter().all(known) {
            // One frame that misses the stranger does not mean that they have left.
            self.stranger_until = Some(now + self.settings.expires);
        }
        let stranger = self.stranger_until.is_some_and(|until| now < until);
        let waits = self.settings.two_faces == TwoFaces::All && (stranger || !everybody && crowded);
        for observation in observations {
            let Some(at) = self.tracks.iter().position(|track| track.id == observation.track)
            else {
                continue;
            };
            let verdict = self.verdict(&self.tracks[at]);
            let track = &mut self.tracks[at];
            let lately = |at: Duration| now < at + self.settings.again_after;
            let shows = |evidence: &Evidence| matches!(observation.seen, Seen::Person(person, _) if person == evidence.person);
            let decision = match verdict {
                Verdict::Person(evidence)
                    if waits || !shows(&evidence) || track.granted.is_some_and(lately) =>
                {
                    None
                }
                Verdict::Person(evidence) => {
                    track.granted = Some(now);
                    Some(Decision::Grant(evidence))
                }
                Verdict::Nobody { similarity, frames } if !track.told_stranger => {
                    track.told_stranger = true;
                    Some(Decision::Stranger { track: track.id, similarity, frames })
                }
                Verdict::Nobody { .. } | Verdict::Open => None,
            };
            // There is room for one a track.
            decision.map(|decision| decisions.push(decision));
        }
        decisions
    }

    /// The grant on this track opened nothing: it counts as not given, and new
    /// evidence is asked for.
    pub fn not_opened(&mut self, track: TrackId) {
        for track in self.tracks.iter_mut().filter(|known| known.id == track) {
            track.granted = None;
            track.votes.clear();
        }
    }

    /// Forgets all evidence: the gallery or the threshold has changed.
    pub fn clear(&mut self) {
        self.tracks.clear();
    }

    fn track(&self, id: TrackId) -> Option<&Track> {
        self.tracks.iter().find(|track| track.id == id)
    }

    /// Drops votes past their age and tracks that have none and told nothing
    /// lately.
    fn forget(&mut self, now: Duration) {
        let DecideSettings { expires, again_after, .. } = self.settings;
        for track in &mut self.tracks {
            while track.votes.front().is_some_and(|vote| now >= vote.at + expires) {
                track.votes.pop_front();
            }
            if track.votes.is_empty() {
                track.told_stranger = false;
            }
        }
        self.tracks.retain(|track| {
            !track.votes.is_empty() || track.granted.is_some_and(|at| now < at + again_after)
        });
    }

    fn vote(&mut self, now: Duration, observation: &Observation) {
        let (person, similarity) = match observation.seen {
            Seen::Poor => return,
            Seen::Nobody(similarity) => (None, similarity),
            Seen::Person(person, similarity) => (Some(person), similarity),
        };
        if self.track(observation.track).is_none() {
            if self.tracks.is_full() {
                // Unseen for longest; such a track has the oldest last vote.
                let oldest = self
                    .tracks
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, track)| track.votes.back().map(|vote| vote.at));
                if let Some((at, _)) = oldest {
                    self.tracks.swap_remove(at);
                }
            }
            let (votes, id) = (heapless::Deque::new(), observation.track);
            let _ = self.tracks.push(Track { id, votes, granted: None, told_stranger: false });
        }
        let Some(track) = self.tracks.iter_mut().find(|track| track.id == observation.track) else {
            return;
        };
        let other =
            |vote: &Vote| vote.person.is_some() && person.is_some() && vote.person != person;
        if track.votes.iter().any(other) {
            // One face cannot be two people: what is known of it is worthless.
            track.votes.clear();
            track.granted = None;
        }
        if track.votes.is_full() {
            track.votes.pop_front();
        }
        let _ = track.votes.push_back(Vote { at: now, person, similarity });
    }

    fn verdict(&self, track: &Track) -> Verdict {
        let of = track.votes.len();
        let person = track.votes.iter().find_map(|vote| vote.person);
        let own = || track.votes.iter().filter(|vote| vote.person.is_some());
        let others = || track.votes.iter().filter(|vote| vote.person.is_none());
        let (frames, against) = (own().count(), others().count());
        let needed = self.settings.frames.clamp(1, MAX_VOTES);
        match person {
            Some(person) if frames >= needed && frames > against => Verdict::Person(Evidence {
                person,
                track: track.id,
                similarity: own().map(|vote| vote.similarity).fold(1.0, f32::min),
                frames,
                of,
            }),
            _ if against >= needed && against > frames => Verdict::Nobody {
                similarity: others().map(|vote| vote.similarity).fold(-1.0, f32::max),
                frames: against,
            },
            _ => Verdict::Open,
        }
    }
}

/// The part of the picture in which faces count, and how large they must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zone {
    /// Left, top, right, bottom as shares of the picture, 0..=1.
    pub area: [f32; 4],
    /// Shorter side of a face, pixels: smaller ones are passing by.
    pub minimum_face: f32,
}

impl Default for Zone {
    fn default() -> Self {
        Self { area: [0.0, 0.0, 1.0, 1.0], minimum_face: 60.0 }
    }
}

impl Zone {
    /// Whether a face counts: its middle lies within, and it is large enough.
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
    use proptest::prelude::*;

    const ADA: PersonId = PersonId(1);
    const GRACE: PersonId = PersonId(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn seen(track: u64, seen: Seen) -> Observation {
        Observation { track: TrackId(track), seen }
    }

    fn ada(track: u64) -> Observation {
        seen(track, Seen::Person(ADA, 0.6))
    }

    fn nobody(track: u64) -> Observation {
        seen(track, Seen::Nobody(0.2))
    }

    fn decider(two_faces: TwoFaces) -> Decider {
        Decider::new(DecideSettings { two_faces, ..DecideSettings::default() })
    }

    /// Steps through a timeline and returns the decisions with their times.
    fn play(decider: &mut Decider, timeline: &[(u64, &[Observation])]) -> Vec<(u64, Decision)> {
        let mut all = vec![];
        for (at, observations) in timeline {
            all.extend(decider.step(ms(*at), observations).into_iter().map(|d| (*at, d)));
        }
        all
    }

    fn granted(decisions: &[(u64, Decision)]) -> Vec<(u64, PersonId)> {
        decisions
            .iter()
            .filter_map(|(at, decision)| match decision {
                Decision::Grant(evidence) => Some((*at, evidence.person)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn three_frames_open_once() {
        let mut decider = decider(TwoFaces::Refuse);
        let frame = [ada(1)];
        let timeline: Vec<(u64, &[Observation])> = (0..10).map(|i| (i * 100, &frame[..])).collect();
        let decisions = play(&mut decider, &timeline);
        assert_eq!(granted(&decisions), [(200, ADA)]);
        let Decision::Grant(evidence) = decisions[0].1 else { panic!("{decisions:?}") };
        assert_eq!((evidence.frames, evidence.of, evidence.track), (3, 3, TrackId(1)));
    }

    #[test]
    fn evidence_expires() {
        let mut decider = decider(TwoFaces::Refuse);
        let timeline: [(u64, &[Observation]); 4] =
            [(0, &[ada(1)]), (800, &[ada(1)]), (1500, &[ada(1)]), (2299, &[ada(1)])];
        // At 1500 the first vote is gone, at 2299 the second is not.
        assert_eq!(granted(&play(&mut decider, &timeline)), [(2299, ADA)]);
    }

    #[test]
    fn frames_of_two_tracks_do_not_add_up() {
        let mut decider = decider(TwoFaces::Refuse);
        let timeline: [(u64, &[Observation]); 4] =
            [(0, &[ada(1)]), (100, &[ada(1)]), (200, &[ada(2)]), (300, &[ada(2)])];
        assert_eq!(granted(&play(&mut decider, &timeline)), []);
    }

    #[test]
    fn a_face_that_becomes_another_starts_anew() {
        let mut decider = decider(TwoFaces::Refuse);
        let grace = seen(1, Seen::Person(GRACE, 0.7));
        let timeline: [(u64, &[Observation]); 6] = [
            (0, &[ada(1)]),
            (100, &[ada(1)]),
            (200, &[grace]),
            (300, &[ada(1)]),
            (400, &[ada(1)]),
            (500, &[ada(1)]),
        ];
        assert_eq!(granted(&play(&mut decider, &timeline)), [(500, ADA)]);
    }

    #[test]
    fn as_many_frames_against_as_for_are_not_enough() {
        let mut decider = decider(TwoFaces::Refuse);
        let timeline: Vec<(u64, &[Observation])> = vec![
            (0, &[Observation { track: TrackId(1), seen: Seen::Nobody(0.3) }]),
            (50, &[Observation { track: TrackId(1), seen: Seen::Nobody(0.3) }]),
            (100, &[Observation { track: TrackId(1), seen: Seen::Nobody(0.3) }]),
            (150, &[Observation { track: TrackId(1), seen: Seen::Person(ADA, 0.5) }]),
            (200, &[Observation { track: TrackId(1), seen: Seen::Person(ADA, 0.5) }]),
            (250, &[Observation { track: TrackId(1), seen: Seen::Person(ADA, 0.5) }]),
            (300, &[Observation { track: TrackId(1), seen: Seen::Person(ADA, 0.5) }]),
        ];
        let decisions = play(&mut decider, &timeline);
        assert_eq!(granted(&decisions), [(300, ADA)]);
        assert!(matches!(decisions[0], (100, Decision::Stranger { frames: 3, .. })));
    }

    #[test]
    fn a_stranger_is_told_of_once() {
        let mut decider = decider(TwoFaces::Refuse);
        let frame = [nobody(1)];
        let timeline: Vec<(u64, &[Observation])> = (0..20).map(|i| (i * 100, &frame[..])).collect();
        let decisions = play(&mut decider, &timeline);
        assert_eq!(decisions.len(), 1, "{decisions:?}");
    }

    #[test]
    fn poor_views_are_no_evidence_either_way() {
        let mut decider = decider(TwoFaces::Refuse);
        let frame = [seen(1, Seen::Poor)];
        let timeline: Vec<(u64, &[Observation])> = (0..20).map(|i| (i * 100, &frame[..])).collect();
        assert_eq!(play(&mut decider, &timeline), []);
    }

    #[test]
    fn two_faces_follow_the_rule() {
        let both = [ada(1), nobody(2)];
        let timeline: Vec<(u64, &[Observation])> = (0..8).map(|i| (i * 100, &both[..])).collect();
        let refused = play(&mut decider(TwoFaces::Refuse), &timeline);
        assert_eq!(refused, [(0, Decision::TwoFaces { faces: 2 })]);
        assert_eq!(granted(&play(&mut decider(TwoFaces::All), &timeline)), []);
        assert_eq!(granted(&play(&mut decider(TwoFaces::Any), &timeline)), [(200, ADA)]);
        let friends = [ada(1), seen(2, Seen::Person(GRACE, 0.7))];
        let timeline: Vec<(u64, &[Observation])> =
            (0..8).map(|i| (i * 100, &friends[..])).collect();
        let opened = granted(&play(&mut decider(TwoFaces::All), &timeline));
        assert_eq!(opened, [(200, ADA), (200, GRACE)]);
    }

    #[test]
    fn evidence_from_before_a_second_face_does_not_count() {
        let both = [ada(1), nobody(2)];
        let mut decider = decider(TwoFaces::Refuse);
        let timeline: [(u64, &[Observation]); 6] = [
            (0, &[ada(1)]),
            (100, &[ada(1)]),
            (200, &both),
            (300, &[ada(1)]),
            (400, &[ada(1)]),
            (500, &[ada(1)]),
        ];
        assert_eq!(granted(&play(&mut decider, &timeline)), [(500, ADA)]);
    }

    #[test]
    fn a_frame_that_shows_somebody_else_does_not_open() {
        let mut decider = decider(TwoFaces::Refuse);
        let timeline: [(u64, &[Observation]); 9] = [
            (0, &[nobody(1)]),
            (100, &[nobody(1)]),
            (200, &[nobody(1)]),
            (300, &[ada(1)]),
            (400, &[ada(1)]),
            (500, &[ada(1)]),
            // The first three are forgotten by now, and Ada leads.
            (1700, &[nobody(1)]),
            (1750, &[seen(1, Seen::Poor)]),
            (1780, &[ada(1)]),
        ];
        assert_eq!(granted(&play(&mut decider, &timeline)), [(1780, ADA)]);
    }

    #[test]
    fn under_the_rule_all_a_stranger_on_a_known_track_keeps_the_door_shut() {
        let mut decider = decider(TwoFaces::All);
        let grace = seen(2, Seen::Person(GRACE, 0.7));
        let mut timeline: Vec<(u64, Vec<Observation>)> =
            (0..4).map(|i| (i * 100, vec![ada(1)])).collect();
        timeline.extend((4..30).map(|i| (i * 100, vec![nobody(1), grace])));
        let timeline: Vec<(u64, &[Observation])> =
            timeline.iter().map(|(at, seen)| (*at, &seen[..])).collect();
        assert_eq!(granted(&play(&mut decider, &timeline)), [(200, ADA)]);
    }

    #[test]
    fn under_the_rule_all_a_frame_that_misses_the_stranger_does_not_open() {
        let mut decider = decider(TwoFaces::All);
        let both = [ada(1), nobody(2)];
        let mut timeline: Vec<(u64, &[Observation])> =
            (0..10).map(|i| (i * 100, &both[..])).collect();
        let alone = [ada(1)];
        timeline.extend((10..30).map(|i| (i * 100, &alone[..])));
        // Last seen at 900, so forgotten at 2400.
        assert_eq!(granted(&play(&mut decider, &timeline)), [(2400, ADA)]);
    }

    #[test]
    fn a_grant_that_opened_nothing_is_given_again_on_new_evidence() {
        let mut decider = decider(TwoFaces::Refuse);
        let frame = [ada(1)];
        let first: Vec<(u64, &[Observation])> = (0..3).map(|i| (i * 100, &frame[..])).collect();
        assert_eq!(granted(&play(&mut decider, &first)), [(200, ADA)]);
        decider.not_opened(TrackId(1));
        let then: Vec<(u64, &[Observation])> = (3..9).map(|i| (i * 100, &frame[..])).collect();
        assert_eq!(granted(&play(&mut decider, &then)), [(500, ADA)]);
    }

    #[test]
    fn the_same_track_opens_again_only_later() {
        let mut decider = decider(TwoFaces::Refuse);
        let frame = [ada(1)];
        let timeline: Vec<(u64, &[Observation])> = (0..80).map(|i| (i * 100, &frame[..])).collect();
        assert_eq!(granted(&play(&mut decider, &timeline)), [(200, ADA), (5200, ADA)]);
    }

    #[test]
    fn the_zone_is_for_large_faces_within_it() {
        let zone = Zone { area: [0.25, 0.0, 0.75, 1.0], minimum_face: 50.0 };
        let at = |x: f32, side: f32| Rect { x1: x, y1: 10.0, x2: x + side, y2: 10.0 + side };
        assert!(zone.contains(&at(300.0, 60.0), 640, 480));
        assert!(!zone.contains(&at(300.0, 40.0), 640, 480));
        assert!(!zone.contains(&at(20.0, 60.0), 640, 480));
        assert!(!zone.contains(&at(f32::NAN, 60.0), 640, 480));
    }

    fn observation() -> impl Strategy<Value = Observation> {
        let what = prop_oneof![
            Just(Seen::Poor),
            (0f32..0.3).prop_map(Seen::Nobody),
            (1u32..4, 0.4f32..1.0).prop_map(|(person, s)| Seen::Person(PersonId(person), s)),
        ];
        (0u64..20, what).prop_map(|(track, seen)| Observation { track: TrackId(track), seen })
    }

    proptest! {
        /// Nobody is ever let in without `frames` votes of their own on that
        /// track within `expires`, whatever else happens.
        #[test]
        fn no_grant_without_its_evidence(
            frames in prop::collection::vec((prop::collection::vec(observation(), 0..4), 0u64..900), 0..60),
            rule in prop::sample::select(vec![TwoFaces::Refuse, TwoFaces::All, TwoFaces::Any]),
        ) {
            let mut decider = decider(rule);
            let mut now = 0;
            let mut history: Vec<(u64, Observation)> = vec![];
            for (mut observations, later) in frames {
                now += later;
                let mut known = vec![];
                observations.retain(|o| {
                    let new = !known.contains(&o.track);
                    known.push(o.track);
                    new
                });
                history.extend(observations.iter().map(|o| (now, *o)));
                for decision in decider.step(ms(now), &observations) {
                    if let Decision::Grant(evidence) = decision {
                        let votes = history
                            .iter()
                            .filter(|(at, o)| {
                                at + 1500 > now
                                    && o.track == evidence.track
                                    && matches!(o.seen, Seen::Person(p, _) if p == evidence.person)
                            })
                            .count();
                        prop_assert!(votes >= 3, "{evidence:?} at {now}");
                        prop_assert!(rule != TwoFaces::Refuse || observations.len() == 1);
                        prop_assert!(observations.iter().any(|o| o.track == evidence.track
                            && matches!(o.seen, Seen::Person(p, _) if p == evidence.person)));
                    }
                }
            }
        }
    }
}
