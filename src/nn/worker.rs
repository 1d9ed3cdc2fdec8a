//! Networks on a second thread, beside the one that asks.

use super::{Activations, Batch, Network, NetworkError};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Networks on a thread of their own, which run one batch at a time. The memory of the
/// batch travels to the thread and back, so that a run like the last one allocates nothing.
/// The thread ends when this is dropped.
pub struct Worker {
    give: SyncSender<Job>,
    take: Receiver<Job>,
    /// `None` while it runs.
    job: Option<Job>,
}

/// A run: what goes to the thread and comes back.
#[derive(Default)]
struct Job {
    network: usize,
    batch: Batch,
    outputs: Vec<Activations>,
    fault: Option<NetworkError>,
}

impl Worker {
    /// Moves these networks to a new thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn new(mut networks: Vec<Network>) -> Result<Self, NetworkError> {
        let (give, jobs) = sync_channel::<Job>(1);
        let (done, take) = sync_channel(1);
        let work = move || {
            for mut job in jobs {
                // The network uses their memory again.
                job.outputs.clear();
                let Some(network) = networks.get_mut(job.network) else { return };
                match network.run(&job.batch) {
                    Ok(outputs) => job.outputs.extend_from_slice(outputs),
                    Err(fault) => job.fault = Some(fault),
                }
                if done.send(job).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("networks".to_owned());
        thread.spawn(work).map_err(|error| NetworkError::Thread { reason: error.to_string() })?;
        Ok(Self { give, take, job: Some(Job::default()) })
    }

    /// The batch of the next run, to be filled.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.job.get_or_insert_default().batch
    }

    /// Starts a run of one of the networks, by its place in the list.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn start(&mut self, network: usize) -> Result<(), NetworkError> {
        let mut job = self.job.take().unwrap_or_default();
        job.network = network;
        self.give.send(job).map_err(|_| ended())
    }

    /// Waits for the run that was started.
    ///
    /// # Errors
    /// If the run failed, or the thread has ended.
    pub fn finish(&mut self) -> Result<&[Activations], NetworkError> {
        let mut job = self.take.recv().map_err(|_| ended())?;
        let fault = job.fault.take();
        let job = self.job.insert(job);
        fault.map_or(Ok(&job.outputs), Err)
    }
}

fn ended() -> NetworkError {
    NetworkError::Thread { reason: "it has ended".to_owned() }
}
