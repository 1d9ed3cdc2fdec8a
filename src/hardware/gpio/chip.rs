//! EDGE: finding a line among the chips, asking for it, and saying why not.

use super::line::{Bias, Chip, Line, Place};
use gpiocdev::line::Offset;
use gpiocdev::request::Builder;
use gpiocdev::{Error, Request};
use std::path::{Path, PathBuf};
use thiserror::Error as ErrorTrait;

/// What others see a line is held by.
const CONSUMER: &str = "facelatch";

/// Why a line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, ErrorTrait)]
pub enum GpioError {
    /// There is no such chip.
    #[error("{chip}: no such GPIO chip; {there}")]
    NoChip {
        /// As given.
        chip: String,
        /// Those that are there.
        there: String,
    },
    /// The chip has no such line.
    #[error("{chip} has no line {line}; it has 0 to {last}")]
    NoLine {
        /// Which chip.
        chip: String,
        /// As given.
        line: u32,
        /// Its last one.
        last: u32,
    },
    /// No line has this name.
    #[error("no GPIO line is named {name:?}; gpioinfo lists their names, and {there}")]
    NoName {
        /// As given.
        name: String,
        /// The chips that are there.
        there: String,
    },
    /// Another program, or the kernel, has it.
    #[error(
        "line {line} of {chip} is held by {consumer:?}; end that program or choose another line"
    )]
    Held {
        /// Which.
        line: u32,
        /// Of which chip.
        chip: String,
        /// What the holder calls itself.
        consumer: String,
    },
    /// This user may not use it.
    #[error("{path}: this user may not use it; add it to the group gpio (usermod -aG gpio USER)")]
    Permission {
        /// The chip's device.
        path: String,
    },
    /// It does not stay at the level it is set to.
    #[error("{line} is set to {} and reads {}; is it shorted?", level(*.set), level(!*.set))]
    Stuck {
        /// Which.
        line: String,
        /// The level.
        set: bool,
    },
    /// Anything else.
    #[error("{line}: {reason}")]
    Failed {
        /// Which.
        line: String,
        /// What the system said.
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

/// The chips that are there, in words.
pub fn chips() -> String {
    let Ok(paths) = gpiocdev::chip::chips() else { return "there is none".to_owned() };
    let known: Vec<String> = paths
        .iter()
        .map(|path| match gpiocdev::Chip::from_path(path).and_then(|chip| chip.info()) {
            Ok(info) => format!("{} ({}, {} lines)", info.name, info.label, info.num_lines),
            Err(_) => path.display().to_string(),
        })
        .collect();
    if known.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there are {}", known.join(", "))
    }
}

/// Whether a line is there and free, without taking it.
pub fn probe(line: &Line) -> Result<(), GpioError> {
    let (path, offset) = find(line)?;
    match fault(&path, offset)? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Asks for a line, set up as `set_up` says.
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

/// The chip's device and the line on it.
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

/// All chips this user may open; an error where there are some and this user may none.
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

/// What stands against using the line, where the chip can tell.
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
            // A line that the kernel keeps for itself has no consumer.
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
            assert!(message.contains(": no such GPIO chip; there "), "{message}");
            assert_eq!(request(&line, |_| {}).err(), probe(&line).err());
        }
    }

    #[test]
    fn what_is_no_chip_is_none() {
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
        let expected = "line 17 of gpiochip0 is held by \"other\"; end that program or choose \
                        another line";
        assert_eq!(error.to_string(), expected);
    }
}
