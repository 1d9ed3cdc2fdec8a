//! EDGE: finds a line among the chips, requests it, and explains failures.

use super::line::{Bias, Chip, Line, Place};
use gpiocdev::line::Offset;
use gpiocdev::request::Builder;
use gpiocdev::{Error, Request};
use std::path::{Path, PathBuf};
use thiserror::Error as ErrorTrait;

/// Consumer name under which other programs see a line that is in use.
const CONSUMER: &str = "facelatch";

/// Errors of using a GPIO line.
#[derive(Clone, Debug, PartialEq, Eq, ErrorTrait)]
pub enum GpioError {
    /// The chip does not exist.
    #[error("{chip}: no such GPIO chip; {there}")]
    NoChip {
        /// The chip as named in the URI.
        chip: String,
        /// The chips of this machine, in words.
        there: String,
    },
    /// The chip has no line of this number.
    #[error("{chip} has no line {line}; its lines are 0 to {last}")]
    NoLine {
        /// Name of the chip.
        chip: String,
        /// The line number from the URI.
        line: u32,
        /// Number of the chip's last line.
        last: u32,
    },
    /// No line on any chip has this name.
    #[error("no GPIO line is named {name:?}; gpioinfo lists the names; {there}")]
    NoName {
        /// The name from the URI.
        name: String,
        /// The chips of this machine, in words.
        there: String,
    },
    /// Another program or the kernel holds the line.
    #[error(
        "line {line} of {chip} is held by {consumer:?}; stop that program or choose another line"
    )]
    Held {
        /// Number of the line.
        line: u32,
        /// Name of the chip.
        chip: String,
        /// Consumer name of the holder.
        consumer: String,
    },
    /// Permission to open the chip is denied.
    #[error(
        "{path}: permission denied; add the user that runs facelatch to the group gpio (usermod -aG gpio USER)"
    )]
    Permission {
        /// Path of the chip.
        path: String,
    },
    /// The line does not keep the level that it is set to.
    #[error("{line} is set to {} but reads {}; is it shorted?", level(*.set), level(!*.set))]
    Stuck {
        /// URI of the line.
        line: String,
        /// The level that was set.
        set: bool,
    },
    /// Any other fault.
    #[error("{line}: {reason}")]
    Failed {
        /// URI of the line, or path of the chip.
        line: String,
        /// The system's error message.
        reason: String,
    },
}

fn level(active: bool) -> &'static str {
    if active { "active" } else { "inactive" }
}

impl GpioError {
    pub(super) fn failed(line: &Line, error: &Error) -> Self {
        Self::Failed { line: line.to_string(), reason: error.to_string() }
    }
}

/// The chips of this machine, in words.
pub fn chips() -> String {
    let Ok(paths) = gpiocdev::chip::chips() else { return "this machine has none".to_owned() };
    let known: Vec<String> = paths
        .iter()
        .map(|path| match gpiocdev::Chip::from_path(path).and_then(|chip| chip.info()) {
            Ok(info) => format!("{} ({}, {} lines)", info.name, info.label, info.num_lines),
            Err(_) => path.display().to_string(),
        })
        .collect();
    if known.is_empty() {
        "this machine has none".to_owned()
    } else {
        format!("this machine has {}", known.join(", "))
    }
}

