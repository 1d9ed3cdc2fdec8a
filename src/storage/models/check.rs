//! Whether a set can be used: its files, its networks on built-in faces, its self-test.

use super::self_test::{SelfTest, SelfTestError};
use super::{Checked, ModelStoreError};
use crate::files;
use crate::models::signature::SIGNATURE;
use crate::models::{MANIFEST, MAX_FILE, Models};
use crate::nn::Precision;
use crate::vision::built_in_faces;
use crate::vision::detect::DetectorSettings;
use crate::vision::liveness::network::LivenessNets;
use crate::vision::recognizer::{Recognizer, RecognizerError};
use std::path::Path;

/// Checks a set in a folder outside a store, like [`ModelStore::check`](super::ModelStore::check).
///
/// # Errors
/// If a check fails.
pub fn check_folder(folder: &Path, precision: Precision) -> Result<Checked, ModelStoreError> {
    check_models(Models::open(folder)?, folder, precision)
}

pub(super) fn check_models(
    models: Models,
    folder: &Path,
    precision: Precision,
) -> Result<Checked, ModelStoreError> {
    let models = models.in_precision(precision);
    models.thresholds()?;
    let mut recognizer = Recognizer::new(&models, DetectorSettings::default())?;
    try_out(&models, &mut recognizer, folder)?;
    let read = |name: &str| files::read(&folder.join(name), MAX_FILE);
    let test = SelfTest::read(folder, &models.manifest, &read)?;
    let report = match &test {
        Some(test) => Some(test.run(&mut recognizer, folder, &read)?),
        None => None,
    };
    let named = models.manifest.files().into_iter().map(|(name, _)| name);
    let pictures = test.iter().flat_map(SelfTest::pictures);
    // A set without a signature is no fault of its files.
    let signature = folder.join(SIGNATURE).is_file().then_some(SIGNATURE);
    let files = [MANIFEST].into_iter().chain(signature).chain(named).chain(pictures);
    let files = files.map(str::to_owned).collect();
    Ok(Checked { models, recognizer, report, files })
}

/// Runs detector and liveness networks on a built-in face. [`Recognizer::new`] has tried the
/// recognizer.
fn try_out(
    models: &Models,
    recognizer: &mut Recognizer,
    folder: &Path,
) -> Result<(), ModelStoreError> {
    let useless = |reason| ModelStoreError::Useless { from: folder.to_owned(), reason };
    let network = |error| ModelStoreError::Recognizer(RecognizerError::Network(error));
    let portrait = built_in_faces::picture().map_err(SelfTestError::from)?;
    let views = recognizer.faces(&portrait).map_err(network)?;
    let Some(view) = views.first() else {
        return Err(useless("its detector finds no face in a built-in portrait"));
    };
    if let Some(liveness) = models.liveness() {
        let mut nets = LivenessNets::new(liveness).map_err(network)?;
        if !nets.judge(&portrait, &view.face.rect).map_err(network)?.is_finite() {
            return Err(useless("its liveness networks give no numbers"));
        }
    }
    Ok(())
}

/// Checks that all files of a set are present and match their digests, without loading the
/// networks.
pub(super) fn open_whole(folder: &Path) -> Result<(), ModelStoreError> {
    let models = Models::open(folder)?;
    let read = |name: &str| files::read(&folder.join(name), MAX_FILE);
    if let Some(test) = SelfTest::read(folder, &models.manifest, &read)? {
        test.check_pictures(folder, &read)?;
    }
    Ok(())
}
