//! Who may come in: evidence over several frames of one track.
//!
//! One frame proves little. A person is let in once enough recent frames of one
//! track say so, none says otherwise, and all of them together weigh enough;
//! evidence grows old and is forgotten.
//!
//! ```text
//!   frame: faces in the zone, each with its track and best match
//!     two or more, rule "refuse" --> no evidence is taken, one refusal is told
//!     match >= threshold --> a vote for that person
//!     no match           --> a vote for nobody
//!     too poor to tell, or
//!       a frame or a view that
//!       has voted already  --> no vote
//!   a track's votes of the last `expires`:
//!     votes for two people         --> all forgotten: a face does not change
//!     `frames` for one person,
//!       more than for nobody, and
//!       together enough evidence   --> granted
//!     `frames` for nobody, and
//!       more than for anybody      --> refused, told once
//! ```
//!
//! How much the votes weigh together is in `sum.rs`. Without a likelihood ratio of
//! the recognizer ([`Decider::weigh`]) votes alone decide. Weighing only ever adds a
//! condition: nobody is let in by it whom the votes would not let in.

mod sum;
#[cfg(test)]
mod tests;
mod zone;

pub use zone::Zone;

use crate::access::gallery::PersonId;
use crate::models::likelihood::Weighing;
use crate::vision::embed::Template;
use crate::vision::track::{MAX_TRACKS, TrackId};
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
    /// Cosine of two views at or above which the later one is the first once more and
    /// has no vote, so that a camera that hangs opens nothing; above 1 every frame
    /// counts. Only of views given with their [`Look`].
    pub same_view: f32,
}

/// Noise alone keeps two frames of a camera further apart than this: of 2,482 photos
/// with at most one grey level of noise added twice, none came nearer than 0.9991.
pub const SAME_VIEW: f32 = 0.9999;

impl Default for DecideSettings {
    fn default() -> Self {
        Self {
            frames: 3,
            expires: Duration::from_millis(1500),
            two_faces: TwoFaces::Refuse,
            again_after: Duration::from_secs(5),
            same_view: f32::INFINITY,
        }
    }
}

/// What a frame says of one face in the zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation<'a> {
    /// Whose face it is over time.
    pub track: TrackId,
    /// What the gallery says.
    pub seen: Seen,
    /// What weighing needs beyond that; without it a view counts as one that is no
    /// different from the others.
    pub look: Option<Look<'a>>,
}

/// A view as it is weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look<'a> {
    /// What was compared: tells views that are nearly the same from distinct ones.
    pub template: &'a Template,
    /// [`crate::vision::quality::Quality::score`]; the best views of a track are weighed.
    pub quality: f32,
    /// Who in the gallery is most like it, threshold reached or not.
    pub most_alike: Option<PersonId>,
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
    /// What they weigh together, where that is known.
    pub weight: Option<Weight>,
}

/// Evidence on the scale of a likelihood ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// Natural logarithm of how many times likelier these views are of this person
    /// than of somebody else.
    pub log_ratio: f64,
    /// What it had to reach.
    pub needed: f64,
}

impl Weight {
    fn suffices(&self) -> bool {
        // What is asked may be what one similarity brings, then reached but for rounding.
        self.log_ratio >= self.needed - 1e-9
    }
}

/// As many decisions as tracks, and one on their number.
pub type Decisions = heapless::Vec<Decision, { MAX_TRACKS + 1 }>;

/// The evidence so far.
#[derive(Clone, Debug)]
pub struct Decider {
    settings: DecideSettings,
    /// Nothing where the recognizer has no likelihood ratio.
    weighing: Option<Weighing>,
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

#[derive(Clone, Debug)]
struct Vote {
    at: Duration,
    person: Option<PersonId>,
    similarity: f32,
    view: Option<View>,
}

/// A [`Look`] that is kept.
#[derive(Clone, Debug)]
struct View {
    template: Template,
    quality: f32,
    most_alike: Option<PersonId>,
}

/// What a track's votes say.
enum Verdict {
    Open,
    Person(Evidence),
    Nobody { similarity: f32, frames: usize },
}

impl Decider {
    /// No evidence yet, and votes alone decide.
    pub fn new(settings: DecideSettings) -> Self {
        Self {
            settings,
            weighing: None,
            tracks: heapless::Vec::new(),
            crowded_until: None,
            stranger_until: None,
        }
    }

