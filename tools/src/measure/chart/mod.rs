//! Plots as SVG: curves and bars over linear, logarithmic and probit axes, and shaded
//! tables.
//!
//! They follow the reader's light or dark theme. Colour is never the only distinction:
//! curves also differ in their dashes.

mod svg;

use svg::{Alignment, Shape, Tone};
pub use svg::{Picture, STYLE, escape};

/// Width of a plot, points.
const WIDTH: f64 = 640.0;
/// Height of a plot, points.
const HEIGHT: f64 = 400.0;
/// Margins for tick labels, title and axis names, points: left, top, right, bottom.
const MARGINS: [f64; 4] = [58.0, 56.0, 18.0, 46.0];
/// Scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Linear, with a tick at every multiple of `step` above `from`.
    Linear {
        /// First value.
        from: f64,
        /// Last value.
        to: f64,
        /// Distance between ticks.
        step: f64,
    },
    /// Logarithmic, with one tick per decade.
    Log {
        /// First value, a power of ten.
        from: f64,
        /// Last value, a power of ten.
        to: f64,
    },
    /// By quantiles of the normal distribution, as used for detection error tradeoff (DET)
    /// curves (Martin et al., "The DET curve in assessment of detection task performance",
    /// 1997). The errors of normally distributed scores become straight lines.
    Probit {
        /// First value, above 0.
        from: f64,
        /// Last value, below 1.
        to: f64,
    },
}

impl Scale {
    /// Position of a value along the axis, 0..=1; values beyond an end are clamped to it.
    fn at(&self, value: f64) -> f64 {
        let (from, to, value) = match *self {
            Self::Linear { from, to, .. } => (from, to, value),
            Self::Log { from, to } => (from.log10(), to.log10(), value.max(from).log10()),
            Self::Probit { from, to } => {
                (probit(from), probit(to), probit(value.max(from).min(to)))
            }
        };
        ((value - from) / (to - from)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match *self {
            Self::Linear { from, to, step } => {
                let digits = (-step.log10()).ceil().max(0.0) as usize;
                let count = ((to - from) / step + 1e-9) as usize;
                (0..=count)
                    .map(|i| from + step * i as f64)
                    .map(|at| {
                        (at, format!("{:.digits$}", if at.abs() < step / 2.0 { 0.0 } else { at }))
                    })
                    .collect()
            }
            Self::Log { from, to } => {
                let (first, last) = (from.log10().round() as i32, to.log10().round() as i32);
                (first..=last).map(|power| (10f64.powi(power), share(10f64.powi(power)))).collect()
            }
            Self::Probit { from, to } => {
                let all = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99];
                let within = all.into_iter().filter(|at| (from..=to).contains(at));
                within.map(|at| (at, share(at))).collect()
            }
        }
    }
}

/// Formats a share: as a percentage from 0.001 upwards, in scientific notation below.
fn share(value: f64) -> String {
    if value >= 1e-3 { format!("{}%", (value * 1e5).round() / 1e3) } else { format!("{value:.0e}") }
}

/// Quantile of the standard normal distribution for the probability `p`, above 0 and below
/// 1: Acklam's rational approximation, accurate to about nine digits.
pub fn probit(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    let polynomial = |terms: &[f64], x: f64| terms.iter().fold(0.0, |sum, term| sum * x + term);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&C, q) / polynomial(&D, q)
    };
    match p {
        _ if p < 0.024_25 => tail(p),
        _ if p > 1.0 - 0.024_25 => -tail(1.0 - p),
        _ => {
            let q = p - 0.5;
            q * polynomial(&A, q * q) / polynomial(&B, q * q)
        }
    }
}

/// An axis of a plot.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Quantity on the axis, with its unit.
    pub label: String,
    /// Scale and range.
    pub scale: Scale,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    /// A curve through the points.
    Curve,
    /// Separate dots.
    Dots,
    /// A bar of this width, in units of x, centred on each point, down to the axis.
    Bars(f64),
}

/// A series of points.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// How it is drawn.
    pub look: Look,
    /// Points as `[x, y]`.
    pub points: Vec<[f64; 2]>,
}

