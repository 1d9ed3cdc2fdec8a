//! The gallery: people with several templates each, and the search for the person most
//! similar to a probe.
//!
//! [`Gallery`] is the gallery in memory, used for recognition. `storage::gallery` keeps it on
//! disk.

mod alike;
mod negatives;

pub use alike::{Alike, MOST_PAIRS};
pub use negatives::{KeptOut, NEARLY};

use crate::access::schedule::DEFAULT_GROUP;
use crate::access::search::Rows;
use crate::models::threshold::Threshold;
use crate::models::{ModelId, Models, ModelsError};
use crate::vision::embed::Template;
use crate::vision::rotation::Rotation;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Number of a person, never reused, even after the person was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId(pub u32);

/// Properties of a person apart from name and face.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traits {
    /// Whether the person is an administrator, who may enroll others at the door.
    pub administrator: bool,
    /// Group, whose hours apply to the person.
    pub group: String,
    /// Similarity added to the threshold of this person, because somebody else looks very
    /// similar. From 0 up.
    pub stricter: f32,
    /// Whether the person was enrolled at the door and is refused until they get a name.
    pub probation: bool,
    /// First moment at which the person may come in, Unix seconds.
    pub valid_from: Option<i64>,
    /// First moment at which the person may not come in any more, Unix seconds.
    pub valid_until: Option<i64>,
    /// Who it is at all doors of a site; `None` for somebody of this door alone.
    pub site: Option<[u8; 16]>,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            administrator: false,
            group: DEFAULT_GROUP.to_owned(),
            stricter: 0.0,
            probation: false,
            valid_from: None,
            valid_until: None,
            site: None,
        }
    }
}

/// People and their templates in memory.
///
/// All templates lie in one row-major matrix `templates x embedding_size`, and their copies
/// in 8 bits in another. A search reads the copies sequentially and then the few templates
/// that can decide it. The rows of one person are contiguous. All templates are of one
/// model, and probes must be of the same model.
///
/// With a rotation, the rows are rotated as they are on disk, and each probe is rotated
/// before its search. Rows of another rotation are of another model by their identity.
///
/// Per template of 256 numbers, that is 1,024 bytes and 264 for the copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Gallery {
    model: ModelId,
    /// What the rows are rotated by.
    rotation: Option<Arc<Rotation>>,
    people: Vec<Person>,
    rows: Rows,
    /// Views of people who got in by mistake.
    negatives: Rows,
    /// Whether somebody's admission has a beginning or an end.
    dates: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Person {
    id: PersonId,
    name: String,
    traits: Traits,
    /// Numbers of the person's rows.
    rows: Range<usize>,
}

/// The person most similar to a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match<'g> {
    /// Number of the person.
    pub id: PersonId,
    /// Name of the person.
    pub name: &'g str,
    /// Cosine similarity to the person's best template, -1..=1.
    pub similarity: f32,
    /// Cosine similarity to the best template of all other people; -1 if there is nobody
    /// else.
    pub runner_up: f32,
    /// Similarity added to the threshold; see [`Traits::stricter`].
    pub stricter: f32,
    /// Cosine similarity to the most similar negative; -1 without negatives.
    pub negative: f32,
}

/// A template from the door with the result of its search in the gallery, which is done
/// once per frame.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'t> {
    /// The template.
    pub template: &'t Template,
    /// The most similar person; `None` if nobody is enrolled.
    pub best: Option<Candidate>,
}

/// The person most similar to a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Number of the person.
    pub person: PersonId,
    /// Cosine similarity to the person's best template, -1..=1.
    pub similarity: f32,
    /// Whether the similarity reaches the person's threshold, and no negative denies it.
    pub reaches: bool,
    /// Whether a negative denies it.
    pub denied: Denied,
}

/// Whether a negative is more similar to a probe than the most similar person, or nearly as
/// similar, so that the probe is no evidence for that person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denied {
    /// It is not.
    #[default]
    No,
    /// It is, and the person's threshold is not reached either.
    BelowThreshold,
    /// It is, and without the negative the probe would match.
    Match,
}

