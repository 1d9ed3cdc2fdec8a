//! `push`: a set of models to a device.

use super::say;
use crate::data::photos;
use crate::deliver::push::{Host, Set};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use facelatch::nn::Precision;
use facelatch::storage::models::{Checked, check_folder};
use serde::Deserialize;
use std::path::PathBuf;

/// Copy a set of models to a device over ssh and use it there.
///
/// It is checked here, sent, and checked again there, digests, shapes and self-test,
/// before the device switches to it; everybody enrolled is carried over by the pictures
/// kept of them. Whatever goes wrong, the models in use there stay in use, and
/// facelatch models rollback goes back to them afterwards.
#[derive(Args)]
pub struct Push {
    /// The device, as ssh knows it: HOST, USER@HOST; the user its door runs as
    host: String,
    /// Folder of the set
    #[arg(long, value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Folder of installed models there [default: that of its configuration]
    #[arg(long, value_name = "DIR")]
    store: Option<String>,
    /// Configuration file there, which says where gallery and models are
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Where sshd listens
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Private key
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Configuration of ssh, in the place of your own
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// The program there
    #[arg(long, value_name = "PATH", default_value = "facelatch")]
    facelatch: String,
    /// Arithmetic of the networks, as the door there runs them
    #[arg(
        long,
        default_value_t,
        value_parser = PossibleValuesParser::new(["int8", "float"]).try_map(|name| name.parse::<Precision>()),
    )]
    precision: Precision,
    /// Only look: check the set here, and what is used there
    #[arg(long)]
    dry_run: bool,
}

/// What is needed of a line of `facelatch models list --json`.
#[derive(Deserialize)]
struct SetLine {
    set: String,
    state: String,
}

impl Push {
    pub fn run(self) -> Result<()> {
        let host = self.device();
        host.check()?;
        // What would be refused there is refused here, before it is on its way.
        let Checked { models, files, report, .. } = check_folder(&self.models, self.precision)?;
        if report.is_none() {
            log::warn!(
                "{}: no self-test in it, so the device cannot tell whether it computes the same; export and quantize write one",
                self.models.display()
            );
        }
        let set = Set::read(&self.models, &files)?;
        let (count, size) = (set.len(), set.bytes() as f64 / 1e6);
        let version = &models.manifest.version;
        say(&format!("here      {version}, {count} files, {size:.2} MB"));

        let answer = host.ask(&["models", "list", "--json"])?;
        let used = in_use(&answer.said)
            .with_context(|| format!("{}: an answer of another facelatch; update it", host.name))?;
        say(&format!("there     {used} is in use"));
        if self.dry_run {
            say("sent      nothing, as asked");
            return Ok(());
        }
        let bar = photos::progress(set.bytes(), "sending");
        let sent = |bytes: usize| bar.inc(bytes as u64);
        let done = host.send(&["models", "install", "-"], &set, sent);
        bar.finish_and_clear();
        done
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

/// The set in use, of what the device lists.
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
