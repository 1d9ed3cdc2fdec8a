//! Splits a data set into parts, so that evaluation uses photos that training did not see.

use crate::chance::Chance;
use crate::data::dataset::{Row, counted};
use anyhow::{Result, bail};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// Names of the parts and stems of their files.
pub const PARTS: [&str; 3] = ["train", "validation", "test"];

/// Shares of training, validation and test set; they add up to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares([f64; 3]);

impl Default for Shares {
    /// 10 % test; of the rest 88 % training and 12 % validation.
    fn default() -> Self {
        Self([0.9 * 0.88, 0.9 * 0.12, 0.1])
    }
}

impl FromStr for Shares {
    type Err = String;

    /// Parses `TRAIN:VALIDATION:TEST`, in any unit.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<f64> =
            text.split(':').map_while(|part| part.trim().parse().ok()).collect();
        match numbers[..] {
            [train, validation, test]
                if text.split(':').count() == 3
                    && numbers.iter().all(|share| (0.0..=1e9).contains(share))
                    && train + validation + test > 0.0 =>
            {
                Ok(Self([train, validation, test].map(|share| share / (train + validation + test))))
            }
            _ => Err("expected TRAIN:VALIDATION:TEST, such as 80:10:10".to_owned()),
        }
    }
}

impl Shares {
    /// Whether the share of a part is above 0. Parts are numbered as in [`PARTS`].
    pub fn wants(&self, part: usize) -> bool {
        self.0.get(part).is_some_and(|share| *share > 0.0)
    }

    /// Share of the validation set in training and validation set together.
    fn validation_of_rest(&self) -> f64 {
        let [train, validation, _] = self.0;
        if train + validation > 0.0 { validation / (train + validation) } else { 0.0 }
    }
}

/// Splits each person's photos by the same shares; the seed decides which photo goes where.
///
/// A person's share is rarely a whole number, so it is rounded up or down. The remainder
/// carries over to the next person, which keeps the totals as close to the shares as
/// possible. If the training share is above 0, each person has at least one training photo,
/// so that nobody is tested who was not learned. The rows of a part keep their order.
pub fn by_photo(rows: &[Row], shares: Shares, seed: i64) -> [Vec<Row>; 3] {
    let mut part_of = vec![0; rows.len()];
    let (mut test_rest, mut validation_rest) = (Rest::default(), Rest::default());
    let keep = usize::from(shares.wants(0));
    for (mut chance, photos) in people(rows, seed) {
        let count = photos.len();
        // A single photo takes no part in rounding; many of them would distort the
        // remainder.
        let lone = count <= keep;
        let test = if lone { 0 } else { test_rest.share(count, shares.0[2], count - keep) };
        let left = count - test;
        let validation = match lone {
            true => 0,
            false => validation_rest.share(left, shares.validation_of_rest(), left - keep),
        };
        for (place, at) in chance.order(count).into_iter().enumerate() {
            part_of[photos[at as usize]] = match place {
                place if place < test => 2,
                place if place < test + validation => 1,
                _ => 0,
            };
        }
    }
    parts(rows, |at| part_of[at])
}

/// Puts all photos of a person into one part, for evaluation on unseen people. The shares
/// count people, and each part with a share above 0 gets at least one person. Labels are
/// renumbered from 0 in each part.
///
/// # Errors
/// If there are fewer people than parts.
pub fn by_person(rows: &[Row], shares: Shares, seed: i64) -> Result<[Vec<Row>; 3]> {
    let people = people(rows, seed);
    let count = people.len();
    let wanted = (0..3).filter(|part| shares.wants(*part)).count();
    if count < wanted {
        bail!(
            "{} cannot be divided among {wanted} parts with no person in two; add people or \
             give a part the share 0",
            counted(count, "person", "people")
        );
    }
    // Each part with a share above 0 gets at least one person.
    let least = |part| usize::from(shares.wants(part));
    let rounded = |all: usize, share: f64| (all as f64 * share).round() as usize;
    let test = rounded(count, shares.0[2]).clamp(least(2), count - least(0) - least(1));
    let left = count - test;
    let validation = rounded(left, shares.validation_of_rest()).clamp(least(1), left - least(0));
    let mut part_of = vec![0; rows.len()];
    for (place, (_, photos)) in people.iter().enumerate() {
        for at in photos {
            part_of[*at] = match place {
                place if place < test => 2,
                place if place < test + validation => 1,
                _ => 0,
            };
        }
    }
    Ok(parts(rows, |at| part_of[at]).map(|part| renumbered(&part)))
}

