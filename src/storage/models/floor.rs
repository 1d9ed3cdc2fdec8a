//! What a door measures itself before it takes a set: how alike the set finds people who are
//! not the same. A threshold must not admit them, whatever the manifest says of it.

use crate::access::gallery::PersonId;
use crate::models::threshold::{ThresholdTable, pair_rate};
use crate::storage::gallery::{Store, StoreError};
use crate::vision::embed::Template;
use crate::vision::face_picture::FacePicture;
use crate::vision::impostors::Impostors;
use crate::vision::recognizer::Recognizer;
use std::fmt;

/// Most people who are compared, and most pictures of each: a thousand embeddings take some
/// seconds on a board.
const MOST_PEOPLE: usize = 250;
const MOST_PICTURES: usize = 4;
/// Chance at which more pairs of people than the stated rate explains count as a fault.
const SIGNIFICANCE: f64 = 0.01;
/// How many times the stated rate is still no fault, as for groups of people.
const ALLOWED_TIMES: f64 = crate::models::groups::MOST_TIMES;

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    /// The impostors that the program brings along.
    pub built_in: Impostors,
    /// The gallery's people against each other. `None` if there are not two of them with
    /// kept pictures.
    pub gallery: Option<Neighbours>,
}

/// The gallery's people against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// Number of people with kept pictures, at most 250.
    pub people: usize,
    /// Number of their pictures.
    pub pictures: usize,
    /// Number of pairs of pictures of different people.
    pub pairs: usize,
    /// Highest similarity of such a pair.
    pub highest: f32,
    /// Pairs of people of whom one would be taken for the other, without those in `known`.
    pub alike: Vec<(String, String)>,
    /// Number of pairs of people whom the set in use takes for one another as well.
    pub known: usize,
    /// Most such pairs that the stated rate explains.
    pub allowed: usize,
}

/// A person with embedded pictures.
pub(super) struct Face {
    name: String,
    id: PersonId,
    stricter: f32,
    pictures: Vec<FacePicture>,
    templates: Vec<Template>,
}

/// Reads and embeds the kept pictures of people evenly spread over the gallery.
pub(super) fn faces(store: &Store, recognizer: &mut Recognizer) -> Result<Vec<Face>, StoreError> {
    let people = store.people()?;
    let every = people.len().div_ceil(MOST_PEOPLE).max(1);
    let mut faces = Vec::new();
    for person in people.into_iter().step_by(every) {
        let mut pictures = store.pictures(person.id)?;
        pictures.truncate(MOST_PICTURES);
        let embedded = pictures.iter().filter_map(|picture| recognizer.embed_picture(picture).ok());
        let templates: Vec<Template> = embedded.collect();
        if !templates.is_empty() {
            let stricter = person.traits.stricter;
            faces.push(Face { name: person.name, id: person.id, stricter, pictures, templates });
        }
    }
    Ok(faces)
}

/// Compares all people with each other at the similarity that a door asks for. `in_use` is
/// the recognizer of the set in use with its similarity: whom it takes for one another too,
/// such as twins, is no fault of the new set.
pub(super) fn compare(
    faces: &[Face],
    (similarity, rate): (f32, f64),
    mut in_use: Option<(&mut Recognizer, f32)>,
) -> Option<Neighbours> {
    if faces.len() < 2 {
        return None;
    }
    let (mut pairs, mut highest, mut known, mut alike) = (0, -1f32, 0, Vec::new());
    for (at, one) in faces.iter().enumerate() {
        for other in &faces[at + 1..] {
            let best = closest(&one.templates, &other.templates);
            pairs += one.templates.len() * other.templates.len();
            highest = highest.max(best);
            // A person with look-alikes has a higher threshold.
            if best < similarity + one.stricter.min(other.stricter) {
                continue;
            }
            let is_known = match &mut in_use {
                Some((recognizer, asked)) => now_alike(recognizer, one, other, *asked),
                None => false,
            };
            match is_known {
                true => known += 1,
                false => alike.push((one.name.clone(), other.name.clone())),
            }
        }
    }
    let pictures = faces.iter().map(|face| face.templates.len()).sum();
    let allowed = most_expected(ALLOWED_TIMES * rate * pairs as f64);
    Some(Neighbours { people: faces.len(), pictures, pairs, highest, alike, known, allowed })
}

