//! The decision whom to admit: evidence over several frames of one track.
//!
//! One frame proves little. A person is granted once enough recent frames of one track
//! match them, more frames match them than match nobody, and the combined evidence is
//! strong enough. Old evidence expires.
//!
//! ```text
//!   frame: faces in the zone, each with its track and best match
//!     two or more, rule "refuse" --> no votes; one refusal is reported
//!     match >= threshold --> a vote for that person
//!     no match           --> a vote for nobody
//!     match that a negative
//!       denies           --> a vote for nobody, and other people's are dropped
//!     too poor to compare, or
//!       a frame or a view that
//!       has voted already  --> no vote
//!   a track's votes of the last `evidence_expires`:
//!     votes for two people         --> all dropped: a face does not change
//!     `frames` for one person,
//!       more than for nobody, and
//!       enough combined evidence   --> granted
//!     `frames` for nobody, and
//!       more than for one person   --> refused
//!   after a refusal of the track:
//!     a view of another stranger   --> a new attempt, with votes for nobody of its own
//!     the same one, 5 s later      --> refused again: another attempt
//! ```
//!
//! `sum.rs` combines the evidence of the votes. Without a likelihood ratio of the
//! recognizer ([`Decider::weigh`]) the votes alone decide. The likelihood ratio only adds a
//! condition: it never grants a person whom the votes alone would not grant.

mod alike;
mod sum;
#[cfg(test)]
mod tests;
mod zone;

pub use alike::{Alike, Observation, Sighting};
pub use zone::Zone;

use crate::access::gallery::{Candidate, Denied, PersonId};
use crate::models::likelihood::Weighing;
use crate::vision::embed::Template;
use crate::vision::track::{MAX_TRACKS, TrackId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Maximum number of votes per track: two seconds at 15 frames per second. The oldest
/// vote makes room.
const MAX_VOTES: usize = 32;

/// A stranger who stays in view makes another attempt after this time.
const ANOTHER_ATTEMPT: Duration = Duration::from_secs(5);

/// What to do when more than one face is in the zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TwoFaces {
    /// Grant nobody until only one face is in the zone.
    #[default]
    Refuse,
    /// Grant only if everybody in the zone has enough evidence.
    All,
    /// Grant each person who has enough evidence.
    Any,
}

/// How much evidence a grant needs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecideSettings {
    /// Frames of one track that must agree, 1..=32.
    pub frames: usize,
    /// Age at which a frame no longer counts as evidence.
    pub evidence_expires: Duration,
    /// Rule for more than one face in the zone.
    pub two_faces: TwoFaces,
    /// Minimum time between two grants on one track.
    pub again_after: Duration,
    /// Cosine of two views at or above which the later view repeats the earlier one. A
    /// repeated view of a person has no vote, so that a frozen camera opens nothing. Above
    /// 1 every frame votes. Applies only to observations with a [`Sighting`].
    pub same_view: f32,
}

/// [`DecideSettings::same_view`] for a live camera: noise alone makes two of its frames
/// differ by more. When noise of at most one grey level was added twice to each of 2,482
/// photos, no two copies had a cosine above 0.9991.
pub const SAME_VIEW: f32 = 0.9999;

impl Default for DecideSettings {
    fn default() -> Self {
        Self {
            frames: 3,
            evidence_expires: Duration::from_millis(1500),
            two_faces: TwoFaces::Refuse,
            again_after: Duration::from_secs(5),
            same_view: f32::INFINITY,
        }
    }
}

/// Result of the gallery search for one face. Similarities are cosines, -1..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// Too small, blurred, dark or turned to be compared.
    Poor,
    /// Nobody reaches the threshold; similarity to the most similar person, or -1 if there
    /// is none.
    Nobody(f32),
    /// The most similar person and their similarity, which reaches the threshold.
    Person(PersonId, f32),
    /// The same, but a negative of the gallery is as similar to the view, so that it is no
    /// evidence for the person. It votes for nobody.
    Denied(PersonId, f32),
}

impl Seen {
    /// What the most similar person says about a view that was compared, and who counts as
    /// most alike: nobody whom a negative denies.
    pub fn of(best: Option<Candidate>) -> (Self, Option<PersonId>) {
        let seen = match best {
            Some(best) if best.reaches => Self::Person(best.person, best.similarity),
            Some(best) if best.denied == Denied::Match => {
                Self::Denied(best.person, best.similarity)
            }
            best => Self::Nobody(best.map_or(-1.0, |best| best.similarity)),
        };
        (seen, best.filter(|best| best.denied == Denied::No).map(|best| best.person))
    }
}

