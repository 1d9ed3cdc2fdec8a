//! How long a device that is not there is left alone between two tries.

use std::time::Duration;

/// Before the second try: a device plugged in anew takes about as long to appear.
const FIRST: Duration = Duration::from_millis(200);
/// Longest: whoever plugs it in waits no longer for the door to come back.
const LONGEST: Duration = Duration::from_secs(5);

/// The time before the next try, after so many in a row have failed: 0.2 s, then
/// twice as long each time, up to 5 s.
pub fn backoff(failed: u32) -> Duration {
    let doubled = failed.saturating_sub(1).min(LONGEST.as_millis().ilog2());
    (FIRST * (1 << doubled)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_from_a_fifth_of_a_second_to_five() {
        let waits: Vec<u128> = (0..8).map(|failed| backoff(failed).as_millis()).collect();
        assert_eq!(waits, [200, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX), LONGEST);
    }
}
