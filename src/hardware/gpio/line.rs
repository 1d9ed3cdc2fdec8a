//! A GPIO line, named by a URI.
//!
//! | URI | Line |
//! |---|---|
//! | `gpio:/dev/gpiochip0/17` | the chip by its path, which may be a udev link |
//! | `gpio:0/17` | the chip by its number |
//! | `gpio:pinctrl-bcm2711/17` | the chip by its label, or by its name like `gpiochip0` |
//! | `gpio:GPIO17` | the line by its name, on any chip |
//!
//! Options follow a `?`: `active=low`; `bias=pull-up`, `pull-down` or `none`; and for
//! inputs `debounce=5ms`. Labels and names stay the same across kernels, chip numbers may
//! not.

use crate::hardware::uri;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Options allowed after the `?`.
const OPTIONS: [&str; 3] = ["active", "bias", "debounce"];
/// Longest debounce period: longer than any switch bounces.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(1);

/// The URI does not name a GPIO line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{uri:?}: {fault}")]
pub struct LineError {
    /// The URI from the configuration.
    pub uri: String,
    /// The fault and the values that are allowed.
    pub fault: String,
}

/// How the URI names the chip.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Chip {
    /// By its path.
    Path(PathBuf),
    /// By its number.
    Number(u32),
    /// By its label or name.
    Label(String),
}

/// How the URI names the line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// By its number on a chip.
    On {
        /// The chip.
        chip: Chip,
        /// Line number on that chip.
        offset: u32,
    },
    /// By its name, on any chip.
    Named(String),
}

/// The chip's resistor on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bias {
    /// To the supply.
    PullUp,
    /// To ground.
    PullDown,
    /// No resistor.
    None,
}

/// The device wired to an input line. Its name says what an active level means: pressed,
/// closed, requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// The button in the secured area; active means pressed.
    ButtonInside,
    /// The button outside; active means pressed.
    ButtonOutside,
    /// The door contact; active means closed.
    Contact,
    /// The request to exit; active means that somebody wants to leave.
    Exit,
    /// The jumper or button in the case; active means local reset.
    Reset,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ButtonInside => "button inside",
            Self::ButtonOutside => "button outside",
            Self::Contact => "door contact",
            Self::Exit => "request to exit",
            Self::Reset => "local reset",
        })
    }
}

impl Name {
    /// Whether every edge counts, so that a pulse too short to be reported in time is
    /// reported late. Otherwise only the level counts.
    pub(super) fn counts_edges(self) -> bool {
        match self {
            Self::ButtonInside | Self::ButtonOutside | Self::Exit | Self::Reset => true,
            Self::Contact => false,
        }
    }
}

/// A GPIO line and its wiring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// Chip and line.
    pub place: Place,
    /// Whether a low level counts as active.
    pub active_low: bool,
    /// Bias resistor; `None` leaves it as it is.
    pub bias: Option<Bias>,
    /// Debounce period: a level counts after it was stable this long. `None` for the
    /// default.
    pub debounce: Option<Duration>,
}

impl FromStr for Line {
    type Err = LineError;

    fn from_str(uri: &str) -> Result<Self, LineError> {
        parse(uri).map_err(|fault| LineError { uri: uri.to_owned(), fault })
    }
}

fn parse(uri: &str) -> Result<Line, String> {
    let rest = uri
        .strip_prefix("gpio:")
        .ok_or_else(|| "is not a GPIO line; write gpio:/dev/gpiochip0/17".to_owned())?;
    let (place, options) = uri::split(rest);
    let place = parse_place(place)?;
    let mut line = Line { place, active_low: false, bias: None, debounce: None };
    for option in uri::options(options, &OPTIONS)? {
        match (option.key, option.value) {
            ("active", "low") => line.active_low = true,
            ("active", "high") => line.active_low = false,
            ("active", _) => return Err(option.expected("low or high")),
            ("bias", "pull-up") => line.bias = Some(Bias::PullUp),
            ("bias", "pull-down") => line.bias = Some(Bias::PullDown),
            ("bias", "none") => line.bias = Some(Bias::None),
            ("bias", _) => return Err(option.expected("pull-up, pull-down or none")),
            _ => {
                let range = Duration::ZERO..=LONGEST_DEBOUNCE;
                line.debounce = Some(option.time(range, "a time up to 1s, such as 5ms")?);
            }
        }
    }
    Ok(line)
}

