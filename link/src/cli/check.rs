//! `check`: tries what the configuration names.

use super::ConfigFile;
use anyhow::Result;
use clap::Args;
use facelatch_link::config::Config;
use facelatch_link::home::Topics;
use facelatch_link::mqtt::{Client, Report};
use facelatch_link::service::{Status, status_file, wiring};
use facelatch_link::text::plain;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest time for the broker's answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// A running service has written its status within this time, seconds.
const FRESH_S: u64 = 20;

/// Check the configuration, and try its files, the door's socket and the broker
///
/// The service may run meanwhile. Exit code 1 if anything fails.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    config: ConfigFile,
}

impl Check {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.config.read()?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "ok      {}", self.config.config.display())?;
        for advice in config.advice() {
            writeln!(out, "advice  {advice}")?;
        }
        let mut failed = false;
        for (what, result) in
            [("door", door(&config)), ("broker", broker(&config)), ("webhook", webhook(&config))]
        {
            match result {
                Ok(None) => {}
                Ok(Some(text)) => writeln!(out, "ok      {what}: {text}")?,
                Err(fault) => {
                    failed = true;
                    writeln!(out, "FAILED  {what}: {fault}")?;
                }
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

type Tried = Result<Option<String>, String>;

/// Connects only if the service does not: the door has one place, and gives it to the last
/// who comes.
fn door(config: &Config) -> Tried {
    let path = &config.door.socket;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if let Ok(Status { door: Some(door), time_s, .. }) = Status::read(&status_file())
        && time_s.abs_diff(i64::try_from(now).unwrap_or(i64::MAX)) <= FRESH_S
    {
        return Ok(Some(format!("the service is connected to {}", plain(&door, 100))));
    }
    match UnixStream::connect(path) {
        Ok(_) => Ok(Some(format!("{} is open", path.display()))),
        Err(error) => Err(format!(
            "{}: {error}; does the door run, has it link.socket, and is this user in the group \
             of the socket's folder?",
            path.display()
        )),
    }
}

fn broker(config: &Config) -> Tried {
    let topics = Topics::new(&config.mqtt.prefix, &format!("check-{}", std::process::id()), None)?;
    let Some(mut settings) = wiring::broker(config, &topics)? else { return Ok(None) };
    // Neither the service's connection nor what it retains is touched.
    settings.client_id = format!("facelatch-check-{}", std::process::id());
    settings.will = None;
    let (sender, reports) = sync_channel(8);
    let client = Client::start(settings, sender).map_err(|error| error.to_string())?;
    let answer = reports.recv_timeout(PATIENCE);
    client.close(Duration::from_secs(2));
    match answer {
        Ok(Report::Connected { .. }) => {
            Ok(config.mqtt.url.as_ref().map(|url| format!("{url} accepts this program")))
        }
        Ok(Report::Lost { reason, .. }) => Err(reason),
        _ => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Nothing is posted: the receiver would have to know that it is no event.
fn webhook(config: &Config) -> Tried {
    let Some(target) = wiring::target(config)? else { return Ok(None) };
    if target.url.tls {
        target.tls.client_config().map_err(|error| error.to_string())?;
    }
    Ok(Some(format!("{} has a secret; nothing was sent", target.url)))
}
