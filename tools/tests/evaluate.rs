//! `evaluate` on the command line, on made-up faces.

use facelatch::models::{Alignment, Models};
use facelatch::nn::Normalization;
use facelatch_tools::networks::face::Architecture;
use facelatch_tools::networks::mobilefacenet::{MobileFaceNet, expected};
use facelatch_tools::train::run_folder::{
    DataDigests, Epoch, FORMAT, Head, HeadKind, Run, RunRecord, Versions,
};
use facelatch_tools::weights::{Tensor, Tensors};
use image::RgbImage;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const PEOPLE: [&str; 6] = ["Ada", "Grace", "Hedy", "Joan", "Mary", "Rosalind"];

fn evaluate(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facelatch-tools"))
        .arg("evaluate")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("a run")
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn report(folder: &Path) -> Value {
    let text = std::fs::read(folder.join("report/report.json")).expect("a report");
    serde_json::from_slice(&text).expect("JSON")
}

/// A pattern that depends on the person, and a little on the photo.
fn crop(person: u32, photo: u32, side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| {
        let wave = |a: u32, b: u32| {
            let phase = f64::from(x * (a + 1) + y * (b + 2)) / 17.0 + f64::from(a * b);
            (127.0 + 90.0 * phase.sin()) as u8
        };
        let noise = ((x * 31 + y * 17 + photo * 101) % 23) as u8;
        image::Rgb([
            wave(person, 1) ^ noise,
            wave(2, person),
            wave(person, person).wrapping_add(noise),
        ])
    })
}

/// `people.csv` with three photos of each person, aligned as the built-in models expect.
fn data(people: &[&str], groups: bool) -> TempDir {
    aligned(people, groups, &Models::built_in().expect("models").alignment())
}

/// `people.csv` with three photos of each person, aligned in a given way.
fn aligned(people: &[&str], groups: bool, alignment: &Alignment) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    facelatch_tools::data::aligned::write(folder.path(), alignment).expect("written");
    let mut csv = format!("path,label,person{}\n", if groups { ",group" } else { "" });
    for (label, person) in (0u32..).zip(people) {
        for photo in 0..3 {
            let path = format!("{person}_{photo}.png");
            crop(label + 1, photo, alignment.side as u32)
                .save(folder.path().join(&path))
                .expect("a picture");
            csv += &format!("{path},{label},{person}");
            csv += if groups { [",old\n", ",new\n"][label as usize % 2] } else { "\n" };
        }
    }
    std::fs::write(folder.path().join("people.csv"), csv).expect("written");
    folder
}

/// A run with random weights and a head for these people.
fn run(folder: &Path, people: &[&str]) {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let tensors: Tensors = expected(16, false)
        .into_iter()
        .map(|(name, shape)| {
            let inputs = shape.iter().skip(1).product::<usize>().max(1);
            let values = (0..shape.iter().product()).map(|_| match name.rsplit('.').next() {
                Some("running_var") => 1.0 + next(),
                Some("weight") if shape.len() == 1 => 0.7 + 0.1 * next(),
                Some("weight") => next() * 3.4 / (inputs as f32).sqrt(),
                _ => 0.1 * next(),
            });
            let values = values.collect();
            (name, Tensor { shape, values })
        })
        .collect();
    let weight: Vec<f32> = (0..people.len() * 16).map(|_| next()).collect();
    let run = Run {
        folder: folder.join("run"),
        record: RunRecord {
            format: FORMAT,
            command: vec![],
            network: Architecture::MobileFaceNet,
            start: String::new(),
            head: HeadKind::Arcface,
            scale: 16.0,
            margins: [1.0, 0.5, 0.0],
            embedding_size: 16,
            epsilon: 1e-5,
            normalization: Normalization::ARCFACE,
            people: people.iter().map(|name| (*name).to_owned()).collect(),
            seed: 1,
            data: DataDigests::default(),
            versions: Versions::default(),
            settings: Value::Null,
            epochs: vec![Epoch::default()],
            best_epoch: 0,
            better_than_start: false,
            blends: vec![],
            blend: 1.0,
        },
        network: MobileFaceNet { tensors, epsilon: 1e-5, embedding_size: 16 }.into(),
        head: Head {
            kind: HeadKind::Arcface,
            weight: tch::Tensor::from_slice(&weight).view([people.len() as i64, 16]),
            bias: None,
            scale: 16.0,
        },
    };
    run.write().expect("written");
}

