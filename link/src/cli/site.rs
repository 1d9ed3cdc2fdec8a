//! `site`: the office of a site of doors.

use anyhow::{Result, anyhow};
use clap::Args;
use facelatch_link::config::{Config, SYSTEM_FILE};
use facelatch_link::site::{self, SiteCommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Share people, hours and lock-outs among the doors of a site
///
/// One computer is the office: it has the site's key, admits doors, and decides who is locked
/// out. Doors meet at the broker of the configuration, which sees neither names nor faces.
#[derive(Args)]
pub struct Site {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = SYSTEM_FILE)]
    config: PathBuf,
    #[command(flatten)]
    command: SiteCommand,
}

impl Site {
    /// Whether it runs until a signal ends it.
    pub fn is_service(&self) -> bool {
        self.command.is_service()
    }

    pub fn run(self) -> Result<ExitCode> {
        // Making a site needs no broker.
        let config = if self.command.needs_broker() {
            Config::read(&self.config)?
        } else {
            Default::default()
        };
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let good = site::run(&self.command, &config, &stop).map_err(|fault| anyhow!(fault))?;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
