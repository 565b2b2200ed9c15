//! The registry: which kernels multiply which weights and KV caches. Nothing else decides it.
//!
//! A new way to multiply is one file, which implements [`WeightKernels`], and one line of [`WEIGHTS`]. A new tile
//! family, or another implementation of one, is one file and one line of [`TILES`]. [`Int8Gemm::of`] chooses
//! the product of integers without tiles.

use std::sync::OnceLock;

use glmbench_device::{DType, Form, Inputs, KvForm};

use crate::attention::CacheKernels;
use crate::limits::Unit;
use crate::product::WeightKernels;
use crate::product::int4::Int4Kernels;
use crate::product::int8::{Int8Gemm, Int8Kernels, Multiply, StaticKernels};
use crate::product::tiles::{TileKernels, TileLayers, TileUnit, amx_int8, reference_int8};
use crate::product::vector::VectorKernels;
use crate::product::weight_only::{Int4, Int8, WeightOnly};
#[cfg(test)]
use crate::product::{toy_family::ToyKernels, toy_form::ToyInt4};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512Vnni, AvxVnni};
use crate::simd::{InstructionSet, Vectors};
#[cfg(target_arch = "aarch64")]
use crate::simd::{NeonDotProd, NeonI8mm};

/// How much faster than fused multiply-adds in fp32 the dot products of bf16 pairs must be to be preferred.
const PAIRS_PAY: f64 = 1.5;

impl InstructionSet {
    /// Returns the best set that this machine can run for numbers of a type.
    ///
    /// AVX-512 BF16 multiplies bf16 only. Some processors run it at twice the rate of their fp32 unit, others at half
    /// that rate. Both are therefore timed once, in about a millisecond.
    pub fn best_for(dtype: DType) -> Self {
        static PAY: OnceLock<bool> = OnceLock::new();
        let pairs_pay = || {
            let faster = || Unit::Bf16Avx512.rate_over(Unit::Fp32Avx512);
            dtype == DType::Bf16 && *PAY.get_or_init(|| faster().is_some_and(|ratio| ratio >= PAIRS_PAY))
        };
        let is_preferred = |set: &Self| set.available() && (*set != Self::Avx512Bf16 || pairs_pay());
        Self::ALL.into_iter().rev().find(is_preferred).unwrap_or(Self::Portable)
    }
}

impl Int8Gemm {
    /// Returns the product of an instruction set that this machine has. AVX-512 without VNNI uses AVX2's,
    /// NEON without dot products the portable one.
    pub(crate) fn of(set: InstructionSet) -> Self {
        Self::all_of(set).next().unwrap_or(Self::Portable)
    }

