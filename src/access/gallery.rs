//! The gallery: people with several templates each, and the search for the person most
//! similar to a probe.
//!
//! [`Gallery`] is the gallery in memory, used for recognition. `storage::gallery` keeps it on
//! disk.

use crate::access::schedule::DEFAULT_GROUP;
use crate::models::threshold::Threshold;
use crate::models::{ModelId, Models, ModelsError};
use crate::vision::embed::{Template, dot};
use serde::{Deserialize, Serialize};

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
}

impl Default for Traits {
    fn default() -> Self {
        Self { administrator: false, group: DEFAULT_GROUP.to_owned(), stricter: 0.0 }
    }
}

/// People and their templates in memory.
///
/// All templates lie in one row-major matrix `templates x embedding_size`, so that a search
/// reads memory sequentially. The rows of one person are contiguous. All templates are of
/// one model, and probes must be of the same model.
#[derive(Clone, Debug, PartialEq)]
pub struct Gallery {
    model: ModelId,
    embedding_size: usize,
    people: Vec<Person>,
    rows: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq)]
struct Person {
    id: PersonId,
    name: String,
    traits: Traits,
    templates: usize,
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
    /// Whether the similarity reaches the person's threshold.
    pub reaches: bool,
}

impl Match<'_> {
    /// Whether the similarity reaches the threshold plus [`Self::stricter`].
    pub fn reaches(&self, threshold: Threshold) -> bool {
        self.similarity >= threshold.similarity + self.stricter
    }
}

impl Gallery {
    /// An empty gallery for templates of this model with `embedding_size` components.
    pub fn new(model: ModelId, embedding_size: usize) -> Self {
        Self { model, embedding_size, people: Vec::new(), rows: Vec::new() }
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

    /// Adds a person. Templates of another model or size are left out; returns their
    /// number.
    pub fn add(&mut self, id: PersonId, name: &str, templates: &[Template]) -> usize {
        let mut count = 0;
        for values in templates.iter().filter_map(|t| t.of(&self.model).ok().map(|e| e.values())) {
            if values.len() == self.embedding_size {
                self.rows.extend_from_slice(values);
                count += 1;
            }
        }
        let (name, traits) = (name.to_owned(), Traits::default());
        self.people.push(Person { id, name, traits, templates: count });
        templates.len() - count
    }

    /// Sets the traits of a person. An invalid `stricter` means that the person is never
    /// recognized.
    pub fn set_traits(&mut self, id: PersonId, traits: Traits) {
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

    /// Number of templates.
    pub fn templates(&self) -> usize {
        self.people.iter().map(|person| person.templates).sum()
    }

    /// Name of the person with that number.
    pub fn name(&self, id: PersonId) -> Option<&str> {
        self.people.iter().find(|person| person.id == id).map(|person| person.name.as_str())
    }

    /// Number of the person with that name.
    pub fn id(&self, name: &str) -> Option<PersonId> {
        self.people.iter().find(|person| person.name == name).map(|person| person.id)
    }

    /// Cosine similarity of the probe to the best template of the person with that name.
    /// `None` if the person is unknown or has no template, or if the probe is of another
    /// model or size.
    pub fn best_of(&self, name: &str, probe: &Template) -> Option<f32> {
        let mut only = Self::new(self.model.clone(), self.embedding_size);
        let mut from = 0;
        for person in &self.people {
            let to = from + person.templates * self.embedding_size;
            if person.name == name {
                only.rows.extend_from_slice(&self.rows[from..to]);
                only.people.push(person.clone());
            }
            from = to;
        }
        only.best(probe).map(|best| best.similarity)
    }

    /// The person most similar to the probe, however low the similarity. `None` if there is
    /// no template, or if the probe is of another model or size.
    pub fn best(&self, probe: &Template) -> Option<Match<'_>> {
        let probe = probe.of(&self.model).ok()?.values();
        if probe.len() != self.embedding_size || self.embedding_size == 0 {
            return None;
        }
        let mut rows = self.rows.chunks_exact(self.embedding_size);
        let mut best: Option<Match<'_>> = None;
        for person in &self.people {
            let similarity = rows
                .by_ref()
                .take(person.templates)
                .map(|row| dot(row, probe).clamp(-1.0, 1.0))
                .fold(None, |best: Option<f32>, s| Some(best.map_or(s, |best| best.max(s))));
            let Some(similarity) = similarity else { continue };
            let leading = best.map_or(-1.0, |best| best.similarity);
            if best.is_none() || similarity > leading {
                let (id, name) = (person.id, person.name.as_str());
                let stricter = person.traits.stricter;
                best = Some(Match { id, name, similarity, runner_up: leading, stricter });
            } else if let Some(best) = &mut best {
                best.runner_up = best.runner_up.max(similarity);
            }
        }
        best
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

    proptest! {
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
