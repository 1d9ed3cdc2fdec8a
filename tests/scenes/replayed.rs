//! Decisions of the scenes, kept in the audit log and derived again.

use crate::script::{Scene, scenes};
use crate::stage::{events, play};
use facelatch::access::event::Event;
use facelatch::audit::entry::Entry;
use facelatch::audit::replay::{Outcome, changed_rules, differences, replay};
use facelatch::audit::{attempt, of_event};
use facelatch::vision::track::TrackId;
use std::time::Duration;

/// Derives all decisions again from what the log keeps. Returns the number of those derived
/// and of those whose inputs were too many to be kept.
pub fn all(events: &[(u64, Event)]) -> Result<[usize; 2], String> {
    let mut count = [0, 0];
    for (at, event) in events {
        let Some(entry) = kept(*at, event) else { continue };
        match differences(&entry) {
            Some(different) if different.is_empty() => count[0] += 1,
            Some(different) => {
                return Err(format!("{event} at {at} ms is derived differently: {different:?}"));
            }
            None if entry.flag("too_long") => count[1] += 1,
            None => return Err(format!("{event} at {at} ms has no inputs")),
        }
    }
    Ok(count)
}

/// An attempt as it is read from the log; `None` for other events.
pub fn kept(at: u64, event: &Event) -> Option<Entry> {
    attempt(event)?;
    let entry = of_event(Duration::from_millis(at), event);
    Some(Entry::decode(&entry.encode()).expect("as written"))
}

/// Nearly all decisions of the scenes can be derived again.
pub fn nearly_all(files: &[(&str, &str)]) -> Result<(), String> {
    let mut count = [0, 0];
    for (_, text) in files {
        for scene in scenes(text)? {
            let [derived, too_long] = all(&events(&scene)?)?;
            count = [count[0] + derived, count[1] + too_long];
        }
    }
    if count[0] > 100 && count[0] > 10 * count[1] {
        Ok(())
    } else {
        Err(format!("{} derived, {} with too many inputs", count[0], count[1]))
    }
}

/// With another threshold another decision comes out, and the threshold is named.
pub fn other_threshold() -> Result<(), String> {
    let text = "# one\npeople ada\n1.0 faces 1=ada\n2.0 nobody\n";
    let scene: Scene = scenes(text)?.remove(0);
    play(&scene)?;
    let events = events(&scene)?;
    let (at, granted) = events.iter().find(|(_, e)| e.kind() == "granted").ok_or("no grant")?;
    let entry = kept(*at, granted).ok_or("no attempt")?;
    let tape = entry.inputs.as_ref().ok_or("no inputs")?;
    let mut rules = tape.rules.clone();
    rules.threshold = 1.5;
    let track = entry.count("track").map(TrackId);
    let named = changed_rules(&tape.rules, &rules);
    let names: Vec<&str> = named.iter().map(|(name, ..)| name.as_str()).collect();
    let outcome = replay(tape, &rules, track);
    if names == ["threshold"] && matches!(outcome, Outcome::Stranger { .. }) {
        Ok(())
    } else {
        Err(format!("{names:?}, {outcome:?}"))
    }
}
