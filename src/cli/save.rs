//! `--save`: copies of pictures with what was found drawn on them.

use anyhow::{Context, Result};
use facelatch::vision::draw::{self, Colour, Mark};
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A folder for drawn pictures. Existing files are never overwritten.
pub struct DrawnPictures {
    folder: PathBuf,
    /// The number to try next for each name.
    next: HashMap<OsString, u32>,
    /// Pictures written.
    pub written: usize,
    /// Pictures that could not be written.
    pub failed: usize,
}

impl DrawnPictures {
    /// Creates the folder if it does not exist.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn open(folder: &Path) -> Result<Self> {
        create_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), next: HashMap::new(), written: 0, failed: 0 })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Draws the faces on the picture and writes it under the file name of `source`, as
    /// PNG. If that name is taken, it gets a number. Counts failures.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&mut self, source: &Path, mut frame: Frame, faces: &[Mark]) -> Result<()> {
        draw::faces(&mut frame, faces);
        let done = self.write(source, &frame);
        match done {
            Ok(()) => self.written += 1,
            Err(_) => self.failed += 1,
        }
        done
    }

    fn write(&mut self, source: &Path, frame: &Frame) -> Result<()> {
        let png = picture::encode_png(frame)
            .with_context(|| format!("{}: cannot encode the drawn picture", source.display()))?;
        let stem = source.file_stem().unwrap_or(OsStr::new("picture"));
        let (path, mut file) = self.create(stem)?;
        file.write_all(&png).map_err(|error| {
            // Half a picture is of no use.
            let _ = std::fs::remove_file(&path);
            cannot_write(&path, error)
        })
    }

    /// Creates the first file of this name that does not exist: `stem.png`, `stem-2.png`,
    /// `stem-3.png` and so on.
    fn create(&mut self, stem: &OsStr) -> Result<(PathBuf, File)> {
        let next = self.next.entry(stem.to_owned()).or_insert(1);
        loop {
            let mut name = stem.to_owned();
            if *next > 1 {
                name.push(format!("-{next}"));
            }
            name.push(".png");
            let path = self.folder.join(name);
            *next += 1;
            // Pictures of faces are personal data: only the owner may read them.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    *next -= 1;
                    return Err(cannot_write(&path, error));
                }
            }
        }
    }
}

/// Creates a folder for pictures, with its parents.
pub fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| {
        format!("{}: cannot create this folder; name one that you may write to", folder.display())
    })
}

fn cannot_write(path: &Path, error: std::io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!(
        "{}: cannot write the drawn picture; make room or save to another folder",
        path.display()
    ))
}

/// Lines of the label for a face with a detector's score from 0 to 1.
pub fn score_line(score: f32) -> String {
    format!("score {:.1} %", score * 100.0)
}

/// Colour of a face that was compared with the gallery, and the lines that say with what
/// result: the name or "unknown", and the similarity with the threshold that it had to
/// reach. `similarity` is `None` if nobody is enrolled.
pub fn recognition(
    name: Option<&str>,
    similarity: Option<f32>,
    threshold: f32,
) -> (Colour, Vec<String>) {
    let colour = if name.is_some() { draw::KNOWN } else { draw::UNKNOWN };
    let compared = match similarity {
        Some(similarity) => {
            let sign = if name.is_some() { ">=" } else { "<" };
            format!("similarity {similarity:.3} {sign} {threshold:.3}")
        }
        None => "nobody is enrolled".to_owned(),
    };
    (colour, vec![name.unwrap_or("unknown").to_owned(), compared])
}
