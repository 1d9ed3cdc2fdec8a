//! Exports a trained recognizer for doors: an ONNX file that gives the same embeddings in
//! the device's runtime (tract) as in torch, and a manifest that describes it.

use crate::networks::face::FaceNetwork;
use crate::train::torch_net::{Student, pictures};
use anyhow::{Result, ensure};
use facelatch::models::covered::CoveredEntry;
use facelatch::models::{
    FileEntry, Layout, MANIFEST, Manifest, ModelFile, Models, RecognizerEntry, RecognizerModel,
    sha256_hex,
};
use facelatch::nn::Normalization;
use facelatch::storage::models::self_test::{SELF_TEST, SelfTest};
use facelatch::vision::align::Crop;
use facelatch::vision::embed::{Embedder, Embedding};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

/// Lowest accepted cosine between the embeddings of tract and torch. Folding the
/// normalization and another order of sums cost 1e-7 on a hundred real faces; a wrong layer
/// costs 0.1.
pub const LEAST_COSINE: f32 = 0.99999;
/// Largest accepted difference of a component of unit-length embeddings; it was 4e-7 on the
/// same faces. The cosine limit alone would allow 4.5e-3 in one component, more than
/// rounding explains.
pub const MOST_DIFFERENCE: f32 = 1e-4;
/// Faces per torch batch; bounds its memory.
const BATCH: usize = 32;

/// File names and JPEG bytes of the portraits for self-tests, in the public domain (see
/// assets/README.md).
pub const PORTRAITS: [(&str, &[u8]); 2] = [
    ("selftest-1.jpg", include_bytes!("../../../assets/astronaut.jpg")),
    ("selftest-2.jpg", include_bytes!("../../../assets/grace_hopper.jpg")),
];

/// Agreement of tract and torch on the same faces.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Number of faces compared.
    pub faces: usize,
    /// Lowest cosine between the two embeddings of a face.
    pub cosine: f32,
    /// Largest absolute difference of a component of unit-length embeddings.
    pub difference: f32,
}

/// Converts the network to ONNX, in memory.
pub fn exported(network: &FaceNetwork, normalization: Normalization) -> RecognizerModel {
    let architecture = network.architecture();
    RecognizerModel {
        file: ModelFile { name: format!("{architecture}.onnx"), bytes: network.to_onnx().into() },
        channels: architecture.channels(),
        alignment: architecture.alignment(),
        normalization,
        embedding_size: network.embedding_size(),
        precision: None,
    }
}

/// The manifest's entry of a recognizer, without thresholds.
pub fn entry(model: &RecognizerModel) -> RecognizerEntry {
    RecognizerEntry {
        file: model.file.name.clone(),
        sha256: sha256_hex(&model.file.bytes),
        layout: Layout::Nchw,
        channels: model.channels,
        alignment: model.alignment,
        normalization: model.normalization,
        embedding_size: model.embedding_size,
        thresholds: BTreeMap::new(),
        calibration: None,
        likelihood: None,
        worst_group: None,
    }
}

/// Compares the exported network in tract, as a device runs it, with its weights in
/// libtorch on the same faces.
///
/// # Errors
/// If there are no faces, or the embeddings differ by more than [`LEAST_COSINE`] and
/// [`MOST_DIFFERENCE`] allow.
pub fn compare(
    network: &FaceNetwork,
    model: &RecognizerModel,
    crops: &[Crop],
) -> Result<Agreement> {
    ensure!(!crops.is_empty(), "no faces for comparing tract with libtorch; add some");
    let side = model.alignment.side;
    ensure!(
        crops.iter().all(|crop| crop.side() == side),
        "faces for comparing tract with libtorch must have {side}x{side} pixels"
    );
    let student = Student::new(network, Device::Cpu);
    let mut embedder = Embedder::new(model)?;
    let mut agreement = Agreement { faces: crops.len(), cosine: 1.0, difference: 0.0 };
    for batch in crops.chunks(BATCH) {
        let seen: Vec<&Crop> = batch.iter().collect();
        let torch = tch::no_grad(|| {
            student.forward(&pictures(&seen, model.channels, &model.normalization))
        });
        for (crop, row) in batch.iter().zip(rows(&torch)?) {
            let expected = Embedding::normalized(&row);
            let got = embedder.embed(crop)?;
            let apart = got.values().iter().zip(expected.values()).map(|(a, b)| (a - b).abs());
            agreement.difference = agreement.difference.max(apart.fold(0.0, f32::max));
            agreement.cosine = agreement.cosine.min(got.similarity(&expected));
        }
    }
    let Agreement { cosine, difference, .. } = agreement;
    ensure!(
        cosine >= LEAST_COSINE && difference <= MOST_DIFFERENCE,
        "tract and libtorch differ on these faces: cosine down to {cosine:.6} (at least \
         {LEAST_COSINE}), components up to {difference:.1e} (at most {MOST_DIFFERENCE:e}); nothing \
         was written"
    );
    Ok(agreement)
}

fn rows(embeddings: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(Vec::try_from(embeddings)?)
}

