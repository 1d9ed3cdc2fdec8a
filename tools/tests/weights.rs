//! Weights with 512 components, named as in PyTorch's common MobileFaceNet code, read
//! from every supported format.

use facelatch::models::{Alignment, Channels, ModelFile, Models, RecognizerModel};
use facelatch::nn::Normalization;
use facelatch::vision::align::Crop;
use facelatch::vision::embed::{Embedder, Embedding};
use facelatch_tools::cli::read_mobilefacenet;
use facelatch_tools::networks::mobilefacenet::{MobileFaceNet, expected};
use facelatch_tools::networks::mtcnn;
use facelatch_tools::train::torch_net::{Student, pictures};
use facelatch_tools::weights::{Tensor, Tensors, pytorch, safetensors};
use proptest::prelude::*;
use std::io::{Cursor, Write};
use std::path::PathBuf;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

const EMBEDDING_SIZE: usize = 512;

/// Random weights that keep activations within bounds.
fn noise() -> Tensors {
    let mut state = 42u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    expected(EMBEDDING_SIZE, false)
        .into_iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let inputs = shape.iter().skip(1).product::<usize>().max(1) as f32;
            let values = (0..count)
                .map(|_| match (name.rsplit('.').next(), shape.len()) {
                    (Some("running_var"), _) => 1.0 + next(),
                    (Some("weight"), 1) if name.contains("bn") => 1.0 + next(),
                    (Some("weight"), 1) => 0.25 + 0.1 * next(),
                    (Some("weight"), _) => next() * 3.4 / inputs.sqrt(),
                    _ => 0.1 * next(),
                })
                .collect();
            (name, Tensor { shape, values })
        })
        .collect()
}

/// The pickle that `torch.save` writes for an ordered dictionary of tensors, protocol 2,
/// with the batch counter that every normalization has.
fn pickled(tensors: &Tensors) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }
    fn number(out: &mut Vec<u8>, number: usize) {
        out.push(b'J');
        out.extend((number as i32).to_le_bytes());
    }
    fn tuple(out: &mut Vec<u8>, numbers: &[usize]) {
        out.push(b'(');
        for value in numbers {
            number(out, *value);
        }
        out.push(b't');
    }
    let tensor = |out: &mut Vec<u8>, name: &str, kind: &str, key: usize, shape: &[usize]| {
        text(out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(out, "storage");
        out.extend(format!("ctorch\n{kind}\n").bytes());
        text(out, &key.to_string());
        text(out, "cpu");
        number(out, shape.iter().product());
        out.extend(b"tQ");
        number(out, 0);
        tuple(out, shape);
        let strides: Vec<usize> =
            (0..shape.len()).map(|at| shape[at + 1..].iter().product()).collect();
        tuple(out, &strides);
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    };
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (key, (name, value)) in tensors.iter().enumerate() {
        tensor(&mut out, name, "FloatStorage", key, &value.shape);
        if let Some(norm) = name.strip_suffix(".running_var") {
            let counter = format!("{norm}.num_batches_tracked");
            tensor(&mut out, &counter, "LongStorage", 100_000 + key, &[]);
        }
    }
    out.extend(b"u.");
    out
}

/// A `.pth` file in the zip format.
fn pth(tensors: &Tensors) -> Vec<u8> {
    pth_of(tensors, &pickled(tensors))
}

/// A `.pth` file in the zip format with the given pickle.
fn pth_of(tensors: &Tensors, pickled: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut entry = |name: String, bytes: &[u8]| {
        zip.start_file(name, stored).expect("an entry");
        zip.write_all(bytes).expect("written");
    };
    entry("archive/data.pkl".into(), pickled);
    for (key, (name, value)) in tensors.iter().enumerate() {
        let bytes: Vec<u8> = value.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        entry(format!("archive/data/{key}"), &bytes);
        if name.ends_with(".running_var") {
            entry(format!("archive/data/{}", 100_000 + key), &7i64.to_le_bytes());
        }
    }
    entry("archive/version".into(), b"3\n");
    zip.finish().expect("an archive").into_inner()
}

/// A `.pth` file in the format before zip: several pickles in sequence, then the
/// storages.
fn legacy_of(tensors: &Tensors, pickled: &[u8]) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    out.extend(b"\x80\x02M\xe9\x03.\x80\x02}.");
    out.extend(pickled);
    out.extend(b"\x80\x02](");
    let counters = |name: &str| name.ends_with(".running_var");
    for (key, name) in tensors.keys().enumerate() {
        for key in [Some(key), counters(name).then_some(100_000 + key)].into_iter().flatten() {
            let key = key.to_string();
            out.push(b'X');
            out.extend((key.len() as u32).to_le_bytes());
            out.extend(key.bytes());
        }
    }
    out.extend(b"e.");
    for (name, tensor) in tensors {
        out.extend((tensor.values.len() as u64).to_le_bytes());
        out.extend(tensor.values.iter().flat_map(|v| v.to_le_bytes()));
        if counters(name) {
            out.extend(1u64.to_le_bytes());
            out.extend(7i64.to_le_bytes());
        }
    }
    out
}

