//! `prepare` and `split` on the command line, on the portraits of the demo.

use facelatch::models::Models;
use facelatch::vision::picture;
use facelatch_tools::data::dataset::Dataset;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets");

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facelatch-tools"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .expect("the program runs")
}

#[track_caller]
fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let (out, error) = texts(&output);
    assert!(output.status.success(), "{arguments:?}: {out}{error}");
    out
}

#[track_caller]
fn fails(folder: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let output = run(folder, arguments);
    let (out, error) = texts(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{error}");
    assert!(!error.contains("panicked"), "{error}");
    (out, error)
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

fn portrait(folder: &TempDir, asset: &str, photo: &str) {
    let photo = folder.path().join(photo);
    std::fs::create_dir_all(photo.parent().expect("a folder")).expect("a folder");
    std::fs::copy(Path::new(ASSETS).join(asset), photo).expect("copied");
}

/// Two people, one of them with a subfolder.
fn photos() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    portrait(&folder, "astronaut.jpg", "photos/Eileen Collins/a.jpg");
    portrait(&folder, "grace_hopper.jpg", "photos/Grace Hopper/navy/g.jpg");
    folder
}

const PREPARE: [&str; 4] = ["prepare", "photos", "--out", "data"];

#[test]
fn photos_become_a_data_set_with_keypoints_and_a_sheet() {
    let folder = photos();
    let out = succeeds(folder.path(), &PREPARE);
    assert!(out.contains("2 photos, 2 processed now"), "{out}");
    let data = folder.path().join("data");
    let labels = std::fs::read_to_string(data.join("labels.csv")).expect("labels");
    assert_eq!(
        labels,
        "path,label,person\ncrops/Eileen Collins/a.png,0,Eileen Collins\n\
         crops/Grace Hopper/navy/g.png,1,Grace Hopper\n"
    );
    let set = Dataset::read(&data.join("labels.csv")).expect("a data set");
    let alignment = Models::built_in().expect("models").alignment();
    assert_eq!(set.crops(&alignment).expect("crops").len(), 2);
    let record = json(data.join("keypoints/Eileen Collins/a.json"));
    assert_eq!((&record["width"], &record["height"]), (&320.into(), &400.into()));
    let face = &record["faces"][0];
    assert!(face["score"].as_f64().is_some_and(|score| score > 0.9));
    let at = |point: &str, axis: usize| face["keypoints"][point][axis].as_f64().expect("pixels");
    assert!(at("left_eye", 0) < at("nose", 0) && at("nose", 0) < at("right_eye", 0));
    assert!(at("nose", 1) < at("mouth_left", 1) && at("mouth_left", 0) < at("mouth_right", 0));
    let sides = face["box"].as_array().expect("a box");
    assert!(sides.len() == 4 && sides[0].as_f64() < Some(at("left_eye", 0)));
    let sheet = picture::read(data.join("contact.png")).expect("a sheet");
    assert!(sheet.width() < 1000 && sheet.height() < 200);
    assert_eq!(json(data.join("report.json"))["faces"], 2);
}

#[test]
fn a_second_run_does_only_what_is_missing_or_changed() {
    let folder = photos();
    succeeds(folder.path(), &PREPARE);
    let data = folder.path().join("data");
    let labels = std::fs::read(data.join("labels.csv")).expect("labels");
    let again = |made: usize, photos: usize| {
        let out = succeeds(folder.path(), &PREPARE);
        assert!(out.contains(&format!("{photos} photos, {made} processed now")), "{out}");
    };
    again(0, 2);
    // A new copy with another time stamp.
    portrait(&folder, "astronaut.jpg", "photos/Eileen Collins/a.jpg");
    again(0, 2);
    std::fs::write(data.join("crops/Eileen Collins/a.png"), "half").expect("damaged");
    again(1, 2);
    std::fs::remove_file(data.join("keypoints/Grace Hopper/navy/g.json")).expect("removed");
    again(1, 2);
    assert_eq!(std::fs::read(data.join("labels.csv")).expect("labels"), labels);
    portrait(&folder, "grace_hopper.jpg", "photos/Eileen Collins/a.jpg");
    again(1, 2);
    portrait(&folder, "astronaut.jpg", "photos/Eileen Collins/b.jpg");
    again(1, 3);
    let smaller = [&PREPARE[..], &["--minimum-face", "60"]].concat();
    assert!(succeeds(folder.path(), &smaller).contains("3 processed now"));
    std::fs::remove_dir_all(folder.path().join("photos/Grace Hopper")).expect("removed");
    let out = succeeds(folder.path(), &smaller);
    assert!(out.contains("left over   1 keypoints file of other photos"), "{out}");
    let labels = std::fs::read_to_string(data.join("labels.csv")).expect("labels");
    assert!(!labels.contains("Hopper"), "{labels}");
}

#[test]
fn people_whose_names_look_alike_are_reported() {
    let folder = photos();
    for name in ["Jos\u{e9}", "Jose\u{301}", "eileen collins"] {
        portrait(&folder, "astronaut.jpg", &format!("photos/{name}/a.jpg"));
    }
    let out = succeeds(folder.path(), &PREPARE);
    assert!(out.contains("look alike  "), "{out}");
    assert!(out.contains("(U+0045 and U+0065)") && out.contains("Jose\\u{301}"), "{out}");
    let report = json(folder.path().join("data/report.json"));
    assert_eq!(report["look_alikes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_bad_photo_costs_only_itself_and_exit_code_1() {
    let folder = photos();
    let whole = std::fs::read(Path::new(ASSETS).join("astronaut.jpg")).expect("a portrait");
    let ann = folder.path().join("photos/Eileen Collins");
    std::fs::write(ann.join("cut.jpg"), &whole[..whole.len() / 2]).expect("written");
    std::fs::write(ann.join("notes.jpg"), "no picture").expect("written");
    std::fs::write(ann.join("empty.png"), "").expect("written");
    std::fs::write(ann.join("raw.heic"), "x").expect("written");
    std::fs::write(folder.path().join("photos/lone.jpg"), &whole).expect("written");
    let grey = picture::encode_png(&facelatch::vision::frame::Frame::filled(90, 90, [99; 3]));
    std::fs::write(ann.join("wall.png"), grey.expect("PNG")).expect("written");
    let (out, error) = fails(folder.path(), &PREPARE, 1);
    assert!(error.contains("4 photos could not be read; all others are done"), "{error}");
    for told in
        ["cut.jpg: truncated", "notes.jpg: text, neither JPEG nor PNG", "empty.png: an empty"]
    {
        assert!(out.contains(told), "{told}: {out}");
    }
    assert!(out.contains("lone.jpg: not in a person's folder"), "{out}");
    assert!(out.contains("no face     Eileen Collins/wall.png"), "{out}");
    assert!(out.contains("ignored     1 .heic"), "{out}");
    let report = json(folder.path().join("data/report.json"));
    assert_eq!(report["unreadable"].as_array().map(Vec::len), Some(4));
    let set = Dataset::read(&folder.path().join("data/labels.csv")).expect("a data set");
    assert_eq!(set.rows.len(), 2);
}

#[test]
fn a_photo_under_two_names_is_told_before_all_others() {
    let folder = photos();
    portrait(&folder, "astronaut.jpg", "photos/Eileen Collins/b.jpg");
    portrait(&folder, "astronaut.jpg", "photos/Grace Hopper/a.jpg");
    let out = succeeds(folder.path(), &PREPARE);
    let wrong = "wrong label Grace Hopper/a.jpg looks like Eileen Collins/";
    let (wrong, same) = (
        out.find(wrong).expect("a wrong label"),
        out.find("duplicate   Eileen Collins/b.jpg looks like Eileen Collins/a.jpg"),
    );
    assert!(same.is_some_and(|same| same > wrong), "{out}");
    let report = json(folder.path().join("data/report.json"));
    assert_eq!(report["duplicates"][0]["different_people"], true);
}

/// Both portraits side by side, the second one smaller.
fn couple(folder: &TempDir, photo: &str) {
    let read = |name: &str| image::open(Path::new(ASSETS).join(name)).expect("a portrait");
    let mut both = image::RgbImage::new(640, 400);
    image::imageops::overlay(&mut both, &read("astronaut.jpg").into_rgb8(), 0, 0);
    let small = read("grace_hopper.jpg").thumbnail(200, 250).into_rgb8();
    image::imageops::overlay(&mut both, &small, 400, 100);
    both.save(folder.path().join(photo)).expect("saved");
}

#[test]
fn of_several_faces_the_largest_is_kept_or_every_one() {
    let folder = photos();
    couple(&folder, "photos/Eileen Collins/both.png");
    let out = succeeds(folder.path(), &PREPARE);
    assert!(out.contains("Eileen Collins/both.png: 2 faces, only the largest kept"), "{out}");
    let data = folder.path().join("data");
    let record = json(data.join("keypoints/Eileen Collins/both.json"));
    let width = |face: usize| {
        let side = |at: usize| record["faces"][face]["box"][at].as_f64().expect("pixels");
        side(2) - side(0)
    };
    assert!(width(0) > width(1));
    let second = data.join("crops/Eileen Collins/both-2.png");
    assert!(!second.exists());
    let every = [&PREPARE[..], &["--every-face"]].concat();
    succeeds(folder.path(), &every);
    assert!(second.exists());
    let labels = std::fs::read_to_string(data.join("labels.csv")).expect("labels");
    assert!(labels.contains("crops/Eileen Collins/both-2.png,0,Eileen Collins"), "{labels}");
    succeeds(folder.path(), &PREPARE);
    assert!(!second.exists(), "what is no longer asked for is gone");
}

#[test]
fn labels_of_others_are_kept_and_their_faults_named_by_line() {
    let folder = photos();
    let csv = folder.path().join("theirs.csv");
    let text = "path,label,person,group\n\
                photos/Eileen Collins/a.jpg,7,../E,space\n\
                photos/Eileen Collins/gone.jpg,7,../E,space\n\
                photos/Grace Hopper/navy/g.jpg,three,Grace,sea\n\
                photos/Grace Hopper/navy/g.jpg,3,Grace,sea\n";
    std::fs::write(&csv, text).expect("written");
    let (out, _) = fails(folder.path(), &["prepare", "--labels", "theirs.csv", "--out", "data"], 1);
    assert!(
        out.contains("theirs.csv line 3: photos/Eileen Collins/gone.jpg: No such file"),
        "{out}"
    );
    assert!(out.contains("theirs.csv line 4: label \"three\" is not a whole number"), "{out}");
    let labels = std::fs::read_to_string(folder.path().join("data/labels.csv")).expect("labels");
    assert_eq!(
        labels,
        "path,label,person,group\ncrops/_.._E/a.png,7,../E,space\ncrops/Grace/g.png,3,Grace,sea\n"
    );
}

#[test]
fn folders_that_make_no_sense_are_refused_with_the_cure() {
    let folder = photos();
    let refused = |arguments: &[&str], code: i32, told: &str| {
        let (_, error) = fails(folder.path(), arguments, code);
        assert!(error.contains(told), "{error}");
    };
    refused(&["prepare", "photos", "--out", "photos/data"], 1, "choose an --out outside");
    refused(&["prepare", "gone", "--out", "data"], 1, "gone: not a folder");
    std::fs::create_dir(folder.path().join("none")).expect("a folder");
    refused(&["prepare", "none", "--out", "data"], 1, "none: no photo found");
    refused(&["prepare", "--out", "data"], 2, "<PHOTOS>");
    refused(&["prepare", "photos", "--out", "data", "--minimum-face", "3"], 2, "12 to 10000");
    std::fs::create_dir_all(folder.path().join("walls/Wall")).expect("a folder");
    let grey = picture::encode_png(&facelatch::vision::frame::Frame::filled(90, 90, [99; 3]));
    std::fs::write(folder.path().join("walls/Wall/w.png"), grey.expect("PNG")).expect("written");
    refused(&["prepare", "walls", "--out", "data"], 1, "no face found in any photo");
    assert!(!folder.path().join("data/labels.csv").exists());
}

#[cfg(unix)]
#[test]
fn a_run_that_is_stopped_goes_on_where_it_was() {
    const COPIES: usize = 100;
    let folder = photos();
    for copy in 0..COPIES {
        portrait(&folder, "astronaut.jpg", &format!("photos/Eileen Collins/{copy}.jpg"));
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_facelatch-tools"))
        .args(PREPARE)
        .args(["--threads", "1"])
        .current_dir(folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    let data = folder.path().join("data");
    let keypoints =
        || std::fs::read_dir(data.join("keypoints/Eileen Collins")).map_or(0, Iterator::count);
    while keypoints() < 3 && child.try_wait().expect("a child").is_none() {
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
    let output = child.wait_with_output().expect("the program ends");
    let (_, error) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("run the same command again to continue"), "{error}");
    assert!(!data.join("labels.csv").exists());
    let before = keypoints();
    let out = succeeds(folder.path(), &PREPARE);
    let rest: usize = out
        .lines()
        .find_map(|line| line.split("photos, ").nth(1)?.split(' ').next()?.parse().ok())
        .expect("a number");
    assert!(rest > 0 && rest + before == COPIES + 2, "{rest} after {before}: {out}");
    assert_eq!(Dataset::read(&data.join("labels.csv")).expect("a data set").rows.len(), COPIES + 2);
}

/// A data set with this many photos of each person, made without photos.
fn data_set(photos: &[usize]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut labels = "path,label,person\n".to_owned();
    for (label, count) in photos.iter().enumerate() {
        for at in 0..*count {
            let name = format!("p{label}_{at}.png");
            let grey = facelatch::vision::frame::Frame::filled(112, 112, [label as u8; 3]);
            let png = picture::encode_png(&grey).expect("PNG");
            std::fs::write(folder.path().join(&name), png).expect("written");
            labels += &format!("{name},{label},p{label}\n");
        }
    }
    std::fs::write(folder.path().join("labels.csv"), labels).expect("written");
    folder
}

fn read(folder: &TempDir, csv: &str) -> Dataset {
    Dataset::read(&folder.path().join(csv)).expect(csv)
}

#[test]
fn a_split_by_photo_has_everybody_in_every_part_and_repeats_itself() {
    let folder = data_set(&[20; 4]);
    let out = succeeds(folder.path(), &["split", "labels.csv", "--out", "parts"]);
    assert!(out.contains("test        8 photos of 4 people  parts/test.csv"), "{out}");
    let set = |name: &str| read(&folder, &format!("parts/{name}.csv"));
    let (train, validation, test) = (set("train"), set("validation"), set("test"));
    assert_eq!(train.rows.len() + validation.rows.len() + test.rows.len(), 80);
    assert_eq!(train.people, test.people);
    let digest = test.digest;
    succeeds(folder.path(), &["split", "labels.csv", "--out", "parts"]);
    assert_eq!(set("test").digest, digest);
    let other = ["split", "labels.csv", "--out", "parts", "--seed", "2", "--json"];
    let told: Value = serde_json::from_str(&succeeds(folder.path(), &other)).expect("JSON");
    assert_ne!(set("test").rows, test.rows);
    assert_eq!((&told["seed"], &told["parts"][2]["photos"]), (&2.into(), &8.into()));
}

#[test]
fn a_split_by_person_or_file_has_nobody_in_two_parts() {
    let folder = data_set(&[2, 3, 4, 5, 6]);
    let by_person = ["split", "labels.csv", "--out", "parts", "--by", "person", "--ratio", "3:1:1"];
    let out = succeeds(folder.path(), &by_person);
    assert!(out.contains("of 3 people  parts/train.csv"), "{out}");
    assert_eq!(read(&folder, "parts/train.csv").people.len(), 3);
    std::fs::write(folder.path().join("names.txt"), "p1\np3\nnobody\n").expect("written");
    std::fs::write(folder.path().join("pairs.txt"), "1\t1\np4\t1\t2\np4\t1\tp0\t1\n")
        .expect("written");
    let by_file = ["split", "labels.csv", "--out", "named", "--part", "known=names.txt"];
    let out = succeeds(folder.path(), &[&by_file[..], &["--part", "strange=pairs.txt"]].concat());
    assert!(out.contains("in no part  4 photos of 1 person"), "{out}");
    assert_eq!(read(&folder, "named/known.csv").people, ["p1", "p3"]);
    assert_eq!(read(&folder, "named/strange.csv").people, ["p0", "p4"]);
    std::fs::write(folder.path().join("more.txt"), "p3\n").expect("written");
    let twice = [&by_file[..], &["--part", "other=more.txt"]].concat();
    let (_, error) = fails(folder.path(), &twice, 1);
    assert!(error.contains("p3 is in both known and other"), "{error}");
}

#[test]
fn a_split_that_cannot_be_is_refused_with_the_cure() {
    let folder = data_set(&[1, 1]);
    let refused = |arguments: &[&str], code: i32, told: &str| {
        let (_, error) = fails(folder.path(), arguments, code);
        assert!(error.contains(told), "{error}");
    };
    refused(&["split", "labels.csv", "--out", "parts"], 1, "too few; add photos");
    assert!(!folder.path().join("parts/train.csv").exists());
    let by_person = ["split", "labels.csv", "--out", "parts", "--by", "person"];
    refused(&by_person, 1, "2 people cannot be divided among 3 parts");
    refused(&["split", "labels.csv", "--out", "p", "--ratio", "1:2"], 2, "TRAIN:VALIDATION:TEST");
    refused(&["split", "labels.csv", "--out", "p", "--part", "x"], 2, "NAME=FILE");
    std::fs::write(folder.path().join("names.txt"), "p0\n").expect("written");
    let itself = ["split", "labels.csv", "--out", ".", "--part", "labels=names.txt"];
    refused(&itself, 1, "choose another --out");
    std::fs::remove_file(folder.path().join("p1_0.png")).expect("removed");
    refused(&["split", "labels.csv", "--out", "parts"], 1, "labels.csv line 3: ");
}
