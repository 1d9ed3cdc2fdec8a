//! `import`: converts trained weights of other projects to ONNX and adds them to a
//! manifest.

use crate::deliver::export::{entry, exported};
use crate::files;
use crate::networks::face::FaceNetwork;
use crate::networks::minifasnet::{self, MiniFasNet};
use crate::networks::mobilefacenet::MobileFaceNet;
use crate::networks::mtcnn;
use crate::networks::reid::{self, Reid};
use crate::weights::{is_weights, ncnn, openvino, pytorch, safetensors};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use facelatch::files::{LARGEST, read as read_file, read_text};
use facelatch::models::signature::SIGNATURE;
use facelatch::models::threshold::Calibration;
use facelatch::models::{
    Channels, DetectorEntry, FileEntry, Layout, LivenessEntry, LivenessFile, MANIFEST, sha256_hex,
};
use facelatch::nn::Normalization;
use facelatch::vision::built_in_faces;
use facelatch::vision::embed::Embedder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest manifest, bytes.
const MAX_MANIFEST: u64 = 1 << 24;

/// Convert published weights to ONNX files and a manifest.
#[derive(Args)]
pub struct Import {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Import the face detector MTCNN, from the Python wheel mtcnn 0.1.1 or the .npy inside
    /// it
    Mtcnn {
        /// mtcnn-0.1.1-py3-none-any.whl or mtcnn_weights.npy
        weights: PathBuf,
        /// Output folder: pnet.onnx, rnet.onnx, onet.onnx and manifest.toml
        #[arg(long, default_value = "models")]
        out: PathBuf,
    },
    /// Import the face recognizer MobileFaceNet, from ncnn, PyTorch or safetensors files
    Mobilefacenet {
        /// FILE.param (with FILE.bin next to it), FILE.pth, FILE.pt, FILE.ckpt, FILE.pth.tar
        /// or FILE.safetensors
        weights: PathBuf,
        /// Output folder: mobilefacenet.onnx and manifest.toml
        #[arg(long, default_value = "models")]
        out: PathBuf,
        /// Input normalization that the weights were trained with
        #[arg(long, value_enum, default_value_t = Normalized::Arcface)]
        normalization: Normalized,
        /// Version of this model set
        #[arg(long, default_value = "imported")]
        name: String,
    },
    /// Import liveness networks (MiniFASNet) that tell live faces from prints and screens
    ///
    /// They come as PyTorch files whose names begin with their scale, such as
    /// 2.7_80x80_MiniFASNetV2.pth.
    Minifasnet {
        /// SCALE_80x80_MiniFASNet*.pth; SCALE is the size of the network's crop relative to
        /// the face's bounding box
        #[arg(required = true)]
        weights: Vec<PathBuf>,
        /// Folder of an existing model set, such as a copy of models/; the ONNX files are
        /// added to it and its manifest.toml is updated
        #[arg(long, default_value = "models")]
        out: PathBuf,
    },
    /// Import Intel's face recognizer face-reidentification-retail-0095, from OpenVINO's IR
    ///
    /// Reads the FP16 files of Open Model Zoo 2023.0, or the same graph in FP32, and writes
    /// the network with weights in 32-bit floating point. The manifest gets its alignment and
    /// its channel order; pictures need no normalization, because the graph normalizes them.
    Openvino {
        /// face-reidentification-retail-0095.xml
        graph: PathBuf,
        /// Weights of the graph [default: the .bin next to it]
        #[arg(long)]
        weights: Option<PathBuf>,
        /// Output folder: face-reidentification-retail-0095.onnx and manifest.toml
        #[arg(long, default_value = "models")]
        out: PathBuf,
        /// Version of this model set
        #[arg(long, default_value = "imported")]
        name: String,
    },
}