impl Match<'_> {
    /// Whether the similarity reaches the threshold plus [`Self::stricter`], and no negative
    /// denies it.
    pub fn reaches(&self, threshold: Threshold) -> bool {
        self.would_reach(threshold) && !self.denied()
    }

    /// The match for a decision by this threshold.
    pub fn candidate(&self, threshold: Threshold) -> Candidate {
        Candidate {
            person: self.id,
            similarity: self.similarity,
            reaches: self.reaches(threshold),
            denied: match self.denied() {
                false => Denied::No,
                true if self.would_reach(threshold) => Denied::Match,
                true => Denied::BelowThreshold,
            },
        }
    }

    fn would_reach(&self, threshold: Threshold) -> bool {
        self.similarity >= threshold.similarity + self.stricter
    }
}

impl Gallery {
    /// An empty gallery for templates of this model with `embedding_size` components.
    pub fn new(model: ModelId, embedding_size: usize) -> Self {
        let (rows, negatives) = (Rows::new(embedding_size), Rows::new(embedding_size));
        Self { model, rotation: None, people: Vec::new(), rows, negatives, dates: false }
    }

    /// The same, for rows that this rotation has rotated. It must be for embeddings of this
    /// size, and the gallery empty.
    #[must_use]
    pub fn rotated_by(self, rotation: Option<Arc<Rotation>>) -> Self {
        debug_assert!(self.rows.len() == 0);
        let rotation = rotation.filter(|rotation| rotation.size() == self.rows.size());
        Self { rotation, ..self }
    }

    /// An empty gallery for templates of the recognizer of a model set.
    ///
    /// # Errors
    /// If the set has no recognizer.
    pub fn for_models(models: &Models) -> Result<Self, ModelsError> {
        Ok(Self::new(models.recognizer_id()?, models.recognizer()?.embedding_size))
    }

    /// The model of the templates.
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// Adds a person. Templates may be rotated already, or not yet. Those of another model,
    /// rotation or size are left out; returns their number.
    pub fn add(&mut self, id: PersonId, name: &str, templates: &[Template]) -> usize {
        let first = self.rows.len();
        for template in templates {
            if let Some(values) = self.as_row(template) {
                self.rows.push(&values);
            }
        }
        let (name, traits) = (name.to_owned(), Traits::default());
        let rows = first..self.rows.len();
        let left_out = templates.len() - rows.len();
        self.people.push(Person { id, name, traits, rows });
        left_out
    }

    /// Sets the traits of a person. An invalid `stricter` means that the person is never
    /// recognized.
    pub fn set_traits(&mut self, id: PersonId, traits: Traits) {
        self.dates |= traits.valid_from.is_some() || traits.valid_until.is_some();
        // An invalid record must not make a match easier.
        let stricter = if traits.stricter >= 0.0 { traits.stricter } else { f32::INFINITY };
        for person in self.people.iter_mut().filter(|person| person.id == id) {
            person.traits = Traits { stricter, ..traits.clone() };
        }
    }

    /// Traits of a person.
    pub fn traits(&self, id: PersonId) -> Option<&Traits> {
        self.people.iter().find(|person| person.id == id).map(|person| &person.traits)
    }

    /// Number of people.
    pub fn people(&self) -> usize {
        self.people.len()
    }

    /// Whether somebody may come in only from or until a moment.
    pub fn has_dates(&self) -> bool {
        self.dates
    }

    /// Number of templates.
    pub fn templates(&self) -> usize {
        self.rows.len()
    }

    /// Templates by what is added to their threshold: [`Traits::stricter`] and the number of
    /// templates, the lowest addition first.
    pub fn strictness(&self) -> Vec<(f32, usize)> {
        // Additions are never negative, so their bits have the order of the numbers.
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for Person { traits, rows, .. } in &self.people {
            *counts.entry(traits.stricter.max(0.0).to_bits()).or_default() += rows.len();
        }
        counts.into_iter().map(|(bits, count)| (f32::from_bits(bits), count)).collect()
    }

    /// Numbers and names of all people.
    pub fn names(&self) -> impl Iterator<Item = (PersonId, &str)> {
        self.people.iter().map(|person| (person.id, person.name.as_str()))
    }

    /// Name of the person with that number.
    pub fn name(&self, id: PersonId) -> Option<&str> {
        self.people.iter().find(|person| person.id == id).map(|person| person.name.as_str())
    }

