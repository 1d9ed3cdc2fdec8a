//! Trials that are more than one scripted door.

use crate::cast::{CHANCE, SIZE, calibration, model, template};
use crate::script::Expected;
use facelatch::access::controller::{Controller, FaceSeen, Input};
use facelatch::access::door::{self, Role};
use facelatch::access::event::Event;
use facelatch::access::gallery::{Gallery, PersonId};
use facelatch::config::Config;
use facelatch::storage::gallery::{NewTemplate, Store};
use facelatch::vision::face_picture::FacePicture;
use facelatch::vision::frame::Frame;
use facelatch::vision::pose::Pose;
use facelatch::vision::quality::Aspect;
use facelatch::vision::track::TrackId;
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
        store.enroll_unnamed(&views, false, Some((PersonId(1), 0.1))).expect("enrolled");
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
