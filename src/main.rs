//! `facelatch`: the program on the door.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
