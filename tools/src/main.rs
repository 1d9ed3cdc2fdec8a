//! `facelatch-tools`: the workstation program that prepares data, trains and ships models.

use facelatch_tools::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
