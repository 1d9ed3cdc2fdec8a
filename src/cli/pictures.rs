//! What `detect` and `embed` share: which pictures to read and how results are
//! printed.

use anyhow::Result;
use clap::Args;
use facelatch::detect::{Face, nearest_center};
use facelatch::embed::Embedding;
use facelatch::frame::Frame;
use facelatch::picture;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Which pictures to look at, and for how small faces.
#[derive(Args)]
pub struct Pictures {
    /// JPEG or PNG files, or folders of them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Print JSON Lines, one object an image
    #[arg(long)]
    json: bool,
    /// Shorter side of the smallest face to look for, pixels
    #[arg(long, default_value_t = 40.0, value_parser = minimum_face)]
    pub minimum_face: f32,
    /// Folder of models [default: those built in]
    #[arg(long)]
    pub models: Option<PathBuf>,
}

fn minimum_face(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(side) if (12.0..=10_000.0).contains(&side) => Ok(side),
        _ => Err("expected pixels from 12 to 10000".to_owned()),
    }
}

/// A face as it is printed.
#[derive(Serialize)]
pub struct FaceLine {
    #[serde(rename = "box")]
    rect: [f32; 4],
    score: f32,
    landmarks: [[f32; 2]; 5],
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Vec<f32>>,
}

impl FaceLine {
    /// The face, perhaps with its embedding.
    pub fn new(face: &Face, embedding: Option<Embedding>) -> Self {
        let rect = face.rect;
        Self {
            rect: [rect.x1, rect.y1, rect.x2, rect.y2],
            score: face.score,
            landmarks: face.landmarks,
            embedding: embedding.map(|embedding| embedding.values().to_vec()),
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum ImageLine<'a> {
    Read { image: &'a str, width: usize, height: usize, faces: Vec<FaceLine> },
    Failed { image: &'a str, error: String },
}

impl Pictures {
    /// Looks at each picture and prints what `look` finds. A picture that cannot
    /// be read costs only itself, and exit code 1.
    pub fn each(&self, mut look: impl FnMut(&Frame) -> Result<Vec<FaceLine>>) -> Result<ExitCode> {
        let mut failed = false;
        let mut out = std::io::stdout().lock();
        for given in &self.images {
            let (files, fault) = expand(given);
            for file in &files {
                let name = file.display().to_string();
                let line = match picture::read(file) {
                    Ok(frame) => ImageLine::Read {
                        image: &name,
                        width: frame.width(),
                        height: frame.height(),
                        faces: look(&frame)?,
                    },
                    Err(error) => ImageLine::Failed { image: &name, error: error.to_string() },
                };
                failed |= matches!(line, ImageLine::Failed { .. });
                self.print(&mut out, &line)?;
            }
            if let Some(error) = fault {
                failed = true;
                let name = given.display().to_string();
                self.print(&mut out, &ImageLine::Failed { image: &name, error })?;
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
                    let [x1, y1, x2, y2] = face.rect;
                    let score = face.score * 100.0;
                    writeln!(out, "  {x1:.0},{y1:.0} to {x2:.0},{y2:.0}  score {score:.1} %")?;
                    if let Some(embedding) = &face.embedding {
                        let first: Vec<String> =
                            embedding.iter().take(4).map(|value| format!("{value:.3}")).collect();
                        let length = embedding.len();
                        writeln!(out, "  embedding of {length}: {} ...", first.join(" "))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A file as it is, or the pictures in a folder, in order.
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
            "{}: no picture in this folder ({others} other files); pictures end in .jpg, .jpeg or .png",
            given.display()
        )
    });
    (files, fault)
}

/// The faces of a portrait: all, or only the one nearest the centre.
pub fn chosen<'f>(faces: &'f [Face], frame: &Frame, nearest: bool) -> Vec<&'f Face> {
    if nearest {
        nearest_center(faces, frame).into_iter().collect()
    } else {
        faces.iter().collect()
    }
}
