//! Products of integers with vectors: the instruction sets that multiply, and the portable product.

use std::ops::Deref;

#[cfg(target_arch = "x86_64")]
use crate::buffer::{LINE_BYTES, prefetch_to_l2};
use crate::buffer::{Strided, length};
use crate::pack::{PANEL, QUAD, TILE_K};
#[cfg(target_arch = "x86_64")]
use crate::pool::part;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512Vnni, AvxVnni};
#[cfg(target_arch = "aarch64")]
use crate::simd::{NeonDotProd, NeonI8mm};

#[cfg(target_arch = "aarch64")]
use super::aarch64;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// A product `c[m, 16 p..] += a[m, k] * panel_p[k, 16]`, for all rows of `a` and `c` and all panels of `c`. Sums wrap.
#[derive(Debug)]
pub(super) struct Product<'a> {
    /// Rows of activations.
    pub(super) a: &'a [i8],
    /// Distance between rows of `a`, in numbers.
    pub(super) a_stride: usize,
    /// The panels.
    pub(super) w: &'a [i8],
    /// Distance between panels, in numbers.
    pub(super) panel_stride: usize,
    /// Number of products per sum, a multiple of [`TILE_K`].
    pub(super) k: usize,
    /// The sums, whole panels wide.
    pub(super) c: Strided<'a, i32>,
    /// The panels that are read after these, from the first number that is needed; empty if there are none.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "other processors fetch by themselves")
    )]
    pub(super) next: &'a [i8],
}

impl Product<'_> {
    /// Returns the number of rows.
    #[inline(always)]
    pub(super) fn rows(&self) -> usize {
        self.c.rows()
    }

    /// Returns the number of panels.
    #[inline(always)]
    pub(super) fn panels(&self) -> usize {
        self.c.columns() / PANEL
    }

    /// Prefetches share `i` of `of` of the `panels` panels that are multiplied when those before `panel` are done.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn fetch_share(&self, (panel, panels): (usize, usize), i: usize, of: usize) {
        let from = if panel < self.panels() { &self.w[panel * self.panel_stride..] } else { self.next };
        if from.is_empty() {
            return;
        }
        let lines = part((self.k * PANEL).div_ceil(LINE_BYTES), i, of);
        for panel in 0..panels {
            let panel = from.as_ptr().wrapping_add(panel * self.panel_stride);
            for line in lines.clone() {
                prefetch_to_l2(panel.wrapping_add(line * LINE_BYTES).cast());
            }
        }
    }

    /// Checks that the operands hold the product.
    ///
    /// # Panics
    /// If they do not.
    pub(super) fn checked(&self) -> Checked<'_> {
        let a = length(self.rows(), self.k, self.a_stride);
        let panel = self.k.checked_mul(PANEL);
        let w = panel.and_then(|panel| length(self.panels(), panel, self.panel_stride));
        let fits = self.k.is_multiple_of(TILE_K)
            && a.is_some_and(|numbers| numbers <= self.a.len())
            && w.is_some_and(|numbers| numbers <= self.w.len());
        assert!(fits, "invariant: operands hold the product");
        Checked(self)
    }
}

/// A product whose operands hold it: only [`Product::checked`] makes one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked<'a>(&'a Product<'a>);

impl<'a> Deref for Checked<'a> {
    type Target = Product<'a>;

    fn deref(&self) -> &Product<'a> {
        self.0
    }
}

/// The instruction set that multiplies integers with vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Int8Gemm {
    /// Plain Rust.
    Portable,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX2 with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// NEON with `sdot`.
    #[cfg(target_arch = "aarch64")]
    NeonDotProd(NeonDotProd),
    /// NEON with `smmla`.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm(NeonI8mm),
}

impl Int8Gemm {
    /// Returns the name for the record.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDotProd(_) => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm(_) => "neon-i8mm",
        }
    }

    /// Returns the number with which weights are stored, modulo 256. Sums are too large by it times the sum of the row.
    pub(super) fn offset(self) -> i32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) | Self::Avx512Vnni(_) => x86::VNNI_OFFSET,
            _ => 0,
        }
    }

    /// Returns the number of rows below which blocks of half the depth are faster. Two panels side by side come from L2 less
    /// often then, and the sums of few rows are a small part of the work.
    pub(super) fn shallow_below(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => 256,
            _ => 0,
        }
    }

    /// Computes the product with weights to which [`Self::offset`] was added.
    pub(super) fn run(self, product: &Product<'_>) {
        if product.rows() == 0 || product.panels() == 0 {
            return;
        }
        let product = product.checked();
        match self {
            Self::Portable => portable(product),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => x86::avx2(isa, product),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(isa) => x86::avx_vnni(isa, product),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(isa) => x86::avx512_vnni(isa, product),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDotProd(isa) => aarch64::dotprod(isa, product),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm(isa) => aarch64::i8mm(isa, product),
        }
    }
}

fn portable(t: Checked<'_>) {
    for row in 0..t.rows() {
        let (a, _) = t.a[row * t.a_stride..][..t.k].as_chunks::<QUAD>();
        for panel in 0..t.panels() {
            let (w, _) = t.w[panel * t.panel_stride..][..t.k * PANEL].as_chunks::<QUAD>();
            let c = t.c.pointer(row, panel * PANEL).cast::<[i32; PANEL]>();
            // SAFETY: inside the sums, which only this product accesses.
            let sums = unsafe { &mut *c };
            for (x, w) in a.iter().zip(w.as_chunks::<PANEL>().0) {
                for (sum, w) in sums.iter_mut().zip(w) {
                    let products = x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w));
                    *sum = sum.wrapping_add(products.sum());
                }
            }
        }
    }
}
