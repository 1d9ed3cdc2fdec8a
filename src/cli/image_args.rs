//! Shared by `detect`, `embed` and `identify`: arguments for pictures, reading them, and
//! printing results.

use super::save::{DrawnPictures, recognition, score_line};
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use clap::Args;
use facelatch::models::Alignment;
use facelatch::models::covered::CoverClassifier;
use facelatch::vision::align::align;
use facelatch::vision::detect::{DetectorSettings, Face, nearest_center};
use facelatch::vision::draw::{self, Mark};
use facelatch::vision::embed::Embedding;
use facelatch::vision::frame::{Frame, Rect};
use facelatch::vision::picture;
use facelatch::vision::quality::Quality;
use facelatch::vision::whole;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const NAME: Style = AnsiColor::Green.on_default().bold();

/// The pictures to process, the output format and the smallest face.
#[derive(Args)]
pub struct Pictures {
    /// JPEG or PNG files, or folders of such files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Print JSON Lines, one object per image
    #[arg(long)]
    json: bool,
    /// Shorter side of the smallest face to find, pixels
    #[arg(long, default_value_t = 40.0, value_parser = minimum_face, value_name = "PIXELS")]
    minimum_face: f32,
}

fn minimum_face(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(side) if (12.0..=10_000.0).contains(&side) => Ok(side),
        _ => Err("expected a number of pixels from 12 to 10000".to_owned()),
    }
}

/// A face as printed in text and JSON. Coordinates are pixels of the picture.
#[derive(Serialize)]
pub struct FaceLine {
    #[serde(rename = "box")]
    rect: [f32; 4],
    score: f32,
    landmarks: [[f32; 2]; 5],
    quality: f32,
    #[serde(flatten)]
    more: More,
}

/// The part of a face's output that depends on the command.
#[derive(Serialize)]
#[serde(untagged)]
pub enum More {
    /// `detect`: no further fields.
    Nothing {},
    /// `embed`: a unit vector.
    Embedding { embedding: Vec<f32> },
    /// `identify`: the name if the threshold is reached, and the cosine similarity to the
    /// most similar person, if there is one. The threshold is that of this person.
    Name {
        name: Option<String>,
        similarity: Option<f32>,
        #[serde(skip)]
        threshold: f32,
    },
}

impl FaceLine {
    /// A face of `detect`. Measures the quality on the aligned face.
    pub fn new(frame: &Frame, face: &Face, covers: Option<&CoverClassifier>) -> Self {
        let crop = align(frame, &face.landmarks, &Alignment::ARCFACE);
        let quality = Quality::measure(&whole::content(frame), face, &crop, covers);
        Self::with(face, quality.score(), More::Nothing {})
    }

    /// A face with a quality from 0 to 1 and the fields of one command.
    pub fn with(face: &Face, quality: f32, more: More) -> Self {
        let rect = face.rect;
        Self {
            rect: [rect.x1, rect.y1, rect.x2, rect.y2],
            score: face.score,
            landmarks: face.landmarks,
            quality,
            more,
        }
    }

    /// The face for drawing: with its score, and the name if it was compared.
    pub fn mark(&self) -> Mark {
        let [x1, y1, x2, y2] = self.rect;
        let (colour, mut lines) = match &self.more {
            More::Name { name, similarity, threshold } => {
                recognition(name.as_deref(), *similarity, *threshold)
            }
            More::Nothing {} | More::Embedding { .. } => (draw::FOUND, Vec::new()),
        };
        lines.push(score_line(self.score));
        Mark { rect: Rect { x1, y1, x2, y2 }, landmarks: self.landmarks, colour, lines }
    }
}

