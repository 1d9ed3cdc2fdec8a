//! Open set: people nobody was trained on. Are two faces of one person (verification),
//! who of a gallery is this, if anybody (identification), and what does a similarity say
//! (likelihood)?

use super::breakdown::{Between, Group, Person, WorstPair, groups, per_person, worst};
use crate::measure::comparisons::{Comparisons, MAX_FACES};
use crate::measure::identification::{Searches, Settings};
use crate::measure::likelihood::{self, Line};
use crate::measure::metrics::{AtThreshold, Scores, at_thresholds};
use anyhow::{Result, bail};
use facelatch::models::likelihood::Likelihood;
use facelatch::models::threshold::ThresholdTable;
use facelatch::vision::embed::Embedding;
use serde::Serialize;

/// False accept rates told, where they can be measured.
pub const RATES: [f64; 6] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
/// False positive identification rates told.
const SEARCH_RATES: [f64; 3] = [1e-1, 1e-2, 1e-3];
/// So many events make a rate more than a guess (Doddington's "rule of 30").
const FEWEST_EVENTS: f64 = 30.0;
/// Points of a curve a decade of rates.
const A_DECADE: i32 = 24;
/// Width of a histogram's bins, similarity.
pub const BIN: f64 = 0.02;

/// A photo.
#[derive(Clone, Debug)]
pub struct Face {
    /// File, for people to find it.
    pub name: String,
    /// Place of the person.
    pub person: usize,
    /// Place of the group, where there is one.
    pub group: Option<usize>,
    /// None where no face was found.
    pub embedding: Option<Embedding>,
}

/// People, and photos of them.
#[derive(Clone, Debug, Default)]
pub struct Subjects {
    /// Names.
    pub people: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
    /// Photos.
    pub faces: Vec<Face>,
}

/// Figures of a recognizer.
#[derive(Clone, Debug, Serialize)]
pub struct Open {
    /// Over the folds of a pairs file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Over every two photos.
    pub verification: Verification,
    /// The manifest's thresholds on these photos.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<AtThreshold>,
    /// Searches of a gallery; none where nobody has photos enough, or all have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identification: Option<Identification>,
    /// What a similarity says; none where no line rises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<LikelihoodFigures>,
    /// Groups of people, where the data names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Impostors of two groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub between: Vec<Between>,
    /// Everybody, the most troubled first.
    pub people: Vec<Person>,
    /// Pairs of two people that are most alike, one of any two people.
    pub false_accepts: Vec<WorstPair>,
    /// Pairs of one person that are least alike.
    pub false_rejects: Vec<WorstPair>,
}

/// LFW's protocol.
#[derive(Clone, Debug, Serialize)]
pub struct Protocol {
    /// Pairs told.
    pub pairs: usize,
    /// Folds.
    pub folds: usize,
    /// Rows of the file that are no pair.
    pub bad_rows: usize,
    /// Share of pairs told right, mean over folds.
    pub accuracy: f64,
    /// Standard deviation over folds.
    pub accuracy_sd: f64,
    /// Equal error rate of these pairs.
    pub eer: f64,
}

/// Two faces compared once.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Pairs of one person.
    pub genuine: usize,
    /// Pairs of two people.
    pub impostor: usize,
    /// Genuine pairs in which a face was missing; they count as rejected.
    pub lost: usize,
    /// Equal error rate.
    pub eer: f64,
    /// True accept rates.
    pub tar: Vec<TrueAccepts>,
    /// Rates of [`RATES`] that no impostor pair stands for.
    pub not_measurable: Vec<f64>,
    /// Where single pairs, people and groups are judged: the lowest of the rates that 30
    /// impostor pairs stand for.
    pub reference: TrueAccepts,
    /// From no impostor accepted to all.
    pub curve: Vec<CurvePoint>,
    /// Genuine and impostor pairs by similarity, in bins of [`BIN`] from -1.
    pub histogram: [Vec<u64>; 2],
}

/// A true accept rate.
#[derive(Clone, Debug, Serialize)]
pub struct TrueAccepts {
    /// False accept rate allowed.
    pub far: f64,
    /// True accept rate reached.
    pub tar: f64,
    /// 95 % of it over people.
    pub interval: Option<[f64; 2]>,
    /// Similarity there.
    pub threshold: f32,
    /// Impostor pairs that may pass; below 30 they are too few to rely on.
    pub impostors: usize,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// False accept rate.
    pub far: f64,
    /// True accept rate.
    pub tar: f64,
    /// Similarity.
    pub threshold: f32,
}

