//! Runs one part of the recognizer COUNT times, for `bench/instructions.py` to count its
//! instructions: `inferences embed|detect|align COUNT [PICTURE]`.

use anyhow::{Context, Result, bail};
use facelatch::models::Models;
use facelatch::vision::align::align;
use facelatch::vision::detect::{Detector, DetectorSettings};
use facelatch::vision::embed::Embedder;
use facelatch::vision::picture;
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, count, rest @ ..] = &arguments[..] else {
        bail!("usage: inferences embed|detect|align COUNT [PICTURE]");
    };
    let count: usize = count.parse().context("COUNT")?;
    let frame = match rest {
        [path, ..] => picture::read(Path::new(path))?,
        [] => {
            picture::decode(Path::new("astronaut.jpg"), include_bytes!("../assets/astronaut.jpg"))?
        }
    };
    let models = Models::built_in()?;
    let settings = DetectorSettings { minimum_face: 80.0, ..DetectorSettings::default() };
    let mut detector = Detector::new(&models.detector, settings)?;
    let mut embedder = Embedder::new(models.recognizer()?)?;
    let alignment = *embedder.alignment();
    let face = *detector.detect(&frame)?.first().context("no face in the picture")?;
    let crop = align(&frame, &face.landmarks, &alignment);
    for _ in 0..count {
        match part.as_str() {
            "embed" => drop(embedder.embed(&crop)?),
            "detect" => drop(detector.detect(&frame)?.len()),
            "align" => drop(align(&frame, &face.landmarks, &alignment)),
            _ => bail!("{part}: expected embed, detect or align"),
        }
    }
    Ok(())
}
