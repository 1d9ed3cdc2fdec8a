use super::*;
use crate::models::likelihood::tests::line;

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
