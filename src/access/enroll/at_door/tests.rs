use super::*;
use crate::access::enroll::Poses;
use crate::models::ModelId;
use crate::vision::embed::{Embedding, Template};
use crate::vision::pose::Pose;
use crate::vision::quality::Aspect;
use proptest::prelude::*;

const ADA: PersonId = PersonId(1);
const GRACE: PersonId = PersonId(2);

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn enrolment() -> DoorEnrolment {
    let poses = Poses::from_slice(&[Pose::Front, Pose::Left]).expect("two");
    DoorEnrolment::new(ButtonSettings {
        outside: false,
        administrator_within: s(20.0),
        first_within: s(600.0),
        views: EnrollSettings { views: 2, poses, time: s(60.0), same_person: 0.4 },
        duplicate: 0.6,
        look_alike: 0.4,
    })
}

fn shot(pose: Pose, angle: f32) -> Shot {
    let embedding = Embedding::normalized(&[angle.cos(), angle.sin()]);
    let template = Some(Template::new(ModelId::new("one"), embedding));
    Shot::Face { weakest: (Aspect::Size, 1.0), turn: pose.example(), template }
}

fn hold(empty: bool) -> Input<'static> {
    Input::Hold { side: Side::Inside, empty, in_view: None, barred: None }
}

fn administrator(person: PersonId) -> Input<'static> {
    Input::Administrator { person, barred: None }
}

fn like(person: PersonId, similarity: f32) -> Option<Like> {
    Some(Like { person, similarity })
}

fn in_front(at: f64, by: &mut DoorEnrolment) {
    by.step(s(at), hold(false));
    let administrator = by.step(s(at), administrator(ADA));
    assert_eq!(administrator.events[..], [Event::Administrator(ADA)]);
    assert_eq!(administrator.signal, Some(Signal::Newcomer));
}

/// The button outside held, with this person alone in view.
fn outside(in_view: Option<PersonId>) -> Input<'static> {
    Input::Hold { side: Side::Outside, empty: false, in_view, barred: None }
}

#[test]
fn the_button_outside_does_nothing_by_default() {
    let mut by = enrolment();
    let held = by.step(s(0.0), outside(None));
    assert_eq!(held.events[..], [Event::NotNow(Barred::Outside)]);
    assert_eq!((held.signal, by.busy()), (None, false));
    // Not even for the first person.
    by.step(s(1.0), Input::LocalReset);
    let first = Input::Hold { side: Side::Outside, empty: true, in_view: None, barred: None };
    assert_eq!(by.step(s(2.0), first).events[..], [Event::NotNow(Barred::Outside)]);
}

#[test]
fn outside_the_administrator_must_hold_the_button_again_and_be_in_view() {
    let recognized = || {
        let mut by = enrolment();
        by.settings.outside = true;
        assert_eq!(by.step(s(0.0), outside(None)).events[..], [Event::Begun(Side::Outside)]);
        assert_eq!(by.step(s(2.0), administrator(ADA)).events[..], [Event::Confirm(ADA)]);
        by
    };
    // Neither somebody else nor an empty picture confirms, nor does the button inside.
    let mut by = recognized();
    for held in [outside(None), outside(Some(GRACE)), hold(false)] {
        assert_eq!(by.step(s(6.0), held), Output::default());
    }
    let confirmed = by.step(s(11.9), outside(Some(ADA)));
    assert_eq!(confirmed.events[..], [Event::Administrator(ADA)]);
    assert!(matches!(by.state(), State::Newcomer { by: Some(ADA), .. }));
    let mut by = recognized();
    let late = by.step(s(12.0), outside(Some(ADA)));
    assert_eq!(late.events[..], [Event::Failed(Failure::NotConfirmed)]);
    assert!(!by.busy());
}

#[test]
fn nobody_is_enrolled_while_it_is_barred() {
    for barred in [Barred::Lockdown, Barred::LockedOut, Barred::Hours] {
        let mut by = enrolment();
        let held =
            Input::Hold { side: Side::Inside, empty: false, in_view: None, barred: Some(barred) };
        assert_eq!(by.step(s(0.0), held).events[..], [Event::NotNow(barred)]);
        assert!(!by.busy());
        by.step(s(1.0), hold(false));
        let administrator = Input::Administrator { person: ADA, barred: Some(barred) };
        let failed = by.step(s(2.0), administrator);
        assert_eq!(failed.events[..], [Event::Failed(Failure::Barred(barred))]);
        let mut outside_on = enrolment();
        outside_on.settings.outside = true;
        outside_on.step(s(0.0), outside(None));
        outside_on.step(s(1.0), self::administrator(ADA));
        let held = Input::Hold {
            side: Side::Outside,
            empty: false,
            in_view: Some(ADA),
            barred: Some(barred),
        };
        let failed = outside_on.step(s(5.0), held);
        assert_eq!(failed.events[..], [Event::Failed(Failure::Barred(barred))]);
    }
}

