//! Plots of an evaluation report.

use super::Report;
use super::closed::Closed;
use super::open::{BIN, Identification, LikelihoodFigures, Open, Verification};
use crate::measure::chart::{Axis, Chart, Look, Picture, Scale, Series, Shaded};

/// Largest number of people for which the confusion matrix is drawn.
pub const MOST_DRAWN: usize = 60;
/// Lowest rate on the axes of the DET plot.
const LEAST_SHARE: f64 = 1e-6;

/// All plots for which the report has data.
pub fn pictures(report: &Report) -> Vec<Picture> {
    let mut pictures = Vec::new();
    if let Some(closed) = report.closed.as_ref().filter(|closed| closed.classes <= MOST_DRAWN) {
        pictures.push(confusion(closed).picture());
    }
    if let Some(open) = &report.open {
        pictures.extend(of_open(open).iter().map(Chart::picture));
    }
    pictures
}

fn of_open(open: &Open) -> Vec<Chart> {
    let verification = &open.verification;
    let mut charts = vec![roc(verification), det(verification), histogram(verification)];
    charts.extend(open.identification.as_ref().map(identification));
    charts.extend(open.likelihood.as_ref().map(|figures| likelihood(figures, verification)));
    charts
}

/// The confusion matrix, each row divided by its number of photos.
fn confusion(closed: &Closed) -> Shaded {
    let mut shares = vec![vec![0.0; closed.classes]; closed.classes];
    let mut names: Vec<String> = (0..closed.classes).map(|at| (at + 1).to_string()).collect();
    for cell in &closed.confusion {
        shares[cell.person][cell.taken_for] = cell.photos as f64;
    }
    for row in &mut shares {
        let photos: f64 = row.iter().sum();
        row.iter_mut().for_each(|cell| *cell /= photos.max(1.0));
    }
    for (name, person) in names.iter_mut().zip(&closed.names) {
        *name = format!("{name} {person}");
    }
    let wrong = closed.photos - closed.people.iter().map(|person| person.right).sum::<usize>();
    Shaded {
        name: "confusion",
        title: "Confusion matrix".to_owned(),
        description: format!(
            "Each row is a person, and each column is the person that the photos were classified as; {wrong} of {} photos are off the diagonal.",
            closed.photos
        ),
        names: [names.clone(), names],
        shares,
    }
}

fn roc(verification: &Verification) -> Chart {
    let points: Vec<[f64; 2]> =
        verification.curve.iter().filter(|p| p.far > 0.0).map(|p| [p.far, p.tar]).collect();
    let least = points.iter().map(|[_, tar]| *tar).fold(1.0, f64::min);
    let from = (least * 10.0).floor() / 10.0;
    let from = if from >= 1.0 { 0.9 } else { from };
    let reference = &verification.reference;
    Chart {
        name: "roc",
        title: "True accept rate by false accept rate (ROC)".to_owned(),
        description: format!(
            "The share of genuine pairs accepted, over the share of impostor pairs accepted. At a false accept rate of {:.0e} it is {:.2} %.",
            reference.far,
            reference.tar * 100.0
        ),
        x: rates("false accept rate", 1.0 / verification.impostor as f64),
        y: Axis {
            label: "true accept rate".to_owned(),
            scale: Scale::Linear { from, to: 1.0, step: step(1.0 - from) },
        },
        series: vec![curve("every photo pair", points)],
        marks: vec![(reference.far, format!("{:.0e}", reference.far))],
    }
}

fn det(verification: &Verification) -> Chart {
    let least = |events: usize| (1.0 / events.max(1) as f64).clamp(LEAST_SHARE, 0.01);
    let points = verification.curve.iter().map(|p| [p.far, 1.0 - p.tar]);
    let seen = |[far, frr]: &[f64; 2]| *far > 0.0 && *far < 0.5 && *frr > 0.0 && *frr < 0.95;
    let points: Vec<[f64; 2]> = points.filter(seen).collect();
    let highest = points.iter().map(|[_, frr]| *frr).fold(0.0, f64::max);
    let highest = [0.05, 0.2, 0.5].into_iter().find(|end| highest < *end).unwrap_or(0.95);
    let axis = |label: &str, from: f64, to: f64| Axis {
        label: label.to_owned(),
        scale: Scale::Probit { from, to },
    };
    Chart {
        name: "det",
        title: "False reject rate by false accept rate (DET)".to_owned(),
        description: format!(
            "The share of genuine pairs rejected, over the share of impostor pairs accepted, both on a normal-quantile scale. They are equal at {:.2} %.",
            verification.eer * 100.0
        ),
        x: axis("false accept rate", least(verification.impostor), 0.5),
        y: axis("false reject rate", least(verification.genuine).max(1e-4), highest),
        series: vec![curve("every photo pair", points)],
        marks: vec![],
    }
}

