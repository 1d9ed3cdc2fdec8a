//! `keypoints/PERSON/STEM.json`: what was found in a photo, and of which state of it.

use super::hash::Look;
use crate::files;
use anyhow::Result;
use facelatch::models::{Manifest, sha256_hex};
use facelatch::vision::detect::Face;
use facelatch::vision::picture;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Changes when what is recorded or how crops are made does.
const FORMAT: u32 = 1;
/// Larger files are no photos; the device's own reader draws the same line.
const MAX_FILE: u64 = 256 << 20;

/// What was found in a photo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name, as the folder of photos or the CSV leads to it.
    pub photo: String,
    /// Columns, after the rotation that EXIF asks for.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The largest first.
    pub faces: Vec<RecordedFace>,
    /// What it looks like, to tell duplicates by.
    pub look: Look,
    /// The file.
    pub source: Source,
    /// How it was looked at.
    pub settings: Settings,
}

/// A face in a photo, in pixels of the photo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedFace {
    /// Left, top, right, bottom.
    #[serde(rename = "box")]
    pub rect: [f32; 4],
    /// The detector's probability, 0..=1.
    pub score: f32,
    /// Five points.
    pub keypoints: Keypoints,
    /// SHA-256 of the PNG file of the aligned face, where one was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop_sha256: Option<String>,
}

/// `[x, y]` of pixel centres; left and right as seen in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keypoints {
    /// Middle of the eye on the left.
    pub left_eye: [f32; 2],
    /// Middle of the eye on the right.
    pub right_eye: [f32; 2],
    /// Tip.
    pub nose: [f32; 2],
    /// Corner on the left.
    pub mouth_left: [f32; 2],
    /// Corner on the right.
    pub mouth_right: [f32; 2],
}

/// A state of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its length.
    pub bytes: u64,
    /// Nanoseconds since 1970; 0 where the file system keeps no times.
    pub modified: u64,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
}

/// What crops depend on beside the photo.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Of the record.
    pub format: u32,
    /// Shorter side of the smallest face looked for, pixels.
    pub minimum_face: f32,
    /// Whether every face is cut out, and not the largest alone.
    pub every_face: bool,
    /// SHA-256 of P-, R- and O-Net.
    pub detector: [String; 3],
}

impl Settings {
    /// With the detector of a set of models.
    pub fn new(manifest: &Manifest, minimum_face: f32, every_face: bool) -> Self {
        let detector = &manifest.detector;
        let nets = [&detector.pnet, &detector.rnet, &detector.onet];
        let detector = nets.map(|net| net.sha256.clone());
        Self { format: FORMAT, minimum_face, every_face, detector }
    }
}

impl RecordedFace {
    /// A face and its crop's digest.
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
    /// What is there; a file that is missing or no record is nothing.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// As a whole or, after a power cut, as no record.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        files::replace_unsynced(path, &text)
    }

    /// The faces that were cut out, with their crops' digests. They are the first ones.
    pub fn crops(&self) -> impl Iterator<Item = (usize, &str)> {
        let digests = self.faces.iter().map_while(|face| face.crop_sha256.as_deref());
        digests.enumerate()
    }
}

impl Source {
    /// Length and time, without a digest.
    pub fn stat(path: &Path) -> std::io::Result<Self> {
        Ok(Self::from_metadata(&std::fs::metadata(path)?))
    }

    fn from_metadata(metadata: &std::fs::Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified = modified.and_then(|age| u64::try_from(age.as_nanos()).ok()).unwrap_or(0);
        Self { bytes: metadata.len(), modified, sha256: String::new() }
    }

    /// The file's bytes and their state; an error names the file.
    pub fn read(path: &Path) -> Result<(Self, Vec<u8>), String> {
        let failed = |reason: std::io::Error| format!("{}: {reason}", path.display());
        // A pipe would be waited for.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(format!("{}: no file; name a photo", path.display()));
        }
        // Before the bytes: a change between the two is noticed the next time.
        let mut source = Self::from_metadata(&metadata);
        if source.bytes > MAX_FILE {
            // The reader of pictures says what it does not take.
            return match picture::read(path) {
                Ok(_) => Err(format!("{}: grew smaller while it was read", path.display())),
                Err(error) => Err(error.to_string()),
            };
        }
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        source.sha256 = sha256_hex(&bytes);
        Ok((source, bytes))
    }
}
