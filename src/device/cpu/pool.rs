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

/// A closure of the caller's, seen by the workers while the caller waits for them.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(usize) + Sync));

// SAFETY: the closure is `Sync`, and `Pool::run` keeps it alive until every worker is done with it.
unsafe impl Send for Job {}

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
            return task(0);
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased; this function does not return, nor unwind, before every worker is
        // done with the closure.
        let job = Job(unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(
                task,
            )
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

    /// Splits `0..count` into one contiguous range a thread and runs `task(range)` on each.
    pub fn split(&mut self, count: usize, task: &(dyn Fn(std::ops::Range<usize>) + Sync)) {
        let threads = self.threads().min(count.max(1));
        self.run(&|index| {
            if index < threads {
                task(count * index / threads..count * (index + 1) / threads);
            }
        });
    }

    /// Runs `task(item)` for every item of `0..count`, handed out one by one to whichever thread is free.
    pub fn each(&mut self, count: usize, task: &(dyn Fn(usize, usize) + Sync)) {
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
        // SAFETY: `Pool::run` keeps the closure alive until `busy` falls to zero.
        let task = unsafe { &*task };
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
                pool.split(count, &|range| {
                    for i in range {
                        done[i].fetch_add(1, Ordering::Relaxed);
                    }
                });
                pool.each(count, &|_, i| {
                    done[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 2));
            }
        }
    }
}
