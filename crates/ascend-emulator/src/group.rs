//! The ranks of a communicator.
//!
//! The ranks meet twice in each collective. On the virtual clock, the ready times of all ranks give the end. In compute
//! mode they also meet with their data, and the last rank's worker does the arithmetic for all.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::half::{DType, narrow, widen};
use crate::memory::Allocation;
use crate::registry::{Device, lock};
use crate::status::{Outcome, RT_AICORE_EXCEPTION, RT_AICORE_TIMEOUT, fail};
use crate::stream::{Address, Stream};

/// Kind of collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every rank gets the reduction of all.
    AllReduce(Reduction),
    /// Every rank gets its part of the reduction.
    ReduceScatter(Reduction),
    /// Every rank gets all parts, in rank order.
    AllGather,
    /// Every rank gets the data of this rank.
    Broadcast(u32),
}

/// How the ranks' numbers are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Prod,
    Max,
    Min,
}

/// The arguments that all ranks must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// Kind of collective.
    pub kind: Kind,
    /// Number of elements.
    pub count: u64,
    /// Element type.
    pub dtype: DType,
}

/// The buffers of a rank.
pub(crate) struct Buffers {
    /// Send buffer.
    pub send: Address,
    /// Receive buffer.
    pub receive: Address,
    /// Shares of both allocations.
    pub shares: Vec<Arc<Allocation>>,
}

#[derive(Default)]
struct Rendezvous {
    call: Option<Call>,
    ready_ns: Vec<Option<u64>>,
    end_ns: Option<u64>,
    taken: usize,
    buffers: Vec<Option<Buffers>>,
    outcome: Option<Outcome>,
    left: usize,
    /// Stream and job of each rank. A rank that waits lets the others' lazy streams run.
    parts: Vec<(Weak<Stream>, u64)>,
    awaited: bool,
}

/// The ranks of a communicator.
pub(crate) struct Group {
    /// Number of ranks.
    pub ranks: usize,
    /// Duration of a collective, as a function of its bytes on a link.
    duration: Box<dyn Fn(f64) -> u64 + Send + Sync>,
    timeout: Duration,
    /// Whether data is exchanged, or only time.
    computes: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rendezvous: HashMap<u64, Rendezvous>,
    joined: usize,
    broken: Option<String>,
}