fn histogram(verification: &Verification) -> Chart {
    let [genuine, impostor] = &verification.histogram;
    let filled = |at: &usize| genuine[*at] + impostor[*at] > 0;
    let bins: Vec<usize> = (0..genuine.len()).collect();
    let first = bins.iter().copied().find(filled).unwrap_or(0);
    let last = bins.iter().copied().rfind(filled).unwrap_or(genuine.len() - 1);
    let tenth = |value: f64| (value * 5.0).round() / 5.0;
    let from = tenth((first as f64 * BIN - 1.0 - 0.1).max(-1.0)).max(-1.0);
    let to = tenth(((last + 1) as f64 * BIN - 1.0 + 0.1).min(1.0)).min(1.0);
    let shares = |counts: &[u64]| -> Vec<[f64; 2]> {
        let all = counts.iter().sum::<u64>().max(1) as f64;
        let bin = |(at, count): (usize, &u64)| [middle(at), *count as f64 / all];
        counts.iter().enumerate().map(bin).collect()
    };
    let series = [("one person", genuine), ("two people", impostor)].map(|(name, counts)| Series {
        name: name.to_owned(),
        look: Look::Bars(BIN),
        points: shares(counts),
    });
    let highest =
        series.iter().flat_map(|s| &s.points).map(|[_, share]| *share).fold(0.0, f64::max);
    let each = step(highest);
    let reference = &verification.reference;
    Chart {
        name: "similarities",
        title: "Histogram of similarities".to_owned(),
        description: format!(
            "Shares of pairs of one person and of two people by similarity, in bins of {BIN}. At the threshold {:.3}, one in {:.0} pairs of two people is accepted.",
            reference.threshold,
            1.0 / reference.far
        ),
        x: Axis {
            label: "similarity (cosine)".to_owned(),
            scale: Scale::Linear { from, to: to.max(from + 0.2), step: 0.2 },
        },
        y: Axis {
            label: "share of pairs".to_owned(),
            scale: Scale::Linear { from: 0.0, to: (highest / each).ceil() * each, step: each },
        },
        series: series.into(),
        marks: vec![(
            f64::from(reference.threshold),
            format!("{:.3} (FAR {:.0e})", reference.threshold, reference.far),
        )],
    }
}

fn identification(found: &Identification) -> Chart {
    let points: Vec<[f64; 2]> =
        found.curve.iter().filter(|p| p.fpir > 0.0).map(|p| [p.fpir, p.fnir]).collect();
    let highest = points.iter().map(|[_, fnir]| *fnir).fold(0.01, f64::max);
    let each = step(highest);
    Chart {
        name: "identification",
        title: "Identification errors in a gallery (FNIR by FPIR)".to_owned(),
        description: format!(
            "The share of probes of enrolled people that are not identified, over the share of probes of other people that find a match, in a gallery of {} people.",
            found.enrolled
        ),
        x: rates("false positive identification rate", 1.0 / found.non_mated as f64),
        y: Axis {
            label: "false negative identification rate".to_owned(),
            scale: Scale::Linear { from: 0.0, to: (highest / each).ceil() * each, step: each },
        },
        series: vec![curve(&format!("{} people enrolled", found.enrolled), points)],
        marks: vec![],
    }
}

fn likelihood(figures: &LikelihoodFigures, verification: &Verification) -> Chart {
    let line = &figures.line;
    let ten = |natural: f64| natural / std::f64::consts::LN_10;
    let fitted =
        [-1.0, line.lowest, line.highest, 1.0].map(|at| [at, ten(line.log_ratio(at as f32))]);
    let [genuine, impostor] = &verification.histogram;
    let [all, others] = [genuine, impostor].map(|counts| counts.iter().sum::<u64>().max(1) as f64);
    let bins = genuine.iter().zip(impostor).enumerate();
    let measured: Vec<[f64; 2]> = bins
        .filter(|(_, (genuine, impostor))| **genuine > 0 && **impostor > 0)
        .map(|(at, (genuine, impostor))| {
            [middle(at), ((*genuine as f64 / all) / (*impostor as f64 / others)).log10()]
        })
        .collect();
    let ends = fitted.iter().chain(&measured).map(|[_, ratio]| *ratio);
    let high = ends.map(f64::abs).fold(1.0, f64::max).ceil();
    let each = if high > 6.0 { 2.0 } else { 1.0 };
    let high = (high / each).ceil() * each;
    Chart {
        name: "likelihood",
        title: "Likelihood ratio by similarity".to_owned(),
        description: format!(
            "Logarithm of the likelihood ratio over similarity. The ratio is 1 at {:.3} and at most 10 to the power of {:.1}, its value at {:.3}; the impostor pairs justify no higher ratio.",
            -line.offset / line.slope,
            ten(line.log_ratio(1.0)),
            line.highest
        ),
        x: Axis {
            label: "similarity (cosine)".to_owned(),
            scale: Scale::Linear { from: -0.4, to: 1.0, step: 0.2 },
        },
        y: Axis {
            label: "log10 of the ratio".to_owned(),
            scale: Scale::Linear { from: -high, to: high, step: each },
        },
        series: vec![
            curve("fitted", fitted.into()),
            Series { name: "counted in bins".to_owned(), look: Look::Dots, points: measured },
        ],
        marks: vec![],
    }
}

fn middle(bin: usize) -> f64 {
    (bin as f64 + 0.5) * BIN - 1.0
}

fn curve(name: &str, points: Vec<[f64; 2]>) -> Series {
    Series { name: name.to_owned(), look: Look::Curve, points }
}

/// A logarithmic axis from the decade of the lowest rate to 1.
fn rates(label: &str, least: f64) -> Axis {
    let from = 10f64.powf(least.log10().floor().clamp(-8.0, -1.0));
    Axis { label: label.to_owned(), scale: Scale::Log { from, to: 1.0 } }
}

/// Distance between ticks that gives about five of them.
fn step(range: f64) -> f64 {
    let decade = 10f64.powf((range / 5.0).max(1e-9).log10().floor());
    let of = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * decade * 6.0 >= range);
    of.unwrap_or(10.0) * decade
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_about_five_ticks() {
        for (range, expected) in [(1.0, 0.2), (0.1, 0.02), (0.23, 0.05), (0.016, 0.005)] {
            assert!((step(range) - expected).abs() < 1e-12, "{range}: {}", step(range));
        }
    }
}