fn parse_place(place: &str) -> Result<Place, String> {
    let Some((chip, line)) = place.rsplit_once('/') else {
        return match place {
            "" => Err("names no line; write gpio:/dev/gpiochip0/17".to_owned()),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err(format!("names no chip; write gpio:0/{number}"))
            }
            name => Ok(Place::Named(name.to_owned())),
        };
    };
    let offset =
        line.parse().map_err(|_| format!("{line:?} is not a line number; write gpio:{chip}/17"))?;
    let chip = match chip {
        "" | "/" | "/dev" => {
            return Err(format!("names no chip; write gpio:/dev/gpiochip0/{line}"));
        }
        path if path.starts_with('/') => Chip::Path(path.into()),
        text => text.parse().map_or_else(|_| Chip::Label(text.to_owned()), Chip::Number),
    };
    Ok(Place::On { chip, offset })
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::On { chip: Chip::Path(path), offset } => {
                write!(f, "gpio:{}/{offset}", path.display())?;
            }
            Place::On { chip: Chip::Number(number), offset } => {
                write!(f, "gpio:{number}/{offset}")?
            }
            Place::On { chip: Chip::Label(label), offset } => write!(f, "gpio:{label}/{offset}")?,
            Place::Named(name) => write!(f, "gpio:{name}")?,
        }
        let mut first = true;
        let mut option = |f: &mut fmt::Formatter<'_>, text: &str| {
            write!(f, "{}{text}", if std::mem::take(&mut first) { '?' } else { '&' })
        };
        if self.active_low {
            option(f, "active=low")?;
        }
        match self.bias {
            None => {}
            Some(Bias::PullUp) => option(f, "bias=pull-up")?,
            Some(Bias::PullDown) => option(f, "bias=pull-down")?,
            Some(Bias::None) => option(f, "bias=none")?,
        }
        if let Some(period) = self.debounce {
            option(f, &format!("debounce={}ms", period.as_secs_f64() * 1e3))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on(chip: Chip, offset: u32) -> Place {
        Place::On { chip, offset }
    }

    #[test]
    fn a_chip_is_named_by_path_number_or_label_and_a_line_by_its_name() {
        for (uri, place) in [
            ("gpio:/dev/gpiochip0/17", on(Chip::Path("/dev/gpiochip0".into()), 17)),
            ("gpio:/dev/facelatch/gpio/0", on(Chip::Path("/dev/facelatch/gpio".into()), 0)),
            ("gpio:0/17", on(Chip::Number(0), 17)),
            ("gpio:pinctrl-bcm2711/17", on(Chip::Label("pinctrl-bcm2711".to_owned()), 17)),
            ("gpio:gpiochip4/17", on(Chip::Label("gpiochip4".to_owned()), 17)),
            ("gpio:9030000.pl061/3", on(Chip::Label("9030000.pl061".to_owned()), 3)),
            ("gpio:GPIO17", Place::Named("GPIO17".to_owned())),
            ("gpio:PIN 11", Place::Named("PIN 11".to_owned())),
        ] {
            let line: Line = uri.parse().expect(uri);
            assert_eq!(line.place, place);
            assert_eq!((line.active_low, line.bias, line.debounce), (false, None, None));
            assert_eq!(line.to_string(), uri);
        }
    }

    #[test]
    fn options_say_how_it_is_wired() {
        let uri = "gpio:0/17?active=low&bias=pull-up&debounce=5ms";
        let line: Line = uri.parse().expect(uri);
        assert!(line.active_low);
        assert_eq!(line.bias, Some(Bias::PullUp));
        assert_eq!(line.debounce, Some(Duration::from_millis(5)));
        assert_eq!(line.to_string(), uri);
    }

    #[test]
    fn a_uri_that_names_no_line_gets_the_expected_form() {
        for (uri, expected) in [
            ("serial:/dev/x", "is not a GPIO line"),
            ("gpio:", "names no line"),
            ("gpio:17", "names no chip; write gpio:0/17"),
            ("gpio:/17", "names no chip; write gpio:/dev/gpiochip0/17"),
            ("gpio://17", "names no chip"),
            ("gpio:/dev/17", "names no chip"),
            ("gpio:/dev/gpiochip0", "\"gpiochip0\" is not a line number"),
            ("gpio:0/-1", "\"-1\" is not a line number"),
            ("gpio:0/4294967296", "is not a line number"),
            ("gpio:0/17?active=1", "active=1: expected low or high"),
            ("gpio:0/17?bias=up", "bias=up: expected pull-up, pull-down or none"),
            ("gpio:0/17?debounce=5", "debounce=5: expected a time"),
            ("gpio:0/17?debounce=2s", "up to 1s"),
            (
                "gpio:0/17?drive=open",
                "drive=open: unknown; the options are active, bias and debounce",
            ),
        ] {
            let message = uri.parse::<Line>().expect_err(uri).to_string();
            assert!(message.contains(expected) && message.contains(uri), "{message}");
        }
    }

    #[test]
    fn the_example_shows_every_option() {
        let (names, shown) = crate::config::tests::options("# Options of gpio:");
        assert_eq!(names, OPTIONS);
        let line: Line = format!("gpio:GPIO17?{shown}").parse().expect("a line");
        assert!(line.active_low && line.bias.is_some() && line.debounce.is_some());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_line_reads_back_as_itself(
            place in "(gpio:)?(/dev/)?[a-z0-9/ .-]{0,12}|\\PC{0,20}",
            options in "([?&](active|bias|debounce|x)=?(low|high|pull-up|none|[0-9.]{0,5}m?s?)){0,3}",
        ) {
            if let Ok(line) = format!("{place}{options}").parse::<Line>() {
                prop_assert_eq!(line.to_string().parse::<Line>(), Ok(line));
            }
        }
    }
}
