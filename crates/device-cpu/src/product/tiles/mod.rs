//! Tile products: the arithmetic of Intel's AMX for bf16, and for fp16 split into two bf16 parts. And that of AVX-512
//! BF16, which multiplies the same tiles in another order ([`mod@pairs`]).
//!
//! A tile has sixteen rows of 64 bytes. `TDPBF16PS` adds to `c[16, 16]` (fp32) the product of `a[16, 32]` and `b[32,
//! 16]` (bf16). `b` stores the two `k` of a pair side by side. For each output it sums the even `k` and the odd `k`
//! separately, by fused multiply-adds. Then it adds the two sums to each other and to `c`. Subnormal numbers count as
//! zero on input and output. Rounding is to nearest, whatever the control register says (Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 2, TDPBF16PS). A row of `c` depends only on the same row of `a`,
//! so the order of summation is the same for any number of rows. It differs from that of the vector kernels, so the
//! tiles are a kernel family of their own.
//!
//! fp16 has eleven significant bits and bf16 eight, so `x = high + low` with both parts in bf16 is exact. `high` is `x`
//! rounded to nearest; `low` is at most `2^-8 x`, of either sign. Products of the parts are exact in fp32. Three of
//! them are summed: high by high, low by high and high by low. The fourth is left out. It is at most `2^-16` of the
//! product, and its sign is as often positive as negative. Over thousands of products this loses as much as the fp32
//! sum loses by its own rounding. It is about a hundredth of what rounding the result to fp16 loses. (fp16's infinities
//! become NaN: `low` is infinity minus infinity.)
//!
//! Few rows wait for memory, and vectors read it faster than these tile loops. So vectors multiply them, with the same
//! bits ([`mod@few_rows`]).
//!
//! [`mod@reference`] computes the same bits in plain Rust. The tests of both families use it on machines without their
//! instructions.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx_int8;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx_loops;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod few_rows;
mod integers;
mod layer;
mod macro_kernel;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod pairs;
mod reference;
mod reference_int8;

use glmbench_device::DType;

use crate::pack::{TILE_BYTES, TILE_ROWS};
use crate::simd::amx::Amx;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::simd::{Avx512, Avx512Bf16, Avx512Vnni, amx::found};

pub(crate) use self::integers::{INTEGER_BYTES, WEIGHT_PARTS};
pub(crate) use self::layer::TileLayers;
pub(crate) use self::macro_kernel::{
    BLOCK_BYTES, BLOCK_ROWS, Layer, Layout, MacroKernel, ROOM_SUMS, blocks_of_rows,
};

/// Panels of a [`Shape::Narrow`] product.
pub(crate) const NARROW: usize = 4;
/// Panels, and blocks of rows, of a [`Shape::Wide`] product.
pub(crate) const WIDE: usize = 2;

/// Rows up to which a wide product covers the whole depth, while the panels of the next one come from memory. More rows
/// are worth the traffic of sums: their panels stay in L1 over a block of depth.
const STREAMED_ROWS: usize = 96;

/// How a product uses the tile registers. The configuration is the same for [`Self::Narrow`] with sixteen rows and for
/// [`Self::Wide`], and for every number type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Up to sixteen rows by four panels; `c` is `[16, 64]`.
    Narrow {
        /// Rows in use.
        rows: usize,
    },
    /// Thirty-two rows by two panels; `c` is `[32, 32]`.
    Wide,
}

impl Shape {
    /// Returns the shape for a product of `rows` rows, or for part of it.
    pub(crate) fn of(rows: usize) -> Self {
        if rows <= TILE_ROWS { Self::Narrow { rows } } else { Self::Wide }
    }

    /// Returns the number of panels.
    pub(crate) fn panels(self) -> usize {
        match self {
            Self::Narrow { .. } => NARROW,
            Self::Wide => WIDE,
        }
    }

    /// Returns the rows of a tile.
    fn tile_rows(self) -> usize {
        match self {
            Self::Narrow { rows } => rows,
            Self::Wide => TILE_ROWS,
        }
    }

    /// Returns the number of rows of `c`.
    pub(crate) fn rows(self) -> usize {
        match self {
            Self::Narrow { .. } => TILE_ROWS,
            Self::Wide => WIDE * TILE_ROWS,
        }
    }
}

/// `c += a * b` over `tiles` tiles of depth. Each of them is stored as one tile per part of a number: high, low.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileProduct<C = f32> {
    /// The blocks of rows and the panels in use.
    pub(crate) shape: Shape,
    /// The blocks of rows, in tile order.
    pub(crate) a: [*const u8; WIDE],
    /// The panels, in tile order. Of a wide product, the last two are what is prefetched.
    pub(crate) b: [*const u8; NARROW],
    /// Lines of each of the last two `b` that a wide product prefetches into L2 per tile of depth; 0 for none.
    pub(crate) ahead_lines: usize,
    /// Number of tiles of depth.
    pub(crate) tiles: usize,
    /// Whether the sums begin at zero instead of at the contents of `c`.
    pub(crate) fresh: bool,
    /// The sums; integer sums wrap.
    pub(crate) c: *mut C,
}

