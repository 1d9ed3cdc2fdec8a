//! `status`: shows the state of the door, models, thresholds and gallery.

pub(super) mod entries;

use super::common_args::{CommonArgs, service_socket};
use anyhow::Result;
use clap::Args;
use facelatch::access::event::plain;
use facelatch::access::false_entries::Report;
use facelatch::access::gallery::Gallery;
use facelatch::models::groups::{NOT_MEASURED, WorstGroup};
use facelatch::service::audit::AuditNow;
use facelatch::service::control::{Request, ask};
use facelatch::service::link::LinkNow;
use facelatch::service::site::SiteNow;
use facelatch::service::stage_times::Spread;
use facelatch::service::status::{ClockNow, GalleryFileNow, ModelsNow, Status as ServiceStatus};
use facelatch::storage::gallery::{
    Loaded, Opening, Purpose, Register, Store, StoreError, reachable,
};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show the state of the door, models, thresholds and gallery
///
/// The state of the door comes from the running service through its socket. Without a
/// service, the command shows the rest. Exit code 1 if the gallery is lost, unreachable,
/// damaged, foreign or older than the one in use; 0 if there is none yet.
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    common: CommonArgs,
    /// Socket of the service [default: from the configuration, else the user's, else the
    /// system's]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    /// `None` if no service answers.
    service: Option<Box<ServiceStatus>>,
    /// Why no service answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_error: Option<String>,
    version: &'static str,
    models: String,
    /// Who answers for the models.
    models_signature: String,
    /// What stays to be done about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    models_warning: Option<String>,
    recognizer: String,
    embedding_size: usize,
    calibration: String,
    impostor_pairs: u64,
    measured_down_to: f64,
    thresholds: Vec<ThresholdLine>,
    /// `None` if no group of people was measured.
    worst_group: Option<WorstGroup>,
    gallery: PathBuf,
    gallery_file: GalleryFileNow,
    people: usize,
    templates: usize,
    templates_of_other_models: usize,
    false_accept_rate: f64,
    similarity: f32,
    extrapolated: bool,
    /// Of the service, if one runs.
    false_entries: Report,
    /// Pairs of people who resemble each other; `None` if too many would have to be compared.
    alike: Option<usize>,
    /// Reported false entries.
    negatives: usize,
}

#[derive(Serialize)]
struct ThresholdLine {
    false_accept_rate: f64,
    similarity: f32,
    extrapolated: bool,
}

