//! Data on the device: activations, vectors, the embedding table.

use std::ffi::c_void;

use super::kv::KvCache;
use super::linear::Linear;
use super::memory::Buffer;
use super::tensor::{Element, Operand, View};

/// A vector on the device.
pub struct Vector {
    pub(super) buffer: Buffer,
    pub(super) len: usize,
}

/// The embedding table.
pub struct Table {
    pub(super) buffer: Buffer,
    pub(super) rows: usize,
    pub(super) width: usize,
}

// SAFETY: memory of the device and descriptions of it, used by whichever thread owns the value; see `Ascend`.
unsafe impl Send for Vector {}
// SAFETY: see `Vector`.
unsafe impl Send for Table {}
// SAFETY: see `Vector`.
unsafe impl Send for Linear {}
// SAFETY: see `Vector`.
unsafe impl Send for KvCache {}
// SAFETY: see `Vector`.
unsafe impl Send for Activation {}

/// Rows of elements on the device.
pub struct Activation {
    pub(super) memory: Buffer,
    pub(super) max_rows: usize,
    pub(super) width: usize,
    pub(super) rows: usize,
    /// Elements from row to row.
    pub(super) stride: usize,
    /// Byte offset of the by-product of a norm.
    pub(super) rstd: usize,
    /// Byte offsets of keys, values and padded results in `[q | k | v]`. Each part has contiguous rows.
    pub(super) parts: Option<[usize; 3]>,
}

impl Activation {
    pub(super) fn set_rows(&mut self, rows: usize, stride: usize) {
        assert!(rows <= self.max_rows, "invariant: {rows} rows fit the activation's {}", self.max_rows);
        (self.rows, self.stride) = (rows, stride);
    }

    pub(super) fn view(&self, element: Element) -> View {
        View::matrix(self.memory.at(0), element, self.rows, self.width, self.stride)
    }

    pub(super) fn operand(&self, element: Element) -> Operand {
        Operand { view: self.view(element), id: self.memory.id }
    }

    pub(super) fn parts(&self) -> [*mut c_void; 4] {
        let [key, value, out] =
            self.parts.expect("invariant: the activation is one of queries, keys and values");
        [0, key, value, out].map(|offset| self.memory.at(offset))
    }

    pub(super) fn key(&self, other: u64, third: u64) -> [u64; 4] {
        [self.memory.id, other, third, self.rows as u64]
    }
}
