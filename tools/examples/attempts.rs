//! Simulates attempts at a door from still photos: how many strangers get in and how many
//! enrolled people are kept out, by votes alone and with weighed evidence.
//!
//! The decision is the door's own. The camera is simulated: a track is several photos of
//! one person, or copies of one photo with the variation that a camera and the detector
//! add (landmarks a pixel off, light, blur, JPEG), or both. Photos of press events differ
//! more than the frames of one visit, copies of one photo less.
//!
//!     cargo run --release -p facelatch-tools --example attempts -- IMAGES PEOPLE...
//!
//! IMAGES holds NAME/NAME_0001.jpg; PEOPLE are lists of names or pairs files.

#![expect(clippy::print_stdout, reason = "the example's own output")]

use anyhow::{Context, Result, bail};
use facelatch::access::decide::{DecideSettings, Decider, Decision, Observation, Seen, Sighting};
use facelatch::access::gallery::{Gallery, PersonId};
use facelatch::models::{Alignment, ModelId, Models};
use facelatch::vision::align::Crop;
use facelatch::vision::detect::Face;
use facelatch::vision::embed::{Embedder, Embedding, Template};
use facelatch::vision::face_picture::FacePicture;
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use facelatch::vision::quality::Quality;
use facelatch::vision::track::TrackId;
use facelatch::vision::whole;
use facelatch_tools::chance::Chance;
use facelatch_tools::data::augment::{Augment, Change};
use facelatch_tools::data::photos::{self, Outcome};
use facelatch_tools::measure::lfw::{self, Pairs};
use facelatch_tools::parallel;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Enrolled people per gallery, and enrolled photos per person.
const ENROLLED: usize = 10;
const TEMPLATES: usize = 3;
/// Photos that a person needs to try the door, besides those enrolled.
const FEWEST: usize = 3;
/// Copies per photo.
const COPIES: usize = 6;
/// Longest track, in photos.
const LONGEST: usize = 12;
/// Number of galleries drawn.
const DRAWS: usize = 40;
/// Time between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// How far the detector's landmarks move between frames, as a share of the distance
/// between the eyes.
const LANDMARKS_OFF: f64 = 0.03;

/// One view of a face.
struct Sight {
    template: Template,
    quality: f32,
}

/// A photo and its copies.
struct Photo {
    copies: Vec<Sight>,
    /// Cosine between two versions of the photo, each with one grey level of noise.
    noise_alone: f32,
}

#[derive(Clone, Copy, Debug)]
enum Track {
    Photos,
    OnePhoto,
    ThreePhotos,
}

fn main() -> Result<()> {
    env_logger::init();
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [images, lists @ ..] = &arguments[..] else {
        bail!("usage: attempts IMAGES PEOPLE...");
    };
    let mut people = BTreeSet::new();
    for list in lists {
        people.append(&mut read_people(list)?);
    }
    let models = Models::built_in()?;
    let seen = look_at(&models, images, &people)?;
    correlation(&seen);
    let noise = seen.values().flatten().map(|photo| photo.noise_alone);
    println!(
        "two copies of a photo with one grey level of noise: cosine {:.6} at most",
        noise.fold(-1.0, f32::max)
    );
    println!(
        "\n{:<13} {:>6} {:>10} {:>9}  {:>9} {:>9}  {:>9} {:>9}  {:>6} {:>6}",
        "track",
        "FAR",
        "strangers",
        "genuine",
        "in: votes",
        "weighed",
        "kept out:",
        "weighed",
        "frames",
        "weighed"
    );
    for track in [Track::Photos, Track::ThreePhotos, Track::OnePhoto] {
        for rate in [1e-2, 1e-3, 1e-4, 1e-5] {
            attempts(&models, &seen, track, rate)?;
        }
    }
    Ok(())
}

fn read_people(list: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(list).with_context(|| list.display().to_string())?;
    match Pairs::parse(&text) {
        Ok(pairs) => Ok(lfw::people_of(&pairs)),
        Err(_) => lfw::names_in(list),
    }
}

/// Every photo of these people, with its copies.
fn look_at(
    models: &Models,
    images: &Path,
    people: &BTreeSet<String>,
) -> Result<BTreeMap<String, Vec<Photo>>> {
    let photos = lfw::all_photos(images, people)?;
    let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(images)).collect();
    let outcomes = photos::process(models, &paths, false, "detecting")?;
    let model = models.recognizer_id()?;
    let looked = parallel::each(
        parallel::cores(),
        paths.len(),
        || Ok(Embedder::new(models.recognizer()?)?),
        |embedder, at| match &outcomes[at] {
            Outcome::Face { face, .. } => {
                let frame = picture::read(&paths[at])?;
                let mut chance = Chance::at(1, &[at as u64]);
                Ok(Some(copies(embedder, &model, (&frame, face), &mut chance)?))
            }
            _ => Ok(None),
        },
    )?;
    let mut seen: BTreeMap<String, Vec<Photo>> = BTreeMap::new();
    for (photo, looked) in photos.into_iter().zip(looked) {
        seen.entry(photo.person).or_default().extend(looked);
    }
    Ok(seen)
}

