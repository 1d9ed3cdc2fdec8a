//! Grid search for learning rate and momentum: every point of a grid is trained from the
//! same start, and the lowest validation loss wins.
//!
//! Points are independent of each other, so they may run in parallel and in any order.
//! The result of each is kept in its own file, and a search that was interrupted reuses
//! the files it finds.

use crate::{files, parallel};
use anyhow::{Context, Result, ensure};
use facelatch::files::{self as input, LARGEST};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering::{Greater, Less};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Default learning rates of the grid.
pub const LEARNING_RATES: [f64; 4] = [1e-5, 1e-4, 1e-3, 1e-2];
/// Default momentums of the grid.
pub const MOMENTUMS: [f64; 3] = [0.9, 0.95, 0.99];
/// Folder of the points' files, within the folder of the search.
const POINTS: &str = "points";
/// Memory that stays free for everything else, bytes.
const SPARE: u64 = 1 << 30;

/// Memory of a training on the CPU, bytes: for each picture of the batch between forward
/// and backward, and for everything else. From the peak resident memory of `bench-train`:
/// 542 MiB at batch 8, 1953 MiB at batch 32. A validation batch and the weights of the
/// best epoch come on top.
const BYTES_A_PICTURE: u64 = 60 << 20;
const BYTES_A_TRAINING: u64 = 400 << 20;

/// A point of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Learning rate.
    pub learning_rate: f64,
    /// SGD momentum.
    pub momentum: f64,
}

impl Point {
    /// Name of the point, which is also part of its file's name.
    pub fn name(&self) -> String {
        format!("rate-{:e}_momentum-{}", self.learning_rate, self.momentum)
    }
}

/// Result of a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Validation loss of the best epoch; `None` if the training failed.
    pub loss: Option<f64>,
    /// Share of validation photos classified correctly at that epoch, 0..=1.
    pub accuracy: Option<f64>,
    /// Number of the best epoch.
    pub epoch: usize,
    /// Duration, seconds.
    pub seconds: f64,
    /// Why the training failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A point and its result: a row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The point.
    #[serde(flatten)]
    pub point: Point,
    /// Its result.
    #[serde(flatten)]
    pub tried: Tried,
}

/// Contents of a point's file.
#[derive(Serialize, Deserialize)]
struct Kept {
    identity: serde_json::Value,
    row: Row,
}

/// All pairs of learning rates and momentums. The largest rates come first, because
/// divergence and good results show early there. Fails if a list is empty or a value is
/// out of range.
pub fn grid(learning_rates: &[f64], momentums: &[f64]) -> Result<Vec<Point>> {
    ensure!(
        !learning_rates.is_empty() && !momentums.is_empty(),
        "no point to try: {} learning rates, {} momentums",
        learning_rates.len(),
        momentums.len()
    );
    for rate in learning_rates {
        ensure!(*rate > 0.0 && rate.is_finite(), "learning rate {rate}; it must be above 0");
    }
    for momentum in momentums {
        ensure!((0.0..1.0).contains(momentum), "momentum {momentum}; it must be in 0..1");
    }
    let mut points: Vec<Point> = learning_rates
        .iter()
        .flat_map(|rate| {
            momentums.iter().map(|momentum| Point { learning_rate: *rate, momentum: *momentum })
        })
        .collect();
    points.sort_by(|a, b| {
        let rates = b.learning_rate.total_cmp(&a.learning_rate);
        rates.then(a.momentum.total_cmp(&b.momentum))
    });
    points.dedup();
    Ok(points)
}

/// Settings of a search.
pub struct Search<'a> {
    /// Folder of the search, where the results are kept.
    pub folder: &'a Path,
    /// Everything that a result depends on apart from the point: start, data, settings. A
    /// point whose file has another identity is trained again.
    pub identity: serde_json::Value,
    /// Points trained in parallel. The results do not depend on it.
    pub jobs: usize,
    /// Once set, no further point is started.
    pub stop: &'a AtomicBool,
}

