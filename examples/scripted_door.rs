//! A door without devices: two portraits come one after the other, the clock is a script,
//! and the relay carries out each order at once: `scripted_door`.

use anyhow::{Context, Result, bail};
use facelatch::access::controller::{Controller, FaceSeen, Input, Output};
use facelatch::access::door;
use facelatch::access::gallery::{Gallery, PersonId};
use facelatch::config::Config;
use facelatch::models::Models;
use facelatch::vision::picture;
use facelatch::vision::recognizer::{Recognizer, View};
use facelatch::vision::track::TrackId;
use std::io::{StdoutLock, Write};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Time between two frames.
const FRAME: Duration = Duration::from_millis(100);

fn main() -> Result<()> {
    if std::env::args().len() > 1 {
        bail!("usage: scripted_door (it takes no arguments)");
    }
    let config = Config::default();
    let models = Models::built_in()?;
    let mut recognizer = Recognizer::new(&models, config.detector())?;
    let member = view(&mut recognizer, include_bytes!("../assets/astronaut.jpg"))?;
    let stranger = view(&mut recognizer, include_bytes!("../assets/grace_hopper.jpg"))?;

    let mut gallery = Gallery::for_models(&models)?;
    gallery.add(PersonId(1), "Eileen Collins", member.template.as_slice());
    // A real door needs an unpredictable seed.
    let (controller, first) =
        Controller::new(models.calibration()?, config.access(), gallery, 1, Duration::ZERO);
    let mut site = Site { controller, now: Duration::ZERO, out: std::io::stdout().lock() };
    site.carry_out(first)?;

    // Frames, the face in view, and its track.
    let script: [(Range<u32>, Option<&View>, &str); 4] = [
        (1..15, Some(&stranger), "a stranger looks into the camera"),
        (15..30, None, "nobody is in view"),
        (30..50, Some(&member), "an enrolled person looks into the camera"),
        (50..100, None, "nobody is in view"),
    ];
    for (track, (frames, view, title)) in (1..).zip(script) {
        writeln!(site.out, "{title}")?;
        for frame in frames {
            site.frame(FRAME * frame, TrackId(track), view)?;
        }
    }
    Ok(())
}

/// The only face of a picture.
fn view(recognizer: &mut Recognizer, jpeg: &[u8]) -> Result<View> {
    let frame = picture::decode(Path::new("a built-in portrait"), jpeg)?;
    recognizer.faces(&frame)?.pop().context("no face in a built-in portrait")
}

/// The surroundings of the controller: clock, relay and log.
struct Site<'o> {
    controller: Controller,
    now: Duration,
    out: StdoutLock<'o>,
}

impl Site<'_> {
    /// Passes one frame with at most one face to the controller.
    fn frame(&mut self, now: Duration, track: TrackId, view: Option<&View>) -> Result<()> {
        self.now = now;
        let face = view.map(|view| {
            let probe = view.template.as_ref().map(|template| self.controller.probe(template));
            FaceSeen::new(track, &view.quality, probe)
        });
        let input = Input::Faces { captured: now, faces: face.as_slice() };
        let output = self.controller.step(now, input);
        self.carry_out(output)
    }

    /// Prints the events, carries out the order for the relay and reports that it did, until
    /// there is no order left.
    fn carry_out(&mut self, mut output: Output) -> Result<()> {
        loop {
            for event in &output.events {
                writeln!(self.out, "  {:4.1} s  {event}", self.now.as_secs_f32())?;
            }
            let Some(order) = output.relay else { return Ok(()) };
            let relay = if order.energise { "on" } else { "off" };
            writeln!(self.out, "  {:4.1} s  relay {relay}", self.now.as_secs_f32())?;
            let answer = door::Input::Answer { order: order.number, taken: true };
            output = self.controller.step(self.now, Input::Door(answer));
        }
    }
}
