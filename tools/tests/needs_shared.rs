//! Tests on real faces and published weights, which are not part of the project. They are
//! read from the folder `shared` beside it, or from FACELATCH_SHARED. If they are
//! missing, the tests are reported as ignored.

#![expect(clippy::print_stdout, reason = "a test's figures are its output")]

use facelatch::models::{Alignment, Channels, ModelFile, Models, RecognizerModel};
use facelatch::nn::{Batch, Network, Normalization, Precision};
use facelatch::vision::align::align;
use facelatch::vision::detect::{Detector, DetectorSettings, nearest_center};
use facelatch::vision::embed::{Embedder, Embedding};
use facelatch::vision::frame::{Frame, Rect};
use facelatch::vision::picture;
use facelatch_tools::cli::read_mobilefacenet;
use facelatch_tools::deliver::export::{compare, exported};
use facelatch_tools::measure::lfw::Pairs;
use facelatch_tools::networks::minifasnet::{self, MiniFasNet};
use facelatch_tools::networks::mobilefacenet::MobileFaceNet;
use facelatch_tools::networks::reid::{self, Reid};
use facelatch_tools::weights::{ncnn, openvino, pytorch};
use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One line of the reference file.
#[derive(Deserialize)]
struct Reference {
    image: PathBuf,
    #[serde(rename = "box")]
    rect: [f32; 4],
    landmarks: [[f32; 2]; 5],
    embedding: Vec<f32>,
}

