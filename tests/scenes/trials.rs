//! Trials that are more than one scripted door.

use crate::cast::{CHANCE, SIZE, calibration, model, template};
use crate::script::Expected;
use crate::stage::attack;
use facelatch::access::controller::{Controller, FaceSeen, Input};
use facelatch::access::door::{self, Role};
use facelatch::access::event::Event;
use facelatch::access::gallery::{Gallery, PersonId, Traits};
use facelatch::config::Config;
use facelatch::storage::gallery::{NewTemplate, Store};
use facelatch::vision::face_picture::FacePicture;
use facelatch::vision::frame::Frame;
use facelatch::vision::pose::Pose;
use facelatch::vision::quality::Aspect;
use facelatch::vision::track::TrackId;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::path::Path;
use std::time::Duration;

/// Two doors into one area, each informing the other of passages.
pub fn two_doors() -> Result<(), String> {
    let text = "[door]\nrole = \"in\"\nanti_passback = \"hard\"\n";
    let config = Config::parse(Path::new("scene"), text).map_err(|error| error.to_string())?;
    let face = template("ada", Pose::Front).ok_or("ada")?;
    let mut people = Gallery::new(model(), SIZE);
    people.add(PersonId(1), "ada", std::slice::from_ref(&face));
    let mut doors: Vec<Controller> = vec![];
    for _ in 0..2 {
        let (mut door, first) =
            Controller::new(calibration(), config.access(), people.clone(), CHANCE, Duration::ZERO);
        let order = first.relay.ok_or("no order to lock")?.number;
        door.step(Duration::ZERO, Input::Door(door::Input::Answer { order, taken: true }));
        doors.push(door);
    }
    let visit = |doors: &mut Vec<Controller>, door: usize, from: u64| {
        let mut told = vec![];
        for frame in 0..5 {
            let now = Duration::from_millis(from + frame * 100);
            let probe = doors[door].probe(&face);
            let seen = FaceSeen {
                track: TrackId(from),
                weakest: (Aspect::Size, 1.0),
                weakest_to_enroll: (Aspect::Size, 1.0),
                turn: Pose::Front.example(),
                sample: None,
                probe: Some(probe),
            };
            let mut output = doors[door].step(now, Input::Faces { captured: now, faces: &[seen] });
            loop {
                for event in &output.events {
                    told.push(event.clone());
                    if event.kind() == "passed" {
                        let (role, ago) = (Role::In, Duration::ZERO);
                        let passed =
                            Input::Door(door::Input::Passed { person: PersonId(1), role, ago });
                        doors[1 - door].step(now, passed);
                    }
                }
                let Some(order) = output.relay else { break };
                let answer = Input::Door(door::Input::Answer { order: order.number, taken: true });
                output = doors[door].step(now, answer);
            }
        }
        told
    };
    let first = visit(&mut doors, 0, 1000);
    let fits = |expected: &str, events: &[Event]| {
        Expected::parse(expected).map(|expected| events.iter().any(|event| expected.fits(event)))
    };
    if !fits("passed name=ada role=in", &first)? {
        return Err(format!("{first:?}"));
    }
    let second = visit(&mut doors, 1, 20_000);
    if !fits("refused reason=\"passed already\" name=ada", &second)? {
        return Err(format!("{second:?}"));
    }
    Ok(())
}

/// Liveness settings that a photo alone does not pass.
const GUARDED: [&str; 4] = [
    "set liveness.motion = true",
    "set liveness.turns = 1",
    "set liveness.turns = 2",
    "set liveness.turns = 2\nset liveness.motion = true",
];

