//! `push`: installs a model set on a device.

use super::say;
use crate::data::photos;
use crate::deliver::push::{Host, Set, check_groups, check_signature};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use facelatch::nn::Precision;
use facelatch::storage::models::{Checked, check_folder};
use serde::Deserialize;
use std::path::PathBuf;

/// Copy a model set to a device over ssh and switch the device to it.
///
/// A set is refused if the worst group in its manifest has a false accept rate of more than
/// twice the stated one. The set is checked here, sent, and checked again on the device
/// (digests, shapes and self-test) before the device switches. The device computes new templates of all enrolled
/// people from the face pictures it keeps. If anything fails, the device keeps its current
/// models. `facelatch models rollback` on the device returns to the previous set.
#[derive(Args)]
pub struct Push {
    /// The device as ssh takes it: HOST or USER@HOST. Log in as the user that runs the door
    host: String,
    /// Folder of the model set
    #[arg(long, value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Folder of installed models on the device [default: as in its configuration]
    #[arg(long, value_name = "DIR")]
    store: Option<String>,
    /// Configuration file on the device, which gives the paths of gallery and models
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Port of sshd on the device [default: as ssh is configured]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Private key file for ssh
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// ssh configuration file to use instead of your own
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// Path of the facelatch program on the device
    #[arg(long, value_name = "PATH", default_value = "facelatch")]
    facelatch: String,
    /// Precision in which the door runs the networks
    #[arg(
        long,
        default_value_t,
        value_parser = PossibleValuesParser::new(["int8", "float"]).try_map(|name| name.parse::<Precision>()),
    )]
    precision: Precision,
    /// Send the set even if its worst group exceeds the stated false accept rate by more than
    /// twice; the log then names the group and its rate
    #[arg(long)]
    accept_group_rate: bool,
    /// Send the set even if it is not signed, or by a key that the device does not trust; the
    /// device then warns of it
    #[arg(long)]
    unsigned: bool,
    /// Send the set even if it is older than the newest one installed there
    #[arg(long)]
    downgrade: bool,
    /// Accept a threshold that is lower than that of the set in use there
    #[arg(long)]
    yes: bool,
    /// Put the set on trial for this time, like 48h: the device runs it beside the set in use
    /// and switches to it if both agree
    #[arg(long, value_name = "TIME")]
    shadow: Option<String>,
    /// Check the set here and show the set in use on the device, but send nothing
    #[arg(long)]
    dry_run: bool,
}

/// The fields used of a line of `facelatch models list --json`.
#[derive(Deserialize)]
struct SetLine {
    set: String,
    state: String,
}

impl Push {
    pub fn run(self) -> Result<()> {
        let host = self.device();
        host.check()?;
        // The device would refuse a bad set, so check before sending.
        let Checked { models, files, report, .. } = check_folder(&self.models, self.precision)?;
        if report.is_none() {
            log::warn!(
                "{}: no self-test, so the device cannot verify its results; export and quantize write one",
                self.models.display()
            );
        }
        let shown = self.models.display();
        let warning = check_groups(models.worst_group(), self.accept_group_rate)
            .with_context(|| shown.to_string())?;
        if let Some(warning) = warning {
            log::warn!("{shown}: {warning}");
        }
        let signed = check_signature(&self.models, &models, self.unsigned)?;
        let set = Set::read(&self.models, &files)?;
        let (count, size) = (set.len(), set.bytes() as f64 / 1e6);
        let version = &models.manifest.version;
        say(&format!("here      {version}, {count} files, {size:.2} MB; {signed}"));

        let answer = host.ask(&["models", "list", "--json"])?;
        let used = in_use(&answer.said).with_context(|| {
            format!("{}: the answer names no set in use; update facelatch there", host.name)
        })?;
        say(&format!("there     {used} is in use"));
        if self.dry_run {
            say("sent      nothing (--dry-run)");
            return Ok(());
        }
        let bar = photos::progress(set.bytes(), "sending");
        let sent = |bytes: usize| bar.inc(bytes as u64);
        let install = self.install();
        let install: Vec<&str> = install.iter().map(String::as_str).collect();
        let done = host.send(&install, &set, sent);
        bar.finish_and_clear();
        done
    }

    /// The command that installs the set there. Options that are not used are left out, so
    /// that an older device understands it.
    fn install(&self) -> Vec<String> {
        let mut words: Vec<String> = ["models", "install", "-"].map(str::to_owned).into();
        for (option, used) in [
            ("--unsigned", self.unsigned),
            ("--downgrade", self.downgrade),
            ("--yes", self.yes),
            ("--accept-group-rate", self.accept_group_rate),
        ] {
            words.extend(used.then(|| option.to_owned()));
        }
        words.extend(self.shadow.iter().flat_map(|time| ["--shadow".to_owned(), time.clone()]));
        words
    }

    fn device(&self) -> Host {
        let mut options = Vec::new();
        for (name, value) in [("--store", &self.store), ("--config", &self.config)] {
            if let Some(value) = value {
                options.extend([name.to_owned(), value.clone()]);
            }
        }
        if self.precision != Precision::default() {
            options.extend(["--precision".to_owned(), self.precision.to_string()]);
        }
        Host {
            name: self.host.clone(),
            port: self.port,
            identity: self.identity.clone(),
            ssh_config: self.ssh_config.clone(),
            facelatch: self.facelatch.clone(),
            options,
        }
    }
}

/// The name of the set in use, from the device's list; `None` if no line names it.
fn in_use(listed: &str) -> Option<String> {
    let lines = listed.lines().filter_map(|line| serde_json::from_str::<SetLine>(line).ok());
    lines.filter(|line| line.state == "current").map(|line| line.set).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_in_use_is_found_among_others() {
        let listed = "{\"set\":\"1+aa\",\"state\":\"previous\",\"version\":\"1\"}\n\
                      {\"set\":\"2+bb\",\"state\":\"current\"}\nsomething else\n";
        assert_eq!(in_use(listed).as_deref(), Some("2+bb"));
        assert_eq!(in_use("Welcome to the door!\n"), None);
    }
}
