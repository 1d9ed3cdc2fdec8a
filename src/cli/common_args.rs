//! Shared by several commands: the arguments for configuration, models and gallery, and
//! opening them.

use super::model_args::ModelArgs;
use anyhow::{Context, Result};
use clap::Args;
use facelatch::config::{Config, ConfigError, SOCKET, SYSTEM_FOLDER, state_folder};
use facelatch::models::Models;
use facelatch::nn::Precision;
use facelatch::storage::last_relay::LastRelayFile;
use facelatch::storage::models::ModelStore;
use std::path::{Path, PathBuf};

/// Path of the configuration installed by the package.
const SYSTEM_CONFIG: &str = "/etc/facelatch/facelatch.toml";

/// Help of `--camera`.
pub const CAMERA: &str = "Camera: v4l:/dev/video0, v4l:name=PART OF ITS NAME, v4l:usb=SOCKET, \
    pipe:'COMMAND', images:DIR, images:'PATTERN?fps=10&loop' or nokhwa:0; facelatch config example \
    has their options";
/// Help of `--relay`.
pub const RELAY: &str = "Relay: gpio:GPIO17, gpio:/dev/gpiochip0/17, serial:/dev/ttyUSB0?channel=1, \
    serial:/dev/ttyUSB0?protocol=modbus&unit=1&channel=1 or log:; facelatch config example has \
    their options";
/// Appended to [`CAMERA`] or [`RELAY`] if the configuration supplies the default.
pub const OF_CONFIGURATION: &str = " [default: from the configuration]";

/// Arguments for configuration, models and gallery.
#[derive(Args, Clone)]
pub struct CommonArgs {
    /// Configuration file [default: /etc/facelatch/facelatch.toml if it exists, else the
    /// default of every setting]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Gallery file [default: from the configuration, else gallery.redb in the user's data
    /// folder]
    #[arg(long, value_name = "FILE", global = true)]
    gallery: Option<PathBuf>,
    /// Folder of installed models [default: from the configuration, else models beside the
    /// gallery]
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
    #[command(flatten)]
    models: ModelArgs,
}

impl CommonArgs {
    /// Reads the configuration. `--gallery` and `--store` override its values.
    pub fn config(&self) -> Result<Config> {
        let mut config = read_config(self.config.as_deref())?;
        if let Some(file) = &self.gallery {
            config.gallery.file = Some(file.clone());
        }
        if let Some(store) = &self.store {
            config.models.folder = Some(store.clone());
        }
        Ok(config)
    }

    /// The path of the configuration file, or a text saying that there is none.
    pub fn config_name(&self) -> String {
        match config_file(self.config.as_deref()) {
            Some(path) => path.display().to_string(),
            None => "none; every setting has its default".to_owned(),
        }
    }

    /// Name of the door in the audit log.
    pub fn door(&self) -> Option<String> {
        door_name(self.config.as_deref())
    }

    /// Where the relay of this door is kept for the next start.
    pub fn last_relay(&self) -> LastRelayFile {
        last_relay(self.config.as_deref())
    }

    /// Opens the models chosen on the command line, or else the installed set.
    pub fn models(&self, config: &Config) -> Result<Models> {
        self.models.open_in(&config.model_store())
    }

    /// The folder given with `--models`, if any.
    pub fn models_folder(&self) -> Option<&Path> {
        self.models.folder()
    }

    /// The store whose current set may change while a service runs. `None` if `--models`
    /// gave a folder.
    pub fn model_store(&self, config: &Config) -> Option<ModelStore> {
        self.models.folder().is_none().then(|| ModelStore::new(&config.model_store()))
    }

    /// The arithmetic of the networks.
    pub fn precision(&self) -> Precision {
        self.models.precision()
    }
}

/// Name of a door in the audit log: that of its configuration file without its ending.
/// `None` for the system's configuration.
pub fn door_name(config: Option<&Path>) -> Option<String> {
    let named = config.filter(|path| *path != Path::new(SYSTEM_CONFIG))?;
    Some(named.file_stem()?.to_string_lossy().into_owned())
}

/// The configuration file to read: `named`, else the system's if it exists.
pub fn config_file(named: Option<&Path>) -> Option<&Path> {
    let system = Path::new(SYSTEM_CONFIG);
    named.or_else(|| system.exists().then_some(system))
}

/// Where the relay of the door with this configuration is kept for the next start. The
/// file need not exist.
pub fn last_relay(named: Option<&Path>) -> LastRelayFile {
    LastRelayFile::of(&state_folder(), named.unwrap_or(Path::new(SYSTEM_CONFIG)))
}

/// Reads the file of [`config_file`]; without one, every setting has its default.
pub fn read_config(named: Option<&Path>) -> Result<Config, ConfigError> {
    config_file(named).map_or_else(|| Ok(Config::default()), Config::read)
}

/// The URI given with `--camera`, else that of the configuration.
pub fn camera_uri(given: Option<String>, config: &Config) -> Result<String> {
    given.or_else(|| config.camera.uri.clone()).context(
        "no camera: name one with --camera, or with uri under [camera] in the configuration",
    )
}

/// The socket of the running service: as given or configured, else this user's socket if
/// it exists, else the system's.
pub fn service_socket(given: Option<PathBuf>, config: &Config) -> PathBuf {
    let own = config.status_socket();
    let wanted = config.service.status_socket.is_some() || own.exists();
    let system = Path::new(SYSTEM_FOLDER);
    given.unwrap_or_else(|| if wanted || !system.is_dir() { own } else { system.join(SOCKET) })
}

#[cfg(test)]
mod tests {
    use super::super::{camera, enroll, run};
    use super::*;
    use clap::Command;

    #[test]
    fn every_kind_of_camera_and_relay_is_in_the_help_of_every_command() {
        let shot = camera::Camera::augment_args(Command::new("camera"));
        let shot = shot.find_subcommand("shot").expect("a command").clone();
        let run = run::Run::augment_args(Command::new("run"));
        let enroll = enroll::Enroll::augment_args(Command::new("enroll"));
        let help = |command: &Command, name: &str| {
            let argument = command.get_arguments().find(|argument| argument.get_id() == name);
            argument.and_then(|argument| argument.get_help()).expect("a help").to_string()
        };
        for command in [&shot, &run, &enroll] {
            let help = help(command, "camera");
            for kind in ["v4l:/", "v4l:name=", "v4l:usb=", "pipe:", "images:", "nokhwa:"] {
                assert!(help.contains(kind), "{kind}: {help}");
            }
            let default = help.ends_with(OF_CONFIGURATION);
            assert_eq!(default, command.get_name() != "enroll", "{help}");
        }
        let help = help(&run, "relay");
        for kind in ["gpio:", "serial:", "protocol=modbus", "log:"] {
            assert!(help.contains(kind), "{kind}: {help}");
        }
    }
}
