//! Networks on a second thread, beside the one that asks.

use super::{Network, NetworkError, Pictures, Values};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Networks that run on a thread of their own, one batch at a time. The batch's
/// memory goes to and fro, so that a run like the last one allocates nothing. The
/// thread ends when this is dropped.
pub struct Second {
    give: SyncSender<Batch>,
    take: Receiver<Batch>,
    /// Here unless it is being run.
    batch: Option<Batch>,
}

/// What goes to the thread and comes back.
#[derive(Default)]
struct Batch {
    network: usize,
    pictures: Pictures,
    outputs: Vec<Values>,
    fault: Option<NetworkError>,
}

impl Second {
    /// Moves these networks to a new thread.
    pub fn new(mut networks: Vec<Network>) -> Result<Self, NetworkError> {
        let (give, jobs) = sync_channel::<Batch>(1);
        let (done, take) = sync_channel(1);
        let work = move || {
            for mut batch in jobs {
                let Some(network) = networks.get_mut(batch.network) else { return };
                match network.run(&batch.pictures) {
                    Ok(outputs) => {
                        batch.outputs.resize_with(outputs.len(), Values::default);
                        for (to, from) in batch.outputs.iter_mut().zip(outputs) {
                            to.set(from);
                        }
                    }
                    Err(fault) => batch.fault = Some(fault),
                }
                if done.send(batch).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("networks".to_owned());
        thread.spawn(work).map_err(|error| NetworkError::Thread { reason: error.to_string() })?;
        Ok(Self { give, take, batch: Some(Batch::default()) })
    }

    /// The pictures of the next run, to be filled.
    pub fn pictures(&mut self) -> &mut Pictures {
        &mut self.batch.get_or_insert_default().pictures
    }

    /// Begins a run of one of the networks, by its place in the list.
    pub fn start(&mut self, network: usize) -> Result<(), NetworkError> {
        let mut batch = self.batch.take().unwrap_or_default();
        batch.network = network;
        self.give.send(batch).map_err(|_| ended())
    }

    /// Waits for the run that was begun.
    pub fn finish(&mut self) -> Result<&[Values], NetworkError> {
        let mut batch = self.take.recv().map_err(|_| ended())?;
        let fault = batch.fault.take();
        let batch = self.batch.insert(batch);
        fault.map_or(Ok(&batch.outputs), Err)
    }
}

fn ended() -> NetworkError {
    NetworkError::Thread { reason: "it has ended".to_owned() }
}
