//! The integer kernels and their portable twins.
//!
//! Panels of sixteen output columns lie as `[k/4][16][4]`, `k` padded with zeros to a multiple of 64: four numbers of a column
//! are one 32-bit lane of `vpdpbusd`, and 64 of `k` are one AMX tile of sixteen rows of 64 bytes.

use crate::device::cpu::kernels::{InstructionSet, PANEL};

/// Numbers of `k` that share a lane.
pub const QUAD: usize = 4;
/// `k` is padded to a multiple of so many numbers: the depth of an AMX tile.
pub const TILE_K: usize = 64;
/// The largest quantised number.
const LARGEST: f32 = 127.0;

/// One product `c[m, 16 p..] += a[m, k] * panel_p[k, 16]` for `rows` rows and `panels` panels; sums wrap.
#[derive(Debug, Clone, Copy)]
pub struct Int8Product {
    /// First number of `a`.
    pub a: *const i8,
    /// Numbers between rows of `a`.
    pub a_stride: usize,
    /// Rows of `a` and `c`.
    pub rows: usize,
    /// First number of the first panel.
    pub w: *const i8,
    /// Numbers between panels.
    pub panel_stride: usize,
    /// Panels.
    pub panels: usize,
    /// Products a sum, a multiple of [`TILE_K`].
    pub k: usize,
    /// First sum.
    pub c: *mut i32,
    /// Numbers between rows of `c`.
    pub c_stride: usize,
}

/// Numbers as integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaled {
    /// What an integer is to be multiplied by.
    pub scale: f32,
    /// The sum of the integers.
    pub sum: i32,
}

/// Kernels of one instruction set.
///
/// All functions are `unsafe`: the instruction set must be present, and pointers valid for the shapes given.
#[derive(Debug, Clone, Copy)]
pub struct Int8Kernels {
    /// Name of the instruction set, for the record.
    pub name: &'static str,
    /// [`Int8Product`] with `offset` added to every weight.
    pub gemm: unsafe fn(&Int8Product),
    /// What `gemm` adds to every weight: its sums are too large by the offset times the sum of the row's integers.
    pub offset: i32,
    /// Quantises the first numbers of a run, zeros behind them.
    pub quantise: unsafe fn(&[f32], &mut [i8]) -> Scaled,
    /// Sums in place to numbers: `((sum - offset * x.sum) * x.scale) * w[i]`, each step rounded to fp32.
    pub scale: unsafe fn(&mut [f32], i32, Scaled, &[f32]),
    /// A panel `[rows][16]` of integers to numbers, `(q, scales, out)` with a scale for each of the sixteen columns.
    pub widen_columns: unsafe fn(&[i8], &[f32], &mut [f32]),
    /// The same with a scale for each row.
    pub widen_rows: unsafe fn(&[i8], &[f32], &mut [f32]),
}

impl Int8Kernels {
    /// The kernels that go with an instruction set, which is present: AVX-512 without VNNI has none better than AVX2's.
    pub fn of(set: InstructionSet) -> Self {
        match set {
            InstructionSet::AmxPortable => Self::of(InstructionSet::best_vector()),
            InstructionSet::Portable | InstructionSet::Neon => portable::KERNELS,
            InstructionSet::Amx => Self::with_tiles(Self::of(InstructionSet::Avx512)),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 if is_x86_feature_detected!("avx512vnni") => vnni::KERNELS,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 | InstructionSet::Avx512 => avx2::KERNELS,
            #[cfg(not(target_arch = "x86_64"))]
            InstructionSet::Avx2 | InstructionSet::Avx512 => portable::KERNELS,
        }
    }

    /// These kernels, with products on AMX tiles where they multiply integers.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn with_tiles(vector: Self) -> Self {
        if super::amx::available() {
            Self { name: "amx-int8", gemm: super::amx::gemm, offset: 0, ..vector }
        } else {
            vector
        }
    }

    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    fn with_tiles(vector: Self) -> Self {
        vector
    }
}

/// The portable twin.
#[inline(always)]
unsafe fn gemm(t: &Int8Product) {
    for row in 0..t.rows {
        for panel in 0..t.panels {
            // SAFETY: inside the product by the caller's promise.
            unsafe {
                let c = t.c.add(row * t.c_stride + panel * PANEL).cast::<[i32; PANEL]>();
                let mut sums = c.read_unaligned();
                for quad in 0..t.k / QUAD {
                    let x = t.a.add(row * t.a_stride + quad * QUAD).cast::<[i8; QUAD]>().read_unaligned();
                    let w = t.w.add(panel * t.panel_stride + quad * QUAD * PANEL);
                    let w = w.cast::<[[i8; QUAD]; PANEL]>().read_unaligned();
                    for (sum, w) in sums.iter_mut().zip(w) {
                        let products = x.iter().zip(w).map(|(&x, w)| i32::from(x) * i32::from(w));
                        *sum = sum.wrapping_add(products.sum());
                    }
                }
                c.write_unaligned(sums);
            }
        }
    }
}

