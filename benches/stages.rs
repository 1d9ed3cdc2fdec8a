//! One bench per stage, per network and per whole picture, on the built-in portrait with
//! the built-in models.
//!
//! `cargo bench` runs all of them, `cargo bench -- embed` those whose names match.

use divan::Bencher;
use facelatch::access::decide::{DecideSettings, Decider, Observation, Seen};
use facelatch::access::gallery::{Gallery, PersonId};
use facelatch::hardware::camera::y4m::Y4m;
use facelatch::models::{Alignment, ModelFile, ModelId, Models};
use facelatch::nn::{Batch, Dim, Network, Signature};
use facelatch::vision::align::{Crop, align};
use facelatch::vision::detect::{Detector, DetectorSettings, Face};
use facelatch::vision::embed::{Embedder, Embedding, Template};
use facelatch::vision::frame::{Frame, Rect};
use facelatch::vision::motion_gate::{MotionGate, MotionGateSettings};
use facelatch::vision::picture;
use facelatch::vision::quality::Quality;
use facelatch::vision::recognizer::Recognizer;
use facelatch::vision::resample::{PIXEL, Resampler, Values};
use facelatch::vision::track::{TrackId, Tracker};
use facelatch::vision::whole;
use std::path::Path;
use std::time::Duration;

fn main() {
    divan::main();
}

const JPEG: &[u8] = include_bytes!("../assets/astronaut.jpg");

fn portrait() -> Frame {
    picture::decode(Path::new("astronaut.jpg"), JPEG).expect("a portrait")
}

fn models() -> Models {
    Models::built_in().expect("the built-in models")
}

fn face() -> (Frame, Face, Crop) {
    let frame = portrait();
    let mut detector =
        Detector::new(&models().detector, DetectorSettings::default()).expect("a detector");
    let face = *detector.detect(&frame).expect("faces").first().expect("a face");
    let crop = align(&frame, &face.landmarks, &Alignment::ARCFACE);
    (frame, face, crop)
}

/// The part of the portrait with the face, scaled to 640x480.
fn camera_frame() -> Frame {
    let (frame, region) = (portrait(), Rect { x1: 0.0, y1: 0.0, x2: 320.0, y2: 240.0 });
    let mut steps = vec![0; 640 * 480 * PIXEL];
    Resampler::default().cut(&frame, &region, (480, 640), Values::Whole, &mut steps);
    let mut scaled = Frame::filled(640, 480, [0; 3]);
    for (to, from) in scaled.pixels_mut().chunks_exact_mut(3).zip(steps.chunks_exact(PIXEL)) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = (from / Batch::STEPS).clamp(0, 255) as u8;
        }
    }
    scaled
}

fn noise(size: usize, seed: u32) -> Template {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..size).map(|_| next()).collect();
    Template::new(ModelId::new("noise"), Embedding::normalized(&values))
}

#[divan::bench]
fn picture_decode(bencher: Bencher<'_, '_>) {
    bencher.bench(|| picture::decode(Path::new("astronaut.jpg"), JPEG));
}

#[divan::bench]
fn camera_y4m_frame(bencher: Bencher<'_, '_>) {
    let mut video = b"YUV4MPEG2 W640 H480 C420jpeg\nFRAME\n".to_vec();
    video.extend((0..640 * 480 * 3 / 2).map(|i| (i * 7 % 256) as u8));
    bencher.bench(|| Y4m::new(&video[..]).expect("a video").read_frame());
}

#[divan::bench(args = [24, 48])]
fn resample_crop(bencher: Bencher<'_, '_>, side: usize) {
    let frame = portrait();
    let region = Rect { x1: 100.0, y1: 60.0, x2: 220.0, y2: 180.0 };
    let (mut resampler, mut out) = (Resampler::default(), vec![0; side * side * PIXEL]);
    bencher.bench_local(|| resampler.cut(&frame, &region, (side, side), Values::Exact, &mut out));
}

