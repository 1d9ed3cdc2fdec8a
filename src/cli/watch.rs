//! What changes while `run` goes on: people and models, and who is enrolled at the door.

use super::common_args::CommonArgs;
use anyhow::{Context, Result, bail};
use facelatch::access::controller::Input;
use facelatch::access::event::Event;
use facelatch::config::Config;
use facelatch::models::{ModelId, Models};
use facelatch::service::peripherals::Reload;
use facelatch::service::pipeline::{Change, Doorkeeper, ModelSet, NewPerson};
use facelatch::storage::gallery::{Loaded, Store, StoreError, peek, stamp};
use facelatch::storage::models::ModelStore;
use facelatch::vision::align::Crop;
use facelatch::vision::detect::DetectorSettings;
use facelatch::vision::embed::{Embedder, Template};
use facelatch::vision::recognizer::Recognizer;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often to look whether somebody was enrolled or removed meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Somebody enrolled at the door is written only while they may still be told so: the
/// enrolment waits for 30 s.
const BEGUN_WITHIN: Duration = Duration::from_secs(15);
/// Age at which a file's time tells it from any later state.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// What is watched, and what is known of it.
pub struct Watched {
    /// Where configuration and models come from.
    pub site: CommonArgs,
    /// The one in use.
    pub config: Config,
    /// The state of the gallery.
    pub known: [u64; 2],
    /// Which set of installed models is in use, read before it was; nothing where a
    /// folder was named.
    pub store: Option<(ModelStore, String)>,
    /// Those in use.
    pub models: Models,
    /// Whether the configuration is to be read anew.
    pub reload: Arc<Reload>,
}

/// What goes between the service and the thread that reads and writes files, so that
/// the door never waits for a disk.
#[derive(Default)]
pub struct Desk {
    papers: Mutex<Papers>,
    /// There is a newcomer to be written.
    brought: Condvar,
}

#[derive(Default)]
struct Papers {
    /// For the service.
    change: Option<Change>,
    /// To be written.
    newcomer: Option<(NewPerson, Instant)>,
    /// How that went with whom: a name, or why not.
    kept: Option<(u32, Result<String, String>)>,
}

