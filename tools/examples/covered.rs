//! How alike strangers are whose enrolled photos do not show the whole face, and which of
//! these photos are refused.
//!
//! From each person one photo is taken, and spoilt in several ways: covered, or cut by its
//! edge. Every two people whose photos are accepted make an impostor pair. Its rate above the
//! threshold for one in ten thousand should be that of whole faces.
//!
//!     cargo run --release -p facelatch-tools --example covered -- MODELS IMAGES PEOPLE [COUNT]
//!
//! MODELS is a folder of models. IMAGES holds NAME/NAME_0001.jpg; PEOPLE is a list of names,
//! none of whom the set has learned from. COUNT people are drawn, 300 if it is not given.

#![expect(clippy::print_stdout, reason = "the example's own output")]

use anyhow::{Context, Result, bail};
use facelatch::models::covered::CoverClassifier;
use facelatch::models::{Alignment, Models};
use facelatch::vision::align::{Similarity, align};
use facelatch::vision::detect::{Detector, DetectorSettings, Face, nearest_center};
use facelatch::vision::embed::{Embedder, Embedding};
use facelatch::vision::frame::{Frame, Landmarks};
use facelatch::vision::picture;
use facelatch::vision::quality::{Aspect, Quality, WORTH_ENROLLING};
use facelatch::vision::whole;
use facelatch_tools::chance::Chance;
use facelatch_tools::data::covers::{Kind, spoilt};
use facelatch_tools::measure::lfw::{all_photos, names_in};
use facelatch_tools::parallel;
use std::path::PathBuf;

/// People drawn if no number is given.
const PEOPLE: usize = 300;
/// False accept rate per pair whose threshold is taken.
const RATE: f64 = 1e-4;
/// Seed of the covers. Classifiers are learned with small seeds.
const SEED: i64 = 20_000;
/// Ways to spoil a photo, besides those of [`Kind`]: none, and covers of one flat colour,
/// painted in another way than those from which a set learns.
const OTHERS: [&str; 3] = ["whole", "flat mask", "flat glasses"];

/// A face found in a spoilt photo.
struct Found {
    embedding: Embedding,
    /// Whether it would be enrolled by size, sharpness, brightness and pose alone.
    before: bool,
    /// Whether it is enrolled.
    accepted: bool,
    weakest: Aspect,
}

fn main() -> Result<()> {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, images, people, count @ ..] = &arguments[..] else {
        bail!("usage: covered MODELS IMAGES PEOPLE [COUNT]");
    };
    let models = Models::open(&PathBuf::from(folder))?;
    let images = PathBuf::from(images);
    let count = match count {
        [count, ..] => count.parse().context("COUNT")?,
        [] => PEOPLE,
    };
    let mut photos = all_photos(&images, &names_in(&PathBuf::from(people))?)?;
    photos.dedup_by(|a, b| a.person == b.person);
    let mut chance = Chance::new(SEED);
    while photos.len() > count {
        photos.swap_remove(chance.below(photos.len()));
    }
    let photos: Vec<PathBuf> = photos.iter().map(|photo| photo.path(&images)).collect();
    let threshold = models.thresholds()?.for_pair(RATE).similarity;
    if models.covers().is_none() {
        println!("the set has learned no covers, so only cut faces are refused");
    }
    println!("threshold {threshold:.3} for {RATE:e} of {}", models.recognizer_id()?);
    println!(
        "{:13} {:>6} {:>9} {:>8} {:>8} {:>8} {:>10}  refused as",
        "photos", "faces", "rate then", "refused", "pairs", "above", "rate now"
    );
    let kinds = (0..OTHERS.len()).map(|other| (OTHERS[other], None));
    for (name, kind) in kinds.chain(Kind::ALL.map(|kind| (kind.name(), Some(kind)))) {
        let found = faces(&models, &photos, name, kind)?;
        report(name, &found, threshold);
    }
    Ok(())
}

