//! Products of integers with vectors: the instruction sets that multiply, and the portable product.

use std::ops::Deref;

use crate::buffer::{Strided, length};
use crate::pack::{PANEL, QUAD};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512Vnni};

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
    /// Number of products per sum, a multiple of [`TILE_K`](crate::pack::TILE_K).
    pub(super) k: usize,
    /// The sums, whole panels wide.
    pub(super) c: Strided<'a, i32>,
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

    /// Checks that the operands hold the product.
    ///
    /// # Panics
    /// If they do not.
    pub(super) fn checked(&self) -> Checked<'_> {
        let a = length(self.rows(), self.k, self.a_stride);
        let panel = self.k.checked_mul(PANEL);
        let w = panel.and_then(|panel| length(self.panels(), panel, self.panel_stride));
        let fits = self.k.is_multiple_of(QUAD)
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
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
}

impl Int8Gemm {
    /// Returns the name for the record.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => "avx512-vnni",
        }
    }

    /// Returns the number that [`Self::run`] adds to every weight: sums are too large by it times the sum of the row.
    pub(super) fn offset(self) -> i32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => x86::VNNI_OFFSET,
            _ => 0,
        }
    }

    /// Computes the product with [`Self::offset`] added to every weight.
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
            Self::Avx512Vnni(isa) => x86::avx512_vnni(isa, product),
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