/// Scales a frame to the levels of a pyramid.
#[divan::bench(args = [40, 80])]
fn resample_pyramid(bencher: Bencher<'_, '_>, minimum_face: u32) {
    let frame = Frame::filled(640, 480, [1, 2, 3]);
    let mut resampler = Resampler::default();
    let mut out = vec![0; 640 * 480 * PIXEL];
    bencher.bench_local(|| {
        let mut scale = 12.0 / minimum_face as f32;
        while 480.0 * scale >= 12.0 {
            let sides = ((480.0 * scale).ceil() as usize, (640.0 * scale).ceil() as usize);
            resampler.cut(&frame, &frame.bounds(), sides, Values::Whole, &mut out);
            scale *= 0.709;
        }
    });
}

/// A single network: P-Net on one level of a pyramid, R-Net and O-Net on sixteen crops,
/// MobileFaceNet on one face.
#[divan::bench(args = ["pnet 96x72", "rnet x16", "onet x16", "mobilefacenet"])]
fn network(bencher: Bencher<'_, '_>, which: &str) {
    let models = models();
    let recognizer = models.recognizer().expect("a recognizer");
    let fixed = |batch, side| [batch, Dim::Fixed(3), Dim::Fixed(side), Dim::Fixed(side)];
    let many = Dim::Free('N');
    type Case<'m> = (&'m ModelFile, [Dim; 4], &'m [usize], usize, (usize, usize));
    let (file, input, outputs, count, (height, width)): Case<'_> = match which {
        "pnet 96x72" => {
            let input = [Dim::Fixed(1), Dim::Fixed(3), Dim::Free('H'), Dim::Free('W')];
            (&models.detector.pnet, input, &[2, 4], 1, (72, 96))
        }
        "rnet x16" => (&models.detector.rnet, fixed(many, 24), &[2, 4], 16, (24, 24)),
        "onet x16" => (&models.detector.onet, fixed(many, 48), &[2, 4, 10], 16, (48, 48)),
        _ => (&recognizer.file, fixed(Dim::Fixed(1), 112), &[128], 1, (112, 112)),
    };
    let signature = Signature { input, outputs: outputs.to_vec() };
    let normalization = &models.detector.normalization;
    let mut network = Network::load(&file.name, &file.bytes, &signature, normalization, None)
        .expect("a built-in network");
    let mut pictures = Batch::default();
    for picture in 0..count {
        for (at, value) in pictures.add(height, width).iter_mut().enumerate() {
            *value = ((at * 31 + picture * 7) % 256) as i16 * Batch::STEPS;
        }
    }
    bencher.bench_local(|| network.run(&pictures).map(<[_]>::len));
}

/// The start of the program before the first picture: checking the digests of the built-in
/// models, then preparing each stage.
#[divan::bench(args = ["digests", "detector", "embedder"])]
fn start(bencher: Bencher<'_, '_>, which: &str) {
    let made = models();
    bencher.bench_local(|| match which {
        "digests" => drop(models()),
        "detector" => {
            drop(Detector::new(&made.detector, DetectorSettings::default()).expect("a detector"));
        }
        _ => drop(Embedder::new(made.recognizer().expect("a recognizer")).expect("an embedder")),
    });
}

/// Detection, alignment, quality and embedding of a whole picture.
#[divan::bench(args = ["320x400", "640x480"])]
fn picture(bencher: Bencher<'_, '_>, which: &str) {
    let frame = if which == "640x480" { camera_frame() } else { portrait() };
    let settings = DetectorSettings { minimum_face: 80.0, ..DetectorSettings::default() };
    let mut recognizer = Recognizer::new(&models(), settings).expect("a recognizer");
    bencher.bench_local(|| recognizer.faces(&frame).map(|views| views.len()));
}

/// Three frames of a video in which a face stays: two are searched near it and one
/// everywhere, each with an embedding.
#[divan::bench(args = [1, 2])]
fn three_frames_followed_640x480(bencher: Bencher<'_, '_>, threads: u32) {
    let frame = camera_frame();
    let two_threads = threads == 2;
    let settings = DetectorSettings { minimum_face: 48.0, two_threads, ..Default::default() };
    let mut recognizer = Recognizer::new(&models(), settings).expect("a recognizer");
    bencher.bench_local(|| {
        (0..3).for_each(|_| {
            let views = recognizer.follow(&frame, |_| true).expect("views");
            assert_eq!(views.len(), 1);
        });
    });
}

