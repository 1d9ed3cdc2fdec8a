//! EDGE: what a thread with a connection and its owner share, and how they wait: a queue
//! behind a lock, and a pair of sockets by which the owner wakes the thread.

use crate::reports::Reports;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The owner's end.
pub(crate) struct Waker<Q> {
    queue: Arc<Mutex<Q>>,
    wake: UnixStream,
}

/// The thread's end.
pub(crate) struct Woken<Q> {
    queue: Arc<Mutex<Q>>,
    woken: UnixStream,
}

/// Both ends, with an empty queue.
pub(crate) fn pair<Q: Default>() -> std::io::Result<(Waker<Q>, Woken<Q>)> {
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let queue = Arc::<Mutex<Q>>::default();
    Ok((Waker { queue: Arc::clone(&queue), wake }, Woken { queue, woken }))
}

fn lock<Q>(queue: &Mutex<Q>) -> MutexGuard<'_, Q> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Q> Waker<Q> {
    pub fn lock(&self) -> MutexGuard<'_, Q> {
        lock(&self.queue)
    }

    pub fn wake(&self) {
        // If it takes no more, it will wake up by what it has.
        let _ = (&self.wake).write(&[0]);
    }
}

impl<Q> Woken<Q> {
    pub fn lock(&self) -> MutexGuard<'_, Q> {
        lock(&self.queue)
    }

    /// Waits until the socket is as wanted, the owner wakes the thread, or the time is over.
    pub fn wait(&self, socket: Option<(&dyn AsFd, PollFlags)>, most: Duration) {
        let mut waited = vec![PollFd::new(&self.woken, PollFlags::IN)];
        waited.extend(
            socket.map(|(socket, wanted)| PollFd::from_borrowed_fd(socket.as_fd(), wanted)),
        );
        wait(&mut waited, most);
        while (&self.woken).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    }

    /// Rests between two connections. Whether the thread is to go on: `stop` says whether the
    /// owner wants its end.
    pub fn rest<T>(
        &self,
        rest: Duration,
        reports: &mut Reports<T>,
        stop: impl Fn(&Q) -> bool,
    ) -> bool {
        let until = Instant::now() + rest;
        while Instant::now() < until {
            reports.pass_on();
            if reports.gone || stop(&self.lock()) {
                return false;
            }
            let rest = until.saturating_duration_since(Instant::now());
            let most = if reports.stalled() { 50 } else { 60_000 };
            self.wait(None, rest.min(Duration::from_millis(most)));
        }
        true
    }
}

/// Waits until one of them is as wanted, or the time is over.
pub(crate) fn wait(waited: &mut [PollFd<'_>], most: Duration) {
    let most = Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: most.subsec_nanos().into(),
    };
    // Interrupted or not: the caller looks at everything again.
    let _ = poll(waited, Some(&most));
}
