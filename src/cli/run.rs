//! `run`: the service.

use super::LAST_WORDS;
use super::common_args::{
    CAMERA, CommonArgs, OF_CONFIGURATION, RELAY, camera_uri, load_gallery, open_store,
};
use super::stdout::StdoutWriter;
use super::watch::{Watched, detector};
use anyhow::{Context, Result};
use clap::Args;
use facelatch::access::event::Event;
use facelatch::hardware::camera::Kind;
use facelatch::hardware::camera::live::LiveCamera;
use facelatch::hardware::relay::Relay;
use facelatch::models::likelihood::NOT_MEASURED;
use facelatch::service::neighbours::Neighbours;
use facelatch::service::peripherals::{EXIT_STUCK, Reload, Secured};
use facelatch::service::pipeline::{Doorkeeper, ModelSet};
use facelatch::service::run::{Moment, Plan, run};
use facelatch::vision::motion_gate::{MotionGate, MotionGateSettings};
use facelatch::vision::recognizer::Recognizer;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// How long the door may take to be locked where a thread is stuck.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// Watch the camera and open the door for the people enrolled
///
/// Ends on SIGINT or SIGTERM, after --max-frames, or with the last of recorded
/// frames (images:), with the relay off first; a live camera that ends is opened
/// again. People enrolled, renamed or removed meanwhile count
/// within a second, and so does another set of models that was installed.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    site: CommonArgs,
    #[arg(long, value_name = "URI", help = format!("{CAMERA}{OF_CONFIGURATION}"))]
    camera: Option<String>,
    #[arg(long, value_name = "URI", help = format!("{RELAY}{OF_CONFIGURATION}"))]
    relay: Option<String>,
    /// End after so many frames
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    max_frames: usize,
    /// Print JSON Lines, one object an event, to standard output
    #[arg(long)]
    json: bool,
}

impl Run {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.site.config()?;
        let uri = camera_uri(self.camera, &config)?;
        let relay = Relay::open(self.relay.as_ref().unwrap_or(&config.relay.uri))?;
        let (shown, frames) = (relay.to_string(), Kind::of(&uri)?);
        // Whoever asks for a reload while models are read is not to end the service.
        let reload = Arc::<Reload>::default();
        signal_hook::flag::register(SIGHUP, Arc::clone(&reload.wanted))
            .context("cannot listen to signals")?;
        // Before all that takes time.
        let secured = Secured::begin(&config, relay, frames)?;
        let store = self.site.model_store(&config);
        let store =
            store.map(|store| store.pointer().map(|now| (store, now.current))).transpose()?;
        let models = self.site.models(&config)?;
        let mut recognizer = Recognizer::new(&models, detector(&config))?;
        let calibration = models.calibration()?;
        if calibration.likelihood.is_none() {
            log::warn!("{NOT_MEASURED}");
        }
        let liveness = config.liveness.nets(&models)?;
        let file = config.gallery_file();
        let (gallery, known) = {
            let mut store = open_store(&file)?;
            let gallery = load_gallery(&mut store, &models, &mut recognizer, true)?;
            (gallery, store.revision()?)
        };
        if gallery.people() == 0 {
            log::warn!("{}: nobody is enrolled yet; see facelatch enroll --help", file.display());
        }
        let (site, version) = (self.site, models.manifest.version.clone());
        let wanted = Arc::clone(&reload);
        let watched =
            Watched { site, config: config.clone(), known, store, models, reload: wanted };
        let desk = watched.watch()?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // However often it comes: the relay goes off first.
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .context("cannot listen to signals")?;
        }
        log::info!("{} people, {} templates; relay {shown}", gallery.people(), gallery.templates());
        let mut out = self.json.then(|| StdoutWriter::new(std::io::stdout())).transpose()?;
        let neighbours = Neighbours::start(&config.door.neighbours)
            .context("no thread to tell other doors who passes")?;
        let mut told = |at: Duration, event: &Event| {
            if let Event::Passed { name, role } = event {
                neighbours.tell(name, *role);
            }
            report(at, event, out.as_mut());
        };
        let models = ModelSet { recognizer, liveness, calibration, gallery };
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
        let (mut around, hand) = secured.open(&config, started, &version, reload, on_stuck)?;
        let (mut keeper, mut events) = Doorkeeper::new(models, &config, hand, Duration::ZERO);
        events.extend(around.restore(&mut keeper));
        for event in &events {
            told(Duration::ZERO, event);
        }
        // After the relay, so that a door left open is locked whatever the camera does.
        let camera = LiveCamera::start(&uri, started)?;
        let gate = config.service.power_saving.then(|| {
            let idle_look_every = config.service.idle_look_every;
            MotionGate::new(MotionGateSettings { idle_look_every, ..Default::default() })
        });
        let between = |keeper: &mut Doorkeeper, moment: &Moment<'_>| {
            let mut events = around.visit(keeper, moment);
            if !moment.in_frame {
                events.extend(desk.visit(keeper, moment.now));
            }
            events
        };
        let distinct = config.recognition.distinct_views;
        let plan = Plan { started, max_frames: self.max_frames, stop: &stop, distinct, gate };
        let summary = run(&mut keeper, camera, plan, told, between);
        around.stopping();
        // Lets go of the relay, which is off.
        drop((keeper, around));
        if let Some(out) = &out {
            out.finish(LAST_WORDS);
        }
        if stuck.load(Ordering::Relaxed) {
            if let Err(error) = &summary {
                log::error!("{error}");
            }
            return Ok(ExitCode::from(EXIT_STUCK));
        }
        let summary = summary?;
        log::info!(
            "{} frames, {} not readable, {} times granted",
            summary.frames,
            summary.bad_frames,
            summary.granted
        );
        // A camera that has been watched for months may have had a bad frame.
        let failed = frames == Kind::Recorded && summary.bad_frames > 0;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Ends the process whose thread is stuck, with the reason as its last line, once the main
