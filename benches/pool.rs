//! The thread pool: the cost of a hand-over, the CPU time of idle threads, and the effect of another busy process.
//!
//! `cargo bench --bench pool`. A hand-over is a job in which all threads only wait for each other, timed from call to
//! return. The target is 2 µs. For comparison, the bench times the call alone, with a job so small that the caller may
//! finish it before any worker arrives. The neighbour is a process that spins in a loop. With as many threads as cores
//! and one more runnable thread, a fair share is `cores / (cores + 1)`. A pool far below that has been waiting for a
//! preempted thread.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use glmbench::stats::{median, quantile};
use glmbench_cpu::{Pool, available_threads};

const TARGET_US: f64 = 2.0;
const BATCHES: usize = 200;
const JOBS: usize = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = available_threads();
    let mut pool = Pool::new(threads);
    hand_over(&mut pool);
    from_sleep(&mut pool);
    idle(&mut pool);
    neighbour(&mut pool)?;
    Ok(())
}

/// A job with one empty item per thread.
fn empty(pool: &mut Pool) {
    let threads = pool.threads();
    pool.each(threads, usize::MAX, &|_, _| ());
}

/// A job with one item per thread. Each item ends only when all have begun, so no thread can run two.
fn meet(pool: &mut Pool) {
    let threads = pool.threads();
    let begun = AtomicUsize::new(0);
    pool.each(threads, usize::MAX, &|_, _| {
        begun.fetch_add(1, Ordering::AcqRel);
        let mut turns = 0;
        while begun.load(Ordering::Acquire) < threads {
            turns += 1;
            if turns < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    });
}

fn hand_over(pool: &mut Pool) {
    for (name, job) in [("hand-over", meet as fn(&mut Pool)), ("call alone", empty)] {
        let batch = |_| {
            let start = Instant::now();
            (0..JOBS).for_each(|_| job(pool));
            start.elapsed().as_secs_f64() * 1e6 / JOBS as f64
        };
        let times: Vec<f64> = (0..BATCHES).map(batch).collect();
        let at = |p: f64| quantile(&times, p).unwrap_or(0.0);
        println!(
            "{name:13} {:.2} µs (median of {BATCHES} x {JOBS}, {} threads), 90 % within {:.2} µs; target {TARGET_US} µs",
            at(0.5),
            pool.threads(),
            at(0.9)
        );
    }
}

/// After a pause the workers sleep, and the operating system has to wake them.
fn from_sleep(pool: &mut Pool) {
    let one = |_| {
        std::thread::sleep(Duration::from_millis(2));
        let start = Instant::now();
        meet(pool);
        start.elapsed().as_secs_f64() * 1e6
    };
    let times: Vec<f64> = (0..BATCHES).map(one).collect();
    println!("from sleep    {:.2} µs (median of {BATCHES})", median(&times).unwrap_or(0.0));
}

/// CPU time while there is nothing to do.
fn idle(pool: &mut Pool) {
    empty(pool);
    let (before, start) = (cpu_seconds(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    match cpu_seconds().zip(before) {
        Some((after, before)) => println!(
            "idle          {:.0} ms on a core in {:.2} s with nothing to do",
            1e3 * (after - before),
            start.elapsed().as_secs_f64()
        ),
        None => println!("idle          not told by the system"),
    }
}

/// Returns user and system time of this process (fields 14 and 15 of `/proc/self/stat`, in hundredths of a second).
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// A child process, killed on drop.
struct Neighbour(Child);

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Jobs like those in a decode step of a small model, with and without a neighbour.
fn neighbour(pool: &mut Pool) -> std::io::Result<()> {
    let alone = jobs_per_s(pool);
    let busy = Neighbour(Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?);
    std::thread::sleep(Duration::from_millis(200));
    let beside = jobs_per_s(pool);
    drop(busy);
    let threads = pool.threads() as f64;
    println!(
        "neighbour     {:.0} jobs/s alone, {:.0} beside a busy process: {:.2} of it; a fair share is {:.2}",
        alone,
        beside,
        beside / alone,
        threads / (threads + 1.0)
    );
    Ok(())
}

/// Returns the rate of jobs with about 30 µs of work, split like matrix products. The result is the median of several
/// intervals.
fn jobs_per_s(pool: &mut Pool) -> f64 {
    let sink = AtomicU64::new(0);
    let stretch = |_| {
        let (start, mut jobs) = (Instant::now(), 0u32);
        while start.elapsed() < Duration::from_millis(300) {
            pool.split(64, usize::MAX, &|range| {
                let mut x = range.start as u64 + 1;
                for _ in 0..range.len() * 700 {
                    x = x.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                }
                sink.fetch_xor(x, Ordering::Relaxed);
            });
            jobs += 1;
        }
        f64::from(jobs) / start.elapsed().as_secs_f64()
    };
    let rates: Vec<f64> = (0..9).map(stretch).collect();
    median(&rates).unwrap_or(0.0)
}
