//! `people`: manages the people enrolled.

mod alike;
mod negatives;

use super::common_args::CommonArgs;
use super::passphrase;
use super::trail::Trail;
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use facelatch::access::gallery::Traits;
use facelatch::access::names::{Likeness, checked, nfc};
use facelatch::access::schedule::DEFAULT_GROUP;
use facelatch::audit::entry::Entry;
use facelatch::config::Config;
use facelatch::files;
use facelatch::models::sha256_hex;
use facelatch::service::files::{EMPTY, open_store};
use facelatch::storage::gallery::{
    Export, Imported, Lock, Opening, Person, Purpose, Register, Restored, Store, StoreError,
    Unlock, is_encrypted,
};
use facelatch::storage::keys::{DoorKeys, KeyPlace};
use facelatch::vision::picture::encode_png;
use facelatch_site::dates::{self, End};
use jiff::tz::TimeZone;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Largest file whose digest is written to the audit log, bytes.
const LARGEST_DIGESTED: u64 = 256 << 20;

/// Manage the people enrolled: names, groups, administrators, export and import
///
/// A gallery that is absent, unreachable (permissions, links, mounts), damaged without a
/// usable copy, foreign, or older than the one in use is named with its cure, and the exit
/// code is 1. One that is read-only can be listed, shown and exported (exit code 0, with a
/// warning), and not changed (1). An empty one is listed with a warning (0).
#[derive(Args)]
pub struct People {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Subcommand)]
enum What {
    /// List everybody, sorted by name
    List {
        /// Print JSON Lines, one object per person
        #[arg(long)]
        json: bool,
    },
    /// Show one person
    Show {
        /// Name as shown by `list`
        name: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Write the stored pictures of the person to this folder
        #[arg(long, value_name = "DIR")]
        save: Option<PathBuf>,
    },
    /// Rename a person
    Rename {
        /// Name as shown by `list`
        name: String,
        /// New name
        new_name: String,
    },
    /// Make a person an administrator, who may enroll others at the door
    Admin {
        /// Name as shown by `list`
        name: String,
        /// Revoke it
        #[arg(long)]
        off: bool,
    },
    /// Move a person to a group; [groups] in the configuration sets its hours
    Group {
        /// Name as shown by `list`
        name: String,
        /// Name of the group
        group: String,
    },
    /// Set the first and the last day on which a person may come in
    ///
    /// Without one of the two, that one stays as it was. The door needs a clock that it can
    /// trust; while it cannot, `clock_unsure` of the person's group holds.
    #[command(group = clap::ArgGroup::new("dates").required(true).multiple(true))]
    Dates {
        /// Name as shown by `list`
        name: String,
        /// First day, like 2026-12-01, or time, like 2026-12-01T08:00
        #[arg(long, value_name = "DATE", group = "dates", value_parser = first)]
        from: Option<i64>,
        /// Last day, or time
        #[arg(long, value_name = "DATE", group = "dates", value_parser = last)]
        until: Option<i64>,
        /// Without limits again
        #[arg(long, group = "dates", conflicts_with_all = ["from", "until"])]
        always: bool,
    },
    /// Remove people with all their templates and pictures
    Remove {
        /// Names as shown by `list`
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Write people to a new encrypted file, signed by this door
    ///
    /// The file has the age format: programs that know it (age, rage) can decrypt it. Without
    /// an option the passphrase is asked for on the terminal.
    Export {
        /// File to create
        file: PathBuf,
        /// People to export [default: everybody]
        names: Vec<String>,
        /// Recipient (age1...) who can open the file; may be given several times
        #[arg(long, value_name = "RECIPIENT")]
        to: Vec<String>,
        /// File with the passphrase in its first line
        #[arg(long, value_name = "FILE", conflicts_with = "to")]
        passphrase_file: Option<PathBuf>,
        /// Write templates and pictures in clear: whoever gets the file has the faces
        #[arg(long, conflicts_with_all = ["to", "passphrase_file"])]
        unencrypted: bool,
    },
    /// Add the people of an exported file to the gallery
    ///
    /// Shows which door signed the file. Each person is checked as if enrolled here; those who are invalid, or whose name is
    /// taken, are named and left out. Exit code 1 if anybody was left out.
    Import {
        /// File written by `export`
        file: PathBuf,
        /// Let administrators stay administrators [default: they become ordinary people]
        #[arg(long)]
        with_administrators: bool,
        #[command(flatten)]
        source: BackupArgs,
    },
    /// Make a backup the gallery, although it is older or another one
    ///
    /// This is the only way to an older state: a gallery that was put back by hand is
    /// refused, because it may bring back people who were removed. Administrators of the
    /// backup stay administrators. The gallery in use is moved aside. A running service
    /// takes over the backup within a second.
    Restore {
        /// File written by `export`, or another gallery file
        file: PathBuf,
        #[command(flatten)]
        source: BackupArgs,
    },
    /// List people who resemble each other so much that one may pass for the other
    ///
    /// Their templates reach the threshold of this door. People whose thresholds were raised
    /// at their enrolment are told apart nevertheless, and the list says so.
    Alike {
        /// Print JSON Lines, one object per pair
        #[arg(long)]
        json: bool,
    },
    /// Report that somebody got in by mistake
    ///
    /// Their view is kept, sealed like a template. From then on a view at the door that is as
    /// similar to it as to a known person is no evidence for that person. A picture that
    /// shows an enrolled person is refused, because it would keep them out.
    ReportFalse(negatives::ReportFalse),
    /// List or remove reported false entries
    #[command(subcommand)]
    Negatives(negatives::Negatives),
    /// Start with an empty gallery in the place of one that is lost
    ///
    /// Not needed for the first start. A gallery that had people and is missing is not
    /// created again by itself, because its card or disk may only not be mounted.
    New,
}

/// How a backup is opened, and whose it must be.
#[derive(Args)]
struct BackupArgs {
    /// File with the identity of a recipient (AGE-SECRET-KEY-1...)
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// File with the passphrase in its first line [default: asked for on the terminal]
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    passphrase_file: Option<PathBuf>,
    /// Fingerprint of the door that must have signed the file
    #[arg(long, value_name = "SHA256:...")]
    from: Option<String>,
}

impl BackupArgs {
    /// Opens an exported file for the gallery at `own`, and says which door signed it.
    fn open(&self, out: &mut impl Write, path: &Path, own: &Path) -> Result<Export> {
        let Some(by_passphrase) = is_encrypted(path)? else {
            let register = Register::of_user();
            let own = register.as_ref().map(|register| (own, register));
            let export = Export::open(path, own)?;
            if self.from.is_some() {
                bail!("{}: not signed, so nothing says which door wrote it", path.display());
            }
            log::warn!(
                "{}: not signed: nothing says which door wrote it, or whether it was changed",
                path.display()
            );
            return Ok(export);
        };
        let unlock = match (&self.identity, &self.passphrase_file) {
            (Some(identity), _) => Unlock::Identity(identity.clone()),
            (None, Some(file)) => Unlock::Passphrase(passphrase::read(file, false)?),
            (None, None) if by_passphrase => Unlock::Passphrase(passphrase::ask(false)?),
            (None, None) => bail!(
                "{}: encrypted for recipients; give the identity of one with --identity FILE",
                path.display()
            ),
        };
        let (export, door) = Export::decrypt(path, &unlock)?;
        let signed = door.fingerprint();
        if let Some(wanted) = self.from.as_ref().filter(|wanted| **wanted != signed) {
            bail!("{}: signed by the door {signed}, not by {wanted}", path.display());
        }
        let keys = Register::of_user().map(|register| {
            DoorKeys::open(own, &KeyPlace::of(&register)).map(|keys| keys.signer().public())
        });
        let this = matches!(keys, Some(Ok(own)) if own == door);
        let which = if this { "this door" } else { "another door" };
        writeln!(out, "signed by {which}, {signed}")?;
        Ok(export)
    }
}

/// A person as printed in JSON. `pictures` counts the templates with a stored picture.
#[derive(Serialize)]
struct PersonLine<'a> {
    id: u32,
    name: &'a str,
    enrolled_at: u64,
    administrator: bool,
    group: &'a str,
    stricter: f32,
    probation: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_from: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<i64>,
    templates: usize,
    pictures: usize,
}

