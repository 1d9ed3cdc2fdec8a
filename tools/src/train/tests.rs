use super::*;
use crate::data::augment::Augment;
use crate::train::data::tests::{four_people, four_people_of};
use crate::train::learning_rate::Schedule;
use crate::train::torch_net::tests::{noise, reid_noise};

fn quick(recipe: Recipe) -> Recipe {
    Recipe { epochs: 2, batch: 4, ..recipe }
}

fn arcface() -> Recipe {
    Recipe {
        schedule: Schedule::constant(1e-4),
        head: crate::train::run_folder::HeadKind::Arcface,
        margin: Margin::ARCFACE,
        hold: 10.0,
        average: 0.5,
        ..quick(Recipe::finetune())
    }
}

fn started(start: Start, recipe: &Recipe, folder: Option<&Path>) -> Result<Trained> {
    train(start, &four_people(3), recipe, folder, |_| {})
}

/// The error of a training that fails. Weights are too long to print.
fn fault(trained: Result<Trained>) -> anyhow::Error {
    trained.map(drop).expect_err("it fails")
}

fn known() -> Start {
    Start::from_weights(noise(16, 5))
}

#[test]
fn a_few_steps_bring_people_to_their_centres_and_stay_near_the_teacher() {
    let recipe = Recipe { epochs: 3, augment: Augment::none(), ..arcface() };
    let mut seen = 0;
    let done = train(known(), &four_people(3), &recipe, None, |progress| {
        if let Progress::Step(step) = progress {
            seen += step.photos;
        }
    })
    .expect("a training");
    assert_eq!(seen, 36);
    assert_eq!(done.epochs.len(), 4);
    assert!(done.epochs[3].loss < done.epochs[1].loss, "{:?}", done.epochs);
    assert!(done.epochs[3].hold > Some(0.5), "{:?}", done.epochs);
    assert!(done.network != noise(16, 5));
}

#[test]
fn the_same_seed_gives_the_same_weights_to_the_bit_whatever_the_threads() {
    for recipe in [
        Recipe { balanced: true, clip: Some(1.0), ..arcface() },
        quick(Recipe { negatives: 0.5, smoothing: 0.1, ..Recipe::finetune() }),
    ] {
        let weights = |recipe: &Recipe| {
            let done = started(known(), recipe, None).expect("a training");
            (done.network, done.head.tensors().expect("numbers"))
        };
        let once = weights(&recipe);
        assert!(once == weights(&Recipe { threads: 3, ..recipe.clone() }));
        assert!(once != weights(&Recipe { seed: 2, ..recipe }));
    }
}

/// Stops after this many steps, resumes, and expects the result of an uninterrupted
/// training.
fn resumed(start: impl Fn() -> Start, recipe: &Recipe, steps: usize) {
    let whole = tempfile::tempdir().expect("a folder");
    let once = started(start(), recipe, Some(whole.path())).expect("a training");
    let parts = tempfile::tempdir().expect("a folder");
    let (first, mut left) = (start(), steps);
    let stop = Arc::clone(&first.stop);
    let error = train(first, &four_people(3), recipe, Some(parts.path()), |progress| {
        if let Progress::Step(_) = progress {
            left -= 1;
            stop.store(left == 0, Ordering::Relaxed);
        }
    })
    .expect_err("it was stopped");
    assert!(error.downcast_ref::<Interrupted>().is_some(), "{error:#}");
    assert!(error.to_string().contains("--resume"), "{error}");
    let again = Start { resume: true, ..start() };
    let twice = started(again, recipe, Some(parts.path())).expect("a training");
    assert!(once.network == twice.network, "{recipe:?} after {steps} steps");
    let untimed = |trained: &Trained| -> Vec<Epoch> {
        let still = |epoch: &Epoch| Epoch {
            seconds: 0.0,
            images_per_second: 0.0,
            waited: 0.0,
            ..epoch.clone()
        };
        trained.epochs.iter().map(still).collect()
    };
    assert_eq!(untimed(&once), untimed(&twice));
    let [once, twice] =
        [&whole, &parts].map(|folder| std::fs::read(folder.path().join(MODEL)).expect("a model"));
    assert!(once == twice);
}

