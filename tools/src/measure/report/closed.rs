//! Closed set: classification of photos of people in the training data. The logits have no
//! margin, because adding it requires the label that is to be predicted.

use anyhow::{Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;

/// Results of a classification head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Closed {
    /// Number of photos classified.
    pub photos: usize,
    /// Number of people the head knows.
    pub classes: usize,
    /// Mean cross-entropy (natural logarithm), without margin and label smoothing.
    pub loss: f64,
    /// Cross-entropy of a uniform guess: the logarithm of `classes`.
    pub loss_of_chance: f64,
    /// Top-1 accuracy, 0..=1.
    pub top1: f64,
    /// 95 % interval of the top-1 accuracy (Wilson). It treats photos as independent, so it
    /// is too narrow rather than too wide.
    pub top1_interval: [f64; 2],
    /// Top-5 accuracy, 0..=1.
    pub top5: f64,
    /// Names by label.
    pub names: Vec<String>,
    /// Results per person, for people with photos or false positives.
    pub people: Vec<Person>,
    /// Non-zero cells of the confusion matrix, the diagonal included, sorted by row and
    /// column.
    pub confusion: Vec<Confusion>,
}

/// Classification results of a person.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Person {
    /// Name of the person.
    pub person: String,
    /// Number of photos of the person.
    pub photos: usize,
    /// Number of photos classified correctly.
    pub right: usize,
    /// Number of photos of other people classified as this person.
    pub others: usize,
    /// The wrong person that these photos are most often classified as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mistaken_for: Option<String>,
}

/// A non-zero cell of the confusion matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confusion {
    /// Label of the actual person.
    pub person: usize,
    /// Label of the person that the photos were classified as.
    pub taken_for: usize,
    /// Number of photos.
    pub photos: usize,
}

/// Evaluates logits, photos x people, against labels. `people` are names by label. Of equal
/// logits the lower label wins.
///
/// # Errors
/// If there are no photos, the sizes do not match, or a logit is not finite.
pub fn measure(logits: &[Vec<f32>], labels: &[usize], people: &[String]) -> Result<Closed> {
    ensure!(
        logits.len() == labels.len(),
        "{} rows of logits for {} photos, expected one per photo",
        logits.len(),
        labels.len()
    );
    ensure!(!labels.is_empty(), "no photos to measure; add photos");
    let (mut loss, mut first, mut fifth) = (0.0, 0, 0);
    let mut confusion: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (row, label) in logits.iter().zip(labels) {
        ensure!(
            row.len() == people.len(),
            "{} logits for {} people, expected one per person",
            row.len(),
            people.len()
        );
        ensure!(
            *label < people.len(),
            "label {label} is out of range; expected less than {}, the number of people",
            people.len()
        );
        ensure!(
            row.iter().all(|value| value.is_finite()),
            "a photo of {} has a logit that is not finite; the weights are damaged, so train again",
            people[*label]
        );
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(*v - highest).exp()).sum();
        loss += sum.ln() - f64::from(row[*label] - highest);
        let beats = |(other, value): (usize, &f32)| {
            *value > row[*label] || (*value == row[*label] && other < *label)
        };
        let rank = row.iter().enumerate().filter(|entry| beats(*entry)).count();
        first += usize::from(rank == 0);
        fifth += usize::from(rank < 5);
        let taken_for = row.iter().position(|value| *value == highest).unwrap_or(0);
        *confusion.entry((*label, taken_for)).or_default() += 1;
    }
    let photos = labels.len();
    let person = |label: usize| {
        let own = confusion.range((label, 0)..(label + 1, 0));
        let right = confusion.get(&(label, label)).copied().unwrap_or(0);
        let most = own
            .clone()
            .filter(|((_, other), _)| *other != label)
            .max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
        let to_them: usize =
            confusion.iter().filter(|((_, other), _)| *other == label).map(|(_, n)| n).sum();
        Person {
            person: people[label].clone(),
            photos: own.map(|(_, photos)| photos).sum(),
            right,
            others: to_them - right,
            mistaken_for: most.map(|((_, other), _)| people[*other].clone()),
        }
    };
    Ok(Closed {
        photos,
        classes: people.len(),
        loss: loss / photos as f64,
        loss_of_chance: (people.len() as f64).ln(),
        top1: first as f64 / photos as f64,
        top1_interval: wilson(first, photos),
        top5: fifth as f64 / photos as f64,
        names: people.to_vec(),
        people: (0..people.len())
            .map(person)
            .filter(|person| person.photos > 0 || person.others > 0)
            .collect(),
        confusion: confusion
            .into_iter()
            .map(|((person, taken_for), photos)| Confusion { person, taken_for, photos })
            .collect(),
    })
}

