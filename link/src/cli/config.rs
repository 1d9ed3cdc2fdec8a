//! `config`: documents and checks the configuration.

use super::ConfigFile;
use anyhow::Result;
use clap::{Args, Subcommand};
use facelatch_link::config::EXAMPLE;
use std::io::Write;
use std::process::ExitCode;

/// Show an example of the configuration, or check one
#[derive(Args)]
pub struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print an example with the meaning and default of every setting
    Example,
    /// Check that a configuration is valid, and warn of likely mistakes
    ///
    /// Exit code 1 if it is invalid; advice alone does not fail the check.
    Check(ConfigFile),
}

impl Config {
    pub fn run(self) -> Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        match self.what {
            What::Example => out.write_all(EXAMPLE.as_bytes())?,
            What::Check(file) => {
                for advice in file.read()?.advice() {
                    writeln!(out, "advice: {advice}")?;
                }
                writeln!(out, "{}: valid", file.config.display())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
