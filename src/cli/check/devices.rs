//! Camera, GPIO lines and relay, where no service holds them.

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

/// A camera may take so long until its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// Frames are counted for so long.
const COUNTED: Duration = Duration::from_secs(2);
/// Frames a second below which somebody waits too long for three of them.
const SLOW_CAMERA: f64 = 5.0;

/// Whether frames come, how often, and what is on them.
pub(super) fn camera(
    config: &Config,
    recognizer: Option<Recognizer>,
    findings: &mut Findings<impl Write>,
) -> Result<()> {
    let Some(uri) = &config.camera.uri else {
        return findings.wrong(
            "camera",
            "none is named; see facelatch camera list, and set uri under [camera]",
        );
    };
    let name = redacted(uri);
    let camera = match LiveCamera::start(uri, Instant::now()) {
        Ok(camera) => camera,
        Err(error) => return findings.wrong("camera", error),
    };
    let first = match camera.next(FIRST_FRAME) {
        Taken::Frame(captured) => captured,
        Taken::Away { reason, .. } | Taken::Ended(Some(reason)) => {
            return findings.wrong("camera", reason);
        }
        Taken::Ended(None) => return findings.wrong("camera", format!("{name}: has no frames")),
        Taken::Nothing | Taken::Same => {
            let waited = FIRST_FRAME.as_secs();
            return findings.wrong("camera", format!("{name}: no frame within {waited} s"));
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
        format!("{name}: {}x{}, {rate:.1} frames a second", frame.width(), frame.height());
    if rate < SLOW_CAMERA {
        text += "; that is slow: less resolution, more light, or another format";
        return findings.odd("camera", &text);
    }
    let Some(mut recognizer) = recognizer else { return findings.good("camera", &text) };
    let views = recognizer.look(frame, |_| true)?;
    match &views[..] {
        [] => text += ", nobody in view",
        [view] => match view.quality.weakest() {
            (aspect, score) if view.template.is_none() => {
                text += &format!(", a face, but {} ({:.0} %)", aspect.advice(), 100.0 * score);
                if aspect == Aspect::Brightness {
                    return findings.odd("camera", &text);
                }
            }
            _ => text += ", a face that can be compared",
        },
        views => text += &format!(", {} faces", views.len()),
    }
    findings.good("camera", &text)
}

/// Whether each GPIO line is there and free.
pub(super) fn lines(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    for (key, uri) in config.lines() {
        let (_, name) = key.split_once('.').unwrap_or(("", key));
        let name = name.replace('_', " ");
        match free(uri) {
            Ok(()) => findings.good(&name, uri)?,
            Err(error) => findings.wrong(&name, error)?,
        }
    }
    Ok(())
}

/// Whether a GPIO line is there and nobody has it, or why not.
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

/// Whether the relay is there. It is not switched.
pub(super) fn relay(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    let uri = &config.relay.uri;
    if uri == "log:" {
        return findings.odd("relay", "log: only says what it would do; set uri under [relay]");
    }
    if uri.starts_with("gpio:") {
        // Taking it would move it.
        return match free(uri) {
            Ok(()) => findings.good("relay", uri),
            Err(error) => findings.wrong("relay", error),
        };
    }
    // A Modbus board reads its coil; an LCUS-1 cannot answer, and only its port is there.
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
        let text = said(|findings| relay(&config, findings).expect("told"));
        assert!(text.contains("\"wrong\""), "{text}");
        let mut asked = [0; 8];
        std::io::Read::read_exact(&mut board, &mut asked).expect("a question");
        assert_eq!(asked[1], 1, "it reads coils");
    }
}
