//! Quick repeated measurement of some limits.

use super::bandwidth::{self, Reader};
use super::peak::{self, Unit};

/// Measures the bandwidth and some units' peaks with all threads, repeatedly.
#[derive(Debug, Clone)]
pub struct LimitsProbe {
    threads: usize,
    reader: Reader,
    units: Vec<Unit>,
}

/// One measurement of a [`LimitsProbe`].
#[derive(Debug, Clone, PartialEq)]
pub struct LimitsSample {
    /// Bandwidth of streaming reads in bytes per second; `None` if there was too little memory, or it failed.
    pub bandwidth: Option<f64>,
    /// Peaks of the units in operations per second, without units that could not be measured.
    pub peaks: Vec<(Unit, f64)>,
}

impl LimitsProbe {
    /// Creates a probe for `threads` threads. `reader` is a description from [`super::Bandwidth::reader`]. Of the
    /// `units`, given by [name](Unit::name), it measures those that this machine has.
    pub fn new<'a>(threads: usize, reader: &str, units: impl IntoIterator<Item = &'a str>) -> Self {
        let units = units.into_iter().filter_map(Unit::named).collect();
        Self { threads: threads.max(1), reader: Reader::named(reader), units }
    }

    /// Returns how many bytes [`LimitsProbe::measure`] allocates and frees.
    pub fn buffer_bytes(&self) -> usize {
        bandwidth::buffer_bytes(self.threads)
    }

    /// Measures for about a second. Skips the bandwidth if `available_bytes` is less than twice its buffer, because a
    /// system that overcommits memory kills the processes that use it. `None` means unknown.
    pub fn measure(&self, available_bytes: Option<u64>) -> LimitsSample {
        let has_room = available_bytes.is_none_or(|bytes| bytes / 2 >= self.buffer_bytes() as u64);
        let bandwidth = has_room.then(|| bandwidth::sample(self.threads, self.reader).ok()).flatten();
        let peak = |&unit| Some((unit, peak::sample(unit, self.threads).ok()?));
        LimitsSample { bandwidth, peaks: self.units.iter().filter_map(peak).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_measures_what_it_was_asked_for_and_takes_no_memory_that_is_not_there() {
        let unit = Unit::ALL.into_iter().find(|unit| unit.available()).unwrap();
        let probe = LimitsProbe::new(1, "one stream each", [unit.name(), "amx-fp4"]);
        assert!(probe.buffer_bytes() >= 64 << 20);
        let full = probe.measure(Some(2 * probe.buffer_bytes() as u64 - 2));
        assert_eq!(full.bandwidth, None);
        assert!(matches!(full.peaks[..], [(of, rate)] if of == unit && rate > 0.0), "{full:?}");
        assert!(probe.measure(None).bandwidth.is_some_and(|rate| rate > 0.0));
    }
}
