//! Error rates of the liveness check on live faces, prints and screens, by ISO/IEC 30107-3.

pub mod attacks;

use crate::chance::Chance;
use crate::data::photos;
use crate::measure::liveness::attacks::{Presentation, Species};
use crate::measure::report::closed::wilson;
use crate::parallel;
use anyhow::{Result, bail};
use facelatch::models::{Alignment, Models};
use facelatch::vision::align::align;
use facelatch::vision::detect::{Detector, DetectorSettings, nearest_center};
use facelatch::vision::frame::Frame;
use facelatch::vision::liveness::network::LivenessNets;
use facelatch::vision::liveness::{Cue, Cues, Liveness, Sample, Verdict};
use facelatch::vision::picture;
use facelatch::vision::quality::Quality;
use facelatch::vision::recognizer::View;
use facelatch::vision::whole;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Frames per presentation, and the time between two frames.
pub const FRAMES: usize = 10;
const BETWEEN: Duration = Duration::from_millis(100);
/// Suspicion, 0..=1, from which a single cue classifies a face as an attack.
const SUSPICIOUS: f32 = 0.5;

/// Result of one presentation.
#[derive(Clone, Debug)]
pub struct Presented {
    /// What was presented.
    pub species: Species,
    /// Verdict after the last frame; `None` if too few frames showed a face.
    pub verdict: Option<Verdict>,
}

/// Error rates of one decision rule.
#[derive(Clone, Debug, Serialize)]
pub struct Rates {
    /// Decision rule: a cue, or a combination of cues.
    pub by: String,
    /// BPCER: share of live (bona fide) presentations classified as attacks, 0..=1.
    pub bpcer: f64,
    /// 95 % interval of the BPCER (Wilson).
    pub bpcer_interval: [f64; 2],
    /// APCER per species: share of attacks classified as live, 0..=1.
    pub apcer: Vec<(Species, f64)>,
    /// Highest APCER of all species, which the standard requires.
    pub apcer_worst: f64,
}

/// Reads one value from the cues, if it is present.
type Value = fn(&Cues) -> Option<f32>;

/// Results of `liveness`; the JSON output.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the model set.
    pub models: String,
    /// Whether the set has liveness networks.
    pub networks: bool,
    /// Seed of everything random.
    pub seed: i64,
    /// Number of photos with a face.
    pub photos: usize,
    /// Photos that were skipped, with the reason.
    pub left_out: Vec<String>,
    /// Species, number of presentations, and share of them without a verdict, 0..=1.
    pub presentations: Vec<(Species, usize, f64)>,
    /// Liveness score, 0..=1, below which all cues together classify a face as an attack.
    pub threshold: f32,
    /// Error rates of combinations of cues, then of each cue alone.
    pub rates: Vec<Rates>,
    /// Values of each cue: name, species, and the quantiles of [`QUANTILES`].
    pub measured: Vec<(String, Species, [f32; 5])>,
}

/// Quantiles reported of each cue value.
pub const QUANTILES: [f64; 5] = [0.01, 0.05, 0.5, 0.95, 0.99];

/// Simulates each species from every photo's face and runs the liveness check on it as the
/// door does. Returns the results and the photos that were skipped, with reasons.
///
/// # Errors
/// If fewer than two photos are readable, or a network fails.
pub fn present(
    models: &Models,
    paths: &[PathBuf],
    seed: i64,
) -> Result<(Vec<Presented>, Vec<String>)> {
    let mut pictures: Vec<Frame> = Vec::new();
    let mut left_out = Vec::new();
    for path in paths {
        match picture::read(path) {
            Ok(frame) => pictures.push(frame),
            Err(error) => left_out.push(error.to_string()),
        }
    }
    if pictures.len() < 2 {
        bail!("{} readable photos, expected at least two; add photos", pictures.len());
    }
    let progress = photos::progress(pictures.len(), "presenting");
    let settings = DetectorSettings { minimum_face: 40.0, ..DetectorSettings::default() };
    let make = || {
        let nets = models.liveness().map(LivenessNets::new).transpose()?;
        Ok((Detector::new(&models.detector, settings)?, nets))
    };
    let presented = parallel::each(
        parallel::cores(),
        pictures.len(),
        make,
        |(detector, nets): &mut (Detector, Option<LivenessNets>), at| {
            progress.inc(1);
            let photo = &pictures[at];
            let Some(face) = nearest_center(detector.detect(photo)?, photo).copied() else {
                return Ok(None);
            };
            let background = &pictures[(at + 1) % pictures.len()];
            let mut all = Vec::new();
            for (number, species) in Species::ALL.into_iter().enumerate() {
                let mut chance = Chance::at(seed, &[at as u64, number as u64]);
                let shown = Presentation::new(photo, &face, background, species, &mut chance);
                let verdict = watch(detector, nets.as_mut(), &shown, &mut chance)?;
                all.push(Presented { species, verdict });
            }
            Ok(Some(all))
        },
    );
    progress.finish_and_clear();
    let presented = presented?;
    let none = presented.iter().filter(|all| all.is_none()).count();
    left_out.extend((none > 0).then(|| format!("{none} photos without a face")));
    Ok((presented.into_iter().flatten().flatten().collect(), left_out))
}

