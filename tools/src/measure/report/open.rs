//! Open set: evaluation on people who are not in the training data, by verification (do two
//! faces show the same person?), identification (search in a gallery) and likelihood ratio.

use super::breakdown::{Between, Group, Groups, Person, WorstPair, groups, per_person, worst};
use super::subjects::Subjects;
use crate::measure::comparisons::Comparisons;
use crate::measure::identification::{Searches, Settings};
use crate::measure::likelihood::{self, Line};
use crate::measure::metrics::{AtThreshold, Scores, at_thresholds};
use anyhow::{Result, bail};
use facelatch::models::groups::WorstGroup;
use facelatch::models::likelihood::Likelihood;
use facelatch::models::threshold::ThresholdTable;
use serde::Serialize;

/// False accept rates in the report, if they can be measured.
pub const RATES: [f64; 6] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
/// False positive identification rates in the report.
const SEARCH_RATES: [f64; 3] = [1e-1, 1e-2, 1e-3];
/// Number of events needed for a reliable rate (Doddington's "rule of 30").
const FEWEST_EVENTS: f64 = 30.0;
/// Points of a curve per decade of rates.
const A_DECADE: i32 = 24;
/// Width of the histogram's bins, in similarity.
pub const BIN: f64 = 0.02;

/// Open-set results of a recognizer.
#[derive(Clone, Debug, Serialize)]
pub struct Open {
    /// LFW protocol over the folds of a pairs file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Verification over all pairs of photos.
    pub verification: Verification,
    /// The manifest's thresholds on these photos.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<AtThreshold>,
    /// Searches in a gallery; `None` if nobody can be enrolled or nobody is left outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identification: Option<Identification>,
    /// Likelihood ratio; `None` if no increasing line can be fitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<LikelihoodFigures>,
    /// Results within groups, if the data has groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Impostor pairs between groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub between: Vec<Between>,
    /// The group whose false accept rate is highest compared with the stated one, among
    /// groups with enough pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_group: Option<WorstGroup>,
    /// Errors per person, those with the most errors first.
    pub people: Vec<Person>,
    /// The most similar impostor pairs, at most one per two people.
    pub false_accepts: Vec<WorstPair>,
    /// The least similar genuine pairs.
    pub false_rejects: Vec<WorstPair>,
}

/// Results of the LFW protocol.
#[derive(Clone, Debug, Serialize)]
pub struct Protocol {
    /// Number of pairs.
    pub pairs: usize,
    /// Number of folds for cross-validation.
    pub folds: usize,
    /// Number of malformed rows in the pairs file.
    pub bad_rows: usize,
    /// Share of pairs classified correctly, 0..=1, mean over folds.
    pub accuracy: f64,
    /// Standard deviation of the accuracy over folds.
    pub accuracy_sd: f64,
    /// Equal error rate of these pairs, 0..=1.
    pub eer: f64,
}

/// Results of one-to-one comparisons.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Number of genuine pairs, the `lost` ones included.
    pub genuine: usize,
    /// Number of impostor pairs.
    pub impostor: usize,
    /// Number of genuine pairs with a missing face; they count as rejected.
    pub lost: usize,
    /// Equal error rate, 0..=1.
    pub eer: f64,
    /// True accept rates by false accept rate, the highest rate first.
    pub tar: Vec<TrueAccepts>,
    /// Rates of [`RATES`] at which less than one impostor pair would pass.
    pub not_measurable: Vec<f64>,
    /// Reference point for single pairs, people and groups: the lowest rate at which at
    /// least 30 impostor pairs may pass.
    pub reference: TrueAccepts,
    /// ROC curve, from no impostor pair accepted to all.
    pub curve: Vec<CurvePoint>,
    /// Numbers of genuine and of impostor pairs by similarity, in bins of [`BIN`] from -1.
    pub histogram: [Vec<u64>; 2],
}

/// A true accept rate at a false accept rate.
#[derive(Clone, Debug, Serialize)]
pub struct TrueAccepts {
    /// Upper limit of the false accept rate per pair, 0..=1.
    pub far: f64,
    /// True accept rate at that limit, 0..=1.
    pub tar: f64,
    /// 95 % bootstrap interval of `tar` over people; `None` if it could not be measured.
    pub interval: Option<[f64; 2]>,
    /// Similarity threshold (cosine).
    pub threshold: f32,
    /// Number of impostor pairs that may pass; a rate with fewer than 30 is not reliable.
    pub impostors: usize,
}