    /// Returns the products that a set of this machine can compute, the preferred first.
    pub(crate) fn all_of(set: InstructionSet) -> impl Iterator<Item = Self> {
        let vector = set.vector();
        #[cfg(target_arch = "x86_64")]
        let found = {
            let wide = vector == InstructionSet::Avx512;
            let narrow = wide || vector == InstructionSet::Avx2;
            [
                wide.then(Avx512Vnni::detect).flatten().map(Self::Avx512Vnni),
                narrow.then(AvxVnni::detect).flatten().map(Self::AvxVnni),
                narrow.then(Avx2::detect).flatten().map(Self::Avx2),
            ]
        };
        #[cfg(target_arch = "aarch64")]
        let found = {
            let neon = vector == InstructionSet::Neon;
            [
                neon.then(NeonI8mm::detect).flatten().map(Self::NeonI8mm),
                neon.then(NeonDotProd::detect).flatten().map(Self::NeonDotProd),
            ]
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let found = [vector; 0].map(|_| None);
        found.into_iter().flatten().chain([Self::Portable])
    }
}

/// Makes the kernels for weights of one form; `None` if there are none for the type or the instruction set.
type MakeWeights = fn(&Kernels) -> Option<Box<dyn WeightKernels>>;

/// The kernels of each weight form, the preferred first.
const WEIGHTS: &[(Form, MakeWeights)] = &[
    #[cfg(test)]
    (Form::Dense, |kernels| {
        let Kernels { set, vectors, .. } = *kernels;
        let is_toy = set.family() == crate::simd::Family::Toy;
        is_toy.then(|| -> Box<dyn WeightKernels> { Box::new(ToyKernels { set, vectors }) })
    }),
    (Form::Dense, |kernels| {
        let Kernels { set, vectors, tiles, .. } = *kernels;
        Some(Box::new(TileLayers { tiles: tiles?, vectors, name: set.name() }))
    }),
    (Form::Dense, |kernels| Some(Box::new(VectorKernels { vectors: kernels.vectors }))),
    (Form::Int8(Inputs::Int8PerToken), |kernels| Some(Box::new(kernels.int8))),
    (Form::Int8(Inputs::Int8Static), |kernels| Some(Box::new(StaticKernels(kernels.int8)))),
    (Form::Int8(Inputs::Float), |kernels| Some(Box::new(WeightOnly::<Int8>::new(kernels.vectors)))),
    (Form::Int4(Inputs::Float), |kernels| Some(Box::new(WeightOnly::<Int4>::new(kernels.vectors)))),
    (Form::Int4(Inputs::Int8PerToken), |kernels| {
        let Kernels { vectors, set, .. } = *kernels;
        Some(Box::new(Int4Kernels { vectors, gemm: Int8Gemm::of(set) }))
    }),
    #[cfg(test)]
    (Form::Int4(Inputs::Int8Static), |kernels| Some(Box::new(ToyInt4 { vectors: kernels.vectors }))),
];

/// Makes the kernels for a KV cache of one form; `None` as for weights.
type MakeCache = fn(&Kernels) -> Option<CacheKernels>;

/// The kernels of each form of KV cache, the preferred first.
const CACHES: [(KvForm, MakeCache); 5] = [
    (KvForm::Auto, |kernels| kernels.tiles.map(CacheKernels::Tiles)),
    (KvForm::Auto, |_| Some(CacheKernels::Vector)),
    (KvForm::Int8, |kernels| Some(CacheKernels::Int8Tiles(kernels.tiles?, kernels.int8.tiles()?))),
    (KvForm::Int8, |_| Some(CacheKernels::Vector)),
    (KvForm::C8, |_| Some(CacheKernels::Vector)),
];

/// An implementation of a tile family.
struct Tiles {
    set: InstructionSet,
    /// Returns the tiles for a type.
    of_type: fn(DType) -> Option<TileKernels>,
    /// Returns the tiles for integers, and their name for the record; `None` if vectors multiply integers.
    int8: fn() -> Option<(TileUnit<i32>, &'static str)>,
}

/// The implementations of the tile families.
const TILES: [Tiles; 4] = [
    Tiles {
        set: InstructionSet::AmxPortable,
        of_type: TileKernels::reference,
        int8: || Some((reference_int8(), "amx-int8-portable")),
    },
    Tiles {
        set: InstructionSet::Amx,
        of_type: TileKernels::amx,
        int8: || amx_int8().map(|unit| (unit, "amx-int8")),
    },
    Tiles { set: InstructionSet::Avx512Bf16Portable, of_type: TileKernels::reference_pairs, int8: || None },
    Tiles { set: InstructionSet::Avx512Bf16, of_type: TileKernels::pairs, int8: || None },
];

/// The kernels of a device: one instruction set, one type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    set: InstructionSet,
    vectors: Vectors,
    /// Products of numbers of the type, if the set has tiles for it.
    tiles: Option<TileKernels>,
    int8: Int8Kernels,
}

impl Kernels {
    /// Returns the kernels of a set; `None` if the machine cannot run them.
    pub(crate) fn detect(set: InstructionSet, dtype: DType) -> Option<Self> {
        if !set.available() {
            return None;
        }
        let vectors = Vectors::detect(set, dtype)?;
        let mut int8 = Int8Kernels::without_tiles(vectors, Int8Gemm::of(set));
        let of_set = TILES.iter().find(|tiles| tiles.set == set);
        if let Some((unit, name)) = of_set.and_then(|of_set| (of_set.int8)()) {
            int8 = Int8Kernels { multiply: Multiply::Tiles(unit), name, ..int8 };
        }
        let tiles = of_set.and_then(|of_set| (of_set.of_type)(dtype));
        Some(Self { set, vectors, tiles, int8 })
    }

    /// Returns the name for the record: that of the kernels that multiply dense weights. There are no tiles for fp32, for
    /// example: vectors multiply, under their own name.
    pub(crate) fn name(&self) -> &'static str {
        self.weights(Form::Dense).map_or(self.vectors.name(), |kernels| kernels.name())
    }

    /// Returns the name of the integer products, for the record.
    pub(crate) fn int8_name(&self) -> &'static str {
        self.int8.name
    }

    /// Returns the vectors, which compute all that is no product.
    pub(crate) fn vectors(&self) -> Vectors {
        self.vectors
    }

    /// Returns the kernels that multiply weights of this form. `None` if there are none.
    pub(crate) fn weights(&self, form: Form) -> Option<Box<dyn WeightKernels>> {
        WEIGHTS.iter().filter(|(of, _)| *of == form).find_map(|(_, make)| make(self))
    }

    /// Returns the forms of weights that have kernels, for messages.
    pub(crate) fn forms(&self) -> Vec<Form> {
        let mut forms: Vec<Form> = Vec::new();
        for (form, _) in WEIGHTS.iter().filter(|(_, make)| make(self).is_some()) {
            if !forms.contains(form) {
                forms.push(*form);
            }
        }
        forms
    }

    /// Returns the kernels that multiply a KV cache of this form.
    pub(crate) fn cache(&self, form: KvForm) -> CacheKernels {
        let mut fitting = CACHES.iter().filter(|(of, _)| *of == form).filter_map(|(_, make)| make(self));
        fitting.next().expect("invariant: every form of cache has kernels for every type and set")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_device::Precision;

    #[test]
    fn every_form_has_kernels_on_every_set_and_type() {
        for set in InstructionSet::ALL {
            for dtype in [DType::Fp32, DType::Fp16, DType::Bf16] {
                let kernels = Kernels::detect(set, dtype);
                assert_eq!(kernels.is_some(), set.available(), "{set:?} {dtype}");
                let Some(kernels) = kernels else { continue };
                for form in Precision::TYPES.map(|precision| precision.weights.form()) {
                    assert!(kernels.weights(form).unwrap().bytes(1, 1, 1) > 0, "{set:?} {dtype}");
                    assert!(kernels.forms().contains(&form), "{set:?} {dtype}");
                }
                for form in KvForm::ALL {
                    kernels.cache(form);
                }
            }
        }
    }
}