/// The photos of these people, with labels renumbered from 0.
pub fn of_people(rows: &[Row], people: &BTreeSet<String>) -> Vec<Row> {
    let part: Vec<Row> = rows.iter().filter(|row| people.contains(&row.person)).cloned().collect();
    renumbered(&part)
}

/// Renumbers labels from 0 without gaps, in the same order.
fn renumbered(rows: &[Row]) -> Vec<Row> {
    let labels: BTreeSet<usize> = rows.iter().map(|row| row.label).collect();
    let new: BTreeMap<usize, usize> =
        labels.into_iter().enumerate().map(|(new, old)| (old, new)).collect();
    rows.iter().map(|row| Row { label: new[&row.label], ..row.clone() }).collect()
}

/// Number of people in a part.
pub fn count_people(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.label).collect::<BTreeSet<_>>().len()
}

fn parts(rows: &[Row], part_of: impl Fn(usize) -> usize) -> [Vec<Row>; 3] {
    [0, 1, 2].map(|part| {
        let mine = rows.iter().enumerate().filter(|(at, _)| part_of(*at) == part);
        mine.map(|(_, row)| row.clone()).collect()
    })
}

/// Each person's photos as row indices, in an order that the seed gives, with a random
/// generator per person. The generator depends on seed and name only, so that a new person
/// changes the assignment of few other photos.
fn people(rows: &[Row], seed: i64) -> Vec<(Chance, Vec<usize>)> {
    let mut of: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        of.entry(&row.person).or_default().push(at);
    }
    let mut people: Vec<_> = of
        .into_iter()
        .map(|(person, photos)| {
            let digest = Sha256::digest(person);
            let name = digest.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
            let mut chance = Chance::new(seed ^ name);
            (chance.below(usize::MAX), chance, photos)
        })
        .collect();
    // The sort is stable: people with the same number, which is rare, stay sorted by name.
    people.sort_by_key(|(place, ..)| *place);
    people.into_iter().map(|(_, chance, photos)| (chance, photos)).collect()
}

/// Remainder of rounding so far, for one part.
#[derive(Default)]
struct Rest(f64);

