//! The running process: the loop over frames, the threads, the control socket, the
//! watchdog, reloading and the status. [`serve`] says what is started in which order.

mod actuator;
pub mod audit;
mod audit_entries;
pub mod control;
mod door_state;
mod exit;
pub mod files;
mod gallery_watch;
pub mod last_relay;
pub mod link;
mod message;
mod model_watch;
pub mod models;
mod orders;
mod passages;
pub mod peripherals;
pub mod pipeline;
pub mod process_usage;
mod reload;
pub mod run;
pub mod site;
mod socket;
pub mod stage_times;
pub mod status;
mod trial;
pub mod wall_clock;
pub mod watchdog;
#[cfg(feature = "gpio")]
mod wiring;

pub use audit_entries::people_changes;
pub use exit::{EXIT_STUCK, LAST_WORDS};

use crate::access::event::Event;
use crate::config::{ClockSource, Config};
use crate::hardware::camera::Kind;
use crate::hardware::camera::live::LiveCamera;
use crate::hardware::relay::Relay;
use crate::models::Models;
use crate::models::likelihood::NOT_MEASURED;
use crate::nn::Precision;
use crate::storage::audit::{AuditPlace, Bounds};
use crate::storage::gallery::{Loaded, Purpose, StoreError, reachable};
use crate::storage::keys;
use crate::storage::last_relay::{LastRelay, LastRelayFile};
use crate::storage::models::{ModelStore, Standing};
use crate::vision::motion_gate::{MotionGate, MotionGateSettings};
use anyhow::{Context, Result};
use audit::{AuditSettings, AuditThread};
use audit_entries::Entries;
use door_state::DoorStateKeeper;
use exit::{CLOSES_WITHIN, end_stuck};
use files::{EMPTY, FileWorker, Files, ReadConfig, load_gallery, open_store};
use last_relay::release_after_failure;
use models::Networks;
use peripherals::{LinkOf, Startup};
use pipeline::Pipeline;
use reload::Reload;
use run::{BetweenFrames, RunOptions, Summary, run};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use site::{ModelPlace, SiteRules};
use status::{GalleryFileNow, ModelsNow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Reads the models as the command line asked for them, with who answers for them; `None` for
/// a folder that was named.
pub type ReadModels = Box<dyn FnOnce(&Config) -> Result<(Models, Option<Standing>)>>;

/// What a door is run with.
pub struct DoorOptions {
    /// The configuration.
    pub config: Config,
    /// Reads it again, for a reload.
    pub read_config: ReadConfig,
    /// Reads the models. Called after the door is locked.
    pub read_models: ReadModels,
    /// The store whose current set may change; `None` if the models are from another
    /// folder.
    pub store: Option<ModelStore>,
    /// Arithmetic of the networks.
    pub precision: Precision,
    /// Camera URI.
    pub camera: String,
    /// Relay URI.
    pub relay: String,
    /// Where the relay is kept for the next start.
    pub last_relay: LastRelayFile,
    /// Number of frames after which the service ends.
    pub max_frames: usize,
    /// Name of the door in the audit log; `None` if it is the only one of the board.
    pub door: Option<String>,
}

/// How a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// At the end of its input or on request, with the relay released.
    Regularly {
        /// Counters of the run.
        summary: Summary,
        /// Whether the frames were a recording.
        recorded: bool,
    },
    /// Because a thread was stuck; see [`EXIT_STUCK`].
    Stuck,
}

