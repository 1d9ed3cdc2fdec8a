//! A door simulator: the controller with a scripted clock, scripted faces and a scripted
//! relay, at native speed. The scenes are text files in tests/scenes/. Each scene is a
//! trial; `cargo test --test scenes -- --list` lists them.
//!
//! ```text
//! # title of the scene
//! set door.open_for = "4s"           a setting, as in the configuration
//! people ada grace=admin bob=night   enrolled people; =admin or =GROUP
//! 1.0  faces 1=ada 2=eve/left        faces from 1.0 s on: track=person/pose
//! 1.2  told granted name=ada         an event of this kind with this field, at 1.2 s
//! 1.2  shown Welcome                 a signal with this text, at 1.2 s
//! 1.2  open                          state of the lock: open or locked
//!      never alarm                   the scene has no event of this kind
//! ```
//!
//! Fields are those of the event's JSON; a value with spaces is quoted. The clock ticks
//! every 50 ms, and the camera takes a frame every 100 ms; `told` and `shown` accept events
//! up to one frame early. Other lines:
//!
//! - `nobody`: no faces in view; `lag 2.0`: seconds between a frame and its result
//! - `press SIDE`, `release SIDE`, `presses N SIDE`, `hold SIDE`: the button, with SIDE
//!   `inside` or `outside`; `hold` lasts 3.5 s
//! - `exit`, `opened`, `closed`, `command NAME`, `reset`
//! - `relay works|broken|silent|slow|away|back`, `store works|broken|silent`
//! - `clock TIME [unsynchronized|sudden]`, `clock none`: the wall clock; it does not jump when
//!   it is synchronized first, unless it is `sudden`; `trust-clock`: an administrator's order
//! - `elsewhere NAME in|out`: a passage at another door; `remove NAME`: from the gallery;
//!   `rename NAME NEW`; `report NAME`: they got in by mistake
//! - `models`: other models are used from now on
//! - `configure KEY = VALUE`: the service reloads its configuration
//! - `restart`: the power fails and comes back; `stop`: the service ends

mod cast;
mod explained;
mod replayed;
mod script;
mod simulation;
mod stage;
mod trials;

use libtest_mimic::{Arguments, Failed, Trial};
use script::{Scene, scenes};
use simulation::simulation;
use stage::play;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use trials::{INTO, enroll_for_ever, killed_while_enrolling, swapped_photo, two_doors};

/// Holds the texts of all events and signals of a file of scenes against its golden file.
/// `FACELATCH_UPDATE=1` writes that file again.
fn texts(file: &str, scenes: &[Scene]) -> Result<(), String> {
    let mut all = String::new();
    for scene in scenes {
        let _ = writeln!(all, "# {}\n{}", scene.name, play(scene)?);
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenes/{file}.log"));
    if std::env::var_os("FACELATCH_UPDATE").is_some() {
        return std::fs::write(&golden, all).map_err(|error| error.to_string());
    }
    let expected = std::fs::read_to_string(&golden).map_err(|error| error.to_string())?;
    for (number, (is, was)) in (1..).zip(all.lines().zip(expected.lines())) {
        if is != was {
            let place = golden.display();
            return Err(format!(
                "{place}:{number}: is {is:?}, was {was:?}; FACELATCH_UPDATE=1 writes it"
            ));
        }
    }
    if all.len() == expected.len() { Ok(()) } else { Err("another number of lines".to_owned()) }
}

fn main() {
    if let Some(file) = std::env::var_os(INTO) {
        return enroll_for_ever(Path::new(&file));
    }
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("anti-passback: two doors inform each other of passages", || {
            two_doors().map_err(Failed::from)
        }),
        Trial::test("liveness: a photo and a stranger's head in any rhythm never open", || {
            swapped_photo().map_err(Failed::from)
        }),
        Trial::test("simulation: invariants hold whatever happens, and memory is flat", || {
            simulation().map_err(Failed::from)
        }),
        Trial::test("enrolment: a kill at any moment leaves nobody half enrolled", || {
            killed_while_enrolling().map_err(Failed::from)
        }),
    ];
    let files = [
        ("decision", include_str!("decision.txt")),
        ("liveness", include_str!("liveness.txt")),
        ("door", include_str!("door.txt")),
        ("relay", include_str!("relay.txt")),
        ("schedule", include_str!("schedule.txt")),
        ("enrolment", include_str!("enrolment.txt")),
        ("reload", include_str!("reload.txt")),
        ("false_entries", include_str!("false_entries.txt")),
    ];
    trials.push(Trial::test("replay: nearly all decisions are derived again", move || {
        replayed::nearly_all(&files).map_err(Failed::from)
    }));
    trials
        .push(Trial::test("audit log: explanations", || explained::golden().map_err(Failed::from)));
    trials.push(Trial::test("audit log: bytes of attempts", || {
        explained::sizes().map_err(Failed::from)
    }));
    trials.push(Trial::test("audit log: damaged records do no harm", || {
        replayed::damaged().map_err(Failed::from)
    }));
    trials.push(Trial::test("replay: another threshold is named", || {
        replayed::other_threshold().map_err(Failed::from)
    }));
    for (file, text) in files {
        match scenes(text) {
            Ok(scenes) => {
                let scenes = Arc::new(scenes);
                for number in 0..scenes.len() {
                    let name = format!("{file}: {}", scenes[number].name);
                    let scenes = Arc::clone(&scenes);
                    trials.push(Trial::test(name, move || {
                        play(&scenes[number]).map(drop).map_err(Failed::from)
                    }));
                }
                trials.push(Trial::test(format!("{file}: texts of the events"), move || {
                    texts(file, &scenes).map_err(Failed::from)
                }));
            }
            Err(fault) => {
                let fault = format!("tests/scenes/{file}.txt: {fault}");
                trials.push(Trial::test(file, move || Err(Failed::from(fault))));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
