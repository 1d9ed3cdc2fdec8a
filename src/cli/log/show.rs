//! `log show`: the records of the audit log.

use super::names::{names, of_records};
use anyhow::{Context, Result};
use clap::Args;
use facelatch::access::event::plain;
use facelatch::audit::entry::Severity;
use facelatch::audit::{CSV_HEADER, Filter, Logged, Names, csv_line, json_line, line};
use facelatch::config::Config;
use facelatch::storage::audit::{AuditPlace, AuditReader, Order};
use jiff::tz::TimeZone;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Most records in one call without --since, --until or --last.
const USUAL: usize = 100;
/// Time between two looks for new records.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Show {
    /// From this time, such as 2026-11-30, 2026-11-30T03:00, or 2h ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time; a date alone means its end
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Records about a person: their name, or their number, also after they were removed
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
    /// Records of a kind, such as granted, refused, people, configuration, order; may be
    /// given several times
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Records of a door, by the name of its configuration file, if several share the log
    #[arg(long, value_name = "NAME")]
    door: Option<String>,
    /// Records that are at least this severe
    #[arg(long, value_name = "LEVEL")]
    severity: Option<Level>,
    /// The last records only [default: 100, unless a time is given]
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Go on with new records as they are written
    #[arg(long)]
    follow: bool,
    /// Print JSON Lines, one object per record
    #[arg(long)]
    json: bool,
    /// Print CSV with a line of headings
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Level {
    Info,
    Warn,
    Error,
}

impl Show {
    pub fn run(&self, config: &Config) -> Result<ExitCode> {
        let place = AuditPlace::of(&config.gallery_file());
        let reader = AuditReader::open(&place)?;
        let names = names(config);
        let filter = self.filter(&names)?;
        let last = match (self.last, self.since.is_some() || self.until.is_some()) {
            (Some(last), _) => last,
            (None, true) => usize::MAX,
            (None, false) => USUAL,
        };
        let (mut shown, mut unread) = (Vec::new(), false);
        for record in reader.records(1..=u64::MAX, Order::NewestFirst)? {
            if shown.len() >= last {
                break;
            }
            match record {
                Ok(record) => shown.extend(Logged::of(&record).filter(|one| filter.fits(one))),
                Err(error) => {
                    unread = true;
                    log::error!("{error}");
                }
            }
        }
        shown.reverse();
        let mut out = std::io::BufWriter::new(anstream::stdout().lock());
        if self.csv {
            write!(out, "{CSV_HEADER}")?;
        }
        for one in &shown {
            self.print(&mut out, one, &names)?;
        }
        out.flush()?;
        let mut number = newest(&reader)?;
        if !self.follow {
            return Ok(if unread { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        loop {
            std::thread::sleep(FOLLOW_EVERY);
            let reader = AuditReader::open(&place)?;
            for one in of_records(&reader, number + 1..=u64::MAX)? {
                number = number.max(one.number);
                if filter.fits(&one) {
                    self.print(&mut out, &one, &names)?;
                }
            }
            out.flush()?;
        }
    }

    fn filter(&self, names: &Names) -> Result<Filter> {
        let time = |text: &Option<String>, end| {
            text.as_deref().map(|text| super::time(text, end)).transpose()
        };
        let person = self.person.as_deref().map(|text| {
            names.find(text).with_context(|| {
                format!(
                    "{}: nobody who is enrolled has this name; give the number of a person who \
                     was removed",
                    plain(text)
                )
            })
        });
        Ok(Filter {
            since: time(&self.since, false)?,
            until: time(&self.until, true)?,
            person: person.transpose()?,
            kinds: self.kind.clone(),
            door: self.door.clone(),
            severity: self.severity.map(|level| match level {
                Level::Info => Severity::Info,
                Level::Warn => Severity::Warn,
                Level::Error => Severity::Error,
            }),
        })
    }

    fn print(&self, out: &mut impl Write, one: &Logged, names: &Names) -> std::io::Result<()> {
        if self.json {
            writeln!(out, "{}", json_line(one, names))
        } else if self.csv {
            write!(out, "{}", csv_line(one, names))
        } else {
            writeln!(out, "{}", line(one, names, &TimeZone::system()))
        }
    }
}

/// Number of the newest record; 0 if there is none.
fn newest(reader: &AuditReader) -> Result<u64> {
    let newest = reader.records(1..=u64::MAX, Order::NewestFirst)?.next().transpose()?;
    Ok(newest.map_or(0, |record| record.number))
}
