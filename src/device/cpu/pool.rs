//! The thread pool of the token loop: a fixed team that shares the items of one job at a time.
//!
//! Items are handed out one by one, and the caller takes them, too: a worker that the system has put aside holds nobody up,
//! because what it has not begun the others do. A decode step of a small model hands work over hundreds of times, so waiting
//! threads first spin for some microseconds and only then sleep: hand-over is quick within a step, and an idle engine burns
//! nothing.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Turns of the spin loop before a waiting thread sleeps: some tens of microseconds.
const SPINS: u32 = 4000;

/// Work of about ten microseconds, in multiply-adds: less is not worth a hand-over.
const SMALL_WORK: usize = 1 << 17;

/// Pieces that a range is cut into for each thread: the threads end together even if one was held up.
const PIECES_A_THREAD: usize = 4;

/// Set in [`Shared::gate`] while no job may be joined.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A job: a closure of the caller's, called with thread and item. It lives until [`Pool::share`] returns; a worker that comes
/// too late may still hold the pointer, and never follows it.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize, usize) + Sync),
    count: usize,
}

// SAFETY: the closure is `Sync`, and the pointer is followed only by threads that have passed the gate.
unsafe impl Send for Job {}

struct Shared {
    /// Counts jobs; a change wakes the workers.
    epoch: AtomicU64,
    /// Workers in the current job, and [`CLOSED`].
    gate: AtomicUsize,
    /// Next item of the current job.
    next: AtomicUsize,
    /// A worker panicked in the current job.
    panicked: AtomicBool,
    /// The current job; `None` with a new epoch ends the workers.
    job: Mutex<Option<Job>>,
    wake: Condvar,
}

/// A team of threads, the caller being the first of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts a team; fewer threads than asked for when the system refuses more.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            gate: AtomicUsize::new(CLOSED),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            job: Mutex::new(None),
            wake: Condvar::new(),
        });
        let workers = (1..threads)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("glmbench-{index}"))
                    .spawn(move || work(&shared, index))
                    .ok()
            })
            .collect();
        Self { shared, workers }
    }

    /// Threads in the team, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Cuts `0..count` into contiguous ranges and runs `task(range)` on each, on whichever thread is free. `work` is the
    /// number of multiply-adds, or of numbers touched, in all: what is done sooner than handed over stays on the caller's
    /// thread.
    pub fn split(&mut self, count: usize, work: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
        let pieces = (self.threads() * PIECES_A_THREAD).min(count);
        if work < SMALL_WORK || pieces < 2 || self.workers.is_empty() {
            return task(0..count);
        }
        self.share(pieces, &|_, piece| task(count * piece / pieces..count * (piece + 1) / pieces));
    }

    /// Runs `task(thread, item)` for every item of `0..count`; small `work` stays on the caller's thread, as in
    /// [`Pool::split`]. `thread` is below [`Pool::threads`], and no two items run under the same at a time.
    pub fn each(&mut self, count: usize, work: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if work < SMALL_WORK || count < 2 || self.workers.is_empty() {
            return (0..count).for_each(|item| task(0, item));
        }
        self.share(count, task);
    }

    /// Opens a job, takes part in it, and returns when all of it is done.
    fn share(&mut self, count: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased. The closure is called by threads that have passed the gate alone; this
        // function closes it and waits for them before it returns or unwinds.
        let task: *const (dyn Fn(usize, usize) + Sync) = unsafe {
            std::mem::transmute::<&(dyn Fn(usize, usize) + Sync), &'static (dyn Fn(usize, usize) + Sync)>(
                task,
            )
        };
        let job = Job { task, count };
        shared.next.store(0, Ordering::Relaxed);
        shared.announce(Some(job));
        let mine = catch_unwind(AssertUnwindSafe(|| shared.take_items(0, job)));
        shared.gate.fetch_or(CLOSED, Ordering::AcqRel);
        wait_until(|| shared.gate.load(Ordering::Acquire) == CLOSED);
        let theirs = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = mine {
            std::panic::resume_unwind(panic);
        }
        assert!(!theirs, "invariant: kernels do not panic");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.announce(None);
        for worker in self.workers.drain(..) {
            // A worker that panicked was reported by `share`.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a new epoch with this job and opens the gate. The epoch moves under the lock: a worker about to sleep cannot
    /// miss it.
    fn announce(&self, job: Option<Job>) {
        let mut current = self.lock();
        *current = job;
        self.gate.store(0, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::Release);
        drop(current);
        self.wake.notify_all();
    }

    /// Passes the gate unless it is closed.
    fn enter(&self) -> bool {
        let open = |gate: usize| (gate & CLOSED == 0).then_some(gate + 1);
        self.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, open).is_ok()
    }

    fn take_items(&self, thread: usize, job: Job) {
        loop {
            let item = self.next.fetch_add(1, Ordering::Relaxed);
            if item >= job.count {
                return;
            }
            // SAFETY: this thread has passed the gate (or is the caller), so the closure is alive.
            unsafe { (*job.task)(thread, item) };
        }
    }
}

/// Spins, then yields: the other threads are at work and will be done soon.
fn wait_until(done: impl Fn() -> bool) {
    let mut spins = 0;
    while !done() {
        if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// A worker's life.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        for _ in 0..SPINS {
            if shared.epoch.load(Ordering::Acquire) != seen {
                break;
            }
            std::hint::spin_loop();
        }
        let mut current = shared.lock();
        while shared.epoch.load(Ordering::Acquire) == seen {
            current = shared.wake.wait(current).unwrap_or_else(PoisonError::into_inner);
        }
        seen = shared.epoch.load(Ordering::Acquire);
        let Some(job) = *current else { return };
        // The gate is passed under the lock, so the job just read is the one that the gate is open for.
        let entered = shared.enter();
        drop(current);
        if !entered {
            continue;
        }
        if catch_unwind(AssertUnwindSafe(|| shared.take_items(index, job))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.gate.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_whatever_the_number_of_threads() {
        for threads in 1..=4 {
            let mut pool = Pool::new(threads);
            for count in [0, 1, 3, 100] {
                for _ in 0..50 {
                    let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    pool.split(count, usize::MAX, &|range| {
                        for i in range {
                            done[i].fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    pool.each(count, usize::MAX, &|thread, i| {
                        assert!(thread < threads);
                        done[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 2));
                }
            }
        }
    }

    #[test]
    fn a_panic_in_an_item_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2);
        let panics = |item| assert!(item != 3, "planted");
        let result = catch_unwind(AssertUnwindSafe(|| pool.each(8, usize::MAX, &|_, item| panics(item))));
        assert!(result.is_err());
        let done = AtomicUsize::new(0);
        pool.each(8, usize::MAX, &|_, _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 8);
    }
}
