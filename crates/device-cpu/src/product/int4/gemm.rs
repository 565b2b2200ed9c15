//! Products of int8 rows with panels of int4: which instruction set multiplies, and the portable product.

use std::ops::{Deref, Range};

use crate::buffer::{Strided, length};
use crate::pack::PANEL;
use crate::pack::grouped::{Groups, LINE};
use crate::product::int8::Int8Gemm;

#[cfg(target_arch = "aarch64")]
use super::aarch64;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// What is added to an int4 so that it is stored without a sign.
pub(super) const OFFSET: i32 = 8;

/// A product of all rows of `a` and `c` with all panels of `c`, over some groups. It is `c = c + group sum * scale` by a
/// fused multiply-add, without `c` for the first group.
#[derive(Debug)]
pub(super) struct Product<'a> {
    /// Rows of activations. Every line of a group must lie inside.
    pub(super) a: &'a [i8],
    /// Distance between rows of `a`, in numbers.
    pub(super) a_stride: usize,
    /// Sums `[rows][groups]` of the activations of each group, over whole lines.
    pub(super) sums: &'a [i32],
    /// The panels.
    pub(super) w: &'a [u8],
    /// Their layout.
    pub(super) layout: Groups,
    /// The groups to multiply.
    pub(super) groups: Range<usize>,
    /// The results, whole panels wide.
    pub(super) c: Strided<'a, f32>,
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

    /// Returns a pointer to the results of a row and panel.
    #[inline(always)]
    pub(super) fn to(&self, row: usize, panel: usize) -> *mut [f32; PANEL] {
        self.c.pointer(row, panel * PANEL).cast()
    }

    /// Computes the product with an instruction set.
    ///
    /// # Panics
    /// If the operands do not hold the product.
    pub(super) fn run(&self, gemm: Int8Gemm) {
        if self.rows() == 0 || self.panels() == 0 {
            return;
        }
        let product = self.checked();
        match gemm {
            Int8Gemm::Portable => portable(product),
            #[cfg(target_arch = "x86_64")]
            Int8Gemm::Avx2(isa) => x86::avx2(isa, product),
            #[cfg(target_arch = "x86_64")]
            Int8Gemm::AvxVnni(isa) => x86::avx_vnni(isa, product),
            #[cfg(target_arch = "x86_64")]
            Int8Gemm::Avx512Vnni(isa) => x86::avx512_vnni(isa, product),
            #[cfg(target_arch = "aarch64")]
            Int8Gemm::NeonDotProd(isa) => aarch64::dotprod(isa, product),
            #[cfg(target_arch = "aarch64")]
            Int8Gemm::NeonI8mm(isa) => aarch64::i8mm(isa, product),
        }
    }

    fn checked(&self) -> Checked<'_> {
        let a = length(self.rows(), self.layout.k().saturating_add(LINE), self.a_stride);
        let w = self.panels().checked_mul(self.layout.panel_bytes());
        let sums = self.rows().checked_mul(self.layout.count());
        let fits = a.is_some_and(|numbers| numbers <= self.a.len())
            && w.is_some_and(|bytes| bytes <= self.w.len())
            && sums.is_some_and(|sums| sums <= self.sums.len())
            && self.groups.end <= self.layout.count();
        assert!(fits, "invariant: operands hold the product");
        Checked(self)
    }
}

/// A product whose operands hold it: only [`Product::run`] makes one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked<'a>(&'a Product<'a>);

impl<'a> Deref for Checked<'a> {
    type Target = Product<'a>;

    fn deref(&self) -> &Product<'a> {
        self.0
    }
}

fn portable(t: Checked<'_>) {
    for row in 0..t.rows() {
        for panel in 0..t.panels() {
            for group in t.groups.clone() {
                let inputs = t.layout.inputs(group);
                let a = &t.a[row * t.a_stride + inputs.start..];
                let (lines, scales) = t.w[panel * t.layout.panel_bytes() + t.layout.at(group)..]
                    .split_at(t.layout.integer_bytes(inputs.len()));
                let mut sums = [0i32; PANEL];
                let lines = lines.as_chunks::<4>().0.as_chunks::<PANEL>().0;
                for (line, x) in lines.iter().zip(a.as_chunks::<LINE>().0) {
                    for (sum, bytes) in sums.iter_mut().zip(line) {
                        for (j, byte) in bytes.iter().enumerate() {
                            let [low, high] = [byte & 15, byte >> 4].map(|q| i32::from(q) - OFFSET);
                            *sum += i32::from(x[j]) * low + i32::from(x[j + 4]) * high;
                        }
                    }
                }
                // SAFETY: inside the results, which only this product accesses.
                let to = unsafe { &mut *t.to(row, panel) };
                for ((to, sum), scale) in to.iter_mut().zip(sums).zip(scales.as_chunks::<4>().0) {
                    let total = if group == 0 { 0.0 } else { *to };
                    *to = (sum as f32).mul_add(f32::from_le_bytes(*scale), total);
                }
            }
        }
    }
}
