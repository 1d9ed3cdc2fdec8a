//! `sign`: signs a model set.

use super::say;
use crate::deliver::agent::Agent;
use crate::deliver::sign::{Key, Signed, sign};
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Sign a model set, so that doors that trust the key install it.
///
/// Writes the time into manifest.toml and a signature of it into manifest.sig, which through
/// the digests in the manifest and the self-test covers every file. Create a key with
/// ssh-keygen -t ed25519, and add the line of its .pub file to models.trusted_keys of the
/// doors. Sign last: every change of the set makes the signature invalid.
#[derive(Args)]
pub struct Sign {
    /// Folder of the model set, or a tar of it
    set: PathBuf,
    /// Private key file, as ssh-keygen -t ed25519 -N "" writes it
    #[arg(long, value_name = "FILE", required_unless_present = "agent", conflicts_with = "agent")]
    key: Option<PathBuf>,
    /// Sign with a key in ssh-agent, named by fingerprint, comment or .pub file [default: its
    /// only ed25519 key]
    #[arg(long, value_name = "KEY", num_args = 0..=1)]
    agent: Option<Option<String>>,
}

impl Sign {
    pub fn run(self) -> Result<()> {
        let mut key = match (&self.key, &self.agent) {
            (Some(file), _) => Key::read(file)?,
            (None, agent) => {
                let name = agent.as_ref().and_then(Option::as_deref);
                let mut agent = Agent::of_environment()?;
                let key = agent.find(name)?;
                Key::Agent(agent, key)
            }
        };
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let unix = i64::try_from(now.as_secs()).context("the clock is beyond the calendar")?;
        let Signed { version, files, at, key } = sign(&self.set, &mut key, unix)?;
        say(&format!(
            "{}: version {version}, {files} files, signed at {at} by {}",
            self.set.display(),
            key.fingerprint()
        ));
        say(&format!("trusted by doors with \"{key}\" in models.trusted_keys"));
        Ok(())
    }
}