fn main() {
    let arguments = Arguments::from_args();
    let shared = std::env::var_os("FACELATCH_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    let missing = !shared.join("expected/lfw_reference.jsonl").exists();
    let trial = |name: &str, test: fn(&Path) -> Result<(), Failed>| {
        let shared = shared.clone();
        Trial::test(format!("needs_shared::{name}"), move || test(&shared))
            .with_ignored_flag(missing)
    };
    let tests = vec![
        trial("faces_match_the_reference", faces_match),
        trial("photos_are_decoded_to_the_value", photos_are_decoded),
        trial("faces_match_through_our_own_decoder", faces_match_through_our_decoder),
        trial("int8_stays_near_float", int8_stays_near_float),
        trial("embeddings_match_the_reference", embeddings_match),
        trial("what_is_exported_agrees_with_torch", exports_agree),
        trial("weights_cut_short_name_the_tensor", cut_weights_are_named),
        trial("parameters_of_another_network_are_refused", other_parameters_are_refused),
        trial("a_legacy_pickle_is_read", reads_a_legacy_pickle),
        trial("the_pairs_files_are_read_whole", reads_the_pairs),
        trial("minifasnet_answers_as_its_weights_do_in_torch", minifasnet_is_imported),
        trial("openvino_reid_is_imported_and_runs", reid_is_imported)
            .with_ignored_flag(missing || !shared.join(REID).exists()),
    ];
    libtest_mimic::run(&arguments, tests).exit();
}

/// Compares both published networks, as exported, with their weights in torch.
fn minifasnet_is_imported(shared: &Path) -> Result<(), Failed> {
    for (file, scale) in
        [("2.7_80x80_MiniFASNetV2.pth", 2.7), ("4_0_0_80x80_MiniFASNetV1SE.pth", 4.0)]
    {
        let path = shared.join("weights").join(file);
        let network = MiniFasNet::from_state_dict(pytorch::read(&std::fs::read(&path)?)?)?;
        let apart = minifasnet::apart(&network, &network.to_onnx())?;
        println!("{file}: {apart:e} apart");
        if apart > minifasnet::MOST_APART || minifasnet::named(&path)?.0 != scale {
            return Err(format!("{file}: {apart} apart").into());
        }
    }
    Ok(())
}

/// Intel's face-reidentification-retail-0095, with a folder for each precision.
const REID: &str = "weights/reid0095";

fn reid_files(shared: &Path, precision: &str) -> Result<[Vec<u8>; 2], Failed> {
    let file = shared.join(REID).join(precision).join(reid::NAME);
    Ok([std::fs::read(file.with_extension("xml"))?, std::fs::read(file.with_extension("bin"))?])
}

/// Imports the FP16 files and runs the network in float on the middle of two photos. The
/// FP16-INT8 files and half a weights file are refused.
fn reid_is_imported(shared: &Path) -> Result<(), Failed> {
    let [xml, bin] = reid_files(shared, "FP16")?;
    let onnx = Reid::from_ir(&openvino::read(&xml, &bin)?)?.to_onnx();
    let (signature, precision) = (reid::signature(), Some(Precision::Float));
    let mut network =
        Network::load(reid::NAME, &onnx, &signature, &reid::NORMALIZATION, precision)?;
    let mut pictures = Batch::default();
    for Reference { image, .. } in reference(shared)?.iter().take(2) {
        let frame = picture::read(shared.join("lfw").join(image))?;
        let (left, top) =
            ((frame.width() - reid::INPUT_SIDE) / 2, (frame.height() - reid::INPUT_SIDE) / 2);
        let pixels = pictures.add(reid::INPUT_SIDE, reid::INPUT_SIDE);
        for (at, pixel) in pixels.chunks_exact_mut(Batch::PIXEL).enumerate() {
            let (column, row) = (left + at % reid::INPUT_SIDE, top + at / reid::INPUT_SIDE);
            let [red, green, blue] = frame.pixel(column as isize, row as isize);
            for (to, value) in pixel.iter_mut().zip([blue, green, red]) {
                *to = i16::from(value) * Batch::STEPS;
            }
        }
    }
    let outputs = network.run(&pictures)?;
    let embeddings: Vec<&[f32]> = outputs.iter().flat_map(|output| output.places()).collect();
    let [first, second] = embeddings[..] else {
        return Err(format!("{} embeddings of two photos", embeddings.len()).into());
    };
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    if first.len() != reid::EMBEDDING_SIZE || !finite(first) || !finite(second) {
        return Err(format!("embeddings {first:?} and {second:?}").into());
    }
    let cosine = Embedding::normalized(first).similarity(&Embedding::normalized(second));
    println!("cosine of two people: {cosine:.3}");
    if cosine > 0.9 {
        return Err(format!("two people have nearly the same embedding: {cosine}").into());
    }

    let cut = openvino::read(&xml, &bin[..bin.len() / 2]).err().ok_or("a cut file was read")?;
    let [xml, bin] = reid_files(shared, "FP16-INT8")?;
    let int8 = openvino::read(&xml, &bin).err().ok_or("FP16-INT8 was read")?;
    for (error, part) in [(cut.to_string(), "cut short: constant"), (int8.to_string(), "FP16-INT8")]
    {
        if !error.contains(part) {
            return Err(error.into());
        }
    }
    Ok(())
}

/// The 2018 weights as a model in memory.
fn imported_recognizer(shared: &Path) -> Result<RecognizerModel, Failed> {
    let network = read_mobilefacenet(&shared.join("weights/mobilefacenet.param"))?;
    Ok(RecognizerModel {
        file: ModelFile { name: "mobilefacenet.onnx".into(), bytes: network.to_onnx().into() },
        channels: Channels::Rgb,
        alignment: Alignment::ARCFACE,
        normalization: Normalization::ARCFACE,
        embedding_size: network.embedding_size,
        precision: None,
    })
}

/// The floating-point models that the int8 models are made from.
const FLOAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/float");

/// Compares the built-in models with those they were made from. They must find the same
/// faces, with landmarks within half a pixel on average and nearly the same embeddings.
fn int8_stays_near_float(shared: &Path) -> Result<(), Failed> {
    let sets = [Models::open(FLOAT.as_ref())?, Models::built_in()?];
    let mut detectors = Vec::new();
    let mut embedders = Vec::new();
    for models in &sets {
        detectors.push(Detector::new(&models.detector, DetectorSettings::default())?);
        embedders.push(Embedder::new(models.recognizer()?)?);
    }
    let (mut found, mut distances, mut cosines) = ([0; 2], vec![], vec![]);
    for reference in reference(shared)? {
        let frame = picture::read(shared.join("lfw").join(&reference.image))?;
        let mut faces = [None; 2];
        for (detector, face) in detectors.iter_mut().zip(&mut faces) {
            *face = nearest_center(detector.detect(&frame)?, &frame).copied();
        }
        for (found, face) in found.iter_mut().zip(&faces) {
            *found += usize::from(face.is_some());
        }
        let [Some(float), Some(int8)] = faces else { continue };
        let points = float.landmarks.iter().zip(&int8.landmarks);
        distances.push(points.map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1])).sum::<f32>() / 5.0);
        let crop = align(&frame, &float.landmarks, embedders[0].alignment());
        let embeddings = [embedders[0].embed(&crop)?, embedders[1].embed(&crop)?];
        cosines.push(embeddings[0].similarity(&embeddings[1]));
    }
    let worst = cosines.iter().copied().fold(1.0, f32::min);
    let figures = format!(
        "faces in {found:?} photos, float first; landmarks {:.3} px apart, cosine {:.4}, worst {worst:.4}",
        mean(&distances),
        mean(&cosines)
    );
    println!("{figures}");
    let near = found[1] * 1000 >= found[0] * 995
        && mean(&distances) <= 0.5
        && mean(&cosines) >= 0.99
        && worst >= 0.97;
    if near { Ok(()) } else { Err(figures.into()) }
}

