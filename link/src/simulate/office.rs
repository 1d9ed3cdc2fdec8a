//! The simulated office: the real one, on its own thread, with a folder that ends with it.

use crate::mqtt::Settings;
use crate::site::service::Service;
use crate::site::{Answer, Clock, Folder, Order};
use facelatch_crypto::PublicKey;
use facelatch_site::KeyId;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PAUSE: Duration = Duration::from_millis(10);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

enum Ask {
    Order(Box<Order>, std::sync::mpsc::SyncSender<Answer>),
    /// Whether it is connected, has heard everything, and the broker has everything.
    Settled(std::sync::mpsc::SyncSender<bool>),
}

/// The office.
pub(super) struct SimulatedOffice {
    asks: Sender<Ask>,
    pub public: PublicKey,
    pub site: KeyId,
    _folder: TempDir,
}

impl SimulatedOffice {
    pub fn start(settings: Settings, prefix: &str, clock: Clock) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let office = Folder::new(&folder.path().join("office"));
        let public = office.create().map_err(|error| error.to_string())?;
        let mut service = Service::open(&office, clock)?;
        let site = service.office().site();
        service.connect(settings, prefix)?;
        let (asks, waiting) = channel::<Ask>();
        std::thread::Builder::new()
            .name("office".to_owned())
            .spawn(move || {
                loop {
                    loop {
                        match waiting.try_recv() {
                            Ok(Ask::Order(order, answer)) => {
                                let done =
                                    service.order(&order).unwrap_or_else(|e| Answer::failed(&e));
                                let _ = answer.send(done);
                            }
                            Ok(Ask::Settled(answer)) => {
                                let _ = answer.send(service.fetched() && service.settled());
                            }
                            Err(std::sync::mpsc::TryRecvError::Empty) => break,
                            Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                        }
                    }
                    if let Err(error) = service.step(PAUSE, None) {
                        log::error!("the office: {error}");
                        return;
                    }
                    while service.own_answer().is_some() {}
                }
            })
            .map_err(|error| error.to_string())?;
        Ok(Self { asks, public, site, _folder: folder })
    }

    /// Gives an order and waits for its answer.
    pub fn order(&self, order: Order) -> Result<Answer, String> {
        let (sender, answer) = sync_channel(1);
        let gone = || "the office has ended".to_owned();
        self.asks.send(Ask::Order(Box::new(order), sender)).map_err(|_| gone())?;
        let answer = answer.recv_timeout(PATIENCE).map_err(|_| gone())?;
        if answer.good { Ok(answer) } else { Err(answer.text) }
    }

    /// Whether it is connected, has heard everything, and the broker has everything.
    pub fn settled(&self) -> bool {
        let (sender, answer) = sync_channel(1);
        self.asks.send(Ask::Settled(sender)).is_ok()
            && answer.recv_timeout(PATIENCE).unwrap_or(false)
    }

    /// Waits until it is.
    pub fn wait_settled(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if self.settled() {
                return true;
            }
            std::thread::sleep(PAUSE * 5);
        }
        false
    }
}
