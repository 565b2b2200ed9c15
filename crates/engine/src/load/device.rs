//! The devices by their words on the command line, and what can be checked before a model is loaded.

use std::path::PathBuf;

use glmbench_ascend::{AscendGroup, Chip, Emulation, Forced};
use glmbench_device::{DType, DeviceError, Precision};

use crate::EngineError;

/// What follows the device's word in the name of an emulated card.
const EMULATED: &str = " (emulated)";

/// The values of `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU engine.
    Cpu,
    /// The plain fp32 reference implementation.
    Reference,
    /// Atlas 300I DUO, two Ascend 310P3.
    Duo300i,
    /// Atlas 800I A2, eight Ascend 910B.
    A2800i,
}

impl DeviceKind {
    /// All devices.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Reference, Self::Duo300i, Self::A2800i];

    /// Returns the type in which the device usually computes.
    pub fn main_type(self) -> DType {
        match self {
            Self::Cpu | Self::Duo300i | Self::A2800i => DType::Fp16,
            Self::Reference => DType::Fp32,
        }
    }

    /// Returns the device with this name in [`DeviceInfo::name`](glmbench_device::DeviceInfo::name), and whether it is
    /// emulated. `None` for the name of no device.
    pub fn of_info(name: &str) -> Option<(Self, bool)> {
        let (word, emulated) = match name.strip_suffix(EMULATED) {
            Some(word) => (word, true),
            None => (name, false),
        };
        Some((word.parse().ok()?, emulated))
    }

    /// Returns the largest useful number of tokens per step. A few hundred rows fill a CPU's matrix kernels. A card
    /// needs few launches, and whole prompts where possible.
    pub fn step_tokens(self) -> usize {
        match self {
            Self::Cpu | Self::Reference => 512,
            Self::Duo300i | Self::A2800i => 4096,
        }
    }

    /// Returns the word of this device, in suites, on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Reference => "reference",
            Self::Duo300i => "300i-duo",
            Self::A2800i => "800i-a2",
        }
    }

    /// Returns the Ascend chip of this device, if it is a card.
    pub fn chip(self) -> Option<Chip> {
        match self {
            Self::Cpu | Self::Reference => None,
            Self::Duo300i => Some(Chip::Duo300i),
            Self::A2800i => Some(Chip::A2800i),
        }
    }

    /// Checks what can be known before a model is loaded.
    ///
    /// # Errors
    /// CANN is not installed and no emulator was requested, or the emulator was requested for a device that is not a
    /// card. Also a type or a number of ranks that the card does not support, or a choice in `GLMBENCH_ASCEND` that does
    /// not exist.
    pub fn check(
        self,
        precision: Precision,
        tp: usize,
        emulate: Option<&Emulate>,
    ) -> Result<(), EngineError> {
        self.check_emulated(emulate)?;
        self.check_precision(precision)?;
        let Some(chip) = self.chip() else { return Ok(()) };
        Forced::from_environment(chip.name())?;
        let emulation = emulate.map(|emulate| emulate.machine(chip)).transpose()?;
        Ok(AscendGroup::check(chip, precision.dtype, tp, emulation.as_ref())?)
    }

    /// Checks that emulation is requested for cards only.
    pub(super) fn check_emulated(self, emulate: Option<&Emulate>) -> Result<(), EngineError> {
        if emulate.is_none() || self.chip().is_some() {
            return Ok(());
        }
        Err(EngineError::Option(format!(
            "--emulate: device {} runs as it is; the emulator is for 300i-duo and 800i-a2",
            self.name()
        )))
    }

    /// Checks that the host can time the device's operators.
    ///
    /// # Errors
    /// The device is a card, which runs its operators asynchronously.
    pub fn check_profile(self) -> Result<(), EngineError> {
        match self.chip() {
            None => Ok(()),
            Some(_) => Err(EngineError::Option(format!(
                "--profile-operators: device {} runs its operators behind the host's back, so the host cannot time them; \
                 expected cpu or reference",
                self.name()
            ))),
        }
    }

    /// Checks that the device supports the precision.
    ///
    /// # Errors
    /// The device does not; the message names what it supports.
    pub(super) fn check_precision(self, precision: Precision) -> Result<(), EngineError> {
        let expected = match self {
            Self::Cpu => return Ok(()),
            Self::Reference if precision == DType::Fp32.into() => return Ok(()),
            // The chip's own code checks which of the plain types it supports.
            Self::Duo300i | Self::A2800i if precision.is_plain() => return Ok(()),
            Self::Reference => "it computes in fp32 only",
            Self::Duo300i => "it has fp16; quantised forms run on the cpu",
            Self::A2800i => "it has fp16 and bf16; quantised forms run on the cpu",
        };
        Err(EngineError::Device(DeviceError::Unsupported {
            device: self.name(),
            problem: format!("dtype {precision} was asked for, {expected}"),
        }))
    }
}

impl std::str::FromStr for DeviceKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|device| device.name() == word).ok_or_else(|| {
            let [first @ .., last] = Self::ALL.map(Self::name);
            format!("device \"{word}\" is unknown, expected {} or {last}", first.join(", "))
        })
    }
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
    /// Creates the emulated machine.
    ///
    /// # Errors
    /// The profile cannot be read, or belongs to another chip.
    pub fn machine(&self, chip: Chip) -> Result<Emulation, EngineError> {
        Emulation::new(chip, self.profile.as_deref(), self.timing_only)
            .map_err(|problem| EngineError::Option(problem.to_string()))
    }
}
