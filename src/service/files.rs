//! The thread that reads and writes files while the service runs, so that the door never
//! waits for a disk: it reloads configuration, models and gallery when they change, and
//! writes people who are enrolled at the door.

use super::audit_entries::people_changes;
use super::gallery_watch::{ReEmbedder, Sight};
use super::model_watch::{ModelWatch, Watched};
use super::models::{ModelSet, Networks};
use super::pipeline::{Change, NewPerson, Pipeline};
use super::reload::Reload;
use super::site::SiteRules;
use super::status::{GalleryFileNow, ModelsNow};
use super::trial::Feed;
use crate::access::controller::Input;
use crate::access::event::Event;
use crate::access::gallery::PersonId;
use crate::audit::entry::{self as audit, By, Entry, Via, cut};
use crate::config::{Config, SettingChange};
use crate::models::Models;
use crate::nn::Precision;
use crate::storage::gallery::{
    Loaded, LoadedContent, Opening, Purpose, ReEmbedded, Register, Store, StoreError, stamp,
};
use crate::storage::models::{ModelStore, Standing};
use crate::vision::recognizer::Recognizer;
use anyhow::{Context, Result, bail};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often the files are checked for changes.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A person enrolled at the door is written only if that starts within this time: the
/// enrolment gives up after 30 seconds and reports a failure.
const START_WITHIN: Duration = Duration::from_secs(15);
/// Most events that wait for the service.
const MOST_EVENTS: usize = 16;
/// Age of a file at which its time of change distinguishes it from any later state.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// Said of a gallery with nobody in it.
pub const EMPTY: &str = "nobody is enrolled yet; see facelatch enroll --help";

/// Logs a warning that names everybody who lost templates when the models changed.
pub fn warn_of_lost(done: &ReEmbedded) {
    if !done.lost.is_empty() {
        log::warn!(
            "{}: all templates are of another model and no pictures are stored to re-embed; \
             enroll again",
            done.lost.join(", ")
        );
    }
    if !done.fewer.is_empty() {
        log::warn!(
            "{}: some templates are of another model and have no stored pictures; enroll again \
             for as many views as before",
            done.fewer.join(", ")
        );
    }
}

/// Logs a warning that names everybody with templates of other models.
fn warn_of_left_out(loaded: &Loaded) {
    if loaded.of_other_models > 0 {
        log::warn!(
            "{} templates are of another model and have no stored picture to re-embed; enroll \
             again: {}",
            loaded.of_other_models,
            loaded.to_renew.join(", ")
        );
    }
}

/// Reads the configuration as the command line asked for it.
pub type ReadConfig = Arc<dyn Fn() -> Result<Config> + Send + Sync>;

/// The files in use, and how to read them again.
pub struct Files {
    /// Reads the configuration.
    pub read_config: ReadConfig,
    /// The configuration in use.
    pub config: Config,
    /// Revision and digest of the gallery in use.
    pub content: LoadedContent,
    /// State of its file at the start.
    pub gallery: GalleryFileNow,
    /// The store of installed models and the name of the set in use, read before the set.
    /// `None` if the models are from another folder.
    pub store: Option<(ModelStore, String)>,
    /// The models in use.
    pub models: Models,
    /// Who answers for them; `None` for a folder that was named.
    pub standing: Option<Standing>,
    /// Arithmetic of the networks.
    pub precision: Precision,
    /// Whether the configuration is to be read again.
    pub reload: Arc<Reload>,
    /// Rules of the site, which go over the configuration.
    pub rules: Arc<SiteRules>,
}

/// The service's end of the thread. The thread ends when this is dropped.
#[derive(Default)]
pub struct FileWorker {
    slot: Mutex<Slot>,
    /// There is a newcomer to write.
    newcomer: Condvar,
}

/// Number and provisional name of a newcomer, or why they were not written.
type Kept = Result<(PersonId, String), String>;

#[derive(Default)]
struct Slot {
    /// For the service.
    change: Option<Change>,
    /// To be written, and since when it has waited.
    newcomer: Option<(NewPerson, Instant)>,
    /// Result of writing a newcomer: their number, and their name or the reason of failure.
    kept: Option<(u32, Kept)>,
    /// State of the gallery's file, if it has changed.
    gallery: Option<GalleryFileNow>,
    /// What happened to the gallery's file.
    events: Vec<Event>,
    /// Changes, for the audit log.
    entries: Vec<Entry>,
    /// The model set in use, if something about it has changed.
    models: Option<ModelsNow>,
    /// The begin or end of a trial.
    trial: Option<Option<Feed>>,
}

