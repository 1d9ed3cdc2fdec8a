//! `identify`: finds the people in pictures by the gallery.

use super::common_args::CommonArgs;
use super::image_args::{FaceLine, More, Pictures};
use anyhow::Result;
use clap::Args;
use facelatch::service::files::{EMPTY, load_gallery, open_store};
use facelatch::storage::gallery::{Purpose, reachable};
use facelatch::vision::recognizer::Recognizer;
use std::path::PathBuf;
use std::process::ExitCode;

/// Identify the people in pictures by the gallery
///
/// The similarity is that to the most similar person. The name is printed only if the
/// similarity reaches the threshold for the false accept rate of the configuration.
#[derive(Args)]
pub struct Identify {
    #[command(flatten)]
    pictures: Pictures,
    /// Save a copy of each picture in this folder, with the boxes, scores, landmarks, names,
    /// similarities and thresholds drawn on it
    ///
    /// Known people have green boxes, unknown people red ones. The copies are PNG files that
    /// only you may read, named like the pictures. A number is added to a name that is
    /// taken: no existing file is overwritten.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

impl Identify {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.common.config()?;
        let file = config.gallery_file();
        reachable(&file)?;
        let models = self.common.models(&config)?;
        let mut recognizer = Recognizer::new(&models, self.pictures.detector())?;
        let mut store = open_store(&file, Purpose::Read)?;
        let gallery = load_gallery(&mut store, &models, &mut recognizer, false)?.gallery;
        drop(store);
        if gallery.people() == 0 {
            log::warn!("{}: {EMPTY}", file.display());
        }
        let rate = config.recognition.false_accept_rate;
        let threshold = models.thresholds()?.for_attempt(rate, gallery.templates());
        self.pictures.each(self.save.as_deref(), |frame| {
            let views = recognizer.faces(frame)?;
            let lines = views.iter().map(|view| {
                let best = view.template.as_ref().and_then(|probe| gallery.best(probe));
                let known = best.filter(|best| best.reaches(threshold));
                let more = More::Name {
                    name: known.map(|known| known.name.to_owned()),
                    similarity: best.map(|best| best.similarity),
                    threshold: threshold.similarity + best.map_or(0.0, |best| best.stricter),
                };
                FaceLine::with(&view.face, view.quality.score(), more)
            });
            Ok(lines.collect())
        })
    }
}
