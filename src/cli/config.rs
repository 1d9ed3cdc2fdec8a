//! `config`: prints, checks and documents the configuration.

use super::check::unknown_role;
use super::common_args::config_file;
use anyhow::Result;
use clap::{Args, Subcommand};
use facelatch::config::{EXAMPLE, Effective};
use facelatch::service::control::unknown_names;
use facelatch::service::wall_clock;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Print or check the configuration, or show an example
///
/// The configuration is a TOML file; every command takes it with --config. Every setting
/// has a default, so the file needs only the settings that differ.
#[derive(Args)]
pub struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print every effective setting and where it comes from
    ///
    /// Secrets in the camera's URI are replaced by ***.
    Print {
        /// Configuration file [default: /etc/facelatch/facelatch.toml if it exists, else
        /// the default of every setting]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print one JSON object: file, config, set (line and column of each setting in the
        /// file) and instead (values used for settings that are not set)
        #[arg(long)]
        json: bool,
    },
    /// Check that a configuration is valid, and warn of likely mistakes
    ///
    /// Exit code 1 if it is invalid; advice alone does not fail the check.
    Check {
        /// Configuration file [default: /etc/facelatch/facelatch.toml if it exists, else
        /// the default of every setting]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The same file, as an option like that of other commands
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
    },
    /// Print an example with the meaning, range and default of every setting
    Example,
}

impl Config {
    pub fn run(self) -> Result<ExitCode> {
        let mut out = anstream::stdout().lock();
        match self.what {
            What::Print { config, json } => {
                let effective = Effective::read(config_file(config.as_deref()))?;
                if json {
                    writeln!(out, "{}", effective.to_json()?)?;
                } else {
                    write!(out, "{}", effective.to_toml()?)?;
                }
            }
            What::Check { file, config } => {
                check(&mut out, config_file(file.or(config).as_deref()))?;
            }
            What::Example => write!(out, "{EXAMPLE}")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn check(out: &mut impl Write, file: Option<&Path>) -> Result<()> {
    let effective = Effective::read(file)?;
    let file = file.unwrap_or(Path::new("defaults")).display();
    let mut advised: Vec<String> = effective.advised().collect();
    let config = &effective.config;
    let remark = match wall_clock::zone() {
        Err(unknown) => config.zone_advice(&unknown),
        Ok(_) => config.clock_advice(wall_clock::read(false).synchronized),
    };
    advised.extend(remark.map(|remark| format!("{file}: {remark}")));
    for (key, name) in unknown_names(&config.roles) {
        advised.push(format!("{file}: {}", unknown_role(key, &name)));
    }
    for advice in &advised {
        writeln!(out, "{advice}")?;
    }
    let count = |count: usize, one: &str, many: &str| {
        format!("{count} {}", if count == 1 { one } else { many })
    };
    writeln!(
        out,
        "{file}: valid; {}, {}",
        count(effective.set.len(), "setting", "settings"),
        count(advised.len(), "piece of advice", "pieces of advice")
    )?;
    Ok(())
}
