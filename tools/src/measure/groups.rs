//! Rates within groups of people, with intervals, and the group that is worst off.

use crate::measure::comparisons::Comparisons;
use crate::measure::metrics::Scores;
use crate::measure::report::closed::wilson_share;
use facelatch::models::groups::WorstGroup;
use facelatch::models::threshold::ThresholdTable;
use serde::Serialize;
use std::collections::BTreeSet;

/// Number of a group's impostor pairs that must be expected to pass at a rate before the
/// group has enough pairs to be judged there. A group that keeps the rate then exceeds twice
/// the rate in 1.4 % of all cases, and a group with three times the rate is found in 88 %
/// (Poisson with mean 5 and 15). With the 30 pairs that a rate of everybody needs, few
/// groups could ever be judged at the rates of doors.
pub const LEAST_EXPECTED: f64 = 5.0;
/// Number of pairs of different people that must pass before a group with fewer pairs is
/// judged. One such pair may be one person under two names.
const LEAST_APART: usize = 2;

/// The comparisons within a group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Name of the group.
    pub name: String,
    /// Number of people with a face.
    pub people: usize,
    /// Number of photos with a face.
    pub photos: usize,
    /// Similarity of each impostor pair, descending, and its two people.
    impostor: Vec<(f32, [usize; 2])>,
    /// Similarity of each genuine pair, descending.
    genuine: Vec<f32>,
    /// Number of genuine pairs with a missing face; they count as rejected.
    lost: usize,
    /// Number of people with a genuine pair.
    paired: usize,
}

/// Rates of a group at one threshold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupRate {
    /// The false accept rate that the threshold states.
    pub stated: f64,
    /// Similarity threshold (cosine).
    pub threshold: f32,
    /// Whether the threshold was extrapolated from the tail.
    pub extrapolated: bool,
    /// Number of impostor pairs of the group that pass.
    pub passed: usize,
    /// False accept rate within the group, 0..=1.
    pub far: f64,
    /// 95 % interval of `far`.
    pub far_interval: [f64; 2],
    /// Whether the group has enough impostor pairs to be judged at this threshold.
    pub enough: bool,
    /// True accept rate within the group, 0..=1; `None` without genuine pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tar: Option<f64>,
    /// 95 % interval of `tar`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tar_interval: Option<[f64; 2]>,
}

impl GroupRate {
    /// How many times the stated rate the measured one is.
    pub fn times_stated(&self) -> f64 {
        self.far / self.stated
    }
}

impl Group {
    /// The pairs of faces that `member` takes into the group, by index in the set.
    pub fn of(name: &str, all: &Comparisons, member: impl Fn(usize) -> bool) -> Self {
        let within = |first: u32, second: u32| member(first as usize) && member(second as usize);
        let person = |face: u32| all.people[face as usize];
        let found = (0..all.people.len()).filter(|face| all.found[*face] && member(*face));
        let people: BTreeSet<usize> = found.clone().map(|face| all.people[face]).collect();
        let genuine = || all.genuine.iter().filter(|pair| within(pair.first, pair.second));
        let lost: Vec<u32> =
            all.lost.iter().filter(|[a, b]| within(*a, *b)).map(|[a, _]| *a).collect();
        let paired: BTreeSet<usize> =
            genuine().map(|pair| pair.first).chain(lost.iter().copied()).map(person).collect();
        Self {
            name: name.to_owned(),
            people: people.len(),
            photos: found.count(),
            impostor: all
                .impostor
                .iter()
                .filter(|pair| within(pair.first, pair.second))
                .map(|pair| (pair.similarity, [person(pair.first), person(pair.second)]))
                .collect(),
            genuine: genuine().map(|pair| pair.similarity).collect(),
            lost: lost.len(),
            paired: paired.len(),
        }
    }

    /// Number of impostor pairs.
    pub fn pairs(&self) -> usize {
        self.impostor.len()
    }

    /// The similarities without the people.
    pub fn scores(&self) -> Scores {
        let impostor = self.impostor.iter().map(|(similarity, _)| *similarity).collect();
        Scores::new(self.genuine.clone(), impostor, self.lost)
    }

    /// Rates at a threshold for the stated false accept rate.
    ///
    /// The intervals are Wilson's, for fewer trials than there are pairs, because pairs
    /// that share a person are not independent: a face that resembles many makes many pairs
    /// pass. Of the impostor pairs that pass, only those count that share nobody with a
    /// more similar one, and the trials shrink in the same proportion. Genuine pairs count
    /// once per person. A bootstrap over people would need no such rule, but it has no
    /// interval where no pair passes, which in small groups is the usual case.
    pub fn at(&self, stated: f64, threshold: f32, extrapolated: bool) -> GroupRate {
        let (pairs, passed) = (self.pairs(), self.passed(threshold));
        let apart = self.apart(passed);
        let far = share(passed, pairs);
        let trials = pairs as f64 * if passed == 0 { 1.0 } else { share(apart, passed) };
        let far_interval = wilson_share(far, trials);
        let expected = stated * pairs as f64;
        // The rounding of a decimal rate must not decide.
        let enough = expected >= LEAST_EXPECTED * (1.0 - 1e-9)
            || (apart >= LEAST_APART && far_interval[0] > stated);
        let genuine = self.genuine.len() + self.lost;
        let accepted = self.genuine.partition_point(|similarity| *similarity >= threshold);
        let tar = (genuine > 0).then(|| share(accepted, genuine));
        GroupRate {
            stated,
            threshold,
            extrapolated,
            passed,
            far,
            far_interval,
            enough,
            tar,
            tar_interval: tar.map(|tar| wilson_share(tar, self.paired as f64)),
        }
    }

