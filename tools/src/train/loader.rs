//! Batches of faces, prepared on other threads while the network trains.
//!
//! With `T` threads, thread `t` makes batches `t`, `t + T`, `t + 2T`, … into its own
//! queue, and the consumer takes from the queues in turn. Batches therefore come in
//! order, are the same for every `T`, and only a few of them are in memory.

use crate::chance::Chance;
use crate::data::augment::Augment;
use crate::parallel;
use anyhow::{Context, Result, anyhow, bail};
use facelatch::models::Channels;
use facelatch::nn::Normalization;
use facelatch::vision::align::Crop;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tch::Tensor;

/// Batches that wait in each thread's queue: one to take at once, and one for when a
/// batch takes longer than usual. A batch of 64 faces is 10 MB.
const QUEUED: usize = 2;

/// Settings of a [`Loader`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderSettings {
    /// Faces per batch; the last batch may have fewer.
    pub batch: usize,
    /// Augmentations of the faces.
    pub augment: Augment,
    /// Side of the network's input, pixels.
    pub side: usize,
    /// Order of the channels of its input.
    pub channels: Channels,
    /// Normalization of the network's input.
    pub normalization: Normalization,
    /// All random numbers follow from the seed, the epoch and the position in the order.
    pub seed: i64,
    /// Number of the epoch.
    pub epoch: usize,
    /// Threads that make batches; 0 is 1.
    pub threads: usize,
}

/// Faces for one training step.
#[derive(Debug)]
pub struct Batch {
    /// `N x 3 x side x side`, f32, normalized, on the CPU, with the side and the channels of
    /// [`LoaderSettings`].
    pub pictures: Tensor,
    /// `N` labels, 64-bit integers.
    pub labels: Tensor,
    /// Indices of the faces in the training data.
    pub indices: Vec<usize>,
}

/// Delivers batches in order from threads that work ahead.
pub struct Loader {
    queues: Vec<Receiver<Result<Batch>>>,
    workers: Vec<Option<JoinHandle<()>>>,
    taken: usize,
    batches: usize,
    waited: Duration,
}

impl Loader {
    /// Starts to make the batches of `order`, which holds indices into `crops` and
    /// `labels` and may repeat them.
    pub fn new(
        crops: Arc<Vec<Crop>>,
        labels: Arc<Vec<i64>>,
        order: Vec<usize>,
        settings: LoaderSettings,
    ) -> Self {
        let size = settings.batch.max(1);
        let batches = order.len().div_ceil(size);
        Self::start(batches, settings.threads, move |batch| {
            let from = batch * size;
            let to = (from + size).min(order.len());
            make(&crops, &labels, &order[from..to], from, &settings)
        })
    }

    fn start(
        batches: usize,
        threads: usize,
        make: impl Fn(usize) -> Result<Batch> + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(make);
        let threads = threads.clamp(1, batches.max(1));
        let mut loader =
            Self { queues: vec![], workers: vec![], taken: 0, batches, waited: Duration::ZERO };
        for thread in 0..threads {
            let (queue, taken) = sync_channel(QUEUED);
            let make = Arc::clone(&make);
            loader.queues.push(taken);
            loader.workers.push(Some(std::thread::spawn(move || {
                for batch in (thread..batches).step_by(threads) {
                    // The loader was dropped.
                    if queue.send(make(batch)).is_err() {
                        return;
                    }
                }
            })));
        }
        loader
    }

    /// The next batch, or `None` after the last. Fails if the order names a missing face
    /// or a thread panicked.
    #[expect(clippy::should_implement_trait, reason = "an error does not end the batches")]
    pub fn next(&mut self) -> Result<Option<Batch>> {
        if self.taken == self.batches {
            return Ok(None);
        }
        let thread = self.taken % self.queues.len();
        let before = Instant::now();
        let batch = self.queues[thread].recv();
        self.waited += before.elapsed();
        let number = self.taken + 1;
        let Ok(batch) = batch else {
            // A thread that ends before its batches are made has panicked.
            let reason = match self.workers[thread].take().map(JoinHandle::join) {
                Some(Err(panic)) => said(panic.as_ref()),
                _ => "it ended early".to_owned(),
            };
            bail!("batch {number}: the thread that makes it failed: {reason}");
        };
        self.taken += 1;
        batch.map(Some).with_context(|| format!("batch {number}"))
    }