fn copies(
    embedder: &mut Embedder,
    model: &ModelId,
    (frame, face): (&Frame, &Face),
    chance: &mut Chance,
) -> Result<Photo> {
    let change = |probability, limit| Change { probability, limit };
    let camera = Augment {
        brightness: change(1.0, 0.03),
        contrast: change(1.0, 0.05),
        blur: change(0.5, 1.0),
        jpeg: change(1.0, 70.0),
        ..Augment::none()
    };
    let [left, right, ..] = face.landmarks;
    let off = LANDMARKS_OFF * f64::from((right[0] - left[0]).hypot(right[1] - left[1]));
    let mut copies = vec![];
    for copy in 0..COPIES {
        let mut face = *face;
        let mut picture = FacePicture::cut(frame, &face.landmarks);
        if copy > 0 {
            for value in face.landmarks.iter_mut().flatten() {
                *value += chance.between(-off, off) as f32;
            }
            picture = filmed(&FacePicture::cut(frame, &face.landmarks), &camera, chance)?;
        }
        let crop = picture.aligned(&Alignment::ARCFACE);
        let quality = Quality::measure(&whole::content(frame), &face, &crop, None).score();
        let crop = picture.aligned(embedder.alignment());
        let template = Template::new(model.clone(), embedder.embed(&crop)?);
        copies.push(Sight { template, quality });
    }
    let crop = FacePicture::cut(frame, &face.landmarks).aligned(embedder.alignment());
    let mut noisy = || -> Result<Embedding> {
        let pixels = crop.frame().pixels().iter();
        let pixels = pixels.map(|v| v.saturating_add_signed(chance.below(3) as i8 - 1)).collect();
        Ok(embedder.embed(&Crop::from_pixels(crop.side(), pixels)?)?)
    };
    let noise_alone = noisy()?.similarity(&noisy()?);
    Ok(Photo { copies, noise_alone })
}

/// The picture of a face as a camera would show it.
fn filmed(picture: &FacePicture, camera: &Augment, chance: &mut Chance) -> Result<FacePicture> {
    let frame = picture.frame();
    let seen = camera.apply(&Crop::from_pixels(frame.width(), frame.pixels().to_vec())?, chance);
    FacePicture::with_landmarks(seen.frame().clone(), *picture.landmarks())
        .context("a picture of a face has an impossible size")
}

/// How the similarities of two photos of one person to all other people correlate, by the
/// cosine between the two photos.
fn correlation(seen: &BTreeMap<String, Vec<Photo>>) {
    let mut bins = [(0.0, 0.0, 0usize); 10];
    let first = |photo: &Photo| photo.copies[0].template.clone();
    let (mut sum, mut pairs) = (0.0, 0usize);
    for (person, photos) in seen {
        let others = seen.iter().filter(|(other, _)| *other != person);
        let others: Vec<Template> =
            others.flat_map(|(_, photos)| photos.iter().map(first)).collect();
        let chosen = &photos[..photos.len().min(6)];
        for (at, a) in chosen.iter().enumerate() {
            for b in &chosen[at + 1..] {
                let (a, b) = (first(a), first(b));
                let to = |t: &Template| -> Vec<f64> {
                    others.iter().map(|o| f64::from(o.similarity(t).unwrap_or(0.0))).collect()
                };
                let cosine = f64::from(a.similarity(&b).unwrap_or(0.0));
                let bin = &mut bins[((cosine * 10.0) as usize).min(9)];
                *bin = (bin.0 + cosine, bin.1 + pearson(&to(&a), &to(&b)), bin.2 + 1);
                (sum, pairs) = (sum + cosine, pairs + 1);
            }
        }
    }
    println!(
        "two photos of one person: {pairs} pairs, mean cosine {:.3}",
        sum / pairs.max(1) as f64
    );
    println!("  their similarities to others correlate:");
    for (cosine, correlation, count) in bins.iter().filter(|bin| bin.2 >= 10) {
        let n = *count as f64;
        println!("  cosine {:.2}  correlation {:.2}  ({count} pairs)", cosine / n, correlation / n);
    }
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let (a_mean, b_mean) = (mean(a), mean(b));
    let sum = |x: &[f64], x_mean: f64, y: &[f64], y_mean: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - x_mean) * (y - y_mean)).sum()
    };
    sum(a, a_mean, b, b_mean) / (sum(a, a_mean, a, a_mean) * sum(b, b_mean, b, b_mean)).sqrt()
}