/// A point of the ROC curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// False accept rate, 0..=1.
    pub far: f64,
    /// True accept rate, 0..=1.
    pub tar: f64,
    /// Similarity threshold (cosine).
    pub threshold: f32,
}

/// Results of searches in a gallery.
#[derive(Clone, Debug, Serialize)]
pub struct Identification {
    /// Number of people enrolled.
    pub enrolled: usize,
    /// Number of templates enrolled.
    pub templates: usize,
    /// Number of people not enrolled.
    pub outside: usize,
    /// Number of searches with probes of enrolled people.
    pub mated: usize,
    /// Number of searches with probes of people not enrolled.
    pub non_mated: usize,
    /// Rank-1 rate: share of mated searches whose best match is the right person, at any
    /// similarity.
    pub rank_one: f64,
    /// False negative identification rates by false positive identification rate.
    pub fnir: Vec<FalseNegatives>,
    /// FNIR over FPIR, from the lowest FPIR to the highest.
    pub curve: Vec<SearchPoint>,
}

/// A false negative identification rate (FNIR) at a false positive identification rate
/// (FPIR).
#[derive(Clone, Debug, Serialize)]
pub struct FalseNegatives {
    /// Upper limit of the FPIR, 0..=1.
    pub fpir: f64,
    /// FNIR at that limit: share of mated searches that do not find the right person.
    pub fnir: f64,
    /// 95 % bootstrap interval of `fnir` over people; `None` if it could not be measured.
    pub interval: Option<[f64; 2]>,
    /// Similarity threshold (cosine).
    pub threshold: f32,
}

/// A point of the FNIR curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SearchPoint {
    /// False positive identification rate, 0..=1.
    pub fpir: f64,
    /// False negative identification rate, 0..=1.
    pub fnir: f64,
    /// Similarity threshold (cosine).
    pub threshold: f32,
}

/// Results of the likelihood ratio.
#[derive(Clone, Debug, Serialize)]
pub struct LikelihoodFigures {
    /// The fitted line as a manifest holds it, with its Cllr.
    #[serde(flatten)]
    pub line: Likelihood,
    /// Lowest Cllr of any increasing function of the similarity, bits (minimum Cllr).
    pub cllr_least: f64,
    /// Mean Cllr on one half of the people of a line fitted on the other half, bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cllr_others: Option<f64>,
}

/// Computes all open-set results from the comparisons of these people. `table` has the
/// thresholds to check; `data` names the data in messages.
///
/// # Errors
/// If there are no genuine or no impostor pairs.
pub fn measure(
    subjects: &Subjects,
    all: &Comparisons,
    table: Option<&ThresholdTable>,
    data: &str,
    settings: &Settings,
) -> Result<Open> {
    let scores = all.scores();
    if scores.genuine.is_empty() || scores.impostor.is_empty() {
        bail!(
            "{data}: {} genuine and {} impostor pairs, but verification needs both; add photos, several per person",
            scores.genuine.len(),
            scores.impostor.len()
        );
    }
    let verification = verification(all, &scores, settings.seed);
    let reference = &verification.reference;
    let (threshold, at) = (reference.threshold, (reference.far, reference.threshold));
    let Groups { alone, between, worst: worst_group } = groups(subjects, all, at, table, data);
    let (false_accepts, false_rejects) = worst(subjects, all, threshold);
    Ok(Open {
        protocol: None,
        thresholds: table.map_or(vec![], |table| at_thresholds(table, &scores)),
        identification: Searches::run(&subjects.shown(), settings)
            .map(|searches| identification(&searches, settings.seed)),
        likelihood: likelihood_figures(all, &scores, data)
            .inspect_err(|error| log::warn!("{data}: no likelihood ratio: {error:#}"))
            .ok(),
        groups: alone,
        between,
        worst_group,
        people: per_person(subjects, all, threshold),
        false_accepts,
        false_rejects,
        verification,
    })
}

