//! Which models a command works with, and in which arithmetic.

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use facelatch::config::Config;
use facelatch::models::Models;
use facelatch::nn::Precision;
use facelatch::storage::models::{BUILT_IN, ModelStore};
use std::path::{Path, PathBuf};

/// A folder of models, those installed, or those built in.
#[derive(Args)]
pub struct ModelArgs {
    /// Folder of models, or built-in [default: those installed, else those built in]
    #[arg(long = "models", value_name = "DIR", global = true)]
    folder: Option<PathBuf>,
    /// Arithmetic of the networks; the models must be made for it
    #[arg(
        long,
        global = true,
        default_value_t,
        value_parser = PossibleValuesParser::new(["int8", "float"]).try_map(|name| name.parse::<Precision>()),
    )]
    precision: Precision,
}

impl ModelArgs {
    /// Reads them and holds each against its digest. Those installed are looked for
    /// where the default configuration has them.
    pub fn open(&self) -> Result<Models> {
        self.open_in(&Config::default().model_store())
    }

    /// The same with this folder of installed sets.
    pub fn open_in(&self, store: &Path) -> Result<Models> {
        let models = match &self.folder {
            Some(folder) if folder.as_os_str() == BUILT_IN => Models::built_in()?,
            Some(folder) => Models::open(folder)?,
            None => ModelStore::new(store).open_current()?,
        };
        Ok(models.in_precision(self.precision))
    }

    /// The folder asked for, if one was.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The arithmetic asked for.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}