/// A plot of series over two axes.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Stem of the file names and of the element ids in a page.
    pub name: &'static str,
    /// Title.
    pub title: String,
    /// Description for readers who cannot see the plot, with its main result.
    pub description: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Series; at most three can be told apart by colour.
    pub series: Vec<Series>,
    /// Vertical lines: x value and label.
    pub marks: Vec<(f64, String)>,
}

/// A table whose cells are shaded by a share, 0..=1, such as a confusion matrix.
#[derive(Clone, Debug)]
pub struct Shaded {
    /// Stem of the file names; see [`Chart`].
    pub name: &'static str,
    /// Title.
    pub title: String,
    /// Description; see [`Chart`].
    pub description: String,
    /// Names of the rows and of the columns.
    pub names: [Vec<String>; 2],
    /// Shares, row by row.
    pub shares: Vec<Vec<f64>>,
}

impl Chart {
    /// Lays out the shapes.
    pub fn picture(&self) -> Picture {
        let [left, top, right, bottom] = MARGINS;
        let (width, height) = (WIDTH - left - right, HEIGHT - top - bottom);
        let x = |value: f64| left + self.x.scale.at(value) * width;
        let y = |value: f64| top + (1.0 - self.y.scale.at(value)) * height;
        let line = |points: Vec<[f64; 2]>, tone: Tone| Shape::Line {
            points,
            tone,
            width: 1.0,
            dashed: false,
        };
        let mut shapes = Vec::new();
        for (value, text) in self.x.scale.ticks() {
            shapes.push(line(vec![[x(value), top], [x(value), top + height]], Tone::Grid));
            shapes.push(word([x(value), HEIGHT - bottom + 16.0], Alignment::Center, text));
        }
        for (value, text) in self.y.scale.ticks() {
            shapes.push(line(vec![[left, y(value)], [left + width, y(value)]], Tone::Grid));
            shapes.push(word([left - 6.0, y(value) + 4.0], Alignment::Right, text));
        }
        let mut legend = WIDTH - right;
        for (at, series) in self.series.iter().enumerate().rev() {
            let tone = Tone::Series(at);
            let places = series.points.iter().map(|[a, b]| [x(*a), y(*b)]);
            let sample = [legend - 6.5 * series.name.chars().count() as f64 - 8.0, top - 18.0];
            match series.look {
                Look::Curve => {
                    let dashed = at % 2 == 1;
                    let curve = |points| Shape::Line { points, tone, width: 2.0, dashed };
                    shapes.push(curve(places.collect()));
                    shapes.push(curve(vec![[sample[0] - 24.0, sample[1]], sample]));
                }
                Look::Dots => {
                    let dot = |[x, y]: [f64; 2]| Shape::Block {
                        at: [x - 2.0, y - 2.0],
                        size: [4.0, 4.0],
                        tone,
                        opacity: 1.0,
                    };
                    shapes.extend(places.map(dot));
                    shapes.push(dot([sample[0] - 6.0, sample[1]]));
                }
                Look::Bars(wide) => {
                    let base = top + height;
                    for [middle, value] in series.points.iter().filter(|[_, value]| *value > 0.0) {
                        let (from, to, up) =
                            (x(middle - wide / 2.0), x(middle + wide / 2.0), y(*value));
                        let size = [to - from, base - up];
                        shapes.push(Shape::Block { at: [from, up], size, tone, opacity: 0.55 });
                    }
                    shapes.push(Shape::Block {
                        at: [sample[0] - 14.0, sample[1] - 5.0],
                        size: [14.0, 10.0],
                        tone,
                        opacity: 0.55,
                    });
                }
            }
            shapes.push(word([legend, top - 14.0], Alignment::Right, series.name.clone()));
            legend = sample[0] - 36.0;
        }
        for (at, text) in &self.marks {
            let points = vec![[x(*at), top], [x(*at), top + height]];
            shapes.push(Shape::Line { points, tone: Tone::Ink, width: 1.0, dashed: true });
            shapes.push(word([x(*at) + 4.0, top + 14.0], Alignment::Left, text.clone()));
        }
        let corner = [left, top + height];
        shapes.push(line(vec![[left, top], corner], Tone::Ink));
        shapes.push(line(vec![corner, [left + width, top + height]], Tone::Ink));
        shapes.push(word(
            [left + width / 2.0, HEIGHT - 10.0],
            Alignment::Center,
            self.x.label.clone(),
        ));
        shapes.push(word([10.0, top - 14.0], Alignment::Left, self.y.label.clone()));
        shapes.push(heading(&self.title));
        let (title, description) = (self.title.clone(), self.description.clone());
        Picture { name: self.name, title, description, size: [WIDTH, HEIGHT], shapes }
    }
}

