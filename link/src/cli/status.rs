//! `status`: what the running service says of itself.

use anyhow::{Context, Result};
use clap::Args;
use facelatch_link::service::{self, status_file};
use facelatch_link::text::plain;
use std::io::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// The service writes its status every 10 seconds.
const STALE_S: i64 = 30;

/// Show whether door and broker are connected, and what has arrived
///
/// Exit code 1 if the service does not run, or something is wrong.
#[derive(Args)]
pub struct Status {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Status {
    pub fn run(self) -> Result<ExitCode> {
        let path = status_file();
        let status = service::Status::read(&path)
            .with_context(|| format!("{}: does facelatch-link run?", path.display()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let age = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(status.time_s);
        let stale = age > STALE_S;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&status)?)?;
        } else {
            if stale {
                writeln!(out, "facelatch-link does not run; {age} seconds ago it said:")?;
            }
            match &status.door {
                Some(door) => writeln!(out, "door:    {}", plain(door, 100))?,
                None => writeln!(out, "door:    away")?,
            }
            if let Some(broker) = status.broker {
                writeln!(out, "broker:  {}", if broker { "connected" } else { "away" })?;
            }
            for (name, cursor) in
                [("broker", status.arrived.mqtt), ("webhook", status.arrived.webhook)]
            {
                if let Some(number) = cursor {
                    writeln!(out, "events:  the {name} has all up to number {number}")?;
                }
            }
            if status.waiting > 0 {
                writeln!(out, "waiting: {} events or more", status.waiting)?;
            }
            for (place, fault) in &status.faults {
                writeln!(out, "fault:   {}: {}", plain(place, 40), plain(fault, 400))?;
            }
        }
        let well = !stale && status.faults.is_empty();
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