#[test]
fn a_training_that_was_stopped_within_an_epoch_comes_to_the_same_weights() {
    // Three steps per epoch.
    resumed(known, &Recipe { blend: vec![0.5], ..arcface() }, 2);
    resumed(known, &Recipe { negatives: 0.5, ..quick(Recipe::finetune()) }, 4);
}

#[test]
fn a_training_from_nothing_that_was_stopped_at_the_end_of_an_epoch_does_so_too() {
    let recipe = Recipe {
        schedule: Schedule { warm_up: 0.5, ..Recipe::train().schedule },
        ..quick(Recipe::train())
    };
    resumed(|| Start::from_nothing(16, 1), &recipe, 3);
}

#[test]
fn the_other_network_learns_and_continues_to_the_bit() {
    let recipe = Recipe {
        normalization: crate::networks::reid::NORMALIZATION,
        teacher: Teacher::Plain,
        impostors: recipe::Impostors { weight: 1.0, threshold: 0.1 },
        balanced_groups: true,
        augment: Augment::door(),
        epochs: 1,
        ..arcface()
    };
    let data = four_people_of(128, 2);
    let start = || Start::from_weights(reid_noise(5));
    let whole = train(start(), &data, &recipe, None, |_| ()).expect("a training");
    assert!(whole.network != start().network);
    let folder = tempfile::tempdir().expect("a folder");
    let first = start();
    let stop = Arc::clone(&first.stop);
    train(first, &data, &recipe, Some(folder.path()), |progress| {
        stop.store(matches!(progress, Progress::Step(_)), Ordering::Relaxed);
    })
    .expect_err("it was stopped");
    let again = Start { resume: true, ..start() };
    let parts = train(again, &data, &recipe, Some(folder.path()), |_| ()).expect("a training");
    assert!(parts.network == whole.network);
    let run = Run::open(folder.path()).expect("a run");
    assert!(run.network == whole.network);
    assert_eq!(run.record.start, digest(&start().network).expect("a digest"));
    assert_eq!(run.record.settings["impostors"]["threshold"], 0.1);
}

#[test]
fn faces_and_options_that_a_network_cannot_take_are_named() {
    let recipe = quick(Recipe::finetune());
    let error =
        fault(train(Start::from_weights(reid_noise(5)), &four_people(2), &recipe, None, |_| ()));
    assert!(error.to_string().contains("112x112 pixels, and the network takes 128x128"), "{error}");
    let data = four_people_of(128, 2);
    let recipe = Recipe { batch_norm: true, ..recipe };
    let error = fault(train(Start::from_weights(reid_noise(5)), &data, &recipe, None, |_| ()));
    assert!(error.to_string().contains("has no batch normalization"), "{error}");
}

#[test]
fn look_alikes_are_the_people_nearest_to_each_other() {
    let recipe = Recipe { look_alikes: true, augment: Augment::none(), ..arcface() };
    let done = started(known(), &recipe, None).expect("a training");
    assert_eq!(done.epochs.len(), 3);
    let error = fault(started(Start::from_nothing(16, 1), &Recipe { hold: 0.0, ..recipe }, None));
    assert!(error.to_string().contains("--look-alikes"), "{error}");
}

#[test]
fn a_checkpoint_of_another_architecture_or_recipe_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = quick(Recipe::finetune());
    started(known(), &recipe, Some(folder.path())).expect("a training");
    let error = fault(started(known(), &recipe, Some(folder.path())));
    assert!(error.to_string().contains("holds a training already"), "{error}");
    let resume = |network: FaceNetwork, recipe: &Recipe| {
        let start = Start { resume: true, ..Start::from_weights(network) };
        format!("{:#}", fault(started(start, recipe, Some(folder.path()))))
    };
    let error = resume(noise(32, 5), &recipe);
    assert!(error.contains("linear.weight is [16, 512], expected [32, 512]"), "{error}");
    let error = resume(noise(16, 6), &recipe);
    assert!(error.contains("starting weights"), "{error}");
    let error = resume(noise(16, 5), &Recipe { momentum: 0.5, ..recipe.clone() });
    assert!(error.contains("momentum was 0.9 and is 0.5"), "{error}");
    let mut damaged = Checkpoint::read(folder.path()).expect("a checkpoint");
    damaged.position.best_epoch = 9;
    damaged.write(folder.path()).expect("written");
    let error = resume(noise(16, 5), &recipe);
    assert!(error.contains("damaged: epoch 3 of 3 with 9 as the best"), "{error}");
}

