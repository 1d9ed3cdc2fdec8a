//! Memory in the steady state: the stages reuse their large buffers. What is left per run
//! of a network are the small things of a tract plan: the values of its symbols, and
//! outputs that have another number of places than in the run before.

use facelatch::access::gallery::{Gallery, PersonId};
use facelatch::models::{ModelId, Models};
use facelatch::vision::align::align;
use facelatch::vision::detect::{Detector, DetectorSettings};
use facelatch::vision::embed::{Embedder, Embedding, Template};
use facelatch::vision::picture;
use std::path::Path;

/// Most allocations of one detection: three networks, each with the map of its symbols and
/// up to three outputs of two allocations.
const PER_DETECTION: u64 = 20;
/// The returned value, and the map of the plan's symbols.
const PER_EMBEDDING: u64 = 2;

#[test]
fn a_frame_like_the_last_one_allocates_little() {
    a_frame_like_the_last_one(false);
}

#[test]
fn so_does_it_on_two_threads() {
    a_frame_like_the_last_one(true);
}

fn a_frame_like_the_last_one(two_threads: bool) {
    let jpeg = include_bytes!("../assets/astronaut.jpg");
    let frame = picture::decode(Path::new("astronaut.jpg"), jpeg).expect("a portrait");
    let models = Models::built_in().expect("models");
    let settings = DetectorSettings { two_threads, ..DetectorSettings::default() };
    let mut detector = Detector::new(&models.detector, settings).expect("a detector");
    let recognizer = models.recognizer().expect("a recognizer");
    let mut embedder = Embedder::new(recognizer).expect("an embedder");
    let face = *detector.detect(&frame).expect("faces").first().expect("a face");
    let alignment = *embedder.alignment();
    let crop = align(&frame, &face.landmarks, &alignment);
    let _ = embedder.embed(&crop).expect("an embedding");
    // The pictures near the face have other sizes, for which the buffers grow once more.
    let _ = detector.detect_near(&frame, &[face.rect]).expect("faces");

    // A thread allocates once when it first has to wait for another thread; when that
    // happens depends on the load of the machine.
    let detecting = (0..5).map(|_| {
        allocation_counter::measure(|| {
            assert!(!detector.detect(&frame).expect("faces").is_empty());
            assert!(!detector.detect_near(&frame, &[face.rect]).expect("faces").is_empty());
        })
        .count_total
    });
    let fewest = detecting.min().expect("some");
    assert!(fewest <= 2 * PER_DETECTION, "detecting twice: {fewest}");
    // The returned crop.
    let aligning = allocation_counter::measure(|| drop(align(&frame, &face.landmarks, &alignment)));
    assert_eq!(aligning.count_total, 1, "aligning");
    let embedding = allocation_counter::measure(|| drop(embedder.embed(&crop)));
    assert!(embedding.count_total <= PER_EMBEDDING, "embedding: {}", embedding.count_total);
}

#[test]
fn a_search_allocates_nothing() {
    let model = ModelId::new("waves");
    let wave = |turns: u32| {
        let values: Vec<f32> =
            (0..256).map(|at| (at as f32 * turns as f32 / 100.0).sin()).collect();
        Template::new(model.clone(), Embedding::normalized(&values))
    };
    let mut gallery = Gallery::new(model.clone(), 256);
    for id in 1..200 {
        gallery.add(PersonId(id), "somebody", &[wave(id)]);
    }
    let probe = wave(77);
    let searching = allocation_counter::measure(|| {
        assert_eq!(gallery.best(&probe).expect("somebody").id, PersonId(77));
    });
    assert_eq!(searching.count_total, 0, "searching");
}
