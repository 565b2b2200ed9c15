//! The vector instruction set and storage type that a device uses.

use glmbench_device::DType;

#[cfg(target_arch = "aarch64")]
use super::Neon;
use super::element::{Bf16, Element, F16, F32};
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};
use super::{InstructionSet, Isa, Kernel, Portable};

/// A vector instruction set that this machine has.
#[derive(Debug, Clone, Copy)]
enum Set {
    Portable(Portable),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// Runs kernels with one instruction set and one storage type. The kernels of all rooms are compiled and selected here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vectors {
    set: Set,
    dtype: DType,
}

impl Vectors {
    /// Returns the vectors of a set without tiles; `None` if the machine does not have it. A set with tiles has the
    /// vectors of [`InstructionSet::vector`].
    pub(crate) fn detect(set: InstructionSet, dtype: DType) -> Option<Self> {
        let set = match set.vector() {
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => Set::Neon(Neon::detect()?),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => Set::Avx2(Avx2::detect()?),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => Set::Avx512(Avx512::detect()?),
            InstructionSet::Portable => Set::Portable(Portable),
            _ => return None,
        };
        Some(Self { set, dtype })
    }

    /// Returns the storage type.
    pub(crate) fn dtype(self) -> DType {
        self.dtype
    }

    /// Returns the same vectors for numbers in fp32.
    pub(crate) fn fp32(self) -> Self {
        Self { dtype: DType::Fp32, ..self }
    }

    /// Returns the number of panels that a product of many rows reads side by side.
    pub(crate) fn tile_panels(self) -> usize {
        fn of<I: Isa>(_: I) -> usize {
            I::TILE_PANELS
        }
        match self.set {
            Set::Portable(isa) => of(isa),
            #[cfg(target_arch = "aarch64")]
            Set::Neon(isa) => of(isa),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(isa) => of(isa),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(isa) => of(isa),
        }
    }

    /// Runs a kernel.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.dtype {
            DType::Fp32 => self.run_with::<F32, K>(kernel),
            DType::Fp16 => self.run_with::<F16, K>(kernel),
            DType::Bf16 => self.run_with::<Bf16, K>(kernel),
        }
    }

    #[inline]
    fn run_with<E: Element, K: Kernel>(self, kernel: K) -> K::Output {
        match self.set {
            Set::Portable(isa) => isa.run::<E, K>(kernel),
            #[cfg(target_arch = "aarch64")]
            Set::Neon(isa) => isa.run::<E, K>(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(isa) => isa.run::<E, K>(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(isa) => isa.run::<E, K>(kernel),
        }
    }
}