fn watch(
    detector: &mut Detector,
    mut nets: Option<&mut LivenessNets>,
    shown: &Presentation,
    chance: &mut Chance,
) -> Result<Option<Verdict>> {
    let (mut track, mut verdict) = (Liveness::default(), None);
    for number in 0..FRAMES {
        let frame = shown.frame(number, chance);
        let Some(face) = nearest_center(detector.detect(&frame)?, &frame).copied() else {
            continue;
        };
        let crop = align(&frame, &face.landmarks, &Alignment::ARCFACE);
        let quality = Quality::measure(&whole::content(&frame), &face, &crop, None);
        let view = View { face, crop, quality, template: None };
        let mut sample = Sample::measure(&frame, &view);
        let now = BETWEEN * number as u32;
        if let Some(nets) = nets.as_mut().filter(|_| track.network_due(now)) {
            sample.network = Some(nets.judge(&frame, &face.rect)?);
        }
        verdict = Some(track.step(now, &sample));
    }
    Ok(verdict.filter(Verdict::counts))
}

/// Computes error rates and quantiles over all presentations.
pub fn report(
    models: &Models,
    seed: i64,
    threshold: f32,
    presented: &[Presented],
    left_out: Vec<String>,
) -> Report {
    let of = |species: Species| presented.iter().filter(move |one| one.species == species);
    let cues = |species| of(species).filter_map(|one| one.verdict.map(|verdict| verdict.cues));
    let presentations = Species::ALL
        .into_iter()
        .map(|species| {
            let (all, judged) = (of(species).count(), cues(species).count());
            (species, all, 1.0 - judged as f64 / all.max(1) as f64)
        })
        .collect();
    let rates = |by: String, attack: &dyn Fn(&Cues) -> bool| {
        let called =
            |species| (cues(species).filter(|cues| attack(cues)).count(), cues(species).count());
        let (refused, people) = called(Species::Live);
        let apcer: Vec<_> = Species::ALL[1..]
            .iter()
            .map(|species| {
                let (caught, all) = called(*species);
                (*species, (all - caught) as f64 / all.max(1) as f64)
            })
            .collect();
        Rates {
            by,
            bpcer: refused as f64 / people.max(1) as f64,
            bpcer_interval: wilson(refused, people),
            apcer_worst: apcer.iter().map(|(_, rate)| *rate).fold(0.0, f64::max),
            apcer,
        }
    };
    let networks = models.liveness().is_some();
    let attack = |cues: &Cues| cues.score() < threshold;
    let mut all = vec![
        rates("all together".into(), &attack),
        rates("and the nose must move".into(), &|cues| attack(cues) || !cues.solid()),
    ];
    if networks {
        let passive = |cues: &Cues| Cues { network: None, ..*cues }.score() < threshold;
        all.push(rates("all but the networks".into(), &passive));
    }
    for cue in Cue::ALL.into_iter().filter(|cue| networks || *cue != Cue::Network) {
        all.push(rates(cue.to_string(), &|cues| cues.suspicion(cue) >= SUSPICIOUS));
    }
    all.push(rates("nose that keeps still".into(), &|cues| !cues.solid()));
    let values: [(&str, Value); 13] = [
        ("parallax", |cues| cues.motion.map(|motion| motion.parallax)),
        ("turn", |cues| cues.motion.map(|motion| motion.turn)),
        ("moiré, dB", |cues| Some(cues.moire)),
        ("edges", |cues| Some(cues.edges)),
        ("sharpness", |cues| Some(cues.sharpness)),
        ("colours apart", |cues| Some(cues.colour())),
        ("saturation", |cues| Some(cues.colours[0])),
        ("its spread", |cues| Some(cues.colours[1])),
        ("warmth", |cues| Some(cues.colours[2])),
        ("black", |cues| Some(cues.colours[3])),
        ("diversity", |cues| Some(cues.colours[4])),
        ("glare", |cues| Some(cues.colours[5])),
        ("network", |cues| cues.network),
    ];
    let mut measured = Vec::new();
    for (name, value) in values {
        for species in Species::ALL {
            let mut all: Vec<f32> = cues(species).filter_map(|cues| value(&cues)).collect();
            all.sort_by(f32::total_cmp);
            if !all.is_empty() {
                let at = |share: f64| all[(share * (all.len() - 1) as f64).round() as usize];
                measured.push((name.to_owned(), species, QUANTILES.map(at)));
            }
        }
    }
    Report {
        models: models.manifest.version.clone(),
        networks,
        seed,
        photos: of(Species::Live).count(),
        left_out,
        presentations,
        threshold,
        rates: all,
        measured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_people_refused_and_attacks_let_in() {
        let models = Models::built_in().expect("models");
        let one = |species, moire: f32| {
            let cues = Cues { frames: 9, moire, sharpness: 1.0, ..Cues::default() };
            Presented { species, verdict: Some(Verdict { score: cues.score(), cues }) }
        };
        let mut presented = vec![one(Species::Live, 99.0)];
        presented.extend((0..3).map(|_| one(Species::Live, 0.0)));
        presented.extend([one(Species::Screen, 99.0), one(Species::Screen, 0.0)]);
        presented.push(one(Species::Print, 99.0));
        presented.push(Presented { species: Species::Screen, verdict: None });
        let report = report(&models, 0, 0.5, &presented, vec![]);
        let rates = report.rates.iter().find(|rates| rates.by == "moiré").expect("the cue");
        assert_eq!(rates.bpcer, 0.25);
        assert!(rates.apcer.contains(&(Species::Screen, 0.5)));
        assert!(rates.apcer.contains(&(Species::Print, 0.0)));
        assert_eq!(rates.apcer_worst, 0.5);
        let screen = report.presentations.iter().find(|(species, ..)| *species == Species::Screen);
        assert_eq!(screen, Some(&(Species::Screen, 3, 1.0 - 2.0 / 3.0)));
    }
}
