//! `door`: what the running service is told to do.

use super::common_args::{read_config, service_socket};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use facelatch::access::door;
use facelatch::service::control::{Command, Request, ask};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Open the door, or change what holds for it
///
/// The running service is told through its socket, and who ordered it is in its log.
/// Exit code 0 once it is done, 1 if the service refuses, with its reason.
#[derive(Args)]
pub struct Door {
    #[command(subcommand)]
    order: Order,
    /// Configuration file of the service [default: /etc/facelatch/facelatch.toml where there is
    /// one, else every setting's default]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Socket of the service [default: that of the configuration, the user's own or the system's]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
}

#[derive(Clone, Copy, Subcommand)]
enum Order {
    /// Open once, as if somebody known stood there
    Open,
    /// Let nobody in, until "normal"; whoever wants to leave may
    Lockdown,
    /// End lockdown and always open
    Normal,
    /// Stay open, until "normal" or "lockdown"
    AlwaysOpen,
    /// Let the very first person enroll with the button, for some minutes
    LocalReset,
    /// Read the configuration anew
    Reload,
}

impl Door {
    pub fn run(self) -> Result<ExitCode> {
        let command = match self.order {
            Order::Open => Command::Door(door::Command::Open),
            Order::Lockdown => Command::Door(door::Command::Lockdown),
            Order::Normal => Command::Door(door::Command::Normal),
            Order::AlwaysOpen => Command::Door(door::Command::AlwaysOpen),
            Order::LocalReset => Command::LocalReset,
            Order::Reload => Command::Reload,
        };
        let config = read_config(self.config.as_deref())?;
        let socket = service_socket(self.socket, &config);
        let reply = ask(&socket, &Request::Order(command.clone()))?;
        if let Some(reason) = reply.error {
            bail!("{command}: refused: {reason}");
        }
        let did = reply.did.unwrap_or_else(|| "done".to_owned());
        writeln!(anstream::stdout().lock(), "{did}")?;
        Ok(ExitCode::SUCCESS)
    }
}
