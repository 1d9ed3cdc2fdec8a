//! Derives a decision again from the inputs that were kept, with the state machines of this
//! program, and names every difference.
//!
//! Evidence over frames, liveness and the door are derived. What the schedule and a lockout
//! said is taken from the inputs, because it depends on a clock and on earlier attempts.

use super::entry::Entry;
use super::field::Value;
use super::of_event::of_event;
use crate::access::attempt::{AskedDoor, Attempt, FrameTaken, Rules, Step, Tape, ViewTaken};
use crate::access::decide::{Alike, Decider, Decision, Evidence, Observation, Seen, Sighting};
use crate::access::door::{self, Door, DoorSettings, Refusal};
use crate::access::event::Event;
use crate::access::gallery::{Candidate, Denied, PersonId, Probe};
use crate::access::liveness::challenge::ChallengeSettings;
use crate::access::liveness::{FaceToJudge, LivenessAdmission, LivenessGuard};
use crate::access::schedule::Admission;
use crate::models::ModelId;
use crate::models::threshold::Threshold;
use crate::vision::embed::{Embedding, Template};
use crate::vision::liveness::{Sample, Verdict};
use crate::vision::track::{MAX_TRACKS, TrackId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Details of a decision that must come out the same, bit for bit.
const DERIVED: [&str; 13] = [
    "reason",
    "person",
    "track",
    "similarity",
    "frames",
    "of",
    "log_ratio",
    "log_ratio_needed",
    "schedule",
    "again",
    "faces",
    "score",
    "cue",
];

/// What a replay derives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The person is admitted.
    Granted(Evidence, Admission, bool),
    /// The person is known and not admitted.
    NotGranted(Evidence, Refusal),
    /// The person is known, and what the door would say was not asked then.
    Known(Evidence),
    /// The person does not look live; whether that keeps the door locked.
    NotLive(Evidence, Verdict, bool),
    /// Somebody unknown.
    Stranger {
        /// Their track.
        track: TrackId,
        /// Highest similarity to anybody.
        similarity: f32,
        /// Frames.
        frames: usize,
        /// Whether a reported view spoke against a match.
        denied: bool,
    },
    /// Several faces.
    TwoFaces(usize),
    /// No decision yet.
    Open,
}

impl Outcome {
    /// In words, as a clause.
    pub fn words(&self) -> String {
        match self {
            Self::Granted(..) => "the person is admitted".to_owned(),
            Self::NotGranted(_, why) => {
                let event = door::Event::NotOpenedByCommand(*why);
                let text = Event::Door(event).to_string();
                let why = text.trim_start_matches("not opened by command: ");
                format!("the person is refused: {}", why.trim_end_matches("; end that first"))
            }
            Self::Known(_) => "the person is recognized; whether the door would have admitted \
                               them was not asked then"
                .to_owned(),
            Self::NotLive(_, _, true) => "the person is refused as not live".to_owned(),
            Self::NotLive(_, _, false) => "the person is reported as not live".to_owned(),
            Self::Stranger { .. } => "the person is refused as unknown".to_owned(),
            Self::TwoFaces(faces) => format!("refused: {faces} faces"),
            Self::Open => "nothing is decided".to_owned(),
        }
    }
}

/// Longest time in a tape: thirty years. Longer ones are no times of a door, and sums of
/// them would overflow.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

/// Whether all times are those of a door.
fn is_plausible(tape: &Tape, rules: &Rules) -> bool {
    let mut times = vec![
        tape.begins,
        rules.decide.evidence_expires,
        rules.decide.again_after,
        rules.passback.forget,
    ];
    if let Some(challenge) = rules.liveness.challenge {
        let ChallengeSettings { each, valid_for, again_after, lost_after, .. } = challenge;
        times.extend([each, valid_for, again_after, lost_after]);
    }
    if let Some(asked) = &tape.asked {
        times.extend(asked.locked_out);
        times.extend(asked.passage.map(|(_, seconds)| Duration::from_secs(seconds)));
    }
    let frames = tape.steps.iter().filter_map(|step| match step {
        Step::Frame(frame) => Some(Duration::from_nanos(frame.after)),
        _ => None,
    });
    times.push(frames.fold(Duration::ZERO, Duration::saturating_add));
    times.iter().all(|time| *time <= LONGEST)
}

