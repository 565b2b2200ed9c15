//! The GEMM of integer weights with floating-point inputs, with sums in registers.
//!
//! The sum of a group is a chain of fused multiply-adds over ascending inputs, from zero. Groups are added up, in order,
//! by fused multiply-adds with their scales. The bits are therefore the same for every vector instruction set, batch,
//! chunk and number of threads.

use std::marker::PhantomData;
use std::ops::Range;

use crate::buffer::{LINE_BYTES, Strided, length, prefetch_line};
use crate::pack::PANEL;
use crate::pack::grouped::{Groups, LINE, Packing};
use crate::simd::{Element, Isa, Kernel, LANES, Simd16};

/// Integers that are widened in registers, a line of eight inputs at a time.
pub(crate) trait Integers: Send + Sync + 'static {
    /// How they are stored.
    const PACKING: Packing;
    /// The rest of a line.
    type Cursor<I: Isa>: Copy;

    /// Opens a line.
    ///
    /// # Safety
    /// There must be a line at `line`.
    unsafe fn open<I: Isa>(isa: I, line: *const u8) -> Self::Cursor<I>;

    /// Returns the numbers of the next input.
    ///
    /// # Safety
    /// The line must have one: it has eight.
    unsafe fn next<I: Isa>(isa: I, cursor: &mut Self::Cursor<I>) -> I::Vector;
}

/// int8 weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int8;

impl Integers for Int8 {
    const PACKING: Packing = Packing::Bytes;
    type Cursor<I: Isa> = *const [i8; LANES];

    #[inline(always)]
    unsafe fn open<I: Isa>(_isa: I, line: *const u8) -> *const [i8; LANES] {
        line.cast()
    }

    #[inline(always)]
    unsafe fn next<I: Isa>(isa: I, cursor: &mut *const [i8; LANES]) -> I::Vector {
        // SAFETY: the line has another input by the caller's promise; bytes have no alignment.
        unsafe {
            let numbers = isa.load_i8(&**cursor);
            *cursor = cursor.add(1);
            numbers
        }
    }
}

/// int4 weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int4;

impl Integers for Int4 {
    const PACKING: Packing = Packing::Lanes;
    type Cursor<I: Isa> = I::Nibbles;

    #[inline(always)]
    unsafe fn open<I: Isa>(isa: I, line: *const u8) -> I::Nibbles {
        // SAFETY: a line has sixteen lanes of four bytes.
        unsafe { isa.load_nibbles(&*line.cast()) }
    }

    #[inline(always)]
    unsafe fn next<I: Isa>(isa: I, cursor: &mut I::Nibbles) -> I::Vector {
        let numbers = isa.lowest(*cursor);
        *cursor = isa.without_lowest(*cursor);
        numbers
    }
}

/// A product of all rows of `a` and `c` with all panels of `c`, over some groups. It is
/// `c = c + group sum * scale`, without `c` for the first group.
///
/// A weight with one group may be multiplied in parts. Before its last part, `c` holds the sum without the scale.
#[derive(Debug)]
pub(crate) struct GroupGemm<'a, Q> {
    /// Rows of inputs.
    pub(crate) a: &'a [f32],
    /// Distance between rows of `a`, in numbers.
    pub(crate) a_stride: usize,
    /// The panels.
    pub(crate) w: &'a [u8],
    /// Their layout.
    pub(crate) layout: Groups,
    /// The groups to multiply.
    pub(crate) groups: Range<usize>,
    /// The inputs to multiply, which begin with a line: all inputs of the groups, unless there is only one group.
    pub(crate) inputs: Range<usize>,
    /// The sums, whole panels wide.
    pub(crate) c: Strided<'a, f32>,
    /// Whether panels come from memory and are prefetched.
    pub(crate) streamed: bool,
    /// Room for the panels that a tile reads side by side, in fp32, over the inputs to multiply: a row for each panel. The first tile
    /// of rows writes them there, and the others read them, which saves widening. `None` if every tile widens.
    pub(crate) wide: Option<Strided<'a, f32>>,
    /// The integers.
    pub(crate) of: PhantomData<Q>,
}

