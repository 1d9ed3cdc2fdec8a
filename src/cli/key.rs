//! `key`: the keys that seal the people enrolled.

use super::common_args::CommonArgs;
use super::trail::Trail;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use facelatch::audit::entry::Entry;
use facelatch::storage::gallery::{
    Opening, Purpose, Register, Store, StoreError, copy_path, unsealed_path,
};
use facelatch::storage::keys::{
    Binding, DoorKeys, KeyPlace, Source, binding, credstore, keyring_path, remarks,
};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show, renew, move and destroy the keys that seal the people enrolled
///
/// People, templates and pictures are sealed with keys that lie in a keyring beside the
/// gallery. The door's key opens the keyring. It is a systemd credential (facelatch.key), or
/// a file that only its owner can read, apart from the gallery.
#[derive(Args)]
pub struct Key {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Subcommand)]
enum What {
    /// Show where the key is, what it protects against, and the door's identity
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make new keys and seal everything with them
    ///
    /// A power cut leaves the old or the new state. The door's identity stays. Backups that
    /// were made before stay readable, because they have keys of their own.
    Rotate {
        /// Renew the rotation of the templates instead: templates that leaked before have
        /// nothing in common with those in use, and nobody enrolls again
        #[arg(long)]
        templates: bool,
    },
    /// Move the door's key to a systemd credential, or back to a file
    ///
    /// To a credential: it is encrypted by systemd-creds and read back. The key file is
    /// removed by the next start at which the service gets the credential. As root.
    Move {
        /// Where the key goes
        #[arg(long, value_enum)]
        to: Target,
        /// What the credential is bound to: auto, host, tpm2 or host+tpm2
        #[arg(long, value_name = "KEY", default_value = "auto")]
        with_key: String,
        /// Folder of encrypted credentials
        #[arg(long, value_name = "DIR", default_value_os_t = credstore())]
        credentials: PathBuf,
    },
    /// Destroy the keys: all people, templates and pictures become unreadable for ever
    Erase {
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// A credential that systemd decrypts for the service
    Credential,
    /// A file that only its owner can read
    File,
}

#[derive(Serialize)]
struct StatusLine<'a> {
    gallery: &'a str,
    sealed: bool,
    key: String,
    protects: &'a str,
    identity: String,
    fingerprint: String,
    former_keys: usize,
    remarks: Vec<String>,
}

/// What the place of a key protects against, and what not.
pub fn protects(source: &Source) -> &'static str {
    match source {
        Source::File(_) => {
            "protects a copy of the gallery, and a gallery on a card of its own; not a stolen card \
             or disk that holds the key file too (facelatch key move --to credential)"
        }
        Source::Credential(_) | Source::Credstore(_) => match binding(&credstore()) {
            Binding::Host => {
                "bound to a key of this system on its own disk: protects a copy of the gallery; \
                 not a stolen card or disk, which holds that key too (a TPM does)"
            }
            Binding::Tpm => {
                "bound to this board's TPM: a stolen card or disk cannot be read elsewhere; root \
                 on the running board can read everything"
            }
            Binding::Unknown => {
                "given to systemd from elsewhere: a stolen card or disk cannot be read, if the \
                 key is not on it; root on the running board can read everything"
            }
        },
    }
}

/// The register of this user, where the key file is.
fn register() -> Result<Register> {
    Register::of_user().context("no folder for the door's key: set HOME or XDG_STATE_HOME")
}