/// A view of which only its similarities are known.
#[derive(Clone, Debug)]
struct Recorded {
    /// Place among the views of its track.
    place: usize,
    /// Cosines to the views before it.
    alike: Arc<[f32]>,
}

impl Alike for Recorded {
    fn cosine(&self, other: &Self) -> Option<f32> {
        let (later, earlier) = if self.place > other.place { (self, other) } else { (other, self) };
        later.alike.get(earlier.place).copied().filter(|cosine| !cosine.is_nan())
    }
}

/// Derives the decision on a track by these rules; `track` is `None` if several faces were
/// refused. With other rules than those of the tape it is what would have come out.
pub fn replay(tape: &Tape, rules: &Rules, track: Option<TrackId>) -> Outcome {
    if !is_plausible(tape, rules) {
        return Outcome::Open;
    }
    let sides = tape.steps.iter().filter_map(|step| match step {
        Step::Admit { sides, .. } => *sides,
        _ => None,
    });
    let mut machines = Machines {
        decider: Decider::new(rules.decide),
        guard: LivenessGuard::replaying(rules.liveness, rules.resembles, sides.collect()),
        views: BTreeMap::new(),
        threshold: rules.threshold,
        threshold_then: tape.rules.threshold,
        template: Template::new(ModelId::new("replay"), Embedding::normalized(&[1.0])),
    };
    machines.decider.weigh(rules.weighing, rules.same_face);
    let last = tape.steps.iter().rposition(|step| matches!(step, Step::Frame(_)));
    let (mut now, mut captured) = (tape.begins, tape.begins);
    let mut outcome = Outcome::Open;
    for (at, step) in tape.steps.iter().enumerate() {
        match step {
            Step::Frame(frame) => {
                // The first frame is at the beginning.
                now += Duration::from_nanos(frame.after);
                captured = now.saturating_sub(Duration::from_nanos(frame.age));
                let decisions = machines.frame(now, captured, frame);
                if Some(at) == last {
                    outcome = decided(&decisions, track);
                }
            }
            Step::Clear => machines.decider.clear(),
            Step::NotOpened { track } => machines.decider.not_opened(TrackId(*track)),
            Step::Admit { track: asked, person, proof, .. } => {
                let (asked, person) = (TrackId(*asked), PersonId(*person));
                let admitted = machines.guard.admit(captured, asked, person, *proof);
                if let Outcome::Known(evidence) = outcome
                    && evidence.track == asked
                {
                    outcome = judged(evidence, admitted, tape.asked.is_some());
                }
            }
        }
    }
    match (outcome, &tape.asked) {
        (Outcome::Known(evidence), Some(asked)) => at_door(now, evidence, asked, rules),
        _ => outcome,
    }
}

fn decided(decisions: &[Decision], track: Option<TrackId>) -> Outcome {
    let of_track = decisions.iter().find_map(|decision| match *decision {
        Decision::Grant(evidence) if Some(evidence.track) == track => {
            Some(Outcome::Known(evidence))
        }
        Decision::Stranger { track: its, similarity, frames, denied } if Some(its) == track => {
            Some(Outcome::Stranger { track: its, similarity, frames, denied })
        }
        Decision::TwoFaces { faces } => Some(Outcome::TwoFaces(faces)),
        _ => None,
    });
    of_track.unwrap_or(Outcome::Open)
}

/// `asked` is whether the door was asked after liveness.
fn judged(evidence: Evidence, admitted: LivenessAdmission, asked: bool) -> Outcome {
    match admitted {
        LivenessAdmission::Refused(Some(verdict)) => Outcome::NotLive(evidence, verdict, true),
        LivenessAdmission::Advised(Some(verdict)) if !asked => {
            Outcome::NotLive(evidence, verdict, false)
        }
        LivenessAdmission::Open | LivenessAdmission::Advised(_) => Outcome::Known(evidence),
        LivenessAdmission::Wait(_) | LivenessAdmission::Refused(None) => Outcome::Open,
    }
}

