//! EDGE: lines of the kernel's GPIO character device. Inputs are buttons, door contact
//! and request to exit; outputs are relay, lights and buzzer. Sysfs is not used; the
//! kernel must be 5.10 or newer.
//!
//! [`Line`] names a line, and [`Debounce`] turns a bouncing contact into a steady level.
//! The feature `gpio` adds the device access: `Inputs` watches lines, `Output` and
//! `Switch` drive them.

mod debounce;
mod line;

pub use debounce::{DEBOUNCE, Debounce};
pub use line::{Bias, Chip, Line, LineError, Name, Place};

#[cfg(feature = "gpio")]
mod chip;
#[cfg(feature = "gpio")]
mod input_state;
#[cfg(feature = "gpio")]
mod inputs;
#[cfg(feature = "gpio")]
mod output;

#[cfg(feature = "gpio")]
pub use {
    chip::{GpioError, chips, probe},
    input_state::LineEvent,
    inputs::Inputs,
    output::{Output, Switch},
};
