//! The machine's measured limits, as records keep them.

use crate::device::cpu::{MachineLimits, Rate, UnitPeak};
use crate::device::{DType, cpu};
use crate::record::{self, LimitRate, Roofline, UnitLimit};

/// The limits with the roofline's peak for numbers of `dtype`.
pub fn limits_record(limits: &MachineLimits, dtype: DType) -> record::MachineLimits {
    let rate = |rate: &Rate| LimitRate { median: rate.median, low: rate.low, high: rate.high };
    let unit = |peak: &UnitPeak| UnitLimit {
        unit: peak.unit.name().to_owned(),
        all_threads: rate(&peak.all),
        one_thread: rate(&peak.one),
    };
    record::MachineLimits {
        threads: limits.threads as u32,
        method: limits.method(),
        bandwidth: rate(&limits.bandwidth.all),
        bandwidth_one_thread: rate(&limits.bandwidth.one),
        units: limits.units.iter().map(unit).collect(),
        peak_unit: limits.peak(dtype).map(|peak| peak.unit.name().to_owned()),
    }
}

/// Measures the roofline of this machine for numbers of `dtype`, with so many threads.
///
/// # Errors
/// As [`cpu::measure_limits`].
pub fn roofline(threads: usize, dtype: DType) -> Result<Roofline, crate::device::DeviceError> {
    let limits = cpu::measure_limits(threads)?;
    Ok(Roofline {
        bandwidth_bytes_per_s: limits.bandwidth.all.median,
        peak_flops_per_s: limits.peak(dtype).map_or(0.0, |peak| peak.all.median),
        limits: Some(limits_record(&limits, dtype)),
    })
}
