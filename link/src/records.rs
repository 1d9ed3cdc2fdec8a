//! Records of a site: which topics the door needs, and fetching them one filter after the
//! other, since a broker drops without a word what comes faster than it can be sent.

use std::collections::VecDeque;
use std::time::Duration;

/// Most filters that a door has.
const MOST_FILTERS: usize = 64;
/// All that a broker retains for a filter has come when nothing came for this time.
const QUIET: Duration = Duration::from_millis(400);
/// Without an answer for this time the filter is subscribed to again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Subscribe to this filter and have it send what it retains.
    Subscribe(String),
    /// End this subscription: it was only for fetching.
    Unsubscribe(String),
    /// All has come.
    Fetched,
}

/// The filters and what of them was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    filters: Vec<String>,
    waiting: VecDeque<String>,
    /// The filter that is fetched, and since when nothing has come; `answered` after the
    /// broker's answer.
    current: Option<(String, Duration)>,
    answered: bool,
    /// All was fetched and said.
    fetched: bool,
}

impl Records {
    /// The door needs these filters in place of those before. Returns those that it no
    /// longer needs.
    pub fn subscribe(&mut self, filters: Vec<String>) -> Vec<String> {
        let filters: Vec<String> = filters.into_iter().take(MOST_FILTERS).collect();
        let old = std::mem::replace(&mut self.filters, filters);
        self.begin_again();
        old.into_iter().filter(|old| !self.filters.contains(old)).collect()
    }

    /// The door lacks records of these filters.
    pub fn fetch(&mut self, filters: Vec<String>) {
        for filter in filters.into_iter().take(MOST_FILTERS) {
            // The one that is fetched now may have brought what it has already.
            if !self.waiting.contains(&filter) && self.waiting.len() < MOST_FILTERS {
                self.waiting.push_back(filter);
            }
        }
        self.fetched = false;
    }

    /// The connection to the broker is new, or lost.
    pub fn begin_again(&mut self) {
        self.waiting = self.filters.iter().cloned().collect();
        self.current = None;
        self.fetched = false;
    }

    /// The broker has answered the subscription.
    pub fn answered(&mut self, now: Duration) {
        if let Some((_, since)) = &mut self.current {
            *since = now;
            self.answered = true;
        }
    }

    /// A retained record has come.
    pub fn heard(&mut self, now: Duration) {
        if let Some((_, since)) = &mut self.current {
            *since = now;
        }
    }

    /// What is to be done now, while there is a connection.
    pub fn step(&mut self, now: Duration) -> Option<Step> {
        if let Some((filter, since)) = &self.current {
            let quiet = now.saturating_sub(*since);
            if self.answered && quiet >= QUIET {
                let done = self.current.take().map(|(filter, _)| filter);
                if let Some(filter) = done.filter(|filter| !self.filters.contains(filter)) {
                    return Some(Step::Unsubscribe(filter));
                }
            } else if !self.answered && quiet >= PATIENCE {
                let filter = filter.clone();
                self.current = Some((filter.clone(), now));
                return Some(Step::Subscribe(filter));
            } else {
                return None;
            }
        }
        if let Some(filter) = self.waiting.pop_front() {
            self.current = Some((filter.clone(), now));
            self.answered = false;
            return Some(Step::Subscribe(filter));
        }
        (!std::mem::replace(&mut self.fetched, true)).then_some(Step::Fetched)
    }

    /// When [`step`](Self::step) has to be called again; `None` if only after something came.
    pub fn due(&self) -> Option<Duration> {
        let (_, since) = self.current.as_ref()?;
        Some(*since + if self.answered { QUIET } else { PATIENCE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn subscribe(filter: &str) -> Option<Step> {
        Some(Step::Subscribe(filter.to_owned()))
    }

    #[test]
    fn filters_are_fetched_one_after_the_other() {
        let mut records = Records::default();
        assert_eq!(
            records.subscribe(vec!["revoked".into(), "people/+".into()]),
            Vec::<String>::new()
        );
        assert_eq!(records.step(ms(0)), subscribe("revoked"));
        assert_eq!(records.step(ms(1000)), None);
        records.answered(ms(1000));
        records.heard(ms(1300));
        assert_eq!(records.step(ms(1500)), None);
        assert_eq!(records.due(), Some(ms(1700)));
        assert_eq!(records.step(ms(1700)), subscribe("people/+"));
        // No answer: once more.
        assert_eq!(records.step(ms(31_700)), subscribe("people/+"));
        records.answered(ms(32_000));
        assert_eq!(records.step(ms(32_400)), Some(Step::Fetched));
        assert_eq!(records.step(ms(40_000)), None);
        // The door misses something; a filter is not fetched twice at a time.
        records.fetch(vec!["people/+".into(), "people/+".into()]);
        assert_eq!(records.step(ms(50_000)), subscribe("people/+"));
        records.answered(ms(50_000));
        assert_eq!(records.step(ms(51_000)), Some(Step::Fetched));
        // A filter that is not needed any longer is left again.
        records.fetch(vec!["listing/a".into()]);
        assert_eq!(records.step(ms(52_000)), subscribe("listing/a"));
        records.answered(ms(52_000));
        assert_eq!(records.step(ms(53_000)), Some(Step::Unsubscribe("listing/a".to_owned())));
        assert_eq!(records.step(ms(53_000)), Some(Step::Fetched));
        // A new connection begins with the first one.
        records.begin_again();
        assert_eq!(records.step(ms(60_000)), subscribe("revoked"));
        assert_eq!(records.subscribe(vec!["revoked".into()]), ["people/+"]);
    }
}
