//! Checkpoints: everything that an interrupted training needs to continue bit-exactly.
//! These are the weights, the momentum, the running averages, the best epoch so far, and
//! the position. Random numbers need no state of their own, because they follow from
//! seed, epoch and step.
//!
//! A checkpoint is one file and is replaced as a whole, so that a complete one always
//! exists.

use crate::files;
use crate::train::run_folder::{Epoch, Head};
use crate::weights::{Tensors, safetensors};
use anyhow::{Context, Result, bail, ensure};
use facelatch::files::{self as input, LARGEST};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// File name in the run folder. Tensors are named `GROUP/NAME`; the metadata holds the
/// rest as text.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Metadata key of the text. The text is TOML, which keeps every bit of a number.
const TEXT: &str = "checkpoint";
/// Version of the file format.
const FORMAT: u32 = 1;

/// Everything that must stay the same for a training to continue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The recipe as JSON.
    pub recipe: String,
    /// SHA-256 of the training data, hexadecimal.
    pub train: String,
    /// SHA-256 of the validation data, hexadecimal.
    pub validation: String,
    /// SHA-256 of the starting weights, hexadecimal.
    pub weights: String,
}

/// How far a training has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch in progress, from 1.
    pub epoch: usize,
    /// Steps of that epoch that are done.
    pub step: usize,
    /// Sums over these steps.
    pub sums: Sums,
    /// Factor on the loss in mixed precision.
    pub loss_scale: f64,
    /// Steps since the loss scale last changed.
    pub steady: usize,
    /// The best epoch so far; 0 if there is none yet.
    pub best_epoch: usize,
    /// Finished epochs, the start first.
    pub epochs: Vec<Epoch>,
}

/// Sums over the steps of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Photos shown.
    pub seen: usize,
    /// Photos classified correctly, without the margin.
    pub right: usize,
    /// Loss times photos.
    pub loss: f64,
    /// Cosine to the teacher times photos.
    pub hold: f64,
    /// Duration of the steps, seconds.
    pub seconds: f64,
    /// Part of this time spent waiting for batches, seconds.
    pub waited: f64,
}

/// A training that can be continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What the training was started with.
    pub origin: Origin,
    /// How far it had come.
    pub position: Position,
    /// Tensors by `GROUP/NAME`.
    pub tensors: Tensors,
}

#[derive(Serialize, Deserialize)]
struct Text {
    format: u32,
    origin: Origin,
    position: Position,
}

impl Checkpoint {
    /// Adds tensors under a group.
    pub fn put(&mut self, group: &str, tensors: Tensors) {
        for (name, tensor) in tensors {
            self.tensors.insert(format!("{group}/{name}"), tensor);
        }
    }

    /// The tensors of a group, by name without the group.
    pub fn group(&self, group: &str) -> Tensors {
        let of_group = |(name, tensor): (&String, &_)| {
            let name = name.strip_prefix(group)?.strip_prefix('/')?;
            Some((name.to_owned(), crate::weights::Tensor::clone(tensor)))
        };
        self.tensors.iter().filter_map(of_group).collect()
    }

    /// Reads a head from a group. `head` gives the expected kind, shapes and device.
    /// Fails if a tensor is missing, extra or of another shape.
    pub fn take_head(&self, group: &str, head: &Head) -> Result<Head> {
        let tensors = self.group(group);
        let expected = head.tensors()?;
        let shapes: Vec<_> =
            expected.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
        crate::weights::check("this training's head", &tensors, &shapes)?;
        let get = |name: &str| tensors.get(name).map(crate::train::tensors::torch);
        let weight = get("head.weight").context("head.weight is missing")?;
        let copy = Head { kind: head.kind, weight, bias: get("head.bias"), scale: head.scale };
        Ok(copy.copy_to(head.weight.device()))
    }

    /// Whether the folder holds a checkpoint.
    pub fn exists(folder: &Path) -> bool {
        folder.join(CHECKPOINT).exists()
    }

