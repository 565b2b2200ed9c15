//! The GEMM of the vector kernels, with sums in registers.
//!
//! An output is a chain of fused multiply-adds over ascending `k`, whatever the tile. The bits are therefore the same
//! for every vector instruction set, batch, chunk and number of threads.

use std::ops::Range;

use crate::buffer::{LINE_BYTES, Strided, length, prefetch_line, prefetch_to_l2};
use crate::pack::PANEL;
use crate::simd::{Element, F32, Isa, Kernel, Simd16};

/// One product `c[m, 16 p..] += a[m, k] * panel_p[k, 16]`, for all rows of `a` and `c` and all panels of `c`.
#[derive(Debug)]
pub(crate) struct Gemm<'a> {
    /// Rows of inputs.
    pub(crate) a: &'a [f32],
    /// Distance between rows of `a`, in numbers.
    pub(crate) a_stride: usize,
    /// The panels: fp32, fp16 or bf16, depending on the kernel's type.
    pub(crate) w: &'a [u8],
    /// Distance between panels, in numbers.
    pub(crate) panel_stride: usize,
    /// Number of products per sum.
    pub(crate) k: usize,
    /// The sums, whole panels wide.
    pub(crate) c: Strided<'a, f32>,
    /// What is prefetched while panels are read, if anything.
    pub(crate) prefetch: Option<Prefetch<'a>>,
    /// Whether tiles prefetch the rows of the next one, because the rows do not fit the first-level cache. A tile that prefetches
    /// panels does not.
    pub(crate) next_rows: bool,
    /// Room for panels in fp32: a row for each panel, either of all panels or of those that a tile reads side by side. The
    /// first tile of rows writes them there, and the others read them, which saves widening. `None` if every tile widens.
    pub(crate) wide: Option<Strided<'a, f32>>,
}

/// What a product prefetches while it reads its panels.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Prefetch<'a> {
    /// The panels themselves, which come from memory, further on.
    Same,
    /// As many panels of a later product, while the first rows are multiplied.
    Next {
        /// The panels.
        panels: &'a [u8],
        /// Distance between them, in numbers.
        stride: usize,
        /// Bytes per number.
        bytes: usize,
    },
}

/// Prefetch distance in a panel: enough to cover the memory latency, and small enough that the panels read side by side
/// fit the first-level cache.
const AHEAD_BYTES: usize = 2048;

/// Steps of the depth per round of the loop, for processors that multiply one panel at a time. Such a step has at most twelve
/// products, and the instructions of the loop would be a third of all.
const UNROLLED: usize = 4;

/// Most sums of a tile whose rounds have several steps. With more of them, the compiler loads the operands of all steps first,
/// and sums no longer fit the registers.
const UNROLLED_SUMS: usize = 18;

/// A tile prefetches nothing.
const NOTHING: u8 = 0;
/// A tile prefetches what [`Prefetch`] says.
const PANELS: u8 = 1;
/// A tile prefetches the rows of the next one.
const ROWS: u8 = 2;

impl Kernel for Gemm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        if self.prefetch.is_some() {
            self.multiply::<I, E, PANELS>(isa);
        } else {
            self.multiply::<I, E, NOTHING>(isa);
        }
    }
}

