//! The formats, sizes and rates that a camera offers, and the choice among them.

use super::uri::{PixelFormat, Wish};

/// Default columns and rows: a face two metres away is large enough, and a small board
/// keeps up.
const SIDES: [u32; 2] = [1280, 720];
/// Default frames per second: a decision needs several frames within half a second.
const FPS: f64 = 15.0;
/// Tolerance of rates: drivers round 30 to 29.97.
const NEARLY: f64 = 0.98;
/// Most sizes named in an error.
const MOST_NAMED: usize = 20;

/// Seconds between two frames, as (numerator, denominator).
pub type Interval = (u32, u32);

/// Frame rates that a size offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rates {
    /// The driver does not report them.
    Unknown,
    /// These intervals.
    These(Vec<Interval>),
    /// Every interval in a range.
    Between {
        /// Interval of the highest rate.
        shortest: Interval,
        /// Interval of the lowest rate.
        longest: Interval,
    },
}

/// Frame sizes that a format offers, in pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Size {
    /// A single size with its rates.
    One {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Rates at this size.
        rates: Rates,
    },
    /// A range of sizes; each side as `[least, most, step]`.
    Range {
        /// Columns.
        width: [u32; 3],
        /// Rows.
        height: [u32; 3],
    },
    /// The driver does not report them.
    Unknown,
}

/// A pixel format and its sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Pixel format.
    pub format: PixelFormat,
    /// Sizes in this format.
    pub sizes: Vec<Size>,
}

/// The mode that a camera is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Pixel format.
    pub format: PixelFormat,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Time between two frames.
    pub interval: Interval,
}

impl Choice {
    /// Frames per second.
    pub fn fps(&self) -> f64 {
        fps(self.interval)
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { format, width, height, .. } = self;
        write!(f, "{format} {width}x{height} at {} frames per second", shown(self.fps()))
    }
}

/// A rate with at most two decimal places.
pub fn shown(fps: f64) -> String {
    let rounded = (fps * 100.0).round() / 100.0;
    format!("{rounded}")
}

/// Frames per second of an interval; 0 for an invalid one.
pub fn fps((numerator, denominator): Interval) -> f64 {
    if numerator == 0 { 0.0 } else { f64::from(denominator) / f64::from(numerator) }
}

/// The best mode on offer. A size that `wish` names must be offered exactly; otherwise
/// the size nearest to 1280x720 wins, then the mode that reaches the rate, then the
/// format that is cheapest to decode. `others` are formats that cannot be decoded, for
/// the message. An error if no mode fits.
pub fn choose(offers: &[Offer], others: &[String], wish: &Wish) -> Result<Choice, String> {
    let formats: Vec<&Offer> = offers
        .iter()
        .filter(|offer| wish.format.is_none_or(|format| format == offer.format))
        .collect();
    if formats.is_empty() {
        return Err(no_format(offers, others, wish));
    }
    let wanted = wanted(wish);
    let wanted_fps = wish.fps.unwrap_or(FPS);
    let mut best: Option<([f64; 3], Choice)> = None;
    for offer in &formats {
        for size in &offer.sizes {
            let Some((width, height)) = size.nearest(wanted, wish) else { continue };
            let interval = size.rates().nearest(wanted_fps);
            let choice = Choice { format: offer.format, width, height, interval };
            let off = |got: u32, wanted: u32| (f64::from(got) / f64::from(wanted)).ln().abs();
            let short = wanted_fps * NEARLY - choice.fps();
            let order = PixelFormat::ALL.iter().position(|format| *format == offer.format);
            let score = [
                off(width, wanted[0]) + off(height, wanted[1]),
                if short > 0.0 { short } else { 0.0 },
                order.unwrap_or_default() as f64,
            ];
            if best
                .as_ref()
                .is_none_or(|(least, _)| score.partial_cmp(least).is_some_and(|o| o.is_lt()))
            {
                best = Some((score, choice));
            }
        }
    }
    best.map(|(_, choice)| choice).ok_or_else(|| {
        let asked = |side: Option<u32>| side.map_or("any".to_owned(), |side| side.to_string());
        let mut sizes: Vec<String> = Vec::new();
        for size in formats.iter().flat_map(|offer| &offer.sizes) {
            let text = size.to_string();
            if !sizes.contains(&text) && sizes.len() < MOST_NAMED {
                sizes.push(text);
            }
        }
        format!(
            "size {}x{} is not available; available are {}",
            asked(wish.width),
            asked(wish.height),
            sizes.join(", ")
        )
    })
}

fn no_format(offers: &[Offer], others: &[String], wish: &Wish) -> String {
    let there = offers.iter().map(|offer| offer.format.to_string()).chain(others.iter().cloned());
    let there: Vec<String> = there.collect();
    let there = if there.is_empty() { "no format at all".to_owned() } else { there.join(", ") };
    match wish.format {
        Some(format) if !offers.is_empty() => {
            format!("format={format} is not available; available are {there}")
        }
        _ => format!(
            "it offers {there}, but only YUYV, NV12 and MJPG are supported; use pipe: with a \
             program that converts, such as ffmpeg or rpicam-vid"
        ),
    }
}

