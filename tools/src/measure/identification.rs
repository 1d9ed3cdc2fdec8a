//! Identification: searches in a gallery with probes of enrolled people and of others.
//! Results are the false negative identification rate (FNIR) and the false positive
//! identification rate (FPIR) of ISO/IEC 19795-1.

use crate::chance::Chance;
use crate::measure::comparisons::{draws, interval};
use facelatch::vision::embed::Embedding;

/// Choice of the people to enroll in the gallery.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of templates per person: the first photos are enrolled, the others are
    /// probes.
    pub enrolled: usize,
    /// Lowest share of people who are not enrolled, 0..=1. People with too few photos for
    /// templates and a probe come first.
    pub outside: f64,
    /// Seed of the choice of the other people not enrolled.
    pub seed: i64,
}

/// A mated search: its probe is of an enrolled person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mated {
    /// Person of the probe.
    pub person: usize,
    /// Similarity to that person's template if it is the best match; `None` if another
    /// person matches better or the probe has no face.
    pub similarity: Option<f32>,
}

/// A non-mated search: its probe is of a person who is not enrolled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NonMated {
    /// Person of the probe.
    pub person: usize,
    /// Similarity of the best match; `None` if the probe has no face.
    pub similarity: Option<f32>,
}

/// Results of all searches.
#[derive(Clone, Debug, Default)]
pub struct Searches {
    /// Number of people enrolled.
    pub enrolled: usize,
    /// Number of templates enrolled.
    pub templates: usize,
    /// Number of people not enrolled.
    pub outside: usize,
    /// Mated searches by descending similarity; those without one are last.
    pub mated: Vec<Mated>,
    /// Non-mated searches by descending similarity; those without one are last.
    pub non_mated: Vec<NonMated>,
}

impl Searches {
    /// Enrolls people and runs all searches. Each face comes with its person; the faces of
    /// a person are used in their order. Enrolment takes the first photos that show a face,
    /// because a door would ask for another view otherwise. A probe without a face finds
    /// nobody. `None` if nobody can be enrolled or nobody is left outside.
    pub fn run(faces: &[(usize, Option<&Embedding>)], settings: &Settings) -> Option<Self> {
        let people = faces.iter().map(|(person, _)| person + 1).max()?;
        let mut photos = vec![Vec::new(); people];
        for (person, embedding) in faces {
            photos[*person].push(*embedding);
        }
        let present: Vec<usize> = (0..people).filter(|p| !photos[*p].is_empty()).collect();
        let wanted = settings.enrolled.max(1);
        let fit = |person: &usize| {
            let found = photos[*person].iter().flatten().count();
            found >= wanted && photos[*person].len() > wanted
        };
        let (mut inside, mut outside): (Vec<usize>, Vec<usize>) =
            present.iter().partition(|person| fit(person));
        let least = (settings.outside.clamp(0.0, 1.0) * present.len() as f64).ceil() as usize;
        let mut chance = Chance::new(settings.seed);
        while outside.len() < least && !inside.is_empty() {
            outside.push(inside.remove(chance.below(inside.len())));
        }
        if inside.is_empty() || outside.is_empty() {
            return None;
        }
        let mut templates: Vec<(usize, &Embedding)> = Vec::new();
        let mut probes = Vec::new();
        for person in &inside {
            let mut left = wanted;
            for photo in &photos[*person] {
                match photo {
                    Some(embedding) if left > 0 => {
                        left -= 1;
                        templates.push((*person, embedding));
                    }
                    // A photo without a face before enrolment is complete is not a probe.
                    _ if left > 0 => {}
                    photo => probes.push((*person, *photo)),
                }
            }
        }
        let best = |probe: &Embedding| {
            let of =
                |(person, template): &(usize, &Embedding)| (*person, template.similarity(probe));
            templates.iter().map(of).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
        };
        let mut mated: Vec<Mated> = probes
            .into_iter()
            .map(|(person, probe)| {
                let first = probe.and_then(best).filter(|(found, _)| *found == person);
                Mated { person, similarity: first.map(|(_, similarity)| similarity) }
            })
            .collect();
        let mut non_mated: Vec<NonMated> = outside
            .iter()
            .flat_map(|person| photos[*person].iter().map(|probe| (*person, *probe)))
            .map(|(person, probe)| {
                let first = probe.and_then(best);
                NonMated { person, similarity: first.map(|(_, similarity)| similarity) }
            })
            .collect();
        let order = |a: Option<f32>, b: Option<f32>| {
            b.unwrap_or(f32::NEG_INFINITY).total_cmp(&a.unwrap_or(f32::NEG_INFINITY))
        };
        mated.sort_by(|a, b| order(a.similarity, b.similarity));
        non_mated.sort_by(|a, b| order(a.similarity, b.similarity));
        Some(Self {
            enrolled: inside.len(),
            templates: templates.len(),
            outside: outside.len(),
            mated,
            non_mated,
        })
    }

