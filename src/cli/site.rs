//! What several commands share: which configuration, models and gallery.

use anyhow::Result;
use clap::Args;
use facelatch::config::Config;
use facelatch::gallery::Gallery;
use facelatch::gallery::store::{ReEmbedded, Store};
use facelatch::models::Models;
use facelatch::recognize::Recognizer;
use std::path::{Path, PathBuf};

/// Configuration, models and gallery.
#[derive(Args)]
pub struct Site {
    /// Configuration file [default: every setting's default]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Gallery file [default: that of the configuration, else gallery.redb in the user's data folder]
    #[arg(long, value_name = "FILE", global = true)]
    gallery: Option<PathBuf>,
    /// Folder of models [default: those built in]
    #[arg(long, value_name = "DIR", global = true)]
    models: Option<PathBuf>,
}

impl Site {
    /// The configuration, with the gallery of the command line.
    pub fn config(&self) -> Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        if let Some(file) = &self.gallery {
            config.gallery.file = Some(file.clone());
        }
        Ok(config)
    }

    /// The models.
    pub fn models(&self) -> Result<Models> {
        Ok(Models::open_or_built_in(self.models.as_deref())?)
    }
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
/// their crops; whoever has none is told of.
pub fn load_gallery(
    store: &mut Store,
    models: &Models,
    recognizer: &mut Recognizer,
) -> Result<Gallery> {
    let id = models.recognizer_id()?;
    let size = models.recognizer()?.embedding_size;
    let loaded = store.load(&id, size)?;
    if loaded.of_other_models == 0 {
        return Ok(loaded.gallery);
    }
    let ReEmbedded { renewed, without_crop } =
        store.re_embed(&id, |crop| recognizer.embed(crop).ok())?;
    log::info!("{renewed} templates of another model made anew from their pictures");
    if without_crop > 0 {
        log::warn!(
            "{without_crop} templates are of another model and have no picture to be made anew \
             from; their people must enroll again (see facelatch people list)"
        );
    }
    Ok(store.load(&id, size)?.gallery)
}
