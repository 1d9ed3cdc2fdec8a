//! EDGE: installing a set, returning to the one before, and ending a trial. Everything that
//! can fail comes before the rename of the pointer.

use super::age::Age;
use super::check::{check_models, open_whole};
use super::draft::Draft;
use super::error::io;
use super::floor::{self, Floor, Lowered};
use super::ledger::Ledger;
use super::shadow::Shadow;
use super::trust::{Found, Standing, accepted};
use super::{
    Checked, ModelStore, ModelStoreError, Pointer, REPLACED, Source, Telling, Told, name_of,
    remove, sync_folder, write_synced,
};
use crate::files;
use crate::models::Models;
use crate::models::signature::{MAX_SIGNATURE, SIGNATURE};
use crate::nn::Precision;
use crate::storage::gallery::{Opening, Purpose, Store, StoreError};
use crate::vision::detect::DetectorSettings;
use crate::vision::impostors;
use crate::vision::recognizer::Recognizer;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

/// How a set is installed.
#[derive(Clone, Debug)]
pub struct InstallOptions<'g> {
    /// Arithmetic of the networks.
    pub precision: Precision,
    /// The gallery of the door.
    pub gallery: &'g Path,
    /// False accept rate per attempt of the door.
    pub false_accept_rate: f64,
    /// Accept a set that no trusted key has signed.
    pub unsigned: bool,
    /// Accept a set that is older than the newest one installed here.
    pub downgrade: bool,
    /// Accept a set whose worst group is taken for one another too often.
    pub accept_group_rate: bool,
    /// Accept a threshold that is lower than that of the set in use.
    pub lower: bool,
    /// Put the set on trial for this duration instead of using it.
    pub shadow: Option<Duration>,
}

impl<'g> InstallOptions<'g> {
    /// Accepts nothing out of the ordinary.
    pub fn new(precision: Precision, gallery: &'g Path, false_accept_rate: f64) -> Self {
        Self {
            precision,
            gallery,
            false_accept_rate,
            unsigned: false,
            downgrade: false,
            accept_group_rate: false,
            lower: false,
            shadow: None,
        }
    }
}

/// What is in use while a set is installed, to compare with.
struct InUse {
    models: Models,
    recognizer: Recognizer,
}

