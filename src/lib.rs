//! Facelatch: a face-recognition door controller for small ARM boards.
//!
//! The program `facelatch` runs a door; this library is what it is made of. The stages from
//! a picture to a decision need no device, clock or network, so other programs can use them
//! as well.
//!
//! # The flow
//!
//! Data flows one way:
//!
//! ```text
//! camera -> Frame -> detect -> Face (box, score, 5 landmarks) -> track -> align -> Crop
//!        -> quality, liveness, embed -> Template -> gallery search
//!        -> decide (evidence over frames) -> door -> relay
//! ```
//!
//! The stages up to the template are pure functions of pictures. The decisions are state
//! machines: each step takes the time and an input and returns what to do. The caller owns
//! the clock, carries out the output and reports the results as the next inputs.
//!
//! # The rooms
//!
//! The source has eleven rooms. Each imports only rooms above it in this list; `tests/layout.rs`
//! checks that. ARCHITECTURE.md has the map of the files.
//!
//! | Room | Content |
//! |---|---|
//! | [`crypto`] | keys, sealing and signatures |
//! | [`nn`] | runs 8-bit and floating-point ONNX networks on the CPU |
//! | [`models`] | model sets: manifest, digests, thresholds, likelihood ratios, and the built-in set |
//! | [`vision`] | from pictures to templates: read, detect, track, align, measure quality and liveness, embed |
//! | [`access`] | from templates to the door: gallery in memory, evidence, schedule, lock, alarms, enrolment |
//! | [`audit`] | the audit log: records, their chain of hashes, signed heads |
//! | [`storage`] | what survives a restart: the gallery file, the files of the audit log, installed model sets, lockdown, the last relay |
//! | [`hardware`] | cameras, relays, GPIO lines and lights |
//! | [`config`] | `facelatch.toml` |
//! | [`service`] | the running door: threads, watchdog, control socket |
//! | `cli` | the commands of the program; not part of the library |
//!
//! # Detect and embed
//!
//! [`Recognizer`](vision::recognizer::Recognizer) runs all stages on a picture. Coordinates
//! are pixels, and embeddings are unit vectors.
//!
//! ```
//! use facelatch::models::Models;
//! use facelatch::vision::detect::DetectorSettings;
//! use facelatch::vision::picture;
//! use facelatch::vision::recognizer::Recognizer;
//!
//! # std::env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
//! let models = Models::built_in()?;
//! let mut recognizer = Recognizer::new(&models, DetectorSettings::default())?;
//! let frame = picture::read("assets/astronaut.jpg")?;
//! let views = recognizer.faces(&frame)?;
//! assert_eq!(views.len(), 1);
//!
//! let (x, y) = views[0].face.rect.center();
//! println!("a face at {x:.0}, {y:.0} with quality {:.2}", views[0].quality.score());
//!
//! // A view too small, dark, blurred or turned to be compared has no template.
//! let template = views[0].template.as_ref().ok_or("the view is too poor to compare")?;
//! let embedding = template.of(recognizer.model())?;
//! assert_eq!(embedding.values().len(), models.recognizer()?.embedding_size);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Compare with a gallery
//!
//! [`Gallery`](access::gallery::Gallery) finds the most similar person. The similarity that
//! counts as the same person follows from the accepted rate of errors and the number of
//! templates that the face is compared with.
//!
//! ```
//! use facelatch::access::gallery::{Gallery, PersonId};
//! # use facelatch::models::Models;
//! # use facelatch::vision::detect::DetectorSettings;
//! # use facelatch::vision::embed::Template;
//! # use facelatch::vision::picture;
//! # use facelatch::vision::recognizer::Recognizer;
//! # std::env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
//! # let models = Models::built_in()?;
//! # let mut recognizer = Recognizer::new(&models, DetectorSettings::default())?;
//!
//! let mut template = |path| -> Result<Template, Box<dyn std::error::Error>> {
//!     let views = recognizer.faces(&picture::read(path)?)?;
//!     Ok(views.into_iter().find_map(|view| view.template).ok_or("no face to compare")?)
//! };
//! let mut gallery = Gallery::for_models(&models)?;
//! gallery.add(PersonId(1), "Eileen Collins", &[template("assets/astronaut.jpg")?]);
//! gallery.add(PersonId(2), "Grace Hopper", &[template("assets/grace_hopper.jpg")?]);
//!
//! // Accepts about one stranger in 10,000 attempts.
//! let threshold = models.thresholds()?.for_attempt(1e-4, gallery.templates());
//! let visitor = template("assets/grace_hopper.jpg")?;
//! let best = gallery.best(&visitor).ok_or("the gallery is empty")?;
//! assert_eq!(best.name, "Grace Hopper");
//! assert!(best.reaches(threshold));
//! // The similarity to everybody else stays below the threshold.
//! assert!(best.runner_up < threshold.similarity);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A door with a scripted clock
//!
//! [`Controller`](access::controller::Controller) decides over several frames and gives
//! orders to the relay. The door counts as unlocked only after the relay has confirmed it.
//!
//! ```
//! use facelatch::access::controller::{Controller, FaceSeen, Input};
//! use facelatch::access::door::{self, State};
//! # use facelatch::access::gallery::{Gallery, PersonId};
//! use facelatch::config::Config;
//! # use facelatch::models::Models;
//! # use facelatch::vision::picture;
//! # use facelatch::vision::recognizer::Recognizer;
//! use facelatch::vision::track::TrackId;
//! use std::time::Duration;
//!
//! # std::env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
//! let config = Config::default();
//! # let models = Models::built_in()?;
//! # let mut recognizer = Recognizer::new(&models, config.detector())?;
//! # let mut gallery = Gallery::for_models(&models)?;
//! let view = recognizer.faces(&picture::read("assets/astronaut.jpg")?)?.pop().ok_or("no face")?;
//! let template = view.template.as_ref().ok_or("the view is too poor to compare")?;
//! gallery.add(PersonId(1), "Eileen Collins", &[template.clone()]);
//!
//! // The first order locks the door. The seed must be random at a real door.
//! let (seed, start) = (1, Duration::ZERO);
//! let calibration = models.calibration()?;
//! let (mut controller, mut output) =
//!     Controller::new(calibration, config.access(), gallery, seed, start);
//! // She stands in front of the camera for ten frames, one every 100 ms.
//! for frame in 1..=10 {
//!     let now = Duration::from_millis(100 * frame);
//!     let probe = Some(controller.probe(template));
//!     let faces = [FaceSeen::new(TrackId(1), &view.quality, probe)];
//!     // This relay carries out each order at once.
//!     while let Some(order) = output.relay {
//!         let answer = door::Input::Answer { order: order.number, taken: true };
//!         output = controller.step(now, Input::Door(answer));
//!     }
//!     output = controller.step(now, Input::Faces { captured: now, faces: &faces });
//!     output.events.iter().for_each(|event| println!("{now:?} {event}"));
//! }
//! assert_eq!(controller.door().state(), State::Open);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/` has the three as programs: `detect_and_embed`, `compare` and `scripted_door`.

pub mod access;
pub mod audit;
pub mod config;
pub mod files;
pub mod hardware;
pub mod models;
pub mod nn;
pub mod service;
pub mod storage;
pub mod vision;

pub use facelatch_crypto as crypto;