#[test]
fn an_answer_about_another_newcomer_says_nothing() {
    let mut by = enrolment();
    by.step(s(0.0), Input::LocalReset);
    by.step(s(1.0), hold(true));
    for (at, pose, angle) in [(2.0, Pose::Front, 0.0), (3.0, Pose::Left, 0.3)] {
        by.step(s(at), Input::Frame { shot: &shot(pose, angle), like: None });
    }
    assert!(matches!(by.state(), State::Keeping { .. }), "{:?}", by.state());
    for late in [Input::Kept { number: 0 }, Input::NotKept { number: 7 }] {
        assert_eq!(by.step(s(4.0), late), Output::default());
        assert!(matches!(by.state(), State::Keeping { .. }));
    }
    by.step(s(5.0), Input::Kept { number: 1 });
    assert!(!by.busy());
}

#[test]
fn button_administrator_newcomer() {
    let mut by = enrolment();
    let begun = by.step(s(0.0), hold(false));
    assert_eq!(begun.events[..], [Event::Begun(Side::Inside)]);
    by.step(s(2.0), administrator(ADA));
    // Ada takes a moment to step aside.
    for at in [2.1, 2.2, 2.3, 2.4] {
        let shot = shot(Pose::Front, 2.0);
        let waits = by.step(s(at), Input::Frame { shot: &shot, like: like(ADA, 0.9) });
        assert!(!waits.take && waits.events.is_empty(), "{waits:?}");
    }
    let frame = |by: &mut DoorEnrolment, at, pose, angle, like| {
        by.step(s(at), Input::Frame { shot: &shot(pose, angle), like })
    };
    let first = frame(&mut by, 4.0, Pose::Front, 0.0, like(GRACE, 0.3));
    assert_eq!((first.take, first.signal), (true, Some(Signal::View { taken: 1, of: 2 })));
    assert!(!frame(&mut by, 5.0, Pose::Front, 0.3, None).take);
    let last = frame(&mut by, 6.0, Pose::Left, 0.3, like(GRACE, 0.45));
    assert!(last.take);
    assert_eq!(last.events[..], [Event::LookAlike(Like { person: GRACE, similarity: 0.45 })]);
    let newcomer = last.keep.expect("somebody to keep");
    assert_eq!(newcomer.by, Some(ADA));
    let (_, stricter) = newcomer.look_alike.expect("a look-alike");
    assert!((stricter - 0.05).abs() < 1e-6);
    assert!(by.busy());
    let kept = by.step(s(6.1), Input::Kept { number: 1 });
    assert_eq!((kept.signal, kept.discard), (Some(Signal::Enrolled), true));
    assert!(!by.busy());
}

#[test]
fn the_first_person_needs_a_reset_and_uses_it_up_once_enrolled() {
    let mut by = enrolment();
    assert_eq!(by.step(s(0.0), hold(true)).events[..], [Event::NotReset(Side::Inside)]);
    by.step(s(1.0), Input::LocalReset);
    assert_eq!(by.step(s(601.0), hold(true)).events[..], [Event::NotReset(Side::Inside)]);
    by.step(s(700.0), Input::LocalReset);
    assert_eq!(by.step(s(1299.0), hold(true)).events[..], [Event::First(Side::Inside)]);
    // After a cancelled enrolment the reset still counts.
    by.step(s(1299.2), Input::Press);
    assert_eq!(by.step(s(1299.5), hold(true)).events[..], [Event::First(Side::Inside)]);
    for (at, pose, angle) in [(1300.0, Pose::Front, 0.0), (1301.0, Pose::Left, 0.3)] {
        by.step(s(at), Input::Frame { shot: &shot(pose, angle), like: None });
    }
    by.step(s(1301.5), Input::NotKept { number: 1 });
    by.step(s(1301.6), Input::LocalReset);
    by.step(s(1301.7), hold(true));
    for (at, pose, angle) in [(1302.0, Pose::Front, 0.0), (1303.0, Pose::Left, 0.3)] {
        by.step(s(at), Input::Frame { shot: &shot(pose, angle), like: None });
    }
    by.step(s(1304.0), Input::Kept { number: 2 });
    assert_eq!(by.step(s(1305.0), hold(true)).events[..], [Event::NotReset(Side::Inside)]);
    // With people in the gallery a reset does not replace the administrator.
    by.step(s(1306.0), Input::LocalReset);
    assert_eq!(by.step(s(1307.0), hold(false)).events[..], [Event::Begun(Side::Inside)]);
}

