//! The state of the door as the link hears it, from the service's status.

use crate::access::event::plain;
use crate::audit::entry::cut;
use crate::service::status::{ClockNow, Status};
use facelatch_messages::{DoorState, Lock};

/// States of camera and relay without a fault.
const FINE: [&str; 3] = ["running", "answering", "opening"];

/// The state of a door with this status.
pub(super) fn state_of(status: &Status) -> DoorState {
    let relay_fault = fault(&status.relay.state);
    let jammed = relay_fault.is_some();
    let expected = &status.false_entries;
    let years = expected.entries_per_year;
    DoorState {
        lock: lock(&status.door.state, &status.door.mode, jammed),
        mode: status.door.mode.clone(),
        leaf_open: match status.door.leaf.as_str() {
            "unknown" | "" => None,
            leaf => Some(leaf != "closed"),
        },
        alarm: status.door.alarm.clone(),
        camera_fault: fault(&status.camera.state),
        relay_fault,
        clock_fault: (status.clock == ClockNow::Unsure).then(|| {
            "the clock is not trusted: groups follow clock_unsure; see facelatch status".to_owned()
        }),
        storage_fault: status
            .gallery
            .file
            .fault
            .as_deref()
            .or(status.audit.fault.as_deref())
            .map(|fault| cut(&plain(fault))),
        people: u32::try_from(status.gallery.people).unwrap_or(u32::MAX),
        // Not known yet.
        false_entries_per_year: (expected.configured_rate > 0.0).then_some([
            years.expected,
            years.low,
            years.high,
        ]),
        models: cut(&status.models),
        models_waiting: status.model_set.trial.as_ref().map(|trial| cut(&trial.set)),
        site: None,
    }
}

fn lock(state: &str, mode: &str, jammed: bool) -> Lock {
    let unlocked = ["always open", "open hours"].contains(&mode);
    match state {
        _ if jammed => Lock::Jammed,
        "locked" | "stopped" => Lock::Locked,
        "granting" => Lock::Opening,
        "open" if unlocked => Lock::Unlocked,
        "open" => Lock::Open,
        "locking" | "stopping" => Lock::Locking,
        _ => Lock::Unknown,
    }
}

fn fault(state: &str) -> Option<String> {
    (!state.is_empty() && !FINE.contains(&state)).then(|| cut(&plain(state)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::status::{CameraNow, DoorNow, RelayNow};

    fn status(state: &str, mode: &str, leaf: &str, relay: &str) -> Status {
        let text = str::to_owned;
        let door = DoorNow { state: text(state), mode: text(mode), leaf: text(leaf), alarm: None };
        let relay = RelayNow { state: text(relay), since_s: 0.0 };
        let camera = CameraNow { state: text("running"), ..CameraNow::default() };
        Status { door, relay, camera, ..Status::default() }
    }

    #[test]
    fn the_lock_has_the_state_that_home_assistant_knows() {
        for (state, mode, relay, expected) in [
            ("locked", "normal", "answering", Lock::Locked),
            ("granting", "normal", "answering", Lock::Opening),
            ("open", "normal", "answering", Lock::Open),
            ("open", "open hours", "answering", Lock::Unlocked),
            ("open", "always open", "answering", Lock::Unlocked),
            ("locking", "normal", "answering", Lock::Locking),
            ("starting", "not known yet", "opening", Lock::Unknown),
            ("locked", "normal", "no such port", Lock::Jammed),
        ] {
            let state = state_of(&status(state, mode, "closed", relay));
            assert_eq!(state.lock, expected, "{state:?}");
            assert_eq!(state.relay_fault.is_some(), expected == Lock::Jammed);
        }
    }

    #[test]
    fn faults_are_named_and_what_is_not_there_is_not() {
        let fine = state_of(&status("locked", "normal", "unknown", "answering"));
        assert_eq!((fine.leaf_open, &fine.camera_fault, &fine.clock_fault), (None, &None, &None));
        assert_eq!(fine.false_entries_per_year, None);
        let mut bad = status("locked", "lockdown", "held too long", "answering");
        bad.camera.state = "no such\ncamera".to_owned();
        bad.clock = ClockNow::Unsure;
        bad.audit.fault = Some("the disk is full".to_owned());
        let bad = state_of(&bad);
        assert_eq!((bad.leaf_open, bad.mode.as_str()), (Some(true), "lockdown"));
        assert_eq!(bad.camera_fault.as_deref(), Some("no such\\u{a}camera"));
        assert_eq!(bad.storage_fault.as_deref(), Some("the disk is full"));
        assert!(bad.clock_fault.is_some());
        assert_eq!(bad.relay_fault, None, "the alarm of the leaf is no fault of the relay");
    }
}