impl<'a> From<&'a Person> for PersonLine<'a> {
    fn from(person: &'a Person) -> Self {
        let Person { id, name, enrolled_at, traits, templates, crops } = person;
        Self {
            id: id.0,
            name,
            enrolled_at: *enrolled_at,
            administrator: traits.administrator,
            group: &traits.group,
            stricter: traits.stricter,
            probation: traits.probation,
            valid_from: traits.valid_from,
            valid_until: traits.valid_until,
            templates: *templates,
            pictures: *crops,
        }
    }
}

impl People {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.common.config()?;
        let file = config.gallery_file();
        let open = |purpose| open_store(&file, purpose);
        let mut trail = Trail::of(&self.common, &config);
        let mut out = anstream::stdout().lock();
        match self.what {
            What::List { json } => {
                let people = open(Purpose::Read)?.people()?;
                if people.is_empty() {
                    log::warn!("{}: {EMPTY}", file.display());
                }
                for person in people {
                    print(&mut out, &person, json)?;
                }
            }
            What::Show { name, json, save } => {
                let store = open(Purpose::Read)?;
                let person = store.find(&name)?;
                print(&mut out, &person, json)?;
                if let Some(folder) = save {
                    save_pictures(&store, &person, &folder)?;
                }
            }
            What::Rename { name, new_name } => {
                change(open(Purpose::Change)?, &mut trail, |store| store.rename(&name, &new_name))?;
            }
            What::Admin { name, off } => {
                change(open(Purpose::Change)?, &mut trail, |store| {
                    store.set_administrator(&name, !off)
                })?;
            }
            What::Group { name, group } => {
                change(open(Purpose::Change)?, &mut trail, |store| {
                    set_group(store, &config, &name, &group)
                })?;
            }
            What::Dates { name, from, until, always } => {
                change(open(Purpose::Change)?, &mut trail, |store| {
                    let Traits { valid_from, valid_until, .. } = store.find(&name)?.traits;
                    let dates = match always {
                        true => (None, None),
                        false => (from.or(valid_from), until.or(valid_until)),
                    };
                    if let (Some(from), Some(until)) = dates
                        && from >= until
                    {
                        bail!("{name}: the last day is before the first; give both");
                    }
                    Ok(store.set_dates(&name, dates)?)
                })?;
            }
            What::Remove { names } => {
                // Remove everybody before printing: a closed pipe must not leave somebody
                // enrolled.
                let done: Vec<_> = change(open(Purpose::Change)?, &mut trail, |store| {
                    Ok::<_, StoreError>(names.iter().map(|name| store.remove(name)).collect())
                })?;
                let mut code = ExitCode::SUCCESS;
                for result in done {
                    match result {
                        Ok(person) => {
                            let Person { name, templates, .. } = person;
                            writeln!(out, "{name}: removed with {templates} templates")?;
                        }
                        Err(error) => {
                            code = ExitCode::FAILURE;
                            log::error!("{error}");
                        }
                    }
                }
                return Ok(code);
            }
            What::Export { file: target, names, to, passphrase_file, unencrypted } => {
                let store = open(Purpose::Read)?;
                let count = if unencrypted {
                    log::warn!(
                        "{}: templates and pictures in clear; keep it as safe as the door's key",
                        target.display()
                    );
                    store.export(&names, &target)?
                } else {
                    let lock = match (passphrase_file, &to[..]) {
                        (Some(file), _) => Lock::Passphrase(passphrase::read(&file, true)?),
                        (None, []) => Lock::Passphrase(passphrase::ask(true)?),
                        (None, _) => Lock::Recipients(to),
                    };
                    store.back_up(&names, &target, &lock)?
                };
                writeln!(out, "{count} people written to {}", target.display())?;
            }
            What::Import { file: from, with_administrators, source } => {
                if Store::is_itself(&file, &from) {
                    return Err(StoreError::Itself { path: from }.into());
                }
                // Open the file first: if it is missing, no gallery must be created.
                let export = source.open(&mut out, &from, &file)?;
                let mut store = open(Purpose::Begin)?;
                trail.before(&store);
                let done = store.import(&export, with_administrators)?;
                trail.people(of_file(Entry::new("people imported"), &from), &store);
                return told(&mut out, &done);
            }
            What::Restore { file: from, source } => {
                let export = source.open(&mut out, &from, &file)?;
                note_before(&file, &mut trail);
                let done = Store::restore(&file, export, Register::of_user().as_ref())?;
                let Restored { people, administrators, aside } = done;
                trail.people(of_file(Entry::new("people restored"), &from), &open(Purpose::Read)?);
                writeln!(out, "{people} people restored, {administrators} administrators")?;
                if let Some(aside) = aside {
                    writeln!(out, "the gallery so far is kept as {}", aside.display())?;
                }
            }
            What::Alike { json } => return alike::run(&self.common, &config, json),
            What::ReportFalse(report) => return report.run(&self.common, &config, &trail),
            What::Negatives(what) => return what.run(&config, &trail),
            What::New => {
                note_before(&file, &mut trail);
                Store::renew(&file, Register::of_user().as_ref())?;
                trail.people(Entry::new("gallery new"), &open(Purpose::Read)?);
                writeln!(out, "{}: a new gallery, nobody is enrolled", file.display())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses a first day.
fn first(text: &str) -> Result<i64, String> {
    dates::moment(text, End::First, &TimeZone::system())
}

/// Parses a last day.
fn last(text: &str) -> Result<i64, String> {
    dates::moment(text, End::Last, &TimeZone::system())
}

/// Makes a change, and writes to the audit log what it changed.
fn change<T, E>(
    mut store: Store,
    trail: &mut Trail,
    change: impl FnOnce(&mut Store) -> Result<T, E>,
) -> Result<T, E> {
    trail.before(&store);
    let done = change(&mut store)?;
    trail.people(Entry::new("people"), &store);
    Ok(done)
}

/// Notes the people of a gallery that may be lost or damaged.
fn note_before(file: &Path, trail: &mut Trail) {
    if file.exists()
        && let Ok(store) = Store::open_as(file, Opening::to(Purpose::Read).within(Duration::ZERO))
    {
        trail.before(&store);
    }
}

/// An entry with the name and the digest of the file that people came from.
fn of_file(entry: Entry, file: &Path) -> Entry {
    let digest = files::read(file, LARGEST_DIGESTED).map(|bytes| sha256_hex(&bytes));
    let digest = digest.unwrap_or_else(|error| format!("unknown: {error}"));
    entry.with("file", &file.display().to_string()).with("digest", &digest)
}

/// Prints the result of an import. Everybody who was left out is a failure.
fn told(out: &mut impl Write, done: &Imported) -> Result<ExitCode> {
    let Imported { added, made_ordinary, taken, refused } = done;
    writeln!(out, "{added} people added")?;
    if *made_ordinary > 0 {
        writeln!(
            out,
            "{made_ordinary} of them were administrators and are ordinary people here; see \
             facelatch people admin --help"
        )?;
    }
    for name in taken {
        log::error!("{name:?}: this name, or one that looks alike, is already enrolled; skipped");
    }
    for person in refused {
        log::error!("{person}; skipped");
    }
    let whole = taken.is_empty() && refused.is_empty();
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Moves a person to a group, and warns if the group is always refused. A new group that
/// looks like a known one is refused.
fn set_group(store: &mut Store, config: &Config, name: &str, group: &str) -> Result<()> {
    let person = store.find(name)?;
    let group = checked(group).map_err(|fault| anyhow!("{group:?}: {fault}"))?;
    let people = store.people()?;
    let others = people.iter().filter(|other| other.id != person.id);
    let known = others.map(|other| other.traits.group.as_str());
    let known = known.chain(config.groups.keys().map(String::as_str)).chain([DEFAULT_GROUP]);
    let known: BTreeSet<String> = known.map(nfc).collect();
    let looks = Likeness::of(&group);
    if !known.contains(&group)
        && let Some(other) = known.iter().find(|known| Likeness::of(known).is_like(&looks))
    {
        bail!("{group:?}: looks like the group {other:?}; use that name, or another one");
    }
    store.set_group(name, &group)?;
    if let Some(text) = config.group_advice(&group) {
        log::warn!("{}: the groups of the configuration {text}", person.name);
    }
    Ok(())
}

fn print(out: &mut impl Write, person: &Person, json: bool) -> Result<()> {
    if json {
        serde_json::to_writer(&mut *out, &PersonLine::from(person))?;
        writeln!(out)?;
    } else {
        let Person { name, traits, templates, crops, .. } = person;
        let noun = if *templates == 1 { "template" } else { "templates" };
        write!(out, "{name}  {templates} {noun}, {crops} with picture")?;
        if traits.group != DEFAULT_GROUP {
            write!(out, ", group {}", traits.group)?;
        }
        if traits.administrator {
            write!(out, ", administrator")?;
        }
        if traits.probation {
            write!(out, ", on probation")?;
        }
        for (word, date) in [("from", traits.valid_from), ("until", traits.valid_until)] {
            if let Some(date) = date {
                write!(out, ", {word} {}", dates::shown(date, &TimeZone::system()))?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

fn save_pictures(store: &Store, person: &Person, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (at, picture) in store.pictures(person.id)?.iter().enumerate() {
        let path = folder.join(format!("person-{:04}-{:02}.png", person.id.0, at + 1));
        let png = encode_png(picture.frame())?;
        // Pictures of faces are personal data: only the owner may read them.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(&png))
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}
