//! What the threads of devices report to the service.

use crate::hardware::relay::Report;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Capacity of the queue: two edges of every line and one answer of every device. A sender
/// that finds it full tries again.
pub(super) const MAX_MESSAGES: usize = 32;

/// A report of a device's thread.
pub(super) enum Message {
    Relay(Report),
    #[cfg(feature = "gpio")]
    Line(crate::hardware::gpio::LineEvent),
    #[cfg(feature = "gpio")]
    Lamp(crate::hardware::lights::LampEvent),
}

impl From<Report> for Message {
    fn from(report: Report) -> Self {
        Self::Relay(report)
    }
}

#[cfg(feature = "gpio")]
impl From<crate::hardware::gpio::LineEvent> for Message {
    fn from(event: crate::hardware::gpio::LineEvent) -> Self {
        Self::Line(event)
    }
}

#[cfg(feature = "gpio")]
impl From<crate::hardware::lights::LampEvent> for Message {
    fn from(event: crate::hardware::lights::LampEvent) -> Self {
        Self::Lamp(event)
    }
}

impl Message {
    /// The time from which the message counts. Answers and edges count from their own time,
    /// however long the service was busy with a frame. A request to exit counts from now:
    /// the time limit for the relay's answer starts when it is processed.
    fn at(&self, started: Instant, now: Duration) -> Duration {
        let at = match self {
            Self::Relay(report) => report.at.saturating_duration_since(started),
            #[cfg(feature = "gpio")]
            Self::Line(crate::hardware::gpio::LineEvent::Edge {
                name: crate::hardware::gpio::Name::Exit,
                ..
            }) => now,
            #[cfg(feature = "gpio")]
            Self::Line(crate::hardware::gpio::LineEvent::Edge { at, .. }) => *at,
            #[cfg(feature = "gpio")]
            Self::Line(_) | Self::Lamp(_) => now,
        };
        at.min(now)
    }
}

/// All waiting messages with the times from which they count, in the order of those times.
pub(super) fn in_turn(
    messages: &Receiver<Message>,
    started: Instant,
    now: Duration,
) -> Vec<(Duration, Message)> {
    let waiting = messages.try_iter().take(MAX_MESSAGES);
    let mut waiting: Vec<_> = waiting.map(|message| (message.at(started, now), message)).collect();
    waiting.sort_by_key(|(at, _)| *at);
    waiting
}

#[cfg(all(test, feature = "gpio"))]
mod tests {
    use super::*;
    use crate::hardware::gpio::{LineEvent, Name};
    use crate::hardware::relay::link::RelayEvent;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn messages_during_a_long_frame_count_from_their_own_time_and_an_exit_from_now() {
        let started = Instant::now();
        let ms = Duration::from_millis;
        let (sender, messages) = sync_channel(8);
        let edge = |name, at| Message::Line(LineEvent::Edge { name, active: true, at: ms(at) });
        let event = RelayEvent::Answer { order: 5, taken: true, error: None };
        let report = Report { event, at: started + ms(300) };
        for message in [
            edge(Name::Exit, 200),
            edge(Name::ButtonInside, 2400),
            Message::Relay(report),
            edge(Name::Contact, 1000),
            // As a clock that is read a moment later has it.
            edge(Name::ButtonOutside, 2600),
        ] {
            assert!(sender.try_send(message).is_ok(), "there is room");
        }
        let come: Vec<(Duration, String)> = in_turn(&messages, started, ms(2500))
            .into_iter()
            .map(|(at, message)| match message {
                Message::Relay(_) => (at, "relay".to_owned()),
                Message::Line(LineEvent::Edge { name, .. }) => (at, format!("{name:?}")),
                Message::Line(_) | Message::Lamp(_) => unreachable!("none was sent"),
            })
            .collect();
        let expected = [
            (300, "relay"),
            (1000, "Contact"),
            (2400, "ButtonInside"),
            (2500, "Exit"),
            (2500, "ButtonOutside"),
        ];
        assert_eq!(come, expected.map(|(at, what)| (ms(at), what.to_owned())));
    }
}