/// A gallery searched.
#[derive(Clone, Debug, Serialize)]
pub struct Identification {
    /// People in it.
    pub enrolled: usize,
    /// Templates in it.
    pub templates: usize,
    /// People outside.
    pub outside: usize,
    /// Searches by people in it.
    pub mated: usize,
    /// Searches by people outside.
    pub non_mated: usize,
    /// Share of mated searches that find the right one first, whatever the similarity.
    pub rank_one: f64,
    /// False negative by false positive identification rates.
    pub fnir: Vec<FalseNegatives>,
    /// False positive and false negative identification rate, threshold.
    pub curve: Vec<SearchPoint>,
}

/// A false negative identification rate.
#[derive(Clone, Debug, Serialize)]
pub struct FalseNegatives {
    /// False positive identification rate allowed.
    pub fpir: f64,
    /// Share of mated searches that miss.
    pub fnir: f64,
    /// 95 % of it over people.
    pub interval: Option<[f64; 2]>,
    /// Similarity there.
    pub threshold: f32,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SearchPoint {
    /// False positive identification rate.
    pub fpir: f64,
    /// False negative identification rate.
    pub fnir: f64,
    /// Similarity.
    pub threshold: f32,
}

/// What similarities say.
#[derive(Clone, Debug, Serialize)]
pub struct LikelihoodFigures {
    /// As the manifest would have it.
    #[serde(flatten)]
    pub line: Likelihood,
    /// The least cost any rising function could have, bits.
    pub cllr_least: f64,
    /// Cost on one half of the people of a line fitted on the other, bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cllr_others: Option<f64>,
}

impl Subjects {
    /// Compares every two faces; `data` appears in messages.
    pub fn compare(&self, data: &str) -> Result<Comparisons> {
        if self.faces.len() > MAX_FACES {
            bail!(
                "{data}: {} photos; every two of at most {MAX_FACES} can be compared, so name fewer",
                self.faces.len()
            );
        }
        Ok(Comparisons::of(&self.shown()))
    }

    fn shown(&self) -> Vec<(usize, Option<&Embedding>)> {
        self.faces.iter().map(|face| (face.person, face.embedding.as_ref())).collect()
    }
}

/// Measures everything from the comparisons of these people.
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
            "{data}: {} pairs of one person and {} of two; verification needs both, so add photos of people with several",
            scores.genuine.len(),
            scores.impostor.len()
        );
    }
    let verification = verification(all, &scores, settings.seed);
    let threshold = verification.reference.threshold;
    let (groups, between) = groups(subjects, all, threshold);
    let (false_accepts, false_rejects) = worst(subjects, all, threshold);
    Ok(Open {
        protocol: None,
        thresholds: table.map_or(vec![], |table| at_thresholds(table, &scores)),
        identification: Searches::run(&subjects.shown(), settings)
            .map(|searches| identification(&searches, settings.seed)),
        likelihood: likelihood_figures(all, &scores, data)
            .inspect_err(|error| log::warn!("{data}: no likelihood ratio: {error:#}"))
            .ok(),
        groups,
        between,
        people: per_person(subjects, all, threshold),
        false_accepts,
        false_rejects,
        verification,
    })
}

fn verification(all: &Comparisons, scores: &Scores, seed: i64) -> Verification {
    let pairs = scores.impostor.len() as f64;
    // A rate that no impostor pair stands for cannot be measured.
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

/// 0, and evenly by logarithm from one event of so many to all.
fn rates_to_draw(events: f64) -> Vec<f64> {
    let decades = events.max(1.0).log10();
    let steps = (decades * f64::from(A_DECADE)).ceil() as i32;
    let mut rates: Vec<f64> =
        (0..=steps).map(|step| 10f64.powf(-f64::from(step) / f64::from(A_DECADE))).collect();
    rates.push(0.0);
    rates.reverse();
    // Between one event and two there is no rate.
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
    // Fitted on every other person, asked about the rest.
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
        // People and pairs tell the same errors.
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