    /// Number of the person with that name.
    pub fn id(&self, name: &str) -> Option<PersonId> {
        self.people.iter().find(|person| person.name == name).map(|person| person.id)
    }

    /// Whether there is a template of this person.
    pub fn has_templates(&self, id: PersonId) -> bool {
        self.people.iter().any(|person| person.id == id && !person.rows.is_empty())
    }

    /// Cosine similarity of the probe to the best template of the person with that name.
    /// `None` if the person is unknown or has no template, or if the probe is of another
    /// model or size.
    pub fn best_of(&self, name: &str, probe: &Template) -> Option<f32> {
        let probe = self.comparable(probe)?;
        let named = self.people.iter().filter(|person| person.name == name);
        let similarities = named.flat_map(|person| person.rows.clone());
        similarities.map(|row| self.rows.similarity(row, &probe)).reduce(f32::max)
    }

    /// Cosine similarity of the probe to the best template of this person. `None` if the
    /// person is unknown or has no template, or if the probe is of another model or size.
    pub fn similarity_to(&self, id: PersonId, probe: &Template) -> Option<f32> {
        let probe = self.comparable(probe)?;
        let person = self.people.iter().find(|person| person.id == id)?;
        person.rows.clone().map(|row| self.rows.similarity(row, &probe)).reduce(f32::max)
    }

    /// The person most similar to the probe, however low the similarity; the first one of
    /// equally similar people. `None` if there is no template, or if the probe is of another
    /// model or size.
    pub fn best(&self, probe: &Template) -> Option<Match<'_>> {
        let probe = self.comparable(probe)?;
        let mut leaders = Leaders { people: &self.people, seen: None, best: None, runner_up: -1.0 };
        self.rows.search(&probe, |row, similarity| leaders.see(row, similarity));
        let found = leaders.found()?;
        Some(Match { negative: self.negative(&probe), ..found })
    }

    /// The numbers of a template that may be rotated already, as the rows have them. `None`
    /// if it is of another model, rotation or size.
    fn as_row<'t>(&self, template: &'t Template) -> Option<Cow<'t, [f32]>> {
        let rotated = self.rotation.as_ref().map(|rotation| rotation.model(&self.model));
        let ready = rotated.as_ref().and_then(|model| template.of(model).ok());
        let values = match ready {
            Some(embedding) => Some(Cow::Borrowed(embedding.values())),
            None => self.comparable(template),
        };
        values.filter(|values| values.len() == self.rows.size())
    }

    /// The numbers of a probe as the rows have them, if it can be compared with them.
    fn comparable<'t>(&self, probe: &'t Template) -> Option<Cow<'t, [f32]>> {
        let values = probe.of(&self.model).ok()?.values();
        if values.len() != self.rows.size() || values.is_empty() {
            return None;
        }
        Some(match &self.rotation {
            Some(rotation) => Cow::Owned(rotation.rotate(values)),
            None => Cow::Borrowed(values),
        })
    }
}

/// The two most similar people among the rows that a search has seen.
struct Leaders<'g> {
    people: &'g [Person],
    /// Index of the person whose rows are being seen, and the best similarity of these.
    seen: Option<(usize, f32)>,
    /// The best of all people before, and the best similarity of all others.
    best: Option<(usize, f32)>,
    runner_up: f32,
}

impl<'g> Leaders<'g> {
    /// Takes the next row, and returns the similarity that a row must have to matter.
    #[inline]
    fn see(&mut self, row: usize, similarity: f32) -> f32 {
        match &mut self.seen {
            Some((person, best)) if row < self.people[*person].rows.end => {
                *best = best.max(similarity);
            }
            _ => {
                self.rank();
                self.seen = Some((self.owner(row), similarity));
            }
        }
        if self.best.is_some() { self.runner_up } else { f32::NEG_INFINITY }
    }

    /// Index of the person with that row, which comes after those of the person seen.
    #[inline]
    fn owner(&self, row: usize) -> usize {
        let next = self.seen.map_or(0, |(person, _)| person + 1);
        // Often the next person; the people between had no row that matters.
        if self.people[next].rows.contains(&row) {
            return next;
        }
        next + self.people[next..].partition_point(|person| person.rows.end <= row)
    }

