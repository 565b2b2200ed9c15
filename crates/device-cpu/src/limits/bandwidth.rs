//! Streaming reads from memory.

use std::hint::black_box;

use glmbench_device::DeviceError;

use crate::buffer::Buffer;
use crate::pool::part;

use super::Rate;
use super::flush::{FLUSHES, flush};
use super::team::rates;

/// Rounds that count.
pub(super) const ROUNDS: usize = 11;
/// Rounds of a quick measurement.
const SAMPLE_ROUNDS: usize = 31;
/// Rounds per candidate reader.
const TRIALS: usize = 3;
/// Bytes per thread.
const THREAD_BYTES: usize = 128 << 20;
/// Maximum bytes of all threads together: the memory is for the model.
const ALL_BYTES: usize = 4 << 30;
/// Minimum size of the buffer in multiples of the last-level cache, if caches cannot be flushed.
const CACHES: usize = 8;

/// A cache line.
#[derive(Debug, Clone, Copy, bytemuck::Zeroable)]
#[repr(align(64))]
pub(super) struct Line([u64; 8]);

/// Measured bandwidth of streaming reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Bandwidth {
    /// All threads together, bytes per second.
    pub all: Rate,
    /// One thread with the others idle, bytes per second.
    pub one: Rate,
    /// Description of the fastest reader, which was used.
    pub reader: String,
    /// Size of the buffer in bytes.
    pub buffer_bytes: usize,
    /// Share of the buffer on huge pages; `None` if the system does not report it.
    pub huge_page_share: Option<f64>,
}

/// A way of reading: `streams` places in the thread's part in turn, one line each, with a prefetch `ahead` bytes ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    streams: usize,
    ahead: usize,
    read: unsafe fn(&[Line]) -> u64,
}

impl Reader {
    /// Returns this machine's reader with this description, or its first reader if there is none.
    pub(super) fn named(words: &str) -> Self {
        let ways = readers();
        let named = ways.iter().find(|reader| reader.words() == words).copied();
        named.unwrap_or(ways[0])
    }

    fn words(self) -> String {
        let streams =
            if self.streams == 1 { "stream".to_owned() } else { format!("{} streams", self.streams) };
        match self.ahead {
            0 if self.streams == 1 => "one stream each".to_owned(),
            0 => format!("{streams} each"),
            ahead => format!("{streams} each, prefetched {ahead} bytes ahead"),
        }
    }
}

/// A buffer that was written, with one part per thread, and is read from memory only. If caches cannot be flushed, it
/// is many times as large as they are.
struct Parts {
    lines: Buffer<Line>,
    threads: usize,
}

impl Parts {
    /// Returns the size of `threads` parts together, in bytes.
    fn bytes(threads: usize) -> usize {
        let cached = if FLUSHES { 0 } else { CACHES * last_level_cache_bytes().unwrap_or(0) };
        let part = (ALL_BYTES / threads).min(THREAD_BYTES).max(cached / threads);
        part.next_multiple_of(2 << 20) * threads
    }

    /// Allocates the buffer. Each thread writes the part that it will read, which also places it in memory.
    fn written(threads: usize) -> Result<Self, DeviceError> {
        let count = Self::bytes(threads) / size_of::<Line>();
        let mut lines = Buffer::<Line>::zeroed(count, "the bandwidth measurement")?;
        let shared = lines.shared();
        rates(threads, 0, &|_| (), &|index| {
            // SAFETY: each thread has its own part.
            let mine = unsafe { shared.range(part(count, index, threads)) };
            mine.iter_mut().enumerate().for_each(|(i, line)| *line = Line([i as u64; 8]));
            0
        })?;
        Ok(Self { lines, threads })
    }

    /// Measures the first `team` threads reading their parts. Rates are in bytes per second.
    fn read(&self, reader: Reader, team: usize, rounds: usize) -> Result<Rate, DeviceError> {
        let mine = |index| &self.lines[part(self.lines.len(), index, self.threads)];
        let read = |index| {
            let mine = mine(index);
            // SAFETY: a `Reader` is one of `readers`, which returns only readers that this machine can run.
            black_box(unsafe { (reader.read)(mine) });
            size_of_val(mine) as u64
        };
        // The previous round left part of the buffer in the caches.
        rates(team, rounds, &|index| flush(mine(index)), &read).map(Rate::of)
    }
}

/// Measures with `threads` threads.
pub(super) fn measure(threads: usize) -> Result<Bandwidth, DeviceError> {
    let huge_before = huge_page_bytes();
    let parts = Parts::written(threads)?;
    let buffer_bytes = Parts::bytes(threads);
    let huge_page_share = huge_page_bytes()
        .zip(huge_before)
        .map(|(after, before)| (after.saturating_sub(before) as f64 / buffer_bytes as f64).min(1.0));
    let mut best: Option<(Reader, f64)> = None;
    for reader in readers() {
        let rate = parts.read(reader, threads, TRIALS)?.median;
        if best.is_none_or(|(_, fastest)| rate > fastest) {
            best = Some((reader, rate));
        }
    }
    let (reader, _) = best.expect("invariant: there is a portable reader");
    Ok(Bandwidth {
        all: parts.read(reader, threads, ROUNDS)?,
        one: parts.read(reader, 1, ROUNDS)?,
        reader: reader.words(),
        buffer_bytes,
        huge_page_share,
    })
}

/// Measures all threads quickly, in a newly allocated buffer of the same size, with one reader. Returns bytes per
/// second.
pub(super) fn sample(threads: usize, reader: Reader) -> Result<f64, DeviceError> {
    Ok(Parts::written(threads)?.read(reader, threads, SAMPLE_ROUNDS)?.median)
}

