//! Somebody with access to the broker who lies: repeats, changes and empties records.

use super::named;
use crate::mqtt::{Client, Message, Publish, Qos, Report, Settings, Subscription};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Most records that it remembers.
const MOST: usize = 20_000;

/// The liar.
pub(super) struct Liar {
    client: Client,
    reports: Receiver<Report>,
    session: u64,
    /// The first record that was heard for each topic, and the newest.
    pub first: BTreeMap<String, Vec<u8>>,
    pub newest: BTreeMap<String, Vec<u8>>,
}

impl Liar {
    /// Hears everything below a prefix.
    pub fn start(settings: &Settings, prefix: &str) -> Result<Self, String> {
        let (sender, reports) = sync_channel(64);
        let client = Client::start(named(settings, "liar"), sender).map_err(|e| e.to_string())?;
        let mut liar =
            Self { client, reports, session: 0, first: BTreeMap::new(), newest: BTreeMap::new() };
        let until = Instant::now() + Duration::from_secs(20);
        while liar.session == 0 && Instant::now() < until {
            liar.listen(Duration::from_millis(100));
        }
        let filter = format!("{prefix}#");
        let all = Subscription { filter, qos: Qos::AtMostOnce, retained: true };
        liar.client.subscribe(liar.session, 1, vec![all]).map_err(|_| "no room".to_owned())?;
        Ok(liar)
    }

    /// Remembers what it hears for a while.
    pub fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(rest) {
                Ok(Report::Connected { session }) => self.session = session,
                Ok(Report::Message(Message { topic, payload, .. })) => {
                    if !payload.is_empty() && self.newest.len() < MOST {
                        self.first.entry(topic.clone()).or_insert_with(|| payload.clone());
                        self.newest.insert(topic, payload);
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Publishes a record; it is retained, as a broker that lies would have it.
    pub fn publish(&mut self, topic: &str, payload: Vec<u8>) {
        let publish = Publish {
            topic: topic.to_owned(),
            payload,
            qos: Qos::AtLeastOnce,
            retain: true,
            expires_s: None,
        };
        while self.client.publish(self.session, 2, publish.clone()).is_err() {
            self.listen(Duration::from_millis(20));
        }
        // So that answers do not fill the channel.
        self.listen(Duration::ZERO);
    }
}
