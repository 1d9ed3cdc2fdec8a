//! Training on the command line, on four people with six drawn faces each.

use facelatch_tools::chance::Chance;
use facelatch_tools::networks::mobilefacenet::MobileFaceNet;
use facelatch_tools::train::run_folder::Run;
use facelatch_tools::weights::safetensors;
use image::RgbImage;
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const PEOPLE: [&str; 4] = ["Ada", "Grace", "Hedy", "Mary"];

/// A made-up face: rings whose place and colour depend on the person, with small
/// differences between photos.
fn face(person: usize, photo: usize) -> RgbImage {
    let mut chance = Chance::at(3, &[person as u64, photo as u64]);
    let shift = chance.between(-3.0, 3.0);
    RgbImage::from_fn(112, 112, |x, y| {
        let (x, y) = (f64::from(x) - 56.0 + shift, f64::from(y) - 40.0 - 8.0 * person as f64);
        let ring = ((x * x + y * y).sqrt() * (0.2 + 0.1 * person as f64)).sin();
        let light = (128.0 + 80.0 * ring + chance.between(-10.0, 10.0)) as u8;
        image::Rgb([light, light / (person as u8 + 1), 255 - light])
    })
}

struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let site = Self { folder };
        site.csv("train.csv", &PEOPLE, 0..4);
        site.csv("validation.csv", &PEOPLE, 4..6);
        let network = MobileFaceNet::random(16, &mut Chance::new(1));
        let bytes = safetensors::write(&network.tensors, None).expect("bytes");
        std::fs::write(site.path("start.safetensors"), bytes).expect("written");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn csv(&self, name: &str, people: &[&str], photos: std::ops::Range<usize>) {
        let mut text = "path,label,person\n".to_owned();
        for (label, person) in people.iter().enumerate() {
            for photo in photos.clone() {
                let path = format!("{person}_{photo}.png");
                face(label, photo).save(self.path(&path)).expect("a picture");
                writeln!(text, "{path},{label},{person}").expect("text");
            }
        }
        std::fs::write(self.path(name), text).expect("written");
    }

    fn command(&self, name: &str, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facelatch-tools"));
        // The tests already run in parallel.
        command.env("OMP_NUM_THREADS", "1");
        command.arg(name).arg("--out").arg(self.path(out));
        for (option, file) in [("--train", "train.csv"), ("--validation", "validation.csv")] {
            command.arg(option).arg(self.path(file));
        }
        if name == "finetune" {
            command.arg("--weights").arg(self.path("start.safetensors"));
        }
        command.args(more);
        command
    }

    fn run(&self, name: &str, out: &str, more: &[&str]) -> Output {
        self.command(name, out, more).output().expect("the program")
    }

    fn fails(&self, name: &str, out: &str, more: &[&str]) -> String {
        let output = self.run(name, out, more);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        text(&output.stderr)
    }

    fn bytes(&self, out: &str, file: &str) -> Vec<u8> {
        std::fs::read(self.path(out).join(file)).expect("a file")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn fine(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn finetuning_tells_people_apart_and_leaves_a_run() {
    let site = Site::new();
    let said = fine(&site.run("finetune", "run", &["--epochs", "2", "--blend", "0.5"]));
    for part in ["16 photos of 4 people", "start ", "epoch   2", "images/s", "50 % interpolated"] {
        assert!(said.contains(part), "{said}");
    }
    let run = Run::open(&site.path("run")).expect("a run");
    assert_eq!(run.record.people, PEOPLE);
    assert_eq!(run.record.epochs.len(), 3);
    assert_eq!(run.record.command[1], "finetune");
    assert_eq!(run.record.data.train.len(), 64);
    assert_eq!(run.record.settings["momentum"], 0.9);
    // A training can start from an earlier run.
    let earlier = site.path("run");
    let weights = earlier.to_str().expect("text");
    let more = ["--weights", weights, "--epochs", "1", "--head", "cosface", "--warm-up", "0"];
    fine(&site.run("train", "onwards", &more));
    let run = Run::open(&site.path("onwards")).expect("a run");
    assert_eq!((run.record.margins, run.record.scale), ([1.0, 0.0, 0.35], 64.0));
    assert_eq!(run.record.embedding_size, 16);
}

#[test]
fn a_network_from_nothing_is_judged_on_people_it_never_saw() {
    let site = Site::new();
    site.csv("validation.csv", &["Rosa", "Emmy"], 4..6);
    let more = ["--embedding-size", "16", "--epochs", "1", "--batch", "8"];
    let said = fine(&site.run("train", "run", &more));
    assert!(said.contains("photos of other people") && said.contains("validation TAR"), "{said}");
    let error = site.fails("train", "run", &more);
    assert!(error.contains("holds a training already; continue it with --resume"), "{error}");
    let error = site.fails("train", "other", &[&more[..], &["--judge", "loss"]].concat());
    assert!(error.contains("judge by pairs"), "{error}");
}

/// Waits for the first epoch, then presses Ctrl-C.
fn interrupt(mut command: Command) -> String {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
    let out = BufReader::new(child.stdout.take().expect("its output"));
    let mut lines = out.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("epoch   1")), "no epoch came");
    let pressed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(pressed.expect("kill").success());
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(1));
    text(&output.stderr)
}

