//! Open-set results broken down by group and by person, and the worst pairs.

use super::subjects::Subjects;
use crate::measure::comparisons::{Compared, Comparisons};
use crate::measure::groups::{self, GroupRate};
use facelatch::models::groups::WorstGroup;
use facelatch::models::threshold::ThresholdTable;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Number of worst pairs shown of each kind.
const WORST: usize = 12;

/// Results within a group. TAR, FAR and EER are those of the common reference threshold.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Name of the group.
    pub group: String,
    /// Number of people.
    pub people: usize,
    /// Number of photos with a face.
    pub photos: usize,
    /// Number of genuine pairs, those with a missing face included.
    pub genuine: usize,
    /// Number of impostor pairs within the group.
    pub impostor: usize,
    /// True accept rate, 0..=1.
    pub tar: f64,
    /// False accept rate within the group, 0..=1.
    pub far: f64,
    /// Equal error rate, 0..=1, at the group's own threshold.
    pub eer: f64,
    /// Rates at the thresholds of the manifest, or at the reference threshold without any.
    pub rates: Vec<GroupRate>,
}

/// Impostor pairs across two groups, at the common reference threshold.
#[derive(Clone, Debug, Serialize)]
pub struct Between {
    /// Names of the groups.
    pub groups: [String; 2],
    /// Number of impostor pairs.
    pub impostor: usize,
    /// False accept rate, 0..=1.
    pub far: f64,
}

/// Errors of a person, at the reference threshold.
#[derive(Clone, Debug, Serialize)]
pub struct Person {
    /// Name of the person.
    pub person: String,
    /// Number of photos.
    pub photos: usize,
    /// Number of photos without a face.
    pub no_face: usize,
    /// Number of genuine pairs.
    pub genuine: usize,
    /// Number of genuine pairs rejected.
    pub false_rejects: usize,
    /// Lowest similarity of a genuine pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_alike: Option<f32>,
    /// Number of impostor pairs with this person that are accepted.
    pub false_accepts: usize,
    /// Highest similarity of an impostor pair with this person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_alike: Option<f32>,
    /// The other person of that pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_alike_to: Option<String>,
}

/// One of the worst pairs.
#[derive(Clone, Debug, Serialize)]
pub struct WorstPair {
    /// Indices of the faces in [`Subjects::faces`].
    #[serde(skip)]
    pub faces: [usize; 2],
    /// File names of the photos.
    pub photos: [String; 2],
    /// Names of the people.
    pub people: [String; 2],
    /// Cosine similarity, -1..=1.
    pub similarity: f32,
    /// Whether the decision at the reference threshold is wrong.
    pub wrong: bool,
}

/// Results within groups and between them.
pub struct Groups {
    /// Results within each group.
    pub alone: Vec<Group>,
    /// Impostor pairs between groups.
    pub between: Vec<Between>,
    /// The group whose false accept rate is highest compared with the stated one; `None` if
    /// no group has enough pairs.
    pub worst: Option<WorstGroup>,
}

/// Results within groups and between them, at the reference point `(far, threshold)` and at
/// the thresholds of `table`. `data` names the data set.
pub fn groups(
    subjects: &Subjects,
    all: &Comparisons,
    (far, threshold): (f64, f32),
    table: Option<&ThresholdTable>,
    data: &str,
) -> Groups {
    let group = |face: usize| subjects.faces[face].group;
    let mut alone = Vec::new();
    let mut between = Vec::new();
    let mut measured = Vec::new();
    for (at, name) in subjects.groups.iter().enumerate() {
        let own = |face: usize| group(face) == Some(at);
        let within = groups::Group::of(name, all, own);
        let scores = within.scores();
        let rates = match table {
            Some(table) => within.at_all(table),
            None => vec![within.at(far, threshold, false)],
        };
        alone.push(Group {
            group: name.clone(),
            people: within.people,
            photos: within.photos,
            genuine: scores.genuine.len() + scores.genuine_lost,
            impostor: scores.impostor.len(),
            tar: scores.true_accept_rate_above(threshold),
            far: scores.false_accept_rate(threshold),
            eer: scores.equal_error_rate(),
            rates,
        });
        measured.push(within);
        for (other, other_name) in subjects.groups.iter().enumerate().skip(at + 1) {
            let theirs = |face: usize| group(face) == Some(other);
            let scores = all.scores_of(|a, b| (own(a) && theirs(b)) || (own(b) && theirs(a)));
            between.push(Between {
                groups: [name.clone(), other_name.clone()],
                impostor: scores.impostor.len(),
                far: scores.false_accept_rate(threshold),
            });
        }
    }
    let worst = groups::worst(alone.iter().map(|group| group.rates.as_slice()));
    let worst = worst
        .map(|[group, rate]| groups::record(&measured[group], &alone[group].rates[rate], data));
    Groups { alone, between, worst }
}