/// The tile register configuration of this thread: only [`TileUnit::configure`] makes one, and [`TileUnit::release`]
/// takes it. It serves all units that use the registers, and those in plain Rust.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Configured {
    /// Rows of a tile.
    rows: usize,
    /// Whether registers were configured, or only a unit in plain Rust needed none.
    registers: bool,
}

impl Configured {
    /// Returns whether products of a shape may use this configuration.
    pub(crate) fn serves(&self, shape: Shape) -> bool {
        self.rows == shape.tile_rows()
    }
}

/// A product of few rows with panels as stored, which it converts on the way. It begins at zero, and the second argument is
/// its workspace.
type FromStored<C> = unsafe fn(&TileProduct<C>, &mut [u8]);

/// A product of few rows by vectors, with the same bits. It takes panels as stored.
#[derive(Debug, Clone, Copy)]
struct FewRows<C> {
    /// The largest number of rows.
    most: usize,
    /// The product of a [`Shape::Narrow`]. Its contract is that of [`TileUnit::multiply`], or of
    /// [`TileUnit::multiply_stored`] for numbers in parts.
    multiply: unsafe fn(&TileProduct<C>),
}

/// A product in the tile registers, for one kind of numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileUnit<C = f32> {
    /// The tile registers; `None` if the product does not use them.
    registers: Option<Amx>,
    /// Tiles per tile of rows, and per tile of a panel: the parts of the numbers.
    parts: [usize; 2],
    multiply: unsafe fn(&TileProduct<C>),
    /// The product of few rows with stored panels, for numbers in several parts.
    from_stored: Option<FromStored<C>>,
    /// The product by vectors, if they are faster for few rows.
    few_rows: Option<FewRows<C>>,
}

impl<C> TileUnit<C> {
    /// Creates a unit that uses the tile registers if there are some, for any number of rows.
    const fn new(registers: Option<Amx>, parts: [usize; 2], multiply: unsafe fn(&TileProduct<C>)) -> Self {
        Self { registers, parts, multiply, from_stored: None, few_rows: None }
    }

    /// Returns the product by vectors if the shape has few enough rows.
    fn few_rows(&self, shape: Shape) -> Option<unsafe fn(&TileProduct<C>)> {
        let few =
            self.few_rows.as_ref().filter(|few| matches!(shape, Shape::Narrow { rows } if rows <= few.most));
        few.map(|few| few.multiply)
    }

    /// Returns whether a product of a shape covers the whole depth, because it prefetches its panels, or the next ones.
    pub(crate) fn takes_whole_depth(&self, shape: Shape, rows: usize) -> bool {
        match shape {
            Shape::Narrow { .. } => self.parts == [1; 2] || self.takes_stored(shape),
            Shape::Wide => self.parts == [1; 2] && self.registers.is_some() && rows <= STREAMED_ROWS,
        }
    }

    /// Returns whether a product of a shape takes its panels as stored, and converts them on the way.
    pub(crate) fn takes_stored(&self, shape: Shape) -> bool {
        let in_parts = self.parts != [1; 2] && shape != Shape::Wide;
        in_parts && (self.from_stored.is_some() || self.few_rows(shape).is_some())
    }

    /// Returns the size of a tile of rows with its parts, in bytes.
    pub(crate) fn row_bytes(&self) -> usize {
        self.parts[0] * TILE_BYTES
    }

    /// Returns the size of a tile of a panel with its parts, in bytes.
    pub(crate) fn panel_bytes(&self) -> usize {
        self.parts[1] * TILE_BYTES
    }

    /// Configures the tile registers for a shape. The thread that multiplies must call this first.
    ///
    /// # Panics
    /// If the shape does not have one to sixteen rows, or thirty-two.
    pub(crate) fn configure(&self, shape: Shape) -> Configured {
        let rows = shape.tile_rows();
        assert!((1..=TILE_ROWS).contains(&rows), "invariant: a tile has one to sixteen rows");
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if let Some(registers) = self.registers {
            registers.configure(rows);
        }
        Configured { rows, registers: self.registers.is_some() }
    }

