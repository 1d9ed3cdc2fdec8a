//! `run`: the service.

use super::ConfigFile;
use anyhow::Result;
use clap::Args;
use facelatch_link::service;
use std::process::ExitCode;

/// Link the door until a signal ends the program
///
/// Events that happen while a receiver is away wait in the door's audit log, and arrive once
/// and in order when it is back. Where systemd started the program, it reports to systemd.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    config: ConfigFile,
}

impl Run {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.config.read()?;
        for advice in config.advice() {
            log::warn!("{advice}");
        }
        service::run(&config)?;
        Ok(ExitCode::SUCCESS)
    }
}