impl Status {
    pub fn run(self) -> Result<ExitCode> {
        let config = self.common.config()?;
        let socket = service_socket(self.socket, &config);
        let (service, service_error) = match ask(&socket, &Request::Status) {
            Ok(reply) => (reply.status, reply.error),
            Err(error) => (None, Some(error.to_string())),
        };
        let file = config.gallery_file();
        let models = self.common.models_judged(&config);
        if models.is_err() {
            // Models beside a gallery that cannot be reached: that is the fault.
            reachable(&file)?;
        }
        let (models, standing) = models?;
        let models_now = ModelsNow::of(&models, standing.as_ref());
        let table = models.thresholds()?;
        let calibration = table.calibration();
        let recognizer = models.recognizer_id()?;
        let embedding_size = models.recognizer()?.embedding_size;
        let mut code = ExitCode::SUCCESS;
        let opening = Opening::to(Purpose::Read).registered(Register::of_user());
        let opened = Store::open_as(&file, opening)
            .and_then(|store| Ok((store.load(&recognizer, embedding_size)?, store)));
        let (gallery, other, gallery_file) = match opened {
            Ok((Loaded { gallery, of_other_models, .. }, store)) => {
                (gallery, of_other_models, GalleryFileNow::of(&store, &file))
            }
            Err(error) => {
                if !matches!(error, StoreError::Absent { .. }) {
                    code = ExitCode::FAILURE;
                }
                (Gallery::for_models(&models)?, 0, GalleryFileNow::failed(&error, &file))
            }
        };
        let templates = gallery.templates();
        // A service that does not know yet, or an older one, reports a rate of 0.
        let reported = service.as_ref().map(|now| now.false_entries.clone());
        let false_entries = reported
            .filter(|report| report.configured_rate > 0.0)
            .unwrap_or_else(|| entries::expected(&config, &table, &gallery));
        let rate = config.recognition.false_accept_rate;
        let threshold = table.for_attempt(rate, templates);
        let lines = table.points().iter().map(|(far, similarity)| ThresholdLine {
            false_accept_rate: *far,
            similarity: *similarity,
            extrapolated: table.for_pair(*far).extrapolated,
        });
        let shown = Shown {
            service,
            service_error,
            version: env!("CARGO_PKG_VERSION"),
            models: models_now.version,
            models_signature: models_now.signature,
            models_warning: models_now.warning,
            recognizer: recognizer.to_string(),
            embedding_size,
            calibration: calibration.data.clone(),
            impostor_pairs: calibration.impostor_pairs,
            measured_down_to: calibration.measured_down_to,
            thresholds: lines.collect(),
            worst_group: models.worst_group().cloned(),
            gallery: file,
            gallery_file,
            people: gallery.people(),
            templates,
            templates_of_other_models: other,
            false_accept_rate: rate,
            similarity: threshold.similarity,
            extrapolated: threshold.extrapolated,
            alike: entries::pairs(&gallery, false_entries.similarity),
            false_entries,
            negatives: gallery.negatives(),
        };
        let mut out = anstream::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&shown)?)?;
        } else {
            print(&mut out, &shown)?;
        }
        Ok(code)
    }
}

fn print(out: &mut impl Write, shown: &Shown) -> std::io::Result<()> {
    let mark = |extrapolated: bool| if extrapolated { "  extrapolated" } else { "" };
    match &shown.service {
        Some(service) => print_service(out, service)?,
        None => {
            let why = shown.service_error.as_deref().unwrap_or("its reply holds no status");
            writeln!(out, "service      none: {why}")?;
        }
    }
    writeln!(out, "facelatch    {}", shown.version)?;
    writeln!(
        out,
        "models       {}, recognizer {}, embedding size {}",
        shown.models, shown.recognizer, shown.embedding_size
    )?;
    print_trust(out, &shown.models_signature, shown.models_warning.as_deref())?;
    writeln!(
        out,
        "thresholds   from {} impostor pairs of {}, measured down to {:.1e}",
        shown.impostor_pairs, shown.calibration, shown.measured_down_to
    )?;
    for line in &shown.thresholds {
        let (far, similarity) = (line.false_accept_rate, line.similarity);
        let far = format!("{far:e}");
        writeln!(out, "  pair {far:<7} {similarity:.3}{}", mark(line.extrapolated))?;
    }
    writeln!(out, "worst group  {}", worst_group(shown.worst_group.as_ref()))?;
    writeln!(out, "gallery      {}", shown.gallery.display())?;
    print_file(out, &shown.gallery_file)?;
    writeln!(out, "  {} people, {} templates", shown.people, shown.templates)?;
    if shown.templates_of_other_models > 0 {
        writeln!(out, "  and {} templates of other models", shown.templates_of_other_models)?;
    }
    writeln!(
        out,
        "this door    false accept rate {:.0e} per attempt: similarity {:.3}{}",
        shown.false_accept_rate,
        shown.similarity,
        mark(shown.extrapolated)
    )?;
    if shown.negatives > 0 {
        writeln!(out, "  {} reported false entries", shown.negatives)?;
    }
    entries::print(out, &shown.false_entries, shown.alike)
}

/// Prints who answers for the models.
fn print_trust(
    out: &mut impl Write,
    signature: &str,
    warning: Option<&str>,
) -> std::io::Result<()> {
    writeln!(out, "  {signature}")?;
    warning.map_or(Ok(()), |warning| writeln!(out, "  UNSIGNED   {warning}"))
}