fn verification(all: &Comparisons, scores: &Scores, seed: i64) -> Verification {
    let pairs = scores.impostor.len() as f64;
    // A rate at which less than one impostor pair would pass cannot be measured.
    let (rates, not_measurable): (Vec<f64>, Vec<f64>) =
        RATES.into_iter().partition(|far| far * pairs >= 1.0);
    let point = |far: f64, interval: Option<[f64; 2]>| TrueAccepts {
        far,
        tar: scores.true_accept_rate(far),
        interval,
        threshold: scores.threshold_at(far),
        impostors: (far * pairs).floor() as usize,
    };
    let tar: Vec<TrueAccepts> = rates
        .iter()
        .zip(all.intervals(&rates, seed))
        .map(|(far, interval)| point(*far, interval))
        .collect();
    let reliable = tar.iter().rev().find(|point| point.far * pairs >= FEWEST_EVENTS);
    let reference = reliable.or(tar.last()).cloned().unwrap_or_else(|| point(RATES[0], None));
    let curve = rates_to_draw(pairs)
        .into_iter()
        .map(|far| {
            let threshold = scores.threshold_at(far);
            CurvePoint {
                far: scores.false_accept_rate(threshold),
                tar: scores.true_accept_rate_above(threshold),
                threshold,
            }
        })
        .collect();
    Verification {
        genuine: scores.genuine.len() + scores.genuine_lost,
        impostor: scores.impostor.len(),
        lost: scores.genuine_lost,
        eer: scores.equal_error_rate(),
        tar,
        not_measurable,
        reference,
        curve,
        histogram: [&scores.genuine, &scores.impostor].map(|similarities| {
            let mut bins = vec![0; (2.0 / BIN).round() as usize];
            let last = bins.len() - 1;
            for similarity in similarities {
                bins[(((f64::from(*similarity) + 1.0) / BIN) as usize).min(last)] += 1;
            }
            bins
        }),
    }
}

/// Rates of a curve: 0, then from one event to all `events`, at equal logarithmic steps.
fn rates_to_draw(events: f64) -> Vec<f64> {
    let decades = events.max(1.0).log10();
    let steps = (decades * f64::from(A_DECADE)).ceil() as i32;
    let mut rates: Vec<f64> =
        (0..=steps).map(|step| 10f64.powf(-f64::from(step) / f64::from(A_DECADE))).collect();
    rates.push(0.0);
    rates.reverse();
    // Keep one rate per whole number of events.
    rates.dedup_by_key(|far| (*far * events).floor() as u64);
    rates
}

fn identification(searches: &Searches, seed: i64) -> Identification {
    let events = searches.non_mated.len() as f64;
    let rates: Vec<f64> = SEARCH_RATES.into_iter().filter(|rate| rate * events >= 1.0).collect();
    let fnir =
        rates.iter().zip(searches.intervals(&rates, seed)).map(|(fpir, interval)| FalseNegatives {
            fpir: *fpir,
            fnir: searches.false_negatives(*fpir),
            interval,
            threshold: searches.threshold_at(*fpir),
        });
    let curve = rates_to_draw(events).into_iter().map(|rate| {
        let threshold = searches.threshold_at(rate);
        SearchPoint {
            fpir: searches.false_positives_above(threshold),
            fnir: searches.false_negatives_above(threshold),
            threshold,
        }
    });
    Identification {
        enrolled: searches.enrolled,
        templates: searches.templates,
        outside: searches.outside,
        mated: searches.mated.len(),
        non_mated: searches.non_mated.len(),
        rank_one: 1.0 - searches.false_negatives_above(-1.0),
        fnir: fnir.collect(),
        curve: curve.collect(),
    }
}