/// Counts of one decision rule.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    strangers_in: usize,
    genuine_in: usize,
    frames: usize,
}

fn attempts(
    models: &Models,
    seen: &BTreeMap<String, Vec<Photo>>,
    track: Track,
    rate: f64,
) -> Result<()> {
    let table = models.thresholds()?;
    let line = models.likelihood().context("these models have no likelihood ratio")?;
    let size = models.recognizer()?.embedding_size;
    let enough = |fewest: usize| {
        let several = seen.iter().filter(move |(_, photos)| photos.len() >= fewest);
        several.map(|(name, _)| name.as_str()).collect::<Vec<&str>>()
    };
    let (known, triers) = (enough(TEMPLATES + FEWEST), enough(FEWEST));
    let mut chance = Chance::new(1);
    let mut counts = [Count::default(); 2];
    let (mut strangers, mut genuine) = (0usize, 0usize);
    for _ in 0..DRAWS {
        let order = chance.order(known.len());
        let inside: Vec<&str> = order.iter().take(ENROLLED).map(|at| known[*at as usize]).collect();
        let mut gallery = Gallery::new(models.recognizer_id()?, size);
        for (id, name) in (0u32..).zip(&inside) {
            let templates = seen[*name].iter().take(TEMPLATES);
            let templates: Vec<Template> =
                templates.map(|photo| photo.copies[0].template.clone()).collect();
            gallery.add(PersonId(id), name, &templates);
        }
        let threshold = table.for_attempt(rate, gallery.templates());
        let weighing = line.weighing(threshold, rate, gallery.templates());
        for name in &triers {
            let own = inside.iter().position(|inside| inside == name);
            let photos = &seen[*name][own.map_or(0, |_| TEMPLATES)..];
            let frames = frames(photos, track, &mut chance);
            *(if own.is_some() { &mut genuine } else { &mut strangers }) += 1;
            for (count, weighing) in counts.iter_mut().zip([None, Some(weighing)]) {
                let mut decider = Decider::new(DecideSettings::default());
                decider.weigh(weighing, 0.0);
                let opened = try_door(&mut decider, &gallery, threshold.similarity, &frames);
                match (opened, own) {
                    (Some((person, frame)), Some(own)) if person.0 as usize == own => {
                        count.genuine_in += 1;
                        count.frames += frame;
                    }
                    (Some(_), _) => count.strangers_in += 1,
                    (None, _) => {}
                }
            }
        }
    }
    let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    let [votes, weighed] = counts;
    println!(
        "{:<13} {rate:>6.0e} {strangers:>10} {genuine:>9}  {:>9.1e} {:>9.1e}  {:>8.2}% {:>8.2}%  {:>6.2} {:>6.2}",
        format!("{track:?}"),
        share(votes.strangers_in, strangers),
        share(weighed.strangers_in, strangers),
        100.0 * (1.0 - share(votes.genuine_in, genuine)),
        100.0 * (1.0 - share(weighed.genuine_in, genuine)),
        share(votes.frames, votes.genuine_in),
        share(weighed.frames, weighed.genuine_in),
    );
    Ok(())
}

/// What a camera sees of a person, in random order.
fn frames<'s>(photos: &'s [Photo], track: Track, chance: &mut Chance) -> Vec<&'s Sight> {
    let order = chance.order(photos.len());
    let mut photos = order.iter().map(|at| &photos[*at as usize]);
    match track {
        Track::Photos => photos.take(LONGEST).map(|photo| &photo.copies[0]).collect(),
        Track::ThreePhotos => photos.take(3).flat_map(|photo| &photo.copies).collect(),
        Track::OnePhoto => photos.next().into_iter().flat_map(|photo| &photo.copies).collect(),
    }
}

/// The person for whom the door opens, and after how many frames.
fn try_door(
    decider: &mut Decider,
    gallery: &Gallery,
    threshold: f32,
    frames: &[&Sight],
) -> Option<(PersonId, usize)> {
    for (at, sight) in frames.iter().enumerate() {
        let best = gallery.best(&sight.template);
        let seen = match best {
            Some(best) if best.similarity >= threshold => Seen::Person(best.id, best.similarity),
            best => Seen::Nobody(best.map_or(-1.0, |best| best.similarity)),
        };
        let look = Sighting {
            template: &sight.template,
            quality: sight.quality,
            most_alike: best.map(|best| best.id),
        };
        let observation = Observation { track: TrackId(1), seen, look: Some(look) };
        let decisions = decider.step(FRAME * at as u32, &[observation]);
        if let Some(Decision::Grant(evidence)) = decisions.first() {
            return Some((evidence.person, at + 1));
        }
    }
    None
}
