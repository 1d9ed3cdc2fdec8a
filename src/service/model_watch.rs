//! EDGE: what the thread that reads files knows of the model set in use and of a set on
//! trial.

use super::files::Files;
use super::status::ModelsNow;
use super::trial::{Feed, Trial, TrialSettings};
use crate::storage::models::shadow::Shadow;

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
