//! `telemetry.csv`: what the machine did meanwhile. Cells of what was not sampled are empty.

use serde::{Deserialize, Serialize};

/// A row of `telemetry.csv`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TelemetryRow {
    /// When, nanoseconds from run start.
    pub t_ns: u64,
    /// Resident memory of the process.
    pub rss_bytes: Option<u64>,
    /// Power, watts.
    pub power_w: Option<f64>,
    /// Utilisation of the device, 0 to 1.
    pub npu_util: Option<f64>,
    /// Temperature, degrees Celsius.
    pub temp_c: Option<f64>,
    /// Clock frequency, kilohertz.
    pub freq_khz: Option<u64>,
}

impl TelemetryRow {
    /// The header of `telemetry.csv`.
    pub const HEADER: &'static str = "t_ns,rss_bytes,power_w,npu_util,temp_c,freq_khz";
}
