//! Output that never blocks the door: a thread writes it. If the thread cannot keep up,
//! writes are dropped and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Capacity of the queue, in writes.
const WAITING: usize = 1024;

/// The sending end of an output. Its writes never block and never fail.
#[derive(Clone)]
pub struct StdoutWriter {
    sender: SyncSender<Message>,
    lost: Arc<AtomicUsize>,
}

enum Message {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

impl StdoutWriter {
    /// Starts a thread that writes to `to`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn new(to: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let lost = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || write_all(&receiver, to, &counted))?;
        Ok(Self { sender, lost })
    }

    /// Waits until everything is written and flushed, for at most `patience`.
    pub fn finish(&self, patience: Duration) {
        let (done, written) = sync_channel(1);
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(patience);
        }
    }
}

fn write_all(receiver: &Receiver<Message>, mut to: impl Write, lost: &AtomicUsize) {
    for message in receiver {
        // The reader may be gone: write errors are ignored, and the door keeps working.
        match message {
            Message::Text(text) => drop(to.write_all(&text)),
            Message::Flush(done) => {
                let _ = to.flush();
                let _ = done.send(());
            }
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            log::warn!("{lost} lines of output were lost: the reader was too slow");
        }
    }
}

impl Write for StdoutWriter {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Text(text.to_vec())) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Blocks until the gate is released, then stores everything written.
    #[derive(Clone, Default)]
    struct Stalled {
        gate: Arc<Mutex<()>>,
        got: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            let _open = self.gate.lock().expect("a gate");
            self.got.lock().expect("text").extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_holds_nobody_up() {
        let reader = Stalled::default();
        let mut outlet = StdoutWriter::new(reader.clone()).expect("an outlet");
        let closed = reader.gate.lock().expect("a gate");
        for _ in 0..3 * WAITING {
            outlet.write_all(b"x").expect("never fails");
        }
        outlet.finish(Duration::from_millis(10));
        drop(closed);
        while reader.got.lock().expect("text").len() < WAITING {
            std::thread::yield_now();
        }
        outlet.finish(Duration::from_secs(10));
        let got = reader.got.lock().expect("text").len();
        assert!((WAITING..=WAITING + 1).contains(&got), "{got}");
    }
}
