//! `import`: trained weights from other projects into ONNX and the manifest.

use crate::files;
use crate::networks::minifasnet::{self, MiniFasNet};
use crate::networks::mobilefacenet::MobileFaceNet;
use crate::networks::mtcnn;
use crate::weights::{pytorch, safetensors};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use facelatch::models::threshold::Calibration;
use facelatch::models::{
    Channels, DetectorEntry, FileEntry, Layout, LivenessEntry, LivenessFile, MANIFEST,
    RecognizerEntry, sha256_hex,
};
use facelatch::nn::Normalization;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Turn published weights into ONNX files and a manifest.
#[derive(Args)]
pub struct Import {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The face detector, from the Python wheel mtcnn 0.1.1 or the .npy inside it.
    Mtcnn {
        /// mtcnn-0.1.1-py3-none-any.whl or mtcnn_weights.npy
        weights: PathBuf,
        /// Folder for pnet.onnx, rnet.onnx, onet.onnx and manifest.toml
        #[arg(long, default_value = "models")]
        out: PathBuf,
    },
    /// The face recognizer, from ncnn, PyTorch or safetensors files.
    Mobilefacenet {
        /// FILE.param (its FILE.bin beside it), FILE.pth, FILE.pt or FILE.safetensors
        weights: PathBuf,
        /// Folder for mobilefacenet.onnx and manifest.toml
        #[arg(long, default_value = "models")]
        out: PathBuf,
        /// How pictures were normalized when the weights were trained
        #[arg(long, value_enum, default_value_t = Normalized::Arcface)]
        normalization: Normalized,
        /// Version of this set of models [default: imported]
        #[arg(long, default_value = "imported")]
        name: String,
    },
    /// Networks that tell live faces from prints and screens, from PyTorch files that are
    /// named after their scale, as in 2.7_80x80_MiniFASNetV2.pth.
    Minifasnet {
        /// SCALE_80x80_MiniFASNet*.pth, each seen at its own scale
        #[arg(required = true)]
        weights: Vec<PathBuf>,
        /// Folder of a set of models, a copy of models/ for one: the ONNX files and
        /// manifest.toml are added to it
        #[arg(long, default_value = "models")]
        out: PathBuf,
    },
}

/// How pictures are normalized.
#[derive(Clone, Copy, ValueEnum)]
pub enum Normalized {
    /// (v - 127.5) / 128
    Arcface,
    /// ImageNet's mean and standard deviation
    Imagenet,
}

impl From<Normalized> for Normalization {
    fn from(normalized: Normalized) -> Self {
        match normalized {
            Normalized::Arcface => Self::ARCFACE,
            Normalized::Imagenet => Self::IMAGENET,
        }
    }
}

impl Import {
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Mtcnn { weights, out } => import_mtcnn(&weights, &out),
            What::Mobilefacenet { weights, out, normalization, name } => {
                let network = read_mobilefacenet(&weights)?;
                write_recognizer(&out, &network, normalization.into(), &name, None)?;
                log::info!("{}: embedding size {}", out.display(), network.embedding_size);
                Ok(())
            }
            What::Minifasnet { weights, out } => import_minifasnet(&weights, &out),
        }
    }
}

fn import_minifasnet(weights: &[PathBuf], out: &Path) -> Result<()> {
    has_detector(out)?;
    let mut networks = Vec::new();
    for (path, (scale, file)) in weights.iter().zip(liveness_files(weights)?) {
        let network = pytorch::read(&read(path)?)
            .and_then(MiniFasNet::from_state_dict)
            .with_context(|| path.display().to_string())?;
        let bytes = network.to_onnx();
        let apart =
            minifasnet::apart(&network, &bytes).with_context(|| path.display().to_string())?;
        if apart > minifasnet::MOST_APART {
            bail!(
                "{}: what was written answers {apart:e} apart from the weights in torch, at most \
                 {:e} is rounding; this is a fault of facelatch-tools",
                path.display(),
                minifasnet::MOST_APART
            );
        }
        log::info!("{}: at most {apart:.1e} apart from the weights in torch", path.display());
        networks.push((LivenessFile { file, sha256: sha256_hex(&bytes), scale }, bytes));
    }
    // Only when all are good.
    for (entry, bytes) in &networks {
        write_file(&out.join(&entry.file), bytes)?;
    }
    let entry = LivenessEntry {
        layout: Layout::Nchw,
        channels: Channels::Rgb,
        normalization: minifasnet::NORMALIZATION,
        networks: networks.into_iter().map(|(entry, _)| entry).collect(),
    };
    update_manifest(out, None, "liveness", toml::Value::try_from(entry)?)
}

/// Scale of each network, and what its file is to be called, by its scale and name.
fn liveness_files(weights: &[PathBuf]) -> Result<Vec<(f64, String)>> {
    let mut files: Vec<(f64, String)> = Vec::with_capacity(weights.len());
    for path in weights {
        let (scale, name) = minifasnet::named(path)?;
        let file = format!("{}-{scale}.onnx", name.to_lowercase());
        if files.iter().any(|(_, other)| *other == file) {
            bail!(
                "{}: the {name} of scale {scale} is named twice; name each network once",
                path.display()
            );
        }
        files.push((scale, file));
    }
    Ok(files)
}

/// Refuses a folder without a set of models to add to: without a detector it would be none.
fn has_detector(out: &Path) -> Result<()> {
    let path = out.join(MANIFEST);
    if !read_manifest(&path)?.contains_key("detector") {
        bail!(
            "{}: names no detector, and these networks only judge faces that one has found; copy \
             a whole set there first, as by cp -r models {}",
            path.display(),
            out.display()
        );
    }
    Ok(())
}