impl ModelStore {
    /// Installs a set and makes it current: copies it, checks who signed it, runs it on
    /// pictures with known results, on built-in impostors and on the gallery's people,
    /// re-embeds the gallery, and then writes the pointer. With a shadow it only begins the
    /// trial. Returns the pointer.
    ///
    /// # Errors
    /// If a step fails. The set in use then stays in use. Templates that were already
    /// re-embedded are re-embedded again from the same pictures when they are needed.
    pub fn install(
        &self,
        source: Source<'_>,
        options: &InstallOptions<'_>,
        told: &mut Telling<'_>,
    ) -> Result<Pointer, ModelStoreError> {
        let _lock = self.lock()?;
        let draft = Draft::begin(&self.folder)?;
        let count = source.unpack(&draft.path)?;
        self.tell(told, &Told::Unpacked(count))?;
        let models = Models::open(&draft.path)?;
        let name = name_of(&models);
        // First of all: networks that nobody answers for are not even loaded.
        let found = Found::read(&draft.path, &models.manifest_bytes, &self.trusted);
        let standing = found
            .admit(&self.trusted, options.unsigned)
            .map_err(|reason| ModelStoreError::Untrusted { set: name.clone(), reason })?;
        if options.shadow.is_some() && self.pointer()?.current == name {
            let reason = format!("{name} is in use already; there is nothing to try");
            return Err(ModelStoreError::Shadow { path: self.folder.clone(), reason });
        }
        let mut ledger = self.ledger_or_adopted()?;
        self.not_older(&name, &models, &ledger, options)?;
        let mut checked = check_models(models, &draft.path, options.precision)?;
        if checked.models.manifest.selftest.is_none() {
            return Err(ModelStoreError::NoSelfTest { set: name });
        }
        if let Some(group) = checked.models.worst_group().filter(|group| group.exceeds())
            && !options.accept_group_rate
        {
            return Err(ModelStoreError::Group { set: name, group: Box::new(group.clone()) });
        }
        draft.keep_only(&checked.files)?;
        self.tell(told, &Told::Checked(&name, &checked, &standing))?;
        let (floor, lowered) = self.measure(&name, &mut checked, options)?;
        self.tell(told, &Told::Measured(&floor))?;
        if let Some(lowered) = lowered {
            if !options.lower {
                let lowered = Box::new(lowered);
                return Err(ModelStoreError::Lowered { set: name, lowered });
            }
            self.tell(told, &Told::Lowered(&lowered))?;
        }
        if let Some(entry) = accepted(&name, &checked.models.digest(), &standing) {
            ledger.accept(entry);
        }
        // Before the set is in its place: a power cut in between only leaves an entry.
        self.write_ledger(&ledger, &standing)?;
        self.place(&draft, &name)?;
        self.tell(told, &Told::Placed(&name))?;
        let before = self.pointer().unwrap_or_default();
        if let Some(duration) = options.shadow {
            self.begin_shadow(&Shadow::begin(&name, &before.current, duration))?;
            self.tidy(&before, &mut ledger, Some(&name), None)?;
            // Like after a switch, an error of the callback cannot undo it.
            let _ = told(&Told::OnTrial(&name, duration));
            return Ok(before);
        }
        let previous =
            if before.current == name { before.previous } else { Some(before.current.clone()) };
        let after = Pointer { current: name, previous };
        self.switch(&mut checked, options.gallery, &after, told)?;
        let age = Age::of(&checked.models.manifest);
        self.tidy(&after, &mut ledger, None, Some(age))?;
        Ok(after)
    }

    /// Makes the previous set current, after checking it and re-embedding the gallery. The
    /// set used so far becomes the previous one. Returns the new pointer.
    ///
    /// # Errors
    /// If there is no previous set, its key is no longer trusted and `unsigned` is not set, or
    /// a step fails.
    pub fn rollback(
        &self,
        options: &InstallOptions<'_>,
        told: &mut Telling<'_>,
    ) -> Result<Pointer, ModelStoreError> {
        let _lock = self.lock()?;
        let Pointer { current, previous } = self.pointer()?;
        let Some(previous) = previous else {
            return Err(ModelStoreError::NoPrevious { path: self.folder.clone() });
        };
        let mut ledger = self.ledger_or_adopted()?;
        self.write_ledger(&ledger, &Standing::BuiltIn)?;
        let (_, standing) = self.open_judged(&previous)?;
        if let (Standing::KeyRemoved { key }, false) = (&standing, options.unsigned) {
            let reason = format!(
                "signed by {key}, which is no longer in models.trusted_keys; add it there, or return to this set with --unsigned"
            );
            return Err(ModelStoreError::Untrusted { set: previous, reason });
        }
        let mut checked = self.check(&previous, options.precision)?;
        self.tell(told, &Told::Checked(&previous, &checked, &standing))?;
        let after = Pointer { current: previous, previous: Some(current) };
        self.switch(&mut checked, options.gallery, &after, told)?;
        self.tidy(&after, &mut ledger, None, None)?;
        Ok(after)
    }

