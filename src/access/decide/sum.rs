//! Combined evidence of several views of one face.
//!
//! A linear function maps each similarity to a log likelihood ratio. Views of one face are
//! not independent: a person who looks a little like somebody else in one frame does so in
//! the next. Suppose that the scores of `n` views are jointly normal and that each two have
//! the same correlation `r`, both for the person and for anybody else. Then the combined
//! log likelihood ratio is exactly
//!
//! ```text
//!   (l_1 + ... + l_n) / (1 + (n - 1) r)
//! ```
//!
//! (multiply the inverse of that covariance matrix by a vector of ones; the divisor is
//! Kish's design effect, "Survey Sampling", 1965). Any number of identical views counts as
//! much as one of them, and no number of views counts more than `1 / r` times one. Evidence
//! against the person is negative.
//!
//! The correlation can be measured without video: a similarity is the inner product of two
//! unit vectors, so the similarities of two views to unrelated faces have a correlation
//! equal to the cosine of the views. On LFW they do: see docs/evidence.md.

use super::{Alike, View, Vote};
use crate::access::gallery::PersonId;
use crate::models::likelihood::Weighing;

/// Number of views that are combined, best quality first. More hardly matter: at the lowest
/// correlation eight views count 1.44 times one, and any number at most 1.54 times.
const BEST: usize = 8;
/// Lower bound of the correlation. Views within a second correlate at least as much as
/// photos of one person from different days. Those have this mean cosine: 3,423 pairs of
/// LFW, of people that the recognizer was not trained on.
const LEAST_CORRELATION: f64 = 0.65;

/// Natural logarithm of the likelihood ratio of a track's votes: the track is of `person`,
/// against it is of somebody else.
pub(super) fn log_ratio<'v, V: Alike + 'v>(
    votes: impl IntoIterator<Item = &'v Vote<V>>,
    person: PersonId,
    weighing: &Weighing,
) -> f64 {
    // Best quality first; of equals the newest.
    let mut best: heapless::Vec<&Vote<V>, BEST> = heapless::Vec::new();
    for vote in votes {
        let at = best.iter().position(|other| quality(vote) >= quality(other));
        if best.is_full() && at.is_some() {
            best.pop();
        }
        // If there is no room, all stored views are better.
        let _ = match at {
            Some(at) => best.insert(at, vote),
            None => best.push(vote),
        };
    }
    let sum: f64 = best.iter().map(|vote| one(vote, person, weighing)).sum();
    let others = best.len().saturating_sub(1) as f64;
    sum / (1.0 + others * correlation(&best))
}

/// Log likelihood ratio of one vote. If the view is most similar to somebody else, its
/// similarity to this person is unknown and the lowest one, -1, is used.
fn one<V>(vote: &Vote<V>, person: PersonId, weighing: &Weighing) -> f64 {
    let most_alike = vote.person.or_else(|| vote.view.as_ref()?.most_alike);
    let similarity = if most_alike == Some(person) { vote.similarity } else { -1.0 };
    weighing.log_ratio(similarity)
}

fn quality<V>(vote: &Vote<V>) -> f32 {
    vote.view.as_ref().map_or(0.0, |view| view.quality)
}

/// Mean cosine of all pairs of views that vote for a person, at least
/// [`LEAST_CORRELATION`]. A pair with a missing view counts as 1; without pairs the result
/// is 1. Votes for nobody are left out: one unlike view would make all others look
/// independent.
fn correlation<V: Alike>(votes: &[&Vote<V>]) -> f64 {
    let (mut sum, mut pairs) = (0.0, 0.0);
    let mut views = votes.iter().filter(|vote| vote.person.is_some());
    while let Some(vote) = views.next() {
        for other in views.clone() {
            sum += cosine(&vote.view, &other.view);
            pairs += 1.0;
        }
    }
    if pairs > 0.0 { f64::max(sum / pairs, LEAST_CORRELATION) } else { 1.0 }
}