impl Shaded {
    /// Lays out the shapes.
    pub fn picture(&self) -> Picture {
        let longest = self.names.iter().flatten().map(|name| name.chars().count()).max();
        let left = 16.0 + 6.5 * longest.unwrap_or(0).min(30) as f64;
        let cell = (520.0 / self.names[1].len().max(1) as f64).clamp(6.0, 34.0);
        let top = 68.0;
        let mut shapes = Vec::new();
        for (row, shares) in self.shares.iter().enumerate() {
            for (column, share) in shares.iter().enumerate() {
                let at = [left + cell * column as f64, top + cell * row as f64];
                let size = [cell - 1.0; 2];
                if *share > 0.0 {
                    let opacity = 0.15 + 0.85 * share.min(1.0);
                    let tone = Tone::Series(usize::from(row != column));
                    shapes.push(Shape::Block { at, size, tone, opacity });
                }
            }
        }
        // Smaller cells have no room for labels.
        if cell >= 12.0 {
            for (row, name) in self.names[0].iter().enumerate() {
                let at = [left - 6.0, top + cell * (row as f64 + 0.5) + 4.0];
                shapes.push(word(at, Alignment::Right, shortened(name)));
            }
            for column in 0..self.names[1].len() {
                let at = [left + cell * (column as f64 + 0.5), top - 6.0];
                shapes.push(word(at, Alignment::Center, (column + 1).to_string()));
            }
        }
        let [wide, high] = [self.names[1].len(), self.names[0].len()].map(|n| cell * n as f64);
        let corners = [[0.0, 0.0], [wide, 0.0], [wide, high], [0.0, high], [0.0, 0.0]];
        let points = corners.map(|[a, b]| [left + a, top + b]).to_vec();
        shapes.push(Shape::Line { points, tone: Tone::Ink, width: 1.0, dashed: false });
        shapes.push(word(
            [10.0, top - 24.0],
            Alignment::Left,
            "row: actual person, column: classified as".to_owned(),
        ));
        shapes.push(heading(&self.title));
        let size = [(left + wide + 18.0).max(420.0), top + high + 18.0];
        let (title, description) = (self.title.clone(), self.description.clone());
        Picture { name: self.name, title, description, size, shapes }
    }
}

fn word(at: [f64; 2], align: Alignment, text: String) -> Shape {
    Shape::Word { at, align, strong: false, text }
}

fn heading(title: &str) -> Shape {
    Shape::Word { at: [10.0, 22.0], align: Alignment::Left, strong: true, text: title.to_owned() }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= 30 {
        return name.to_owned();
    }
    name.chars().take(28).chain("..".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_of_the_normal_distribution_are_known() {
        for (p, expected) in
            [(0.5, 0.0), (0.975, 1.959_963_985), (0.001, -3.090_232_306), (1e-6, -4.753_424_309)]
        {
            assert!((probit(p) - expected).abs() < 1e-7, "{p}: {}", probit(p));
        }
    }

    #[test]
    fn axes_put_values_where_they_belong() {
        let log = Scale::Log { from: 1e-4, to: 1.0 };
        assert!((log.at(1e-2) - 0.5).abs() < 1e-12);
        assert_eq!((log.at(0.0), log.at(5.0)), (0.0, 1.0));
        let probit = Scale::Probit { from: 0.01, to: 0.99 };
        assert!((probit.at(0.5) - 0.5).abs() < 1e-9);
        assert_eq!((probit.at(0.0), probit.at(1.0)), (0.0, 1.0));
        let labels: Vec<String> = log.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["1e-4", "0.1%", "1%", "10%", "100%"]);
        let linear = Scale::Linear { from: -0.2, to: 0.2, step: 0.2 };
        let labels: Vec<String> = linear.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["-0.2", "0.0", "0.2"]);
    }

    proptest! {
        #[test]
        fn quantiles_rise(a in 1e-9f64..1.0, b in 1e-9f64..1.0) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(probit(low) <= probit(high) + 1e-8);
        }
    }
}
