//! What this machine can do at most, measured: the roofline that timings are held against.
//!
//! Bandwidth: all threads sum a buffer larger than any cache, whose pages were written before (fresh zero pages are one
//! shared page and read from cache). Peak: the GEMM tile on operands that stay in the first-level cache.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::device::{DType, DeviceError};

use super::buffer::Buffer;
use super::kernels::{InstructionSet, PANEL, Product};
use super::pool::Pool;

/// Bytes a thread reads per pass; beyond the share of any last-level cache it could have.
const STREAM_BYTES: usize = 256 << 20;
/// Bytes of all threads together at most: many cores share their caches, and memory is for the model.
const STREAM_BYTES_ALL: usize = 4 << 30;
/// Passes over the buffer; the best counts, as a limit should.
const STREAM_PASSES: usize = 20;
/// Measurements of the peak; the best counts.
const PEAK_PASSES: usize = 5;
/// Least time of one peak measurement.
const PEAK_TIME: Duration = Duration::from_millis(60);

/// The machine's limits with a number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineLimits {
    /// Streaming reads, bytes a second.
    pub bandwidth_bytes_per_s: f64,
    /// Multiply-adds of the kernels in use, floating-point operations a second.
    pub peak_flops_per_s: f64,
    /// Threads that took part.
    pub threads: usize,
    /// The kernels.
    pub kernel: &'static str,
}

/// Measures with `threads` threads; takes about a second and `threads` times 256 MiB.
pub fn measure_limits(threads: usize) -> Result<MachineLimits, DeviceError> {
    let mut pool = Pool::new(threads.max(1));
    Ok(MachineLimits {
        bandwidth_bytes_per_s: bandwidth(&mut pool)?,
        peak_flops_per_s: peak(&mut pool)?,
        threads: pool.threads(),
        kernel: InstructionSet::best().name(),
    })
}

fn bandwidth(pool: &mut Pool) -> Result<f64, DeviceError> {
    let words = STREAM_BYTES.min(STREAM_BYTES_ALL / pool.threads()) / 8;
    let mut buffer = Buffer::<u64>::zeroed(words * pool.threads(), "the bandwidth measurement")?;
    let shared = buffer.shared();
    pool.each(pool.threads(), usize::MAX, &|_, index| {
        // SAFETY: each item has its own part.
        let part = unsafe { shared.range(index * words..(index + 1) * words) };
        part.iter_mut().enumerate().for_each(|(i, word)| *word = i as u64);
    });
    let buffer = &*buffer;
    let bytes = (words * 8 * pool.threads()) as f64;
    let mut best = 0.0f64;
    for _ in 0..STREAM_PASSES {
        let start = Instant::now();
        pool.each(pool.threads(), usize::MAX, &|_, index| {
            let part = &buffer[index * words..(index + 1) * words];
            black_box(sum(part));
        });
        best = best.max(bytes / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Four streams side by side, a cache line of each at a time: one stream alone does not keep the memory busy.
fn sum(words: &[u64]) -> u64 {
    const LINE: usize = 8;
    let quarter = words.len() / 4;
    let streams: [&[u64]; 4] = std::array::from_fn(|i| &words[i * quarter..(i + 1) * quarter]);
    let mut sums = [[0u64; LINE]; 4];
    for line in (0..quarter - quarter % LINE).step_by(LINE) {
        for (sum, stream) in sums.iter_mut().zip(streams) {
            for (s, w) in sum.iter_mut().zip(&stream[line..line + LINE]) {
                *s = s.wrapping_add(*w);
            }
        }
    }
    sums.iter().flatten().fold(0, |a, b| a.wrapping_add(*b))
}

fn peak(pool: &mut Pool) -> Result<f64, DeviceError> {
    const ROWS: usize = 12;
    const K: usize = 192;
    let set = InstructionSet::best();
    let Some(kernels) = set.kernels(DType::Fp32) else { return Ok(0.0) };
    let threads = pool.threads();
    let a = Buffer::<f32>::zeroed(ROWS * K + PANEL, "the peak measurement")?;
    let w = Buffer::<f32>::zeroed(K * PANEL, "the peak measurement")?;
    let mut c = Buffer::<f32>::zeroed(threads * ROWS * PANEL, "the peak measurement")?;
    let shared = c.shared();
    let flops = (2 * ROWS * K * PANEL) as f64;
    let mut best = 0.0f64;
    for _ in 0..PEAK_PASSES {
        let done = std::sync::atomic::AtomicU64::new(0);
        let start = Instant::now();
        pool.each(threads, usize::MAX, &|_, index| {
            let product = Product {
                a: a.as_ptr(),
                a_stride: K,
                rows: ROWS,
                w: w.as_ptr().cast(),
                panel_stride: K * PANEL,
                panels: 1,
                k: K,
                c: shared.pointer(index * ROWS * PANEL),
                c_stride: PANEL,
            };
            let mut rounds = 0;
            while start.elapsed() < PEAK_TIME {
                for _ in 0..64 {
                    // SAFETY: all three matrices hold these shapes; `c` has a part for each thread.
                    unsafe { (kernels.gemm)(black_box(&product)) };
                }
                rounds += 64;
            }
            done.fetch_add(rounds, std::sync::atomic::Ordering::Relaxed);
        });
        let rounds = done.into_inner() as f64;
        best = best.max(flops * rounds / start.elapsed().as_secs_f64());
    }
    Ok(best)
}