/// Input normalization, per channel value `v` of 0..=255.
#[derive(Clone, Copy, ValueEnum)]
pub enum Normalized {
    /// (v - 127.5) / 128
    Arcface,
    /// Mean and standard deviation of ImageNet, per channel
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
                let size = network.embedding_size;
                write_recognizer(&out, &network.into(), normalization.into(), &name)
                    .with_context(|| weights.display().to_string())?;
                log::info!("{}: embedding size {size}", out.display());
                Ok(())
            }
            What::Minifasnet { weights, out } => import_minifasnet(&weights, &out),
            What::Openvino { graph, weights, out, name } => {
                let weights = weights.unwrap_or_else(|| graph.with_extension("bin"));
                let network = read_reid(&graph, &weights)?;
                write_recognizer(&out, &network.into(), reid::NORMALIZATION, &name)
                    .with_context(|| weights.display().to_string())?;
                log::info!("{}: embedding size {}", out.display(), reid::EMBEDDING_SIZE);
                Ok(())
            }
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
                "{}: outputs of the ONNX file differ by {apart:e} from those of the weights in \
                 torch, and rounding explains at most {:e}; this is a bug in facelatch-tools",
                path.display(),
                minifasnet::MOST_APART
            );
        }
        log::info!("{}: ONNX and torch differ by at most {apart:.1e}", path.display());
        networks.push((LivenessFile { file, sha256: sha256_hex(&bytes), scale }, bytes));
    }
    // Written only after all networks passed.
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

/// Scale and ONNX file name per network, both from the name of the weights file.
///
/// # Errors
/// If a name has no scale or two weights files give the same ONNX file name.
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

/// Checks that the folder has a model set with a detector to add to.
fn has_detector(out: &Path) -> Result<()> {
    let path = out.join(MANIFEST);
    if !read_manifest(&path)?.contains_key("detector") {
        bail!(
            "{}: names no detector, which these networks need; copy a complete model set there \
             first, for example: cp -r models {}",
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

/// Reads face-reidentification-retail-0095 from OpenVINO's IR, and runs it once.
///
/// # Errors
/// If a file is missing, damaged or of another network, or if the weights give values that
/// are not finite.
pub fn read_reid(xml: &Path, bin: &Path) -> Result<Reid> {
    let graph = read_up_to(xml, openvino::MAX_XML)?;
    let weights = read_up_to(bin, openvino::MAX_BIN)
        .context("the weights of the graph cannot be read; put them there or name --weights")?;
    let graph = openvino::read(&graph, &weights).with_context(|| {
        // Either file may be at fault.
        format!("{} and {}", xml.display(), bin.display())
    })?;
    let network = Reid::from_ir(&graph).with_context(|| xml.display().to_string())?;
    reid::check(&network.to_onnx()).with_context(|| bin.display().to_string())?;
    Ok(network)
}

/// Reads a file of at most `limit` bytes.
fn read_up_to(path: &Path, limit: u64) -> Result<Vec<u8>> {
    read_file(path, limit).map_err(|error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => {
            anyhow!("{}: has more than {limit} bytes, which no face network has", path.display())
        }
        _ => anyhow::Error::new(error).context(path.display().to_string()),
    })
}

/// Reads MobileFaceNet's weights; the file extension gives the format: `.param` (with the
/// `.bin` next to it), `.pth`, `.pt`, `.ckpt`, `.pth.tar` or `.safetensors`, in any case.
pub fn read_mobilefacenet(path: &Path) -> Result<MobileFaceNet> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lower = name.to_lowercase();
    let is = |ending: &str| lower.ends_with(ending);
    if is(".bin") && path.with_extension("param").exists() {
        bail!("{}: name the .param next to it", path.display());
    }
    if ![".param", ".pth", ".pt", ".ckpt", ".pth.tar", ".safetensors"].into_iter().any(is) {
        bail!(
            "{}: expected a .param, .pth, .pt, .ckpt, .pth.tar or .safetensors file; rename it if \
             it is one of them",
            path.display()
        );
    }
    let bytes = read(path)?;
    if is(".param") {
        // The error names both files, since either may be at fault.
        let ending = if name.ends_with("PARAM") { "BIN" } else { "bin" };
        let bin = read(&path.with_extension(ending))?;
        is_weights(ncnn::FORMAT, &bytes, &["text", "an ncnn .param file"])
            .with_context(|| path.display().to_string())?;
        let text = String::from_utf8_lossy(&bytes);
        return MobileFaceNet::from_ncnn(&text, &bin)
            .with_context(|| format!("{} and its .{ending}", path.display()));
    }
    let tensors =
        if is(".safetensors") { safetensors::read(&bytes) } else { pytorch::read(&bytes) };
    tensors.and_then(MobileFaceNet::from_state_dict).with_context(|| path.display().to_string())
}

/// Similarity thresholds by false accept rate per pair, and the calibration behind them.
pub type Thresholds = (BTreeMap<String, f32>, Calibration);

/// Writes a recognizer and its entry in the manifest. Thresholds measured on other weights
/// would be wrong, so the entry has none.
fn write_recognizer(
    out: &Path,
    network: &FaceNetwork,
    normalization: Normalization,
    version: &str,
) -> Result<()> {
    let model = exported(network, normalization);
    // As the door will run it.
    let mut embedder = Embedder::new(&model)?;
    built_in_faces::check(&mut embedder, &model, built_in_faces::SAME_FOR_ALL)?;
    write_file(&out.join(&model.file.name), &model.file.bytes)?;
    let entry = toml::Value::try_from(entry(&model))?;
    update_manifest(out, Some(version), "recognizer", entry)?;
    forget(out, &["selftest", "recipe", "figures", "licence"])
}

/// Removes top-level keys from the manifest that described networks now replaced.
pub fn forget(folder: &Path, keys: &[&str]) -> Result<()> {
    let path = folder.join(MANIFEST);
    let text = String::from_utf8_lossy(&read(&path)?).into_owned();
    let mut manifest: toml::Table =
        toml::from_str(&text).with_context(|| path.display().to_string())?;
    manifest.retain(|key, _| keys.iter().all(|gone| *gone != key));
    write_file(&path, toml::to_string(&manifest)?.as_bytes())
}

/// Sets one top-level key of the manifest, and its version if one is given. A missing
/// manifest is created, with version `imported` unless one is given.
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
    write_file(&path, toml::to_string(&manifest)?.as_bytes())?;
    match std::fs::remove_file(folder.join(SIGNATURE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.join(SIGNATURE).display().to_string())
        }
        Err(_) => Ok(()),
        Ok(()) => {
            log::warn!(
                "{}: the set has changed, so its signature was removed; sign it again with facelatch-tools sign",
                folder.display()
            );
            Ok(())
        }
    }
}

