//! Random choices of a training: which photos an epoch shows, in which order, and which
//! classes a step uses.

use crate::chance::Chance;

/// Purpose of random numbers. Each purpose has its own sequence, so that drawing more for
/// one does not change the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Weights of a network that is trained from scratch.
    Network,
    /// Weights of a head.
    Head,
    /// Order of the photos in an epoch.
    Order,
    /// Classes that a step uses.
    Negatives,
}

/// Random generator for a purpose at a position of a training. It depends on nothing that
/// came before that position, so a training can resume anywhere.
pub fn chance(seed: i64, purpose: Purpose, epoch: usize, step: usize) -> Chance {
    Chance::at(seed, &[purpose as u64, epoch as u64, step as u64])
}

/// Every number below `count` once, in random order.
pub fn shuffled(count: usize, chance: &mut Chance) -> Vec<usize> {
    chance.order(count).into_iter().map(|at| at as usize).collect()
}

/// Indices of as many photos as there are labels, with each class shown equally often.
/// Classes take turns in a new random order each round. Each class shows its photos in
/// turn, and shuffles them again once all were shown. The counts of two classes differ by
/// at most one; classes without photos are skipped.
pub fn balanced(labels: &[i64], chance: &mut Chance) -> Vec<usize> {
    let classes = labels.iter().map(|label| *label as usize + 1).max().unwrap_or(0);
    let mut photos = vec![Vec::new(); classes];
    for (photo, label) in labels.iter().enumerate() {
        photos[*label as usize].push(photo);
    }
    photos.retain(|photos| !photos.is_empty());
    let mut left: Vec<Vec<usize>> = vec![Vec::new(); photos.len()];
    let mut order = Vec::with_capacity(labels.len());
    while order.len() < labels.len() {
        for class in shuffled(photos.len(), chance) {
            if left[class].is_empty() {
                let shuffled = shuffled(photos[class].len(), chance);
                left[class] = shuffled.into_iter().map(|at| photos[class][at]).collect();
            }
            // Never empty: it was filled just now if it was.
            order.extend(left[class].pop());
        }
    }
    order.truncate(labels.len());
    order
}

/// Classes that a step uses: all classes of its own photos, and random others up to a
/// share of all classes (An et al., "Killing Two Birds with One Stone: Efficient and
/// Robust Training of Face Recognition CNNs by Partial FC", 2022). Returns the classes in
/// ascending order, and the labels as positions in that list.
pub fn negatives(
    labels: &[i64],
    classes: usize,
    share: f64,
    chance: &mut Chance,
) -> (Vec<i64>, Vec<i64>) {
    let mut chosen: Vec<i64> = labels.to_vec();
    chosen.sort_unstable();
    chosen.dedup();
    let wanted = ((share * classes as f64).ceil() as usize).min(classes);
    if chosen.len() < wanted {
        let own = chosen.clone();
        let others = chance.order(classes).into_iter();
        let others = others.filter(|class| own.binary_search(class).is_err());
        chosen.extend(others.take(wanted - own.len()));
        chosen.sort_unstable();
    }
    // Every label is among the chosen classes.
    let place = |label: &i64| chosen.binary_search(label).unwrap_or(0) as i64;
    let places = labels.iter().map(place).collect();
    (chosen, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn any() -> Chance {
        chance(1, Purpose::Order, 1, 0)
    }

    #[test]
    fn each_purpose_and_place_has_a_chance_of_its_own() {
        let mut seen = BTreeSet::new();
        for seed in [-1, 0, 1, 2] {
            for purpose in [Purpose::Network, Purpose::Head, Purpose::Order, Purpose::Negatives] {
                for (epoch, step) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)] {
                    assert!(seen.insert(chance(seed, purpose, epoch, step).below(1 << 60)));
                }
            }
        }
        assert_eq!(any().below(1 << 60), any().below(1 << 60));
    }

    #[test]
    fn balanced_classes_are_shown_equally_often_and_each_photo_is_seen() {
        // Classes with ten photos, five, none and one.
        let labels: Vec<i64> =
            [vec![0; 10], vec![1; 5], vec![3; 1]].into_iter().flatten().collect();
        let order = balanced(&labels, &mut any());
        assert_eq!(order.len(), 16);
        let times = |label| order.iter().filter(|photo| labels[**photo] == label).count();
        let all: Vec<usize> = [0, 1, 3].map(times).to_vec();
        assert!(all.iter().all(|times| (5..=6).contains(times)), "{all:?}");
        let small: BTreeSet<usize> = order.iter().copied().filter(|p| labels[*p] == 1).collect();
        assert_eq!(small.len(), 5);
        assert_eq!(balanced(&labels, &mut any()), order);
        assert!(balanced(&[], &mut any()).is_empty());
    }

    #[test]
    fn a_step_looks_at_its_own_classes_and_some_others() {
        let (classes, places) = negatives(&[7, 90, 7], 100, 0.1, &mut any());
        assert_eq!(classes.len(), 10);
        assert!(classes.is_sorted_by(|a, b| a < b));
        assert_eq!(places.iter().map(|at| classes[*at as usize]).collect::<Vec<_>>(), [7, 90, 7]);
        let (classes, places) = negatives(&[2, 1], 3, 0.0, &mut any());
        assert_eq!((classes, places), (vec![1, 2], vec![1, 0]));
        let (classes, _) = negatives(&[2, 1], 3, 1.0, &mut any());
        assert_eq!(classes, [0, 1, 2]);
    }
}