/// A decision about a face or a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Grant this person.
    Grant(Evidence),
    /// Somebody who is not in the gallery.
    Stranger {
        /// Their track.
        track: TrackId,
        /// Highest similarity to any person among the votes for nobody.
        similarity: f32,
        /// Number of votes for nobody.
        frames: usize,
        /// Whether one of these was denied by a negative; then the similarity may reach the
        /// threshold.
        denied: bool,
    },
    /// More than one face in the zone, under [`TwoFaces::Refuse`].
    TwoFaces {
        /// Number of faces.
        faces: usize,
    },
}

/// The evidence behind a grant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// The recognized person.
    pub person: PersonId,
    /// Their track.
    pub track: TrackId,
    /// Lowest similarity among their votes.
    pub similarity: f32,
    /// Number of votes for the person.
    pub frames: usize,
    /// Number of all votes of the track within [`DecideSettings::evidence_expires`].
    pub of: usize,
    /// Combined likelihood ratio of the votes; `None` if the recognizer has none.
    pub weight: Option<Weight>,
}

/// Combined evidence as a log likelihood ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// Natural logarithm of the likelihood ratio: the likelihood of these views if they are
    /// of this person, over their likelihood if they are of somebody else.
    pub log_ratio: f64,
    /// Minimum of `log_ratio` for a grant.
    pub needed: f64,
}

impl Weight {
    fn suffices(&self) -> bool {
        // The minimum may be exactly the ratio of one similarity: allow for rounding.
        self.log_ratio >= self.needed - 1e-9
    }
}

/// At most one decision per track, and one about the number of faces.
pub type Decisions = heapless::Vec<Decision, { MAX_TRACKS + 1 }>;

/// A frame that counted for a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoteSeen {
    /// Time of the frame.
    pub at: Duration,
    /// The person whom it shows; `None` for nobody known.
    pub person: Option<PersonId>,
    /// Cosine similarity to that person, or to the most similar one.
    pub similarity: f32,
    /// [`Sighting::quality`]; `None` if the view is not known.
    pub quality: Option<f32>,
}

/// Collects the evidence of all tracks and decides. The views are templates; a replay
/// compares views by what was recorded of them.
#[derive(Clone, Debug)]
pub struct Decider<V = Template> {
    settings: DecideSettings,
    /// `None` if the recognizer has no likelihood ratio.
    weighing: Option<Weighing>,
    /// Cosine at which two views are of one face.
    same_face: f32,
    tracks: heapless::Vec<Track<V>, MAX_TRACKS>,
    /// Until when a frame with several faces is not reported again.
    crowded_until: Option<Duration>,
    /// Until when a stranger still counts as present beside the others.
    stranger_until: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Track<V> {
    id: TrackId,
    votes: heapless::Deque<Vote<V>, MAX_VOTES>,
    granted: Option<Duration>,
    refused: Option<RefusedStranger<V>>,
    /// Earlier votes for nobody are of a stranger who was refused already.
    stranger_since: Duration,
}

/// The last refusal of a stranger on a track.
#[derive(Clone, Debug)]
struct RefusedStranger<V> {
    at: Duration,
    /// `None` if the view is not known.
    view: Option<V>,
}

#[derive(Clone, Debug)]
struct Vote<V> {
    at: Duration,
    person: Option<PersonId>,
    similarity: f32,
    /// Whether a negative denied it.
    denied: bool,
    view: Option<View<V>>,
}

/// A [`Sighting`] stored with its vote.
#[derive(Clone, Debug)]
struct View<V> {
    template: V,
    quality: f32,
    most_alike: Option<PersonId>,
}

/// Result of a track's votes; `Open` is undecided.
enum Verdict {
    Open,
    Person(Evidence),
    Nobody { similarity: f32, frames: usize, denied: bool },
}

impl<V: Alike> Decider<V> {
    /// Starts without evidence and without a likelihood ratio, so that votes alone decide.
    pub fn new(settings: DecideSettings) -> Self {
        Self {
            settings,
            weighing: None,
            same_face: 0.0,
            tracks: heapless::Vec::new(),
            crowded_until: None,
            stranger_until: None,
        }
    }

    /// Sets the likelihood ratio of similarities and the minimum for a grant; `None` if the
    /// recognizer has no likelihood ratio. `same_face` is the cosine at which two views are
    /// of one face. All depend on the models, the gallery and the false accept rate and
    /// change with them, so all evidence is dropped.
    pub fn weigh(&mut self, weighing: Option<Weighing>, same_face: f32) {
        self.weighing = weighing;
        self.same_face = same_face;
        self.clear();
    }

    /// Whether a track is decided: its person was granted or was reported as a stranger.
    pub fn decided(&self, track: TrackId) -> bool {
        self.track(track).is_some_and(|track| track.granted.is_some() || track.refused.is_some())
    }