#[inline(always)]
fn quantise(x: &[f32], out: &mut [i8]) -> Scaled {
    // Magnitudes are in the order of their bits, and NaN is above infinity.
    let magnitude = |x: &f32| x.to_bits() & (u32::MAX >> 1);
    let max = f32::from_bits(x.iter().map(magnitude).fold(0, u32::max));
    let scale = if max.is_finite() { max / LARGEST } else { f32::NAN };
    let (out, padding) = out.split_at_mut(x.len());
    padding.fill(0);
    // Numbers too small for their scale to be told from zero are zeros, too.
    if scale.is_nan() || scale == 0.0 {
        out.fill(0);
        return Scaled { scale, sum: 0 };
    }
    for (q, x) in out.iter_mut().zip(x) {
        let whole = (x / scale).round_ties_even().clamp(-LARGEST, LARGEST);
        // SAFETY: a whole number of ±127; x is finite and the scale is no zero.
        *q = unsafe { whole.to_int_unchecked::<i32>() } as i8;
    }
    Scaled { scale, sum: out.iter().map(|&q| i32::from(q)).sum() }
}

#[inline(always)]
fn scale(c: &mut [f32], offset: i32, x: Scaled, w: &[f32]) {
    let excess = offset.wrapping_mul(x.sum);
    for (c, w) in c.iter_mut().zip(w) {
        let sum = (c.to_bits() as i32).wrapping_sub(excess);
        *c = sum as f32 * x.scale * w;
    }
}

#[inline(always)]
fn widen_columns(q: &[i8], scales: &[f32], out: &mut [f32]) {
    let (scales, _) = scales.as_chunks::<PANEL>();
    let Some(scales) = scales.first() else { return };
    for (q, out) in q.as_chunks::<PANEL>().0.iter().zip(out.as_chunks_mut::<PANEL>().0) {
        *out = std::array::from_fn(|i| f32::from(q[i]) * scales[i]);
    }
}

#[inline(always)]
fn widen_rows(q: &[i8], scales: &[f32], out: &mut [f32]) {
    let rows = q.as_chunks::<PANEL>().0.iter().zip(out.as_chunks_mut::<PANEL>().0);
    for ((q, out), scale) in rows.zip(scales) {
        *out = std::array::from_fn(|i| f32::from(q[i]) * scale);
    }
}

/// Compiles the kernels for one instruction set.
macro_rules! instruction_set {
    ($module:ident, $name:literal, $gemm:path, $offset:expr $(, $features:literal)?) => {
        mod $module {
            use super::{Int8Kernels, Int8Product, Scaled};

            $(#[target_feature(enable = $features)])?
            unsafe fn gemm(t: &Int8Product) {
                // SAFETY: the caller's promise.
                unsafe { $gemm(t) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn quantise(x: &[f32], out: &mut [i8]) -> Scaled {
                super::quantise(x, out)
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn scale(c: &mut [f32], offset: i32, x: Scaled, w: &[f32]) {
                super::scale(c, offset, x, w);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn widen_columns(q: &[i8], scales: &[f32], out: &mut [f32]) {
                super::widen_columns(q, scales, out);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn widen_rows(q: &[i8], scales: &[f32], out: &mut [f32]) {
                super::widen_rows(q, scales, out);
            }

            pub(super) const KERNELS: Int8Kernels = Int8Kernels {
                name: $name,
                gemm,
                offset: $offset,
                quantise,
                scale,
                widen_columns,
                widen_rows,
            };
        }
    };
}

instruction_set!(portable, "portable", super::gemm, 0);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, "avx2", crate::device::cpu::int8::x86::gemm_avx2, 0, "avx2");
#[cfg(target_arch = "x86_64")]
instruction_set!(
    vnni,
    "avx512-vnni",
    crate::device::cpu::int8::x86::gemm_vnni,
    crate::device::cpu::int8::x86::VNNI_OFFSET,
    "avx512f,avx512bw,avx512vl,avx512vnni,avx2"
);