fn reference(shared: &Path) -> Result<Vec<Reference>, Failed> {
    let text = std::fs::read_to_string(shared.join("expected/lfw_reference.jsonl"))?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Agreement of our faces with those of the reference.
#[derive(Default)]
struct Agreement {
    total: usize,
    agreeing: usize,
    ious: Vec<f32>,
    distances: Vec<f32>,
    cosines: Vec<f32>,
}

impl Agreement {
    /// Measures all photos as `decode` reads them, and prints the faces that do not
    /// agree.
    fn measure(shared: &Path, decode: fn(&Path) -> Result<Frame, Failed>) -> Result<Self, Failed> {
        let models = Models::open(FLOAT.as_ref())?;
        // The reference takes only the best window.
        let settings = DetectorSettings { vote: false, ..DetectorSettings::default() };
        let mut detector = Detector::new(&models.detector, settings)?;
        let mut embedder = Embedder::new(&imported_recognizer(shared)?)?;
        let mut all = Self::default();
        for reference in reference(shared)? {
            all.total += 1;
            let frame = decode(&shared.join("lfw").join(&reference.image))?;
            let faces = detector.detect(&frame)?;
            let Some(face) = nearest_center(faces, &frame) else {
                println!("{}: no face", reference.image.display());
                continue;
            };
            let [x1, y1, x2, y2] = reference.rect;
            let iou = face.rect.iou(&Rect { x1, y1, x2, y2 });
            let points = face.landmarks.iter().zip(&reference.landmarks);
            let distance = points.map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1])).sum::<f32>() / 5.0;
            let agrees = iou >= 0.9 && distance <= 2.0;
            let embedding = embedder.embed(&align(&frame, &face.landmarks, &Alignment::ARCFACE))?;
            let cosine = embedding.similarity(&Embedding::normalized(&reference.embedding));
            if !agrees || cosine < 0.99 {
                let name = reference.image.display();
                println!("{name}: IoU {iou:.3}, landmarks {distance:.2} px, cosine {cosine:.4}");
            }
            all.agreeing += usize::from(agrees);
            all.cosines.push(cosine);
            all.ious.push(iou);
            all.distances.push(distance);
        }
        Ok(all)
    }

    /// Fails unless this many of a thousand faces, and of a thousand embeddings, agree.
    fn check(&self, faces: usize, embeddings: usize) -> Result<(), Failed> {
        let near = self.cosines.iter().filter(|cosine| **cosine >= 0.99).count();
        let figures = format!(
            "{} of {} faces with IoU >= 0.9 and landmarks within 2 px; mean IoU {:.4}, landmarks \
             {:.3} px; {near} embeddings with cosine >= 0.99, mean {:.4}",
            self.agreeing,
            self.total,
            mean(&self.ious),
            mean(&self.distances),
            mean(&self.cosines)
        );
        println!("{figures}");
        let enough =
            self.agreeing * 1000 >= self.total * faces && near * 1000 >= self.total * embeddings;
        if enough { Ok(()) } else { Err(figures.into()) }
    }
}

/// Decodes with libjpeg, as the reference did.
fn as_the_reference(path: &Path) -> Result<Frame, Failed> {
    let mut picture = mozjpeg::Decompress::new_path(path)?.rgb()?;
    let (width, height) = (picture.width(), picture.height());
    let pixels = picture.read_scanlines::<[u8; 3]>()?;
    Ok(Frame::new(width, height, pixels.into_flattened())?)
}

fn faces_match(shared: &Path) -> Result<(), Failed> {
    Agreement::measure(shared, as_the_reference)?.check(990, 990)
}

/// Every value of each photo equals that of libjpeg.
fn photos_are_decoded(shared: &Path) -> Result<(), Failed> {
    for Reference { image, .. } in reference(shared)? {
        let path = shared.join("lfw").join(&image);
        if picture::read(&path)? != as_the_reference(&path)? {
            return Err(format!("{}: not as libjpeg decodes it", image.display()).into());
        }
    }
    Ok(())
}

fn faces_match_through_our_decoder(shared: &Path) -> Result<(), Failed> {
    Agreement::measure(shared, |path| Ok(picture::read(path)?))?.check(990, 990)
}