    /// Writes the checkpoint into a folder. If that fails, the previous one stays.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text =
            Text { format: FORMAT, origin: self.origin.clone(), position: self.position.clone() };
        let texts = HashMap::from([(TEXT.to_owned(), toml::to_string(&text)?)]);
        files::replace(&folder.join(CHECKPOINT), &safetensors::write(&self.tensors, Some(texts))?)
    }

    /// Reads the checkpoint of a folder. Fails if it is missing, damaged or of another
    /// format version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CHECKPOINT);
        let bytes = match input::read(&path, 4 * LARGEST) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "{}: holds no checkpoint to resume from; leave out --resume to start over",
                folder.display()
            ),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Self::parse(&bytes).with_context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let tensors = safetensors::read(bytes)?;
        let texts = safetensors::texts(bytes)?;
        let text = texts
            .get(TEXT)
            .context("not a checkpoint: its metadata does not hold the position of a training")?;
        let Text { format, origin, position } = toml::from_str(text)?;
        ensure!(
            format == FORMAT,
            "format {format}, expected {FORMAT}; continue with the version that wrote it"
        );
        Ok(Self { origin, position, tensors })
    }

    /// Fails if the recipe, the data or the starting weights differ from those of the
    /// checkpoint.
    pub fn check(&self, origin: &Origin) -> Result<()> {
        let parts = [
            ("the training data", &self.origin.train, &origin.train),
            ("the validation data", &self.origin.validation, &origin.validation),
            ("the starting weights", &self.origin.weights, &origin.weights),
        ];
        for (what, was, is) in parts {
            ensure!(
                was == is,
                "{what} differ from those of the checkpoint; give the same, or start in \
                 another folder"
            );
        }
        if self.origin.recipe == origin.recipe {
            return Ok(());
        }
        let parse =
            |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
        let (was, is) = (parse(&self.origin.recipe), parse(&origin.recipe));
        let fields = is.as_object().into_iter().flatten();
        let differ = fields.filter(|(name, value)| was.get(name) != Some(value));
        let told: Vec<String> = differ
            .map(|(name, value)| {
                let before = was.get(name).map_or("not set".to_owned(), ToString::to_string);
                format!("{name} was {before} and is {value}")
            })
            .collect();
        bail!(
            "the checkpoint was written with another recipe: {}; give the same options, or \
             start in another folder",
            told.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::run_folder::tests::noisy;
    use crate::train::run_folder::{HeadKind, Judged};
    use crate::weights::Tensor;

    fn checkpoint() -> Checkpoint {
        let origin = Origin {
            recipe: r#"{"batch":8,"momentum":0.9}"#.into(),
            train: "a".into(),
            validation: "b".into(),
            weights: "c".into(),
        };
        // Numbers that a few decimal digits would not restore.
        let sums = Sums { loss: 0.1 + 0.2, hold: 1.0 / 3.0, seen: 7, ..Sums::default() };
        let epoch = Epoch {
            number: 1,
            loss: std::f64::consts::PI * 1e-9,
            hold: Some(f64::MIN_POSITIVE),
            validation: Judged {
                value: -1.1f64.exp(),
                loss: Some(2f64.sqrt()),
                ..Judged::default()
            },
            ..Epoch::default()
        };
        let position = Position {
            epoch: 2,
            step: 3,
            sums,
            loss_scale: 65536.0,
            epochs: vec![Epoch::default(), epoch],
            ..Position::default()
        };
        let mut checkpoint = Checkpoint { origin, position, tensors: Tensors::new() };
        let tensor = Tensor::new(vec![2], vec![0.1, -3e-39]).expect("two");
        checkpoint.put("network", Tensors::from([("conv1.weight".to_owned(), tensor)]));
        checkpoint
    }

    #[test]
    fn a_checkpoint_comes_back_to_the_bit() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!Checkpoint::exists(folder.path()));
        checkpoint().write(folder.path()).expect("written");
        assert!(Checkpoint::exists(folder.path()));
        let read = Checkpoint::read(folder.path()).expect("a checkpoint");
        assert_eq!(read, checkpoint());
        assert_eq!(read.group("network").len(), 1);
        assert!(read.group("net").is_empty());
    }

    #[test]
    fn a_full_disk_leaves_the_checkpoint_before() {
        let folder = tempfile::tempdir().expect("a folder");
        checkpoint().write(folder.path()).expect("written");
        let draft = folder.path().join(format!("{CHECKPOINT}.draft"));
        std::os::unix::fs::symlink("/dev/full", draft).expect("a link");
        let mut later = checkpoint();
        later.position.epoch = 9;
        let error = format!("{:#}", later.write(folder.path()).expect_err("no room"));
        assert!(error.contains(CHECKPOINT) && error.contains("No space"), "{error}");
        assert_eq!(Checkpoint::read(folder.path()).expect("the old one"), checkpoint());
    }

    #[test]
    fn another_training_is_refused_and_what_differs_is_named() {
        let fine = checkpoint().origin;
        assert!(checkpoint().check(&fine).is_ok());
        let recipe = r#"{"batch":16,"momentum":0.9,"hold":1}"#.into();
        for (origin, said) in [
            (Origin { train: "x".into(), ..fine.clone() }, "training data"),
            (Origin { weights: "x".into(), ..fine.clone() }, "starting weights"),
            (Origin { recipe, ..fine }, "batch was 8 and is 16, hold was not set and is 1"),
        ] {
            let error = checkpoint().check(&origin).expect_err("another").to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_head_of_another_shape_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut checkpoint = checkpoint();
        let head = noisy(folder.path(), HeadKind::Softmax).head;
        checkpoint.put("head", head.tensors().expect("numbers"));
        assert!(checkpoint.take_head("head", &head).is_ok());
        let other = noisy(folder.path(), HeadKind::Arcface).head;
        let error = checkpoint.take_head("head", &other).expect_err("no bias there").to_string();
        assert!(error.contains("head.bias is extra"), "{error}");
    }

    #[test]
    fn what_is_no_checkpoint_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Checkpoint::read(folder.path()).expect_err("nothing").to_string();
        assert!(error.contains("holds no checkpoint"), "{error}");
        let path = folder.path().join(CHECKPOINT);
        std::fs::write(&path, safetensors::write(&Tensors::new(), None).expect("bytes"))
            .expect("written");
        let error = format!("{:#}", Checkpoint::read(folder.path()).expect_err("no text"));
        assert!(error.contains("not a checkpoint"), "{error}");
    }
}
