//! A light of three colours and a buzzer over time: signals played beat by beat.
//!
//! ```text
//!            signal                 signal: from its first beat
//!   Dark -------------> Playing ------+
//!     ^                  |    ^       |
//!     +-- last beat over +    +-------+
//! ```

use crate::signals::{Beat, Colour, Pattern, Signal};
use std::time::Duration;

/// What is lit, and whether it sounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// The red light.
    pub red: bool,
    /// The green light.
    pub green: bool,
    /// The blue light.
    pub blue: bool,
    /// The buzzer.
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

/// What is to be lit now, and until when at the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lit {
    /// The levels.
    pub levels: Levels,
    /// When they may change; without a signal never.
    pub until: Option<Duration>,
}

/// Plays one signal at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Player {
    /// The pattern, and when it began.
    playing: Option<(Pattern, Duration)>,
}

impl Player {
    /// Takes a signal, which ends the one before, or lets time pass. What is due between
    /// two steps is left out, never made up for.
    pub fn step(&mut self, now: Duration, signal: Option<Signal>) -> Lit {
        if let Some(signal) = signal {
            self.playing = Some((signal.pattern(), now));
        }
        let Some((pattern, began)) = self.playing else { return Lit::default() };
        let lit = at(&pattern, now.saturating_sub(began));
        if lit.is_none() {
            self.playing = None;
        }
        lit.map_or(Lit::default(), |(beat, ends)| Lit {
            levels: Levels::of(beat),
            until: Some(began + ends),
        })
    }
}

/// The beat of a pattern so long after it began, and how long after that it ends;
/// nothing once all are over.
fn at(pattern: &Pattern, after: Duration) -> Option<(&Beat, Duration)> {
    let lasts = |beat: &Beat| Duration::from_millis(beat.ms.into());
    let round: Duration = pattern.beats.iter().map(lasts).sum();
    // A pattern of no length is over at once.
    let rounds = after.as_millis().checked_div(round.as_millis())?;
    if pattern.times.is_some_and(|times| rounds >= u128::from(times)) {
        return None;
    }
    // No door shows a signal for the weeks that this counts.
    let mut ends = round * u32::try_from(rounds).ok()?;
    pattern.beats.iter().find_map(|beat| {
        ends += lasts(beat);
        (after < ends).then_some((beat, ends))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::challenge::Side;
    use proptest::prelude::*;

    const DARK: Levels = Levels { red: false, green: false, blue: false, buzzer: false };
    const GREEN: Levels = Levels { green: true, ..DARK };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The levels and when they change, for so long.
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
    fn what_is_waited_for_blinks_until_something_else_is_shown() {
        let blinks = played(Signal::Newcomer, 0, 60_000);
        assert_eq!(blinks.len(), 240);
        let mut player = Player::default();
        player.step(ms(0), Some(Signal::Siren));
        // An hour later, and without a step between.
        assert!(player.step(ms(3_600_000), None).levels.buzzer);
        assert_eq!(player.step(ms(3_600_050), Some(Signal::Quiet)).levels, DARK);
        let lit = player.step(ms(3_600_060), None);
        assert_eq!((lit.levels, lit.until), (DARK, None));
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
                Signal::Turn(Side::Left),
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
