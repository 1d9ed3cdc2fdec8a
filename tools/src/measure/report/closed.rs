//! Closed set: everybody is one of those the head has learned, and it is asked whom it
//! sees. Logits come without a margin: with it, the right answer would be part of the
//! question.

use anyhow::{Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;

/// Figures of a head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Closed {
    /// Photos told.
    pub photos: usize,
    /// People the head knows.
    pub classes: usize,
    /// Mean cross-entropy, natural logarithm, without margin and smoothing.
    pub loss: f64,
    /// What guessing evenly would lose.
    pub loss_of_chance: f64,
    /// Share of photos whose highest logit is the right one, 0..=1.
    pub top1: f64,
    /// 95 % of it, by Wilson's formula, which takes photos for independent: a bound from
    /// below of what is not known.
    pub top1_interval: [f64; 2],
    /// Share of photos with the right one among the five highest logits.
    pub top5: f64,
    /// Names by label.
    pub names: Vec<String>,
    /// Each person with photos.
    pub people: Vec<Person>,
    /// Who was taken for whom, and how often; right ones are among them. Sorted.
    pub confusion: Vec<Confusion>,
}

/// How a person was told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Person {
    /// Name.
    pub person: String,
    /// Their photos.
    pub photos: usize,
    /// Told right.
    pub right: usize,
    /// Others' photos told as theirs.
    pub others: usize,
    /// Whom they are most often taken for, if for anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mistaken_for: Option<String>,
}

/// A cell of the confusion matrix that is not empty.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confusion {
    /// Label of who it is.
    pub person: usize,
    /// Label of whom it was taken for.
    pub taken_for: usize,
    /// Photos.
    pub photos: usize,
}

/// Measures logits, a row a photo, against labels. `people` are names by label. Of equal
/// logits the lower label wins.
pub fn measure(logits: &[Vec<f32>], labels: &[usize], people: &[String]) -> Result<Closed> {
    ensure!(logits.len() == labels.len(), "{} logits of {} photos", logits.len(), labels.len());
    ensure!(!labels.is_empty(), "no photo to measure on");
    let (mut loss, mut first, mut fifth) = (0.0, 0, 0);
    let mut confusion: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (row, label) in logits.iter().zip(labels) {
        ensure!(row.len() == people.len(), "{} logits of {} people", row.len(), people.len());
        ensure!(*label < people.len(), "label {label} of {} people", people.len());
        ensure!(
            row.iter().all(|value| value.is_finite()),
            "a photo of {} has a logit that is not finite; the weights are no good",
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

/// 95 % of a share (Wilson, "Probable inference, the law of succession, and statistical
/// inference", 1927).
pub fn wilson(events: usize, trials: usize) -> [f64; 2] {
    if trials == 0 {
        return [0.0, 1.0];
    }
    let (n, z) = (trials as f64, 1.959_964);
    let p = events as f64 / n;
    let middle = p + z * z / (2.0 * n);
    let around = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let bound = |value: f64| (value / (1.0 + z * z / n)).clamp(0.0, 1.0);
    [bound(middle - around), bound(middle + around)]
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
