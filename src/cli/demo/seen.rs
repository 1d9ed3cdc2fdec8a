//! What a drawn frame of the demo shows: the faces, the last decision and the door.

use crate::cli::save::{recognition, score_line};
use facelatch::access::event::Event;
use facelatch::service::pipeline::{Looked, Pipeline};
use facelatch::vision::draw::{self, Colour, Mark};
use facelatch::vision::frame::Frame;
use facelatch::vision::recognizer::View;
use facelatch::vision::track::TrackId;
use std::collections::BTreeMap;

/// What was seen during a visit.
#[derive(Default)]
pub struct Seen {
    /// Faces of the newest frame.
    faces: Vec<Mark>,
    /// Last comparison of each track: not every frame of a track is compared.
    compared: BTreeMap<TrackId, (Colour, Vec<String>)>,
    decision: Option<Decision>,
}

/// The last decision, or the last advice.
struct Decision {
    text: String,
    refused: bool,
}

impl Seen {
    /// Takes the faces of a frame, and the events that followed.
    pub fn update(&mut self, pipeline: &Pipeline, looked: &Looked, events: &[Event]) {
        self.faces.clear();
        let threshold = pipeline.threshold().similarity;
        let gallery = pipeline.gallery();
        for (track, view, best) in looked.faces() {
            if view.template.is_some() {
                let compared = match best {
                    Some(best) => {
                        let name = gallery.name(best.person).filter(|_| best.reaches);
                        let stricter = gallery.traits(best.person).map_or(0.0, |it| it.stricter);
                        recognition(name, Some(best.similarity), threshold + stricter)
                    }
                    None => recognition(None, None, threshold),
                };
                self.compared.insert(track, compared);
            }
            self.faces.push(mark(view, self.compared.get(&track)));
        }
        if let Some(decision) = events.iter().filter_map(Decision::of).next_back() {
            self.decision = Some(decision);
        }
    }

    /// The frame with everything drawn on it.
    pub fn drawn(&self, mut frame: Frame, pipeline: &Pipeline) -> Frame {
        draw::faces(&mut frame, &self.faces);
        let refused = self.decision.as_ref().is_some_and(|decision| decision.refused);
        let (state, colour) = match (pipeline.locked(), refused) {
            (false, _) => ("door unlocked", draw::KNOWN),
            (true, true) => ("door locked", draw::UNKNOWN),
            (true, false) => ("door locked", draw::PLAIN),
        };
        let mut lines = vec![state.to_owned()];
        lines.extend(self.decision.as_ref().map(|decision| decision.text.clone()));
        draw::caption(&mut frame, &lines, colour);
        frame
    }
}

fn mark(view: &View, compared: Option<&(Colour, Vec<String>)>) -> Mark {
    let (colour, mut lines) = compared.cloned().unwrap_or((draw::FOUND, Vec::new()));
    lines.push(score_line(view.face.score));
    Mark { rect: view.face.rect, landmarks: view.face.landmarks, colour, lines }
}

impl Decision {
    /// The decision or advice of an event, if it is one.
    fn of(event: &Event) -> Option<Self> {
        let refused = match event {
            Event::Granted { .. } | Event::Poor(_) => false,
            Event::NotGranted { .. }
            | Event::Stranger { .. }
            | Event::TwoFaces { .. }
            | Event::NotLive { .. } => true,
            _ => return None,
        };
        // The figures of the decision stand beside the face.
        let text = event.to_string();
        let text = text.split(", ").next().unwrap_or(&text).to_owned();
        Some(Self { text, refused })
    }
}
