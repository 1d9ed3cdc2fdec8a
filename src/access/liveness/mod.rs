//! The liveness guard: liveness of all tracks, and whether the door may open for one.

pub mod challenge;

use crate::vision::liveness::{Liveness, Sample, Verdict};
use crate::vision::track::{MAX_TRACKS, TrackId};
use challenge::{Challenge, ChallengeSettings, Input};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Shortest interval between two reports of a refusal, or two requests to move, per track.
const TELL_EVERY: Duration = Duration::from_secs(3);

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

/// Liveness and challenges of all tracks.
#[derive(Clone, Debug)]
pub struct LivenessGuard {
    settings: GuardSettings,
    tracks: heapless::Vec<Watched, MAX_TRACKS>,
    /// State of SplitMix64 (Steele, Lea and Flood, 2014).
    chance: u64,
}

#[derive(Clone, Debug)]
struct Watched {
    id: TrackId,
    seen: Duration,
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
    /// `seed` determines the sides of challenges; it must differ at every start and be
    /// secret.
    pub fn new(settings: GuardSettings, seed: u64) -> Self {
        Self { settings, tracks: heapless::Vec::new(), chance: seed }
    }

    /// Changes the settings. All measurements and challenges start again.
    pub fn set_settings(&mut self, settings: GuardSettings) {
        *self = Self::new(settings, self.chance);
    }

