//! Threads that run the same task simultaneously, in rounds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use glmbench_device::DeviceError;
use glmbench_device::affinity::{allowed_cores, bind_current_thread};

/// How long a waiting thread spins before it yields its core.
const SPIN: Duration = Duration::from_micros(200);

/// One thread's part of one round.
struct Part {
    start: Instant,
    end: Instant,
    work: u64,
}

/// Runs `task(thread)` on `threads` threads for `rounds` rounds, all starting together. Each round begins with
/// `prepare(thread)`. A first round that does not count wakes up the cores. Returns the rate of each round: the work
/// that the tasks return, divided by the time from first start to last end.
///
/// Tasks must not panic, because the other threads would wait forever. If this process may use enough cores, each
/// thread is bound to its own core. With more threads than cores, no thread is bound.
///
/// # Errors
/// The system cannot start a single thread. It may start fewer than requested.
pub(super) fn rates(
    threads: usize,
    rounds: usize,
    prepare: &(dyn Fn(usize) + Sync),
    task: &(dyn Fn(usize) -> u64 + Sync),
) -> Result<Vec<f64>, DeviceError> {
    let cores = allowed_cores();
    let cores = if threads <= cores.len() { cores } else { Vec::new() };
    let barrier = Barrier::default();
    let life = |index: usize| {
        if let Some(&core) = cores.get(index) {
            // If binding fails, the system places the thread.
            let _ = bind_current_thread(&[core]);
        }
        let one = |round: usize| {
            prepare(index);
            barrier.wait(round);
            let start = Instant::now();
            let work = task(index);
            Part { start, end: Instant::now(), work }
        };
        (0..=rounds).map(one).collect::<Vec<Part>>()
    };
    let life = &life;
    let parts: Vec<Vec<Part>> = std::thread::scope(|scope| {
        let spawn = |index| std::thread::Builder::new().spawn_scoped(scope, move || life(index)).ok();
        let team: Vec<_> = (0..threads).map_while(spawn).collect();
        barrier.begin(team.len());
        team.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    if parts.is_empty() {
        let problem = "the system gives no thread to measure with".to_owned();
        return Err(DeviceError::Unsupported { device: crate::NAME, problem });
    }
    let rate = |round: usize| {
        let of_round = || parts.iter().map(|thread| &thread[round]);
        let (start, end) = (of_round().map(|p| p.start).min()?, of_round().map(|p| p.end).max()?);
        let work: u64 = of_round().map(|p| p.work).sum();
        Some(work as f64 / end.duration_since(start).as_secs_f64())
    };
    Ok((1..=rounds).filter_map(rate).collect())
}

/// A barrier for the threads of a team. The team size is known only after all threads have been started.
#[derive(Default)]
struct Barrier {
    team: AtomicUsize,
    arrived: AtomicUsize,
}

impl Barrier {
    /// Sets the number of threads.
    fn begin(&self, team: usize) {
        self.team.store(team, Ordering::Release);
    }

    /// Waits until every thread has reached this round.
    fn wait(&self, round: usize) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let start = Instant::now();
        loop {
            let team = self.team.load(Ordering::Acquire);
            if team > 0 && self.arrived.load(Ordering::Acquire) >= team * (round + 1) {
                return;
            }
            if start.elapsed() < SPIN { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_does_every_round_together_with_the_others() {
        let [inside, seen] = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let task = |index: usize| {
            inside.fetch_add(1, Ordering::SeqCst);
            while !inside.load(Ordering::SeqCst).is_multiple_of(3) {
                std::thread::yield_now();
            }
            seen.fetch_add(index + 1, Ordering::SeqCst);
            7
        };
        let rates = rates(3, 4, &|_| (), &task).unwrap();
        assert_eq!(rates.len(), 4);
        assert!(rates.iter().all(|rate| *rate > 0.0));
        assert_eq!(seen.into_inner(), 5 * (1 + 2 + 3));
    }
}