/// The manifest, or an empty table if the file does not exist.
fn read_manifest(path: &Path) -> Result<toml::Table> {
    match read_text(path, MAX_MANIFEST) {
        Ok(text) => toml::from_str(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(toml::Table::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    read_up_to(path, LARGEST)
}

/// Writes a file atomically: on failure the old file stays.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    files::replace(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::reid::tests::telling_apart;
    use facelatch::models::RecognizerEntry;

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
        // With a detector, the next error is the missing weights file.
        assert!(refused().to_string().contains("MiniFASNetV2.pth"), "{}", refused());
    }

    #[test]
    fn a_recognizer_is_added_to_a_set_with_what_the_door_needs_to_know() {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = folder.path().join(MANIFEST);
        std::fs::write(&manifest, "licence = \"other\"\n[detector]\n").expect("written");
        let network = telling_apart(1).into();
        write_recognizer(folder.path(), &network, reid::NORMALIZATION, "one").expect("written");
        let table = read_manifest(&manifest).expect("a manifest");
        assert!(table.contains_key("detector") && !table.contains_key("licence"));
        assert_eq!(table["version"].as_str(), Some("one"));
        let entry: RecognizerEntry = table["recognizer"].clone().try_into().expect("an entry");
        assert_eq!((entry.alignment, entry.channels), (reid::ALIGNMENT, Channels::Bgr));
        assert_eq!((entry.normalization, entry.embedding_size), (reid::NORMALIZATION, 256));
        let bytes = std::fs::read(folder.path().join(&entry.file)).expect("a network");
        assert_eq!(entry.sha256, sha256_hex(&bytes));
        assert!(Reid::from_onnx(&bytes).expect("a network").to_onnx() == bytes);
    }

    #[test]
    fn files_of_openvino_that_are_missing_or_cut_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let (xml, bin) = (folder.path().join("face.xml"), folder.path().join("face.bin"));
        let refused = || {
            let error = read_reid(&xml, &bin).expect_err("refused");
            format!("{error:#}")
        };
        assert!(refused().contains("face.xml"), "{}", refused());
        std::fs::write(&xml, "<!DOCTYPE html>").expect("written");
        assert!(refused().contains("name --weights: ") && refused().contains("face.bin"));
        std::fs::write(&bin, "").expect("written");
        assert!(refused().contains("face.bin: not an OpenVINO IR: is a web"), "{}", refused());
        let empty = "<net version=\"11\"><layers></layers><edges></edges></net>";
        std::fs::write(&xml, empty).expect("written");
        assert!(refused().contains("it ends after 0 nodes, before a Parameter"), "{}", refused());
    }
}
