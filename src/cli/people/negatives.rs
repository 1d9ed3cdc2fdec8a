//! `people report-false` and `people negatives`: views of people who got in by mistake.

use crate::cli::common_args::CommonArgs;
use crate::cli::log::explain::picture_of_admission;
use crate::cli::trail::Trail;
use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use facelatch::access::gallery::KeptOut;
use facelatch::audit::entry::Entry;
use facelatch::config::Config;
use facelatch::service::files::{load_gallery, open_store};
use facelatch::storage::gallery::{Negative, NewTemplate, Purpose};
use facelatch::vision::detect::DetectorSettings;
use facelatch::vision::embed::Template;
use facelatch::vision::face_picture::FacePicture;
use facelatch::vision::picture;
use facelatch::vision::recognizer::Recognizer;
use jiff::Timestamp;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Smallest face in a picture, pixels.
const SMALLEST_FACE: f32 = 40.0;

/// The attempt to report.
#[derive(Args)]
pub struct ReportFalse {
    /// Number of the audit log's record that admitted them, as shown by `log show`; needs
    /// the picture that audit.pictures = "all" keeps
    #[arg(value_name = "LOG-ID", required_unless_present = "picture")]
    record: Option<u64>,
    /// Another picture of the person who got in by mistake; the largest face counts
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    picture: Option<PathBuf>,
    /// Add the view although it would keep out an enrolled person
    #[arg(long)]
    force: bool,
}

#[derive(Subcommand)]
pub enum Negatives {
    /// List the reported false entries, the oldest first
    List {
        /// Print JSON Lines, one object per view
        #[arg(long)]
        json: bool,
    },
    /// Remove reported false entries, so that their views count for nothing any more
    Remove {
        /// Numbers as shown by `list`
        #[arg(required = true)]
        numbers: Vec<u32>,
    },
}

impl ReportFalse {
    pub fn run(self, common: &CommonArgs, config: &Config, trail: &Trail) -> Result<ExitCode> {
        let file = config.gallery_file();
        let models = common.models(config)?;
        let settings =
            DetectorSettings { minimum_face: SMALLEST_FACE, ..DetectorSettings::default() };
        let mut recognizer = Recognizer::new(&models, settings)?;
        let (picture, template) = match (&self.picture, self.record) {
            (Some(path), _) => of_picture(path, &mut recognizer)?,
            (None, Some(record)) => of_record(config, record, &mut recognizer)?,
            (None, None) => bail!("name a record of the audit log, or a --picture"),
        };
        // Open until the end: nobody is enrolled between the check and the change.
        let mut store = open_store(&file, Purpose::Change)?;
        let gallery = load_gallery(&mut store, &models, &mut recognizer, false)?.gallery;
        let mut out = anstream::stdout().lock();
        if let Some(kept) = gallery.kept_out(&template) {
            let KeptOut { person, views, of, similarity } = kept;
            let name = gallery.name(person).unwrap_or_default();
            let text = format!(
                "{name}: {views} of {of} enrolled views are as similar to this picture as to \
                 each other (similarity {similarity:.3})"
            );
            if !self.force {
                bail!(
                    "{text}: it may show {name}, whom it would keep out; nothing was changed. \
                     If it shows somebody else, enroll {name} again with more views, or add it \
                     all the same with --force"
                );
            }
            log::warn!("{text}; {name} may be refused from now on");
        }
        if let Some(best) = gallery.best(&template) {
            let threshold = models
                .thresholds()?
                .for_attempt(config.recognition.false_accept_rate, gallery.templates());
            let asked = threshold.similarity + best.stricter;
            writeln!(
                out,
                "most similar to {}: {:.3}, asked {asked:.3}",
                best.name, best.similarity
            )?;
        }
        let picture = config.gallery.keep_crops.then_some(picture);
        let stays = picture.is_some();
        let number = store.add_negative(&NewTemplate { template, picture })?;
        let entry = Entry::new("false entry reported").with("negative", &number.to_string());
        trail.write(vec![match self.record {
            Some(record) => entry.with("record", &record.to_string()),
            None => entry,
        }]);
        writeln!(
            out,
            "false entry {number} reported; a running service counts it within a second{}",
            if stays { "" } else { "; without gallery.keep_crops it is lost when models change" }
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The view of an admission in the audit log.
fn of_record(
    config: &Config,
    record: u64,
    recognizer: &mut Recognizer,
) -> Result<(FacePicture, Template)> {
    let png = picture_of_admission(config, record)?;
    // What is kept there is the aligned face.
    let picture = FacePicture::decode(&png, None)
        .map_err(|fault| anyhow!("record {record}: its picture is {fault}; use --picture FILE"))?;
    let template = recognizer.embed_picture(&picture)?;
    Ok((picture, template))
}

/// The largest face of a picture.
fn of_picture(path: &Path, recognizer: &mut Recognizer) -> Result<(FacePicture, Template)> {
    let frame = picture::read(path)?;
    let views = recognizer.faces(&frame)?;
    let largest =
        views.into_iter().max_by(|a, b| a.face.rect.area().total_cmp(&b.face.rect.area()));
    let found = largest.and_then(|view| Some((view.face, view.template?)));
    let Some((face, template)) = found else {
        bail!(
            "{}: no face that can be compared; use a picture in which the face is sharp, from \
             the front and at least {SMALLEST_FACE} pixels wide",
            path.display()
        );
    };
    Ok((FacePicture::cut(&frame, &face.landmarks), template))
}

impl Negatives {
    pub fn run(self, config: &Config, trail: &Trail) -> Result<ExitCode> {
        let file = config.gallery_file();
        let mut out = anstream::stdout().lock();
        match self {
            Self::List { json } => {
                for Negative { number, model, picture } in
                    open_store(&file, Purpose::Read)?.negatives()?
                {
                    let at = Timestamp::from_second(i64::from(number)).unwrap_or_default();
                    if json {
                        let line = json!({
                            "number": number, "reported_at": number, "model": model,
                            "picture": picture,
                        });
                        writeln!(out, "{line}")?;
                    } else {
                        let kept = if picture { "with picture" } else { "no picture" };
                        writeln!(out, "{number}  reported {at}, {kept}, model {model}")?;
                    }
                }
            }
            Self::Remove { numbers } => {
                let mut store = open_store(&file, Purpose::Change)?;
                let mut code = ExitCode::SUCCESS;
                for number in numbers {
                    match store.remove_negative(number) {
                        Ok(()) => {
                            let entry = Entry::new("false entry removed");
                            trail.write(vec![entry.with("negative", &number.to_string())]);
                            writeln!(out, "{number}: removed")?;
                        }
                        Err(error) => {
                            code = ExitCode::FAILURE;
                            log::error!("{error}");
                        }
                    }
                }
                return Ok(code);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