/// Errors of each person at a threshold. People with the most errors come first; ties are
/// ordered by the highest impostor similarity.
pub fn per_person(subjects: &Subjects, all: &Comparisons, threshold: f32) -> Vec<Person> {
    let mut people: BTreeMap<usize, Person> = BTreeMap::new();
    for (at, face) in subjects.faces.iter().enumerate() {
        let person = people.entry(face.person).or_insert_with(|| Person {
            person: subjects.people[face.person].clone(),
            photos: 0,
            no_face: 0,
            genuine: 0,
            false_rejects: 0,
            least_alike: None,
            false_accepts: 0,
            most_alike: None,
            most_alike_to: None,
        });
        person.photos += 1;
        person.no_face += usize::from(!all.found[at]);
    }
    // Pairs are sorted by descending similarity: the least similar genuine pair comes last,
    // the most similar impostor pair first.
    for pair in &all.genuine {
        if let Some(person) = people.get_mut(&all.people[pair.first as usize]) {
            person.genuine += 1;
            person.false_rejects += usize::from(pair.similarity < threshold);
            person.least_alike = Some(pair.similarity);
        }
    }
    for [first, _] in &all.lost {
        if let Some(person) = people.get_mut(&all.people[*first as usize]) {
            person.genuine += 1;
            person.false_rejects += 1;
        }
    }
    for pair in &all.impostor {
        let [a, b] = [pair.first, pair.second].map(|face| all.people[face as usize]);
        for (own, other) in [(a, b), (b, a)] {
            if let Some(person) = people.get_mut(&own) {
                person.false_accepts += usize::from(pair.similarity >= threshold);
                if person.most_alike.is_none() {
                    person.most_alike = Some(pair.similarity);
                    person.most_alike_to = Some(subjects.people[other].clone());
                }
            }
        }
    }
    let mut people: Vec<Person> = people.into_values().collect();
    let trouble = |person: &Person| person.false_rejects + person.false_accepts;
    people.sort_by(|a, b| {
        let closest = |person: &Person| person.most_alike.unwrap_or(-1.0);
        trouble(b).cmp(&trouble(a)).then(closest(b).total_cmp(&closest(a)))
    });
    people
}

/// The most similar impostor pairs, at most one per two people, and the least similar
/// genuine pairs.
pub fn worst(
    subjects: &Subjects,
    all: &Comparisons,
    threshold: f32,
) -> (Vec<WorstPair>, Vec<WorstPair>) {
    let told = |pair: &Compared, wrong: bool| {
        let faces = [pair.first as usize, pair.second as usize];
        let of = |at: usize| &subjects.faces[at];
        WorstPair {
            faces,
            photos: faces.map(|at| of(at).name.clone()),
            people: faces.map(|at| subjects.people[of(at).person].clone()),
            similarity: pair.similarity,
            wrong,
        }
    };
    let mut seen = BTreeSet::new();
    let people = |pair: &&Compared| {
        let [a, b] = [pair.first, pair.second].map(|at| all.people[at as usize]);
        seen.insert((a.min(b), a.max(b)))
    };
    let accepts = all.impostor.iter().filter(people).take(WORST);
    let rejects = all.genuine.iter().rev().take(WORST);
    (
        accepts.map(|pair| told(pair, pair.similarity >= threshold)).collect(),
        rejects.map(|pair| told(pair, pair.similarity < threshold)).collect(),
    )
}
