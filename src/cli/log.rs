//! `log`: the audit log.

pub(super) mod explain;
mod names;
mod show;

use super::common_args::read_config;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use facelatch::audit::{Fault, Verdict};
use facelatch::config::Config;
use facelatch::crypto::{PublicKey, Signer};
use facelatch::files;
use facelatch::storage::audit::{
    AuditPlace, VerifiedBundle, export, kept_key, stamp, verify, verify_bundle,
};
use facelatch::storage::keys::{DoorKeys, KeyPlace};
use jiff::{Timestamp, civil, tz::TimeZone};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show, explain, verify and export the audit log
///
/// The door records what it did and why, in a folder beside the gallery. Each record is
/// chained to the one before it by a hash, and the door signs the chain every minute and
/// after each opening by command.
#[derive(Args)]
pub struct Log {
    #[command(subcommand)]
    what: What,
    /// Configuration file of the service [default: /etc/facelatch/facelatch.toml if it
    /// exists, else the default of every setting]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Gallery file beside which the log is [default: from the configuration]
    #[arg(long, value_name = "FILE", global = true)]
    gallery: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// List the records: what happened, when, and about whom
    ///
    /// Names are looked up now: a person who was renamed has the new name, and one who was
    /// removed is a number. A time of a clock that was not trusted has a question mark.
    Show(Box<show::Show>),
    /// Explain a record: who, how alike, what was asked, and what stood in the way
    Explain(explain::Explain),
    /// Name the first record that was edited, cut, reordered or dropped
    ///
    /// Says up to which record and time signed heads prove the log. Exit code 0 if nothing
    /// is wrong, 1 otherwise. Records that were lost, such as on a full disk, are listed:
    /// the log itself says that they are missing, so they are no fault.
    Verify {
        /// File written by `export` [default: the log of the door]
        file: Option<PathBuf>,
        /// Public key of the door, or a file with it: ssh-ed25519 AAAA... [default: the
        /// door's own for a user who can open it, else the key beside the log or in the
        /// file, which proves nothing against somebody who could replace it]
        #[arg(long, value_name = "KEY")]
        key: Vec<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write the log to one signed file, which `verify` checks on another machine
    Export {
        /// File to create
        file: PathBuf,
        /// From this time, such as 2026-11-30 or 2026-11-30T03:00 [default: the beginning]
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Up to this time; whole segments are written, so that there may be more [default:
        /// the end]
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
    },
}

impl Log {
    pub fn run(self) -> Result<ExitCode> {
        let Self { what, config, gallery } = self;
        let read = || -> Result<Config> {
            let mut config = read_config(config.as_deref())?;
            if let Some(file) = &gallery {
                config.gallery.file = Some(file.clone());
            }
            Ok(config)
        };
        let place = || read().map(|config| AuditPlace::of(&config.gallery_file()));
        match what {
            What::Show(show) => show.run(&read()?),
            What::Explain(explain) => explain.run(&read()?),
            What::Verify { file: None, key, json } => {
                let place = place()?;
                let mut keys = keys(&key)?;
                if keys.is_empty() {
                    keys.extend(door_key(&place)?);
                }
                let verdict = verify(&place, &keys)?;
                told(&verdict, &keys, None, json)
            }
            What::Verify { file: Some(file), key, json } => {
                let keys = keys(&key)?;
                let bundle = verify_bundle(&file, &keys)?;
                let used = if keys.is_empty() { bundle.key.into_iter().collect() } else { keys };
                told(&bundle.verdict, &used, Some(&bundle), json)
            }
            What::Export { file, from, to } => {
                let span = (
                    from.as_deref().map_or(Ok(i64::MIN), |text| time(text, false))?,
                    to.as_deref().map_or(Ok(i64::MAX), |text| time(text, true))?,
                );
                let place = place()?;
                let signer = door_signer(&place)?;
                let done = export(&place, &signer, &file, span, &stamp(false))?;
                writeln!(
                    anstream::stdout().lock(),
                    "records {} to {} written to {}, signed by {}",
                    done.first,
                    done.last,
                    file.display(),
                    signer.public().fingerprint()
                )?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// The door's key, which signs what is exported.
fn door_signer(place: &AuditPlace) -> Result<Signer> {
    let at = KeyPlace::of_user().context("you have no home folder, in which the key would be")?;
    let keys = DoorKeys::open(&place.gallery, &at);
    Ok(keys.context("the door's key is needed to sign the file")?.signer().clone())
}

/// The key to verify a door's log with: its own if this user can open it, else the one
/// beside the log.
fn door_key(place: &AuditPlace) -> Result<Option<PublicKey>> {
    let own = door_signer(place).ok().map(|signer| signer.public());
    let kept = kept_key(place)?;
    if let (Some(own), Some(kept)) = (own, kept)
        && own != kept
    {
        log::warn!(
            "{}: the key beside the log is {}, and the door's is {}; the door's is used",
            place.folder().display(),
            kept.fingerprint(),
            own.fingerprint()
        );
    }
    Ok(own.or(kept))
}

/// Keys as given, or in the files that are named.
fn keys(given: &[String]) -> Result<Vec<PublicKey>> {
    let key = |given: &String| -> Result<PublicKey> {
        if let Ok(key) = given.parse() {
            return Ok(key);
        }
        let text = files::read_text(Path::new(given), 64 << 10).context(given.clone())?;
        text.trim().parse().with_context(|| given.clone())
    };
    given.iter().map(key).collect()
}

/// A time in the local zone, or with its offset, as Unix microseconds. A date alone means its
/// beginning, or its end if `end`.
fn time(text: &str, end: bool) -> Result<i64> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_microsecond());
    }
    let zone = TimeZone::system();
    let wrong = || format!("{text:?} is no time; expected one like 2026-11-30T03:00 or 2026-11-30");
    let local = match text.parse::<civil::Date>() {
        Ok(date) if text.len() <= 10 && end => date.at(23, 59, 59, 999_999_999),
        Ok(date) if text.len() <= 10 => date.at(0, 0, 0, 0),
        _ => text.parse::<civil::DateTime>().with_context(wrong)?,
    };
    Ok(local.to_zoned(zone).with_context(wrong)?.timestamp().as_microsecond())
}

/// A wall clock in microseconds as text.
fn shown(wall: i64) -> String {
    match Timestamp::from_microsecond(wall) {
        Ok(at) => format!("{at:.0}"),
        Err(_) => "an impossible time".to_owned(),
    }
}

/// Prints a verdict.
fn told(
    verdict: &Verdict,
    keys: &[PublicKey],
    bundle: Option<&VerifiedBundle>,
    json: bool,
) -> Result<ExitCode> {
    let fault = bundle.and_then(|bundle| bundle.fault.as_deref());
    let good = verdict.is_good() && fault.is_none();
    let mut out = anstream::stdout().lock();
    if json {
        let mut object = serde_json::to_value(verdict)?;
        object["good"] = json!(good);
        object["keys"] = keys.iter().map(PublicKey::fingerprint).collect();
        if let Some(bundle) = bundle {
            object["bundle"] = json!({ "fault": fault, "exported": bundle.exported });
        }
        writeln!(out, "{object}")?;
    } else {
        print(&mut out, verdict, keys, bundle)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(
    out: &mut impl Write,
    verdict: &Verdict,
    keys: &[PublicKey],
    bundle: Option<&VerifiedBundle>,
) -> std::io::Result<()> {
    let Verdict { records, first, last, faults, proven, unproven, lost, torn, .. } = verdict;
    if let Some(bundle) = bundle {
        match &bundle.fault {
            Some(fault) => writeln!(out, "BUNDLE   {fault}")?,
            None => {
                writeln!(out, "bundle   exported {}, its signature holds", shown(bundle.exported))?
            }
        }
    }
    writeln!(out, "records  {records}, numbers {first} to {last}")?;
    if verdict.expired_through > 0 {
        writeln!(
            out,
            "expired  up to record {}, as the configuration wants it",
            verdict.expired_through
        )?;
    }
    match faults.first() {
        None => writeln!(out, "chain    whole: nothing was edited, cut, reordered or dropped")?,
        Some(fault) => {
            writeln!(out, "FAULT    {}", with_time(fault))?;
            for fault in faults.iter().skip(1).take(MOST_SHOWN) {
                writeln!(out, "         {fault}")?;
            }
            if faults.len() > MOST_SHOWN + 1 {
                writeln!(
                    out,
                    "         and {} more; --json lists them",
                    faults.len() - MOST_SHOWN - 1
                )?;
            }
        }
    }
    for gap in lost {
        writeln!(
            out,
            "gap      record {} of {} says that {} records before it were lost",
            gap.record,
            shown(gap.wall),
            gap.count
        )?;
    }
    for gap in torn {
        writeln!(
            out,
            "torn     record {} of {} says that a torn end of {} bytes was cut off before it",
            gap.record,
            shown(gap.wall),
            gap.count
        )?;
    }
    if verdict.tail > 0 {
        writeln!(
            out,
            "torn     the last {} bytes are no whole record; the next start cuts them off",
            verdict.tail
        )?;
    }
    for key in keys {
        writeln!(out, "key      {}", key.fingerprint())?;
    }
    if keys.is_empty() {
        writeln!(out, "proven   nothing: no key to verify signed heads with; give it with --key")?;
    }
    for proven in proven.iter().filter(|_| !keys.is_empty()) {
        let clock = if proven.trusted { "" } else { ", by a clock that was not trusted" };
        writeln!(
            out,
            "proven   records {} to {} by the head of {}{clock}",
            proven.from,
            proven.through,
            shown(proven.wall)
        )?;
    }
    if *unproven > 0 && !keys.is_empty() {
        writeln!(out, "         the last {unproven} records are not signed yet")?;
    }
    Ok(())
}

/// Most faults that are shown after the first.
const MOST_SHOWN: usize = 20;

fn with_time(fault: &Fault) -> String {
    match fault.after {
        Some(wall) => format!("{fault}; the record before it is of {}", shown(wall)),
        None => fault.to_string(),
    }
}