    /// Makes the set on trial current, if it has passed. Returns the new pointer.
    ///
    /// # Errors
    /// If no set is on trial, it has not passed, or a step fails.
    pub fn end_shadow(
        &self,
        options: &InstallOptions<'_>,
        told: &mut Telling<'_>,
    ) -> Result<Pointer, ModelStoreError> {
        let _lock = self.lock()?;
        let failed = |reason: String| ModelStoreError::Shadow { path: self.folder.clone(), reason };
        let shadow = self.shadow()?.ok_or_else(|| failed("no set is on trial".to_owned()))?;
        if let Some(open) = shadow.open() {
            return Err(failed(format!("{}: {open}", shadow.set)));
        }
        let before = self.pointer()?;
        if before.current != shadow.instead_of {
            return Err(failed("another set is in use than at the beginning of the trial".into()));
        }
        let (models, standing) = self.open_judged(&shadow.set)?;
        if let Standing::KeyRemoved { key } = &standing {
            return Err(failed(format!(
                "{}: signed by {key}, which is no longer in models.trusted_keys; stop the trial",
                shadow.set
            )));
        }
        let mut ledger = self.ledger_or_adopted()?;
        self.not_older(&shadow.set, &models, &ledger, options)?;
        let mut checked = check_models(models, &self.path(&shadow.set), options.precision)?;
        self.tell(told, &Told::Checked(&shadow.set, &checked, &standing))?;
        let after = Pointer { current: shadow.set, previous: Some(before.current) };
        self.switch(&mut checked, options.gallery, &after, told)?;
        let age = Age::of(&checked.models.manifest);
        self.tidy(&after, &mut ledger, None, Some(age))?;
        Ok(after)
    }

    /// Ends the trial without using its set. Returns the name of the set.
    ///
    /// # Errors
    /// If no set is on trial, or it cannot be removed.
    pub fn stop_shadow(&self) -> Result<String, ModelStoreError> {
        let _lock = self.lock()?;
        let Some(shadow) = self.shadow()? else {
            let reason = "no set is on trial; see facelatch models list".to_owned();
            return Err(ModelStoreError::Shadow { path: self.folder.clone(), reason });
        };
        let mut ledger = self.ledger_or_adopted()?;
        self.tidy(&self.pointer()?, &mut ledger, None, None)?;
        Ok(shadow.set)
    }

