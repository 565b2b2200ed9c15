//! Chip profiles: the figures behind the emulator's virtual clock, each with its source.

mod read;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use glmbench_device::{ClockFigure, ClockFit, ClockProfile};

/// The built-in profiles, by the card's name on the command line.
const BUILTIN: [(&str, &str); 4] = [
    ("300i-duo", include_str!("../../ascend-emulator/profiles/300i-duo.toml")),
    ("300i-duo-48g", include_str!("../../ascend-emulator/profiles/300i-duo-48g.toml")),
    ("800i-a2", include_str!("../../ascend-emulator/profiles/800i-a2.toml")),
    ("800i-a2-64g", include_str!("../../ascend-emulator/profiles/800i-a2-64g.toml")),
];

/// Chips that can be emulated.
const SOCS: [&str; 3] = ["Ascend310P3", "Ascend910B3", "Ascend910B4"];

/// The kind of source of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Stated in a public text.
    Published,
    /// Computed from published figures.
    Derived,
    /// Fitted to figures that others published, or to runs on a card.
    Calibrated,
    /// An assumption.
    Assumed,
}

impl Mark {
    const ALL: [Self; 4] = [Self::Published, Self::Derived, Self::Calibrated, Self::Assumed];

    /// Returns the word used in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Derived => "derived",
            Self::Calibrated => "calibrated",
            Self::Assumed => "assumed",
        }
    }
}

/// One figure of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The name, which is the emulator's key.
    pub key: String,
    /// The value.
    pub value: f64,
    /// The unit.
    pub unit: String,
    /// The kind of source.
    pub mark: Mark,
    /// The source, as text.
    pub source: String,
    /// What a calibrated figure rests on.
    pub fit: Option<FitMark>,
}

impl Entry {
    fn figure(&self) -> ClockFigure {
        let Self { key, value, unit, mark, source, fit } = self.clone();
        let fit = fit.map(|fit| (fit.rows, fit.error));
        ClockFigure { key, value, unit, mark: mark.name().to_owned(), source, fit }
    }
}

/// What a calibrated figure rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitMark {
    /// Number of rows that it was fitted to.
    pub rows: u32,
    /// Root mean square over the models of the logarithm of modelled over measured time, each with its model left out of the fit.
    pub error: f64,
}

/// A chip profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The name of the profile.
    pub name: String,
    /// The card's name in full.
    pub title: String,
    /// The chip, as `aclrtGetSocName` names it.
    pub soc: String,
    /// Chips per card.
    pub chips_per_card: u32,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// All figures, in the file's order.
    pub entries: Vec<Entry>,
    /// How the profile compares with the times of a card that it was fitted to. Shipped profiles have none: the published
    /// speeds state their errors.
    pub fits: Vec<ClockFit>,
    /// The file's text.
    pub text: String,
}

/// Errors of reading a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("profile {}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        problem: std::io::Error,
    },
    /// There is no profile of this name.
    #[error("profile \"{name}\" is unknown, expected {} or a file", Profile::builtin_names().join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// The text is not a valid profile.
    #[error("profile {origin}{}: {problem}", line.map(|l| format!(" line {l}")).unwrap_or_default())]
    Invalid {
        /// The file, or the name of a built-in profile.
        origin: String,
        /// The line, counted from one.
        line: Option<usize>,
        /// What was found and what was expected.
        problem: String,
    },
}

/// Keys that every profile must have, with their units. Keys outside this table and [`OPTIONAL`] are rejected.
const REQUIRED: [(&str, &str); 24] = [
    ("cube_fp16_flops", "FLOP/s"),
    ("cube_int8_ops", "OP/s"),
    ("vector_fp16_flops", "FLOP/s"),
    ("memory_bytes", "byte"),
    ("memory_bytes_per_s", "byte/s"),
    ("l2_bytes", "byte"),
    ("activation_bytes_per_s", "byte/s"),
    ("compute_efficiency", "1"),
    ("vector_efficiency", "1"),
    ("memory_efficiency", "1"),
    ("link_efficiency", "1"),
    ("mesh_efficiency", "1"),
    ("matmul_launch_ns", "ns"),
    ("vector_launch_ns", "ns"),
    ("single_launch_ns", "ns"),
    ("prompt_layer_ns", "ns"),
    ("collective_latency_ns", "ns"),
    ("link_bytes_per_s", "byte/s"),
    ("link_peers", "link"),
    ("pcie_bytes_per_s", "byte/s"),
    ("copy_latency_ns", "ns"),
    ("host_plan_ns", "ns"),
    ("host_launch_ns", "ns"),
    ("host_call_ns", "ns"),
];
/// Keys that a profile may have.
const OPTIONAL: [(&str, &str); 3] =
    [("cube_bf16_flops", "FLOP/s"), ("cube_fp32_flops", "FLOP/s"), ("max_power_w", "W")];

/// Maximum size of a profile in bytes. The built-in ones have a few thousand.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a file, which may be an endless device.
fn text_of(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 <= MAX_BYTES {
        return Ok(text);
    }
    let message = format!("found more than {MAX_BYTES} bytes; expected {MAX_BYTES} at most");
    Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message))
}

impl Profile {
    /// Returns the names of the built-in profiles.
    pub fn builtin_names() -> [&'static str; BUILTIN.len()] {
        BUILTIN.map(|(name, _)| name)
    }

    /// Returns a built-in profile: `300i-duo` or `800i-a2`.
    pub fn builtin(name: &str) -> Result<Self, ProfileError> {
        match BUILTIN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(text, name),
            None => Err(ProfileError::Unknown { name: name.to_owned() }),
        }
    }

    /// Reads a user's own profile.
    pub fn from_file(path: &Path) -> Result<Self, ProfileError> {
        let text = text_of(path)
            .map_err(|problem| ProfileError::Unreadable { path: path.to_path_buf(), problem })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Returns the value of a key.
    pub fn value(&self, key: &str) -> Option<f64> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value)
    }

    /// Returns name, hash, limits, figures and fits, for the record.
    pub fn clock(&self) -> ClockProfile {
        // Both keys are required of every profile.
        let whole = |key| self.value(key).unwrap_or_default() as u64;
        ClockProfile {
            name: self.name.clone(),
            sha256: self.sha256.clone(),
            memory_bytes_per_s: whole("memory_bytes_per_s"),
            matmul_flops_per_s: whole("cube_fp16_flops"),
            title: self.title.clone(),
            figures: self.entries.iter().map(Entry::figure).collect(),
            fits: self.fits.clone(),
        }
    }

    /// Returns the SHA-256 of the figures, hexadecimal: a fit states it, so that figures changed afterwards do not carry its error.
    pub fn figures_sha256(&self) -> String {
        hex(self.settings_lines().as_bytes())
    }

    /// Returns the emulator's configuration: one line for the chip and one for every figure.
    pub fn settings_lines(&self) -> String {
        let mut lines = format!("soc = {}\n", self.soc);
        for entry in &self.entries {
            let _ = writeln!(lines, "{} = {}", entry.key, entry.value);
        }
        lines
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