    /// Computes a product.
    ///
    /// # Panics
    /// If the registers are configured for another shape, or not at all although this unit needs them; if there is no
    /// tile of depth.
    ///
    /// # Safety
    /// This thread must have made the configuration. The product's pointers must be valid for the shape, the depth, and
    /// the sizes [`Self::row_bytes`] and [`Self::panel_bytes`].
    pub(crate) unsafe fn multiply(&self, configured: &Configured, product: &TileProduct<C>) {
        let ready = configured.registers || self.registers.is_none();
        assert!(ready && configured.serves(product.shape), "invariant: the registers hold the shape");
        assert!(product.tiles > 0, "invariant: a product has a tile of depth");
        let few_rows = self.few_rows(product.shape).filter(|_| self.parts == [1; 2]);
        // SAFETY: the caller's promise; the instructions are present, by `self.registers` or `self.few_rows`.
        unsafe { few_rows.unwrap_or(self.multiply)(product) };
    }

    /// Computes a product of few rows, from zero, with panels as stored. `workspace` holds a tile of each panel.
    ///
    /// # Panics
    /// As [`Self::multiply`]; also if the unit has no such product, or the sums do not begin at zero.
    ///
    /// # Safety
    /// As [`Self::multiply`], with the size of a stored tile for the panels.
    pub(crate) unsafe fn multiply_stored(
        &self,
        configured: &Configured,
        product: &TileProduct<C>,
        workspace: &mut [u8],
    ) {
        let ready = configured.registers || self.registers.is_none();
        assert!(ready && configured.serves(product.shape), "invariant: the registers hold the shape");
        assert!(product.tiles > 0 && product.fresh, "invariant: the sums begin at zero, and there is a tile");
        if let Some(multiply) = self.few_rows(product.shape) {
            // SAFETY: the caller's promise; the instructions are present, by `self.few_rows`.
            return unsafe { multiply(product) };
        }
        assert!(workspace.len() >= NARROW * self.panel_bytes(), "invariant: a tile of each panel fits");
        let multiply = self.from_stored.expect("invariant: the unit multiplies stored panels");
        // SAFETY: the caller's promise; the instructions are present, by `self.registers`.
        unsafe { multiply(product, workspace) };
    }

    /// Releases the tile registers.
    pub(crate) fn release(&self, _: Configured) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if let Some(registers) = self.registers {
            registers.release();
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        let _ = self.registers;
    }
}

/// The instruction set for the work around the tiles.
#[derive(Debug, Clone, Copy)]
enum Around {
    /// Plain Rust.
    Portable,
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Avx512(Avx512),
}

/// The tile kernels of one storage type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileKernels {
    /// Tiles per tile of numbers: 1 for bf16, 2 for fp16.
    pub(crate) parts: usize,
    /// The product of numbers of the type.
    pub(crate) unit: TileUnit,
    /// The product of rows in [`WEIGHT_PARTS`] parts with panels of integers in one part, the same for every type;
    /// `None` if vectors multiply integers.
    pub(crate) weighted_integers: Option<TileUnit>,
    around: Around,
}

impl TileKernels {
    /// Returns the reference kernels, in plain Rust; `None` for fp32, which tiles do not multiply.
    pub(crate) fn reference(dtype: DType) -> Option<Self> {
        let parts = parts_of(dtype)?;
        let weighted_integers = Some(TileUnit::new(None, [WEIGHT_PARTS, 1], integers::reference_product()));
        let unit = TileUnit::new(None, [parts; 2], reference::product(parts));
        Some(Self { parts, unit, weighted_integers, around: Around::Portable })
    }

