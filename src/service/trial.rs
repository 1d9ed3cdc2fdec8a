//! The trial of a model set: it sees what the set in use saw, after the door has decided, on a
//! thread of its own with the lowest priority, and opens nothing. What must wait is bounded;
//! what does not fit is left out and counted.

use super::pipeline::Looked;
use super::status::TrialNow;
use crate::access::event::Event;
use crate::access::gallery::{Gallery, PersonId};
use crate::models::threshold::{Threshold, ThresholdTable};
use crate::models::{DetectorModels, ModelId};
use crate::nn::Precision;
use crate::storage::gallery::{Register, peek, stamp};
use crate::storage::models::shadow::{Compared, Shadow};
use crate::storage::models::{InstallOptions, ModelStore, ModelStoreError, Told};
use crate::vision::detect::{Detector, DetectorSettings, nearest_center};
use crate::vision::embed::{Embedder, Template};
use crate::vision::face_picture::FacePicture;
use crate::vision::frame::Frame;
use crate::vision::track::{MAX_TRACKS, TrackId};
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

/// Most pictures of one attempt. A decision needs three.
const MOST_VIEWS: usize = 8;
/// Most pictures that wait, 110 kB each: those of four attempts.
const MOST_WAITING: usize = 4 * MOST_VIEWS;
/// Most verdicts that wait besides them.
const MOST_VERDICTS: usize = 64;
/// How often the thread looks whether the gallery has changed and the trial has passed.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How often the time is written, and how soon an attempt. An end of the service or a power
/// cut costs at most these.
const WRITE_EVERY: Duration = Duration::from_secs(60);
const WRITE_ATTEMPTS_AFTER: Duration = Duration::from_secs(2);
/// Time between two tries to switch, or to load what could not be loaded.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What the trial needs to know of the door.
#[derive(Clone)]
pub struct TrialSettings {
    /// The store with the set.
    pub store: ModelStore,
    /// The networks of the set in use.
    pub in_use: DetectorModels,
    /// File of the gallery.
    pub gallery: PathBuf,
    /// Arithmetic of the networks.
    pub precision: Precision,
    /// False accept rate per attempt.
    pub false_accept_rate: f64,
    /// Number of frames that must agree.
    pub frames: usize,
}

/// Something for the thread.
enum Item {
    /// A view that the set in use has compared.
    View(TrackId, FacePicture),
    /// The set in use has decided: who it is, or nobody who is known.
    Verdict(TrackId, Option<PersonId>),
}

#[derive(Default)]
struct Slot {
    items: VecDeque<Item>,
    views: usize,
    now: Option<TrialNow>,
}

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    woken: Condvar,
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the trial for the thread that reads files. The trial's thread ends when this
/// and all feeds are dropped.
pub struct Trial {
    shared: Arc<Shared>,
    /// The set on trial.
    pub set: String,
    began: u64,
}

impl Trial {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(shadow: Shadow, settings: TrialSettings) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.slot().now = Some(TrialNow::of(&shadow));
        let (weak, set, began) = (Arc::downgrade(&shared), shadow.set.clone(), shadow.began);
        std::thread::Builder::new()
            .name("trial".to_owned())
            .spawn(move || {
                // Only on time that nobody else wants; without it the trial is merely greedier.
                let _ = rustix::process::setpriority_process(None, 19);
                Thread::new(shadow, settings).run(&weak);
            })
            .context("cannot start the thread of the trial")?;
        Ok(Self { shared, set, began })
    }

    /// Whether this is the trial of that file.
    pub fn is_of(&self, shadow: &Shadow) -> bool {
        self.set == shadow.set && self.began == shadow.began
    }

    /// The end for the loop.
    pub fn feed(&self) -> Feed {
        Feed { shared: Arc::clone(&self.shared), tracks: heapless::Vec::new() }
    }

    /// How it does.
    pub fn now(&self) -> Option<TrialNow> {
        self.shared.slot().now.clone()
    }
}

/// The end of the trial for the loop over frames.
pub struct Feed {
    shared: Arc<Shared>,
    /// The tracks in view.
    tracks: heapless::Vec<Seen, MAX_TRACKS>,
}

/// A track in view.
struct Seen {
    track: TrackId,
    /// Number of pictures since the last verdict.
    taken: usize,
    /// The person most similar to its last view.
    last: Option<PersonId>,
}

