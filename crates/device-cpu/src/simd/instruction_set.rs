//! The instruction sets: which exist, which this machine has, and which give the same bits.

use super::amx::{self, Amx};

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
            #[cfg(target_arch = "aarch64")]
            Self::Neon => super::Neon::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => super::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => super::Avx512::detect().is_some(),
            Self::Amx => Self::Avx512.available() && amx::found().is_ok_and(Amx::has_bf16),
            _ => false,
        }
    }

    /// Returns the set that computes what tiles do not: the set itself if it has no tiles.
    pub(crate) fn vector(self) -> Self {
        match self {
            Self::AmxPortable => Self::best_vector(),
            Self::Amx => Self::Avx512,
            other => other,
        }
    }

    /// Returns the best set that this machine can run.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|set| set.available()).unwrap_or(Self::Portable)
    }

    /// Returns the best set without tiles.
    pub fn best_vector() -> Self {
        Family::Vectors.best()
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

    /// Returns the family of the set's kernels.
    pub fn family(self) -> Family {
        match self {
            Self::AmxPortable | Self::Amx => Family::Tiles,
            Self::Portable | Self::Neon | Self::Avx2 | Self::Avx512 => Family::Vectors,
        }
    }
}

/// A family of kernels: the instruction sets that sum in the same order, and so give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Every sum is a chain of fused multiply-adds.
    Vectors,
    /// Products of bf16 and fp16 numbers are sums of tiles, as AMX computes them.
    Tiles,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 2] = [Self::Vectors, Self::Tiles];

    /// Returns the reference kernels of the family: plain Rust, for every machine.
    pub fn reference(self) -> InstructionSet {
        match self {
            Self::Vectors => InstructionSet::Portable,
            Self::Tiles => InstructionSet::AmxPortable,
        }
    }

    /// Returns the sets of the family that this machine can run, the best last.
    pub fn sets(self) -> impl DoubleEndedIterator<Item = InstructionSet> {
        InstructionSet::ALL.into_iter().filter(move |set| set.family() == self && set.available())
    }

    /// Returns the best set of the family that this machine can run.
    pub fn best(self) -> InstructionSet {
        self.sets().next_back().unwrap_or(self.reference())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_of_one_family_and_every_family_runs_everywhere() {
        for set in InstructionSet::ALL {
            assert_eq!(Family::ALL.iter().filter(|family| set.family() == **family).count(), 1);
            assert_eq!(set.vector().family(), Family::Vectors, "{set:?}");
            assert_eq!(set.name().parse(), Ok(set));
        }
        for family in Family::ALL {
            assert!(family.sets().any(|set| set == family.reference()), "{family:?}");
            assert!(family.best().available() && family.best().family() == family, "{family:?}");
        }
        assert_eq!(Family::Vectors.best(), InstructionSet::best_vector());
    }
}