/// Runs the service of one door until it ends. `report` gets every event with its time.
///
/// The order of the start: lock the door, then read models and people, then open the other
/// devices, and the camera last. At the end the door is locked before anything else.
///
/// # Errors
/// If a URI is wrong, a device cannot be opened, models or gallery cannot be read, or the run
/// fails.
pub fn serve(options: DoorOptions, mut report: impl FnMut(Duration, &Event)) -> Result<Ended> {
    let DoorOptions { config, read_config, read_models, store, precision, camera, .. } = options;
    let opened = Relay::open(&options.relay).map_err(anyhow::Error::from);
    let opened = opened.and_then(|relay| Ok((relay, Kind::of(&camera)?)));
    // A door that was killed while open must not stay so because of a wrong URI.
    let (relay, frames) = opened.inspect_err(|_| release_after_failure(&options.last_relay))?;
    let relay_name = relay.to_string();
    // First: a request to reload while models are read must not end the service.
    let reload = Arc::<Reload>::default();
    signal_hook::flag::register(SIGHUP, Arc::clone(&reload.wanted))
        .context("cannot listen to signals")?;
    let kept = LastRelay { uri: options.relay, lock: config.door.lock };
    let startup = Startup::begin(&config, relay, frames, (&options.last_relay, kept))?;

    let store = store.map(|store| store.pointer().map(|now| (store, now.current))).transpose()?;
    let file = config.gallery_file();
    reachable(&file)?;
    if let Some((store, _)) = &store
        && let Err(error) = store.adopt()
    {
        log::warn!("{error}; until then a changed folder of models is not noticed");
    }
    let (models, standing) = read_models(&config)?;
    let models_now = ModelsNow::of(&models, standing.as_ref());
    if let Some(warning) = &models_now.warning {
        log::warn!("{warning}");
    }
    let mut networks = Networks::load(&config, &models)?;
    if networks.calibration.likelihood.is_none() {
        log::warn!("{NOT_MEASURED}");
    }
    let (loaded, gallery_file, keys) = match open_store(&file, Purpose::Serve) {
        Ok(mut store) => {
            // What can only be read keeps its templates, and new ones stay in memory.
            let keep = store.read_only().is_none();
            let loaded = load_gallery(&mut store, &models, &mut networks.recognizer, keep)?;
            let keys = store.door_keys().cloned();
            (loaded, GalleryFileNow::of(&store, &file), keys)
        }
        // Without its key no face counts, but the exit, orders and the lock need no face. The
        // thread `gallery` loads the people as soon as the key is back.
        Err(error @ StoreError::Sealed { .. }) => {
            log::error!("{error}; until then no face opens the door");
            (Loaded::nobody(&models)?, GalleryFileNow::failed(&error, &file), None)
        }
        Err(error) => return Err(error.into()),
    };
    for remark in &gallery_file.remarks {
        log::warn!("{remark}");
    }
    let gallery = loaded.gallery;
    if gallery.people() == 0 && !gallery_file.is_fault() {
        log::warn!("{}: {EMPTY}", file.display());
    }
    if let Err(unknown) = wall_clock::zone()
        && let Some(remark) = config.zone_advice(&unknown)
    {
        log::error!("{remark}");
    }
    let audit = AuditThread::start(AuditSettings {
        place: AuditPlace::of(&file),
        bounds: Bounds { keep_for: config.audit.keep_for, largest: config.audit.largest },
        signer: keys.as_ref().map(|keys| keys.signer().clone()),
        recorded: frames == Kind::Recorded,
        clock_vouched_for: config.schedule.clock == ClockSource::Trusted,
        sealer: keys.as_ref().map(|keys| keys.sealer(keys::Purpose::AuditPictures)),
        pictures_keep_for: config.audit.pictures_keep_for,
    })
    .context("cannot start the thread that writes the audit log")?;
    let door = options.door.clone();
    let model = models.recognizer_id()?.to_string();
    let rules = Arc::new(SiteRules::new(Arc::clone(&reload)));
    let place = store.as_ref().map(|(store, _)| ModelPlace {
        store: store.clone(),
        read_config: Arc::clone(&read_config),
        precision,
    });
    let files = FileWorker::start(Files {
        read_config,
        config: config.clone(),
        content: loaded.content,
        gallery: gallery_file,
        store,
        models,
        standing,
        precision,
        reload: Arc::clone(&reload),
        rules: Arc::clone(&rules),
    })?;

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Repeated signals change nothing: the relay is released first.
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .context("cannot listen to signals")?;
    }
    log::info!(
        "{} people, {} templates; relay {relay_name}",
        gallery.people(),
        gallery.templates()
    );
    let started = Instant::now();
    let stuck = Arc::new(AtomicBool::new(false));
    let on_stuck = {
        let (stuck, stop) = (Arc::clone(&stuck), Arc::clone(&stop));
        move |reason: &str| {
            stuck.store(true, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
            end_stuck(reason, CLOSES_WITHIN);
        }
    };
    let (mut peripherals, relay) = startup.open(&config, started, reload, on_stuck)?;
    let (mut pipeline, mut events) =
        Pipeline::new(networks.with(gallery), &config, relay, Duration::ZERO);
    let link = LinkOf { door: door.as_deref(), keys: keys.as_deref(), audit: &audit };
    peripherals.open_site(&config, (&models_now.version, place), &link, rules);
    peripherals.open_link(&config, link);
    let site = peripherals.site();
    let mut report = |at: Duration, event: &Event| {
        if let (Some(site), Event::Passed { person, role, .. }) = (&site, event) {
            site.passed(*person, *role);
        }
        report(at, event);
    };
    let entries = Entries::new(audit.auditor(), &config, door, &model);
    for entry in audit_entries::configured(&AuditPlace::of(&file), &config) {
        entries.append(entry);
    }
    pipeline.set_entries(entries);
    pipeline.set_models_now(models_now);
    events.extend(peripherals.restore(&mut pipeline));
    // A recording has times of its own, which say nothing about the door.
    let live = frames != Kind::Recorded;
    let mut state =
        live.then(|| DoorStateKeeper::resume(&file, &mut pipeline, Duration::ZERO)).transpose()?;
    for event in &events {
        pipeline.entries().reported(Duration::ZERO, event);
        report(Duration::ZERO, event);
    }
    pipeline.entries().all_reported();
    // After the relay, so that a door left open is locked whatever the camera does.
    let camera = LiveCamera::start_within(&camera, config.camera.limit(), started)?;
    let gate = config.service.power_saving.then(|| {
        let idle_look_every = config.service.idle_look_every;
        MotionGate::new(MotionGateSettings { idle_look_every, ..Default::default() })
    });
    let between = |pipeline: &mut Pipeline, between: &BetweenFrames<'_>| {
        pipeline.auditor().set_clock_trusted(pipeline.clock_trusted(between.now));
        let mut events = peripherals.visit(pipeline, between);
        if !between.in_frame {
            events.extend(files.visit(pipeline, between.now));
        }
        if let Some(state) = &mut state {
            state.visit(pipeline, between.now);
        }
        events
    };
    let distinct = config.recognition.distinct_views;
    let options =
        RunOptions { started, max_frames: options.max_frames, stop: &stop, distinct, gate };
    let summary = run(&mut pipeline, camera, options, &mut report, between);
    peripherals.stopping();
    if let Some(state) = state {
        state.end(&pipeline, started.elapsed());
    }
    drop(audit);
    if stuck.load(Ordering::Relaxed) {
        if let Err(error) = &summary {
            log::error!("{error}");
        }
        return Ok(Ended::Stuck);
    }
    let summary = summary?;
    log::info!(
        "{} frames, {} unreadable, {} grants",
        summary.frames,
        summary.bad_frames,
        summary.granted
    );
    Ok(Ended::Regularly { summary, recorded: frames == Kind::Recorded })
}
