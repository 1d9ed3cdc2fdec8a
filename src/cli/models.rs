//! `models`: manages the model sets on this device.

use super::common_args::CommonArgs;
use super::model_args::installed;
use super::trail::Trail;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use facelatch::files;
use facelatch::models::groups::{NOT_MEASURED, WorstGroup};
use facelatch::service::files::warn_of_lost;
use facelatch::storage::models::self_test::Report;
use facelatch::storage::models::shadow::Shadow;
use facelatch::storage::models::{
    BUILT_IN, Checked, InstallOptions, Lowered, ModelStore, ModelStoreError, Pointer, Source, Told,
    check_folder,
};
use serde::Serialize;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// List, verify, install or roll back model sets
///
/// `install` replaces the set in use, and a running service switches to it. The previous
/// set is kept. Enrolled people are re-embedded from their stored pictures.
#[derive(Args)]
pub struct Models {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Subcommand)]
enum What {
    /// List every set and show which is current and which is previous
    List {
        /// Print JSON Lines, one object per set
        #[arg(long)]
        json: bool,
    },
    /// Check the digests, shapes, thresholds and self-test of sets
    Verify {
        /// Names as shown by `list`, or paths of folders such as ./models [default: the set in
        /// use, or the folder given with --models]
        sets: Vec<String>,
        /// Print JSON Lines, one object per set
        #[arg(long)]
        json: bool,
    },
    /// Check a set, re-embed all templates with it, and make it the current set
    ///
    /// If anything fails, the set in use stays in use.
    ///
    /// A set must be signed by a key of models.trusted_keys, have a self-test, be no older than
    /// the newest set installed here, and tell people apart: two built-in faces, and the people
    /// of this door with kept pictures.
    Install {
        /// Folder with manifest.toml, tar file of one, or - for a tar on standard input
        set: PathBuf,
        /// Install a set that no trusted key has signed; status and check then warn of it
        #[arg(long)]
        unsigned: bool,
        /// Install a set with a lower version or an earlier signature than the newest one
        /// installed here
        #[arg(long)]
        downgrade: bool,
        /// Install a set whose worst group exceeds the stated false accept rate by more than
        /// twice
        #[arg(long)]
        accept_group_rate: bool,
        /// Accept a threshold that is lower than that of the set in use, without asking
        #[arg(long)]
        yes: bool,
        /// Put the set on trial for this time, like 48h, instead of using it: the service runs
        /// it beside the set in use, which opens, and switches to it if both agree
        #[arg(long, value_name = "TIME", value_parser = trial)]
        shadow: Option<Duration>,
    },
    /// Return to the previous set
    Rollback {
        /// Also if its key was removed from models.trusted_keys
        #[arg(long)]
        unsigned: bool,
    },
    /// Show or stop the trial of a set that was installed with --shadow
    Shadow {
        #[command(subcommand)]
        what: Option<Trial>,
    },
}

#[derive(Subcommand)]
enum Trial {
    /// End the trial and remove its set
    Stop,
}

/// Range of a trial.
const TRIAL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(60 * 86_400));

/// Parses the time of a trial, such as 90min, 48h or 7d.
fn trial(text: &str) -> Result<Duration, String> {
    let units = [("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        Duration::try_from_secs_f64(number * seconds).ok()
    });
    parsed
        .filter(|time| (TRIAL.0..=TRIAL.1).contains(time))
        .ok_or_else(|| "expected a time from 1min to 60d, like 48h".to_owned())
}

/// A set as `list` prints it.
#[derive(Serialize)]
struct SetLine<'a> {
    set: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recognizer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    licence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worst_group: Option<WorstGroup>,
    /// Who answers for the set, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    /// Whether the program or a trusted key answers for it.
    trusted: bool,
    /// The trial of the set, if it is on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<&'a Shadow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Said of a set without `[covered]`.
pub const NO_COVERS: &str = "the set does not tell masks and sunglasses, so people with them can be enrolled; install a newer set";

/// A set as `verify` prints it.
#[derive(Serialize)]
#[serde(untagged)]
enum VerifyLine<'a> {
    Whole {
        set: &'a str,
        files: usize,
        selftest: Option<Report>,
        worst_group: Option<WorstGroup>,
        /// Whether the set tells covered faces.
        covers: bool,
    },
    Failed {
        set: &'a str,
        error: String,
    },
}

