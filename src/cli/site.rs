//! `site`: the site that the door belongs to.

use super::common_args::{read_config, service_socket};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use facelatch::access::event::plain;
use facelatch::service::control::{Command, Request, ask};
use facelatch::service::site::SiteOrder;
use facelatch_site::Code;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Join a site of doors, show how this door stands with it, or leave it
///
/// Doors of a site share people, removals and passages by way of facelatch-link. The site's
/// public key is site.key in the configuration. The running service carries the order out;
/// it needs the role administrator.
#[derive(Args)]
pub struct Site {
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

#[derive(Clone, Subcommand)]
enum Order {
    /// Ask the site to admit this door
    ///
    /// The code is good for ten minutes, and the request is repeated for as long. Compare
    /// the fingerprint with what the office shows.
    Join {
        /// The code that the office gave for this door, as facelatch-link site admit shows it
        code: String,
    },
    /// Show whether the door is admitted, its groups, what it lacks and until when the rules
    /// hold
    Show,
    /// Forget the site; its people stay as people of this door alone
    Leave,
}

impl Site {
    pub fn run(self) -> Result<ExitCode> {
        let order = match &self.order {
            Order::Join { code } => SiteOrder::Join(code.parse::<Code>()?),
            Order::Show => SiteOrder::Show,
            Order::Leave => SiteOrder::Leave,
        };
        let config = read_config(self.config.as_deref())?;
        let socket = service_socket(self.socket.clone(), &config);
        let command = Command::Site(order);
        let reply = ask(&socket, &Request::Order(command.clone()))?;
        if let Some(reason) = reply.error {
            bail!("{command}: refused: {reason}");
        }
        let did = reply.did.unwrap_or_else(|| "done".to_owned());
        let mut out = anstream::stdout().lock();
        for line in did.split("; ") {
            writeln!(out, "{}", plain(line))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