    /// What similarities are worth from now on, and how much is asked; nothing where the
    /// recognizer has no likelihood ratio. Follows from gallery and false accept rate, so
    /// it changes with them, and evidence gathered before is forgotten.
    pub fn weigh(&mut self, weighing: Option<Weighing>) {
        self.weighing = weighing;
        self.clear();
    }

    /// Whether all there is to say of a track has been said: its person was let in, or
    /// it was told that nobody knows it.
    pub fn decided(&self, track: TrackId) -> bool {
        self.track(track).is_some_and(|track| track.granted.is_some() || track.told_stranger)
    }

    /// Takes one frame's faces in the zone as soon as it was taken, on a clock that does
    /// not run backwards.
    pub fn step(&mut self, now: Duration, observations: &[Observation<'_>]) -> Decisions {
        self.result(now, now, observations)
    }

    /// Takes what a frame of the time `captured` was found to show, `now`. What is older
    /// than evidence may be opens nothing and counts for nothing, and evidence is as old
    /// as its frame.
    pub fn result(
        &mut self,
        now: Duration,
        captured: Duration,
        observations: &[Observation<'_>],
    ) -> Decisions {
        let mut decisions = Decisions::new();
        self.forget(now);
        let captured = captured.min(now);
        if now >= captured + self.settings.expires {
            return decisions;
        }
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
            self.vote(captured, observation);
        }
        // What opens is a frame that shows the person, not one that shows somebody
        // else while older evidence outlives what spoke against it.
        let shows = |observation: &Observation<'_>, evidence: &Evidence| matches!(observation.seen, Seen::Person(person, _) if person == evidence.person);
        let shown = |observation: &Observation<'_>| {
            let verdict = self.track(observation.track).map(|track| self.verdict(track));
            matches!(verdict, Some(Verdict::Person(evidence)) if shows(observation, &evidence))
        };
        let everybody = !crowded || observations.iter().all(shown);
        let known = |observation: &Observation<'_>| matches!(observation.seen, Seen::Person(..));
        if crowded && !observations.iter().all(known) {
            // One frame that misses the stranger does not mean that they have left.
            self.stranger_until = Some(now + self.settings.expires);
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

    fn vote(&mut self, captured: Duration, observation: &Observation<'_>) {
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
        // One frame has one vote, and one view has one: what hangs shows nobody.
        let at = track.votes.back().map_or(captured, |last| last.at.max(captured));
        let same_frame =
            track.votes.back().is_some_and(|last| last.at == at && last.person == person);
        let limit = self.settings.same_view;
        let same_view = |vote: &Vote| match (&vote.view, &observation.look) {
            (Some(view), Some(look)) => {
                view.template.similarity(look.template).is_ok_and(|cosine| cosine >= limit)
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
            most_alike: look.most_alike,
        });
        let _ = track.votes.push_back(Vote { at, person, similarity, view });
    }

    fn verdict(&self, track: &Track) -> Verdict {
        let of = track.votes.len();
        let person = track.votes.iter().find_map(|vote| vote.person);
        let own = || track.votes.iter().filter(|vote| vote.person.is_some());
        let others = || track.votes.iter().filter(|vote| vote.person.is_none());
        let (frames, against) = (own().count(), others().count());
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
            _ if against >= needed && against > frames => Verdict::Nobody {
                similarity: others().map(|vote| vote.similarity).fold(-1.0, f32::max),
                frames: against,
            },
            _ => Verdict::Open,
        }
    }
}
