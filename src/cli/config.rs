//! `config`: what is configured, what is wrong with it, and what there is.

use super::common_args::config_file;
use anyhow::Result;
use clap::{Args, Subcommand};
use facelatch::config::{EXAMPLE, Effective};
use facelatch::service::wall_clock;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Print, check or begin a configuration
///
/// A configuration is a TOML file for --config of all commands. Every setting has a
/// default, so it has only what is to be otherwise.
#[derive(Args)]
pub struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What holds, and where each setting came from
    Print {
        /// Configuration file [default: /etc/facelatch/facelatch.toml where there is one, else
        /// every setting's default]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print one JSON object: file, config, set (line and column of what the file has)
        /// and instead (what is used where nothing is set)
        #[arg(long)]
        json: bool,
    },
    /// Whether a configuration can be used, and what of it is probably not meant
    ///
    /// Exit code 1 where it cannot be used; advice alone is no failure.
    Check {
        /// Configuration file [default: /etc/facelatch/facelatch.toml where there is one, else
        /// every setting's default]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The same, as other commands have it
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
    },
    /// Every setting there is with what it means, its range and its default
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
    let synchronized = wall_clock::read(false).is_some_and(|reading| reading.synchronized);
    if let Some(remark) = effective.config.clock_advice(synchronized) {
        advised.push(format!("{file}: {remark}"));
    }
    for advice in &advised {
        writeln!(out, "{advice}")?;
    }
    let count = |count: usize, one: &str, many: &str| {
        format!("{count} {}", if count == 1 { one } else { many })
    };
    writeln!(
        out,
        "{file}: can be used; {}, {}",
        count(effective.set.len(), "setting", "settings"),
        count(advised.len(), "piece of advice", "pieces of advice")
    )?;
    Ok(())
}