#[test]
fn somebody_known_is_sent_away_by_name() {
    let mut by = enrolment();
    in_front(0.0, &mut by);
    for at in [1.0, 2.0] {
        let shot = shot(Pose::Front, 0.0);
        let step = by.step(s(at), Input::Frame { shot: &shot, like: like(GRACE, 0.7) });
        assert_eq!(step, Output::default());
    }
    let shot = shot(Pose::Front, 0.0);
    let step = by.step(s(3.0), Input::Frame { shot: &shot, like: like(GRACE, 0.7) });
    let known = Failure::AlreadyEnrolled(Like { person: GRACE, similarity: 0.7 });
    assert_eq!(step.events[..], [Event::Failed(known)]);
    assert!(step.discard && !by.busy());
}

#[test]
fn every_step_ends_by_a_press_or_by_time() {
    let failed = |output: Output| match output.events[..] {
        [Event::Failed(failure)] => failure,
        _ => panic!("{output:?}"),
    };
    let mut by = enrolment();
    by.step(s(0.0), hold(false));
    assert_eq!(failed(by.step(s(1.0), Input::Press)), Failure::Cancelled);
    by.step(s(2.0), hold(false));
    assert_eq!(by.step(s(21.9), Input::Tick), Output::default());
    assert_eq!(failed(by.step(s(22.0), Input::Tick)), Failure::NoAdministrator);
    in_front(30.0, &mut by);
    assert_eq!(failed(by.step(s(31.0), Input::Press)), Failure::Cancelled);
    in_front(40.0, &mut by);
    let nobody = Failure::NoViews(Hindrance::NoFace);
    assert_eq!(failed(by.step(s(100.0), Input::Tick)), nobody);
    for (at, answer) in [(200.0, Input::NotKept { number: 1 }), (300.0, Input::Tick)] {
        in_front(at, &mut by);
        by.step(s(at), Input::Frame { shot: &shot(Pose::Front, 0.0), like: None });
        by.step(s(at + 1.0), Input::Frame { shot: &shot(Pose::Left, 0.3), like: None });
        // Too late.
        assert_eq!(by.step(s(at + 2.0), Input::Press), Output::default());
        assert_eq!(failed(by.step(s(at + 31.0), answer)), Failure::NotKept);
    }
}

proptest! {
    /// With only the outside button and no administrator's face nobody can be enrolled,
    /// and a local reset does not help if the gallery has people.
    #[test]
    fn the_button_outside_never_enrolls_alone(
        steps in prop::collection::vec((0u8..7, -0.4f32..0.4, 0u64..9000), 0..120),
        empty in any::<bool>(),
    ) {
        let mut by = enrolment();
        let mut now = Duration::ZERO;
        for (what, angle, later) in steps {
            now += Duration::from_millis(later);
            let shot = shot(if angle > 0.0 { Pose::Left } else { Pose::Front }, angle);
            let event = match what {
                0 => hold(empty),
                1 => Input::Press,
                3 => Input::Kept { number: 1 },
                4 if !empty => Input::LocalReset,
                5 => Input::Tick,
                _ => Input::Frame { shot: &shot, like: None },
            };
            let output = by.step(now, event);
            prop_assert!(!output.take && output.keep.is_none(), "{output:?}");
        }
    }

    /// A newcomer is kept only with all views, each taken after the administrator was
    /// recognized. A known person is never kept.
    #[test]
    fn kept_only_with_an_administrator_and_all_views(
        steps in prop::collection::vec((0u8..12, -0.4f32..0.4, 0u64..3000), 0..200),
    ) {
        let mut by = enrolment();
        by.settings.outside = true;
        let mut now = Duration::ZERO;
        let (mut allowed, mut taken) = (false, 0);
        for (what, angle, later) in steps {
            now += Duration::from_millis(later);
            let shot = shot(if angle > 0.0 { Pose::Left } else { Pose::Front }, angle);
            let event = match what {
                0 => hold(false),
                6 => outside((angle > 0.1).then_some(ADA)),
                1 if angle > 0.3 => Input::Press,
                2 | 3 => administrator(ADA),
                4 => Input::Frame { shot: &shot, like: like(GRACE, 0.8) },
                5 if angle > 0.0 => Input::Kept { number: 1 },
                _ => Input::Frame { shot: &shot, like: None },
            };
            let output = by.step(now, event);
            if output.discard {
                taken = 0;
            }
            allowed |= output.events.contains(&Event::Administrator(ADA));
            if output.take {
                let known = matches!(event, Input::Frame { like: Some(_), .. });
                prop_assert!(allowed && !known);
                taken += 1;
            }
            if output.keep.is_some() {
                prop_assert_eq!(taken, 2);
            }
            if !by.busy() {
                allowed = false;
            }
        }
    }
}
