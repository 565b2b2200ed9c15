//! The ranks of a model, each on its own thread.
//!
//! A rank's thread creates its device, loads its shard, runs all steps, and drops everything itself, because some
//! devices (Ascend contexts) belong to a thread. Steps are sent through channels, which spin before they sleep. Logits
//! return in buffers that are reused.
//! A rank that fails reports its error first and then aborts the group, so that no other rank waits for it in a
//! collective. The caller gets the earliest error.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use glmbench_device::group::DeviceGroup;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::sensors::Sensors;
use glmbench_device::{DeviceError, DeviceInfo, SequenceView};

use crate::EngineError;
use crate::config::ModelConfig;
use crate::cut::Cut;
use crate::model::{Capacity, Forward, Model, StepInput};
use crate::weights::WeightSource;

use super::source::Together;

/// A model on several ranks, or on one rank if the device needs its own thread.
pub struct Ranks {
    workers: Vec<Worker>,
    reports: Receiver<(usize, Report)>,
    config: ModelConfig,
    capacity: Capacity,
    device: &'static str,
    info: DeviceInfo,
    modelled_ns: Option<u64>,
    /// Why the model can run no more steps.
    failure: Option<String>,
    sensors: Option<Box<dyn Sensors>>,
}

/// The caller's handle of a rank.
struct Worker {
    /// Closed to end the rank.
    orders: Option<Sender<Order>>,
    logits: Arc<Mutex<Vec<f32>>>,
    thread: Option<JoinHandle<()>>,
}

/// An order to all ranks.
#[derive(Clone)]
enum Order {
    Forward(Arc<OwnedStep>),
    Prefix(Arc<[u32]>),
    /// Copy the first tokens of one block to another.
    CopyBlock(u32, u32, usize),
    /// Nanoseconds to advance the virtual clock by.
    Idle(u64),
    Release,
}

/// A rank's report to the caller.
enum Report {
    /// Number of tensors loaded, and their total.
    Loading(usize, usize),
    /// The model is loaded: the device, and its virtual clock if it has one.
    Ready(DeviceInfo, Option<u64>),
    /// The order is done. Holds the virtual clock, if there is one.
    Done(Option<u64>),
    /// The rank has ended with this error.
    Failed(EngineError),
}

/// An owned [`StepInput`] that threads can share.
struct OwnedStep {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    sequences: Vec<OwnedSequence>,
    /// The block tables of all sequences.
    blocks: Vec<u32>,
    logit_rows: Vec<usize>,
}

struct OwnedSequence {
    rows: Range<usize>,
    context: usize,
    blocks: Range<usize>,
}

/// What all ranks need for loading.
struct Share<G> {
    group: Arc<G>,
    whole: ModelConfig,
    rotary: RotaryMode,
    capacity: Capacity,
}

