//! `check`: what is wrong with this board, and what to do about it.

use super::site::{Site, is_begun, service_socket};
use super::watch::detector;
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use clap::Args;
use facelatch::camera::live::{LiveCamera, Taken};
use facelatch::clock;
use facelatch::config::{ClockSource, Config};
use facelatch::control::{AskError, Reply, Request, ask};
use facelatch::gallery::store::Store;
use facelatch::gpio::{Line, probe};
use facelatch::picture;
use facelatch::quality::Aspect;
use facelatch::recognize::Recognizer;
use facelatch::relay::Relay;
use facelatch::snapshot::{CameraNow, Snapshot};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A camera may take so long until its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// Frames are counted for so long.
const COUNTED: Duration = Duration::from_secs(2);
/// Frames a second below which somebody waits too long for three of them.
const SLOW_CAMERA: f64 = 5.0;
/// Time for a frame with one face above which somebody waits too long.
const SLOW_BOARD: Duration = Duration::from_millis(200);
/// Another facelatch may be at the gallery for so long.
const GALLERY_WITHIN: Duration = Duration::from_secs(2);
/// Degrees Celsius from which on a Raspberry Pi slows down.
const HOT: f64 = 80.0;
/// A service that has said nothing of itself for so many seconds hangs: it does twice a
/// second.
const HANGS: f64 = 5.0;
/// Share of the frames from which on so many unreadable ones are a cable or its supply.
const MANY_BAD: f64 = 0.01;
/// Share of the frames from which on so many passed over are a board that is too slow.
const MANY_DROPPED: f64 = 0.5;
/// A face to try the networks on.
const PORTRAIT: &[u8] = include_bytes!("../../assets/astronaut.jpg");

/// Find what is wrong with this board, and say what to do about it
///
/// Looks at configuration, models, gallery, camera, GPIO lines, relay, clock and the board
/// itself; a service that runs is asked for what it holds. The relay is not switched. Exit
/// code 1 if something is wrong.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    site: Site,
    /// Print JSON Lines, one object a finding
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Good,
    /// It works, but.
    Odd,
    /// It does not work.
    Wrong,
}

#[derive(Serialize)]
struct Finding<'a> {
    thing: &'a str,
    state: State,
    text: &'a str,
}

/// What was found, told as it is found: some of it takes seconds.
struct Findings<W> {
    out: W,
    json: bool,
    wrong: usize,
    odd: usize,
}

impl<W: Write> Findings<W> {
    fn tell(&mut self, thing: &str, state: State, text: &str) -> Result<()> {
        match state {
            State::Good => {}
            State::Odd => self.odd += 1,
            State::Wrong => self.wrong += 1,
        }
        if self.json {
            serde_json::to_writer(&mut self.out, &Finding { thing, state, text })?;
            writeln!(self.out)?;
            return Ok(());
        }
        let (word, colour) = match state {
            State::Good => ("good", AnsiColor::Green),
            State::Odd => ("odd", AnsiColor::Yellow),
            State::Wrong => ("wrong", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into())).bold();
        writeln!(self.out, "{style}{word:<6}{style:#} {thing:<14} {text}")?;
        Ok(())
    }

    fn good(&mut self, thing: &str, text: &str) -> Result<()> {
        self.tell(thing, State::Good, text)
    }

    fn odd(&mut self, thing: &str, text: &str) -> Result<()> {
        self.tell(thing, State::Odd, text)
    }

    fn wrong(&mut self, thing: &str, error: impl std::fmt::Display) -> Result<()> {
        self.tell(thing, State::Wrong, &error.to_string())
    }
}

