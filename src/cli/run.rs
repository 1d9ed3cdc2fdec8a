//! `run`: the service.

use super::common_args::{CAMERA, CommonArgs, OF_CONFIGURATION, RELAY, camera_uri};
use super::stdout::StdoutWriter;
use anyhow::Result;
use clap::Args;
use facelatch::access::event::{Event, plain_json};
use facelatch::config::Config;
use facelatch::service::last_relay::release_after_failure;
use facelatch::service::{DoorOptions, EXIT_STUCK, Ended, LAST_WORDS, serve};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Watch the camera and open the door for the people enrolled
///
/// Ends on SIGINT or SIGTERM, after --max-frames, or with the last of recorded frames
/// (images:), and releases the relay first. A live camera that ends is opened again. People
/// who are enrolled, renamed or removed meanwhile count within a second, and so does another
/// installed set of models. SIGHUP reloads the configuration.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    common: CommonArgs,
    #[arg(long, value_name = "URI", help = format!("{CAMERA}{OF_CONFIGURATION}"))]
    camera: Option<String>,
    #[arg(long, value_name = "URI", help = format!("{RELAY}{OF_CONFIGURATION}"))]
    relay: Option<String>,
    /// End after this number of frames
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    max_frames: usize,
    /// Print JSON Lines, one object per event, to standard output
    #[arg(long)]
    json: bool,
}

impl Run {
    pub fn run(self) -> Result<ExitCode> {
        let Self { common, camera, relay, max_frames, json } = self;
        let last_relay = common.last_relay();
        let read = || -> Result<(Config, String)> {
            let config = common.config()?;
            let camera = camera_uri(camera, &config)?;
            Ok((config, camera))
        };
        // A door that was killed while open is locked before its configuration is mended.
        let (config, camera) = read().inspect_err(|_| release_after_failure(&last_relay))?;
        let relay = relay.unwrap_or_else(|| config.relay.uri.clone());
        let door = common.door();
        let (store, precision) = (common.model_store(&config), common.precision());
        let again = common.clone();
        let options = DoorOptions {
            config,
            read_config: Arc::new(move || again.config()),
            read_models: Box::new(move |config| common.models_judged(config)),
            store,
            precision,
            camera,
            relay,
            last_relay,
            max_frames,
            door,
        };
        let mut out = json.then(|| StdoutWriter::new(std::io::stdout())).transpose()?;
        let ended = serve(options, |at, event| report(at, event, out.as_mut()));
        if let Some(out) = &out {
            out.finish(LAST_WORDS);
        }
        Ok(match ended? {
            Ended::Stuck => ExitCode::from(EXIT_STUCK),
            // A camera that was watched for months may have had a bad frame.
            Ended::Regularly { summary, recorded } if recorded && summary.bad_frames > 0 => {
                ExitCode::FAILURE
            }
            Ended::Regularly { .. } => ExitCode::SUCCESS,
        })
    }
}

/// Logs an event, and prints it for the reader of standard output.
fn report(at: Duration, event: &Event, out: Option<&mut StdoutWriter>) {
    log::log!(event.severity(), "{event}");
    if let Some(out) = out {
        // This writer neither fails nor waits.
        let json = event.to_json(at).to_string();
        let _ = out.write_all(format!("{}\n", plain_json(&json)).as_bytes());
    }
}
