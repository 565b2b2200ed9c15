//! Power, temperature, utilisation and memory of devices, for sampling during a run.

/// A value, or the reason why there is none.
pub type Reading<T> = Result<T, String>;

/// The sensor readings of one device at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    /// Power in watts.
    pub power_w: Reading<f64>,
    /// Utilisation, 0 to 1.
    pub utilisation: Reading<f64>,
    /// Temperature in degrees Celsius.
    pub temp_c: Reading<f64>,
    /// Device memory in use, in bytes.
    pub memory_bytes: Reading<u64>,
}

/// How each value of [`Readings`] is measured, with its unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Methods {
    /// Method for the power.
    pub power: String,
    /// Method for the utilisation.
    pub utilisation: String,
    /// Method for the temperature.
    pub temperature: String,
    /// Method for the memory.
    pub memory: String,
}

/// The sensors of all devices in a group.
pub trait Sensors: Send {
    /// Reads every device now; returns one element per rank.
    fn read(&self) -> Vec<Readings>;

    /// Describes how the values are measured.
    fn methods(&self) -> Methods;

    /// Begins a span of time for [`Sensors::peak_memory`].
    fn forget_peak(&self) {}

    /// Returns the most memory in use on one device since [`Sensors::forget_peak`], in bytes. `None` if no device tells.
    fn peak_memory(&self) -> Option<u64> {
        self.read().into_iter().filter_map(|device| device.memory_bytes.ok()).max()
    }
}
