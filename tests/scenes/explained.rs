//! What the audit log says about events of scenes, in plain English.

use crate::replayed::kept;
use crate::script::scenes;
use crate::stage::events;
use facelatch::access::door;
use facelatch::access::event::{Caller, Event};
use facelatch::audit::entry::Basis;
use facelatch::audit::{
    ClockTrust, Explained, Logged, Names, Stamp, explain, line, of_caller, of_event,
};
use jiff::tz::TimeZone;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// The scenes, and the kind and the reason of the events to explain.
const SCENES: [(&str, &str, &str); 6] = [
    ("people ada\n1.0 faces 1=ada\n2.5 nobody\n4.0 nobody\n", "granted", ""),
    (
        "set liveness.mode = \"enforce\"\nset liveness.turns = 1\npeople ada\n\
         0.5 faces 1=ada\n1.5 faces 1=ada/sharp-right\n2.0 faces 1=ada\n4.0 nobody\n",
        "granted",
        "",
    ),
    ("people ada grace\n1.0 faces 1=eva\n2.0 nobody\n", "refused", "stranger"),
    (
        "set groups.night.hours = [\"mon-fri 22:00-06:00\"]\npeople ada=night\n\
         0.1 clock 2026-11-30 12:00:00\n700.0 faces 1=ada\n702.0 nobody\n",
        "refused",
        "hours",
    ),
    ("people ada grace\n1.0 faces 1=ada 2=grace\n2.0 nobody\n", "refused", "two faces"),
    (
        "set liveness.mode = \"enforce\"\npeople ada\n1.0 faces 1=ada/screen\n2.0 nobody\n",
        "refused",
        "liveness",
    ),
];

/// Boots of this scene: [`Stamp::boot`].
const BOOT: [u8; 16] = [7; 16];
/// 30 November 2026, 03:12.
const MIDNIGHT: i64 = 1_796_008_320_000_000;

fn logged(number: u64, at: u64, event: &Event, trusted: bool) -> Logged {
    let mut entry = kept(at, event).unwrap_or_else(|| of_event(Duration::from_millis(at), event));
    if entry.inputs.is_some() {
        entry.basis =
            Some(Basis { models: "2026.11+1f2e3d4c".to_owned(), configuration: [0xab; 8] });
    }
    let clock = if trusted { ClockTrust::Trusted } else { ClockTrust::Unsure };
    let (monotonic, wall) = (5_000_000 + at * 1000, MIDNIGHT + at as i64 * 1000);
    Logged { number, stamp: Stamp { boot: BOOT, monotonic, wall, clock }, entry }
}

fn names() -> Names {
    let people = [(1, "Ada Lovelace".to_owned()), (2, "Grace\u{1b}[2J Hopper".to_owned())];
    Names::new(people.into(), [(0, "root".to_owned()), (1000, "ada".to_owned())].into())
}

/// A command over the socket, with who gave it.
fn by_command() -> Vec<Logged> {
    let by = Caller { uid: Some(0), login: Some(1000), role: "order", link: false };
    let mut logged: Vec<Logged> = [
        Event::Ordered { order: "open".to_owned(), by: by.clone() },
        Event::Door(door::Event::OpenedByCommand),
        Event::Unlocked,
    ]
    .iter()
    .zip(40..)
    .map(|(event, number)| logged(number, number * 10, event, false))
    .collect();
    logged[1].entry.by = of_caller(&by);
    logged
}

/// Holds the explanations against the golden file; `FACELATCH_UPDATE=1` writes it again.
pub fn golden() -> Result<(), String> {
    let mut all = String::new();
    let mut add = |log: &[Logged], kind: &str, reason: &str| -> Result<(), String> {
        let fits = |one: &Logged| {
            one.entry.event == kind
                && (reason.is_empty() || one.entry.text("reason") == Some(reason))
        };
        let at = log.iter().position(fits).ok_or(format!("no event {kind} {reason}: {log:?}"))?;
        let explained = Explained { logged: &log[at], before: &log[..at], after: &log[at + 1..] };
        for one in log {
            let _ = writeln!(all, "{}", line(one, &names(), &TimeZone::UTC));
        }
        let _ = writeln!(all, "\n{}", explain(&explained, &names(), &TimeZone::UTC));
        Ok(())
    };
    for (text, kind, reason) in SCENES {
        let scene = scenes(&format!("# one\n{text}"))?.remove(0);
        let told = events(&scene)?;
        let log: Vec<Logged> = (1..)
            .zip(&told)
            .map(|(number, (at, event))| logged(number, *at, event, true))
            .collect();
        add(&log, kind, reason)?;
    }
    add(&by_command(), "opened by command", "")?;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenes/explained.log");
    if std::env::var_os("FACELATCH_UPDATE").is_some() {
        return std::fs::write(&golden, all).map_err(|error| error.to_string());
    }
    let expected = std::fs::read_to_string(&golden).map_err(|error| error.to_string())?;
    match (1..).zip(all.lines().zip(expected.lines())).find(|(_, (is, was))| is != was) {
        Some((number, (is, was))) => Err(format!("{number}: is {is:?}, was {was:?}")),
        None if all.len() == expected.len() => Ok(()),
        None => Err("another number of lines".to_owned()),
    }
}

/// Most bytes of the records of one scene, without and with the inputs of a replay. A door
/// with 500 openings a day must not fill the log.
const MOST_BYTES: [usize; 2] = [4096, 16_384];

/// An opening and a refusal take little room.
pub fn sizes() -> Result<(), String> {
    for (text, kind, reason) in SCENES {
        let scene = scenes(&format!("# one\n{text}"))?.remove(0);
        let told = events(&scene)?;
        let mut bytes = [0, 0];
        for (at, event) in &told {
            let mut entry = of_event(Duration::from_millis(*at), event);
            entry.basis = entry
                .inputs
                .is_some()
                .then(|| Basis { models: "2026.11+1f2e3d4c".to_owned(), configuration: [0xab; 8] });
            let with = entry.encode().len();
            entry.inputs = None;
            bytes = [bytes[0] + entry.encode().len(), bytes[1] + with];
        }
        if bytes.iter().zip(MOST_BYTES).any(|(bytes, most)| *bytes > most) {
            return Err(format!("{kind} {reason}: bodies of {bytes:?} bytes, most {MOST_BYTES:?}"));
        }
    }
    Ok(())
}
