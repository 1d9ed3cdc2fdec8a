//! EDGE: lines of the kernel's GPIO character device: buttons, contact and request to
//! exit in, relay, lights and buzzer out. No sysfs; kernels from 5.10.
//!
//! Stages: [`Line`] names a line, [`Debounce`] makes a level of a bouncing contact, and
//! behind the feature `gpio` the edge itself: `Inputs` watches lines, `Output` and
//! `Switch` drive them.

mod debounce;
mod line;

pub use debounce::{DEBOUNCE, Debounce};
pub use line::{Bias, Chip, Line, LineError, Place};

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
    input_state::{Event, Name},
    inputs::Inputs,
    output::{Output, Switch},
};
