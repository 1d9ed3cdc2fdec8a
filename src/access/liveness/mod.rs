//! The liveness guard: liveness of all tracks, and whether the door may open for one.
//!
//! Liveness belongs to a person, not to a place in the picture: somebody could hold up the
//! photo of an enrolled person and turn their own head when the door asks for it. So each
//! track has a claim, the person whom its views reached last. Measurements and steps of a
//! challenge count only from views that resemble that person, and a view that shows
//! somebody else drops everything. A view that was not compared, because it is blurred or
//! turned too far, counts for nothing.
//!
//! ```text
//!   view: not compared                          -> counts for nothing
//!         reaches the threshold of the person
//!           claimed                             -> counts
//!         reaches that of another person        -> all dropped; claims that person; counts
//!         no claim                              -> counts for nothing
//!         less than half as similar to the
//!           person claimed as a turned head must be -> all dropped; no claim
//!         turned, and similar enough for that   -> counts
//!         anything else                         -> counts for nothing
//! ```
//!
//! A head that is turned resembles its frontal photos less than the threshold demands, so
//! a lower similarity, [`RESEMBLES_RATE`], is enough for it. In LFW all of 246 pairs of a
//! turned (yaw 0.28 or more) and a frontal photo of one person reach it, the lowest
//! hundredth at 0.42; of 246,448 such pairs of two people 5 in 10,000 do.

pub mod challenge;

use crate::access::gallery::{PersonId, Probe};
use crate::vision::embed::Template;
use crate::vision::liveness::{Liveness, Sample, Verdict};
use crate::vision::track::{MAX_TRACKS, TrackId};
use challenge::{Challenge, ChallengeSettings, Input};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Shortest interval between two reports of a refusal, or two requests to move, per track.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// False accept rate per pair at whose similarity the view of a turned head counts.
pub const RESEMBLES_RATE: f64 = 1e-2;
/// Share of that similarity below which a view shows somebody else.
const CONTRADICTS: f32 = 0.5;

/// Effect of liveness on the door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing is measured.
    #[default]
    Off,
    /// A refusal is only logged, and the door opens.
    Advise,
    /// The door opens only for faces that count as live.
    Enforce,
}

impl Mode {
    /// The word for it, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Advise => "advise",
            Self::Enforce => "enforce",
        }
    }
}

/// Settings of the guard.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardSettings {
    /// Effect on the door.
    pub mode: Mode,
    /// Liveness score below which a face is refused, 0 to 1.
    pub threshold: f32,
    /// Whether a face must have shown parallax, see
    /// [`Cues::solid`](crate::vision::liveness::Cues::solid). Only with [`Mode::Enforce`].
    pub motion: bool,
    /// The challenge, if there is one. Only with [`Mode::Enforce`].
    pub challenge: Option<ChallengeSettings>,
}

/// Decision about a recognized person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LivenessAdmission {
    /// The door may open.
    Open,
    /// Not live, but the door may open. The verdict to log, unless it was logged lately.
    Advised(Option<Verdict>),
    /// Not yet: too few frames, a running challenge, or no motion. The message for the
    /// person, if there is a new one.
    Wait(Option<challenge::Output>),
    /// Not live. The verdict to log, unless it was logged lately.
    Refused(Option<Verdict>),
}

/// A face of a frame, with everything that its liveness depends on.
#[derive(Clone, Copy, Debug)]
pub struct FaceToJudge<'a> {
    /// Track of the face.
    pub track: TrackId,
    /// Measurements of the face.
    pub sample: &'a Sample,
    /// [`crate::vision::pose::Turn::yaw`] of the face.
    pub yaw: f32,
    /// Template and search of the view; `None` if it was not compared.
    pub probe: Option<Probe<'a>>,
}

/// Liveness and challenges of all tracks.
#[derive(Clone, Debug)]
pub struct LivenessGuard {
    settings: GuardSettings,
    /// Cosine similarity at [`RESEMBLES_RATE`], -1 to 1.
    resembles: f32,
    tracks: heapless::Vec<Watched, MAX_TRACKS>,
    chance: Chance,
    /// [`Self::asked`].
    asked: Option<u8>,
}

/// Where the sides of challenges come from.
#[derive(Clone, Debug)]
enum Chance {
    /// State of SplitMix64 (Steele, Lea and Flood, 2014).
    Seed(u64),
    /// Sides that were asked for before, for a replay; then zeros.
    Given(VecDeque<u8>),
}

impl Chance {
    /// Bits that select the sides of a challenge.
    fn sides(&mut self) -> u64 {
        match self {
            Self::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ mixed >> 31
            }
            Self::Given(sides) => sides.pop_front().map_or(0, u64::from),
        }
    }
}

