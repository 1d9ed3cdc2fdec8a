//! `facelatch-tools`: the host side of facelatch.

use facelatch_tools::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