fn now_alike(recognizer: &mut Recognizer, one: &Face, other: &Face, similarity: f32) -> bool {
    let mut embed = |face: &Face| -> Vec<Template> {
        face.pictures.iter().filter_map(|picture| recognizer.embed_picture(picture).ok()).collect()
    };
    one.id != other.id
        && closest(&embed(one), &embed(other)) >= similarity + one.stricter.min(other.stricter)
}

fn closest(one: &[Template], other: &[Template]) -> f32 {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| a.similarity(b)));
    // What cannot be compared must not pass.
    pairs.map(|found| found.unwrap_or(1.0)).fold(-1.0, f32::max)
}

/// The largest number that a Poisson variable of this mean exceeds with a chance of
/// [`SIGNIFICANCE`] at most.
fn most_expected(mean: f64) -> usize {
    let mut probability = (-mean).exp();
    let mut at_most = probability;
    let mut count = 0;
    // With a thousand people the mean is about one; the limit ends a senseless one.
    while 1.0 - at_most > SIGNIFICANCE && count < 10_000 {
        count += 1;
        probability *= mean / count as f64;
        at_most += probability;
    }
    count
}

impl Floor {
    /// Checks the thresholds of a set. `asked` is the similarity that this door asks for.
    ///
    /// # Errors
    /// Which threshold is too low, and the cure.
    pub(super) fn check(&self, table: &ThresholdTable, asked: f32) -> Result<(), String> {
        let Impostors { highest, pairs } = self.built_in;
        let cure = "measure the thresholds again with facelatch-tools calibrate";
        let low = table.points().iter().find(|(_, similarity)| *similarity <= highest);
        if let Some((rate, similarity)) = low {
            return Err(format!(
                "the threshold for a false accept rate of {rate:e} is {similarity:.3}, but two different people reach {highest:.3} here ({pairs} built-in impostor pairs): it would let strangers in; {cure}"
            ));
        }
        if asked.is_nan() || asked <= highest {
            return Err(format!(
                "this door would ask for a similarity of {asked:.3}, which two different people reach here ({highest:.3} in {pairs} built-in impostor pairs); {cure}"
            ));
        }
        let Some(Neighbours { people, pairs, alike, allowed, .. }) = &self.gallery else {
            return Ok(());
        };
        if alike.len() > *allowed {
            let shown: Vec<String> =
                alike.iter().take(3).map(|(one, other)| format!("{one} and {other}")).collect();
            return Err(format!(
                "it takes {} pairs of the {people} people enrolled here for one another at the similarity that this door asks for, {asked:.3}: {}; its stated rate explains at most {allowed} in {pairs} pairs of pictures; {cure}, on people like those at this door",
                alike.len(),
                shown.join(", ")
            ));
        }
        Ok(())
    }
}

/// One line.
impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Impostors { highest, pairs } = self.built_in;
        write!(f, "different people reach {highest:.3} in {pairs} built-in pairs")?;
        match &self.gallery {
            None => f.write_str("; fewer than two people with kept pictures to compare"),
            Some(Neighbours { people, pictures, highest, alike, known, allowed, .. }) => {
                write!(
                    f,
                    " and {highest:.3} among {people} people enrolled ({pictures} pictures); {} pairs of people taken for one another, {allowed} allowed",
                    alike.len()
                )?;
                if *known > 0 {
                    write!(f, ", and {known} that the set in use confuses too")?;
                }
                Ok(())
            }
        }
    }
}

/// A threshold that is lower than that of the set in use.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// Similarity that this door asks for with the set in use.
    pub before: f32,
    /// Similarity that it would ask for with the new set.
    pub after: f32,
    /// False accept rate per attempt that the door is configured for, which both state.
    pub stated: f64,
    /// False accept rate per attempt of the lower similarity by the thresholds of the set in
    /// use.
    pub by_set_in_use: f64,
    /// Whether the rate is at least this, because the table of the set in use ends there.
    pub at_least: bool,
    /// Whether both sets have the same recognizer, so that their similarities mean the same.
    pub same_network: bool,
}