impl Key {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.common.config()?;
        let file = config.gallery_file();
        let trail = Trail::of(&self.common, &config);
        let log = |what: &str| trail.write(vec![Entry::new("keys").with("reason", what)]);
        let register = register()?;
        let place = KeyPlace::of(&register);
        let mut out = anstream::stdout().lock();
        match self.what {
            What::Status { json } => status(&mut out, &file, &register, json)?,
            What::Rotate { templates } => {
                Store::rotate(&file, &register, templates)?;
                log(if templates { "new key of the templates" } else { "new sealing key" });
                let what = if templates { "the templates are rotated" } else { "all is sealed" };
                writeln!(out, "{}: {what} with a new key", file.display())?;
            }
            What::Move { to: Target::Credential, with_key, credentials } => {
                let made = place.to_credential(&file, &credentials, &with_key)?;
                log("moved to a credential");
                writeln!(
                    out,
                    "{}: the key, encrypted and read back. Restart the service (systemctl restart \
                     facelatch): with LoadCredentialEncrypted=facelatch.key, which the package's \
                     unit has, it gets the key, and removes {}",
                    made.display(),
                    place.file().display()
                )?;
                for other in register.others(&file) {
                    ::log::warn!(
                        "{}: needs the same key, so the key file stays until it is removed by \
                         hand; give its service the credential first",
                        other.display()
                    );
                }
            }
            What::Move { to: Target::File, credentials, .. } => {
                let removed = place.to_file(&file, &credentials)?;
                log("moved to a file");
                writeln!(out, "{}: the key, read back", place.file().display())?;
                if removed {
                    writeln!(out, "{}: the credential is removed", credentials.display())?;
                }
            }
            What::Erase { yes } => {
                // Before, because the key that signs the log goes as well.
                if yes {
                    log("to be erased");
                }
                return erase(&mut out, &file, &register, yes);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn status(out: &mut impl Write, file: &Path, register: &Register, json: bool) -> Result<()> {
    let place = KeyPlace::of(register);
    let keys = DoorKeys::open(file, &place)?;
    let store = Store::open_as(file, Opening::to(Purpose::Read).registered(Some(register.clone())));
    let sealed = match &store {
        Ok(store) => store.is_sealed(),
        Err(StoreError::Busy { .. }) => keys.sealed(),
        Err(error) => bail!("{error}"),
    };
    let public = keys.signer().public();
    let mut remarks = remarks(&place);
    let kept = unsealed_path(file);
    if kept.exists() {
        remarks.push(format!(
            "{}: the gallery before it was sealed; the next start of the service removes it",
            kept.display()
        ));
    }
    if !keys.source().is_file() && place.file().exists() {
        remarks.push(format!(
            "{}: the key is still in this file, too; the next start of the service removes it",
            place.file().display()
        ));
    }
    let gallery = file.display().to_string();
    let protects = protects(keys.source());
    if json {
        let line = StatusLine {
            gallery: &gallery,
            sealed,
            key: keys.source().to_string(),
            protects,
            identity: public.to_string(),
            fingerprint: public.fingerprint(),
            former_keys: keys.former(),
            remarks,
        };
        serde_json::to_writer(&mut *out, &line)?;
        return Ok(writeln!(out)?);
    }
    let word = if sealed { "sealed" } else { "not sealed; the next start or change seals it" };
    writeln!(out, "gallery   {gallery}: {word}")?;
    writeln!(out, "key       {}", keys.source())?;
    writeln!(out, "          {protects}")?;
    writeln!(out, "identity  {}", public.fingerprint())?;
    writeln!(out, "          {public}")?;
    writeln!(out, "former    {} sealing keys, kept for what they sealed", keys.former())?;
    for remark in remarks {
        log::warn!("{remark}");
    }
    Ok(())
}

fn erase(out: &mut impl Write, file: &Path, register: &Register, yes: bool) -> Result<ExitCode> {
    let gone = [file.to_owned(), copy_path(file), unsealed_path(file)];
    let there: Vec<&PathBuf> = gone.iter().filter(|path| path.exists()).collect();
    let shown: Vec<String> = there.iter().map(|path| path.display().to_string()).collect();
    let files = if shown.is_empty() { "no gallery".to_owned() } else { shown.join(", ") };
    if !yes {
        bail!(
            "this destroys the keys of {} and removes {files}: all people, templates and pictures, \
             and the sealed pictures of the audit log, become unreadable for ever; only backups \
             (facelatch people export) stay. To do it: facelatch key erase --yes",
            file.display()
        );
    }
    let erased = DoorKeys::erase(file, register)?;
    for path in &erased {
        writeln!(out, "{}: destroyed", path.display())?;
    }
    for path in there {
        std::fs::remove_file(path).with_context(|| path.display().to_string())?;
        writeln!(out, "{}: removed; its records cannot be read any more", path.display())?;
    }
    if erased.is_empty() {
        writeln!(out, "{}: there were no keys", keyring_path(file).display())?;
    }
    let others = register.others(file);
    if !others.is_empty() {
        writeln!(out, "the key file stays, because {} other galleries need it", others.len())?;
    }
    let credential = credstore().join(facelatch::storage::keys::CREDENTIAL);
    if others.is_empty() && credential.exists() {
        log::warn!("{}: remove it as root; it holds the door's key", credential.display());
    }
    log::warn!(
        "flash memory may keep old blocks until they are overwritten; a key bound to a TPM, or \
         fetched at boot, leaves nothing to find"
    );
    Ok(ExitCode::SUCCESS)
}
