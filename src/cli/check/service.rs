//! Checks of a running service, from the status that it reports.

use super::Findings;
use crate::cli::status::entries::more_alike;
use anyhow::Result;
use facelatch::service::control::{AskError, Reply};
use facelatch::service::status::{CameraNow, GalleryFileNow, Status};
use std::io::Write;

/// Age of the status, seconds, above which the service counts as hung. It refreshes its
/// status twice per second.
const HANGS: f64 = 5.0;
/// Share of unreadable frames above which the cable or the supply is the likely cause.
const MANY_BAD: f64 = 0.01;
/// Share of dropped frames above which the board is too slow.
const MANY_DROPPED: f64 = 0.5;

/// Reports the findings about a running service. Returns whether a service runs, and so
/// holds camera, lines and relay.
pub(super) fn judge_answer(
    asked: &Result<Reply, AskError>,
    findings: &mut Findings<impl Write>,
) -> Result<bool> {
    match asked {
        Err(AskError::Nobody { .. }) => Ok(false),
        Err(AskError::Denied { path }) => {
            findings.wrong(
                "service",
                format!(
                    "{}: permission denied; run facelatch check as root or as the user of the \
                     service",
                    path.display()
                ),
            )?;
            Ok(true)
        }
        Err(error) => findings.wrong("service", error).map(|()| true),
        Ok(Reply { status: Some(snapshot), .. }) => judge(snapshot, findings).map(|()| true),
        Ok(Reply { error, .. }) => {
            let error = error.as_deref().unwrap_or("its reply holds no status");
            findings.wrong("service", error).map(|()| true)
        }
    }
}

/// Reports the findings about the status of a service.
fn judge(now: &Status, findings: &mut Findings<impl Write>) -> Result<()> {
    let about = format!("version {}, process {}", now.version, now.pid);
    if now.is_starting() {
        let text = format!("starting: {about}; it reads models and people; check again shortly");
        return findings.odd("service", &text);
    }
    let watchdog = &now.watchdog;
    let late = || {
        let who = watchdog.who.as_deref().unwrap_or("a thread");
        format!("{about}: {who} has been silent for {:.1} s", watchdog.silent_s)
    };
    if now.age_s > HANGS {
        let age = now.age_s;
        let cure = "it hangs; restart it, and see its log";
        findings.wrong("service", format!("{about}: status is {age:.0} s old: {cure}"))?;
    } else if watchdog.state == "stuck" {
        findings.wrong("service", format!("{}; restart it, and see its log", late()))?;
    } else if watchdog.state == "late" {
        findings.odd("service", &late())?;
    } else {
        findings.good("service", &format!("running: {about}; it holds camera, lines and relay"))?;
    }
    camera_now(&now.camera, findings)?;
    let GalleryFileNow { state, fault, repaired, .. } = &now.gallery.file;
    if let Some(fault) = fault.as_ref().filter(|_| now.gallery.file.is_fault()) {
        findings.wrong("gallery", format!("{state} for the service: {fault}"))?;
    }
    if let Some(repaired) = repaired {
        findings.odd("gallery", &format!("repaired by the service: {repaired}"))?;
    }
    let entries = &now.false_entries;
    if entries.measured.more_alike {
        findings.odd("strangers", &more_alike())?;
    }
    if entries.over_budget {
        let high = entries.entries_per_year.high;
        let text = format!(
            "up to {high:.1} false entries per year expected, more than \
             recognition.false_entries_per_year, with thresholds as tight as they may be; lower \
             recognition.false_accept_rate, or find out who comes so often"
        );
        findings.odd("false entries", &text)?;
    }
    let relay = &now.relay;
    match &relay.state[..] {
        "answering" => findings.good("relay", "answers the service"),
        "" | "opening" => findings.odd("relay", "the service is opening it; check again shortly"),
        fault => findings.wrong("relay", format!("{fault} (for {:.0} s)", relay.since_s)),
    }
}

/// Reports the findings about the camera of a service.
fn camera_now(camera: &CameraNow, findings: &mut Findings<impl Write>) -> Result<()> {
    let CameraNow { state, since_s, frames, dropped, bad } = camera;
    match &state[..] {
        "running" => {}
        "" | "opening" => {
            return findings.odd("camera", "the service is opening it; check again shortly");
        }
        fault => return findings.wrong("camera", format!("{fault} (for {since_s:.0} s)")),
    }
    let text = format!("frames: {frames} delivered, {dropped} dropped, {bad} unreadable");
    let all = (frames + dropped + bad) as f64;
    if *bad as f64 > MANY_BAD * all {
        findings.odd("camera", &format!("{text}; check its cable and supply"))
    } else if *dropped as f64 > MANY_DROPPED * all {
        findings.odd("camera", &format!("{text}; this board is too slow for the frame rate"))
    } else {
        findings.good("camera", &text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;
    use facelatch::service::status::{RelayNow, WatchdogNow};
    use std::path::PathBuf;

    fn well() -> Status {
        let camera = CameraNow {
            state: "running".to_owned(),
            frames: 990,
            dropped: 10,
            ..CameraNow::default()
        };
        let relay = RelayNow { state: "answering".to_owned(), ..RelayNow::default() };
        let watchdog = WatchdogNow { state: "healthy".to_owned(), ..WatchdogNow::default() };
        Status { camera, relay, watchdog, ..Status::default() }
    }

    type Change = fn(&mut Status);

    #[test]
    fn a_service_that_runs_is_judged_by_what_it_says() {
        let judged = |change: Change| {
            let mut snapshot = well();
            change(&mut snapshot);
            said(|findings| judge(&snapshot, findings).expect("findings"))
        };
        let good = judged(|_| {});
        assert_eq!(good.matches("\"good\"").count(), 3, "{good}");
        let changes: [(Change, &str, &str); 9] = [
            (|now| now.age_s = 6.0, "wrong", "it hangs"),
            (|now| now.watchdog.state = "stuck".to_owned(), "wrong", "restart it"),
            (|now| now.watchdog.state = "late".to_owned(), "odd", "has been silent"),
            (|now| now.camera.state = "no such device".to_owned(), "wrong", "no such device"),
            (|now| now.false_entries.over_budget = true, "odd", "false entries per year"),
            (|now| now.false_entries.measured.more_alike = true, "odd", "more similar"),
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
    fn a_service_that_starts_is_no_fault() {
        let text = said(|findings| judge(&Status::starting(true), findings).expect("findings"));
        assert!(text.contains("\"odd\"") && text.contains("starting"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_socket_that_this_user_may_not_use_is_no_absent_service() {
        let path = PathBuf::from("/run/facelatch/control.sock");
        let denied = Err(AskError::Denied { path: path.clone() });
        let text = said(|findings| assert!(judge_answer(&denied, findings).expect("findings")));
        assert!(text.contains("\"wrong\"") && text.contains("as root"), "{text}");
        let nobody = Err(AskError::Nobody { path });
        let text = said(|findings| assert!(!judge_answer(&nobody, findings).expect("findings")));
        assert_eq!(text, "");
    }
}