impl Feed {
    /// Takes the faces of a frame that was decided, and the decisions. `gallery` is that of
    /// the set in use.
    pub fn see(&mut self, frame: &Frame, looked: &Looked, gallery: &Gallery, events: &[Event]) {
        self.tracks.retain(|seen| looked.faces().any(|(track, ..)| track == seen.track));
        for (track, view, best) in looked.faces().filter(|(_, view, _)| view.template.is_some()) {
            if self.has_room(track, best.map(|best| best.person)) {
                let picture = FacePicture::cut(frame, &view.face.landmarks);
                self.put(Item::View(track, picture));
            }
        }
        for event in events {
            let verdict = match event {
                Event::Granted { name, .. } | Event::NotGranted { name, .. } => {
                    let id = gallery.id(name);
                    let of = self.tracks.iter().find(|seen| id.is_some() && seen.last == id);
                    of.map(|seen| (seen.track, id))
                }
                Event::Stranger { track, .. } => Some((*track, None)),
                _ => None,
            };
            if let Some((track, person)) = verdict {
                for seen in self.tracks.iter_mut().filter(|seen| seen.track == track) {
                    seen.taken = 0;
                }
                self.put(Item::Verdict(track, person));
            }
        }
    }

    /// Notes a view of a track. Returns whether its picture is wanted and fits.
    fn has_room(&mut self, track: TrackId, last: Option<PersonId>) -> bool {
        let at = self.tracks.iter().position(|seen| seen.track == track);
        // There are no more tracks than fit.
        if at.is_none() && self.tracks.push(Seen { track, taken: 0, last }).is_err() {
            return false;
        }
        let at = at.unwrap_or(self.tracks.len() - 1);
        let Some(seen) = self.tracks.get_mut(at) else { return false };
        seen.last = last;
        if seen.taken >= MOST_VIEWS || self.shared.slot().views >= MOST_WAITING {
            return false;
        }
        seen.taken += 1;
        true
    }

    fn put(&self, item: Item) {
        let mut slot = self.shared.slot();
        if slot.items.len() < MOST_WAITING + MOST_VERDICTS {
            slot.views += usize::from(matches!(item, Item::View(..)));
            slot.items.push_back(item);
            self.shared.woken.notify_one();
        }
    }
}

/// The set on trial with everybody's templates.
struct Loaded {
    embedder: Embedder,
    /// Its detector, if that is another one than in use.
    detector: Option<Detector>,
    thresholds: ThresholdTable,
    model: ModelId,
    size: usize,
    gallery: Gallery,
    threshold: Threshold,
    seen: Option<(SystemTime, u64)>,
}

/// What the set on trial said of the views of one track.
struct Attempt {
    track: TrackId,
    votes: Vec<Option<PersonId>>,
}

struct Thread {
    shadow: Shadow,
    settings: TrialSettings,
    loaded: Option<Loaded>,
    attempts: VecDeque<Attempt>,
    /// Time that is not written yet.
    changed: bool,
    /// Attempts that are not written yet.
    counted: bool,
}

impl Thread {
    fn new(shadow: Shadow, settings: TrialSettings) -> Self {
        Self {
            shadow,
            settings,
            loaded: None,
            attempts: VecDeque::new(),
            changed: false,
            counted: false,
        }
    }

    fn run(mut self, weak: &Weak<Shared>) {
        let mut retry = Instant::now();
        let (mut written, mut before) = (Instant::now(), Instant::now());
        // Whole seconds are counted, and the rest is kept.
        let mut watched = Duration::ZERO;
        while let Some(shared) = weak.upgrade() {
            if retry <= Instant::now() && !self.is_ready() {
                retry = Instant::now() + RETRY_AFTER;
            }
            let item = next(&shared);
            if let Some(item) = item {
                self.take(item);
            }
            watched += before.elapsed();
            before = Instant::now();
            if watched >= Duration::from_secs(1) && self.loaded.is_some() {
                self.shadow.watched += watched.as_secs();
                self.changed = true;
            }
            watched = Duration::from_nanos(u64::from(watched.subsec_nanos()));
            let passed = self.loaded.is_some() && self.shadow.open().is_none();
            let due = match self.counted {
                true => WRITE_ATTEMPTS_AFTER,
                false => WRITE_EVERY,
            };
            if (self.changed || self.counted) && (passed || written.elapsed() >= due) {
                written = Instant::now();
                self.write();
            }
            shared.slot().now = Some(TrialNow::of(&self.shadow));
            if passed && retry <= Instant::now() {
                retry = Instant::now() + RETRY_AFTER;
                if self.switch() {
                    return;
                }
            }
        }
        self.write();
    }