    /// Ranks the person whose rows have been seen.
    #[inline]
    fn rank(&mut self) {
        let Some((person, similarity)) = self.seen else { return };
        let leading = self.best.map_or(-1.0, |(_, best)| best);
        if self.best.is_none() || similarity > leading {
            self.runner_up = leading;
            self.best = Some((person, similarity));
        } else {
            self.runner_up = self.runner_up.max(similarity);
        }
    }

    fn found(mut self) -> Option<Match<'g>> {
        self.rank();
        let (best, similarity) = self.best?;
        let Person { id, name, traits, .. } = &self.people[best];
        let (runner_up, stricter) = (self.runner_up, traits.stricter);
        Some(Match { id: *id, name, similarity, runner_up, stricter, negative: -1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::embed::Embedding;
    use proptest::prelude::*;

    fn template(values: &[f32]) -> Template {
        Template::new(model(), Embedding::normalized(values))
    }

    fn model() -> ModelId {
        ModelId::new("2026.11+abcd")
    }

    #[test]
    fn the_best_template_of_a_person_counts() {
        let mut gallery = Gallery::new(model(), 2);
        gallery.add(PersonId(1), "Ada", &[template(&[1.0, 0.0]), template(&[0.0, 1.0])]);
        gallery.add(PersonId(2), "Nobody yet", &[]);
        gallery.add(PersonId(3), "Grace", &[template(&[-1.0, 0.2])]);
        let found = gallery.best(&template(&[0.1, 1.0])).expect("somebody");
        assert_eq!((found.id, found.name), (PersonId(1), "Ada"));
        assert!(found.similarity > 0.99 && found.runner_up < 0.2, "{found:?}");
        assert_eq!((gallery.people(), gallery.templates()), (3, 3));
        let grace = gallery.best_of("Grace", &template(&[-1.0, 0.2])).expect("Grace");
        assert!(grace > 0.999);
        assert_eq!(gallery.best_of("Nobody yet", &template(&[1.0, 0.0])), None);
        assert_eq!(gallery.similarity_to(PersonId(3), &template(&[-1.0, 0.2])), Some(grace));
        assert_eq!(gallery.similarity_to(PersonId(2), &template(&[1.0, 0.0])), None);
        assert_eq!(gallery.similarity_to(PersonId(9), &template(&[1.0, 0.0])), None);
    }

    #[test]
    fn somebody_with_a_look_alike_needs_more() {
        let mut gallery = Gallery::new(model(), 2);
        gallery.add(PersonId(1), "Ada", &[template(&[1.0, 0.0])]);
        let threshold = Threshold { similarity: 0.6, extrapolated: false };
        let reaches = |gallery: &Gallery| {
            gallery.best(&template(&[0.65, 0.76])).expect("Ada").reaches(threshold)
        };
        assert!(reaches(&gallery));
        for (stricter, expected) in [(0.04, true), (0.1, false), (f32::NAN, false), (-1.0, false)] {
            gallery.set_traits(PersonId(1), Traits { stricter, ..Traits::default() });
            assert_eq!(reaches(&gallery), expected, "{stricter}");
        }
    }

    #[test]
    fn nobody_is_found_where_nothing_can_be_compared() {
        let mut gallery = Gallery::new(model(), 2);
        assert_eq!(gallery.best(&template(&[1.0, 0.0])), None);
        assert_eq!(gallery.add(PersonId(1), "Ada", &[template(&[1.0, 0.0, 0.0])]), 1);
        assert_eq!(gallery.best(&template(&[1.0, 0.0])), None);
        assert_eq!(gallery.best(&template(&[1.0])), None);
    }

    #[test]
    fn what_another_model_made_is_neither_kept_nor_found() {
        let other = Template::new(ModelId::new("2026.12+ef01"), Embedding::normalized(&[1.0, 0.0]));
        let mut gallery = Gallery::new(model(), 2);
        let both = [template(&[1.0, 0.0]), other.clone()];
        assert_eq!(gallery.add(PersonId(1), "Ada", &both), 1);
        assert_eq!(gallery.templates(), 1);
        assert_eq!(gallery.best(&other), None);
        assert_eq!(gallery.best_of("Ada", &other), None);
        assert!(gallery.best(&both[0]).is_some());
    }

    /// Index of the best person, similarity and runner-up, with all rows compared.
    fn plain(people: &[Vec<Template>], probe: &Template) -> Option<(usize, f32, f32)> {
        let mut best: Option<(usize, f32, f32)> = None;
        for (at, templates) in people.iter().enumerate() {
            let similarities = templates.iter().map(|t| t.similarity(probe).expect("one model"));
            let Some(similarity) = similarities.reduce(f32::max) else { continue };
            match &mut best {
                Some((_, leading, runner_up)) if similarity <= *leading => {
                    *runner_up = runner_up.max(similarity);
                }
                _ => best = Some((at, similarity, best.map_or(-1.0, |(_, leading, _)| leading))),
            }
        }
        best
    }

    /// Reproducible random numbers in -1..1: Marsaglia's xorshift64.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> f32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
        }

        fn below(&mut self, end: usize) -> usize {
            self.next();
            (self.0 >> 20) as usize % end
        }

        fn vector(&mut self, size: usize) -> Vec<f32> {
            (0..size).map(|_| self.next()).collect()
        }

        /// A vector near `centre`, as near as `kind` says.
        fn near(&mut self, centre: &[f32], kind: usize) -> Vec<f32> {
            let mut vector = centre.to_vec();
            match kind {
                0 => return self.vector(centre.len()),
                // The same person with other views, photographed worse and better.
                1..=4 => {
                    let apart = [1.0, 0.1, 1e-3, 1e-6][kind - 1];
                    vector.iter_mut().for_each(|value| *value += apart * self.next());
                }
                // One number differs by less than a step of the copy.
                5 => {
                    let at = self.below(centre.len());
                    vector[at] += self.next() / 127.0;
                }
                // A few large numbers, beside which the others vanish.
                6 => vector.iter_mut().for_each(|value| *value = value.powi(31) * 1e20),
                7 => vector.iter_mut().for_each(|value| *value = -*value),
                8 => vector.fill(0.0),
                9 => vector[0] = f32::NAN,
                // Equal to others.
                _ => {}
            }
            vector
        }
    }

