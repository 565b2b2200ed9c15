//! The limits that timings are held against: the machine's own, as measured on it, or a modelled chip's.

use serde::{Deserialize, Serialize};

/// The two limits of a roofline, and all that was measured for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Roofline {
    /// Memory bandwidth as measured by streaming, or of a modelled chip by its profile, bytes a second.
    pub bandwidth_bytes_per_s: f64,
    /// Arithmetic peak as measured, floating-point operations a second, of the fastest unit for the run's type.
    pub peak_flops_per_s: f64,
    /// What was measured; `None` where nothing was, and in records from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<MachineLimits>,
}

/// All that was measured of a machine's limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineLimits {
    /// Threads that took part where all did.
    pub threads: u32,
    /// How it was measured, in words.
    pub method: String,
    /// Streaming reads of all threads, bytes a second.
    pub bandwidth: LimitRate,
    /// Streaming reads of one thread, bytes a second.
    pub bandwidth_one_thread: LimitRate,
    /// The arithmetic units, operations a second.
    pub units: Vec<UnitLimit>,
    /// The unit that the roofline's peak is of.
    pub peak_unit: Option<String>,
    /// The same when the run had ended, where it has targets: the limits of a shared machine move within minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_end: Option<Box<Self>>,
}

impl MachineLimits {
    /// The unit of that word, where this machine has it.
    pub fn unit(&self, name: &str) -> Option<&UnitLimit> {
        self.units.iter().find(|unit| unit.unit == name)
    }
}

/// A rate over several rounds, a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LimitRate {
    /// Half of the rounds were as fast.
    pub median: f64,
    /// The slowest round.
    pub low: f64,
    /// The fastest round.
    pub high: f64,
}

/// What an arithmetic unit does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitLimit {
    /// Its word: `fp32-avx2`, `amx-bf16`….
    pub unit: String,
    /// All threads, operations a second (multiply and add count two).
    pub all_threads: LimitRate,
    /// One thread, operations a second.
    pub one_thread: LimitRate,
}
