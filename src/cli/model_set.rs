//! Which models a command works with, and in which arithmetic.

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use facelatch::models::Models;
use facelatch::nn::Precision;
use std::path::PathBuf;

/// A folder of models, or those built in.
#[derive(Args)]
pub struct ModelSet {
    /// Folder of models [default: those built in]
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

impl ModelSet {
    /// Reads them and holds each against its digest.
    pub fn open(&self) -> Result<Models> {
        let models = Models::open_or_built_in(self.folder.as_deref())?;
        Ok(models.in_precision(self.precision))
    }

    /// The arithmetic asked for.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}