fn safetensors_file(tensors: &Tensors) -> Vec<u8> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let bytes = tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.clone(), tensor.shape.clone(), bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view =
            ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F32, shape.clone(), bytes);
        (name, view.expect("as many bytes as said"))
    });
    ::safetensors::serialize(views, None).expect("a file")
}

fn written(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("written");
    path
}

fn message(folder: &TempDir, tensors: &Tensors) -> String {
    let path = written(folder, "broken.pth", &pth(tensors));
    let error = read_mobilefacenet(&path).expect_err("broken weights");
    format!("{error:#}")
}

/// Training scripts keep the network under keys and prefixes of their own.
#[test]
fn dictionaries_and_prefixes_are_named() {
    let tensors = noise();
    let folder = TempDir::new().expect("a folder");
    let said = |name: &str, pickle: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, legacy_of(&tensors, pickle)).expect("written");
        match read_mobilefacenet(&path) {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    };
    let plain = pickled(&tensors);
    let nested = |keys: &[&str]| {
        let body = plain[2..plain.len() - 1].to_vec();
        let body = keys.iter().rev().fold(body, |body, key| {
            let length = (key.len() as u32).to_le_bytes();
            [b"}X", &length[..], key.as_bytes(), &body, b"s"].concat()
        });
        [&[0x80, 2], &body[..], b"."].concat()
    };
    assert_eq!(said("plain.ckpt", &plain), "");
    assert_eq!(said("plain.PTH", &plain), "");
    assert_eq!(said("plain.pth.tar", &nested(&["state_dict"])), "");
    let backbone = said("nested.pth", &nested(&["backbone"]));
    assert!(backbone.contains("holds dictionaries under: backbone ("), "{backbone}");
    assert!(backbone.contains("torch.load(FILE)[\"backbone\"]"), "{backbone}");
    let deep = said("deep.pth", &nested(&["model", "state_dict"]));
    assert!(deep.contains("holds dictionaries under: model.state_dict ("), "{deep}");
    let prefixed: Tensors =
        tensors.iter().map(|(name, tensor)| (format!("model.{name}"), tensor.clone())).collect();
    let prefixed = said("prefix.pth", &pickled(&prefixed));
    assert!(prefixed.contains("all names begin with \"model.\""), "{prefixed}");
    assert!(prefixed.len() < 500, "{prefixed}");
    let other = said("weights.h5", &plain);
    assert!(other.contains("expected a .param, .pth"), "{other}");
}

#[test]
fn a_512_d_state_dict_is_read_from_every_format() {
    let folder = TempDir::new().expect("a folder");
    let tensors = noise();
    for (name, bytes) in [
        ("seed.pth", pth(&tensors)),
        ("old.pth", legacy_of(&tensors, &pickled(&tensors))),
        ("seed.safetensors", safetensors_file(&tensors)),
    ] {
        let network = read_mobilefacenet(&written(&folder, name, &bytes)).expect(name);
        assert_eq!(network.embedding_size, EMBEDDING_SIZE);
        assert_eq!(network.tensors, tensors, "{name}");
    }
}

#[test]
fn exported_with_imagenet_normalization_it_embeds_as_torch_does() {
    let network = MobileFaceNet::from_state_dict(noise()).expect("weights");
    let pixels = (0..112 * 112 * 3).map(|i| (i * 31 % 251) as u8).collect();
    let crop = Crop::from_pixels(112, pixels).expect("112 x 112");
    let normalization = Normalization::IMAGENET;
    let model = RecognizerModel {
        file: ModelFile { name: "seed.onnx".into(), bytes: network.to_onnx().into() },
        channels: Channels::Rgb,
        alignment: Alignment::ARCFACE,
        normalization,
        embedding_size: EMBEDDING_SIZE,
        precision: None,
    };
    let embedding = Embedder::new(&model).expect("a model").embed(&crop).expect("an embedding");
    let seen = pictures(&[&crop], Channels::Rgb, &normalization);
    let student = Student::new(&network.into(), tch::Device::Cpu);
    let torch = tch::no_grad(|| student.forward(&seen));
    let torch: Vec<f32> = Vec::try_from(torch.flatten(0, -1)).expect("numbers");
    let similarity = embedding.similarity(&Embedding::normalized(&torch));
    assert!(similarity > 0.9999, "{similarity}");
}

