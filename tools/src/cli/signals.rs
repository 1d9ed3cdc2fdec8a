//! Ctrl-C for commands that can stop cleanly.

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Exit code that shells report for a program ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// A flag that the first SIGINT (Ctrl-C) or SIGTERM sets. The second one ends the program
/// at once with exit code 130.
pub fn stop() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal finds the flag unset and only sets it.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
