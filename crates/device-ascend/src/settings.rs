//! The settings of a group: the card, its ranks, and the emulated machine if there is no hardware.

use std::path::Path;

use glmbench_device::{AttentionShape, ClockProfile, DType, DeviceKind, KvForm, WeightForm};

use super::choice::Forced;
use super::profile::{Profile, ProfileError};

/// The supported cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chip {
    /// Atlas 300I DUO: two Ascend 310P3.
    Duo300i,
    /// Atlas 800I A2: eight Ascend 910B.
    A2800i,
}

impl Chip {
    /// Returns the chip of a device. `None` if the device is no Ascend card.
    pub fn of(device: DeviceKind) -> Option<Self> {
        match device {
            DeviceKind::Duo300i => Some(Self::Duo300i),
            DeviceKind::A2800i => Some(Self::A2800i),
            _ => None,
        }
    }

    /// Returns the device of this chip.
    pub fn device(self) -> DeviceKind {
        match self {
            Self::Duo300i => DeviceKind::Duo300i,
            Self::A2800i => DeviceKind::A2800i,
        }
    }

    /// Returns the chip by the runtime's name of one, such as `Ascend310P3`. `None` if the name is of no known chip.
    pub fn of_soc(soc: &str) -> Option<Self> {
        [Self::Duo300i, Self::A2800i].into_iter().find(|chip| soc.starts_with(chip.soc()))
    }

    /// Returns the number of chips of an emulated machine.
    pub fn emulated_chips(self) -> usize {
        match self {
            Self::Duo300i => 2,
            Self::A2800i => 8,
        }
    }

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        self.device().name()
    }

    /// Returns the prefix of the chip name in the runtime.
    pub(super) fn soc(self) -> &'static str {
        match self {
            Self::Duo300i => "Ascend310P",
            Self::A2800i => "Ascend910B",
        }
    }
}

/// An emulated machine in place of a real one.
#[derive(Debug, Clone)]
pub struct Emulation {
    /// Configuration: lines `key = value`.
    pub settings: String,
    /// The figures behind its clock, for the record.
    pub clock: ClockProfile,
    /// Memory of each chip, bytes.
    pub memory_bytes: Option<u64>,
    /// True if only the clock runs and nothing is computed.
    pub timing_only: bool,
}

impl Emulation {
    /// Creates a machine of `chip`s with a chip profile: a file, the name of a built-in profile, or the chip's own by
    /// default.
    ///
    /// # Errors
    /// Fails if the profile cannot be read, or belongs to another chip.
    pub fn new(chip: Chip, profile: Option<&Path>, timing_only: bool) -> Result<Self, ProfileError> {
        let profile = match profile {
            None => Profile::builtin(chip.name())?,
            Some(path) if path.exists() => Profile::from_file(path)?,
            Some(path) => Profile::builtin(&path.to_string_lossy())?,
        };
        if !profile.soc.starts_with(chip.soc()) {
            let problem = format!("soc is \"{}\", expected one of {}…", profile.soc, chip.soc());
            return Err(ProfileError::Invalid { origin: profile.name, line: None, problem });
        }
        let mode = if timing_only { "timing" } else { "compute" };
        let settings = format!("{}mode = {mode}\n", profile.settings_lines());
        let memory_bytes = profile.value("memory_bytes").map(|bytes| bytes as u64);
        Ok(Self { settings, clock: profile.clock(), memory_bytes, timing_only })
    }

    /// Returns the same emulation with further lines.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.settings.push_str(lines);
        self.settings.push('\n');
        self
    }
}

/// The settings of a group.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// The card.
    pub chip: Chip,
    /// Ranks, one chip each.
    pub tp: usize,
    /// Type of activations, cache, and weights without a form of their own.
    pub dtype: DType,
    /// Form of the linear layers of a dense checkpoint, and what the record calls those of a quantised one.
    pub weights: WeightForm,
    /// Form of the KV cache.
    pub kv: KvForm,
    /// Heads of one rank.
    pub attention: AttentionShape,
    /// True to bind every rank's thread to the cores on the NUMA node of its chip. If that fails, the record says
    /// why.
    pub bind: bool,
    /// Forced choices of operators.
    pub forced: Forced,
    /// The emulated machine, if there is no hardware.
    pub emulation: Option<Emulation>,
}
