//! `forget`: removes the door from the broker and from Home Assistant.

use super::ConfigFile;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use facelatch_link::events::cursor::CursorFile;
use facelatch_link::home::Topics;
use facelatch_link::mqtt::{Client, Publish, Qos, Report};
use facelatch_link::service::wiring;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Longest time for all answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// Remove the door from Home Assistant, and all that the broker retains of it
///
/// Stop the service first, or it announces the door again. Records of a site stay: the
/// other doors need them.
#[derive(Args)]
pub struct Forget {
    #[command(flatten)]
    config: ConfigFile,
    /// Number of the door, as in topics [default: the door that this program linked last]
    #[arg(long, value_name = "NUMBER")]
    door: Option<String>,
    /// Site of the door, with --door [default: none]
    #[arg(long, value_name = "SITE", requires = "door")]
    site: Option<String>,
}

impl Forget {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.config.read()?;
        let (door, site) = match self.door {
            Some(door) => (door, self.site),
            None => {
                let file = CursorFile::new(&config.service.state);
                let known = file.load().map_err(|fault| anyhow!(fault))?;
                let known = known.filter(|known| !known.door.is_empty()).with_context(|| {
                    let path = file.path().display();
                    format!("{path}: no door was linked here; name one with --door")
                })?;
                (known.door, known.site)
            }
        };
        let prefix = &config.mqtt.prefix;
        let topics = Topics::new(prefix, &door, site.as_deref()).map_err(|fault| anyhow!(fault))?;
        let settings = wiring::broker(&config, &topics).map_err(|fault| anyhow!(fault))?;
        let mut settings = settings.context("mqtt.url is not set, so that nothing is retained")?;
        // With the client identifier of the service, so that a broker's ACL fits, and so
        // that the will of a service that was killed is not published afterwards.
        settings.will = None;
        let mut gone = topics.retained();
        gone.insert(0, topics.discovery(&config.home_assistant.prefix));

        let (sender, reports) = sync_channel(64);
        let client = Client::start(settings, sender)?;
        let until = Instant::now() + PATIENCE;
        let mut waiting = gone.len();
        while waiting > 0 {
            let rest = until.saturating_duration_since(Instant::now());
            match reports.recv_timeout(rest) {
                Ok(Report::Connected { session }) => {
                    for (ticket, topic) in (0..).zip(&gone) {
                        let publish = Publish {
                            topic: topic.clone(),
                            qos: Qos::AtLeastOnce,
                            retain: true,
                            ..Publish::default()
                        };
                        let sent = client.publish(session, ticket, publish);
                        sent.map_err(|_| anyhow!("too many topics"))?;
                    }
                }
                Ok(Report::Published { .. }) => waiting -= 1,
                Ok(Report::Refused { reason, ticket }) => {
                    let topic = usize::try_from(ticket).ok().and_then(|at| gone.get(at));
                    bail!("{}: {reason}", topic.map_or("", String::as_str));
                }
                Ok(Report::Lost { reason, .. }) => bail!(reason),
                Ok(_) => {}
                Err(_) => bail!("no answer of the broker within {} s", PATIENCE.as_secs()),
            }
        }
        client.close(Duration::from_secs(2));
        let mut out = std::io::stdout().lock();
        writeln!(out, "door {door} is removed from {} topics", gone.len())?;
        Ok(ExitCode::SUCCESS)
    }
}
