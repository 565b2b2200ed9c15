//! The rate of each arithmetic unit on operands in the first-level cache.
//!
//! Each loop is the inner product of a GEMM tile for that unit. It multiplies a panel of columns with a few rows, which
//! it reads repeatedly from the first-level cache. It has enough accumulators to hide the unit's latency. The rate
//! therefore includes loads, but not memory accesses.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::hint::black_box;
use std::time::{Duration, Instant};

use glmbench_device::{DType, DeviceError, Inputs, Precision};

use crate::simd::amx::{Amx, found};
#[cfg(target_arch = "aarch64")]
use crate::simd::{NeonDotProd, NeonI8mm};

use super::Rate;
use super::team::rates;

/// Rounds that count.
pub(super) const ROUNDS: usize = 7;
/// Rounds of a quick measurement.
const SAMPLE_ROUNDS: usize = 11;
/// Minimum duration of a round.
const ROUND_TIME: Duration = Duration::from_millis(20);
/// Passes over the operands between two clock reads: some tens of microseconds.
const PASSES: usize = 128;
/// Depth of the operands: a panel of sixteen fp32 columns is 8 KiB.
const K: usize = 128;

/// The operand type of a unit. Sums are fp32, or int32 for integers, unless a variant says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// IEEE binary32.
    Fp32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16, with sums in binary16 too.
    Fp16,
    /// Eight-bit integers.
    Int8,
}

/// An arithmetic unit, as used by one set of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Multiply and add with the baseline instructions of the architecture.
    Fp32Portable,
    /// NEON fused multiply-add.
    Fp32Neon,
    /// AVX2 fused multiply-add.
    Fp32Avx2,
    /// AVX-512 fused multiply-add.
    Fp32Avx512,
    /// AVX-512 BF16 `vdpbf16ps`. Some processors run it at half the rate of their fp32 unit, others at twice that rate.
    Bf16Avx512,
    /// AVX-512 FP16 fused multiply-add.
    Fp16Avx512,
    /// AVX2 `vpmaddubsw` and `vpmaddwd`, for processors without a dot-product instruction.
    Int8Avx2,
    /// AVX-VNNI `vpdpbusd`, 256 bits.
    Int8AvxVnni,
    /// AVX-512 VNNI `vpdpbusd`, 512 bits.
    Int8Avx512Vnni,
    /// NEON `sdot`.
    Int8NeonDotprod,
    /// NEON `smmla`.
    Int8NeonI8mm,
    /// AMX `tdpbf16ps`.
    AmxBf16,
    /// AMX `tdpbssd`.
    AmxInt8,
}

/// One thread's loop, which returns the number of operations it performed.
type Work = Box<dyn Fn() -> u64 + Sync>;

impl Unit {
    /// All units.
    pub const ALL: [Self; 13] = [
        Self::Fp32Portable,
        Self::Fp32Neon,
        Self::Fp32Avx2,
        Self::Fp32Avx512,
        Self::Bf16Avx512,
        Self::Fp16Avx512,
        Self::Int8Avx2,
        Self::Int8AvxVnni,
        Self::Int8Avx512Vnni,
        Self::Int8NeonDotprod,
        Self::Int8NeonI8mm,
        Self::AmxBf16,
        Self::AmxInt8,
    ];

