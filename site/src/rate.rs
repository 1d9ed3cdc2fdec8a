//! How much one writer may send.

use crate::names::KeyId;
use std::collections::BTreeMap;

/// Counts what each writer sends.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    /// Most at once.
    burst: u64,
    /// Time after which one more is allowed, milliseconds.
    each_ms: u64,
    /// For each writer the moment at which everything is allowed again.
    free_at_ms: BTreeMap<KeyId, u64>,
}

impl Rates {
    pub fn new(burst: u64, each_ms: u64) -> Self {
        Self { burst, each_ms, free_at_ms: BTreeMap::new() }
    }

    /// Counts one record. `false` if its writer sent too many.
    pub fn allows(&mut self, writer: KeyId, now_ms: u64) -> bool {
        let room = self.burst * self.each_ms;
        let free_at = self.free_at_ms.entry(writer).or_insert(now_ms);
        // A clock that was set back must not shut a writer out for longer than that.
        *free_at = (*free_at).clamp(now_ms, now_ms.saturating_add(room));
        let next = free_at.saturating_add(self.each_ms);
        let allowed = next <= now_ms.saturating_add(room);
        if allowed {
            *free_at = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_may_send_a_burst_and_then_so_many_a_second() {
        let (a, b) = (KeyId([1; 8]), KeyId([2; 8]));
        let mut rates = Rates::new(3, 100);
        let mut sent = |writer, now| rates.allows(writer, now);
        assert_eq!([0; 4].map(|_| sent(a, 1_000)), [true, true, true, false]);
        assert!(sent(b, 1_000));
        assert!(!sent(a, 1_099));
        assert!(sent(a, 1_100));
        assert!(!sent(a, 1_100));
        // After the clock was set back it takes no longer than otherwise.
        assert!(!sent(a, 5));
        assert!(sent(a, 105));
    }
}
