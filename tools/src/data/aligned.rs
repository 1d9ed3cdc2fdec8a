//! Aligned faces of a data set on disk, and the alignment by which they were cut out.
//!
//! `prepare` writes `alignment.toml` into the folder of a data set. A data set without this
//! file, such as one made elsewhere, has faces of 112x112 pixels aligned for ArcFace.

use crate::files;
use anyhow::{Context, Result, bail};
use facelatch::files::{self as input, LARGEST};
use facelatch::models::Alignment;
use facelatch::vision::align::Crop;
use facelatch::vision::picture;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

/// Name of the file in the folder of a data set.
const FILE: &str = "alignment.toml";
/// Folders above a face that are searched for [`FILE`]: `DATA/crops/PERSON` and one more.
const LEVELS: usize = 4;
/// Longest such file, bytes.
const LONGEST: u64 = 4096;

/// Writes the alignment of a data set's faces into its folder.
///
/// # Errors
/// If the file cannot be written.
pub fn write(folder: &Path, alignment: &Alignment) -> Result<()> {
    files::replace(&folder.join(FILE), toml::to_string(alignment)?.as_bytes())
}

/// Fails unless all faces were aligned as a network expects them.
///
/// # Errors
/// Names the first data set that has another alignment, or a file that is unreadable.
pub fn check<'p>(faces: impl IntoIterator<Item = &'p Path>, wanted: &Alignment) -> Result<()> {
    let mut known: BTreeSet<&Path> = BTreeSet::new();
    for face in faces {
        let Some(folder) = face.parent() else { continue };
        if !known.insert(folder) {
            continue;
        }
        let found = recorded(folder)?;
        if found != *wanted {
            bail!(
                "{}: aligned for a picture of {side}x{side} pixels, but the network expects \
                 {wanted}x{wanted} with landmarks of its own; run facelatch-tools prepare again, \
                 with the network's set as --models",
                face.display(),
                side = found.side,
                wanted = wanted.side
            );
        }
    }
    Ok(())
}

/// The alignment of the faces in a folder.
fn recorded(folder: &Path) -> Result<Alignment> {
    for above in folder.ancestors().take(LEVELS) {
        let path = above.join(FILE);
        let length = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                continue;
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if length > LONGEST {
            bail!("{}: too long; run facelatch-tools prepare again", path.display());
        }
        let text = input::read_text(&path, LARGEST).with_context(|| path.display().to_string())?;
        let alignment: Alignment = toml::from_str(&text)
            .with_context(|| format!("{}: run facelatch-tools prepare again", path.display()))?;
        if let Err(fault) = alignment.check() {
            bail!("{}: {fault}; run facelatch-tools prepare again", path.display());
        }
        return Ok(alignment);
    }
    Ok(Alignment::ARCFACE)
}

/// Reads an aligned face from a picture file.
///
/// # Errors
/// If it is unreadable or not `side` x `side` pixels.
pub fn read_crop(path: &Path, side: usize) -> Result<Crop> {
    let frame = picture::read(path)?;
    let (width, height) = (frame.width(), frame.height());
    if (width, height) != (side, side) {
        bail!(
            "{}: {width}x{height} pixels, expected an aligned face of {side}x{side}; make one \
             with facelatch-tools prepare",
            path.display()
        );
    }
    Ok(Crop::from_pixels(side, frame.pixels().to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces_of_another_alignment_are_refused_wherever_the_list_lies() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let face = folder.path().join("data/crops/Ann/a.png");
        std::fs::create_dir_all(face.parent().expect("a folder")).expect("created");
        check([&*face], &Alignment::ARCFACE).expect("without a file, that of ArcFace");
        let mut tight = Alignment { side: 128, ..Alignment::ARCFACE };
        write(&folder.path().join("data"), &tight).expect("written");
        check([&*face], &tight).expect("the same");
        let error = check([&*face], &Alignment::ARCFACE).expect_err("other").to_string();
        assert!(error.contains("a.png") && error.contains("128x128"), "{error}");
        tight.landmarks[0][0] += 1.0;
        check([&*face], &tight).expect_err("other landmarks");
        std::fs::write(folder.path().join("data/alignment.toml"), "side = 9").expect("written");
        check([&*face], &tight).expect_err("damaged");
    }
}
