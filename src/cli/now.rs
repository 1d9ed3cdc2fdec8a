//! Prints the status of the running service as text.

use facelatch::service::stage_times::Spread;
use facelatch::service::status::{ClockNow, Snapshot};
use std::io::{self, Write};

/// Age of the status, seconds, from which the service counts as hung. It refreshes its
/// status every second.
const STALE: f64 = 10.0;

/// Prints a status, the door first.
pub fn print(out: &mut impl Write, now: &Snapshot) -> io::Result<()> {
    let door = &now.door;
    writeln!(out, "door         {}, mode {}, leaf {}", door.state, door.mode, door.leaf)?;
    if let Some(alarm) = &door.alarm {
        writeln!(out, "  ALARM      {alarm}")?;
    }
    if now.age_s >= STALE {
        writeln!(out, "  STALE      the service last reported {} ago", time(now.age_s))?;
    }
    let camera = &now.camera;
    writeln!(
        out,
        "camera       {} for {}; {} frames, {} dropped, {} unreadable",
        camera.state,
        time(camera.since_s),
        camera.frames,
        camera.dropped,
        camera.bad
    )?;
    writeln!(out, "relay        {} for {}", now.relay.state, time(now.relay.since_s))?;
    let gallery = &now.gallery;
    writeln!(out, "people       {}, {} templates", gallery.people, gallery.templates)?;
    match now.clock {
        ClockNow::Unneeded => {}
        ClockNow::Trusted => writeln!(out, "clock        trusted")?,
        ClockNow::Unsure => {
            writeln!(out, "clock        not trusted; groups follow clock_unsure")?;
        }
    }
    let watchdog = &now.watchdog;
    match &watchdog.who {
        None => writeln!(out, "threads      {}", watchdog.state)?,
        Some(who) => {
            let silent = time(watchdog.silent_s);
            writeln!(out, "threads      {who} {}: silent for {silent}", watchdog.state)?;
        }
    }
    let motion = &now.motion;
    writeln!(
        out,
        "processed    {:.1} % of {} frames; the others showed no change",
        motion.share * 100.0,
        motion.frames
    )?;
    let stages = [
        ("detect", &now.timings.detect),
        ("embed", &now.timings.embed),
        ("liveness", &now.timings.liveness),
        ("match", &now.timings.matching),
        ("frame", &now.timings.frame),
    ];
    for (name, spread) in stages.iter().filter(|(_, spread)| spread.count > 0) {
        let Spread { last_ms, median_ms, p95_ms, .. } = spread;
        writeln!(
            out,
            "  {name:<10} {median_ms:.1} ms median, {p95_ms:.1} ms p95, {last_ms:.1} ms last"
        )?;
    }
    if !now.events.is_empty() {
        let events: Vec<String> =
            now.events.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(out, "events       {}", events.join(", "))?;
    }
    let process = &now.process;
    writeln!(
        out,
        "service      {}, process {}, up {}, models {}; {:.1} MB, {:.1} % of a core",
        now.version,
        now.pid,
        time(now.uptime_s),
        now.models,
        process.rss as f64 / 1e6,
        process.cpu_share * 100.0
    )
}

/// A duration in seconds as text, in its two largest units.
fn time(seconds: f64) -> String {
    // The cast saturates, and NaN becomes 0.
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, _) => format!("{minutes} min {} s", whole % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(now: &Snapshot) -> String {
        let mut text = vec![];
        print(&mut text, now).expect("memory takes all");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn times_are_told_by_their_two_largest_units() {
        let times = [(0.0, "0 s"), (59.9, "59 s"), (61.0, "1 min 1 s"), (7260.0, "2 h 1 min")];
        for (seconds, expected) in times.into_iter().chain([(180_000.0, "2 d 2 h")]) {
            assert_eq!(time(seconds), expected);
        }
        assert_eq!(time(f64::NAN), "0 s");
    }

    #[test]
    fn the_door_comes_first_and_alarms_stand_out() {
        let mut now = Snapshot::default();
        now.door.state = "open".to_owned();
        now.door.alarm = Some("held open too long".to_owned());
        now.watchdog.state = "late".to_owned();
        now.watchdog.who = Some("recognizer".to_owned());
        now.watchdog.silent_s = 9.0;
        now.age_s = 12.0;
        now.events.insert("granted".to_owned(), 2);
        let text = shown(&now);
        assert!(text.starts_with("door         open"), "{text}");
        for expected in
            ["ALARM      held open", "STALE", "recognizer late: silent for 9 s", "granted 2"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!shown(&Snapshot::default()).contains("ALARM"));
    }
}
