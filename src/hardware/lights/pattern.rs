//! How each signal looks and sounds.

use crate::access::liveness::challenge::Direction;
use crate::access::signal::Signal;

/// Colour of the light.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    /// No light.
    Off,
    /// Success.
    Green,
    /// Refusal or alarm.
    Red,
    /// The device waits for the person.
    Blue,
}

/// One step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Duration in milliseconds.
    pub ms: u16,
    /// Colour of the light.
    pub light: Colour,
    /// Whether the buzzer sounds.
    pub sound: bool,
}

/// A sequence of beats. A new signal replaces the pattern; the pattern of an alarm resumes
/// afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// At least one beat.
    pub beats: &'static [Beat],
    /// Number of repetitions; `None` repeats until the next signal.
    pub times: Option<u8>,
}

const fn beat(ms: u16, light: Colour, sound: bool) -> Beat {
    Beat { ms, light, sound }
}

use Colour::{Blue, Green, Off, Red};

const WELCOME: &[Beat] = &[beat(150, Green, true), beat(1350, Green, false)];
const REFUSED: &[Beat] = &[beat(600, Red, true), beat(900, Red, false)];
const CLOSER: &[Beat] = &[beat(120, Blue, false), beat(380, Off, false)];
const LIGHT: &[Beat] =
    &[beat(120, Blue, false), beat(120, Off, false), beat(120, Blue, false), beat(640, Off, false)];
const LOOK: &[Beat] = &[beat(400, Blue, false), beat(100, Off, false)];
const WHOLE: &[Beat] = &[
    beat(120, Blue, false),
    beat(120, Off, false),
    beat(120, Blue, false),
    beat(120, Off, false),
    beat(120, Blue, false),
    beat(400, Off, false),
];
const LEFT: &[Beat] = &[beat(60, Blue, true), beat(440, Blue, false)];
const RIGHT: &[Beat] =
    &[beat(60, Blue, true), beat(100, Blue, false), beat(60, Blue, true), beat(280, Blue, false)];
const MOVE: &[Beat] = &[
    beat(60, Blue, true),
    beat(60, Blue, false),
    beat(60, Blue, true),
    beat(60, Blue, false),
    beat(60, Blue, true),
    beat(500, Off, false),
];
const ONE: &[Beat] = &[beat(120, Red, false), beat(120, Off, false)];
const ADMINISTRATOR: &[Beat] = &[beat(100, Blue, false), beat(100, Red, false)];
const NEWCOMER: &[Beat] = &[beat(250, Blue, false), beat(250, Green, false)];
const VIEW: &[Beat] =
    &[beat(80, Green, true), beat(170, Off, false), beat(250, Blue, false), beat(250, Off, false)];
const ENROLLED: &[Beat] = &[beat(150, Green, true), beat(100, Green, false)];
const NOT_ENROLLED: &[Beat] = &[beat(300, Red, true), beat(200, Off, false)];
const CLOSE_DOOR: &[Beat] = &[beat(100, Red, true), beat(900, Off, false)];
const SIREN: &[Beat] = &[beat(500, Red, true), beat(100, Off, true)];
const QUIET: &[Beat] = &[beat(1, Off, false)];

/// Pattern of the signal.
pub fn pattern(signal: Signal) -> Pattern {
    let (beats, times) = match signal {
        Signal::Welcome => (WELCOME, Some(1)),
        Signal::Refused => (REFUSED, Some(1)),
        Signal::Closer => (CLOSER, Some(4)),
        Signal::Light => (LIGHT, Some(2)),
        Signal::LookAtCamera => (LOOK, Some(4)),
        Signal::WholeFace => (WHOLE, Some(2)),
        // One beep for left, two beeps for right, repeated.
        Signal::Turn(Direction::Left) => (LEFT, Some(4)),
        Signal::Turn(Direction::Right) => (RIGHT, Some(4)),
        Signal::Move => (MOVE, Some(3)),
        Signal::OneAtATime => (ONE, Some(6)),
        Signal::Administrator => (ADMINISTRATOR, None),
        Signal::Newcomer => (NEWCOMER, None),
        // One beep per view.
        Signal::View { taken, .. } => (VIEW, Some(taken.max(1))),
        Signal::Enrolled => (ENROLLED, Some(3)),
        Signal::NotEnrolled => (NOT_ENROLLED, Some(2)),
        Signal::CloseDoor => (CLOSE_DOOR, None),
        Signal::Siren => (SIREN, None),
        Signal::Quiet => (QUIET, Some(1)),
    };
    Pattern { beats, times }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Signal; 18] = [
        Signal::Welcome,
        Signal::Refused,
        Signal::Closer,
        Signal::Light,
        Signal::LookAtCamera,
        Signal::WholeFace,
        Signal::Turn(Direction::Left),
        Signal::Turn(Direction::Right),
        Signal::Move,
        Signal::OneAtATime,
        Signal::Administrator,
        Signal::Newcomer,
        Signal::View { taken: 1, of: 5 },
        Signal::Enrolled,
        Signal::NotEnrolled,
        Signal::CloseDoor,
        Signal::Siren,
        Signal::Quiet,
    ];

    #[test]
    fn no_two_signals_look_alike_and_all_but_waiting_end() {
        for (at, signal) in ALL.iter().enumerate() {
            let shown = pattern(*signal);
            assert!(shown.beats.iter().all(|beat| beat.ms > 0) && !shown.beats.is_empty());
            for other in &ALL[at + 1..] {
                assert_ne!(shown.beats, pattern(*other).beats, "{signal:?} {other:?}");
            }
            if let Some(times) = shown.times {
                let once: u32 = shown.beats.iter().map(|beat| u32::from(beat.ms)).sum();
                assert!(once * u32::from(times) <= 2500, "{signal:?} lasts too long");
            }
        }
    }

    #[test]
    fn as_many_beeps_as_views() {
        for taken in 1..=5 {
            let shown = pattern(Signal::View { taken, of: 5 });
            let beeps = shown.beats.iter().filter(|beat| beat.sound).count();
            assert_eq!(beeps * usize::from(shown.times.expect("an end")), usize::from(taken));
        }
    }
}