/// 95 % interval of a share of independent trials, 0..=1 (Wilson, "Probable inference, the
/// law of succession, and statistical inference", 1927).
pub fn wilson(events: usize, trials: usize) -> [f64; 2] {
    wilson_share(events as f64 / trials.max(1) as f64, trials as f64)
}

/// As [`wilson`], for a share of trials of which some depend on others: `trials` is the
/// number of independent ones, and need not be whole. The interval holds the share.
pub fn wilson_share(share: f64, trials: f64) -> [f64; 2] {
    if trials <= 0.0 {
        return [0.0, 1.0];
    }
    let (p, n, z) = (share, trials, 1.959_964);
    let middle = p + z * z / (2.0 * n);
    let around = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let bound = |value: f64| (value / (1.0 + z * z / n)).clamp(0.0, 1.0);
    // The ends of a share of 0 or 1 may miss it by rounding.
    [bound(middle - around).min(p), bound(middle + around).max(p)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("person {at}")).collect()
    }

    #[test]
    fn figures_of_three_photos_are_those_of_a_hand() {
        let people = names(6);
        let mut wrong = vec![1.0; 6];
        wrong[0] = 0.0;
        let logits =
            [vec![2.0, 0.0, 0.0, 0.0, 0.0, 0.0], wrong, vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0]];
        let closed = measure(&logits, &[0, 0, 1], &people).expect("figures");
        assert!((closed.top1 - 1.0 / 3.0).abs() < 1e-12);
        // The second photo's right one is last of six; the third's is third, for of equal
        // logits the lower label comes first.
        assert!((closed.top5 - 2.0 / 3.0).abs() < 1e-12);
        let expected = [
            (1.0 + 5.0 * (-2f64).exp()).ln(),
            (1.0 + 5.0 * 1f64.exp()).ln(),
            (5.0 + 1f64.exp()).ln(),
        ];
        assert!((closed.loss - expected.iter().sum::<f64>() / 3.0).abs() < 1e-6);
        let cells: Vec<_> =
            closed.confusion.iter().map(|c| (c.person, c.taken_for, c.photos)).collect();
        assert_eq!(cells, [(0, 0, 1), (0, 1, 1), (1, 2, 1)]);
        let first = &closed.people[0];
        assert_eq!((first.photos, first.right, first.others), (2, 1, 0));
        assert_eq!(first.mistaken_for.as_deref(), Some("person 1"));
        let second = &closed.people[1];
        assert_eq!((second.photos, second.right, second.others), (1, 0, 1));
    }

    #[test]
    fn even_logits_lose_what_chance_loses() {
        let closed = measure(&[vec![0.3; 10]], &[4], &names(10)).expect("figures");
        assert!((closed.loss - closed.loss_of_chance).abs() < 1e-6);
        assert_eq!((closed.top1, closed.top5), (0.0, 1.0));
    }

    #[test]
    fn logits_that_are_no_numbers_are_refused() {
        let error = measure(&[vec![f32::NAN, 0.0]], &[1], &names(2)).expect_err("no number");
        assert!(error.to_string().contains("person 1"), "{error}");
        assert!(measure(&[], &[], &names(2)).is_err());
        assert!(measure(&[vec![0.0, 1.0]], &[2], &names(2)).is_err());
    }

    #[test]
    fn an_interval_of_few_photos_is_wide() {
        // Known from the literature: 0 of 10 is 0..0.2775.
        let [low, high] = wilson(0, 10);
        assert!(low.abs() < 1e-12 && (high - 0.277_53).abs() < 1e-4);
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
    }

    proptest! {
        #[test]
        fn shares_add_up(logits in prop::collection::vec(prop::collection::vec(-9f32..9.0, 7), 1..20)) {
            let labels: Vec<usize> = (0..logits.len()).map(|at| at % 7).collect();
            let closed = measure(&logits, &labels, &names(7)).expect("figures");
            prop_assert!(closed.top1 <= closed.top5);
            let [low, high] = closed.top1_interval;
            prop_assert!(low <= closed.top1 && closed.top1 <= high);
            prop_assert_eq!(closed.confusion.iter().map(|c| c.photos).sum::<usize>(), labels.len());
            let right: usize = closed.people.iter().map(|person| person.right).sum();
            prop_assert!((closed.top1 - right as f64 / labels.len() as f64).abs() < 1e-12);
        }
    }
}