impl Check {
    pub fn run(self) -> Result<ExitCode> {
        let out = anstream::stdout().lock();
        let mut findings = Findings { out, json: self.json, wrong: 0, odd: 0 };
        let config = match self.site.config() {
            Ok(config) => {
                findings.good("configuration", &self.site.config_name())?;
                Some(config)
            }
            Err(error) => {
                findings.wrong("configuration", format!("{error:#}"))?;
                None
            }
        };
        // What does not depend on it is told all the same.
        let config = config.unwrap_or_default();
        advice(&config, &mut findings)?;
        let socket = service_socket(None, &config);
        let runs = service(&ask(&socket, &Request::Status), &mut findings)?;
        let recognizer = self.models(&config, &mut findings)?;
        gallery(&config, &mut findings)?;
        if !runs {
            camera(&config, recognizer, &mut findings)?;
            lines(&config, &mut findings)?;
            relay(&config, &mut findings)?;
        }
        wiring(&config, &mut findings)?;
        wall_clock(&config, &mut findings)?;
        board(&mut findings)?;
        let Findings { mut out, json, wrong, odd } = findings;
        if !json {
            writeln!(out, "{wrong} wrong, {odd} odd")?;
        }
        Ok(if wrong > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Whether the networks load and are quick enough.
    fn models(
        &self,
        config: &Config,
        findings: &mut Findings<impl Write>,
    ) -> Result<Option<Recognizer>> {
        let ready = || -> Result<(Recognizer, String, Duration)> {
            let models = self.site.models(config)?;
            models.thresholds()?;
            let mut recognizer = Recognizer::new(&models, detector(config))?;
            let portrait = picture::decode(Path::new("the built-in portrait"), PORTRAIT)?;
            let mut took = Duration::MAX;
            // The first one also asks for memory.
            for _ in 0..3 {
                let began = Instant::now();
                recognizer.look(&portrait, |_| true)?;
                took = took.min(began.elapsed());
            }
            Ok((recognizer, models.manifest.version, took))
        };
        match ready() {
            Err(error) => {
                findings.wrong("models", format!("{error:#}"))?;
                Ok(None)
            }
            Ok((recognizer, version, took)) => {
                let text = format!("{version}, {:.1} ms for a portrait", took.as_secs_f64() * 1e3);
                if took > SLOW_BOARD {
                    let cure = "this board lets people wait; see facelatch bench";
                    findings.odd("models", &format!("{text}: {cure}"))?;
                } else {
                    findings.good("models", &text)?;
                }
                Ok(Some(recognizer))
            }
        }
    }
}

/// What is probably not meant.
fn advice(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    for remark in config.advice() {
        findings.odd("advice", &remark.to_string())?;
    }
    let synchronized = clock::read(false).is_some_and(|reading| reading.synchronized);
    if let Some(remark) = config.clock_advice(synchronized) {
        findings.odd("advice", &remark.to_string())?;
    }
    Ok(())
}

/// Whether a service holds camera, lines and relay, and what it says of them.
fn service(asked: &Result<Reply, AskError>, findings: &mut Findings<impl Write>) -> Result<bool> {
    match asked {
        Err(AskError::Nobody { .. }) => Ok(false),
        Err(AskError::Denied { path }) => {
            findings.wrong(
                "service",
                format!(
                    "{}: this user may not ask it; run facelatch check as root or as the \
                     service's own user",
                    path.display()
                ),
            )?;
            Ok(true)
        }
        Err(error) => findings.wrong("service", error).map(|()| true),
        Ok(Reply { status: Some(snapshot), .. }) => judge(snapshot, findings).map(|()| true),
        Ok(Reply { error, .. }) => {
            let error = error.as_deref().unwrap_or("it says nothing of itself");
            findings.wrong("service", error).map(|()| true)
        }
    }
}

/// How a service is that runs.
fn judge(now: &Snapshot, findings: &mut Findings<impl Write>) -> Result<()> {
    let about = format!("version {}, process {}", now.version, now.pid);
    let watchdog = &now.watchdog;
    let late = || {
        let who = watchdog.who.as_deref().unwrap_or("a thread");
        format!("{about}: {who} has said nothing for {:.1} s", watchdog.silent_s)
    };
    if now.age_s > HANGS {
        let age = now.age_s;
        let cure = "it hangs; restart it, and see its log";
        findings.wrong("service", format!("{about}: nothing new for {age:.0} s: {cure}"))?;
    } else if watchdog.state == "stuck" {
        findings.wrong("service", format!("{}; restart it, and see its log", late()))?;
    } else if watchdog.state == "late" {
        findings.odd("service", &late())?;
    } else {
        findings.good("service", &format!("runs: {about}; it holds camera, lines and relay"))?;
    }
    camera_now(&now.camera, findings)?;
    let relay = &now.relay;
    match &relay.state[..] {
        "answering" => findings.good("relay", "answers the service"),
        "" | "opening" => findings.odd("relay", "the service opens it; look again in a moment"),
        fault => findings.wrong("relay", format!("{fault} (for {:.0} s)", relay.since_s)),
    }
}

/// How the camera of a service is.
fn camera_now(camera: &CameraNow, findings: &mut Findings<impl Write>) -> Result<()> {
    let CameraNow { state, since_s, frames, dropped, bad } = camera;
    match &state[..] {
        "running" => {}
        "" | "opening" => {
            return findings.odd("camera", "the service opens it; look again in a moment");
        }
        fault => return findings.wrong("camera", format!("{fault} (for {since_s:.0} s)")),
    }
    let text = format!("gives the service frames: {frames}, {dropped} passed over, {bad} bad");
    let all = (frames + dropped + bad) as f64;
    if *bad as f64 > MANY_BAD * all {
        findings.odd("camera", &format!("{text}; see to its cable and supply"))
    } else if *dropped as f64 > MANY_DROPPED * all {
        findings.odd("camera", &format!("{text}; this board is slow for so many"))
    } else {
        findings.good("camera", &text)
    }
}

/// Who is enrolled, and whether more can be.
fn gallery(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    let file = config.gallery_file();
    let name = file.display();
    if !is_begun(&file) {
        return findings.odd(
            "gallery",
            &format!("{name}: nobody is enrolled yet; see facelatch enroll --help"),
        );
    }
    let looked = Store::open_within(&file, GALLERY_WITHIN).and_then(|store| store.people());
    let people = match looked {
        Ok(people) => people,
        Err(error) => return findings.wrong("gallery", error),
    };
    let (count, administrators) =
        (people.len(), people.iter().filter(|person| person.traits.administrator).count());
    if count > 0 && administrators == 0 {
        return findings.odd(
            "gallery",
            &format!(
                "{name}: {count} people, none of whom may let others in with the button; see \
                 facelatch people admin --help"
            ),
        );
    }
    findings.good("gallery", &format!("{name}: {count} people, {administrators} administrators"))
}

/// Whether frames come, how often, and what is on them.
fn camera(
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
    let camera = match LiveCamera::start(uri, Instant::now()) {
        Ok(camera) => camera,
        Err(error) => return findings.wrong("camera", error),
    };
    let first = match camera.next(FIRST_FRAME) {
        Taken::Frame(captured) => captured,
        Taken::Away { reason, .. } | Taken::Ended(Some(reason)) => {
            return findings.wrong("camera", reason);
        }
        Taken::Ended(None) => return findings.wrong("camera", format!("{uri}: has no frames")),
        Taken::Nothing | Taken::Same => {
            let waited = FIRST_FRAME.as_secs();
            return findings.wrong("camera", format!("{uri}: no frame within {waited} s"));
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
        format!("{uri}: {}x{}, {rate:.1} frames a second", frame.width(), frame.height());
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
fn lines(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    for (key, uri) in config.lines() {
        let (_, name) = key.split_once('.').unwrap_or(("", key));
        let name = name.replace('_', " ");
        match uri.parse::<Line>() {
            Err(error) => findings.wrong(&name, error)?,
            Ok(line) => match probe(&line) {
                Ok(()) => findings.good(&name, uri)?,
                Err(error) => findings.wrong(&name, error)?,
            },
        }
    }
    Ok(())
}

/// Whether the relay is there. It is not switched.
fn relay(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    let uri = &config.relay.uri;
    if uri == "log:" {
        return findings.odd("relay", "log: only says what it would do; set uri under [relay]");
    }
    if let Some(place) = uri.strip_prefix("gpio:") {
        return match format!("gpio:{place}").parse::<Line>() {
            Err(error) => findings.wrong("relay", error),
            // Taking it would move it.
            Ok(line) => match probe(&line) {
                Ok(()) => findings.good("relay", uri),
                Err(error) => findings.wrong("relay", error),
            },
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

/// What a door misses that works all the same.
fn wiring(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    let gpio = &config.gpio;
    if gpio.door_contact.is_none() {
        findings.odd(
            "door contact",
            "none: nobody is told of a door that is held open or forced, and it stays unlocked \
             for its whole time",
        )?;
    }
    if gpio.button_outside.is_none() && gpio.button_inside.is_none() {
        findings.odd("buttons", "none: staff are enrolled with facelatch enroll only")?;
    }
    Ok(())
}

/// Whether schedules have a clock to go by.
fn wall_clock(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    let needed = config.schedule().needs_clock();
    let vouched = config.schedule.clock == ClockSource::Trusted;
    match clock::read(vouched) {
        Some(reading) if reading.synchronized => {
            findings.good("clock", &format!("{}, synchronized", reading.local))
        }
        Some(reading) if needed => findings.wrong(
            "clock",
            format!(
                "{}, not synchronized, and schedules need it; see timedatectl, or set clock = \
                 \"trusted\" under [schedule] if the board has a clock with a battery",
                reading.local
            ),
        ),
        Some(reading) => findings
            .good("clock", &format!("{}, not synchronized; no schedule needs it", reading.local)),
        None => findings.wrong("clock", "shows no time that can be true; see timedatectl"),
    }
}

/// Supply and temperature, where the board tells.
fn board(findings: &mut Findings<impl Write>) -> Result<()> {
    let text = |path: &Path| std::fs::read_to_string(path).ok();
    let monitors = std::fs::read_dir("/sys/class/hwmon").into_iter().flatten().flatten();
    for monitor in monitors {
        let folder = monitor.path();
        if text(&folder.join("name")).is_some_and(|name| name.trim() == "rpi_volt") {
            match text(&folder.join("in0_lcrit_alarm")).as_deref().map(str::trim) {
                Some("0") => findings.good("supply", "5 V")?,
                Some(_) => findings.wrong(
                    "supply",
                    "its voltage is too low: use the board's own supply, and feed the lock from \
                     another",
                )?,
                None => {}
            }
        }
    }
    let degrees = text(Path::new("/sys/class/thermal/thermal_zone0/temp"))
        .and_then(|text| text.trim().parse::<f64>().ok())
        .map(|thousandths| thousandths / 1000.0);
    match degrees {
        Some(degrees) if degrees >= HOT => findings
            .odd("temperature", &format!("{degrees:.0} °C: it slows down; give it a heat sink")),
        Some(degrees) => findings.good("temperature", &format!("{degrees:.0} °C")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch::snapshot::{RelayNow, WatchdogNow};
    use std::path::PathBuf;

    fn said(look: impl FnOnce(&mut Findings<&mut Vec<u8>>)) -> String {
        let mut text = Vec::new();
        look(&mut Findings { out: &mut text, json: true, wrong: 0, odd: 0 });
        String::from_utf8(text).expect("text")
    }

    fn well() -> Snapshot {
        let camera = CameraNow {
            state: "running".to_owned(),
            frames: 990,
            dropped: 10,
            ..CameraNow::default()
        };
        let relay = RelayNow { state: "answering".to_owned(), ..RelayNow::default() };
        let watchdog = WatchdogNow { state: "healthy".to_owned(), ..WatchdogNow::default() };
        Snapshot { camera, relay, watchdog, ..Snapshot::default() }
    }

    type Change = fn(&mut Snapshot);

    #[test]
    fn a_service_that_runs_is_judged_by_what_it_says() {
        let judged = |change: Change| {
            let mut snapshot = well();
            change(&mut snapshot);
            said(|findings| judge(&snapshot, findings).expect("told"))
        };
        let good = judged(|_| {});
        assert_eq!(good.matches("\"good\"").count(), 3, "{good}");
        let changes: [(Change, &str, &str); 7] = [
            (|now| now.age_s = 6.0, "wrong", "it hangs"),
            (|now| now.watchdog.state = "stuck".to_owned(), "wrong", "restart it"),
            (|now| now.watchdog.state = "late".to_owned(), "odd", "has said nothing"),
            (|now| now.camera.state = "no such device".to_owned(), "wrong", "no such device"),
            (|now| now.camera.bad = 50, "odd", "cable"),
            (|now| now.camera.dropped = 5000, "odd", "slow"),
            (|now| now.relay.state = "does not open".to_owned(), "wrong", "does not open"),
        ];
        for (change, state, text) in changes {
            let said = judged(change);
            let line = said.lines().find(|line| line.contains(text)).expect(text);
            assert!(line.contains(&format!("\"state\":\"{state}\"")), "{line}");
        }
    }

    #[test]
    fn a_socket_that_this_user_may_not_use_is_no_absent_service() {
        let path = PathBuf::from("/run/facelatch/control.sock");
        let denied = Err(AskError::Denied { path: path.clone() });
        let text = said(|findings| assert!(service(&denied, findings).expect("told")));
        assert!(text.contains("\"wrong\"") && text.contains("as root"), "{text}");
        let nobody = Err(AskError::Nobody { path });
        let text = said(|findings| assert!(!service(&nobody, findings).expect("told")));
        assert_eq!(text, "");
    }

    #[test]
    fn what_is_probably_not_meant_is_odd() {
        let mut config = Config::default();
        config.door.held_open_after = config.door.open_for;
        let text = said(|findings| advice(&config, findings).expect("told"));
        assert!(text.contains("\"odd\"") && text.contains("door.held_open_after"), "{text}");
    }

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