    /// Processes the faces of a frame: track, measurements and yaw
    /// ([`crate::vision::pose::Turn::yaw`]) of each. Returns the messages for people, by track.
    pub fn step<'s>(
        &mut self,
        now: Duration,
        faces: impl IntoIterator<Item = (TrackId, &'s Sample, f32)>,
    ) -> heapless::Vec<(TrackId, challenge::Output), MAX_TRACKS> {
        let mut actions = heapless::Vec::new();
        if self.settings.mode == Mode::Off {
            return actions;
        }
        for (track, sample, yaw) in faces {
            if let Some(action) = self.take(now, track, sample, yaw) {
                // Messages beyond the capacity are dropped.
                let _ = actions.push((track, action));
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

    /// Processes the measurements of one face.
    fn take(
        &mut self,
        now: Duration,
        id: TrackId,
        sample: &Sample,
        yaw: f32,
    ) -> Option<challenge::Output> {
        let at = match self.tracks.iter().position(|watched| watched.id == id) {
            Some(at) => at,
            None => {
                if self.tracks.is_full() {
                    let oldest = self.tracks.iter().enumerate().min_by_key(|(_, w)| w.seen);
                    let oldest = oldest.map(|(at, _)| at);
                    oldest.map(|at| self.tracks.swap_remove(at));
                }
                let challenge = self.settings.challenge.map(Challenge::new);
                let (liveness, told, asked) = (Liveness::default(), None, None);
                let watched = Watched { id, seen: now, liveness, challenge, told, asked };
                // There is room now.
                let _ = self.tracks.push(watched);
                self.tracks.len() - 1
            }
        };
        let watched = &mut self.tracks[at];
        watched.seen = now;
        watched.liveness.step(now, sample);
        watched.challenge.as_mut()?.step(now, Input::Face(yaw))
    }

    /// The verdict on a track at `now`. `None` for an unknown track.
    pub fn verdict(&mut self, now: Duration, track: TrackId) -> Option<Verdict> {
        let watched = self.tracks.iter_mut().find(|watched| watched.id == track)?;
        Some(watched.liveness.at(now))
    }

    /// Decides whether the door may open for a track of a recognized person.
    pub fn admit(&mut self, now: Duration, track: TrackId) -> LivenessAdmission {
        let GuardSettings { mode, threshold, .. } = self.settings;
        if mode == Mode::Off {
            return LivenessAdmission::Open;
        }
        let enforced = mode == Mode::Enforce;
        let Some(watched) = self.tracks.iter_mut().find(|watched| watched.id == track) else {
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
        // The challenge comes before the motion: a person who turns as asked shows enough.
        if let Some(challenge) = &mut watched.challenge
            && !challenge.passed(now)
        {
            self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.chance ^ self.chance >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            let sides = mixed ^ mixed >> 31;
            return LivenessAdmission::Wait(challenge.step(now, Input::Begin(sides)));
        }
        if self.settings.motion && !verdict.cues.solid() {
            let new = watched.asked.is_none_or(|at| now >= at + TELL_EVERY);
            if new {
                watched.asked = Some(now);
            }
            return LivenessAdmission::Wait(new.then_some(challenge::Output::AskMove));
        }
        LivenessAdmission::Open
    }

    /// Whether the networks should run on a track: [`Liveness::network_due`].
    pub fn network_due(&self, now: Duration, track: TrackId) -> bool {
        let watched = self.tracks.iter().find(|watched| watched.id == track);
        watched.is_none_or(|watched| watched.liveness.network_due(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::liveness::tests::live;
    use proptest::prelude::*;

    const TRACK: TrackId = TrackId(7);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn guard(mode: Mode, challenge: bool) -> LivenessGuard {
        let challenge = challenge.then(ChallengeSettings::default);
        let settings = GuardSettings { mode, threshold: 0.5, motion: false, challenge };
        LivenessGuard::new(settings, 1)
    }

    fn fed(guard: &mut LivenessGuard, frames: u64, sample: &Sample) {
        (0..frames).for_each(|at| assert_eq!(guard.take(ms(100 * at), TRACK, sample, 0.0), None));
    }

    fn screen() -> Sample {
        Sample { moire: 60.0, ..live() }
    }

    #[test]
    fn a_screen_is_refused_logged_or_let_in_as_the_mode_says() {
        let mut enforcing = guard(Mode::Enforce, false);
        fed(&mut enforcing, 4, &screen());
        assert!(matches!(enforcing.admit(ms(400), TRACK), LivenessAdmission::Refused(Some(_))));
        assert_eq!(enforcing.admit(ms(500), TRACK), LivenessAdmission::Refused(None));
        let mut advising = guard(Mode::Advise, false);
        fed(&mut advising, 4, &screen());
        assert!(matches!(advising.admit(ms(400), TRACK), LivenessAdmission::Advised(Some(_))));
        assert_eq!(advising.admit(ms(500), TRACK), LivenessAdmission::Advised(None));
        assert_eq!(guard(Mode::Off, false).admit(ms(0), TRACK), LivenessAdmission::Open);
    }

    #[test]
    fn enforced_liveness_waits_for_enough_frames() {
        let mut guard = guard(Mode::Enforce, false);
        assert_eq!(guard.admit(ms(0), TRACK), LivenessAdmission::Wait(None));
        fed(&mut guard, 2, &live());
        assert_eq!(guard.admit(ms(200), TRACK), LivenessAdmission::Wait(None));
        guard.take(ms(200), TRACK, &live(), 0.0);
        assert_eq!(guard.admit(ms(200), TRACK), LivenessAdmission::Open);
        // The frames have expired by then.
        assert_eq!(guard.admit(ms(9000), TRACK), LivenessAdmission::Wait(None));
    }

    #[test]
    fn a_challenge_is_asked_once_and_opens_when_passed() {
        let mut guard = guard(Mode::Enforce, true);
        fed(&mut guard, 4, &live());
        assert_eq!(
            guard.admit(ms(400), TRACK),
            LivenessAdmission::Wait(Some(challenge::Output::AskStraight))
        );
        assert_eq!(guard.admit(ms(500), TRACK), LivenessAdmission::Wait(None));
        let mut yaw = 0.0;
        for at in 6..30 {
            match guard.take(ms(100 * at), TRACK, &live(), yaw) {
                Some(challenge::Output::AskTurn(super::challenge::Direction::Left)) => yaw = 0.4,
                Some(challenge::Output::AskTurn(super::challenge::Direction::Right)) => yaw = -0.4,
                Some(challenge::Output::AskStraight) => yaw = 0.0,
                Some(challenge::Output::Passed) => {
                    assert_eq!(guard.admit(ms(100 * at), TRACK), LivenessAdmission::Open);
                    return;
                }
                Some(other @ (challenge::Output::Failed(_) | challenge::Output::AskMove)) => {
                    panic!("{other:?}")
                }
                None => {}
            }
        }
        panic!("not passed in time");
    }

    #[test]
    fn required_motion_needs_a_head_that_turns() {
        use crate::vision::liveness::motion::{Shape, tests::seen};
        let opened = |flat: bool| {
            let mut guard = guard(Mode::Enforce, false);
            guard.settings.motion = true;
            for at in 0u32..12 {
                let yaw = 0.2 * (f64::from(at) / 2.0).sin();
                let sample = Sample { shape: Shape::of(&seen(flat, yaw, 0.0, 0.0)), ..live() };
                guard.take(ms(100 * u64::from(at)), TRACK, &sample, 0.0);
            }
            guard.admit(ms(1200), TRACK)
        };
        assert_eq!(opened(false), LivenessAdmission::Open);
        assert_eq!(opened(true), LivenessAdmission::Wait(Some(challenge::Output::AskMove)));
    }

    #[test]
    fn a_person_who_keeps_still_is_asked_to_move_repeatedly() {
        let mut guard = guard(Mode::Enforce, false);
        guard.settings.motion = true;
        let asked: Vec<u64> = (0..70)
            .filter(|at| {
                guard.take(ms(100 * at), TRACK, &live(), 0.0);
                guard.admit(ms(100 * at), TRACK)
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
            guard.admit(ms(400), TRACK),
            LivenessAdmission::Wait(Some(challenge::Output::AskStraight))
        );
    }

    proptest! {
        #[test]
        fn enforced_it_never_opens_below_the_threshold(
            frames in prop::collection::vec((0u64..40, 0f32..40.0, 0f32..1.0, 0u64..20), 1..60),
        ) {
            let mut guard = guard(Mode::Enforce, false);
            let mut now = 0;
            for (wait, moire, edges, track) in frames {
                now += wait * 10;
                let sample = Sample { moire, edges, ..live() };
                guard.take(ms(now), TrackId(track), &sample, 0.0);
                let verdict = guard.verdict(ms(now), TrackId(track)).expect("just looked at");
                let open = guard.admit(ms(now), TrackId(track)) == LivenessAdmission::Open;
                prop_assert_eq!(open, verdict.counts() && verdict.score >= 0.5);
                prop_assert!(guard.tracks.len() <= MAX_TRACKS);
            }
        }
    }
}