    /// Number of batches in total.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Total time that [`Loader::next`] has waited for batches.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Threads that wait for room in their queue end when it is dropped.
        self.queues.clear();
        for worker in self.workers.iter_mut().filter_map(Option::take) {
            let _ = worker.join();
        }
    }
}

/// Number of loading threads for a network that trains on `device`. With a GPU all cores
/// are free. On the CPU the network needs the cores, and making a batch is much faster
/// than training on it, so one thread is enough.
pub fn threads(device: tch::Device) -> usize {
    match device {
        tch::Device::Cpu => 1,
        _ => parallel::cores(),
    }
}

fn make(
    crops: &[Crop],
    labels: &[i64],
    chosen: &[usize],
    from: usize,
    settings: &LoaderSettings,
) -> Result<Batch> {
    let side = settings.side;
    let plane = 3 * side * side;
    let mut values = Vec::with_capacity(plane * chosen.len());
    let mut one = Vec::new();
    let mut known = Vec::with_capacity(chosen.len());
    for (at, index) in chosen.iter().enumerate() {
        let (Some(crop), Some(label)) = (crops.get(*index), labels.get(*index)) else {
            return Err(anyhow!(
                "face {index} of {} with {} labels; the order must name existing faces",
                crops.len(),
                labels.len()
            ));
        };
        if crop.side() != side {
            let has = crop.side();
            bail!("face {index} has {has}x{has} pixels, and the network expects {side}x{side}");
        }
        let place = [settings.epoch as u64, (from + at) as u64];
        let seen = settings.augment.apply(crop, &mut Chance::at(settings.seed, &place));
        seen.planar(settings.channels, &settings.normalization, &mut one);
        values.extend_from_slice(&one);
        known.push(*label);
    }
    let shape = [chosen.len() as i64, 3, side as i64, side as i64];
    Ok(Batch {
        pictures: Tensor::from_slice(&values).view(shape),
        labels: Tensor::from_slice(&known),
        indices: chosen.to_vec(),
    })
}

