//! `keypoints/PERSON/STEM.json`: the faces found in a photo, and the state of the photo
//! file.

use super::hash::Look;
use crate::files;
use anyhow::Result;
use facelatch::files::{self as input, LARGEST};
use facelatch::models::{Alignment, Manifest, sha256_hex};
use facelatch::vision::detect::Face;
use facelatch::vision::picture;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Format version; increased when the record or the way crops are made changes.
const FORMAT: u32 = 1;
/// Largest photo file, bytes; the same limit as that of the device's picture reader.
const MAX_FILE: u64 = 256 << 20;

/// The faces found in a photo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the photo: its path relative to the folder of photos or to the CSV's folder.
    pub photo: String,
    /// Width in pixels, after the EXIF rotation.
    pub width: usize,
    /// Height in pixels, after the EXIF rotation.
    pub height: usize,
    /// Faces, the largest bounding box first.
    pub faces: Vec<RecordedFace>,
    /// Hash of the picture, to find duplicates.
    pub look: Look,
    /// State of the photo file.
    pub source: Source,
    /// Settings that the crops depend on.
    pub settings: Settings,
}

/// A face in a photo; coordinates are pixels of the photo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedFace {
    /// Bounding box: left, top, right, bottom.
    #[serde(rename = "box")]
    pub rect: [f32; 4],
    /// Score of the detector, 0..=1.
    pub score: f32,
    /// The five landmarks.
    pub keypoints: Keypoints,
    /// SHA-256 of the crop's PNG file, if one was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop_sha256: Option<String>,
}

/// The five landmarks as `[x, y]` in pixels, measured to pixel centres. Left and right are
/// as seen in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keypoints {
    /// Centre of the left eye.
    pub left_eye: [f32; 2],
    /// Centre of the right eye.
    pub right_eye: [f32; 2],
    /// Tip of the nose.
    pub nose: [f32; 2],
    /// Left corner of the mouth.
    pub mouth_left: [f32; 2],
    /// Right corner of the mouth.
    pub mouth_right: [f32; 2],
}

/// State of a photo file, to notice changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Size in bytes.
    pub bytes: u64,
    /// Modification time in nanoseconds since 1970; 0 if the file system has none.
    pub modified: u64,
    /// SHA-256 of the content, lowercase hexadecimal; empty if it was not computed.
    pub sha256: String,
}

/// Settings that the crops depend on, in addition to the photo.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Format version of the record.
    pub format: u32,
    /// Smallest face to detect: shorter side of its bounding box, pixels.
    pub minimum_face: f32,
    /// Whether every face is cropped instead of only the largest.
    pub every_face: bool,
    /// SHA-256 of P-Net, R-Net and O-Net.
    pub detector: [String; 3],
    /// The alignment of the faces.
    #[serde(default)]
    pub alignment: Alignment,
}

impl Settings {
    /// Settings with the detector of a model set and the alignment of its recognizer.
    pub fn new(manifest: &Manifest, minimum_face: f32, every_face: bool) -> Self {
        let detector = &manifest.detector;
        let nets = [&detector.pnet, &detector.rnet, &detector.onet];
        let detector = nets.map(|net| net.sha256.clone());
        let alignment = manifest.recognizer.as_ref().map(|entry| entry.alignment);
        let alignment = alignment.unwrap_or_default();
        Self { format: FORMAT, minimum_face, every_face, detector, alignment }
    }
}

impl RecordedFace {
    /// Records a face and the SHA-256 of its crop, if one was written.
    pub fn new(face: &Face, crop_sha256: Option<String>) -> Self {
        let [left_eye, right_eye, nose, mouth_left, mouth_right] = face.landmarks;
        Self {
            rect: [face.rect.x1, face.rect.y1, face.rect.x2, face.rect.y2],
            score: face.score,
            keypoints: Keypoints { left_eye, right_eye, nose, mouth_left, mouth_right },
            crop_sha256,
        }
    }
}

impl Record {
    /// Reads a record; `None` if the file is missing or is not a valid record.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&input::read(path, LARGEST).ok()?).ok()
    }

    /// Writes the record without waiting for the disk. After a power cut the file may be
    /// empty, which [`Self::read`] takes for missing.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        files::replace_unsynced(path, &text)
    }

    /// Index and crop SHA-256 of the faces that were cropped; they come first in `faces`.
    pub fn crops(&self) -> impl Iterator<Item = (usize, &str)> {
        let digests = self.faces.iter().map_while(|face| face.crop_sha256.as_deref());
        digests.enumerate()
    }
}

impl Source {
    /// Size and modification time, without a SHA-256.
    pub fn stat(path: &Path) -> std::io::Result<Self> {
        Ok(Self::from_metadata(&std::fs::metadata(path)?))
    }

    fn from_metadata(metadata: &std::fs::Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified = modified.and_then(|age| u64::try_from(age.as_nanos()).ok()).unwrap_or(0);
        Self { bytes: metadata.len(), modified, sha256: String::new() }
    }

    /// Reads the state and the bytes of a file.
    ///
    /// # Errors
    /// A message that names the file, if it is unreadable, too large or not a regular file.
    pub fn read(path: &Path) -> Result<(Self, Vec<u8>), String> {
        let failed = |reason: std::io::Error| format!("{}: {reason}", path.display());
        let file = input::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        // Read before the bytes, so that the next run notices a change in between.
        let mut source = Self::from_metadata(&metadata);
        if source.bytes > MAX_FILE {
            // The picture reader gives the error message for files that are too large.
            return match picture::read(path) {
                Ok(_) => Err(format!("{}: changed while it was read; try again", path.display())),
                Err(error) => Err(error.to_string()),
            };
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        source.sha256 = sha256_hex(&bytes);
        Ok((source, bytes))
    }
}