    /// Returns the name used in records and suites.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32Portable => "fp32-portable",
            Self::Fp32Neon => "fp32-neon",
            Self::Fp32Avx2 => "fp32-avx2",
            Self::Fp32Avx512 => "fp32-avx512",
            Self::Bf16Avx512 => "bf16-avx512",
            Self::Fp16Avx512 => "fp16-avx512",
            Self::Int8Avx2 => "int8-avx2",
            Self::Int8AvxVnni => "int8-avx-vnni",
            Self::Int8Avx512Vnni => "int8-avx512-vnni",
            Self::Int8NeonDotprod => "int8-neon-dotprod",
            Self::Int8NeonI8mm => "int8-neon-i8mm",
            Self::AmxBf16 => "amx-bf16",
            Self::AmxInt8 => "amx-int8",
        }
    }

    /// Returns the unit with this name, if this machine has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name && unit.available())
    }

    /// Returns the type of the operands.
    pub fn operands(self) -> Operands {
        match self {
            Self::Fp32Portable | Self::Fp32Neon | Self::Fp32Avx2 | Self::Fp32Avx512 => Operands::Fp32,
            Self::Bf16Avx512 | Self::AmxBf16 => Operands::Bf16,
            Self::Fp16Avx512 => Operands::Fp16,
            Self::Int8Avx2
            | Self::Int8AvxVnni
            | Self::Int8Avx512Vnni
            | Self::Int8NeonDotprod
            | Self::Int8NeonI8mm
            | Self::AmxInt8 => Operands::Int8,
        }
    }

    /// Returns how many products of this unit make one product of `precision` at that type's accuracy; `None` if none
    /// do.
    ///
    /// An fp16 number is the sum of two bf16 numbers. Of the four products of their parts, the smallest is omitted
    /// (`tiles`). A unit with fp16 sums does not keep the accuracy of any type over the depth of a linear
    /// layer.
    pub fn products(self, precision: Precision) -> Option<u32> {
        match (precision.weights.form().inputs(), self.operands(), precision.dtype) {
            (Inputs::Float, Operands::Fp32, _)
            | (Inputs::Float, Operands::Bf16, DType::Bf16)
            | (Inputs::Int8PerToken | Inputs::Int8Static, Operands::Int8, _) => Some(1),
            (Inputs::Float, Operands::Bf16, DType::Fp16) => Some(3),
            _ => None,
        }
    }

    /// Returns whether this machine has the unit and the operating system allows its use. The portable unit counts only
    /// if there is no other fp32 unit.
    pub fn available(self) -> bool {
        match self {
            Self::Fp32Portable => !Self::Fp32Neon.available() && !Self::Fp32Avx2.available(),
            Self::Fp32Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Self::Fp32Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Fp32Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Bf16Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "x86_64")]
            Self::Fp16Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512fp16"),
            #[cfg(target_arch = "x86_64")]
            Self::Int8Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Int8AvxVnni => is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Int8Avx512Vnni => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Int8NeonDotprod => NeonDotProd::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Int8NeonI8mm => NeonI8mm::detect().is_some(),
            Self::AmxBf16 => found().is_ok_and(Amx::has_bf16),
            Self::AmxInt8 => found().is_ok_and(Amx::has_int8),
            // Units of other architectures.
            _ => false,
        }
    }

    /// Returns how many times as fast as `other` this unit is, with the calling thread; `None` if this machine lacks one
    /// of them. The fastest of some interleaved rounds count, so that interference with one of them does not.
    pub(crate) fn rate_over(self, other: Self) -> Option<f64> {
        let works = [self.work()?, other.work()?];
        let mut best = [0.0f64; 2];
        for _ in 0..2 * SAMPLE_ROUNDS {
            for (work, best) in works.iter().zip(&mut best) {
                let start = Instant::now();
                let operations = work();
                *best = best.max(operations as f64 / start.elapsed().as_secs_f64());
            }
        }
        Some(best[0] / best[1])
    }

    /// Returns one thread's loop over a multiple of [`PASSES`] passes; `None` if this machine does not have the unit.
    /// The loop returns the number of operations it performed.
    fn work(self) -> Option<Work> {
        match self {
            Self::Fp32Portable => Some(Box::new(portable)),
            #[cfg(target_arch = "aarch64")]
            Self::Fp32Neon => Some(Box::new(neon::fp32)),
            #[cfg(target_arch = "aarch64")]
            Self::Int8NeonDotprod => {
                NeonDotProd::detect().map(|isa| -> Work { Box::new(move || neon::dotprod(isa)) })
            }
            #[cfg(target_arch = "aarch64")]
            Self::Int8NeonI8mm => NeonI8mm::detect().map(|isa| -> Work { Box::new(move || neon::i8mm(isa)) }),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::AmxBf16 => tiles(Amx::has_bf16, amx::bf16),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::AmxInt8 => tiles(Amx::has_int8, amx::int8),
            #[cfg(target_arch = "x86_64")]
            _ => x86::work(self),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }
}

/// Returns the loop of a tile unit; `None` if this machine does not have its product, as `has` says.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn tiles(has: fn(Amx) -> bool, of: fn(Amx, usize) -> u64) -> Option<Work> {
    let amx = found().ok().filter(|amx| has(*amx))?;
    Some(Box::new(move || of(amx, 8 * PASSES)))
}

/// The peak of a unit. Multiplications and additions count separately.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnitPeak {
    /// The unit.
    pub unit: Unit,
    /// All threads together, operations per second.
    pub all: Rate,
    /// One thread with the others idle, operations per second.
    pub one: Rate,
}

/// Measures a unit.
///
/// # Errors
/// If this machine does not have the unit.
pub(super) fn measure(unit: Unit, threads: usize) -> Result<UnitPeak, DeviceError> {
    Ok(UnitPeak { unit, all: rate(unit, threads, ROUNDS)?, one: rate(unit, 1, ROUNDS)? })
}

