//! Arguments, dispatch and exit codes.

mod detect;
mod embed;
mod pictures;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Face recognition for a door: finds faces and turns them into embeddings.
///
/// Exit codes: 0 all done, 1 something failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "facelatch", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Detect(detect::Detect),
    Embed(embed::Embed),
}

/// Runs the program.
pub fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp(None)
        .init();
    let done = match Arguments::parse().command {
        Command::Detect(detect) => detect.run(),
        Command::Embed(embed) => embed.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
