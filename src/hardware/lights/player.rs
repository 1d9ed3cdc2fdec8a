//! Plays signals on a light of three colours and a buzzer: patterns of beats over time.
//!
//! ```text
//!            signal                 signal: from its first beat
//!   Dark -------------> Playing ------+
//!     ^                  |    ^       |
//!     +-- last beat over +    +-------+
//! ```
//!
//! An alarm runs in addition: it starts at once, continues whenever no other signal
//! plays, and ends only with [`Signal::Quiet`].

use super::pattern::{Beat, Colour, Pattern, pattern};
use crate::access::signal::Signal;
use std::fmt;
use std::time::Duration;

/// One output of the signal light or the buzzer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lamp {
    /// The red light.
    Red,
    /// The green light.
    Green,
    /// The blue light.
    Blue,
    /// The buzzer.
    Buzzer,
}

impl fmt::Display for Lamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Red => "red light",
            Self::Green => "green light",
            Self::Blue => "blue light",
            Self::Buzzer => "buzzer",
        })
    }
}

impl Lamp {
    /// Whether the lamp is on at these levels.
    pub(super) fn of(self, levels: Levels) -> bool {
        match self {
            Self::Red => levels.red,
            Self::Green => levels.green,
            Self::Blue => levels.blue,
            Self::Buzzer => levels.buzzer,
        }
    }
}

/// Levels of light and buzzer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Whether the red light is on.
    pub red: bool,
    /// Whether the green light is on.
    pub green: bool,
    /// Whether the blue light is on.
    pub blue: bool,
    /// Whether the buzzer sounds.
    pub buzzer: bool,
}

impl Levels {
    fn of(beat: &Beat) -> Self {
        Self {
            red: beat.light == Colour::Red,
            green: beat.light == Colour::Green,
            blue: beat.light == Colour::Blue,
            buzzer: beat.sound,
        }
    }
}

/// Levels for now, and how long they last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lit {
    /// The levels.
    pub levels: Levels,
    /// When they may change; `None` if no signal plays.
    pub until: Option<Duration>,
}

/// Plays one signal at a time, and an alarm until [`Signal::Quiet`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Player {
    /// Pattern of the alarm and its start.
    standing: Option<(Pattern, Duration)>,
    /// Pattern of the signal that plays instead for now, and its start.
    playing: Option<(Pattern, Duration)>,
}

impl Player {
    /// Takes a signal, which replaces the one before unless that is an alarm, or lets
    /// time pass. Beats that fell between two steps are skipped.
    pub fn step(&mut self, now: Duration, signal: Option<Signal>) -> Lit {
        match signal {
            Some(Signal::Quiet) => self.standing = None,
            Some(alarm) if alarm.stands() => {
                (self.standing, self.playing) = (Some((pattern(alarm), now)), None);
            }
            Some(signal) => self.playing = Some((pattern(signal), now)),
            None => {}
        }
        let playing = lit(self.playing, now);
        if playing.is_none() {
            self.playing = None;
        }
        playing.or_else(|| lit(self.standing, now)).unwrap_or_default()
    }
}

fn lit(playing: Option<(Pattern, Duration)>, now: Duration) -> Option<Lit> {
    let (pattern, began) = playing?;
    let (beat, ends) = at(&pattern, now.saturating_sub(began))?;
    Some(Lit { levels: Levels::of(beat), until: Some(began + ends) })
}