#[test]
fn models_are_judged_on_people_in_a_data_set() {
    let folder = data(&PEOPLE, true);
    let output = evaluate(folder.path(), &["--data", "people.csv"]);
    done(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("6 people, 18 photos"), "{text}");
    assert!(text.contains("group       new"), "{text}");
    assert!(text.contains("worst group none"), "{text}");
    let report = report(folder.path());
    assert_eq!(report["open"]["verification"]["genuine"], 18);
    assert_eq!(report["open"]["verification"]["impostor"], 15 * 9);
    assert_eq!(report["open"]["groups"][0]["group"], "new");
    let rates = report["open"]["groups"][0]["rates"].as_array().expect("rates");
    assert!(rates.len() >= 5 && rates.iter().all(|rate| rate["enough"] == false), "{rates:?}");
    assert_eq!(report["open"]["worst_group"], Value::Null);
    assert_eq!(report["open"]["identification"]["enrolled"], 3);
    let page = std::fs::read_to_string(folder.path().join("report/report.html")).expect("a page");
    assert!(page.contains("<img src=\"data:image/png;base64,"));
    for plot in ["roc", "det", "similarities", "identification", "likelihood"] {
        assert!(folder.path().join(format!("report/{plot}.svg")).exists(), "{plot}");
    }
    // The device embeds on all cores, and still gives the same figures.
    let again = evaluate(folder.path(), &["--data", "people.csv", "--out", "again", "--json"]);
    done(&again);
    let again: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!(again, report);
}

#[test]
fn names_and_pictures_can_be_left_out() {
    let folder = data(&PEOPLE, false);
    done(&evaluate(folder.path(), &["--data", "people.csv", "--no-photos", "--no-names"]));
    for file in ["report.html", "report.json"] {
        let text = std::fs::read_to_string(folder.path().join("report").join(file));
        let text = text.expect("a report");
        assert!(!text.contains("<img") && text.contains("person 1"), "{file}");
        for name in PEOPLE {
            assert!(!text.contains(name), "{file}: {name}");
        }
    }
}

#[test]
fn a_run_is_asked_whom_it_sees_or_who_is_alike() {
    let folder = aligned(&PEOPLE, false, &Alignment::ARCFACE);
    run(folder.path(), &PEOPLE);
    done(&evaluate(folder.path(), &["--run", "run", "--data", "people.csv"]));
    let closed = &report(folder.path())["closed"];
    assert_eq!((&closed["photos"], &closed["classes"]), (&18.into(), &6.into()));
    assert!(closed["loss"].as_f64().expect("a loss").is_finite());
    let of = |figure: &str| closed[figure].as_f64().expect("a share");
    assert!(of("top1") <= of("top5") && of("top5") > 0.5);
    assert!(folder.path().join("report/confusion.svg").exists());

    // People whom the run does not know are compared in pairs, not classified.
    run(folder.path(), &["Alan", "Kurt"]);
    done(&evaluate(folder.path(), &["--run", "run", "--data", "people.csv", "--out", "report"]));
    let report = report(folder.path());
    assert!(report["closed"].is_null() && report["open"].is_object());

    run(folder.path(), &["Ada", "Kurt"]);
    let error = failed(&evaluate(folder.path(), &["--run", "run", "--data", "people.csv"]));
    assert!(error.contains("Grace is not in the training data"), "{error}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = data(&PEOPLE[..1], false);
    let error = failed(&evaluate(folder.path(), &["--data", "people.csv"]));
    assert!(error.contains("3 genuine and 0 impostor pairs"), "{error}");
    assert!(!folder.path().join("report").exists());
    let error = failed(&evaluate(folder.path(), &["--run", ".", "--data", "people.csv"]));
    assert!(error.contains("no run.json"), "{error}");
    let error = failed(&evaluate(
        folder.path(),
        &["--run", ".", "--data", "people.csv", "--device", "cuda:99"],
    ));
    assert!(error.contains("cuda:99"), "{error}");
    let wrong = evaluate(folder.path(), &["--data", "people.csv", "--outside", "2"]);
    assert_eq!(wrong.status.code(), Some(2));
    let wrong = evaluate(folder.path(), &["--data", "people.csv", "--write-calibration"]);
    assert_eq!(wrong.status.code(), Some(2), "the models built in cannot be written");
}

#[test]
fn too_few_pairs_for_thresholds_leave_the_manifest_alone() {
    let folder = data(&PEOPLE, false);
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let copy = folder.path().join("models");
    std::fs::create_dir(&copy).expect("a folder");
    for entry in std::fs::read_dir(models).expect("models") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            std::fs::copy(&path, copy.join(path.file_name().expect("a name"))).expect("a copy");
        }
    }
    let before = std::fs::read(copy.join("manifest.toml")).expect("a manifest");
    let error = failed(&evaluate(
        folder.path(),
        &["--models", "models", "--data", "people.csv", "--write-calibration"],
    ));
    assert!(error.contains("too few for thresholds"), "{error}");
    let error = failed(&evaluate(
        folder.path(),
        &["--models", "models", "--data", "people.csv", "--write-worst-group"],
    ));
    assert!(error.contains("no group has enough pairs"), "{error}");
    assert_eq!(std::fs::read(copy.join("manifest.toml")).expect("a manifest"), before);
}
