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

/// Settings of the guard.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// State of SplitMix64 (Steele, Lea and Flood, 2014).
    chance: u64,
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
        Self { settings, resembles, tracks: heapless::Vec::new(), chance: seed }
    }

    /// Changes the settings. All measurements and challenges start again.
    pub fn set_settings(&mut self, settings: GuardSettings) {
        *self = Self::new(settings, self.resembles, self.chance);
    }

    /// Changes the models or the gallery. All measurements and challenges start again.
    pub fn set_resembles(&mut self, resembles: f32) {
        *self = Self::new(self.settings, resembles, self.chance);
    }

    /// Processes the faces of a frame. `similarity` compares a template with a person: the
    /// cosine to the most similar of their templates, or `None` if they have none. Returns
    /// the messages for people, by track.
    pub fn step<'s>(
        &mut self,
        now: Duration,
        faces: impl IntoIterator<Item = FaceToJudge<'s>>,
        similarity: impl Fn(&Template, PersonId) -> Option<f32>,
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
        similarity: &impl Fn(&Template, PersonId) -> Option<f32>,
    ) -> Option<challenge::Output> {
        let (resembles, threshold) = (self.resembles, self.settings.threshold);
        let watched = self.track(now, face.track);
        watched.seen = now;
        let bearing = face.probe.map_or(Bearing::Unclear, |probe| {
            let turned = face.yaw.abs() > challenge::STRAIGHT;
            bearing(&probe, watched.claim, turned, resembles, similarity)
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
            self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.chance ^ self.chance >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            let sides = mixed ^ mixed >> 31;
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
mod tests {
    use super::*;
    use crate::access::gallery::Candidate;
    use crate::models::ModelId;
    use crate::vision::embed::Embedding;
    use crate::vision::liveness::motion::{Shape, tests::seen};
    use crate::vision::liveness::tests::live;
    use proptest::prelude::*;

    const TRACK: TrackId = TrackId(7);
    const ADA: PersonId = PersonId(1);
    const BOB: PersonId = PersonId(2);
    const RESEMBLES: f32 = 0.36;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn guard(mode: Mode, challenge: bool) -> LivenessGuard {
        let challenge = challenge.then(ChallengeSettings::default);
        let settings = GuardSettings { mode, threshold: 0.5, motion: false, challenge };
        LivenessGuard::new(settings, RESEMBLES, 1)
    }

    /// What a view shows: nothing that can be compared, or the cosines to Ada and Bob.
    type Likeness = Option<[f32; 2]>;
    const IS_ADA: Likeness = Some([0.7, 0.0]);
    /// Ada with her head turned: below the threshold of 0.5.
    const ADA_TURNED: Likeness = Some([0.42, 0.0]);
    const IS_BOB: Likeness = Some([0.0, 0.7]);
    const NOBODY: Likeness = Some([0.05, 0.02]);
    const UNCLEAR: Likeness = None;

    fn take(
        guard: &mut LivenessGuard,
        at: u64,
        track: TrackId,
        (sample, yaw, like): (&Sample, f32, Likeness),
    ) -> Option<challenge::Output> {
        let template = Template::new(ModelId::new("tests"), Embedding::normalized(&[1.0]));
        let probe = like.map(|[ada, bob]| {
            let (person, similarity) = if ada > bob { (ADA, ada) } else { (BOB, bob) };
            let best = Some(Candidate { person, similarity, reaches: similarity >= 0.5 });
            Probe { template: &template, best }
        });
        let similarity = |_: &Template, person: PersonId| {
            like.and_then(|[ada, bob]| match person {
                ADA => Some(ada),
                BOB => Some(bob),
                _ => None,
            })
        };
        let face = FaceToJudge { track, sample, yaw, probe };
        let actions = guard.step(ms(at), [face], similarity);
        actions.first().map(|(_, action)| *action)
    }

    fn admit(guard: &mut LivenessGuard, at: u64) -> LivenessAdmission {
        guard.admit(ms(at), TRACK, ADA, false)
    }

    /// Shows Ada in some frames, 100 ms apart, from 0 on.
    fn fed(guard: &mut LivenessGuard, frames: u64, sample: &Sample) {
        for at in 0..frames {
            assert_eq!(take(guard, 100 * at, TRACK, (sample, 0.0, IS_ADA)), None);
        }
    }

    fn screen() -> Sample {
        Sample { moire: 60.0, ..live() }
    }

    #[test]
    fn a_screen_is_refused_logged_or_let_in_as_the_mode_says() {
        let mut enforcing = guard(Mode::Enforce, false);
        fed(&mut enforcing, 4, &screen());
        assert!(matches!(admit(&mut enforcing, 300), LivenessAdmission::Refused(Some(_))));
        assert_eq!(admit(&mut enforcing, 400), LivenessAdmission::Refused(None));
        let mut advising = guard(Mode::Advise, false);
        fed(&mut advising, 4, &screen());
        assert!(matches!(admit(&mut advising, 300), LivenessAdmission::Advised(Some(_))));
        assert_eq!(admit(&mut advising, 400), LivenessAdmission::Advised(None));
        assert_eq!(admit(&mut guard(Mode::Off, false), 0), LivenessAdmission::Open);
    }

    #[test]
    fn enforced_liveness_waits_for_enough_frames() {
        let mut guard = guard(Mode::Enforce, false);
        assert_eq!(admit(&mut guard, 0), LivenessAdmission::Wait(None));
        fed(&mut guard, 2, &live());
        assert_eq!(admit(&mut guard, 100), LivenessAdmission::Wait(None));
        take(&mut guard, 200, TRACK, (&live(), 0.0, IS_ADA));
        assert_eq!(admit(&mut guard, 200), LivenessAdmission::Open);
        // The frames have expired by then.
        assert_eq!(admit(&mut guard, 9000), LivenessAdmission::Wait(None));
    }

    #[test]
    fn only_a_frame_of_the_person_that_looks_live_by_itself_opens() {
        let mut guard = guard(Mode::Enforce, false);
        fed(&mut guard, 8, &live());
        assert_eq!(admit(&mut guard, 700), LivenessAdmission::Open);
        // Nothing was seen at that time.
        assert_eq!(admit(&mut guard, 800), LivenessAdmission::Wait(None));
        let doubtful = Sample { moire: 9.0, ..live() };
        take(&mut guard, 800, TRACK, (&doubtful, 0.0, IS_ADA));
        assert_eq!(admit(&mut guard, 800), LivenessAdmission::Wait(None));
        take(&mut guard, 900, TRACK, (&live(), 0.0, IS_ADA));
        assert_eq!(admit(&mut guard, 900), LivenessAdmission::Open);
        assert_eq!(guard.admit(ms(900), TRACK, BOB, false), LivenessAdmission::Wait(None));
    }

    #[test]
    fn views_of_somebody_else_neither_count_nor_leave_anything() {
        // A stranger's frames do not count for the person whose photo follows.
        let mut before = guard(Mode::Enforce, false);
        for at in 0..8 {
            take(&mut before, 100 * at, TRACK, (&live(), 0.0, NOBODY));
        }
        take(&mut before, 800, TRACK, (&live(), 0.0, IS_ADA));
        assert_eq!(admit(&mut before, 800), LivenessAdmission::Wait(None));
        // A stranger, or another person, in between: all frames count anew.
        for other in [NOBODY, IS_BOB] {
            let mut between = guard(Mode::Enforce, false);
            fed(&mut between, 8, &live());
            take(&mut between, 800, TRACK, (&live(), 0.0, other));
            for at in 9..12 {
                assert_eq!(admit(&mut between, 100 * (at - 1)), LivenessAdmission::Wait(None));
                take(&mut between, 100 * at, TRACK, (&live(), 0.0, IS_ADA));
            }
            assert_eq!(admit(&mut between, 1100), LivenessAdmission::Open);
        }
        // A view that was not compared changes nothing.
        let mut unclear = guard(Mode::Enforce, false);
        fed(&mut unclear, 3, &live());
        take(&mut unclear, 300, TRACK, (&live(), 0.0, UNCLEAR));
        assert_eq!(admit(&mut unclear, 300), LivenessAdmission::Wait(None));
        take(&mut unclear, 400, TRACK, (&live(), 0.0, IS_ADA));
        assert_eq!(admit(&mut unclear, 400), LivenessAdmission::Open);
    }

    /// Answers a challenge from frame 4 on: with `turned` when a turn is asked for, else
    /// with a frontal view of Ada. Returns whether the door opened within 20 seconds.
    fn answered(turned: Likeness) -> bool {
        let mut guard = guard(Mode::Enforce, true);
        fed(&mut guard, 4, &live());
        let asked = LivenessAdmission::Wait(Some(challenge::Output::AskStraight));
        assert_eq!(admit(&mut guard, 300), asked);
        let (mut yaw, mut opened) = (0.0, false);
        for at in 4..200 {
            let like = if yaw == 0.0 { IS_ADA } else { turned };
            match take(&mut guard, 100 * at, TRACK, (&live(), yaw, like)) {
                Some(challenge::Output::AskTurn(challenge::Direction::Left)) => yaw = 0.4,
                Some(challenge::Output::AskTurn(challenge::Direction::Right)) => yaw = -0.4,
                Some(_) => yaw = 0.0,
                // The photo comes back after half a second.
                None if at % 5 == 0 => yaw = 0.0,
                None => {}
            }
            opened |= admit(&mut guard, 100 * at) == LivenessAdmission::Open;
        }
        opened
    }

    #[test]
    fn a_challenge_is_passed_by_the_person_and_not_by_the_head_of_somebody_else() {
        assert!(answered(IS_ADA) && answered(ADA_TURNED));
        for somebody in [NOBODY, IS_BOB, UNCLEAR, Some([0.3, 0.0]), Some([f32::NAN, 0.0])] {
            assert!(!answered(somebody), "{somebody:?}");
        }
    }

    #[test]
    fn required_motion_needs_a_head_that_turns() {
        let opened = |flat: bool, like: Likeness| {
            let mut guard = guard(Mode::Enforce, false);
            guard.settings.motion = true;
            for at in 0u32..12 {
                let yaw = 0.2 * (f64::from(at) / 2.0).sin();
                // Every second frame shows Ada's photo, which does not turn.
                let odd = at % 2 == 1;
                let shape = Shape::of(&seen(flat || odd && like != IS_ADA, yaw, 0.0, 0.0));
                let sample = Sample { shape, ..live() };
                let like = if odd { IS_ADA } else { like };
                take(&mut guard, 100 * u64::from(at), TRACK, (&sample, 0.0, like));
            }
            admit(&mut guard, 1100)
        };
        assert_eq!(opened(false, IS_ADA), LivenessAdmission::Open);
        let asked = LivenessAdmission::Wait(Some(challenge::Output::AskMove));
        assert_eq!(opened(true, IS_ADA), asked);
        // The head of somebody who is not compared, beside Ada's photo.
        assert_eq!(opened(false, UNCLEAR), asked);
        assert_eq!(opened(false, NOBODY), LivenessAdmission::Wait(None));
    }

    #[test]
    fn with_proof_wanted_nothing_suspicious_is_not_enough() {
        let mut guard = guard(Mode::Enforce, false);
        fed(&mut guard, 4, &live());
        assert_eq!(guard.admit(ms(300), TRACK, ADA, false), LivenessAdmission::Open);
        let asked = LivenessAdmission::Wait(Some(challenge::Output::AskMove));
        assert_eq!(guard.admit(ms(300), TRACK, ADA, true), asked);
    }

    #[test]
    fn a_person_who_keeps_still_is_asked_to_move_repeatedly() {
        let mut guard = guard(Mode::Enforce, false);
        guard.settings.motion = true;
        let asked: Vec<u64> = (0..70)
            .filter(|at| {
                take(&mut guard, 100 * at, TRACK, (&live(), 0.0, IS_ADA));
                admit(&mut guard, 100 * at)
                    == LivenessAdmission::Wait(Some(challenge::Output::AskMove))
            })
            .collect();
        assert_eq!(asked, [2, 32, 62]);
    }

    #[test]
    fn a_challenge_comes_before_the_request_to_move() {
        let mut guard = guard(Mode::Enforce, true);
        guard.settings.motion = true;
        fed(&mut guard, 4, &live());
        assert_eq!(
            admit(&mut guard, 300),
            LivenessAdmission::Wait(Some(challenge::Output::AskStraight))
        );
    }

    #[test]
    fn other_models_start_all_measurements_again() {
        let mut guard = guard(Mode::Enforce, false);
        fed(&mut guard, 4, &live());
        guard.set_resembles(0.4);
        assert_eq!(admit(&mut guard, 300), LivenessAdmission::Wait(None));
    }

    proptest! {
        /// Whatever else is in view, the door opens only for frames of the person that
        /// score enough since somebody else was in view on this track.
        #[test]
        fn enforced_it_never_opens_below_the_threshold(
            frames in prop::collection::vec(
                (1u64..40, 0f32..40.0, 0f32..1.0, 0u64..10, 0u8..8), 1..60,
            ),
        ) {
            let mut guard = guard(Mode::Enforce, false);
            let mut own: std::collections::BTreeMap<u64, Liveness> = Default::default();
            let mut now = 0;
            for (wait, moire, edges, track, shows) in frames {
                now += wait * 10;
                // Half of the faces are suspicious.
                let sample = Sample { moire: moire - 20.0, edges: edges * 0.8, ..live() };
                let like = match shows {
                    0 => NOBODY,
                    1 => UNCLEAR,
                    2 => ADA_TURNED,
                    _ => IS_ADA,
                };
                let yaw = if wait.is_multiple_of(2) { 0.3 } else { 0.1 };
                take(&mut guard, now, TrackId(track), (&sample, yaw, like));
                let mut expected = false;
                match like {
                    NOBODY => { own.remove(&track); }
                    UNCLEAR => {}
                    ADA_TURNED if yaw < 0.15 || !own.contains_key(&track) => {}
                    _ => {
                        let liveness = own.entry(track).or_default();
                        let alone = Liveness::default().step(ms(now), &sample).score;
                        let verdict = liveness.step(ms(now), &sample);
                        expected = verdict.counts() && verdict.score >= 0.5 && alone >= 0.5;
                    }
                }
                let open = guard.admit(ms(now), TrackId(track), ADA, false)
                    == LivenessAdmission::Open;
                prop_assert!(!open || expected);
                prop_assert!(guard.tracks.len() <= MAX_TRACKS);
                // Beyond its capacity the guard forgets the oldest track.
                if guard.tracks.len() < MAX_TRACKS {
                    prop_assert_eq!(open, expected);
                }
            }
        }
    }
}