    /// The lowest similarity threshold at which the FPIR is at most `false_positives`.
    pub fn threshold_at(&self, false_positives: f64) -> f32 {
        let allowed = (false_positives * self.non_mated.len() as f64).floor() as usize;
        let first = self.non_mated.get(allowed).and_then(|search| search.similarity);
        first.map_or(-1.0, f32::next_up)
    }

    /// FNIR at a threshold: share of mated searches whose best match is not the right
    /// person at or above the threshold.
    pub fn false_negatives_above(&self, threshold: f32) -> f64 {
        let found = self.mated.partition_point(|search| search.similarity >= Some(threshold));
        1.0 - found as f64 / self.mated.len().max(1) as f64
    }

    /// FPIR at a threshold: share of non-mated searches with a match at or above it.
    pub fn false_positives_above(&self, threshold: f32) -> f64 {
        let found = self.non_mated.partition_point(|search| search.similarity >= Some(threshold));
        found as f64 / self.non_mated.len().max(1) as f64
    }

    /// FNIR at an upper limit of the FPIR.
    pub fn false_negatives(&self, false_positives: f64) -> f64 {
        self.false_negatives_above(self.threshold_at(false_positives))
    }

    /// 95 % bootstrap intervals of the FNIR at the FPIR limits `rates`: people are
    /// resampled with their searches, and the gallery stays the same. `None` if a resample
    /// could not be measured.
    pub fn intervals(&self, rates: &[f64], seed: i64) -> Vec<Option<[f64; 2]>> {
        let all = self.mated.iter().map(|search| search.person);
        let people = all.chain(self.non_mated.iter().map(|search| search.person)).max();
        let mut drawn = vec![Vec::new(); rates.len()];
        for times in draws(people.map_or(0, |last| last + 1), seed) {
            let mated: f64 = self.mated.iter().map(|search| times[search.person]).sum();
            let non_mated: f64 = self.non_mated.iter().map(|search| times[search.person]).sum();
            if mated <= 0.0 || non_mated <= 0.0 {
                continue;
            }
            for (rate, drawn) in rates.iter().zip(&mut drawn) {
                let mut passed = 0.0;
                let first = self.non_mated.iter().find(|search| {
                    passed += times[search.person];
                    passed > rate * non_mated
                });
                let threshold = first.and_then(|search| search.similarity);
                let threshold = threshold.map_or(-1.0, f32::next_up);
                let found = self.mated.iter().take_while(|s| s.similarity >= Some(threshold));
                let found: f64 = found.map(|search| times[search.person]).sum();
                drawn.push(1.0 - found / mated);
            }
        }
        drawn.into_iter().map(interval).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::comparisons::tests::crowd;
    use proptest::prelude::*;

    const SETTINGS: Settings = Settings { enrolled: 1, outside: 0.5, seed: 1 };

    fn at(degrees: f32) -> Embedding {
        Embedding::normalized(&[degrees.to_radians().cos(), degrees.to_radians().sin()])
    }

    fn search(faces: &[(usize, Embedding)], settings: &Settings) -> Option<Searches> {
        let faces: Vec<_> = faces.iter().map(|(person, face)| (*person, Some(face))).collect();
        Searches::run(&faces, settings)
    }

    #[test]
    fn a_small_gallery_is_searched_by_hand() {
        // Two people are enrolled at 0 and 90 degrees. One finds herself at 10 degrees,
        // and once at 60, where the other is nearer; the other finds himself at 20. A
        // third has one photo and stays outside, 45 degrees from both.
        let faces = [
            (0, at(0.0)),
            (0, at(10.0)),
            (0, at(60.0)),
            (1, at(90.0)),
            (1, at(70.0)),
            (2, at(135.0)),
        ];
        let found = search(&faces, &Settings { outside: 0.0, ..SETTINGS }).expect("searches");
        assert_eq!((found.enrolled, found.templates, found.outside), (2, 2, 1));
        let cosines: Vec<Option<f32>> = found.mated.iter().map(|s| s.similarity).collect();
        assert_eq!(cosines.len(), 3);
        for (cosine, degrees) in cosines.iter().zip([10f32, 20.0]) {
            assert!((cosine.expect("found") - degrees.to_radians().cos()).abs() < 1e-6);
        }
        assert_eq!(cosines[2], None);
        assert!((found.false_negatives_above(-1.0) - 1.0 / 3.0).abs() < 1e-12);
        assert!((found.false_negatives_above(0.95) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(found.false_positives_above(0.70), 1.0);
        assert_eq!(found.false_positives_above(0.71), 0.0);
        assert!((found.false_negatives(0.0) - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_probe_without_a_face_is_missed_and_an_enrollment_asks_for_another_photo() {
        let faces = [at(0.0), at(90.0)];
        let shown = [
            (0, None),
            (0, Some(&faces[0])),
            (0, None),
            (0, Some(&faces[0])),
            (1, Some(&faces[1])),
            (1, None),
        ];
        // The second person has two photos, of which one shows a face: enrolled, and
        // searched for in vain.
        let found = Searches::run(&shown, &Settings { outside: 0.0, ..SETTINGS });
        assert!(found.is_none(), "nobody is outside");
        let found = Searches::run(&shown[..5], &Settings { outside: 0.0, ..SETTINGS });
        let found = found.expect("the second has one photo and stays outside");
        assert_eq!((found.templates, found.mated.len(), found.non_mated.len()), (1, 2, 1));
        assert_eq!(found.false_negatives_above(-1.0), 0.5);
    }

    #[test]
    fn the_share_outside_is_filled_with_others() {
        let faces = crowd(10, 3, 0.3);
        let found = search(&faces, &Settings { outside: 0.4, ..SETTINGS }).expect("searches");
        assert_eq!((found.enrolled, found.outside), (6, 4));
        assert_eq!((found.mated.len(), found.non_mated.len()), (12, 12));
        let two = Settings { enrolled: 2, ..SETTINGS };
        let found = search(&faces, &two).expect("searches");
        assert_eq!((found.templates, found.mated.len()), (10, 5));
        assert!(search(&faces, &Settings { enrolled: 3, ..SETTINGS }).is_none());
    }

    #[test]
    fn an_interval_holds_the_rate() {
        let found = search(&crowd(60, 4, 1.3), &SETTINGS).expect("searches");
        for (rate, interval) in [0.1, 0.03].iter().zip(found.intervals(&[0.1, 0.03], 1)) {
            let [low, high] = interval.expect("an interval");
            let rate = found.false_negatives(*rate);
            assert!(low <= rate && rate <= high && low < high, "{low} {rate} {high}");
        }
    }

    proptest! {
        #[test]
        fn misses_fall_as_false_positives_rise(people in 4usize..12, a in 0.0f64..1.0, b in 0.0f64..1.0) {
            let found = search(&crowd(people, 3, 1.0), &SETTINGS).expect("searches");
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(found.false_negatives(high) <= found.false_negatives(low));
            prop_assert!(found.false_positives_above(found.threshold_at(low)) <= low);
        }

        #[test]
        fn searches_find_what_looking_at_everybody_finds(people in 3usize..9, width in 0.2f64..2.0) {
            let faces = crowd(people, 3, width);
            let found = search(&faces, &Settings { outside: 0.01, ..SETTINGS }).expect("searches");
            let outside = found.non_mated[0].person;
            let enrolled: Vec<usize> = (0..people).filter(|person| *person != outside).collect();
            let mut expected = 0;
            for (at, (person, face)) in faces.iter().enumerate() {
                if *person == outside || at % 3 == 0 { continue }
                let own = face.similarity(&faces[person * 3].1);
                let beaten = enrolled
                    .iter()
                    .any(|other| other != person && face.similarity(&faces[other * 3].1) > own);
                expected += usize::from(beaten);
            }
            let missed = found.false_negatives_above(-1.0) * found.mated.len() as f64;
            prop_assert!((missed - expected as f64).abs() < 1e-9);
        }
    }
}
