//! `[service]`: control socket, power saving and watchdog.

use super::fault::{Fault, seconds};
use super::unit::time;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Folder of the control socket when root or the packaged service runs it.
pub const SYSTEM_FOLDER: &str = "/run/facelatch";
/// File name of the control socket.
pub const SOCKET: &str = "control.sock";
/// Range of the interval between looks at an empty corridor, seconds: a person who appears
/// without a pixel changing waits for up to this time.
const IDLE_LOOK_EVERY: (f64, f64) = (0.1, 10.0);
/// Range of the watchdog, seconds. One pass of the networks takes seconds on an emulated
/// board.
const WATCHDOG: (f64, f64) = (2.0, 600.0);

/// `[service]`: control socket, power saving and watchdog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [service]")]
pub struct ServiceConfig {
    /// Local control socket; see [`super::Config::status_socket`] for the default.
    pub status_socket: Option<PathBuf>,
    /// Skip frames in which nothing moves.
    pub power_saving: bool,
    /// Interval at which a frame is examined although nothing moves, 100 ms to 10 s.
    #[serde(with = "time")]
    pub idle_look_every: Duration,
    /// End the service when the recognizer or the camera has been silent for this time, 2 s
    /// to 10 minutes; zero turns this off.
    #[serde(with = "time")]
    pub watchdog: Duration,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            status_socket: None,
            power_saving: true,
            idle_look_every: Duration::from_secs(1),
            watchdog: Duration::from_secs(20),
        }
    }
}

impl super::Config {
    /// Checks the ranges of this table.
    pub(super) fn check_service(&self) -> Result<(), Fault> {
        let service = &self.service;
        seconds("service.idle_look_every", service.idle_look_every, IDLE_LOOK_EVERY)?;
        if service.watchdog.is_zero() {
            return Ok(());
        }
        seconds("service.watchdog", service.watchdog, WATCHDOG).map_err(|fault| Fault {
            text: format!("{}, or \"0s\" to turn it off", fault.text),
            ..fault
        })
    }

    /// Path of the control socket, which serves counters and takes commands.
    pub fn status_socket(&self) -> PathBuf {
        self.service.status_socket.clone().unwrap_or_else(|| {
            let user = rustix::process::getuid();
            default_socket(user.as_raw(), |name| std::env::var_os(name))
        })
    }

    /// Time for which a thread may be silent; `None` if the watchdog is off.
    pub fn watchdog(&self) -> Option<Duration> {
        Some(self.service.watchdog).filter(|watchdog| !watchdog.is_zero())
    }
}

/// `control.sock` in the folder that systemd made for the service, else in
/// `/run/facelatch` for root and in `facelatch` of the user's own runtime folder.
fn default_socket(user: u32, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(folders) = set("RUNTIME_DIRECTORY") {
        // Several folders are separated by colons.
        let first = std::env::split_paths(&folders).next();
        return first.unwrap_or_else(|| SYSTEM_FOLDER.into()).join(SOCKET);
    }
    if user == 0 {
        return PathBuf::from(SYSTEM_FOLDER).join(SOCKET);
    }
    let own = set("XDG_RUNTIME_DIR").map(PathBuf::from);
    own.unwrap_or_else(|| format!("/run/user/{user}").into()).join("facelatch").join(SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_systemd_root_or_the_user_has_room() {
        let socket = |user, set: &[(&str, &str)]| {
            let value = |name: &str| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            default_socket(user, value).display().to_string()
        };
        let xdg = ("XDG_RUNTIME_DIR", "/run/user/1000");
        assert_eq!(socket(0, &[xdg]), "/run/facelatch/control.sock");
        assert_eq!(socket(1000, &[xdg]), "/run/user/1000/facelatch/control.sock");
        assert_eq!(
            socket(1001, &[("XDG_RUNTIME_DIR", "")]),
            "/run/user/1001/facelatch/control.sock"
        );
        let made = ("RUNTIME_DIRECTORY", "/run/facelatch:/run/other");
        assert_eq!(socket(998, &[made, xdg]), "/run/facelatch/control.sock");
    }
}