#[test]
fn a_loss_that_is_no_number_stops_it_and_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let schedule = Schedule { warm_up: 2.0, ..Schedule::constant(1e30) };
    let recipe = Recipe { schedule, ..quick(Recipe::finetune()) };
    let error = fault(started(known(), &recipe, Some(folder.path())));
    let error = format!("{error:#}");
    assert!(error.starts_with("epoch 1, batch 2 of 3: the loss is not finite"), "{error}");
    assert!(error.contains(".png") && error.contains("--learning-rate"), "{error}");
    // A later epoch that fails leaves the checkpoint of the one before.
    let fine = Recipe { schedule: Schedule::constant(1e-4), ..recipe };
    started(known(), &fine, Some(folder.path())).expect("a training");
    let kept = Checkpoint::read(folder.path()).expect("a checkpoint");
    let mut broken = kept.clone();
    (broken.position.epoch, broken.position.best_epoch) = (2, 1);
    broken.position.epochs.truncate(2);
    for tensor in broken.tensors.iter_mut().filter(|(name, _)| name.starts_with("momentum/")) {
        tensor.1.values.fill(f32::MAX);
    }
    broken.write(folder.path()).expect("written");
    let bytes = || std::fs::read(folder.path().join(crate::train::checkpoint::CHECKPOINT));
    let before = bytes().expect("a checkpoint");
    let resume = Start { resume: true, ..known() };
    // Momentum that breaks the weights at the next step.
    let error = fault(started(resume, &fine, Some(folder.path())));
    assert!(format!("{error:#}").contains("keeps the result of epoch 1"), "{error:#}");
    assert!(bytes().expect("a checkpoint") == before);
}

#[test]
fn without_a_better_epoch_patience_ends_it() {
    let recipe = Recipe {
        epochs: 9,
        patience: Some(2),
        schedule: Schedule::constant(0.0),
        ..quick(Recipe::finetune())
    };
    let done = started(known(), &recipe, None).expect("a training");
    assert_eq!((done.best_epoch, done.epochs.len()), (1, 4));
    assert!(!done.better_than_start);
}

#[test]
fn the_way_back_to_the_start_is_judged_and_the_best_of_it_kept() {
    // Steps so large that the start is better than the result.
    let recipe = Recipe {
        schedule: Schedule::constant(0.02),
        blend: vec![0.001, 1.0],
        ..quick(Recipe::finetune())
    };
    let done = started(known(), &recipe, None).expect("a training");
    assert_eq!(done.blends.len(), 2);
    assert_eq!(done.blends[1].validation, done.epochs[done.best_epoch].validation);
    let best = done.blends.iter().map(|blend| blend.validation.value).fold(f64::MIN, f64::max);
    assert_eq!(done.validation.value, best);
    assert_eq!(done.blend, 0.001, "{:?}", done.blends);
    let near = &done.network.tensors()["linear.weight"].values;
    let start = noise(16, 5);
    let start = &start.tensors()["linear.weight"].values;
    assert!(near.iter().zip(start).all(|(a, b)| (a - b).abs() < 1e-2));
}

#[test]
fn nothing_to_hold_to_or_to_go_on_from_is_said() {
    let recipe = quick(Recipe { hold: 1.0, ..Recipe::train() });
    let error = fault(started(Start::from_nothing(16, 1), &recipe, None));
    assert!(error.to_string().contains("--weights"), "{error}");
    let folder = tempfile::tempdir().expect("a folder");
    let start = Start { resume: true, ..known() };
    let recipe = quick(Recipe::finetune());
    let error = fault(started(start, &recipe, Some(folder.path())));
    assert!(format!("{error:#}").contains("holds no checkpoint"), "{error:#}");
}