fn import_mtcnn(weights: &Path, out: &Path) -> Result<()> {
    let nets = mtcnn::import(&read(weights)?).with_context(|| weights.display().to_string())?;
    let write = |file: &str, bytes: &[u8]| -> Result<FileEntry> {
        write_file(&out.join(file), bytes)?;
        Ok(FileEntry { file: file.to_owned(), sha256: sha256_hex(bytes) })
    };
    let entry = DetectorEntry {
        layout: Layout::Nchw,
        channels: Channels::Rgb,
        normalization: Normalization::ARCFACE,
        pnet: write("pnet.onnx", &nets.pnet)?,
        rnet: write("rnet.onnx", &nets.rnet)?,
        onet: write("onet.onnx", &nets.onet)?,
    };
    update_manifest(out, None, "detector", toml::Value::try_from(entry)?)?;
    forget(out, &["selftest"])
}

/// Reads MobileFaceNet's weights in whichever format the file's ending names.
pub fn read_mobilefacenet(path: &Path) -> Result<MobileFaceNet> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let bytes = read(path)?;
    let network = match ending {
        // Whichever of the two is at fault, both are named.
        "param" => {
            let bin = read(&path.with_extension("bin"))?;
            return MobileFaceNet::from_ncnn(&String::from_utf8_lossy(&bytes), &bin)
                .with_context(|| format!("{} and its .bin", path.display()));
        }
        "pth" | "pt" => pytorch::read(&bytes).and_then(MobileFaceNet::from_state_dict),
        "safetensors" => safetensors::read(&bytes).and_then(MobileFaceNet::from_state_dict),
        _ => bail!("{}: expected a .param, .pth, .pt or .safetensors file", path.display()),
    };
    network.with_context(|| path.display().to_string())
}

/// Similarities by false accept rate, and the data behind them.
pub type Thresholds = (BTreeMap<String, f32>, Calibration);

/// Writes mobilefacenet.onnx and its part of the manifest. Thresholds of other
/// weights would not hold, so there are those given or none.
pub fn write_recognizer(
    out: &Path,
    network: &MobileFaceNet,
    normalization: Normalization,
    version: &str,
    thresholds: Option<Thresholds>,
) -> Result<()> {
    let bytes = network.to_onnx();
    let file = "mobilefacenet.onnx";
    write_file(&out.join(file), &bytes)?;
    let (thresholds, calibration) = thresholds.unzip();
    let entry = RecognizerEntry {
        file: file.to_owned(),
        sha256: sha256_hex(&bytes),
        layout: Layout::Nchw,
        channels: Channels::Rgb,
        normalization,
        embedding_size: network.embedding_size,
        thresholds: thresholds.unwrap_or_default(),
        calibration,
        likelihood: None,
    };
    update_manifest(out, Some(version), "recognizer", toml::Value::try_from(&entry)?)?;
    forget(out, &["selftest", "recipe", "figures", "licence"])
}

/// Removes from the manifest what was said of networks that are no longer there.
pub fn forget(folder: &Path, keys: &[&str]) -> Result<()> {
    let path = folder.join(MANIFEST);
    let text = String::from_utf8_lossy(&read(&path)?).into_owned();
    let mut manifest: toml::Table =
        toml::from_str(&text).with_context(|| path.display().to_string())?;
    manifest.retain(|key, _| keys.iter().all(|gone| *gone != key));
    write_file(&path, toml::to_string(&manifest)?.as_bytes())
}

/// Replaces one table of the manifest, which may not be there yet.
pub fn update_manifest(
    folder: &Path,
    version: Option<&str>,
    table: &str,
    value: toml::Value,
) -> Result<()> {
    let path = folder.join(MANIFEST);
    let mut manifest = read_manifest(&path)?;
    if let Some(version) = version {
        manifest.insert("version".to_owned(), version.into());
    } else if !manifest.contains_key("version") {
        manifest.insert("version".to_owned(), "imported".into());
    }
    manifest.insert(table.to_owned(), value);
    write_file(&path, toml::to_string(&manifest)?.as_bytes())
}

/// The manifest; an empty one where there is none.
fn read_manifest(path: &Path) -> Result<toml::Table> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(toml::Table::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// Writes a file as a whole, or leaves what was there.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    files::replace(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn liveness_networks_are_named_by_their_scale_and_each_once() {
        let files = |names: &[&str]| {
            let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
            liveness_files(&paths).map_err(|error| error.to_string())
        };
        let (first, second) = ("a/2.7_80x80_MiniFASNetV2.pth", "4_0_0_80x80_MiniFASNetV2.pth");
        let expected =
            vec![(2.7, "minifasnetv2-2.7.onnx".into()), (4.0, "minifasnetv2-4.onnx".into())];
        assert_eq!(files(&[first, second]), Ok(expected));
        let twice = files(&[first, "b/2.7_0_0_80x80_MiniFASNetV2.pth"]).expect_err("twice");
        assert!(twice.starts_with("b/2.7_0_0_80x80") && twice.contains("named twice"), "{twice}");
    }

    #[test]
    fn liveness_networks_are_added_to_a_set_and_make_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let weights = [PathBuf::from("2.7_80x80_MiniFASNetV2.pth")];
        let refused = || import_minifasnet(&weights, folder.path()).expect_err("no set");
        assert!(refused().to_string().contains("cp -r models"), "{}", refused());
        let manifest = folder.path().join(MANIFEST);
        std::fs::write(&manifest, "version = \"1\"\n").expect("written");
        assert!(refused().to_string().contains("names no detector"), "{}", refused());
        std::fs::write(&manifest, "[detector]\n").expect("written");
        // Now it is the weights that are not there.
        assert!(refused().to_string().contains("MiniFASNetV2.pth"), "{}", refused());
    }
}