/// thread has locked the door and ended it, or has not in time, being the one that is
/// stuck: the relay's own thread has locked then. The log's thread would not get to write
/// the reason; who does not read the log is not waited for.
fn end_stuck(reason: &str, closes_within: Duration) {
    let line = last_line(reason);
    let (done, written) = sync_channel(1);
    let writing = move || {
        let _ = std::io::stderr().write_all(line.as_bytes());
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(writing).is_ok() {
        let _ = written.recv_timeout(LAST_WORDS);
    }
    std::thread::sleep(closes_within);
    std::process::exit(EXIT_STUCK.into());
}

fn last_line(reason: &str) -> String {
    format!("[ERROR] {reason}; ending, to be started anew\n")
}

/// Logs an event, and prints it for the reader of standard output.
fn report(at: Duration, event: &Event, out: Option<&mut StdoutWriter>) {
    log::log!(event.severity(), "{event}");
    if let Some(out) = out {
        // This writer neither fails nor waits.
        let _ = out.write_all(format!("{}\n", event.to_json(at)).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Set for the process that is to end.
    const ENDS: &str = "FACELATCH_TEST_ENDS";

    #[test]
    fn a_process_that_is_stuck_says_why_once_and_ends_with_its_own_code() {
        if std::env::var_os(ENDS).is_some() {
            end_stuck("camera: stuck", Duration::ZERO);
        }
        let program = std::env::current_exe().expect("this program");
        let name =
            "cli::run::tests::a_process_that_is_stuck_says_why_once_and_ends_with_its_own_code";
        let ended = Command::new(program)
            .args([name, "--exact", "--nocapture"])
            .env(ENDS, "1")
            .output()
            .expect("it runs");
        assert_eq!(ended.status.code(), Some(EXIT_STUCK.into()));
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(said.matches(last_line("camera: stuck").trim()).count(), 1, "{said}");
    }
}