    /// Refuses a set that is older than the newest one that was installed here.
    fn not_older(
        &self,
        name: &str,
        models: &Models,
        ledger: &Ledger,
        options: &InstallOptions<'_>,
    ) -> Result<(), ModelStoreError> {
        let (age, known) = (Age::of(&models.manifest), ledger.newest.as_ref());
        match known.and_then(|newest| Some((newest, age.older_than(newest)?))) {
            Some((newest, reason)) if !options.downgrade => Err(ModelStoreError::Downgrade {
                set: name.to_owned(),
                reason,
                newest: newest.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Compares people who are not the same, and the thresholds with those in use.
    fn measure(
        &self,
        name: &str,
        checked: &mut Checked,
        options: &InstallOptions<'_>,
    ) -> Result<(Floor, Option<Lowered>), ModelStoreError> {
        let table = checked.models.thresholds()?;
        let opening = Opening::to(Purpose::Read).registered(self.register.clone());
        let gallery = match Store::open_as(options.gallery, opening) {
            Err(StoreError::Absent { .. }) => None,
            store => Some(store?),
        };
        let templates = match &gallery {
            Some(store) => store.people()?.iter().map(|person| person.templates).sum(),
            None => 0,
        };
        let rate = options.false_accept_rate;
        let asked = table.for_attempt(rate, templates).similarity;
        // Without it, as when it is damaged, there is nothing to compare with.
        let mut in_use = self.in_use(options.precision).ok();
        let built_in = impostors::measure(&mut checked.recognizer)?;
        let neighbours = match &gallery {
            None => None,
            Some(store) => {
                let faces = floor::faces(store, &mut checked.recognizer)?;
                let other = in_use.as_mut().and_then(|InUse { models, recognizer }| {
                    let similarity =
                        models.thresholds().ok()?.for_attempt(rate, templates).similarity;
                    Some((recognizer, similarity))
                });
                floor::compare(&faces, (asked, floor::per_pair(rate, templates)), other)
            }
        };
        let floor = Floor { built_in, gallery: neighbours };
        floor
            .check(&table, asked)
            .map_err(|reason| ModelStoreError::Floor { set: name.to_owned(), reason })?;
        let lowered = in_use.and_then(|InUse { models, .. }| {
            let sha256 =
                |models: &Models| models.manifest.recognizer.as_ref().map(|net| net.sha256.clone());
            let same = sha256(&models) == sha256(&checked.models);
            Lowered::of(&models.thresholds().ok()?, &table, (rate, templates), same)
        });
        Ok((floor, lowered))
    }

    fn in_use(&self, precision: Precision) -> Result<InUse, ModelStoreError> {
        let models = self.open_current()?.in_precision(precision);
        let recognizer = Recognizer::new(&models, DetectorSettings::default())?;
        Ok(InUse { models, recognizer })
    }

    /// Re-embeds the gallery, then writes the pointer.
    fn switch(
        &self,
        checked: &mut Checked,
        gallery: &Path,
        after: &Pointer,
        told: &mut Telling<'_>,
    ) -> Result<(), ModelStoreError> {
        let opening = Opening::to(Purpose::Change).registered(self.register.clone());
        let store = match Store::open_as(gallery, opening) {
            Err(StoreError::Absent { .. }) => None,
            store => Some(store?),
        };
        if let Some(mut store) = store {
            let id = checked.models.recognizer_id()?;
            if let Some(repaired) = store.repaired() {
                log::error!("{repaired}");
            }
            let done =
                store.re_embed(&id, |picture| checked.recognizer.embed_picture(picture).ok())?;
            drop(store);
            self.tell(told, &Told::ReEmbedded(&done))?;
        }
        self.point(after)?;
        // An error of the callback cannot undo the switch.
        let _ = told(&Told::Switched(after));
        Ok(())
    }

    fn tell(&self, told: &mut Telling<'_>, what: &Told<'_>) -> Result<(), ModelStoreError> {
        told(what).map_err(io(&self.folder))
    }

    /// Renames a complete draft to the name of its set. An existing set of that name is
    /// identical and stays, with the signature of the draft, unless it is damaged.
    fn place(&self, draft: &Draft, name: &str) -> Result<(), ModelStoreError> {
        let target = self.path(name);
        let replaced = self.folder.join(REPLACED);
        if target.exists() {
            if open_whole(&target).is_ok() {
                return sign_like(&draft.path, &target);
            }
            std::fs::rename(&target, &replaced).map_err(io(&target))?;
        }
        std::fs::rename(&draft.path, &target).map_err(io(&target))?;
        sync_folder(&self.folder)?;
        remove(&replaced)
    }

    /// After a change: removes the sets that are neither in use, nor the previous one, nor on
    /// trial, from the ledger and from the disk, so that it does not fill up. Notes the age of
    /// a set that was installed.
    fn tidy(
        &self,
        pointer: &Pointer,
        ledger: &mut Ledger,
        on_trial: Option<&str>,
        installed: Option<Age>,
    ) -> Result<(), ModelStoreError> {
        if on_trial.is_none() {
            self.forget_shadow()?;
        }
        let keeps = |name: &str| {
            name == pointer.current
                || Some(name) == pointer.previous.as_deref()
                || Some(name) == on_trial
        };
        ledger.sets.retain(|accepted| keeps(&accepted.set));
        if installed.is_some() {
            ledger.newest = installed;
        }
        if let Err(error) = self.write_ledger(ledger, &Standing::BuiltIn) {
            // The set in use is in it already.
            log::error!("{error}");
        }
        for name in self.names().unwrap_or_default().iter().filter(|name| !keeps(name)) {
            // Not an error: the set only occupies space.
            if let Err(error) = remove(&self.path(name)) {
                log::warn!("{error}");
            }
        }
        Ok(())
    }
}

/// Gives an installed set the signature of an identical one, or none.
fn sign_like(draft: &Path, target: &Path) -> Result<(), ModelStoreError> {
    let path = target.join(SIGNATURE);
    match files::read(&draft.join(SIGNATURE), MAX_SIGNATURE) {
        Ok(signature) => {
            let new = target.join(format!(".{SIGNATURE}"));
            write_synced(&new, &signature)?;
            std::fs::rename(&new, &path).map_err(io(&path))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(&path)(error)),
            _ => {}
        },
        Err(error) => return Err(io(&path)(error)),
    }
    sync_folder(target)
}