fn cosine<V: Alike>(a: &Option<View<V>>, b: &Option<View<V>>) -> f64 {
    a.as_ref()
        .zip(b.as_ref())
        .and_then(|(a, b)| a.template.cosine(&b.template))
        .map_or(1.0, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelId;
    use crate::models::likelihood::tests::weighing;
    use crate::vision::embed::{Embedding, Template};
    use proptest::prelude::*;
    use std::time::Duration;

    const ADA: PersonId = PersonId(1);
    const GRACE: PersonId = PersonId(2);

    /// View number `own`; any two of them have this cosine. Each is the sum of a common
    /// direction and one of its own.
    fn view(own: usize, cosine: f32, quality: f32) -> View<Template> {
        let mut values = vec![0.0; 40];
        values[0] = cosine.sqrt();
        values[1 + own] = (1.0 - cosine).sqrt();
        let template = Template::new(ModelId::new("made up"), Embedding::normalized(&values));
        View { template, quality, most_alike: Some(ADA) }
    }

    fn vote(
        person: Option<PersonId>,
        similarity: f32,
        view: Option<View<Template>>,
    ) -> Vote<Template> {
        Vote { at: Duration::ZERO, person, similarity, denied: false, view }
    }

    fn ada(similarity: f32, own: usize, cosine: f32) -> Vote<Template> {
        vote(Some(ADA), similarity, Some(view(own, cosine, 1.0)))
    }

    fn sum(votes: &[Vote<Template>]) -> f64 {
        log_ratio(votes, ADA, &weighing())
    }

    #[test]
    fn the_same_view_many_times_weighs_as_much_as_once() {
        let once = sum(&[ada(0.5, 0, 1.0)]);
        assert!((once - weighing().log_ratio(0.5)).abs() < 1e-9);
        for count in 2..8 {
            let many: Vec<Vote<Template>> = (0..count).map(|_| ada(0.5, 0, 1.0)).collect();
            assert!((sum(&many) - once).abs() < 1e-5, "{count}");
            // Missing views may all be the same view.
            let many: Vec<Vote<Template>> =
                (0..count).map(|_| vote(Some(ADA), 0.5, None)).collect();
            assert!((sum(&many) - once).abs() < 1e-9, "{count}");
        }
    }

    #[test]
    fn distinct_views_weigh_more_but_never_as_if_independent() {
        let one = sum(&[ada(0.5, 0, 0.8)]);
        let three: Vec<Vote<Template>> = (0..3).map(|own| ada(0.5, own, 0.8)).collect();
        assert!((sum(&three) - one * 3.0 / (1.0 + 2.0 * 0.8)).abs() < 1e-5);
        // The lower bound of the correlation applies to very different views.
        let three: Vec<Vote<Template>> = (0..3).map(|own| ada(0.5, own, 0.1)).collect();
        assert!((sum(&three) - one * 3.0 / (1.0 + 2.0 * LEAST_CORRELATION)).abs() < 1e-5);
    }

    #[test]
    fn the_best_views_count() {
        let mut votes: Vec<Vote<Template>> = (0..BEST).map(|own| ada(0.5, own, 0.8)).collect();
        let before = sum(&votes);
        let mut blurred = ada(0.0, 20, 0.8);
        blurred.view.iter_mut().for_each(|view| view.quality = 0.3);
        for _ in 0..4 {
            votes.insert(0, blurred.clone());
            votes.push(blurred.clone());
        }
        assert!((sum(&votes) - before).abs() < 1e-9);
    }

    #[test]
    fn a_view_below_the_threshold_counts_for_its_most_similar_person() {
        let mut near = vote(None, 0.45, Some(view(5, 0.8, 1.0)));
        assert!((one(&near, ADA, &weighing()) - weighing().log_ratio(0.45)).abs() < 1e-9);
        near.view.iter_mut().for_each(|view| view.most_alike = Some(GRACE));
        assert!((one(&near, ADA, &weighing()) - weighing().log_ratio(-1.0)).abs() < 1e-9);
        assert!(one(&vote(None, 0.45, None), ADA, &weighing()) < 0.0);
    }

    proptest! {
        #[test]
        fn no_number_of_views_weighs_more_than_the_best_at_the_lowest_correlation(
            votes in prop::collection::vec((0f32..1.0, 0f32..1.0, 0f32..1.0), 1..32),
        ) {
            let votes: Vec<Vote<Template>> = votes
                .iter()
                .enumerate()
                .map(|(own, (s, cosine, quality))| vote(Some(ADA), *s, Some(view(own, *cosine, *quality))))
                .collect();
            let most = votes.iter().map(|v| one(v, ADA, &weighing())).fold(0.0, f64::max);
            prop_assert!(sum(&votes) <= most / LEAST_CORRELATION + 1e-9);
        }

        #[test]
        fn a_view_against_the_person_never_helps(
            votes in prop::collection::vec((0.3f32..1.0, 0f32..1.0), 2..7),
            against in 0f32..0.3, cosine in 0f32..1.0, person in prop::sample::select(vec![None, Some(GRACE)]),
        ) {
            let mut votes: Vec<Vote<Template>> = votes
                .iter()
                .enumerate()
                .map(|(own, (s, cosine))| ada(*s, own, *cosine))
                .collect();
            let before = sum(&votes);
            let mut view = view(30, cosine, 1.0);
            view.most_alike = person.or(Some(ADA));
            votes.push(vote(None, against, Some(view)));
            prop_assert!(sum(&votes) <= before + 1e-9, "{} {before}", sum(&votes));
        }
    }
}