impl Desk {
    fn papers(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between two frames: brings the newcomer, takes what is there.
    pub fn visit(&self, keeper: &mut Doorkeeper, now: Duration) -> Vec<Event> {
        let newcomer = keeper.newcomer();
        let mut papers = self.papers();
        if newcomer.is_some() {
            papers.newcomer = newcomer.map(|newcomer| (newcomer, Instant::now()));
            self.brought.notify_one();
        }
        let (change, kept) = (papers.change.take(), papers.kept.take());
        drop(papers);
        let mut events = change.map_or_else(Vec::new, |change| keeper.change(now, change));
        if let Some((number, done)) = kept {
            events.extend(keeper.input(now, Input::Kept { number, done }));
        }
        events
    }

    fn put(&self, change: Change) {
        let mut papers = self.papers();
        papers.change = Some(match (papers.change.take(), change) {
            // The service has not yet taken what came first: what came later goes with
            // it.
            (Some(Change::Models(mut models)), Change::Gallery(gallery)) => {
                models.gallery = gallery;
                Change::Models(models)
            }
            (Some(Change::Config(mut both)), Change::Gallery(gallery)) => {
                both.1.gallery = gallery;
                Change::Config(both)
            }
            (Some(Change::Config(mut both)), Change::Models(models)) => {
                both.1 = *models;
                Change::Config(both)
            }
            (_, change) => change,
        });
    }

    /// Waits for a newcomer, but not for long.
    fn wait(&self) {
        let nothing = |papers: &mut Papers| papers.newcomer.is_none();
        let waited = self.brought.wait_timeout_while(self.papers(), LOOK_EVERY, nothing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Watched {
    /// Looks in its own thread whether another facelatch has changed the gallery or the
    /// models, and brings the new ones to the desk; writes whoever is enrolled at the
    /// door.
    pub fn watch(self) -> Result<Arc<Desk>> {
        let desk = Arc::new(Desk::default());
        let weak = Arc::downgrade(&desk);
        let mut watcher = Watcher::new(self)?;
        std::thread::Builder::new()
            .name("gallery".to_owned())
            .spawn(move || {
                // Ends with the service, which holds the desk.
                while let Some(desk) = weak.upgrade() {
                    let newcomer = desk.papers().newcomer.take();
                    let kept = newcomer.map(|(newcomer, brought)| {
                        // Nobody may be enrolled after they were told that they are not.
                        let done = match brought.elapsed() < BEGUN_WITHIN {
                            true => unharmed(|| watcher.keep(&newcomer)),
                            false => Some(Err("the gallery was busy for too long".to_owned())),
                        };
                        let done = done.unwrap_or_else(|| Err("see the log".to_owned()));
                        (newcomer.number, done)
                    });
                    if let Some(change) = unharmed(|| watcher.look()).flatten() {
                        desk.put(change);
                    }
                    // Not before: who hears that the configuration was read finds it so.
                    watcher.watched.reload.end();
                    // After the gallery with them in it, so that they are known as
                    // soon as they are told so.
                    if kept.is_some() {
                        desk.papers().kept = kept;
                    }
                    desk.wait();
                }
            })
            .context("cannot watch the gallery")?;
        Ok(desk)
    }
}

/// Work that must not end the thread: without it nobody would be enrolled, renamed or
/// removed any more, and nothing would say so. A panic is told by its hook.
fn unharmed<T>(work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.inspect_err(|_| log::error!("the gallery's thread failed; it goes on")).ok()
}

struct Watcher {
    watched: Watched,
    maker: Maker,
    seen: Option<(SystemTime, u64)>,
    /// The fault told last: it is told once.
    told: String,
}

impl Watcher {
    fn new(watched: Watched) -> Result<Self> {
        let maker = Maker::new(&watched.models)?;
        Ok(Self { watched, maker, seen: None, told: String::new() })
    }

    fn look(&mut self) -> Option<Change> {
        if self.watched.reload.wanted.load(Ordering::Relaxed) {
            self.watched.reload.begin();
            match self.reload() {
                Ok(Some(change)) => {
                    log::info!("configuration: read anew");
                    return Some(change);
                }
                // The other facelatch may still be at the gallery.
                Ok(None) => self.watched.reload.wanted.store(true, Ordering::Relaxed),
                Err(error) => {
                    log::error!("configuration: {error:#}; going on with the one used so far");
                }
            }
        }
        match self.models() {
            Ok(None) => {}
            Ok(Some(change)) => return Some(change),
            Err(error) => self.tell(&format!("{error:#}; going on with the models used so far")),
        }
        match self.gallery() {
            Ok(change) => change,
            Err(error) => {
                self.tell(&format!("{error}; going on with the people known so far"));
                None
            }
        }
    }

    /// Writes somebody enrolled at the door; their name so far, or why not.
    fn keep(&mut self, newcomer: &NewPerson) -> Result<String, String> {
        let NewPerson { templates, administrator, look_alike, .. } = newcomer;
        self.seen = None;
        Store::open(&self.watched.config.gallery_file())
            .and_then(|mut store| store.enroll_unnamed(templates, *administrator, *look_alike))
            .map(|person| person.name)
            .map_err(|error| error.to_string())
    }

    fn tell(&mut self, message: &str) {
        if message != self.told {
            log::error!("{message}");
            message.clone_into(&mut self.told);
        }
    }

    /// The configuration as it is now, with the models as it wants them: all of it or
    /// nothing. Later, while another facelatch works on the gallery.
    fn reload(&mut self) -> Result<Option<Change>> {
        let config = self.watched.site.config()?;
        if let Some(key) = self.watched.config.needs_restart(&config) {
            bail!("{key} is another, which takes a restart (systemctl restart facelatch)");
        }
        let models = match &self.watched.store {
            Some((store, current)) => {
                store.open(current)?.in_precision(self.watched.site.precision())
            }
            None => self.watched.models.clone(),
        };
        let Some((set, revision)) = self.set(&config, &models)? else { return Ok(None) };
        self.watched.known = revision;
        self.watched.config = config.clone();
        Ok(Some(Change::Config(Box::new((config, set)))))
    }

    /// Networks as the configuration wants them, with everybody by their templates;
    /// nothing while another facelatch works on the gallery.
    fn set(&mut self, config: &Config, models: &Models) -> Result<Option<(ModelSet, [u64; 2])>> {
        let recognizer = Recognizer::new(models, detector(config))?;
        let liveness = config.liveness.nets(models)?;
        let calibration = models.calibration()?;
        let mut maker = Maker::new(models)?;
        let Some(loaded) = look(&config.gallery_file(), &mut maker)? else { return Ok(None) };
        let Loaded { gallery, revision, .. } = loaded;
        self.maker = maker;
        Ok(Some((ModelSet { recognizer, liveness, calibration, gallery }, revision)))
    }

    /// Another set of models, with everybody by its templates.
    fn models(&mut self) -> Result<Option<Change>> {
        let Some((store, current)) = &self.watched.store else { return Ok(None) };
        let now = store.pointer()?.current;
        if now == *current {
            return Ok(None);
        }
        let models = store.open(&now)?.in_precision(self.watched.site.precision());
        let config = self.watched.config.clone();
        // The other facelatch may still be at the gallery.
        let Some((set, revision)) = self.set(&config, &models)? else { return Ok(None) };
        log::info!("models: {now}, {} people", set.gallery.people());
        self.watched.known = revision;
        if let Some((_, current)) = &mut self.watched.store {
            *current = now;
        }
        self.told.clear();
        Ok(Some(Change::Models(Box::new(set))))
    }

    /// The gallery, if it is another than the one known.
    fn gallery(&mut self) -> Result<Option<Change>, StoreError> {
        let file = self.watched.config.gallery_file();
        let now = stamp(&file);
        if now == self.seen && now.is_some() {
            return Ok(None);
        }
        // Taken before reading: what changes meanwhile is seen next time.
        let Some(loaded) = look(&file, &mut self.maker)? else { return Ok(None) };
        // File systems count time coarsely: a change soon after another one may not
        // show.
        self.seen = now.filter(|(at, _)| at.elapsed().is_ok_and(|age| age > SETTLED_AFTER));
        self.told.clear();
        if loaded.revision == self.watched.known {
            return Ok(None);
        }
        self.watched.known = loaded.revision;
        let gallery = loaded.gallery;
        let (people, templates) = (gallery.people(), gallery.templates());
        log::info!("gallery: {people} people, {templates} templates");
        if loaded.of_other_models > 0 {
            log::warn!(
                "{} templates are of another model and have no picture to be made anew from",
                loaded.of_other_models
            );
        }
        Ok(Some(Change::Gallery(gallery)))
    }
}

/// What the detector is to find, on two threads where there are two cores.
pub fn detector(config: &Config) -> DetectorSettings {
    let two_threads = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    DetectorSettings { two_threads, ..config.detector() }
}

/// Makes templates anew that another model made. Its network is loaded once there is
/// such a template.
struct Maker {
    models: Models,
    model: ModelId,
    size: usize,
    embedder: Option<Embedder>,
}

impl Maker {
    fn new(models: &Models) -> Result<Self> {
        let (model, size) = (models.recognizer_id()?, models.recognizer()?.embedding_size);
        Ok(Self { models: models.clone(), model, size, embedder: None })
    }

    fn make(&mut self, crop: &Crop) -> Option<Template> {
        if self.embedder.is_none() {
            self.embedder = Some(Embedder::new(self.models.recognizer().ok()?).ok()?);
        }
        let embedding = self.embedder.as_mut()?.embed(crop).ok()?;
        Some(Template::new(self.model.clone(), embedding))
    }
}

/// The gallery as it is now; nothing while another facelatch works on it. A file
/// that another one left in disorder is put right first.
fn look(file: &Path, maker: &mut Maker) -> Result<Option<Loaded>, StoreError> {
    let (model, size) = (maker.model.clone(), maker.size);
    peek(file, &model, size, |crop| maker.make(crop)).or_else(|_| {
        match Store::open_within(file, Duration::ZERO) {
            Err(StoreError::Busy { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(store) => {
                if let Some(repaired) = store.repaired() {
                    log::error!("{repaired}");
                }
                store.load_embedding(&model, size, |crop| maker.make(crop)).map(Some)
            }
        }
    })
}
