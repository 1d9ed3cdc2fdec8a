//! Checks of camera, GPIO lines and relay, for when no running service holds them.

use super::Findings;
use anyhow::Result;
use facelatch::config::Config;
use facelatch::hardware::camera::live::{LiveCamera, Taken};
use facelatch::hardware::camera::redacted;
use facelatch::hardware::gpio::{Line, LineError};
use facelatch::hardware::relay::Relay;
use facelatch::vision::quality::Aspect;
use facelatch::vision::recognizer::Recognizer;
use std::io::Write;
use std::time::{Duration, Instant};

/// Time limit for the first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// Duration over which the frame rate is measured.
const COUNTED: Duration = Duration::from_secs(2);
/// Frame rate, per second, below which people wait too long: a decision needs three frames.
const SLOW_CAMERA: f64 = 5.0;

/// Checks that frames arrive, at which rate, and whether they show a usable face.
pub(super) fn camera(
    config: &Config,
    recognizer: Option<Recognizer>,
    findings: &mut Findings<impl Write>,
) -> Result<()> {
    let Some(uri) = &config.camera.uri else {
        return findings.wrong(
            "camera",
            "not configured; see facelatch camera list, and set uri under [camera]",
        );
    };
    let name = redacted(uri);
    let camera = match LiveCamera::start_within(uri, config.camera.limit(), Instant::now()) {
        Ok(camera) => camera,
        Err(error) => return findings.wrong("camera", error),
    };
    let first = match camera.next(FIRST_FRAME) {
        Taken::Frame(captured) => captured,
        Taken::Away { reason, .. } | Taken::Ended(Some(reason)) => {
            return findings.wrong("camera", reason);
        }
        Taken::Ended(None) => return findings.wrong("camera", format!("{name}: gave no frame")),
        Taken::Nothing | Taken::Same => {
            let waited = FIRST_FRAME.as_secs();
            return findings.wrong("camera", format!("{name}: no frame within {waited} seconds"));
        }
    };
    let began = Instant::now();
    let (mut frames, mut last) = (0u32, first);
    while began.elapsed() < COUNTED {
        match camera.next(COUNTED.saturating_sub(began.elapsed())) {
            Taken::Frame(captured) => (frames, last) = (frames + 1, captured),
            Taken::Nothing | Taken::Same => {}
            Taken::Away { reason, .. } => return findings.wrong("camera", reason),
            Taken::Ended(_) => break,
        }
    }
    let rate = f64::from(frames) / began.elapsed().as_secs_f64();
    let frame = &last.frame;
    let mut text =
        format!("{name}: {}x{}, {rate:.1} frames per second", frame.width(), frame.height());
    if rate < SLOW_CAMERA {
        text += "; this is slow: lower the resolution, add light, or choose another format";
        return findings.odd("camera", &text);
    }
    let Some(mut recognizer) = recognizer else { return findings.good("camera", &text) };
    let views = recognizer.faces(frame)?;
    match &views[..] {
        [] => text += ", nobody in view",
        [view] => match view.quality.weakest() {
            (aspect, score) if view.template.is_none() => {
                text += &format!(", a face, but {} ({:.0} %)", aspect.advice(), 100.0 * score);
                if aspect == Aspect::Brightness {
                    return findings.odd("camera", &text);
                }
            }
            _ => text += ", a face good enough to compare",
        },
        views => text += &format!(", {} faces", views.len()),
    }
    findings.good("camera", &text)
}

/// Checks that each configured GPIO line exists and is free.
pub(super) fn lines(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    for (key, _, uri) in config.lines() {
        let (_, name) = key.split_once('.').unwrap_or(("", key));
        let name = name.replace('_', " ");
        match free(uri) {
            Ok(()) => findings.good(&name, uri)?,
            Err(error) => findings.wrong(&name, error)?,
        }
    }
    Ok(())
}

/// Checks that a GPIO line exists and no process holds it.
fn free(uri: &str) -> Result<(), String> {
    probe(&uri.parse().map_err(|error: LineError| error.to_string())?)
}

#[cfg(feature = "gpio")]
fn probe(line: &Line) -> Result<(), String> {
    facelatch::hardware::gpio::probe(line).map_err(|error| error.to_string())
}

#[cfg(not(feature = "gpio"))]
fn probe(line: &Line) -> Result<(), String> {
    Err(format!("{line}: this facelatch was built without GPIO; build it with --features gpio"))
}

/// Checks that the relay is present, without switching it.
pub(super) fn relay(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    let uri = &config.relay.uri;
    if uri == "log:" {
        return findings
            .odd("relay", "log: switches no relay, it only logs; set uri under [relay]");
    }
    if uri.starts_with("gpio:") {
        // Requesting the line as an output would switch the relay, so only probe it.
        return match free(uri) {
            Ok(()) => findings.good("relay", uri),
            Err(error) => findings.wrong("relay", error),
        };
    }
    // A Modbus board is asked for its coil. An LCUS-1 cannot answer, so only its port is
    // checked.
    let looked = Relay::open(uri).and_then(|mut relay| {
        relay.connect(false)?;
        relay.check(false)
    });
    match looked.map(drop) {
        Ok(()) => findings.good("relay", uri),
        Err(error) => findings.wrong("relay", error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[cfg(feature = "serial")]
    #[test]
    fn a_modbus_board_that_does_not_answer_is_wrong_and_is_only_read() {
        let (mut board, other_end) = serialport::TTYPort::pair().expect("a pair of terminals");
        let port = serialport::SerialPort::name(&other_end).expect("a path");
        let mut config = Config::default();
        config.relay.uri = format!("serial:{port}?protocol=modbus");
        let text = said(|findings| relay(&config, findings).expect("findings"));
        assert!(text.contains("\"wrong\""), "{text}");
        let mut asked = [0; 8];
        std::io::Read::read_exact(&mut board, &mut asked).expect("a question");
        assert_eq!(asked[1], 1, "it reads coils");
    }
}