/// A tile widens integers.
const INTEGERS: u8 = 0;
/// A tile widens integers, and writes the numbers to [`GroupGemm::wide`].
const WIDENING: u8 = 1;
/// A tile reads [`GroupGemm::wide`].
const WIDENED: u8 = 2;

/// Prefetch distance in a panel.
const AHEAD_BYTES: usize = 2048;

impl<Q: Integers> Kernel for GroupGemm<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        if self.c.rows() == 0 || self.panels() == 0 {
            return;
        }
        self.check(I::TILE_PANELS);
        if self.streamed {
            self.multiply::<I, true>(isa);
        } else {
            self.multiply::<I, false>(isa);
        }
    }
}

impl<Q: Integers> GroupGemm<'_, Q> {
    fn panels(&self) -> usize {
        self.c.columns() / PANEL
    }

    /// Panics if the operands do not hold the product.
    #[inline(always)]
    fn check(&self, most_panels: usize) {
        let a = length(self.c.rows(), self.layout.k(), self.a_stride);
        let w = self.panels().checked_mul(self.layout.panel_bytes());
        let fits = a.is_some_and(|numbers| numbers <= self.a.len())
            && w.is_some_and(|bytes| bytes <= self.w.len())
            && self.groups.end <= self.layout.count()
            && self.inputs.start.is_multiple_of(LINE)
            && self.inputs.end <= self.layout.k()
            && self.wide.as_ref().is_none_or(|wide| {
                let all = self.first_input()..self.last_input();
                wide.rows() >= self.panels().min(most_panels) && wide.columns() >= all.len() * PANEL
            });
        assert!(fits, "invariant: operands hold the product");
    }

    /// Returns the first input to multiply.
    #[inline(always)]
    fn first_input(&self) -> usize {
        self.layout.inputs(self.groups.start).start.max(self.inputs.start)
    }

    /// Returns the input after the last to multiply.
    #[inline(always)]
    fn last_input(&self) -> usize {
        self.layout.inputs(self.groups.end - 1).end.min(self.inputs.end)
    }

    #[inline(always)]
    fn multiply<I: Isa, const AHEAD: bool>(&self, isa: I) {
        match (self.c.rows(), I::TILE_PANELS) {
            // Few rows: several panels at once, so that enough sums and enough memory requests are in flight.
            (1, _) => self.strip::<I, 1, 4, AHEAD>(isa),
            (2, 1) => self.strip::<I, 2, 2, AHEAD>(isa),
            (3, 1) => self.strip::<I, 3, 2, AHEAD>(isa),
            (2, _) => self.strip::<I, 2, 4, AHEAD>(isa),
            (3, _) => self.strip::<I, 3, 4, AHEAD>(isa),
            // Loops instead of closures, which would be compiled without the instruction set.
            (_, 1) => {
                for panel in 0..self.panels() {
                    self.rows_of_panels::<I, 1, AHEAD>(isa, panel);
                }
            }
            _ => {
                let whole = self.panels() / 3 * 3;
                for panel in (0..whole).step_by(3) {
                    self.rows_of_panels::<I, 3, AHEAD>(isa, panel);
                }
                match self.panels() - whole {
                    0 => {}
                    1 => self.rows_of_panels::<I, 1, AHEAD>(isa, whole),
                    _ => self.rows_of_panels::<I, 2, AHEAD>(isa, whole),
                }
            }
        }
    }

    /// Multiplies `M` rows by all panels, `P` at a time and the remaining ones singly.
    #[inline(always)]
    fn strip<I: Isa, const M: usize, const P: usize, const AHEAD: bool>(&self, isa: I) {
        let whole = self.panels() / P * P;
        for panel in (0..whole).step_by(P) {
            // SAFETY: inside the checked product.
            unsafe { self.tile::<I, M, P, AHEAD, INTEGERS>(isa, 0, panel) };
        }
        for panel in whole..self.panels() {
            // SAFETY: inside the checked product.
            unsafe { self.tile::<I, M, 1, AHEAD, INTEGERS>(isa, 0, panel) };
        }
    }

    /// Multiplies all rows by `P` panels, in tiles of nearly equal height.
    #[inline(always)]
    fn rows_of_panels<I: Isa, const P: usize, const AHEAD: bool>(&self, isa: I, panel: usize) {
        let tiles = self.c.rows().div_ceil(I::TILE_ROWS);
        if self.wide.is_some() && tiles > 1 {
            self.tiles_of_panels::<I, P, AHEAD, WIDENING>(isa, panel, 0..1, tiles);
            self.tiles_of_panels::<I, P, false, WIDENED>(isa, panel, 1..tiles, tiles);
        } else {
            self.tiles_of_panels::<I, P, AHEAD, INTEGERS>(isa, panel, 0..tiles, tiles);
        }
    }

    /// Multiplies some of the tiles of rows, of `of` altogether, by `P` panels.
    #[inline(always)]
    fn tiles_of_panels<I: Isa, const P: usize, const AHEAD: bool, const FROM: u8>(
        &self,
        isa: I,
        panel: usize,
        tiles: Range<usize>,
        of: usize,
    ) {
        let rows = self.c.rows();
        for i in tiles {
            let (row, end) = (rows * i / of, rows * (i + 1) / of);
            // SAFETY: inside the checked product; no tile is higher than `TILE_ROWS`.
            unsafe {
                match end - row {
                    1 => self.tile::<I, 1, P, AHEAD, FROM>(isa, row, panel),
                    2 => self.tile::<I, 2, P, AHEAD, FROM>(isa, row, panel),
                    3 => self.tile::<I, 3, P, AHEAD, FROM>(isa, row, panel),
                    4 => self.tile::<I, 4, P, AHEAD, FROM>(isa, row, panel),
                    5 if I::TILE_ROWS >= 5 => self.tile::<I, 5, P, AHEAD, FROM>(isa, row, panel),
                    6 if I::TILE_ROWS >= 6 => self.tile::<I, 6, P, AHEAD, FROM>(isa, row, panel),
                    7 if I::TILE_ROWS >= 7 => self.tile::<I, 7, P, AHEAD, FROM>(isa, row, panel),
                    8 if I::TILE_ROWS >= 8 => self.tile::<I, 8, P, AHEAD, FROM>(isa, row, panel),
                    _ => {}
                }
            }
        }
    }

    /// Multiplies `M` rows by `P` panels, group after group.
    ///
    /// # Safety
    /// Rows `row..row + M` and panels `panel..panel + P` must lie inside the product, which was [checked](Self::check).
    #[inline(always)]
    unsafe fn tile<I: Isa, const M: usize, const P: usize, const AHEAD: bool, const FROM: u8>(
        &self,
        isa: I,
        row: usize,
        panel: usize,
    ) {
        for group in self.groups.clone() {
            // SAFETY: as above; the group is one of the layout.
            unsafe { self.group::<I, M, P, AHEAD, FROM>(isa, (row, panel), group) };
        }
    }

    /// Multiplies `M` rows by `P` panels over a group, or the part of it that is to be multiplied.
    ///
    /// # Safety
    /// As [`Self::tile`].
    #[inline(always)]
    unsafe fn group<I: Isa, const M: usize, const P: usize, const AHEAD: bool, const FROM: u8>(
        &self,
        isa: I,
        (row, panel): (usize, usize),
        group: usize,
    ) {
        let whole = self.layout.inputs(group);
        let inputs = whole.start.max(self.inputs.start)..whole.end.min(self.inputs.end);
        let (panel_bytes, line_bytes) = (self.layout.panel_bytes(), const { Q::PACKING.line_bytes() });
        // SAFETY: the tile lies inside the operands, and the group inside the panels; a prefetch may name any address.
        unsafe {
            let a = self.a.as_ptr().add(row * self.a_stride + inputs.start);
            let of_group = self.w.as_ptr().add(panel * panel_bytes + self.layout.at(group));
            let mut w = of_group.add((inputs.start - whole.start) / LINE * line_bytes);
            let mut sums = [[isa.splat(0.0); P]; M];
            if inputs.start > whole.start {
                for m in 0..M {
                    for p in 0..P {
                        sums[m][p] = isa.load(&*self.sums(row + m, panel + p));
                    }
                }
            }
            let (wide, wide_stride) = match &self.wide {
                Some(wide) => {
                    (wide.pointer(0, 0).add((inputs.start - self.first_input()) * PANEL), wide.stride())
                }
                None => (std::ptr::null_mut(), 0),
            };
            let lines = inputs.len() / LINE;
            for line in 0..lines {
                if AHEAD {
                    for p in 0..P {
                        for ahead in (0..line_bytes).step_by(LINE_BYTES) {
                            prefetch_line(w.wrapping_add(p * panel_bytes + AHEAD_BYTES + ahead));
                        }
                    }
                }
                if FROM == WIDENED && (line * LINE).is_multiple_of(PANEL) {
                    // The rows of the next tile, which many rows push out of the first-level cache.
                    for m in M..2 * M {
                        prefetch_line(a.wrapping_add(m * self.a_stride + line * LINE).cast());
                    }
                }
                let wide = (wide.wrapping_add(line * LINE * PANEL), wide_stride);
                self.line::<I, M, P, FROM>(isa, (a.add(line * LINE), w), wide, LINE, &mut sums);
                w = w.add(line_bytes);
            }
            let rest = inputs.len() % LINE;
            if rest > 0 {
                let wide = (wide.wrapping_add(lines * LINE * PANEL), wide_stride);
                self.line::<I, M, P, FROM>(isa, (a.add(lines * LINE), w), wide, rest, &mut sums);
            }
            let ends = inputs.end == whole.end;
            let scales = of_group.add(self.layout.integer_bytes(whole.len()));
            for p in 0..P {
                let scale =
                    isa.load(&bytemuck::cast(*scales.add(p * panel_bytes).cast::<[[u8; 4]; PANEL]>()));
                for m in 0..M {
                    let to = self.sums(row + m, panel + p);
                    let total = if group == 0 { isa.splat(0.0) } else { isa.load(&*to) };
                    let sum = if ends { sums[m][p].mul_add(scale, total) } else { sums[m][p] };
                    sum.store(&mut *to);
                }
            }
        }
    }

    /// Adds the products of up to eight inputs with a line of each panel. The inputs are those of the tile rows, which
    /// begin at `a`. The first line is at `w`. The widened numbers of the first panel begin at `wide`.
    ///
    /// # Safety
    /// As [`Self::tile`]; the rows and the line must hold the inputs, and `wide` unless `FROM` is [`INTEGERS`].
    #[inline(always)]
    unsafe fn line<I: Isa, const M: usize, const P: usize, const FROM: u8>(
        &self,
        isa: I,
        (a, w): (*const f32, *const u8),
        (wide, wide_stride): (*mut f32, usize),
        inputs: usize,
        sums: &mut [[I::Vector; P]; M],
    ) {
        let panel_bytes = self.layout.panel_bytes();
        // SAFETY: the operands hold the line by the caller's promise.
        unsafe {
            let mut cursors = [Q::open(isa, w); P];
            for p in 1..P {
                cursors[p] = Q::open(isa, w.add(p * panel_bytes));
            }
            for k in 0..inputs {
                let mut weights = [isa.splat(0.0); P];
                for p in 0..P {
                    let wide = wide.wrapping_add(p * wide_stride + k * PANEL).cast();
                    weights[p] =
                        if FROM == WIDENED { isa.load(&*wide) } else { Q::next(isa, &mut cursors[p]) };
                    if FROM == WIDENING {
                        weights[p].store(&mut *wide);
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
    }

    /// Returns a pointer to the sums of a row and panel.
    #[inline(always)]
    fn sums(&self, row: usize, panel: usize) -> *mut [f32; PANEL] {
        self.c.pointer(row, panel * PANEL).cast()
    }
}