    /// The rules: the settings, and [`Self::weigh`]'s likelihood ratio.
    pub fn rules(&self) -> (DecideSettings, Option<Weighing>) {
        (self.settings, self.weighing)
    }

    /// The frames that count for or against a track now, oldest first.
    pub fn votes(&self, track: TrackId) -> Vec<VoteSeen> {
        let votes = self.track(track).into_iter().flat_map(|track| &track.votes);
        votes
            .map(|Vote { at, person, similarity, view, .. }| VoteSeen {
                at: *at,
                person: *person,
                similarity: *similarity,
                quality: view.as_ref().map(|view| view.quality),
            })
            .collect()
    }

    /// Takes the faces of a frame captured at `now`. The clock never runs backwards.
    pub fn step(&mut self, now: Duration, observations: &[Observation<'_, V>]) -> Decisions {
        self.result(now, now, observations)
    }

    /// Takes at `now` the faces of a frame captured at `captured`, the start of its age as
    /// evidence. A frame older than [`DecideSettings::evidence_expires`] is ignored.
    pub fn result(
        &mut self,
        now: Duration,
        captured: Duration,
        observations: &[Observation<'_, V>],
    ) -> Decisions {
        let mut decisions = Decisions::new();
        self.forget(now);
        let captured = captured.min(now);
        if now >= captured + self.settings.evidence_expires {
            return decisions;
        }
        let crowded = observations.len() > 1;
        if crowded && self.settings.two_faces == TwoFaces::Refuse {
            // While two faces are close together their tracks may be swapped.
            for track in &mut self.tracks {
                track.votes.clear();
            }
            if self.crowded_until.is_none_or(|until| now >= until) {
                let _ = decisions.push(Decision::TwoFaces { faces: observations.len() });
            }
            self.crowded_until = Some(now + self.settings.evidence_expires);
            return decisions;
        }
        for observation in observations {
            self.vote(captured, observation);
        }
        // Only a frame that shows the person can grant them. Otherwise a frame that shows
        // somebody else could, once the older votes against the person have expired.
        let shows = |observation: &Observation<'_, V>, evidence: &Evidence| matches!(observation.seen, Seen::Person(person, _) if person == evidence.person);
        let shown = |observation: &Observation<'_, V>| {
            let verdict = self.track(observation.track).map(|track| self.verdict(track));
            matches!(verdict, Some(Verdict::Person(evidence)) if shows(observation, &evidence))
        };
        let everybody = !crowded || observations.iter().all(shown);
        let known = |observation: &Observation<'_, V>| matches!(observation.seen, Seen::Person(..));
        if crowded && !observations.iter().all(known) {
            // A stranger who is missing in one frame may still be there.
            self.stranger_until = Some(now + self.settings.evidence_expires);
        }
        let stranger = self.stranger_until.is_some_and(|until| now < until);
        let waits = self.settings.two_faces == TwoFaces::All && (stranger || !everybody);
        for observation in observations {
            let Some(at) = self.tracks.iter().position(|track| track.id == observation.track)
            else {
                continue;
            };
            let verdict = self.verdict(&self.tracks[at]);
            let track = &mut self.tracks[at];
            let lately = |at: Duration| now < at + self.settings.again_after;
            let decision = match verdict {
                Verdict::Person(evidence)
                    if waits
                        || !shows(observation, &evidence)
                        || track.granted.is_some_and(lately) =>
                {
                    None
                }
                Verdict::Person(evidence) => {
                    track.granted = Some(now);
                    Some(Decision::Grant(evidence))
                }
                Verdict::Nobody { similarity, frames, denied }
                    if matches!(observation.seen, Seen::Nobody(_) | Seen::Denied(..))
                        && track
                            .refused
                            .as_ref()
                            .is_none_or(|refused| now >= refused.at + ANOTHER_ATTEMPT) =>
                {
                    let view = observation.look.map(|look| look.template.clone());
                    track.refused = Some(RefusedStranger { at: now, view });
                    Some(Decision::Stranger { track: track.id, similarity, frames, denied })
                }
                Verdict::Nobody { .. } | Verdict::Open => None,
            };
            // There is room for one decision per track.
            decision.map(|decision| decisions.push(decision));
        }
        decisions
    }

    /// Takes back the grant on this track, because it opened nothing. The next grant needs
    /// new evidence.
    pub fn not_opened(&mut self, track: TrackId) {
        for track in self.tracks.iter_mut().filter(|known| known.id == track) {
            track.granted = None;
            track.votes.clear();
        }
    }

    /// Drops all evidence: the gallery or the threshold has changed.
    pub fn clear(&mut self) {
        self.tracks.clear();
    }

    fn track(&self, id: TrackId) -> Option<&Track<V>> {
        self.tracks.iter().find(|track| track.id == id)
    }

    /// Drops expired votes, and tracks without votes that were not granted lately.
    fn forget(&mut self, now: Duration) {
        let DecideSettings { evidence_expires, again_after, .. } = self.settings;
        for track in &mut self.tracks {
            while track.votes.front().is_some_and(|vote| now >= vote.at + evidence_expires) {
                track.votes.pop_front();
            }
            if track.votes.is_empty() {
                track.refused = None;
            }
        }
        self.tracks.retain(|track| {
            !track.votes.is_empty() || track.granted.is_some_and(|at| now < at + again_after)
        });
    }

    fn vote(&mut self, captured: Duration, observation: &Observation<'_, V>) {
        // Whom the vote is for, and whom the view resembles.
        let (person, resembles, similarity) = match observation.seen {
            Seen::Poor => return,
            Seen::Nobody(similarity) => (None, None, similarity),
            Seen::Person(person, similarity) => (Some(person), Some(person), similarity),
            Seen::Denied(person, similarity) => (None, Some(person), similarity),
        };
        let denied = matches!(observation.seen, Seen::Denied(..));
        if self.track(observation.track).is_none() {
            if self.tracks.is_full() {
                // The track that was unseen for longest has the oldest last vote.
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
            let stranger_since = Duration::ZERO;
            let track = Track { id, votes, granted: None, refused: None, stranger_since };
            let _ = self.tracks.push(track);
        }
        let Some(track) = self.tracks.iter_mut().find(|track| track.id == observation.track) else {
            return;
        };
        let same_face = self.same_face;
        let refused = track.refused.as_ref().and_then(|refused| refused.view.as_ref());
        if let (None, Some(refused), Some(look)) = (person, refused, &observation.look)
            && refused.cosine(look.template).is_some_and(|cosine| cosine < same_face)
        {
            // Another stranger at the same place, such as the next picture on a telephone.
            track.refused = None;
            track.stranger_since = captured;
        }
        let other = |vote: &Vote<V>| {
            vote.person.is_some() && resembles.is_some() && vote.person != resembles
        };
        if track.votes.iter().any(other) {
            // One face cannot be two people: its evidence is useless. A denied view counts
            // here, or a negative could help somebody else.
            track.votes.clear();
            track.granted = None;
        }
        // One vote per frame, and one per view: a frozen camera is no evidence.
        let at = track.votes.back().map_or(captured, |last| last.at.max(captured));
        let same_frame =
            track.votes.back().is_some_and(|last| last.at == at && last.person == person);
        let limit = self.settings.same_view;
        let same_view = |vote: &Vote<V>| match (&vote.view, &observation.look) {
            (Some(view), Some(look)) => {
                view.template.cosine(look.template).is_some_and(|cosine| cosine >= limit)
            }
            _ => false,
        };
        if same_frame || person.is_some() && track.votes.iter().any(same_view) {
            return;
        }
        if track.votes.is_full() {
            track.votes.pop_front();
        }
        let view = observation.look.map(|look| View {
            template: look.template.clone(),
            quality: look.quality,
            // A denied view is no evidence for the person whom it resembles.
            most_alike: look.most_alike.filter(|_| !denied),
        });
        let _ = track.votes.push_back(Vote { at, person, similarity, denied, view });
    }

    fn verdict(&self, track: &Track<V>) -> Verdict {
        let of = track.votes.len();
        let person = track.votes.iter().find_map(|vote| vote.person);
        let own = || track.votes.iter().filter(|vote| vote.person.is_some());
        let others = || track.votes.iter().filter(|vote| vote.person.is_none());
        let (frames, against) = (own().count(), others().count());
        let newly = others().filter(|vote| vote.at >= track.stranger_since).count();
        let needed = self.settings.frames.clamp(1, MAX_VOTES);
        let leads = person.filter(|_| frames >= needed && frames > against);
        let weight = leads.zip(self.weighing).map(|(person, weighing)| Weight {
            log_ratio: sum::log_ratio(&track.votes, person, &weighing),
            needed: weighing.needed(),
        });
        match leads {
            Some(person) if weight.is_none_or(|weight| weight.suffices()) => {
                Verdict::Person(Evidence {
                    person,
                    track: track.id,
                    similarity: own().map(|vote| vote.similarity).fold(1.0, f32::min),
                    frames,
                    of,
                    weight,
                })
            }
            _ if newly >= needed && against > frames => Verdict::Nobody {
                similarity: others().map(|vote| vote.similarity).fold(-1.0, f32::max),
                frames: newly,
                denied: others().any(|vote| vote.denied),
            },
            _ => Verdict::Open,
        }
    }
}