/// Columns and rows to come close to.
fn wanted(wish: &Wish) -> [u32; 2] {
    let [width, height] = SIDES;
    let scaled =
        |side: u32, by: u32, of: u32| (u64::from(side) * u64::from(by) / u64::from(of)) as u32;
    match (wish.width, wish.height) {
        (Some(width), Some(height)) => [width.max(1), height.max(1)],
        (Some(asked), None) => [asked.max(1), scaled(asked, height, width).max(1)],
        (None, Some(asked)) => [scaled(asked, width, height).max(1), asked.max(1)],
        (None, None) => SIDES,
    }
}

impl Size {
    /// The nearest of these sizes as (columns, rows); `None` if a side that `wish` names
    /// is not among them or the driver reports an invalid size.
    fn nearest(&self, wanted: [u32; 2], wish: &Wish) -> Option<(u32, u32)> {
        let (width, height) = match self {
            Self::One { width, height, .. } => (*width, *height),
            Self::Range { width, height } => {
                (stepped(*width, wanted[0])?, stepped(*height, wanted[1])?)
            }
            Self::Unknown => (wanted[0], wanted[1]),
        };
        let is_asked = |asked: Option<u32>, got: u32| asked.is_none_or(|asked| asked == got);
        let sensible = 1..=super::super::yuv::LARGEST_SIDE as u32;
        let fits = is_asked(wish.width, width) && is_asked(wish.height, height);
        (fits && sensible.contains(&width) && sensible.contains(&height)).then_some((width, height))
    }

    fn rates(&self) -> &Rates {
        match self {
            Self::One { rates, .. } => rates,
            Self::Range { .. } | Self::Unknown => &Rates::Unknown,
        }
    }
}

/// The largest allowed step up to `wanted`, or the least; `None` for an invalid range.
fn stepped([least, most, step]: [u32; 3], wanted: u32) -> Option<u32> {
    if least > most {
        return None;
    }
    let above = wanted.clamp(least, most) - least;
    Some(least + above / step.max(1) * step.max(1))
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One { width, height, .. } => write!(f, "{width}x{height}"),
            Self::Range { width, height } => {
                write!(f, "{}x{} to {}x{}", width[0], height[0], width[1], height[1])?;
                if width[2] > 1 || height[2] > 1 {
                    write!(f, " in steps of {}x{}", width[2], height[2])?;
                }
                Ok(())
            }
            Self::Unknown => f.write_str("sizes not reported by the driver"),
        }
    }
}

