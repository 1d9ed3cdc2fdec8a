//! The service around the state machines: which commands reach the relay, also after a
//! panic or an error.

use facelatch::access::SitePeople;
use facelatch::access::controller::Input;
use facelatch::access::door;
use facelatch::access::event::Event;
use facelatch::access::gallery::{Gallery, PersonId, Traits};
use facelatch::access::liveness::Mode;
use facelatch::config::{ClockSource, Config, LivenessConfig};
use facelatch::hardware::camera::Identity;
use facelatch::hardware::camera::live::LiveCamera;
use facelatch::hardware::relay::Relay;
use facelatch::models::{ModelId, Models};
use facelatch::service::models::ModelSet;
use facelatch::service::pipeline::{Change, Pipeline, RelayHandle};
use facelatch::service::run::{BetweenFrames, RunError, RunOptions, Summary, run};
use facelatch::vision::picture;
use facelatch::vision::recognizer::Recognizer;
use serialport::{SerialPort, TTYPort};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ASTRONAUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/astronaut.jpg");

/// A pipeline with the astronaut in its gallery, and this relay.
fn pipeline(relay: &str) -> Pipeline {
    pipeline_of(relay, &Config::default())
}

fn pipeline_of(relay: &str, config: &Config) -> Pipeline {
    let models = Models::built_in().expect("the built-in models");
    let mut recognizer = Recognizer::new(&models, config.detector()).expect("a recognizer");
    let portrait = picture::read(Path::new(ASTRONAUT)).expect("a portrait");
    let view = recognizer.faces(&portrait).expect("faces").pop().expect("a face");
    let mut gallery = Gallery::for_models(&models).expect("a recognizer");
    gallery.add(PersonId(1), "Eileen Collins", &[view.template.expect("a good view")]);
    let relay = Relay::open(relay).expect("a relay");
    let calibration = models.calibration().expect("thresholds");
    let models = ModelSet { recognizer, liveness: None, calibration, gallery };
    Pipeline::new(models, config, RelayHandle::Direct(relay), Duration::ZERO).0
}

/// Runs the portrait past a door that knows the person with these traits, and lets these
/// people of the site in. Returns the grants and the reasons of refusals.
fn of_site(traits: Traits, people: SitePeople) -> (usize, Vec<String>) {
    let mut config = Config::default();
    config.schedule.clock = ClockSource::Trusted;
    let mut pipeline = pipeline_of("log:", &config);
    let mut gallery = pipeline.gallery().clone();
    gallery.set_traits(PersonId(1), traits);
    pipeline.set_gallery(gallery);
    pipeline.set_site_people(people);
    let mut reasons = vec![];
    let told = |at: Duration, event: &Event| {
        if let Event::NotGranted { .. } = event {
            reasons.push(event.to_json(at)["reason"].as_str().unwrap_or_default().to_owned());
        }
    };
    let summary = pass(&mut pipeline, 20, told, |_, _| vec![]).expect("a run");
    (summary.granted, reasons)
}

#[test]
fn people_of_a_site_come_in_as_its_rules_say() {
    let of = |site, administrator| Traits { site, administrator, ..Traits::default() };
    let member = Some([7; 16]);
    for (traits, people, admitted) in [
        (of(member, false), SitePeople::All, true),
        (of(member, false), SitePeople::Administrators, false),
        (of(member, true), SitePeople::Administrators, true),
        (of(member, true), SitePeople::Nobody, false),
        (of(None, false), SitePeople::Nobody, true),
    ] {
        let (granted, reasons) = of_site(traits.clone(), people);
        assert_eq!(granted > 0, admitted, "{traits:?} {people:?}");
        let unheard = reasons.iter().any(|reason| reason == "site unheard");
        assert_eq!(unheard, !admitted, "{reasons:?}");
    }
}

#[test]
fn dates_that_somebody_gets_while_the_door_works_count() {
    let year = 365 * 86_400;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_secs());
    let now = now.expect("a time");
    for (from, until, refused) in [
        (None, Some(now + year), None),
        (Some(now - year), None, None),
        (None, Some(now - year), Some("no longer valid")),
        (Some(now + year), None, Some("not yet valid")),
    ] {
        let traits = Traits { valid_from: from, valid_until: until, ..Traits::default() };
        let (granted, reasons) = of_site(traits, SitePeople::All);
        assert_eq!(granted > 0, refused.is_none(), "{from:?} {until:?}: {reasons:?}");
        assert_eq!(reasons.first().map(String::as_str), refused);
    }
}

/// A recording that repeats one portrait, ten frames per second.
fn camera() -> LiveCamera {
    let uri = format!("images:{ASTRONAUT}?fps=10&loop");
    LiveCamera::start(&uri, Instant::now()).expect("a camera")
}

