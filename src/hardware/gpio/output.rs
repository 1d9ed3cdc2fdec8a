//! EDGE: output lines.
//!
//! After the process has ended, the chip's driver decides about the level of the line and
//! may keep it. See [`crate::hardware::relay`].

use super::chip::{GpioError, request};
use super::line::Line;
use gpiocdev::Request;
use gpiocdev::line::Value;
use std::fmt;

/// An output line, driven from its opening until it is dropped.
pub struct Output {
    line: Line,
    request: Request,
}

fn value(on: bool) -> Value {
    if on { Value::Active } else { Value::Inactive }
}

impl Output {
    /// Requests the line, which starts at the level `on` without a glitch.
    pub fn open(line: &Line, on: bool) -> Result<Self, GpioError> {
        let request = request(line, |builder| {
            builder.as_output(value(on));
        })?;
        Ok(Self { line: line.clone(), request })
    }

    /// Sets the level.
    pub fn set(&self, on: bool) -> Result<(), GpioError> {
        self.request.set_lone_value(value(on)).map_err(|error| self.failed(&error))
    }

    /// Reads the level back; an error if the chip cannot read its outputs.
    pub fn get(&self) -> Result<bool, GpioError> {
        match self.request.lone_value() {
            Ok(value) => Ok(value == Value::Active),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &gpiocdev::Error) -> GpioError {
        GpioError::failed(&self.line, error)
    }
}

/// A relay on a line, which is requested when first needed.
pub struct Switch {
    line: Line,
    output: Option<Output>,
}

impl Switch {
    /// A relay on this line; an error if the line has an option for inputs.
    pub(crate) fn new(line: Line) -> Result<Self, String> {
        match line.debounce {
            None => Ok(Self { line, output: None }),
            Some(_) => Err("debounce= applies to inputs only; remove it".to_owned()),
        }
    }

    /// Requests the line unless it is held; it starts at the level `on`.
    pub(crate) fn connect(&mut self, on: bool) -> Result<(), GpioError> {
        if self.output.is_none() {
            self.output = Some(Output::open(&self.line, on)?);
        }
        Ok(())
    }

    /// Releases the line.
    pub(crate) fn disconnect(&mut self) {
        self.output = None;
    }

    pub(crate) fn switch(&mut self, on: bool) -> Result<(), GpioError> {
        let output = self.output(on)?;
        output.set(on)?;
        match output.get() {
            Ok(level) if level != on => {
                Err(GpioError::Stuck { line: self.line.to_string(), set: on })
            }
            // Not every chip can read its outputs.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Whether the line is at this level. If the chip cannot read its outputs, sets the
    /// level instead.
    pub(crate) fn is(&mut self, on: bool) -> Result<bool, GpioError> {
        let output = self.output(on)?;
        output.get().map(|level| level == on).or_else(|_| output.set(on).map(|()| true))
    }

    fn output(&mut self, on: bool) -> Result<&Output, GpioError> {
        match &mut self.output {
            Some(output) => Ok(output),
            empty => Ok(empty.insert(Output::open(&self.line, on)?)),
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line)
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Switch({})", self.line)
    }
}

#[cfg(test)]
mod tests {
    use crate::hardware::relay::Relay;

    #[test]
    fn a_relay_on_a_line_that_is_not_there_says_so_each_time() {
        let mut relay = Relay::open("gpio:/dev/no-such-chip/17?active=low").expect("a relay");
        for _ in 0..2 {
            for error in [relay.switch(true).err(), relay.check(true).err()] {
                let message = error.expect("no chip").to_string();
                assert!(message.contains("/dev/no-such-chip: no such GPIO chip"), "{message}");
            }
        }
        relay.disconnect();
    }

    #[test]
    fn a_relay_does_not_bounce() {
        let message = Relay::open("gpio:0/17?debounce=5ms").expect_err("no relay").to_string();
        assert!(message.contains("debounce= applies to inputs only"), "{message}");
        let message = Relay::open("gpio:0/17?active=1").expect_err("no relay").to_string();
        assert!(message.contains("active=1: expected low or high"), "{message}");
    }
}
