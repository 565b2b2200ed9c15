//! The thread pool of the token loop: a fixed team that runs one closure at a time.
//!
//! A decode step of a small model hands work over hundreds of times, so waiting threads first spin for a few
//! microseconds and only then sleep: hand-over is quick within a step, and an idle engine burns nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Turns of the spin loop before a waiting thread sleeps: some tens of microseconds.
const SPINS: u32 = 4000;

/// Work of about ten microseconds, in multiply-adds: less is not worth a hand-over, least of all to a thread that the
/// system has put to sleep.
const SMALL_WORK: usize = 1 << 17;

/// A closure of the caller's, seen by the workers while the caller waits for them; its true lifetime ends when
/// [`Pool::run`] returns.
#[derive(Clone, Copy)]
struct Job(&'static (dyn Fn(usize) + Sync));

struct Shared {
    /// Counts jobs; a change wakes the workers.
    epoch: AtomicU64,
    /// Workers still busy with the current job.
    busy: AtomicUsize,
    /// A worker panicked in the current job.
    panicked: AtomicBool,
    /// The current job; `None` with a new epoch ends the workers.
    job: Mutex<Option<Job>>,
    wake: Condvar,
}

/// A team of `threads` threads, the caller being the first of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts a team; fewer threads than asked for when the system refuses more.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
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

    /// Runs `task(index)` on every thread of the team and returns when all are done.
    pub fn run(&mut self, task: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            task(0);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased; this function does not return, nor unwind, before every worker is
        // done with the closure.
        let job = Job(unsafe {
            std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task)
        });
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        self.announce(Some(job));
        let mine = catch_unwind(AssertUnwindSafe(|| task(0)));
        wait_until(|| shared.busy.load(Ordering::Acquire) == 0);
        if let Err(panic) = mine {
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "invariant: kernels do not panic");
    }

    /// Starts a new epoch with this job. The epoch moves under the lock: a worker about to sleep cannot miss it.
    fn announce(&self, job: Option<Job>) {
        let mut current = lock(&self.shared.job);
        *current = job;
        self.shared.epoch.fetch_add(1, Ordering::Release);
        drop(current);
        self.shared.wake.notify_all();
    }

    /// Splits `0..count` into one contiguous range a thread and runs `task(range)` on each. `work` is the number of
    /// multiply-adds, or of numbers touched, in all: what is done sooner than handed over stays on the caller's thread.
    pub fn split(&mut self, count: usize, work: usize, task: &(dyn Fn(std::ops::Range<usize>) + Sync)) {
        let threads = if work < SMALL_WORK { 1 } else { self.threads().min(count.max(1)) };
        if threads == 1 {
            return task(0..count);
        }
        self.run(&|index| {
            if index < threads {
                task(count * index / threads..count * (index + 1) / threads);
            }
        });
    }

    /// Runs `task(thread, item)` for every item of `0..count`, handed out one by one to whichever thread is free; small
    /// `work` stays on the caller's thread, as in [`Pool::split`].
    pub fn each(&mut self, count: usize, work: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if work < SMALL_WORK || count < 2 {
            return (0..count).for_each(|item| task(0, item));
        }
        let next = AtomicUsize::new(0);
        self.run(&|index| {
            loop {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= count {
                    break;
                }
                task(index, item);
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.announce(None);
        for worker in self.workers.drain(..) {
            // A worker that panicked was reported by `run`.
            let _ = worker.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        for _ in 0..SPINS {
            if shared.epoch.load(Ordering::Acquire) != seen {
                break;
            }
            std::hint::spin_loop();
        }
        let mut job = lock(&shared.job);
        while shared.epoch.load(Ordering::Acquire) == seen {
            job = shared.wake.wait(job).unwrap_or_else(PoisonError::into_inner);
        }
        seen = shared.epoch.load(Ordering::Acquire);
        let Some(Job(task)) = *job else { return };
        drop(job);
        if catch_unwind(AssertUnwindSafe(|| task(index))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
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
                let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.split(count, usize::MAX, &|range| {
                    for i in range {
                        done[i].fetch_add(1, Ordering::Relaxed);
                    }
                });
                pool.each(count, usize::MAX, &|_, i| {
                    done[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 2));
            }
        }
    }
}
