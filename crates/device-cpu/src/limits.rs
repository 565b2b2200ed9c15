//! The machine's measured limits, which timings are compared with.
//!
//! It has two limits, each with its own precautions:
//!
//! - **BW**, streaming reads from memory ([`bandwidth`]). The buffer is flushed from the caches before each round, and
//!   uses huge pages as the weights do. Every page is written first: fresh zero pages share one physical page, which is
//!   read from cache.
//! - **PEAK**, the arithmetic of each unit ([`peak`]): the unit multiplies two small matrices that stay in the
//!   first-level cache, loads included, as in a kernel.
//!
//! Both are measured with all threads, each on its own core if there are enough, and with a single thread. A rate is
//! the median of several rounds, with minimum and maximum. On a shared machine, the spread shows the interference.
//!
//! The limits of a shared machine change within seconds. Longer work needs limits that are measured right beside it:
//! [`LimitsProbe`] repeats the measurement in about a second.

mod bandwidth;
mod flush;
mod peak;
mod probe;
mod team;

use glmbench_device::{DeviceError, Precision};

pub use bandwidth::Bandwidth;
pub use peak::{Operands, Unit, UnitPeak};
pub use probe::{LimitsProbe, LimitsSample};

/// A rate per second, over several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// The median of the rounds.
    pub median: f64,
    /// The slowest round.
    pub low: f64,
    /// The fastest round.
    pub high: f64,
}

impl Rate {
    /// Summarises these rounds; all zero if there are none.
    fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |i: usize| rounds.get(i).copied().unwrap_or(0.0);
        let middle = rounds.len() / 2;
        let median = if rounds.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        };
        Self { median, low: at(0), high: at(rounds.len().saturating_sub(1)) }
    }

    /// Returns the range between slowest and fastest round, as a share of the median.
    pub fn spread(&self) -> f64 {
        if self.median > 0.0 { (self.high - self.low) / self.median } else { 0.0 }
    }
}

/// The peak of a precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak<'a> {
    /// The unit that provides it.
    pub of: &'a UnitPeak,
    /// [Products](Unit::products) of that unit for one product in the precision.
    pub products: u32,
}

impl Peak<'_> {
    /// Returns the operations in the precision per second, with all threads.
    pub fn rate(&self) -> f64 {
        self.of.all.median / f64::from(self.products)
    }
}

/// The machine's limits for a given number of threads.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineLimits {
    /// Number of threads in the measurements with all threads.
    pub threads: usize,
    /// Bandwidth of streaming reads.
    pub bandwidth: Bandwidth,
    /// Peaks of all arithmetic units of this machine, in the order of [`Unit::ALL`].
    pub units: Vec<UnitPeak>,
}

impl MachineLimits {
    /// Returns the PEAK of a precision: the unit with the highest rate of products at that accuracy, whether a kernel
    /// uses it or not.
    pub fn peak(&self, precision: impl Into<Precision>) -> Option<Peak<'_>> {
        let precision = precision.into();
        let peaks =
            self.units.iter().filter_map(|of| Some(Peak { of, products: of.unit.products(precision)? }));
        peaks.max_by(|a, b| a.rate().total_cmp(&b.rate()))
    }

    /// Describes how the limits were measured, for the record.
    pub fn method(&self) -> String {
        let Bandwidth { buffer_bytes, huge_page_share, reader, .. } = &self.bandwidth;
        let pages = match huge_page_share {
            Some(share) => format!("{:.0} % on huge pages", 100.0 * share),
            None => "huge pages asked for".to_owned(),
        };
        let flushed = if flush::FLUSHES { ", flushed from the caches before each round" } else { "" };
        format!(
            "bandwidth: {} written MiB, {pages}{flushed}, read by {} threads in {reader}, median of {} rounds; peaks: operands in the \
             first-level cache, loads included, median of {} rounds",
            buffer_bytes >> 20,
            self.threads,
            bandwidth::ROUNDS,
            peak::ROUNDS
        )
    }
}

/// Measures with `threads` threads. Takes two or three seconds. Allocates and frees 128 MiB per thread, up to 4 GiB. If
/// caches cannot be flushed, the buffer is at least eight times the last-level cache.
///
/// # Errors
/// The memory cannot be allocated, or no thread can be started.
pub fn measure_limits(threads: usize) -> Result<MachineLimits, DeviceError> {
    let bandwidth = bandwidth::measure(threads.max(1))?;
    let units = Unit::ALL.into_iter().filter(|unit| unit.available());
    let units = units.map(|unit| peak::measure(unit, threads.max(1))).collect::<Result<_, _>>()?;
    Ok(MachineLimits { threads: threads.max(1), bandwidth, units })
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_device::DType;

    #[test]
    fn a_rate_is_the_middle_of_its_rounds() {
        let rate = Rate::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((rate.low, rate.median, rate.high, rate.spread()), (1.0, 2.0, 3.0, 1.0));
        assert_eq!(Rate::of(vec![4.0, 1.0]).median, 2.5);
        assert_eq!(Rate::of(Vec::new()), Rate { median: 0.0, low: 0.0, high: 0.0 });
    }

    #[test]
    fn a_type_is_held_against_the_fastest_unit_that_can_multiply_it() {
        let unit = |unit, rate| {
            let rate = Rate::of(vec![rate]);
            UnitPeak { unit, all: rate, one: rate }
        };
        let bandwidth = Bandwidth {
            all: Rate::of(vec![1.0]),
            one: Rate::of(vec![1.0]),
            reader: "one stream".into(),
            buffer_bytes: 1,
            huge_page_share: None,
        };
        let mut limits = MachineLimits { threads: 1, bandwidth, units: Vec::new() };
        let mut peaks = |units: Vec<UnitPeak>| {
            limits.units = units;
            let peak =
                |precision: Precision| limits.peak(precision).map(|peak| (peak.of.unit, peak.products));
            [DType::Fp32.into(), DType::Bf16.into(), DType::Fp16.into(), Precision::W8A8_DYNAMIC].map(peak)
        };
        let fp32 = Some((Unit::Fp32Avx512, 1));
        let int8 = Some((Unit::Int8Avx512Vnni, 1));
        // fp16 needs three products of a bf16 unit. The fp16 unit itself never counts as a limit.
        let all = |bf16, amx| {
            vec![
                unit(Unit::Fp32Avx512, 2.0),
                unit(Unit::Bf16Avx512, bf16),
                unit(Unit::Fp16Avx512, 50.0),
                unit(Unit::Int8Avx2, 5.0),
                unit(Unit::Int8Avx512Vnni, 9.0),
                unit(Unit::AmxBf16, amx),
            ]
        };
        assert_eq!(peaks(all(1.0, 0.0)), [fp32, fp32, fp32, int8]);
        assert_eq!(peaks(all(4.0, 0.0)), [fp32, Some((Unit::Bf16Avx512, 1)), fp32, int8]);
        assert_eq!(peaks(all(4.0, 30.0)), [fp32, Some((Unit::AmxBf16, 1)), Some((Unit::AmxBf16, 3)), int8]);
        assert_eq!(peaks(vec![unit(Unit::Fp16Avx512, 1.0)]), [None; 4]);
    }
}
