use super::*;
use crate::models::groups::tests::group;
use crate::models::likelihood::tests::line;
use crate::models::threshold::{MeasuredGroup, Population, Tail};

fn manifest(change: impl Fn(&mut RecognizerEntry)) -> Result<Manifest, ModelsError> {
    let mut manifest = Models::built_in().expect("models").manifest;
    change(manifest.recognizer.as_mut().expect("a recognizer"));
    let text = toml::to_string(&manifest).expect("a manifest");
    Manifest::parse(Path::new("models/manifest.toml"), text.as_bytes())
}

#[test]
fn a_likelihood_is_read_as_it_was_written_and_may_be_absent() {
    for likelihood in [None, Some(line())] {
        let read = manifest(|entry| entry.likelihood.clone_from(&likelihood));
        let recognizer = read.expect("a manifest").recognizer.expect("a recognizer");
        assert_eq!(recognizer.likelihood, likelihood);
    }
}

#[test]
fn a_manifest_may_speak_of_liveness_or_not() {
    let built_in = Models::built_in().expect("models");
    assert!(built_in.liveness().is_none());
    let with = |scale: f64| {
        let mut manifest = built_in.manifest.clone();
        manifest.liveness = Some(LivenessEntry {
            layout: Layout::Nchw,
            channels: Channels::Rgb,
            normalization: Normalization { mean: [0.0; 3], std: [1.0; 3] },
            networks: vec![LivenessFile { file: "a.onnx".into(), sha256: "0".into(), scale }],
        });
        let text = toml::to_string(&manifest).expect("a manifest");
        (Manifest::parse(Path::new("manifest.toml"), text.as_bytes()), manifest)
    };
    let (read, written) = with(2.7);
    assert_eq!(read.expect("a manifest"), written);
    let error = with(0.2).0.expect_err("smaller than the face").to_string();
    assert!(error.contains("liveness.networks: a.onnx: scale 0.2"), "{error}");
}

#[test]
fn the_models_built_in_weigh_evidence() {
    let models = Models::built_in().expect("models");
    let line = models.likelihood().expect("a likelihood ratio");
    // Likelihood ratios of up to about 100,000, which is what the genuine pairs in the
    // model card can support.
    assert!((11.0..12.5).contains(&line.log_ratio(1.0)), "{line:?}");
    let threshold = models.thresholds().expect("thresholds").for_attempt(1e-4, 50);
    let needed = line.weighing(threshold, 1e-4, 50).needed();
    assert!(needed > line.log_ratio(threshold.similarity), "more than votes ask for");
    assert!(needed <= line.log_ratio(1.0), "and not more than one view can bring");
}

#[test]
fn a_likelihood_that_falls_is_refused() {
    let falling = manifest(|entry| {
        entry.likelihood = Some(line());
        entry.likelihood.iter_mut().for_each(|line| line.slope = -1.0);
    });
    let error = falling.expect_err("a falling line").to_string();
    assert!(error.contains("recognizer.likelihood: slope must be positive"), "{error}");
}

#[test]
fn a_manifest_from_before_groups_is_read_and_one_with_them_too() {
    let mut before = Models::built_in().expect("models").manifest.recognizer.expect("a recognizer");
    before.worst_group = None;
    let calibration = before.calibration.as_mut().expect("a calibration");
    calibration.populations.clear();
    calibration.decided_by.clear();
    calibration.other_tails.clear();
    let text = toml::to_string(&before).expect("a manifest");
    for key in ["populations", "decided_by", "other_tails", "worst_group"] {
        assert!(!text.contains(key), "{key}: {text}");
    }
    let population = |data: &str, groups: Vec<MeasuredGroup>| Population {
        data: data.to_owned(),
        people: 1520,
        photos: 1520,
        impostor_pairs: 1_154_440,
        measured_down_to: 2.6e-5,
        groups,
    };
    let women = MeasuredGroup {
        name: "women".to_owned(),
        people: 115,
        impostor_pairs: 6555,
        decides_down_to: 5.0 / 6555.0,
    };
    let change = |entry: &mut RecognizerEntry| {
        let calibration = entry.calibration.as_mut().expect("a calibration");
        calibration.populations =
            vec![population("portraits", vec![women.clone()]), population("lfw", vec![])];
        calibration.decided_by.insert("1e-3".to_owned(), "women of portraits".to_owned());
        calibration.other_tails =
            vec![Tail { similarity: 0.4, far: 1e-3, scale: 0.05, shape: 0.0 }];
        entry.worst_group = Some(group());
    };
    let both = |entry: &mut RecognizerEntry| {
        *entry = before.clone();
        change(entry);
    };
    let read = manifest(both).expect("a manifest").recognizer.expect("a recognizer");
    let mut expected = before.clone();
    change(&mut expected);
    assert_eq!(read, expected);
    // The strictest tail holds where rates are extrapolated, and only there.
    let table = |entry: &RecognizerEntry| entry.threshold_table().expect("valid").expect("a table");
    let (old, new) = (table(&before), table(&read));
    let expected = 0.4 + 0.05 * 1e4f64.ln();
    assert!((f64::from(new.for_pair(1e-7).similarity) - expected).abs() < 1e-5);
    assert!(new.for_pair(1e-7).similarity > old.for_pair(1e-7).similarity);
    assert_eq!(new.for_pair(1e-4), old.for_pair(1e-4));
}

#[test]
fn groups_and_tails_of_nonsense_are_refused() {
    let broken = manifest(|entry| {
        entry.worst_group = Some(group());
        entry.worst_group.iter_mut().for_each(|group| group.high = 0.0);
    });
    let error = broken.expect_err("an interval upside down").to_string();
    assert!(error.contains("recognizer.worst_group: expected 0 <= low"), "{error}");
    let broken = manifest(|entry| {
        let tail = Tail { similarity: 0.4, far: 1e-3, scale: -0.05, shape: 0.0 };
        entry.calibration.iter_mut().for_each(|calibration| calibration.other_tails = vec![tail]);
    });
    let error = broken.expect_err("a tail that falls").to_string();
    assert!(error.contains("scale must be positive"), "{error}");
}
