//! Arguments, dispatch and exit codes.

mod augment;
mod bench_train;
mod calibrate;
mod covers;
pub use augment::AugmentOptions;
mod evaluate;
mod export;
mod finetune;
mod import;
pub use import::read_mobilefacenet;
mod liveness;
mod prepare;
mod push;
mod quantize;
mod search;
mod sign;
mod signals;
mod split;
mod train;
mod training;
mod verify;

use crate::train::memory;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Import, train, evaluate, quantize and ship the models of facelatch.
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
    Search(search::Search),
    BenchTrain(bench_train::BenchTrain),
    Calibrate(calibrate::Calibrate),
    Covers(covers::Covers),
    Evaluate(evaluate::Evaluate),
    Liveness(liveness::LivenessRates),
    Quantize(quantize::Quantize),
    Verify(verify::Verify),
    Export(export::Export),
    Sign(sign::Sign),
    Push(push::Push),
}

impl Command {
    /// Whether the command spends most of its time in training steps.
    fn trains(&self) -> bool {
        matches!(
            self,
            Self::Finetune(_)
                | Self::Train(_)
                | Self::Search(_)
                | Self::BenchTrain(_)
                | Self::Quantize(_)
        )
    }
}

/// Prints a line of a command's output.
#[expect(clippy::print_stdout, reason = "the commands' own output")]
fn say(line: &str) {
    println!("{line}");
}

/// Runs the program. Exit codes: 0 success, 1 failure, 2 wrong usage.
pub fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp(None)
        .init();
    let command = Arguments::parse().command;
    if command.trains() {
        memory::keep_freed();
    }
    let done = match command {
        Command::Import(import) => import.run(),
        Command::Prepare(prepare) => prepare.run(),
        Command::Split(split) => split.run(),
        Command::Finetune(finetune) => finetune.run(),
        Command::Train(train) => train.run(),
        Command::Search(search) => search.run(),
        Command::BenchTrain(bench) => bench.run(),
        Command::Calibrate(calibrate) => calibrate.run(),
        Command::Covers(covers) => covers.run(),
        Command::Evaluate(evaluate) => evaluate.run(),
        Command::Liveness(liveness) => liveness.run(),
        Command::Quantize(quantize) => quantize.run(),
        Command::Verify(verify) => verify.run(),
        Command::Export(export) => export.run(),
        Command::Sign(sign) => sign.run(),
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
