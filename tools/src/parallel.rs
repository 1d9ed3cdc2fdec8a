//! Parallel map over indices on several threads.

use anyhow::{Result, anyhow};
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Number of cores that this process may use, at least 1.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Calls `work` for each index in `0..count` on `threads` threads; results are in index
/// order. Each thread calls `make` once for its own tool, such as a detector.
///
/// # Errors
/// The first error of `make` or `work`, or a panic; it ends the work on all threads.
pub fn each<Tool, Done: Send>(
    threads: usize,
    count: usize,
    make: impl Fn() -> Result<Tool> + Sync,
    work: impl Fn(&mut Tool, usize) -> Result<Done> + Sync,
) -> Result<Vec<Done>> {
    let done = each_until(&AtomicBool::new(false), threads, count, make, work)?;
    done.into_iter().collect::<Option<_>>().ok_or_else(|| anyhow!("a thread left work undone"))
}

/// As [`each`], but once `stop` is set no further index is begun. Results of indices that
/// were not begun are `None`.
pub fn each_until<Tool, Done: Send>(
    stop: &AtomicBool,
    threads: usize,
    count: usize,
    make: impl Fn() -> Result<Tool> + Sync,
    work: impl Fn(&mut Tool, usize) -> Result<Done> + Sync,
) -> Result<Vec<Option<Done>>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let all: Mutex<Vec<Option<Done>>> = Mutex::new((0..count).map(|_| None).collect());
    let take = || -> Result<()> {
        let mut tool = make()?;
        while !stop.load(Ordering::Relaxed) && !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            let done = work(&mut tool, index)?;
            let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all[index] = Some(done);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let worker = || take().inspect_err(|_| failed.store(true, Ordering::Relaxed));
        let workers: Vec<_> =
            (0..threads.clamp(1, count.max(1))).map(|_| scope.spawn(worker)).collect();
        // Join all threads before returning the first error.
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        ends.into_iter().try_for_each(|end| end.map_err(|_| anyhow!("a worker thread panicked"))?)
    })?;
    Ok(all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        for threads in [0, 1, 3, 100] {
            let squares = each(threads, 50, || Ok(()), |(), at| Ok(at * at)).expect("squares");
            assert!(squares.into_iter().eq((0..50).map(|at| at * at)), "{threads} threads");
        }
        assert!(each(2, 0, || Ok(()), |(), at| Ok(at)).expect("nothing").is_empty());
    }

    #[test]
    fn a_failure_ends_the_work_and_is_told() {
        let work = |(): &mut (), at: usize| if at == 3 { bail!("at {at}") } else { Ok(at) };
        let error = each(2, 1000, || Ok(()), work).expect_err("a failure");
        assert_eq!(error.to_string(), "at 3");
    }

    #[test]
    fn what_was_begun_before_a_stop_is_finished_and_kept() {
        let stop = AtomicBool::new(false);
        let work = |(): &mut (), at: usize| {
            stop.store(at == 4, Ordering::Relaxed);
            Ok(at)
        };
        let done = each_until(&stop, 1, 10, || Ok(()), work).expect("a part");
        assert_eq!(done[..6], [Some(0), Some(1), Some(2), Some(3), Some(4), None]);
    }
}
