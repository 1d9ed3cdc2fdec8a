//! `door`: sends orders to the running service.

use super::common_args::{door_name, last_relay, read_config, service_socket};
use super::trail::Trail;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use facelatch::access::door;
use facelatch::access::event::plain;
use facelatch::audit::entry::Entry;
use facelatch::config::Config;
use facelatch::service::control::{AskError, Command, Reply, Request, ask};
use facelatch::service::last_relay::{ReleaseError, release};
use facelatch::storage::last_relay::LastRelayError;
use facelatch::storage::lockdown::LockdownFile;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Open the door, change its mode, or give the service another order
///
/// Sends the order to the running service through its socket. The service logs who gave
/// it. Exit code 0 once the order is carried out, 1 with the reason if the service refuses.
/// Without a service, lockdown and normal are kept for the next start of the door.
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
    /// Trust the clock as it is now, although it is before the last time known
    ///
    /// Compare it with another clock first: hours and open hours follow it.
    TrustClock,
    /// Reload the configuration
    Reload,
    /// Switch the relay of the last start off, if no service runs
    ///
    /// For a service that was killed. Needs no configuration: only the path given with
    /// --config counts, as the name of the door. A fail-secure lock is locked by it, a
    /// fail-safe lock opens. Takes at most some seconds.
    ReleaseRelay,
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
            Order::TrustClock => Command::TrustClock,
            Order::Reload => Command::Reload,
            Order::ReleaseRelay => return release_relay(self.config.as_deref()),
            Order::AcceptCamera => Command::AcceptCamera,
        };
        let config = read_config(self.config.as_deref())?;
        let socket = service_socket(self.socket.clone(), &config);
        let request = Request::Order(command.clone());
        let mut asked = ask(&socket, &request);
        if let (Err(AskError::Nobody { .. }), Some(holds)) = (&asked, lockdown(&command)) {
            self.belongs_to(&config, &socket)?;
            let file = LockdownFile::beside(&config.gallery_file());
            file.set(holds)?;
            let entry = Entry::new("order").with("order", &command.to_string());
            let door = door_name(self.config.as_deref());
            Trail::at(&config, door).write(vec![entry.with("state", "no service ran")]);
            // A service that was started meanwhile may have looked for the file before.
            asked = ask(&socket, &request).or_else(|error| match error {
                AskError::Nobody { .. } => Ok(Reply::from(Ok(kept(holds, file.path())))),
                error => Err(error),
            });
        }
        let reply = asked?;
        if let Some(reason) = reply.error {
            bail!("{command}: refused: {reason}");
        }
        let did = reply.did.unwrap_or_else(|| "done".to_owned());
        writeln!(anstream::stdout().lock(), "{}", plain(&did))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Whether the lockdown file of this configuration is that of the door with this socket.
    /// An error if they may be two doors.
    fn belongs_to(&self, config: &Config, socket: &Path) -> Result<()> {
        if self.socket.is_none() {
            return Ok(());
        }
        let nobody = AskError::Nobody { path: socket.to_owned() };
        if self.config.is_none() {
            bail!("{nobody}; to keep the order for its next start, name its --config as well");
        }
        let other = service_socket(None, config);
        if other != socket && ask(&other, &Request::Status).is_ok() {
            bail!("{nobody}; the service of this configuration has the socket {}", other.display());
        }
        Ok(())
    }
}

/// Switches the relay of the last start off.
fn release_relay(config: Option<&Path>) -> Result<ExitCode> {
    let file = last_relay(config);
    let did = match release(&file) {
        Ok(Some(released)) => released.to_string(),
        Ok(None) => format!("{}: no relay is kept here, nothing to release", file.path().display()),
        Err(ReleaseError::File(error @ LastRelayError::InUse { .. })) => {
            format!("{error}; nothing was done")
        }
        Err(error) => return Err(error.into()),
    };
    writeln!(anstream::stdout().lock(), "{did}")?;
    Ok(ExitCode::SUCCESS)
}

/// Whether an order begins or ends lockdown; `None` if it does neither.
fn lockdown(command: &Command) -> Option<bool> {
    match command {
        Command::Door(door::Command::Lockdown) => Some(true),
        Command::Door(door::Command::Normal) => Some(false),
        _ => None,
    }
}

/// What the next start of the door obeys.
fn kept(holds: bool, file: &Path) -> String {
    let file = file.display();
    if holds {
        format!("no service runs; lockdown will hold from its next start: {file} is written")
    } else {
        format!("no service runs; lockdown will not hold at its next start: {file} is removed")
    }
}
