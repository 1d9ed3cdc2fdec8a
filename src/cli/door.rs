//! `door`: sends orders to the running service.

use super::common_args::{read_config, service_socket};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use facelatch::access::door;
use facelatch::service::control::{Command, Request, ask};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Open the door, change its mode, or give the service another order
///
/// Sends the order to the running service through its socket. The service logs who gave
/// it. Exit code 0 once the order is carried out, 1 with the reason if the service refuses.
#[derive(Args)]
pub struct Door {
    #[command(subcommand)]
    order: Order,
    /// Configuration file of the service [default: /etc/facelatch/facelatch.toml if it
    /// exists, else the default of every setting]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Socket of the service [default: from the configuration, else the user's, else the
    /// system's]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
}

#[derive(Clone, Copy, Subcommand)]
enum Order {
    /// Open once, as for a recognized person
    Open,
    /// Admit nobody until "normal"; people inside can still leave
    Lockdown,
    /// Return to normal: end "lockdown" and "always-open"
    Normal,
    /// Keep the door open until "normal" or "lockdown"
    AlwaysOpen,
    /// Let the first person enroll with the button, within enroll.first_within
    LocalReset,
    /// Reload the configuration
    Reload,
    /// Trust another camera than before, after looking at it
    ///
    /// If a camera with another model, serial number or USB socket answers, the service
    /// raises an alarm, and faces count for nothing until then. A restart of the service
    /// trusts the camera that it finds.
    AcceptCamera,
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
            Order::AcceptCamera => Command::AcceptCamera,
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