impl Ranks {
    /// Starts the ranks of `group`, which load in parallel. `progress` receives rank 0's progress.
    ///
    /// # Errors
    /// The model cannot be split over this number of ranks (checked before anything is loaded), or the first error of
    /// any rank.
    pub fn load<G: DeviceGroup>(
        group: G,
        config: &ModelConfig,
        rotary: RotaryMode,
        capacity: Capacity,
        source: Arc<dyn WeightSource>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, EngineError> {
        let tp = group.tp();
        let cuts = (0..tp).map(|rank| Cut::new(config, rank, tp)).collect::<Result<Vec<_>, _>>()?;
        let (device, sensors, group) = (group.name(), group.sensors(), Arc::new(group));
        let share = Arc::new(Share { group, whole: config.clone(), rotary, capacity });
        let source = Arc::new(Together::new(source, tp));
        let (sender, reports) = channel();
        let mut ranks = Self {
            workers: Vec::with_capacity(tp),
            reports,
            config: config.clone(),
            capacity,
            device,
            info: DeviceInfo::plain(device, "", 0, glmbench_device::DType::Fp32),
            modelled_ns: None,
            failure: None,
            sensors,
        };
        for cut in cuts {
            let worker = Worker::start(&share, cut, &source, &sender)?;
            ranks.workers.push(worker);
        }
        drop((sender, source));
        ranks.info = merged(ranks.settle(progress)?);
        Ok(ranks)
    }

    /// Sends an order to all ranks and waits until it is done.
    fn run(&mut self, order: &Order) -> Result<(), EngineError> {
        if let Some(failure) = &self.failure {
            return Err(lost(self.device, failure.clone()));
        }
        for worker in &self.workers {
            // A rank that has ended has already reported why.
            let _ = worker.orders.as_ref().map(|orders| orders.send(order.clone()));
        }
        self.settle(&mut |_, _| {}).map(drop)
    }

    /// Waits until every rank is done or has failed. Returns the devices of the ranks that reported [`Report::Ready`].
    /// On failure, returns the first error, which caused the others.
    fn settle(&mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<DeviceInfo>, EngineError> {
        let mut failure = None;
        let mut ready = Vec::new();
        let mut clock = None;
        let mut open = self.workers.len();
        while open > 0 {
            match self.reports.recv() {
                Ok((0, Report::Loading(done, total))) => progress(done, total),
                Ok((_, Report::Loading(..))) => {}
                Ok((rank, Report::Ready(info, modelled_ns))) => {
                    ready.push((rank, info));
                    clock = clock.max(modelled_ns);
                    open -= 1;
                }
                Ok((_, Report::Done(modelled_ns))) => {
                    clock = clock.max(modelled_ns);
                    open -= 1;
                }
                Ok((rank, Report::Failed(error))) => {
                    failure.get_or_insert((rank, error));
                    open -= 1;
                }
                Err(_) => {
                    failure.get_or_insert_with(|| (0, lost(self.device, "its ranks have ended".into())));
                    open = 0;
                }
            }
        }
        // Failed ranks report no time. The clock never goes back.
        self.modelled_ns = clock.max(self.modelled_ns);
        if let Some((rank, error)) = failure {
            self.failure = Some(format!("rank {rank} of {} had failed: {error}", self.workers.len()));
            return Err(error);
        }
        ready.sort_by_key(|(rank, _)| *rank);
        Ok(ready.into_iter().map(|(_, info)| info).collect())
    }

    /// Concatenates the ranks' parts of the vocabulary, row by row.
    fn gather(&self, rows: usize, logits: &mut Vec<f32>) {
        let parts: Vec<_> =
            self.workers.iter().map(|w| w.logits.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        let width = self.config.padded_vocab_size / parts.len();
        logits.reserve(rows * self.config.padded_vocab_size);
        for row in 0..rows {
            parts.iter().for_each(|part| logits.extend_from_slice(&part[row * width..(row + 1) * width]));
        }
    }
}

impl Forward for Ranks {
    fn forward(&mut self, step: &StepInput<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        self.run(&Order::Forward(Arc::new(OwnedStep::of(step))))?;
        logits.clear();
        self.gather(step.logit_rows.len(), logits);
        Ok(())
    }

    fn write_prefix(&mut self, blocks: &[u32]) -> Result<(), EngineError> {
        match self.config.pre_seq_len {
            Some(_) => self.run(&Order::Prefix(blocks.into())),
            None => Ok(()),
        }
    }

    fn copy_block(&mut self, from: u32, to: u32, tokens: usize) -> Result<(), EngineError> {
        self.run(&Order::CopyBlock(from, to, tokens))
    }

    fn device_info(&self) -> DeviceInfo {
        self.info.clone()
    }

    /// Returns the clock of the rank that is furthest ahead.
    fn modelled_ns(&self) -> Option<u64> {
        self.modelled_ns
    }

    /// Advances every rank's clock. The next order reports a rank that fails.
    fn idle(&mut self, duration_ns: u64) {
        let _ = self.run(&Order::Idle(duration_ns));
    }

    fn release_cached(&mut self) -> Result<(), EngineError> {
        self.run(&Order::Release)
    }

    fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    fn sensors(&self) -> Option<&dyn Sensors> {
        self.sensors.as_deref()
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.orders = None);
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A panic was reported already, or the rank is ending anyway.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn start<G: DeviceGroup>(
        share: &Arc<Share<G>>,
        cut: Cut,
        source: &Arc<Together>,
        reports: &Sender<(usize, Report)>,
    ) -> Result<Self, EngineError> {
        let (orders, received) = channel();
        let logits = Arc::new(Mutex::new(Vec::new()));
        let rank =
            Rank { share: Arc::clone(share), cut, reports: reports.clone(), logits: Arc::clone(&logits) };
        let source = Arc::clone(source);
        let thread = std::thread::Builder::new()
            .name(format!("glmbench-rank-{}", cut.rank()))
            .spawn(move || rank.live(source, &received))
            .map_err(|error| {
                // The ranks that have started must not wait for this one.
                share.group.abort();
                lost(share.group.name(), format!("no thread can be had for rank {}: {error}", cut.rank()))
            })?;
        Ok(Self { orders: Some(orders), logits, thread: Some(thread) })
    }
}

/// The rank's own side, on its thread.
struct Rank<G: DeviceGroup> {
    share: Arc<Share<G>>,
    cut: Cut,
    reports: Sender<(usize, Report)>,
    logits: Arc<Mutex<Vec<f32>>>,
}

impl<G: DeviceGroup> Rank<G> {
    fn live(&self, source: Arc<Together>, orders: &Receiver<Order>) {
        let loaded = self.guarded(|| self.load(&source));
        drop(source);
        let Some(mut model) = loaded else { return };
        self.report(Report::Ready(model.device_info(), model.modelled_ns()));
        while let Ok(order) = orders.recv() {
            let Some(()) = self.guarded(|| self.run(&mut model, &order)) else { return };
            self.report(Report::Done(model.modelled_ns()));
        }
    }

    fn load(&self, source: &Together) -> Result<Model<G::Device>, EngineError> {
        let Share { group, whole, rotary, capacity } = &*self.share;
        let device = group.device(self.cut.rank())?;
        let mut progress = |done, total| self.report(Report::Loading(done, total));
        Model::load_rank(device, whole, self.cut, *rotary, *capacity, source, &mut progress)
    }

    fn run(&self, model: &mut Model<G::Device>, order: &Order) -> Result<(), EngineError> {
        match order {
            Order::Forward(step) => {
                let mut logits = self.logits.lock().unwrap_or_else(PoisonError::into_inner);
                step.lend(|input| model.forward(input, &mut logits))
            }
            Order::Idle(duration_ns) => {
                model.idle(*duration_ns);
                Ok(())
            }
            Order::Prefix(blocks) => model.write_prefix(blocks),
            Order::CopyBlock(from, to, tokens) => model.copy_block(*from, *to, *tokens),
            Order::Release => model.release_cached(),
        }
    }

    /// Runs `work`. If it fails or panics, reports that before waking the other ranks, because their errors only
    /// follow from it.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, EngineError>) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let (rank, tp) = (self.cut.rank(), self.cut.tp());
            let problem = format!("rank {rank} of {tp} panicked: {}", words(&*panic));
            Err(lost(self.share.group.name(), problem))
        });
        result
            .map_err(|error| {
                self.report(Report::Failed(error));
                self.share.group.abort();
            })
            .ok()
    }