impl Lowered {
    /// Compares two sets at a false accept rate per attempt over this many templates. `None`
    /// if the threshold is not lowered.
    pub(super) fn of(
        before: &ThresholdTable,
        after: &ThresholdTable,
        (stated, templates): (f64, usize),
        same_network: bool,
    ) -> Option<Self> {
        use crate::models::threshold::attempt_rate;
        let [old, new] =
            [before, after].map(|table| table.for_attempt(stated, templates).similarity);
        // Floating point must not make the same thresholds lower ones.
        if new >= old - 1e-4 {
            return None;
        }
        let pair = before.rate_at(new);
        let highest = before.points().first().map_or(1.0, |(rate, _)| *rate);
        Some(Self {
            before: old,
            after: new,
            stated,
            by_set_in_use: attempt_rate(pair, templates),
            at_least: pair >= highest * (1.0 - 1e-9),
            same_network,
        })
    }
}

impl fmt::Display for Lowered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, after, stated, by_set_in_use, at_least, same_network } = self;
        let least = if *at_least { "at least " } else { "" };
        write!(
            f,
            "this door would ask for a similarity of {after:.3} instead of {before:.3}; both sets state a false accept rate of {stated:.0e} per attempt for it, and by the thresholds of the set in use {after:.3} means {least}{by_set_in_use:.1e}"
        )?;
        match same_network {
            true => f.write_str("; both have the same recognizer, so this is the rate to expect"),
            false => f.write_str("; the recognizers differ, so the similarities need not compare"),
        }
    }
}

/// Rate per pair at which this many templates are compared.
pub(super) fn per_pair(attempt: f64, templates: usize) -> f64 {
    pair_rate(attempt, templates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Models;

    #[test]
    fn the_number_of_pairs_that_a_rate_explains() {
        for (mean, count) in [(0.0, 0), (0.001, 0), (0.05, 1), (0.5, 3), (5.0, 11)] {
            assert_eq!(most_expected(mean), count, "{mean}");
        }
        assert!(most_expected(f64::NAN) <= 10_000);
    }

    #[test]
    fn thresholds_must_exceed_what_different_people_reach() {
        let table = Models::built_in().expect("models").thresholds().expect("thresholds");
        let floor = |highest| Floor { built_in: Impostors { highest, pairs: 9 }, gallery: None };
        assert_eq!(floor(0.2).check(&table, 0.5), Ok(()));
        let fault = floor(0.4).check(&table, 0.5).expect_err("too low");
        assert!(fault.contains("1e-2 is 0.360") && fault.contains("calibrate"), "{fault}");
        assert!(floor(0.2).check(&table, 0.1).is_err());
        assert!(floor(0.2).check(&table, f32::NAN).is_err());
    }

    #[test]
    fn people_taken_for_one_another_are_named() {
        let table = Models::built_in().expect("models").thresholds().expect("thresholds");
        let pair = || ("Ada".to_owned(), "Eve".to_owned());
        let neighbours = |alike, allowed| Neighbours {
            people: 9,
            pictures: 9,
            pairs: 36,
            highest: 0.7,
            alike,
            known: 1,
            allowed,
        };
        let built_in = Impostors { highest: 0.2, pairs: 9 };
        let floor = |gallery| Floor { built_in, gallery: Some(gallery) };
        assert_eq!(floor(neighbours(vec![pair()], 1)).check(&table, 0.5), Ok(()));
        let fault = floor(neighbours(vec![pair()], 0)).check(&table, 0.5).expect_err("alike");
        assert!(fault.contains("Ada and Eve") && fault.contains("0.500"), "{fault}");
    }

    #[test]
    fn a_lowered_threshold_is_given_in_numbers() {
        let before = Models::built_in().expect("models").thresholds().expect("thresholds");
        let lower = before.points().iter().map(|(rate, similarity)| (*rate, similarity - 0.1));
        let after = ThresholdTable::new(lower, before.calibration().clone());
        let at = (1e-3, 1);
        assert_eq!(Lowered::of(&before, &before, at, true), None);
        assert_eq!(Lowered::of(&after, &before, at, true), None);
        let lowered = Lowered::of(&before, &after, at, true).expect("lowered");
        assert!((lowered.before - lowered.after - 0.1).abs() < 1e-4, "{lowered:?}");
        assert!((8e-3..1.1e-2).contains(&lowered.by_set_in_use), "{lowered:?}");
        let text = lowered.to_string();
        assert!(text.contains("0.366 instead of 0.466") && text.contains("1e-3"), "{text}");
    }
}