/// Alignment and embedding only, on the landmarks of the reference.
fn embeddings_match(shared: &Path) -> Result<(), Failed> {
    let mut embedder = Embedder::new(&imported_recognizer(shared)?)?;
    let mut cosines = vec![];
    for reference in reference(shared)? {
        let frame = picture::read(shared.join("lfw").join(&reference.image))?;
        let embedding =
            embedder.embed(&align(&frame, &reference.landmarks, &Alignment::ARCFACE))?;
        cosines.push(embedding.similarity(&Embedding::normalized(&reference.embedding)));
    }
    let agreeing = cosines.iter().filter(|cosine| **cosine >= 0.99).count();
    let worst = cosines.iter().copied().fold(1.0, f32::min);
    let figures = format!(
        "{agreeing} of {} embeddings with cosine >= 0.99; mean {:.5}, worst {worst:.5}",
        cosines.len(),
        mean(&cosines)
    );
    println!("{figures}");
    if agreeing * 100 < cosines.len() * 99 { Err(figures.into()) } else { Ok(()) }
}

/// Compares the published weights in tract and in libtorch, on real faces.
fn exports_agree(shared: &Path) -> Result<(), Failed> {
    let network = read_mobilefacenet(&shared.join("weights/mobilefacenet.param"))?.into();
    let mut crops = vec![];
    for reference in reference(shared)?.iter().take(100) {
        let frame = picture::read(shared.join("lfw").join(&reference.image))?;
        crops.push(align(&frame, &reference.landmarks, &Alignment::ARCFACE));
    }
    let model = exported(&network, Normalization::ARCFACE);
    let agreement = compare(&network, &model, &crops)?;
    println!("{agreement:?}");
    Ok(())
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len().max(1) as f32
}

fn cut_weights_are_named(shared: &Path) -> Result<(), Failed> {
    let param = std::fs::read_to_string(shared.join("weights/mobilefacenet.param"))?;
    let bin = std::fs::read(shared.join("weights/mobilefacenet.bin"))?;
    let error = ncnn::read(&param, &bin[..bin.len() / 2]).err().ok_or("half a file was read")?;
    let message = error.to_string();
    if !message.contains("cut short") || !message.contains("res_4_block") {
        return Err(message.into());
    }
    Ok(())
}

fn other_parameters_are_refused(shared: &Path) -> Result<(), Failed> {
    let param = std::fs::read_to_string(shared.join("weights/mobilefacenet.param"))?;
    let bin = std::fs::read(shared.join("weights/mobilefacenet.bin"))?;
    MobileFaceNet::from_ncnn(&param, &bin)?;
    for (from, to, expected) in [
        ("3=2 13=2", "3=1 13=2", "strides [1, 2], expected 2"),
        ("4=1 14=1", "4=0 14=0", "padding [0, 0, 0, 0], expected 1"),
        ("13=2 4=1", "13=2 2=2 4=1", "dilations [2, 2], expected 1"),
        ("6=1728", "6=1728 9=1", "parameter 9=1"),
        ("6=576 7=64", "6=576 7=32", "groups [32], expected 64"),
        ("2=127.500000", "2=0.000000", "normalizes pictures with 0"),
        ("_plus0 0=0", "_plus0 0=2", "is no sum"),
    ] {
        let error = MobileFaceNet::from_ncnn(&param.replacen(from, to, 1), &bin).err();
        let message = error.ok_or_else(|| format!("{to} was read"))?.to_string();
        if !message.contains(expected) {
            return Err(format!("{to}: {message}").into());
        }
    }
    Ok(())
}

fn reads_a_legacy_pickle(shared: &Path) -> Result<(), Failed> {
    let bytes = std::fs::read(shared.join("weights/2.7_80x80_MiniFASNetV2.pth"))?;
    let tensors = pytorch::read(&bytes)?;
    let first = tensors.get("conv1.conv.weight").ok_or("conv1.conv.weight is missing")?;
    if first.shape != [32, 3, 3, 3] || !first.values.iter().all(|value| value.abs() < 10.0) {
        return Err(format!("conv1.conv.weight is {:?}", first.shape).into());
    }
    let error = pytorch::read(&bytes[..bytes.len() - 1000]).err().ok_or("a cut file was read")?;
    if !error.to_string().contains("cut short") {
        return Err(error.to_string().into());
    }
    Ok(())
}

fn reads_the_pairs(shared: &Path) -> Result<(), Failed> {
    for (file, folds, pairs) in
        [("pairs.txt", 5, 3000), ("pairs_select.txt", 1, 600), ("pairs_val.txt", 2, 1200)]
    {
        let read = Pairs::read(&shared.join("lfw").join(file))?;
        if (read.folds, read.pairs.len(), read.bad_rows.len()) != (folds, pairs, 0) {
            return Err(format!("{file}: {} folds, {} pairs", read.folds, read.pairs.len()).into());
        }
    }
    Ok(())
}