/// Somebody who is not enrolled holds a photo of ada before their face and takes it away, in
/// any rhythm: the door never opens. Ada herself, who does what the door asks, comes in.
pub fn swapped_photo() -> Result<(), String> {
    let enforce = |guarded: &str| format!("set liveness.mode = \"enforce\"\n{guarded}");
    let shows = |text: &str, frames: u64| (format!("faces {text}"), frames);
    for guarded in GUARDED {
        let mut visit = vec![shows("1=ada/turning", 10)];
        visit.extend((0..6).map(|_| shows("1=ada/ASKED", 3)));
        visit.push(shows("1=ada/turning", 20));
        if attack(&enforce(guarded), &visit)?.is_none() {
            return Err(format!("ada is kept out with {guarded}"));
        }
    }
    let photo = prop_oneof![Just("ada/photo"), Just("ada/tilted"), Just("ada/blurred")];
    let stranger = prop_oneof![
        3 => Just("eve/ASKED"),
        1 => Just("eve/turning"),
        1 => Just("eve/sharp-left"),
        1 => Just("eve/sharp-right"),
        1 => Just("eve/profile"),
        1 => Just("eva/turning"),
        1 => Just("bob/photo"),
    ];
    let one = (1u64..3, prop_oneof![3 => photo, 2 => stranger]);
    let shown = prop_oneof![
        12 => one.prop_map(|(track, face)| format!("faces {track}={face}")),
        1 => Just("faces 1=ada/photo 2=eve/ASKED".to_owned()),
        1 => Just("nobody".to_owned()),
    ];
    let steps = prop::collection::vec((shown, 1u64..8), 1..60);
    let guarded = prop::sample::select(GUARDED.as_slice());
    // The same rhythms in every run.
    let mut runner = TestRunner::new_with_rng(
        proptest::test_runner::Config {
            cases: 400,
            failure_persistence: None,
            ..Default::default()
        },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    runner
        .run(&(guarded, steps), |(guarded, steps)| {
            let granted = attack(&enforce(guarded), &steps).map_err(TestCaseError::fail)?;
            prop_assert_eq!(granted, None);
            Ok(())
        })
        .map_err(|error| error.to_string())
}

pub const INTO: &str = "FACELATCH_SCENES_ENROLL_INTO";
pub const VIEWS: usize = 5;

/// Enrolls one newcomer after another until the process is killed.
pub fn enroll_for_ever(file: &Path) {
    let pixels = (0..112 * 112 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let frame = Frame::new(112, 112, pixels).expect("112 x 112");
    let picture = FacePicture::from_arcface_crop(frame).expect("112 x 112");
    let views: Vec<NewTemplate> = Pose::ALL
        .iter()
        .filter_map(|pose| template("ada", *pose))
        .map(|template| NewTemplate { template, picture: Some(picture.clone()) })
        .collect();
    loop {
        let mut store = Store::open(file).expect("a gallery");
        store
            .enroll_unnamed(&views, Traits::default(), Some((PersonId(1), 0.1)))
            .expect("enrolled");
    }
}

/// Kills a process while it enrolls, several times, and checks the gallery that is left.
pub fn killed_while_enrolling() -> Result<(), String> {
    let folder = tempfile::TempDir::new().map_err(|error| error.to_string())?;
    let file = folder.path().join("gallery.redb");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut before = 0;
    for round in 0..8u64 {
        let mut child = std::process::Command::new(&program)
            .env(INTO, &file)
            .spawn()
            .map_err(|error| error.to_string())?;
        std::thread::sleep(Duration::from_millis(150 + 37 * round));
        child.kill().map_err(|error| error.to_string())?;
        child.wait().map_err(|error| error.to_string())?;
        let store = Store::open(&file).map_err(|error| error.to_string())?;
        let people = store.people().map_err(|error| error.to_string())?;
        for person in &people {
            if (person.templates, person.crops) != (VIEWS, VIEWS) || person.traits.stricter != 0.1 {
                return Err(format!("half enrolled: {person:?}"));
            }
        }
        if people.len() < before {
            return Err(format!("{before} people were enrolled, {} are left", people.len()));
        }
        before = people.len();
    }
    if before == 0 { Err("nobody was enrolled in all that time".to_owned()) } else { Ok(()) }
}