/// Detection: P-Net, R-Net and O-Net with everything between them.
#[divan::bench(args = [40, 80])]
fn detect(bencher: Bencher<'_, '_>, minimum_face: u32) {
    let frame = portrait();
    let settings =
        DetectorSettings { minimum_face: minimum_face as f32, ..DetectorSettings::default() };
    let mut detector = Detector::new(&models().detector, settings).expect("a detector");
    bencher.bench_local(|| detector.detect(&frame).map(<[Face]>::len));
}

#[divan::bench]
fn track_eight_faces(bencher: Bencher<'_, '_>) {
    let (_, face, _) = face();
    let faces: Vec<Face> = (0..8)
        .map(|i| {
            let mut face = face;
            face.rect.x1 += 200.0 * i as f32;
            face.rect.x2 += 200.0 * i as f32;
            face
        })
        .collect();
    let mut tracker = Tracker::default();
    let mut now = Duration::ZERO;
    bencher.bench_local(|| {
        now += Duration::from_millis(100);
        tracker.step(now, &faces)
    });
}

/// The decision whether a frame needs to be examined.
#[divan::bench(args = ["640x480", "1280x720"])]
fn motion_gate(bencher: Bencher<'_, '_>, which: &str) {
    let (width, height) = if which == "640x480" { (640, 480) } else { (1280, 720) };
    let mut frame = Frame::filled(width, height, [0; 3]);
    for (at, value) in frame.pixels_mut().iter_mut().enumerate() {
        *value = (at * 31 % 251) as u8;
    }
    let mut gate = MotionGate::new(MotionGateSettings::default());
    let mut now = Duration::ZERO;
    bencher.bench_local(|| {
        now += Duration::from_millis(100);
        gate.step(now, &frame, false)
    });
}

#[divan::bench]
fn align_face(bencher: Bencher<'_, '_>) {
    let (frame, face, _) = face();
    bencher.bench(|| align(&frame, &face.landmarks, &Alignment::ARCFACE));
}

#[divan::bench]
fn quality(bencher: Bencher<'_, '_>) {
    let (frame, face, crop) = face();
    let models = Models::built_in().expect("built-in models");
    bencher.bench(|| Quality::measure(&whole::content(&frame), &face, &crop, models.covers()));
}

#[divan::bench]
fn embed(bencher: Bencher<'_, '_>) {
    let (_, _, crop) = face();
    let models = models();
    let mut embedder =
        Embedder::new(models.recognizer().expect("a recognizer")).expect("an embedder");
    bencher.bench_local(|| embedder.embed(&crop));
}

/// A search in a gallery of people with five templates each, by the numbers per template.
#[divan::bench(args = [10, 100, 10_000], consts = [128, 256])]
fn gallery_match<const SIZE: usize>(bencher: Bencher<'_, '_>, people: u32) {
    let mut gallery = Gallery::new(ModelId::new("noise"), SIZE);
    for person in 0..people {
        let templates: Vec<Template> = (0..5).map(|i| noise(SIZE, person * 5 + i)).collect();
        gallery.add(PersonId(person), "nobody", &templates);
    }
    let probe = noise(SIZE, u32::MAX);
    bencher.bench(|| gallery.best(&probe).map(|found| found.similarity));
}

#[divan::bench]
fn decide(bencher: Bencher<'_, '_>) {
    let mut decider: Decider = Decider::new(DecideSettings::default());
    let observation =
        Observation { track: TrackId(1), seen: Seen::Person(PersonId(1), 0.6), look: None };
    let mut now = Duration::ZERO;
    bencher.bench_local(|| {
        now += Duration::from_millis(100);
        decider.step(now, &[observation])
    });
}
