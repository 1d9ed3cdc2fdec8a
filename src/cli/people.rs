//! `people`: manages the people enrolled.

use super::common_args::{CommonArgs, is_begun};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use facelatch::access::names::{Likeness, checked, nfc};
use facelatch::access::schedule::DEFAULT_GROUP;
use facelatch::config::Config;
use facelatch::service::files::open_store;
use facelatch::storage::gallery::{Export, Person, Store};
use facelatch::vision::picture::encode_png;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Manage the people enrolled: names, groups, administrators, export and import
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
    /// Remove people with all their templates and pictures
    Remove {
        /// Names as shown by `list`
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Write people to a new gallery file
    ///
    /// The file holds templates and pictures of faces unencrypted: keep it as safe as
    /// the gallery itself.
    Export {
        /// File to create
        file: PathBuf,
        /// People to export [default: everybody]
        names: Vec<String>,
    },
    /// Add the people of an exported file to the gallery
    Import {
        /// File written by `export`
        file: PathBuf,
    },
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
            templates: *templates,
            pictures: *crops,
        }
    }
}

impl People {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.common.config()?;
        let file = config.gallery_file();
        // Only `import` may create a gallery.
        if !matches!(self.what, What::Import { .. }) && !is_begun(&file) {
            if matches!(self.what, What::List { .. }) {
                return Ok(ExitCode::SUCCESS);
            }
            bail!("{}: no gallery yet; enroll somebody first", file.display());
        }
        let open = || open_store(&file);
        let mut out = anstream::stdout().lock();
        match self.what {
            What::List { json } => {
                for person in open()?.people()? {
                    print(&mut out, &person, json)?;
                }
            }
            What::Show { name, json, save } => {
                let store = open()?;
                let person = store.find(&name)?;
                print(&mut out, &person, json)?;
                if let Some(folder) = save {
                    save_pictures(&store, &person, &folder)?;
                }
            }
            What::Rename { name, new_name } => open()?.rename(&name, &new_name)?,
            What::Admin { name, off } => open()?.set_administrator(&name, !off)?,
            What::Group { name, group } => set_group(&mut open()?, &config, &name, &group)?,
            What::Remove { names } => {
                // Remove everybody before printing: a closed pipe must not leave somebody
                // enrolled.
                let mut store = open()?;
                let done: Vec<_> = names.iter().map(|name| store.remove(name)).collect();
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
            What::Export { file, names } => {
                let count = open()?.export(&names, &file)?;
                writeln!(out, "{count} people written to {}", file.display())?;
            }
            What::Import { file } => {
                // Open the file first: if it is missing, no gallery must be created.
                let export = Export::open(&file)?;
                let (added, taken) = open()?.import(&export)?;
                writeln!(out, "{added} people added")?;
                for name in &taken {
                    log::error!(
                        "{name:?}: this name, or one that looks alike, is already enrolled; skipped"
                    );
                }
                if !taken.is_empty() {
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
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