#[test]
fn what_ctrl_c_ended_goes_on_to_the_same_weights_even_where_no_checkpoint_fits() {
    let site = Site::new();
    let more = ["--epochs", "3", "--batch", "2", "--average", "0.5"];
    fine(&site.run("finetune", "whole", &more));
    let error = interrupt(site.command("finetune", "parts", &more));
    assert!(error.contains("interrupted in epoch") && error.contains("--resume"), "{error}");
    let before = site.bytes("parts", "checkpoint.safetensors");
    // Files may not grow beyond 6 MB, which is enough for the model but not for a
    // checkpoint.
    let resume = site.command("finetune", "parts", &[&more[..], &["--resume"]].concat());
    let limited = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 6144; exec \"$@\"", "bash"])
        .arg(resume.get_program())
        .args(resume.get_args())
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("bash");
    let said = fine(&limited);
    assert!(said.contains("resuming in epoch"), "{said}");
    let told = text(&limited.stderr);
    assert!(
        told.contains("checkpoint.safetensors") && told.contains("without a new checkpoint"),
        "{told}"
    );
    assert!(site.bytes("parts", "checkpoint.safetensors") == before, "the old one stays");
    assert!(!site.path("parts").join("checkpoint.safetensors.draft").exists());
    let [whole, parts] = ["whole", "parts"].map(|out| site.bytes(out, "model.safetensors"));
    assert!(whole == parts);
    let error =
        site.fails("finetune", "parts", &[&more[..], &["--resume", "--hold", "1"]].concat());
    assert!(error.contains("hold was 0.0 and is 1.0"), "{error}");
}

#[test]
fn what_cannot_be_trained_is_told_with_the_cure() {
    let site = Site::new();
    let error = site.fails("finetune", "run", &["--device", "cuda:77"]);
    assert!(error.contains("cuda:77: ") && error.contains("--device cpu"), "{error}");
    let more = ["--learning-rate", "1e30", "--epochs", "1", "--batch", "4"];
    let error = site.fails("finetune", "run", &more);
    assert!(error.contains("epoch 1, batch 2 of 4: the loss is not finite"), "{error}");
    assert!(!Path::new(&site.path("run")).join("model.safetensors").exists());
    site.csv("train.csv", &PEOPLE[..1], 0..4);
    let error = site.fails("finetune", "run", &[]);
    assert!(error.contains("the only person is Ada"), "{error}");
    site.csv("train.csv", &PEOPLE, 0..1);
    let output = site.run("finetune", "run", &["--epochs", "1"]);
    fine(&output);
    assert!(text(&output.stderr).contains("only one photo"), "{}", text(&output.stderr));
}
