//! The thread pool of the token loop: a fixed team of threads that share the items of one job at a time.
//!
//! Threads take items one by one, and the caller takes items too. A worker that the system has preempted delays nobody:
//! the other threads do the items that it has not begun.
//!
//! A decode step of a small model hands over work hundreds of times, so waiting threads spin before they sleep. While
//! they spin, a hand-over takes no lock and no system call: single atomic operations open and close a gate in front of
//! the job. The spin is limited by time, not by iterations, because an iteration costs ten times as much on some
//! processors as on others. An idle engine therefore uses no CPU time on any processor.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use glmbench_device::affinity::bind_current_thread;

/// How long a waiting thread spins before it sleeps or yields its core. This is longer than the caller's own work
/// between two jobs of a step, and too short to be noticed.
const SPIN: Duration = Duration::from_micros(100);
/// Spin iterations between two clock reads.
const TURNS: u32 = 32;

/// Work of about ten microseconds, in multiply-adds. Less is not worth a hand-over.
const SMALL_WORK: usize = 1 << 17;

/// Pieces per thread into which a range is split, so that threads finish together even if one was delayed.
const PIECES_A_THREAD: usize = 4;

/// The bit of [`Shared::gate`] that is set while no job may be joined.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Returns part `index` of `0..count`, split into `parts` nearly equal parts.
pub(crate) fn part(count: usize, index: usize, parts: usize) -> Range<usize> {
    count * index / parts..count * (index + 1) / parts
}

/// A job: a closure of the caller, called with thread and item. It lives until [`Pool::share`] returns.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize, usize) + Sync),
    count: usize,
}

struct Shared {
    /// Number of jobs so far. A change wakes the workers.
    epoch: AtomicU64,
    /// Number of workers in the current job, and the [`CLOSED`] bit.
    gate: AtomicUsize,
    /// The current job; `None` before the first. The caller writes it while the gate is closed and no worker is inside.
    /// Workers that have passed the gate read it.
    job: UnsafeCell<Option<Job>>,
    /// Next item of the current job.
    next: AtomicUsize,
    /// Whether a worker panicked in the current job.
    panicked: AtomicBool,
    /// Whether the team must end.
    over: AtomicBool,
    /// Workers that sleep or are about to sleep.
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: all fields but `job` are safe to share. Only the caller writes `job`, while the gate is closed and no worker
// is inside. Workers read it only between entering and leaving the gate. The closure behind it is `Sync`, and lives as
// long.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it is tied to a thread.
unsafe impl Send for Shared {}

/// A team of threads. The caller is the first of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts a team of `threads` threads, or fewer if the system refuses more.
    pub fn new(threads: usize) -> Self {
        Self::on_cores(threads, &[])
    }

    /// Starts a team with each thread, including the calling one, bound to its own core, in the order of `cores`. With
    /// fewer cores than threads, the threads keep the caller's affinity. If binding fails, the system places the
    /// thread.
    pub fn on_cores(threads: usize, cores: &[usize]) -> Self {
        let cores = if threads <= cores.len() { cores } else { &[] };
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            gate: AtomicUsize::new(CLOSED),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            over: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let bind = |core: Option<usize>| {
            if let Some(core) = core {
                // The group of these cores has already been bound, or has reported why not.
                let _ = bind_current_thread(&[core]);
            }
        };
        let workers = (1..threads)
            .map_while(|index| {
                let (shared, core) = (Arc::clone(&shared), cores.get(index).copied());
                let life = move || {
                    bind(core);
                    work(&shared, index);
                };
                std::thread::Builder::new().name(format!("glmbench-{index}")).spawn(life).ok()
            })
            .collect();
        bind(cores.first().copied());
        Self { shared, workers }
    }

    /// Returns the number of threads, including the caller.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Splits `0..count` into contiguous ranges and runs `task(range)` on each, on any free thread. `work` is the total
    /// number of multiply-adds, or of numbers touched. If the work takes less time than a hand-over, it stays on the
    /// caller's thread.
    pub fn split(&mut self, count: usize, work: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
        let pieces = (self.threads() * PIECES_A_THREAD).min(count);
        if work < SMALL_WORK || pieces < 2 || self.workers.is_empty() {
            return task(0..count);
        }
        self.share(pieces, &|_, piece| task(part(count, piece, pieces)));
    }

    /// Runs `task(thread, item)` for every item of `0..count`. Small `work` stays on the caller's thread, as in
    /// [`Pool::split`]. `thread` is below [`Pool::threads`], and no two items run with the same `thread` at the same
    /// time.
    pub fn each(&mut self, count: usize, work: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if work < SMALL_WORK || count < 2 || self.workers.is_empty() {
            return (0..count).for_each(|item| task(0, item));
        }
        self.share(count, task);
    }