/// Files of a model set by name, including the manifest.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A model set of a detector and an exported recognizer, without thresholds, figures,
/// recipe and self-test. The files do not include the manifest yet.
pub fn set(detector: &Models, model: &RecognizerModel, version: &str) -> (Manifest, Files) {
    let nets = &detector.detector;
    let detection = &detector.manifest.detector;
    let mut files: Files = [
        (&detection.pnet, &nets.pnet),
        (&detection.rnet, &nets.rnet),
        (&detection.onet, &nets.onet),
    ]
    .into_iter()
    .map(|(entry, net)| (entry.file.clone(), net.bytes.to_vec()))
    .collect();
    files.insert(model.file.name.clone(), model.file.bytes.to_vec());
    // It belongs to the detector.
    let covered =
        detector.manifest.covered.clone().zip(detector.covers()).and_then(|(entry, covers)| {
            let bytes = serde_json::to_vec(covers).ok()?;
            let sha256 = sha256_hex(&bytes);
            files.insert(entry.file.clone(), bytes);
            Some(CoveredEntry { sha256, ..entry })
        });
    let manifest = Manifest {
        signed_at: None,
        version: version.to_owned(),
        detector: detection.clone(),
        recognizer: Some(entry(model)),
        liveness: None,
        covered,
        licence: None,
        selftest: None,
        recipe: Vec::new(),
        figures: BTreeMap::new(),
    };
    (manifest, files)
}

/// Measures the self-test of a set on the portraits; returns its manifest entry and its
/// files.
pub fn self_test(models: &Models) -> Result<(FileEntry, Files)> {
    let test = SelfTest::measure(models, &PORTRAITS)?.to_json()?;
    let entry = FileEntry { file: SELF_TEST.to_owned(), sha256: sha256_hex(&test) };
    let mut files: Files =
        PORTRAITS.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
    files.insert(SELF_TEST.to_owned(), test);
    Ok((entry, files))
}

/// Adds self-test and manifest to the files, then loads the set as a device does.
pub fn seal(manifest: &mut Manifest, files: &mut Files, folder: &Path) -> Result<Models> {
    let write = |manifest: &Manifest, files: &mut Files| -> Result<Models> {
        files.insert(MANIFEST.to_owned(), toml::to_string(manifest)?.into_bytes());
        Ok(Models::from_files(folder, files)?)
    };
    manifest.selftest = None;
    let (entry, mut more) = self_test(&write(manifest, files)?)?;
    manifest.selftest = Some(entry);
    files.append(&mut more);
    write(manifest, files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::reid;
    use crate::train::torch_net::tests::{crop, crop_of, noise, reid_noise};
    use facelatch::vision::recognizer::Recognizer;

    #[test]
    fn what_is_exported_gives_what_torch_gives() {
        for (network, normalization) in
            [(noise(32, 7), Normalization::IMAGENET), (reid_noise(7).into(), reid::NORMALIZATION)]
        {
            let model = exported(&network, normalization);
            let side = model.alignment.side;
            let crops: Vec<Crop> = (0..3).map(|seed| crop_of(side, seed)).collect();
            let Agreement { faces, cosine, difference } =
                compare(&network, &model, &crops).expect("agreement");
            assert_eq!(faces, 3);
            assert!(cosine >= LEAST_COSINE && difference < MOST_DIFFERENCE);
            assert!(compare(&network, &model, &[]).is_err());
            assert!(compare(&network, &model, &[crop_of(90, 1)]).is_err());
        }
    }

    #[test]
    fn a_network_that_is_exported_wrongly_is_seen() {
        let network = noise(32, 7);
        let mut other = network.tensors().clone();
        let slopes = other.get_mut("conv_45.conv.prelu.weight").expect("slopes");
        slopes.values.iter_mut().for_each(|slope| *slope += 0.05);
        let model = exported(&network.with(other), Normalization::ARCFACE);
        let error = compare(&network, &model, &[crop(1)]).expect_err("differs").to_string();
        assert!(error.contains("tract and libtorch differ"), "{error}");
    }

    #[test]
    fn a_sealed_set_passes_its_own_test() {
        let detector = Models::built_in().expect("models");
        let model = exported(&noise(32, 7), Normalization::ARCFACE);
        let (mut manifest, mut files) = set(&detector, &model, "toy");
        manifest.licence = Some("anybody's".to_owned());
        let folder = Path::new("toy");
        let models = seal(&mut manifest, &mut files, folder).expect("a set");
        assert_eq!(models.manifest, manifest);
        assert_eq!(files.len(), 6 + 3);
        let read = |name: &str| -> std::io::Result<Vec<u8>> {
            files.get(name).cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into())
        };
        let test = SelfTest::read(folder, &models.manifest, &read).expect("read").expect("a test");
        let mut recognizer = Recognizer::new(&models, Default::default()).expect("a recognizer");
        let report = test.run(&mut recognizer, folder, &read).expect("passed");
        assert_eq!(report.vectors, 2);
    }
}