/// The message of a panic.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "it panicked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::torch_net::pictures;
    use crate::train::torch_net::tests::{crop, crop_of};
    use std::sync::atomic::{AtomicUsize, Ordering};

    const PLAIN: LoaderSettings = LoaderSettings {
        batch: 4,
        augment: Augment {
            flip: 0.5,
            brightness: crate::data::augment::Change { probability: 1.0, limit: 0.2 },
            object: crate::data::augment::Change { probability: 0.5, limit: 0.1 },
            ..Augment::none()
        },
        side: 112,
        channels: Channels::Rgb,
        normalization: Normalization::ARCFACE,
        seed: 5,
        epoch: 2,
        threads: 1,
    };

    fn faces(count: usize) -> (Arc<Vec<Crop>>, Arc<Vec<i64>>) {
        let crops = (0..count).map(crop).collect();
        (Arc::new(crops), Arc::new((0..count as i64).map(|index| 100 + index).collect()))
    }

    fn all(order: &[usize], settings: LoaderSettings) -> Vec<Batch> {
        let (crops, labels) = faces(6);
        let mut loader = Loader::new(crops, labels, order.to_vec(), settings);
        let mut batches = Vec::new();
        while let Some(batch) = loader.next().expect("a batch") {
            batches.push(batch);
        }
        assert!(loader.next().expect("no fault").is_none(), "the end stays the end");
        assert_eq!(batches.len(), loader.batches());
        batches
    }

    fn same(one: &[Batch], other: &[Batch]) -> bool {
        one.len() == other.len()
            && one.iter().zip(other).all(|(a, b)| {
                a.indices == b.indices && a.labels.equal(&b.labels) && a.pictures.equal(&b.pictures)
            })
    }

    #[test]
    fn batches_come_in_their_order_and_are_the_same_for_any_number_of_threads() {
        let order: Vec<usize> = (0..31).map(|at| at * 5 % 6).collect();
        let one = all(&order, PLAIN);
        let indices: Vec<usize> = one.iter().flat_map(|batch| batch.indices.clone()).collect();
        assert_eq!(indices, order);
        assert_eq!(
            one.iter().map(|batch| batch.indices.len()).collect::<Vec<_>>(),
            [4, 4, 4, 4, 4, 4, 4, 3]
        );
        for threads in [0, 2, 3, 7, 64] {
            assert!(same(&one, &all(&order, LoaderSettings { threads, ..PLAIN })), "{threads}");
        }
    }

    #[test]
    fn a_face_is_changed_anew_by_seed_epoch_and_place() {
        let order = [3, 3, 3, 3];
        let first = all(&order, PLAIN);
        let rows: Vec<Tensor> = (0..4).map(|row| first[0].pictures.get(row)).collect();
        assert!(rows[1..].iter().all(|row| !row.equal(&rows[0])));
        assert!(!same(&first, &all(&order, LoaderSettings { epoch: 3, ..PLAIN })));
        assert!(!same(&first, &all(&order, LoaderSettings { seed: 6, ..PLAIN })));
    }

    #[test]
    fn without_changes_a_batch_is_the_faces_normalized() {
        let settings = LoaderSettings { augment: Augment::none(), ..PLAIN };
        let batches = all(&[5, 0, 2], settings);
        let crops = [crop(5), crop(0), crop(2)];
        let expected = pictures(&crops.each_ref(), Channels::Rgb, &Normalization::ARCFACE);
        assert!(batches[0].pictures.equal(&expected));
        assert!(batches[0].labels.equal(&Tensor::from_slice(&[105i64, 100, 102])));
    }

    #[test]
    fn no_faces_are_no_batches() {
        assert!(all(&[], PLAIN).is_empty());
    }

    #[test]
    fn a_face_that_is_not_there_is_named() {
        let (crops, labels) = faces(2);
        let mut loader = Loader::new(crops, labels, vec![0, 1, 0, 1, 7], PLAIN);
        assert!(loader.next().expect("the first is fine").is_some());
        let message = format!("{:#}", loader.next().expect_err("face 7"));
        assert!(message.starts_with("batch 2: face 7 of 2"), "{message}");
    }

    #[test]
    fn faces_have_the_side_and_the_channels_of_the_network() {
        let settings = LoaderSettings {
            side: 128,
            channels: Channels::Bgr,
            augment: Augment::none(),
            ..PLAIN
        };
        let crop = crop_of(128, 3);
        let batch = make(std::slice::from_ref(&crop), &[0], &[0], 0, &settings).expect("a batch");
        assert_eq!(batch.pictures.size(), [1, 3, 128, 128]);
        let rgb = pictures(&[&crop], Channels::Rgb, &settings.normalization);
        assert!(batch.pictures.flip([1]).equal(&rgb));
        let error = make(&[crop], &[0], &[0], 0, &PLAIN).expect_err("too large").to_string();
        assert!(error.contains("face 0 has 128x128 pixels"), "{error}");
    }

    #[test]
    fn a_panic_on_a_thread_is_an_error_here() {
        for threads in [1, 3] {
            let mut loader = Loader::start(5, threads, |batch| {
                assert!(batch != 3, "the cable was pulled");
                make(&[crop(1)], &[0], &[0], batch, &PLAIN)
            });
            for _ in 0..3 {
                assert!(loader.next().expect("a batch").is_some());
            }
            for _ in 0..2 {
                let message = loader.next().expect_err("a panic").to_string();
                assert!(message.starts_with("batch 4: the thread that makes it failed"));
            }
        }
    }

    #[test]
    fn threads_work_ahead_but_not_without_bound_and_end_with_the_loader() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let loader = Loader::start(1000, 2, move |batch| {
            count.fetch_add(1, Ordering::SeqCst);
            make(&[crop(1)], &[0], &[0], batch, &PLAIN)
        });
        drop(loader);
        // Each thread has made at most the queued batches and one in hand.
        assert!(made.load(Ordering::SeqCst) <= 2 * (QUEUED + 2));
        assert_eq!(Arc::strong_count(&made), 1, "no thread is left that holds it");
    }

    #[test]
    fn waiting_is_measured() {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = std::sync::Mutex::new(gone);
        let mut loader = Loader::start(1, 1, move |batch| {
            let _ = gone.lock().map(|gone| gone.recv());
            make(&[crop(1)], &[0], &[0], batch, &PLAIN)
        });
        assert_eq!(loader.waited(), Duration::ZERO);
        drop(go);
        loader.next().expect("a batch");
        assert!(loader.waited() > Duration::ZERO);
    }
}