    /// Opens a job, takes part in it, and returns when the whole job is done.
    fn share(&mut self, count: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased. Besides this thread, only threads that have passed the gate call the
        // closure. This function closes the gate and waits for them before it returns or unwinds.
        let task: *const (dyn Fn(usize, usize) + Sync) = unsafe {
            std::mem::transmute::<&(dyn Fn(usize, usize) + Sync), &'static (dyn Fn(usize, usize) + Sync)>(
                task,
            )
        };
        let job = Job { task, count };
        shared.next.store(0, Ordering::Relaxed);
        // SAFETY: the gate is closed and no worker is inside: it starts so, and every job leaves it so.
        unsafe { *shared.job.get() = Some(job) };
        shared.gate.store(0, Ordering::Release);
        shared.call();
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
        self.shared.over.store(true, Ordering::Release);
        self.shared.call();
        for worker in self.workers.drain(..) {
            // `share` has already reported a worker that panicked.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a new epoch and wakes sleeping workers. Either the caller sees the sleeper or the sleeper sees the epoch:
    /// both write before they read, with sequentially consistent ordering.
    fn call(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // A worker that is about to sleep holds the lock until it sleeps.
            drop(self.lock());
            self.wake.notify_all();
        }
    }

    /// Spins, then sleeps, until the epoch differs from `seen`; returns the new epoch.
    fn next_epoch(&self, seen: u64) -> u64 {
        let moved = || self.epoch.load(Ordering::Acquire) != seen;
        if !spin_until(moved) {
            let mut lock = self.lock();
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while self.epoch.load(Ordering::SeqCst) == seen {
                lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        self.epoch.load(Ordering::Acquire)
    }

    /// Enters the gate unless it is closed. Returns whether it did.
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

/// Spins for a while. Returns whether `done` became true.
fn spin_until(done: impl Fn() -> bool) -> bool {
    let turns = || {
        (0..TURNS).any(|_| {
            std::hint::spin_loop();
            done()
        })
    };
    if done() || turns() {
        return true;
    }
    let start = Instant::now();
    while start.elapsed() < SPIN {
        if turns() {
            return true;
        }
    }
    false
}

/// Spins, then yields, because the other threads are working and will finish soon.
fn wait_until(done: impl Fn() -> bool) {
    if !spin_until(&done) {
        while !done() {
            std::thread::yield_now();
        }
    }
}

/// The main loop of a worker.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        seen = shared.next_epoch(seen);
        if shared.over.load(Ordering::Acquire) {
            return;
        }
        // The worker is too late for this epoch's job, or early for the next one. Both are harmless.
        if !shared.enter() {
            continue;
        }
        // SAFETY: the gate was passed, so the job is written and stays until this worker leaves the gate.
        let job = unsafe { *shared.job.get() };
        let items = || job.map(|job| shared.take_items(index, job));
        if catch_unwind(AssertUnwindSafe(items)).is_err() {
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

    /// Workers sleep and wake repeatedly, and no job is lost in between.
    #[test]
    fn a_job_finds_the_workers_asleep_or_awake() {
        let mut pool = Pool::new(3);
        for pause_us in [0, 20, 90, 100, 110, 150, 400] {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_micros(pause_us));
                let done = AtomicUsize::new(0);
                pool.each(5, usize::MAX, &|_, item| {
                    done.fetch_add(item, Ordering::Relaxed);
                });
                assert_eq!(done.into_inner(), 10);
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn idle_workers_sleep() {
        let mut pool = Pool::new(3);
        pool.each(3, usize::MAX, &|_, _| ());
        while pool.shared.sleepers.load(Ordering::SeqCst) < pool.workers.len() {
            std::thread::yield_now();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_team_on_cores_has_one_each() {
        use glmbench_device::affinity::{allowed_cores, core_list};
        let told = std::thread::spawn(|| {
            let cores = allowed_cores();
            let mut pool = Pool::on_cores(cores.len(), &cores);
            let seen = Mutex::new(std::collections::BTreeMap::new());
            while seen.lock().unwrap().len() < cores.len() {
                pool.each(cores.len(), usize::MAX, &|thread, _| {
                    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
                    seen.lock().unwrap().insert(thread, line.unwrap().trim().to_owned());
                    std::thread::yield_now();
                });
            }
            let seen = seen.into_inner().unwrap();
            cores.iter().enumerate().all(|(thread, core)| seen[&thread] == core_list(&[*core]))
        });
        assert!(told.join().unwrap());
    }
}