    /// Loads the set, and people again if they have changed. Returns whether a fault was
    /// found.
    fn is_ready(&mut self) -> bool {
        match self.load() {
            Ok(()) => {
                self.shadow.fault = None;
                true
            }
            Err(error) => {
                let fault = format!("{error:#}");
                if self.shadow.fault.as_ref() != Some(&fault) {
                    log::error!("trial of {}: {fault}", self.shadow.set);
                    self.shadow.fault = Some(fault);
                }
                false
            }
        }
    }

    fn load(&mut self) -> Result<()> {
        let TrialSettings { store, in_use, gallery: file, precision, .. } = &self.settings;
        let now = stamp(file);
        if self.loaded.as_ref().is_some_and(|loaded| loaded.seen == now) {
            return Ok(());
        }
        let loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => {
                let models = store.open(&self.shadow.set)?.in_precision(*precision);
                let other = !same_detector(in_use, &models.detector);
                let settings = DetectorSettings::default();
                let detector = other.then(|| Detector::new(&models.detector, settings));
                Loaded {
                    embedder: Embedder::new(models.recognizer()?)?,
                    detector: detector.transpose()?,
                    thresholds: models.thresholds()?,
                    model: models.recognizer_id()?,
                    size: models.recognizer()?.embedding_size,
                    gallery: Gallery::for_models(&models)?,
                    threshold: Threshold { similarity: f32::INFINITY, extrapolated: false },
                    seen: None,
                }
            }
        };
        let loaded = self.loaded.insert(loaded);
        let Loaded { embedder, model, size, .. } = loaded;
        let register = Register::of_user();
        let read = peek(file, register.as_ref(), model, *size, |picture| {
            let embedding = embedder.embed_face(picture.frame(), picture.landmarks()).ok()?;
            Some(Template::new(model.clone(), embedding))
        })?;
        // While another process has the gallery, the people from before stay.
        let Some(read) = read else { return Ok(()) };
        let rate = self.settings.false_accept_rate;
        loaded.threshold = loaded.thresholds.for_attempt(rate, read.gallery.templates());
        (loaded.gallery, loaded.seen) = (read.gallery, now);
        Ok(())
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::View(track, picture) => {
                let Some(loaded) = &mut self.loaded else { return };
                let vote = loaded.recognize(&picture);
                match self.attempts.iter_mut().find(|attempt| attempt.track == track) {
                    Some(attempt) => attempt.votes.push(vote),
                    None => {
                        self.attempts.truncate(MAX_TRACKS - 1);
                        self.attempts.push_front(Attempt { track, votes: vec![vote] });
                    }
                }
            }
            Item::Verdict(track, person) => {
                let at = self.attempts.iter().position(|attempt| attempt.track == track);
                let votes = at.and_then(|at| self.attempts.remove(at)).map(|attempt| attempt.votes);
                let known = |person: PersonId| {
                    self.loaded.as_ref().is_some_and(|loaded| loaded.gallery.has_templates(person))
                };
                let compared = compare(
                    person,
                    &votes.unwrap_or_default(),
                    person.is_none_or(known),
                    self.settings.frames,
                );
                self.counted = true;
                self.shadow.count(compared);
                log::debug!("trial of {}: {compared:?}", self.shadow.set);
            }
        }
    }

    fn write(&mut self) {
        match self.settings.store.note_shadow(&self.shadow) {
            Ok(()) => (self.changed, self.counted) = (false, false),
            // Somebody installs or removes a set; the next time will do.
            Err(ModelStoreError::Busy { .. }) => {}
            Err(error) => log::warn!("{error}"),
        }
    }

    /// Makes the set on trial current. Returns whether that is done; the thread that reads
    /// files then loads it.
    fn switch(&mut self) -> bool {
        let TrialSettings { store, gallery, precision, false_accept_rate, .. } = &self.settings;
        let options = InstallOptions::new(*precision, gallery, *false_accept_rate);
        let mut told = |told: &Told<'_>| {
            if let Told::ReEmbedded(done) = told {
                super::files::warn_of_lost(done);
            }
            Ok(())
        };
        match store.end_shadow(&options, &mut told) {
            Ok(_) => {
                log::info!("trial of {}: passed; switching to it", self.shadow.set);
                true
            }
            Err(error) => {
                log::error!("trial of {}: passed, but {error}", self.shadow.set);
                self.shadow.fault = Some(error.to_string());
                false
            }
        }
    }
}