impl Group {
    /// Creates a group of ranks that are yet to join.
    pub(crate) fn new(ranks: usize, device: &Device) -> Arc<Self> {
        let profile = device.config.profile.clone();
        Arc::new(Self {
            ranks,
            duration: Box::new(move |bytes| profile.collective_ns(bytes, ranks)),
            timeout: Duration::from_millis(device.config.hccl_timeout_ms),
            computes: device.computes(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Announces the call that a rank makes as its collective number `index`. Fails if the ranks' calls differ.
    pub(crate) fn announce(&self, index: u64, call: Call) -> Result<(), String> {
        let mut state = lock(&self.state);
        if let Some(problem) = &state.broken {
            return Err(problem.clone());
        }
        let rendezvous = state.rendezvous.entry(index).or_default();
        let first = *rendezvous.call.get_or_insert(call);
        if first == call {
            return Ok(());
        }
        let problem = format!("collective {index} differs between the ranks: {first:?} and {call:?}");
        state.broken = Some(problem.clone());
        self.changed.notify_all();
        Err(problem)
    }

    /// Records that a rank's part is job number `job` of its stream.
    pub(crate) fn enrol(&self, index: u64, stream: &Arc<Stream>, job: u64) {
        let mut state = lock(&self.state);
        let rendezvous = state.rendezvous.entry(index).or_default();
        rendezvous.parts.push((Arc::downgrade(stream), job));
        if rendezvous.awaited {
            stream.demand(job);
        }
    }

    /// Meets on the virtual clock: `rank` is ready at `ready_ns`. Returns the end once all ranks are ready, and an
    /// error if they never will be.
    pub(crate) fn meet(&self, rank: usize, index: u64, ready_ns: u64) -> Result<Option<u64>, String> {
        let mut state = lock(&self.state);
        let broken = state.broken.clone();
        let rendezvous = state.rendezvous.entry(index).or_default();
        rendezvous.ready_ns.resize(self.ranks, None);
        rendezvous.ready_ns[rank] = Some(ready_ns);
        if rendezvous.end_ns.is_none() {
            let latest = rendezvous.ready_ns.iter().copied().collect::<Option<Vec<u64>>>();
            match (latest.and_then(|all| all.into_iter().max()), rendezvous.call) {
                (Some(latest), Some(call)) => {
                    rendezvous.end_ns = Some(latest + (self.duration)(self.link_bytes(call)));
                    self.changed.notify_all();
                }
                _ => return broken.map_or(Ok(None), Err),
            }
        }
        rendezvous.taken += 1;
        let end_ns = rendezvous.end_ns;
        self.forget(&mut state, index);
        Ok(end_ns)
    }

    /// Bytes that every rank sends in a ring.
    pub(crate) fn link_bytes(&self, call: Call) -> f64 {
        let bytes = call.count as f64 * call.dtype.bytes() as f64;
        let n = self.ranks as f64;
        match call.kind {
            Kind::AllReduce(_) => 2.0 * (n - 1.0) / n * bytes,
            // The count is the number of elements that a rank sends (all-gather) or receives (reduce-scatter).
            Kind::AllGather | Kind::ReduceScatter(_) => (n - 1.0) * bytes,
            Kind::Broadcast(_) => bytes,
        }
    }

    fn forget(&self, state: &mut State, index: u64) {
        if let Some(rendezvous) = state.rendezvous.get(&index) {
            // The clock may be read before the data arrives, so missing buffers do not mean "done".
            let data_done = !self.computes || rendezvous.left == self.ranks;
            if rendezvous.taken == self.ranks && data_done && rendezvous.ready_ns.len() == self.ranks {
                state.rendezvous.remove(&index);
            }
        }
    }

    /// Waits up to `step` for the end of a collective.
    pub(crate) fn wait(&self, index: u64, step: Duration) {
        let state = lock(&self.state);
        let open = state.broken.is_none()
            && state.rendezvous.get(&index).is_some_and(|rendezvous| rendezvous.end_ns.is_none());
        if open {
            let _ = self.changed.wait_timeout(state, step);
        }
    }

    /// Joins the group and waits for the other ranks. The error is the number of ranks that joined in time.
    pub(crate) fn join(&self) -> Result<(), usize> {
        let begin = Instant::now();
        let mut state = lock(&self.state);
        state.joined += 1;
        self.changed.notify_all();
        while state.joined < self.ranks && state.broken.is_none() {
            let Some(left) = self.timeout.checked_sub(begin.elapsed()) else { return Err(state.joined) };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Marks the group as broken, so that no rank waits any longer.
    pub(crate) fn break_down(&self, problem: &str) {
        lock(&self.state).broken.get_or_insert_with(|| problem.to_owned());
        self.changed.notify_all();
    }

    /// Why the group is broken, if it is.
    pub(crate) fn problem(&self) -> Option<String> {
        lock(&self.state).broken.clone()
    }

    /// Exchanges the data: the last rank computes for all. Runs on a stream's worker.
    pub(crate) fn exchange(&self, rank: usize, index: u64, buffers: Buffers) -> Outcome {
        let begin = Instant::now();
        let mut state = lock(&self.state);
        let rendezvous = state.rendezvous.entry(index).or_default();
        if rendezvous.buffers.is_empty() {
            rendezvous.buffers.resize_with(self.ranks, || None);
        }
        rendezvous.buffers[rank] = Some(buffers);
        rendezvous.awaited = true;
        for (stream, job) in &rendezvous.parts {
            if let Some(stream) = stream.upgrade() {
                stream.demand(*job);
            }
        }
        if rendezvous.buffers.iter().all(Option::is_some)
            && let Some(call) = rendezvous.call
        {
            let all: Vec<Buffers> = rendezvous.buffers.iter_mut().filter_map(Option::take).collect();
            drop(state);
            // SAFETY: all ranks are here, their buffers were checked and are held.
            let outcome = unsafe { compute(call, &all) };
            drop(all);
            state = lock(&self.state);
            state.rendezvous.entry(index).or_default().outcome = Some(outcome);
            self.changed.notify_all();
        }
        loop {
            if let Some(outcome) = state.rendezvous.get(&index).and_then(|m| m.outcome.clone()) {
                if let Some(rendezvous) = state.rendezvous.get_mut(&index) {
                    rendezvous.left += 1;
                }
                self.forget(&mut state, index);
                return outcome;
            }
            if let Some(problem) = &state.broken {
                return fail(RT_AICORE_TIMEOUT, format!("HCCL: {problem}"));
            }
            let Some(left) = self.timeout.checked_sub(begin.elapsed()) else {
                let problem = "a rank did not join the collective in time";
                state.broken = Some(problem.to_owned());
                self.changed.notify_all();
                return fail(RT_AICORE_TIMEOUT, format!("HCCL: {problem}"));
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Computes a collective: sums in rank order, in fp32 with one rounding; integers in fp64.
///
/// # Safety
/// Every buffer is large enough for the call.
unsafe fn compute(call: Call, all: &[Buffers]) -> Outcome {
    if all.iter().flat_map(|b| &b.shares).any(|share| share.is_freed()) {
        return fail(RT_AICORE_EXCEPTION, "HCCL: a buffer was freed before the collective ran");
    }
    let (ranks, bytes) = (all.len(), call.count as usize * call.dtype.bytes());
    // SAFETY: the caller's promise; results are copied out only after all inputs were read.
    unsafe {
        match call.kind {
            Kind::AllReduce(reduction) => {
                let result = reduce(call, reduction, call.count as usize, all);
                for b in all {
                    std::ptr::copy_nonoverlapping(result.as_ptr(), b.receive.bytes(), bytes);
                }
            }
            Kind::ReduceScatter(reduction) => {
                let result = reduce(call, reduction, call.count as usize * ranks, all);
                for (rank, b) in all.iter().enumerate() {
                    std::ptr::copy_nonoverlapping(
                        result.as_ptr().add(rank * bytes),
                        b.receive.bytes(),
                        bytes,
                    );
                }
            }
            Kind::AllGather => {
                let mut whole = vec![0u8; bytes * ranks];
                for (part, b) in whole.chunks_exact_mut(bytes).zip(all) {
                    std::ptr::copy_nonoverlapping(b.send.bytes(), part.as_mut_ptr(), bytes);
                }
                for b in all {
                    std::ptr::copy_nonoverlapping(whole.as_ptr(), b.receive.bytes(), bytes * ranks);
                }
            }
            Kind::Broadcast(root) => {
                let from = all[root as usize].send.bytes();
                for b in all {
                    std::ptr::copy(from, b.receive.bytes(), bytes);
                }
            }
        }
    }
    Ok(())
}

/// # Safety
/// Every send buffer holds `count` numbers.
unsafe fn reduce(call: Call, reduction: Reduction, count: usize, all: &[Buffers]) -> Vec<u8> {
    let mut result = vec![0u8; count * call.dtype.bytes()];
    let combine32 = |a: f32, b: f32| match reduction {
        Reduction::Sum => a + b,
        Reduction::Prod => a * b,
        Reduction::Max => a.max(b),
        Reduction::Min => a.min(b),
    };
    // SAFETY: the caller's promise.
    unsafe {
        if call.dtype.is_float() {
            let (mut sums, mut row) = (vec![0f32; count], vec![0f32; count]);
            for (rank, b) in all.iter().enumerate() {
                widen(call.dtype, b.send.bytes(), &mut row);
                if rank == 0 {
                    sums.copy_from_slice(&row);
                } else {
                    sums.iter_mut().zip(&row).for_each(|(s, x)| *s = combine32(*s, *x));
                }
            }
            narrow(call.dtype, &sums, result.as_mut_ptr());
        } else {
            let size = call.dtype.bytes();
            for i in 0..count {
                let numbers =
                    all.iter().map(|b| crate::half::read_f64(call.dtype, b.send.bytes().add(i * size)));
                let combined = numbers.reduce(|a, b| match reduction {
                    Reduction::Sum => a + b,
                    Reduction::Prod => a * b,
                    Reduction::Max => a.max(b),
                    Reduction::Min => a.min(b),
                });
                crate::half::write_f64(
                    call.dtype,
                    combined.unwrap_or(0.0),
                    result.as_mut_ptr().add(i * size),
                );
            }
        }
    }
    result
}
