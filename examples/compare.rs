//! Says whether two pictures show the same person: `compare PICTURE PICTURE`.

use anyhow::{Context, Result, bail};
use facelatch::access::gallery::{Gallery, PersonId};
use facelatch::models::Models;
use facelatch::vision::detect::DetectorSettings;
use facelatch::vision::embed::Template;
use facelatch::vision::picture;
use facelatch::vision::recognizer::Recognizer;
use std::io::Write;

/// False accept rate per attempt: about one stranger in 10,000 is accepted.
const FALSE_ACCEPT_RATE: f64 = 1e-4;

fn main() -> Result<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [known, visitor] = &paths[..] else { bail!("usage: compare PICTURE PICTURE") };
    let models = Models::built_in()?;
    let mut recognizer = Recognizer::new(&models, DetectorSettings::default())?;
    let mut gallery = Gallery::for_models(&models)?;
    gallery.add(PersonId(1), known, &[largest(&mut recognizer, known)?]);
    let visitor = largest(&mut recognizer, visitor)?;

    let threshold = models.thresholds()?.for_attempt(FALSE_ACCEPT_RATE, gallery.templates());
    let best = gallery.best(&visitor).context("the gallery is empty")?;
    let same = best.reaches(threshold);
    writeln!(
        std::io::stdout(),
        "{}: similarity {:.3}, threshold {:.3} for one false accept in {:.0} attempts",
        if same { "same person" } else { "different people" },
        best.similarity,
        threshold.similarity,
        1.0 / FALSE_ACCEPT_RATE,
    )?;
    Ok(())
}

/// The template of the largest face.
fn largest(recognizer: &mut Recognizer, path: &str) -> Result<Template> {
    let mut views = recognizer.faces(&picture::read(path)?)?;
    views.sort_by(|a, b| a.face.rect.area().total_cmp(&b.face.rect.area()));
    let view = views.pop().with_context(|| format!("{path}: no face; use another picture"))?;
    let advice = view.quality.weakest().0.advice();
    view.template.with_context(|| format!("{path}: the face is too poor to compare: {advice}"))
}