/// Prints what is wrong with the gallery's file.
fn print_file(out: &mut impl Write, file: &GalleryFileNow) -> std::io::Result<()> {
    let GalleryFileNow { state, fault, repaired, remarks } = file;
    if let Some(fault) = fault {
        writeln!(out, "  {:<10} {fault}", state.to_uppercase())?;
    }
    if let Some(repaired) = repaired {
        writeln!(out, "  REPAIRED   {repaired}")?;
    }
    for remark in remarks {
        writeln!(out, "  UNSAFE     {remark}")?;
    }
    Ok(())
}

/// The worst group in words.
fn worst_group(group: Option<&WorstGroup>) -> String {
    match group {
        Some(group) if group.exceeds() => {
            format!("{group}; this is {:.1} times the stated rate", group.times_stated())
        }
        Some(group) => group.to_string(),
        None => NOT_MEASURED.to_owned(),
    }
}

/// Age of the status, seconds, from which the service counts as hung. It refreshes its
/// status every second.
const STALE: f64 = 10.0;

/// Prints a status, the door first.
fn print_service(out: &mut impl Write, now: &ServiceStatus) -> std::io::Result<()> {
    let door = &now.door;
    writeln!(out, "door         {}, mode {}, leaf {}", door.state, door.mode, door.leaf)?;
    if now.is_starting() {
        writeln!(out, "  the service reads models and people; the relay is being locked")?;
        return writeln!(out, "version      {}, process {}", now.version, now.pid);
    }
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
    print_file(out, &gallery.file)?;
    print_audit(out, &now.audit)?;
    match now.clock {
        ClockNow::Unneeded => {}
        ClockNow::Trusted => writeln!(out, "clock        trusted")?,
        ClockNow::Unsure => {
            writeln!(out, "clock        not trusted; groups follow clock_unsure")?;
        }
    }
    if let Some(link) = &now.link {
        print_link(out, link, now.audit.last)?;
    }
    if let Some(site) = &now.site {
        print_site(out, site)?;
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
    )?;
    let ModelsNow { signature, warning, trial, .. } = &now.model_set;
    if !signature.is_empty() {
        print_trust(out, signature, warning.as_deref())?;
    }
    trial.as_ref().map_or(Ok(()), |trial| writeln!(out, "  trial      {}", trial.line))
}

/// Prints the state of the site.
fn print_site(out: &mut impl Write, site: &SiteNow) -> std::io::Result<()> {
    let SiteNow { people, missing, .. } = site;
    match &site.name {
        None => writeln!(out, "site         {}, not admitted", site.site)?,
        Some(name) => {
            let lease = match site.lease_s {
                None => "no lease yet".to_owned(),
                Some(lease) if lease <= 0 => format!("lease over for {}", time(-lease as f64)),
                Some(lease) => format!("lease for {}", time(lease as f64)),
            };
            writeln!(
                out,
                "site         {}, as {name}; {people} people, {missing} missing; {lease}",
                site.site
            )?;
        }
    }
    if let Some(models) = &site.models {
        writeln!(out, "  models     {}", plain(models))?;
    }
    site.fault.as_ref().map_or(Ok(()), |fault| writeln!(out, "  FAULT      {}", plain(fault)))
}

/// Prints the state of the link.
fn print_link(out: &mut impl Write, link: &LinkNow, last: u64) -> std::io::Result<()> {
    let since = time(link.since_s as f64);
    if link.connected {
        let taken = link.taken.map_or_else(
            || "no event taken yet".to_owned(),
            |taken| format!("event {taken} of {last} taken"),
        );
        let version = &link.version;
        writeln!(out, "link         {version} connected for {since}; {taken}")?;
    } else {
        writeln!(out, "link         not connected for {since}")?;
    }
    if let Some(fault) = &link.fault {
        writeln!(out, "  FAULT      {fault}")?;
    }
    if link.closed > 0 || link.refused > 0 {
        let LinkNow { closed, refused, .. } = link;
        writeln!(out, "  {closed} connections closed for a fault, {refused} orders refused")?;
    }
    Ok(())
}