fn report(name: &str, found: &[Found], threshold: f32) {
    let rate = |wanted: &dyn Fn(&Found) -> bool| {
        let faces: Vec<&Found> = found.iter().filter(|face| wanted(face)).collect();
        let (mut pairs, mut above) = (0u64, 0u64);
        for (at, face) in faces.iter().enumerate() {
            for other in &faces[..at] {
                pairs += 1;
                above += u64::from(face.embedding.similarity(&other.embedding) >= threshold);
            }
        }
        (faces.len(), pairs, above)
    };
    let shown = |pairs: u64, above: u64| match pairs {
        0 => "none".to_owned(),
        _ => format!("{:.1e}", above as f64 / pairs as f64),
    };
    let (before, pairs, above) = rate(&|face| face.before);
    let then = shown(pairs, above);
    let (_, pairs, above) = rate(&|face| face.accepted);
    let refused: Vec<&Found> = found.iter().filter(|face| face.before && !face.accepted).collect();
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for face in &refused {
        let advice = face.weakest.advice();
        match reasons.iter_mut().find(|(known, _)| *known == advice) {
            Some((_, count)) => *count += 1,
            None => reasons.push((advice, 1)),
        }
    }
    let reasons: Vec<String> =
        reasons.iter().map(|(advice, count)| format!("{advice}: {count}")).collect();
    println!(
        "{name:13} {before:>6} {then:>9} {:>6.1} % {pairs:>8} {above:>8} {:>10}  {}",
        100.0 * refused.len() as f64 / before.max(1) as f64,
        shown(pairs, above),
        reasons.join(", ")
    );
}

fn faces(
    models: &Models,
    photos: &[PathBuf],
    name: &str,
    kind: Option<Kind>,
) -> Result<Vec<Found>> {
    let found = parallel::each(
        parallel::cores(),
        photos.len(),
        || {
            let detector = Detector::new(&models.detector, DetectorSettings::default())?;
            Ok((detector, Embedder::new(models.recognizer()?)?))
        },
        |(detector, embedder), at| {
            let Ok(photo) = picture::read(&photos[at]) else { return Ok(None) };
            let Some(face) = nearest(detector, &photo)? else { return Ok(None) };
            let mut chance = Chance::at(SEED, &[at as u64]);
            let made = match (kind, name) {
                (Some(kind), _) => spoilt(&photo, &face.landmarks, kind, &mut chance),
                (None, "flat mask") => flat(&photo, &face.landmarks, &MASK, [200, 215, 225]),
                (None, "flat glasses") => {
                    let made = flat(&photo, &face.landmarks, &LEFT, [10; 3]);
                    flat(&made, &face.landmarks, &LEFT.map(|[x, y]| [111.8 - x, y]), [10; 3])
                }
                (None, _) => photo,
            };
            let Some(face) = nearest(detector, &made)? else { return Ok(None) };
            Ok(Some(judged(&made, &face, models.covers(), embedder)?))
        },
    )?;
    Ok(found.into_iter().flatten().collect())
}

fn judged(
    frame: &Frame,
    face: &Face,
    covers: Option<&CoverClassifier>,
    embedder: &mut Embedder,
) -> Result<Found> {
    let crop = align(frame, &face.landmarks, &Alignment::ARCFACE);
    let quality = Quality::measure(&whole::content(frame), face, &crop, covers);
    let before = Quality { in_picture: 1.0, covered: None, ..quality };
    Ok(Found {
        embedding: embedder.embed_face(frame, &face.landmarks)?,
        before: before.score() >= WORTH_ENROLLING,
        accepted: quality.score() >= WORTH_ENROLLING,
        weakest: quality.weakest().0,
    })
}

fn nearest(detector: &mut Detector, frame: &Frame) -> Result<Option<Face>> {
    Ok(nearest_center(detector.detect(frame)?, frame).copied())
}

/// Corners of a mask and of the left lens, pixels of a face aligned by [`Alignment::ARCFACE`].
const MASK: [[f32; 2]; 5] =
    [[14.0, 68.0], [98.0, 68.0], [92.0, 105.0], [56.0, 119.0], [20.0, 105.0]];
const LEFT: [[f32; 2]; 6] =
    [[20.0, 44.0], [53.0, 44.0], [58.0, 50.0], [50.0, 63.0], [26.0, 63.0], [20.0, 56.0]];

/// Fills a convex polygon in front of the face with one colour.
fn flat(photo: &Frame, landmarks: &Landmarks, corners: &[[f32; 2]], colour: [u8; 3]) -> Frame {
    let to_face = Similarity::fit(landmarks, &Alignment::ARCFACE.landmarks);
    let mut made = photo.clone();
    let width = made.width();
    for (at, pixel) in made.pixels_mut().as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let [x, y] = to_face.apply([(at % width) as f32, (at / width) as f32]);
        let side = |from: [f32; 2], to: [f32; 2]| {
            (to[0] - from[0]) * (y - from[1]) - (to[1] - from[1]) * (x - from[0])
        };
        let last = corners.len() - 1;
        let mut sides = (0..=last).map(|at| side(corners[at], corners[(at + 1) % (last + 1)]));
        let first = sides.next().unwrap_or_default();
        if sides.all(|side| side * first > 0.0) {
            *pixel = colour;
        }
    }
    made
}
