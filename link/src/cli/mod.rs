//! Arguments, dispatch and exit codes.

mod check;
mod config;
mod forget;
mod run;
mod simulate;
mod site;
mod status;

use clap::{Args, Parser, Subcommand};
use facelatch_link::config::{Config as Settings, SYSTEM_FILE};
use facelatch_link::text::plain;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Longest line of the log, characters.
const LONGEST_LINE: usize = 2000;

/// Links a Facelatch door to Home Assistant, to a webhook, and to the other doors of its site.
///
/// The door itself has no network. It opens a socket for this program, and decides what may
/// be sent and ordered: see [link] in facelatch.toml. This program speaks to an MQTT broker
/// and to a webhook: see `facelatch-link config example`.
///
/// Exit codes: 0 all done, 1 something failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "facelatch-link", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Status(status::Status),
    Config(config::Config),
    Forget(forget::Forget),
    Site(site::Site),
    Simulate(simulate::Simulate),
}

/// The option for the configuration.
#[derive(Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = SYSTEM_FILE)]
    config: PathBuf,
}

impl ConfigFile {
    fn read(&self) -> anyhow::Result<Settings> {
        Ok(Settings::read(&self.config)?)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let service = match &command {
        Command::Run(_) => true,
        Command::Site(site) => site.is_service(),
        _ => false,
    };
    let level = if service { "info" } else { "warn" };
    let mut logger =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    // Texts of the network are made plain where they come in; this is for all others.
    logger.format(move |out, record| {
        let (level, style) = (record.level(), out.default_level_style(record.level()));
        if service {
            write!(out, "[{} ", out.timestamp())?;
        } else {
            write!(out, "[")?;
        }
        let text = plain(&record.args().to_string(), LONGEST_LINE);
        writeln!(out, "{style}{level:<5}{style:#}] {text}")
    });
    logger.init();
    let done = match command {
        Command::Run(run) => run.run(),
        Command::Check(check) => check.run(),
        Command::Status(status) => status.run(),
        Command::Config(config) => config.run(),
        Command::Forget(forget) => forget.run(),
        Command::Site(site) => site.run(),
        Command::Simulate(simulate) => simulate.run(),
    };
    match done {
        Ok(code) => code,
        // A reader that has seen enough, like `head`, is no failure of ours.
        Err(error) if broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    let pipe = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref().is_some_and(pipe)
}