fn likelihood_figures(all: &Comparisons, scores: &Scores, data: &str) -> Result<LikelihoodFigures> {
    let line = likelihood::measured(all, scores, data)?;
    // Cross-validation: fit on every other person, measure on the rest.
    let half =
        |odd: usize| all.scores_of(|a, b| all.people[a] % 2 == odd && all.people[b] % 2 == odd);
    let mut costs = Vec::new();
    for (fitted, asked) in [(0, 1), (1, 0)] {
        let (fitted, asked) = (half(fitted), half(asked));
        if let Ok(line) = Line::fit(&fitted)
            && let Some([low, high]) = likelihood::bounds(&line, &fitted)
            && !asked.genuine.is_empty()
            && !asked.impostor.is_empty()
        {
            let within = |s: f32| line.at(s.clamp(low as f32, high as f32));
            costs.push(likelihood::cost(&asked, within));
        }
    }
    Ok(LikelihoodFigures {
        cllr_least: likelihood::least_cost(scores),
        cllr_others: (costs.len() == 2).then(|| (costs[0] + costs[1]) / 2.0),
        line,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::subjects::Face;
    use super::*;
    use crate::measure::comparisons::tests::crowd;

    pub(crate) const SETTINGS: Settings = Settings { enrolled: 1, outside: 0.5, seed: 1 };

    pub(crate) fn measured(people: usize, photos: usize, width: f64) -> Result<Open> {
        let subjects = subjects(people, photos, width);
        measure(&subjects, &subjects.compare("made up")?, None, "made up", &SETTINGS)
    }

    /// A crowd with names; every other person is of one group.
    pub(crate) fn subjects(people: usize, photos: usize, width: f64) -> Subjects {
        let faces = crowd(people, photos, width)
            .into_iter()
            .enumerate()
            .map(|(at, (person, embedding))| Face {
                name: format!("person {person}/{at}.png"),
                person,
                group: Some(person % 2),
                embedding: Some(embedding),
            })
            .collect();
        Subjects {
            people: (0..people).map(|person| format!("person {person}")).collect(),
            groups: vec!["even".to_owned(), "odd".to_owned()],
            faces,
        }
    }

    #[test]
    fn a_crowd_is_measured_in_all_ways() {
        let open = measured(30, 4, 0.9).expect("figures");
        let verification = &open.verification;
        assert_eq!((verification.genuine, verification.impostor), (30 * 6, 30 * 29 / 2 * 16));
        assert_eq!(verification.not_measurable, [1e-4, 1e-5, 1e-6]);
        assert_eq!(verification.reference.far, 1e-2);
        let curve = &verification.curve;
        assert!(curve.windows(2).all(|two| two[0].far <= two[1].far && two[0].tar <= two[1].tar));
        assert_eq!((curve[0].far, curve[curve.len() - 1].far), (0.0, 1.0));
        assert_eq!(verification.histogram[0].iter().sum::<u64>(), 180);
        let found = open.identification.as_ref().expect("searches");
        assert_eq!((found.enrolled, found.outside), (15, 15));
        assert!(found.curve.windows(2).all(|two| two[0].fnir >= two[1].fnir));
        let likelihood = open.likelihood.as_ref().expect("a line");
        assert!(likelihood.cllr_least <= likelihood.line.cllr);
        assert!(likelihood.cllr_others.is_some());
        // People and pairs give the same number of errors.
        let rejects: usize = open.people.iter().map(|person| person.false_rejects).sum();
        assert_eq!(rejects as f64 / 180.0, 1.0 - verification.reference.tar);
        assert_eq!(
            open.false_rejects.iter().filter(|pair| pair.wrong).count(),
            rejects.min(open.false_rejects.len())
        );
    }

    #[test]
    fn groups_and_the_pairs_between_them_are_all_pairs() {
        let open = measured(11, 3, 0.9).expect("figures");
        let within: usize = open.groups.iter().map(|group| group.impostor).sum();
        let between: usize = open.between.iter().map(|pair| pair.impostor).sum();
        assert_eq!(within + between, open.verification.impostor);
        assert_eq!(open.groups[0].people, 6);
        let genuine: usize = open.groups.iter().map(|group| group.genuine).sum();
        assert_eq!(genuine, open.verification.genuine);
        // Without thresholds, groups are judged at the reference threshold.
        let reference = &open.verification.reference;
        for group in &open.groups {
            let rate = &group.rates[0];
            assert_eq!((group.rates.len(), rate.threshold), (1, reference.threshold));
            assert_eq!((rate.far, rate.tar), (group.far, Some(group.tar)));
        }
        let highest = open.groups.iter().map(|group| group.far).fold(0.0, f64::max);
        let worst = open.worst_group.as_ref().expect("both have enough pairs");
        assert_eq!((worst.measured, worst.stated.as_str()), (highest, "1e-1"));
    }

    #[test]
    fn one_person_alone_or_one_photo_each_is_refused() {
        for (people, photos) in [(1, 3), (5, 1)] {
            let error = measured(people, photos, 0.5).expect_err("too few");
            assert!(error.to_string().contains("add photos"), "{error}");
        }
    }

    #[test]
    fn rates_are_drawn_once() {
        let rates = rates_to_draw(50.0);
        assert_eq!((rates[0], rates[rates.len() - 1]), (0.0, 1.0));
        assert!(rates.windows(2).all(|two| two[0] < two[1]));
        assert!(rates.len() < 40);
    }
}
