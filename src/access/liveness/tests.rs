use super::*;
use crate::access::gallery::{Candidate, Denied};
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
        let best =
            Some(Candidate { person, similarity, reaches: similarity >= 0.5, denied: Denied::No });
        Probe { template: &template, best }
    });
    let similarity = |_: TrackId, _: &Template, person: PersonId| {
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
    // A stranger, or another person, in between: all frames are counted again from zero.
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
            admit(&mut guard, 100 * at) == LivenessAdmission::Wait(Some(challenge::Output::AskMove))
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
