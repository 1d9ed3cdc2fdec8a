//! The networks as the configuration wants them.

use crate::access::gallery::Gallery;
use crate::access::liveness::Mode;
use crate::config::Config;
use crate::models::{Models, ModelsError, ScoreCalibration};
use crate::nn::NetworkError;
use crate::vision::detect::DetectorSettings;
use crate::vision::liveness::network::LivenessNets;
use crate::vision::recognizer::{Recognizer, RecognizerError};
use thiserror::Error;

/// Why a set of models cannot be used at this door.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The set lacks something that a door needs.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The detector or the recognizer cannot be loaded.
    #[error(transparent)]
    Recognizer(#[from] RecognizerError),
    /// A liveness network cannot be loaded.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// A set of models with everything that depends on it.
pub struct ModelSet {
    /// Detector and recognizer.
    pub recognizer: Recognizer,
    /// Liveness networks; `None` if liveness is off or the set has none.
    pub liveness: Option<LivenessNets>,
    /// Thresholds and likelihood of the recognizer's similarities.
    pub calibration: ScoreCalibration,
    /// All people, by templates of this recognizer.
    pub gallery: Gallery,
}

/// The networks of a set, and how their similarities are judged.
pub struct Networks {
    /// Detector and recognizer.
    pub recognizer: Recognizer,
    /// Liveness networks; `None` if liveness is off or the set has none.
    pub liveness: Option<LivenessNets>,
    /// Thresholds and likelihood of the recognizer's similarities.
    pub calibration: ScoreCalibration,
}

impl Networks {
    /// Loads the networks that the configuration wants.
    ///
    /// # Errors
    /// If the set lacks a recognizer or its thresholds, or a network cannot be loaded.
    pub fn load(config: &Config, models: &Models) -> Result<Self, LoadError> {
        let recognizer = Recognizer::new(models, detector(config))?;
        let calibration = models.calibration()?;
        let wanted = models.liveness().filter(|_| config.liveness.mode != Mode::Off);
        let liveness = wanted.map(LivenessNets::new).transpose()?;
        Ok(Self { recognizer, liveness, calibration })
    }

    /// The set with all people, by templates of this recognizer.
    pub fn with(self, gallery: Gallery) -> ModelSet {
        let Self { recognizer, liveness, calibration } = self;
        ModelSet { recognizer, liveness, calibration, gallery }
    }
}

/// Settings of the detector, on two threads if there are two cores.
pub fn detector(config: &Config) -> DetectorSettings {
    let two_threads = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    DetectorSettings { two_threads, ..config.detector() }
}
