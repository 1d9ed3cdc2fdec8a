//! Finds the faces of pictures and compares every face with the first one:
//! `detect_and_embed PICTURE...`.

use anyhow::{Context, Result, bail};
use facelatch::models::Models;
use facelatch::vision::detect::DetectorSettings;
use facelatch::vision::embed::Template;
use facelatch::vision::frame::Rect;
use facelatch::vision::picture;
use facelatch::vision::recognizer::Recognizer;
use std::io::Write;

fn main() -> Result<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        bail!("usage: detect_and_embed PICTURE...");
    }
    let models = Models::built_in()?;
    let mut recognizer = Recognizer::new(&models, DetectorSettings::default())?;
    let mut out = std::io::stdout().lock();
    let mut first: Option<Template> = None;
    for path in &paths {
        let frame = picture::read(path)?;
        let views = recognizer.faces(&frame)?;
        let (width, height) = (frame.width(), frame.height());
        writeln!(out, "{path}: {width}x{height}, faces: {}", views.len())?;
        for view in &views {
            let Rect { x1, y1, x2, y2 } = view.face.rect;
            let (score, (aspect, quality)) = (view.face.score, view.quality.weakest());
            write!(out, "  box {x1:.0},{y1:.0} to {x2:.0},{y2:.0}  score {score:.3}  ")?;
            let Some(template) = &view.template else {
                writeln!(out, "too poor to compare ({quality:.2}): {}", aspect.advice())?;
                continue;
            };
            let values = template.of(recognizer.model())?.values();
            let start = values.get(..4).context("an embedding with at least four components")?;
            write!(out, "quality {quality:.2}  embedding {start:.3?}... of {}", values.len())?;
            let first = first.get_or_insert_with(|| template.clone());
            writeln!(out, "  similarity to the first face {:.3}", template.similarity(first)?)?;
        }
    }
    Ok(())
}