/// Returns the memory that a measurement takes, in bytes.
pub(super) fn buffer_bytes(threads: usize) -> usize {
    Parts::bytes(threads)
}

/// Returns the readers that this machine can run.
fn readers() -> Vec<Reader> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return x86::AVX512.to_vec();
        }
        if is_x86_feature_detected!("avx2") {
            return x86::AVX2.to_vec();
        }
    }
    vec![
        Reader { streams: 1, ahead: 0, read: sum::<1> },
        Reader { streams: 4, ahead: 0, read: sum::<4> },
        Reader { streams: 8, ahead: 0, read: sum::<8> },
    ]
}

/// The portable reader. It sums all words, so that the compiler cannot drop a read.
fn sum<const STREAMS: usize>(lines: &[Line]) -> u64 {
    let part = lines.len() / STREAMS;
    let mut sums = [[0u64; 8]; STREAMS];
    for at in 0..part {
        for (stream, sum) in sums.iter_mut().enumerate() {
            for (s, word) in sum.iter_mut().zip(lines[stream * part + at].0) {
                *s = s.wrapping_add(word);
            }
        }
    }
    sums.iter().flatten().fold(0, |a, b| a.wrapping_add(*b))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_load_si256, _mm256_setzero_si256,
        _mm256_xor_si256, _mm512_load_si512, _mm512_setzero_si512, _mm512_xor_si512,
    };

    use super::{Line, Reader};

    /// The readers of one instruction set: every combination worth trying.
    macro_rules! ways {
        ($read:ident) => {
            [
                Reader { streams: 1, ahead: 0, read: $read::<1, 0> },
                Reader { streams: 4, ahead: 0, read: $read::<4, 0> },
                Reader { streams: 4, ahead: 512, read: $read::<4, 512> },
                Reader { streams: 4, ahead: 1024, read: $read::<4, 1024> },
                Reader { streams: 8, ahead: 512, read: $read::<8, 512> },
            ]
        };
    }

    pub(super) const AVX2: [Reader; 5] = ways!(avx2);
    pub(super) const AVX512: [Reader; 5] = ways!(avx512);

    #[target_feature(enable = "avx2")]
    fn avx2<const STREAMS: usize, const AHEAD: usize>(lines: &[Line]) -> u64 {
        let part = lines.len() / STREAMS;
        let mut sums = [[_mm256_setzero_si256(); 2]; STREAMS];
        for at in 0..part {
            for (stream, sum) in sums.iter_mut().enumerate() {
                let line = lines.as_ptr().wrapping_add(stream * part + at).cast::<__m256i>();
                if AHEAD > 0 {
                    // A prefetch past the end is not an access.
                    prefetch::<AHEAD>(line.cast());
                }
                // SAFETY: inside the lines, and aligned like them.
                let [low, high] = unsafe { [_mm256_load_si256(line), _mm256_load_si256(line.add(1))] };
                *sum = [_mm256_xor_si256(sum[0], low), _mm256_xor_si256(sum[1], high)];
            }
        }
        // SAFETY: both types have the same size, and every bit pattern is a valid `u64`.
        let words: [[[u64; 4]; 2]; STREAMS] = unsafe { std::mem::transmute_copy(&sums) };
        words.iter().flatten().flatten().fold(0, |a, b| a ^ b)
    }

    #[target_feature(enable = "avx512f")]
    fn avx512<const STREAMS: usize, const AHEAD: usize>(lines: &[Line]) -> u64 {
        let part = lines.len() / STREAMS;
        let mut sums = [_mm512_setzero_si512(); STREAMS];
        for at in 0..part {
            for (stream, sum) in sums.iter_mut().enumerate() {
                let line = lines.as_ptr().wrapping_add(stream * part + at).cast::<__m512i>();
                if AHEAD > 0 {
                    prefetch::<AHEAD>(line.cast());
                }
                // SAFETY: inside the lines, and aligned like them.
                *sum = _mm512_xor_si512(*sum, unsafe { _mm512_load_si512(line) });
            }
        }
        // SAFETY: both types have the same size, and every bit pattern is a valid `u64`.
        let words: [[u64; 8]; STREAMS] = unsafe { std::mem::transmute_copy(&sums) };
        words.iter().flatten().fold(0, |a, b| a ^ b)
    }

    #[inline(always)]
    fn prefetch<const AHEAD: usize>(line: *const i8) {
        // SAFETY: a prefetch is a hint and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD)) }
    }
}

/// Returns how many bytes of this process are on huge pages.
fn huge_page_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// Returns the size of the largest cache that the system reports. A virtual machine may see less than there is.
fn last_level_cache_bytes() -> Option<usize> {
    let size = |index: usize| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().strip_suffix('K')?.parse::<usize>().ok()?.checked_mul(1024)
    };
    (0..8).filter_map(size).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_of_this_machine_reads_every_word() {
        let mut lines = vec![Line([0; 8]); 8 * 32];
        for reader in readers() {
            for (line, word) in [(0, 0), (9, 5), (8 * 32 - 1, 7)] {
                let mut read = |value: u64| {
                    lines[line].0[word] = value;
                    // SAFETY: this machine can run the reader.
                    unsafe { (reader.read)(&lines) }
                };
                assert_eq!((read(0), read(5), read(0)), (0, 5, 0), "{}", reader.words());
            }
        }
    }

    #[test]
    fn a_reader_is_found_by_its_words() {
        let ways = readers();
        for reader in &ways {
            assert_eq!(Reader::named(&reader.words()).words(), reader.words());
        }
        assert_eq!(Reader::named("of another machine").words(), ways[0].words());
    }
}
