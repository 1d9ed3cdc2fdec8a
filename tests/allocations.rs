//! Memory in the steady state: what a stage keeps, it does not ask for again.

use facelatch::models::Models;
use facelatch::vision::align::align;
use facelatch::vision::detect::{Detector, DetectorSettings};
use facelatch::vision::embed::Embedder;
use facelatch::vision::picture;
use std::path::Path;

#[test]
fn a_frame_like_the_last_one_takes_no_memory() {
    a_frame_like_the_last_one(false);
}

#[test]
fn nor_does_it_on_two_threads() {
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
    let crop = align(&frame, &face.landmarks);
    let _ = embedder.embed(&crop).expect("an embedding");
    // Near the face the pictures have other sizes: memory grows once for them, too.
    let _ = detector.detect_near(&frame, &[face.rect]).expect("faces");

    // A thread that has to wait for another for the first time asks for memory to wait
    // in, once; when that is depends on how busy the machine is.
    let detecting = (0..5).map(|_| {
        allocation_counter::measure(|| {
            assert!(!detector.detect(&frame).expect("faces").is_empty());
            assert!(!detector.detect_near(&frame, &[face.rect]).expect("faces").is_empty());
        })
        .count_total
    });
    assert_eq!(detecting.min(), Some(0), "detecting");
    // The crop and the embedding are given away.
    let aligning = allocation_counter::measure(|| drop(align(&frame, &face.landmarks)));
    assert_eq!(aligning.count_total, 1, "aligning");
    let embedding = allocation_counter::measure(|| drop(embedder.embed(&crop)));
    assert_eq!(embedding.count_total, 1, "embedding");
}
