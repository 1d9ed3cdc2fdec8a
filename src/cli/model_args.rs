//! Arguments that choose the models and their arithmetic.

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use facelatch::config::Config;
use facelatch::models::Models;
use facelatch::nn::Precision;
use facelatch::storage::gallery::Register;
use facelatch::storage::models::{BUILT_IN, ModelStore, Opened, Standing};
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

/// The store of this configuration.
pub fn installed(config: &Config) -> ModelStore {
    ModelStore::new(&config.model_store())
        .registered(Register::of_user())
        .trusting(config.trusted_keys())
}

impl ModelArgs {
    /// Reads the models and checks each against its digest. Installed sets are looked for
    /// in the model store of the default configuration.
    pub fn open(&self) -> Result<Models> {
        self.open_in(&installed(&Config::default()))
    }

    /// Like [`Self::open`], with the store of installed sets.
    pub fn open_in(&self, store: &ModelStore) -> Result<Models> {
        self.open_judged(store).map(|(models, _)| models)
    }

    /// Like [`Self::open_in`], with who answers for the set; `None` for a folder that was
    /// named.
    pub fn open_judged(&self, store: &ModelStore) -> Result<(Models, Option<Standing>)> {
        let (models, standing) = match &self.folder {
            Some(folder) if folder.as_os_str() == BUILT_IN => {
                (Models::built_in()?, Some(Standing::BuiltIn))
            }
            Some(folder) => (Models::open(folder)?, None),
            None => {
                let Opened { models, standing, .. } = store.open_in_use()?;
                (models, Some(standing))
            }
        };
        Ok((models.in_precision(self.precision), standing))
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
