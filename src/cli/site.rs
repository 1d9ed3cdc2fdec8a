//! What several commands share: which configuration, models and gallery.

use super::model_set::ModelSet;
use anyhow::Result;
use clap::Args;
use facelatch::config::{Config, ConfigError, SOCKET, SYSTEM_FOLDER};
use facelatch::gallery::Gallery;
use facelatch::gallery::store::{ReEmbedded, Store, copy_path};
use facelatch::model_store::ModelStore;
use facelatch::models::Models;
use facelatch::nn::Precision;
use facelatch::recognize::Recognizer;
use std::path::{Path, PathBuf};

/// Where the package keeps the configuration.
const SYSTEM_CONFIG: &str = "/etc/facelatch/facelatch.toml";

/// Configuration, models and gallery.
#[derive(Args)]
pub struct Site {
    /// Configuration file [default: /etc/facelatch/facelatch.toml where there is one, else every
    /// setting's default]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Gallery file [default: that of the configuration, else gallery.redb in the user's data folder]
    #[arg(long, value_name = "FILE", global = true)]
    gallery: Option<PathBuf>,
    /// Folder of installed models [default: that of the configuration, else models beside the gallery]
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
    #[command(flatten)]
    models: ModelSet,
}

impl Site {
    /// The configuration, with gallery and models of the command line.
    pub fn config(&self) -> Result<Config> {
        let mut config = read_config(self.config.as_deref())?;
        if let Some(file) = &self.gallery {
            config.gallery.file = Some(file.clone());
        }
        if let Some(store) = &self.store {
            config.models.folder = Some(store.clone());
        }
        Ok(config)
    }

    /// Where the configuration comes from, in words.
    pub fn config_name(&self) -> String {
        match config_file(self.config.as_deref()) {
            Some(path) => path.display().to_string(),
            None => "none: every setting has its default".to_owned(),
        }
    }

    /// The models.
    pub fn models(&self, config: &Config) -> Result<Models> {
        self.models.open_in(&config.model_store())
    }

    /// The folder of models asked for, if one was.
    pub fn models_folder(&self) -> Option<&Path> {
        self.models.folder()
    }

    /// Where models come from that another set may take the place of: nowhere, if a
    /// folder was asked for.
    pub fn model_store(&self, config: &Config) -> Option<ModelStore> {
        self.models.folder().is_none().then(|| ModelStore::new(&config.model_store()))
    }

    /// The arithmetic of the networks.
    pub fn precision(&self) -> Precision {
        self.models.precision()
    }
}

/// The configuration's file: the one named, else the system's.
pub fn config_file(named: Option<&Path>) -> Option<&Path> {
    let system = Path::new(SYSTEM_CONFIG);
    named.or_else(|| system.exists().then_some(system))
}

/// The configuration in the file named, else in the system's, else every default.
pub fn read_config(named: Option<&Path>) -> Result<Config, ConfigError> {
    config_file(named).map_or_else(|| Ok(Config::default()), Config::read)
}

/// The socket of the service that runs: as asked for or configured, else this user's
/// own where there is one, else the system's.
pub fn service_socket(given: Option<PathBuf>, config: &Config) -> PathBuf {
    let own = config.status_socket();
    let wanted = config.service.status_socket.is_some() || own.exists();
    let system = Path::new(SYSTEM_FOLDER);
    given.unwrap_or_else(|| if wanted || !system.is_dir() { own } else { system.join(SOCKET) })
}

/// Why somebody is no longer let in.
pub const MUST_ENROLL_AGAIN: &str = "all templates are of another model, and no picture is kept to make them anew from; enroll again";

/// Whether there is a gallery: the file, or the copy it is restored from.
pub fn is_begun(file: &Path) -> bool {
    file.exists() || copy_path(file).exists()
}

/// Opens the gallery and tells what was put right.
pub fn open_store(file: &Path) -> Result<Store> {
    let store = Store::open(file)?;
    if let Some(repaired) = store.repaired() {
        log::error!("{repaired}");
    }
    Ok(store)
}

/// The gallery for these models. Templates of other models are made anew from
/// their crops: for good if `keep`, so that a service starts quickly the next
/// time, else only in memory, so that looking at a gallery with other models
/// takes nothing from the service. Whoever has no crop is told of.
pub fn load_gallery(
    store: &mut Store,
    models: &Models,
    recognizer: &mut Recognizer,
    keep: bool,
) -> Result<Gallery> {
    let id = models.recognizer_id()?;
    let size = models.recognizer()?.embedding_size;
    if keep {
        let done = store.re_embed(&id, |crop| recognizer.embed(crop).ok())?;
        let ReEmbedded { renewed, lost, .. } = done;
        if renewed > 0 {
            log::info!("{renewed} templates of another model made anew from their pictures");
        }
        if !lost.is_empty() {
            log::warn!("{}: {MUST_ENROLL_AGAIN}", lost.join(", "));
        }
    }
    let loaded = store.load_embedding(&id, size, |crop| recognizer.embed(crop).ok())?;
    if loaded.of_other_models > 0 {
        log::warn!(
            "{} templates are of another model and have no picture to be made anew from; their \
             people must enroll again (see facelatch people list)",
            loaded.of_other_models
        );
    }
    Ok(loaded.gallery)
}
