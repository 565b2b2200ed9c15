//! The instruction sets: which exist, which this machine has, and their kernels.

use glmbench_device::DType;

use super::kernels::{self, Kernels};
use super::tiles::Family;

/// Instruction sets that a user may request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// AMX's arithmetic in plain Rust, for tests on machines without AMX.
    AmxPortable,
    /// Plain Rust.
    Portable,
    /// NEON, which every aarch64 processor has.
    Neon,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 (F, BW, VL).
    Avx512,
    /// AVX-512, with AMX tiles for bf16 and fp16 products.
    Amx,
}

impl InstructionSet {
    /// All sets, the best last.
    pub const ALL: [Self; 6] =
        [Self::AmxPortable, Self::Portable, Self::Neon, Self::Avx2, Self::Avx512, Self::Amx];

    /// Returns whether this machine can run the set.
    pub fn available(self) -> bool {
        match self {
            Self::AmxPortable | Self::Portable => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
            Self::Amx => Self::Avx512.available() && Family::Amx.available(),
        }
    }

    /// Returns the best set that this machine can run.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|set| set.available()).unwrap_or(Self::Portable)
    }

    /// Returns the best set without tiles.
    pub fn best_vector() -> Self {
        let vector = [Self::Avx512, Self::Avx2, Self::Neon];
        vector.into_iter().find(|set| set.available()).unwrap_or(Self::Portable)
    }

    /// Returns the name used in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AmxPortable => "amx-portable",
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// Returns whether bf16 and fp16 products use tiles. All sets with tiles give identical bits, and so do all sets
    /// without.
    pub fn has_tiles(self) -> bool {
        matches!(self, Self::AmxPortable | Self::Amx)
    }

    /// Returns the set's kernels; `None` if the machine cannot run them. There are no fp32 tiles: for fp32 this returns
    /// vector kernels, under their own name.
    pub fn kernels(self, dtype: DType) -> Option<Kernels> {
        if !self.available() {
            return None;
        }
        match self {
            Self::AmxPortable => Self::best_vector().with_tiles(Family::Twin, dtype, self.name()),
            Self::Portable => Some(kernels::portable::kernels(dtype)),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Some(kernels::neon::kernels(dtype)),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon => None,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Some(kernels::avx2::kernels(dtype)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Some(kernels::avx512::kernels(dtype)),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => None,
            Self::Amx => Self::Avx512.with_tiles(Family::Amx, dtype, self.name()),
        }
    }

    /// Returns these vector kernels, with the family's tiles if it supports the type.
    fn with_tiles(self, family: Family, dtype: DType, name: &'static str) -> Option<Kernels> {
        let vector = self.kernels(dtype)?;
        Some(match family.kernels(dtype) {
            Some(tiles) => Kernels { name, tiles: Some(tiles), ..vector },
            None => vector,
        })
    }
}

impl std::str::FromStr for InstructionSet {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|set| set.name() == word).ok_or_else(|| {
            format!(
                "kernels \"{word}\" are unknown, expected amx, avx512, avx2, neon, portable or amx-portable"
            )
        })
    }
}
