//! Arguments, dispatch and exit codes.

mod augment;
mod calibrate;
pub use augment::AugmentOptions;
mod evaluate;
mod export;
mod finetune;
mod import;
pub use import::read_mobilefacenet;
mod prepare;
mod push;
mod quantize;
mod signals;
mod split;
mod train;
mod training;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Import, train and evaluate the models of facelatch.
#[derive(Parser)]
#[command(name = "facelatch-tools", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Import(import::Import),
    Prepare(prepare::Prepare),
    Split(split::Split),
    Finetune(finetune::Finetune),
    Train(train::Train),
    Calibrate(calibrate::Calibrate),
    Evaluate(evaluate::Evaluate),
    Quantize(quantize::Quantize),
    Verify(verify::Verify),
    Export(export::Export),
    Push(push::Push),
}

/// Runs the program: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp(None)
        .init();
    let done = match Arguments::parse().command {
        Command::Import(import) => import.run(),
        Command::Prepare(prepare) => prepare.run(),
        Command::Split(split) => split.run(),
        Command::Finetune(finetune) => finetune.run(),
        Command::Train(train) => train.run(),
        Command::Calibrate(calibrate) => calibrate.run(),
        Command::Evaluate(evaluate) => evaluate.run(),
        Command::Quantize(quantize) => quantize.run(),
        Command::Verify(verify) => verify.run(),
        Command::Export(export) => export.run(),
        Command::Push(push) => push.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
