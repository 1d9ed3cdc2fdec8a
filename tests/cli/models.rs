//! Model sets and kernels, and `bench`, which measures them.

use super::{ASTRONAUT, MODELS, facelatch, fails, json_lines, stderr, succeeds};
use facelatch::models::sha256_hex;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder of models in which one file is replaced and its digest in the manifest updated.
fn models_with(folder: &TempDir, file: &str, bytes: &[u8]) -> PathBuf {
    let to = folder.path().join("models");
    std::fs::create_dir_all(&to).expect("a folder");
    for entry in std::fs::read_dir(MODELS).expect("models") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            continue;
        }
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
    let old = sha256_hex(&std::fs::read(to.join(file)).expect("a model"));
    std::fs::write(to.join(file), bytes).expect("written");
    let manifest = std::fs::read_to_string(to.join("manifest.toml")).expect("a manifest");
    std::fs::write(to.join("manifest.toml"), manifest.replace(&old, &sha256_hex(bytes)))
        .expect("written");
    to
}

#[test]
fn models_that_do_not_fit_are_named() {
    let folder = TempDir::new().expect("a folder");
    let rnet = std::fs::read(Path::new(MODELS).join("rnet.onnx")).expect("a model");
    for (file, bytes, expected) in [
        ("pnet.onnx", b"not ONNX at all".to_vec(), "pnet.onnx"),
        ("onet.onnx", rnet[..rnet.len() / 2].to_vec(), "onet.onnx"),
        ("pnet.onnx", rnet.clone(), "24x24"),
        ("mobilefacenet.onnx", rnet.clone(), "mobilefacenet.onnx"),
    ] {
        let models = models_with(&folder, file, &bytes);
        let models = models.to_str().expect("a plain path");
        let message = fails(&["embed", "--models", models, ASTRONAUT]);
        assert!(message.contains(expected) && message.contains(file), "{message}");
    }
    let models = models_with(&folder, "rnet.onnx", &rnet);
    let mut file =
        std::fs::OpenOptions::new().append(true).open(models.join("rnet.onnx")).expect("a model");
    file.write_all(b"x").expect("written");
    let message = fails(&["detect", "--models", models.to_str().expect("plain"), ASTRONAUT]);
    assert!(message.contains("rnet.onnx: sha256 is"), "{message}");
}

#[test]
fn models_and_kernels_that_are_not_those_asked_for_are_named() {
    let float = concat!(env!("CARGO_MANIFEST_DIR"), "/models/float");
    let message = fails(&["detect", "--models", float, ASTRONAUT]);
    assert!(message.contains("pnet.onnx: layers from conv1 on are in floating"), "{message}");
    assert!(message.contains("--precision float"), "{message}");
    let message = fails(&["detect", "--precision", "float", ASTRONAUT]);
    assert!(message.contains("pnet.onnx: node ") && message.contains("--models"), "{message}");
    let line = ["--json", "--models", float, "--precision", "float", ASTRONAUT];
    let found = json_lines(&succeeds(&[&["detect"][..], &line].concat()));
    assert_eq!(found[0]["faces"].as_array().map(Vec::len), Some(1));

    let forced = |name: &str| {
        facelatch(&["detect", ASTRONAUT]).env("FACELATCH_KERNEL", name).output().expect("a run")
    };
    assert!(forced("scalar").status.success());
    let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    for (name, expected) in [("warp", "there is no kernel warp"), (foreign, "cannot run")] {
        let output = forced(name);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn bench_reports_every_stage() {
    let said = succeeds(&["bench", "--json", "--rounds", "2"]);
    let report = &json_lines(&said)[0];
    for stage in ["detect", "pnet", "rnet", "onet", "align", "embed", "match", "total"] {
        let figures = &report["stages"][stage];
        let [min, median, p95] =
            ["min_ms", "median_ms", "p95_ms"].map(|key| figures[key].as_f64().expect("a number"));
        assert!(min > 0.0 && min <= median && median <= p95, "{stage}: {figures}");
    }
}