impl From<Embedding> for More {
    fn from(embedding: Embedding) -> Self {
        Self::Embedding { embedding: embedding.values().to_vec() }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum ImageLine<'a> {
    Read { image: &'a str, width: usize, height: usize, faces: Vec<FaceLine> },
    Failed { image: &'a str, error: String },
}

impl Pictures {
    /// Detector settings for the smallest face asked for.
    pub fn detector(&self) -> DetectorSettings {
        DetectorSettings { minimum_face: self.minimum_face, ..DetectorSettings::default() }
    }

    /// Calls `look` on each picture and prints the result. With `save`, also draws the faces
    /// on a copy of each picture and saves it in this folder. A picture that cannot be read
    /// or saved is reported and skipped; the exit code is then 1.
    ///
    /// # Errors
    /// If `save` cannot be created, an error of `look`, or of writing to standard output.
    pub fn each(
        &self,
        save: Option<&Path>,
        mut look: impl FnMut(&Frame) -> Result<Vec<FaceLine>>,
    ) -> Result<ExitCode> {
        let mut failed = false;
        let mut drawn = save.map(DrawnPictures::open).transpose()?;
        let mut out = anstream::stdout().lock();
        let given: Vec<_> = self.images.iter().map(|given| (given, expand(given))).collect();
        let bar = progress(given.iter().map(|(_, (files, _))| files.len()).sum())?;
        for (given, (files, fault)) in given {
            for file in &files {
                let name = file.display().to_string();
                let image = &name;
                let (line, frame) = match picture::read(file) {
                    Ok(frame) => {
                        let (width, height, faces) = (frame.width(), frame.height(), look(&frame)?);
                        (ImageLine::Read { image, width, height, faces }, Some(frame))
                    }
                    Err(error) => (ImageLine::Failed { image, error: error.to_string() }, None),
                };
                failed |= matches!(line, ImageLine::Failed { .. });
                bar.suspend(|| self.print(&mut out, &line))?;
                if let (Some(drawn), Some(frame), ImageLine::Read { faces, .. }) =
                    (&mut drawn, frame, &line)
                {
                    let marks: Vec<Mark> = faces.iter().map(FaceLine::mark).collect();
                    if let Err(error) = drawn.save(file, frame, &marks) {
                        bar.suspend(|| log::error!("{error:#}"));
                    }
                }
                bar.inc(1);
            }
            if let Some(error) = fault {
                failed = true;
                let name = given.display().to_string();
                let line = ImageLine::Failed { image: &name, error };
                bar.suspend(|| self.print(&mut out, &line))?;
            }
        }
        bar.finish_and_clear();
        if let Some(drawn) = drawn {
            failed |= drawn.failed > 0;
            self.print_saved(&mut out, &drawn)?;
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn print_saved(&self, out: &mut impl Write, drawn: &DrawnPictures) -> Result<()> {
        let count = |pictures| match pictures {
            1 => "1 picture".to_owned(),
            more => format!("{more} pictures"),
        };
        let folder = drawn.folder().display();
        if drawn.failed > 0 {
            log::error!("{folder}: {} could not be saved", count(drawn.failed));
        }
        if !self.json {
            writeln!(out, "{} saved in {folder}", count(drawn.written))?;
        }
        Ok(())
    }

    fn print(&self, out: &mut impl Write, line: &ImageLine<'_>) -> Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, line)?;
            writeln!(out)?;
            return Ok(());
        }
        match line {
            ImageLine::Failed { error, .. } => log::error!("{error}"),
            ImageLine::Read { image, width, height, faces } => {
                let count = faces.len();
                let noun = if count == 1 { "face" } else { "faces" };
                writeln!(out, "{image}  {width}x{height}  {count} {noun}")?;
                for face in faces {
                    print_face(out, face)?;
                }
            }
        }
        Ok(())
    }
}

/// Shows a progress bar only if standard error is a terminal and standard output is not.
/// On a terminal the results themselves show the progress.
fn progress(pictures: usize) -> Result<ProgressBar> {
    if pictures < 2 || std::io::stdout().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(pictures as u64);
    bar.set_style(ProgressStyle::with_template("pictures {bar:30} {pos}/{len} {eta}")?);
    Ok(bar)
}

fn print_face(out: &mut impl Write, face: &FaceLine) -> std::io::Result<()> {
    let [x1, y1, x2, y2] = face.rect;
    let (score, quality) = (face.score * 100.0, face.quality * 100.0);
    write!(
        out,
        "  {x1:.0},{y1:.0} to {x2:.0},{y2:.0}  score {score:.1} %  quality {quality:.0} %"
    )?;
    match &face.more {
        More::Nothing {} => writeln!(out),
        More::Embedding { embedding } => {
            let first: Vec<String> =
                embedding.iter().take(4).map(|value| format!("{value:.3}")).collect();
            writeln!(out, "\n  embedding of {}: {} ...", embedding.len(), first.join(" "))
        }
        More::Name { name: Some(name), similarity, .. } => {
            let similarity = similarity.unwrap_or_default();
            writeln!(out, "  {NAME}{name}{NAME:#}  similarity {similarity:.3}")
        }
        More::Name { name: None, similarity: Some(similarity), .. } => {
            writeln!(out, "  unknown  similarity {similarity:.3}")
        }
        More::Name { name: None, similarity: None, .. } => writeln!(out, "  unknown"),
    }
}

/// A file itself, or the pictures in a folder sorted by path. The second value is an error
/// message for a folder that cannot be read or contains no picture.
fn expand(given: &Path) -> (Vec<PathBuf>, Option<String>) {
    if !given.is_dir() {
        return (vec![given.to_owned()], None);
    }
    let entries = match std::fs::read_dir(given) {
        Ok(entries) => entries,
        Err(error) => return (vec![], Some(format!("{}: {error}", given.display()))),
    };
    let mut others = 0;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .filter(|path| {
            let wanted = picture::looks_like_a_picture(path);
            others += usize::from(!wanted);
            wanted
        })
        .collect();
    files.sort();
    let fault = files.is_empty().then(|| {
        format!(
            "{}: no picture in this folder ({others} other files); picture files end in .jpg, .jpeg or .png",
            given.display()
        )
    });
    (files, fault)
}

/// All faces of a picture, or only the one nearest the centre.
pub fn chosen<'f>(faces: &'f [Face], frame: &Frame, nearest: bool) -> Vec<&'f Face> {
    if nearest {
        nearest_center(faces, frame).into_iter().collect()
    } else {
        faces.iter().collect()
    }
}
