//! How commands that train are told what may happen to a face.

use crate::data::augment::{Augment, Change};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

/// How much happens to faces before they are learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Nothing
    None,
    /// What one camera shows from day to day
    Mild,
    /// Other cameras, distances, masks
    Strong,
}

/// A level, and single changes otherwise.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Augmentation")]
pub struct AugmentOptions {
    /// How much happens to faces before they are learned from
    #[arg(long, value_enum, default_value_t = Level::Mild)]
    augment: Level,
    /// Probability of the mirror image
    #[arg(long, value_name = "P")]
    flip: Option<f64>,
    /// Probability of other brightness, and by what share of the full range
    #[arg(long, value_name = "P[:SHARE]")]
    brightness: Option<String>,
    /// Probability of other contrast, and by what share
    #[arg(long, value_name = "P[:SHARE]")]
    contrast: Option<String>,
    /// Probability of a blur, and its largest standard deviation in pixels
    #[arg(long, value_name = "P[:PIXELS]")]
    blur: Option<String>,
    /// Probability of another JPEG compression, and its lowest quality
    #[arg(long, value_name = "P[:QUALITY]")]
    jpeg: Option<String>,
    /// Probability of a low resolution, and the smallest side in pixels
    #[arg(long, value_name = "P[:SIDE]")]
    low_resolution: Option<String>,
    /// Probability of a mask, and the topmost row of 112 at which it begins
    #[arg(long, value_name = "P[:ROW]")]
    mask: Option<String>,
    /// Probability of an object before the face, and its largest share of the
    /// picture
    #[arg(long, value_name = "P[:SHARE]")]
    object: Option<String>,
}

impl AugmentOptions {
    /// What they come to.
    pub fn augment(&self) -> Result<Augment> {
        let mut augment = match self.augment {
            Level::None => Augment::none(),
            Level::Mild => Augment::mild(),
            Level::Strong => Augment::strong(),
        };
        if let Some(flip) = self.flip {
            augment.flip = flip;
        }
        // A probability alone goes as far as the level does, and where that goes
        // nowhere, as far as the mild one.
        let mild = Augment::mild();
        for (name, given, change, otherwise) in [
            ("brightness", &self.brightness, &mut augment.brightness, mild.brightness),
            ("contrast", &self.contrast, &mut augment.contrast, mild.contrast),
            ("blur", &self.blur, &mut augment.blur, mild.blur),
            ("jpeg", &self.jpeg, &mut augment.jpeg, mild.jpeg),
            (
                "low-resolution",
                &self.low_resolution,
                &mut augment.low_resolution,
                mild.low_resolution,
            ),
            ("mask", &self.mask, &mut augment.mask, mild.mask),
            ("object", &self.object, &mut augment.object, mild.object),
        ] {
            if let Some(given) = given {
                let limit = match self.augment {
                    Level::None => otherwise.limit,
                    Level::Mild | Level::Strong => change.limit,
                };
                *change = parse(given, limit).with_context(|| format!("--{name} {given}"))?;
            }
        }
        augment.check()?;
        Ok(augment)
    }
}

/// `P` or `P:LIMIT`.
fn parse(given: &str, limit: f64) -> Result<Change> {
    let (probability, limit) = match given.split_once(':') {
        Some((probability, limit)) => (probability.parse(), limit.parse()),
        None => (given.parse(), Ok(limit)),
    };
    match (probability, limit) {
        (Ok(probability), Ok(limit)) => Ok(Change { probability, limit }),
        _ => bail!("no number; give a probability, or a probability and a limit as 0.5:0.2"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: AugmentOptions,
    }

    fn augment(arguments: &[&str]) -> Result<Augment> {
        let arguments = std::iter::once(&"command").chain(arguments);
        Command::try_parse_from(arguments)?.options.augment()
    }

    #[test]
    fn a_level_is_chosen_and_single_changes_win_over_it() {
        assert_eq!(augment(&[]).expect("mild"), Augment::mild());
        assert_eq!(augment(&["--augment", "none"]).expect("none"), Augment::none());
        let got =
            augment(&["--augment", "strong", "--mask", "0.5", "--blur", "0:0", "--flip", "0"]);
        let strong = Augment::strong();
        let expected = Augment {
            flip: 0.0,
            mask: Change { probability: 0.5, ..strong.mask },
            blur: Change { probability: 0.0, limit: 0.0 },
            ..strong
        };
        assert_eq!(got.expect("strong, otherwise"), expected);
        let got = augment(&["--augment", "none", "--jpeg", "1"]).expect("JPEG alone");
        assert_eq!(got.jpeg, Change { probability: 1.0, ..Augment::mild().jpeg });
    }

    #[test]
    fn what_is_no_number_or_out_of_its_limits_is_named() {
        let message = format!("{:#}", augment(&["--blur", "often"]).expect_err("no number"));
        assert!(message.starts_with("--blur often: no number"), "{message}");
        let message = augment(&["--low-resolution", "0.1:4"]).expect_err("too small").to_string();
        assert!(message.starts_with("low-resolution: limit 4; it must be in 8..=112"), "{message}");
    }
}