/// What a search reports while it runs.
#[derive(Debug)]
pub enum Told<'a> {
    /// Number of points whose results were kept by an earlier search.
    Kept(usize),
    /// A point is done.
    Tried(&'a Row),
}

impl Search<'_> {
    /// Trains each point without a kept result, and returns the finished points, best
    /// first. They are fewer than all only if `stop` was set. `train` returns `None` if
    /// it was interrupted; it is called on `jobs` threads.
    pub fn run(
        &self,
        points: &[Point],
        train: impl Fn(&Point) -> Result<Option<Tried>> + Sync,
        told: impl Fn(Told) + Sync,
    ) -> Result<Vec<Row>> {
        let mut rows: Vec<Option<Row>> = points.iter().map(|point| self.kept(point)).collect();
        told(Told::Kept(rows.iter().flatten().count()));
        let open: Vec<usize> = (0..points.len()).filter(|at| rows[*at].is_none()).collect();
        let tried = |at: usize| -> Result<Option<Row>> {
            let point = points[open[at]];
            let row = train(&point)?.map(|tried| Row { point, tried });
            if let Some(row) = &row {
                self.keep(row)?;
                told(Told::Tried(row));
            }
            Ok(row)
        };
        let work = |(): &mut (), at: usize| tried(at).with_context(|| points[open[at]].name());
        let new = parallel::each_until(self.stop, self.jobs, open.len(), || Ok(()), work)?;
        for (at, row) in open.iter().zip(new) {
            rows[*at] = row.flatten();
        }
        let mut rows: Vec<Row> = rows.into_iter().flatten().collect();
        sort(&mut rows);
        Ok(rows)
    }

    fn path(&self, point: &Point) -> PathBuf {
        self.folder.join(POINTS).join(point.name() + ".json")
    }

    fn kept(&self, point: &Point) -> Option<Row> {
        let path = self.path(point);
        let text = input::read(&path, LARGEST).ok()?;
        match serde_json::from_slice::<Kept>(&text) {
            Ok(kept) if kept.identity == self.identity && kept.row.point == *point => {
                Some(kept.row)
            }
            Ok(_) => {
                log::info!(
                    "{}: from another start, data or settings; training again",
                    path.display()
                );
                None
            }
            Err(error) => {
                log::warn!("{}: {error}; training again", path.display());
                None
            }
        }
    }

    fn keep(&self, row: &Row) -> Result<()> {
        let kept = Kept { identity: self.identity.clone(), row: row.clone() };
        files::replace(&self.path(&row.point), &serde_json::to_vec_pretty(&kept)?)
    }
}

/// Lowest loss first, failed trainings last. Of two equal losses, the smaller learning
/// rate, then the smaller momentum comes first.
fn sort(rows: &mut [Row]) {
    rows.sort_by(|a, b| {
        let losses = match (a.tried.loss, b.tried.loss) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (Some(_), None) => Less,
            (None, Some(_)) => Greater,
            (None, None) => std::cmp::Ordering::Equal,
        };
        losses
            .then(a.point.learning_rate.total_cmp(&b.point.learning_rate))
            .then(a.point.momentum.total_cmp(&b.point.momentum))
    });
}

/// The first of sorted rows. Fails if its training failed.
pub fn best(rows: &[Row]) -> Result<&Row> {
    rows.first()
        .filter(|row| row.tried.loss.is_some())
        .context("every training failed; try smaller learning rates")
}

/// The table as text with aligned columns.
pub fn text(rows: &[Row]) -> String {
    let mut lines = vec![format!(
        "{:>4} {:>13} {:>8} {:>10} {:>8} {:>5} {:>7}",
        "rank", "learning rate", "momentum", "loss", "accuracy", "epoch", "seconds"
    )];
    for (at, Row { point, tried }) in rows.iter().enumerate() {
        let loss = tried.loss.map_or("-".to_owned(), |loss| format!("{loss:.4}"));
        let accuracy =
            tried.accuracy.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        lines.push(format!(
            "{:>4} {:>13} {:>8} {loss:>10} {accuracy:>8} {:>5} {:>7.0}{}",
            at + 1,
            format!("{:e}", point.learning_rate),
            point.momentum,
            tried.epoch,
            tried.seconds,
            tried.fault.as_ref().map_or(String::new(), |fault| format!("  {fault}"))
        ));
    }
    lines.join("\n")
}

