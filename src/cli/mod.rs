//! Arguments, dispatch and exit codes.

mod bench;
mod camera;
mod check;
mod common_args;
mod config;
mod demo;
mod detect;
mod door;
mod embed;
mod enroll;
mod identify;
mod image_args;
mod key;
mod log;
mod model_args;
mod models;
mod passphrase;
mod people;
mod run;
mod save;
mod site;
mod status;
mod stdout;
mod trail;

use clap::{Parser, Subcommand};
use env_logger::{Target, WriteStyle};
use facelatch::access::event::plain;
use facelatch::service::LAST_WORDS;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use stdout::StdoutWriter;

/// Opens a door for the people it knows.
///
/// Begin with `facelatch demo`: it shows the whole of it with nothing attached.
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
    Demo(demo::Demo),
    Run(run::Run),
    Enroll(enroll::Enroll),
    People(people::People),
    Detect(detect::Detect),
    Embed(embed::Embed),
    Identify(identify::Identify),
    Key(key::Key),
    Check(check::Check),
    Camera(camera::Camera),
    Status(status::Status),
    Door(door::Door),
    Site(site::Site),
    Log(log::Log),
    Models(models::Models),
    Config(config::Config),
    Bench(bench::Bench),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let service = matches!(command, Command::Run(_));
    let mut logger =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(if service {
            "info"
        } else {
            "warn"
        }));
    // A log that nobody reads must not hold up the door.
    let log = service.then(|| StdoutWriter::new(std::io::stderr())).and_then(Result::ok);
    if let Some(log) = &log {
        let colours = std::io::stderr().is_terminal();
        logger.write_style(if colours { WriteStyle::Always } else { WriteStyle::Never });
        logger.target(Target::Pipe(Box::new(log.clone())));
    }
    // Names, replies and reasons come from outside: no line of the log can be forged by one.
    logger.format(move |out, record| {
        let (level, style) = (record.level(), out.default_level_style(record.level()));
        if service {
            write!(out, "[{} ", out.timestamp())?;
        } else {
            write!(out, "[")?;
        }
        writeln!(out, "{style}{level:<5}{style:#}] {}", plain(&record.args().to_string()))
    });
    logger.init();
    no_core_dumps();
    let done = match command {
        Command::Demo(demo) => demo.run(),
        Command::Run(run) => run.run(),
        Command::Enroll(enroll) => enroll.run(),
        Command::People(people) => people.run(),
        Command::Detect(detect) => detect.run(),
        Command::Embed(embed) => embed.run(),
        Command::Identify(identify) => identify.run(),
        Command::Key(key) => key.run(),
        Command::Check(check) => check.run(),
        Command::Camera(camera) => camera.run(),
        Command::Status(status) => status.run(),
        Command::Door(door) => door.run(),
        Command::Site(site) => site.run(),
        Command::Log(log) => log.run(),
        Command::Models(models) => models.run(),
        Command::Config(config) => config.run(),
        Command::Bench(bench) => bench.run(),
    };
    let code = match done {
        Ok(code) => code,
        // A reader that has seen enough, like `head`, is no failure of ours.
        Err(error) if broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            ::log::error!("{error:#}");
            ExitCode::FAILURE
        }
    };
    if let Some(log) = log {
        log.finish(LAST_WORDS);
    }
    code
}

/// Keeps keys and templates out of core dumps, and other processes of the user from reading
/// this one's memory.
fn no_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    // A program that handles core dumps gets them whatever the limit is.
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = limited.and(hidden) {
        ::log::warn!("core dumps cannot be switched off ({error}); they would hold keys and faces");
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind)
            .or_else(|| cause.downcast_ref::<serde_json::Error>().and_then(|e| e.io_error_kind()));
        kind == Some(std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