fn at_door(now: Duration, evidence: Evidence, asked: &AskedDoor, rules: &Rules) -> Outcome {
    if asked.probation {
        return Outcome::NotGranted(evidence, Refusal::Probation);
    }
    let person = evidence.person;
    let settings = DoorSettings { passback: rules.passback, ..DoorSettings::default() };
    let (mut door, _) = Door::new(now, settings);
    if let Some((role, seconds)) = asked.passage {
        let ago = Duration::from_secs(seconds);
        door.step(now, door::Input::Passed { person, role, ago });
    }
    if asked.lockdown {
        door.step(now, door::Input::Command(door::Command::Lockdown));
    }
    if asked.duress {
        door.step(now, door::Input::Duress);
    }
    if asked.stopped {
        door.step(now, door::Input::Stop);
    }
    let (admission, locked_out) = (asked.admission, asked.locked_out);
    let output = door.step(now, door::Input::Known { person, admission, locked_out });
    let answer = output.events.iter().find_map(|event| match *event {
        door::Event::Granted { admission, again, .. } => {
            Some(Outcome::Granted(evidence, admission, again))
        }
        door::Event::NotGranted { why, .. } => Some(Outcome::NotGranted(evidence, why)),
        _ => None,
    });
    answer.unwrap_or(Outcome::Open)
}

struct Machines {
    decider: Decider<Recorded>,
    guard: LivenessGuard,
    /// Views so far, by track.
    views: BTreeMap<u64, usize>,
    threshold: f32,
    /// The threshold when the tape was recorded.
    threshold_then: f32,
    /// Stands for all views where liveness wants one.
    template: Template,
}

impl Machines {
    fn frame(&mut self, now: Duration, captured: Duration, frame: &FrameTaken) -> Vec<Decision> {
        let faces = &frame.faces[..frame.faces.len().min(MAX_TRACKS)];
        let best: Vec<Option<Candidate>> =
            faces.iter().map(|face| self.candidate(face.view.as_ref()?)).collect();
        let samples: Vec<Option<Sample>> =
            faces.iter().map(|face| face.sample.map(Sample::from)).collect();
        let template = &self.template;
        let judged = faces.iter().zip(&samples).zip(&best).filter_map(|((face, sample), best)| {
            let probe = face.view.is_some().then_some(Probe { template, best: *best });
            let (track, yaw) = (TrackId(face.track), face.yaw);
            Some(FaceToJudge { track, sample: sample.as_ref()?, yaw, probe })
        });
        let claimed = |track: TrackId, _: &Template, _: PersonId| {
            let face = faces.iter().find(|face| face.track == track.0)?;
            face.view.as_ref()?.claimed.flatten()
        };
        self.guard.step(captured, judged, claimed);
        let looks: Vec<Option<Recorded>> = faces
            .iter()
            .map(|face| {
                let alike = face.view.as_ref()?.alike.as_slice().into();
                let next = self.views.entry(face.track).or_default();
                let place = *next;
                *next += 1;
                Some(Recorded { place, alike })
            })
            .collect();
        if !frame.decides {
            return Vec::new();
        }
        let observations: Vec<Observation<'_, Recorded>> = faces
            .iter()
            .zip(&looks)
            .zip(&best)
            .map(|((face, look), best)| {
                let track = TrackId(face.track);
                let Some(look) = look else {
                    return Observation { track, seen: Seen::Poor, look: None };
                };
                let (seen, most_alike) = Seen::of(*best);
                let look = Sighting { template: look, quality: face.quality, most_alike };
                Observation { track, seen, look: Some(look) }
            })
            .collect();
        self.decider.result(now, captured, &observations).to_vec()
    }