impl Models {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.common.config()?;
        let store = installed(&config);
        if self.common.models_folder().is_some() && !matches!(self.what, What::Verify { .. }) {
            bail!(
                "--models only works with verify; name the folder of installed sets with --store"
            );
        }
        let gallery = config.gallery_file();
        let rate = config.recognition.false_accept_rate;
        let options = InstallOptions::new(self.common.precision(), &gallery, rate);
        let mut out = anstream::stdout().lock();
        let changed = match &self.what {
            What::Install { shadow: None, .. } => Some("installed"),
            What::Install { shadow: Some(_), .. } => Some("on trial"),
            What::Rollback { .. } => Some("rolled back"),
            What::Shadow { what: Some(Trial::Stop) } => Some("trial stopped"),
            What::Shadow { what: None } | What::List { .. } | What::Verify { .. } => None,
        };
        let before = changed.map(|_| store.pointer()).transpose()?;
        match &self.what {
            What::List { json } => list(&mut out, &store, *json)?,
            What::Verify { sets, json } => return self.verify(&mut out, &store, sets, *json),
            What::Install { set, unsigned, downgrade, accept_group_rate, yes, shadow } => {
                let options = InstallOptions {
                    unsigned: *unsigned,
                    downgrade: *downgrade,
                    accept_group_rate: *accept_group_rate,
                    lower: *yes,
                    shadow: *shadow,
                    ..options
                };
                match install(&mut out, &store, set, &options) {
                    // A tar on standard input cannot be read twice, and nobody can answer.
                    Err(ModelStoreError::Lowered { lowered, .. })
                        if set.as_os_str() != "-" && confirmed(&mut out, &lowered)? =>
                    {
                        install(&mut out, &store, set, &InstallOptions { lower: true, ..options })?;
                    }
                    done => done?,
                }
                warn_of(&store);
            }
            What::Rollback { unsigned } => {
                let options = InstallOptions { unsigned: *unsigned, ..options };
                store.rollback(&options, &mut |told| tell(&mut out, told))?;
                warn_of(&store);
            }
            What::Shadow { what: None } => match store.shadow()? {
                Some(shadow) => writeln!(out, "{shadow}")?,
                None => writeln!(out, "no set is on trial")?,
            },
            What::Shadow { what: Some(Trial::Stop) } => {
                writeln!(out, "stopped   the trial of {}", store.stop_shadow()?)?;
            }
        }
        if let (Some(what), Some(before)) = (changed, before) {
            let entry = store.changed(what, &before)?;
            Trail::of(&self.common, &config).write(vec![entry]);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn verify(
        &self,
        out: &mut impl Write,
        store: &ModelStore,
        sets: &[String],
        json: bool,
    ) -> Result<ExitCode> {
        let precision = self.common.precision();
        let mut code = ExitCode::SUCCESS;
        let mut verified = |set: &str, checked: Result<Checked, ModelStoreError>| -> Result<()> {
            let line = match checked {
                Ok(Checked { models, files, report, .. }) => VerifyLine::Whole {
                    set,
                    files: files.len(),
                    selftest: report,
                    worst_group: models.worst_group().cloned(),
                    covers: models.covers().is_some(),
                },
                Err(error) => {
                    code = ExitCode::FAILURE;
                    VerifyLine::Failed { set, error: error.to_string() }
                }
            };
            print_verified(out, &line, json)
        };
        match self.common.models_folder() {
            Some(folder) if sets.is_empty() && folder != Path::new(BUILT_IN) => {
                verified(&folder.display().to_string(), check_folder(folder, precision))?;
            }
            Some(_) if sets.is_empty() => verified(BUILT_IN, store.check(BUILT_IN, precision))?,
            Some(_) => bail!("name either sets or a folder with --models, not both"),
            None if sets.is_empty() => {
                let current = store.pointer()?.current;
                verified(&current, store.check(&current, precision))?;
            }
            None => {
                for set in sets {
                    let checked = match set.contains('/') {
                        true => check_folder(Path::new(set), precision),
                        false => store.check(set, precision),
                    };
                    verified(set, checked)?;
                }
            }
        }
        Ok(code)
    }
}

/// Installs a set from a folder, a tar, or standard input.
fn install(
    out: &mut impl Write,
    store: &ModelStore,
    set: &Path,
    options: &InstallOptions<'_>,
) -> Result<(), ModelStoreError> {
    let mut told = |told: &Told<'_>| tell(out, told);
    let shown = set.display().to_string();
    let mut install = |source: Source<'_>| store.install(source, options, &mut told).map(|_| ());
    if set.as_os_str() == "-" {
        install(Source::Tar("standard input", &mut std::io::stdin().lock()))
    } else if set.is_dir() {
        install(Source::Folder(set))
    } else {
        // Standard input may be a pipe, a named file may not.
        let mut tar = files::open(set)
            .map_err(|reason| ModelStoreError::Io { path: set.to_owned(), reason })?;
        install(Source::Tar(&shown, &mut tar))
    }
}

/// Asks whether a threshold may be lowered. No without a terminal.
fn confirmed(out: &mut impl Write, lowered: &Lowered) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    write!(out, "{lowered}\ninstall it? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().take(100).read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Logs what stays to be done about the set in use.
fn warn_of(store: &ModelStore) {
    let warning = store.open_in_use().ok().and_then(|opened| opened.standing.warning());
    if let Some(warning) = warning {
        log::warn!("{warning}");
    }
}

fn list(out: &mut impl Write, store: &ModelStore, json: bool) -> Result<()> {
    let Pointer { current, previous } = store.pointer()?;
    let shadow = store.shadow()?;
    let mut names = store.names()?;
    names.push(BUILT_IN.to_owned());
    // Also list a current or previous set whose folder is missing.
    for name in [Some(&current), previous.as_ref()].into_iter().flatten() {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    for name in &names {
        let state = match name {
            name if *name == current => "current",
            name if Some(name) == previous.as_ref() => "previous",
            name if shadow.as_ref().is_some_and(|shadow| shadow.set == *name) => "trial",
            _ => "kept",
        };
        let trial = shadow.as_ref().filter(|shadow| shadow.set == *name);
        let line = match store.open_judged(name) {
            Ok((models, standing)) => SetLine {
                set: name,
                state,
                recognizer: models.recognizer_id().ok().map(|id| id.to_string()),
                worst_group: models.worst_group().cloned(),
                version: Some(models.manifest.version),
                licence: models.manifest.licence,
                signature: Some(standing.to_string()),
                trusted: standing.is_trusted(),
                shadow: trial,
                error: None,
            },
            Err(error) => SetLine {
                set: name,
                state,
                version: None,
                recognizer: None,
                licence: None,
                worst_group: None,
                signature: None,
                trusted: false,
                shadow: trial,
                error: Some(error.to_string()),
            },
        };
        if json {
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
            continue;
        }
        let worst_group = line.error.is_none().then(|| worst_group(line.worst_group.as_ref()));
        let more = line.error.or(line.licence).unwrap_or_default();
        writeln!(out, "{}", format!("{name:32} {state:9} {more}").trim_end())?;
        if let Some(signature) = line.signature {
            writeln!(out, "  {signature}")?;
        }
        if let Some(shadow) = line.shadow {
            writeln!(out, "  trial {shadow}")?;
        }
        if let Some(worst_group) = worst_group {
            writeln!(out, "  {worst_group}")?;
        }
    }
    Ok(())
}

fn print_verified(out: &mut impl Write, line: &VerifyLine<'_>, json: bool) -> Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(line)?)?;
        return Ok(());
    }
    match line {
        VerifyLine::Whole { set, files, selftest, worst_group: worst, covers } => {
            let covers = if *covers { String::new() } else { format!("; {NO_COVERS}") };
            writeln!(out, "{set}  {files} files verified, {}{covers}", tested(selftest.as_ref()))?;
            writeln!(out, "  {}", worst_group(worst.as_ref()))?;
        }
        VerifyLine::Failed { set, error } => log::error!("{set}: {error}"),
    }
    Ok(())
}

/// One line on the group of people that is worst off.
fn worst_group(group: Option<&WorstGroup>) -> String {
    group.map_or_else(|| NOT_MEASURED.to_owned(), |group| format!("worst group {group}"))
}

fn tested(report: Option<&Report>) -> String {
    report.map_or_else(
        || "no self-test included".to_owned(),
        |Report { vectors, cosine, landmarks }| {
            format!(
                "self-test passed on {vectors} pictures: cosine {cosine:.4}, landmarks within {landmarks:.2} px"
            )
        },
    )
}

fn tell(out: &mut impl Write, told: &Told<'_>) -> std::io::Result<()> {
    match told {
        Told::Unpacked(files) => writeln!(out, "copied    {files} files")?,
        Told::Checked(name, Checked { report, .. }, standing) => {
            writeln!(out, "checked   {name}, {}; {standing}", tested(report.as_ref()))?;
        }
        Told::Measured(floor) => writeln!(out, "measured  {floor}")?,
        Told::Lowered(lowered) => writeln!(out, "LOWERED   {lowered}")?,
        Told::OnTrial(name, duration) => {
            let hours = duration.as_secs_f64() / 3600.0;
            writeln!(out, "on trial  {name}, for {hours:.1} hours of the service")?;
        }
        Told::Placed(_) => {}
        Told::ReEmbedded(done) => {
            writeln!(out, "gallery   {} templates re-embedded from stored pictures", done.renewed)?;
            warn_of_lost(done);
        }
        Told::Switched(Pointer { current, previous }) => {
            let before = previous.as_deref().unwrap_or(BUILT_IN);
            writeln!(out, "in use    {current}; previous {before}")?;
        }
    }
    out.flush()
}