#[derive(Clone, Debug)]
struct Watched {
    id: TrackId,
    seen: Duration,
    /// The person whom the views of the track show.
    claim: Option<PersonId>,
    /// Time of the last view that counted, and whether that view by itself looked live.
    counted: Option<(Duration, bool)>,
    liveness: Liveness,
    challenge: Option<Challenge>,
    /// Time of the last report of a refusal.
    told: Option<Duration>,
    /// Time of the last request to move the head.
    asked: Option<Duration>,
}

impl LivenessGuard {
    /// A guard without tracks.
    ///
    /// `resembles` is the cosine similarity at [`RESEMBLES_RATE`]. `seed` determines the
    /// sides of challenges; it must differ at every start and be secret.
    pub fn new(settings: GuardSettings, resembles: f32, seed: u64) -> Self {
        Self {
            settings,
            resembles,
            tracks: heapless::Vec::new(),
            chance: Chance::Seed(seed),
            asked: None,
        }
    }

    /// A guard for a replay: its challenges ask for these sides, one number per challenge
    /// as [`Self::asked`] returned it.
    pub fn replaying(settings: GuardSettings, resembles: f32, sides: Vec<u8>) -> Self {
        let chance = Chance::Given(sides.into());
        Self { settings, resembles, tracks: heapless::Vec::new(), chance, asked: None }
    }

    /// Bits of the sides that the last call of [`Self::admit`] offered to a challenge;
    /// `None` if it offered none. A challenge takes at most as many bits as it has turns.
    pub fn asked(&self) -> Option<u8> {
        self.asked
    }

    fn again(&mut self, settings: GuardSettings, resembles: f32) {
        self.settings = settings;
        self.resembles = resembles;
        self.tracks.clear();
    }

    /// Changes the settings. All measurements and challenges start again.
    pub fn set_settings(&mut self, settings: GuardSettings) {
        self.again(settings, self.resembles);
    }

    /// Changes the models or the gallery. All measurements and challenges start again.
    pub fn set_resembles(&mut self, resembles: f32) {
        self.again(self.settings, resembles);
    }

