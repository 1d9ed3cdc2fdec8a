//! `simulate`: a site of many doors on a real broker.

use anyhow::{Result, anyhow};
use clap::Args;
use facelatch_link::simulate::{self, Options};
use std::process::ExitCode;

/// Play a site of many doors on a real broker, and measure it
///
/// Each door has a connection of its own. Without --broker, a Mosquitto is started for it,
/// which must be installed. Exit code 1 if doors did not agree, or a fault changed anything.
#[derive(Args)]
pub struct Simulate {
    #[command(flatten)]
    options: Options,
}

impl Simulate {
    pub fn run(self) -> Result<ExitCode> {
        let good = simulate::run(&self.options).map_err(|fault| anyhow!(fault))?;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
