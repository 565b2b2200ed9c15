//! Some of the limits once more, in a moment.

use super::bandwidth::{self, Reader};
use super::peak::{self, Unit};

/// Measures the bandwidth and some units' peaks with all threads, again and again.
#[derive(Debug, Clone)]
pub struct Gauge {
    threads: usize,
    reader: Reader,
    units: Vec<Unit>,
}

/// What a [`Gauge`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Spot {
    /// Streaming reads, bytes a second; `None` where there was no memory to read.
    pub bandwidth: Option<f64>,
    /// The units' rates, operations a second; without those that could not be measured.
    pub peaks: Vec<(Unit, f64)>,
}

impl Gauge {
    /// With `threads` threads, which read as `reader` says in the words of [`super::Bandwidth::reader`]; of the `units`, by their
    /// [names](Unit::name), those that this machine has.
    pub fn new<'a>(threads: usize, reader: &str, units: impl IntoIterator<Item = &'a str>) -> Self {
        let units = units.into_iter().filter_map(Unit::named).collect();
        Self { threads: threads.max(1), reader: Reader::named(reader), units }
    }

    /// Memory that [`Gauge::measure`] takes and gives back.
    pub fn buffer_bytes(&self) -> usize {
        bandwidth::buffer_bytes(self.threads)
    }

    /// Measures: about a second. The bandwidth only if there are `available_bytes` for twice its memory, because
    /// a system that promises more memory than it has kills those who then use it; `None` where nobody knows.
    pub fn measure(&self, available_bytes: Option<u64>) -> Spot {
        let has_room = available_bytes.is_none_or(|bytes| bytes / 2 >= self.buffer_bytes() as u64);
        let bandwidth = has_room.then(|| bandwidth::spot(self.threads, self.reader).ok()).flatten();
        let peak = |&unit| Some((unit, peak::spot(unit, self.threads).ok()?));
        Spot { bandwidth, peaks: self.units.iter().filter_map(peak).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_measures_what_it_was_asked_for_and_takes_no_memory_that_is_not_there() {
        let unit = Unit::ALL.into_iter().find(|unit| unit.available()).unwrap();
        let gauge = Gauge::new(1, "one stream each", [unit.name(), "amx-fp4"]);
        assert!(gauge.buffer_bytes() >= 64 << 20);
        let full = gauge.measure(Some(2 * gauge.buffer_bytes() as u64 - 2));
        assert_eq!(full.bandwidth, None);
        assert!(matches!(full.peaks[..], [(of, rate)] if of == unit && rate > 0.0), "{full:?}");
        assert!(gauge.measure(None).bandwidth.is_some_and(|rate| rate > 0.0));
    }
}
