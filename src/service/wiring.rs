//! Buttons, contacts, lights and buzzer of one door, as the configuration wires them.

use super::message::Message;
use super::peripherals::StartError;
use crate::access::signal::Signal;
use crate::config::{Config, Wire};
use crate::hardware::gpio::{Inputs, Line, LineError};
use crate::hardware::lights::Lamps;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

/// Lines and lights; they end when this is dropped.
pub(super) struct Wiring {
    _inputs: Inputs,
    lamps: Lamps,
}

impl Wiring {
    /// Opens all lines that the configuration names. A line that is missing is waited for.
    pub fn open(
        config: &Config,
        started: Instant,
        sender: &SyncSender<Message>,
    ) -> Result<Self, StartError> {
        let (mut inputs, mut lamps) = (Vec::new(), Vec::new());
        for (key, wire, uri) in config.lines() {
            let mut line: Line = uri
                .parse()
                .map_err(|error: LineError| StartError::Line { key, fault: error.to_string() })?;
            match wire {
                Wire::Input(name) => {
                    line.debounce.get_or_insert(config.gpio.debounce);
                    inputs.push((name, line));
                }
                Wire::Lamp(lamp) => lamps.push((lamp, line)),
            }
        }
        let thread = |what| move |reason| StartError::Thread { what, reason };
        Ok(Self {
            _inputs: Inputs::open(&inputs, started, sender).map_err(thread("the GPIO lines"))?,
            lamps: Lamps::start(&lamps, sender.clone()).map_err(thread("the lights"))?,
        })
    }

    /// Shows and sounds a signal.
    pub fn show(&self, signal: Signal) {
        self.lamps.show(signal);
    }
}