impl Loaded {
    /// The person whom the set recognizes in a picture.
    fn recognize(&mut self, picture: &FacePicture) -> Option<PersonId> {
        let frame = picture.frame();
        let landmarks = match &mut self.detector {
            None => *picture.landmarks(),
            Some(detector) => nearest_center(detector.detect(frame).ok()?, frame)?.landmarks,
        };
        let embedding = self.embedder.embed_face(frame, &landmarks).ok()?;
        let template = Template::new(self.model.clone(), embedding);
        let best = self.gallery.best(&template)?;
        best.reaches(self.threshold).then_some(best.id)
    }
}

/// Whether two sets have the same detector, byte by byte.
fn same_detector(one: &DetectorModels, other: &DetectorModels) -> bool {
    let nets =
        |nets: &DetectorModels| [&nets.pnet, &nets.rnet, &nets.onet].map(|file| file.bytes.clone());
    nets(one) == nets(other)
}

/// Compares the verdict of the set in use with the votes of the set on trial. It recognizes
/// a person if more than half of the views vote for them, or as many as a door asks for.
/// `known` is whether it has templates of the person.
fn compare(
    person: Option<PersonId>,
    votes: &[Option<PersonId>],
    known: bool,
    frames: usize,
) -> Compared {
    if votes.is_empty() || !known {
        return Compared::Unmeasured;
    }
    let count = |wanted: PersonId| votes.iter().filter(|vote| **vote == Some(wanted)).count();
    let enough = |wanted: PersonId| 2 * count(wanted) > votes.len() || count(wanted) >= frames;
    let other = votes.iter().flatten().copied().find(|vote| Some(*vote) != person && enough(*vote));
    match (person, other) {
        (None, None) => Compared::Agreed(None),
        (None, Some(_)) => Compared::Admitted,
        (Some(person), Some(_)) => Compared::Other(person),
        (Some(person), None) if enough(person) => Compared::Agreed(Some(person)),
        (Some(person), None) => Compared::Lost(person),
    }
}

/// The next item; `None` if none comes for a while.
fn next(shared: &Shared) -> Option<Item> {
    let wait =
        shared.woken.wait_timeout_while(shared.slot(), CHECK_EVERY, |slot| slot.items.is_empty());
    let (mut slot, _) = wait.unwrap_or_else(PoisonError::into_inner);
    let item = slot.items.pop_front();
    slot.views -= usize::from(matches!(item, Some(Item::View(..))));
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_compared_by_the_votes_of_the_views() {
        let [ada, eve] = [PersonId(1), PersonId(2)];
        let said = |person, votes: &[Option<PersonId>]| compare(person, votes, true, 3);
        assert_eq!(said(Some(ada), &[Some(ada), Some(ada), None]), Compared::Agreed(Some(ada)));
        assert_eq!(said(Some(ada), &[Some(ada), None, None]), Compared::Lost(ada));
        assert_eq!(said(Some(ada), &[Some(eve), Some(eve), Some(ada)]), Compared::Other(ada));
        assert_eq!(said(None, &[None, Some(eve), None]), Compared::Agreed(None));
        assert_eq!(said(None, &[Some(eve), Some(eve), None]), Compared::Admitted);
        // As many as the door asks for, though less than half.
        let mut many = vec![None; 5];
        many.extend([Some(eve); 3]);
        assert_eq!(said(None, &many), Compared::Admitted);
        assert_eq!(said(None, &[]), Compared::Unmeasured);
        assert_eq!(compare(Some(ada), &[None], false, 3), Compared::Unmeasured);
    }

    #[test]
    fn what_waits_is_bounded() {
        let shared = Arc::new(Shared::default());
        let mut feed = Feed { shared: Arc::clone(&shared), tracks: heapless::Vec::new() };
        let frame = Frame::filled(192, 192, [0; 3]);
        let landmarks = [[72.0, 92.0], [119.0, 92.0], [96.0, 120.0], [72.0, 133.0], [119.0, 133.0]];
        let picture = FacePicture::cut(&frame, &landmarks);
        let mut taken = 0;
        for track in 0..16 {
            for _ in 0..20 {
                if feed.has_room(TrackId(track), None) {
                    feed.put(Item::View(TrackId(track), picture.clone()));
                    taken += 1;
                }
            }
        }
        assert_eq!(taken, MOST_WAITING);
        for _ in 0..1000 {
            feed.put(Item::Verdict(TrackId(0), None));
        }
        assert_eq!(shared.slot().items.len(), MOST_WAITING + MOST_VERDICTS);
        while next(&shared).is_some_and(|item| matches!(item, Item::View(..))) {}
        assert_eq!(shared.slot().views, 0);
    }
}