    fn candidate(&self, view: &ViewTaken) -> Option<Candidate> {
        let best = view.best?;
        let reached = |threshold: f32| best.similarity >= threshold + best.stricter;
        // Something else than the threshold kept the view out.
        let kept_out = reached(self.threshold_then) && !best.reaches;
        let same = self.threshold.to_bits() == self.threshold_then.to_bits();
        let reaches = if same { best.reaches } else { reached(self.threshold) && !kept_out };
        let denied = match best.denied {
            false => Denied::No,
            true if reached(self.threshold) => Denied::Match,
            true => Denied::BelowThreshold,
        };
        let (person, similarity) = (PersonId(best.person), best.similarity);
        Some(Candidate { person, similarity, reaches, denied })
    }
}

/// A detail that came out differently: name, then, now.
pub type Difference = (String, String, String);

/// What comes out differently than was recorded; empty if nothing does. `None` if the entry
/// has no inputs.
pub fn differences(entry: &Entry) -> Option<Vec<Difference>> {
    let tape = entry.inputs.as_ref()?;
    let outcome = replay(tape, &tape.rules, entry.count("track").map(TrackId));
    let derived = as_entry(&outcome);
    let mut different = Vec::new();
    if derived.event != entry.event {
        different.push(("event".to_owned(), entry.event.clone(), derived.event.clone()));
    }
    for name in DERIVED {
        let value = |entry: &Entry| {
            let fact = entry.facts.iter().find(|fact| fact.name() == name);
            fact.map(|fact| fact.value.clone())
        };
        let (then, now) = (value(entry), value(&derived));
        if then != now {
            let shown =
                |value: Option<Value>| value.map_or("none".to_owned(), |v| v.to_json().to_string());
            different.push((name.to_owned(), shown(then), shown(now)));
        }
    }
    Some(different)
}

/// The outcome as the entry that its event would give.
fn as_entry(outcome: &Outcome) -> Entry {
    let threshold = Threshold { similarity: 0.0, extrapolated: false };
    let (name, attempt) = (String::new(), Arc::<Attempt>::default());
    let event = match *outcome {
        Outcome::Granted(evidence, admission, again) => {
            Event::Granted { name, evidence, threshold, admission, again, attempt }
        }
        Outcome::NotGranted(evidence, why) => {
            Event::NotGranted { name, evidence, threshold, why, attempt }
        }
        Outcome::NotLive(Evidence { person, track, .. }, verdict, enforced) => {
            Event::NotLive { track, verdict, enforced, person, attempt }
        }
        Outcome::Stranger { track, similarity, frames, denied } => {
            Event::Stranger { track, similarity, frames, threshold, denied, attempt }
        }
        Outcome::TwoFaces(faces) => Event::TwoFaces { faces, attempt },
        Outcome::Known(_) | Outcome::Open => return Entry::new("nothing"),
    };
    of_event(Duration::ZERO, &event)
}

/// Rules that differ: name, then, now.
pub fn changed_rules(then: &Rules, now: &Rules) -> Vec<Difference> {
    let mut different = Vec::new();
    // Cannot fail: the rules have only numbers, words and names.
    let value = |rules: &Rules| serde_json::to_value(rules).unwrap_or_default();
    compare("", &value(then), &value(now), &mut different);
    different
}

fn compare(
    name: &str,
    then: &serde_json::Value,
    now: &serde_json::Value,
    into: &mut Vec<Difference>,
) {
    use serde_json::Value;
    match (then, now) {
        (Value::Object(a), Value::Object(b)) if !a.contains_key("nanos") => {
            for (key, then) in a {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                compare(&name, then, b.get(key).unwrap_or(&Value::Null), into);
            }
        }
        (then, now) if then != now => into.push((name.to_owned(), shown(then), shown(now))),
        _ => {}
    }
}

fn shown(value: &serde_json::Value) -> String {
    if let (Some(secs), Some(nanos)) = (value["secs"].as_u64(), value["nanos"].as_u64()) {
        return format!("{} s", secs as f64 + nanos as f64 / 1e9);
    }
    match value {
        serde_json::Value::Number(number) => match number.as_f64() {
            Some(float) if !number.is_u64() => format!("{float:.4}"),
            _ => number.to_string(),
        },
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}
