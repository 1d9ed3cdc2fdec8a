//! Negatives: views of people who got in by mistake and were reported.
//!
//! A probe that is more similar to a negative than to the most similar person, or nearly as
//! similar, is no evidence for that person: [`Match::reaches`] is false however similar it
//! is, and the view votes against the person. So a negative never makes a match more
//! likely.

use super::{Gallery, Match, Person, PersonId};
use crate::vision::embed::Template;

/// How much less similar than to the person a probe may be to a negative, and still is no
/// evidence for the person. It only breaks ties: views of one person differ by more.
pub const NEARLY: f32 = 0.02;

/// Similarity that a person's views are assumed to have if there is only one of them: the
/// mean of photos of one person from different days (see `decide/sum.rs`).
const OWN_VIEWS: f32 = 0.65;

/// An enrolled person whom a negative would keep out.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptOut {
    /// The person.
    pub person: PersonId,
    /// Number of their templates that are as similar to the negative as to the others.
    pub views: usize,
    /// Number of their templates.
    pub of: usize,
    /// Highest cosine similarity of the negative to one of them.
    pub similarity: f32,
}

impl Match<'_> {
    /// Whether a negative is more similar to the probe than the person, or nearly as
    /// similar.
    pub fn denied(&self) -> bool {
        self.negative >= self.similarity - NEARLY
    }
}

impl Gallery {
    /// Adds a negative, which may be rotated already. Returns false if it is of another
    /// model, rotation or size.
    pub fn add_negative(&mut self, negative: &Template) -> bool {
        let Some(values) = self.as_row(negative) else { return false };
        self.negatives.push(&values);
        true
    }

    /// Number of negatives.
    pub fn negatives(&self) -> usize {
        self.negatives.len()
    }

    /// Cosine similarity of a comparable probe to the most similar negative; -1 without
    /// negatives.
    pub(super) fn negative(&self, probe: &[f32]) -> f32 {
        let mut most = -1.0f32;
        self.negatives.search(probe, |_, similarity| {
            most = most.max(similarity);
            most
        });
        most
    }

    /// The person of whose templates this negative would deny the largest share, if it would
    /// deny any: each template is compared with the negative and with the person's others.
    /// Such a negative was reported by mistake, or of somebody whom these models cannot
    /// tell from the person.
    pub fn kept_out(&self, negative: &Template) -> Option<KeptOut> {
        let values = self.as_row(negative)?;
        let people = self.people.iter().filter_map(|person| self.kept_out_of(person, &values));
        let share = |kept: &KeptOut| kept.views as f64 / kept.of as f64;
        people.max_by(|a, b| share(a).total_cmp(&share(b)))
    }

    fn kept_out_of(&self, person: &Person, negative: &[f32]) -> Option<KeptOut> {
        let rows = || person.rows.clone();
        let mut kept = KeptOut { person: person.id, views: 0, of: rows().len(), similarity: -1.0 };
        for row in rows() {
            let others = rows().filter(|other| *other != row);
            let values = self.rows.row(row);
            let own = others.map(|other| self.rows.similarity(other, values)).reduce(f32::max);
            let similarity = self.rows.similarity(row, negative);
            kept.similarity = kept.similarity.max(similarity);
            kept.views += usize::from(similarity >= own.unwrap_or(OWN_VIEWS) - NEARLY);
        }
        (kept.views > 0).then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelId;
    use crate::models::threshold::Threshold;
    use crate::vision::embed::Embedding;
    use proptest::prelude::*;

    const ADA: PersonId = PersonId(1);

    fn template(values: &[f32]) -> Template {
        Template::new(ModelId::new("tests"), Embedding::normalized(values))
    }

    fn gallery(templates: &[Template]) -> Gallery {
        let mut gallery = Gallery::new(ModelId::new("tests"), 4);
        gallery.add(ADA, "Ada", templates);
        gallery
    }

    fn threshold(similarity: f32) -> Threshold {
        Threshold { similarity, extrapolated: false }
    }

    #[test]
    fn a_reported_stranger_no_longer_matches_and_the_person_still_does() {
        let mut gallery =
            gallery(&[template(&[1.0, 0.1, 0.0, 0.0]), template(&[1.0, 0.0, 0.1, 0.0])]);
        let eve = template(&[0.7, 0.0, 0.0, 0.7]);
        let again = template(&[0.7, 0.1, 0.0, 0.65]);
        let reaches = |gallery: &Gallery, probe: &Template| {
            gallery.best(probe).is_some_and(|found| found.reaches(threshold(0.6)))
        };
        assert!(reaches(&gallery, &again));
        assert_eq!(gallery.kept_out(&eve), None);
        assert!(gallery.add_negative(&eve));
        assert!(!reaches(&gallery, &again));
        assert!(!reaches(&gallery, &eve));
        assert!(reaches(&gallery, &template(&[1.0, 0.05, 0.05, 0.2])));
        // It still resembles her most.
        let found = gallery.best(&again).expect("somebody");
        assert!(found.id == ADA && found.denied());
        assert_eq!((gallery.negatives(), gallery.people(), gallery.templates()), (1, 1, 2));
        let other = Template::new(ModelId::new("another"), Embedding::normalized(&[1.0; 4]));
        assert!(!gallery.add_negative(&other) && !gallery.add_negative(&template(&[1.0])));
    }

    #[test]
    fn a_view_of_the_person_is_found_out() {
        let views = [template(&[1.0, 0.3, 0.0, 0.0]), template(&[1.0, 0.0, 0.3, 0.0])];
        let kept = gallery(&views).kept_out(&template(&[1.0, 0.1, 0.1, 0.0])).expect("kept out");
        assert_eq!((kept.person, kept.views, kept.of), (ADA, 2, 2));
        assert!(kept.similarity > 0.95, "{kept:?}");
        // One view alone is compared with what views of one person have.
        let one = gallery(&views[..1]);
        assert!(one.kept_out(&template(&[0.7, 0.2, 0.0, 0.68])).is_some());
        assert_eq!(one.kept_out(&template(&[0.5, 0.0, 0.0, 0.86])), None);
        assert_eq!(gallery(&[]).kept_out(&views[0]), None);
    }

    proptest! {
        #[test]
        fn a_negative_never_makes_a_match_more_likely(
            people in prop::collection::vec(prop::collection::vec(-1f32..1.0, 4), 1..6),
            negatives in prop::collection::vec(prop::collection::vec(-1f32..1.0, 4), 0..80),
            probe in prop::collection::vec(-1f32..1.0, 4), least in -1f32..1.0,
        ) {
            let mut gallery = Gallery::new(ModelId::new("tests"), 4);
            for (at, values) in people.iter().enumerate() {
                gallery.add(PersonId(at as u32), "somebody", &[template(values)]);
            }
            let probe = template(&probe);
            let mut reached = gallery.best(&probe).map(|found| found.reaches(threshold(least)));
            let before = gallery.best(&probe).map(|found| (found.id, found.similarity));
            let mut most = -1.0f32;
            for negative in negatives {
                let negative = template(&negative);
                most = most.max(negative.similarity(&probe).expect("one model"));
                gallery.add_negative(&negative);
                let found = gallery.best(&probe).expect("somebody");
                let now = found.reaches(threshold(least));
                prop_assert!(!now || reached == Some(true));
                // Exactly by the definition, and nothing else changes.
                prop_assert_eq!(found.negative, most);
                prop_assert_eq!(found.denied(), most >= found.similarity - NEARLY);
                prop_assert_eq!(Some((found.id, found.similarity)), before);
                reached = Some(now);
            }
        }
    }
}
