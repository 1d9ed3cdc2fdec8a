//! EDGE: what the thread that reads files knows of the model set in use and of a set on
//! trial.

use super::files::Files;
use super::trial::{Feed, Trial, TrialSettings};
use crate::models::Models;
use crate::storage::models::Standing;
use crate::storage::models::shadow::Shadow;
use serde::{Deserialize, Serialize};

/// The model set in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelsNow {
    /// Version of the set.
    pub version: String,
    /// Who answers for it, in words.
    pub signature: String,
    /// What stays to be done about it; `None` for a set that is built in or signed by a
    /// trusted key.
    pub warning: Option<String>,
    /// The set on trial.
    pub trial: Option<TrialNow>,
}

/// A set on trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrialNow {
    /// Name of the set.
    pub set: String,
    /// How long it has run, and is to run.
    pub watched_s: u64,
    /// See `watched_s`.
    pub duration_s: u64,
    /// Attempts on which both sets were compared.
    pub attempts: u64,
    /// Share of them on which both agree, 0 to 1.
    pub agreement: f64,
    /// All of it in one line, with what the switch waits for.
    pub line: String,
}

impl TrialNow {
    /// State of a trial.
    pub fn of(shadow: &Shadow) -> Self {
        Self {
            set: shadow.set.clone(),
            watched_s: shadow.watched,
            duration_s: shadow.seconds,
            attempts: shadow.attempts,
            agreement: shadow.agreement(),
            line: shadow.to_string(),
        }
    }
}

impl ModelsNow {
    /// State of a set; `standing` is `None` for a folder that was named on the command line.
    pub fn of(models: &Models, standing: Option<&Standing>) -> Self {
        Self {
            version: models.manifest.version.clone(),
            signature: standing.map_or_else(|| OUTSIDE.to_owned(), Standing::to_string),
            warning: standing.map_or_else(|| Some(OUTSIDE_WARNING.to_owned()), Standing::warning),
            trial: None,
        }
    }
}

/// Said of models from a folder that was named.
const OUTSIDE: &str = "from a folder named with --models";
/// What stays to be done about them.
const OUTSIDE_WARNING: &str = "the models are from a folder named with --models, whose signature is not checked; install a set that is signed by a key of models.trusted_keys";

/// What has changed for the service.
#[derive(Default)]
pub(super) struct Watched {
    /// The model set in use.
    pub models: Option<ModelsNow>,
    /// The begin or end of a trial.
    pub trial: Option<Option<Feed>>,
}

/// Watches the store for a trial, and what is to be said of the set in use.
#[derive(Default)]
pub(super) struct ModelWatch {
    trial: Option<Trial>,
    /// The configuration of the trial's door: rate, number of frames, trusted keys.
    of: Option<(f64, usize, Vec<String>)>,
    told: ModelsNow,
    /// The last fault that was logged.
    logged: String,
}

impl ModelWatch {
    /// Looks again. Called once per second.
    pub fn visit(&mut self, files: &Files) -> Watched {
        let mut watched = Watched::default();
        let wanted = self.wanted(files);
        let recognition = &files.config.recognition;
        let keys = files.config.models.trusted_keys.clone();
        let of = Some((recognition.false_accept_rate, recognition.frames, keys));
        let same = match (&self.trial, &wanted) {
            (Some(trial), Some(shadow)) => trial.is_of(shadow) && of == self.of,
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.of = of;
            // The thread of the former trial ends when its last feed is dropped.
            self.trial = wanted.and_then(|shadow| self.start(shadow, files));
            watched.trial = Some(self.trial.as_ref().map(Trial::feed));
        }
        let mut now = ModelsNow::of(&files.models, files.standing.as_ref());
        now.trial = self.trial.as_ref().and_then(Trial::now);
        if now != self.told {
            if let Some(warning) = now.warning.as_ref().filter(|_| now.warning != self.told.warning)
                && !self.told.version.is_empty()
            {
                log::warn!("{warning}");
            }
            self.told.clone_from(&now);
            watched.models = Some(now);
        }
        watched
    }

    /// The trial in the store, if it is one of the set in use.
    fn wanted(&mut self, files: &Files) -> Option<Shadow> {
        let (store, current) = files.store.as_ref()?;
        match store.shadow() {
            Ok(shadow) => shadow.filter(|shadow| shadow.instead_of == *current),
            Err(error) => {
                self.log(&error.to_string());
                None
            }
        }
    }

    fn start(&mut self, shadow: Shadow, files: &Files) -> Option<Trial> {
        let (store, _) = files.store.as_ref()?;
        let settings = TrialSettings {
            store: store.clone(),
            in_use: files.models.detector.clone(),
            gallery: files.config.gallery_file(),
            precision: files.precision,
            false_accept_rate: files.config.recognition.false_accept_rate,
            frames: files.config.recognition.frames,
        };
        log::info!("trial of {}: it runs beside {}, which opens", shadow.set, shadow.instead_of);
        match Trial::start(shadow, settings) {
            Ok(trial) => Some(trial),
            Err(error) => {
                self.log(&format!("{error:#}"));
                None
            }
        }
    }

    fn log(&mut self, message: &str) {
        if message != self.logged {
            log::error!("{message}");
            message.clone_into(&mut self.logged);
        }
    }
}