    /// Processes the faces of a frame. `similarity` compares the view of a track with a person: the
    /// cosine to the most similar of their templates, or `None` if they have none. Returns
    /// the messages for people, by track.
    pub fn step<'s>(
        &mut self,
        now: Duration,
        faces: impl IntoIterator<Item = FaceToJudge<'s>>,
        similarity: impl Fn(TrackId, &Template, PersonId) -> Option<f32>,
    ) -> heapless::Vec<(TrackId, challenge::Output), MAX_TRACKS> {
        let mut actions = heapless::Vec::new();
        if self.settings.mode == Mode::Off {
            return actions;
        }
        for face in faces {
            if let Some(action) = self.take(now, &face, &similarity) {
                // Messages beyond the capacity are dropped.
                let _ = actions.push((face.track, action));
            }
        }
        for watched in &mut self.tracks {
            // Tracks without a face in this frame.
            if watched.seen < now
                && let Some(challenge) = &mut watched.challenge
                && let Some(action) = challenge.step(now, Input::Tick)
            {
                let _ = actions.push((watched.id, action));
            }
        }
        actions
    }

    /// Processes one face.
    fn take(
        &mut self,
        now: Duration,
        face: &FaceToJudge<'_>,
        similarity: &impl Fn(TrackId, &Template, PersonId) -> Option<f32>,
    ) -> Option<challenge::Output> {
        let (resembles, threshold) = (self.resembles, self.settings.threshold);
        let watched = self.track(now, face.track);
        watched.seen = now;
        let bearing = face.probe.map_or(Bearing::Unclear, |probe| {
            let turned = face.yaw.abs() > challenge::STRAIGHT;
            let like = |template: &Template, person| similarity(face.track, template, person);
            bearing(&probe, watched.claim, turned, resembles, &like)
        });
        let mut action = None;
        if let Bearing::Other(person) = bearing {
            watched.claim = person;
            watched.counted = None;
            watched.liveness = Liveness::default();
            action = watched.challenge.as_mut().and_then(|c| c.step(now, Input::OtherFace));
        }
        let counts = match bearing {
            Bearing::Unclear => false,
            Bearing::Claimed => true,
            Bearing::Other(person) => person.is_some(),
        };
        if !counts {
            let there = watched.challenge.as_mut().and_then(|c| c.step(now, Input::Unclear));
            return action.or(there);
        }
        let alone = Liveness::default().step(now, face.sample);
        watched.counted = Some((now, alone.score >= threshold));
        watched.liveness.step(now, face.sample);
        let step = watched.challenge.as_mut().and_then(|c| c.step(now, Input::Face(face.yaw)));
        action.or(step)
    }

    /// The track of that number, which may be new.
    fn track(&mut self, now: Duration, id: TrackId) -> &mut Watched {
        let at = match self.tracks.iter().position(|watched| watched.id == id) {
            Some(at) => at,
            None => {
                if self.tracks.is_full() {
                    let oldest = self.tracks.iter().enumerate().min_by_key(|(_, w)| w.seen);
                    let oldest = oldest.map(|(at, _)| at);
                    oldest.map(|at| self.tracks.swap_remove(at));
                }
                let watched = Watched {
                    id,
                    seen: now,
                    claim: None,
                    counted: None,
                    liveness: Liveness::default(),
                    challenge: self.settings.challenge.map(Challenge::new),
                    told: None,
                    asked: None,
                };
                // There is room now.
                let _ = self.tracks.push(watched);
                self.tracks.len() - 1
            }
        };
        &mut self.tracks[at]
    }

    /// Decides whether the door may open for this person, whom a frame captured at `now`
    /// shows on this track. With `proof` it is not enough that nothing speaks against the
    /// face: it must have shown parallax or passed the challenge.
    pub fn admit(
        &mut self,
        now: Duration,
        track: TrackId,
        person: PersonId,
        proof: bool,
    ) -> LivenessAdmission {
        let GuardSettings { mode, threshold, motion, .. } = self.settings;
        self.asked = None;
        if mode == Mode::Off {
            return LivenessAdmission::Open;
        }
        let enforced = mode == Mode::Enforce;
        let known = |watched: &&mut Watched| watched.id == track && watched.claim == Some(person);
        let Some(watched) = self.tracks.iter_mut().find(known) else {
            return if enforced { LivenessAdmission::Wait(None) } else { LivenessAdmission::Open };
        };
        let verdict = watched.liveness.at(now);
        if enforced && !verdict.counts() {
            return LivenessAdmission::Wait(None);
        }
        // NaN is refused, too.
        let live = verdict.score >= threshold;
        if verdict.counts() && !live {
            let new = watched.told.is_none_or(|at| now >= at + TELL_EVERY);
            if new {
                watched.told = Some(now);
            }
            let told = new.then_some(verdict);
            return if enforced {
                LivenessAdmission::Refused(told)
            } else {
                LivenessAdmission::Advised(told)
            };
        }
        if !enforced {
            return LivenessAdmission::Open;
        }
        // The frame that opens must be one of the person's own and look live by itself.
        if watched.counted != Some((now, true)) {
            return LivenessAdmission::Wait(None);
        }
        // The challenge comes before the motion: a person who turns as asked shows enough.
        let challenged = watched.challenge.is_some();
        if let Some(challenge) = &mut watched.challenge
            && !challenge.passed(now)
        {
            // Eight turns are the most.
            let sides = self.chance.sides() & 0xff;
            self.asked = u8::try_from(sides).ok();
            return LivenessAdmission::Wait(challenge.step(now, Input::Begin(sides)));
        }
        if (motion || proof && !challenged) && !verdict.cues.solid() {
            let new = watched.asked.is_none_or(|at| now >= at + TELL_EVERY);
            if new {
                watched.asked = Some(now);
            }
            return LivenessAdmission::Wait(new.then_some(challenge::Output::AskMove));
        }
        LivenessAdmission::Open
    }

    /// The settings, and the similarity at [`RESEMBLES_RATE`].
    pub fn rules(&self) -> (GuardSettings, f32) {
        (self.settings, self.resembles)
    }

    /// Whether the door opens only for faces that count as live.
    pub fn enforced(&self) -> bool {
        self.settings.mode == Mode::Enforce
    }

    /// Whether the networks should run on a track: [`Liveness::network_due`].
    pub fn network_due(&self, now: Duration, track: TrackId) -> bool {
        let watched = self.tracks.iter().find(|watched| watched.id == track);
        watched.is_none_or(|watched| watched.liveness.network_due(now))
    }
}

/// What a view says about the claim of its track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bearing {
    /// Nothing.
    Unclear,
    /// It shows the person claimed.
    Claimed,
    /// It shows somebody else: this person, or somebody unknown.
    Other(Option<PersonId>),
}

fn bearing(
    probe: &Probe<'_>,
    claim: Option<PersonId>,
    turned: bool,
    resembles: f32,
    similarity: &impl Fn(&Template, PersonId) -> Option<f32>,
) -> Bearing {
    let reached = probe.best.filter(|best| best.reaches).map(|best| best.person);
    match (claim, reached) {
        (Some(claimed), Some(reached)) if claimed == reached => Bearing::Claimed,
        (_, Some(reached)) => Bearing::Other(Some(reached)),
        (None, None) => Bearing::Unclear,
        (Some(claimed), None) => match similarity(probe.template, claimed) {
            Some(similarity) if turned && similarity >= resembles => Bearing::Claimed,
            Some(similarity) if similarity >= CONTRADICTS * resembles => Bearing::Unclear,
            // The person is no longer in the gallery, or the similarity is NaN.
            _ => Bearing::Other(None),
        },
    }
}

#[cfg(test)]
mod tests;