    /// Returns the kernels on AMX; `None` for fp32, and if this machine has no AMX for bf16.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn amx(dtype: DType) -> Option<Self> {
        let parts = parts_of(dtype)?;
        let (registers, isa) = (found().ok().filter(|amx| amx.has_bf16())?, Avx512::detect()?);
        let registers = Some(registers);
        let weighted_integers = Some(TileUnit::new(registers, [WEIGHT_PARTS, 1], integers::AMX_PRODUCT));
        let unit = TileUnit::new(registers, [parts; 2], amx::product(parts));
        let few_rows = Some(FewRows::numbers(isa, parts));
        let unit = TileUnit { from_stored: amx::from_stored(isa, parts), few_rows, ..unit };
        Some(Self { parts, unit, weighted_integers, around: Around::Avx512(isa) })
    }

    /// Returns the reference kernels in the order of AVX-512 BF16; `None` for other types than bf16, which vectors
    /// multiply.
    pub(crate) fn reference_pairs(dtype: DType) -> Option<Self> {
        Self::of_pairs(dtype, reference::product_of_pairs(), Around::Portable)
    }

    /// Returns the kernels on AVX-512 BF16; `None` for other types, and if this machine does not have it.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn pairs(dtype: DType) -> Option<Self> {
        let isa = Avx512Bf16::detect()?;
        Self::of_pairs(dtype, pairs::product(isa), Around::Avx512(isa.avx512()))
    }

    fn of_pairs(dtype: DType, multiply: unsafe fn(&TileProduct), around: Around) -> Option<Self> {
        let unit = TileUnit::new(None, [1; 2], multiply);
        (dtype == DType::Bf16).then_some(Self { parts: 1, unit, weighted_integers: None, around })
    }

    /// Returns the kernels on AMX, which this machine cannot have.
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    pub(crate) fn amx(_dtype: DType) -> Option<Self> {
        None
    }

    /// Returns the kernels on AVX-512 BF16, which this machine cannot have.
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    pub(crate) fn pairs(_dtype: DType) -> Option<Self> {
        None
    }

    /// Packs row `row` of a block of sixteen. Writes the numbers, which the storage type must be able to hold, to the
    /// tiles of the block, followed by zeros.
    pub(crate) fn pack_row(&self, x: &[f32], block: &mut [u8], row: usize) {
        match (self.around, self.parts) {
            (Around::Portable, 1) => reference::pack_row::<1>(x, block, row),
            (Around::Portable, _) => reference::pack_row::<2>(x, block, row),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            (Around::Avx512(isa), 1) => amx::pack_row::<1>(isa, x, block, row),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            (Around::Avx512(isa), _) => amx::pack_row::<2>(isa, x, block, row),
        }
    }

    /// Packs row `row` of a block of sixteen into tiles of [`WEIGHT_PARTS`] parts: each weight times its scale. There
    /// are as many of both, a multiple of the depth of a tile.
    pub(crate) fn pack_weights(&self, weights: &[f32], scales: &[f32], block: &mut [u8], row: usize) {
        match self.around {
            Around::Portable => integers::reference_pack_row(weights, scales, block, row),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Around::Avx512(isa) => integers::amx_pack_row(isa, weights, scales, block, row),
        }
    }

    /// Returns how stored weights and values become tiles; `None` if they are multiplied as stored.
    pub(crate) fn unpack(&self) -> Option<Unpack> {
        (self.parts > 1).then_some(Unpack { around: self.around, from: Stored::Fp16 })
    }

    /// Returns how tiles of integers become tiles of bf16.
    pub(crate) fn unpack_integers(&self) -> Unpack {
        Unpack { around: self.around, from: Stored::Int8 }
    }
}

/// Returns the number of bf16 parts of a number; `None` for fp32.
fn parts_of(dtype: DType) -> Option<usize> {
    match dtype {
        DType::Fp32 => None,
        DType::Bf16 => Some(1),
        DType::Fp16 => Some(2),
    }
}

/// Returns the integer product of tiles in plain Rust.
pub(crate) fn reference_int8() -> TileUnit<i32> {
    TileUnit::new(None, [1; 2], reference_int8::multiply)
}

/// Returns the reference with the vectors that multiply few rows on AMX; `None` if this machine does not have them.
#[cfg(test)]
pub(crate) fn few_rows_int8() -> Option<TileUnit<i32>> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let few_rows = Some(FewRows::integers(Avx512Vnni::detect()?));
        Some(TileUnit { few_rows, ..reference_int8() })
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    None
}

/// Returns the integer product on AMX; `None` if this machine does not have it.
pub(crate) fn amx_int8() -> Option<TileUnit<i32>> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let registers = found().ok().filter(|amx| amx.has_int8())?;
        let unit = TileUnit::new(Some(registers), [1; 2], amx_int8::multiply);
        Some(TileUnit { few_rows: Avx512Vnni::detect().map(FewRows::integers), ..unit })
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    None
}

/// What stored tiles hold if they are not multiplied as stored.
#[derive(Debug, Clone, Copy)]
enum Stored {
    /// fp16, split into two parts of bf16.
    Fp16,
    /// Integers, each exact in bf16.
    Int8,
}

/// Converts stored tiles to the tiles that are multiplied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unpack {
    around: Around,
    from: Stored,
}

impl Unpack {
    /// Converts whole tiles. `out` holds as many tiles of each part.
    pub(crate) fn run(self, stored: &[u8], out: &mut [u8]) {
        match (self.around, self.from) {
            (Around::Portable, Stored::Fp16) => reference::split(stored, out),
            (Around::Portable, Stored::Int8) => integers::reference_widen(stored, out),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            (Around::Avx512(isa), Stored::Fp16) => amx::split(isa, stored, out),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            (Around::Avx512(isa), Stored::Int8) => integers::amx_widen(isa, stored, out),
        }
    }
}

/// The bits of an fp32 that bf16 keeps.
const HIGH: u32 = 0xFFFF_0000;
/// Half of the last bit of [`HIGH`]. Adding it before truncation rounds to nearest, ties away from zero.
const HALF: u32 = 0x8000;

#[cfg(test)]
mod tests;
