//! The part of `status` about expected false entries.

use facelatch::access::false_entries::{FalseEntries, HISTORY, Interval, Report, SIGNIFICANCE};
use facelatch::access::gallery::Gallery;
use facelatch::config::Config;
use facelatch::models::threshold::ThresholdTable;
use facelatch::storage::door_state::{DoorStateFile, Moment};
use std::io::Write;
use std::time::Duration;

/// Most templates that are compared with each other for the status: this takes a tenth of a
/// second on a board.
const MOST_COMPARED: usize = 2000;

/// What is expected by what the service saved, if none runs. A state that cannot be read
/// counts as none.
pub fn expected(config: &Config, table: &ThresholdTable, gallery: &Gallery) -> Report {
    let file = DoorStateFile::beside(&config.gallery_file());
    let saved = file.read(&Moment::now(None)).unwrap_or_default().state.false_entries;
    let rate = config.recognition.false_accept_rate;
    let mut entries = FalseEntries::new(config.false_entries(), rate, table);
    entries.resume(&saved);
    entries.elapse(Duration::ZERO, table, gallery);
    entries.report().clone()
}

/// Number of pairs of people who resemble each other and are not told apart by stricter
/// thresholds; `None` for a gallery that is too large to compare all quickly.
pub fn pairs(gallery: &Gallery, threshold: f32) -> Option<usize> {
    let few = gallery.templates() <= MOST_COMPARED;
    few.then(|| gallery.alike(threshold).iter().filter(|pair| !pair.covered).count())
}

/// Prints what is expected and from what.
pub fn print(out: &mut impl Write, report: &Report, pairs: Option<usize>) -> std::io::Result<()> {
    let Interval { expected, low, high } = report.entries_per_year;
    let budget = report.budget.map(|budget| format!(", budget {budget}")).unwrap_or_default();
    writeln!(
        out,
        "entries      {expected:.2} false entries expected per year (95 %: {low:.2} to \
         {high:.2}){budget}"
    )?;
    if report.over_budget {
        writeln!(
            out,
            "  OVER BUDGET  the thresholds are as tight as they may be; lower \
             recognition.false_accept_rate, or find out who comes so often"
        )?;
    }
    let per_day = report.attempts_per_year.expected / 365.25;
    let Report { strangers, undecided, known, watched_days, .. } = report;
    let assumed = if report.assumed {
        format!("; an assumption until {HISTORY} days are counted")
    } else {
        String::new()
    };
    writeln!(
        out,
        "  traffic    {per_day:.1} attempts per day of people not enrolled{assumed}; counted in \
         {watched_days:.1} days: {strangers} strangers, {undecided} undecided, {known} known"
    )?;
    let Interval { expected, low, high } = report.promised_rate;
    writeln!(
        out,
        "  rate       {expected:.1e} per attempt promised ({low:.1e} to {high:.1e}) at \
         similarity {:.3}",
        report.similarity
    )?;
    if report.rate < report.configured_rate {
        writeln!(
            out,
            "  TIGHTENED  false accept rate {:.1e} instead of {:.1e}, to keep the budget",
            report.rate, report.configured_rate
        )?;
    }
    let measured = &report.measured;
    if let (Some(median), Some(p99)) = (measured.median, measured.p99) {
        write!(
            out,
            "  strangers  {} measured: similarity {median:.2} median, {p99:.2} of 99 in 100",
            measured.attempts
        )?;
        for level in &measured.levels {
            let (count, promised) = (level.measured, level.promised);
            write!(out, "; {count} in the top {} % ({promised:.1} promised)", level.share * 100.0)?;
        }
        writeln!(out)?;
    }
    if measured.more_alike {
        writeln!(out, "  MORE ALIKE {}", more_alike())?;
    }
    match pairs {
        Some(0) => {}
        Some(count) => writeln!(
            out,
            "  alike      {count} pairs of people resemble each other; see facelatch people alike"
        )?,
        None => writeln!(out, "  alike      not compared; see facelatch people alike")?,
    }
    Ok(())
}

/// What it means that strangers are more similar than promised.
pub fn more_alike() -> String {
    format!(
        "strangers are more similar to the people enrolled than the models promise (by chance at \
         one door in {:.0}): known people may be refused and give up, or the models suit the \
         people here badly; see the log, and lower recognition.false_accept_rate",
        1.0 / SIGNIFICANCE
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch::models::Models;

    fn text(report: &Report, pairs: Option<usize>) -> String {
        let mut text = vec![];
        print(&mut text, report, pairs).expect("memory takes all");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn a_new_door_says_that_it_assumes() {
        let models = Models::built_in().expect("models");
        let table = models.thresholds().expect("a table");
        let gallery = Gallery::for_models(&models).expect("a gallery");
        let folder = tempfile::TempDir::new().expect("a folder");
        let mut config = Config::default();
        config.gallery.file = Some(folder.path().join("gallery.redb"));
        let report = expected(&config, &table, &gallery);
        let text = text(&report, pairs(&gallery, report.similarity));
        assert!(text.starts_with("entries      0.00 false entries expected"), "{text}");
        assert!(text.contains("20.0 attempts per day") && text.contains("an assumption"), "{text}");
        assert!(!text.contains("TIGHTENED") && !text.contains("alike"), "{text}");
    }

    #[test]
    fn what_needs_attention_stands_out() {
        let mut report = Report { rate: 1e-5, configured_rate: 1e-4, ..Report::default() };
        (report.over_budget, report.measured.more_alike) = (true, true);
        (report.measured.median, report.measured.p99) = (Some(0.2), Some(0.4));
        let text = text(&report, Some(3));
        for expected in ["OVER BUDGET", "TIGHTENED", "MORE ALIKE", "one door in 100", "3 pairs"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