/// Runs the door for `max_frames` frames; `between` runs between two frames.
fn pass(
    pipeline: &mut Pipeline,
    max_frames: usize,
    told: impl FnMut(Duration, &Event),
    between: impl FnMut(&mut Pipeline, &BetweenFrames<'_>) -> Vec<Event>,
) -> Result<Summary, RunError> {
    let stop = AtomicBool::new(false);
    let options =
        RunOptions { started: Instant::now(), max_frames, stop: &stop, distinct: true, gate: None };
    run(pipeline, camera(), options, told, between)
}

fn board() -> (TTYPort, String) {
    let (mut board, port) = TTYPort::pair().expect("a pair of terminals");
    board.set_timeout(Duration::from_secs(10)).expect("a timeout");
    let path = port.name().expect("a path");
    (board, format!("serial:{path}"))
}

#[test]
fn a_panic_while_the_door_is_open_locks_it() {
    let (mut board, relay) = board();
    let mut pipeline = pipeline(&relay);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let told = |_: Duration, event: &Event| {
            assert_ne!(event, &Event::Unlocked, "the reader of this event breaks down");
        };
        pass(&mut pipeline, 100, told, |_, _| vec![])
    }));
    assert!(ended.is_err());
    let mut sent = [0; 12];
    board.read_exact(&mut sent).expect("three commands");
    let states: Vec<u8> = sent.chunks(4).map(|command| command[2]).collect();
    assert_eq!(states, [0, 1, 0], "off at the start, on, off after the panic");
}

#[test]
fn a_relay_that_does_not_answer_is_reported_and_tried_again() {
    let mut pipeline = pipeline("serial:/dev/no-such-port");
    let mut events = vec![];
    let told = |_: Duration, event: &Event| events.push(event.clone());
    let error = pass(&mut pipeline, 40, told, |_, _| vec![]).expect_err("no relay");
    assert!(error.to_string().contains("could not be released"), "{error}");
    assert!(error.to_string().contains("/dev/no-such-port"), "{error}");
    assert!(!events.contains(&Event::Unlocked));
    let failed = |event: &&Event| matches!(event, Event::RelayFailed(_));
    assert!(events.iter().filter(failed).count() >= 4, "{events:?}");
}

#[test]
fn a_gallery_that_changes_takes_its_evidence_with_it() {
    let mut pipeline = pipeline("log:");
    let mut looks = 0;
    let mut granted = vec![];
    let told = |at: Duration, event: &Event| {
        if let Event::Granted { name, .. } = event {
            granted.push((at, name.clone()));
        }
    };
    // Everybody is removed before the third frame, which would open the door.
    let between = |pipeline: &mut Pipeline, _: &BetweenFrames<'_>| {
        looks += 1;
        if looks == 3 {
            let nobody = Gallery::new(ModelId::new("none"), 128);
            return pipeline.change(Duration::ZERO, Change::Gallery(Box::new(nobody)));
        }
        vec![]
    };
    let summary = pass(&mut pipeline, 20, told, between).expect("a run");
    assert_eq!((summary.frames, summary.granted), (20, 0));
    assert_eq!(granted, []);
}

/// Runs the portrait past a door whose liveness threshold no face can reach.
fn with_liveness(mode: Mode) -> (usize, Vec<Event>) {
    let liveness = LivenessConfig { mode, threshold: 1.1, ..LivenessConfig::default() };
    let mut pipeline = pipeline_of("log:", &Config { liveness, ..Config::default() });
    let mut events = vec![];
    let told = |_: Duration, event: &Event| events.push(event.clone());
    let summary = pass(&mut pipeline, 20, told, |_, _| vec![]).expect("a run");
    (summary.granted, events)
}

#[test]
fn enforced_liveness_keeps_the_door_shut_and_advice_only_tells() {
    let not_live = |event: &&Event| matches!(event, Event::NotLive { .. });
    let (granted, events) = with_liveness(Mode::Enforce);
    assert_eq!(granted, 0);
    assert!(!events.contains(&Event::Unlocked));
    assert_eq!(events.iter().filter(not_live).count(), 1, "{events:?}");
    let (granted, events) = with_liveness(Mode::Advise);
    assert_eq!(granted, 1);
    assert!(events.contains(&Event::Unlocked));
    assert_eq!(events.iter().filter(not_live).count(), 1, "{events:?}");
    let (granted, events) = with_liveness(Mode::Off);
    assert_eq!(granted, 1);
    assert_eq!(events.iter().filter(not_live).count(), 0);
}

#[test]
fn faces_of_another_camera_count_only_once_it_is_accepted() {
    let mut pipeline = pipeline("log:");
    let camera = |serial: &str| Identity {
        model: "Webcam".to_owned(),
        serial: Some(serial.to_owned()),
        socket: "1-1".to_owned(),
    };
    let mut looks = 0;
    let mut events = vec![];
    let told = |_: Duration, event: &Event| events.push(event.clone());
    let between = |pipeline: &mut Pipeline, between: &BetweenFrames<'_>| {
        looks += 1;
        match looks {
            1 => {
                between.camera.opened_as(camera("1"));
                assert!(!pipeline.accept_camera(), "there is nothing to accept");
                between.camera.opened_as(camera("2"));
            }
            20 => return pipeline.input(between.now, Input::Door(door::Input::Exit)),
            80 => assert!(pipeline.accept_camera()),
            _ => {}
        }
        vec![]
    };
    let summary = pass(&mut pipeline, 120, told, between).expect("a run");
    assert!(summary.granted > 0, "{events:?}");
    let at = |wanted: &str| events.iter().position(|event| event.kind() == wanted);
    let order = ["alarm", "exit", "unlocked", "alarm ended", "granted"].map(at);
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} {events:?}");
    let alarms = events.iter().filter(|event| event.kind() == "alarm").count();
    assert_eq!(alarms, 1, "told once");
    let json = events[order[0].expect("an alarm")].to_json(Duration::ZERO);
    assert_eq!(json["alarm"], "camera changed");
    assert!(json["now"].as_str().is_some_and(|now| now.contains("serial number 2")), "{json}");
}