/// The beat of a pattern at the time `after` its start, and the end of that beat after
/// the start; `None` once the pattern is over.
fn at(pattern: &Pattern, after: Duration) -> Option<(&Beat, Duration)> {
    let lasts = |beat: &Beat| Duration::from_millis(beat.ms.into());
    let round: Duration = pattern.beats.iter().map(lasts).sum();
    // A pattern of zero length is over at once.
    let rounds = after.as_millis().checked_div(round.as_millis())?;
    if pattern.times.is_some_and(|times| rounds >= u128::from(times)) {
        return None;
    }
    // u32 counts weeks of rounds, longer than any signal.
    let mut ends = round * u32::try_from(rounds).ok()?;
    pattern.beats.iter().find_map(|beat| {
        ends += lasts(beat);
        (after < ends).then_some((beat, ends))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::liveness::challenge::Direction;
    use proptest::prelude::*;

    const DARK: Levels = Levels { red: false, green: false, blue: false, buzzer: false };
    const GREEN: Levels = Levels { green: true, ..DARK };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The levels and the times of their changes between `from` and `to`, in
    /// milliseconds.
    fn played(signal: Signal, from: u64, to: u64) -> Vec<(u64, Levels)> {
        let mut player = Player::default();
        let mut lit = player.step(ms(from), Some(signal));
        let mut changes = vec![(from, lit.levels)];
        while let Some(until) = lit.until.filter(|until| *until < ms(to)) {
            lit = player.step(until, None);
            changes.push((until.as_millis() as u64, lit.levels));
        }
        changes
    }

    #[test]
    fn a_welcome_beeps_and_stays_green_for_a_while() {
        let beep = Levels { buzzer: true, ..GREEN };
        assert_eq!(played(Signal::Welcome, 100, 9000), [(100, beep), (250, GREEN), (1600, DARK)]);
    }

    #[test]
    fn a_waiting_signal_blinks_until_the_next_one() {
        let blinks = played(Signal::Newcomer, 0, 60_000);
        assert_eq!(blinks.len(), 240);
        let mut player = Player::default();
        player.step(ms(0), Some(Signal::Siren));
        // An hour later, without a step in between.
        assert!(player.step(ms(3_600_000), None).levels.buzzer);
        assert_eq!(player.step(ms(3_600_050), Some(Signal::Quiet)).levels, DARK);
        let lit = player.step(ms(3_600_060), None);
        assert_eq!((lit.levels, lit.until), (DARK, None));
    }

    #[test]
    fn an_alarm_continues_after_other_signals() {
        let siren = Levels { red: true, buzzer: true, ..DARK };
        for shown in [Signal::Welcome, Signal::Enrolled, Signal::View { taken: 2, of: 5 }] {
            let mut player = Player::default();
            player.step(ms(0), Some(Signal::Siren));
            let lit = player.step(ms(900), Some(shown));
            assert_ne!(lit.levels, siren, "{shown:?}");
            // The siren repeats every 0.6 seconds.
            assert_eq!(player.step(ms(6000), None).levels, siren, "after {shown:?}");
            assert_eq!(player.step(ms(6001), Some(Signal::Quiet)), Lit::default());
        }
        // Of two alarms the later counts; the signal for an awaited newcomer hides it.
        let mut player = Player::default();
        player.step(ms(0), Some(Signal::CloseDoor));
        player.step(ms(1), Some(Signal::Newcomer));
        assert!(player.step(ms(60_001), None).levels.blue);
        assert_eq!(player.step(ms(60_002), Some(Signal::Siren)).levels, siren);
        assert!(player.step(ms(60_003), Some(Signal::Welcome)).levels.green);
        // A signal that plays when the alarm ends is played to its end.
        assert!(player.step(ms(60_004), Some(Signal::Quiet)).levels.green);
        assert_eq!(player.step(ms(62_000), None), Lit::default());
    }

    #[test]
    fn nothing_is_lit_before_the_first_signal() {
        let lit = Player::default().step(ms(5), None);
        assert_eq!((lit.levels, lit.until), (DARK, None));
    }

    proptest! {
        #[test]
        fn one_colour_at_a_time_and_every_change_lies_ahead(
            which in 0usize..9,
            began in 0u64..100_000,
            steps in prop::collection::vec(0u64..2000, 0..50),
        ) {
            let signals = [
                Signal::Welcome,
                Signal::Refused,
                Signal::Closer,
                Signal::Turn(Direction::Left),
                Signal::View { taken: 3, of: 5 },
                Signal::View { taken: 0, of: 5 },
                Signal::CloseDoor,
                Signal::Siren,
                Signal::Quiet,
            ];
            let mut player = Player::default();
            let mut now = began;
            let mut lit = player.step(ms(now), Some(signals[which]));
            for later in steps {
                let Levels { red, green, blue, .. } = lit.levels;
                prop_assert!(u8::from(red) + u8::from(green) + u8::from(blue) <= 1);
                match lit.until {
                    Some(until) => prop_assert!(until > ms(now)),
                    None => prop_assert_eq!(lit.levels, DARK),
                }
                now += later;
                let next = player.step(ms(now), None);
                // Nothing changes before it is due.
                if lit.until.is_none_or(|until| ms(now) < until) {
                    prop_assert_eq!(next, lit);
                }
                lit = next;
            }
        }
    }
}
