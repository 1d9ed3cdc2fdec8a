//! `models`: manages the model sets on this device.

use super::common_args::CommonArgs;
use super::trail::Trail;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use facelatch::audit::entry::Entry;
use facelatch::files;
use facelatch::models::groups::{NOT_MEASURED, WorstGroup};
use facelatch::service::files::warn_of_lost;
use facelatch::storage::gallery::Register;
use facelatch::storage::models::self_test::Report;
use facelatch::storage::models::{
    BUILT_IN, Checked, ModelStore, ModelStoreError, Pointer, Source, Told, check_folder,
};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    Install {
        /// Folder with manifest.toml, tar file of one, or - for a tar on standard input
        set: PathBuf,
    },
    /// Return to the previous set
    Rollback,
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
        let store = ModelStore::new(&config.model_store()).registered(Register::of_user());
        if self.common.models_folder().is_some() && !matches!(self.what, What::Verify { .. }) {
            bail!(
                "--models only works with verify; name the folder of installed sets with --store"
            );
        }
        let gallery = config.gallery_file();
        let precision = self.common.precision();
        let mut out = anstream::stdout().lock();
        let changes = matches!(self.what, What::Install { .. } | What::Rollback);
        let before = changes.then(|| store.pointer()).transpose()?;
        match &self.what {
            What::List { json } => list(&mut out, &store, *json)?,
            What::Verify { sets, json } => return self.verify(&mut out, &store, sets, *json),
            What::Install { set } => {
                let mut told = |told: &Told<'_>| tell(&mut out, told);
                if set.as_os_str() == "-" {
                    let mut tar = std::io::stdin().lock();
                    let source = Source::Tar("standard input", &mut tar);
                    store.install(source, precision, &gallery, &mut told)?;
                } else if !set.is_dir() {
                    let shown = set.display().to_string();
                    // Standard input may be a pipe, a named file may not.
                    let mut tar = files::open(set).with_context(|| shown.clone())?;
                    let source = Source::Tar(&shown, &mut tar);
                    store.install(source, precision, &gallery, &mut told)?;
                } else {
                    store.install(Source::Folder(set), precision, &gallery, &mut told)?;
                }
            }
            What::Rollback => {
                store.rollback(precision, &gallery, &mut |told| tell(&mut out, told))?;
            }
        }
        if let Some(before) = before {
            let what =
                if matches!(self.what, What::Rollback) { "rolled back" } else { "installed" };
            let now = store.pointer()?;
            let mut entry = Entry::new("models").with("reason", what).with("set", &now.current);
            if let Ok(models) = store.open(&now.current) {
                let digest = models.manifest.recognizer.as_ref().map(|one| one.sha256.as_str());
                entry = entry.with("version", &models.manifest.version);
                entry = entry.with("digest", digest.unwrap_or("no recognizer"));
            }
            Trail::of(&self.common, &config).write(vec![entry.with("previous", &before.current)]);
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

fn list(out: &mut impl Write, store: &ModelStore, json: bool) -> Result<()> {
    let Pointer { current, previous } = store.pointer()?;
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
            _ => "kept",
        };
        let line = match store.open(name) {
            Ok(models) => SetLine {
                set: name,
                state,
                recognizer: models.recognizer_id().ok().map(|id| id.to_string()),
                worst_group: models.worst_group().cloned(),
                version: Some(models.manifest.version),
                licence: models.manifest.licence,
                error: None,
            },
            Err(error) => SetLine {
                set: name,
                state,
                version: None,
                recognizer: None,
                licence: None,
                worst_group: None,
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
        Told::Checked(name, Checked { report, .. }) => {
            writeln!(out, "checked   {name}, {}", tested(report.as_ref()))?;
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