#[test]
fn imported_by_the_program_it_is_in_the_manifest_with_its_normalization() {
    let folder = TempDir::new().expect("a folder");
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");
    for file in ["manifest.toml", "covered.json", "pnet.onnx", "rnet.onnx", "onet.onnx"] {
        std::fs::copy(format!("{models}/{file}"), folder.path().join(file)).expect("copied");
    }
    let weights = written(&folder, "seed.pth", &pth(&noise()));
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_facelatch-tools"))
        .args(["import", "mobilefacenet", "--normalization", "imagenet", "--name", "seed", "--out"])
        .args([folder.path(), &weights])
        .output()
        .expect("the program runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let models = Models::open(folder.path()).expect("models");
    let recognizer = models.recognizer().expect("a recognizer");
    assert_eq!(recognizer.embedding_size, EMBEDDING_SIZE);
    assert_eq!(recognizer.normalization, Normalization::IMAGENET);
    // Thresholds of other weights would be wrong.
    assert!(models.thresholds().is_err());
    assert_eq!(models.manifest.version, "seed");
}

#[test]
fn what_is_missing_extra_or_misshapen_is_named() {
    let folder = TempDir::new().expect("a folder");
    let mut missing = noise();
    missing.remove("conv_4.model.3.conv_dw.bn.running_mean");
    let said = message(&folder, &missing);
    assert!(said.contains("conv_4.model.3.conv_dw.bn.running_mean"), "{said}");
    assert!(said.contains("broken.pth"), "{said}");
    let mut extra = noise();
    extra.insert("head.kernel".into(), Tensor { shape: vec![2], values: vec![0.0; 2] });
    assert!(message(&folder, &extra).contains("head.kernel"));
    let mut misshapen = noise();
    misshapen.insert(
        "conv_34.project.conv.weight".into(),
        Tensor { shape: vec![4], values: vec![0.0; 4] },
    );
    let said = message(&folder, &misshapen);
    assert!(
        said.contains("conv_34.project.conv.weight is [4], expected [128, 256, 1, 1]"),
        "{said}"
    );
}

#[test]
fn a_pickle_that_would_run_something_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("archive/data.pkl", SimpleFileOptions::default()).expect("an entry");
    zip.write_all(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.").expect("written");
    let bytes = zip.finish().expect("an archive").into_inner();
    let path = written(&folder, "evil.pth", &bytes);
    let said = format!("{:#}", read_mobilefacenet(&path).expect_err("refused"));
    assert!(said.contains("posix") && said.contains("system"), "{said}");
}

/// A small state dict, so that damage hits its structure more often than its numbers.
fn small() -> Tensors {
    let tensor = |n: usize| Tensor { shape: vec![n, 1], values: vec![0.5; n] };
    [("a.weight".to_owned(), tensor(3)), ("b.weight".to_owned(), tensor(2))].into()
}

#[test]
fn a_file_cut_short_names_the_tensor() {
    let folder = TempDir::new().expect("a folder");
    let tensors = noise();
    for (name, bytes) in [
        ("cut.pth", pth(&tensors)),
        ("torch.pth", with_descriptors(&tensors)),
        ("old.pth", legacy_of(&tensors, &pickled(&tensors))),
        ("cut.safetensors", safetensors_file(&tensors)),
    ] {
        let path = written(&folder, name, &bytes[..bytes.len() * 3 / 4]);
        let said = format!("{:#}", read_mobilefacenet(&path).expect_err("cut short"));
        let named = tensors.keys().find(|tensor| said.contains(tensor.as_str()));
        assert!(named.is_some() && said.contains(name), "{said}");
    }
    let bytes = pth(&tensors);
    let path = written(&folder, "end.pth", &bytes[..bytes.len() - 10]);
    let said = format!("{:#}", read_mobilefacenet(&path).expect_err("cut short"));
    assert!(said.contains("damaged or cut short"), "{said}");
}

/// The pickled dictionary of lists that holds MTCNN's weights. Its arrays do not have
/// their real shapes, because the file is read before shapes are checked.
fn npy_of_nets() -> Vec<u8> {
    const ARRAY: &[u8] = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01K\x28\x85cnumpy\ndtype\nU\x02f4K\0K\x01\x87R(K\x03U\x01<NNNtb\x89U\xa0";
    let header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n";
    let mut out = b"\x93NUMPY\x01\0".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header);
    out.extend(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01)cnumpy\ndtype\nU\x02O8K\0K\x01\x87R\x89]}(");
    for net in ["pnet", "rnet", "onet"] {
        out.extend(b"U\x04");
        out.extend(net.bytes());
        out.extend(b"](");
        for number in 0..16u8 {
            out.extend(ARRAY);
            out.extend([number; 160]);
            out.extend(b"tb");
        }
        out.push(b'e');
    }
    out.extend(b"uatb.");
    out
}