    /// Rates at each threshold of a table, the highest stated rate first.
    pub fn at_all(&self, table: &ThresholdTable) -> Vec<GroupRate> {
        let at = |(far, threshold): &(f64, f32)| {
            self.at(*far, *threshold, table.for_pair(*far).extrapolated)
        };
        table.points().iter().map(at).collect()
    }

    /// The threshold at which the group keeps the stated rate, if `threshold` is too low for
    /// that and the group has enough pairs to say so. One pair may always pass: it may be
    /// one person under two names.
    pub fn asks(&self, stated: f64, threshold: f32) -> Option<f32> {
        if !self.at(stated, threshold, false).enough {
            return None;
        }
        let allowed = ((stated * self.pairs() as f64) as usize).max(1);
        let needed = self.impostor.get(allowed)?.0.next_up();
        (needed > threshold).then_some(needed)
    }

    fn passed(&self, threshold: f32) -> usize {
        self.impostor.partition_point(|(similarity, _)| *similarity >= threshold)
    }

    /// Number of the first `passed` pairs that share nobody with a more similar one.
    fn apart(&self, passed: usize) -> usize {
        let mut seen = BTreeSet::<usize>::new();
        let new = |(_, people): &&(f32, [usize; 2])| {
            let new = people.iter().all(|person| !seen.contains(person));
            if new {
                seen.extend(people);
            }
            new
        };
        self.impostor.iter().take(passed).filter(new).count()
    }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The group whose false accept rate is highest in proportion to the stated one, among
/// groups with enough pairs and rates that are not extrapolated. Returns its index and that
/// of its rate; `None` if no group has enough pairs. At equal rates the upper end of the
/// interval decides.
pub fn worst<'r>(groups: impl IntoIterator<Item = &'r [GroupRate]>) -> Option<[usize; 2]> {
    let rates = groups
        .into_iter()
        .enumerate()
        .flat_map(|(group, rates)| rates.iter().enumerate().map(move |(at, r)| ([group, at], r)));
    let judged = rates.filter(|(_, rate)| rate.enough && !rate.extrapolated);
    let key = |rate: &GroupRate| [rate.times_stated(), rate.far_interval[1] / rate.stated];
    judged
        .max_by(|(_, a), (_, b)| {
            let ([a, a_high], [b, b_high]) = (key(a), key(b));
            a.total_cmp(&b).then(a_high.total_cmp(&b_high))
        })
        .map(|(place, _)| place)
}

/// [`worst`] of these groups at the thresholds of a table, in the form of the manifest.
/// `data` names the data set.
pub fn worst_of(groups: &[Group], table: &ThresholdTable, data: &str) -> Option<WorstGroup> {
    let rates: Vec<Vec<GroupRate>> = groups.iter().map(|group| group.at_all(table)).collect();
    let [group, at] = worst(rates.iter().map(Vec::as_slice))?;
    Some(record(&groups[group], &rates[group][at], data))
}