/// Prints the state of the audit log.
fn print_audit(out: &mut impl Write, audit: &AuditNow) -> std::io::Result<()> {
    match audit.state.as_str() {
        // A service of another version says nothing about it.
        "" => return Ok(()),
        "good" => {
            let when = if audit.before_opening { "before" } else { "right after" };
            let sync = audit.sync_ms.map(|ms| format!("; a sync takes {ms:.1} ms"));
            writeln!(
                out,
                "audit log    {} records, on the disk {when} the door opens{}",
                audit.last,
                sync.unwrap_or_default()
            )?;
        }
        state => writeln!(out, "audit log    {state}")?,
    }
    if let Some(fault) = &audit.fault {
        writeln!(out, "  NOT WRITTEN  {fault}; {} records wait", audit.waiting)?;
    }
    if audit.lost > 0 {
        writeln!(out, "  LOST       {} records since the start", audit.lost)?;
    }
    Ok(())
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

    fn shown(now: &ServiceStatus) -> String {
        let mut text = vec![];
        print_service(&mut text, now).expect("memory takes all");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn times_are_shown_in_their_two_largest_units() {
        let times = [(0.0, "0 s"), (59.9, "59 s"), (61.0, "1 min 1 s"), (7260.0, "2 h 1 min")];
        for (seconds, expected) in times.into_iter().chain([(180_000.0, "2 d 2 h")]) {
            assert_eq!(time(seconds), expected);
        }
        assert_eq!(time(f64::NAN), "0 s");
    }

    #[test]
    fn the_worst_group_is_named_with_its_rate_or_said_to_be_unknown() {
        let mut group = WorstGroup {
            name: "women".to_owned(),
            stated: "1e-3".to_owned(),
            measured: 2e-3,
            low: 1.1e-3,
            high: 3.4e-3,
            pairs: 6555,
            people: 115,
            data: "made up".to_owned(),
        };
        let text = worst_group(Some(&group));
        assert!(
            text.contains("women: false accept rate 2.0e-3") && text.contains("1e-3"),
            "{text}"
        );
        assert!(!text.contains("times"), "{text}");
        group.measured = 3.1e-3;
        assert!(worst_group(Some(&group)).contains("3.1 times the stated rate"));
        assert!(worst_group(None).contains("no group of people was measured"));
    }

    #[test]
    fn a_door_that_starts_is_no_empty_door() {
        let text = shown(&ServiceStatus::starting(true));
        assert!(text.starts_with("door         starting, mode lockdown, leaf unknown"), "{text}");
        assert!(text.contains("reads models and people"), "{text}");
        assert!(!text.contains("people       0"), "{text}");
    }

    #[test]
    fn a_log_that_is_not_written_or_has_lost_records_stands_out() {
        let mut now = ServiceStatus::default();
        assert!(!shown(&now).contains("audit log"), "a service of another version");
        now.audit.state = "good".to_owned();
        now.audit.last = 7;
        (now.audit.sync_ms, now.audit.before_opening) = (Some(2.5), true);
        let text = shown(&now);
        let line = "audit log    7 records, on the disk before the door opens; a sync takes 2.5 ms";
        assert!(text.contains(line) && !text.contains("LOST"), "{text}");
        now.audit.before_opening = false;
        assert!(shown(&now).contains("on the disk right after the door opens"));
        now.audit.state = "failed".to_owned();
        now.audit.fault = Some("/g.audit: make room".to_owned());
        (now.audit.waiting, now.audit.lost) = (3, 12);
        let text = shown(&now);
        for expected in
            ["NOT WRITTEN  /g.audit: make room; 3 records wait", "LOST       12 records"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn the_door_comes_first_and_alarms_stand_out() {
        let mut now = ServiceStatus::default();
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
        assert!(!shown(&ServiceStatus::default()).contains("ALARM"));
    }
}