impl Rest {
    /// The share of `count`, rounded up or down, at most `most`.
    fn share(&mut self, count: usize, share: f64, most: usize) -> usize {
        let exact = count as f64 * share;
        // A product such as 20 * 0.1 must not be rounded up because of its last bit.
        let exact = if (exact - exact.round()).abs() < 1e-9 { exact.round() } else { exact };
        let wanted = (exact + self.0).round().clamp(exact.floor(), exact.ceil());
        let given = (wanted as usize).min(most);
        self.0 = (self.0 + exact - given as f64).clamp(-0.5, 0.5);
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows of people with the given numbers of photos.
    fn rows(photos: &[usize]) -> Vec<Row> {
        let of = |(label, count): (usize, &usize)| {
            (0..*count).map(move |at| Row {
                path: format!("p{label}/{at}.png").into(),
                label,
                person: format!("p{label}"),
                group: (at % 2 == 0).then(|| "even".to_owned()),
            })
        };
        photos.iter().enumerate().flat_map(of).collect()
    }

    fn of_person(part: &[Row], person: &str) -> usize {
        part.iter().filter(|row| row.person == person).count()
    }

    #[test]
    fn ten_people_of_twenty_photos_fall_into_the_default_shares() {
        for seed in 0..20 {
            let [train, validation, test] = by_photo(&rows(&[20; 10]), Shares::default(), seed);
            assert_eq!((train.len(), validation.len(), test.len()), (158, 22, 20));
            for person in 0..10 {
                let person = format!("p{person}");
                assert_eq!(of_person(&test, &person), 2);
                assert!((2..=3).contains(&of_person(&validation, &person)));
            }
        }
    }

    #[test]
    fn seeds_differ_and_a_newcomer_moves_few_photos() {
        let shares = Shares::default();
        let [.., test] = by_photo(&rows(&[20; 10]), shares, 1);
        assert_ne!(test, by_photo(&rows(&[20; 10]), shares, 2)[2]);
        let [.., more] = by_photo(&rows(&[20; 11]), shares, 1);
        assert!(test.iter().all(|row| more.contains(row)));
    }

    #[test]
    fn a_ratio_has_three_numbers_of_any_unit() {
        let shares: Shares = "8:1:1".parse().expect("shares");
        assert_eq!(shares.0, [0.8, 0.1, 0.1]);
        assert!("90:10:0".parse::<Shares>().is_ok_and(|shares| !shares.wants(2)));
        for text in ["", "1:1", "1:1:1:1", "a:b:c", "0:0:0", "-1:1:1", "nan:1:1", "1:x:1:1"] {
            assert!(text.parse::<Shares>().is_err(), "{text}");
        }
    }

    #[test]
    fn too_few_people_for_the_parts_are_refused() {
        let error = by_person(&rows(&[5, 5]), Shares::default(), 1).expect_err("two people");
        assert!(error.to_string().contains("2 people cannot be divided among 3 parts"));
        let two: Shares = "1:0:1".parse().expect("shares");
        let [train, validation, test] = by_person(&rows(&[5, 5]), two, 1).expect("two parts");
        assert_eq!((train.len(), validation.len(), test.len()), (5, 0, 5));
    }

    #[test]
    fn people_of_a_list_are_numbered_from_0() {
        let part = of_people(&rows(&[1, 2, 3]), &["p2".to_owned(), "p1".to_owned()].into());
        let told: Vec<_> = part.iter().map(|row| (row.person.as_str(), row.label)).collect();
        assert_eq!(told, [("p1", 0), ("p1", 0), ("p2", 1), ("p2", 1), ("p2", 1)]);
    }

    fn shares() -> impl Strategy<Value = Shares> {
        (0u32..100, 0u32..100, 0u32..100)
            .prop_filter_map("none", |(a, b, c)| format!("{a}:{b}:{c}").parse().ok())
    }

    /// Each row is in exactly one part.
    fn nothing_is_lost(rows: &[Row], parts: &[Vec<Row>; 3]) -> Result<(), TestCaseError> {
        let mut paths: Vec<_> = parts.iter().flatten().map(|row| &row.path).collect();
        paths.sort();
        let mut expected: Vec<_> = rows.iter().map(|row| &row.path).collect();
        expected.sort();
        prop_assert_eq!(paths, expected);
        Ok(())
    }

    proptest! {
        #[test]
        fn photos_are_shared_out_whole_and_evenly(
            photos in prop::collection::vec(1usize..40, 1..20),
            shares in shares(),
            seed: i64,
        ) {
            let rows = rows(&photos);
            let parts = by_photo(&rows, shares, seed);
            nothing_is_lost(&rows, &parts)?;
            prop_assert_eq!(&parts, &by_photo(&rows, shares, seed));
            for part in &parts {
                prop_assert!(part.is_sorted_by_key(|row| rows.iter().position(|r| r == row)));
            }
            for (label, count) in photos.iter().enumerate() {
                let person = format!("p{label}");
                let [train, _, test] = [0, 1, 2].map(|part| of_person(&parts[part], &person));
                let exact = *count as f64 * shares.0[2];
                prop_assert!(test as f64 <= exact.ceil(), "{test} of {exact}");
                if shares.wants(0) {
                    prop_assert!(train >= 1);
                    prop_assert!(test as f64 >= exact.floor().min(*count as f64 - 1.0));
                }
            }
            for (at, part) in parts.iter().enumerate() {
                prop_assert!(shares.wants(at) || part.is_empty());
            }
        }

        #[test]
        fn with_enough_photos_each_part_has_its_share_of_all(
            photos in prop::collection::vec(4usize..60, 20..40),
            seed: i64,
        ) {
            let rows = rows(&photos);
            let parts = by_photo(&rows, Shares::default(), seed);
            for (part, share) in parts.iter().zip(Shares::default().0) {
                let exact = rows.len() as f64 * share;
                prop_assert!((part.len() as f64 - exact).abs() <= 1.5, "{} of {exact}", part.len());
            }
        }

        #[test]
        fn nobody_is_in_two_parts(
            photos in prop::collection::vec(1usize..10, 3..30),
            shares in shares(),
            seed: i64,
        ) {
            let rows = rows(&photos);
            let parts = by_person(&rows, shares, seed).expect("enough people");
            nothing_is_lost(&rows, &parts)?;
            let people = parts.each_ref().map(|part| -> BTreeSet<&str> {
                part.iter().map(|row| row.person.as_str()).collect()
            });
            for (at, some) in people.iter().enumerate() {
                prop_assert!(people[at + 1..].iter().all(|others| some.is_disjoint(others)));
                prop_assert_eq!(some.is_empty(), !shares.wants(at));
                let labels: BTreeSet<usize> = parts[at].iter().map(|row| row.label).collect();
                prop_assert!(labels.into_iter().eq(0..some.len()));
            }
            prop_assert_eq!(&parts, &by_person(&rows, shares, seed).expect("again"));
        }
    }
}