#[test]
fn a_detector_cut_short_names_the_tensor() {
    let npy = npy_of_nets();
    let wheel = |method| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in
            [("mtcnn/__init__.py", &b"# nothing"[..]), ("mtcnn/data/mtcnn_weights.npy", &npy)]
        {
            zip.start_file(name, options).expect("an entry");
            zip.write_all(bytes).expect("written");
        }
        zip.finish().expect("an archive").into_inner()
    };
    // The error names the array in which the file ends.
    let array = |index: usize| npy.windows(160).position(|w| w == [index as u8; 160]);
    let fifth_of_pnet = array(5).expect("an array");
    let length = npy.len() / 3;
    for (cut, expected) in [
        (fifth_of_pnet + 50, "pnet.conv2.slope (pnet[5]) is missing"),
        (fifth_of_pnet + 50 + length, "rnet.conv2.slope (rnet[5]) is missing"),
        (fifth_of_pnet + 50 + 2 * length, "onet.conv2.slope (onet[5]) is missing"),
    ] {
        let said = mtcnn::import(&npy[..cut]).expect_err("cut short").to_string();
        assert!(said.contains(expected), "{said}");
        let stored = wheel(zip::CompressionMethod::Stored);
        let start = stored.windows(6).position(|w| w == b"\x93NUMPY").expect("the entry");
        let said = mtcnn::import(&stored[..start + cut]).expect_err("cut short").to_string();
        assert!(said.contains(expected), "{said}");
    }
    let packed = wheel(zip::CompressionMethod::Deflated);
    let said = mtcnn::import(&packed[..packed.len() * 2 / 3]).expect_err("cut short").to_string();
    assert!(said.contains("] is missing") || said.contains("cut short"), "{said}");
    // The weights are complete, but their archive is not.
    let said = mtcnn::import(&packed[..packed.len() - 10]).expect_err("cut short").to_string();
    assert!(said.contains("damaged or cut short"), "{said}");
}

/// An archive with the sizes after the data, as PyTorch writes it, without its list of
/// entries.
fn with_descriptors(tensors: &Tensors) -> Vec<u8> {
    let mut out = Vec::new();
    let mut entry = |name: &str, data: &[u8]| {
        out.extend(b"PK\x03\x04\x14\0\x08\x08\0\0\0\0\0\0");
        out.extend([0; 12]);
        out.extend((name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(name.bytes());
        out.extend(data);
        out.extend(b"PK\x07\x08\0\0\0\0");
        for _ in 0..2 {
            out.extend((data.len() as u32).to_le_bytes());
        }
    };
    entry("archive/data.pkl", &pickled(tensors));
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        let bytes: Vec<u8> = tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        entry(&format!("archive/data/{key}"), &bytes);
        if name.ends_with(".running_var") {
            entry(&format!("archive/data/{}", 100_000 + key), &7i64.to_le_bytes());
        }
    }
    out
}

#[test]
fn a_small_file_that_repeats_itself_cannot_claim_gigabytes() {
    let one = Tensor { shape: vec![1 << 20], values: vec![0.0; 1 << 20] };
    let many: Tensors = (0..200).map(|i| (format!("t{i}"), one.clone())).collect();
    // Every name refers to the first storage.
    let mut pickle = pickled(&many);
    let names: Vec<String> = (0..200).map(|i| i.to_string()).collect();
    for name in &names {
        let mut from = b"X".to_vec();
        from.extend((name.len() as u32).to_le_bytes());
        from.extend(name.bytes());
        while let Some(at) = pickle.windows(from.len()).position(|window| window == from) {
            if name == "0" {
                break;
            }
            pickle.splice(at..at + from.len(), b"X\x01\0\0\x000".iter().copied());
        }
    }
    let first: Tensors = [("t0".to_owned(), one)].into();
    let message = pytorch::read(&pth_of(&first, &pickle)).expect_err("too much").to_string();
    assert!(message.contains("which no face network has"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_files_are_errors_or_harmless(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        format in 0..4,
    ) {
        let tensors = small();
        let damage = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        };
        let bytes = match format {
            0 => damage(safetensors_file(&tensors)),
            1 => damage(pth(&tensors)),
            // A damaged pickle in an undamaged archive.
            2 => pth_of(&tensors, &damage(pickled(&tensors))),
            _ => damage(legacy_of(&tensors, &pickled(&tensors))),
        };
        let read =
            |bytes: &[u8]| if format == 0 { safetensors::read(bytes) } else { pytorch::read(bytes) };
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(tensors) = read(bytes) {
                for tensor in tensors.values() {
                    prop_assert_eq!(tensor.values.len(), tensor.shape.iter().product::<usize>());
                }
            }
        }
    }
}