    fn report(&self, report: Report) {
        // Sending fails only if the caller is gone; then the orders end, too.
        let _ = self.reports.send((self.cut.rank(), report));
    }
}

impl OwnedStep {
    fn of(step: &StepInput<'_>) -> Self {
        let mut blocks = Vec::new();
        let sequences = step
            .sequences
            .iter()
            .map(|s| {
                let start = blocks.len();
                blocks.extend_from_slice(s.blocks);
                OwnedSequence { rows: s.rows.clone(), context: s.context, blocks: start..blocks.len() }
            })
            .collect();
        Self {
            tokens: step.tokens.to_vec(),
            positions: step.positions.to_vec(),
            sequences,
            blocks,
            logit_rows: step.logit_rows.to_vec(),
        }
    }

    fn lend<T>(&self, run: impl FnOnce(&StepInput<'_>) -> T) -> T {
        let view = |s: &OwnedSequence| SequenceView {
            rows: s.rows.clone(),
            context: s.context,
            blocks: &self.blocks[s.blocks.clone()],
        };
        let sequences: Vec<_> = self.sequences.iter().map(view).collect();
        run(&StepInput {
            tokens: &self.tokens,
            positions: &self.positions,
            sequences: &sequences,
            logit_rows: &self.logit_rows,
        })
    }
}

/// Merges the ranks' device descriptions: rank 0's, the sum of all threads, and the details in which other ranks
/// differ.
fn merged(ranks: Vec<DeviceInfo>) -> DeviceInfo {
    let tp = ranks.len();
    let threads = ranks.iter().map(|info| info.threads).sum();
    let mut ranks = ranks.into_iter();
    let first = ranks.next().expect("invariant: there is a rank");
    let mut details = first.details.clone();
    for (rank, info) in ranks.enumerate() {
        let own = info.details.into_iter().filter(|detail| !first.details.contains(detail));
        details.extend(own.map(|(name, value)| (format!("{name} (rank {})", rank + 1), value)));
    }
    DeviceInfo { threads, tp, details, ..first }
}

fn lost(device: &'static str, message: String) -> EngineError {
    EngineError::Device(DeviceError::Lost { device, message })
}

/// Returns a panic's message.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}
