//! Sets of models that tests install.

use facelatch::crypto::{Secret, Signer};
use facelatch::models::signature::{SIGNATURE, SetSignature, time_text};
use facelatch::models::{Models, sha256_hex};
use facelatch::storage::models::self_test::{SELF_TEST, SelfTest};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
const PORTRAIT: &[u8] = include_bytes!("../../assets/grace_hopper.jpg");

/// The project's models as a set of this version, with a self-test, in a folder of that name.
pub fn set(within: &Path, version: &str) -> PathBuf {
    let to = within.join(format!("set-{version}"));
    std::fs::create_dir_all(&to).expect("a folder");
    for file in ["pnet.onnx", "rnet.onnx", "onet.onnx", "mobilefacenet.onnx", "covered.json"] {
        std::fs::copy(Path::new(MODELS).join(file), to.join(file)).expect("copied");
    }
    let models = Models::open(Path::new(MODELS)).expect("models");
    let test = SelfTest::measure(&models, &[("portrait.jpg", PORTRAIT)]).expect("a test");
    let test = test.to_json().expect("JSON");
    let text = std::fs::read_to_string(Path::new(MODELS).join("manifest.toml"));
    let mut manifest: toml::Table = text.expect("a manifest").parse().expect("TOML");
    let entry = [("file", SELF_TEST.to_owned()), ("sha256", sha256_hex(&test))];
    let entry: toml::Table =
        entry.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    manifest.insert("version".into(), version.into());
    manifest.insert("selftest".into(), entry.into());
    std::fs::write(to.join(SELF_TEST), &test).expect("written");
    std::fs::write(to.join("portrait.jpg"), PORTRAIT).expect("written");
    let manifest = toml::to_string(&manifest).expect("TOML");
    std::fs::write(to.join("manifest.toml"), manifest).expect("written");
    to
}

/// Signs a set. Returns the configuration that trusts the key.
pub fn sign(set: &Path, key: u8, unix: i64) -> String {
    let signer = Signer::new(&Secret::new([key; 32]));
    let path = set.join("manifest.toml");
    let text = std::fs::read_to_string(&path).expect("a manifest");
    let at = time_text(unix).expect("a time");
    let text = format!("signed_at = \"{at}\"\n{text}");
    std::fs::write(&path, &text).expect("written");
    let signature = SetSignature::sign(&signer, text.as_bytes()).to_string();
    std::fs::write(set.join(SIGNATURE), signature).expect("written");
    format!("[models]\ntrusted_keys = [\"{} office\"]\n", signer.public())
}

pub fn tar(folder: &Path) -> Vec<u8> {
    let tar = Command::new("tar").args(["-cf", "-", "-C"]).arg(folder).arg(".").output();
    tar.expect("tar runs").stdout
}