impl Rates {
    /// The lowest rate that is fast enough, else the highest.
    fn nearest(&self, wanted: f64) -> Interval {
        let as_asked = (1000, (wanted * 1000.0).round() as u32);
        match self {
            Self::Unknown => as_asked,
            Self::Between { shortest, longest } => {
                if wanted > fps(*shortest) {
                    *shortest
                } else if wanted < fps(*longest) {
                    *longest
                } else {
                    as_asked
                }
            }
            Self::These(rates) => {
                let sensible = || rates.iter().copied().filter(|rate| fps(*rate) > 0.0);
                let slower = |a: &Interval, b: &Interval| fps(*a).total_cmp(&fps(*b));
                sensible()
                    .filter(|rate| fps(*rate) >= wanted * NEARLY)
                    .min_by(slower)
                    .or_else(|| sensible().max_by(slower))
                    .unwrap_or(as_asked)
            }
        }
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("rates not reported by the driver"),
            Self::Between { shortest, longest } => {
                write!(f, "{} to {}", shown(fps(*longest)), shown(fps(*shortest)))
            }
            Self::These(rates) => {
                let rates: Vec<String> = rates.iter().map(|rate| shown(fps(*rate))).collect();
                f.write_str(&rates.join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(width: u32, height: u32, rates: &[u32]) -> Size {
        let rates = Rates::These(rates.iter().map(|rate| (1, *rate)).collect());
        Size::One { width, height, rates }
    }

    /// A webcam on USB 2, where large raw frames are slow.
    fn webcam() -> Vec<Offer> {
        vec![
            Offer {
                format: PixelFormat::Yuyv,
                sizes: vec![one(640, 480, &[30, 24, 15]), one(1280, 720, &[10, 5])],
            },
            Offer {
                format: PixelFormat::Mjpg,
                sizes: vec![
                    one(640, 480, &[30]),
                    one(1280, 720, &[60, 30, 15, 5]),
                    one(1920, 1080, &[30]),
                ],
            },
        ]
    }

    #[test]
    fn the_best_on_offer_is_chosen() {
        let any = Wish::default();
        let vga = Wish { width: Some(640), height: Some(480), ..any };
        for (wish, expected) in [
            (any, "MJPG 1280x720 at 15 frames per second"),
            (Wish { fps: Some(10.0), ..any }, "YUYV 1280x720 at 10 frames per second"),
            (Wish { fps: Some(29.0), ..any }, "MJPG 1280x720 at 30 frames per second"),
            (Wish { fps: Some(300.0), ..any }, "MJPG 1280x720 at 60 frames per second"),
            (
                Wish { format: Some(PixelFormat::Yuyv), ..any },
                "YUYV 1280x720 at 10 frames per second",
            ),
            (vga, "YUYV 640x480 at 15 frames per second"),
            (
                Wish { format: Some(PixelFormat::Mjpg), ..vga },
                "MJPG 640x480 at 30 frames per second",
            ),
            (Wish { width: Some(1920), ..any }, "MJPG 1920x1080 at 30 frames per second"),
            (Wish { height: Some(480), ..any }, "YUYV 640x480 at 15 frames per second"),
        ] {
            let choice = choose(&webcam(), &[], &wish).expect("a choice");
            assert_eq!(choice.to_string(), expected, "{wish:?}");
        }
    }

    #[test]
    fn ranges_and_silence_are_lived_with() {
        let range = Size::Range { width: [32, 2592, 16], height: [32, 1944, 2] };
        let offers = [Offer { format: PixelFormat::Nv12, sizes: vec![range] }];
        let choice = choose(&offers, &[], &Wish::default()).expect("a choice");
        assert_eq!(choice.to_string(), "NV12 1280x720 at 15 frames per second");
        let odd = Wish { width: Some(641), ..Wish::default() };
        let message = choose(&offers, &[], &odd).expect_err("between two steps");
        assert!(message.contains("641xany is not available"), "{message}");
        assert!(message.contains("32x32 to 2592x1944 in steps of 16x2"), "{message}");
        let silent = [Offer { format: PixelFormat::Mjpg, sizes: vec![Size::Unknown] }];
        let wish = Wish { width: Some(800), height: Some(600), fps: Some(7.5), ..Wish::default() };
        let choice = choose(&silent, &[], &wish).expect("a choice");
        assert_eq!(choice.to_string(), "MJPG 800x600 at 7.5 frames per second");
        assert_eq!(choice.interval, (1000, 7500));
        let between = Rates::Between { shortest: (1, 30), longest: (1, 5) };
        assert_eq!(
            [60.0, 1.0, 12.0].map(|fps| between.nearest(fps)),
            [(1, 30), (1, 5), (1000, 12000)]
        );
    }

    #[test]
    fn a_missing_format_is_reported_with_the_available_ones() {
        let ask = |width, height, format| {
            let wish = Wish { width, height, format, ..Wish::default() };
            choose(&webcam(), &["H264".to_owned()], &wish).expect_err("not on offer")
        };
        let message = ask(Some(640), Some(481), None);
        assert!(message.contains("640x481 is not available"), "{message}");
        assert!(message.ends_with("available are 640x480, 1280x720, 1920x1080"), "{message}");
        let message = ask(None, None, Some(PixelFormat::Nv12));
        assert_eq!(message, "format=NV12 is not available; available are YUYV, MJPG, H264");
        let message = choose(&[], &["H264".to_owned()], &Wish::default()).expect_err("nothing");
        assert!(message.contains("it offers H264") && message.contains("pipe:"), "{message}");
        let message = choose(&[], &[], &Wish::default()).expect_err("nothing");
        assert!(message.contains("no format at all"), "{message}");
    }

    fn rates() -> impl Strategy<Value = Rates> {
        prop_oneof![
            Just(Rates::Unknown),
            prop::collection::vec(any::<Interval>(), 0..4).prop_map(Rates::These),
            any::<[Interval; 2]>()
                .prop_map(|[shortest, longest]| Rates::Between { shortest, longest }),
        ]
    }

    fn size() -> impl Strategy<Value = Size> {
        prop_oneof![
            Just(Size::Unknown),
            (any::<u32>(), any::<u32>(), rates()).prop_map(|(width, height, rates)| Size::One {
                width,
                height,
                rates
            }),
            (0..4000u32, 0..4000u32, rates()).prop_map(|(width, height, rates)| Size::One {
                width,
                height,
                rates
            }),
            any::<[[u32; 3]; 2]>().prop_map(|[width, height]| Size::Range { width, height }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_driver_says_the_choice_is_on_offer_and_as_asked(
            sizes in prop::collection::vec((0..3usize, size()), 0..5),
            width in prop::option::of(16..4000u32),
            format in prop::option::of(0..3usize),
            fps in prop::option::of(0.1..1000.0f64),
        ) {
            let offers: Vec<Offer> = sizes
                .into_iter()
                .map(|(at, size)| Offer { format: PixelFormat::ALL[at], sizes: vec![size] })
                .collect();
            let format = format.map(|at| PixelFormat::ALL[at]);
            let wish = Wish { width, format, fps, ..Wish::default() };
            if let Ok(choice) = choose(&offers, &[], &wish) {
                prop_assert!(offers.iter().any(|offer| offer.format == choice.format));
                prop_assert!(format.is_none_or(|format| format == choice.format));
                prop_assert!(width.is_none_or(|width| width == choice.width));
                prop_assert!((1..=8192).contains(&choice.width));
                prop_assert!((1..=8192).contains(&choice.height));
            }
        }
    }
}
