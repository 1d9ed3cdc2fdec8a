use super::*;
use crate::models::ModelId;
use crate::models::likelihood::tests::weighing;
use crate::vision::embed::{Embedding, Template};
use proptest::prelude::*;
use std::collections::BTreeSet;

const ADA: PersonId = PersonId(1);
const GRACE: PersonId = PersonId(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn seen(track: u64, seen: Seen) -> Observation<'static> {
    Observation { track: TrackId(track), seen, look: None }
}

fn ada(track: u64) -> Observation<'static> {
    seen(track, Seen::Person(ADA, 0.6))
}

fn nobody(track: u64) -> Observation<'static> {
    seen(track, Seen::Nobody(0.2))
}

fn decider(two_faces: TwoFaces) -> Decider {
    Decider::new(DecideSettings { two_faces, ..DecideSettings::default() })
}

/// Steps through a timeline and returns the decisions with their times.
fn play(decider: &mut Decider, timeline: &[(u64, &[Observation<'_>])]) -> Vec<(u64, Decision)> {
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
    let timeline: Vec<(u64, &[Observation<'_>])> = (0..10).map(|i| (i * 100, &frame[..])).collect();
    let decisions = play(&mut decider, &timeline);
    assert_eq!(granted(&decisions), [(200, ADA)]);
    let Decision::Grant(evidence) = decisions[0].1 else { panic!("{decisions:?}") };
    assert_eq!((evidence.frames, evidence.of, evidence.track), (3, 3, TrackId(1)));
}

#[test]
fn evidence_expires() {
    let mut decider = decider(TwoFaces::Refuse);
    let timeline: [(u64, &[Observation<'_>]); 4] =
        [(0, &[ada(1)]), (800, &[ada(1)]), (1500, &[ada(1)]), (2299, &[ada(1)])];
    // The first vote has expired at 1500; the second has not at 2299.
    assert_eq!(granted(&play(&mut decider, &timeline)), [(2299, ADA)]);
}

#[test]
fn frames_of_two_tracks_do_not_add_up() {
    let mut decider = decider(TwoFaces::Refuse);
    let timeline: [(u64, &[Observation<'_>]); 4] =
        [(0, &[ada(1)]), (100, &[ada(1)]), (200, &[ada(2)]), (300, &[ada(2)])];
    assert_eq!(granted(&play(&mut decider, &timeline)), []);
}

#[test]
fn a_track_whose_face_changes_loses_its_evidence() {
    let mut decider = decider(TwoFaces::Refuse);
    let grace = seen(1, Seen::Person(GRACE, 0.7));
    let timeline: [(u64, &[Observation<'_>]); 6] = [
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
    let against = [seen(1, Seen::Nobody(0.3))];
    let votes = [seen(1, Seen::Person(ADA, 0.5))];
    let timeline: Vec<(u64, &[Observation<'_>])> =
        (0..7).map(|i| (i * 50, if i < 3 { &against[..] } else { &votes[..] })).collect();
    let decisions = play(&mut decider, &timeline);
    assert_eq!(granted(&decisions), [(300, ADA)]);
    assert!(matches!(decisions[0], (100, Decision::Stranger { frames: 3, .. })));
}

#[test]
fn a_stranger_is_reported_once() {
    let mut decider = decider(TwoFaces::Refuse);
    let frame = [nobody(1)];
    let timeline: Vec<(u64, &[Observation<'_>])> = (0..20).map(|i| (i * 100, &frame[..])).collect();
    let decisions = play(&mut decider, &timeline);
    assert_eq!(decisions.len(), 1, "{decisions:?}");
}

#[test]
fn poor_views_are_no_evidence_either_way() {
    let mut decider = decider(TwoFaces::Refuse);
    let frame = [seen(1, Seen::Poor)];
    let timeline: Vec<(u64, &[Observation<'_>])> = (0..20).map(|i| (i * 100, &frame[..])).collect();
    assert_eq!(play(&mut decider, &timeline), []);
}

#[test]
fn two_faces_follow_the_rule() {
    let both = [ada(1), nobody(2)];
    let timeline: Vec<(u64, &[Observation<'_>])> = (0..8).map(|i| (i * 100, &both[..])).collect();
    let refused = play(&mut decider(TwoFaces::Refuse), &timeline);
    assert_eq!(refused, [(0, Decision::TwoFaces { faces: 2 })]);
    assert_eq!(granted(&play(&mut decider(TwoFaces::All), &timeline)), []);
    assert_eq!(granted(&play(&mut decider(TwoFaces::Any), &timeline)), [(200, ADA)]);
    let friends = [ada(1), seen(2, Seen::Person(GRACE, 0.7))];
    let timeline: Vec<(u64, &[Observation<'_>])> =
        (0..8).map(|i| (i * 100, &friends[..])).collect();
    let opened = granted(&play(&mut decider(TwoFaces::All), &timeline));
    assert_eq!(opened, [(200, ADA), (200, GRACE)]);
}

#[test]
fn evidence_from_before_a_second_face_does_not_count() {
    let both = [ada(1), nobody(2)];
    let mut decider = decider(TwoFaces::Refuse);
    let timeline: [(u64, &[Observation<'_>]); 6] = [
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
    let timeline: [(u64, &[Observation<'_>]); 9] = [
        (0, &[nobody(1)]),
        (100, &[nobody(1)]),
        (200, &[nobody(1)]),
        (300, &[ada(1)]),
        (400, &[ada(1)]),
        (500, &[ada(1)]),
        // The first three votes have expired, and Ada has more votes than nobody.
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
    let mut timeline: Vec<(u64, Vec<Observation<'static>>)> =
        (0..4).map(|i| (i * 100, vec![ada(1)])).collect();
    timeline.extend((4..30).map(|i| (i * 100, vec![nobody(1), grace])));
    let timeline: Vec<(u64, &[Observation<'_>])> =
        timeline.iter().map(|(at, seen)| (*at, &seen[..])).collect();
    assert_eq!(granted(&play(&mut decider, &timeline)), [(200, ADA)]);
}

#[test]
fn under_the_rule_all_a_frame_that_misses_the_stranger_does_not_open() {
    let mut decider = decider(TwoFaces::All);
    let both = [ada(1), nobody(2)];
    let mut timeline: Vec<(u64, &[Observation<'_>])> =
        (0..10).map(|i| (i * 100, &both[..])).collect();
    let alone = [ada(1)];
    timeline.extend((10..30).map(|i| (i * 100, &alone[..])));
    // The stranger was last seen at 900 and counts as present until 2400.
    assert_eq!(granted(&play(&mut decider, &timeline)), [(2400, ADA)]);
}

#[test]
fn a_grant_that_opened_nothing_is_given_again_on_new_evidence() {
    let mut decider = decider(TwoFaces::Refuse);
    let frame = [ada(1)];
    let first: Vec<(u64, &[Observation<'_>])> = (0..3).map(|i| (i * 100, &frame[..])).collect();
    assert_eq!(granted(&play(&mut decider, &first)), [(200, ADA)]);
    decider.not_opened(TrackId(1));
    let then: Vec<(u64, &[Observation<'_>])> = (3..9).map(|i| (i * 100, &frame[..])).collect();
    assert_eq!(granted(&play(&mut decider, &then)), [(500, ADA)]);
}

#[test]
fn the_same_track_opens_again_only_later() {
    let mut decider = decider(TwoFaces::Refuse);
    let frame = [ada(1)];
    let timeline: Vec<(u64, &[Observation<'_>])> = (0..80).map(|i| (i * 100, &frame[..])).collect();
    assert_eq!(granted(&play(&mut decider, &timeline)), [(200, ADA), (5200, ADA)]);
}

fn observation() -> impl Strategy<Value = Observation<'static>> {
    let what = prop_oneof![
        Just(Seen::Poor),
        (0f32..0.3).prop_map(Seen::Nobody),
        (1u32..4, 0.4f32..1.0).prop_map(|(person, s)| Seen::Person(PersonId(person), s)),
    ];
    (0u64..20, what).prop_map(|(track, seen)| Observation {
        track: TrackId(track),
        seen,
        look: None,
    })
}

proptest! {
    /// Nobody is ever granted without `frames` votes for them on that track within
    /// `evidence_expires`.
    #[test]
    fn no_grant_without_its_evidence(
        frames in prop::collection::vec((prop::collection::vec(observation(), 0..4), 0u64..900), 0..60),
        rule in prop::sample::select(vec![TwoFaces::Refuse, TwoFaces::All, TwoFaces::Any]),
    ) {
        let mut decider = decider(rule);
        let mut now = 0;
        let mut history: Vec<(u64, Observation<'static>)> = vec![];
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

proptest! {
    /// A view that a negative denies never brings the first grant forward, whomever it is
    /// for.
    #[test]
    fn a_denied_view_never_helps(
        frames in prop::collection::vec((observation(), 30u64..400, any::<bool>()), 0..80),
    ) {
        let first = |denies: bool| {
            let mut decider = decider(TwoFaces::Refuse);
            let mut now = 0;
            frames.iter().position(|(observation, later, denied)| {
                now += later;
                let seen = match observation.seen {
                    Seen::Person(person, s) if denies && *denied => Seen::Denied(person, s),
                    seen => seen,
                };
                let frame = [Observation { track: TrackId(1), seen, look: None }];
                let decisions = decider.step(ms(now), &frame);
                decisions.iter().any(|decision| matches!(decision, Decision::Grant(_)))
            })
        };
        match (first(false), first(true)) {
            (_, None) => {}
            (plain, Some(denied)) => prop_assert!(plain.is_some_and(|plain| plain <= denied)),
        }
    }
}

#[test]
fn a_denied_view_is_a_stranger_and_no_evidence() {
    let denied = Observation { seen: Seen::Denied(ADA, 0.8), ..ada(1) };
    let mut decider = decider(TwoFaces::Refuse);
    let frames = [denied; 1];
    let timeline: Vec<(u64, &[Observation<'_>])> = (0..4).map(|i| (i * 100, &frames[..])).collect();
    let decided = play(&mut decider, &timeline);
    assert!(granted(&decided).is_empty());
    let stranger = matches!(
        decided[..],
        [(200, Decision::Stranger { frames: 3, denied: true, similarity, .. })] if similarity == 0.8
    );
    assert!(stranger, "{decided:?}");
}

/// Template of Ada's view number `own`; any two of them have this cosine.
fn template(own: usize, cosine: f32) -> Template {
    let mut values = vec![0.0; 40];
    values[0] = cosine.sqrt();
    values[1 + own] = (1.0 - cosine).sqrt();
    Template::new(ModelId::new("made up"), Embedding::normalized(&values))
}

fn looked(template: &Template, seen: Seen) -> Observation<'_> {
    let most_alike = Some(ADA);
    Observation {
        track: TrackId(1),
        seen,
        look: Some(Sighting { template, quality: 1.0, most_alike }),
    }
}

/// Plays frames a tenth of a second apart, each with a different view, and returns the
/// numbers of the frames that granted Ada.
fn let_in(decider: &mut Decider, cosine: f32, similarities: &[f32]) -> Vec<usize> {
    let mut opened = vec![];
    for (at, similarity) in similarities.iter().enumerate() {
        let template = template(at, cosine);
        let what = if *similarity >= 0.4 {
            Seen::Person(ADA, *similarity)
        } else {
            Seen::Nobody(*similarity)
        };
        let decisions = decider.step(ms(at as u64 * 100), &[looked(&template, what)]);
        if decisions.iter().any(|decision| matches!(decision, Decision::Grant(_))) {
            opened.push(at);
        }
    }
    opened
}

fn weighed() -> Decider {
    let mut decider = decider(TwoFaces::Refuse);
    decider.weigh(Some(weighing()), 0.25);
    decider
}

#[test]
fn votes_that_weigh_too_little_open_nothing() {
    // A ratio of 1,000 is needed, logarithm 6.9. A similarity of 0.4 has the logarithm 3.
    assert_eq!(let_in(&mut decider(TwoFaces::Refuse), 0.8, &[0.41; 20]), [2]);
    assert!(let_in(&mut weighed(), 0.8, &[0.41; 20]).is_empty());
    assert_eq!(let_in(&mut weighed(), 0.8, &[0.6; 20]), [2]);
}

#[test]
fn distinct_views_open_but_a_repeated_view_does_not() {
    // One view of similarity 0.51 gives 6.3, three at a correlation of 0.7 give 7.9.
    assert_eq!(let_in(&mut weighed(), 0.7, &[0.51; 20]), [2]);
    assert!(let_in(&mut weighed(), 1.0, &[0.51; 20]).is_empty());
}

#[test]
fn evidence_against_needs_more_evidence_for() {
    assert_eq!(let_in(&mut weighed(), 0.8, &[0.55; 4]), [2]);
    let against = [0.1, 0.55, 0.55, 0.55, 0.55, 0.55, 0.55, 0.55];
    assert_eq!(let_in(&mut decider(TwoFaces::Refuse), 0.8, &against), [3]);
    // Each vote for Ada gives 7.5, the vote against -6. Together with it three votes give
    // 4.9, six 6.7 and seven 7.0; 6.9 is needed.
    assert_eq!(let_in(&mut weighed(), 0.8, &against), [7]);
}

#[test]
fn a_grant_says_what_it_weighed() {
    let mut decider = weighed();
    let template = template(0, 0.8);
    let frame = [looked(&template, Seen::Person(ADA, 0.6))];
    let timeline: Vec<(u64, &[Observation<'_>])> = (0..3).map(|i| (i * 100, &frame[..])).collect();
    let decisions = play(&mut decider, &timeline);
    let Decision::Grant(evidence) = decisions[0].1 else { panic!("{decisions:?}") };
    let weight = evidence.weight.expect("weighed");
    assert!((weight.log_ratio - 9.0).abs() < 1e-4, "{weight:?}");
    assert!((weight.needed - 1e3f64.ln()).abs() < 1e-9, "{weight:?}");
}

#[test]
fn a_camera_that_hangs_opens_nothing() {
    let settings = DecideSettings { same_view: SAME_VIEW, ..DecideSettings::default() };
    let mut decider = Decider::new(settings);
    let still = template(0, 0.5);
    let frame = [looked(&still, Seen::Person(ADA, 0.9))];
    let timeline: Vec<(u64, &[Observation<'_>])> = (0..90).map(|i| (i * 100, &frame[..])).collect();
    assert_eq!(granted(&play(&mut decider, &timeline)), []);
    // A frozen picture of a stranger is refused as usual.
    let frame = [looked(&still, Seen::Nobody(0.1))];
    let timeline: Vec<(u64, &[Observation<'_>])> =
        (100..104).map(|i| (i * 100, &frame[..])).collect();
    assert_eq!(play(&mut decider, &timeline).len(), 1);
    // Frames that differ grant.
    let mut decider = Decider::new(settings);
    assert_eq!(let_in(&mut decider, 0.99, &[0.6; 5]), [2]);
}

#[test]
fn a_frame_passed_twice_has_one_vote() {
    let mut decider = decider(TwoFaces::Refuse);
    let frame = [ada(1)];
    let timeline: Vec<(u64, &[Observation<'_>])> =
        [0, 0, 0, 100, 100].map(|at| (at, &frame[..])).to_vec();
    assert_eq!(granted(&play(&mut decider, &timeline)), []);
    // A frame that has voted does not vote again when it comes late.
    assert!(decider.result(ms(150), ms(100), &frame).is_empty());
    assert!(decider.result(ms(150), ms(50), &frame).is_empty());
    assert_eq!(decider.result(ms(250), ms(200), &frame).len(), 1);
}

#[test]
fn a_result_past_its_age_counts_for_nothing() {
    let mut decider = decider(TwoFaces::Refuse);
    let frame = [ada(1)];
    for at in 0..20 {
        // A frame every tenth of a second, each with its result 1.5 seconds later.
        assert!(decider.result(ms(at * 100 + 1500), ms(at * 100), &frame).is_empty(), "{at}");
    }
    // A result just in time counts, but its age is the frame's: no three are valid at once.
    let mut decider = Decider::new(DecideSettings::default());
    for at in 0..20 {
        assert!(decider.result(ms(at * 100 + 1400), ms(at * 100), &frame).is_empty(), "{at}");
    }
    let mut decider = Decider::new(DecideSettings::default());
    let opened: Vec<u64> = (0..5)
        .filter(|at| !decider.result(ms(at * 100 + 900), ms(at * 100), &frame).is_empty())
        .collect();
    assert_eq!(opened, [2]);
}

#[test]
fn a_frame_of_the_future_is_as_old_as_now() {
    let mut decider = decider(TwoFaces::Refuse);
    let frame = [ada(1)];
    for at in [0, 100] {
        assert!(decider.result(ms(at), ms(at + 60_000), &frame).is_empty());
    }
    assert!(!decider.result(ms(200), ms(60_200), &frame).is_empty());
    assert!(decider.result(ms(9000), ms(9000), &[]).is_empty());
}

#[test]
fn a_track_is_decided_after_its_decision() {
    let mut decider = decider(TwoFaces::Refuse);
    for (at, decided) in [(0, false), (100, false), (200, true), (300, true)] {
        decider.step(ms(at), &[nobody(7)]);
        assert_eq!(decider.decided(TrackId(7)), decided, "{at}");
    }
    decider.weigh(None, 0.25);
    assert!(!decider.decided(TrackId(7)));
    for at in 4..7 {
        decider.step(ms(at * 100), &[ada(8)]);
    }
    assert!(decider.decided(TrackId(8)) && !decider.decided(TrackId(9)));
    decider.not_opened(TrackId(8));
    assert!(!decider.decided(TrackId(8)));
}

/// A naive count of a track's frames for the person and for nobody, since the last frame
/// for somebody else.
fn counted(history: &[(u64, Observation<'_>)], now: u64, evidence: &Evidence) -> [usize; 2] {
    let mut frames = [BTreeSet::new(), BTreeSet::new()];
    for (captured, observation) in history.iter().filter(|(_, o)| o.track == evidence.track) {
        match observation.seen {
            Seen::Person(person, _) if person != evidence.person => {
                frames.iter_mut().for_each(BTreeSet::clear);
            }
            Seen::Person(..) if captured + 1500 > now => drop(frames[0].insert(*captured)),
            Seen::Nobody(_) if captured + 1500 > now => drop(frames[1].insert(*captured)),
            _ => {}
        }
    }
    frames.map(|frames| frames.len())
}

/// A view of nobody in the gallery: of another stranger for each number.
fn stranger(number: usize) -> Template {
    let mut values = [0.0; 8];
    values[number] = 1.0;
    Template::new(ModelId::new("tests"), Embedding::normalized(&values))
}

#[test]
fn every_stranger_at_one_place_is_refused_and_one_who_stays_again_and_again() {
    let refusals = |shown: &[usize]| {
        let mut decider = decider(TwoFaces::Refuse);
        decider.weigh(None, 0.25);
        let views: Vec<Template> = shown.iter().map(|number| stranger(*number)).collect();
        let frames = views.iter().enumerate();
        frames
            .filter_map(|(at, view)| {
                let shown = [looked(view, Seen::Nobody(0.1))];
                let decided = decider.step(ms(100 * at as u64), &shown);
                matches!(decided[..], [Decision::Stranger { .. }]).then_some(at)
            })
            .collect::<Vec<_>>()
    };
    // Pictures swiped on a telephone.
    assert_eq!(refusals(&[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]), [2, 5, 8, 11]);
    // Faster than a decision: a refusal for every three frames.
    assert_eq!(refusals(&[0, 1, 2, 3, 4, 5, 6, 7]), [2, 5]);
    assert_eq!(refusals(&[0; 120]), [2, 52, 102]);
}

proptest! {
    /// With the likelihood ratio the votes are needed all the same: a granted person has,
    /// on that track and within `evidence_expires`, at least `frames` distinct frames over the
    /// threshold and none for somebody else. Results may come late, twice, or both.
    #[test]
    fn a_grant_with_a_likelihood_ratio_also_has_the_votes(
        frames in prop::collection::vec(
            (prop::collection::vec(observation(), 0..3), 0u64..400, 0u64..1800, prop::bool::ANY), 0..60,
        ),
        weighs in prop::bool::ANY,
        same_view in prop::sample::select(vec![SAME_VIEW, f32::INFINITY]),
    ) {
        let settings = DecideSettings { two_faces: TwoFaces::Any, same_view, ..DecideSettings::default() };
        let mut decider = Decider::new(settings);
        if weighs {
            decider.weigh(Some(weighing()), 0.25);
        }
        let template = template(0, 0.9);
        let (mut now, mut newest) = (0, 0);
        let mut history = vec![];
        for (mut observations, later, age, has_look) in frames {
            now += later;
            newest = now.saturating_sub(age).max(newest);
            observations.dedup_by_key(|o| o.track);
            observations.truncate(1);
            if has_look {
                let look = Sighting { template: &template, quality: 0.5, most_alike: None };
                observations.iter_mut().for_each(|o| o.look = Some(look));
            }
            if now < newest + 1500 {
                history.extend(observations.iter().map(|o| (newest, *o)));
            }
            for decision in decider.result(ms(now), ms(newest), &observations) {
                if let Decision::Grant(evidence) = decision {
                    let [votes, against] = counted(&history, now, &evidence);
                    prop_assert!(votes >= 3 && votes > against, "{evidence:?} at {now}");
                    let weight = evidence.weight;
                    prop_assert_eq!(weight.is_some(), weighs);
                    prop_assert!(weight.is_none_or(|w| w.log_ratio >= w.needed - 1e-9));
                }
            }
        }
    }

    /// The likelihood ratio never makes a grant earlier.
    #[test]
    fn weighing_only_ever_keeps_shut(
        similarities in prop::collection::vec(0f32..1.0, 0..30), cosine in 0f32..1.0,
    ) {
        let old = let_in(&mut decider(TwoFaces::Refuse), cosine, &similarities);
        let new = let_in(&mut weighed(), cosine, &similarities);
        prop_assert!(old.len() >= new.len());
        if let Some(first) = new.first() {
            prop_assert!(old[0] <= *first);
        }
    }

    /// A single frame never grants, whatever it shows and however often it comes.
    #[test]
    fn one_frame_never_opens(similarity in 0.4f32..=1.0, times in 1usize..20) {
        let mut decider = weighed();
        let template = template(0, 0.9);
        for _ in 0..times {
            let seen = looked(&template, Seen::Person(ADA, similarity));
            prop_assert!(decider.step(ms(1000), &[seen]).is_empty());
        }
    }
}
