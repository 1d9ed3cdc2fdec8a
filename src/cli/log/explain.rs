//! `log explain`: a record in plain English, its picture, and its decision derived again.

use super::names::{names, of_records};
use anyhow::{Context, Result, bail};
use clap::Args;
use facelatch::access::attempt::Rules;
use facelatch::access::controller::Controller;
use facelatch::access::gallery::Gallery;
use facelatch::audit::replay::{changed_rules, differences, replay};
use facelatch::audit::{Explained, Logged, explain, json_line};
use facelatch::config::Config;
use facelatch::service::files::open_store;
use facelatch::storage::audit::{AuditPlace, AuditReader, PictureFolder};
use facelatch::storage::gallery::Purpose;
use facelatch::storage::keys::{self, DoorKeys, KeyPlace};
use facelatch::storage::models::ModelStore;
use facelatch::vision::track::TrackId;
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Records before and after the one that is explained: the steps of a challenge, and the
/// relay's answer.
const BEFORE: u64 = 200;
const AFTER: u64 = 50;

#[derive(Args)]
pub struct Explain {
    /// Number of the record, as shown by `show`
    id: u64,
    /// Print the record as one JSON object instead
    #[arg(long)]
    json: bool,
    /// Derive the decision again with this program, and name every difference; exit code 1
    /// if there is one
    #[arg(long)]
    replay: bool,
    /// Write the picture of the attempt to this PNG file
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

impl Explain {
    pub fn run(&self, config: &Config) -> Result<ExitCode> {
        let place = AuditPlace::of(&config.gallery_file());
        let reader = AuditReader::open(&place)?;
        let around = self.id.saturating_sub(BEFORE).max(1)..=self.id.saturating_add(AFTER);
        let records = of_records(&reader, around)?;
        let Some(at) = records.iter().position(|one| one.number == self.id) else {
            bail!("record {}: not in the log; facelatch log show lists the records", self.id);
        };
        let (logged, names) = (&records[at], names(config));
        let mut out = anstream::stdout().lock();
        if self.json {
            writeln!(out, "{}", json_line(logged, &names))?;
        } else {
            let (before, after) = (&records[..at], &records[at + 1..]);
            let explained = Explained { logged, before, after };
            write!(out, "{}", explain(&explained, &names, &TimeZone::system()))?;
        }
        let mut code = ExitCode::SUCCESS;
        if self.replay {
            // Frames of a recording may repeat, and say so in the rules.
            let recorded = logged.entry.inputs.as_ref().map(|tape| &tape.rules.decide);
            let live = recorded.is_none_or(|rules| rules.same_view.is_finite());
            let (text, same) = replayed(logged, rules(config, live))?;
            if !self.json {
                writeln!(out)?;
            }
            write!(out, "{text}")?;
            if !same {
                code = ExitCode::FAILURE;
            }
        }
        if let Some(file) = &self.picture {
            write_picture(&place, config, logged, file)?;
            writeln!(out, "picture written to {}", file.display())?;
        }
        Ok(code)
    }
}

/// The result of a replay in words, and whether the decision came out the same.
fn replayed(logged: &Logged, today: Result<Rules>) -> Result<(String, bool)> {
    let entry = &logged.entry;
    let (Some(tape), Some(different)) = (&entry.inputs, differences(entry)) else {
        if entry.flag("too_long") {
            bail!(
                "record {}: its inputs are not kept, because the people were in view for too long",
                logged.number
            );
        }
        bail!(
            "record {}: it has no inputs to derive anything from; audit.replay = true keeps those \
             of later decisions",
            logged.number
        );
    };
    let track = entry.count("track").map(TrackId);
    let mut text = String::new();
    if different.is_empty() {
        let _ = writeln!(
            text,
            "Replay: the same decision, bit for bit: {}.",
            replay(tape, &tape.rules, track).words()
        );
    } else {
        let _ = writeln!(text, "Replay: another decision with this program. It differs in:");
        for (name, then, now) in &different {
            let _ = writeln!(text, "  {name}: {then} then, {now} now");
        }
    }
    match today {
        Ok(today) => {
            let changed = changed_rules(&tape.rules, &today);
            if changed.is_empty() {
                let _ = writeln!(text, "The rules are the same today.");
            } else {
                let _ = writeln!(text, "The rules are different today:");
                for (name, then, now) in &changed {
                    let _ = writeln!(text, "  {name}: {then} then, {now} today");
                }
                let outcome = replay(tape, &today, track).words();
                let _ = writeln!(text, "By the rules of today: {outcome}.");
            }
        }
        Err(error) => log::warn!("{error:#}; the rules of today are not compared"),
    }
    Ok((text, different.is_empty()))
}

/// The rules by which the door decides today: of its configuration, models and gallery.
/// `live` says whether the frames are those of a camera.
fn rules(config: &Config, live: bool) -> Result<Rules> {
    let installed = ModelStore::new(&config.model_store());
    let models = installed.open(&installed.pointer()?.current)?;
    let mut gallery = Gallery::for_models(&models)?;
    let store = open_store(&config.gallery_file(), Purpose::Read)?;
    let (id, size) = (models.recognizer_id()?, models.recognizer()?.embedding_size);
    // Without the network: templates of other models do not count.
    gallery.clone_from(&store.load_embedding(&id, size, |_| None)?.gallery);
    let (mut controller, _) =
        Controller::new(models.calibration()?, config.access(), gallery, 0, Duration::ZERO);
    if live {
        controller.watches_live();
    }
    Ok(controller.rules())
}

/// The kept picture of an attempt that let somebody in, as a PNG file with an aligned face of
/// 112x112 pixels.
pub fn picture_of_admission(config: &Config, id: u64) -> Result<Vec<u8>> {
    let place = AuditPlace::of(&config.gallery_file());
    let records = of_records(&AuditReader::open(&place)?, id..=id)?;
    let Some(logged) = records.iter().find(|one| one.number == id) else {
        bail!("record {id}: not in the log; facelatch log show lists the records");
    };
    if logged.entry.event != "granted" {
        bail!(
            "record {id}: it is no admission but {:?}; name the record that admitted somebody",
            logged.entry.event
        );
    }
    kept_picture(&place, config, logged)
}

/// The kept picture of an attempt as a PNG file.
fn kept_picture(place: &AuditPlace, config: &Config, logged: &Logged) -> Result<Vec<u8>> {
    let Some(picture) = &logged.entry.picture else {
        bail!(
            "record {}: no picture was kept; audit.pictures keeps those of later attempts",
            logged.number
        );
    };
    let pictures = PictureFolder::of(place, config.audit.pictures_keep_for);
    let place_of_keys =
        KeyPlace::of_user().context("this user has no home, so no keys of a door")?;
    let door = DoorKeys::open(&config.gallery_file(), &place_of_keys)?;
    let sealer = |id| door.sealer_with(keys::Purpose::AuditPictures, id);
    Ok(pictures.read(logged.number, &picture.sha256, sealer)?)
}

fn write_picture(place: &AuditPlace, config: &Config, logged: &Logged, file: &Path) -> Result<()> {
    let png = kept_picture(place, config, logged)?;
    // Pictures of faces are personal data: only the owner may read them.
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(file)
        .and_then(|mut out| out.write_all(&png))
        .with_context(|| file.display().to_string())
}