impl FileWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the models have no recognizer, or the thread cannot be started.
    pub fn start(files: Files) -> Result<Arc<Self>> {
        let worker = Arc::new(Self::default());
        worker.slot().gallery = Some(files.gallery.clone());
        let weak = Arc::downgrade(&worker);
        let mut thread = Thread::new(files)?;
        std::thread::Builder::new()
            .name("gallery".to_owned())
            .spawn(move || {
                while let Some(worker) = weak.upgrade() {
                    let newcomer = worker.slot().newcomer.take();
                    let kept = newcomer.map(|(newcomer, since)| {
                        // Not after the enrolment has reported a failure.
                        let done = if since.elapsed() < START_WITHIN {
                            unharmed(|| thread.keep(&newcomer))
                        } else {
                            Some(Err("the gallery was busy for too long".to_owned()))
                        };
                        let done = done.unwrap_or_else(|| Err("see the log".to_owned()));
                        (newcomer.number, done)
                    });
                    if let Some(change) = unharmed(|| thread.check()).flatten() {
                        worker.put(change);
                    }
                    worker.tell(&mut thread.sight);
                    worker.slot().entries.append(&mut thread.entries);
                    worker.tell_models(unharmed(|| thread.watch.visit(&thread.files)));
                    // Only now: an observer of the end finds the new configuration.
                    thread.files.reload.end();
                    // After the gallery that contains them, so that they are recognized as
                    // soon as the enrolment reports success.
                    if kept.is_some() {
                        worker.slot().kept = kept;
                    }
                    worker.wait();
                }
            })
            .context("cannot start the thread that reads and writes files")?;
        Ok(worker)
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between two frames: hands over a newcomer and applies changes.
    pub fn visit(&self, pipeline: &mut Pipeline, now: Duration) -> Vec<Event> {
        let newcomer = pipeline.newcomer();
        let mut slot = self.slot();
        if newcomer.is_some() {
            slot.newcomer = newcomer.map(|newcomer| (newcomer, Instant::now()));
            self.newcomer.notify_one();
        }
        let (change, kept) = (slot.change.take(), slot.kept.take());
        let (gallery, mut events) = (slot.gallery.take(), std::mem::take(&mut slot.events));
        let entries = std::mem::take(&mut slot.entries);
        let (models, trial) = (slot.models.take(), slot.trial.take());
        drop(slot);
        for entry in entries {
            pipeline.entries().append(entry);
        }
        if let Some(models) = models {
            pipeline.set_models_now(models);
        }
        if let Some(trial) = trial {
            pipeline.set_trial(trial);
        }
        if let Some(gallery) = gallery {
            pipeline.set_gallery_file(gallery);
        }
        events.extend(change.map_or_else(Vec::new, |change| pipeline.change(now, change)));
        if let Some((number, done)) = kept {
            events.extend(pipeline.input(now, Input::Kept { number, done }));
        }
        events
    }

    fn put(&self, change: Change) {
        let mut slot = self.slot();
        slot.change = Some(match (slot.change.take(), change) {
            // The service has not taken the earlier change yet: join the two.
            (Some(Change::Models(mut models)), Change::Gallery(gallery)) => {
                models.gallery = *gallery;
                Change::Models(models)
            }
            (Some(Change::Config(mut both)), Change::Gallery(gallery)) => {
                both.1.gallery = *gallery;
                Change::Config(both)
            }
            (Some(Change::Config(mut both)), Change::Models(models)) => {
                both.1 = *models;
                Change::Config(both)
            }
            (_, change) => change,
        });
    }

    /// Passes on what the thread found out about the gallery's file.
    fn tell(&self, sight: &mut Sight) {
        let mut slot = self.slot();
        if sight.told != sight.now {
            sight.told.clone_from(&sight.now);
            slot.gallery = Some(sight.told.clone());
        }
        slot.events.append(&mut sight.events);
        // The service takes them within a frame; a stuck one is ended.
        slot.events.truncate(MOST_EVENTS);
    }

    /// Passes on what is known of the models.
    fn tell_models(&self, told: Option<Watched>) {
        let Some(Watched { models, trial }) = told else { return };
        let mut slot = self.slot();
        slot.models = models.or(slot.models.take());
        slot.trial = trial.or(slot.trial.take());
    }

    /// Waits for a newcomer, or until the next check is due.
    fn wait(&self) {
        let none = |slot: &mut Slot| slot.newcomer.is_none();
        let waited = self.newcomer.wait_timeout_while(self.slot(), CHECK_EVERY, none);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Runs work that must not end the thread: without the thread nobody could be enrolled,
/// renamed or removed any more, and nothing would say so.
fn unharmed<T>(work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.inspect_err(|_| {
        log::error!("the thread that reads and writes files panicked; it continues")
    })
    .ok()
}

/// The thread's own state.
struct Thread {
    files: Files,
    embedder: ReEmbedder,
    /// Time and size of the gallery file at the last read, once they have settled.
    seen: Option<(SystemTime, u64)>,
    /// The last fault of the models that was logged, so that it is logged once.
    logged: String,
    sight: Sight,
    /// Changes, for the audit log.
    entries: Vec<Entry>,
    watch: ModelWatch,
}

impl Thread {
    fn new(files: Files) -> Result<Self> {
        let embedder = ReEmbedder::new(&files.models)?;
        let (told, now) = (files.gallery.clone(), files.gallery.clone());
        let sight = Sight { register: Register::of_user(), now, told, events: Vec::new() };
        let (watch, entries) = (ModelWatch::default(), Vec::new());
        Ok(Self { files, embedder, seen: None, logged: String::new(), sight, entries, watch })
    }

    /// Reads what has changed.
    fn check(&mut self) -> Option<Change> {
        if self.files.reload.wanted.load(Ordering::Relaxed) {
            self.files.reload.begin();
            match self.config() {
                Ok(Some(change)) => {
                    log::info!("configuration: reloaded");
                    return Some(change);
                }
                // Another process has the gallery: try again.
                Ok(None) => self.files.reload.wanted.store(true, Ordering::Relaxed),
                Err(error) => {
                    log::error!("configuration: {error:#}; keeping the one in use");
                }
            }
        }
        match self.models() {
            Ok(None) => {}
            Ok(Some(change)) => return Some(change),
            Err(error) => self.log(&format!("{error:#}; keeping the models in use")),
        }
        let read = self.gallery();
        if matches!(read, Err(StoreError::Busy { .. })) {
            return None;
        }
        if read.is_err() {
            self.seen = None;
        }
        self.sight.judge(&self.files.config.gallery_file(), read.as_ref().err());
        read.unwrap_or(None)
    }

    /// Writes a person enrolled at the door. Returns their number and provisional name, or
    /// the reason of failure.
    fn keep(&mut self, newcomer: &NewPerson) -> Kept {
        let NewPerson { templates, traits, look_alike, .. } = newcomer;
        self.seen = None;
        let opening = Opening::to(Purpose::Begin)
            .knowing(self.files.content.known())
            .registered(self.sight.register.clone());
        let kept =
            Store::open_as(&self.files.config.gallery_file(), opening).and_then(|mut store| {
                let before = store.people()?;
                let person = store.enroll_unnamed(templates, traits.clone(), *look_alike)?;
                Ok((person, people_changes(&before, &store.people()?)))
            });
        let (person, changes) = kept.map_err(|error| error.to_string())?;
        self.entries.extend(Entry::new("people").with_changes(changes));
        Ok((person.id, person.name))
    }

    fn log(&mut self, message: &str) {
        if message != self.logged {
            log::error!("{message}");
            message.clone_into(&mut self.logged);
        }
    }

    /// The configuration with the models as it wants them: all of it or nothing. `None`
    /// while another process has the gallery.
    fn config(&mut self) -> Result<Option<Change>> {
        let config = (self.files.read_config)()?.with_site_rules(&self.files.rules.text())?;
        if let Some(key) = self.files.config.needs_restart(&config) {
            bail!("{key} has changed, which needs a restart (systemctl restart facelatch)");
        }
        let trusting = self.files.store.as_ref().map(|(store, current)| {
            (store.clone().trusting(config.trusted_keys()), current.clone())
        });
        let (models, standing) = match &trusting {
            Some((store, current)) => {
                let (models, standing) = store.open_judged(current)?;
                (models.in_precision(self.files.precision), Some(standing))
            }
            None => (self.files.models.clone(), None),
        };
        let Some((set, content)) = self.load(&config, &models)? else { return Ok(None) };
        self.files.content = content;
        let entry = Entry { by: in_files(), ..Entry::new("configuration") };
        self.entries.extend(entry.with_changes(settings_changes(&self.files.config, &config)));
        self.files.config = config.clone();
        (self.files.store, self.files.models, self.files.standing) = (trusting, models, standing);
        Ok(Some(Change::Config(Box::new((config, set)))))
    }

    /// The networks as the configuration wants them, with all people. `None` while another
    /// process has the gallery.
    fn load(
        &mut self,
        config: &Config,
        models: &Models,
    ) -> Result<Option<(ModelSet, LoadedContent)>> {
        let networks = Networks::load(config, models)?;
        let mut embedder = ReEmbedder::new(models)?;
        let file = config.gallery_file();
        let Some(loaded) = self.sight.read(&self.files.content, &file, &mut embedder)? else {
            return Ok(None);
        };
        let Loaded { gallery, content, .. } = loaded;
        self.embedder = embedder;
        Ok(Some((networks.with(gallery), content)))
    }

    /// Another installed set of models.
    fn models(&mut self) -> Result<Option<Change>> {
        let Some((store, current)) = &self.files.store else { return Ok(None) };
        let now = store.pointer()?.current;
        if now == *current {
            return Ok(None);
        }
        let previous = current.clone();
        let (models, standing) = store.open_judged(&now)?;
        let models = models.in_precision(self.files.precision);
        let config = self.files.config.clone();
        let Some((set, content)) = self.load(&config, &models)? else { return Ok(None) };
        log::info!("models: {now}, {} people", set.gallery.people());
        self.files.content = content;
        let entry = Entry { by: in_files(), ..Entry::new("models") };
        let version = models.manifest.version.as_str();
        self.entries
            .push(entry.with("set", &now).with("previous", &previous).with("version", version));
        (self.files.models, self.files.standing) = (models, Some(standing));
        if let Some((_, current)) = &mut self.files.store {
            *current = now;
        }
        self.logged.clear();
        Ok(Some(Change::Models(Box::new(set))))
    }

    /// The gallery, if its revision is another.
    fn gallery(&mut self) -> Result<Option<Change>, StoreError> {
        let file = self.files.config.gallery_file();
        let now = stamp(&file);
        if now == self.seen && now.is_some() {
            return Ok(None);
        }
        // `now` was taken before reading: a change meanwhile is seen at the next check.
        let Some(loaded) = self.sight.read(&self.files.content, &file, &mut self.embedder)? else {
            return Err(StoreError::Busy { path: file });
        };
        // File systems have coarse times, so a change soon after another may not show.
        self.seen = now.filter(|(at, _)| at.elapsed().is_ok_and(|age| age > SETTLED_AFTER));
        self.logged.clear();
        if loaded.content == self.files.content {
            return Ok(None);
        }
        self.files.content = loaded.content;
        let (people, templates) = (loaded.gallery.people(), loaded.gallery.templates());
        log::info!("gallery: {people} people, {templates} templates");
        warn_of_left_out(&loaded);
        Ok(Some(Change::Gallery(Box::new(loaded.gallery))))
    }
}

/// Who changed a file that the service found changed.
pub(super) fn in_files() -> By {
    By { via: Via::Files, ..By::default() }
}

/// What is different between two configurations, for the audit log.
pub fn settings_changes(before: &Config, now: &Config) -> Vec<audit::Change> {
    let change = |SettingChange { key, old, new }| {
        let [old, new] = [old, new].map(|value| value.as_deref().map(cut));
        audit::Change::Setting { key: key.to_owned(), old, new }
    };
    before.differences(now).into_iter().map(change).collect()
}

/// Opens the gallery with what this user's register remembers, and logs a repair. A gallery
/// that can only be read is warned of.
///
/// # Errors
/// See [`Store::open_as`].
pub fn open_store(file: &Path, purpose: Purpose) -> Result<Store, StoreError> {
    let store = Store::open_as(file, Opening::to(purpose).registered(Register::of_user()))?;
    if let Some(repaired) = store.repaired() {
        log::error!("{repaired}");
    }
    if let Some(reason) = store.read_only() {
        log::warn!(
            "{}: read-only: {reason}; until then nobody can be enrolled or removed",
            file.display()
        );
    }
    Ok(store)
}

/// Loads the gallery for these models. Templates of other models are re-embedded from
/// their stored crops. With `keep` the new templates are saved, so that the service starts
/// quickly the next time. Without it they stay in memory, so that reading a gallery with
/// other models does not change it for the service. Templates without a crop are left out
/// with a warning.
///
/// # Errors
/// If the set has no recognizer, the gallery cannot be read or, with `keep`, written, or the
/// network fails.
pub fn load_gallery(
    store: &mut Store,
    models: &Models,
    recognizer: &mut Recognizer,
    keep: bool,
) -> Result<Loaded> {
    let id = models.recognizer_id()?;
    let size = models.recognizer()?.embedding_size;
    if keep {
        let done = store.re_embed(&id, |picture| recognizer.embed_picture(picture).ok())?;
        if done.renewed > 0 {
            log::info!(
                "{} templates of another model re-embedded from stored pictures",
                done.renewed
            );
        }
        warn_of_lost(&done);
    }
    let loaded =
        store.load_embedding(&id, size, |picture| recognizer.embed_picture(picture).ok())?;
    if !keep {
        warn_of_left_out(&loaded);
    }
    Ok(loaded)
}
