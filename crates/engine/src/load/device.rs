//! What can be checked of a device before a model is loaded, and the emulator's settings.

use std::path::PathBuf;

use glmbench_ascend::{AscendGroup, Chip, Emulation, Forced};
use glmbench_device::{DeviceError, DeviceKind, Precision};

use crate::EngineError;

/// Checks what can be known of a device before a model is loaded.
///
/// # Errors
/// CANN is not installed and no emulator was requested, or the emulator was requested for a device that is not a
/// card. Also a type or a number of ranks that the card does not support, or a choice in `GLMBENCH_ASCEND` that does
/// not exist.
pub fn check(
    device: DeviceKind,
    precision: Precision,
    tp: usize,
    emulate: Option<&Emulate>,
) -> Result<(), EngineError> {
    check_emulated(device, emulate)?;
    check_precision(device, precision)?;
    let Some(chip) = Chip::of(device) else { return Ok(()) };
    Forced::from_environment(chip.name())?;
    let emulation = emulate.map(|emulate| emulate.machine(chip)).transpose()?;
    Ok(AscendGroup::check(chip, precision.dtype, tp, emulation.as_ref())?)
}

/// Checks that emulation is requested for cards only.
pub(super) fn check_emulated(device: DeviceKind, emulate: Option<&Emulate>) -> Result<(), EngineError> {
    if emulate.is_none() || Chip::of(device).is_some() {
        return Ok(());
    }
    Err(EngineError::Option(format!(
        "--emulate: device {device} has no emulator; expected {}",
        DeviceKind::words(true)
    )))
}

/// Checks that the host can time the device's operators.
///
/// # Errors
/// The device is a card, which runs its operators asynchronously.
pub fn check_profile(device: DeviceKind) -> Result<(), EngineError> {
    if !device.is_card() {
        return Ok(());
    }
    Err(EngineError::Option(format!(
        "--profile-operators: device {device} runs its operators asynchronously, so the host cannot time them; expected {}",
        DeviceKind::words(false)
    )))
}

/// Checks that the device's packed weights can be kept in a file.
///
/// # Errors
/// The device is not the CPU.
pub fn check_pack_cache(device: DeviceKind) -> Result<(), EngineError> {
    if device == DeviceKind::Cpu {
        return Ok(());
    }
    Err(EngineError::Option(format!(
        "--pack-cache: device {device} has no packed weights that a file could keep; expected {}",
        DeviceKind::Cpu
    )))
}

/// Checks that the device supports the precision.
///
/// # Errors
/// The device does not; the message names what it supports.
pub(super) fn check_precision(device: DeviceKind, precision: Precision) -> Result<(), EngineError> {
    let Some(instead) = device.instead_of(precision) else { return Ok(()) };
    Err(EngineError::Device(DeviceError::Unsupported {
        device: device.name(),
        problem: format!("dtype {precision} was asked for, {instead}"),
    }))
}

/// Settings for an emulated card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emulate {
    /// Chip profile: a file, or the name of a built-in profile. `None` means the card's own.
    pub profile: Option<PathBuf>,
    /// Whether only the virtual clock runs: nothing is computed and no weights are read.
    pub timing_only: bool,
}

impl Emulate {
    /// Creates the emulated machine of a device. `None` if the device has no emulator.
    ///
    /// # Errors
    /// As for [`machine`](Self::machine).
    pub fn machine_of(&self, device: DeviceKind) -> Result<Option<Emulation>, EngineError> {
        Chip::of(device).map(|chip| self.machine(chip)).transpose()
    }

    /// Creates the emulated machine.
    ///
    /// # Errors
    /// The profile cannot be read, or belongs to another chip.
    pub fn machine(&self, chip: Chip) -> Result<Emulation, EngineError> {
        Emulation::new(chip, self.profile.as_deref(), self.timing_only)
            .map_err(|problem| EngineError::Option(problem.to_string()))
    }
}
