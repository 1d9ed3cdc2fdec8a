//! Augmentation options, shared by the commands that train.

use crate::data::augment::{Augment, Change};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

/// Preset of augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// No augmentation
    None,
    /// Day-to-day variation of one camera
    Mild,
    /// Other cameras and distances, face masks, random erasing
    Strong,
    /// A camera above a door: small, blurred, side-lit, off-centre, compressed
    Door,
}

/// A preset, and options that override parts of it. A probability without a limit keeps
/// the preset's limit. Where the preset never makes the change, the limit is that of `mild`
/// or, if `mild` does not make it either, of `door`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Augmentation")]
pub struct AugmentOptions {
    /// Preset of random changes to training faces; the options below override parts of it
    #[arg(long, value_enum, default_value_t = Level::Mild)]
    augment: Level,
    /// Horizontal flip: probability, 0 to 1
    #[arg(long, value_name = "P")]
    flip: Option<f64>,
    /// Brightness shift: probability, and largest shift as a share of the full range, 0 to
    /// 1
    #[arg(long, value_name = "P[:SHARE]")]
    brightness: Option<String>,
    /// Contrast change: probability, and largest change as a share, 0 to 1
    #[arg(long, value_name = "P[:SHARE]")]
    contrast: Option<String>,
    /// Gaussian blur: probability, and largest standard deviation in pixels, 0 to 10
    #[arg(long, value_name = "P[:PIXELS]")]
    blur: Option<String>,
    /// JPEG recompression: probability, and lowest quality, 1 to 95
    #[arg(long, value_name = "P[:QUALITY]")]
    jpeg: Option<String>,
    /// Downscaling to a low resolution and back: probability, and smallest side in pixels,
    /// 8 to 112
    #[arg(long, value_name = "P[:SIDE]")]
    low_resolution: Option<String>,
    /// Face mask: probability, and highest pixel row of its upper edge, 40 to 70 of 112
    #[arg(long, value_name = "P[:ROW]")]
    mask: Option<String>,
    /// Random erasing by a rectangle of one colour: probability, and largest share of the
    /// picture that it covers, 0.02 to 0.5
    #[arg(long, value_name = "P[:SHARE]")]
    object: Option<String>,
    /// Shift of the face: probability, and largest shift along each axis in pixels of a face
    /// of 112, 0 to 16
    #[arg(long, value_name = "P[:PIXELS]")]
    shift: Option<String>,
    /// Zoom in or out: probability, and largest change as a share, 0 to 0.3
    #[arg(long, value_name = "P[:SHARE]")]
    zoom: Option<String>,
    /// Rotation: probability, and largest angle in degrees, 0 to 30
    #[arg(long, value_name = "P[:DEGREES]")]
    rotation: Option<String>,
    /// Light from one side: probability, and largest change of brightness at the edge as a
    /// share, 0 to 1
    #[arg(long, value_name = "P[:SHARE]")]
    side_light: Option<String>,
}

impl AugmentOptions {
    /// The resulting augmentation.
    ///
    /// # Errors
    /// If a value is not `P` or `P:LIMIT`, or is out of its range.
    pub fn augment(&self) -> Result<Augment> {
        let mut augment = match self.augment {
            Level::None => Augment::none(),
            Level::Mild => Augment::mild(),
            Level::Strong => Augment::strong(),
            Level::Door => Augment::door(),
        };
        if let Some(flip) = self.flip {
            augment.flip = flip;
        }
        // The limits of changes that a preset never makes change nothing, so those of another
        // preset take their place.
        let (mild, door, none) = (Augment::mild(), Augment::door(), Augment::none());
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
            ("shift", &self.shift, &mut augment.shift, door.shift),
            ("zoom", &self.zoom, &mut augment.zoom, door.zoom),
            ("rotation", &self.rotation, &mut augment.rotation, door.rotation),
            ("side-light", &self.side_light, &mut augment.side_light, door.side_light),
        ] {
            if let Some(given) = given {
                let unset = self.augment == Level::None || *change == none.shift;
                let limit = if unset { otherwise.limit } else { change.limit };
                *change = parse(given, limit).with_context(|| format!("--{name} {given}"))?;
            }
        }
        augment.check()?;
        Ok(augment)
    }
}

/// Parses `P` or `P:LIMIT`; `limit` is the limit if none is given.
fn parse(given: &str, limit: f64) -> Result<Change> {
    let (probability, limit) = match given.split_once(':') {
        Some((probability, limit)) => (probability.parse(), limit.parse()),
        None => (given.parse(), Ok(limit)),
    };
    match (probability, limit) {
        (Ok(probability), Ok(limit)) => Ok(Change { probability, limit }),
        _ => bail!("not a number; give a probability, or probability:limit such as 0.5:0.2"),
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
        let got = augment(&["--augment", "door", "--shift", "1", "--zoom", "0.2:0.1"]);
        let door = Augment::door();
        let expected = Augment {
            shift: Change { probability: 1.0, ..door.shift },
            zoom: Change { probability: 0.2, limit: 0.1 },
            ..door
        };
        assert_eq!(got.expect("door, otherwise"), expected);
        let got = augment(&["--side-light", "0.5"]).expect("mild with side light");
        assert_eq!(got.side_light, Change { probability: 0.5, ..door.side_light });
        let got = augment(&["--augment", "none", "--jpeg", "1"]).expect("JPEG alone");
        assert_eq!(got.jpeg, Change { probability: 1.0, ..Augment::mild().jpeg });
    }

    #[test]
    fn what_is_no_number_or_out_of_its_limits_is_named() {
        let message = format!("{:#}", augment(&["--blur", "often"]).expect_err("no number"));
        assert!(message.starts_with("--blur often: not a number"), "{message}");
        let message = augment(&["--low-resolution", "0.1:4"]).expect_err("too small").to_string();
        assert!(message.starts_with("low-resolution: limit 4; it must be in 8..=112"), "{message}");
    }
}
