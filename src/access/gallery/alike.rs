//! People of one gallery who resemble each other.

use super::{Gallery, PersonId};
use std::collections::BTreeMap;

/// Most pairs that are found: with more, the gallery is enrolled badly, or the threshold is
/// too low to tell people apart.
pub const MOST_PAIRS: usize = 1000;

/// Two people who resemble each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alike {
    /// The person with the lower row number.
    pub one: PersonId,
    /// The other person.
    pub other: PersonId,
    /// Highest cosine similarity of a template of one to a template of the other.
    pub similarity: f32,
    /// Whether the thresholds of both are raised so far that neither passes for the other
    /// with these templates; see [`super::Traits::stricter`].
    pub covered: bool,
}

impl Gallery {
    /// The pairs of people with templates at least as similar to each other as `threshold`,
    /// the most similar first; [`MOST_PAIRS`] at most. Takes time in proportion to the
    /// square of the number of templates.
    pub fn alike(&self, threshold: f32) -> Vec<Alike> {
        let mut pairs: BTreeMap<(usize, usize), f32> = BTreeMap::new();
        for (at, person) in self.people.iter().enumerate() {
            for row in person.rows.clone() {
                let values = self.rows.row(row);
                self.rows.reaching(person.rows.end, values, threshold, |row, similarity| {
                    let other = self.people.partition_point(|other| other.rows.end <= row);
                    let full = pairs.len() >= MOST_PAIRS;
                    match pairs.get_mut(&(at, other)) {
                        Some(most) => *most = most.max(similarity),
                        None if full => {}
                        None => drop(pairs.insert((at, other), similarity)),
                    }
                });
            }
        }
        let pair = |((one, other), similarity): ((usize, usize), f32)| {
            let passes = |person: usize| {
                let stricter = self.people[person].traits.stricter;
                similarity >= threshold + stricter
            };
            Alike {
                one: self.people[one].id,
                other: self.people[other].id,
                similarity,
                covered: !passes(one) && !passes(other),
            }
        };
        let mut pairs: Vec<Alike> = pairs.into_iter().map(pair).collect();
        pairs.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::super::Traits;
    use super::*;
    use crate::models::ModelId;
    use crate::vision::embed::{Embedding, Template};
    use proptest::prelude::*;

    fn template(values: &[f32]) -> Template {
        Template::new(ModelId::new("tests"), Embedding::normalized(values))
    }

    #[test]
    fn twins_are_found_and_covered_once_both_are_stricter() {
        let mut gallery = Gallery::new(ModelId::new("tests"), 2);
        gallery.add(PersonId(1), "Ada", &[template(&[1.0, 0.0]), template(&[0.9, 0.1])]);
        gallery.add(PersonId(2), "Nobody yet", &[]);
        gallery.add(PersonId(3), "Grace", &[template(&[-1.0, 0.2])]);
        gallery.add(PersonId(4), "Anna", &[template(&[0.8, 0.3])]);
        let found = gallery.alike(0.8);
        assert_eq!(found.len(), 1);
        let Alike { one, other, similarity, covered } = found[0];
        assert_eq!((one, other, covered), (PersonId(1), PersonId(4), false));
        assert!((0.96..0.98).contains(&similarity), "{similarity}");
        let stricter = |stricter| Traits { stricter, ..Traits::default() };
        gallery.set_traits(PersonId(1), stricter(0.2));
        assert!(!gallery.alike(0.8)[0].covered, "one is not enough");
        gallery.set_traits(PersonId(4), stricter(0.2));
        assert!(gallery.alike(0.8)[0].covered);
    }

    proptest! {
        #[test]
        fn the_pairs_are_those_of_all_comparisons(
            people in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(-1f32..1.0, 3), 0..6), 0..40),
            threshold in -0.5f32..1.0,
        ) {
            let mut gallery = Gallery::new(ModelId::new("tests"), 3);
            let mut expected: Vec<(u32, u32, u32)> = vec![];
            let people: Vec<Vec<Template>> =
                people.iter().map(|own| own.iter().map(|t| template(t)).collect()).collect();
            for (at, own) in people.iter().enumerate() {
                gallery.add(PersonId(at as u32), "somebody", own);
                for (before, others) in people[..at].iter().enumerate() {
                    let all = own.iter().flat_map(|one| {
                        others.iter().map(|other| other.similarity(one).expect("one model"))
                    });
                    let most = all.reduce(f32::max).filter(|most| *most >= threshold);
                    expected.extend(most.map(|most| (before as u32, at as u32, most.to_bits())));
                }
            }
            let found = gallery.alike(threshold);
            let mut found: Vec<(u32, u32, u32)> = found
                .iter()
                .map(|pair| (pair.one.0, pair.other.0, pair.similarity.to_bits()))
                .collect();
            found.sort_unstable();
            expected.sort_unstable();
            // 40 people are 780 pairs at most.
            prop_assert_eq!(found, expected);
        }
    }
}