/// Checks that a line exists and is free, without requesting it.
pub fn probe(line: &Line) -> Result<(), GpioError> {
    let (path, offset) = find(line)?;
    match fault(&path, offset)? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Requests a line; `set_up` adds direction and edge detection.
pub(super) fn request(
    line: &Line,
    set_up: impl FnOnce(&mut Builder),
) -> Result<Request, GpioError> {
    let (path, offset) = find(line)?;
    let mut builder = Request::builder();
    builder.on_chip(&path).with_consumer(CONSUMER).with_line(offset);
    set_up(&mut builder);
    if line.active_low {
        builder.as_active_low();
    }
    if let Some(bias) = line.bias {
        builder.with_bias(match bias {
            Bias::PullUp => gpiocdev::line::Bias::PullUp,
            Bias::PullDown => gpiocdev::line::Bias::PullDown,
            Bias::None => gpiocdev::line::Bias::Disabled,
        });
    }
    builder.request().map_err(|error| match fault(&path, offset) {
        Ok(None) => GpioError::failed(line, &error),
        Ok(Some(fault)) | Err(fault) => fault,
    })
}

/// Path of the chip and number of the line.
fn find(line: &Line) -> Result<(PathBuf, Offset), GpioError> {
    match &line.place {
        Place::On { chip: Chip::Path(path), offset } => Ok((path.clone(), *offset)),
        Place::On { chip: Chip::Number(number), offset } => {
            Ok((PathBuf::from(format!("/dev/gpiochip{number}")), *offset))
        }
        Place::On { chip: Chip::Label(label), offset } => {
            let found = all()?.into_iter().find(|(_, chip)| {
                chip.name() == *label || chip.info().is_ok_and(|info| info.label == *label)
            });
            match found {
                Some((path, _)) => Ok((path, *offset)),
                None => Err(GpioError::NoChip { chip: label.clone(), there: chips() }),
            }
        }
        Place::Named(name) => {
            for (path, chip) in all()? {
                if let Some(info) = chip.find_line_info(name) {
                    return Ok((path, info.offset));
                }
            }
            Err(GpioError::NoName { name: name.clone(), there: chips() })
        }
    }
}

/// All chips that this user may open; an error if there are chips but none may be opened.
fn all() -> Result<Vec<(PathBuf, gpiocdev::Chip)>, GpioError> {
    let mut refused = None;
    let mut open = Vec::new();
    for path in gpiocdev::chip::chips().unwrap_or_default() {
        match opened(&path) {
            Ok(chip) => open.push((path, chip)),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if open.is_empty() => Err(error),
        _ => Ok(open),
    }
}

fn opened(path: &Path) -> Result<gpiocdev::Chip, GpioError> {
    gpiocdev::Chip::from_path(path).map_err(|error| {
        let chip = path.display().to_string();
        let kind = match &error {
            Error::Os(number) => Some(std::io::Error::from_raw_os_error(number.0).kind()),
            _ => None,
        };
        match (kind, error) {
            (Some(std::io::ErrorKind::PermissionDenied), _) => GpioError::Permission { path: chip },
            (Some(std::io::ErrorKind::NotFound), _) | (_, Error::GpioChip(..)) => {
                GpioError::NoChip { chip, there: chips() }
            }
            (_, error) => GpioError::Failed { line: chip, reason: error.to_string() },
        }
    })
}

/// The reason why a line cannot be requested, if the chip reports one.
fn fault(path: &Path, line: Offset) -> Result<Option<GpioError>, GpioError> {
    let chip = opened(path)?;
    let name = chip.name();
    if let Ok(info) = chip.info()
        && line >= info.num_lines
    {
        let last = info.num_lines.saturating_sub(1);
        return Ok(Some(GpioError::NoLine { chip: name, line, last }));
    }
    Ok(match chip.line_info(line) {
        Ok(info) if info.used => {
            // A line that the kernel reserves has no consumer name.
            let consumer = Some(info.consumer).filter(|consumer| !consumer.is_empty());
            let consumer = consumer.unwrap_or_else(|| "the kernel".to_owned());
            Some(GpioError::Held { line, chip: name, consumer })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_that_is_not_there_is_named_with_those_that_are() {
        for uri in ["gpio:/dev/no-such-chip/3", "gpio:9999/3", "gpio:no-such-label/3"] {
            let line: Line = uri.parse().expect(uri);
            let message = probe(&line).expect_err(uri).to_string();
            assert!(message.contains(": no such GPIO chip; this machine has "), "{message}");
            assert_eq!(request(&line, |_| {}).err(), probe(&line).err());
        }
    }

    #[test]
    fn a_file_that_is_no_chip_is_rejected() {
        for uri in ["gpio:/dev/null/0", "gpio:/tmp/0", "gpio:/dev/../0"] {
            let line: Line = uri.parse().expect(uri);
            let message = probe(&line).expect_err(uri).to_string();
            assert!(message.contains("no such GPIO chip"), "{message}");
        }
    }

    #[test]
    fn a_name_that_no_line_has_says_where_names_are() {
        let line: Line = "gpio:no such name".parse().expect("a line");
        let message = probe(&line).expect_err("no line").to_string();
        assert!(message.contains("\"no such name\"; gpioinfo lists"), "{message}");
    }

    #[test]
    fn a_line_that_is_held_names_the_holder() {
        let error = GpioError::Held {
            line: 17,
            chip: "gpiochip0".to_owned(),
            consumer: "other".to_owned(),
        };
        let expected = "line 17 of gpiochip0 is held by \"other\"; stop that program or choose \
                        another line";
        assert_eq!(error.to_string(), expected);
    }
}
