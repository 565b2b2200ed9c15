//! The instruction sets: which exist, which this machine has, and which give the same bits.

use glmbench_device::DType;
use glmbench_device::words::one_of;

use super::Vectors;
use super::amx::{self, Amx};

/// Passes the sets of vectors to a macro, each with the machines that it exists for. The module of a set has a type of the
/// same name, which implements [`Isa`](super::Isa).
macro_rules! each_vector_set {
    ($then:ident) => {
        $then! {
            Portable;
            #[cfg(target_arch = "aarch64")]
            Neon;
            #[cfg(target_arch = "x86_64")]
            Avx2;
            #[cfg(target_arch = "x86_64")]
            Avx512;
        }
    };
}
pub(super) use each_vector_set;

/// Instruction sets that a user may request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// The reference kernels of a family that is an example, for tests.
    #[cfg(test)]
    ToyPortable,
    /// Other kernels of the same family.
    #[cfg(test)]
    Toy,
    /// AMX's arithmetic in plain Rust, for tests on machines without AMX.
    AmxPortable,
    /// The arithmetic of AVX-512 BF16 in plain Rust, for tests on machines without it.
    Avx512Bf16Portable,
    /// Plain Rust.
    Portable,
    /// NEON, which every aarch64 processor has.
    Neon,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 (F, BW, VL).
    Avx512,
    /// AVX-512, with `VDPBF16PS` for bf16 products.
    Avx512Bf16,
    /// AVX-512, with AMX tiles for bf16 and fp16 products.
    Amx,
}

impl InstructionSet {
    /// All sets, the best last.
    pub const ALL: [Self; 8 + 2 * cfg!(test) as usize] = [
        #[cfg(test)]
        Self::ToyPortable,
        #[cfg(test)]
        Self::Toy,
        Self::AmxPortable,
        Self::Avx512Bf16Portable,
        Self::Portable,
        Self::Neon,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Bf16,
        Self::Amx,
    ];

    /// Returns whether this machine can run the set.
    pub fn available(self) -> bool {
        match self {
            Self::Amx => Self::Avx512.available() && amx::found().is_ok_and(Amx::has_bf16),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => super::Avx512Bf16::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512Bf16 => false,
            set if set.family() == Family::Vectors => Vectors::detect(set, DType::Fp32).is_some(),
            // Plain Rust.
            _ => true,
        }
    }

    /// Returns the set that computes what the family's own products do not: the set itself if it is one of vectors.
    pub(crate) fn vector(self) -> Self {
        match self {
            Self::Amx | Self::Avx512Bf16 => Self::Avx512,
            set if set.family() == Family::Vectors => set,
            _ => Self::best_vector(),
        }
    }

    /// Lists the names for messages and help texts, the best first.
    pub fn words() -> String {
        one_of(Self::ALL.into_iter().rev().map(Self::name))
    }

    /// Returns the best set without tiles.
    pub fn best_vector() -> Self {
        Family::Vectors.best()
    }

    /// Returns the name used in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(test)]
            Self::ToyPortable => "toy-portable",
            #[cfg(test)]
            Self::Toy => "toy",
            Self::AmxPortable => "amx-portable",
            Self::Avx512Bf16Portable => "avx512-bf16-portable",
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
        }
    }

    /// Returns the kernel family of the set.
    pub fn family(self) -> Family {
        match self {
            #[cfg(test)]
            Self::ToyPortable | Self::Toy => Family::Toy,
            Self::AmxPortable | Self::Amx => Family::Tiles,
            Self::Avx512Bf16Portable | Self::Avx512Bf16 => Family::Pairs,
            Self::Portable | Self::Neon | Self::Avx2 | Self::Avx512 => Family::Vectors,
        }
    }
}

/// A family of kernels: the instruction sets that sum in the same order, and so give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Every sum is a chain of fused multiply-adds.
    Vectors,
    /// Products of bf16 numbers are sums of pairs, as AVX-512 BF16 computes them. Products of other numbers are those of
    /// [`Self::Vectors`].
    Pairs,
    /// Products of bf16 and fp16 numbers are sums of tiles, as AMX computes them.
    Tiles,
    /// An example, for tests: even and odd inputs are summed apart.
    #[cfg(test)]
    Toy,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 3 + cfg!(test) as usize] = [
        Self::Vectors,
        Self::Pairs,
        Self::Tiles,
        #[cfg(test)]
        Self::Toy,
    ];

    /// Lists the sets of each family for help texts: `avx512, avx2; amx`.
    pub fn words() -> String {
        let sets =
            |family: Self| InstructionSet::ALL.into_iter().rev().filter(move |set| set.family() == family);
        let words = |family| sets(family).map(InstructionSet::name).collect::<Vec<_>>().join(", ");
        Self::ALL.map(words).join("; ")
    }

    /// Returns the reference kernels of the family: plain Rust, for every machine.
    pub fn reference(self) -> InstructionSet {
        match self {
            Self::Vectors => InstructionSet::Portable,
            Self::Pairs => InstructionSet::Avx512Bf16Portable,
            Self::Tiles => InstructionSet::AmxPortable,
            #[cfg(test)]
            Self::Toy => InstructionSet::ToyPortable,
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
        let found = Self::ALL.into_iter().find(|set| set.name() == word);
        found.ok_or_else(|| format!("kernels \"{word}\" are unknown, expected {}", Self::words()))
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