/// Measures all threads quickly. Returns operations per second.
pub(super) fn sample(unit: Unit, threads: usize) -> Result<f64, DeviceError> {
    Ok(rate(unit, threads, SAMPLE_ROUNDS)?.median)
}

fn rate(unit: Unit, threads: usize, rounds: usize) -> Result<Rate, DeviceError> {
    let work = unit.work().ok_or_else(|| DeviceError::Unsupported {
        device: crate::NAME,
        problem: format!("this machine has no {} unit whose peak could be measured", unit.name()),
    })?;
    let round = |_| {
        let start = Instant::now();
        let mut operations = 0;
        while start.elapsed() < ROUND_TIME {
            operations += work();
        }
        operations
    };
    rates(threads, rounds, &|_| (), &round).map(Rate::of)
}

/// Numbers that stay in the first-level cache, aligned to a cache line.
#[repr(align(64))]
struct Operand<T, const N: usize>([T; N]);

/// Numbers from -9 to 9, so that sums neither grow without bound nor stay at zero.
const fn int8<const N: usize>() -> Operand<i8, N> {
    let mut numbers = [0; N];
    let mut i = 0;
    while i < N {
        numbers[i] = (i * 37 % 19) as i8 - 9;
        i += 1;
    }
    Operand(numbers)
}

/// The numbers of [`int8`] in fp32, scaled to below two.
const fn fp32<const N: usize>() -> Operand<f32, N> {
    let integers = int8::<N>();
    let mut numbers = [0.0; N];
    let mut i = 0;
    while i < N {
        numbers[i] = integers.0[i] as f32 / 7.0;
        i += 1;
    }
    Operand(numbers)
}

/// The numbers of [`fp32`] in bfloat16, as bits.
#[cfg(target_arch = "x86_64")]
const fn bf16<const N: usize>() -> Operand<u16, N> {
    let numbers = fp32::<N>();
    let mut bits = [0; N];
    let mut i = 0;
    while i < N {
        bits[i] = half::bf16::from_f32_const(numbers.0[i]).to_bits();
        i += 1;
    }
    Operand(bits)
}

/// The numbers of [`fp32`] in binary16, as bits.
#[cfg(target_arch = "x86_64")]
const fn fp16<const N: usize>() -> Operand<u16, N> {
    let numbers = fp32::<N>();
    let mut bits = [0; N];
    let mut i = 0;
    while i < N {
        bits[i] = half::f16::from_f32_const(numbers.0[i]).to_bits();
        i += 1;
    }
    Operand(bits)
}

/// Four rows and eight columns in plain Rust, for the compiler to vectorise.
fn portable() -> u64 {
    const ROWS: usize = 4;
    const COLUMNS: usize = 8;
    static A: Operand<f32, { ROWS * K }> = fp32();
    static B: Operand<f32, { COLUMNS * K }> = fp32();
    let (a, b) = (black_box(&A.0), black_box(&B.0));
    let mut c = [[0.0f32; COLUMNS]; ROWS];
    for _ in 0..PASSES {
        for (x, y) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<COLUMNS>().0) {
            for (c, x) in c.iter_mut().zip(x) {
                c.iter_mut().zip(y).for_each(|(c, y)| *c += x * y);
            }
        }
    }
    black_box(c);
    (2 * ROWS * COLUMNS * K * PASSES) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_this_machine_does_its_passes() {
        let found: Vec<Unit> = Unit::ALL.into_iter().filter(|unit| unit.available()).collect();
        assert!(found.iter().any(|unit| unit.operands() == Operands::Fp32), "{found:?}");
        for unit in found {
            let operations = unit.work().unwrap()();
            assert!(operations > 0 && operations.is_multiple_of((2 * K * PASSES) as u64), "{}", unit.name());
        }
    }

    /// The portable loop runs on every machine.
    #[test]
    fn a_unit_that_is_not_there_has_no_loop() {
        for unit in Unit::ALL.into_iter().filter(|unit| *unit != Unit::Fp32Portable) {
            assert_eq!(unit.work().is_some(), unit.available(), "{}", unit.name());
        }
    }

    #[test]
    fn units_have_words_of_their_own() {
        for (i, unit) in Unit::ALL.iter().enumerate() {
            assert!(Unit::ALL[..i].iter().all(|other| other.name() != unit.name()));
            assert_eq!(Unit::named(unit.name()), unit.available().then_some(*unit));
        }
    }
}
