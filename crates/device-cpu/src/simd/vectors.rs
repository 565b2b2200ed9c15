//! The vector instruction set and storage type that a device uses.

use glmbench_device::DType;

use super::element::{Bf16, Element, F16, F32};
use super::instruction_set::each_vector_set;
use super::{InstructionSet, Isa, Kernel};

macro_rules! sets {
    ($($(#[$only:meta])* $set:ident;)*) => {
        /// A vector instruction set that this machine has.
        #[derive(Debug, Clone, Copy)]
        enum Set {
            $($(#[$only])* $set(super::$set),)*
        }

        impl Set {
            /// Returns the vectors of a set; `None` if the machine does not have it, or if it is no set of vectors.
            fn detect(set: InstructionSet) -> Option<Self> {
                match set {
                    $($(#[$only])* InstructionSet::$set => super::$set::detect().map(Self::$set),)*
                    _ => None,
                }
            }

            /// Returns the set.
            fn instruction_set(self) -> InstructionSet {
                match self {
                    $($(#[$only])* Self::$set(_) => InstructionSet::$set,)*
                }
            }

            fn tile_panels(self) -> usize {
                fn of<I: Isa>(_: I) -> usize {
                    I::TILE_PANELS
                }
                match self {
                    $($(#[$only])* Self::$set(isa) => of(isa),)*
                }
            }

            #[inline]
            fn run<E: Element, K: Kernel>(self, kernel: K) -> K::Output {
                match self {
                    $($(#[$only])* Self::$set(isa) => isa.run::<E, K>(kernel),)*
                }
            }
        }
    };
}
each_vector_set!(sets);

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
        Some(Self { set: Set::detect(set.vector())?, dtype })
    }

    /// Returns the name of the set, for the record.
    pub(crate) fn name(self) -> &'static str {
        self.set.instruction_set().name()
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
        self.set.tile_panels()
    }

    /// Runs a kernel that neither loads nor stores numbers of the storage type.
    #[inline]
    pub(crate) fn run_fp32<K: Kernel>(self, kernel: K) -> K::Output {
        self.set.run::<F32, K>(kernel)
    }

    /// Runs a kernel.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.dtype {
            DType::Fp32 => self.set.run::<F32, K>(kernel),
            DType::Fp16 => self.set.run::<F16, K>(kernel),
            DType::Bf16 => self.set.run::<Bf16, K>(kernel),
        }
    }
}