/// The table as CSV. The loss is empty if the training failed.
pub fn csv(rows: &[Row]) -> String {
    let mut text = "learning_rate,momentum,loss,accuracy,epoch,seconds\n".to_owned();
    let number = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
    for Row { point, tried } in rows {
        text += &format!(
            "{:e},{},{},{},{},{:.1}\n",
            point.learning_rate,
            point.momentum,
            number(tried.loss),
            number(tried.accuracy),
            tried.epoch,
            tried.seconds
        );
    }
    text
}

/// Number of points to train in parallel: as many as cores and memory allow, at least
/// one. One if the free memory is unknown.
pub fn jobs(cores: usize, threads_each: usize, available: Option<u64>, bytes_each: u64) -> usize {
    let by_cores = cores / threads_each.max(1);
    let by_memory = available.map_or(1, |free| free.saturating_sub(SPARE) / bytes_each.max(1));
    by_cores.min(usize::try_from(by_memory).unwrap_or(usize::MAX)).max(1)
}

/// Memory that a point takes with batches of this size, bytes.
pub fn bytes_each(batch: usize) -> u64 {
    BYTES_A_TRAINING.saturating_add(BYTES_A_PICTURE.saturating_mul(batch as u64))
}

/// Memory available without swapping, bytes, as Linux reports it.
pub fn available_memory() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use serde_json::json;
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A trainer whose loss is lowest at 1e-3 and 0.95, and which diverges at 1e-2 with
    /// 0.99.
    fn fake(point: &Point) -> Tried {
        let off = (point.learning_rate.log10() + 3.0).abs() + (point.momentum - 0.95).abs();
        let diverged = point.learning_rate > 5e-3 && point.momentum > 0.98;
        Tried {
            loss: (!diverged).then_some(1.0 + off),
            accuracy: (!diverged).then_some(0.5),
            epoch: 3,
            seconds: 0.0,
            fault: diverged.then(|| "batch 4: the loss is not finite".to_owned()),
        }
    }

    fn seed_grid() -> Vec<Point> {
        grid(&LEARNING_RATES, &MOMENTUMS).expect("a grid")
    }

    static GO: AtomicBool = AtomicBool::new(false);

    fn search<'a>(folder: &'a Path, jobs: usize, stop: &'a AtomicBool) -> Search<'a> {
        Search { folder, identity: json!({"seed": 1}), jobs, stop }
    }

    /// The rows, and the points that were trained.
    fn run(search: &Search) -> (Vec<Row>, Vec<Point>) {
        let trained = Mutex::new(Vec::new());
        let train = |point: &Point| {
            trained.lock().expect("no panic").push(*point);
            Ok(Some(fake(point)))
        };
        let rows = search.run(&seed_grid(), train, |_| ()).expect("rows");
        (rows, trained.into_inner().expect("no panic"))
    }

    #[test]
    fn the_grid_holds_every_pair_once() {
        let points = seed_grid();
        assert_eq!(points.len(), 12);
        let names: BTreeSet<String> = points.iter().map(Point::name).collect();
        assert_eq!(names.len(), 12);
        assert!(names.contains("rate-1e-3_momentum-0.95"));
        assert_eq!(grid(&[0.1, 0.1], &[0.9, 0.9]).expect("a grid").len(), 1);
        for (rates, momentums) in [
            (&[][..], &[0.9][..]),
            (&[0.1], &[]),
            (&[-1.0], &[0.9]),
            (&[f64::NAN], &[0.9]),
            (&[0.1], &[1.0]),
        ] {
            assert!(grid(rates, momentums).is_err(), "{rates:?} {momentums:?}");
        }
    }

    #[test]
    fn the_least_loss_leads_and_what_diverged_comes_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let (rows, _) = run(&search(folder.path(), 1, &GO));
        assert_eq!(rows.len(), 12);
        assert_eq!(rows[0].point, Point { learning_rate: 1e-3, momentum: 0.95 });
        assert_eq!(best(&rows).expect("a best"), &rows[0]);
        assert!(rows[11].tried.loss.is_none());
        assert!(best(&rows[11..]).is_err());
        assert!(rows[..11].windows(2).all(|pair| pair[0].tried.loss <= pair[1].tried.loss));
        assert_eq!(text(&rows).lines().count(), 13);
        assert!(text(&rows).ends_with("batch 4: the loss is not finite"));
        assert!(csv(&rows).lines().nth(1).is_some_and(|line| line == "1e-3,0.95,1,0.5,3,0.0"));
        assert!(csv(&rows).ends_with("1e-2,0.99,,,3,0.0\n"));
    }

    #[test]
    fn any_number_of_jobs_gives_the_same_table() {
        let tables: Vec<Vec<Row>> = [0, 1, 3, 40]
            .map(|jobs| run(&search(tempfile::tempdir().expect("a folder").path(), jobs, &GO)).0)
            .into();
        assert!(tables.iter().all(|table| *table == tables[0]));
    }

    #[test]
    fn what_is_done_is_not_done_again_unless_something_else_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, trained) = run(&search(folder.path(), 2, &GO));
        assert_eq!(trained.len(), 12);
        let (again, trained) = run(&search(folder.path(), 2, &GO));
        assert_eq!((again, trained.len()), (first, 0));
        // One file is lost, one damaged.
        let points = folder.path().join(POINTS);
        std::fs::remove_file(points.join("rate-1e-3_momentum-0.9.json")).expect("it was there");
        std::fs::write(points.join("rate-1e-4_momentum-0.9.json"), b"{").expect("written");
        assert_eq!(run(&search(folder.path(), 1, &GO)).1.len(), 2);
        let other = Search { identity: json!({"seed": 2}), ..search(folder.path(), 1, &GO) };
        assert_eq!(run(&other).1.len(), 12);
    }

    #[test]
    fn a_stop_keeps_what_is_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let stop = AtomicBool::new(false);
        let trained = AtomicUsize::new(0);
        let train = |point: &Point| {
            // The fifth is interrupted.
            if trained.fetch_add(1, Ordering::Relaxed) == 4 {
                stop.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            Ok(Some(fake(point)))
        };
        let rows = search(folder.path(), 1, &stop).run(&seed_grid(), train, |_| ());
        assert_eq!(rows.expect("rows").len(), 4);
        assert_eq!(run(&search(folder.path(), 1, &GO)).1.len(), 8);
    }

    #[test]
    fn a_fault_names_its_point_and_begins_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        for panics in [false, true] {
            let train = |point: &Point| {
                assert!(!panics, "broken");
                Err(anyhow!("disk full at {}", point.momentum))
            };
            let search = search(folder.path(), 1, &GO);
            let error = search.run(&seed_grid(), train, |_| ()).expect_err("a fault");
            let message = format!("{error:#}");
            let expected = if panics { "panicked" } else { "rate-1e-2_momentum-0.9: disk full" };
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn jobs_follow_cores_and_memory() {
        let gigabyte = 1 << 30;
        assert_eq!(jobs(8, 1, Some(64 * gigabyte), gigabyte), 8);
        assert_eq!(jobs(8, 4, Some(64 * gigabyte), gigabyte), 2);
        assert_eq!(jobs(8, 1, Some(4 * gigabyte), gigabyte), 3);
        assert_eq!(jobs(8, 1, Some(0), gigabyte), 1);
        assert_eq!(jobs(8, 1, None, gigabyte), 1);
        assert_eq!(jobs(0, 0, Some(u64::MAX), 0), 1);
        let meminfo = "MemTotal:       24576000 kB\nMemAvailable:   20480000 kB\n";
        assert_eq!(available(meminfo), Some(20_480_000 * 1024));
        assert_eq!(available("MemAvailable: much kB"), None);
        assert!(available_memory().is_none_or(|bytes| bytes > 0));
    }
}
