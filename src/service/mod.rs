//! The running process: the loop over frames, the threads, the socket, the watchdog,
//! reloading and the status.

pub mod control;
pub mod neighbours;
pub mod peripherals;
pub mod pipeline;
pub mod process_usage;
pub mod run;
pub mod stage_times;
pub mod status;
pub mod wall_clock;
pub mod watchdog;
