//! Arguments that choose the models and their arithmetic.

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use facelatch::config::Config;
use facelatch::models::Models;
use facelatch::nn::Precision;
use facelatch::storage::models::{BUILT_IN, ModelStore};
use std::path::{Path, PathBuf};

/// The model set to use: a folder, the installed set, or the built-in set.
#[derive(Args, Clone)]
pub struct ModelArgs {
    /// Folder of models, or built-in [default: the installed set, else the built-in set]
    #[arg(long = "models", value_name = "DIR", global = true)]
    folder: Option<PathBuf>,
    /// Arithmetic of the networks; the model set must support it
    #[arg(
        long,
        global = true,
        default_value_t,
        value_parser = PossibleValuesParser::new(["int8", "float"]).try_map(|name| name.parse::<Precision>()),
    )]
    precision: Precision,
}

impl ModelArgs {
    /// Reads the models and checks each against its digest. Installed sets are looked for
    /// in the model store of the default configuration.
    pub fn open(&self) -> Result<Models> {
        self.open_in(&Config::default().model_store())
    }

    /// Like [`Self::open`], with `store` as the folder of installed sets.
    pub fn open_in(&self, store: &Path) -> Result<Models> {
        let models = match &self.folder {
            Some(folder) if folder.as_os_str() == BUILT_IN => Models::built_in()?,
            Some(folder) => Models::open(folder)?,
            None => ModelStore::new(store).open_current()?,
        };
        Ok(models.in_precision(self.precision))
    }

    /// The folder given with `--models`, if any.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The arithmetic given with `--precision`, or the default.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}