/// A group's rate in the form of the manifest.
pub fn record(group: &Group, rate: &GroupRate, data: &str) -> WorstGroup {
    WorstGroup {
        name: group.name.clone(),
        stated: format!("{:e}", rate.stated),
        measured: rate.far,
        low: rate.far_interval[0],
        high: rate.far_interval[1],
        pairs: group.pairs() as u64,
        people: group.people,
        data: data.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A group of one photo per person whose impostor pairs have these similarities, in any
    /// order, each pair of people of its own unless `hub` puts one person into all of them.
    pub(crate) fn group(name: &str, mut similarities: Vec<f32>, hub: bool) -> Group {
        similarities.sort_by(|a, b| b.total_cmp(a));
        let people = |at: usize| if hub { [0, at + 1] } else { [2 * at, 2 * at + 1] };
        Group {
            name: name.to_owned(),
            people: 10,
            photos: 10,
            impostor: similarities.into_iter().enumerate().map(|(at, s)| (s, people(at))).collect(),
            genuine: vec![],
            lost: 0,
            paired: 0,
        }
    }

    /// `high` similarities of 0.6 and the rest of 0.1.
    fn two_kinds(high: usize, all: usize, hub: bool) -> Group {
        group("made up", (0..all).map(|at| if at < high { 0.6 } else { 0.1 }).collect(), hub)
    }

    #[test]
    fn pairs_are_counted_within_the_group_alone() {
        use crate::measure::comparisons::tests::{compared, crowd};
        let faces = crowd(9, 3, 1.2);
        let all = compared(&faces);
        // People 0, 2, 4, 6 and 8.
        let even = Group::of("even", &all, |face| (face / 3) % 2 == 0);
        assert_eq!((even.people, even.photos, even.pairs()), (5, 15, 10 * 9));
        let scores = all.scores_of(|a, b| (a / 3) % 2 == 0 && (b / 3) % 2 == 0);
        assert_eq!(even.scores().impostor, scores.impostor);
        assert_eq!(even.scores().genuine, scores.genuine);
        let rate = even.at(1e-1, 0.5, false);
        assert!((rate.far - scores.false_accept_rate(0.5)).abs() < 1e-12);
        assert_eq!(rate.tar, Some(scores.true_accept_rate_above(0.5)));
        let [low, high] = rate.tar_interval.expect("an interval");
        assert!(low <= scores.true_accept_rate_above(0.5) && high >= low);
    }

    #[test]
    fn a_group_has_enough_pairs_if_five_may_pass_or_an_excess_is_plain() {
        // Pairs that pass, all pairs, whether they share a person, and the verdict at 1e-3.
        let cases = [
            (0, 5000, false, true),
            (0, 4999, false, false),
            // Twice as many as expected show nothing, five times as many do.
            (2, 1000, false, false),
            (5, 1000, false, true),
            // One person who resembles many is one finding.
            (5, 1000, true, false),
            // A single pair may be one person under two names.
            (1, 10, false, false),
        ];
        for (passed, pairs, hub, enough) in cases {
            let rate = two_kinds(passed, pairs, hub).at(1e-3, 0.5, false);
            assert_eq!(rate.enough, enough, "{passed} of {pairs}: {rate:?}");
            assert_eq!(rate.passed, passed);
        }
    }

    #[test]
    fn a_group_asks_for_the_threshold_at_which_it_keeps_the_rate() {
        let spread = |count: usize| (0..count).map(|at| at as f32 / count as f32).collect();
        let large = group("large", spread(10_000), false);
        let asked = large.asks(1e-3, 0.5).expect("a threshold");
        assert_eq!(large.at(1e-3, asked, false).passed, 10);
        assert_eq!(large.asks(1e-3, asked), None);
        // Ten of 1,000 pairs pass where one may: one still passes afterwards.
        let small = group("small", spread(1000), false);
        let asked = small.asks(1e-4, 0.99).expect("a threshold");
        assert_eq!(small.at(1e-4, asked, false).passed, 1);
        assert_eq!(group("tiny", spread(20), false).asks(1e-3, 0.99), None);
        assert_eq!(group("empty", vec![], false).asks(1e-3, 0.5), None);
    }

    #[test]
    fn the_worst_group_is_that_of_the_highest_ratio_that_can_be_shown() {
        let groups = [
            two_kinds(20, 20_000, false),
            two_kinds(15, 10_000, false),
            // Too few pairs to be judged, whatever their rate.
            two_kinds(1, 100, false),
        ];
        let rates: Vec<Vec<GroupRate>> =
            groups.iter().map(|group| vec![group.at(1e-3, 0.5, false)]).collect();
        let all = || rates.iter().map(Vec::as_slice);
        assert_eq!(worst(all()), Some([1, 0]));
        assert_eq!(worst(all().skip(2)), None);
        assert_eq!(worst([]), None);
        let extrapolated = [groups[1].at(1e-3, 0.5, true)];
        assert_eq!(worst([extrapolated.as_slice()]), None);
        let written = record(&groups[1], &rates[1][0], "made up");
        assert_eq!((written.stated.as_str(), written.pairs), ("1e-3", 10_000));
        assert!(written.low < written.measured && written.measured < written.high);
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_rate(
            passed in 0usize..30, more in 0usize..3000, hub in any::<bool>(), far in 1e-5f64..0.5,
        ) {
            let rate = two_kinds(passed, passed + more, hub).at(far, 0.5, false);
            let [low, high] = rate.far_interval;
            prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
            prop_assert!(low <= rate.far && rate.far <= high, "{rate:?}");
        }

        #[test]
        fn what_a_group_asks_for_is_stricter_and_settles_it(
            values in prop::collection::vec(0u16..1000, 0..300), far in 1e-3f64..0.3,
            threshold in 0.0f32..1.0,
        ) {
            let group = group("any", values.iter().map(|v| f32::from(*v) / 1000.0).collect(), false);
            if let Some(asked) = group.asks(far, threshold) {
                prop_assert!(asked > threshold);
                let passed = group.at(far, asked, false).passed;
                prop_assert!(passed <= 1 || passed as f64 <= far * group.pairs() as f64);
                prop_assert_eq!(group.asks(far, asked), None);
            }
        }
    }
}
