//! The same figures apart: by group, by person, and the pairs to look at.

use super::open::Subjects;
use crate::measure::comparisons::{Compared, Comparisons};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Pairs shown of the worst of each kind.
const WORST: usize = 12;

/// A group, at the reference threshold of all.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Name.
    pub group: String,
    /// People.
    pub people: usize,
    /// Photos with a face.
    pub photos: usize,
    /// Genuine pairs.
    pub genuine: usize,
    /// Pairs of two of its people.
    pub impostor: usize,
    /// Share of genuine pairs accepted.
    pub tar: f64,
    /// Share of its impostor pairs accepted.
    pub far: f64,
    /// Equal error rate, at a threshold of its own.
    pub eer: f64,
}

/// Pairs of two people of two groups, at the reference threshold of all.
#[derive(Clone, Debug, Serialize)]
pub struct Between {
    /// Names.
    pub groups: [String; 2],
    /// Pairs.
    pub impostor: usize,
    /// Share accepted.
    pub far: f64,
}

/// A person, at the reference threshold.
#[derive(Clone, Debug, Serialize)]
pub struct Person {
    /// Name.
    pub person: String,
    /// Photos.
    pub photos: usize,
    /// Photos without a face.
    pub no_face: usize,
    /// Pairs of two of their photos.
    pub genuine: usize,
    /// Rejected ones.
    pub false_rejects: usize,
    /// Least similarity of two of their photos.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_alike: Option<f32>,
    /// Pairs with others that are accepted.
    pub false_accepts: usize,
    /// Most similarity with somebody else's photo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_alike: Option<f32>,
    /// Whose that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_alike_to: Option<String>,
}

/// A pair to look at.
#[derive(Clone, Debug, Serialize)]
pub struct WorstPair {
    /// Places of the faces.
    #[serde(skip)]
    pub faces: [usize; 2],
    /// Files.
    pub photos: [String; 2],
    /// Names.
    pub people: [String; 2],
    /// Cosine.
    pub similarity: f32,
    /// Whether it is told wrong at the reference threshold.
    pub wrong: bool,
}

/// Figures within groups and between them, at a threshold.
pub fn groups(
    subjects: &Subjects,
    all: &Comparisons,
    threshold: f32,
) -> (Vec<Group>, Vec<Between>) {
    let group = |face: usize| subjects.faces[face].group;
    let mut alone = Vec::new();
    let mut between = Vec::new();
    for (at, name) in subjects.groups.iter().enumerate() {
        let own = |face: usize| group(face) == Some(at);
        let scores = all.scores_of(|a, b| own(a) && own(b));
        let faces: Vec<usize> =
            (0..subjects.faces.len()).filter(|face| own(*face) && all.found[*face]).collect();
        let people: BTreeSet<usize> = faces.iter().map(|face| all.people[*face]).collect();
        alone.push(Group {
            group: name.clone(),
            people: people.len(),
            photos: faces.len(),
            genuine: scores.genuine.len() + scores.genuine_lost,
            impostor: scores.impostor.len(),
            tar: scores.true_accept_rate_above(threshold),
            far: scores.false_accept_rate(threshold),
            eer: scores.equal_error_rate(),
        });
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
    (alone, between)
}

/// Everybody at a threshold, the most troubled first.
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
    // The least alike genuine pair comes last, the most alike impostor pair first.
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

/// Pairs of two people that are most alike, one of any two people, and those of one
/// person that are least alike.
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