impl Gemm<'_> {
    fn panels(&self) -> usize {
        self.c.columns() / PANEL
    }

    /// Panics if the operands do not hold the product.
    #[inline(always)]
    fn check<I: Isa, E: Element>(&self) {
        let (rows, panels) = (self.c.rows(), self.panels());
        let a = length(rows.max(1), self.k, self.a_stride);
        let panel = self.k.checked_mul(PANEL);
        let w =
            panel.and_then(|panel| length(panels.max(1), panel, self.panel_stride)?.checked_mul(E::BYTES));
        let wide = self.wide.as_ref().is_none_or(|wide| {
            wide.rows() >= panels.min(I::TILE_PANELS) && panel.is_some_and(|panel| panel <= wide.columns())
        });
        let fits = wide
            && a.is_some_and(|numbers| numbers <= self.a.len())
            && w.is_some_and(|bytes| bytes <= self.w.len());
        assert!(fits, "invariant: operands hold the product");
    }

    #[inline(always)]
    fn multiply<I: Isa, E: Element, const FETCH: u8>(&self, isa: I) {
        if self.c.rows() == 0 || self.panels() == 0 {
            return;
        }
        self.check::<I, E>();
        match (self.c.rows(), I::TILE_PANELS) {
            // Few rows: several panels at once, so that enough sums and enough memory requests are in flight.
            (1, _) => self.strip::<I, E, 1, 4, FETCH>(isa),
            (2, 1) => self.strip::<I, E, 2, 2, FETCH>(isa),
            (3, 1) => self.strip::<I, E, 3, 2, FETCH>(isa),
            (2, _) => self.strip::<I, E, 2, 4, FETCH>(isa),
            (3, _) => self.strip::<I, E, 3, 4, FETCH>(isa),
            // Loops instead of closures, which would be compiled without the instruction set.
            (_, 1) => {
                for panel in 0..self.panels() {
                    self.rows_of_panels::<I, E, 1, FETCH>(isa, panel);
                }
            }
            _ => {
                let whole = self.panels() / 3 * 3;
                for panel in (0..whole).step_by(3) {
                    self.rows_of_panels::<I, E, 3, FETCH>(isa, panel);
                }
                match self.panels() - whole {
                    0 => {}
                    1 => self.rows_of_panels::<I, E, 1, FETCH>(isa, whole),
                    _ => self.rows_of_panels::<I, E, 2, FETCH>(isa, whole),
                }
            }
        }
    }

    /// Multiplies `M` rows by all panels, `P` at a time and the remaining ones singly.
    #[inline(always)]
    fn strip<I: Isa, E: Element, const M: usize, const P: usize, const FETCH: u8>(&self, isa: I) {
        let whole = self.panels() / P * P;
        for panel in (0..whole).step_by(P) {
            // SAFETY: inside the checked product.
            unsafe { self.tile::<I, E, M, P, FETCH, false>(isa, 0, panel, self.stored::<E>(panel)) };
        }
        for panel in whole..self.panels() {
            // SAFETY: inside the checked product.
            unsafe { self.tile::<I, E, M, 1, FETCH, false>(isa, 0, panel, self.stored::<E>(panel)) };
        }
    }

    /// Returns where stored panels begin, and the distance between them in bytes.
    #[inline(always)]
    fn stored<E: Element>(&self, panel: usize) -> (*const u8, usize) {
        let stride = self.panel_stride * E::BYTES;
        (self.w.as_ptr().wrapping_add(panel * stride), stride)
    }

    /// Multiplies all rows by `P` panels, in tiles of nearly equal height.
    #[inline(always)]
    fn rows_of_panels<I: Isa, E: Element, const P: usize, const FETCH: u8>(&self, isa: I, panel: usize) {
        let tiles = self.c.rows().div_ceil(I::TILE_ROWS);
        let stored = self.stored::<E>(panel);
        if let Some(wide) = self.wide.as_ref().filter(|_| tiles > 1) {
            let place = wide.pointer(self.wide_row(panel), 0);
            let wide = (place.cast_const().cast(), wide.stride() * size_of::<f32>());
            self.tiles_of_panels::<I, E, P, FETCH, true>(isa, (panel, stored), 0..1, tiles);
            self.tiles_of_panels::<I, F32, P, NOTHING, false>(isa, (panel, wide), 1..tiles, tiles);
            return;
        }
        // The panels of a later product are fetched once.
        let fetching = if matches!(self.prefetch, Some(Prefetch::Same)) { tiles } else { 1 };
        self.tiles_of_panels::<I, E, P, FETCH, false>(isa, (panel, stored), 0..fetching, tiles);
        if self.next_rows {
            self.tiles_of_panels::<I, E, P, ROWS, false>(isa, (panel, stored), fetching..tiles, tiles);
        } else {
            self.tiles_of_panels::<I, E, P, NOTHING, false>(isa, (panel, stored), fetching..tiles, tiles);
        }
    }

    /// Returns the row of [`Self::wide`] for a panel that is the first of a tile.
    #[inline(always)]
    fn wide_row(&self, panel: usize) -> usize {
        let of_all = self.wide.as_ref().is_some_and(|wide| wide.rows() >= self.panels());
        if of_all { panel } else { 0 }
    }

    /// Multiplies some of the tiles of rows, of `of` altogether, by `P` panels. With `WIDEN`, there is a [`Self::wide`].
    #[inline(always)]
    fn tiles_of_panels<I: Isa, E: Element, const P: usize, const FETCH: u8, const WIDEN: bool>(
        &self,
        isa: I,
        (panel, w): (usize, (*const u8, usize)),
        tiles: Range<usize>,
        of: usize,
    ) {
        let rows = self.c.rows();
        assert!(!WIDEN || self.wide.is_some(), "invariant: panels are widened to a place");
        for i in tiles {
            let (row, end) = (rows * i / of, rows * (i + 1) / of);
            // SAFETY: inside the checked product; no tile is higher than `TILE_ROWS`.
            unsafe {
                match end - row {
                    1 => self.tile::<I, E, 1, P, FETCH, WIDEN>(isa, row, panel, w),
                    2 => self.tile::<I, E, 2, P, FETCH, WIDEN>(isa, row, panel, w),
                    3 => self.tile::<I, E, 3, P, FETCH, WIDEN>(isa, row, panel, w),
                    4 => self.tile::<I, E, 4, P, FETCH, WIDEN>(isa, row, panel, w),
                    5 if I::TILE_ROWS >= 5 => self.tile::<I, E, 5, P, FETCH, WIDEN>(isa, row, panel, w),
                    6 if I::TILE_ROWS >= 6 => self.tile::<I, E, 6, P, FETCH, WIDEN>(isa, row, panel, w),
                    7 if I::TILE_ROWS >= 7 => self.tile::<I, E, 7, P, FETCH, WIDEN>(isa, row, panel, w),
                    8 if I::TILE_ROWS >= 8 => self.tile::<I, E, 8, P, FETCH, WIDEN>(isa, row, panel, w),
                    _ => {}
                }
            }
        }
    }

    /// Multiplies `M` rows by `P` panels, which begin at `w` and are a number of bytes apart. All sums stay in registers over
    /// the whole of `k`. It prefetches what `FETCH` says. With `WIDEN`, it writes the panels to
    /// [`Self::wide`].
    ///
    /// # Safety
    /// Rows `row..row + M` and panels `panel..panel + P` must lie inside the product, which was [checked](Self::check).
    #[inline(always)]
    unsafe fn tile<I: Isa, E: Element, const M: usize, const P: usize, const FETCH: u8, const WIDEN: bool>(
        &self,
        isa: I,
        row: usize,
        panel: usize,
        (w, w_stride): (*const u8, usize),
    ) {
        // SAFETY: the tile lies inside the operands; a prefetch may name any address.
        unsafe {
            let a = self.a.as_ptr().add(row * self.a_stride);
            let mut sums = [[isa.splat(0.0); P]; M];
            for m in 0..M {
                for p in 0..P {
                    sums[m][p] = isa.load(&*self.sums(row + m, panel + p));
                }
            }
            let (ahead, stride, bytes) = match self.prefetch {
                Some(Prefetch::Next { panels, stride, bytes }) => {
                    (panels.as_ptr().wrapping_add(panel * stride * bytes), stride * bytes, bytes)
                }
                _ => (w.wrapping_add(AHEAD_BYTES), w_stride, E::BYTES),
            };
            // The first-level cache is full of this product.
            let is_later = matches!(self.prefetch, Some(Prefetch::Next { .. }));
            // Steps per cache line of a panel, and steps per round of the loop.
            let line = const { LINE_BYTES / (PANEL * E::BYTES) };
            let round = match I::TILE_PANELS {
                1 => UNROLLED,
                _ if M * P <= UNROLLED_SUMS => line,
                _ => 1,
            };
            let wide = match &self.wide {
                Some(wide) if WIDEN => (wide.pointer(self.wide_row(panel), 0), wide.stride()),
                _ => (std::ptr::null_mut(), 0),
            };
            let mut k = 0;
            while k + round <= self.k {
                for i in 0..round {
                    if FETCH == ROWS && (k + i) % PANEL == 0 {
                        for m in M..2 * M {
                            prefetch_line(a.wrapping_add(m * self.a_stride + k + i).cast());
                        }
                    }
                    if FETCH == PANELS && (k + i) % line == 0 {
                        for p in 0..P {
                            let line = ahead.wrapping_add(p * stride + (k + i) * PANEL * bytes);
                            if is_later { prefetch_to_l2(line) } else { prefetch_line(line) }
                        }
                    }
                    self.step::<I, E, M, P, WIDEN>(isa, a, (w, w_stride), wide, k + i, &mut sums);
                }
                k += round;
            }
            for k in k..self.k {
                self.step::<I, E, M, P, WIDEN>(isa, a, (w, w_stride), wide, k, &mut sums);
            }
            for m in 0..M {
                for p in 0..P {
                    sums[m][p].store(&mut *self.sums(row + m, panel + p));
                }
            }
        }
    }

    /// Performs step `k` of the depth of a tile. The rows begin at `a`, and the panels begin at `w`. With `WIDEN`, the panels
    /// in fp32 begin at `wide`, a number of numbers apart.
    ///
    /// # Safety
    /// As [`Self::tile`]; `k` must be below the depth, and with `WIDEN`, `wide` must hold `P` panels.
    #[inline(always)]
    unsafe fn step<I: Isa, E: Element, const M: usize, const P: usize, const WIDEN: bool>(
        &self,
        isa: I,
        a: *const f32,
        (w, w_stride): (*const u8, usize),
        (wide, wide_stride): (*mut f32, usize),
        k: usize,
        sums: &mut [[I::Vector; P]; M],
    ) {
        // SAFETY: inside the operands; stored numbers have no alignment.
        unsafe {
            let mut weights = [isa.splat(0.0); P];
            for p in 0..P {
                let stored = w.add(p * w_stride + k * PANEL * E::BYTES).cast::<E::Stored>();
                weights[p] = E::load(isa, &*stored);
                if WIDEN {
                    weights[p].store(&mut *wide.add(p * wide_stride + k * PANEL).cast());
                }
            }
            for m in 0..M {
                let x = isa.splat(*a.add(m * self.a_stride + k));
                for p in 0..P {
                    sums[m][p] = x.mul_add(weights[p], sums[m][p]);
                }
            }
        }
    }

    /// Returns a pointer to the sums of a row and panel.
    #[inline(always)]
    fn sums(&self, row: usize, panel: usize) -> *mut [f32; PANEL] {
        self.c.pointer(row, panel * PANEL).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{InstructionSet, Vectors};
    use glmbench_device::DType;

    fn numbers(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| (i * step % 251) as f32 / 16.0 - 7.5).collect()
    }

    /// Every sum is one chain of fused multiply-adds, whatever the tile that computes it, and nothing else is written.
    #[test]
    fn sums_are_chains_of_fused_multiply_adds_on_every_set() {
        let (k, c_stride) = (37, 9 * PANEL + 5);
        let a_stride = 40;
        let shapes = (1..=17).flat_map(|rows| [1, 2, 3, 8, 9].map(|panels| (rows, panels)));
        // The panels that are kept in fp32: none, those that a tile reads side by side, or all.
        let types = [(DType::Fp32, 0), (DType::Bf16, 0), (DType::Bf16, 3), (DType::Bf16, 9)];
        let cases = shapes.flat_map(|shape| types.map(|of| (of, shape)));
        for ((dtype, kept), (rows, panels)) in cases {
            let (a, w) = (numbers(rows * a_stride, 37), numbers(panels * k * PANEL, 91));
            // These numbers are multiples of 1/16 below 8 in size, which bf16 holds.
            let stored: Vec<u8> = match dtype {
                DType::Bf16 => w.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect(),
                _ => bytemuck::cast_slice(&w).to_vec(),
            };
            let start = numbers(rows * c_stride, 17);
            for set in InstructionSet::ALL {
                let Some(vectors) = Vectors::detect(set, dtype) else { continue };
                for prefetch in
                    [None, Some(Prefetch::Same), Some(Prefetch::Next { panels: &[], stride: 7, bytes: 2 })]
                {
                    let (mut c, mut wide) = (start.clone(), vec![f32::NAN; kept * (k + 1) * PANEL]);
                    vectors.run(Gemm {
                        a: &a,
                        a_stride,
                        w: &stored,
                        panel_stride: k * PANEL,
                        k,
                        c: Strided::new(&mut c, rows, panels * PANEL, c_stride),
                        prefetch,
                        next_rows: prefetch.is_some(),
                        wide: (kept > 0).then(|| Strided::new(&mut wide, kept, k * PANEL, (k + 1) * PANEL)),
                    });
                    // More than eight rows have several tiles.
                    if kept == 9 && rows > 8 {
                        for (wide, w) in wide.chunks((k + 1) * PANEL).zip(w.chunks(k * PANEL)) {
                            assert_eq!(wide[..w.len()], *w, "{set:?} {rows} x {panels}");
                        }
                    }
                    for (i, (sum, start)) in c.iter().zip(&start).enumerate() {
                        let (row, column) = (i / c_stride, i % c_stride);
                        let expected = if column < panels * PANEL {
                            let w = w[column / PANEL * k * PANEL..].chunks(PANEL).map(|w| w[column % PANEL]);
                            a[row * a_stride..][..k]
                                .iter()
                                .zip(w)
                                .fold(*start, |sum, (a, w)| a.mul_add(w, sum))
                        } else {
                            *start
                        };
                        assert_eq!(sum.to_bits(), expected.to_bits(), "{set:?} {rows} x {panels} at {i}");
                    }
                }
            }
        }
    }

    /// Operands that do not hold the product are an error of this crate, and not undefined behaviour.
    #[test]
    fn operands_that_are_too_short_panic() {
        let vectors = Vectors::detect(InstructionSet::best_vector(), DType::Fp16).unwrap();
        let run = |a: usize, w: usize, widened: usize| {
            let (a, w, mut c) = (vec![0.0; a], vec![0; w], vec![0.0; 3 * PANEL]);
            let mut wide = vec![0.0; widened];
            let c = Strided::new(&mut c, 3, PANEL, PANEL);
            vectors.run(Gemm {
                a: &a,
                a_stride: 8,
                w: &w,
                panel_stride: 0,
                k: 8,
                c,
                prefetch: Some(Prefetch::Same),
                next_rows: false,
                wide: Some(Strided::new(&mut wide, 1, widened, widened)),
            });
        };
        let panel = 8 * PANEL;
        run(24, panel * 2, panel);
        for (a, w, widened) in
            [(23, panel * 2, panel), (24, panel * 2 - 1, panel), (24, panel * 2, panel - 1)]
        {
            assert!(std::panic::catch_unwind(|| run(a, w, widened)).is_err(), "{a} {w} {widened}");
        }
    }
}
