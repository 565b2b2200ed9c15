//! Power, temperature, utilisation and memory of devices, for whoever samples them beside the computing.

/// A value, or why there is none.
pub type Reading<T> = Result<T, String>;

/// What one device's sensors told at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    /// Watts.
    pub power_w: Reading<f64>,
    /// Utilisation, 0 to 1.
    pub utilisation: Reading<f64>,
    /// Degrees Celsius.
    pub temp_c: Reading<f64>,
    /// Bytes of the device's memory in use.
    pub memory_bytes: Reading<u64>,
}

/// How each of [`Readings`] comes about, with its unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Methods {
    /// Of the power.
    pub power: String,
    /// Of the utilisation.
    pub utilisation: String,
    /// Of the temperature.
    pub temperature: String,
    /// Of the memory.
    pub memory: String,
}

/// The sensors of a group's devices.
pub trait Sensors: Send {
    /// Asks every device, now: an element a rank.
    fn read(&self) -> Vec<Readings>;

    /// How the values come about.
    fn methods(&self) -> Methods;
}