    proptest! {
        #[test]
        fn the_search_finds_what_comparing_all_rows_finds(
            seed in 1u64.., people in 0usize..80, kinds in prop::collection::vec(0usize..12, 1..4),
            size in prop_oneof![1usize..40, Just(64), Just(128), 100usize..140], probe in 0usize..12,
        ) {
            let noise = &mut Noise(seed);
            let centre = noise.vector(size);
            let mut made = |kind| template(&noise.near(&centre, kind));
            let probe = made(probe);
            let people: Vec<Vec<Template>> = (0..people)
                .map(|at| (0..at * 7 % 6).map(|i| made(kinds[(at + i) % kinds.len()])).collect())
                .collect();
            let mut gallery = Gallery::new(model(), size);
            for (at, templates) in people.iter().enumerate() {
                gallery.add(PersonId(at as u32), "somebody", templates);
            }
            let found = gallery.best(&probe);
            let found = found.map(|f| (f.id.0 as usize, f.similarity.to_bits(), f.runner_up.to_bits()));
            let expected = plain(&people, &probe).map(|(at, s, r)| (at, s.to_bits(), r.to_bits()));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn the_search_is_that_of_the_definition(
            people in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(-1f32..1.0, 8), 0..4), 1..6),
            probe in prop::collection::vec(-1f32..1.0, 8),
        ) {
            let mut gallery = Gallery::new(model(), 8);
            let probe = template(&probe);
            let mut expected: Vec<(f32, u32)> = vec![];
            for (at, templates) in people.iter().enumerate() {
                let templates: Vec<_> = templates.iter().map(|t| template(t)).collect();
                gallery.add(PersonId(at as u32), "somebody", &templates);
                let best = templates.iter().map(|t| t.similarity(&probe).expect("one model")).reduce(f32::max);
                expected.extend(best.map(|similarity| (similarity, at as u32)));
            }
            expected.sort_by(|a, b| b.0.total_cmp(&a.0));
            match gallery.best(&probe) {
                None => prop_assert!(expected.is_empty()),
                Some(found) => {
                    prop_assert!((found.similarity - expected[0].0).abs() < 1e-6);
                    let second = expected.get(1).map_or(-1.0, |(similarity, _)| *similarity);
                    prop_assert!((found.runner_up - second).abs() < 1e-6);
                }
            }
        }
    }
}
